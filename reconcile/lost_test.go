package reconcile

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLostCertificates has one line for each way in which a signature can stand to the record of a lost certificate: never does the
// record of one excuse another.
func TestLostCertificates(t *testing.T) {
	const serial = "1c"
	signed := func(n int, changes ...func(*Signature)) Signature {
		return signature(n, append([]func(*Signature){func(s *Signature) { s.Detail = serial }}, changes...)...)
	}
	by := func(key string) func(*Signature) { return func(s *Signature) { s.Key = key } }
	at := func(later time.Duration) func(*Signature) { return func(s *Signature) { s.At = noon.Add(later) } }
	again := func(s *Signature) { s.Entry = 99 }
	old := func(s *Signature) { s.Old = true }
	lost := func(issuer string, of ...int) Lost {
		l := Lost{Issuer: issuer, Serial: serial, At: noon.Add(time.Minute)}
		for _, n := range of {
			l.Signed = append(l.Signed, digestOf(n))
		}
		return l
	}
	// What the keys have signed that is on record: a CRL each. The key "renamed" is that of the authority "one".
	lists := func(s ...Signature) []Signature {
		crl := func(s *Signature) { s.Kind, s.Detail = "crl", "7" }
		return append(s, signature(71, crl, by("one")), signature(72, crl, by("two")), signature(73, crl, by("renamed")))
	}
	var known []Record
	for n, issuer := range map[int]string{71: "one", 72: "two", 73: "one"} {
		for _, r := range as(CRL, records(n, noon, IntentEvent, SignedEvent, SignedRow)) {
			r.Issuer = issuer
			known = append(known, r)
		}
	}
	same := records(9, noon, IntentEvent, SignedEvent, SignedRow)
	for i := range same {
		same[i].Issuer, same[i].Serial = "one", serial
	}
	since := Span{Since: noon.Add(-time.Minute), Until: noon.Add(time.Hour)}
	for _, c := range []struct {
		what       string
		span       Span
		lost       []Lost
		signatures []Signature
		records    []Record
		want       []Kind
		says       string
	}{
		{"not recorded", all, nil, lists(signed(1, by("one"))), known, []Kind{Unrecorded}, "nothing on record"},
		{"recorded by its serial number", all, []Lost{lost("one")}, lists(signed(1, by("one"))), known, []Kind{Restored}, "cannot be checked"},
		{"by a key of another name", all, []Lost{lost("one")}, lists(signed(1, by("renamed"))), known, []Kind{Restored}, "cannot be checked"},
		{"by a key that signed nothing else", all, []Lost{lost("one")}, []Signature{signed(1, by("one"))}, nil, []Kind{Restored}, "cannot"},
		{"recorded with what was signed", all, []Lost{lost("one", 1)}, lists(signed(1, by("one"))), known, []Kind{Restored}, "what the record"},
		{"and since the last run", since, []Lost{lost("one", 1)}, lists(signed(1, by("one"))), known, []Kind{Restored}, "what the record names"},
		{
			"with its precertificate", all,
			[]Lost{lost("one", 1, 2)},
			lists(signed(1, by("one")), signed(2, by("one"))), known,
			[]Kind{Restored, Restored},
			"what the record names",
		},
		{"another serial number", all, []Lost{{Issuer: "one", Serial: "1d"}}, lists(signed(1, by("one"))), known, []Kind{Unrecorded}, "nothing"},
		{"another authority", all, []Lost{lost("two")}, lists(signed(1, by("one"))), known, []Kind{Unrecorded}, "nothing on record"},
		{"another authority by its name", all, []Lost{lost("renamed")}, lists(signed(1, by("renamed"))), known, []Kind{Unrecorded}, "nothing on"},
		{
			"of two authorities", all,
			[]Lost{lost("one"), lost("two")},
			lists(signed(1, by("one")), signed(2, by("two"))), known,
			[]Kind{Restored, Restored},
			"cannot be checked",
		},
		{
			"a second certificate", all,
			[]Lost{lost("one")},
			lists(signed(1, by("one"), at(time.Second)), signed(2, by("one"))), known,
			[]Kind{Restored, Unrecorded},
			"is of one with it already",
		},
		{"something else was signed", all, []Lost{lost("one", 2)}, lists(signed(1, by("one"))), known, []Kind{Unrecorded}, "something else"},
		{
			"a second one where the first is named", all,
			[]Lost{lost("one", 1)},
			lists(signed(1, by("one")), signed(2, by("one"))), known,
			[]Kind{Restored, Unrecorded},
			"names something else",
		},
		{"signed later", all, []Lost{lost("one")}, lists(signed(1, by("one"), at(time.Hour))), known, []Kind{Unrecorded}, "later"},
		{"since the last run", since, []Lost{lost("one")}, lists(signed(1, by("one"))), known, []Kind{Unrecorded}, "only a whole run tells"},
		{"found by the last run", since, []Lost{lost("one")}, lists(signed(1, by("one"), old)), known, nil, ""},
		{
			"another is on record", all,
			[]Lost{lost("one")},
			lists(signed(1, by("one")), signed(9, by("one"))), slices.Concat(known, same),
			[]Kind{Unrecorded},
			"certificate with it is on record",
		},
		{
			"signed twice", all,
			[]Lost{lost("one", 1)},
			lists(signed(1, by("one")), signed(1, by("one"), again)), known,
			[]Kind{Restored, Repeated},
			"signed before",
		},
		{"a CRL of that number", all, []Lost{lost("one")}, lists(signed(1, by("one"), func(s *Signature) { s.Kind = "crl" })), known, []Kind{
			Unrecorded,
		}, "nothing on record"},
	} {
		a := Open(t.TempDir(), c.span, []string{"journal"})
		a.Begin(noon.Add(-time.Hour))
		for _, l := range c.lost {
			a.Lost(l)
		}
		for _, r := range c.records {
			if err := a.Record(r); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range c.signatures {
			if err := a.Signature(s); err != nil {
				t.Fatal(err)
			}
		}
		var got []Kind
		var why []string
		counts, err := a.Settle(t.Context(), Oracle{}, func(f Finding) error {
			got, why = append(got, f.Kind), append(why, f.Why)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		findings := uint64(0)
		for _, kind := range c.want {
			if kind != Restored {
				findings++
			}
		}
		if !slices.Equal(got, c.want) || !strings.Contains(strings.Join(why, "; "), c.says) || counts.Findings != findings ||
			counts.Restored != uint64(len(c.want))-findings {
			t.Errorf("%s: found %q, want %q: %q, %+v", c.what, got, c.want, why, counts)
		}
	}
}
