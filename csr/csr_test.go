package csr_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// reporter is what a test and a property have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// ruleOf gives the rule of an error, and fails the test where the error is not one that a front end can answer with.
func ruleOf(t reporter, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *csr.Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is a %T, want *csr.Error: %v", err, err)
	}
	if e.Rule == "" || e.Field == "" || e.Message == "" || e.Hint == "" {
		t.Errorf("the error leaves something unsaid: %#v", e)
	}
	return e.Rule
}

func TestHostile(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range csrtest.Hostile() {
		t.Run(c.Name, func(t *testing.T) {
			if seen[c.Name] {
				t.Error("two cases have this name")
			}
			seen[c.Name] = true
			if c.Rule == "" && c.Verify == "" && c.Policy == "" {
				t.Error("the case does not say what is wrong with it")
			}
			before := bytes.Clone(c.DER)
			r, err := csr.Parse(c.DER)
			if got := ruleOf(t, err); got != c.Rule {
				t.Fatalf("Parse refuses by %q, want %q: %v", got, c.Rule, err)
			}
			if !bytes.Equal(before, c.DER) {
				t.Error("Parse changed its input")
			}
			if err != nil {
				if r != nil {
					t.Error("Parse gives a request beside its error")
				}
				return
			}
			err = r.VerifySignature()
			if got := ruleOf(t, err); got != c.Verify {
				t.Fatalf("VerifySignature refuses by %q, want %q: %v", got, c.Verify, err)
			}
		})
	}
	if len(seen) < 150 {
		t.Errorf("there are only %d hostile cases", len(seen))
	}
}

func TestBenign(t *testing.T) {
	for _, c := range csrtest.Benign() {
		t.Run(c.Name, func(t *testing.T) {
			compareWithStandardLibrary(t, c.DER)
		})
	}
}

// compareWithStandardLibrary reads a good request with both readers and compares what they saw.
func compareWithStandardLibrary(t testing.TB, der []byte) *csr.Request {
	t.Helper()
	r, err := csr.Parse(der)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if err := r.VerifySignature(); err != nil {
		t.Fatalf("VerifySignature: %v", err)
	}
	std, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatalf("crypto/x509: %v", err)
	}
	if err := std.CheckSignature(); err != nil {
		t.Fatalf("crypto/x509: %v", err)
	}
	if !bytes.Equal(r.Raw(), std.Raw) {
		t.Error("the raw bytes differ")
	}
	if !bytes.Equal(r.Key().SPKI, std.RawSubjectPublicKeyInfo) {
		t.Error("the keys' encodings differ")
	}
	if public, ok := r.Key().Public.(interface{ Equal(any) bool }); ok && !public.Equal(std.PublicKey) {
		t.Error("the keys differ")
	}
	if !slices.Equal(r.Names().DNS, std.DNSNames) || !slices.Equal(r.Names().Email, std.EmailAddresses) {
		t.Errorf("the names differ: %v, %v %v", r.Names(), std.DNSNames, std.EmailAddresses)
	}
	var addresses []netip.Addr
	for _, ip := range std.IPAddresses {
		address, _ := netip.AddrFromSlice(ip)
		addresses = append(addresses, address)
	}
	if !slices.Equal(r.Names().IP, addresses) {
		t.Errorf("the addresses differ: %v, %v", r.Names().IP, addresses)
	}
	subject := r.Subject()
	if len(subject) != len(std.Subject.Names) {
		t.Fatalf("the subjects differ: %v, %v", subject, std.Subject)
	}
	for i, a := range std.Subject.Names {
		if !subject[i].OID.Equal(a.Type) || subject[i].Value != a.Value {
			t.Errorf("attribute %d of the subject differs: %v, %v", i, subject[i], a)
		}
	}
	return r
}

