package keeper

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// here is a token whose library is in this process.
type here struct {
	*opened
	needed func(error)
	free   chan int       // indexes of calls that nobody makes now, one for each session
	since  []atomic.Int64 // when each was made, in nanoseconds of start; 0: it is not being made
	start  time.Time
}

// openHere opens the token in this process and keeps it open until the context ends: hsm.Recovering opens it again when it is lost. A call
// that hangs, here or in the opening, can be ended in one way alone: with the process.
func (t *token) openHere(ctx context.Context, hung func(error)) error {
	h := &here{needed: t.needed, free: make(chan int, t.HSM.MaxSessions), since: make([]atomic.Int64, t.HSM.MaxSessions+1), start: time.Now()}
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	go h.watch(watching, t, hung)

	opening := t.HSM.MaxSessions
	h.since[opening].Store(h.now())
	var found findings
	var err error
	config := t.HSM
	config.Observer = logins(t.loggedIn)
	config.Refused = func(_ string, why error) { t.needed(why) }
	h.opened, found, err = open(ctx, config, t.keys, t.log)
	h.since[opening].Store(0)
	if err != nil {
		return err
	}
	for i := range t.HSM.MaxSessions {
		h.free <- i
	}
	t.ready(h, found)
	t.log.InfoContext(ctx, "the token is open", "label", found.Token.Label, "serial", found.Token.Serial, "process", os.Getpid())
	go func() {
		if err := h.stuck(watching, t.StartTimeout); err != nil {
			hung(fmt.Errorf("token %q: %w", t.Name, err))
		}
	}()
	<-ctx.Done()
	unwatch()
	return h.close()
}

// now is the time since the start, and never 0.
func (h *here) now() int64 { return max(int64(time.Since(h.start)), 1) }

// sign makes a call as soon as a session is free for it, so that the time it waits for one is not taken for the call's.
func (h *here) sign(r digestRequest) ([]byte, error) {
	i := <-h.free
	h.since[i].Store(h.now())
	signature, err := h.opened.sign(r)
	h.since[i].Store(0)
	h.free <- i
	return signature, h.noticed(err)
}

func (h *here) available() error { return h.noticed(h.token.Available()) }

// noticed tells when a person is needed: after a loss the token could not be logged in to again.
func (h *here) noticed(err error) error {
	if err != nil && hsm.NeedsPerson(err) {
		h.needed(err)
	}
	return err
}

// watch tells when a call takes longer than it may.
func (h *here) watch(ctx context.Context, t *token, hung func(error)) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := h.now()
		for i := range h.since {
			limit := t.CallTimeout
			if i == t.HSM.MaxSessions {
				limit = t.StartTimeout
			}
			if since := h.since[i].Load(); since != 0 && time.Duration(now-since) > limit {
				hung(fmt.Errorf("%w: token %q: a call into its library did not come back within %s", hsm.ErrUnavailable, t.Name, limit))
				return
			}
		}
	}
}
