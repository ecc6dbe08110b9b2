package storage

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/migrations"
)

const (
	// enterReplica gives a name to a run: a new name, one whose replica has stopped, one of which nobody has heard for long ($6), or one
	// that has shown no sign of life since the caller looked ($7, $8).
	enterReplica = `
	INSERT INTO replicas AS r (name, run, version, schema, host, started_at, seen_at, beats)
	VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp(), 1)
	ON CONFLICT (name) DO UPDATE SET run = excluded.run, version = excluded.version, schema = excluded.schema, host = excluded.host,
		started_at = excluded.started_at, seen_at = excluded.seen_at, beats = r.beats + 1, stopped_at = NULL
	WHERE r.stopped_at IS NOT NULL OR r.run = excluded.run OR r.seen_at < clock_timestamp() - $6::interval OR (r.run = $7 AND r.beats = $8)`

	selectEntered = `SELECT EXISTS (SELECT FROM replicas WHERE name = $1 AND run = $2)`

	beat         = `UPDATE replicas SET seen_at = clock_timestamp(), beats = beats + 1 WHERE name = $1 AND run = $2`
	leaveReplica = `UPDATE replicas SET seen_at = clock_timestamp(), stopped_at = clock_timestamp() WHERE name = $1 AND run = $2`

	selectReplicas = `
	SELECT name, run, version, schema, host, started_at, seen_at, beats, coalesce(stopped_at, '-infinity') > '-infinity', seen_at >= clock_timestamp() - $1::interval
	FROM replicas WHERE $2 = '' OR name = $2 ORDER BY name`

	forgetReplicas = `DELETE FROM replicas WHERE seen_at < clock_timestamp() - $1::interval`
)

// EnterReplica puts a replica on record under its name. It returns *ca.NameTakenError while the name is another run's.
func (s *Store) EnterReplica(ctx context.Context, r ca.Replica, about ca.About, before *ca.Seen) error {
	schema, err := latestMigration(migrations.FS)
	if err != nil {
		return err
	}
	var run string
	var beats int64
	if before != nil {
		run, beats = before.Run, before.Beats
	}
	doing := "entering replica " + r.Name
	err = s.inTx(ctx, doing, found(selectEntered, r.Name, r.Run), func(ctx context.Context, tx pgx.Tx) error {
		return mustMatch(tx.Exec(ctx, enterReplica, r.Name, r.Run, about.Version, schema, about.Host, ca.SilentAfter, run, beats))
	})
	if !errors.Is(err, ca.ErrFenced) {
		return err
	}
	holders, err := s.replicas(ctx, r.Name)
	if err != nil {
		return err
	}
	if len(holders) == 0 { // forgotten in between
		return describe(doing, ca.ErrUnavailable)
	}
	return &ca.NameTakenError{Seen: holders[0]}
}

// Beat is a sign of life. ca.ErrFenced: the name has been given to another run.
func (s *Store) Beat(ctx context.Context, r ca.Replica) error {
	return s.inTx(ctx, "giving a sign of life", again, func(ctx context.Context, tx pgx.Tx) error {
		return mustMatch(tx.Exec(ctx, beat, r.Name, r.Run))
	})
}

// LeaveReplica records that a replica stopped in good order. The name of another run stays as it is.
func (s *Store) LeaveReplica(ctx context.Context, r ca.Replica) error {
	return s.inTx(ctx, "leaving", again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, leaveReplica, r.Name, r.Run)
		return err
	})
}

// ForgetReplicas takes those off the record of which nobody has heard for an age.
func (s *Store) ForgetReplicas(ctx context.Context, t ca.Term, age time.Duration) error {
	return s.asLeader(ctx, "forgetting replicas that are gone", t, again, func(b *pgx.Batch) { b.Queue(forgetReplicas, age) })
}

// Replicas are those on record, by name: the living ones, and those that stopped, or died, in the last days.
func (s *Store) Replicas(ctx context.Context) ([]ca.Seen, error) { return s.replicas(ctx, "") }

func (s *Store) replicas(ctx context.Context, name string) (all []ca.Seen, err error) {
	err = s.read(ctx, "reading the replicas", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectReplicas, ca.SilentAfter, name)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r ca.Seen, err error) {
			var stopped, heard bool
			err = row.Scan(&r.Name, &r.Run, &r.Version, &r.Schema, &r.Host, &r.StartedAt, &r.SeenAt, &r.Beats, &stopped, &heard)
			r.StartedAt, r.SeenAt = r.StartedAt.UTC(), r.SeenAt.UTC()
			switch {
			case stopped:
				r.State = ca.ReplicaStopped
			case heard:
				r.State = ca.ReplicaAlive
			default:
				r.State = ca.ReplicaSilent
			}
			return r, err
		})
		return err
	})
	return all, err
}
