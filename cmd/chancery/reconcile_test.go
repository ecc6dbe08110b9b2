package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// reconcileNow runs `audit reconcile` on a stack, and tells its exit code.
func (s *stack) reconcileNow(t testing.TB, args ...string) (report reconcileReport, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{
		"audit", "reconcile", "-o", "json", "--config", s.write("auditor", s.token.Module), "--grace", "0s",
	}, args...)...)
	cmd.Env = append(os.Environ(), actAsChancery+"=1")
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s%s", err, out, complaint.String())
	}
	return report, cmd.ProcessState.ExitCode()
}

// wantFindings compares the kinds of findings, in their order.
func wantFindings(t testing.TB, what string, report reconcileReport, code int, want ...reconcile.Kind) {
	t.Helper()
	got := []reconcile.Kind{}
	for _, f := range report.Findings {
		got = append(got, f.Kind)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || (code == 1) != (len(want) > 0) || report.Counts.Findings != uint64(len(want)) {
		text, _ := json.MarshalIndent(report, "", " ")
		t.Errorf("%s: found %q (exit code %d), want %q\n%s", what, got, code, want, text)
	}
}

// asSuperuser changes what the triggers guard, as only an administrator of the database can.
func (s *stack) asSuperuser(t testing.TB, sql string) {
	t.Helper()
	administered(s.database).Column(t, sql)
}

// administered is a database in the hands of its administrator, for whom no trigger stands in the way.
func administered(db *storagetest.Database) *storagetest.Database {
	at := strings.Replace(db.OwnerURL, "chancery@", "postgres@", 1)
	separator := map[bool]string{true: "&", false: "?"}[strings.Contains(at, "?")]
	return &storagetest.Database{OwnerURL: at + separator + "session_replication_role=replica"}
}

// TestReconcile issues, revokes and answers by way of a keeper, and finds every signature accounted for. Then it makes signatures that are
// on record nowhere, and takes records away.
func TestReconcile(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	s.withLog(hsm.Ed25519)
	k.alsoSigns(s.offerOCSP())
	r := s.start("accounted", "")
	for range 3 {
		revokeOne(t, r)
	}
	of := r.newSubject(t, "answered.dev.example")
	var responderOf *x509.Certificate
	for serial, want := range map[*big.Int]int{of.leaf.SerialNumber: ocsp.Good, big.NewInt(4711): ocsp.Unknown} {
		about := subjects{leaf: &x509.Certificate{SerialNumber: serial}, issuer: of.issuer}
		got, err := r.status(t.Context(), http.MethodPost, crypto.SHA256, about)
		if err != nil || got.Status != want {
			t.Fatalf("%v, %v", got, err)
		}
		responderOf = got.Certificate
	}
	r.stop()
	journal, state := k.path("journal"), filepath.Join(t.TempDir(), "state.json")

	report, code := s.reconcileNow(t, "--journal", journal, "--state", state)
	wantFindings(t, "a service that did its work", report, code)
	if c := report.Counts; c.Signatures < 12 || c.Agreeing < 8 || c.Answers == 0 || report.Event == "" {
		t.Errorf("counted %+v", c)
	}
	head := report.Journals[0].End.Head
	report, code = s.reconcileNow(t, "--state", state, "--journal", journal)
	wantFindings(t, "nothing new", report, code)
	if report.Counts.Signatures != 0 {
		t.Errorf("%d signatures were judged again", report.Counts.Signatures)
	}

	// A checkpoint whose recording failed says what the log says, and is none.
	if n := s.database.Column(t, `SELECT count(*)::text FROM audit_checkpoints`)[0]; n == "0" {
		t.Error("there are no checkpoints")
	}
	lost := s.database.Column(t, `SELECT max(size)::text FROM audit_checkpoints`)[0]
	s.asSuperuser(t, `DELETE FROM audit_checkpoints WHERE size = `+lost+` RETURNING size::text`)
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "a checkpoint whose recording failed", report, code)

	// A record is not too young for ever because it is dated ahead.
	s.asSuperuser(t, `INSERT INTO audit_checkpoints (size, root, note, at) SELECT size + 1000, root, 'dated ahead' || note, '9999-12-31 00:00Z'
		FROM audit_checkpoints ORDER BY size DESC LIMIT 1 RETURNING size::text`)
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "a record dated ahead", report, code, reconcile.Unjournaled)
	s.asSuperuser(t, `DELETE FROM audit_checkpoints WHERE at > '9999-01-01' RETURNING size::text`)

	// Whoever has taken over the service has the issuer's key sign, within its policy, what nobody recorded.
	client := keeper.NewClient(k.path("keeper.sock"), 0)
	defer client.Close()
	injected := inject(t, client, of.issuer)
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "an injected certificate", report, code, reconcile.Unrecorded)
	if f := report.Findings[0]; !strings.Contains(f.Subject, hex.EncodeToString(injected.SerialNumber.Bytes())) || f.Key != devIssuer ||
		f.Entry == 0 {
		t.Errorf("the finding does not say which: %+v", f)
	}
	alarms := s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'reconcile.alarm'`)
	if len(alarms) != 2 || !strings.Contains(alarms[0]+alarms[1], "signature-unrecorded") {
		t.Errorf("the audit log has the alarms %q", alarms)
	}
	// Nor is it on record when the service writes its bytes down as a responder's request.
	asService := storagetest.Database{OwnerURL: s.database.URL}
	asService.Column(t, `INSERT INTO requests SELECT $1::text::uuid, at, actor_id, actor_name, namespace, roles, $2, issuer, $3::bytea, spki_sha256,
		validity, metadata, verdict, results, policy_digest, compromised_key FROM requests LIMIT 1 RETURNING id::text`,
		newID(), ca.ResponderProfile, injected.Raw)
	// A run that goes on where the last one ended finds it once.
	report, code = s.reconcileNow(t, "--state", state, "--journal", journal)
	wantFindings(t, "an injected certificate, since the last run", report, code, reconcile.Unrecorded)
	report, code = s.reconcileNow(t, "--state", state, "--journal", journal)
	wantFindings(t, "an injected certificate, found already", report, code)

	// An answer that calls good what was never issued.
	answerFor(t, client, of.issuer, responderOf, big.NewInt(0x1c0815))
	report, code = s.reconcileNow(t, "--state", state, "--journal", journal)
	wantFindings(t, "an invented answer", report, code, reconcile.Invented)

	// Records go.
	s.asSuperuser(t, `DELETE FROM certificates WHERE serial = decode('`+hex.EncodeToString(of.leaf.SerialNumber.Bytes())+`', 'hex') RETURNING issuer`)
	report, code = s.reconcileNow(t, "--journal", journal, "--no-events")
	wantFindings(t, "an erased certificate", report, code, reconcile.Unrecorded, reconcile.Invented, reconcile.Invented, reconcile.Erased)
	if i := slices.IndexFunc(report.Findings, func(f reconcile.Finding) bool { return f.Kind == reconcile.Erased }); i >= 0 {
		if f := report.Findings[i]; !strings.Contains(f.Subject, hex.EncodeToString(of.leaf.SerialNumber.Bytes())) || f.Entry == 0 {
			t.Errorf("the finding does not say which: %+v", f)
		}
	}
	report, code = s.reconcileNow(t, "--no-events")
	wantFindings(t, "an erased certificate, without a journal", report, code, reconcile.Erased)
	if len(report.Unknown) == 0 {
		t.Error("that there is no journal leaves nothing open")
	}
	// With its events, too: only the journal still knows.
	s.asSuperuser(t, `DELETE FROM audit_leaves WHERE kind IN ('certificate.intended', 'key.signed') AND convert_from(leaf, 'UTF8') LIKE '%`+
		tbsDigest(of.leaf.Raw)+`%' RETURNING kind`)
	report, code = s.reconcileNow(t, "--no-events")
	wantFindings(t, "a certificate erased with its events, without a journal", report, code)
	report, code = s.reconcileNow(t, "--journal", journal, "--no-events")
	wantFindings(t, "a certificate erased with its events", report, code, reconcile.Unrecorded, reconcile.Unrecorded, reconcile.Invented,
		reconcile.Invented)

	// The journal goes.
	whole, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	lines := strings.SplitAfter(string(whole), "\n")
	if err := os.WriteFile(cut, []byte(strings.Join(lines[:6], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	report, _ = s.reconcileNow(t, "--journal", cut, "--head", head, "--no-events")
	if report.Findings[0].Kind != reconcile.Cut ||
		!slices.ContainsFunc(report.Findings, func(f reconcile.Finding) bool { return f.Kind == reconcile.Unjournaled }) {
		t.Errorf("a journal that was cut off: %+v", report.Findings)
	}
	if err := os.WriteFile(journal, []byte(strings.Join(lines[:6], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	report, _ = s.reconcileNow(t, "--journal", journal, "--state", state, "--no-events")
	if report.Findings[0].Kind != reconcile.Cut {
		t.Errorf("a journal that was cut off since the last run: %+v", report.Findings)
	}
	lines[4] = strings.Replace(lines[4], `"time":"2`, `"time":"1`, 1)
	if err := os.WriteFile(journal, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	report, _ = s.reconcileNow(t, "--journal", journal, "--no-events")
	if f := report.Findings[0]; f.Kind != reconcile.Broken || f.Entry != 6 {
		t.Errorf("a journal that was changed: %+v", report.Findings)
	}
}

// alsoSigns lets the keeper's issuer have OCSP responders, a key be one, and another sign the checkpoints of the log.
func (k *keeperProcess) alsoSigns(ref hsm.KeyRef) {
	k.s.t.Helper()
	k.changeKeys(func(keys string) string {
		return strings.Replace(keys, "max_validity: 400d", "max_validity: 400d, ocsp_responders: true", 1) + fmt.Sprintf(`  - name: answers
    label: %s
    tokens: [main]
    certificate: %q
    ocsp: {max_validity: 10d, responder: %q}
`, ref.Label, filepath.Join(k.s.dir, "ceremony", devIssuer+".pem"), filepath.Join(k.s.dir, devResponderLabel+".pem")) +
			k.s.logPolicy(devLogLabel)
	})
}

// logPolicy lets a key that withLog made sign the checkpoints of the log.
func (s *stack) logPolicy(label string) string {
	return fmt.Sprintf(`  - name: %[1]s
    label: %[1]s
    tokens: [main]
    public_key: %[2]q
    checkpoints: {origin: %[3]s}
`, label, filepath.Join(s.dir, label+".pem"), devLogOrigin)
}

// changeKeys changes what the keeper's keys may sign.
func (k *keeperProcess) changeKeys(change func(keys string) string) {
	k.s.t.Helper()
	text, err := os.ReadFile(k.path("keys.yaml"))
	if err != nil {
		k.s.t.Fatal(err)
	}
	keys := change(string(text))
	if err := os.WriteFile(k.path("keys.yaml"), []byte(keys), 0o600); err != nil {
		k.s.t.Fatal(err)
	}
	k.kill()
	k.start()
}

// inject has the issuer's key sign a certificate that its policy allows.
func inject(t *testing.T, client *keeper.Client, issuer *x509.Certificate) *x509.Certificate {
	t.Helper()
	serial, err := issuance.NewSerial(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return injectAs(t, client, issuer, serial)
}

// injectAs is inject of a serial number.
func injectAs(t *testing.T, client *keeper.Client, issuer *x509.Certificate, serial issuance.Serial) *x509.Certificate {
	t.Helper()
	key, _, err := client.Signer(t.Context(), issuer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]), Subject: pkix.Name{CommonName: "bank.example"}, DNSNames: []string{"bank.example"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// answerFor has the responder's key call a serial number good.
func answerFor(t *testing.T, client *keeper.Client, issuer, responder *x509.Certificate, serial *big.Int) {
	t.Helper()
	key, _, err := client.Signer(t.Context(), responder.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	signs, err := issuance.NewResponder(issuer, responder, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := issuance.ParseOCSPRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	answer := issuance.OCSPAnswer{ID: asked.Certificates[0], Status: issuance.OCSPGood, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	if _, err := signs.Sign(t.Context(), []issuance.OCSPAnswer{answer}, nil, now); err != nil {
		t.Fatal(err)
	}
}

func tbsDigest(der []byte) string {
	digest := reconcile.SignedPart(der)
	return hex.EncodeToString(digest[:])
}
