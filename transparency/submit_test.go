package transparency_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/transparency"
	"github.com/chancery-ca/chancery/transparency/logtest"
)

// TestSubmitAndRead takes certificates through every kind of log, and reads the timestamps out of the finished certificates again.
func TestSubmitAndRead(t *testing.T) {
	p := newPlace(t)
	for n := 2; n <= 4; n++ {
		certificate, scts := p.certify(p.submitter, wish(n, min(n, 3)))
		if len(scts) != n {
			t.Fatalf("%d timestamps, want %d", len(scts), n)
		}
		operators := map[string]bool{}
		for _, s := range scts {
			operators[s.Log.Operator] = true
		}
		if len(operators) < min(n, 3) {
			t.Errorf("%d timestamps are of %d operators", n, len(operators))
		}
		read, err := transparency.Read(certificate, p.cert.Raw, p.known, time.Now())
		if err != nil || len(read) != n {
			t.Fatalf("read %d timestamps, %v", len(read), err)
		}
		for _, e := range read {
			if e.Err != nil {
				t.Errorf("%v: %v", e.Log, e.Err)
			}
			proof, err := e.Included(t.Context(), transparency.HTTPClient(nil), time.Now())
			if err != nil {
				t.Errorf("%v: %v", e.Log, err)
			}
			if e.Log.Static() && proof.Index != e.Index {
				t.Errorf("%v: entry %d is proven, and %d was promised", e.Log, proof.Index, e.Index)
			}
		}
	}
}

// TestFaultyLogs has one of four logs go wrong in every way: the certificate is logged all the same, and never with that log's timestamp.
func TestFaultyLogs(t *testing.T) {
	for name, c := range map[string]struct {
		fault logtest.Fault
		want  string // outcome
	}{
		"hangs":                {logtest.Fault{Hang: true}, "left"},
		"503":                  {logtest.Fault{Status: 503, RetryAfter: "1"}, "failed"},
		"400":                  {logtest.Fault{Status: 400}, "failed"},
		"redirects":            {logtest.Fault{Status: 302}, "failed"},
		"no JSON":              {logtest.Fault{Body: "<html>"}, "failed"},
		"an empty object":      {logtest.Fault{Body: "{}"}, "failed"},
		"a wrong key":          {logtest.Fault{WrongKey: true}, "lied"},
		"another's identifier": {logtest.Fault{WrongID: true}, "lied"},
		"another entry":        {logtest.Fault{OtherEntry: true}, "lied"},
		"another version":      {logtest.Fault{Version: 1}, "lied"},
		"a clock ahead":        {logtest.Fault{Skew: 2 * time.Minute}, "lied"},
		"a clock behind":       {logtest.Fault{Skew: -2 * time.Minute}, "lied"},
		"no index":             {logtest.Fault{NoLeafIndex: true}, "lied"},
		"half an index":        {logtest.Fault{BrokenLeafEnds: true}, "lied"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.logs["tile"].Break(c.fault)
			var outcome string
			for range 20 { // until the faulty log is drawn among the first
				_, scts, err := p.submitter.Submit(t.Context(), p.precertificate(), wish(2, 2))
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range scts {
					if s.Log.Description == "tile" {
						t.Fatal("the timestamp of the faulty log was taken")
					}
				}
				if outcome = p.observed("tile"); outcome != "" && (outcome != "left" || c.want == "left") {
					break
				}
			}
			if outcome != c.want {
				t.Errorf("the faulty log was observed as %q, want %q", outcome, c.want)
			}
		})
	}
}

// observed waits for what became of a log that was asked since it was called before, and returns "" where it was not.
func (p *place) observed(log string) (outcome string) {
	for p.heard < p.logs[log].Submitted() {
		if told, ok := strings.CutPrefix(<-p.seen, log+" "); ok {
			p.heard++
			outcome = told
		}
	}
	return outcome
}

func TestTooFewTimestamps(t *testing.T) {
	p := newPlace(t)
	p.logs["fir"].Break(logtest.Fault{Status: 403})
	p.logs["tile"].Break(logtest.Fault{WrongKey: true})
	_, _, err := p.submitter.Submit(t.Context(), p.precertificate(), wish(2, 2))
	var failed *transparency.SubmitError
	if !errors.As(err, &failed) || len(failed.Failures) != 2 {
		t.Fatalf("two logs of one operator: %v", err)
	}
	for _, word := range []string{"fir (B)", "403", "tile (C)", "does not verify"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	p.logs["tile"].Break(logtest.Fault{Body: `{"id":"` + strings.Repeat("A", 2<<20)})
	if _, _, err = p.submitter.Submit(t.Context(), p.precertificate(), wish(1, 1, "tile")); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("an answer without end: %v", err)
	}
	for _, name := range []string{"oak", "elm"} {
		p.logs[name].Break(logtest.Fault{Hang: true})
	}
	w := wish(2, 1, "oak", "elm")
	w.Timeout = 200 * time.Millisecond
	_, _, err = p.submitter.Submit(t.Context(), p.precertificate(), w)
	if !errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it has not answered") {
		t.Errorf("two logs that hang: %v", err)
	}
}

