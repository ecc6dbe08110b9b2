package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
	"golang.org/x/sync/errgroup"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// offerOCSP has the replicas of a stack answer OCSP with a key of their own, and returns its name in the token.
func (s *stack) offerOCSP() hsm.KeyRef {
	s.t.Helper()
	token := s.token.Open(s.t)
	ref, public, err := token.GenerateKey(s.t.Context(), hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: devResponderLabel, Usages: []hsm.Usage{hsm.UseSign}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		s.t.Fatal(err)
	}
	text, err := publicKeyPEM(public)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, devResponderLabel+".pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.more += fmt.Sprintf("ocsp: [{authority: %s, public_key: %q, label: %s}]\n", devIssuer, path, devResponderLabel)
	return ref
}

// subjects are an issued certificate and its issuer.
type subjects struct{ leaf, issuer *x509.Certificate }

func (r *replica) newSubject(t testing.TB, name string) subjects {
	t.Helper()
	issued, got, err := r.issue(t.Context(), name, nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	chain, err := parseChain(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return subjects{chain[0], chain[1]}
}

// askOCSP sends one request by a method, and returns the answer's octets.
func (r *replica) askOCSP(ctx context.Context, method string, request []byte) (answer, error) {
	url, body := r.distribution+"/ocsp/"+devIssuer, io.Reader(bytes.NewReader(request))
	if method == http.MethodGet {
		url, body = url+"/"+strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(request)), nil
	}
	call, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	call.Header.Set("Content-Type", "application/ocsp-request")
	response, err := r.s.client.Do(call)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, read}, err
}

// status is what a replica says of a certificate, as Go reads it.
func (r *replica) status(ctx context.Context, method string, hash crypto.Hash, of subjects) (*ocsp.Response, error) {
	request, err := ocsp.CreateRequest(of.leaf, of.issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		return nil, err
	}
	got, err := r.askOCSP(ctx, method, request)
	if err != nil {
		return nil, err
	}
	return ocsp.ParseResponseForCert(got.body, of.leaf, of.issuer)
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Programs that we did not write agree on what is good, revoked and unknown: openssl, ocsptool and Go's x/crypto/ocsp, by GET and by POST, with
// SHA-1 and with SHA-256, with a nonce and without. So they do where the authority's own key answers.
func TestOCSPClientsAgree(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"delegated", "direct"} {
		t.Run(mode, func(t *testing.T) {
			s := newStack(t, storagetest.New(t), false)
			if mode == "direct" {
				s.more = fmt.Sprintf("ocsp: [{authority: %s, validity: 8h}]\n", devIssuer)
			} else {
				s.offerOCSP()
			}
			agree(t, s, s.start("ocsp", s.token.Module), mode == "direct")
		})
	}
}

