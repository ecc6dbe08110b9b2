package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// office is an authority of these tests.
type office struct {
	t           testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newOffice(t testing.TB, name string, parent *office) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(noon.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-time.Hour),
		NotAfter: noon.Add(1000 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	by, signer := template, key
	if parent != nil {
		by, signer = parent.certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if o.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) issue(change ...func(*x509.Certificate)) *x509.Certificate {
	o.t.Helper()
	robot, _ := url.Parse("spiffe://example/ci/7")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "ci", Organization: []string{"Example"}}, NotBefore: noon.Add(-time.Hour),
		NotAfter: noon.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{robot},
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, o.certificate, o.key.Public(), o.key)
	if err != nil {
		o.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		o.t.Fatal(err)
	}
	return certificate
}

func (o *office) list(number int64, until time.Time, revoked ...int64) []byte {
	o.t.Helper()
	return o.listAt(big.NewInt(number), noon.Add(-time.Hour), until, revoked...)
}

// record is the registry of our own authority.
type record struct {
	issued Issued
	err    error
	asked  int
}

func (r *record) Issued(_ context.Context, authority string, serial []byte) (*Issued, error) {
	r.asked++
	if authority != "issuing-1" || !bytes.Equal(serial, []byte{77}) || r.err != nil {
		return nil, r.err
	}
	issued := r.issued
	return &issued, nil
}

var rules = access.Rules{
	{Name: "robots", Means: access.ByCertificate, Match: map[string][]string{
		"uri": {"spiffe://example/*"}, "issuer": {"issuing-1"},
		"namespace": {"web"},
	}, Namespace: "${namespace}", Roles: []access.Role{access.Requester}, Person: "${uri}"},
	{
		Name: "corp", Means: access.ByCertificate, Match: map[string][]string{"o": {"Example"}, "issuer": {"corp"}}, Namespace: "corp",
		Roles: []access.Role{access.Requester},
	},
}

func showing(chain ...*x509.Certificate) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: chain}
	return r
}

func wantRefused(t *testing.T, why string, found bool, err error) {
	t.Helper()
	var refused *access.Unauthenticated
	if found || !errors.As(err, &refused) || refused.Detail == "" || !refused.Shown || refused.Cause == nil ||
		!strings.Contains(refused.Cause.Error(), why) {
		t.Errorf("found %v, %v; want a refusal because of %q", found, err, why)
	}
}

func TestOurOwnCertificatesAreJudgedAtEachRequest(t *testing.T) {
	issuing, foreign := newOffice(t, "Issuing", nil), newOffice(t, "Issuing", nil)
	leaf := issuing.issue()
	now, books := noon, &record{issued: Issued{DER: leaf.Raw, Namespace: "web", Profile: "tls-client"}}
	c := &Certificates{
		Anchors: []Anchor{{Name: "issuing-1", Own: true, Certificates: []*x509.Certificate{issuing.certificate}}}, Rules: rules, Registry: books,
		Now: func() time.Time { return now },
	}
	for range 2 {
		actor, found, err := c.Authenticate(showing(leaf))
		if err != nil || !found || actor.ID != "certificate:issuing-1/4d" || actor.Namespace != "web" ||
			actor.Person != "spiffe://example/ci/7" || actor.Name != "ci" {
			t.Fatalf("got %+v, %v, %v", actor, found, err)
		}
	}
	if books.asked != 2 {
		t.Errorf("the record was asked %d times for two requests", books.asked)
	}
	if _, found, err := c.Authenticate(httptest.NewRequest(http.MethodGet, "/", nil)); found || err != nil {
		t.Errorf("without a certificate: %v, %v", found, err)
	}
	if err := c.Require(httptest.NewRequest(http.MethodGet, "/", nil)); err == nil {
		t.Error("none is required")
	}
	for _, bad := range []struct {
		why  string
		leaf *x509.Certificate
	}{
		{"no anchor vouches", foreign.issue()},
		{
			"not for client authentication",
			issuing.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		},
		{"not for client authentication", issuing.issue(func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		{"not for client authentication", issuing.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })},
		{"expired", issuing.issue(func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) })},
		{"expired", issuing.issue(func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Minute) })}, // Go's word for both
		{"no such certificate on record", issuing.issue(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(78) })},
		{"no such certificate on record", issuing.issue(func(c *x509.Certificate) { c.Subject.CommonName = "somebody else" })},
		{"an authority's certificate", issuing.certificate},
	} {
		_, found, err := c.Authenticate(showing(bad.leaf))
		wantRefused(t, bad.why, found, err)
		if c.Require(showing(bad.leaf)) == nil {
			t.Errorf("%s: it is good enough where one is required", bad.why)
		}
	}
	books.issued.Namespace = "db"
	_, found, err := c.Authenticate(showing(leaf))
	wantRefused(t, "no rule", found, err)
	if err := c.Require(showing(leaf)); err != nil {
		t.Errorf("a good certificate of nobody in particular: %v", err)
	}
	books.issued.Namespace, books.issued.Revoked = "web", true
	_, found, err = c.Authenticate(showing(leaf))
	wantRefused(t, "revoked or on hold", found, err)
	books.issued.Revoked, now = false, noon.Add(2*time.Hour)
	_, found, err = c.Authenticate(showing(leaf)) // verified before, and ended since
	wantRefused(t, "expired", found, err)
	now, books.err = noon, errors.New("the database is away")
	var refused *access.Unauthenticated
	if _, found, err := c.Authenticate(showing(leaf)); found || err == nil || errors.As(err, &refused) {
		t.Errorf("while the record is away: %v, %v", found, err)
	}
}

