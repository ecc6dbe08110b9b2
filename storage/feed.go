package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// selectPosition says which server this is, and which is the oldest transaction that is open. Transaction numbers may be given again
	// after a failover, which starts a new timeline, and after a crash, with which the server's statistics begin anew.
	selectPosition = `
	SELECT (SELECT system_identifier FROM pg_control_system()) || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' '
		|| coalesce((SELECT stats_reset FROM pg_stat_archiver), '-infinity')::text,
		pg_snapshot_xmin(pg_current_snapshot())::text`

	feedColumns = `issuer, serial, sequence, reason, at, invalidity_date, crl_scope, not_after, spki_sha256`

	// selectChanges leaves out numbers that this server has not come to: they are of rows that were restored from another, and were read at the start.
	selectChanges = `SELECT ` + feedColumns + ` FROM revocations
	WHERE xact >= $1::text::xid8 AND xact < pg_snapshot_xmax(pg_current_snapshot())`

	selectUnexpired = `SELECT ` + feedColumns + ` FROM revocations WHERE not_after >= now()`

	listen = `LISTEN chancery_revocations`

	// watchFallback is how long a watcher that hears nothing waits at most, and how often it tries to listen again.
	watchFallback = time.Second
)

// FeedPosition is where the feed of revocations is now.
func (s *Store) FeedPosition(ctx context.Context) (p ca.FeedPosition, err error) {
	err = s.read(ctx, "reading the position of the feed", func(ctx context.Context, db querier) (err error) {
		p, err = position(ctx, db)
		return err
	})
	return p, err
}

// position is taken before what is read: transactions that end in between are given twice, and none is missed.
func position(ctx context.Context, db querier) (p ca.FeedPosition, err error) {
	var xact string
	if err := db.QueryRow(ctx, selectPosition).Scan(&p.Server, &xact); err != nil {
		return ca.FeedPosition{}, err
	}
	p.Xact, err = strconv.ParseUint(xact, 10, 64)
	return p, err
}

// RevocationsSince reads the feed of revocations, as they come from the server.
func (s *Store) RevocationsSince(ctx context.Context, from ca.FeedPosition, yield func(ca.Revocation) error) (ca.FeedPosition, error) {
	var consumer error
	var next ca.FeedPosition
	err := s.read(ctx, "reading the feed of revocations", func(ctx context.Context, db querier) error {
		conn, err := s.pool.Acquire(ctx) // the position and what is read must be of one server
		if err != nil {
			return err
		}
		defer conn.Release()
		if next, err = position(ctx, conn); err != nil {
			return err
		}
		sql, args := selectChanges, []any{strconv.FormatUint(from.Xact, 10)}
		if !from.Leads(next) {
			sql, args = selectUnexpired, nil
		}
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		consumer, err = yieldRevocations(rows, yield)
		return err
	})
	if consumer != nil {
		return from, consumer
	}
	if err != nil {
		return from, err
	}
	return next, nil
}

// yieldRevocations tells the consumer's error from the server's.
func yieldRevocations(rows pgx.Rows, yield func(ca.Revocation) error) (consumer, err error) {
	defer rows.Close()
	for rows.Next() {
		r, err := scanFed(rows)
		if err != nil {
			return nil, err
		}
		if consumer := yield(r); consumer != nil {
			return consumer, nil
		}
	}
	return nil, rows.Err()
}

func scanFed(row pgx.Row) (r ca.Revocation, err error) {
	var reason int
	var invalidityDate *time.Time
	var spki []byte
	if err := row.Scan(&r.Issuer, &r.Serial, &r.Sequence, &reason, &r.At, &invalidityDate, &r.CRLScope, &r.NotAfter, &spki); err != nil {
		return r, err
	}
	if copy(r.SPKI[:], spki) != len(r.SPKI) {
		return r, fmt.Errorf("the key digest of revocation %x cannot be read: %w", r.Serial, errors.ErrUnsupported)
	}
	r.Reason, r.At, r.InvalidityDate, r.NotAfter = issuance.Reason(reason), r.At.UTC(), orZero(invalidityDate), r.NotAfter.UTC()
	return r, nil
}

// WatchRevocations listens on a connection of its own, beside the pool's.
func (s *Store) WatchRevocations(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		err := s.listen(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "listening for revocations failed; looking each second", "error", describe("listening", err))
		changed()
		_ = pause(ctx, watchFallback)
	}
}

// listen calls changed at each notification, and each second in case a proxy between here and the server keeps them back.
func (s *Store) listen(ctx context.Context, changed func()) error {
	config := s.pool.Config()
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ending)
	}()
	if err := config.AfterConnect(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, listen); err != nil {
		return err
	}
	for {
		changed()
		waiting, cancel := context.WithTimeout(ctx, watchFallback)
		_, err := conn.WaitForNotification(waiting)
		cancel()
		if err != nil && (ctx.Err() != nil || waiting.Err() == nil || conn.IsClosed()) {
			return err
		}
	}
}
