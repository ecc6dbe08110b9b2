package ca

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func numbered(n int) serialKey { return serialKeyOf(fmt.Appendf(nil, "%019d", n)) }

// landed is a flight that has landed with an answer made at a moment.
func landed(a *answers, serial serialKey, form int, status CertificateStatus, at time.Time) *OCSPResponse {
	response := &OCSPResponse{ThisUpdate: at, NextUpdate: at.Add(48 * time.Hour)}
	f, _ := a.fly(serial, form)
	a.takeOff(f)
	a.land(serial, form, f, landing{status: status, answer: response, knownAt: at}, true)
	return response
}

func TestAnAnswerIsGivenUntilItEnds(t *testing.T) {
	a, now := newAnswers(10, 10), time.Now()
	response := landed(a, numbered(1), 0, CertificateStatus{Issued: true}, now)
	for _, c := range []struct {
		after time.Duration
		given bool
		due   bool
	}{
		{-time.Second, true, true},
		{0, true, false},
		{22 * time.Hour, true, false},
		{22*time.Hour + 30*time.Minute, true, true},
		{48*time.Hour - 1, true, true},
		{48 * time.Hour, false, true},
	} {
		got, due := a.answer(numbered(1), 0, now.Add(c.after))
		if (got == response) != c.given || due != c.due {
			t.Errorf("after %s: %v, due %v", c.after, got, due)
		}
	}
	if got, _ := a.answer(numbered(1), 1, now); got != nil {
		t.Error("the answer to one form is given to another")
	}
	// While it cannot be made anew, it is tried again after a moment, not at once.
	later := now.Add(25 * time.Hour)
	f, _ := a.fly(numbered(1), 0)
	a.takeOff(f)
	a.land(numbered(1), 0, f, landing{err: errors.New("away"), at: later}, true)
	if got, due := a.answer(numbered(1), 0, later); got != response || due {
		t.Errorf("after a failure: %v, due %v", got, due)
	}
	if _, due := a.answer(numbered(1), 0, later.Add(retryOCSP)); !due {
		t.Error("after a failure it is never tried again")
	}
}

func TestARevocationOvertakesAFlight(t *testing.T) {
	a, now := newAnswers(10, 10), time.Now()
	for _, overtake := range []func(){func() { a.revoked(numbered(1)) }, a.forgetAll} {
		f, mine := a.fly(numbered(1), 2)
		if again, also := a.fly(numbered(1), 2); !mine || also || again != f {
			t.Fatal("two flights for one answer")
		}
		a.takeOff(f)
		overtake()
		good := landing{status: CertificateStatus{Issued: true}, answer: &OCSPResponse{NextUpdate: now.Add(time.Hour)}, knownAt: now}
		if a.land(numbered(1), 2, f, good, true) {
			t.Fatal("what was overtaken has landed")
		}
		if got, _ := a.answer(numbered(1), 2, now); got != nil {
			t.Fatal("what was overtaken is kept")
		}
		a.takeOff(f)
		if !a.land(numbered(1), 2, f, good, false) {
			t.Fatal("what was found out again does not land")
		}
		if got, _ := a.answer(numbered(1), 2, now); got != nil || f.answer == nil {
			t.Fatal("it is kept although revocations are not followed, or not given to who waits")
		}
	}
}

// However many serials that were never issued are asked about, nothing is forgotten of those that were, and neither grows without bound.
func TestUnknownSerialsForgetNothing(t *testing.T) {
	a, now := newAnswers(100, 10), time.Now()
	for n := range 100 {
		landed(a, numbered(n), 0, CertificateStatus{Issued: true}, now)
	}
	for n := range 1000 {
		landed(a, numbered(1000+n), 0, CertificateStatus{}, now)
	}
	for n := range 100 {
		if got, _ := a.answer(numbered(n), 0, now); got == nil {
			t.Fatalf("certificate %d is forgotten", n)
		}
	}
	if got, _ := a.answer(numbered(1999), 0, now.Add(unknownKept)); len(a.unknown.bySerial) != 10 || got != nil {
		t.Errorf("%d unknown serials are kept, the last %v", len(a.unknown.bySerial), got)
	}
	// One that was issued meanwhile is unknown no more.
	landed(a, numbered(1999), 0, CertificateStatus{Issued: true}, now)
	if a.size() != 100 || len(a.unknown.bySerial) != 9 {
		t.Errorf("%d issued, %d unknown", a.size(), len(a.unknown.bySerial))
	}
}

// What is kept is bounded, and is what was used last.
func TestRecentForgetsTheLeastRecent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 5).Draw(t, "most")
		r := newRecent(most)
		var used []int // the last used at the end
		for _, n := range rapid.SliceOf(rapid.IntRange(0, 8)).Draw(t, "uses") {
			r.put(numbered(n))
			for i, u := range used {
				if u == n {
					used = append(used[:i], used[i+1:]...)
					break
				}
			}
			used = append(used, n)
			if len(used) > most {
				used = used[1:]
			}
		}
		if len(r.bySerial) != len(used) || r.order.Len() != len(used) {
			t.Fatalf("%d are kept, want %d", len(r.bySerial), len(used))
		}
		for _, n := range used {
			if r.bySerial[numbered(n)] == nil {
				t.Fatalf("%d is forgotten", n)
			}
		}
	})
}

func TestBucket(t *testing.T) {
	b, now := &bucket{perSecond: 10, burst: 20}, time.Now()
	take := func(at time.Time) (n int) {
		for b.take(at) {
			n++
		}
		return n
	}
	if first, later, back := take(now), take(now.Add(500*time.Millisecond)), take(now.Add(-time.Hour)); first != 20 || later != 5 || back != 0 {
		t.Errorf("%d, %d, %d", first, later, back)
	}
}
