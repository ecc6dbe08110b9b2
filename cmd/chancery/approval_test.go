package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/policies"
)

// TestWhatIsSignedIsWhatIsShown: a service that was taken over gets no signature over a statement that speaks of something else as well.
func TestWhatIsSignedIsWhatIsShown(t *testing.T) {
	t.Parallel()
	s := approval.Statement{
		Kind: approval.KindRevocation, ID: "0190a5d2-0000-7000-8000-000000000001", Approves: true, Person: "bob",
		Expires: time.Date(2026, 12, 5, 10, 0, 0, 0, time.UTC), Binding: "sha256:00ff",
		Facts: []approval.Fact{{Name: "certificates", Value: "3"}, {Name: "reason", Value: "superseded"}},
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	shown := client.RevocationJob{ID: s.ID, Digest: "00ff", Total: 3, Reason: "superseded"}
	for name, c := range map[string]struct {
		change func(string) string
		signs  bool
	}{
		"it":             {func(said string) string { return said }, true},
		"another number": {func(said string) string { return strings.Replace(said, "certificates: 3", "certificates: 30", 1) }, false},
		"another number first": {func(said string) string {
			return strings.Replace(said, "certificates", "certificates: 30\ncertificates", 1)
		}, false},
		"another binding":   {func(said string) string { return strings.Replace(said, "00ff", "00fe", 1) }, false},
		"something besides": {func(said string) string { return said + "only_keys_remembered: 30\n" }, false},
	} {
		job := shown
		job.Statement = c.change(string(text))
		if signed, err := jobDecided(&job).text(true); (err == nil) != c.signs || c.signs && string(signed) != string(text) {
			t.Errorf("%s: %q, %v", name, signed, err)
		}
	}
}

// TestWhatACSRAsksForIsShownWhereItIsSigned: a service that was taken over shows its own names beside another CSR. The statement has the
// digest of that alone, which nobody can read names from.
func TestWhatACSRAsksForIsShownWhereItIsSigned(t *testing.T) {
	t.Parallel()
	holder := stranger(t, "bob.dev.example")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "the bank"}, DNSNames: []string{"bank.example"}, IPAddresses: []net.IP{{192, 0, 2, 1}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	shown := client.WaitingRequest{
		ID: "0190a5d2-0000-7000-8000-000000000001", Profile: "guarded", Issuer: "issuing-1", Names: []string{"harmless.example"},
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), Binding: "sha256:1", Policies: "sha256:2",
	}
	of := requestDecided(&shown)
	s := approval.Statement{Kind: of.kind, ID: of.id, Approves: true, Person: "bob", Expires: time.Now().Add(time.Hour), Binding: of.binding}
	for _, name := range slices.Sorted(maps.Keys(of.facts)) {
		s.Facts = append(s.Facts, approval.Fact{Name: name, Value: of.facts[name]})
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	of.statement = string(text)
	var stderr bytes.Buffer
	a := &app{Env: Env{Stderr: &stderr, Random: rand.Reader}}
	if _, err := a.sign(signWith{key: holder.secret, certificate: holder.chainFile}, of, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bank.example", "192.0.2.1", "CN=the bank"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%s is not shown: %s", want, stderr.String())
		}
	}
}

