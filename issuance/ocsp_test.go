package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
	"pgregory.net/rapid"
)

// responding is an authority and a responder with a key of its own.
type responding struct {
	authority *x509.Certificate
	direct    *Responder
	delegated *Responder
}

func newResponding(t testing.TB) responding {
	t.Helper()
	h := ecdsaHierarchy(t)
	authority := h.root.Certificate()
	direct, err := h.root.Responder()
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	delegated, err := NewResponder(authority, responderCertificate(t, authority, h.root.key.signer, key, nil), key)
	if err != nil {
		t.Fatal(err)
	}
	return responding{authority, direct, delegated}
}

// responderCertificate is signed by other means than ours.
func responderCertificate(t testing.TB, authority *x509.Certificate, by crypto.Signer, key *ecdsa.PrivateKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 60), Subject: pkix.Name{CommonName: "responder"}, NotBefore: now, NotAfter: now.Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidOCSPNoCheck, Value: []byte{5, 0}}},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// asks is a request as x/crypto/ocsp writes it.
func asks(t testing.TB, authority *x509.Certificate, serial *big.Int, hash crypto.Hash) []byte {
	t.Helper()
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, authority, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func TestResponderAnswersAsOthersRead(t *testing.T) {
	r := newResponding(t)
	revokedAt := now.Add(-time.Hour)
	for name, responder := range map[string]*Responder{"direct": r.direct, "delegated": r.delegated} {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			for _, c := range []struct {
				status OCSPStatus
				reason Reason
				want   int
			}{{OCSPGood, 0, ocsp.Good}, {OCSPRevoked, KeyCompromise, ocsp.Revoked}, {OCSPRevoked, Unspecified, ocsp.Revoked}, {OCSPUnknown, 0, ocsp.Unknown}} {
				serial := new(big.Int).SetBytes(append([]byte{0xff}, make([]byte, 19)...))
				asked, err := ParseOCSPRequest(asks(t, r.authority, serial, hash))
				if err != nil {
					t.Fatal(err)
				}
				answer := OCSPAnswer{
					ID: asked.Certificates[0], Status: c.status, Reason: c.reason, RevokedAt: revokedAt, ThisUpdate: now, NextUpdate: now.Add(8 * time.Hour),
				}
				signed, err := responder.Sign(t.Context(), []OCSPAnswer{answer}, nil, now)
				if err != nil {
					t.Fatal(err)
				}
				read, err := ocsp.ParseResponseForCert(signed.DER, &x509.Certificate{SerialNumber: serial}, r.authority)
				if err != nil {
					t.Fatalf("%s, %v, %v: %v", name, hash, c.status, err)
				}
				if read.Status != c.want || !read.ThisUpdate.Equal(now) || !read.NextUpdate.Equal(now.Add(8*time.Hour)) || !read.ProducedAt.Equal(now) ||
					read.IssuerHash != hash || len(read.ResponderKeyHash) != 20 || (read.Certificate == nil) != (name == "direct") {
					t.Errorf("%s, %v, %v: read as %+v", name, hash, c.status, read)
				}
				if c.status == OCSPRevoked && (!read.RevokedAt.Equal(revokedAt) || read.RevocationReason != int(c.reason)) {
					t.Errorf("%s: revoked at %s for %d", name, read.RevokedAt, read.RevocationReason)
				}
			}
		}
	}
}

func TestResponderEchoesNonceAndSeveral(t *testing.T) {
	r := newResponding(t)
	var answers []OCSPAnswer
	for n := range 3 {
		asked, err := ParseOCSPRequest(asks(t, r.authority, big.NewInt(int64(n+1)), crypto.SHA1))
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, OCSPAnswer{ID: asked.Certificates[0], ThisUpdate: now, NextUpdate: now.Add(time.Hour), ArchiveCutoff: now})
	}
	nonce := bytes.Repeat([]byte{7}, MaxNonce)
	signed, err := r.delegated.Sign(t.Context(), answers, nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(signed.DER, nonce) {
		t.Error("the nonce is not in the answer")
	}
	for n := range 3 {
		read, err := ocsp.ParseResponseForCert(signed.DER, &x509.Certificate{SerialNumber: big.NewInt(int64(n + 1))}, r.authority)
		if err != nil || read.Status != ocsp.Good {
			t.Fatalf("%d: %+v, %v", n, read, err)
		}
	}
	if _, err := r.delegated.Sign(t.Context(), answers, append(nonce, 7), now); err == nil {
		t.Error("a longer nonce was signed")
	}
	if _, err := r.delegated.Sign(t.Context(), nil, nil, now); err == nil {
		t.Error("no answers were signed")
	}
	other := answers[0]
	other.ID.issuer = append([]byte{}, other.ID.issuer...)
	other.ID.issuer[30] ^= 1
	if _, err := r.delegated.Sign(t.Context(), []OCSPAnswer{other}, nil, now); err == nil {
		t.Error("another authority's certificate was answered for")
	}
}