// TestABadCertificateCostsLittle: its bearer needs no credentials to show it with each request, and may bring any authorities along.
func TestABadCertificateCostsLittle(t *testing.T) {
	corp, stranger := newOffice(t, "Corp", nil), newOffice(t, "Stranger", nil)
	now := noon
	c := &Certificates{
		Anchors: []Anchor{{Name: "corp", Certificates: []*x509.Certificate{corp.certificate}}}, Rules: rules,
		Now: func() time.Time { return now },
	}
	bad := stranger.issue()
	_, found, err := c.Authenticate(showing(slices.Repeat([]*x509.Certificate{bad}, maxPresented+1)...))
	wantRefused(t, "11 certificates were presented", found, err)

	// That nobody looks again shows when the stranger's authority is an anchor meanwhile.
	_, found, err = c.Authenticate(showing(bad))
	wantRefused(t, "no anchor vouches", found, err)
	c.Anchors[0].Certificates = append(c.Anchors[0].Certificates, stranger.certificate)
	for _, passed := range []time.Duration{0, refusedFor - 1} {
		now = noon.Add(passed)
		_, found, err = c.Authenticate(showing(bad))
		wantRefused(t, "no anchor vouches", found, err)
	}
	for _, passed := range []time.Duration{refusedFor, -time.Minute} { // the clock may be set back
		now = noon.Add(passed)
		c.verified = nil
		if _, found, err := c.Authenticate(showing(bad)); !found || err != nil {
			t.Errorf("after %s: %v, %v", passed, found, err)
		}
	}

	// What time mends is not refused for longer than time takes.
	young := corp.issue(func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) })
	for now = noon; now.Before(young.NotBefore); now = now.Add(500 * time.Millisecond) {
		_, found, err = c.Authenticate(showing(young))
		wantRefused(t, "not yet valid", found, err)
	}
	if _, found, err := c.Authenticate(showing(young)); !found || err != nil {
		t.Errorf("when its time has come: %v, %v", found, err)
	}

	// No room is taken for long words, nor for many.
	c.refused = nil
	for i := range maxVerified + 1 {
		c.refuse([32]byte{byte(i), byte(i >> 8)}, nil, now, errors.New(strings.Repeat("x", 1000)))
	}
	if n := len(c.refused); n != 1 || len(c.refused[[32]byte{0, maxVerified >> 8}].why) > 300 {
		t.Errorf("%d refusals are remembered", n)
	}
}

