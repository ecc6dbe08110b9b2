package approval

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/ssh/agent"
	"pgregory.net/rapid"
)

func sound() Statement {
	return Statement{
		Kind: KindRequest, ID: "0190a5d2-0000-7000-8000-000000000001", Approves: true, Person: "bob",
		Expires: time.Date(2026, 12, 5, 10, 0, 0, 0, time.UTC), Binding: "sha256:00ff",
		Facts: []Fact{{"csr_sha256", "aa"}, {"policies", "sha256:11"}},
	}
}

func text(t testing.TB, s Statement) []byte {
	t.Helper()
	written, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// The text is written down: what is signed today is verified in years.
func TestTheTextIsAsAgreed(t *testing.T) {
	const want = "chancery approval 1\nkind: request\nid: 0190a5d2-0000-7000-8000-000000000001\ndecision: approve\nperson: bob\n" +
		"expires: 2026-12-05T10:00:00Z\nbinding: sha256:00ff\ncsr_sha256: aa\npolicies: sha256:11\n"
	if got := string(text(t, sound())); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAStatementHasNoRoomForASecondMeaning(t *testing.T) {
	for name, spoil := range map[string]func(*Statement){
		"a line in a person":  func(s *Statement) { s.Person = "bob\ndecision: approve" },
		"no person":           func(s *Statement) { s.Person = "" },
		"white space":         func(s *Statement) { s.Person = " bob" },
		"a hidden letter":     func(s *Statement) { s.Person = "bob\u200b" },
		"a return":            func(s *Statement) { s.ID = "1\r2" },
		"a fact without name": func(s *Statement) { s.Facts[0].Name = "" },
		"a colon in a name":   func(s *Statement) { s.Facts[0].Name = "a: b" },
		"a fact twice":        func(s *Statement) { s.Facts = append(s.Facts, Fact{s.Facts[0].Name, "another"}) },
		"a second binding":    func(s *Statement) { s.Facts = append(s.Facts, Fact{"binding", "sha256:another"}) },
		"too long":            func(s *Statement) { s.Facts[0].Value = strings.Repeat("x", MaxStatement) },
	} {
		s := sound()
		spoil(&s)
		if written, err := s.Text(); err == nil {
			t.Errorf("%s: %q", name, written)
		}
	}
	canonical := string(text(t, sound()))
	for name, changed := range map[string]string{
		"nothing":          "",
		"another title":    strings.Replace(canonical, "approval 1", "approval 2", 1),
		"a last line open": strings.TrimSuffix(canonical, "\n"),
		"a line more":      canonical + "\n",
		"carriage returns": strings.ReplaceAll(canonical, "\n", "\r\n"),
		"another order":    strings.Replace(canonical, "kind: request\n", "", 1) + "kind: request\n",
		"local time":       strings.Replace(canonical, "10:00:00Z", "11:00:00+01:00", 1),
		"a third decision": strings.Replace(canonical, "decision: approve", "decision: perhaps", 1),
		"two CSRs":         strings.Replace(canonical, "csr_sha256: ", "csr_sha256: another\ncsr_sha256: ", 1),
	} {
		if s, err := ParseStatement([]byte(changed)); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

func TestStatementsComeBack(t *testing.T) {
	line := rapid.StringMatching(`[!-~]([ -~]{0,30}[!-~])?`)
	rapid.Check(t, func(t *rapid.T) {
		s := Statement{
			Kind: line.Draw(t, "kind"), ID: line.Draw(t, "id"), Approves: rapid.Bool().Draw(t, "approves"), Person: line.Draw(t, "person"),
			Expires: time.Unix(rapid.Int64Range(0, 1<<34).Draw(t, "expires"), 0).UTC(), Binding: line.Draw(t, "binding"),
		}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z_0-9]{1,9}_`), 0, 4, rapid.ID) // none of the names that each statement has
		for _, name := range names.Draw(t, "facts") {
			s.Facts = append(s.Facts, Fact{name, line.Draw(t, "value")})
		}
		written, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseStatement(written)
		if err != nil {
			t.Fatal(err)
		}
		if rewritten, _ := again.Text(); !bytes.Equal(rewritten, written) || again.Person != s.Person || len(again.Facts) != len(s.Facts) {
			t.Fatalf("%q came back as %+v", written, again)
		}
	})
}

func run(t *testing.T, dir string, stdin []byte, command string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, problems.Bytes())
	}
	return out
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parseKey(t *testing.T, public []byte) Key {
	t.Helper()
	key, err := ParseKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var sshKinds = map[string][]string{
	"ed25519": {"-t", "ed25519"}, "ecdsa-256": {"-t", "ecdsa", "-b", "256"}, "ecdsa-521": {"-t", "ecdsa", "-b", "521"},
	"rsa": {"-t", "rsa", "-b", "2048"},
}

// What ssh-keygen signs, we verify; what we sign, ssh-keygen verifies.
func TestSSHSignaturesAreOpenSSHs(t *testing.T) {
	for name, kind := range sshKinds {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, nil, "ssh-keygen", append(kind, "-q", "-N", "", "-f", "key")...)
			key := parseKey(t, read(t, dir, "key.pub"))
			said := text(t, sound())
			theirs := run(t, dir, said, "ssh-keygen", "-q", "-Y", "sign", "-n", SSHNamespace, "-f", "key")
			if err := key.Verify(said, theirs); err != nil {
				t.Errorf("ssh-keygen's signature: %v", err)
			}
			signer, err := OpenSSH(read(t, dir, "key"), nil, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := signer.Sign(said)
			if err != nil {
				t.Fatal(err)
			}
			if err := key.Verify(said, ours); err != nil {
				t.Errorf("our own signature: %v", err)
			}
			for file, data := range map[string][]byte{"signature": ours, "signers": append([]byte("bob "), read(t, dir, "key.pub")...)} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run(t, dir, said, "ssh-keygen", "-q", "-Y", "verify", "-n", SSHNamespace, "-I", "bob", "-f", "signers", "-s", "signature")
		})
	}
}

// What openssl cms signs, we verify; what we sign, openssl verifies.
func TestCMSSignaturesAreOpenSSLs(t *testing.T) {
	for name, kind := range map[string][]string{
		"rsa": {"-newkey", "rsa:2048"}, "ecdsa-256": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"ecdsa-384": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, nil, "openssl", append([]string{
				"req", "-x509", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=bob",
				"-days", "2",
			}, kind...)...)
			key := parseKey(t, read(t, dir, "cert.pem"))
			if key.Until().IsZero() {
				t.Error("the certificate has no end")
			}
			said := text(t, sound())
			for _, digest := range []string{"sha256", "sha384", "sha512"} {
				theirs := run(t, dir, said, "openssl", "cms", "-sign", "-binary", "-md", digest, "-signer", "cert.pem", "-inkey", "key.pem", "-outform",
					"PEM")
				if err := key.Verify(said, theirs); err != nil {
					t.Errorf("openssl's signature with %s: %v", digest, err)
				}
			}
			for refusal, options := range map[string][]string{
				"is over another statement": {"-md", "sha256"}, // as text: the line ends are not those of the statement
				"digest does not count":     {"-binary", "-md", "sha1"},
				"lacks the signer's":        {"-binary", "-md", "sha256", "-nocerts"},
			} {
				theirs := run(t, dir, said, "openssl",
					append([]string{"cms", "-sign", "-signer", "cert.pem", "-inkey", "key.pem", "-outform", "PEM"}, options...)...)
				if err := key.Verify(said, theirs); err == nil || !strings.Contains(err.Error(), refusal) {
					t.Errorf("%q: %v", options, err)
				}
			}
			signer, err := OpenX509(read(t, dir, "cert.pem"), read(t, dir, "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := signer.Sign(said)
			if err != nil {
				t.Fatal(err)
			}
			if err := key.Verify(said, ours); err != nil {
				t.Errorf("our own signature: %v", err)
			}
			for file, data := range map[string][]byte{"signature": ours, "statement": said} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run(t, dir, nil, "openssl", "cms", "-verify", "-binary", "-inform", "PEM", "-in", "signature", "-content", "statement", "-CAfile",
				"cert.pem",
				"-purpose", "any")
		})
	}
}

func TestSignaturesThatDoNotCount(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bob", "eve"} {
		run(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
		run(t, dir, nil, "openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", name+"-key.pem",
			"-out",
			name+".pem", "-subj", "/CN=bob", "-days", "2")
	}
	said := text(t, sound())
	other := sound()
	other.ID = "0190a5d2-0000-7000-8000-000000000002"
	bySSH := func(of, namespace string, over []byte) []byte {
		return run(t, dir, over, "ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", of)
	}
	byCMS := func(of string, over []byte, more ...string) []byte {
		return run(t, dir, over, "openssl", append([]string{
			"cms", "-sign", "-binary", "-md", "sha256", "-outform", "PEM", "-signer", of + ".pem",
			"-inkey", of + "-key.pem",
		}, more...)...)
	}
	ssh, certificate := parseKey(t, read(t, dir, "bob.pub")), parseKey(t, read(t, dir, "bob.pem"))
	for name, c := range map[string]struct {
		key       Key
		signature []byte
	}{
		"of another request, ssh":   {ssh, bySSH("bob", SSHNamespace, text(t, other))},
		"by another key, ssh":       {ssh, bySSH("eve", SSHNamespace, said)},
		"for another purpose":       {ssh, bySSH("bob", "git", said)},
		"twice, ssh":                {ssh, append(bySSH("bob", SSHNamespace, said), bySSH("bob", SSHNamespace, said)...)},
		"of another request, cms":   {certificate, byCMS("bob", text(t, other))},
		"by another key, cms":       {certificate, byCMS("eve", said)},
		"by two, cms":               {certificate, byCMS("bob", said, "-signer", "eve.pem", "-inkey", "eve-key.pem")},
		"another request inside":    {certificate, byCMS("bob", text(t, other), "-nodetach")},
		"cms for an SSH key":        {ssh, byCMS("bob", said)},
		"ssh for a certificate":     {certificate, bySSH("bob", SSHNamespace, said)},
		"nothing":                   {ssh, nil},
		"no PEM":                    {ssh, []byte("yes")},
		"octets for a signature":    {ssh, []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n")},
		"octets for a cms":          {certificate, []byte("-----BEGIN CMS-----\nMAAwAA==\n-----END CMS-----\n")},
		"much too long a signature": {ssh, bytes.Repeat([]byte("x"), MaxSignature+1)},
	} {
		if err := c.key.Verify(said, c.signature); err == nil {
			t.Errorf("a signature %s counts", name)
		}
	}
	whole := byCMS("bob", said, "-nodetach") // the statement inside is the statement
	if err := certificate.Verify(said, whole); err != nil {
		t.Errorf("a signature with its statement inside: %v", err)
	}
}

// What a CMS signature signs is its attributes, by a digest of its own: one that says SHA-256 of the statement and signs them by SHA-1 is as
// weak as SHA-1.
func TestACMSSignatureHasOneDigest(t *testing.T) {
	said := text(t, sound())
	weakly := func(key crypto.Signer, algorithm asn1.ObjectIdentifier, hash crypto.Hash) error {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		signing, err := pkcs7.NewSignedData(said)
		if err != nil {
			t.Fatal(err)
		}
		signing.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
		if err := signing.AddSigner(certificate, key, pkcs7.SignerInfoConfig{}); err != nil {
			t.Fatal(err)
		}
		info := &signing.GetSignedData().SignerInfos[0]
		attributes, err := asn1.MarshalWithParams(info.AuthenticatedAttributes, "set")
		if err != nil {
			t.Fatal(err)
		}
		digest := hash.New()
		digest.Write(attributes)
		info.DigestEncryptionAlgorithm.Algorithm = algorithm
		if info.EncryptedDigest, err = key.Sign(rand.Reader, digest.Sum(nil), hash); err != nil {
			t.Fatal(err)
		}
		signing.Detach()
		if der, err = signing.Finish(); err != nil {
			t.Fatal(err)
		}
		return parseKey(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})).Verify(said,
			pem.EncodeToMemory(&pem.Block{Type: "CMS", Bytes: der}))
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key       crypto.Signer
		algorithm asn1.ObjectIdentifier
		hash      crypto.Hash
		counts    bool
	}{
		"SHA-256":                    {ec, pkcs7.OIDDigestAlgorithmECDSASHA256, crypto.SHA256, true},
		"SHA-1":                      {ec, pkcs7.OIDDigestAlgorithmECDSASHA1, crypto.SHA1, false},
		"another SHA-2":              {ec, pkcs7.OIDDigestAlgorithmECDSASHA512, crypto.SHA512, false},
		"RSA":                        {rsaKey, pkcs7.OIDEncryptionAlgorithmRSA, crypto.SHA256, true},
		"RSA with SHA-256":           {rsaKey, pkcs7.OIDEncryptionAlgorithmRSASHA256, crypto.SHA256, true},
		"RSA that says it has SHA-1": {rsaKey, pkcs7.OIDEncryptionAlgorithmRSASHA1, crypto.SHA256, false},
	} {
		err := weakly(c.key, c.algorithm, c.hash)
		if (err == nil) != c.counts || err != nil && !strings.Contains(err.Error(), "does not go with its digest") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// One key in two forms is one key.
func TestAKeyIsTheSameInEachForm(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, nil, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
	if err := os.Chmod(filepath.Join(dir, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, nil, "openssl", "req", "-x509", "-key", "key.pem", "-out", "cert.pem", "-subj", "/CN=bob", "-days", "2")
	public := run(t, dir, nil, "ssh-keygen", "-y", "-f", "key.pem")
	one, two := parseKey(t, public), parseKey(t, read(t, dir, "cert.pem"))
	if one.Form == two.Form || one.Fingerprint() != two.Fingerprint() || !strings.HasPrefix(one.Fingerprint(), "sha256:") {
		t.Errorf("%s %s, %s %s", one.Form, one.Fingerprint(), two.Form, two.Fingerprint())
	}
	for _, key := range []Key{one, two} {
		if again := parseKey(t, []byte(key.String())); again.Fingerprint() != key.Fingerprint() || again.Form != key.Form {
			t.Errorf("%s came back as another", key.Form)
		}
	}
}

func TestKeysThatCannotApprove(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, nil, "ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak")
	run(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "sound")
	run(t, dir, nil, "ssh-keygen", "-q", "-s", "sound", "-I", "bob", "-n", "bob", "sound.pub")
	run(t, dir, nil, "openssl", "req", "-x509", "-nodes", "-newkey", "ed25519", "-keyout", "k.pem", "-out", "edwards.pem", "-subj", "/CN=bob")
	run(t, dir, nil, "openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "k.pem", "-out", "sealing.pem", "-subj", "/CN=bob",
		"-addext",
		"keyUsage=critical,keyEncipherment")
	for name, public := range map[string][]byte{
		"a weak key": read(t, dir, "weak.pub"), "a private key": read(t, dir, "sound"), "an SSH certificate": read(t, dir, "sound-cert.pub"),
		"two keys":                 append(read(t, dir, "sound.pub"), read(t, dir, "sound.pub")...),
		"a key with options":       append([]byte("no-pty "), read(t, dir, "sound.pub")...),
		"Ed25519 in a certificate": read(t, dir, "edwards.pem"), "a key that encrypts": read(t, dir, "sealing.pem"), "nothing": nil,
		"text":             []byte("bob"),
		"two certificates": append(read(t, dir, "sealing.pem"), read(t, dir, "edwards.pem")...),
	} {
		if key, err := ParseKey(public); err == nil {
			t.Errorf("%s: %s", name, key)
		} else if strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: the error quotes it: %v", name, err)
		}
	}
}

func TestPassphrasesAndAgents(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", "key")
	private, key, said := read(t, dir, "key"), parseKey(t, read(t, dir, "key.pub")), text(t, sound())
	for _, wrong := range []string{"", "sesame"} {
		if _, err := OpenSSH(private, []byte(wrong), rand.Reader); !errors.Is(err, ErrPassphrase) {
			t.Errorf("the passphrase %q: %v", wrong, err)
		}
	}
	if signer, err := OpenSSH(private, []byte("open sesame"), rand.Reader); err != nil || signer.Key().Fingerprint() != key.Fingerprint() {
		t.Errorf("the right passphrase: %v", err)
	}

	run(t, dir, nil, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "plain")
	socket := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		ring := agent.NewKeyring()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(ring, conn)
			_ = conn.Close()
		}
	}()
	add := exec.CommandContext(t.Context(), "ssh-add", "-q", filepath.Join(dir, "plain"))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dial := func() net.Conn {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := dial()
	if _, err := OpenAgent(conn, key); err == nil {
		t.Error("the agent holds a key that it was not given")
	}
	_ = conn.Close()
	conn = dial()
	plain := parseKey(t, read(t, dir, "plain.pub"))
	signer, err := OpenAgent(conn, plain)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(said)
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Verify(said, signature); err != nil {
		t.Error(err)
	}
	_, _ = conn.Close(), l.Close()
	<-served
}

func TestEvidence(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
	signer, err := OpenSSH(read(t, dir, "key"), nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	said := text(t, sound())
	signature, err := signer.Sign(said)
	if err != nil {
		t.Fatal(err)
	}
	e := Evidence{said, signature, signer.Key()}
	if s, err := e.Verify(); err != nil || s.Person != "bob" || len(e.Digest()) != 64 {
		t.Errorf("%+v, %v, %s", s, err, e.Digest())
	}
	changed := e
	changed.Statement = bytes.Replace(said, []byte("bob"), []byte("eve"), 1)
	if _, err := changed.Verify(); err == nil || changed.Digest() == e.Digest() {
		t.Errorf("a changed statement verifies, or has the same digest: %v", err)
	}
}

func FuzzParseStatement(f *testing.F) {
	f.Add(text(f, sound()))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStatement(data)
		if err != nil {
			return
		}
		if again, err := s.Text(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q was read, and is written as %q, %v", data, again, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2jVYYDKN1Mxmn0hSBLUYYBAyHqWLQk3ODfmc6g0WFV bob"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParseKey(data)
		if err != nil {
			return
		}
		if again, err := ParseKey([]byte(key.String())); err != nil || again.Fingerprint() != key.Fingerprint() || key.Fingerprint() == "" {
			t.Errorf("%q does not come back: %v", data, err)
		}
	})
}

// FuzzVerify gives signatures that are none to a key of each form.
func FuzzVerify(f *testing.F) {
	dir, said := f.TempDir(), text(f, sound())
	for _, args := range [][]string{
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"},
		{"openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=bob"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			f.Fatalf("%v: %s", err, out)
		}
	}
	of := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	bySSH, err := OpenSSH(of("key"), nil, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	byCMS, err := OpenX509(of("cert.pem"), of("key.pem"))
	if err != nil {
		f.Fatal(err)
	}
	other := sound()
	other.Person = "eve"
	for _, signer := range []Signer{bySSH, byCMS} {
		signature, err := signer.Sign(text(f, other))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signature)
	}
	f.Fuzz(func(t *testing.T, signature []byte) {
		for _, signer := range []Signer{bySSH, byCMS} {
			if err := signer.Key().Verify(said, signature); err == nil {
				t.Errorf("%q is a signature over what nobody signed", signature)
			}
		}
	})
}
