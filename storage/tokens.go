package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	insertToken = `
	INSERT INTO api_tokens (id, sha256, name, person, namespace, roles, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

	selectSameToken = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1 AND sha256 = $2)`

	selectTokenExists = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1)`

	selectTokens = `SELECT id, name, person, namespace, roles, created_at, expires_at, revoked_at FROM api_tokens ORDER BY created_at, id`

	// selectActors goes by the database's clock, which all replicas share.
	selectActors = `
	SELECT sha256, id, name, person, namespace, roles FROM api_tokens
	WHERE sha256 = ANY ($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`

	revokeToken = `UPDATE api_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL`

	selectTokenRevoked = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1 AND revoked_at IS NOT NULL)`
)

// Token is an API token as it is kept: whose it is and what it may do, never the token itself.
type Token struct {
	ID        string
	Name      string
	Person    string // who stands behind it
	Namespace string
	Roles     []access.Role
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: not
}

// CreateToken keeps a token under the SHA-256 digest of its text. It returns ca.ErrExists when the ID or the digest is taken.
func (s *Store) CreateToken(ctx context.Context, t Token, sha256 [32]byte, leaves ...audit.Leaf) error {
	roles := make([]string, len(t.Roles))
	for i, r := range t.Roles {
		roles[i] = string(r)
	}
	return s.inTx(ctx, "creating an API token", found(selectSameToken, t.ID, sha256[:]), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertToken, t.ID, sha256[:], t.Name, t.Person, t.Namespace, roles, t.CreatedAt, orNull(t.ExpiresAt))
		if sqlState(err) == "23505" {
			return ca.ErrExists
		}
		if err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// ActorByToken is the actor whose token has a digest; ca.ErrNotFound when there is none, or it has expired or been revoked. Tokens that
// are looked up at the same time share a query; nothing is remembered from one to the next.
func (s *Store) ActorByToken(ctx context.Context, sha256 [32]byte) (access.Actor, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	actor, err := s.actors.do(ctx, sha256)
	switch {
	case err != nil:
		return access.Actor{}, err
	case actor == nil:
		return access.Actor{}, fmt.Errorf("looking up an API token: %w", ca.ErrNotFound)
	}
	return *actor, nil
}

func actorsByToken(ctx context.Context, db querier, digests [][32]byte) (map[[32]byte]*access.Actor, error) {
	rows, err := db.Query(ctx, selectActors, octets(digests))
	if err != nil {
		return nil, err
	}
	found := map[[32]byte]*access.Actor{}
	var digest []byte
	var a access.Actor
	var roles []string
	_, err = pgx.ForEachRow(rows, []any{&digest, &a.ID, &a.Name, &a.Person, &a.Namespace, &roles}, func() error {
		actor := a
		actor.Roles = asRoles(roles)
		found[[32]byte(digest)] = &actor
		return nil
	})
	return found, err
}

// RevokeToken withdraws a token from now on. One withdrawn before stays as it is and the leaves are not written; ca.ErrNotFound when
// there is no such token.
func (s *Store) RevokeToken(ctx context.Context, id string, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "revoking an API token", found(selectTokenRevoked, id), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, revokeToken, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() > 0 {
			return addLeaves(ctx, tx, leaves)
		}
		var exists bool
		if err := tx.QueryRow(ctx, selectTokenExists, id).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return ca.ErrNotFound
		}
		return nil
	})
}

// Tokens are all tokens, oldest first.
func (s *Store) Tokens(ctx context.Context) (all []Token, err error) {
	err = s.read(ctx, "reading the API tokens", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectTokens)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanToken)
		return err
	})
	return all, err
}

func scanToken(row pgx.CollectableRow) (t Token, err error) {
	var roles []string
	var expires, revoked *time.Time
	if err := row.Scan(&t.ID, &t.Name, &t.Person, &t.Namespace, &roles, &t.CreatedAt, &expires, &revoked); err != nil {
		return t, err
	}
	t.Roles, t.CreatedAt, t.ExpiresAt, t.RevokedAt = asRoles(roles), t.CreatedAt.UTC(), orZero(expires), orZero(revoked)
	return t, nil
}

func asRoles(names []string) []access.Role {
	roles := make([]access.Role, len(names))
	for i, n := range names {
		roles[i] = access.Role(n)
	}
	return roles
}
