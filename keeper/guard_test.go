package keeper

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/hsm"
)

// guarded is an authority whose key is in memory: the guard needs no token.
func guarded(t testing.TB, pathLen int, changes ...func(*KeyPolicy)) (*authority, *guard) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{certificate: selfSigned(t, secret, pathLen)}
	a.ref.Label = "issuing"
	p := a.policy()
	for _, change := range changes {
		change(&p)
	}
	k, err := p.ready()
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGuard(k, memory{})
	if err != nil {
		t.Fatal(err)
	}
	return a, g
}

func (g *guard) ask(message []byte) (reading, error) {
	return g.admit(signRequest{hash: crypto.SHA256, message: message}, sha256.Sum256(message), time.Now())
}

// purposes gives a certificate an extKeyUsage of identifiers as they are, in whatever spelling.
func purposes(identifiers ...string) func(*x509.Certificate) {
	var value []byte
	for _, oid := range identifiers {
		value = append(append(value, 6, byte(len(oid))), oid...)
	}
	value = append([]byte{0x30, byte(len(value))}, value...)
	return func(c *x509.Certificate) {
		c.ExtKeyUsage = nil
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: value})
	}
}

const oidServerAuth = "\x2b\x06\x01\x05\x05\x07\x03\x01"

// power is 2^n and a little more or less.
func power(n uint, more int64) *big.Int {
	return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), n), big.NewInt(more))
}