func agree(t *testing.T, s *stack, r *replica, direct bool) {
	good, revoked, held := r.newSubject(t, "good.dev.example"), r.newSubject(t, "revoked.dev.example"), r.newSubject(t, "held.dev.example")
	unknown := subjects{forged(t, good.issuer), good.issuer}
	if got := good.leaf.OCSPServer; !slices.Equal(got, []string{"http://127.0.0.1:9/ocsp/" + devIssuer}) {
		t.Errorf("the certificate says that its OCSP responder is at %q", got)
	}
	r.mustRevoke(t.Context(), t, hexSerial(revoked.leaf), "keyCompromise")
	r.mustRevoke(t.Context(), t, hexSerial(held.leaf), "certificateHold")
	dir := fetched{t: t, dir: t.TempDir()}
	issuer := dir.keep("issuer.pem", certificatePEM(good.issuer))
	root, err := os.ReadFile(s.root())
	if err != nil {
		t.Fatal(err)
	}
	anchors := dir.keep("anchors.pem", append(certificatePEM(good.issuer), root...))
	url := r.distribution + "/ocsp/" + devIssuer
	for name, c := range map[string]struct {
		of     subjects
		want   int
		word   string
		reason int
	}{
		"good": {good, ocsp.Good, "good", 0}, "revoked": {revoked, ocsp.Revoked, "revoked", ocsp.KeyCompromise},
		"held": {held, ocsp.Revoked, "revoked", ocsp.CertificateHold}, "unknown": {unknown, ocsp.Unknown, "unknown", 0},
	} {
		serial := fmt.Sprintf("0x%x", c.of.leaf.SerialNumber)
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
				read, err := r.status(t.Context(), method, hash, c.of)
				if err != nil || read.Status != c.want || c.want == ocsp.Revoked && read.RevocationReason != c.reason {
					t.Errorf("%s by %s: Go reads %+v, %v", name, method, read, err)
				}
			}
		}
		for _, options := range [][]string{{"-no_nonce"}, {"-nonce"}, {"-sha256", "-no_nonce"}} {
			request, response := dir.path(name+".req"), dir.path(name+".resp")
			hash := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return !strings.HasPrefix(o, "-sha") })
			nonce := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return strings.HasPrefix(o, "-sha") })
			args := append([]string{"ocsp", "-CAfile", s.root(), "-issuer", issuer, "-url", url, "-reqout", request}, nonce...)
			args = append(append(args, hash...), "-serial", serial)
			if out, err := command(t, "openssl", args...); err != nil || !strings.Contains(out, ": "+c.word) || !strings.Contains(out, "Response verify OK") ||
				strings.Contains(out, "WARNING") {
				t.Errorf("%s: openssl %v: %v\n%s", name, options, err, out)
			}
			// What openssl asks, sent by GET, and what comes back, given to openssl.
			got, err := r.askOCSP(t.Context(), http.MethodGet, dir.read(filepath.Base(request)))
			if err != nil || got.status != http.StatusOK {
				t.Fatalf("%s: GET: %d, %v", name, got.status, err)
			}
			dir.keep(filepath.Base(response), got.body)
			args = append([]string{"ocsp", "-CAfile", s.root(), "-issuer", issuer, "-no_nonce", "-reqin", request, "-respin", response}, hash...)
			if out, err := command(t, "openssl", append(args, "-serial", serial)...); err != nil || !strings.Contains(out, ": "+c.word) {
				t.Errorf("%s: openssl by GET: %v\n%s", name, err, out)
			}
		}
		leaf := dir.keep(name+".pem", certificatePEM(c.of.leaf))
		for _, nonce := range []string{"--nonce", "--no-nonce"} {
			args := []string{"--ask=" + url, "--load-cert", leaf, "--load-issuer", issuer}
			if direct {
				args = append(args, "--load-signer", issuer)
			} else {
				args = append(args, "--load-trust", anchors)
			}
			if nonce == "--nonce" {
				args = append(args, nonce)
			}
			out, err := command(t, "ocsptool", args...)
			if err != nil || !strings.Contains(out, "Certificate Status: "+c.word) || !strings.Contains(out, "Success") {
				t.Errorf("%s: ocsptool %s: %v\n%s", name, nonce, err, out)
			}
		}
	}
	r.release(t, held)
}

