package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// export writes the leaves [from, to) of a history, and its checkpoints.
func export(t testing.TB, m *memory, from, to int64) []byte {
	t.Helper()
	var nodes span
	for _, e := range m.entries[:from] {
		nodes = nodes.push(node{index: e.Index, hash: Hash(e.Hash)}, nil)
	}
	start := Start{Size: from}
	for _, n := range nodes {
		start.Frontier = append(start.Frontier, n.hash)
	}
	var b bytes.Buffer
	x, err := NewExportWriter(&b, start, []string{"log+00+key"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.entries[from:to] {
		if err := x.Add(e); err != nil {
			t.Fatal(err)
		}
		for _, c := range m.checkpoints {
			if c.Size == e.Index+1 {
				if err := x.AddCheckpoint(c.Text); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fromExport is an export as a source.
type fromExport struct {
	file   []byte
	reader *ExportReader
	number int
	one    chan struct{}
}

func sourceOf(t testing.TB, file []byte) (*fromExport, Start) {
	t.Helper()
	s := &fromExport{file: file, one: make(chan struct{}, 1)}
	if err := s.Again(context.Background()); err != nil {
		t.Fatal(err)
	}
	start, err := s.reader.Header.Start()
	if err != nil {
		t.Fatal(err)
	}
	return s, start
}

func (s *fromExport) Again(context.Context) (err error) {
	s.number = 0
	s.reader, err = NewExportReader(bytes.NewReader(s.file))
	return err
}

func (s *fromExport) Next(context.Context) (Batch, error) {
	s.one <- struct{}{}
	defer func() { <-s.one }()
	b, err := s.reader.Next(300)
	b.Number = s.number
	s.number++
	return b, err
}

func TestExport(t *testing.T) {
	m := newMemory(2000, 512, 1, 700, 1200, 2000)
	for _, span := range [][2]int64{{0, 2000}, {0, 700}, {700, 2000}, {701, 1200}, {0, 1}, {0, 0}, {1200, 1200}} {
		file := export(t, m, span[0], span[1])
		if again := export(t, m, span[0], span[1]); !bytes.Equal(file, again) {
			t.Errorf("%v: the same export is another file", span)
		}
		source, start := sourceOf(t, file)
		r, err := Verify(context.Background(), source, Verification{Open: open, Start: start, Workers: 3})
		if err != nil || !r.Sound() || r.From != span[0] || r.Size != span[1] || r.RootText() != source.reader.End.Root {
			t.Errorf("%v: %+v, %v", span, r, err)
		}
	}
}

// rewrite unpacks an export, changes it, and packs it again as its maker would: with the digest of what it is now.
func rewrite(t *testing.T, file []byte, change func(lines []string) []string) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines = change(lines[:len(lines)-1]) // after the last line end comes nothing
	var b bytes.Buffer
	x := &ExportWriter{zip: gzip.NewWriter(&b)}
	if _, err := io.WriteString(x.zip, strings.Join(lines, "")); err != nil {
		t.Fatal(err)
	}
	if err := x.zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An export whose maker changed it is one that the checkpoints do not sign; one that somebody else changed says that it is damaged.
func TestChangedExport(t *testing.T) {
	m := newMemory(2000, 512, 700, 1200, 2000)
	m.entries[800].Leaf, m.entries[800].Hash = eventLeaf(9999).Bytes(), nil
	source, start := sourceOf(t, export(t, m, 0, 2000))
	r, err := Verify(context.Background(), source, Verification{Open: open, Start: start, Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	wantFirst(t, r, WrongRoot, 700, 1200)

	sound := export(t, newMemory(2000, 512, 700, 1200, 2000), 0, 2000)
	for name, change := range map[string]func(lines []string) []string{
		"a leaf":               func(l []string) []string { l[5] = strings.Replace(l[5], "tls-server", "tls-client", 1); return l },
		"a leaf gone":          func(l []string) []string { return append(l[:5], l[6:]...) },
		"two swapped":          func(l []string) []string { l[5], l[6] = l[6], l[5]; return l },
		"the last gone":        func(l []string) []string { return append(l[:len(l)-3], l[len(l)-2:]...) },
		"the end gone":         func(l []string) []string { return l[:len(l)-1] },
		"something after it":   func(l []string) []string { return append(l, "\n{}\n") },
		"no header":            func(l []string) []string { return l[1:] },
		"another format":       func(l []string) []string { l[0] = strings.Replace(l[0], "/1", "/2", 1); return l },
		"another start":        func(l []string) []string { l[0] = strings.Replace(l[0], `"from":0`, `"from":1`, 1); return l },
		"an unknown line":      func(l []string) []string { l[5] = `{"kind":"x","row":{}}` + "\n"; return l },
		"a field too much":     func(l []string) []string { l[5] = `{"kind":"checkpoint","row":{"note":"","x":1}}` + "\n"; return l },
		"no JSON":              func(l []string) []string { l[5] = "x\n"; return l },
		"an endless line":      func(l []string) []string { l[5] = strings.Repeat("x", 1<<20) + "\n"; return l },
		"the end says another": func(l []string) []string { l[len(l)-1] = strings.Replace(l[len(l)-1], "2000", "1999", 1); return l },
	} {
		var damaged *DamagedError
		if err := readAll(rewrite(t, sound, change)); !errors.As(err, &damaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readAll(rewrite(t, sound, func(l []string) []string { return l })); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// Whoever makes an export does not say how much memory its verification takes: no checkpoint is there twice, no leaf is longer than one, a
// batch has few checkpoints however many there are, and of what is wrong or signed no more is kept than is told.
func TestAHostileExportTakesNoMoreMemoryThanAnother(t *testing.T) {
	made := func(write func(x *ExportWriter) error) []byte {
		t.Helper()
		var b bytes.Buffer
		x, err := NewExportWriter(&b, Start{}, nil)
		if err == nil {
			err = write(x)
		}
		if err == nil {
			_, err = x.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	m := newMemory(1000, 512)
	for what, file := range map[string][]byte{
		"a second checkpoint": made(func(x *ExportWriter) error {
			return errors.Join(x.Add(m.entries[0]), x.AddCheckpoint(fakeNote(1, x.Root())), x.AddCheckpoint(fakeNote(1, x.Root())))
		}),
		"a second one before the first leaf": made(func(x *ExportWriter) error {
			return errors.Join(x.AddCheckpoint(fakeNote(0, x.Root())), x.AddCheckpoint(fakeNote(0, x.Root())))
		}),
		"a leaf too long for one": made(func(x *ExportWriter) error {
			x.end.To++
			_, err := fmt.Fprintf(x.out, "%s0%s%q}\n", leafOpening, leafMiddle, strings.Repeat("x", MaxLeaf))
			return err
		}),
	} {
		var damaged *DamagedError
		if err := readAll(file); !errors.As(err, &damaged) {
			t.Errorf("%s: %v", what, err)
		}
	}

	file := made(func(x *ExportWriter) (err error) {
		for _, e := range m.entries {
			err = errors.Join(err, x.Add(e), x.AddCheckpoint(fakeNote(x.Size(), x.Root())))
		}
		return err
	})
	r, err := NewExportReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := r.Next(BatchSize)
		if err == io.EOF {
			break
		}
		if err != nil || len(b.Checkpoints) > mostNotes {
			t.Fatalf("a batch has %d checkpoints: %v", len(b.Checkpoints), err)
		}
	}
	source, start := sourceOf(t, file)
	report, err := Verify(t.Context(), source, Verification{Open: open, Start: start, Workers: 3})
	if err != nil || !report.Sound() || report.Checkpoints != 1000 || !bytes.HasPrefix(report.Newest, []byte("signed 1000 ")) {
		t.Errorf("a checkpoint after each leaf: %+v, %v", report, err)
	}

	c := &collector{report: &Report{Kinds: map[Kind]int64{}}, waiting: map[int]*checked{}}
	for i := range 10 {
		wrong := &checked{number: i, readBroken: true, keptBroken: true}
		for n := range 1000 {
			wrong.found(Malformed, int64(1000*i+n), "it cannot be read")
			o := opened{Checkpoint{Origin: "log", Size: int64(n)}, Note{Text: make([]byte, maxNote)}}
			wrong.beyond, wrong.at = append(wrong.beyond, o), append(wrong.at, moment{opened: o})
		}
		c.take(wrong)
	}
	kept := 0
	for _, o := range slices.Concat(c.good, c.goodRead, c.bad, c.unjudged) {
		kept += len(o.note.Text) + len(o.Origin)
	}
	if len(c.failed) > maxFindings || kept > 0 {
		t.Errorf("%d findings and %d octets of checkpoints are kept", len(c.failed), kept)
	}
	if c.conclude(nil); c.report.Bad < 10_000 {
		t.Errorf("%d findings are counted", c.report.Bad)
	}
}

// What jq shows of an export that verifies is what was verified: no line is a leaf to one reader and a checkpoint to another.
func TestAnExportReadsInOneWay(t *testing.T) {
	sound := export(t, newMemory(20, 512, 10, 20), 0, 20)
	for name, disguise := range map[string]string{
		"other letters": `{"kind":"leaf","row":{"kind":"certificate.revoked"},"KIND":"checkpoint","ROW":`,
		"twice":         `{"kind":"leaf","row":{"kind":"certificate.revoked"},"kind":"checkpoint","row":`,
		"as it is":      `{"kind":"checkpoint","row":`,
	} {
		changed := rewrite(t, sound, func(l []string) []string {
			sum, disguised := sha256.New(), 0
			for i := range l[:len(l)-1] {
				if row, ok := strings.CutPrefix(l[i], `{"kind":"checkpoint","row":`); ok {
					l[i] = disguise + row
					disguised++
				}
				sum.Write([]byte(l[i]))
			}
			if disguised != 2 {
				t.Fatalf("%d checkpoints were disguised", disguised)
			}
			end := &l[len(l)-1]
			*end = regexp.MustCompile(`"sha256":"[0-9a-f]*"`).ReplaceAllString(*end, `"sha256":"`+hex.EncodeToString(sum.Sum(nil))+`"`)
			return l
		})
		if err := readAll(changed); (err == nil) != (name == "as it is") || err != nil && !errors.As(err, new(*DamagedError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func readAll(file []byte) error {
	x, err := NewExportReader(bytes.NewReader(file))
	for err == nil {
		_, err = x.Next(100)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// An octet that changes is noticed, or changes nothing that is read; and no part of a file passes for the whole.
func TestDamagedExport(t *testing.T) {
	file := export(t, newMemory(50, 512, 50), 0, 50)
	random := rand.New(rand.NewPCG(1, 2))
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 1 << random.IntN(8)
		if err := readAll(damaged); err == nil && !bytes.Equal(unpacked(damaged), unpacked(file)) {
			t.Errorf("octet %d of %d was changed, and nothing noticed", at, len(file))
		}
		if err := readAll(file[:at]); err == nil {
			t.Errorf("the first %d of %d octets passed", at, len(file))
		}
	}
	if err := readAll(append(bytes.Clone(file), file...)); err == nil {
		t.Error("two exports passed for one")
	}
}

func unpacked(file []byte) []byte {
	zip, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		return nil
	}
	return text
}

func TestExportRefusesWhatIsWrong(t *testing.T) {
	m := newMemory(10, 512)
	for name, e := range map[string]Entry{
		"a gap":        m.entries[1],
		"no leaf":      {Index: 0},
		"another hash": {Index: 0, Leaf: m.entries[0].Leaf, Hash: m.entries[1].Hash},
		"no JSON":      {Index: 0, Leaf: []byte("x")},
		"two lines":    {Index: 0, Leaf: []byte("{\n}")},
	} {
		x, err := NewExportWriter(io.Discard, Start{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Add(e); err == nil {
			t.Errorf("%s was exported", name)
		}
	}
	if _, err := NewExportWriter(io.Discard, Start{Size: 3}, nil); err == nil {
		t.Error("an export began without a frontier")
	}
}

// A leaf that cannot be a line keeps its place, and everything else can be exported and verified. Whoever withholds one by that is found.
func TestAnUnreadableLeafIsExportedByItsHash(t *testing.T) {
	for name, leaf := range map[string]string{
		"no JSON": "x", "two lines": "{\n}", "no UTF-8, and disguised": "}\n" + `{"kind":"end","row":{` + "\xff", "empty": "",
		"too long": `"` + strings.Repeat("x", MaxLeaf) + `"`,
	} {
		m := newMemory(700, 512)
		hash := HashOf([]byte(leaf))
		for _, at := range []int{299, 300, 699} {
			m.entries[at] = Entry{Index: int64(at), Leaf: []byte(leaf), Hash: hash[:], ID: "id", Kind: "x"}
		}
		leaves := make([][]byte, len(m.entries))
		for i, e := range m.entries {
			leaves[i] = e.Leaf
		}
		m.checkpoints = []Note{{Text: fakeNote(700, rootByDefinition(leaves)), Size: 700}}
		file := export(t, m, 0, 700)
		source, start := sourceOf(t, file)
		r, err := Verify(context.Background(), source, Verification{Open: open, Start: start, Workers: 3})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantFirst(t, r, Malformed, 299, 300)
		if r.Bad != 3 || r.Covered != 700 || r.RootText() != source.reader.End.Root {
			t.Errorf("%s: %d findings, %d covered: %v", name, r.Bad, r.Covered, r.Findings)
		}
		for name, change := range map[string][2]string{
			"another index": {`{"kind":"unreadable","row":{"index":299`, `{"kind":"unreadable","row":{"index":298`},
			"another form":  {`{"kind":"unreadable","row":{"index":299,"hash":"`, `{"kind":"unreadable","row":{"index":299,"hash":"00`},
		} {
			changed := rewrite(t, file, func(l []string) []string {
				for i := range l {
					l[i] = strings.Replace(l[i], change[0], change[1], 1)
				}
				return l
			})
			if err := readAll(changed); !errors.As(err, new(*DamagedError)) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func FuzzExport(f *testing.F) {
	f.Add(export(f, newMemory(3, 512, 3), 0, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := NewExportReader(bytes.NewReader(data))
		for err == nil {
			_, err = x.Next(10)
		}
		if err == io.EOF && x.End.To < x.Header.From {
			t.Errorf("an export from %d to %d was read", x.Header.From, x.End.To)
		}
	})
}

func BenchmarkVerifyExport(b *testing.B) {
	n := 1 << 17
	if testing.Short() {
		n = 1 << 10
	}
	file := export(b, newMemory(n, BatchSize, n), 0, int64(n))
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				source, start := sourceOf(b, file)
				r, err := Verify(context.Background(), source, Verification{Open: open, Start: start, Workers: workers})
				if err != nil || !r.Sound() {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "leaves/s")
			b.ReportMetric(float64(len(file))/float64(n), "octets/leaf")
		})
	}
}
