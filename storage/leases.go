package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

const (
	// provideLease and claimLease: a lease that runs is not locked, so that asking for it never waits for the leader's own transactions.
	// Every moment is the database's. A lease that ends later than one which began now was given before the clock was put back: it is over,
	// for its leader may be gone, and would be missed until the old time comes again. One that lives loses its term at most, by the fence.
	provideLease = `INSERT INTO leases (duty) VALUES ($1) ON CONFLICT (duty) DO NOTHING`
	claimLease   = `
	UPDATE leases SET fence = fence + 1, holder = $2, run = $3, since = clock_timestamp(), lease_until = clock_timestamp() + $4::interval
	WHERE duty = $1 AND (holder IS NULL OR holder = $2 OR lease_until < clock_timestamp()
		OR lease_until > clock_timestamp() + $4::interval + interval '1 second')
	RETURNING fence, since`

	renewLease  = `UPDATE leases SET lease_until = clock_timestamp() + $3::interval WHERE duty = $1 AND fence = $2 AND holder IS NOT NULL`
	resignLease = `UPDATE leases SET holder = NULL, run = NULL, lease_until = '-infinity' WHERE duty = $1 AND fence = $2`

	holdTerm     = `SELECT hold_term($1, $2)`
	termIsOver   = "CH001"
	selectLeases = `SELECT duty, holder, run, fence, since, lease_until, lease_until >= clock_timestamp() FROM leases WHERE holder IS NOT NULL ORDER BY duty`
)

// again says of a write that it may be done again: what an earlier try did makes no difference.
func again(context.Context, querier) (bool, error) { return false, nil }

// ClaimLease makes a replica the leader of a duty. One whose acknowledgement was lost is claimed again by the same replica at once, with a
// higher fence.
func (s *Store) ClaimLease(ctx context.Context, duty ca.Duty, by ca.Replica, lease time.Duration) (ca.Term, error) {
	term := ca.Term{Duty: duty}
	err := s.inBatch(ctx, "claiming the lead of "+string(duty), again, func(b *pgx.Batch) {
		b.Queue(provideLease, duty)
		b.Queue(claimLease, duty, by.Name, by.Run, lease).Query(func(rows pgx.Rows) error {
			claimed := false
			_, err := pgx.ForEachRow(rows, []any{&term.Fence, &term.Since}, func() error { claimed = true; return nil })
			if err == nil && !claimed {
				return ca.ErrFenced
			}
			return err
		})
	})
	if err != nil {
		return ca.Term{}, err
	}
	term.Since = term.Since.UTC()
	return term, nil
}

// RenewLease lets a term last longer.
func (s *Store) RenewLease(ctx context.Context, t ca.Term, lease time.Duration) error {
	return s.inTx(ctx, "keeping the lead of "+string(t.Duty), again, func(ctx context.Context, tx pgx.Tx) error {
		return mustMatch(tx.Exec(ctx, renewLease, t.Duty, t.Fence, lease))
	})
}

// ResignLease ends a term. One that is over already stays as it is.
func (s *Store) ResignLease(ctx context.Context, t ca.Term) error {
	return s.inTx(ctx, "giving up the lead of "+string(t.Duty), again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, resignLease, t.Duty, t.Fence)
		return err
	})
}

// asLeader carries out an act of a term: ca.ErrFenced, and nothing done, when the term is over. The act is one round trip, so that a
// leader that is stopped in the middle holds nothing up: the server ends what it was sent.
func (s *Store) asLeader(ctx context.Context, doing string, t ca.Term, done landed, queue func(*pgx.Batch)) error {
	err := s.inBatch(ctx, doing, done, func(b *pgx.Batch) {
		b.Queue(holdTerm, t.Duty, t.Fence)
		queue(b)
	})
	if sqlState(err) == termIsOver {
		return fmt.Errorf("%s: %w", doing, ca.ErrFenced)
	}
	return err
}

// Leads are the duties that are led now, or whose leader has not been replaced.
func (s *Store) Leads(ctx context.Context) (all []ca.Lead, err error) {
	err = s.read(ctx, "reading who leads", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectLeases)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l ca.Lead, err error) {
			err = row.Scan(&l.Duty, &l.Leader.Name, &l.Leader.Run, &l.Fence, &l.Since, &l.Until, &l.Holds)
			l.Since, l.Until = l.Since.UTC(), l.Until.UTC()
			return l, err
		})
		return err
	})
	return all, err
}