// TestEvidenceIsOfWhatItStandsBeside: whoever rewrites a record cannot have a signature that was given for something else stand beside it.
func TestEvidenceIsOfWhatItStandsBeside(t *testing.T) {
	t.Parallel()
	holder := stranger(t, "bob.dev.example")
	chain, err := os.ReadFile(holder.chainFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(holder.secret)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := approval.OpenX509(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Date(2026, 12, 5, 10, 0, 0, 0, time.UTC)
	sign := func(of decidedOn) *client.Evidence {
		s := approval.Statement{Kind: of.kind, ID: of.id, Approves: true, Person: "bob", Expires: expires, Binding: of.binding}
		for _, name := range slices.Sorted(maps.Keys(of.facts)) {
			s.Facts = append(s.Facts, approval.Fact{Name: name, Value: of.facts[name]})
		}
		text, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		signature, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		e := approval.Evidence{Statement: text, Signature: signature, Key: signer.Key()}
		return &client.Evidence{Statement: string(text), Signature: string(signature), Key: e.Key.String(), Digest: e.Digest()}
	}
	const csr, other = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
		"-----BEGIN CERTIFICATE REQUEST-----\nMAAA\n-----END CERTIFICATE REQUEST-----\n"
	request := client.WaitingRequest{ID: "r", CSR: csr, Binding: "sha256:1", Policies: "sha256:2", Profile: "guarded", Issuer: "issuing-1"}
	request.Approvals = []client.Approval{{Person: "bob", Approved: true, Binding: "sha256:1", Evidence: sign(requestDecided(&request))}}
	request.Binding, request.Policies = "", "" // as of a request that waits no more
	proposal := client.PolicyProposal{ID: "p", Digest: "sha256:3", Replaces: "sha256:2"}
	proposal.Votes = []client.PolicyVote{{Person: "bob", Approves: true, Evidence: sign(proposalDecided(&proposal))}}
	job := client.RevocationJob{ID: "j", Digest: "00ff", Total: 3, Reason: "superseded"}
	job.Approvals = []client.Vote{{Person: "bob", Approved: true, Evidence: sign(jobDecided(&job))}}
	order := client.Order{ID: "o", Kind: "key.destroy", Binding: "sha256:4", Facts: []client.OrderFact{{Name: "key_id", Value: "0x01"}}}
	order.Votes = []client.Vote{{Person: "bob", Approved: true, Evidence: sign(orderDecided(&order))}}

	history := func(p client.PolicyProposal) any { return client.PolicyState{Proposals: []client.PolicyProposal{p}} }
	for name, c := range map[string]struct {
		export any
		sound  bool
	}{
		"request": {request, true}, "policies": {history(proposal), true}, "revocation": {job, true}, "order": {order, true},
		"request for another CSR": {func() any { r := request; r.CSR = other; return r }(), false},
		"request without a CSR":   {func() any { r := request; r.CSR = ""; return r }(), false},
		"request, other profile":  {func() any { r := request; r.Profile = "free"; return r }(), false},
		"request, other binding": {func() any {
			r, a := request, request.Approvals[0]
			a.Binding = "sha256:5"
			r.Approvals = []client.Approval{a}
			return r
		}(), false},
		"other policies":      {func() any { p := proposal; p.Digest = "sha256:6"; return history(p) }(), false},
		"other certificates":  {func() any { j := job; j.Digest = "00fe"; return j }(), false},
		"another reason":      {func() any { j := job; j.Reason = "keyCompromise"; return j }(), false},
		"another key's order": {func() any { o := order; o.Facts = []client.OrderFact{{Name: "key_id", Value: "0x02"}}; return o }(), false},
	} {
		data, err := json.Marshal(c.export)
		if err != nil {
			t.Fatal(err)
		}
		if words, err := verifyWords(data, nil); (err == nil) != c.sound {
			t.Errorf("%s: %+v, %v", name, words, err)
		}
	}
}

// TestPoliciesAreShownAsTheyAre: whoever approves policies signs their digest, and looks at files: a service that was taken over cannot show
// others.
func TestPoliciesAreShownAsTheyAre(t *testing.T) {
	t.Parallel()
	good, bad := map[string]string{"a.yaml": "name: a\n", "b.yaml": "name: b\n"}, map[string]string{"a.yaml": "name: a\n", "b.yaml": "name: c\n"}
	digest := policies.Digest([]policies.File{
		{Name: "b.yaml", Content: []byte(good["b.yaml"])}, {Name: "a.yaml", Content: []byte(good["a.yaml"])},
	})
	var answer client.PolicySet
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer service.Close()
	for name, c := range map[string]struct {
		asked []string
		shown client.PolicySet
		sound bool
	}{
		"they":                  {[]string{digest}, client.PolicySet{Digest: digest, Files: good}, true},
		"those that rule":       {nil, client.PolicySet{Digest: digest, Files: good}, true},
		"other files":           {[]string{digest}, client.PolicySet{Digest: digest, Files: bad}, false},
		"others that rule":      {nil, client.PolicySet{Digest: digest, Files: bad}, false},
		"those of another name": {[]string{"sha256:" + strings.Repeat("0", 64)}, client.PolicySet{Digest: digest, Files: good}, false},
	} {
		answer = c.shown
		var said bytes.Buffer
		err := run(t.Context(), append([]string{"policy", "show", "--api", service.URL}, c.asked...), Env{
			Stdin: strings.NewReader(""), Stdout: &said, Stderr: io.Discard, Environ: []string{"HOME=" + t.TempDir()}, Now: time.Now, Random: rand.Reader,
		})
		if (err == nil) != c.sound || !c.sound && said.Len() > 0 {
			t.Errorf("%s: %v, and %q is shown", name, err, said.String())
		}
	}
}
