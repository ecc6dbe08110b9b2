package client

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// The pauses between attempts double from the first to the longest. A service that says when to come back is believed, up to longestWait.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
	longestWait  = 30 * time.Second
)

// do sends a request until it is answered for good, the attempts are used up, or the context ends. Most calls of the API may be repeated:
// reading changes nothing, revoking again changes nothing, and an order for a certificate has an idempotency key. What is refused the second
// time because it was done the first, such as a vote, is answered by a Problem that says so (MayBeDone). The calls that are asked once are
// repeated only where the service surely did nothing.
func (c *Client) do(ctx context.Context, r call) (reply, error) {
	body := r.text
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return reply{}, fmt.Errorf("making a request: %w", err)
		}
	}
	pause, open := firstPause, false // open: what came of an earlier attempt is not known
	for attempt := 1; ; attempt++ {
		answer, err := c.once(ctx, r, body)
		var problem *Problem
		var lost *transportError
		switch maybe := open && r.method != http.MethodGet; {
		case errors.As(err, &problem):
			problem.MayBeDone = maybe
		case errors.As(err, &lost):
			lost.mayBeDone = maybe
		}
		if err == nil || attempt == c.attempts || !retryable(ctx, err) || r.once && !undone(err) {
			return answer, err
		}
		open = open || !undone(err)
		wait, err2 := c.pauseAfter(err, pause)
		if err2 != nil || c.wait(ctx, wait) != nil {
			return reply{}, err // what the service said tells more than that the waiting ended
		}
		pause = min(2*pause, longestPause)
	}
}

// retryable tells whether trying again may help. A certificate that does not verify stays as it is.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var problem *Problem
	if errors.As(err, &problem) {
		switch problem.Status {
		case http.StatusTooManyRequests: // of a quota that is used up it says when there is room, which may be in days
			return problem.RetryAfter <= longestWait
		case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
			return true
		case http.StatusConflict:
			return problem.Type == TypeKeyBusy
		case http.StatusNotFound:
			return problem.Type == TypeNotLogged
		}
		return false
	}
	var unreached *transportError
	var untrusted *tls.CertificateVerificationError
	return errors.As(err, &unreached) && !errors.As(err, &untrusted)
}

// undone tells that the service surely did nothing in an attempt that failed so: it was not reached, or turned the call away for its rate.
func undone(err error) bool {
	var problem *Problem
	var unreached *net.OpError
	return errors.As(err, &problem) && problem.Status == http.StatusTooManyRequests || errors.As(err, &unreached) && unreached.Op == "dial"
}

// Undone tells of the error of a call that surely nothing came of it: the service was not reached, or has refused the call, or turned it
// away for its rate, and so it was with each attempt before. Of any other failure it is not known.
func Undone(err error) bool {
	var problem *Problem
	var unreached *transportError
	switch {
	case errors.As(err, &problem):
		switch problem.Status {
		case http.StatusRequestTimeout, http.StatusConflict:
			return false // another call may have done it, or be doing it
		}
		return !problem.MayBeDone && problem.Status >= 400 && problem.Status < 500
	case errors.As(err, &unreached):
		return !unreached.mayBeDone && undone(err)
	}
	return false
}

// transportError is the failure of a request that the service may never have seen, or whose answer was lost.
type transportError struct {
	doing     string
	err       error
	mayBeDone bool // by an earlier attempt
}

func (e *transportError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *transportError) Unwrap() error { return e.err }

// pauseAfter is how long to wait: what the service said, or the pause, of which a random part is taken away so that many clients that
// failed together do not come back together.
func (c *Client) pauseAfter(err error, pause time.Duration) (time.Duration, error) {
	var problem *Problem
	if errors.As(err, &problem) && problem.RetryAfter > 0 {
		return min(problem.RetryAfter, longestWait), nil
	}
	var octets [8]byte
	if _, err := io.ReadFull(c.random, octets[:]); err != nil {
		return 0, err
	}
	half := uint64(pause / 2)
	return pause - time.Duration(binary.BigEndian.Uint64(octets[:])%half), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
