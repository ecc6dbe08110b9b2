package ca

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// clockEvery is how often this machine's clock is held against the database's.
const clockEvery = time.Second

// SkewError says that this machine's clock and the database's differ by more than is allowed. Certificates would say wrong times, and
// their serials would lie in wrong months, so nothing is issued until they agree again. It is ErrUnavailable: other replicas go on.
type SkewError struct {
	Skew, Max time.Duration // Skew is positive where this machine is ahead
}

func (e *SkewError) Error() string {
	return fmt.Sprintf("this machine's clock is %s off the database's, and at most %s are allowed; see to its time synchronisation", e.Skew, e.Max)
}

func (e *SkewError) Unwrap() error { return ErrUnavailable }

// clock judges this machine's clock by the database's, which all replicas share, and puts it right. Between two looks a jump is seen
// without asking: by how much the time on the clock went on, and how much time passed.
type clock struct {
	now func() time.Time
	max time.Duration // 0: not judged

	mu     sync.Mutex
	skew   time.Duration // at the last look
	at     time.Time     // the clock's reading then, without its monotonic part
	passed func() time.Duration
}

// stopwatch tells how much time has passed since it was made, whatever happens to the clock.
func stopwatch() func() time.Duration {
	began := time.Now() // its monotonic part alone is used
	return func() time.Duration { return time.Since(began) }
}

// look asks for the database's time. What the asking itself took is uncertainty, and held in the clock's favour.
func (c *clock) look(ctx context.Context, ask func(context.Context) (time.Time, error)) error {
	if c.max == 0 {
		return nil
	}
	passed, before := stopwatch(), c.now().Round(0)
	theirs, err := ask(ctx)
	if err != nil {
		return fmt.Errorf("comparing the clock with the database's: %w", err)
	}
	took := passed()
	skew := before.Sub(theirs)
	switch { // the database read its clock at some moment in [before, before+took]
	case skew > 0:
	case skew+took < 0:
		skew += took
	default:
		skew = 0
	}
	c.mu.Lock()
	c.skew, c.at, c.passed = skew, before, passed
	c.mu.Unlock()
	return c.check()
}

// check returns a *SkewError when the clock cannot be trusted.
func (c *clock) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.max == 0 || c.passed == nil {
		return nil
	}
	jumped := c.now().Round(0).Sub(c.at) - c.passed()
	if skew := c.skew + jumped; skew.Abs() > c.max {
		return &SkewError{Skew: skew.Round(time.Millisecond), Max: c.max}
	}
	return nil
}

// CheckClock holds this machine's clock against the database's: *SkewError where they differ by more than is allowed.
func (c *CA) CheckClock(ctx context.Context) error { return c.clock.look(ctx, c.store.ServerTime) }

// right is the time by the database's clock, as near as it is known: what a replica says of when something happened must not depend on
// which replica it is. A revocation from a clock that is ahead could not be put on a CRL of now, and an authority made a moment ago would
// not be in force by one that is behind. Before the first look, and where the clock is not judged, it is this machine's time.
func (c *clock) right() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.passed == nil {
		return c.now()
	}
	return c.at.Add(c.passed() - c.skew)
}
