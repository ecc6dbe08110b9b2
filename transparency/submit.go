package transparency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/client"
)

const (
	// avoidFor is how long a log that failed is asked after those that did not.
	avoidFor = time.Minute
	// Between two tries of one log in one submission.
	firstRetry, longestRetry = 250 * time.Millisecond, 4 * time.Second
)

// Wish is what is asked of the logs for one certificate.
type Wish struct {
	NotAfter  time.Time // of the certificate: logs take only those that end in their interval
	SCTs      int       // how many timestamps
	Operators int       // from how many different operators, at least
	Logs      []string  // the descriptions of the logs that may be asked; empty: every usable one
	Patience  time.Duration
	Timeout   time.Duration
}

// Config is what a Submitter is made of.
type Config struct {
	Logs   []*Log
	Client *http.Client // of HTTPClient
	Now    func() time.Time
	// Observe, when not nil, hears of every submission to a log: what came of it is "accepted", "failed", "lied" (its answer did not
	// verify) or "left" (others were faster).
	Observe func(log *Log, outcome string, took time.Duration)
}

// Submitter asks logs for timestamps. It is safe for concurrent use.
type Submitter struct {
	logs    []*member
	now     func() time.Time
	observe func(*Log, string, time.Duration)
}

type member struct {
	*Log
	client   *client.LogClient
	failedAt atomic.Int64 // Unix nanoseconds; 0: it has answered since
}

// NewSubmitter makes a submitter to those of the logs that are usable.
func NewSubmitter(c Config) (*Submitter, error) {
	s := &Submitter{now: c.Now, observe: c.Observe}
	if s.observe == nil {
		s.observe = func(*Log, string, time.Duration) {}
	}
	if err := Unique(c.Logs); err != nil {
		return nil, err
	}
	for _, l := range c.Logs {
		if l.State != Usable {
			continue
		}
		logClient, err := l.client(c.Client)
		if err != nil {
			return nil, err
		}
		s.logs = append(s.logs, &member{Log: l, client: logClient})
	}
	return s, nil
}

// ImpossibleError is a wish that the logs cannot fulfil, be they ever so well.
type ImpossibleError struct{ Why string }

func (e *ImpossibleError) Error() string { return e.Why }

// Possible tells whether the logs could fulfil a wish if all of them answered: nil, or an *ImpossibleError.
func (s *Submitter) Possible(w Wish) error {
	_, err := s.candidates(w)
	return err
}

// candidates are the logs that a wish may be fulfilled by, in the order in which they are asked: by lot, operators in turn, those that
// have failed lately last.
func (s *Submitter) candidates(w Wish) ([]*member, error) {
	for _, name := range w.Logs {
		if !slices.ContainsFunc(s.logs, func(m *member) bool { return m.Description == name }) {
			return nil, &ImpossibleError{fmt.Sprintf("no usable log is called %q", name)}
		}
	}
	var able []*member
	operators := map[string]bool{}
	for _, m := range s.logs {
		if m.Accepts(w.NotAfter) && (len(w.Logs) == 0 || slices.Contains(w.Logs, m.Description)) {
			able, operators[m.Operator] = append(able, m), true
		}
	}
	if len(able) < w.SCTs || len(operators) < w.Operators {
		return nil, &ImpossibleError{fmt.Sprintf("%d timestamps of %d operators are needed, and %d logs of %d operators take certificates that end at %s",
			w.SCTs, w.Operators, len(able), len(operators), w.NotAfter.UTC().Format(time.RFC3339))}
	}
	rand.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
	now := time.Now()
	slices.SortStableFunc(able, func(a, b *member) int { return boolToInt(a.ailing(now)) - boolToInt(b.ailing(now)) })
	turn, seen := map[*member]int{}, map[string]int{}
	for _, m := range able {
		turn[m] = seen[m.Operator]
		seen[m.Operator]++
		if m.ailing(now) {
			turn[m] += len(able) // after all that are well
		}
	}
	slices.SortStableFunc(able, func(a, b *member) int { return turn[a] - turn[b] })
	return able, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (m *member) ailing(now time.Time) bool {
	at := m.failedAt.Load()
	return at != 0 && now.Sub(time.Unix(0, at)).Abs() < avoidFor
}

// Failure is what one log said instead of a timestamp.
type Failure struct {
	Log *Log
	Err error
}

// SubmitError is a wish that was not fulfilled in time.
type SubmitError struct {
	Got      []SCT
	Wanted   int
	Failures []Failure
	Err      error // why the waiting ended, where time was up
}

func (e *SubmitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d timestamps", len(e.Got), e.Wanted)
	if e.Err != nil {
		fmt.Fprintf(&b, " when time was up")
	}
	for _, f := range e.Failures {
		fmt.Fprintf(&b, "; %s: %v", f.Log, f.Err)
	}
	return b.String()
}

func (e *SubmitError) Unwrap() error { return e.Err }

// Submit has a precertificate logged and returns the timestamps as a SignedCertificateTimestampList (RFC 6962, section 3.3), every one of
// them verified. chain is the precertificate and its issuers, DER, up to the root.
//
// As many logs are asked at once as timestamps are missing. One that fails makes room for the next at once; one that has not answered
// after the wish's patience is waited for on, and another asked beside it. What failed for the moment is asked again later. The error
// is an *ImpossibleError or a *SubmitError; in both cases logs may have the precertificate.
func (s *Submitter) Submit(ctx context.Context, chain [][]byte, w Wish) (list []byte, scts []SCT, err error) {
	if len(chain) < 2 {
		return nil, nil, errors.New("submitting a precertificate: its issuer is missing")
	}
	candidates, err := s.candidates(w)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	r := &round{Submitter: s, wish: w, ctx: ctx, began: s.now(), answers: make(chan answer, len(candidates)), asking: map[*member]time.Time{}}
	for _, one := range chain {
		r.chain = append(r.chain, ct.ASN1Cert{Data: one})
	}
	for _, m := range candidates {
		r.waiting = append(r.waiting, &attempt{member: m})
	}
	if scts, err = r.run(); err != nil {
		return nil, nil, err
	}
	if list, err = marshalList(scts); err != nil {
		return nil, nil, err
	}
	return list, scts, nil
}

// round is one submission.
type round struct {
	*Submitter
	wish     Wish
	ctx      context.Context
	began    time.Time
	chain    []ct.ASN1Cert
	waiting  []*attempt            // logs that may be asked, in order
	asking   map[*member]time.Time // since when
	answers  chan answer
	got      []SCT
	failures []Failure
}

// attempt is a log that may be asked, from a time on.
type attempt struct {
	*member
	tries int
	from  time.Time
}

type answer struct {
	*attempt
	sct SCT
	err error
}

// run asks until there is enough. It belongs to one goroutine; those that ask only send their answer, for which there is room.
func (r *round) run() ([]SCT, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if chosen, ok := r.enough(); ok {
			return chosen, nil
		}
		now := time.Now()
		next := r.ask(now)
		if deadline, _ := r.ctx.Deadline(); len(r.asking) == 0 && (next.IsZero() || next.After(deadline)) {
			return nil, &SubmitError{Got: r.got, Wanted: r.wish.SCTs, Failures: r.failures}
		}
		if next.IsZero() {
			next = now.Add(r.wish.Timeout) // an answer, or the end, comes first
		}
		timer.Reset(next.Sub(now))
		select {
		case a := <-r.answers:
			r.hear(a)
		case <-timer.C:
		case <-r.ctx.Done():
			for m := range r.asking {
				r.failures = append(r.failures, Failure{m.Log, errors.New("it has not answered")})
			}
			return nil, &SubmitError{Got: r.got, Wanted: r.wish.SCTs, Failures: r.failures, Err: r.ctx.Err()}
		}
	}
}

