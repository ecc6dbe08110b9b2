package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// old is the authority before the one that issues, in a token of its own, with an OCSP responder there.
const old = "issuing-2"

// withOld gives a stack an old authority, which has so long left, and a library before its token that has faults on demand.
func (s *stack) withOld(left string) (certificate *x509.Certificate, faulty *hsmtest.Faulty) {
	t := s.t
	t.Helper()
	token, faulty := hsmtest.New(t), hsmtest.NewFaulty(t)
	s.secondHierarchy(token, "validity: 5y", "validity: "+left, "ecdsa-p384", rootKey)
	opened := token.Open(t)
	_, public, err := opened.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "old-ocsp", Usages: []hsm.Usage{hsm.UseSign}})
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := publicKeyPEM(public)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "old-ocsp.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	one := func(name, module string, token *hsmtest.Token) string {
		return fmt.Sprintf("  - {name: %s, module: %q, token: {serial: %q}, pin: {file: %q}, sessions: 4, timeouts: {open: 5s}}\n", name, module, token.Serial, token.PINFile)
	}
	s.hsm = fmt.Sprintf("{isolation: child, socket: %q}", filepath.Join(t.TempDir(), "keeper.sock"))
	s.authorities = devIssuer + ", " + old
	s.more += "tokens:\n" + one("first", s.token.Module, s.token) + one("second", faulty.Module, token) +
		fmt.Sprintf("ocsp: [{authority: %s, public_key: %q, label: old-ocsp}]\n", old, path)
	der, err := os.ReadFile(filepath.Join(s.dir, "second", old+".cer"))
	if err != nil {
		t.Fatal(err)
	}
	if certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return certificate, faulty
}

// answersFor tells whether a replica answers by OCSP for an authority: that it has not issued a serial.
func (r *replica) answersFor(t *testing.T, issuer *x509.Certificate, serial *x509.Certificate) error {
	t.Helper()
	request, err := ocsp.CreateRequest(serial, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := r.s.client.Post(r.distribution+"/ocsp/"+old, "application/ocsp-request", bytes.NewReader(request))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	_, err = ocsp.ParseResponseForCert(body, serial, issuer)
	return err
}

// An old authority stays beside its successor until it ends. Its responder gets certificates until then, although they cannot last as long as
// others do; and so does the service, where the authority that issues is near its end.
func TestOCSPOfAnAuthorityNearItsEnd(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ending, _ := s.withOld("20d")
	ends := func(r *replica, kind, name string) time.Time {
		return time.Unix(int64(r.metric(t, fmt.Sprintf("chancery_certificate_not_after_timestamp_seconds{kind=%q,name=%q}", kind, name))), 0)
	}
	r := s.start("replica-1", s.token.Module)
	if err := r.answersFor(t, ending, forged(t, ending)); err != nil {
		t.Error(err)
	}
	if end := ends(r, "ocsp", old); end.After(ending.NotAfter) || end.Before(ending.NotAfter.Add(-time.Hour)) {
		t.Errorf("its responder's certificate ends at %s, and it at %s", end, ending.NotAfter)
	}
	if end := ends(r, "authority", old); !end.Equal(ending.NotAfter) {
		t.Errorf("it is told to end at %s, and does at %s", end, ending.NotAfter)
	}
	if end := ends(r, "tls", "replica-1"); end.Before(time.Now().Add(80 * 24 * time.Hour)) {
		t.Errorf("the certificate of the service ends at %s", end)
	}
	r.stop()

	s.authorities = old + ", " + devIssuer
	r = s.start("replica-1", s.token.Module)
	if end := ends(r, "tls", "replica-1"); end.After(ending.NotAfter) || end.Before(ending.NotAfter.Add(-time.Hour)) {
		t.Errorf("the certificate of the service ends at %s, and the authority that issues at %s", end, ending.NotAfter)
	}
	if failures := r.metric(t, "chancery_certificate_renewal_failures_total"); failures != 0 {
		t.Errorf("%v failures", failures)
	}
	r.stop()
}

// The key of an old authority that is dead, and that of its responder, are told of. They make no replica unready, nor keep one from starting;
// when they are back that is found out, although nobody asks for anything.
func TestReadyWithoutTheKeyOfAnOldAuthority(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	certificate, faulty := s.withOld("1y")
	r := s.start("replica-1", s.token.Module)
	ready := func() bool {
		status, _ := fetch(t, r.operations+"/readyz")
		return status == http.StatusOK
	}
	available := func() (keys [2]float64) {
		for n, kind := range []string{"authority", "ocsp"} {
			keys[n] = r.metric(t, fmt.Sprintf("chancery_key_available{kind=%q,name=%q}", kind, old))
		}
		return keys
	}
	eventually(t, 20*time.Second, "the keys are told of", func() bool { return available() == [2]float64{1, 1} })
	faulty.Begin(t, "0x30") // CKR_DEVICE_ERROR
	if err := r.answersFor(t, certificate, forged(t, certificate)); err != (ocsp.ResponseError{Status: ocsp.TryLater}) {
		t.Error(err)
	}
	got, err := r.call(t.Context(), http.MethodPost, "/api/v1/authorities/"+old+"/crl", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte("{}"))
	if err != nil || got.status != http.StatusServiceUnavailable {
		t.Errorf("a CRL without a key: %d %s, %v", got.status, got.body, err)
	}
	eventually(t, 20*time.Second, "both keys are told to be away", func() bool { return available() == [2]float64{} })
	if !ready() {
		t.Error("the replica is not ready, although the key that issues is well")
	}
	if _, got, err := r.issue(t.Context(), "www.dev.example", nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("%d %s, %v", got.status, got.body, err)
	}
	faulty.Begin(t, "")
	eventually(t, 30*time.Second, "both keys are found to be back", func() bool { return available() == [2]float64{1, 1} })
	for line, want := range map[string]int{`"msg":"a key does not sign`: 2, `"msg":"the key signs again"`: 2} {
		if times := strings.Count(r.log.String(), line); times != want {
			t.Errorf("%s is told %d times, want %d:\n%s", line, times, want, r.log)
		}
	}
	r.stop()

	faulty.Begin(t, hsmtest.HangLogin)
	r = s.start("replica-1", s.token.Module)
	if !ready() {
		t.Error("a replica that was started without the key is not ready")
	}
	if failures := r.metric(t, `chancery_certificate_renewal_failures_total{kind="ocsp"`); failures != 0 {
		t.Errorf("%v failures, although a certificate is on record", failures)
	}
	faulty.Begin(t, "")
	eventually(t, 30*time.Second, "the responder answers", func() bool { return r.answersFor(t, certificate, forged(t, certificate)) == nil })
	r.stop()
}
