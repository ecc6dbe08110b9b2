package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// bulk is what these tests have the authority answer about revoking many.
type bulk struct {
	orders  []ca.BulkOrder
	job     ca.RevocationJob
	outlook ca.RevocationOutlook
	words   []ca.RevocationDecision
	proofs  []ca.Possession
}

func (o *office) PreviewRevocation(_ context.Context, order ca.BulkOrder) (ca.RevocationOutlook, error) {
	o.bulk.orders = append(o.bulk.orders, order)
	return o.bulk.outlook, o.asked(order.Actor, access.RevokeCertificate, order.Actor.Namespace)
}

func (o *office) RevokeMany(_ context.Context, order ca.BulkOrder) (ca.RevocationJob, ca.RevocationOutlook, error) {
	o.bulk.orders = append(o.bulk.orders, order)
	return o.bulk.job, o.bulk.outlook, o.asked(order.Actor, access.RevokeCertificate, order.Actor.Namespace)
}

func (o *office) RevocationJob(_ context.Context, a access.Actor, _ string) (ca.RevocationJob, error) {
	return o.bulk.job, o.asked(a, access.ReadRevocation, a.Namespace)
}

func (o *office) RevocationJobs(_ context.Context, a access.Actor, _ string, _ int) ([]ca.RevocationJob, string, error) {
	return []ca.RevocationJob{o.bulk.job}, "j-0", o.asked(a, access.ReadRevocation, a.Namespace)
}

func (o *office) DecideOnRevocation(_ context.Context, a access.Actor, d ca.RevocationDecision) (ca.RevocationJob, error) {
	o.bulk.words = append(o.bulk.words, d)
	return o.bulk.job, o.asked(a, access.ApproveRevocation, a.Namespace)
}

func (o *office) CancelRevocation(_ context.Context, a access.Actor, _ string) (ca.RevocationJob, error) {
	return o.bulk.job, o.asked(a, access.RevokeCertificate, a.Namespace)
}

func (o *office) RevokeByKey(_ context.Context, _ string, _ []byte, p ca.Possession, _ string) (ca.Revocation, error) {
	o.bulk.proofs = append(o.bulk.proofs, p)
	return o.revoked, o.err
}

