package csr_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/csr"
)

// openssl runs OpenSSL's command line in a directory of its own.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	command := exec.Command("openssl", args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestOpenSSL reads what OpenSSL writes for every kind of key and signature.
func TestOpenSSL(t *testing.T) {
	const names = "subjectAltName=DNS:a.dev.example,DNS:*.b.dev.example,IP:127.0.0.1,IP:::1,email:a@dev.example"
	ordinary := []string{"-subj", "/C=DE/O=Gr\xc3\xb6\xc3\x9fe/CN=a.dev.example", "-utf8", "-addext", names}
	rsa, p256 := []string{"RSA", "rsa_keygen_bits:2048"}, []string{"EC", "ec_paramgen_curve:P-256"}
	for _, c := range []struct {
		name    string
		key     []string // algorithm, option
		options []string
		want    csr.SignatureAlgorithm
	}{
		{"rsa", rsa, []string{"-sha256"}, "RSA-SHA256"},
		{"rsa-sha512", rsa, []string{"-sha512"}, "RSA-SHA512"},
		{"rsa-pss", rsa, []string{"-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, "RSA-PSS-SHA256"},
		{"rsa-pss-sha384", rsa, []string{"-sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, "RSA-PSS-SHA384"},
		{"p256", p256, nil, "ECDSA-SHA256"},
		{"p384", []string{"EC", "ec_paramgen_curve:P-384"}, []string{"-sha384"}, "ECDSA-SHA384"},
		{"p521", []string{"EC", "ec_paramgen_curve:P-521"}, []string{"-sha512"}, "ECDSA-SHA512"},
		{"ed25519", []string{"ED25519"}, nil, "Ed25519"},
		{"usages", p256, []string{
			"-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
			"-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectKeyIdentifier=hash", "-addext", "tlsfeature=status_request",
		}, "ECDSA-SHA256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			generate := []string{"genpkey", "-algorithm", c.key[0], "-out", "key.pem"}
			for _, option := range c.key[1:] {
				generate = append(generate, "-pkeyopt", option)
			}
			openssl(t, dir, generate...)
			openssl(t, dir, slices.Concat([]string{"req", "-new", "-key", "key.pem", "-out", "request.pem"}, ordinary, c.options)...)
			text, err := os.ReadFile(filepath.Join(dir, "request.pem"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := csr.ParsePEM(text)
			if err != nil {
				t.Fatalf("ParsePEM: %v", err)
			}
			compareWithStandardLibrary(t, r.Raw())
			if r.SignatureAlgorithm() != c.want {
				t.Errorf("the signature algorithm is read as %s, want %s", r.SignatureAlgorithm(), c.want)
			}
			if s := r.Subject(); len(s) != 3 || s[1].Value != "Größe" || s[2].Value != "a.dev.example" {
				t.Errorf("the subject is read as %v", s)
			}
			if n := r.Names(); n.Len() != 5 || len(n.DNS) != 2 || len(n.IP) != 2 || len(n.Email) != 1 {
				t.Errorf("the names are read as %v", n)
			}
			if c.name != "usages" {
				return
			}
			e := r.Extensions()
			if e.KeyUsage == nil || *e.KeyUsage != (csr.KeyUsage{Bits: uint16(x509.KeyUsageDigitalSignature), Critical: true}) {
				t.Errorf("the key usage is read as %v", e.KeyUsage)
			}
			if e.ExtKeyUsage == nil || len(e.ExtKeyUsage.OIDs) != 2 || e.ExtKeyUsage.OIDs[1].String() != "1.3.6.1.5.5.7.3.2" {
				t.Errorf("the extended key usage is read as %v", e.ExtKeyUsage)
			}
			if e.BasicConstraints == nil || *e.BasicConstraints != (csr.BasicConstraints{PathLen: -1, Critical: true}) {
				t.Errorf("the basic constraints are read as %v", e.BasicConstraints)
			}
			if len(e.Unknown) != 2 || e.Unknown[0].OID.String() != "2.5.29.14" || e.Unknown[1].OID.String() != "1.3.6.1.5.5.7.1.24" {
				t.Errorf("the unknown extensions are read as %v", e.Unknown)
			}
		})
	}
}

// TestOpenSSLRefused has OpenSSL write what must not be read, so that the refusals do not hang on our own encoder alone.
func TestOpenSSLRefused(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		key, req   []string
	}{
		{"explicit-parameters", csr.RuleKey, []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"}, nil},
		{"secp256k1", csr.RuleKeyAlgorithm, []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"}, nil},
		{"ed448", csr.RuleKeyAlgorithm, []string{"-algorithm", "ED448"}, nil},
		{"pss-key", csr.RuleKeyAlgorithm, []string{"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"}, nil},
		{"text-before", csr.RuleNotPEM, []string{"-algorithm", "ED25519"}, []string{"-text"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			openssl(t, dir, slices.Concat([]string{"genpkey", "-out", "key.pem"}, c.key)...)
			openssl(t, dir, slices.Concat([]string{"req", "-new", "-key", "key.pem", "-out", "request.pem", "-subj", "/CN=a"}, c.req)...)
			text, err := os.ReadFile(filepath.Join(dir, "request.pem"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = csr.ParsePEM(text)
			if got := ruleOf(t, err); got != c.rule {
				t.Errorf("refused by %q, want %q: %v", got, c.rule, err)
			}
		})
	}
}