func TestGuardReadsCertificates(t *testing.T) {
	authority := func(pathLen int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			c.MaxPathLen, c.MaxPathLenZero = pathLen, pathLen == 0
		}
	}
	mayHave := func(p *KeyPolicy) { p.Certificates.Authorities = true }
	for _, c := range []struct {
		what    string
		pathLen int
		policy  func(*KeyPolicy)
		change  func(*x509.Certificate)
		refused string // part of the refusal; empty: signed
	}{
		{what: "a leaf"},
		{what: "a leaf that says CA:FALSE", change: func(c *x509.Certificate) { c.BasicConstraintsValid = true }},
		{what: "an authority", pathLen: 1, change: authority(0), refused: "CA:TRUE"},
		{what: "an authority that may be", pathLen: 1, policy: mayHave, change: authority(0)},
		{what: "one too deep", pathLen: 1, policy: mayHave, change: authority(1), refused: "pathLenConstraint"},
		{what: "one without a limit", pathLen: 1, policy: mayHave, change: authority(-1), refused: "pathLenConstraint"},
		{what: "one below the last", pathLen: 0, policy: mayHave, change: authority(0), refused: "pathLenConstraint"},
		{what: "an authority without keyUsage", pathLen: 1, policy: mayHave, refused: "no keyUsage", change: func(c *x509.Certificate) {
			authority(0)(c)
			c.KeyUsage = 0
		}},
		{what: "an authority without keyCertSign", pathLen: 1, policy: mayHave, refused: "lacks keyCertSign", change: func(c *x509.Certificate) {
			authority(0)(c)
			c.KeyUsage = x509.KeyUsageCRLSign
		}},
		{what: "keyCertSign in a leaf", change: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, refused: "keyCertSign"},
		{what: "a leaf without keyUsage", change: func(c *x509.Certificate) { c.KeyUsage = 0 }, refused: "no keyUsage"},
		{what: "cRLSign in a leaf", change: func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, refused: "cRLSign"},
		{
			what: "after the authority's end", refused: "after the authority's own",
			change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(1001 * time.Hour) },
		},
		{
			what: "too long", refused: "longer than the policy's", change: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(500 * time.Hour) },
			policy: func(p *KeyPolicy) { p.Certificates.MaxValidity = 100 * time.Hour },
		},
		{what: "backdated", refused: "48 hours", change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-50 * time.Hour) }},
		{what: "postdated", refused: "48 hours", change: func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(50 * time.Hour)
			c.NotAfter = c.NotBefore.Add(time.Hour)
		}},
		{
			what: "ends before it begins", refused: "not after notBefore",
			change: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) },
		},
		{what: "a small serial", change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }, refused: "Chancery's form"},
		{
			what: "a serial of another time", change: func(c *x509.Certificate) { c.SerialNumber = serial(time.Unix(1e9, 0)) },
			refused: "not of this time",
		},
		{
			what: "any serial", change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1 << 60) },
			policy: func(p *KeyPolicy) { p.Certificates.AnySerial = true },
		},
		{
			what: "any serial, but too small", change: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }, refused: "fewer than",
			policy: func(p *KeyPolicy) { p.Certificates.AnySerial = true },
		},
		{
			what: "any serial, the highest", change: func(c *x509.Certificate) { c.SerialNumber = power(159, -1) },
			policy: func(p *KeyPolicy) { p.Certificates.AnySerial = true },
		},
		{
			what: "any serial, but of 21 octets", change: func(c *x509.Certificate) { c.SerialNumber = power(159, 0) }, refused: "more than 20",
			policy: func(p *KeyPolicy) { p.Certificates.AnySerial = true },
		},
		{
			what: "an OCSP responder", refused: "OCSP responder",
			change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} },
		},
		{
			what: "an authority that answers OCSP for its siblings", pathLen: 1, policy: mayHave, refused: "OCSP responder",
			change: func(c *x509.Certificate) {
				authority(0)(c)
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageOCSPSigning}
			},
		},
		{
			what: "an OCSP responder that may be", change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} },
			policy: func(p *KeyPolicy) { p.Certificates.OCSPResponders, p.Certificates.AnyResponder = true, true },
		},
		{
			what: "any purpose", refused: "anyExtendedKeyUsage",
			change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		},
		{
			what: "an OCSP responder in another spelling", refused: "extKeyUsage cannot be read",
			change: purposes("\x2b\x06\x01\x05\x05\x07\x03\x80\x09"),
		},
		{
			what: "an arc that comes round to 9", refused: "extKeyUsage cannot be read",
			change: purposes("\x2b\x06\x01\x05\x05\x07\x03\x90\x80\x80\x80\x09"),
		},
		{what: "a purpose that is cut off", refused: "extKeyUsage cannot be read", change: purposes("\x2b\x06\x01\x05\x05\x07\x03\x89")},
		{what: "a purpose of one's own, of the highest arc", change: purposes("\x2b\x06\x01\x04\x01\x87\xff\xff\xff\x7f")},
		{what: "a name's attribute in another spelling", refused: "not a distinguished name", change: func(c *x509.Certificate) {
			c.RawSubject = []byte("\x30\x0e\x31\x0c\x30\x0a\x06\x05\x55\x04\x80\x80\x03\x0c\x01a")
		}},
		{what: "name constraints", refused: "name constraints", change: func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"x"}, true
		}},
		{what: "an unknown extension", refused: "unknown", change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		}},
		{what: "basicConstraints of one's own", refused: "CA:TRUE", change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}},
		{what: "basicConstraints in BER", refused: "basicConstraints", change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 1}}}
		}},
		{what: "another authority's key identifier", refused: "authorityKeyIdentifier", change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 35}, Value: []byte{0x30, 3, 0x80, 1, 7}}}
		}},
		{
			what: "no certificates at all", refused: "signs no certificates",
			policy: func(p *KeyPolicy) { p.Certificates = nil },
		},
	} {
		a, g := guarded(t, c.pathLen, func(p *KeyPolicy) {
			if c.policy != nil {
				c.policy(p)
			}
		})
		template := leaf()
		if c.change != nil {
			c.change(template)
		}
		r, err := g.ask(a.tbs(t, template))
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: refused: %v", c.what, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: want a refusal with %q, got %v", c.what, c.refused, err)
		case r.kind != kindCertificate:
			t.Errorf("%s: taken for a %s", c.what, r.kind)
		}
	}
}

// What is refused is written into the journal with its reason, so no reason is as long as whoever asks pleases.
func TestGuardRefusesInFewWords(t *testing.T) {
	endless := pkix.Extension{Id: append(asn1.ObjectIdentifier{1, 2}, make([]int, 1<<20)...), Value: []byte{5, 0}}
	a, g := guarded(t, 0)
	for what, message := range map[string][]byte{
		"a certificate": a.tbs(t, leaf(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{endless} })),
		"a CRL": a.list(t, newList(1, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{endless}
		})),
		"an entry of a CRL": a.list(t, newList(1, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{
				SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{endless},
			}}
		})),
	} {
		switch _, err := g.ask(message); {
		case err == nil:
			t.Errorf("%s with an endless identifier is signed", what)
		case len(err.Error()) > 200:
			t.Errorf("%s is refused in %d octets", what, len(err.Error()))
		}
	}
}

