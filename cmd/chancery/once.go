package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

// revocationSeen is how long playOnce waits for a revocation to be on the CRL.
const revocationSeen = 10 * time.Second

// playOnce does the main job as a user would, over the network: a request goes in, a certificate comes out, its chain and the CRL are
// fetched and verified, OCSP says that it is good, it is revoked, and CRL and OCSP say so.
func (a *app) playOnce(ctx context.Context, d devFile, say func(step, format string, args ...any)) error {
	roots, err := readRoots(d.CABundle)
	if err != nil {
		return err
	}
	requester, err := client.New(client.Config{BaseURL: d.API, Token: d.Tokens[string(access.Requester)], CAFile: d.CABundle})
	if err != nil {
		return err
	}
	revoker, err := client.New(client.Config{BaseURL: d.API, Token: d.Tokens[string(access.Revoker)], CAFile: d.CABundle})
	if err != nil {
		return err
	}

	defer requester.Close()
	defer revoker.Close()

	key, err := ecdsa.GenerateKey(elliptic.P256(), a.Random)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	request, err := newCSR(a.Random, key, []string{"once.dev.example"})
	if err != nil {
		return err
	}
	issued, err := requester.Request(ctx, client.RequestInput{Profile: "tls-server", CSR: request})
	if err != nil {
		return fmt.Errorf("requesting a certificate: %w", err)
	}
	say("issued", "serial %s, by %s", issued.Serial, issued.Issuer)

	chain, err := parseChain(issued.Chain)
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: "once.dev.example", CurrentTime: a.Now()}); err != nil {
		return fmt.Errorf("verifying the chain: %w", err)
	}
	say("verified", "chain of %d certificates up to the root", len(chain)+1)

	crl, err := a.fetchCRL(ctx, chain[0], chain[1])
	if err != nil {
		return err
	}
	if revokedIn(crl, chain[0]) {
		return errors.New("a certificate just issued is on the CRL")
	}
	say("crl", "number %s, %d entries, the new certificate is not on it", crl.Number, len(crl.RevokedCertificateEntries))

	if err := a.expectOCSP(ctx, chain, "good"); err != nil {
		return err
	}
	began := a.Now()
	if _, err := revoker.Revoke(ctx, client.RevokeInput{Serial: issued.Serial, Reason: "superseded"}); err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	deadline, cancel := context.WithTimeout(ctx, revocationSeen)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !revokedIn(crl, chain[0]) {
		select {
		case <-deadline.Done():
			return fmt.Errorf("the revocation is not on the CRL after %s", revocationSeen)
		case <-tick.C:
		}
		if crl, err = a.fetchCRL(deadline, chain[0], chain[1]); err != nil {
			return err
		}
	}
	say("revoked", "on CRL %s after %s", crl.Number, a.Now().Sub(began).Round(time.Millisecond))

	if err := a.expectOCSP(ctx, chain, "revoked"); err != nil {
		return err
	}
	if len(chain[0].OCSPServer) > 0 {
		say("ocsp", "good before, revoked now, by %s", chain[0].OCSPServer[0])
	}

	again, err := requester.Get(ctx, issued.Serial, "")
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	if again.Status != "revoked" {
		return fmt.Errorf("the API says %q of a revoked certificate", again.Status)
	}
	say("done", "request, certificate, chain, CRL, OCSP, revocation: all as they should be")
	return nil
}

// expectOCSP asks, by GET and by POST, what the certificate's responder says, until it is as it should be. The hierarchy of an older home
// offers no OCSP.
func (a *app) expectOCSP(ctx context.Context, chain []*x509.Certificate, status string) error {
	if len(chain[0].OCSPServer) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, revocationSeen)
	defer cancel()
	for _, get := range []bool{true, false} {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			said, err := a.askOCSP(ctx, chain[0], chain[1], ocspCheckOptions{get: get})
			if err != nil {
				return err
			}
			if said.Status == status {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("OCSP says %s of a certificate that is %s, after %s", said.Status, status, revocationSeen)
			case <-tick.C:
			}
		}
	}
	return nil
}

// fetchCRL fetches the CRL from where the certificate says, and verifies it.
func (a *app) fetchCRL(ctx context.Context, certificate, issuer *x509.Certificate) (*x509.RevocationList, error) {
	if len(certificate.CRLDistributionPoints) != 1 {
		return nil, errors.New("the certificate does not say where its CRL is")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, certificate.CRLDistributionPoints[0], nil)
	if err != nil {
		return nil, fmt.Errorf("fetching the CRL: %w", err)
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetching the CRL: %w", err)
	}
	defer response.Body.Close()
	der, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching the CRL: status %d: %w", response.StatusCode, err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL: %w", err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("verifying the CRL: %w", err)
	}
	return list, nil
}

func revokedIn(list *x509.RevocationList, certificate *x509.Certificate) bool {
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

func readRoots(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CA bundle: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bytes.TrimSpace(data)) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return roots, nil
}
