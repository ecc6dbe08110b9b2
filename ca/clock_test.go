package ca

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A clock that is off is seen at a look; one that jumps afterwards at once, without a look, whichever way.
func TestClock(t *testing.T) {
	const max = 30 * time.Second
	for name, c := range map[string]struct {
		off, jump  time.Duration
		look, late bool // whether the look, and whether the check after the jump, complain
	}{
		"right":                    {},
		"a little off":             {off: 29 * time.Second},
		"ahead":                    {off: 31 * time.Second, look: true, late: true},
		"behind":                   {off: -time.Minute, look: true, late: true},
		"jumps forward":            {jump: time.Hour, late: true},
		"jumps back":               {jump: -time.Hour, late: true},
		"jumps a little":           {jump: -20 * time.Second},
		"a little off, and a jump": {off: 20 * time.Second, jump: 20 * time.Second, late: true},
		"is put right":             {off: time.Hour, jump: -time.Hour, look: true},
	} {
		t.Run(name, func(t *testing.T) {
			off := c.off
			watch := &clock{max: max, now: func() time.Time { return time.Now().Add(off) }}
			if err := watch.check(); err != nil {
				t.Errorf("before the first look: %v", err)
			}
			judge := func(when string, err error, wrong bool) {
				t.Helper()
				var skew *SkewError
				if errors.As(err, &skew) != wrong || wrong && (!errors.Is(err, ErrUnavailable) || skew.Max != max) {
					t.Errorf("%s: %v", when, err)
				}
			}
			judge("the look", watch.look(t.Context(), func(context.Context) (time.Time, error) { return time.Now(), nil }), c.look)
			off += c.jump
			judge("after the jump", watch.check(), c.late)
			if wrong := time.Until(watch.right()).Abs(); wrong > time.Second {
				t.Errorf("put right, the clock is still %s off", wrong)
			}
		})
	}
}

// Time that the database takes to answer is not held against the clock.
func TestSlowAnswersAreNoSkew(t *testing.T) {
	watch := &clock{max: time.Millisecond, now: time.Now}
	slow := func(context.Context) (time.Time, error) {
		for passed := stopwatch(); passed() < 5*time.Millisecond; { // longer than the clock may be off
		}
		return time.Now(), nil
	}
	if err := watch.look(t.Context(), slow); err != nil {
		t.Error(err)
	}
	away := errors.New("away")
	if err := watch.look(t.Context(), func(context.Context) (time.Time, error) { return time.Time{}, away }); !errors.Is(err, away) {
		t.Errorf("the database is away: %v", err)
	}
}