func TestGuardKnowsItsAuthority(t *testing.T) {
	_, g := guarded(t, 0)
	other, _ := guarded(t, 0)
	other.certificate.RawSubject = []byte{0x30, 0}
	if _, err := g.ask(other.tbs(t, leaf())); err == nil {
		t.Error("another issuer's name was signed")
	}
	a, _ := guarded(t, 0)
	if _, err := g.ask(a.tbs(t, leaf())); err == nil || !strings.Contains(err.Error(), "authorityKeyIdentifier") {
		t.Errorf("an authority of the same name and another key: %v", err)
	}
}

func TestGuardSignsWithTheKeysHashAlone(t *testing.T) {
	a, g := guarded(t, 0)
	if _, err := g.admit(signRequest{hash: crypto.SHA384, message: a.tbs(t, leaf())}, [32]byte{}, time.Now()); err == nil {
		t.Error("the bytes say SHA-256, and SHA-384 was signed with")
	}
}

// list is the TBSCertList of a template.
func (a *authority) list(t testing.TB, template *x509.RevocationList) []byte {
	t.Helper()
	capture := &capturing{public: a.certificate.PublicKey}
	if _, err := x509.CreateRevocationList(rand.Reader, template, a.certificate, capture); capture.message == nil {
		t.Fatal(err)
	}
	return capture.message
}

func newList(number int64, changes ...func(*x509.RevocationList)) *x509.RevocationList {
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, change := range changes {
		change(l)
	}
	return l
}

func TestGuardReadsCRLs(t *testing.T) {
	a, g := guarded(t, 0)
	entry := func(e x509.RevocationListEntry) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, e) }
	}
	extension := func(e pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, e) }
	}
	now := time.Now()
	for _, c := range []struct {
		what    string
		list    *x509.RevocationList
		refused string
	}{
		{"the first", newList(now.UnixMilli()), ""},
		{"the same number", newList(now.UnixMilli()), "does not rise"},
		{"a lower number", newList(1), "does not rise"},
		{"with an entry", newList(now.UnixMilli()+1,
			entry(x509.RevocationListEntry{SerialNumber: serial(now), RevocationTime: now, ReasonCode: 1})), ""},
		{
			"of another scope", newList(1, extension(pkix.Extension{
				Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x81, 1, 0xff},
			})), "",
		},
		{"a number that leaps", newList(now.Add(1000 * time.Hour).UnixMilli()), "leaps ahead"},
		{"one that leaps as far as there is room", newList(1, func(l *x509.RevocationList) { l.Number = power(159, -1) }), "leaps ahead"},
		{
			"the first of a scope, which leaps", newList(now.Add(49*time.Hour).UnixMilli(), extension(pkix.Extension{
				Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x82, 1, 0xff},
			})), "leaps ahead",
		},
		{
			"too long", newList(now.UnixMilli()+2, func(l *x509.RevocationList) { l.NextUpdate = now.Add(11 * 24 * time.Hour) }),
			"later than the policy",
		},
		{"of another time", newList(now.UnixMilli()+2, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(-72 * time.Hour) }), "48 hours"},
		{"a delta that is not critical", newList(now.UnixMilli()+2,
			extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Value: []byte{2, 1, 1}})), "deltaCRLIndicator"},
		{
			"a delta to a later list", newList(now.UnixMilli()+2, extension(pkix.Extension{
				Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 8, 1, 0, 0, 0, 0, 0, 0, 0},
			})), "not below its number",
		},
		{
			"a delta", newList(now.UnixMilli()+2,
				extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}),
				entry(x509.RevocationListEntry{SerialNumber: serial(now), RevocationTime: now, ReasonCode: 8})), "",
		},
		{
			"an entry of another issuer", newList(now.UnixMilli()+2, entry(x509.RevocationListEntry{
				SerialNumber: serial(now), RevocationTime: now,
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}},
			})), "unknown",
		},
		{"taken from a hold", newList(now.UnixMilli()+3,
			entry(x509.RevocationListEntry{SerialNumber: serial(now), RevocationTime: now, ReasonCode: 8})), "reason"},
		{"the next", newList(now.UnixMilli() + 3), ""},
	} {
		r, err := g.ask(a.list(t, c.list))
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: want %q, got %v", c.what, c.refused, err)
		}
		if r.kind != kindCRL {
			t.Errorf("%s: taken for a %s", c.what, r.kind)
		}
	}
}

