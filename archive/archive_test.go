package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/archive"
)

var january = archive.MonthOf(time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC))

var header = archive.Header{
	Month: january, SerialsFrom: "1c019b76da8000000000000000000000000000" + "00", SerialsUntil: "1c019c167f6800000000000000000000000000" + "00", Schema: 11,
}

func certificateRow(n int) string {
	return fmt.Sprintf(`{"serial":"\\x1c019b76da8c%028x","issuer":"issuing-1","kind":"final","der":"\\x3000","names":["a.example"],"subject":"CN=a.example",`+
		`"not_before":"2026-01-01T00:00:00+00:00","not_after":"2026-02-01T00:00:00.000001+00:00","issued_at":"2026-01-01T00:00:00+00:00","event_id":"e","search":"x\ny"}`, n)
}

const requestRow = `{"id":"019b76da-8c00-7000-8000-000000000001","at":"2026-01-01T00:00:00+00:00","roles":["requester"],"csr":"\\x30","validity":"P1DT2H3M4.5S","results":[],"verdict":"allow"}`

func sample(t testing.TB, certificates int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := archive.NewWriter(&out, header)
	if err != nil {
		t.Fatal(err)
	}
	add := func(kind archive.Kind, row string, ledTo *archive.LedTo) {
		if err := w.Add(kind, []byte(row), ledTo); err != nil {
			t.Fatal(err)
		}
	}
	add(archive.KindAuthority, `{"name":"issuing-1"}`, nil)
	add(archive.KindRequest, requestRow, &archive.LedTo{Serial: "00", Names: []string{"a.example"}})
	for n := range certificates {
		add(archive.KindCertificate, certificateRow(n+1), nil)
	}
	add(archive.KindRevocation, `{"issuer":"issuing-1","serial":"\\x1c","sequence":1,"reason":4,"at":"2026-01-02T00:00:00+00:00","event_id":"r"}`, nil)
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readAll(data []byte) (rows []archive.Record, err error) {
	a, err := archive.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for {
		r, err := a.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		r.Row = bytes.Clone(r.Row)
		rows = append(rows, r)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	data := sample(t, 3)
	if !bytes.Equal(data, sample(t, 3)) {
		t.Error("the same rows make different files")
	}
	rows, err := readAll(data)
	if err != nil || len(rows) != 6 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	q, err := rows[1].Request()
	if err != nil || time.Duration(q.Validity) != 26*time.Hour+3*time.Minute+4500*time.Millisecond || q.CSR == nil || rows[1].LedTo == nil {
		t.Errorf("%+v, %v", q, err)
	}
	c, err := rows[2].Certificate()
	if err != nil || c.Issuer != "issuing-1" || len(c.Serial) != 20 || c.NotAfter.Nanosecond() != 1000 {
		t.Errorf("%+v, %v", c, err)
	}
	if v, err := rows[5].Revocation(); err != nil || v.Reason != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := rows[0].Certificate(); err == nil {
		t.Error("an authority is read as a certificate")
	}
}

// Whatever octet of a file changes, and wherever it is cut: it is seen, or it says nothing of what is inside, as the header's time and the
// bits that fill up a compressed block do, and then what is read is the same. The file's own octets the recorded SHA-256 vouches for.
func TestDamageIsSeen(t *testing.T) {
	data := sample(t, 20)
	whole, err := readAll(data)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		damaged := bytes.Clone(data)
		at := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			damaged = damaged[:at]
		} else {
			damaged[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		}
		if rows, err := readAll(damaged); err == nil && (len(damaged) < len(data) || !reflect.DeepEqual(rows, whole)) {
			t.Fatalf("nothing is wrong with a file changed at %d", at)
		}
	})
	if _, err := readAll(append(bytes.Clone(data), data...)); err == nil || !strings.Contains(err.Error(), "follows") {
		t.Errorf("two files in one: %v", err)
	}
}

