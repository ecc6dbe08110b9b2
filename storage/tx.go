package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chancery-ca/chancery/ca"
)

// querier is what reads: a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// landed looks, by key, whether a write is on record exactly as it was meant. Every write has one. It is asked when the
// acknowledgement of a commit was lost, and when a write finds its place taken: that may be the work of an earlier try.
type landed func(ctx context.Context, db querier) (bool, error)

const (
	maxTries    = 8               // of a transaction that surely did not commit
	landingTime = 3 * time.Second // for finding out what became of a commit
)

// durableSoFar is a commit of its own with something in it. Once it is acknowledged, everything that could be read before is as durable
// as this: a row may be seen before it has reached the standbys, when its own commit was cut off from waiting for them.
const durableSoFar = `SELECT pg_logical_emit_message(true, 'chancery', 'durable')`

// write runs try until its outcome is certain. Serialization failures, deadlocks and connections that broke before a commit was sent
// mean that nothing was written: it is tried again. When a connection broke with the commit under way, the outcome is looked up and
// the transaction never repeated.
func (s *Store) write(ctx context.Context, doing string, done landed, try func(context.Context) (sent bool, err error)) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for n := 1; ; n++ {
		began := time.Now()
		sent, err := try(ctx)
		if err == nil {
			return nil
		}
		if n < maxTries && (isConflict(err) || !sent && isBroken(err)) && ctx.Err() == nil {
			s.forget(n, err, began)
			if pause(ctx, time.Duration(n)*time.Millisecond+rand.N(10*time.Millisecond)) == nil {
				continue
			}
		}
		if readOnly(err) {
			s.renew(began) // after a failover the address may lead to another server
		}
		if sent && isBroken(err) || isTaken(err) {
			if s.hasLanded(ctx, done) {
				return nil
			}
		}
		return describe(doing, err)
	}
}

// hasLanded asks done until it gets an answer, or time is up. The caller's deadline does not count: it may be what broke the commit.
// "No" is no proof, for the server may still be at it.
func (s *Store) hasLanded(ctx context.Context, done landed) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), landingTime)
	defer cancel()
	for {
		found, err := s.lookUp(ctx, done)
		if err == nil {
			return found
		}
		if !isBroken(err) && !errors.Is(describe("", err), ca.ErrUnavailable) || pause(ctx, 50*time.Millisecond) != nil {
			s.log.WarnContext(ctx, "the outcome of a commit could not be looked up", "error", err)
			return false
		}
	}
}

// lookUp asks done, and has what it finds be as durable as what is acknowledged. That is one connection's business: while a server takes over from
// another, two connections may lead to either, and one would answer for what the other lacks.
func (s *Store) lookUp(ctx context.Context, done landed) (found bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	if found, err = done(ctx, conn); err != nil || !found {
		return false, err
	}
	if _, err := conn.Exec(ctx, durableSoFar); err != nil {
		return false, err
	}
	return true, nil
}

// readPromise is read for what a client takes as a promise: that there is a certificate, or that it is revoked. fn tells whether it found
// any. Where commits wait for standbys that is waited for as well: what can be read here may be on none of them, when its own commit was cut
// off from waiting, and its caller was told that it is not known to be on record.
func (s *Store) readPromise(ctx context.Context, doing string, fn func(ctx context.Context, db querier) (found bool, err error)) error {
	return s.read(ctx, doing, func(ctx context.Context, db querier) error {
		if !s.replicated {
			_, err := fn(ctx, db)
			return err
		}
		_, err := s.lookUp(ctx, fn)
		return err
	})
}

// inTx runs fn in a transaction.
func (s *Store) inTx(ctx context.Context, doing string, done landed, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return s.write(ctx, doing, done, func(ctx context.Context) (bool, error) {
		return s.tryTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error { return fn(ctx, tx) })
	})
}

func (s *Store) tryTx(ctx context.Context, options pgx.TxOptions, fn func(tx pgx.Tx) error) (sent bool, err error) {
	tx, err := s.pool.BeginTx(ctx, options)
	if err != nil {
		return false, err
	}
	if err := fn(tx); err != nil {
		// A transaction that cannot be rolled back ends with its connection, which the pool then drops.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ending)
		return false, err
	}
	return true, tx.Commit(ctx)
}

// inBatch sends statements in one round trip; they are one transaction, which the server commits at the batch's end. There is no way
// back from inside: a statement whose condition fails must write nothing by itself.
func (s *Store) inBatch(ctx context.Context, doing string, done landed, queue func(*pgx.Batch)) error {
	return s.write(ctx, doing, done, func(ctx context.Context) (sent bool, err error) { return s.inOneTrip(ctx, queue) })
}

// inOneTrip tries a batch once. sent tells that it may have reached the server.
func (s *Store) inOneTrip(ctx context.Context, queue func(*pgx.Batch)) (sent bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	return true, sendBatch(ctx, conn, queue)
}