// answer is an OCSP ResponseData, written by other means than the guard reads it with.
type answer struct {
	Responder  asn1.RawValue
	ProducedAt time.Time `asn1:"generalized"`
	Responses  []single
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:1,omitempty"`
}

type single struct {
	ID struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
	Good       asn1.Flag        `asn1:"tag:0"`
	ThisUpdate time.Time        `asn1:"generalized"`
	NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:1,omitempty"`
}

func (a *authority) answer(t testing.TB, change func(*answer)) []byte {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	bits, err := publicKeyBits(a.certificate.RawSubjectPublicKeyInfo)
	if err != nil {
		t.Fatal(err)
	}
	nameHash, keyHash := sha1.Sum(a.certificate.RawSubject), sha1.Sum(bits)
	var s single
	s.ID.Hash = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, Parameters: asn1.NullRawValue}
	s.ID.NameHash, s.ID.KeyHash, s.ID.Serial = nameHash[:], keyHash[:], serial(now)
	s.Good, s.ThisUpdate, s.NextUpdate = true, now, now.Add(time.Hour)
	id, err := asn1.Marshal(keyHash[:])
	if err != nil {
		t.Fatal(err)
	}
	whole := answer{Responder: asn1.RawValue{Class: 2, Tag: 2, IsCompound: true, Bytes: id}, ProducedAt: now, Responses: []single{s}}
	change(&whole)
	der, err := asn1.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestGuardReadsOCSP(t *testing.T) {
	a, g := guarded(t, 0)
	for _, c := range []struct {
		what    string
		change  func(*answer)
		refused string
	}{
		{"by the hash of the key", func(*answer) {}, ""},
		{"by name", func(r *answer) { r.Responder.Tag, r.Responder.Bytes = 1, a.certificate.RawSubject }, ""},
		{"by another name", func(r *answer) { r.Responder.Tag, r.Responder.Bytes = 1, []byte{0x30, 0} }, "named otherwise"},
		{"by another key", func(r *answer) { r.Responder.Bytes[5] ^= 1 }, "another key"},
		{"of another authority", func(r *answer) { r.Responses[0].ID.KeyHash = make([]byte, 20) }, "another authority"},
		{"by another hash", func(r *answer) { r.Responses[0].ID.Hash.Algorithm = asn1.ObjectIdentifier{1, 2, 3} }, "another authority"},
		{"by a hash with a parameter", func(r *answer) {
			r.Responses[0].ID.Hash.Parameters = asn1.RawValue{FullBytes: []byte{5, 1, 0}}
		}, "hash algorithm"},
		{"by a hash without one", func(r *answer) { r.Responses[0].ID.Hash.Parameters = asn1.RawValue{} }, ""},
		{"too long", func(r *answer) { r.Responses[0].NextUpdate = r.ProducedAt.Add(25 * time.Hour) }, "policy permits"},
		{"without an end", func(r *answer) { r.Responses[0].NextUpdate = time.Time{} }, "no nextUpdate"},
		{"of last week", func(r *answer) { r.ProducedAt = r.ProducedAt.Add(-7 * 24 * time.Hour) }, "48 hours"},
		{"without answers", func(r *answer) { r.Responses = nil }, "no answers"},
	} {
		r, err := g.ask(a.answer(t, c.change))
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: want %q, got %v", c.what, c.refused, err)
		}
		if r.kind != kindOCSP {
			t.Errorf("%s: taken for a %s", c.what, r.kind)
		}
	}
}

