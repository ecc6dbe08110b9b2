package mirror_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/mirror"
)

// lister makes CRLs with crypto/x509.
type lister struct {
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newLister(t testing.TB) lister {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return lister{&x509.Certificate{RawSubject: []byte{0x30, 0}, Subject: pkix.Name{}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}, key}
}

func (l lister) list(t testing.TB, number int64) ca.CRLRecord {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}, l.issuer, l.key)
	if err != nil {
		t.Fatal(err)
	}
	return ca.CRLRecord{Number: big.NewInt(number), DER: der}
}

// signed finds every CRL sound.
func signed([]byte) error { return nil }

// signed finds those sound that the lister has made.
func (l lister) signed(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	issuer := *l.issuer
	issuer.PublicKey, issuer.PublicKeyAlgorithm = l.key.Public(), x509.ECDSA
	return list.CheckSignatureFrom(&issuer)
}

// What somebody has put there under a higher number keeps out no CRL, unless it is one of the authority's.
func TestADirectoryIsNotKeptByWhatIsNoCRL(t *testing.T) {
	root := t.TempDir()
	d, err := mirror.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	l, place := newLister(t), filepath.Join(root, "a.crl")
	next := l.list(t, 6)
	if err := os.WriteFile(place, newLister(t).list(t, 1<<60).DER, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := l.list(t, 7)
	for _, put := range []struct{ r, want ca.CRLRecord }{{next, next}, {newer, newer}, {next, newer}} {
		if err := d.PutCRL(t.Context(), "a.crl", put.r, l.signed); err != nil {
			t.Fatal(err)
		}
		if read, err := os.ReadFile(place); err != nil || !bytes.Equal(read, put.want.DER) {
			t.Errorf("after %s there is another one, %v", put.r.Number, err)
		}
	}
}

func TestDirectoryKeepsTheHighestNumber(t *testing.T) {
	root := t.TempDir()
	d, err := mirror.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	l := newLister(t)
	place := filepath.Join(root, "crl", "issuing-1", "7.crl")
	for _, number := range []int64{2, 1, 3, 3, 2} {
		r := l.list(t, number)
		if err := d.PutCRL(t.Context(), "crl/issuing-1/7.crl", r, signed); err != nil {
			t.Fatal(err)
		}
		read, err := os.ReadFile(place)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := issuance.ReadCRL(read); err != nil || list.Number.Int64() < number {
			t.Errorf("after %d there is %v, %v", number, list, err)
		}
	}
	if err := os.WriteFile(place, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := l.list(t, 1)
	if err := d.PutCRL(t.Context(), "crl/issuing-1/7.crl", r, signed); err != nil {
		t.Fatal(err)
	}
	if read, err := os.ReadFile(place); err != nil || !bytes.Equal(read, r.DER) {
		t.Errorf("garbage was not replaced: %v", err)
	}
	for _, path := range []string{"../a.crl", "/a.crl", ""} {
		if err := d.PutCRL(t.Context(), path, r, signed); err == nil {
			t.Errorf("%q was accepted", path)
		}
	}
	if _, err := mirror.OpenDirectory(place); err == nil {
		t.Error("a file was opened as a directory")
	}
}

const putInto = "MIRROR_TEST_DIRECTORY"

// TestAKilledWriterLeavesAWholeCRL kills a process that puts one CRL after the other. What it leaves can be read, and its number is one
// that it was told to put after the one that it had acknowledged before.
func TestAKilledWriterLeavesAWholeCRL(t *testing.T) {
	if root := os.Getenv(putInto); root != "" {
		write(t, root)
		return
	}
	for range 5 {
		root := t.TempDir()
		c := exec.Command(os.Args[0], "-test.run", "^TestAKilledWriterLeavesAWholeCRL$")
		c.Env = append(os.Environ(), putInto+"="+root)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := make([]byte, 200)
		n, err := out.Read(acknowledged)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		lines := bytes.Fields(acknowledged[:n])
		first, err := strconv.ParseInt(string(lines[0]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		there, err := os.ReadFile(filepath.Join(root, "crl", "a.crl"))
		if err != nil {
			t.Fatal(err)
		}
		if read, err := issuance.ReadCRL(there); err != nil || read.Number.Int64() < first {
			t.Errorf("acknowledged was %d, there is %v, %v", first, read, err)
		}
		if _, err := mirror.OpenDirectory(root); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(root, "crl", ".chancery-*")); err != nil || len(left) > 0 {
			t.Errorf("unfinished files stay: %v, %v", left, err)
		}
	}
}

// write puts CRLs until it is killed.
func write(t *testing.T, root string) {
	d, err := mirror.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	l := newLister(t)
	for number := int64(1); ; number++ {
		if err := d.PutCRL(t.Context(), "crl/a.crl", l.list(t, number), signed); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString(strconv.FormatInt(number, 10) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever serves the directory is another user: neither files nor folders depend on the umask of the service.
func TestAnotherServerReadsWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	root := t.TempDir()
	d, err := mirror.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.PutCRL(t.Context(), "crl/issuing-1/7.crl", newLister(t).list(t, 1), signed); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"crl": 0o755, "crl/issuing-1": 0o755, "crl/issuing-1/7.crl": 0o644} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}
