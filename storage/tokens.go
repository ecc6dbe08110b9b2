package storage

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	insertToken = `
	INSERT INTO api_tokens (id, sha256, name, person, namespace, roles, profiles, networks, created_at, created_by, expires_at, replaces)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, nullif($12, ''))`

	selectSameToken = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1 AND sha256 = $2)`

	selectTokenExists = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1)`

	tokenColumns = `
	id, name, person, namespace, roles, profiles, networks, created_at, created_by, expires_at, coalesce(replaces, ''), retires_at, revoked_at,
	last_used_at, coalesce(last_used_from, '') `

	selectTokens = `SELECT` + tokenColumns + `FROM api_tokens WHERE $1 IN (namespace, '*') ORDER BY created_at, id`

	selectToken = `SELECT` + tokenColumns + `FROM api_tokens WHERE id = $1`

	// selectActors goes by the database's clock, which all replicas share. Every call of the API asks it, so it must keep its plan: Postgres
	// thinks that it saves more by planning = ANY, or unnest, anew each time, which takes longer than the look. OFFSET 0 keeps it from reading
	// all tokens instead.
	selectActors = `
	SELECT t.sha256, t.id, t.name, t.person, t.namespace, t.roles, t.created_by, t.profiles, t.networks
	FROM generate_subscripts($1::bytea[], 1) AS n, LATERAL (
		SELECT * FROM api_tokens
		WHERE sha256 = ($1::bytea[])[n] AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
			AND (retires_at IS NULL OR retires_at > now())
		OFFSET 0
	) AS t`

	// retireToken holds the row until the successor is there: two who rotate at once find one another.
	retireToken = `
	UPDATE api_tokens SET retires_at = $2
	WHERE id = $1 AND revoked_at IS NULL AND retires_at IS NULL AND (expires_at IS NULL OR expires_at > now())`

	// useTokens never goes back, whichever replica comes last.
	useTokens = `
	UPDATE api_tokens t SET last_used_at = u.at, last_used_from = nullif(u.origin, '')
	FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS u (id, at, origin)
	WHERE t.id = u.id AND (t.last_used_at IS NULL OR t.last_used_at < u.at)`

	revokeToken = `UPDATE api_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL`

	selectTokenRevoked = `SELECT EXISTS (SELECT FROM api_tokens WHERE id = $1 AND revoked_at IS NOT NULL)`
)

// CreateToken keeps a token under the SHA-256 digest of its text. It returns ca.ErrExists when the ID or the digest is taken.
func (s *Store) CreateToken(ctx context.Context, t ca.APIToken, sha256 [32]byte, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "creating an API token", found(selectSameToken, t.ID, sha256[:]), func(ctx context.Context, tx pgx.Tx) error {
		if err := addToken(ctx, tx, t, sha256); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

func addToken(ctx context.Context, tx pgx.Tx, t ca.APIToken, sha256 [32]byte) error {
	networks := make([]string, len(t.Scope.Networks))
	for i, n := range t.Scope.Networks {
		networks[i] = n.String()
	}
	_, err := tx.Exec(ctx, insertToken, t.ID, sha256[:], t.Name, t.Person, t.Namespace, namesOf(t.Roles),
		append([]string{}, t.Scope.Profiles...), networks,
		t.CreatedAt, t.CreatedBy, orNull(t.ExpiresAt), t.Replaces)
	if sqlState(err) == "23505" {
		return ca.ErrExists
	}
	return err
}

// RotateToken keeps the successor of a token, and ends the token itself at a time.
func (s *Store) RotateToken(ctx context.Context, t ca.APIToken, sha256 [32]byte, retires time.Time, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "rotating an API token", found(selectSameToken, t.ID, sha256[:]), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, retireToken, t.Replaces, retires)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return orNotFound(ctx, tx, t.Replaces, ca.ErrTokenEnded)
		}
		if err := addToken(ctx, tx, t, sha256); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// orNotFound is ca.ErrNotFound when there is no token of an ID, and otherwise an error of the caller's.
func orNotFound(ctx context.Context, tx pgx.Tx, id string, otherwise error) error {
	var exists bool
	if err := tx.QueryRow(ctx, selectTokenExists, id).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		return ca.ErrNotFound
	}
	return otherwise
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
	var createdBy string
	var roles, profiles, networks []string
	_, err = pgx.ForEachRow(rows, []any{&digest, &a.ID, &a.Name, &a.Person, &a.Namespace, &roles, &createdBy, &profiles, &networks},
		func() (err error) {
			actor := a
			actor.Roles = asRoles(roles, createdBy)
			if actor.Scope, err = asScope(profiles, networks); err != nil {
				return err
			}
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
		return orNotFound(ctx, tx, id, nil)
	})
}