func logKey(t rapid.TB) *guard {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := KeyPolicy{Name: "log", Tokens: []string{"main"}, PublicKey: secret.Public(), Checkpoints: &CheckpointPolicy{Origin: "ca.example/log"}}
	p.Ref.Label = "log"
	k, err := p.ready()
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGuard(k, memory{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGuardReadsCheckpoints(t *testing.T) {
	g := logKey(t)
	root := sha256.Sum256(nil)
	hash := base64.StdEncoding.EncodeToString(root[:])
	for _, c := range []struct {
		text    string
		refused bool
	}{
		{"ca.example/log\n10\n" + hash[:20] + "\r" + hash[20:] + "\n", true},
		{"ca.example/log\n10\n" + hash + "\n", false},
		{"ca.example/log\n10\n" + hash + "\n", false},
		{"ca.example/log\n10\n" + strings.Replace(hash, "4", "5", 1) + "\n", true}, // another of the same size
		{"ca.example/log\n9\n" + hash + "\n", true},                                // smaller
		{"ca.example/log\n011\n" + hash + "\n", true},
		{"ca.example/log\n11\n" + hash, true},
		{"ca.example/log\n11\n" + hash + "\nmore\n", true},
		{"ca.example/log\n11\n" + hash[:40] + "\n", true},
		{"ca.example/log2\n11\n" + hash + "\n", true},
		{"other.example/log\n11\n" + hash + "\n", true},
		{"", true},
		{"ca.example/log\n11\n" + hash + "\n", true}, // nothing shows that it extends the last one
	} {
		if _, err := g.ask([]byte(c.text)); (err != nil) != c.refused {
			t.Errorf("%q: %v", c.text, err)
		}
	}
	// A log's key signs nothing else.
	a, _ := guarded(t, 0)
	for _, other := range [][]byte{a.tbs(t, leaf()), a.list(t, newList(1)), a.answer(t, func(*answer) {})} {
		if r, err := g.ask(other); err == nil {
			t.Errorf("a log's key signed a %s", r.kind)
		}
	}
}

func TestAnEd25519KeySignsCheckpointsAlone(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := KeyPolicy{Name: "log", Tokens: []string{"main"}, PublicKey: public, Checkpoints: &CheckpointPolicy{Origin: "ca.example/log"}}
	p.Ref.Label = "log"
	k, err := p.ready()
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGuard(k, memory{})
	if err != nil {
		t.Fatal(err)
	}
	root := sha256.Sum256(nil)
	text := []byte("ca.example/log\n10\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n")
	if _, err := g.admit(signRequest{hash: crypto.SHA256, message: text}, sha256.Sum256(text), time.Now()); err == nil {
		t.Error("it is given a digest")
	}
	if _, err := g.admit(signRequest{hash: 0, message: text}, sha256.Sum256(text), time.Now()); err != nil {
		t.Error(err)
	}
	a, _ := guarded(t, 0)
	p.PublicKey, p.Certificate, p.CRLs = nil, a.certificate, &CRLPolicy{MaxValidity: time.Hour}
	edwards := *a.certificate
	edwards.PublicKey = public
	p.Certificate = &edwards
	if _, err := p.ready(); err == nil {
		t.Error("an Ed25519 key signs CRLs")
	}
	p = k.KeyPolicy
	p.Checkpoints = &CheckpointPolicy{Origin: strings.Repeat("x", maxOrigin+1)}
	if _, err := p.ready(); err == nil {
		t.Error("an origin that no message to a worker holds")
	}
}

func TestGuardLimits(t *testing.T) {
	a, g := guarded(t, 0, func(p *KeyPolicy) { p.PerSecond, p.Total = 2, 7 })
	now := time.Now()
	signed := 0
	for i := range 40 { // ten seconds
		request := signRequest{hash: crypto.SHA256, message: a.tbs(t, leaf())}
		_, err := g.admit(request, [32]byte{}, now.Add(time.Duration(i)*time.Second/4))
		switch {
		case err == nil:
			signed++
		case errors.Is(err, hsm.ErrUnavailable) != (signed < 7): // the rate passes, the total does not
			t.Errorf("after %d signatures: %v", signed, err)
		}
		if i == 5 && signed != 4+2 { // the burst, and what comes in between
			t.Errorf("%d in the first seconds", signed)
		}
	}
	if signed != 7 {
		t.Errorf("%d signed of 7 that are permitted", signed)
	}
}

// TestATokenThatIsAwayUsesNothingUp: a service that tries again and again while the token is away must find the key's total as it was. What is
// not allowed is still refused and written down.
func TestATokenThatIsAwayUsesNothingUp(t *testing.T) {
	for name, worker := range map[string]bool{"worker": true, "in the keeper": false} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, 0)
			config, log := a.config(t, a.fixture.Config())
			config.Keys[0].Total = 3
			if !worker {
				config.Worker = nil
			}
			config.AwaitsPerson = map[string]error{"main": hsm.ErrWrongPIN}
			r := start(t, config, log)
			key := r.signer(t, a.certificate.PublicKey)
			for range 10 {
				if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) {
					t.Fatalf("while the token is away: %v", err)
				}
			}
			if err := a.issue(key, leaf(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.AddDate(-1, 0, 0) })); !errors.Is(err, ErrRefused) {
				t.Errorf("what is not allowed: %v", err)
			}
			r.stop()
			refused := 0
			for _, e := range readEntries(t, r.journal) {
				if e.Result == resultRefused {
					refused++
				}
			}
			if refused != 1 {
				t.Errorf("%d refusals are written down, want 1", refused)
			}
			config.AwaitsPerson = nil
			again := start(t, config, log)
			if err := a.issue(again.signer(t, a.certificate.PublicKey), leaf()); err != nil {
				t.Errorf("once the token is back: %v", err)
			}
		})
	}
}