// TestLongKeysOfAuthoritiesVerifyNothing: x509 tells in its error whose key it has tried.
func TestLongKeysOfAuthoritiesVerifyNothing(t *testing.T) {
	corp, between := newOffice(t, "Corp", nil), newOffice(t, "Between", nil)
	c := &Certificates{
		Anchors: []Anchor{{Name: "corp", Certificates: []*x509.Certificate{corp.certificate}}}, Now: func() time.Time { return noon },
	}
	for bits, tried := range map[uint]bool{maxRSA: true, maxRSA + 1: false} {
		modulus := new(big.Int).Lsh(big.NewInt(1), bits-1)
		key := &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
		der, err := x509.CreateCertificate(rand.Reader, between.certificate, corp.certificate, key, corp.key)
		if err != nil {
			t.Fatal(err)
		}
		brought, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.find([]*x509.Certificate{between.issue(func(c *x509.Certificate) { c.AuthorityKeyId = nil }), brought}, noon)
		if err == nil || strings.Contains(err.Error(), "candidate authority") != tried {
			t.Errorf("an authority's key of %d bits: %v", bits, err)
		}
	}
}

func TestOthersAreHeldAgainstTheirLists(t *testing.T) {
	root := newOffice(t, "Corp Root", nil)
	between := newOffice(t, "Corp Issuing", root)
	leaf := between.issue()
	dir := t.TempDir()
	rootList, list := filepath.Join(dir, "root.crl"), filepath.Join(dir, "issuing.crl")
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	later := noon.Add(24 * time.Hour)
	write(rootList, root.list(1, later))
	write(list, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: between.list(5, later)}))
	lists := NewLists([]string{rootList, list}, []*x509.Certificate{root.certificate}, nil)
	now := noon
	c := &Certificates{
		Anchors: []Anchor{{Name: "corp", Certificates: []*x509.Certificate{root.certificate}, Lists: lists}}, Rules: rules,
		Now: func() time.Time { return now },
	}
	_, found, err := c.Authenticate(showing(leaf, between.certificate))
	wantRefused(t, "no current CRL", found, err) // none was read yet
	if err := lists.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	actor, found, err := c.Authenticate(showing(leaf, between.certificate))
	if err != nil || !found || actor.Namespace != "corp" || actor.Person != actor.ID ||
		!strings.HasPrefix(actor.ID, "certificate:corp/sha256-") {
		t.Fatalf("got %+v, %v, %v", actor, found, err)
	}
	_, found, err = c.Authenticate(showing(leaf)) // without what leads to the root
	wantRefused(t, "no anchor vouches", found, err)

	write(list, between.list(6, later, 77))
	if err := lists.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, found, err = c.Authenticate(showing(leaf, between.certificate))
	wantRefused(t, "is revoked", found, err)

	// An older list in which it is not revoked is not taken; nor one by somebody else, of some certificates, or none at all.
	for _, bad := range [][]byte{between.list(5, later), []byte("none"), nil} {
		write(list, bad)
		if lists.Refresh(t.Context()) == nil {
			t.Errorf("%q was read", bad[:min(len(bad), 8)])
		}
		_, found, err = c.Authenticate(showing(leaf, between.certificate))
		wantRefused(t, "is revoked", found, err)
	}
	write(list, newOffice(t, "Corp Issuing", nil).list(7, later))
	if refused := lists.Refresh(t.Context()); len(refused) != 1 || refused[0].Reason != Unverified {
		t.Errorf("a list by another who has the name: %v", refused)
	}
	_, found, err = c.Authenticate(showing(leaf, between.certificate))
	wantRefused(t, "is revoked", found, err)
	write(list, between.list(8, later))
	if err := lists.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = noon.Add(30 * time.Minute)
	if _, found, err := c.Authenticate(showing(leaf, between.certificate)); !found || err != nil {
		t.Errorf("released: %v, %v", found, err)
	}
	write(list, between.list(9, noon.Add(time.Minute)))
	if err := lists.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, found, err = c.Authenticate(showing(leaf, between.certificate))
	wantRefused(t, "no current CRL", found, err)
	// The intermediate is revoked by the root.
	write(list, between.list(10, later))
	write(rootList, root.list(2, later, between.certificate.SerialNumber.Int64()))
	if err := lists.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, found, err = c.Authenticate(showing(leaf, between.certificate))
	wantRefused(t, "is revoked", found, err)
}

// renewed is another certificate of an authority, with its name and key.
func (o *office) renewed(parent *office, serial int64, from, until time.Time) *x509.Certificate {
	o.t.Helper()
	template := *o.certificate
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(serial), from, until
	der, err := x509.CreateCertificate(rand.Reader, &template, parent.certificate, o.key.Public(), parent.key)
	if err != nil {
		o.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		o.t.Fatal(err)
	}
	return certificate
}