// TestLeniency holds the reader against the leniencies of crypto/x509: what that lets through must be refused here, or be a fact
// that shows what is wrong.
func TestLeniency(t *testing.T) {
	lenient := 0
	for _, c := range csrtest.Hostile() {
		if c.Rule == "" {
			continue
		}
		if _, err := x509.ParseCertificateRequest(c.DER); err == nil {
			lenient++
		}
	}
	if lenient < 20 {
		t.Errorf("crypto/x509 accepts only %d of the requests that are refused here: have the cases lost their bite?", lenient)
	}

	find := func(policy string) *csr.Request {
		t.Helper()
		for _, c := range csrtest.Hostile() {
			if c.Policy == policy {
				r, err := csr.Parse(c.DER)
				if err != nil {
					t.Fatalf("%s: %v", policy, err)
				}
				return r
			}
		}
		t.Fatalf("no case %q", policy)
		return nil
	}
	if s := find("two-common-names").Subject(); len(s) != 2 || s[0].Value != "host.dev.example" || s[1].Value != "evil.example" {
		t.Errorf("two common names are read as %v", s)
	}
	if s := find("multi-valued-rdn").Subject(); len(s) != 2 || s[0].RDN != 0 || s[1].RDN != 0 {
		t.Errorf("a multi-valued RDN is read as %v", s)
	}
	if ip := find("v4-mapped-ip").Names().IP; len(ip) != 1 || !ip[0].Is4In6() {
		t.Errorf("a v4-mapped address is read as %v", ip)
	}
	for policy, want := range map[string]csr.OtherName{
		"othername":     {Kind: "otherName", OID: "1.3.6.1.4.1.311.20.2.3"},
		"x400address":   {Kind: "x400Address"},
		"directoryname": {Kind: "directoryName"},
		"edipartyname":  {Kind: "ediPartyName"},
		"registeredid":  {Kind: "registeredID", OID: "1.2.3.4"},
	} {
		if got := find(policy).Names(); !slices.Equal(got.Other, []csr.OtherName{want}) || got.Len() != 2 {
			t.Errorf("%s is read as %v", policy, got)
		}
	}
	if c := find("ca-true-path-0").Extensions().BasicConstraints; c == nil || *c != (csr.BasicConstraints{CA: true}) {
		t.Errorf("cA with path length 0 is read as %v", c)
	}
	if c := find("ca-true").Extensions().BasicConstraints; c == nil || *c != (csr.BasicConstraints{CA: true, PathLen: -1, Critical: true}) {
		t.Errorf("cA is read as %v", c)
	}
	if u := find("key-usage-cert-sign").Extensions().KeyUsage; u == nil || *u != (csr.KeyUsage{Bits: 1 | 1<<5, Critical: true}) {
		t.Errorf("keyCertSign is read as %v", u)
	}
	if u := find("unknown-critical-extension").Extensions().Unknown; len(u) != 1 || !u[0].Critical || u[0].OID.String() != "1.3.6.1.4.1.99999.1" {
		t.Errorf("an unknown extension is read as %v", u)
	}
	old := find("microsoft-extension-request")
	if a := old.Attributes(); len(a) != 1 || a[0].String() != "1.3.6.1.4.1.311.2.1.14" || slices.Contains(old.Names().DNS, "evil.example") {
		t.Errorf("Microsoft's extension request is read as %v, %v", a, old.Names())
	}
	for policy, want := range map[string]struct {
		bits           int
		exponentOctets int
		public         bool
	}{
		"rsa-1024": {1024, 3, true}, "rsa-16384": {16384, 3, true}, "rsa-131072": {131072, 3, false},
		"rsa-huge-exponent": {2048, 38, false}, "rsa-exponent-1": {2048, 1, true}, "rsa-even-modulus": {2048, 3, true}, "rsa-2047": {2047, 3, true},
	} {
		k := find(policy).Key()
		if k.Algorithm != csr.RSA || k.Bits != want.bits || len(k.Modulus) != (want.bits+7)/8 ||
			len(k.Exponent) != want.exponentOctets || (k.Public != nil) != want.public {
			t.Errorf("%s is read as %d bits, %d octets of modulus, exponent %x, public %T", policy, k.Bits, len(k.Modulus), k.Exponent, k.Public)
		}
	}
	if k := find("p-224").Key(); k.Algorithm != csr.ECDSA || k.Curve != "P-224" || k.Bits != 224 {
		t.Errorf("P-224 is read as %v %s %d", k.Algorithm, k.Curve, k.Bits)
	}
}

