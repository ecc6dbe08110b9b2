package issuance

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func TestSerialsFollowTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(1, 1<<48-2).Draw(t, "ms")
		at := time.UnixMilli(ms)
		s, err := NewSerial(at, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		next, err := NewSerial(at.Add(time.Millisecond), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Compare(s[:], next[:]) >= 0 || !s.Time().Equal(at) || !s.Valid() || len(s.String()) != 40 {
			t.Fatalf("%v and %v, a millisecond later", s, next)
		}
		low, high := SerialBounds(at, at.Add(time.Millisecond))
		if bytes.Compare(low[:], s[:]) > 0 || bytes.Compare(s[:], high[:]) >= 0 || bytes.Compare(next[:], high[:]) < 0 {
			t.Fatalf("%v is not between %v and %v", s, low, high)
		}
		if n := number(s[:]); n.Sign() <= 0 || n.BitLen() > 159 || len(n.Bytes()) != 20 {
			t.Fatalf("%v is not a serial number", s)
		}
	})
}

// A moment before all serials is below all of them, and one after all is not below any.
func TestSerialBoundsOfMomentsWithoutSerials(t *testing.T) {
	at := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	s, err := NewSerial(at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, early := range []time.Time{{}, time.UnixMilli(-1), time.UnixMilli(0), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)} {
		for _, late := range []time.Time{time.UnixMilli(1 << 48), time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)} {
			low, high := SerialBounds(early, late)
			if bytes.Compare(low[:], s[:]) > 0 || bytes.Compare(s[:], high[:]) >= 0 {
				t.Errorf("from %v to %v are the serials from %v to %v", early, late, low, high)
			}
		}
	}
}

func TestSerialRefuses(t *testing.T) {
	for _, at := range []time.Time{{}, time.UnixMilli(0), time.UnixMilli(-1), time.UnixMilli(1 << 48)} {
		if s, err := NewSerial(at, rand.Reader); err == nil || s.Valid() {
			t.Errorf("a serial was made at %v: %v", at, s)
		}
	}
	failed := errors.New("no entropy")
	if s, err := NewSerial(now, iotest.ErrReader(failed)); !errors.Is(err, failed) || s.Valid() {
		t.Errorf("a serial was made without randomness: %v, %v", s, err)
	}
	if s, err := NewSerial(now, bytes.NewReader(make([]byte, 12))); err == nil || s.Valid() {
		t.Errorf("a serial was made with too little randomness: %v", s)
	}
	if (Serial{}).Valid() {
		t.Error("the zero serial is valid")
	}
}