// TestRetry has the only logs that there are fail for the moment.
func TestRetry(t *testing.T) {
	p := newPlace(t)
	p.logs["fir"].Break(logtest.Fault{Status: 503})
	p.logs["oak"].Break(logtest.Fault{Status: 429})
	var mending sync.WaitGroup
	mending.Go(func() {
		for range 2 {
			<-p.seen // both have failed once
		}
		p.logs["fir"].Break(logtest.Fault{})
		p.logs["oak"].Break(logtest.Fault{})
	})
	if _, scts, err := p.submitter.Submit(t.Context(), p.precertificate(), wish(2, 2, "fir", "oak")); err != nil || len(scts) != 2 {
		t.Errorf("%d timestamps, %v", len(scts), err)
	}
	mending.Wait()
	// A log that asks to be left alone for longer than there is time ends the waiting at once.
	p.logs["fir"].Break(logtest.Fault{Status: 503, RetryAfter: "3600"})
	patient := wish(1, 1, "fir")
	patient.Timeout = 10 * time.Minute
	began := time.Now()
	if _, _, err := p.submitter.Submit(t.Context(), p.precertificate(), patient); err == nil || time.Since(began) > time.Minute {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// TestOrder shows that a log which has failed is asked last for a while.
func TestOrder(t *testing.T) {
	p := newPlace(t)
	p.logs["oak"].Break(logtest.Fault{Status: 500})
	w := wish(1, 1, "oak")
	w.Timeout = 500 * time.Millisecond
	if _, _, err := p.submitter.Submit(t.Context(), p.precertificate(), w); err == nil {
		t.Fatal("a log that fails gave a timestamp")
	}
	before := p.logs["oak"].Submitted()
	for range 10 {
		w := wish(3, 3)
		w.Patience = w.Timeout // nobody is asked because another is slow
		if _, _, err := p.submitter.Submit(t.Context(), p.precertificate(), w); err != nil {
			t.Fatal(err)
		}
	}
	if again := p.logs["oak"].Submitted(); again != before {
		t.Errorf("the log that failed was asked %d times more although others were well", again-before)
	}
}

func TestImpossible(t *testing.T) {
	now := time.Now()
	p := newPlace(t,
		logtest.Options{Description: "past", Operator: "A", Until: now}, logtest.Options{Description: "next", Operator: "A", From: now.AddDate(1, 0, 0)},
		logtest.Options{Description: "this", Operator: "B", From: now, Until: now.AddDate(1, 0, 0)}, logtest.Options{Description: "old", State: "retired"},
		logtest.Options{Description: "new", State: "none"})
	for name, c := range map[string]struct {
		wish transparency.Wish
		ok   bool
	}{
		"one":              {wish(1, 1), true},
		"two":              {wish(2, 1), false},
		"a retired log":    {wish(1, 1, "old"), false},
		"one of no state":  {wish(1, 1, "new"), false},
		"an unknown log":   {wish(1, 1, "this", "ash"), false},
		"of another year":  {wish(1, 1, "next"), false},
		"of this year":     {wish(1, 1, "this"), true},
		"of two operators": {wish(1, 2), false},
	} {
		err := p.submitter.Possible(c.wish)
		var impossible *transparency.ImpossibleError
		if (err == nil) != c.ok || err != nil && !errors.As(err, &impossible) {
			t.Errorf("%s: %v", name, err)
		}
		_, _, err = p.submitter.Submit(t.Context(), p.precertificate(), c.wish)
		if (err == nil) != c.ok {
			t.Errorf("%s: submitting: %v", name, err)
		}
	}
	if p.logs["old"].Submitted()+p.logs["new"].Submitted()+p.logs["past"].Submitted() > 0 {
		t.Error("a log was asked that must not be")
	}
}

func TestSubmitIsCancelled(t *testing.T) {
	p := newPlace(t)
	for _, l := range p.logs {
		l.Break(logtest.Fault{Hang: true})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := p.submitter.Submit(ctx, p.precertificate(), wish(2, 2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if _, _, err := p.submitter.Submit(t.Context(), p.precertificate()[:1], wish(1, 1)); err == nil {
		t.Error("a precertificate without issuer was submitted")
	}
}

// TestStrictLog shows that the logs of the tests refuse what real ones do.
func TestStrictLog(t *testing.T) {
	p := newPlace(t)
	stranger := newAuthority(t)
	plain := p.chain(p.sign(p.draft(), newKey(t).Public(), stranger.cert.Extensions[0]))
	for name, chain := range map[string][][]byte{"another root": stranger.precertificate(), "no precertificate": plain} {
		if _, _, err := p.submitter.Submit(t.Context(), chain, wish(1, 1)); err == nil {
			t.Errorf("%s was logged", name)
		}
	}
}
