package storage

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// selectTaken counts as admit_intents does, and takes nothing.
	selectTaken = `
	SELECT r.n::integer, greatest(
		(SELECT coalesce(sum(t.taken), 0) FROM reservations AS t
			WHERE t.kind = r.kind AND t.scope = r.scope AND t.key = r.key AND t.span = r.span
				AND (r.span = 0 OR t.part >= (floor(extract(epoch FROM clock_timestamp()))::bigint - r.span) / greatest(1, (r.span + 59) / 60))),
		CASE WHEN r.kind = 'key' AND r.key ~ '^[0-9a-f]{64}$'
			THEN (SELECT count(*) FROM certificates AS c WHERE c.spki_sha256 = decode(r.key, 'hex') AND c.kind = 'final')
				+ (SELECT coalesce(sum(k.certificates), 0) FROM archived_keys AS k WHERE k.spki_sha256 = decode(r.key, 'hex')) ELSE 0 END)::bigint
	FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS r (kind, scope, key, span, n)`

	forgetReservations = `
	DELETE FROM reservations WHERE ctid = ANY (ARRAY (SELECT ctid FROM reservations WHERE until < now() LIMIT $1))`
)

// ReservationsTaken tells how much of each reservation is taken now. It changes nothing and promises nothing.
func (s *Store) ReservationsTaken(ctx context.Context, all []policies.Reservation) ([]policies.Usage, error) {
	if len(all) == 0 {
		return nil, nil
	}
	usage := make([]policies.Usage, len(all))
	var c columns
	for i, r := range all {
		usage[i] = policies.Usage{Kind: r.Kind, Scope: r.Scope, Key: r.Key}
		c.add(string(r.Kind), r.Scope, r.Key, int64(r.Window/time.Second))
	}
	err := s.read(ctx, "counting reservations", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectTaken, c.arrays()...)
		if err != nil {
			return err
		}
		var place int
		var taken int64
		_, err = pgx.ForEachRow(rows, []any{&place, &taken}, func() error {
			usage[place-1].Used = int(taken)
			return nil
		})
		return err
	})
	return usage, err
}

// ForgetReservations deletes the counts that no window holds any more, and tells how many there were. It is to be called now and then, by
// the leader of upkeep: ca.ErrFenced when its term is over.
func (s *Store) ForgetReservations(ctx context.Context, t ca.Term) (forgotten int64, err error) {
	return s.forgetMany(ctx, "forgetting old reservations", t, forgetReservations)
}
