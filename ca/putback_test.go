package ca

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// unreachable is a store of which nothing is heard; what is signed it takes.
type unreachable struct {
	Store
	checkpoints []audit.Checkpoint
}

func (u *unreachable) RenewLease(context.Context, Term, time.Duration) error {
	return ErrUnavailable
}

func (u *unreachable) RecordCheckpoint(_ context.Context, _ Term, c audit.Checkpoint, _ []byte) error {
	u.checkpoints = append(u.checkpoints, c)
	return nil
}

// messages is a key that is given what it signs.
type messages struct{ ed25519.PrivateKey }

func (m messages) SignMessage(random io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	return m.Sign(random, message, options)
}

// The next checkpoint waits for its time and not for that of a clock that was put back by more.
func TestAClockPutBackHoldsUpNoCheckpoint(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := audit.NewSigner("ca.example/log", messages{key})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	store := &unreachable{}
	s := &sequencer{
		CA:   &CA{store: store, now: func() time.Time { return now }, log: slog.New(slog.DiscardHandler), logPlan: LogPlan{Signer: signer}},
		size: 5, last: &audit.Checkpoint{}, at: now,
	}
	if s.checkpoint(t.Context()); len(store.checkpoints) != 0 {
		t.Error("a checkpoint was signed right after the last")
	}
	now = now.Add(-time.Hour)
	if s.checkpoint(t.Context()); len(store.checkpoints) != 1 {
		t.Error("after the clock was put back no checkpoint was signed")
	}
}

// Whoever hears nothing of revocations does not take what it knows for true because the clock was put back.
func TestAClockPutBackMakesNoStatusYoung(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	c := &CA{now: func() time.Time { return now }, ocsp: &ocsp{}}
	c.ocsp.following.Store(true)
	c.ocsp.syncedAt.Store(now.Add(time.Hour).UnixNano())
	if since := c.statusesSince(&responder{validity: time.Hour}); !since.After(now) {
		t.Errorf("a status of %s is taken for true", since)
	}
}

// An end that comes near is told again in its time, also by a clock that was put back.
func TestAClockPutBackHidesNoEnd(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	p := newPublications()
	p.of(crlID{issuer: "issuing-1", scope: FullScope}).record = CRLRecord{Number: big.NewInt(1), ThisUpdate: now.Add(-24 * time.Hour), NextUpdate: now}
	if n := len(p.ending(now)); n != 1 {
		t.Fatalf("%d CRLs run out", n)
	}
	if n := len(p.ending(now.Add(-time.Second))); n != 0 {
		t.Errorf("it was told twice within a second")
	}
	if n := len(p.ending(now.Add(-time.Hour))); n != 1 {
		t.Error("after the clock was put back it was not told")
	}
}

// A leader that hears nothing steps down when its lease has run out, also while the clock is put back again and again.
func TestAClockPutBackKeepsNoLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var back atomic.Int64
		c := &CA{store: &unreachable{}, log: slog.New(slog.DiscardHandler), now: func() time.Time {
			return began.Add(-time.Duration(back.Add(1)) * time.Second)
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err, over := c.untilOver(ctx, Term{Duty: Upkeep}, nil, c.log)
		if took := time.Since(began); !over || err != nil || took > leaseTime+2*leaseTry {
			t.Errorf("over: %t after %s, %v", over, took, errors.Join(err, ctx.Err()))
		}
	})
}