func TestRevokingMany(t *testing.T) {
	s := newSurface(t)
	s.office.bulk.job = ca.RevocationJob{
		ID: "j-1", Total: 1200, NextLot: 1, Lots: 3, ApprovedAt: noon, AskedAt: noon, Counts: ca.RevocationCounts{Revoked: 499, Already: 1},
	}
	s.office.bulk.outlook = ca.RevocationOutlook{Found: 1201, ToRevoke: 1200, Unknown: 1, UnknownSerials: []string{"1c"}}
	post := ask{method: http.MethodPost, path: "/api/v1/revocations", role: access.Revoker}
	body := RevocationRequest{
		Serials: []string{"1c01"}, Keys: []string{strings.Repeat("0a", 32)}, Names: []string{"a.example"}, Requester: "r", Profile: "tls-server",
		Issuer: "issuing-1", Namespace: "dev", IssuedFrom: "2026-01-01T00:00:00Z", Reason: "keyCompromise", Certificates: encodePEM([]byte("der"), []byte("other")),
	}
	w := s.call(post.json(body))
	got := decode[RevocationAnswer](t, w, http.StatusAccepted)
	if w.Header().Get("Location") != "/api/v1/revocations/j-1" || got.Job == nil || got.Job.Status != "running" || got.Job.Done != 500 || got.Job.Revoked != 499 ||
		got.Outlook.ToRevoke != 1200 || got.DryRun || got.Outlook.Issuers == nil {
		t.Errorf("%v %+v", w.Header(), got)
	}
	sel := s.office.bulk.orders[0].Selection
	if want := (ca.Selection{
		Serials: [][]byte{{0x1c, 1}}, Certificates: [][]byte{[]byte("der"), []byte("other")}, Names: body.Names, Requester: "r", Profile: "tls-server",
		Issuer: "issuing-1", Namespace: "dev", IssuedFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Keys: sel.Keys,
	}); !reflect.DeepEqual(sel, want) || len(sel.Keys) != 1 || sel.Keys[0][31] != 10 || s.office.bulk.orders[0].Reason.String() != "keyCompromise" {
		t.Errorf("asked %+v\nwant  %+v", sel, want)
	}
	body.DryRun = true
	if got := decode[RevocationAnswer](t, s.call(post.json(body)), http.StatusOK); !got.DryRun || got.Job != nil {
		t.Errorf("a dry run: %+v", got)
	}
	s.office.bulk.job.Outcome = ca.JobFinished
	body.DryRun = false
	if got := decode[RevocationAnswer](t, s.call(post.json(body)), http.StatusOK); got.Job.Status != "finished" {
		t.Errorf("a small one: %+v", got)
	}
	for rule, change := range map[string]func(*RevocationRequest){
		"request.serials[0]":      func(r *RevocationRequest) { r.Serials = []string{"1C"} },
		"request.keys[1]":         func(r *RevocationRequest) { r.Keys = append(r.Keys, "00") },
		"request.names[0]":        func(r *RevocationRequest) { r.Names = []string{""} },
		"request.profile":         func(r *RevocationRequest) { r.Profile = "a b" },
		"request.issuer":          func(r *RevocationRequest) { r.Issuer = "../x" },
		"request.requester":       func(r *RevocationRequest) { r.Requester = "\x01" },
		"request.certificates":    func(r *RevocationRequest) { r.Certificates += "x" },
		"request.issued_until":    func(r *RevocationRequest) { r.IssuedUntil = "tomorrow" },
		"request.invalidity_date": func(r *RevocationRequest) { r.InvalidityDate = "never" },
		"request.reason":          func(r *RevocationRequest) { r.Reason = "bored" },
		"request.comment":         func(r *RevocationRequest) { r.Comment = "\x07" },
	} {
		wrong := body
		change(&wrong)
		wantRule(t, wantProblem(t, s.call(post.json(wrong)), http.StatusBadRequest, "invalid"), rule)
	}
}

func TestAWordOnAJob(t *testing.T) {
	s := newSurface(t)
	s.office.bulk.job = ca.RevocationJob{ID: "j-1", Needs: 1, AskedAt: noon, ExpiresAt: noon.Add(time.Hour), Votes: []ca.RevocationVote{{Person: "ann", Approves: true}}}
	digest := strings.Repeat("0b", 32)
	for _, verb := range []string{"approve", "reject"} {
		a := ask{method: http.MethodPost, path: "/api/v1/revocations/j-1/" + verb, role: access.Approver}
		got := decode[RevocationJob](t, s.call(a.json(RevocationWord{Digest: digest, Comment: "seen"})), http.StatusOK)
		if got.Status != "waiting" || got.ExpiresAt == nil || len(got.Approvals) != 1 || got.Need != 1 {
			t.Errorf("%+v", got)
		}
		if d := s.office.bulk.words[len(s.office.bulk.words)-1]; d.Job != "j-1" || d.Approves != (verb == "approve") || d.Digest[0] != 11 || d.Comment != "seen" {
			t.Errorf("%s: asked %+v", verb, d)
		}
		wantRule(t, wantProblem(t, s.call(a.json(RevocationWord{Digest: "0b"})), http.StatusBadRequest, "invalid"), "request.digest")
		wantRule(t, wantProblem(t, s.call(a.json(RevocationWord{Comment: "\x07"})), http.StatusBadRequest, "invalid"), "request.comment")
	}
	list := decode[RevocationList](t, s.call(ask{path: "/api/v1/revocations?limit=1", role: access.Auditor}), http.StatusOK)
	if len(list.Jobs) != 1 || list.Next != "j-0" {
		t.Errorf("%+v", list)
	}
	wantRule(t, wantProblem(t, s.call(ask{path: "/api/v1/revocations?limit=0", role: access.Auditor}), http.StatusBadRequest, "invalid"), "request.limit")
}

