package blocklist

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func number(i int) Key { return sha256.Sum256(fmt.Append(nil, i)) }

func numbers(from, to int) []Key {
	var keys []Key
	for i := from; i < to; i++ {
		keys = append(keys, number(i))
	}
	return keys
}

func written(t testing.TB, title string, keys []Key) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.keys")
	if _, err := Write(path, title, slices.Clone(keys)); err != nil {
		t.Fatal(err)
	}
	return path
}

func contains(t testing.TB, l *List, key Key) bool {
	t.Helper()
	found, err := l.Contains(key)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestListHoldsWhatWasWritten(t *testing.T) {
	for _, n := range []int{0, 1, 2, blockOf, 257, 100_000} {
		keys := append(numbers(0, n), numbers(0, n/2)...) // half of them twice
		path := filepath.Join(t.TempDir(), "list.keys")
		if got, err := Write(path, "Ten thousand keys", keys); err != nil || got != n {
			t.Fatalf("%d keys: wrote %d, %v", n, got, err)
		}
		list, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if list.Len() != int64(n) || list.Title() != "Ten thousand keys" {
			t.Errorf("%d keys: %d of %q", n, list.Len(), list.Title())
		}
		for i := range min(2*n+10, 5000) {
			if found := contains(t, list, number(i)); found != (i < n) {
				t.Fatalf("%d keys: key %d is in it: %v", n, i, found)
			}
		}
		if contains(t, list, Key{}) || contains(t, list, Key(bytes.Repeat([]byte{0xff}, keySize))) {
			t.Errorf("%d keys: the ends are in it", n)
		}
		if err := list.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A list of keys that crowd together is searched as well as one of keys that do not.
func TestAnySetOfKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.keys")
	key := rapid.Custom(func(t *rapid.T) (k Key) {
		k[0] = rapid.SampledFrom([]byte{0, 1, 0x7f, 0xff}).Draw(t, "first")
		k[31] = rapid.Byte().Draw(t, "last")
		return k
	})
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(key, 0, 300).Draw(t, "keys")
		if _, err := Write(path, "any", slices.Clone(keys)); err != nil {
			t.Fatal(err)
		}
		list, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer list.Close()
		for _, k := range append(keys, rapid.SliceOfN(key, 0, 20).Draw(t, "others")...) {
			if found, err := list.Contains(k); err != nil || found != slices.Contains(keys, k) {
				t.Fatalf("%x: %v, %v", k, found, err)
			}
		}
	})
}

// TestEveryBitCounts holds that no bit of a list can change without it being refused.
func TestEveryBitCounts(t *testing.T) {
	good, err := os.ReadFile(written(t, "few", numbers(0, 3)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := read(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrFormat) {
				t.Fatalf("octet %d, bit %d: %v", i, bit, err)
			}
		}
		if _, err := read(bytes.NewReader(good[:i]), int64(i)); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut off at %d: %v", i, err)
		}
	}
	if _, err := read(bytes.NewReader(append(good, 0)), int64(len(good)+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("one octet more: %v", err)
	}
}

