package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	insertOrder = `
	INSERT INTO orders (id, kind, facts, binding, needs, signed, actor, person, comment, at, expires_at, event_id)
	VALUES ($1::text::uuid, $2, $3::text::jsonb, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::uuid)`

	selectSameOrder = `SELECT EXISTS (SELECT FROM orders WHERE id = $1::text::uuid AND binding = $2)`

	selectOrders = `
	SELECT o.id::text, o.kind, o.facts::text, o.binding, o.needs, o.signed, o.actor, o.person, o.comment, o.at, o.expires_at,
		o.event_id::text, u.at
	FROM orders AS o LEFT JOIN order_uses AS u ON u.order_id = o.id
	WHERE $1 IN ('', o.id::text) ORDER BY o.at DESC, o.id DESC LIMIT $2`

	selectOrderVotes = `
	SELECT v.order_id::text, v.person, v.approves, v.actor, v.comment, v.at, v.event_id::text,` + evidenceColumns + `
	FROM order_votes AS v` + evidenceJoin + `v.actor
	WHERE v.order_id = ANY ($1::text[]::uuid[]) ORDER BY v.at, v.person`

	// lockOrder has those who decide on an order, and whoever uses it, take turns.
	lockOrder = `SELECT pg_advisory_xact_lock(hashtextextended('order ' || $1::text, 0))`

	selectOrderOpen = `
	SELECT o.expires_at > now() AND NOT EXISTS (SELECT FROM order_uses AS u WHERE u.order_id = o.id)
		AND NOT EXISTS (SELECT FROM order_votes AS v WHERE v.order_id = o.id AND NOT v.approves)
	FROM orders AS o WHERE o.id = $1::text::uuid`

	insertOrderVote = `
	INSERT INTO order_votes (order_id, person, approves, actor, comment, at, event_id)
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7::text::uuid) ON CONFLICT (order_id, person) DO NOTHING`

	selectSameOrderVote = `SELECT EXISTS (SELECT FROM order_votes WHERE order_id = $1::text::uuid AND person = $2
		AND event_id = $3::text::uuid)`

	insertOrderUse = `INSERT INTO order_uses (order_id, actor, at, event_id) VALUES ($1::text::uuid, $2, $3, $4::text::uuid)
		ON CONFLICT DO NOTHING`

	selectSameOrderUse = `SELECT EXISTS (SELECT FROM order_uses WHERE order_id = $1::text::uuid AND event_id = $2::text::uuid)`
)

// RecordOrder adds an order.
func (s *Store) RecordOrder(ctx context.Context, o ca.ActOrder, leaves ...audit.Leaf) error {
	facts, err := json.Marshal(o.Facts)
	if err != nil {
		return fmt.Errorf("encoding the facts of an order: %w", err)
	}
	return s.inTx(ctx, "placing an order", found(selectSameOrder, o.ID, o.Binding), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertOrder, o.ID, o.Kind, string(facts), o.Binding, o.Needs, o.Signed, o.Actor, o.Person, o.Comment, o.At,
			o.ExpiresAt,
			o.EventID); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// Orders are the latest orders, newest first, with their votes: one or all.
func (s *Store) Orders(ctx context.Context, id string, limit int) (all []ca.ActOrder, err error) {
	err = s.read(ctx, "reading orders", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectOrders, id, limit)
		if err != nil {
			return err
		}
		if all, err = pgx.CollectRows(rows, scanOrder); err != nil {
			return err
		}
		place, ids := map[string]int{}, make([]string, len(all))
		for i, o := range all {
			place[o.ID], ids[i] = i, o.ID
		}
		if rows, err = db.Query(ctx, selectOrderVotes, ids); err != nil {
			return err
		}
		var order string
		var v ca.OrderVote
		var e evidenceRow
		_, err = pgx.ForEachRow(rows, append([]any{&order, &v.Person, &v.Approves, &v.Actor, &v.Comment, &v.At, &v.EventID}, e.into()...),
			func() (err error) {
				v.At, v.Withdrawn = v.At.UTC(), e.withdrawn
				v.Evidence, err = e.evidence(order)
				o := &all[place[order]]
				o.Votes = append(o.Votes, v)
				return err
			})
		return err
	})
	return all, err
}

func scanOrder(row pgx.CollectableRow) (o ca.ActOrder, err error) {
	var facts string
	var used *time.Time
	if err := row.Scan(&o.ID, &o.Kind, &facts, &o.Binding, &o.Needs, &o.Signed, &o.Actor, &o.Person, &o.Comment, &o.At, &o.ExpiresAt,
		&o.EventID,
		&used); err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(facts), &o.Facts); err != nil {
		return o, fmt.Errorf("reading order %s: %w", o.ID, err)
	}
	o.At, o.ExpiresAt, o.UsedAt = o.At.UTC(), o.ExpiresAt.UTC(), orZero(used)
	return o, nil
}

// openOrder locks an order; ca.ErrDecided when nothing can be said to it any more, nor done.
func openOrder(ctx context.Context, tx pgx.Tx, order string) error {
	if _, err := tx.Exec(ctx, lockOrder, order); err != nil {
		return err
	}
	var open bool
	switch err := tx.QueryRow(ctx, selectOrderOpen, order).Scan(&open); {
	case errors.Is(err, pgx.ErrNoRows):
		return ca.ErrNotFound
	case err != nil:
		return err
	case !open:
		return ca.ErrDecided
	}
	return nil
}

// VoteOnOrder records what a person says to an order.
func (s *Store) VoteOnOrder(ctx context.Context, order string, v ca.OrderVote, leaves ...audit.Leaf) error {
	done := found(selectSameOrderVote, order, v.Person, v.EventID)
	return s.inTx(ctx, "deciding on an order", done, func(ctx context.Context, tx pgx.Tx) error {
		if err := openOrder(ctx, tx, order); err != nil {
			return err
		}
		err := addWord(ctx, tx, v.EventID, v.Evidence, insertOrderVote, order, v.Person, v.Approves, v.Actor, v.Comment, v.At, v.EventID)
		if err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// UseOrder records that an order is begun to be carried out.
func (s *Store) UseOrder(ctx context.Context, order, actor string, at time.Time, event string, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "using an order", found(selectSameOrderUse, order, event), func(ctx context.Context, tx pgx.Tx) error {
		if err := openOrder(ctx, tx, order); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, insertOrderUse, order, actor, at, event)
		switch {
		case err != nil:
			return err
		case tag.RowsAffected() == 0:
			return ca.ErrDecided
		}
		return addLeaves(ctx, tx, leaves)
	})
}