func sendBatch(ctx context.Context, conn *pgxpool.Conn, queue func(*pgx.Batch)) error {
	var batch pgx.Batch
	queue(&batch)
	return conn.SendBatch(ctx, &batch).Close()
}

// read runs a query that may be repeated at will. It is, where a connection from the pool turned out to be dead.
func (s *Store) read(ctx context.Context, doing string, fn func(ctx context.Context, db querier) error) error {
	const tries = 3
	ctx, cancel := bounded(ctx)
	defer cancel()
	for n := 1; ; n++ {
		began := time.Now()
		err := fn(ctx, s.pool)
		if n == tries || !isBroken(err) || ctx.Err() != nil {
			return describe(doing, err)
		}
		s.forget(n, err, began)
	}
}

// forget drops all connections when a second one in a row was dead: after a restart of the server all of them are. began is when the try
// did that met it.
func (s *Store) forget(n int, err error, began time.Time) {
	if n == 2 && isBroken(err) {
		s.renew(began)
	}
}

// renew drops every connection that there is, those in use when they are free, for a try that met one which is of no use; unless that was
// done since the try began. When a server has come back many calls find that theirs is dead, or leads to where nothing can be written: one
// of them does this for all. Otherwise each would drop what was made for those before it, and the server be busy with nothing but
// connections.
func (s *Store) renew(began time.Time) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	if s.renewed.After(began) {
		return
	}
	s.renewed = time.Now()
	s.pool.Reset()
}

// isConflict tells errors after which the same transaction may succeed: serialization failures and deadlocks.
func isConflict(err error) bool {
	code := sqlState(err)
	return code == "40001" || code == "40P01"
}

// isTaken tells outcomes that the same write, done before, would bring about.
func isTaken(err error) bool {
	return sqlState(err) == "23505" || errors.Is(err, ca.ErrIntentLost) || errors.Is(err, ca.ErrFenced) || errors.Is(err, ca.ErrExists) ||
		errors.Is(err, ca.ErrDecided) || errors.Is(err, ca.ErrTokenEnded)
}

// isLocked tells that a lock was not to be had in time: it is somebody's, and what does not need it goes on without.
func isLocked(err error) bool { return sqlState(err) == "55P03" }

func readOnly(err error) bool { return sqlState(err) == "25006" }

// isBroken tells errors that say nothing of what the server did: the connection ended, or the server ended the session.
func isBroken(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.SeverityUnlocalized == "FATAL" || pg.SeverityUnlocalized == "PANIC"
	}
	return err != nil && !isOurs(err)
}

// isOurs tells errors that this package made from an answer of the server's.
func isOurs(err error) bool {
	for _, ours := range []error{
		ca.ErrNotFound, ca.ErrIntentLost, ca.ErrFenced, ca.ErrExists, ca.ErrKeyCompromised, ca.ErrIdempotencyMismatch, ca.ErrIdempotencyBusy,
		ca.ErrDecided, ca.ErrTokenEnded, ca.ErrProposalClosed, ca.ErrStalePosition, ca.ErrNotLogged, ca.ErrLogMoved, ErrSchema, ErrPrivileges,
		pgx.ErrNoRows, pgx.ErrTxCommitRollback, errKeyTaken,
		errNotArchivable,
	} {
		if errors.Is(err, ours) {
			return true
		}
	}
	var scan pgx.ScanArgError
	var unsafe *UnsafeError
	var invalid *ca.InvalidError
	var replay *ca.Replay
	var exhausted *ca.ExhaustedError
	return errors.As(err, &scan) || errors.As(err, &unsafe) || errors.As(err, &invalid) || errors.As(err, &replay) ||
		errors.As(err, &exhausted)
}

// describe says what was being done and, of an error that may pass, that the database is unavailable.
func describe(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case isOurs(err) || errors.Is(err, ca.ErrUnavailable):
		return fmt.Errorf("%s: %w", doing, err)
	case isUnstorable(err):
		return fmt.Errorf("%s: %w", doing, &ca.InvalidError{
			Field: "text", Message: "a text holds NUL or is not UTF-8",
			Hint: "leave such characters out",
		})
	case isBroken(err) || mayPass(sqlState(err)):
		return fmt.Errorf("%s: %w: %w", doing, ca.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isUnstorable tells texts that Postgres cannot hold: NUL, bad UTF-8, \u0000 in JSON.
func isUnstorable(err error) bool {
	code := sqlState(err)
	return code == "22021" || code == "22P05"
}

// mayPass tells SQLSTATEs that speak of the server's condition, not of the statement (PostgreSQL, appendix A).
func mayPass(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", // connection exception
		"40", // transaction rollback, tried often enough
		"53", // insufficient resources: disk full, out of memory, too many connections
		"57", // operator intervention: shutdown, starting up, statement timeout
		"58": // system error: I/O
		return true
	}
	return code == "25006" || // read-only transaction: a standby
		code == "25P03" || // idle in transaction for too long
		code == "55P03" // lock not available in time
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