func TestKeyFacts(t *testing.T) {
	keys := csrtest.FixedKeys()
	build := func(b csrtest.Builder) *csr.Request {
		t.Helper()
		der, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		r, err := csr.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	p := build(csrtest.Builder{Key: keys.P521, SigAlg: "ECDSA-SHA512"})
	if k := p.Key(); k.Curve != "P-521" || k.Bits != 521 || !k.Public.(*ecdsa.PublicKey).Equal(keys.P521.Public()) || k.Modulus != nil {
		t.Errorf("a P-521 key is read as %+v", k)
	}
	if p.SignatureAlgorithm() != "ECDSA-SHA512" {
		t.Errorf("the signature algorithm is read as %s", p.SignatureAlgorithm())
	}
	e := build(csrtest.Builder{Key: keys.Ed25519})
	if k := e.Key(); k.Algorithm != csr.Ed25519 || k.Bits != 256 || !k.Public.(ed25519.PublicKey).Equal(keys.Ed25519.Public()) {
		t.Errorf("an Ed25519 key is read as %+v", k)
	}
	r := build(csrtest.Builder{Key: keys.RSA2048, SigAlg: "RSA-PSS-SHA384"})
	if k := r.Key(); k.Algorithm != csr.RSA || k.Bits != 2048 || !k.Public.(*rsa.PublicKey).Equal(keys.RSA2048.Public()) ||
		!bytes.Equal(k.Exponent, []byte{1, 0, 1}) {
		t.Errorf("an RSA key is read as %+v", k)
	}
	if r.SignatureAlgorithm() != "RSA-PSS-SHA384" {
		t.Errorf("the signature algorithm is read as %s", r.SignatureAlgorithm())
	}
}

// TestSignatureAlgorithmFacts holds the names that outdated algorithms are refused with.
func TestSignatureAlgorithmFacts(t *testing.T) {
	want := map[string]csr.SignatureAlgorithm{
		"sha1-signature": "RSA-SHA1", "md5-signature": "RSA-MD5", "ecdsa-sha1-signature": "ECDSA-SHA1",
		"pss-sha1": "RSA-PSS", "unknown-signature-algorithm": "1.2.3.4",
	}
	for _, c := range csrtest.Hostile() {
		if name, ok := want[c.Name]; ok {
			delete(want, c.Name)
			if r, err := csr.Parse(c.DER); err != nil || r.SignatureAlgorithm() != name {
				t.Errorf("%s: read as %v, %v", c.Name, r.SignatureAlgorithm(), err)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("no cases for %v", want)
	}
}

// TestEverySmallOrderPoint forges a signature for each of the eight Ed25519 keys of small order, all of which crypto/ed25519 takes, and
// holds the reader to refusing them.
func TestEverySmallOrderPoint(t *testing.T) {
	for _, digits := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000", "0000000000000000000000000000000000000000000000000000000000000080",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		point := unhex(t, digits)
		if !forgeable(point) {
			t.Errorf("no signature could be forged for %s: is it of small order?", digits)
		}
		der, err := csrtest.Builder{Key: csrtest.FixedKeys().Ed25519, RawSPKI: append(unhex(t, "302a300506032b6570032100"), point...)}.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := csr.Parse(der); ruleOf(t, err) != csr.RuleKey {
			t.Errorf("the key %s is refused by %v", digits, err)
		}
	}
}

// forgeable tells whether the signature that nobody made (R the identity, S = 0) holds for one of a few messages.
func forgeable(point []byte) bool {
	identity := make([]byte, 32)
	identity[0] = 1
	for i := range 256 {
		if ed25519.Verify(point, []byte{byte(i)}, append(slices.Clone(identity), make([]byte, 32)...)) {
			return true
		}
	}
	return false
}

func TestZeroRequest(t *testing.T) {
	var r csr.Request
	if got := ruleOf(t, r.VerifySignature()); got != csr.RuleSignatureAlgorithm {
		t.Errorf("the zero request's signature is refused by %q", got)
	}
}

func TestHashes(t *testing.T) {
	r := compareWithStandardLibrary(t, csrtest.Benign()[0].DER)
	other := compareWithStandardLibrary(t, csrtest.Benign()[1].DER)
	if r.SHA256() == other.SHA256() || r.SPKISHA256() == other.SPKISHA256() || r.SHA256() == r.SPKISHA256() {
		t.Error("different things have the same hash")
	}
}

// TestInputIsCopied changes the input after it was read.
func TestInputIsCopied(t *testing.T) {
	der := bytes.Clone(csrtest.Benign()[0].DER)
	r, err := csr.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	before := r.SHA256()
	clear(der)
	if r.SHA256() != before || r.VerifySignature() != nil {
		t.Error("the request changed with the input")
	}
}

// TestOtherWritersOrder reads attributes in an order that is not DER's, as crypto/x509 writes them.
func TestOtherWritersOrder(t *testing.T) {
	keys := csrtest.FixedKeys()
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{
		DNSNames: []string{"a.dev.example"},
		//lint:ignore SA1019 the only way to write another attribute before the extensionRequest
		Attributes: []pkix.AttributeTypeAndValueSET{{Type: csrtest.OIDChallenge, Value: [][]pkix.AttributeTypeAndValue{{{
			Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "a value so long that the attribute sorts behind the extensionRequest in DER",
		}}}}},
	}, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	r := compareWithStandardLibrary(t, der)
	if a := r.Attributes(); len(a) != 1 || !a[0].Equal(csrtest.OIDChallenge) {
		t.Errorf("the attributes are read as %v", a)
	}
}

func TestParsePEM(t *testing.T) {
	der := csrtest.Benign()[0].DER
	block := func(label string) string { return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})) }
	good := block("CERTIFICATE REQUEST")
	cut := func(s string, n int) string { return s[:len(s)-n] }
	lines := func(s string) string {
		const begin, end = "-----BEGIN CERTIFICATE REQUEST-----\n", "-----END CERTIFICATE REQUEST-----\n"
		return begin + strings.Join(strings.Split(s[len(begin):len(s)-len(end)], ""), "\n") + end
	}
	for name, c := range map[string]struct{ text, rule string }{
		"as OpenSSL writes it":    {good, ""},
		"as older software does":  {block("NEW CERTIFICATE REQUEST"), ""},
		"white space around":      {" \r\n\t\n" + good + "\n \n", ""},
		"Windows line ends":       {string(bytes.ReplaceAll([]byte(good), []byte("\n"), []byte("\r\n"))), ""},
		"no last line end":        {cut(good, 1), ""},
		"spaces at line ends":     {string(bytes.ReplaceAll([]byte(good), []byte("\n"), []byte("  \n"))), ""},
		"empty":                   {"", csr.RuleNotPEM},
		"white space":             {" \n", csr.RuleNotPEM},
		"text":                    {"please", csr.RuleNotPEM},
		"DER":                     {string(der), csr.RuleNotPEM},
		"text before":             {"Certificate Request:\n    Data:\n" + good, csr.RuleNotPEM},
		"byte order mark":         {"\ufeff" + good, csr.RuleNotPEM},
		"text behind":             {good + "x", csr.RuleTrailingData},
		"two blocks":              {good + good, csr.RuleTrailingData},
		"a certificate":           {block("CERTIFICATE"), csr.RuleNotPEM},
		"a private key":           {block("PRIVATE KEY"), csr.RuleNotPEM},
		"an unfinished label":     {"-----BEGIN CERTIFICATE REQUEST", csr.RuleNotPEM},
		"a label over two lines":  {"-----BEGIN CERTIFICATE\nREQUEST-----\n", csr.RuleNotPEM},
		"no end":                  {good[:200], csr.RuleTruncated},
		"an unfinished end":       {cut(good, 3), csr.RuleNotPEM},
		"another end":             {good[:200] + "\n-----END CERTIFICATE-----\n", csr.RuleNotPEM},
		"headers":                 {"-----BEGIN CERTIFICATE REQUEST-----\nComment: x\n\n" + good[36:], csr.RuleNotPEM},
		"escaped line ends":       {string(bytes.ReplaceAll([]byte(good), []byte("\n"), []byte(`\n`))), csr.RuleTrailingData},
		"escaped lines inside":    {`-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----`, csr.RuleNotPEM},
		"not base64":              {"-----BEGIN CERTIFICATE REQUEST-----\n!!!!\n-----END CERTIFICATE REQUEST-----\n", csr.RuleNotPEM},
		"base64 cut off":          {"-----BEGIN CERTIFICATE REQUEST-----\nMIIBA\n-----END CERTIFICATE REQUEST-----\n", csr.RuleNotPEM},
		"base64 with unused bits": {"-----BEGIN CERTIFICATE REQUEST-----\nMB==\n-----END CERTIFICATE REQUEST-----\n", csr.RuleNotPEM},
		"tabs in lines":           {strings.ReplaceAll(good, "MII", "M\tI\tI"), ""},
		"a character a line":      {lines(good), ""},
		"a form feed in lines":    {strings.ReplaceAll(good, "MII", "MI\fI"), csr.RuleNotPEM},
		"a no-break space":        {strings.ReplaceAll(good, "MII", "MI\u00a0I"), csr.RuleNotPEM},
		"an empty block":          {"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", csr.RuleNotDER},
		"truncated DER inside":    {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der[:100]})), csr.RuleTruncated},
		"too large":               {good + string(bytes.Repeat([]byte(" "), 2*csr.MaxDER)), csr.RuleTooLarge},
		"too large inside": {
			string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: make([]byte, csr.MaxDER+1)})),
			csr.RuleTooLarge,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := csr.ParsePEM([]byte(c.text))
			if got := ruleOf(t, err); got != c.rule {
				t.Fatalf("refused by %q, want %q: %v", got, c.rule, err)
			}
			if err == nil && !bytes.Equal(r.Raw(), der) {
				t.Error("what was read is not what was written")
			}
		})
	}
}

func unhex(t *testing.T, digits string) []byte {
	t.Helper()
	octets, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return octets
}
