package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/blocklist"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// nameServer is a resolver on 127.0.0.1 whose one CAA record, at example.com, can be changed; without one it fails.
func nameServer(t *testing.T) (address string, record *atomic.Pointer[string]) {
	t.Helper()
	record = &atomic.Pointer[string]{}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: udp, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		text := record.Load()
		switch {
		case text == nil:
			answer.Rcode = dns.RcodeServerFailure
		case question.Question[0].Name == "example.com.":
			rr, err := dns.NewRR("example.com. 1 IN CAA " + *text)
			if err != nil {
				t.Error(err)
			}
			answer.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(answer)
	})}
	ended := make(chan error, 1)
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return udp.LocalAddr().String(), record
}

// strictPolicies are the shipped profiles, but for a tls-public that asks for CAA records and a tls-client whose keys serve the same names.
func strictPolicies(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("../../policies/profiles/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d profiles, %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(content), "dns: {public: true,", "dns: {public: true, caa: true,", 1)
		text = strings.Replace(text, ", CABF_BR, Mozilla, Community]", "]", 1)   // they refuse what stands in a test's certificates: URLs at 127.0.0.1
		text = strings.Replace(text, "standards: [cabf-br]", "standards: []", 1) // which asks for them
		if filepath.Base(file) == "tls-client.yaml" {
			text = strings.Replace(text, "keys:\n", "keys:\n  reuse: same-names\n", 1)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// order asks for a certificate and tells the rules that were broken.
func (r *replica) order(ctx context.Context, t *testing.T, profile, request string) (a answer, rules []string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"profile": profile, "csr": request})
	if err != nil {
		t.Fatal(err)
	}
	if a, err = r.call(ctx, http.MethodPost, "/api/v1/certificates", access.Requester, http.Header{"Content-Type": {"application/json"}}, body); err != nil {
		t.Fatal(err)
	}
	var problem struct{ Violations []policies.Violation }
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(&problem); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	for _, v := range problem.Violations {
		rules = append(rules, v.Rule)
	}
	return a, rules
}

// TestFactsDecide plays what keys and names have been, and what the DNS says of them, through a service of its own: lists of keys, the
// history of a key, CAA records.
func TestFactsDecide(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	resolver, record := nameServer(t)
	leaked := newRequest(t, "www.dev.example")
	parsed, err := csr.ParsePEM([]byte(leaked))
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "leaked.keys")
	if _, err := blocklist.Write(list, "leaked keys", []blocklist.Key{parsed.SPKISHA256()}); err != nil {
		t.Fatal(err)
	}
	s := newStack(t, storagetest.New(t), false)
	r := s.start("facts", s.token.Module, "CHANCERY_POLICIES_DIRECTORY="+strictPolicies(t), "CHANCERY_POLICIES_KEY_LISTS="+list,
		"CHANCERY_CAA_DOMAINS=ca.example.net", "CHANCERY_CAA_RESOLVERS="+resolver, "CHANCERY_CAA_TIMEOUT=5s")
	defer r.stop()
	want := func(what, profile, request string, status int, rules ...string) answer {
		t.Helper()
		a, got := r.order(ctx, t, profile, request)
		if a.status != status || !slices.Equal(got, rules) {
			t.Errorf("%s: status %d, rules %q, want %d and %q: %s", what, a.status, got, status, rules, a.body)
		}
		return a
	}

	want("a leaked key", "tls-server", leaked, http.StatusUnprocessableEntity, "key.listed")
	want("a new key", "tls-server", newRequest(t, "www.dev.example"), http.StatusCreated)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sameKey := func(names ...string) string {
		request, err := newCSR(rand.Reader, key, names)
		if err != nil {
			t.Fatal(err)
		}
		return request
	}
	want("a key's first certificate", "tls-client", sameKey("a.dev.example", "b.dev.example"), http.StatusCreated)
	want("its renewal", "tls-client", sameKey("b.dev.example", "a.dev.example"), http.StatusCreated)
	want("its use for other names", "tls-client", sameKey("a.dev.example"), http.StatusUnprocessableEntity, "key.reuse", "key.reuse")
	want("its use in a profile that does not ask", "tls-server", sameKey("a.dev.example"), http.StatusCreated)

	public := newRequest(t, "www.example.com")
	if a := want("without an answer of the DNS", "tls-public", public, http.StatusUnprocessableEntity, "names.caa"); a.header.Get("Retry-After") != "60" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	for text, status := range map[string]int{`0 issue "ca.example.net"`: http.StatusCreated, `0 issue "else.example.net"`: http.StatusUnprocessableEntity} {
		record.Store(&text)
		a, _ := r.order(ctx, t, "tls-public", public)
		if a.status != status || a.header.Get("Retry-After") != "" {
			t.Errorf("CAA %s: status %d, Retry-After %q: %s", text, a.status, a.header.Get("Retry-After"), a.body)
		}
	}
	want("a name that lies elsewhere", "tls-public", newRequest(t, "www.example.org"), http.StatusUnprocessableEntity, "names.namespace")
}

// TestServeAsksForCAADomains holds that a service whose profiles ask for CAA records does not start without a domain to find in them.
func TestServeAsksForCAADomains(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	path := filepath.Join(s.dir, "nameless.yaml")
	if err := os.WriteFile(path, []byte(s.config("nameless", s.token.Module)+"policies: {directory: "+strictPolicies(t)+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, serving := s.serves(path); serving || !strings.Contains(said, "profile tls-public asks for CAA records") {
		t.Errorf("serving: %v\n%s", serving, said)
	}
}
