package issuance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-ca/chancery/policies"
)

var update = flag.Bool("update", false, "write testdata/golden anew")

// goldenKey is a key that is the same in every run.
func goldenKey(t *testing.T, scalar byte) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), scalar))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestGolden holds the to-be-signed bytes against those written down, so that no change of them goes unseen. They can be read with
// openssl asn1parse -inform DER -i -in.
func TestGolden(t *testing.T) {
	serial := Serial{serialPrefix, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}
	root := rootTemplate(t, goldenKey(t, 1).Public())
	issuing := intermediateTemplate(t, goldenKey(t, 2).Public())
	issuing.Permitted, issuing.Excluded = constraints(), &policies.NameConstraints{DNS: []string{"secret.example.com"}}
	server := leafTemplate(t, goldenKey(t, 3).Public())
	server.IP = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	server.Email, server.URI, server.OCSPURLs = []string{"a@example.com"}, []string{"spiffe://example.com/a"}, []string{"http://ocsp.example.com/"}
	responder := leafTemplate(t, goldenKey(t, 4).Public())
	responder.Subject, responder.DNS, responder.CRLURL, responder.Policies = commonName("Responder"), nil, "", nil
	responder.ExtKeyUsage, responder.OCSPNoCheck, responder.WriteSubjectKeyID = []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 9}}, true, true

	rootName, err := marshalName(root.Subject)
	if err != nil {
		t.Fatal(err)
	}
	issuingName, err := marshalName(issuing.Subject)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		template policies.Template
		frame    frame
	}{
		"root":       {root, frame{ecdsaSHA256, serial, rootName, root.SubjectKeyID}},
		"issuing":    {issuing, frame{ecdsaSHA384, serial, rootName, root.SubjectKeyID}},
		"tls-public": {server, frame{ecdsaSHA256, serial, issuingName, issuing.SubjectKeyID}},
		"responder":  {responder, frame{rsaSHA256, serial, issuingName, issuing.SubjectKeyID}},
	} {
		tbs, err := marshalTBS(c.frame, &c.template)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, tbs)
	}

	linter, err := newRevocationLinter()
	if err != nil {
		t.Fatal(err)
	}
	issuer := &Issuer{
		certificate: &x509.Certificate{RawSubject: issuingName, SubjectKeyId: issuing.SubjectKeyID},
		key:         signingKey{public: goldenKey(t, 2).Public(), algorithm: ecdsaSHA256}, crlLinter: linter,
	}
	for name, change := range map[string]func(*CRLContents){
		"crl":        func(*CRLContents) {},
		"crl-empty":  func(c *CRLContents) { c.Entries = nil },
		"crl-scoped": func(c *CRLContents) { c.Distribution = "http://pki.example.com/crl/issuing-1/7.crl" },
	} {
		c := smallCRL()
		change(&c)
		prepared, err := issuer.PrepareCRL(c)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, prepared.TBS())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".der")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the bytes are not those of %s; got %x", name, path, got)
	}
}
