package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	insertSession = `
	INSERT INTO console_sessions (id, sha256, actor_id, actor, method, provider, token_id, idle, expires_at)
	VALUES ($1::text::uuid, $2, $3, $4::text::jsonb, $5, $6, $7, $8, now() + $9::interval)`

	selectSameSession = `SELECT EXISTS (SELECT FROM console_sessions WHERE id = $1::text::uuid)`

	goodToken = `EXISTS (
		SELECT FROM api_tokens t
		WHERE t.id = token_id AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
			AND (t.retires_at IS NULL OR t.retires_at > now()))`

	selectSession = `
	SELECT id::text, actor::text, method, provider, coalesce(token_id, ''), idle, opened_at, expires_at, seen_at < now() - least(idle / 4,
		interval '1 minute')
	FROM console_sessions
	WHERE sha256 = $1 AND ended_at IS NULL AND expires_at > now() AND seen_at > now() - idle AND (token_id IS NULL OR ` + goodToken + `)`

	// touchSession is written once a minute at most, however often the session is used.
	touchSession = `UPDATE console_sessions SET seen_at = now() WHERE id = $1::text::uuid AND ended_at IS NULL AND seen_at < now()`

	endSessions = `
	UPDATE console_sessions SET ended_at = now()
	WHERE (id = $1::text::uuid OR $2 AND actor_id = $3) AND ended_at IS NULL AND expires_at > now()`

	selectSessionEnded = `SELECT EXISTS (SELECT FROM console_sessions WHERE id = $1::text::uuid AND ended_at IS NOT NULL)`

	// Those that ended long ago are forgotten when others are opened: that they were there stands in the audit log.
	forgetSessions = `
	DELETE FROM console_sessions WHERE id IN (SELECT id FROM console_sessions WHERE expires_at < now() - interval '1 day' LIMIT 100)`
	// Links are forgotten when others are offered, too: whoever has a token offers as many as there are requests, and opens none.
	forgetLogins = `
	DELETE FROM console_logins
	WHERE sha256 IN (
		SELECT sha256 FROM console_logins WHERE expires_at < now() - interval '1 hour' ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`

	insertLogin = `
	INSERT INTO console_logins (sha256, token_id, expires_at)
	SELECT $1, token_id, now() + $3::interval FROM (SELECT $2::text AS token_id) AS asked WHERE ` + goodToken + `
	RETURNING expires_at`

	selectSameLogin = `SELECT EXISTS (SELECT FROM console_logins WHERE sha256 = $1)`

	selectLogin = `
	SELECT t.sha256 FROM console_logins l JOIN api_tokens t ON t.id = l.token_id
	WHERE l.sha256 = $1 AND l.session_id IS NULL AND l.expires_at > now()`

	takeLogin = `
	UPDATE console_logins SET session_id = $2::text::uuid
	WHERE sha256 = $1 AND token_id = $3 AND session_id IS NULL AND expires_at > now() AND ` + goodToken
)

// OpenSession keeps a session under the digest of its secret. A crash before the commit leaves a link unused; one after it leaves a
// session whose cookie no browser has, which runs out.
func (s *Store) OpenSession(ctx context.Context, session ca.Session, secret [32]byte, login *[32]byte, life time.Duration,
	leaves ...audit.Leaf,
) error {
	actor, err := json.Marshal(session.Actor)
	if err != nil {
		return fmt.Errorf("encoding the actor of a session: %w", err)
	}
	var token *string
	if session.Token != "" {
		token = &session.Token
	}
	return s.inTx(ctx, "opening a session", found(selectSameSession, session.ID), func(ctx context.Context, tx pgx.Tx) error {
		for _, forget := range []string{forgetSessions, forgetLogins} {
			if _, err := tx.Exec(ctx, forget); err != nil {
				return err
			}
		}
		if login != nil {
			tag, err := tx.Exec(ctx, takeLogin, login[:], session.ID, session.Token)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				return ca.ErrNotFound
			}
		}
		if _, err := tx.Exec(ctx, insertSession, session.ID, secret[:], session.Actor.ID, string(actor), session.Method, session.Provider, token,
			session.Idle, life); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// Session finds a session and notes that it is used.
func (s *Store) Session(ctx context.Context, secret [32]byte) (found ca.Session, err error) {
	var stale bool
	err = s.read(ctx, "looking up a session", func(ctx context.Context, db querier) error {
		var actor string
		err := db.QueryRow(ctx, selectSession, secret[:]).Scan(&found.ID, &actor, &found.Method, &found.Provider, &found.Token, &found.Idle,
			&found.OpenedAt, &found.ExpiresAt, &stale)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		if err != nil {
			return err
		}
		found.OpenedAt, found.ExpiresAt = found.OpenedAt.UTC(), found.ExpiresAt.UTC()
		return json.Unmarshal([]byte(actor), &found.Actor)
	})
	if err != nil || !stale {
		return found, err
	}
	err = s.inTx(ctx, "noting that a session is used", again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, touchSession, found.ID)
		return err
	})
	return found, err
}

// EndSessions ends a session, or all of its actor.
func (s *Store) EndSessions(ctx context.Context, session ca.Session, everywhere bool, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "ending a session", found(selectSessionEnded, session.ID), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, endSessions, session.ID, everywhere, session.Actor.ID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// OfferLogin keeps a link for the owner of an API token.
func (s *Store) OfferLogin(ctx context.Context, login [32]byte, token string, life time.Duration) (expires time.Time, err error) {
	err = s.inTx(ctx, "offering a login", found(selectSameLogin, login[:]), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, forgetLogins); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, insertLogin, login[:], token, life).Scan(&expires)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		return err
	})
	return expires.UTC(), err
}

// OfferedLogin tells whose a link is, without using it up.
func (s *Store) OfferedLogin(ctx context.Context, login [32]byte) (actor access.Actor, err error) {
	err = s.read(ctx, "looking up a login", func(ctx context.Context, db querier) error {
		var token []byte
		err := db.QueryRow(ctx, selectLogin, login[:]).Scan(&token)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		if err != nil {
			return err
		}
		digest := [32]byte(token)
		actors, err := actorsByToken(ctx, db, [][32]byte{digest})
		if err != nil {
			return err
		}
		if actors[digest] == nil {
			return ca.ErrNotFound
		}
		actor = *actors[digest]
		return nil
	})
	return actor, err
}