// signed is a JSON Web Signature over header and payload by a P-256 key.
func signed(t testing.TB, header, payload string) SignedRevocation {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	j := SignedRevocation{Protected: encode([]byte(header)), Payload: encode([]byte(payload))}
	digest := sha256.Sum256([]byte(j.Protected + "." + j.Payload))
	r, sig, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	j.Signature = encode(append(r.FillBytes(make([]byte, 32)), sig.FillBytes(make([]byte, 32))...))
	return j
}

func TestRevokingByKey(t *testing.T) {
	s := newSurface(t)
	const good = `{"alg":"ES256","typ":"chancery-revocation+jws","url":"https://example.com/api/v1/certificates/1c01/revoke-by-key","iat":%d}`
	post := ask{method: http.MethodPost, path: "/api/v1/certificates/1c01/revoke-by-key"}
	now := fmt.Sprintf(good, noon.Unix())
	if got := decode[Revoked](t, s.call(post.json(signed(t, now, `{"serial":"1c01"}`))), http.StatusOK); got.Serial == "" {
		t.Errorf("%+v", got)
	}
	if p := s.office.bulk.proofs[0]; p.Algorithm != "ES256" || len(p.Signature) != 64 || strings.Count(string(p.Signed), ".") != 1 {
		t.Errorf("asked %+v", p)
	}
	for name, c := range map[string]struct{ header, payload, field string }{
		"another place":   {strings.Replace(now, "example.com", "other.example", 1), `{"serial":"1c01"}`, "protected.url"},
		"another serial":  {strings.Replace(now, "1c01", "1c02", 1), `{"serial":"1c01"}`, "protected.url"},
		"another purpose": {strings.Replace(now, "chancery-revocation+jws", "JWT", 1), `{"serial":"1c01"}`, "protected.typ"},
		"an hour ago":     {fmt.Sprintf(good, noon.Add(-time.Hour).Unix()), `{"serial":"1c01"}`, "protected.iat"},
		"in an hour":      {fmt.Sprintf(good, noon.Add(time.Hour).Unix()), `{"serial":"1c01"}`, "protected.iat"},
		"payload differs": {now, `{"serial":"1c02"}`, "payload.serial"},
		"bad issuer":      {now, `{"serial":"1c01","issuer":"../"}`, "issuer"},
		"bad comment":     {now, `{"serial":"1c01","comment":"\u0007"}`, "payload.comment"},
	} {
		p := wantProblem(t, s.call(post.json(signed(t, c.header, c.payload))), http.StatusBadRequest, "invalid")
		if p.Violations[0].Field != c.field {
			t.Errorf("%s: %+v", name, p.Violations)
		}
	}
	for name, j := range map[string]SignedRevocation{
		"a field too many":  signed(t, strings.Replace(now, `"typ"`, `"crit":["b64"],"typ"`, 1), `{"serial":"1c01"}`),
		"a name twice":      signed(t, now, `{"serial":"1c01","serial":"1c01"}`),
		"an array":          signed(t, now, `["1c01"]`),
		"a fractional time": signed(t, strings.Replace(now, "}", ".5}", 1), `{"serial":"1c01"}`),
	} {
		if p := wantProblem(t, s.call(post.json(j)), http.StatusBadRequest, "malformed"); len(p.Violations) == 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	padded := signed(t, now, `{"serial":"1c01"}`)
	padded.Signature += "="
	wantRule(t, wantProblem(t, s.call(post.json(padded)), http.StatusBadRequest, "invalid"), "request.signature")
	s.office.err = ca.ErrNotFound
	wantProblem(t, s.call(post.json(signed(t, now, `{"serial":"1c01"}`))), http.StatusNotFound, "not-found")
	if n := len(s.office.bulk.proofs); n != 2 {
		t.Errorf("the authority was asked %d times", n)
	}
}

// TestTheLargestRevocationByKeyIsRead: nobody needs credentials to send one, so what is read is hardly more than the largest that makes
// sense: with the longest name of a host, serial and name of an authority, a comment of which JSON escapes each octet, RSA of 8192 bits.
func TestTheLargestRevocationByKeyIsRead(t *testing.T) {
	s := newSurface(t)
	serial := strings.Repeat("7f", 20)
	at := ask{method: http.MethodPost, path: "/api/v1/certificates/" + serial + "/revoke-by-key"}
	host := strings.Repeat(strings.Repeat("h", 49)+".", 5) + "ex:65535"
	header, err := json.Marshal(map[string]any{"alg": "PS256", "typ": possessionType, "iat": noon.Unix(), "url": "https://" + host + at.path})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]string{
		"serial": serial, "issuer": strings.Repeat("i", maxName), "comment": strings.Repeat("<", 1000),
	})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	body, err := json.Marshal(SignedRevocation{
		Protected: encode(header), Payload: encode(payload), Signature: encode(bytes.Repeat([]byte{0xff}, 8192/8)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > maxPossession || 5*len(body) < 4*maxPossession {
		t.Errorf("the largest has %d octets, and %d are read", len(body), maxPossession)
	}
	r := httptest.NewRequest(http.MethodPost, "https://"+host+at.path, bytes.NewReader(body))
	r.Header.Set("Content-Type", typeJSON)
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	decode[Revoked](t, w, http.StatusOK)
	over := at.of(bytes.Repeat([]byte(" "), maxPossession+1)).with("Content-Type", typeJSON)
	wantProblem(t, s.call(over), http.StatusRequestEntityTooLarge, "too-large")
}

// TestRolesAreAskedForBeforeMuchIsRead: who may not do it is told so, whatever the body holds.
func TestRolesAreAskedForBeforeMuchIsRead(t *testing.T) {
	s := newSurface(t)
	for path, mediaType := range map[string]string{"/api/v1/revocations": typeJSON, "/api/v1/certificates:batch": typeNDJSON} {
		a := ask{method: http.MethodPost, path: path, role: access.Auditor}.with("Content-Type", mediaType)
		wantProblem(t, s.call(a.of(bytes.Repeat([]byte("{"), maxSelection+1))), http.StatusForbidden, "denied")
	}
}

// What is read of a signature is what was signed, and nothing of it makes the reader fall.
func FuzzPossession(f *testing.F) {
	const url = "https://example.com/x"
	body, err := json.Marshal(signed(f, `{"alg":"ES256","typ":"chancery-revocation+jws","url":"`+url+`","iat":1795176000}`, `{"serial":"1c01","comment":"x"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"protected":"e30","payload":"e30","signature":"AA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, said, err := readPossession(data, url, noon)
		if err != nil {
			return
		}
		var j SignedRevocation
		if err := json.Unmarshal(data, &j); err != nil || string(p.Signed) != j.Protected+"."+j.Payload || len(p.Signature) == 0 {
			t.Errorf("%s was read as %+v, %+v", data, p, said)
		}
	})
}

// TestNoCertificateIsPassedOver: one that is damaged refuses the order, wherever it stands.
func TestNoCertificateIsPassedOver(t *testing.T) {
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Repeat([]byte{7}, 100)}))
	for name, c := range map[string]struct {
		text string
		all  int
		ok   bool
	}{
		"none":            {"", 0, true},
		"two":             {block + "\n" + block, 2, true},
		"damaged first":   {strings.Replace(block, "BwcH", "B*cH", 1) + block, 0, false},
		"damaged second":  {block + strings.Replace(block, "BwcH", "B*cH", 1) + block, 0, false},
		"cut off":         {block[:len(block)/2] + "\n" + block, 0, false},
		"without an end":  {strings.Replace(block, "-----END", "----END", 1) + block, 0, false},
		"text between":    {block + "text\n" + block, 0, false},
		"something other": {strings.ReplaceAll(block, "CERTIFICATE", "PUBLIC KEY"), 0, false},
	} {
		if all, ok := readCertificates(c.text); len(all) != c.all || ok != c.ok {
			t.Errorf("%s: %d certificates, %t", name, len(all), ok)
		}
	}
}