func TestResponderNeedsTheRightCertificate(t *testing.T) {
	h := ecdsaHierarchy(t)
	authority, key := h.root.Certificate(), p256(t)
	for what, change := range map[string]func(*x509.Certificate){
		"no OCSPSigning": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"more than that": func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
		"no nocheck":     func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"no keyUsage":    func(c *x509.Certificate) { c.KeyUsage = 0 },
	} {
		if _, err := NewResponder(authority, responderCertificate(t, authority, h.root.key.signer, key, change), key); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	sound := responderCertificate(t, authority, h.root.key.signer, key, nil)
	if _, err := NewResponder(authority, sound, p256(t)); err == nil {
		t.Error("another key was accepted")
	}
	if _, err := NewResponder(h.issuing.Certificate(), sound, key); err == nil {
		t.Error("another authority's responder was accepted")
	}
}

// lying signs something else.
type lying struct{ *ecdsa.PrivateKey }

func (l lying) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	other := bytes.Clone(digest)
	other[0] ^= 1
	return l.PrivateKey.Sign(random, other, opts)
}

func TestResponderReleasesNoWrongSignature(t *testing.T) {
	h := ecdsaHierarchy(t)
	key := p256(t)
	r, err := NewResponder(h.root.Certificate(), responderCertificate(t, h.root.Certificate(), h.root.key.signer, key, nil), lying{key})
	if err != nil {
		t.Fatal(err)
	}
	asked, err := ParseOCSPRequest(asks(t, h.root.Certificate(), big.NewInt(1), crypto.SHA1))
	if err != nil {
		t.Fatal(err)
	}
	answer := OCSPAnswer{ID: asked.Certificates[0], ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	if _, err := r.Sign(context.Background(), []OCSPAnswer{answer}, nil, now); !errors.Is(err, errSignature) {
		t.Errorf("a wrong signature: %v", err)
	}
}

// The structures of RFC 6960, section 4.1, for encoding/asn1: other means than those that are tested.
type (
	wireRequest struct {
		TBS       wireTBS
		Signature asn1.RawValue `asn1:"optional,explicit,tag:0"`
	}
	wireTBS struct {
		Version    int              `asn1:"optional,explicit,tag:0,default:0"`
		Name       asn1.RawValue    `asn1:"optional,explicit,tag:1"`
		List       []wireSingle     `asn1:"sequence"`
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:2,omitempty"`
	}
	wireSingle struct {
		ID         wireID
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:0,omitempty"`
	}
	wireID struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
)

func sha1ID(serial *big.Int) wireID {
	return wireID{pkix.AlgorithmIdentifier{Algorithm: oidSHA1, Parameters: asn1.NullRawValue}, make([]byte, 20), make([]byte, 20), serial}
}

func nonceExtension(t testing.TB, octets int, critical bool) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(make([]byte, octets))
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidOCSPNonce, Critical: critical, Value: value}
}

func TestPlainOID(t *testing.T) {
	uuid := append([]byte{0x69}, bytes.Repeat([]byte{0xff}, 18)...)
	for _, c := range []struct {
		content []byte
		plain   bool
	}{
		{[]byte(nonceOctets), true},
		{append(uuid, 0x7f), true},
		{uuid, false},
		{nil, false},
		{[]byte{0x80, 1}, false},
		{[]byte{0x2b, 0x80, 1}, false},
		{[]byte{0x2b, 0x81, 0x80, 1}, true},
		{[]byte{0x2b, 0x86}, false},
	} {
		if plainOID(c.content) != c.plain {
			t.Errorf("%x: want %t", c.content, c.plain)
		}
	}
	if encoded, err := asn1.Marshal(oidOCSPNonce); err != nil || string(encoded[2:]) != nonceOctets {
		t.Errorf("the nonce's OID is %x, %v", encoded, err)
	}
}