// TestAnAuthorityMayHaveTwoCertificates: a caller is let in as long as one of them is good, and from the moment on at which another is.
func TestAnAuthorityMayHaveTwoCertificates(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp Root", nil)
	between := newOffice(t, "Corp Issuing", root)
	soon, later := noon.Add(10*time.Minute), noon.Add(24*time.Hour)
	old, next := between.renewed(root, 5, noon.Add(-time.Hour), soon), between.renewed(root, 6, noon.Add(-time.Hour), later)
	leaf := between.issue()
	path := filepath.Join(t.TempDir(), "root.crl")
	list := filepath.Join(filepath.Dir(path), "issuing.crl")
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, chain := range map[string][]*x509.Certificate{"the old one first": {leaf, old, next}, "the new one first": {leaf, next, old}} {
		t.Run(name, func(t *testing.T) {
			write(path, root.list(1, later))
			write(list, between.list(1, later))
			now := noon
			lists := NewLists([]string{path, list}, []*x509.Certificate{root.certificate}, nil)
			c := &Certificates{
				Anchors: []Anchor{{Name: "corp", Certificates: []*x509.Certificate{root.certificate}, Lists: lists}}, Rules: rules,
				Now: func() time.Time { return now },
			}
			let := func(when string, why string) {
				t.Helper()
				if refused := lists.Refresh(t.Context()); refused != nil {
					t.Fatal(refused)
				}
				_, found, err := c.Authenticate(showing(chain...))
				if why != "" {
					wantRefused(t, why, found, err)
				} else if !found || err != nil {
					t.Errorf("%s: %v, %v", when, found, err)
				}
			}
			let("at first", "")
			write(path, root.list(2, later, 5))
			let("when the old one is revoked", "")
			write(path, root.list(3, later, 6))
			let("when the new one is revoked, and the old one is not", "")
			write(path, root.list(4, later, 5, 6))
			let("when both are revoked", "is revoked")
			write(path, root.list(5, later))
			now = soon.Add(time.Minute)
			let("when the old one has ended", "")
			write(path, root.list(6, later, 6))
			let("when the old one has ended and the new one is revoked", "is revoked")
			write(path, root.list(7, later))
			write(list, between.list(2, later, 77))
			let("when the caller's own is revoked", "is revoked")
		})
	}
	// What is remembered may hold no more, while another chain has come into force since.
	now := noon
	young := between.renewed(root, 7, soon, later)
	c := &Certificates{
		Anchors: []Anchor{{
			Name: "corp", Certificates: []*x509.Certificate{root.certificate}, Intermediates: []*x509.Certificate{old, young},
		}}, Rules: rules, Now: func() time.Time { return now },
	}
	for _, now = range []time.Time{noon, soon.Add(time.Minute)} {
		if _, found, err := c.Authenticate(showing(leaf)); !found || err != nil {
			t.Errorf("at %s: %v, %v", now, found, err)
		}
	}
}

