package sealed_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/hsm/sealed"
)

var (
	dataKey = bytes.Repeat([]byte{1}, 32)
	header  = sealed.Header{Mode: sealed.AESGCM, KeyID: []byte("id"), WrappedKey: []byte("an encrypted data key")}
)

func seal(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := sealed.Seal(&out, bytes.NewReader(plain), header, dataKey); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(file, key []byte) ([]byte, error) {
	src := bytes.NewReader(file)
	h, err := sealed.ReadHeader(src)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = sealed.Open(&out, src, h, key)
	return out.Bytes(), err
}

func octets(n int) []byte {
	out := make([]byte, n)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(out)
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 15, sealed.ChunkSize - 1, sealed.ChunkSize, sealed.ChunkSize + 1, 2 * sealed.ChunkSize, 3*sealed.ChunkSize + 7} {
		plain := octets(n)
		got, err := open(seal(t, plain), dataKey)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d octets: %d came back, %v", n, len(got), err)
		}
	}
}

// Sources that yield little at a time, or fail, change nothing.
func TestSources(t *testing.T) {
	plain := octets(2*sealed.ChunkSize + 5)
	want := seal(t, plain)
	var got bytes.Buffer
	if err := sealed.Seal(&got, iotest.HalfReader(bytes.NewReader(plain)), header, dataKey); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("a source in halves: %v", err)
	}
	broken := errors.New("broken")
	if err := sealed.Seal(io.Discard, io.MultiReader(bytes.NewReader(plain), iotest.ErrReader(broken)), header, dataKey); !errors.Is(err, broken) {
		t.Errorf("a source that fails: %v", err)
	}
}

// headerSize is what stands before the first chunk.
const headerSize = 8 + 3 + 2 + 2 + 21

const chunk = sealed.ChunkSize + 16

func TestTamperingIsNoticed(t *testing.T) {
	file := seal(t, octets(3*sealed.ChunkSize+100))
	other := seal(t, octets(3*sealed.ChunkSize+100))
	head := func(n int) []byte { return bytes.Clone(file[:headerSize+n*chunk]) }
	part := func(i int) []byte { return file[headerSize+i*chunk : headerSize+(i+1)*chunk] }
	tail := file[headerSize+3*chunk:]
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"cut at a chunk's end":     {head(2), sealed.ErrTruncated},
		"cut before the last":      {head(3), sealed.ErrTruncated},
		"cut in a chunk":           {file[:headerSize+chunk+100], sealed.ErrDamaged},
		"cut in a tag":             {file[:headerSize+chunk+5], sealed.ErrTruncated},
		"cut after the header":     {file[:headerSize], sealed.ErrTruncated},
		"cut in the header":        {file[:headerSize-1], sealed.ErrTruncated},
		"cut in the magic":         {file[:4], sealed.ErrNotSealed},
		"nothing":                  {nil, sealed.ErrNotSealed},
		"two chunks swapped":       {slices.Concat(head(0), part(1), part(0), part(2), tail), sealed.ErrDamaged},
		"a chunk doubled":          {slices.Concat(head(1), part(0), part(1), part(2), tail), sealed.ErrDamaged},
		"a chunk left out":         {slices.Concat(head(1), part(2), tail), sealed.ErrDamaged},
		"the last in the middle":   {slices.Concat(head(0), tail), sealed.ErrDamaged},
		"something behind":         {append(bytes.Clone(file), 0), sealed.ErrDamaged},
		"an empty chunk behind":    {append(bytes.Clone(file), make([]byte, 16)...), sealed.ErrDamaged},
		"another file's beginning": {slices.Concat(other[:headerSize-1], []byte{'Z'}, file[headerSize:]), sealed.ErrDamaged},
		"another version":          {slices.Concat([]byte("CHSEALED\x02"), file[9:]), sealed.ErrVersion},
		"another mode":             {slices.Concat([]byte("CHSEALED\x01\x02"), file[10:]), sealed.ErrDamaged},
		"an unknown mode":          {slices.Concat([]byte("CHSEALED\x01\x09"), file[10:]), sealed.ErrNotSealed},
	} {
		if _, err := open(c.file, dataKey); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := open(file, bytes.Repeat([]byte{2}, 32)); !errors.Is(err, sealed.ErrDamaged) {
		t.Errorf("another key: %v", err)
	}
	if _, err := open(file, dataKey[1:]); err == nil {
		t.Error("a short key opened it")
	}
}

// Whatever octet is changed, the file does not open, and nothing comes out that did not go in.
func TestEveryOctetCounts(t *testing.T) {
	plain := octets(sealed.ChunkSize + 50)
	file := seal(t, plain)
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(file)
		changed[rapid.IntRange(0, len(file)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		got, err := open(changed, dataKey)
		if err == nil {
			t.Fatal("it opened")
		}
		if !bytes.HasPrefix(plain, got) {
			t.Fatal("something else came out")
		}
	})
}

func TestHeadersAreChecked(t *testing.T) {
	for name, h := range map[string]sealed.Header{
		"no mode":        {WrappedKey: []byte("k")},
		"no key":         {Mode: sealed.AESGCM},
		"a long key":     {Mode: sealed.AESGCM, WrappedKey: make([]byte, 5000)},
		"a long CKA_ID":  {Mode: sealed.AESGCM, KeyID: make([]byte, 256), WrappedKey: []byte("k")},
		"a mode of none": {Mode: 77, WrappedKey: []byte("k")},
	} {
		if err := sealed.Seal(io.Discard, bytes.NewReader(nil), h, dataKey); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// FuzzOpen: what opens is what was sealed, octet by octet.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("CHSEALED"))
	f.Add(seal(f, nil))
	f.Add(seal(f, []byte("a secret")))
	f.Add(seal(f, []byte("a secret"))[:40])
	f.Fuzz(func(t *testing.T, file []byte) {
		src := bytes.NewReader(file)
		h, err := sealed.ReadHeader(src)
		if err != nil {
			return
		}
		var plain bytes.Buffer
		if err := sealed.Open(&plain, src, h, dataKey); err != nil {
			return
		}
		var again bytes.Buffer
		if err := sealed.Seal(&again, bytes.NewReader(plain.Bytes()), h, dataKey); err != nil || !bytes.Equal(again.Bytes(), file) {
			t.Errorf("it is sealed in two forms: %v", err)
		}
	})
}