// enough chooses what the wish asks for from what there is: first the first of each operator, then the first of the others.
func (r *round) enough() ([]SCT, bool) {
	var chosen, others []SCT
	operators := map[string]bool{}
	for _, sct := range r.got {
		if operators[sct.Log.Operator] || len(operators) >= r.wish.Operators {
			others = append(others, sct)
			continue
		}
		chosen, operators[sct.Log.Operator] = append(chosen, sct), true
	}
	if len(operators) < r.wish.Operators || len(r.got) < r.wish.SCTs {
		return nil, false
	}
	return append(chosen, others[:max(r.wish.SCTs-len(chosen), 0)]...), true
}

// missing tells how many timestamps are missing, and how many must come from operators that have given none.
func (r *round) missing() (scts, operators int, have map[string]bool) {
	have = map[string]bool{}
	for _, sct := range r.got {
		have[sct.Log.Operator] = true
	}
	operators = max(r.wish.Operators-len(have), 0)
	return max(r.wish.SCTs-len(r.got), operators), operators, have
}

// ask asks as many logs as are missing, not counting those whose time is up. It returns when there will be more to do, if it is known.
func (r *round) ask(now time.Time) (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	missing, operators, have := r.missing()
	patient := 0
	for m, since := range r.asking {
		if ends := since.Add(r.wish.Patience); ends.After(now) {
			sooner(ends)
			patient++
			if !have[m.Operator] {
				have[m.Operator] = true
				operators--
			}
		}
	}
	for patient < missing {
		i := slices.IndexFunc(r.waiting, func(a *attempt) bool {
			return !a.from.After(now) && (operators < missing-patient || !have[a.Operator])
		})
		if i < 0 {
			break
		}
		a := r.waiting[i]
		r.waiting = slices.Delete(r.waiting, i, i+1)
		r.asking[a.member] = now
		go r.submit(a)
		sooner(now.Add(r.wish.Patience))
		patient++
		if !have[a.Operator] {
			have[a.Operator] = true
			operators--
		}
	}
	if patient < missing {
		for _, a := range r.waiting {
			if a.from.After(now) {
				sooner(a.from)
			}
		}
	}
	return next
}

// submit asks one log once.
func (r *round) submit(a *attempt) {
	started := time.Now()
	a.tries++
	raw, err := addPreChain(r.ctx, a.client, r.chain)
	outcome := "failed"
	var sct SCT
	if err == nil {
		if sct, err = a.verify(raw, r.chain, r.began, r.now()); err != nil {
			outcome, err = "lied", &refusal{status: http.StatusOK, err: err}
		} else {
			outcome = "accepted"
		}
	} else if r.ctx.Err() != nil {
		outcome = "left"
		if errors.Is(r.ctx.Err(), context.DeadlineExceeded) {
			outcome = "failed"
		}
	}
	switch outcome {
	case "accepted":
		a.failedAt.Store(0)
	case "failed", "lied":
		a.failedAt.Store(time.Now().UnixNano())
	}
	r.observe(a.Log, outcome, time.Since(started))
	r.answers <- answer{a, sct, err}
}

// hear takes an answer. A log that failed for the moment waits for its next turn.
func (r *round) hear(a answer) {
	delete(r.asking, a.member)
	if a.err == nil {
		r.got = append(r.got, a.sct)
		return
	}
	r.failures = append(r.failures, Failure{a.Log, a.err})
	if lasting(a.err) {
		return
	}
	wait := min(firstRetry<<min(a.tries-1, 10), longestRetry)
	var said *refusal
	if errors.As(a.err, &said) {
		wait = max(wait, said.after)
	}
	a.from = time.Now().Add(wait)
	r.waiting = append(r.waiting, a.attempt)
}
