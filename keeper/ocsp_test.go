package keeper

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"time"
)

// responder is the guard of a responder's own key, pinned by its public half.
func responder(t *testing.T) (*authority, *guard, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, g := guarded(t, 0, func(p *KeyPolicy) { p.Certificates, p.CRLs, p.OCSP.ResponderKey = nil, nil, key.Public() })
	return a, g, key
}

func TestGuardReadsAnswersOfAResponder(t *testing.T) {
	a, g, key := responder(t)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	bits, err := publicKeyBits(spki)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha1.Sum(bits)
	own, err := asn1.Marshal(hash[:])
	if err != nil {
		t.Fatal(err)
	}
	nonce := func(octets int) func(*answer) {
		value, err := asn1.Marshal(make([]byte, octets))
		if err != nil {
			t.Fatal(err)
		}
		return func(r *answer) {
			r.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: value}}
		}
	}
	extended := func(oid asn1.ObjectIdentifier, value ...byte) func(*answer) {
		return func(r *answer) { r.Responses[0].Extensions = []pkix.Extension{{Id: oid, Value: value}} }
	}
	cutoff := append([]byte{0x18, 15}, time.Now().UTC().Format("20060102150405Z")...)
	archive := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6}
	for _, c := range []struct {
		what    string
		change  func(*answer)
		refused string
	}{
		{"its own", func(*answer) {}, ""},
		{"by the authority's key", func(r *answer) { r.Responder.Bytes[5] ^= 1 }, "another key"},
		{"by the authority's name", func(r *answer) { r.Responder.Tag, r.Responder.Bytes = 1, a.certificate.RawSubject }, "named otherwise"},
		{"by no name", func(r *answer) { r.Responder.Tag, r.Responder.Bytes = 1, nil }, "named otherwise"},
		{"a short nonce", nonce(1), ""},
		{"the longest nonce", nonce(128), ""},
		{"too long a nonce", nonce(129), "nonce"},
		{"an archive cutoff", extended(archive, cutoff...), ""},
		{"an archive cutoff that is none", extended(archive, 5, 0), "archive cutoff"},
		{"another extension", extended(asn1.ObjectIdentifier{1, 2, 3}, 5, 0), "archive cutoff"},
	} {
		_, err := g.ask(a.answer(t, func(r *answer) {
			r.Responder.Bytes = bytes.Clone(own)
			c.change(r)
		}))
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: want %q, got %v", c.what, c.refused, err)
		}
	}
}

// An authority's key certifies the keys that are pinned as its responders, for a short time, and no other: with a key of one's own, whoever
// asked could say what is good without this keeper.
func TestGuardCertifiesPinnedRespondersAlone(t *testing.T) {
	responders := func(change func(*CertificatePolicy), others ...func(*KeyPolicy)) (*authority, *guard, error) {
		a, g := guarded(t, 0, func(p *KeyPolicy) {
			p.Certificates.OCSPResponders = true
			change(p.Certificates)
		})
		keys := []*key{g.key}
		for i, other := range others {
			p := a.policy()
			p.Name, p.Certificates, p.CRLs = fmt.Sprint("responder ", i), nil, nil
			other(&p)
			k, err := p.ready()
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
		}
		return a, g, pinResponders(keys)
	}
	plain := func(*CertificatePolicy) {}
	pinned := func(p *KeyPolicy) { p.OCSP.ResponderKey = leafKey().Public() }
	byCertificate := func(p *KeyPolicy) { p.OCSP.Responder = selfSigned(t, leafKey(), 0) }
	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	unrelated := func(p *KeyPolicy) { p.OCSP.ResponderKey = another.Public() }
	ofAnother := func(p *KeyPolicy) {
		pinned(p)
		p.Certificate = selfSigned(t, another, 0)
	}
	for _, c := range []struct {
		what    string
		policy  func(*CertificatePolicy)
		others  []func(*KeyPolicy)
		refused string
	}{
		{"a key that is pinned", plain, []func(*KeyPolicy){unrelated, pinned}, ""},
		{"one that is pinned by a certificate", plain, []func(*KeyPolicy){byCertificate}, ""},
		{"another key", plain, []func(*KeyPolicy){unrelated}, "does not pin"},
		{"a key that is pinned for another authority", plain, []func(*KeyPolicy){unrelated, ofAnother}, "does not pin"},
		{"any key", func(p *CertificatePolicy) { p.AnyResponder = true }, nil, ""},
		{"too long", func(p *CertificatePolicy) { p.MaxResponderValidity = 24 * time.Hour }, []func(*KeyPolicy){pinned}, "for OCSP responders"},
		{"any key, too long", func(p *CertificatePolicy) {
			p.AnyResponder, p.MaxResponderValidity = true, 24*time.Hour
		}, nil, "for OCSP responders"},
	} {
		a, g, err := responders(c.policy, c.others...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.ask(a.tbs(t, leaf(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		})))
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: want %q, got %v", c.what, c.refused, err)
		}
		if _, err := g.ask(a.tbs(t, leaf())); err != nil {
			t.Errorf("%s: a leaf: %v", c.what, err)
		}
	}
	for _, others := range [][]func(*KeyPolicy){nil, {ofAnother}, {func(*KeyPolicy) {}}} {
		if _, _, err := responders(plain, others...); err == nil || !strings.Contains(err.Error(), "any_responder") {
			t.Errorf("a policy of responders of which none is pinned: %v", err)
		}
	}
	if days := (&CertificatePolicy{}).responderValidity().Hours() / 24; days != 90 {
		t.Errorf("where nothing is said, a responder's certificate may be valid for %g days", days)
	}
}

// A responder's key asks for certificates of its own, and of no other key; it signs none, and no other key asks.
func TestGuardReadsRequestsOfAResponder(t *testing.T) {
	a, g, key := responder(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	requested := func(by *ecdsa.PrivateKey, template x509.CertificateRequest) []byte {
		capture := &capturing{public: by.Public()}
		if _, err := x509.CreateCertificateRequest(rand.Reader, &template, capture); capture.message == nil {
			t.Fatal(err)
		}
		return capture.message
	}
	plain := x509.CertificateRequest{Subject: pkix.Name{CommonName: "OCSP"}}
	for _, c := range []struct {
		what    string
		message []byte
		refused string
	}{
		{"its own", requested(key, plain), ""},
		{"another key's", requested(other, plain), "another key"},
		{"with names", requested(key, x509.CertificateRequest{DNSNames: []string{"a.example"}}), "attributes"},
		{"and something more", append(requested(key, plain), 0), "nothing that a key here signs"},
		{"a certificate", a.tbs(t, leaf()), "signs no certificates"},
		{"a CRL", a.list(t, newList(1)), "signs no CRLs"},
	} {
		r, err := g.ask(c.message)
		if c.refused == "" && (err != nil || r.kind != kindRequest) || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: want %q, got %s, %v", c.what, c.refused, r.kind, err)
		}
	}
	_, authority := guarded(t, 0)
	if _, err := authority.ask(requested(key, plain)); err == nil || !strings.Contains(err.Error(), "signs no requests") {
		t.Errorf("an authority's key: %v", err)
	}
}
