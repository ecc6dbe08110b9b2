package reconcile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func digestOf(n int) [32]byte { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n))) }

// failing is what tests and properties have in common.
type failing interface {
	Helper()
	Error(...any)
	Fatal(...any)
}

// settle judges a side of each, with files in a directory and so many octets in memory.
func settle(t failing, dir string, most int, span Span, signatures []Signature, records []Record,
	unissued ...string,
) (found []Finding, counts Counts) {
	t.Helper()
	a := Open(dir, span, []string{"journal"})
	a.sides.most, a.answers.most = most, most
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	a.Begin(noon.Add(-time.Hour))
	a.Ahead(noon.Add(2 * time.Hour))
	for _, s := range signatures {
		if err := a.Signature(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range records {
		if err := a.Record(r); err != nil {
			t.Fatal(err)
		}
	}
	counts, err := a.Settle(context.Background(), Oracle{
		Unissued: func(_ context.Context, asked [][]byte) (never [][]byte, err error) {
			for _, s := range asked {
				if slices.Contains(unissued, fmt.Sprintf("%x", s)) {
					never = append(never, s)
				}
			}
			return never, nil
		},
		Truthful: func(_ context.Context, s Signature) (bool, error) { return s.Detail == "what the log says", nil },
	}, func(f Finding) error {
		found = append(found, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, counts
}

// all is a span that judges everything.
var all = Span{Until: noon.Add(time.Hour)}

func signature(n int, changes ...func(*Signature)) Signature {
	s := Signature{Digest: digestOf(n), At: noon, Entry: uint64(n), Key: "issuing", Kind: "certificate", Detail: fmt.Sprint(n)}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func records(n int, at time.Time, sources ...Source) (r []Record) {
	for _, source := range sources {
		one := Record{Source: source, Digest: digestOf(n), Kind: Certificate, At: at, Subject: fmt.Sprint("certificate ", n)}
		switch source {
		case SignedEvent:
			one.Kind = ""
		case CheckpointRow:
			one.Kind = Checkpoint
		}
		r = append(r, one)
	}
	return r
}

// as are records of a signature of a kind.
func as(kind string, records []Record) []Record {
	for i := range records {
		if records[i].Source != SignedEvent {
			records[i].Kind = kind
		}
	}
	return records
}

// TestWhatIsAFinding has one line for each way in which the two sides can stand to each other.
func TestWhatIsAFinding(t *testing.T) {
	again := func(s *Signature) { s.Entry = 99 }
	old := func(s *Signature) { s.Old = true }
	crl := func(s *Signature) { s.Kind = "crl" }
	checkpoint := func(s *Signature) { s.Kind = "checkpoint" }
	answer := func(serials, statuses string) func(*Signature) {
		return func(s *Signature) { s.Kind, s.Detail, s.Status = "ocsp", serials, statuses }
	}
	since := Span{Since: noon.Add(-time.Minute), Until: noon.Add(time.Hour)}
	ahead := noon.AddDate(1, 0, 0)
	for _, c := range []struct {
		what       string
		span       Span
		signatures []Signature
		records    []Record
		want       []Kind
	}{
		{"all as it should be", all, []Signature{signature(1)}, records(1, noon, IntentEvent, SignedEvent, SignedRow), nil},
		{"an orphan that was signed", all, []Signature{signature(1)}, records(1, noon, IntentEvent, IntentRow), nil},
		{"an orphan that was not", all, nil, records(1, noon, IntentEvent, IntentRow), nil},
		{"a CRL whose turn was over", all, []Signature{signature(1, crl)}, as(CRL, records(1, noon, IntentEvent, IntentRow)), nil},
		{"a checkpoint", all, []Signature{signature(1, checkpoint)}, records(1, noon, CheckpointRow), nil},
		{
			"a checkpoint signed twice", all,
			[]Signature{signature(1, checkpoint), signature(1, checkpoint, again)},
			records(1, noon, CheckpointRow), nil,
		},
		{
			"a checkpoint whose recording failed", all,
			[]Signature{signature(1, checkpoint, func(s *Signature) { s.Detail = "what the log says" })},
			nil, nil,
		},
		{"an act of a ceremony by a key of a keeper", all, []Signature{signature(1, crl)}, as(CRL, records(1, noon, OtherRow)), nil},
		{"an act of a ceremony", all, nil, records(1, noon, OtherRow), nil},

		{"a signature and nothing else", all, []Signature{signature(1)}, nil, []Kind{Unrecorded}},
		{"two of it", all, []Signature{signature(1), signature(1, again)}, nil, []Kind{Unrecorded, Unrecorded}},
		{"one that was judged", since, []Signature{signature(1, old)}, nil, nil},
		{"a checkpoint and nothing else", all, []Signature{signature(1, checkpoint)}, nil, []Kind{Unrecorded}},
		{
			"signed twice", all,
			[]Signature{signature(1), signature(1, again)},
			records(1, noon, IntentEvent, SignedEvent, SignedRow),
			[]Kind{Repeated},
		},
		{
			"signed again", since,
			[]Signature{signature(1, old), signature(1, again)},
			records(1, noon.Add(-time.Hour), IntentEvent, SignedEvent, SignedRow),
			[]Kind{Repeated},
		},
		{"on record and not signed", all, nil, records(1, noon, IntentEvent, SignedEvent, SignedRow), []Kind{Unjournaled}},
		{"a checkpoint on record and not signed", all, nil, records(1, noon, CheckpointRow), []Kind{Unjournaled}},
		{"before the journal began", all, nil, records(1, noon.Add(-2*time.Hour), IntentEvent, SignedEvent, SignedRow), nil},
		{"too young", Span{Until: noon}, nil, records(1, noon, IntentEvent, SignedEvent, SignedRow), nil},
		{"dated ahead, by less than clocks are apart", Span{Until: noon}, nil, records(1, noon.Add(time.Hour), SignedRow), nil},
		{"dated ahead, and not signed", Span{Until: noon}, nil, records(1, ahead, IntentEvent, SignedEvent, SignedRow), []Kind{Unjournaled}},
		{"dated ahead, a row that was put in", Span{Until: noon}, nil, records(1, ahead, SignedRow), []Kind{Unannounced}},
		{"dated ahead, a row that was deleted", Span{Until: noon}, nil, records(1, ahead, IntentEvent, SignedEvent), []Kind{Erased}},
		{"dated ahead, and signed", Span{Until: noon}, []Signature{signature(1)}, records(1, ahead, IntentEvent, SignedEvent, SignedRow), nil},
		{"dated ahead, since the last run", since, nil, records(1, ahead, IntentEvent, SignedEvent, SignedRow), nil},
		{"dated ahead by centuries", Span{Until: noon}, nil, records(1, ahead.AddDate(500, 0, 0), CheckpointRow), []Kind{Unjournaled}},
		{"judged by the last run", since, nil, records(1, noon.Add(-2*time.Minute), IntentEvent, SignedEvent, SignedRow), nil},
		{"a row that was deleted", all, []Signature{signature(1)}, records(1, noon, IntentEvent, SignedEvent), []Kind{Erased}},
		{"an orphan that was deleted", all, []Signature{signature(1)}, records(1, noon, IntentEvent), []Kind{Erased}},
		{"an intent that was deleted", all, nil, records(1, noon, IntentEvent), []Kind{Erased}},
		{"an intent's event that was deleted", all, []Signature{signature(1)}, records(1, noon, SignedEvent, SignedRow), []Kind{Unannounced}},
		{"a key's event that was deleted", all, []Signature{signature(1)}, records(1, noon, IntentEvent, SignedRow), []Kind{Unannounced}},
		{"a row that was put in", all, nil, records(1, noon, SignedRow), []Kind{Unannounced}},
		{"an orphan that was put in", all, nil, records(1, noon, IntentRow), []Kind{Unannounced}},

		{"answers", all, []Signature{signature(1, answer("aa", "good")), signature(2, answer("bb", "unknown"))}, nil, nil},
		{"an invented answer", all, []Signature{signature(1, answer("bb", "good"))}, nil, []Kind{Invented}},
		{"behind a true one", all, []Signature{signature(1, answer("aa,bb", "good,good"))}, nil, []Kind{Invented}},
		{"again and again", all, []Signature{signature(1, answer("bb", "revoked")), signature(2, answer("bb", "good"))}, nil, []Kind{Invented}},
		{"of old, without a status", all, []Signature{signature(1, answer("bb", ""))}, nil, nil},
	} {
		found, counts := settle(t, t.TempDir(), inMemory, c.span, c.signatures, c.records, "bb")
		var got []Kind
		for _, f := range found {
			got = append(got, f.Kind)
		}
		if !slices.Equal(got, c.want) || counts.Findings != uint64(len(c.want)) {
			t.Errorf("%s: found %q, want %q: %+v", c.what, got, c.want, found)
		}
	}
	a := Open("", all, nil)
	for _, r := range records(1, noon, IntentEvent, SignedEvent, SignedRow) {
		if err := a.Record(r); err != nil {
			t.Fatal(err)
		}
	}
	if counts, err := a.Settle(t.Context(), Oracle{}, func(f Finding) error { return errors.New(f.Why) }); err != nil || counts.Agreeing != 1 {
		t.Errorf("without a journal: %+v, %v", counts, err)
	}
}

// TestARecordAccountsForItsKindAlone holds each kind of record against a signature of each kind, over the same bytes. Whoever has taken over
// the service can put the bytes of a certificate wherever it writes; on record they are where certificates are.
func TestARecordAccountsForItsKindAlone(t *testing.T) {
	kinds := []string{Certificate, CRL, Request, Checkpoint}
	with := func(serial string, records []Record) []Record {
		for i := range records {
			records[i].Serial = serial
		}
		return records
	}
	// The event of its intent says what the row says: one hand has written both.
	misplaced := func(records []Record) []Record {
		for i := range records {
			records[i].Issuer, records[i].Misplaced = "another", records[i].Source == SignedRow
		}
		return records
	}
	for what, c := range map[string]struct {
		records []Record
		kind    string // of the signature that they account for
		besides []Kind // what is wrong with them whatever was signed
	}{
		"a certificate":                    {records(1, noon, IntentEvent, SignedEvent, SignedRow), Certificate, nil},
		"a certificate by its number":      {with("1", records(1, noon, IntentEvent, SignedEvent, SignedRow)), Certificate, nil},
		"a certificate by another number":  {with("2", records(1, noon, IntentEvent, SignedEvent, SignedRow)), "", nil},
		"another authority's":              {misplaced(records(1, noon, IntentEvent, SignedEvent, SignedRow)), "", nil},
		"an orphan":                        {records(1, noon, IntentEvent, IntentRow), Certificate, nil},
		"an orphan by its number":          {with("1", records(1, noon, IntentEvent, IntentRow)), Certificate, nil},
		"an orphan by another number":      {with("2", records(1, noon, IntentEvent, IntentRow)), "", nil},
		"a CRL":                            {as(CRL, records(1, noon, IntentEvent, SignedEvent, SignedRow)), CRL, nil},
		"a CRL whose turn was over":        {as(CRL, records(1, noon, IntentEvent, IntentRow)), CRL, nil},
		"a request of a key of our own":    {as(Request, records(1, noon, OtherRow)), Request, nil},
		"a checkpoint":                     {records(1, noon, CheckpointRow), Checkpoint, nil},
		"a certificate of a ceremony":      {records(1, noon, OtherRow), Certificate, nil},
		"a CRL of a ceremony":              {as(CRL, records(1, noon, OtherRow)), CRL, nil},
		"the event of a key, and no other": {records(1, noon, SignedEvent), "", []Kind{Erased}},
	} {
		for _, kind := range kinds {
			of := func(s *Signature) { s.Kind = kind }
			want := slices.Clone(c.besides)
			if kind != c.kind {
				want = append([]Kind{Unrecorded}, want...)
			}
			found, _ := settle(t, t.TempDir(), inMemory, all, []Signature{signature(1, of)}, c.records)
			var got []Kind
			for _, f := range found {
				got = append(got, f.Kind)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, and a %s that was signed: found %q, want %q", what, kind, got, want)
			} else if kind != c.kind && found[0].Subject != kind+" 1" {
				t.Errorf("%s, and a %s that was signed: the finding names %q", what, kind, found[0].Subject)
			}
		}
	}
}

// TestEverySlipIsFound takes things away from an account that agrees, in any order, with as little memory as can be: each leaves a finding
// of its own, and no other.
func TestEverySlipIsFound(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(rt, "certificates")
		var signatures []Signature
		var on []Record
		for i := range n {
			signatures = append(signatures, signature(i+1))
			on = append(on, records(i+1, noon, IntentEvent, SignedEvent, SignedRow)...)
		}
		want := map[[32]byte]Kind{}
		for _, i := range rapid.SliceOfDistinct(rapid.IntRange(1, n), rapid.ID[int]).Draw(rt, "slips") {
			switch d := digestOf(i); rapid.IntRange(0, 2).Draw(rt, "slip") {
			case 0:
				signatures = slices.DeleteFunc(signatures, func(s Signature) bool { return s.Digest == d })
				want[d] = Unjournaled
			case 1:
				on = slices.DeleteFunc(on, func(r Record) bool { return r.Digest == d && r.Source == SignedRow })
				want[d] = Erased
			default:
				on = slices.DeleteFunc(on, func(r Record) bool { return r.Digest == d })
				want[d] = Unrecorded
			}
		}
		signatures, on = rapid.Permutation(signatures).Draw(rt, "journal"), rapid.Permutation(on).Draw(rt, "records")
		found, _ := settle(rt, dir, rapid.IntRange(1, 4096).Draw(rt, "memory"), all, signatures, on)
		for _, f := range found {
			for d, kind := range want {
				if fmt.Sprintf("%x", d) == f.Digest && kind == f.Kind {
					delete(want, d)
				}
			}
		}
		if len(want) > 0 {
			rt.Fatalf("not found: %v, but %+v", want, found)
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestSorted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 20), 0, 200).Draw(rt, "records")
		s := sorted{dir: os.TempDir(), most: rapid.IntRange(0, 3000).Draw(rt, "memory")}
		defer func() { _ = s.close() }()
		for _, record := range in {
			if err := s.add(record); err != nil {
				rt.Fatal(err)
			}
		}
		var out [][]byte
		if err := s.each(func(record []byte) error {
			out = append(out, bytes.Clone(record))
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		slices.SortFunc(in, bytes.Compare)
		if !slices.EqualFunc(in, out, bytes.Equal) {
			rt.Fatalf("%x came out as %x", in, out)
		}
	})
}

func FuzzSignedPart(f *testing.F) {
	f.Add([]byte{0x30, 4, 0x30, 0, 5, 0})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) > 4 && der[0] == 0x30 && int(der[1]) == len(der)-2 && der[1] < 0x80 && der[2] == 0x30 && int(der[3]) < len(der)-3 &&
			der[3] < 0x80 {
			if want := sha256.Sum256(der[2 : 4+der[3]]); SignedPart(der) != want {
				t.Errorf("%x: another part was taken", der)
			}
		}
		_ = SignedPart(der)
	})
}

// BenchmarkSettle accounts for certificates that were signed, each with two events and a row.
func BenchmarkSettle(b *testing.B) {
	certificates := 100_000
	if testing.Short() {
		certificates = 1_000
	}
	for b.Loop() {
		a := Open(b.TempDir(), all, []string{"journal"})
		a.Begin(noon.Add(-time.Hour))
		for i := range certificates {
			if err := a.Signature(signature(i)); err != nil {
				b.Fatal(err)
			}
			for _, r := range records(i, noon, IntentEvent, SignedEvent, SignedRow) {
				if err := a.Record(r); err != nil {
					b.Fatal(err)
				}
			}
		}
		counts, err := a.Settle(b.Context(), Oracle{}, func(f Finding) error { return errors.New(f.Why) })
		if err != nil || counts.Agreeing != uint64(certificates) {
			b.Fatal(counts, err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*certificates)/b.Elapsed().Seconds(), "certificates/s")
}