func TestPoliciesThatMakeNoSense(t *testing.T) {
	a, _ := guarded(t, 0)
	for what, change := range map[string]func(*KeyPolicy){
		"no name":                func(p *KeyPolicy) { p.Name = "" },
		"no token":               func(p *KeyPolicy) { p.Tokens = nil },
		"no key named":           func(p *KeyPolicy) { p.Ref.Label = "" },
		"nothing pinned":         func(p *KeyPolicy) { p.Certificate = nil },
		"pinned twice":           func(p *KeyPolicy) { p.PublicKey = p.Certificate.PublicKey },
		"nothing to sign":        func(p *KeyPolicy) { p.Certificates, p.CRLs, p.OCSP = nil, nil, nil },
		"CRLs for ever":          func(p *KeyPolicy) { p.CRLs.MaxValidity = 0 },
		"answers for ever":       func(p *KeyPolicy) { p.OCSP.MaxValidity = 0 },
		"a leaf's certificate":   func(p *KeyPolicy) { p.Certificate = &x509.Certificate{PublicKey: p.Certificate.PublicKey} },
		"a responder that signs": func(p *KeyPolicy) { p.OCSP.Responder = p.Certificate },
		"its key that signs":     func(p *KeyPolicy) { p.OCSP.ResponderKey = p.Certificate.PublicKey },
		"a responder pinned twice": func(p *KeyPolicy) {
			p.Certificates, p.CRLs, p.OCSP.Responder, p.OCSP.ResponderKey = nil, nil, p.Certificate, p.Certificate.PublicKey
		},
		"an origin of two lines":          func(p *KeyPolicy) { p.Checkpoints = &CheckpointPolicy{Origin: "a\nb"} },
		"responders of any key, and none": func(p *KeyPolicy) { p.Certificates.AnyResponder = true },
		"a negative rate":                 func(p *KeyPolicy) { p.PerSecond = -1 },
	} {
		p := a.policy()
		change(&p)
		if _, err := p.ready(); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

// TestGuardRefusesEveryChangedOctet: what is signed is what was understood. An octet changed at will makes a message that is refused, or
// one that a parser of others reads as a certificate of the same bounds.
func TestGuardRefusesEveryChangedOctet(t *testing.T) {
	a, g := guarded(t, 0)
	message := a.tbs(t, leaf())
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(message)
		changed[rapid.IntRange(0, len(changed)-1).Draw(t, "at")] ^= rapid.ByteRange(1, 255).Draw(t, "by")
		if r, err := g.ask(changed); err == nil {
			within, why := inBounds(a, changed)
			if !within {
				t.Fatalf("signed: %s %s: %v", r.kind, r.detail, why)
			}
		}
	})
}