// TestOldListsAreNotTaken: an authority may number anew, as one that was built again does, and an old list is none of its.
func TestOldListsAreNotTaken(t *testing.T) {
	corp := newOffice(t, "Corp", nil)
	path := filepath.Join(t.TempDir(), "corp.crl")
	at := func(number int64, updated time.Time) []byte {
		template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: updated, NextUpdate: noon.Add(24 * time.Hour)}
		der, err := x509.CreateRevocationList(rand.Reader, template, corp.certificate, corp.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, c := range map[string]struct {
		number int64
		after  time.Duration
		taken  bool
	}{
		"the same":                          {9, 0, true},
		"a higher number":                   {10, time.Hour, true},
		"a higher number, clock set back":   {10, -time.Hour, true},
		"numbered anew":                     {1, time.Second, true},
		"numbered anew, in the same second": {1, 0, false},
		"an old one":                        {8, -time.Second, false},
	} {
		lists := NewLists([]string{path}, []*x509.Certificate{corp.certificate}, nil)
		for i, list := range [][]byte{at(9, noon), at(c.number, noon.Add(c.after))} {
			if err := os.WriteFile(path, list, 0o600); err != nil {
				t.Fatal(err)
			}
			refused := lists.Refresh(t.Context())
			if taken := i == 0 || c.taken; (refused == nil) != taken ||
				refused != nil && (refused[0].Reason != Older || !strings.Contains(refused[0].Error(), "have it issue one now")) {
				t.Errorf("%s, list %d: %v", name, i+1, refused)
			}
		}
	}
	plain := &x509.RevocationList{ThisUpdate: noon}
	numbered := &x509.RevocationList{ThisUpdate: noon.Add(-time.Hour), Number: big.NewInt(9)}
	if notOlder(numbered, plain) == nil || notOlder(plain, numbered) != nil || notOlder(plain, plain) != nil {
		t.Error("a list without a number is not judged by its time")
	}
}

func TestListsComeByHTTP(t *testing.T) {
	corp := newOffice(t, "Corp", nil)
	status, list := http.StatusOK, corp.list(1, noon.Add(time.Hour))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(list)
	}))
	defer server.Close()
	l := NewLists([]string{server.URL}, []*x509.Certificate{corp.certificate}, server.Client())
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.check([]*x509.Certificate{corp.issue(), corp.certificate}, noon); err != nil {
		t.Error(err)
	}
	// A signature is verified once, and by its authority alone: not by another that has its name.
	impostor := newOffice(t, "Corp", nil)
	if l.check([]*x509.Certificate{impostor.issue(), impostor.certificate}, noon) == nil {
		t.Error("a list counts for an authority that has not signed it")
	}
	status = http.StatusNotFound
	if refused := l.Refresh(t.Context()); len(refused) != 1 || refused[0].Reason != Unreadable || refused[0].Source != server.URL ||
		!strings.HasSuffix(refused[0].Error(), "404 Not Found") {
		t.Errorf("got %v", refused)
	}
	if err := l.check([]*x509.Certificate{corp.issue(), corp.certificate}, noon); err != nil {
		t.Errorf("what was read before holds until it ends: %v", err)
	}
}

func TestWhatProxiesSay(t *testing.T) {
	leaf := newOffice(t, "Issuing", nil).issue()
	inPEM := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})))
	inPEM = strings.ReplaceAll(inPEM, "+", "%20") // a blank is %20 in what nginx and Envoy write
	rfc := ":" + base64.StdEncoding.EncodeToString(leaf.Raw) + ":"
	proxy := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	for _, c := range []struct {
		name, header, from string
		values             []string
		want               string // "cert", "none" or "error"
	}{
		{"RFC 9440", HeaderRFC9440, "10.0.0.5:1", []string{rfc}, "cert"},
		{"RFC 9440, spoofed", HeaderRFC9440, "10.0.1.5:1", []string{rfc}, "none"},
		{"RFC 9440, twice", HeaderRFC9440, "10.0.0.5:1", []string{rfc, rfc}, "error"},
		{"RFC 9440, none", HeaderRFC9440, "10.0.0.5:1", nil, "none"},
		{"RFC 9440, no sequence", HeaderRFC9440, "10.0.0.5:1", []string{strings.Trim(rfc, ":")}, "error"},
		{"RFC 9440, parameters", HeaderRFC9440, "10.0.0.5:1", []string{rfc + ";a=1"}, "error"},
		{
			"RFC 9440, trailing octets", HeaderRFC9440, "10.0.0.5:1",
			[]string{":" + base64.StdEncoding.EncodeToString(append(leaf.Raw[:len(leaf.Raw):len(leaf.Raw)], 0)) + ":"},
			"error",
		},
		{"Envoy", HeaderEnvoy, "10.0.0.5:1", []string{`Hash=ab;Subject="CN=x,O=\"y;z\"";Cert="` + inPEM + `"`}, "cert"},
		{"Envoy, two elements", HeaderEnvoy, "10.0.0.5:1", []string{`Cert="` + inPEM + `",Cert="` + inPEM + `"`}, "error"},
		{"Envoy, two certificates", HeaderEnvoy, "10.0.0.5:1", []string{`Cert="` + inPEM + `";Cert="` + inPEM + `"`}, "error"},
		{"Envoy, an open quote", HeaderEnvoy, "10.0.0.5:1", []string{`Cert="` + inPEM}, "error"},
		{"Envoy, only a hash", HeaderEnvoy, "10.0.0.5:1", []string{`Hash=ab`}, "error"},
		{"nginx", "X-SSL-Client-Cert", "10.0.0.5:1", []string{inPEM}, "cert"},
		{"nginx, a chain", "X-SSL-Client-Cert", "10.0.0.5:1", []string{inPEM + inPEM}, "error"},
		{"from nowhere", HeaderRFC9440, "@", []string{rfc}, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = c.from
			r.Header[http.CanonicalHeaderKey(c.header)] = c.values
			got, err := Proxies{Networks: proxy, CertificateHeader: c.header}.certificates(r)
			switch {
			case c.want == "error" && err == nil, c.want != "error" && err != nil, c.want == "none" && len(got) != 0,
				c.want == "cert" && (len(got) != 1 || !got[0].Equal(leaf)):
				t.Errorf("got %d certificates, %v", len(got), err)
			}
		})
	}
	// The proxy's own certificate is never the caller's, and without a configuration no header says anything.
	r := showing(leaf)
	r.RemoteAddr = "10.0.0.5:1"
	if got, err := (Proxies{Networks: proxy, CertificateHeader: HeaderRFC9440}).certificates(r); len(got) != 0 || err != nil {
		t.Errorf("the proxy's own: %d, %v", len(got), err)
	}
	r = httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set(HeaderRFC9440, rfc)
	if got, err := (Proxies{}).certificates(r); len(got) != 0 || err != nil {
		t.Errorf("a header that nobody configured: %d, %v", len(got), err)
	}
}