// Tokens are the tokens of a namespace, or all for access.AllNamespaces, oldest first.
func (s *Store) Tokens(ctx context.Context, namespace string) (all []ca.APIToken, err error) {
	err = s.read(ctx, "reading the API tokens", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectTokens, namespace)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanToken)
		return err
	})
	return all, err
}

// Token is one token; ca.ErrNotFound when there is none.
func (s *Store) Token(ctx context.Context, id string) (t ca.APIToken, err error) {
	err = s.read(ctx, "reading an API token", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectToken, id)
		if err != nil {
			return err
		}
		t, err = pgx.CollectExactlyOneRow(rows, scanToken)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		return err
	})
	return t, err
}

// RecordTokenUses keeps when tokens were last used. What it writes is no fact that anything is decided by.
func (s *Store) RecordTokenUses(ctx context.Context, uses []ca.TokenUse) error {
	ids, at, from := make([]string, len(uses)), make([]time.Time, len(uses)), make([]string, len(uses))
	for i, u := range uses {
		ids[i], at[i] = u.ID, u.At
		if u.From.IsValid() {
			from[i] = u.From.String()
		}
	}
	again := found(`SELECT false`) // the same once more changes nothing
	return s.inTx(ctx, "recording the use of API tokens", again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, useTokens, ids, at, from)
		return err
	})
}

func scanToken(row pgx.CollectableRow) (t ca.APIToken, err error) {
	var roles, profiles, networks []string
	var expires, retires, revoked, used *time.Time
	var from string
	if err := row.Scan(&t.ID, &t.Name, &t.Person, &t.Namespace, &roles, &profiles, &networks, &t.CreatedAt, &t.CreatedBy, &expires,
		&t.Replaces, &retires,
		&revoked, &used, &from); err != nil {
		return t, err
	}
	t.Roles, t.CreatedAt, t.ExpiresAt, t.RevokedAt = asRoles(roles, t.CreatedBy), t.CreatedAt.UTC(), orZero(expires), orZero(revoked)
	t.RetiresAt, t.LastUsedAt = orZero(retires), orZero(used)
	if from != "" {
		if t.LastUsedFrom, err = netip.ParseAddr(from); err != nil {
			return t, fmt.Errorf("reading where token %q was used from: %w", t.ID, err)
		}
	}
	t.Scope, err = asScope(profiles, networks)
	return t, err
}

// asScope reads a scope strictly: a token whose scope is damaged must not be one without a scope.
func asScope(profiles, networks []string) (s access.Scope, err error) {
	if len(profiles) > 0 {
		s.Profiles = profiles
	}
	for _, text := range networks {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			return s, fmt.Errorf("reading the networks of an API token: %w", err)
		}
		s.Networks = append(s.Networks, n)
	}
	return s, nil
}

func namesOf(roles []access.Role) []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return names
}

// asRoles are the roles of a token. An operator that was made by a program which knew no policy admins is one as well, as it could change
// the policies then.
func asRoles(names []string, createdBy string) []access.Role {
	roles := make([]access.Role, len(names))
	for i, n := range names {
		roles[i] = access.Role(n)
	}
	if createdBy == "" && slices.Contains(roles, access.Operator) && !slices.Contains(roles, access.PolicyAdmin) {
		roles = append(roles, access.PolicyAdmin)
	}
	return roles
}