// inBounds holds a TBSCertificate against the policy with another parser.
func inBounds(a *authority, tbs []byte) (bool, error) {
	whole, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
		asn1.BitString{Bytes: []byte{0}, BitLength: 8},
	})
	if err != nil {
		return false, err
	}
	c, err := x509.ParseCertificate(whole)
	if err != nil {
		// What crypto/x509 does not read (a public key off its curve, say) is no certificate that speaks for the authority.
		return true, nil //nolint:nilerr // see above
	}
	switch {
	case c.IsCA, c.KeyUsage == 0, c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0,
		!bytes.Equal(c.RawIssuer, a.certificate.RawSubject), !bytes.Equal(c.AuthorityKeyId, a.certificate.SubjectKeyId), c.NotAfter.After(a.certificate.NotAfter),
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning), slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny),
		c.SerialNumber.BitLen() >= 160:
		return false, fmt.Errorf("CA %v, usage %b, purposes %v, until %s", c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.NotAfter)
	}
	return true, nil
}

// FuzzGuard: whatever the bytes, the guard does not panic, and signs no certificate that another parser finds out of bounds.
func FuzzGuard(f *testing.F) {
	a, g := guarded(f, 0, func(p *KeyPolicy) {
		p.Certificates.AnySerial = true
		p.Checkpoints = &CheckpointPolicy{Origin: "ca.example/log"}
	})
	f.Add(a.tbs(f, leaf()))
	f.Add(a.tbs(f, leaf(purposes(oidServerAuth, oidOCSPSigning[:7]+"\x80\x09"))))
	f.Add(a.tbs(f, leaf(purposes("\x69\x81\x80\x80\x80\x80\x00"), func(c *x509.Certificate) { c.SerialNumber = power(159, -1) })))
	f.Add(a.answer(f, func(r *answer) { r.Responses[0].ID.Hash.Parameters = asn1.RawValue{} }))
	f.Add(a.list(f, newList(time.Now().UnixMilli(), func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ReasonCode: 1}}
	})))
	f.Add(a.answer(f, func(*answer) {}))
	f.Add(a.list(f, newList(time.Now().UnixMilli(), ofScope(1))))
	f.Add(a.list(f, newList(1, func(l *x509.RevocationList) { l.Number = power(159, -1) })))
	f.Add([]byte("ca.example/log\n1\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := g.key.read(message, time.Now())
		var refused refusal
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("something else than a refusal: %v", err)
		}
		if err == nil && r.kind == kindCRL {
			if err := g.checkNumber(r.list, time.Now()); (err == nil) != (r.list.number.Cmp(g.key.CRLs.highest(time.Now())) <= 0) {
				t.Errorf("the number %s, the first of its scope: %v", r.list.number, err)
			}
		}
		if err == nil && r.kind == kindCertificate {
			if within, why := inBounds(a, message); !within {
				t.Errorf("signed: %v", why)
			}
		}
	})
}

// TestRateOfRequestsThatOvertakeEachOther: a long request is read longer than a short one, and its moment has passed when it is counted. No
// stretch of time fills the bucket twice.
func TestRateOfRequestsThatOvertakeEachOther(t *testing.T) {
	a, g := guarded(t, 0, func(p *KeyPolicy) { p.PerSecond = 10 })
	request := signRequest{hash: crypto.SHA256, message: a.tbs(t, leaf())}
	began, signed := time.Now(), 0
	for i := range 400 { // two seconds, with a late one after each
		at := began.Add(time.Duration(i) * 5 * time.Millisecond)
		for _, now := range []time.Time{at, at.Add(-time.Second)} {
			if _, err := g.admit(request, [32]byte{}, now); err == nil {
				signed++
			} else if !unavailable(err) {
				t.Fatal(err)
			}
		}
	}
	if signed < 35 || signed > 41 { // the burst of 20, and ten a second
		t.Errorf("%d were admitted", signed)
	}
	if _, err := g.admit(request, [32]byte{}, began.Add(-time.Hour)); !unavailable(err) { // the clock is put back
		t.Errorf("an hour earlier: %v", err)
	}
	if _, err := g.admit(request, [32]byte{}, began.Add(-time.Hour+time.Second)); err != nil {
		t.Errorf("a second after that: %v", err)
	}
}