func TestWhereCallersAre(t *testing.T) {
	p := Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/8")}, ForwardedFor: true}
	for _, c := range []struct {
		from      string
		forwarded []string
		want      string // empty: unknown
	}{
		{"192.0.2.1:5", []string{"198.51.100.7"}, "192.0.2.1"},
		{"10.0.0.5:5", []string{"198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.5:5", []string{"6.6.6.6, 198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.5:5", []string{"6.6.6.6", "198.51.100.7, 10.0.0.9"}, "198.51.100.7"},
		{"[fd00::1]:5", []string{"2001:db8::7"}, "2001:db8::7"},
		{"10.0.0.5:5", nil, ""},
		{"10.0.0.5:5", []string{"198.51.100.7, unknown"}, ""},
		{"10.0.0.5:5", []string{"10.0.0.7"}, ""},
		{"[::ffff:10.0.0.5]:5", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"@", []string{"198.51.100.7"}, ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.from
		r.Header["X-Forwarded-For"] = c.forwarded
		got := p.ClientAddr(r)
		if c.want == "" && got.IsValid() || c.want != "" && got.String() != c.want {
			t.Errorf("from %s, forwarded for %q: %s, want %s", c.from, c.forwarded, got, c.want)
		}
		if plain := (Proxies{}).ClientAddr(r); c.from != "@" && plain != netip.MustParseAddrPort(c.from).Addr().Unmap() {
			t.Errorf("without proxies: %s", plain)
		}
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add("Client-Cert", ":AAAA:")
	f.Add("X-Forwarded-Client-Cert", `Hash=ab;Cert="%2D"`)
	f.Add("X-SSL-Client-Cert", "-----BEGIN%20CERTIFICATE-----")
	f.Fuzz(func(_ *testing.T, name, value string) {
		_, _ = readHeader(name, value)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.5:1"
		r.Header["X-Forwarded-For"] = []string{value}
		Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, ForwardedFor: true}.ClientAddr(r)
	})
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := parseList(data); err == nil && (l.crl == nil || l.crl.NextUpdate.IsZero()) {
			t.Fatal("a list without an end was read")
		}
	})
}

// BenchmarkAuthenticate is what a request costs whose caller comes by a certificate, without the look-up in the database.
func BenchmarkAuthenticate(b *testing.B) {
	issuing := newOffice(b, "Issuing", nil)
	leaf := issuing.issue()
	for _, known := range []bool{true, false} {
		name := "known"
		if !known {
			name = "verified anew"
		}
		b.Run(name, func(b *testing.B) {
			c := &Certificates{
				Anchors: []Anchor{{Name: "issuing-1", Own: true, Certificates: []*x509.Certificate{issuing.certificate}}}, Rules: rules,
				Registry: &record{issued: Issued{DER: leaf.Raw, Namespace: "web", Profile: "tls-client"}}, Now: func() time.Time { return noon },
			}
			r := showing(leaf)
			for b.Loop() {
				if !known {
					c.verified = nil
				}
				if _, found, err := c.Authenticate(r); !found || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