func TestParseOCSPRequest(t *testing.T) {
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}
	critical := unknown
	critical.Critical = true
	large, important := unknown, critical
	large.Id, important.Id = asn1.ObjectIdentifier{2, 25, 1 << 40}, asn1.ObjectIdentifier{2, 25, 1 << 40}
	many := func(n int) func(*wireRequest) {
		return func(r *wireRequest) {
			for len(r.TBS.List) < n {
				r.TBS.List = append(r.TBS.List, wireSingle{ID: sha1ID(big.NewInt(int64(len(r.TBS.List) + 1)))})
			}
		}
	}
	extended := func(all ...pkix.Extension) func(*wireRequest) { return func(r *wireRequest) { r.TBS.Extensions = all } }
	numbered := func(n *big.Int) func(*wireRequest) { return func(r *wireRequest) { r.TBS.List[0].ID.Serial = n } }
	raw := func(der ...byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }
	two160 := new(big.Int).Lsh(big.NewInt(1), 160)
	for _, c := range []struct {
		what    string
		change  func(*wireRequest)
		refused string // part of the refusal; empty: read
		nonce   int    // octets
	}{
		{what: "a plain one", change: func(*wireRequest) {}},
		{what: "as many as may be", change: many(MaxOCSPCertificates)},
		{what: "too many", change: many(MaxOCSPCertificates + 1), refused: "more than 32"},
		{what: "none", change: func(r *wireRequest) { r.TBS.List = nil }, refused: "no certificate"},
		{what: "a nonce of one octet", change: extended(nonceExtension(t, 1, false)), nonce: 1},
		{what: "a nonce of 32", change: extended(nonceExtension(t, 32, false)), nonce: 32},
		{what: "the longest nonce", change: extended(nonceExtension(t, 128, true)), nonce: 128},
		{what: "too long a nonce", change: extended(nonceExtension(t, 129, false)), refused: "nonce"},
		{what: "an empty nonce", change: extended(nonceExtension(t, 0, false)), refused: "nonce"},
		{what: "two nonces", change: extended(nonceExtension(t, 8, false), nonceExtension(t, 8, false)), refused: "two nonces"},
		{what: "a bare nonce", change: extended(pkix.Extension{Id: oidOCSPNonce, Value: []byte("12345678")}), refused: "nonce"},
		{what: "an unknown extension", change: extended(unknown)},
		{what: "an unknown critical extension", change: extended(critical), refused: "critical"},
		{what: "an extension with a large arc", change: extended(large)},
		{what: "a large arc beside a nonce", change: extended(large, nonceExtension(t, 8, false)), nonce: 8},
		{what: "a critical one with a large arc", change: extended(important), refused: "critical"},
		{what: "an extension with a large arc, of a certificate", change: func(r *wireRequest) { r.TBS.List[0].Extensions = []pkix.Extension{large} }},
		{what: "an unknown extension of a certificate", change: func(r *wireRequest) { r.TBS.List[0].Extensions = []pkix.Extension{unknown} }},
		{what: "a critical one", change: func(r *wireRequest) { r.TBS.List[0].Extensions = []pkix.Extension{critical} }, refused: "critical"},
		{what: "a requestor", change: func(r *wireRequest) { r.TBS.Name = raw(0xa1, 5, 0xa4, 3, 0x30, 1, 0) }},
		{what: "a requestor that is none", change: func(r *wireRequest) { r.TBS.Name = raw(0xa1, 2, 5, 0) }, refused: "requestor"},
		{what: "version 2", change: func(r *wireRequest) { r.TBS.Version = 1 }, refused: "version"},
		{what: "a signature", change: func(r *wireRequest) { r.Signature = raw(0xa0, 8, 0x30, 6, 0x30, 0, 3, 2, 0, 1) }},
		{what: "a signature and certificates", change: func(r *wireRequest) { r.Signature = raw(0xa0, 12, 0x30, 10, 0x30, 0, 3, 2, 0, 1, 0xa0, 2, 0x30, 0) }},
		{what: "a signature that is none", change: func(r *wireRequest) { r.Signature = raw(0xa0, 2, 5, 0) }, refused: "signature"},
		{what: "serial zero", change: numbered(big.NewInt(0)), refused: "zero"},
		{what: "a negative serial", change: numbered(big.NewInt(-1)), refused: "negative"},
		{what: "the longest serial", change: numbered(new(big.Int).Sub(two160, big.NewInt(1)))},
		{what: "too long a serial", change: numbered(two160), refused: "more than 20"},
		{what: "no hash", change: func(r *wireRequest) { r.TBS.List[0].ID.Hash.Algorithm = asn1.ObjectIdentifier{1, 2, 3} }},
	} {
		var r wireRequest
		r.TBS.List = []wireSingle{{ID: sha1ID(big.NewInt(0x1c))}}
		c.change(&r)
		der, err := asn1.Marshal(r)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		read, err := ParseOCSPRequest(der)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: refused: %v", c.what, err)
		case c.refused != "" && (!errors.Is(err, ErrOCSPRequest) || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: want a refusal with %q, got %v", c.what, c.refused, err)
		case err == nil && (len(read.Certificates) != len(r.TBS.List) || len(read.Nonce) != c.nonce):
			t.Errorf("%s: read as %+v", c.what, read)
		}
		if err == nil {
			if _, err := ParseOCSPRequest(append(der, 0)); err == nil {
				t.Errorf("%s: an octet more was read over", c.what)
			}
		}
	}
	for what, der := range map[string][]byte{"nothing": nil, "text": []byte("GET /"), "too much": make([]byte, MaxOCSPRequest+1), "an empty sequence": {0x30, 0}} {
		if _, err := ParseOCSPRequest(der); !errors.Is(err, ErrOCSPRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whatever serial a client asks about is read as that, in the order asked.
func TestOCSPRequestsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r wireRequest
		serials := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 20), 1, MaxOCSPCertificates).Draw(t, "serials")
		for i := range serials {
			serials[i] = append([]byte{serials[i][0] | 1}, serials[i][1:]...)
			r.TBS.List = append(r.TBS.List, wireSingle{ID: sha1ID(new(big.Int).SetBytes(serials[i]))})
		}
		der, err := asn1.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		read, err := ParseOCSPRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range read.Certificates {
			if !bytes.Equal(id.Serial, serials[i]) {
				t.Fatalf("%x is read as %x", serials[i], id.Serial)
			}
		}
	})
}

