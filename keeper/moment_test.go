package keeper

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"
)

// momentOf is moment as package time and cryptobyte read it, and generalizedOf is generalized.
func momentOf(s *cryptobyte.String) (t time.Time, ok bool) {
	whole := *s
	var text cryptobyte.String
	var tag der.Tag
	ok = whole.ReadAnyASN1(&text, &tag)
	switch {
	case ok && tag == der.UTCTime && len(text) == len("YYMMDDHHMMSSZ"):
		ok = s.ReadASN1UTCTime(&t)
	case ok && tag == der.GeneralizedTime && len(text) == len("YYYYMMDDHHMMSSZ"):
		ok = s.ReadASN1GeneralizedTime(&t) && t.Year() >= 2050
	default:
		ok = false
	}
	return t, ok && text[len(text)-1] == 'Z'
}

func generalizedOf(s *cryptobyte.String) (t time.Time, ok bool) {
	whole := *s
	var text cryptobyte.String
	ok = whole.ReadASN1(&text, der.GeneralizedTime) && len(text) == len("YYYYMMDDHHMMSSZ") && text[len(text)-1] == 'Z'
	return t, ok && s.ReadASN1GeneralizedTime(&t)
}

// sameTimes fails when the two ways differ about what an octet string begins with.
func sameTimes(t interface{ Errorf(string, ...any) }, octets []byte) {
	for _, way := range []struct {
		name string
		new  func(*cryptobyte.String, string) (time.Time, error)
		old  func(*cryptobyte.String) (time.Time, bool)
	}{{"moment", moment, momentOf}, {"generalized", generalized, generalizedOf}} {
		mine, theirs := cryptobyte.String(octets), cryptobyte.String(octets)
		got, err := way.new(&mine, "it")
		want, ok := way.old(&theirs)
		if (err == nil) != ok || ok && (!got.Equal(want) || got.Location() != time.UTC || len(mine) != len(theirs)) {
			t.Errorf("%s of %q is %s, %v; it was %s, %v", way.name, octets, got, err, want, ok)
		}
	}
}

func written(tag der.Tag, text string) []byte {
	return append([]byte{byte(tag), byte(len(text))}, text...)
}

// TestTimesAreReadAsBefore holds the reading of times by their digits against that of cryptobyte: on what could just be one.
func TestTimesAreReadAsBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := func(name string, most int) int { return rapid.IntRange(0, most+1).Draw(t, name) }
		text := fmt.Sprintf("%02d%02d%02d%02d%02d", part("month", 12), part("day", 31), part("hour", 24), part("minute", 60), part("second", 60))
		text += rapid.SampledFrom([]string{"Z", "Z", "Z", "", "z", "+0000", ".0Z", "ZZ"}).Draw(t, "end")
		tag := der.UTCTime
		if rapid.Bool().Draw(t, "generalized") {
			tag = der.GeneralizedTime
			text = fmt.Sprintf("%04d", rapid.OneOf(rapid.IntRange(0, 9999), rapid.IntRange(2040, 2060)).Draw(t, "year")) + text
		} else {
			text = fmt.Sprintf("%02d", part("year", 98)) + text
		}
		octets := written(tag, text)
		if rapid.Bool().Draw(t, "one octet is another") {
			octets[rapid.IntRange(0, len(octets)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "octet")
		}
		sameTimes(t, append(octets, rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "more")...))
	})
}

func FuzzTimes(f *testing.F) {
	for _, text := range []string{"260228235959Z", "500229000000Z", "20500101000000Z", "00000101000000Z", "991231235960Z", "260631000000Z", "2602282359Z"} {
		f.Add(written(der.UTCTime, text))
		f.Add(written(der.GeneralizedTime, text))
	}
	f.Fuzz(func(t *testing.T, octets []byte) { sameTimes(t, octets) })
}

func BenchmarkMoment(b *testing.B) {
	octets := written(der.UTCTime, "261128203000Z")
	b.Run("by digits", func(b *testing.B) {
		for b.Loop() {
			s := cryptobyte.String(octets)
			if _, err := moment(&s, "it"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by package time", func(b *testing.B) {
		for b.Loop() {
			s := cryptobyte.String(octets)
			if _, ok := momentOf(&s); !ok {
				b.Fatal("it is not read")
			}
		}
	})
}
