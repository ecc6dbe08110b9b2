package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	maxClients = 256 // connections of one user at once
	// maxRoom is how many octets the long requests of one user may have together: two of the longest. Others wait.
	maxRoom = 2 * maxFrame
	// refusalsPerSecond bounds how often a client is refused: a connection on which it is more often is closed.
	refusalsPerSecond = 100
	// refusalsPerDay bounds how fast one user's refusals can fill the disk: those beyond are counted alone.
	refusalsPerDay = 10_000
	// maxRefused bounds what the journal quotes of what was refused, which whoever asks may choose.
	maxRefused = 200
	// complaintsAtOnce is how many warnings about clients the log can have at once; then it has one a second.
	complaintsAtOnce = 100
	// hurryInterval is how often at most the log tells that a key is asked for more than its rate permits.
	hurryInterval = time.Minute
)

// user is one whose processes connect, with what is left to them: what one user spends no other lacks.
type user struct {
	uid       uint32
	clients   int                 // connections; the keeper's lock is for it
	room      *semaphore.Weighted // for the octets of long requests
	offences  *rate.Limiter       // refusals after which a connection goes on
	written   *rate.Limiter       // refusals that are written down
	unwritten atomic.Uint64       // refusals since the last that was
}

// userOf is the user with a number. The lock is held.
func (k *Keeper) userOf(uid uint32) *user {
	u := k.users[uid]
	if u == nil {
		u = &user{
			uid: uid, room: semaphore.NewWeighted(maxRoom), offences: rate.NewLimiter(refusalsPerSecond, refusalsPerSecond),
			written: rate.NewLimiter(rate.Every(24*time.Hour/refusalsPerDay), refusalsPerDay),
		}
		k.users[uid] = u
	}
	return u
}

// refuse writes the refusal down, for the client to be told. A client that is refused again and again is cut off, which is written down as
// well. It cannot fill the disk: of its refusals beyond those of a day the next that is written down tells how many they were.
func (c *client) refuse(e entry, why error, now time.Time) (failure, err error) {
	level, words := slog.LevelWarn, why.Error()
	if unproven := (*UnprovenError)(nil); errors.As(why, &unproven) {
		level = slog.LevelInfo // whoever asks for another host's keeper's last checkpoint to be extended cannot know better
	} else if !c.user.offences.AllowN(now, 1) {
		err = fmt.Errorf("more than %d refusals in a second, of which this is one: %w", refusalsPerSecond, why)
		words = err.Error()
	}
	if !c.user.written.AllowN(now, 1) {
		c.user.unwritten.Add(1)
		return why, err
	}
	e.Detail, e.Scope, e.Why = quoted(e.Detail), quoted(e.Scope), words
	if n := c.user.unwritten.Swap(0); n > 0 {
		e.Why += fmt.Sprintf(" (%d refusals before it were only counted)", n)
	}
	c.keeper.config.Log.Log(context.Background(), level, "refused", "uid", c.user.uid, "key", e.Key, "kind", string(e.Kind), "sha256", e.SHA256,
		"why", e.Why)
	if unwritten := c.keeper.journal.add(e); unwritten != nil {
		return unwritten, err
	}
	return why, err
}

// noteHurry tells the log, at intervals, that a key is asked for more than its rate permits.
func (k *Keeper) noteHurry(h *held) {
	h.hurried.Add(1)
	h.tell.Do(func() {
		k.config.Log.Warn("a key was asked for more signatures in a second than its policy permits", "key", h.key.Name, "per_second",
			h.key.PerSecond, "times", h.hurried.Swap(0))
	})
}

// quoted is the beginning of a text, or all of it.
func quoted(text string) string {
	if len(text) > maxRefused {
		return text[:maxRefused] + "..."
	}
	return text
}

// noteUnwritten writes down how many refusals were only counted, and followed by none that tells of them.
func (k *Keeper) noteUnwritten() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var entries []entry
	for _, u := range k.users {
		if n := u.unwritten.Swap(0); n > 0 {
			why := fmt.Sprintf("%d refusals were only counted", n)
			entries = append(entries, entry{UID: &u.uid, Kind: kindUnknown, Result: resultRefused, Why: why})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return k.journal.add(entries...)
}

// complain warns of a client. Whoever is warned of again and again does not fill the log, which then has how often nothing was said.
func (k *Keeper) complain(ctx context.Context, message string, args ...any) {
	if !k.complaints.AllowN(k.config.Now(), 1) {
		k.unsaid.Add(1)
		return
	}
	if n := k.unsaid.Swap(0); n > 0 {
		args = append(args, "unsaid", n)
	}
	k.config.Log.WarnContext(ctx, message, args...)
}
