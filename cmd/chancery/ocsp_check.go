package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ocsp"

	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/revocation"
)

// maxOCSPResponse is the longest OCSP response that is read, in octets.
const maxOCSPResponse = 1 << 20

func (a *app) ocspCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ocsp", Short: "Ask OCSP responders"}
	cmd.AddCommand(a.ocspCheckCommand())
	return cmd
}

type ocspCheckOptions struct {
	issuer, url string
	get, sha256 bool
	timeout     time.Duration
}

func (a *app) ocspCheckCommand() *cobra.Command {
	var o ocspCheckOptions
	cmd := &cobra.Command{
		Use:   "check CERTIFICATE",
		Short: "Ask whether a certificate is good, revoked or unknown, and verify the answer",
		Long: `Ask the OCSP responder that a certificate names whether it is good, revoked or unknown, and verify the answer (RFC 6960).

CERTIFICATE is a PEM file with the certificate and, unless --issuer is given, its issuer after it, as chancery request and chancery get
write them. It exits with 1 unless the certificate is good.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ocspCheck(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.issuer, "issuer", "", "PEM file with the issuer's certificate (default: the second in CERTIFICATE)")
	cmd.Flags().StringVar(&o.url, "url", "", "the responder (default: what the certificate says)")
	cmd.Flags().BoolVar(&o.get, "get", false, "ask by GET, as caches like it (default: by POST)")
	cmd.Flags().BoolVar(&o.sha256, "sha256", false, "name the certificate with SHA-256 (default: SHA-1, which every responder knows)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long the responder is waited for")
	return cmd
}

// ocspResult is what a responder says of a certificate.
type ocspResult struct {
	Serial     string     `json:"serial"`
	Status     string     `json:"status"`
	Reason     string     `json:"reason,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	ProducedAt time.Time  `json:"produced_at"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate time.Time  `json:"next_update"`
	URL        string     `json:"url"`
	Responder  string     `json:"responder"` // the subject of its certificate, or "the issuer"
}

func (a *app) ocspCheck(ctx context.Context, path string, o ocspCheckOptions) error {
	first, second, err := readPair(path, o.issuer)
	if err != nil {
		return err
	}
	certificate, err := parseCertificate(first)
	if err != nil {
		return err
	}
	issuer, err := parseCertificate(second)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	result, err := a.askOCSP(ctx, certificate, issuer, o)
	if err != nil {
		return err
	}
	if err := a.print(result, func(w io.Writer) { result.write(w) }); err != nil {
		return err
	}
	if result.Status != issuance.OCSPGood.String() {
		return fmt.Errorf("the certificate is not good: the responder says %s", result.Status)
	}
	return nil
}

// askOCSP asks a responder once, and verifies what it says: the signature, that the answer is about the certificate, and that it holds now.
func (a *app) askOCSP(ctx context.Context, certificate, issuer *x509.Certificate, o ocspCheckOptions) (ocspResult, error) {
	url := o.url
	if url == "" {
		if len(certificate.OCSPServer) == 0 {
			return ocspResult{}, errors.New("the certificate names no OCSP responder; give one with --url")
		}
		url = certificate.OCSPServer[0]
	}
	hash := crypto.SHA1
	if o.sha256 {
		hash = crypto.SHA256
	}
	request, err := ocsp.CreateRequest(certificate, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		return ocspResult{}, fmt.Errorf("writing the OCSP request: %w", err)
	}
	der, err := sendOCSP(ctx, url, request, o.get)
	if err != nil {
		return ocspResult{}, fmt.Errorf("asking %s: %w", url, err)
	}
	response, err := revocation.ReadOCSP(der, certificate, issuer, a.Now(), 5*time.Minute)
	if err == nil && response.NextUpdate.IsZero() {
		err = errors.New("it does not say until when it holds")
	}
	if err != nil {
		return ocspResult{}, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return newOCSPResult(url, certificate, response), nil
}

func newOCSPResult(url string, certificate *x509.Certificate, response *ocsp.Response) ocspResult {
	result := ocspResult{
		Serial: fmt.Sprintf("%x", certificate.SerialNumber), Status: issuance.OCSPStatus(response.Status).String(), URL: url, Responder: "the issuer",
		ProducedAt: response.ProducedAt, ThisUpdate: response.ThisUpdate, NextUpdate: response.NextUpdate,
	}
	if response.Certificate != nil {
		result.Responder = response.Certificate.Subject.String()
	}
	if response.Status == ocsp.Revoked {
		result.Reason, result.RevokedAt = issuance.Reason(response.RevocationReason).String(), &response.RevokedAt
	}
	return result
}

func sendOCSP(ctx context.Context, url string, request []byte, get bool) ([]byte, error) {
	method, body := http.MethodPost, io.Reader(bytes.NewReader(request))
	if get {
		escape := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D")
		method, url, body = http.MethodGet, strings.TrimSuffix(url, "/")+"/"+escape.Replace(base64.StdEncoding.EncodeToString(request)), nil
	}
	call, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if !get {
		call.Header.Set("Content-Type", "application/ocsp-request")
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(call)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	der, err := io.ReadAll(io.LimitReader(response.Body, maxOCSPResponse))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return der, err
}

func (r ocspResult) write(w io.Writer) {
	fmt.Fprintf(w, "serial       %s\nstatus       %s\n", r.Serial, r.Status)
	if r.RevokedAt != nil {
		fmt.Fprintf(w, "revoked at   %s\nreason       %s\n", r.RevokedAt.Format(time.RFC3339), r.Reason)
	}
	fmt.Fprintf(w, "known at     %s\nholds until  %s\nresponder    %s, %s\n", r.ThisUpdate.Format(time.RFC3339), r.NextUpdate.Format(time.RFC3339),
		r.Responder, r.URL)
}
