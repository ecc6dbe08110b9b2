package ca

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/policies"
)

func TestRates(t *testing.T) {
	r, now := newRates(), time.Unix(1_700_000_000, 0)
	team := access.Namespace{Name: "team", Rates: []access.Rate{
		{Requests: 3, Per: time.Minute}, {Profile: "tls-server", Requests: 1, Per: 10 * time.Second},
	}}
	take := func(profile string, retry time.Duration, by access.Rate) {
		t.Helper()
		err := r.take(team, profile, now)
		var limited *LimitedError
		switch {
		case retry == 0 && err != nil:
			t.Errorf("%s at %s: %v", profile, now, err)
		case retry > 0 && (!errors.As(err, &limited) || limited.RetryAfter != retry || limited.Rate != by):
			t.Errorf("%s at %s: %v %+v, want to be told to wait %s by %+v", profile, now, err, limited, retry, by)
		}
	}
	take("tls-server", 0, access.Rate{})
	take("tls-server", 10*time.Second, team.Rates[1]) // which takes nothing of the other rate
	take("tls-client", 0, access.Rate{})
	take("tls-client", 0, access.Rate{})
	take("tls-client", 20*time.Second, team.Rates[0])
	take("tls-server", 20*time.Second, team.Rates[0]) // the longest counts
	now = now.Add(20 * time.Second)
	take("tls-server", 0, access.Rate{})
	take("tls-client", 20*time.Second, team.Rates[0])
	for _, free := range []access.Namespace{{Name: "free"}, {Name: "other", Rates: team.Rates}} {
		if err := r.take(free, "tls-client", now); err != nil {
			t.Errorf("%s: %v", free.Name, err)
		}
	}
	for i := range 10_001 {
		r.full[rateKey{namespace: string(rune(i)), rate: access.Rate{Requests: i}}] = now.Add(-time.Hour)
	}
	if err := r.take(team, "x", now.Add(time.Hour)); err != nil || len(r.full) > 3 {
		t.Errorf("what is at rest stays: %d, %v", len(r.full), err)
	}
}

// In no span of its length does a rate let through more than twice what it says, and over a long time not more than on average.
func TestARateHoldsOverTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := access.Rate{Requests: rapid.IntRange(1, 20).Draw(t, "requests"), Per: time.Duration(rapid.IntRange(1, 60).Draw(t, "per")) * time.Second}
		n, r := access.Namespace{Name: "n", Rates: []access.Rate{rate}}, newRates()
		now, through := time.Unix(1_700_000_000, 0), 0
		begun := now
		for _, pause := range rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 200).Draw(t, "pauses") {
			now = now.Add(time.Duration(pause) * time.Millisecond)
			err := r.take(n, "p", now)
			var limited *LimitedError
			switch {
			case err == nil:
				through++
			case !errors.As(err, &limited) || limited.RetryAfter <= 0:
				t.Fatalf("got %v", err)
			default:
				later := newRates()
				later.full = map[rateKey]time.Time{{"n", rate}: r.full[rateKey{"n", rate}]}
				if err := later.take(n, "p", now.Add(limited.RetryAfter)); err != nil {
					t.Fatalf("after the wait that it asked for: %v", err)
				}
			}
		}
		most := float64(rate.Requests) * (1 + float64(now.Sub(begun))/float64(rate.Per))
		if float64(through) > most+1e-6 {
			t.Fatalf("%d requests in %s at %+v", through, now.Sub(begun), rate)
		}
	})
}

func TestExhaustedInWords(t *testing.T) {
	quota := policies.Reservation{Kind: policies.ReserveQuota, Scope: "namespace", Key: "web", Limit: 2, Window: time.Hour}
	for want, e := range map[string]*ExhaustedError{
		"wait 1m0s, or ask the operator for a larger quota": {quota, time.Minute},
		"ask the operator for a larger quota":               {quota, 0},
		"make a new key pair":                               {policies.Reservation{Kind: policies.ReserveKey, Limit: 1}, 0},
	} {
		if v := e.Violation(); v.Hint != want || v.Rule != "quota" || v.Message != e.Error() {
			t.Errorf("got %+v, want the hint %q", v, want)
		}
	}
}

func TestSameNamespace(t *testing.T) {
	a := access.Namespace{Name: "a", DNS: []string{"a.example"}, Email: []string{}}
	b := access.Namespace{Name: "a", DNS: []string{"a.example"}, Quotas: []access.Quota{}}
	if !sameNamespace(a, b) || a.Email == nil || b.Quotas == nil {
		t.Error("an empty list and a missing one differ, or what was compared was changed")
	}
	b.DNS = []string{"b.example"}
	if sameNamespace(a, b) {
		t.Error("two owners of different names are the same")
	}
}
