package ca

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// SilentAfter is how long a replica may give no sign of life before it counts as silent.
	SilentAfter = 5 * time.Second
	beatEvery   = time.Second
	deadAfter   = 2500 * time.Millisecond // without a sign of life: more than two beats
)

// Replica names this process among those that share the database. Name is unique among living replicas and stays the same over
// restarts, so that a replica can settle at start what its predecessor left open; Run tells one start from the next.
type Replica struct {
	Name string
	Run  string
}

// About is what others are told of a replica.
type About struct {
	Version string // of its program
	Host    string
}

// ReplicaState is what is known of a replica's life.
type ReplicaState string

// The states.
const (
	ReplicaAlive   ReplicaState = "alive"
	ReplicaSilent  ReplicaState = "silent"  // no sign of life for SilentAfter: it died, hangs, or does not reach the database
	ReplicaStopped ReplicaState = "stopped" // in good order
)

// Seen is a replica as it is on record. All times are the database's.
type Seen struct {
	Replica
	About
	Schema    int64 // the last migration that its program knows
	StartedAt time.Time
	SeenAt    time.Time
	Beats     int64 // rises with each sign of life
	State     ReplicaState
}

// ReplicaStore keeps signs of life, and one replica to a name.
type ReplicaStore interface {
	// EnterReplica gives the name to the caller: a name that is free, one whose replica has stopped or is silent, or one whose replica
	// has given no sign of life since it was seen as before. Otherwise *NameTakenError.
	EnterReplica(ctx context.Context, r Replica, about About, before *Seen) error
	// Beat is a sign of life. ErrFenced: the name has been given to another run.
	Beat(ctx context.Context, r Replica) error
	// LeaveReplica says that the replica has stopped in good order.
	LeaveReplica(ctx context.Context, r Replica) error
}

// NameTakenError says that a replica of the same name is on record.
type NameTakenError struct {
	Seen
}

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("a replica named %q is running already, on host %q since %s: give each replica a name of its own "+
		"(replica: in the configuration, or CHANCERY_REPLICA)", e.Name, e.Host, e.StartedAt.Format(time.RFC3339))
}

// ErrSuperseded says that another process has taken this replica's name: it was silent for long, or two were given the same name.
var ErrSuperseded = errors.New("another process has taken this replica's name")

// Join puts the replica on record under its name, before it does anything else: what an earlier run of the name left open is its own to
// settle, so no such run may live. One that gave signs of life until now is watched for a moment; *NameTakenError when it gives another.
func (c *CA) Join(ctx context.Context) error {
	err := c.store.EnterReplica(ctx, c.replica, c.about, nil)
	var taken *NameTakenError
	if !errors.As(err, &taken) {
		return err
	}
	c.log.InfoContext(ctx, "a replica of this name was alive a moment ago; waiting to see whether it still is",
		"replica", c.replica.Name, "host", taken.Host)
	watch := time.NewTimer(deadAfter)
	defer watch.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-watch.C:
	}
	return c.store.EnterReplica(ctx, c.replica, c.about, &taken.Seen)
}

// stay gives signs of life until the context ends. It returns ErrSuperseded when the name has been taken by another process.
func (c *CA) stay(ctx context.Context) (err error) {
	staying, end := context.WithCancel(ctx)
	defer end()
	failing := false
	c.every(staying, beatEvery, nil, func() {
		beat := c.store.Beat(staying, c.replica)
		switch {
		case errors.Is(beat, ErrFenced):
			err = fmt.Errorf("%w: %q", ErrSuperseded, c.replica.Name)
			end()
		case beat != nil && !failing && staying.Err() == nil:
			c.log.WarnContext(ctx, "giving a sign of life failed; trying again", "error", beat)
		}
		failing = beat != nil
	})
	return err
}

// leave tells the others that this replica has stopped.
func (c *CA) leave(ctx context.Context) {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), resigning)
	defer cancel()
	if err := c.store.LeaveReplica(ending, c.replica); err != nil {
		c.log.WarnContext(ctx, "saying that this replica has stopped failed", "error", err)
	}
}