// FuzzParseOCSPRequest holds that what is read, another reader reads the same way.
func FuzzParseOCSPRequest(f *testing.F) {
	r := newResponding(f)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		f.Add(asks(f, r.authority, big.NewInt(0x1c01), hash))
	}
	whole := wireRequest{Signature: asn1.RawValue{FullBytes: []byte{0xa0, 8, 0x30, 6, 0x30, 0, 3, 2, 0, 1}}}
	whole.TBS.List = []wireSingle{{ID: sha1ID(big.NewInt(1))}, {ID: sha1ID(big.NewInt(1 << 60)), Extensions: []pkix.Extension{{Id: oidSHA1, Value: []byte{5, 0}}}}}
	whole.TBS.Extensions = []pkix.Extension{nonceExtension(f, 32, false)}
	der, err := asn1.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		read, err := ParseOCSPRequest(der)
		if err != nil {
			if !errors.Is(err, ErrOCSPRequest) {
				t.Fatalf("%v", err)
			}
			return
		}
		var again struct {
			TBS       asn1.RawValue
			Signature asn1.RawValue `asn1:"optional,explicit,tag:0"`
		}
		if rest, err := asn1.Unmarshal(der, &again); err != nil || len(rest) > 0 {
			t.Fatalf("read, and unreadable to others: %v", err)
		}
		if len(read.Certificates) == 0 || len(read.Certificates) > MaxOCSPCertificates || len(read.Nonce) > MaxNonce || read.Nonce != nil && len(read.Nonce) == 0 {
			t.Fatalf("read as %+v", read)
		}
		for _, id := range read.Certificates {
			if len(id.Serial) == 0 || len(id.Serial) > 20 || id.Serial[0] == 0 || !bytes.Contains(der, id.issuer) {
				t.Fatalf("read as %+v", read)
			}
			if form, ours := r.direct.Form(id); ours && (form < 0 || form > 3) {
				t.Fatalf("form %d", form)
			}
		}
	})
}