// What was changed with care, so that gzip finds no fault, the digests find.
func TestForgedLinesAreSeen(t *testing.T) {
	plain, err := gzip.NewReader(bytes.NewReader(sample(t, 3)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(l string) bool { return l == "" })
	for name, c := range map[string]struct {
		forge func([]string) []string
		want  string
	}{
		"changed":   {func(l []string) []string { l[3] = strings.Replace(l[3], "a.example", "b.example", 1); return l }, "SHA-256"},
		"left out":  {func(l []string) []string { return append(l[:4:4], l[5:]...) }, "SHA-256"},
		"twice":     {func(l []string) []string { return append(l[:4:4], l[3:]...) }, "SHA-256"},
		"reordered": {func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, "stands after"},
		"misplaced": {func(l []string) []string { l[2], l[3] = l[3], l[2]; return l }, "does not stand here"},
		"unknown":   {func(l []string) []string { l[3] = `{"kind":"secret","row":{}}` + "\n"; return l }, "does not stand here"},
		"headless":  {func(l []string) []string { return l[1:] }, "does not begin"},
		"endless":   {func(l []string) []string { return l[:len(l)-1] }, "ends before its end"},
		"foreign": {func(l []string) []string {
			l[3] = strings.Replace(l[3], "1c019b76da8c", "1c019b76da7c", 1)
			return l
		}, "is not of the month"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write([]byte(strings.Join(c.forge(append([]string(nil), lines...)), "")))
			_ = z.Close()
			_, err := readAll(out.Bytes())
			var damaged *archive.DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTheWriterKeepsOrder(t *testing.T) {
	w, err := archive.NewWriter(io.Discard, header)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(archive.KindCertificate, []byte(certificateRow(2)), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(archive.KindCertificate, []byte(certificateRow(1)), nil); err == nil {
		t.Error("serials may go back")
	}
	if err := w.Add(archive.KindRequest, []byte(requestRow), nil); err == nil {
		t.Error("a request may follow a certificate")
	}
}

// The first form stays readable, whatever comes after it.
func TestTheFirstFormIsRead(t *testing.T) {
	v, err := archive.Verify(t.Context(), "testdata/chancery-2026-01.ndjson.gz")
	if err != nil || v.Header.Format != "chancery-archive/1" || v.End.Counts[archive.KindCertificate] != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestVerifyTellsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ndjson.gz")
	data := sample(t, 2)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := archive.Verify(t.Context(), path)
	if err != nil || v.Octets != int64(len(data)) || v.End.Counts[archive.KindCertificate] != 2 || v.Header.Month != january {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := archive.Verify(t.Context(), path+"x"); err == nil {
		t.Error("a file that is not there is sound")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var damaged *archive.DamagedError
	if _, err := archive.Verify(over, path); !errors.Is(err, context.Canceled) || errors.As(err, &damaged) {
		t.Errorf("whoever has left is told %v", err)
	}
}

func TestMonthsAndIntervals(t *testing.T) {
	for _, text := range []string{"2026-13", "2026-1", "January", "", "2026-01-01"} {
		if m, err := archive.ParseMonth(text); err == nil {
			t.Errorf("%q is read as %s", text, m)
		}
	}
	for text, want := range map[string]time.Duration{
		"PT0S": 0, "P1D": 24 * time.Hour, "PT36H0.5S": 36*time.Hour + 500*time.Millisecond, "PT-1M": -time.Minute, "PT0.000001S": time.Microsecond,
	} {
		var i archive.Interval
		if err := i.UnmarshalText([]byte(text)); err != nil || time.Duration(i) != want {
			t.Errorf("%s: %s, %v", text, time.Duration(i), err)
		}
	}
	for _, text := range []string{"", "P", "PT", "P1M", "P1Y", "1 day", "PT1S ", "PTS"} {
		var i archive.Interval
		if err := i.UnmarshalText([]byte(text)); err == nil && time.Duration(i) != 0 {
			t.Errorf("%q is read as %s", text, time.Duration(i))
		}
	}
}

// FuzzReader feeds the reader anything, also behind a gzip that is sound: it may refuse, and neither panics nor takes what a writer would
// not have written.
func FuzzReader(f *testing.F) {
	f.Add(sample(f, 2), false)
	plain, err := gzip.NewReader(bytes.NewReader(sample(f, 1)))
	if err != nil {
		f.Fatal(err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, true)
	f.Fuzz(func(t *testing.T, data []byte, wrap bool) {
		if wrap {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write(data)
			_ = z.Close()
			data = out.Bytes()
		}
		rows, err := readAll(data)
		for _, r := range rows {
			if !json.Valid(r.Row) {
				t.Fatalf("a row that is no JSON: %q", r.Row)
			}
			_, _ = r.Certificate()
			_, _ = r.Request()
			_, _ = r.Revocation()
		}
		if err != nil {
			return
		}
		a, err := archive.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		w, err := archive.NewWriter(io.Discard, a.Header)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if err := w.Add(r.Kind, r.Row, r.LedTo); err != nil {
				t.Fatalf("read, and not written: %v", err)
			}
		}
	})
}