// forged is a certificate that the issuer has never issued, as somebody else would make it.
func forged(t *testing.T, issuer *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent := *issuer
	parent.PublicKey = key.Public()
	template := &x509.Certificate{SerialNumber: big.NewInt(0x1c0ffee), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, &parent, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// release ends a hold, which OCSP then says.
func (r *replica) release(t *testing.T, held subjects) {
	r.mustRevoke(t.Context(), t, hexSerial(held.leaf), "removeFromCRL")
	eventually(t, 20*time.Second, "the released certificate is good again", func() bool {
		read, err := r.status(t.Context(), http.MethodGet, crypto.SHA1, held)
		return err == nil && read.Status == ocsp.Good
	})
}

// From the call that revokes to a client of another replica that sees it, less than two seconds pass, in 99 of 100 cases, although every
// answer is one that was signed beforehand.
func TestOCSPTellsARevocationWithinTwoSeconds(t *testing.T) {
	s := newStack(t, storagetest.New(t), false)
	s.offerOCSP()
	here, there := s.start("replica-1", s.token.Module), s.start("replica-2", s.token.Module)
	wantSeenWithin(t, 2*time.Second, here, 100, 1, func(of subjects) (bool, error) {
		read, err := there.status(t.Context(), http.MethodGet, crypto.SHA1, of)
		if err != nil {
			return false, err
		}
		return read.Status == ocsp.Revoked, nil
	})
	there.stop()
	here.stop()
}

// wantSeenWithin has some clients at a time revoke certificates by way of a replica, and holds 99 of 100 times from the call until a client
// elsewhere sees it against a bound.
func wantSeenWithin(t *testing.T, bound time.Duration, here *replica, certificates, clients int, sees func(subjects) (bool, error)) {
	t.Helper()
	var all []subjects
	for n := range certificates {
		all = append(all, here.newSubject(t, fmt.Sprintf("host-%d.dev.example", n)))
	}
	took := make([]time.Duration, certificates)
	var group errgroup.Group
	group.SetLimit(clients)
	for n, of := range all {
		group.Go(func() (err error) {
			took[n], err = here.timeUntilSeen(t.Context(), of, sees)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	half, most := took[certificates/2], took[(certificates*99+99)/100-1]
	t.Logf("from the call to the other replica's answer: half within %s, 99 of 100 within %s, all within %s", half, most, took[certificates-1])
	if most > bound {
		t.Errorf("99 of 100 revocations are seen within %s, and not within %s", most, bound)
	}
}

// timeUntilSeen revokes a certificate and asks until a client elsewhere sees it.
func (r *replica) timeUntilSeen(ctx context.Context, of subjects, sees func(subjects) (bool, error)) (time.Duration, error) {
	for range 2 { // where answers are kept, the second is a kept one
		if seen, err := sees(of); err != nil || seen {
			return 0, errors.Join(err, fmt.Errorf("seen before it was revoked: %v", seen))
		}
	}
	began := time.Now()
	got, err := r.revoke(ctx, hexSerial(of.leaf), "superseded")
	if err := errors.Join(err, wantStatus(got, http.StatusOK)); err != nil {
		return 0, err
	}
	tick := time.NewTicker(20 * time.Millisecond) // without a rest, those who look would take the time of those who make it be seen
	defer tick.Stop()
	for time.Since(began) < 30*time.Second {
		if seen, err := sees(of); err != nil || seen {
			return time.Since(began), err
		}
		<-tick.C
	}
	return 0, errors.New("the revocation is not seen after half a minute")
}

// What is known stays said while the database is away, and while the token is; what is not known is to be asked for later. When they are
// back, everything is answered again, and a revocation made meanwhile by way of another replica is not missed.
func TestOCSPWhileDatabaseOrTokenIsAway(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t, storagetest.Options{})
	s := newStack(t, &server.Database, false)
	s.offerOCSP()
	faulty := hsmtest.NewFaulty(t)
	r := s.start("replica-1", faulty.Module)
	known, other, third := r.newSubject(t, "known.dev.example"), r.newSubject(t, "other.dev.example"), r.newSubject(t, "third.dev.example")
	says := func(what string, of subjects, want int) {
		t.Helper()
		if read, err := r.status(t.Context(), http.MethodGet, crypto.SHA1, of); err != nil || read.Status != want {
			t.Errorf("%s: %+v, %v", what, read, err)
		}
	}
	later := func(what string, of subjects) {
		t.Helper()
		if read, err := r.status(t.Context(), http.MethodPost, crypto.SHA1, of); err != (ocsp.ResponseError{Status: ocsp.TryLater}) {
			t.Errorf("%s: %+v, %v", what, read, err)
		}
	}
	eventually(t, 20*time.Second, "an answer is kept, which it is when revocations are followed", func() bool {
		says("at first", known, ocsp.Good)
		return r.metric(t, `chancery_ocsp_responses_total{authority="`+devIssuer+`",source="cache"`) > 0
	})

	faulty.Begin(t, "0x30") // CKR_DEVICE_ERROR
	says("without a token, kept", known, ocsp.Good)
	later("without a token, not kept", other)
	faulty.Begin(t, "")
	eventually(t, 20*time.Second, "the token answers again", func() bool {
		read, err := r.status(t.Context(), http.MethodGet, crypto.SHA1, other)
		return err == nil && read.Status == ocsp.Good
	})

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	says("without a database, kept", known, ocsp.Good)
	later("without a database, not kept", third)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	second := s.start("replica-2", s.token.Module)
	second.mustRevoke(t.Context(), t, hexSerial(known.leaf), "superseded")
	eventually(t, 10*time.Second, "the revocation is seen here", func() bool {
		read, err := r.status(t.Context(), http.MethodGet, crypto.SHA1, known)
		return err == nil && read.Status == ocsp.Revoked
	})
	says("when both are back", third, ocsp.Good)
}

// What is no request, or not one for this responder, is told so in OCSP, and no path or body ends the service.
func TestOCSPBadInput(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	s.offerOCSP()
	r := s.start("ocsp", s.token.Module)
	good := r.newSubject(t, "good.dev.example")
	request, err := ocsp.CreateRequest(good.leaf, good.issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ocsp.CreateRequest(good.leaf, good.leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	huge := make([]byte, 1<<20)
	_, _ = rand.Read(huge)
	text := base64.StdEncoding.EncodeToString(request)
	once := strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(text)
	every := func(s string) (all string) {
		for _, c := range []byte(s) {
			all += fmt.Sprintf("%%%02x", c)
		}
		return all
	}
	refused := func(status ocsp.ResponseStatus) []byte { return []byte{0x30, 3, 0x0a, 1, byte(status)} }
	for _, c := range []struct {
		what, method, path string
		body               []byte
		status             int
		response           []byte // nil: a signed one
	}{
		{"a plain path", "GET", text, nil, 200, nil},
		{"a path encoded once", "GET", once, nil, 200, nil},
		{"a path with everything encoded", "GET", every(text), nil, 200, nil},
		{"a path encoded twice", "GET", strings.ReplaceAll(once+"%3D", "%", "%25"), nil, 200, refused(ocsp.Malformed)},
		{"a path in base64url", "GET", base64.URLEncoding.EncodeToString([]byte{0x30, 0xff, 0xfe, 0xff}), nil, 200, refused(ocsp.Malformed)},
		{"a path without padding", "GET", strings.TrimRight(base64.StdEncoding.EncodeToString(append(request, 0)), "="), nil, 200, refused(ocsp.Malformed)},
		{"a line break", "GET", text[:20] + "%0A" + text[20:], nil, 200, refused(ocsp.Malformed)},
		{"an empty path", "GET", "", nil, 200, refused(ocsp.Malformed)},
		{"dots", "GET", "../../etc/passwd", nil, 200, refused(ocsp.Malformed)},
		{"another issuer", "GET", base64.StdEncoding.EncodeToString(foreign), nil, 200, refused(ocsp.Unauthorized)},
		{"a body", "POST", "", request, 200, nil},
		{"another issuer's body", "POST", "", foreign, 200, refused(ocsp.Unauthorized)},
		{"no body", "POST", "", nil, 200, refused(ocsp.Malformed)},
		{"a cut body", "POST", "", request[:len(request)-1], 200, refused(ocsp.Malformed)},
		{"a megabyte", "POST", "", huge, 200, refused(ocsp.Malformed)},
		{"a body and a path", "POST", text, request, 404, nil},
		{"another method", "PUT", "", request, 405, nil},
	} {
		call, err := http.NewRequestWithContext(t.Context(), c.method, r.distribution, bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		call.URL.Opaque = "//" + call.URL.Host + "/ocsp/" + devIssuer
		if c.path != "" || c.method == "GET" {
			call.URL.Opaque += "/" + c.path
		}
		call.Header.Set("Content-Type", "application/ocsp-request")
		response, err := s.client.Do(call)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.status {
			t.Errorf("%s: status %d, %v", c.what, response.StatusCode, err)
			continue
		}
		if c.status != http.StatusOK {
			continue
		}
		if got := response.Header.Get("Content-Type"); got != "application/ocsp-response" {
			t.Errorf("%s: %s", c.what, got)
		}
		if c.response != nil {
			if !bytes.Equal(body, c.response) || response.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %x, %v", c.what, body, response.Header)
			}
			continue
		}
		if read, err := ocsp.ParseResponseForCert(body, good.leaf, good.issuer); err != nil || read.Status != ocsp.Good {
			t.Errorf("%s: %+v, %v", c.what, read, err)
		}
	}
	if status, _ := fetch(t, r.distribution+"/ocsp/root-1/"+text); status != http.StatusNotFound {
		t.Errorf("an authority that offers no OCSP: %d", status)
	}
	r.stop()
}