func TestTitles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.keys")
	for title, good := range map[string]bool{
		"Debian weak keys, RSA 2048": true, "Größe": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "a\x00b": false, "a\nb": false, "a\xff": false,
	} {
		_, err := Write(path, title, nil)
		if (err == nil) != good {
			t.Errorf("%q: %v", title, err)
		}
		if good {
			if list, err := Open(path); err != nil || list.Title() != title {
				t.Errorf("%q: read as %v, %v", title, list, err)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, n := range []int{0, 1, 70} {
		good, err := os.ReadFile(written(f, "seed", numbers(0, n)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for i := range int(list.Len()) {
			if !contains(t, list, Key(b[keysAt+i*keySize:][:keySize])) {
				t.Fatalf("digest %d is not found", i)
			}
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("# a comment\n" + strings.Repeat("ab", 32) + "  weak.pem\n\n" + strings.Repeat("AB:", 31) + "AB\n")
	f.Add("zz")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := readText(strings.NewReader(text))
		if err == nil && len(keys) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d keys from %q", len(keys), text)
		}
	})
}

func TestSources(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(spki)
	digest := hex.EncodeToString(want[:])
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
	list, err := os.ReadFile(written(t, "another", []Key{want}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		keys int
		err  string
	}{
		{"", 0, ""},
		{"# nothing\n\n  \n", 0, ""},
		{digest, 1, ""},
		{digest + "  key.pem\r\n# x\n" + strings.ToUpper(digest) + "\t2008\n", 2, ""},
		{public, 1, ""},
		{public + "\n" + csr + "\n", 2, ""},
		{string(list), 1, ""},
		{digest[1:], 0, "line 1: "},
		{digest + "\n" + digest + "00\n", 0, "line 2: "},
		{digest + "\n" + strings.Repeat("#", maxLine+1), 0, "line 2: "},
		{public + "\r\n\t" + public + "  ", 2, ""},
		{public + "rubbish", 0, "block 2, line 5: not PEM"},
		{public + strings.Replace(public, "M", "*", 1) + public, 0, "block 2, line 5: not PEM"},
		{public + strings.Replace(public, "-----END", "----END", 1) + public, 0, "block 2, line 5: not PEM"},
		{public + strings.Replace(public, "KEY-----\n", "KEY-----\nKey: another\n\n", 1) + public, 0, "block 2, line 5: not PEM"},
		{public + public[:len(public)/2] + "\n" + public, 0, "block 2, line 5: not PEM"},
		{public + "\n" + digest + "\n" + public, 0, "block 2, line 6: not PEM"},
		{public + digest, 0, "block 2, line 5: not PEM"},
		{strings.ReplaceAll(public, "PUBLIC", "PRIVATE"), 0, "holds no public key that is read"},
		{string(list[:len(list)-1]), 0, "not as long as it says"},
	} {
		path := filepath.Join(t.TempDir(), "source")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := Read(path)
		if len(keys) != c.keys || slices.ContainsFunc(keys, func(k Key) bool { return k != want }) {
			t.Errorf("%.40q: %x, want %d times %x", c.text, keys, c.keys, want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.40q: %v, want %q", c.text, err, c.err)
		}
	}
}

// TestOpenSSLMakesTheSameDigest holds that the digest is the one that people compute by hand.
func TestOpenSSLMakesTheSameDigest(t *testing.T) {
	dir := t.TempDir()
	key, public := filepath.Join(dir, "key.pem"), filepath.Join(dir, "public.pem")
	run := func(args ...string) []byte {
		out, err := exec.Command("openssl", args...).Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
	run("pkey", "-in", key, "-pubout", "-out", public)
	der := filepath.Join(dir, "public.der")
	run("pkey", "-in", key, "-pubout", "-outform", "DER", "-out", der)
	fields := strings.Fields(string(run("dgst", "-sha256", "-r", der)))
	want, err := ParseKey(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read(public); err != nil || !slices.Equal(got, []Key{want}) {
		t.Errorf("%x, %v; openssl says %x", got, err, want)
	}
}

func TestLists(t *testing.T) {
	weak, leaked := written(t, "weak", numbers(0, 100)), written(t, "leaked", numbers(50, 150))
	lists, err := OpenAll([]string{weak, leaked})
	if err != nil {
		t.Fatal(err)
	}
	defer lists.Close()
	check := func(i int, want ...string) {
		t.Helper()
		if got, err := lists.Listed(number(i)); err != nil || !slices.Equal(got, want) {
			t.Errorf("key %d is in %q, %v; want %q", i, got, err, want)
		}
	}
	check(10, "weak")
	check(60, "weak", "leaked")
	check(110, "leaked")
	check(200)

	if fresh, err := lists.Refresh(); err != nil || len(fresh) != 0 {
		t.Errorf("nothing was replaced: %v, %v", fresh, err)
	}
	if _, err := Write(leaked, "leaked since", numbers(200, 300)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(weak, []byte("no list"), 0o600); err != nil { // in place: what is open changes, too, in a way that no reader survives
		t.Fatal(err)
	}
	fresh, err := lists.Refresh()
	if !errors.Is(err, ErrFormat) || len(fresh) != 1 || fresh[0].Title() != "leaked since" {
		t.Errorf("fresh %v, %v", fresh, err)
	}
	if _, err := lists.Listed(number(10)); err == nil {
		t.Error("a list that was cut off answers")
	}
	if _, err := Write(weak, "weak", numbers(0, 10)); err != nil {
		t.Fatal(err)
	}
	if fresh, err := lists.Refresh(); err != nil || len(fresh) != 1 {
		t.Errorf("fresh %v, %v", fresh, err)
	}
	check(5, "weak")
	check(10)
	check(250, "leaked since")

	// A list that is made again every night, the same: it is read once more, and not each time from then on.
	if _, err := Write(weak, "weak", numbers(0, 10)); err != nil {
		t.Fatal(err)
	}
	if fresh, err := lists.Refresh(); err != nil || len(fresh) != 0 || !lists.unchanged(0) {
		t.Errorf("the same again: fresh %v, %v, unchanged: %t", fresh, err, lists.unchanged(0))
	}
	check(5, "weak")

	if _, err := OpenAll([]string{weak, filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a list that is not there: %v", err)
	}
}

// Lists are asked and replaced at the same time.
func TestListsAreSharedWhileTheyAreReplaced(t *testing.T) {
	path := written(t, "a", numbers(0, 1000))
	lists, err := OpenAll([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	defer lists.Close()
	done := make(chan error)
	for range 4 {
		go func() {
			for i := range 2000 {
				if got, err := lists.Listed(number(i % 1000)); err != nil || len(got) != 1 {
					done <- fmt.Errorf("key %d is in %q, %w", i%1000, got, err)
					return
				}
			}
			done <- nil
		}()
	}
	for i := range 20 {
		if _, err := Write(path, "b", numbers(0, 1000+i)); err != nil {
			t.Fatal(err)
		}
		if _, err := lists.Refresh(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkContains(b *testing.B) {
	list, err := Open(written(b, "a million", numbers(0, 1_000_000)))
	if err != nil {
		b.Fatal(err)
	}
	defer list.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if found := contains(b, list, number(2*i%2_000_000)); found != (2*i%2_000_000 < 1_000_000) {
			b.Fatal(i)
		}
	}
}

// A list that is put back as it was, after somebody has overwritten its file, is in use again, and read once.
func TestAListThatIsPutBackIsInUseAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weak")
	write := func() {
		t.Helper()
		if _, err := Write(path, "weak", numbers(0, 100)); err != nil {
			t.Fatal(err)
		}
	}
	write()
	lists, err := OpenAll([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	defer lists.Close()
	if err := os.WriteFile(path, []byte("no list"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lists.Refresh(); !errors.Is(err, ErrFormat) {
		t.Fatalf("overwritten: %v", err)
	}
	write()
	if fresh, err := lists.Refresh(); err != nil || len(fresh) != 0 {
		t.Errorf("put back: %v, %v", fresh, err)
	}
	if got, err := lists.Listed(number(10)); err != nil || !slices.Equal(got, []string{"weak"}) {
		t.Errorf("put back, a key of it is in %q, %v", got, err)
	}
	if !lists.unchanged(0) {
		t.Error("it is read again at each look")
	}
}
