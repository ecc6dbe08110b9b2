package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	selectAuthorities = `
	SELECT name, parent, certificate, chain, online, key_token, key_label, key_id, crl_period, crl_validity, crl_url, issuer_url, ocsp_url, added_at
	FROM authorities ORDER BY name`

	insertAuthority = `
	INSERT INTO authorities (name, parent, certificate, chain, online, key_token, key_label, key_id, crl_period, crl_validity, crl_url,
		issuer_url, ocsp_url, added_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
	ON CONFLICT DO NOTHING`

	selectSameAuthority = `
	SELECT EXISTS (SELECT FROM authorities WHERE name = $1 AND parent = $2 AND certificate = $3 AND chain = $4 AND online = $5 AND key_token = $6
		AND key_label = $7 AND key_id = $8 AND crl_period = $9 AND crl_validity = $10 AND crl_url = $11 AND issuer_url = $12 AND ocsp_url = $13)`
)

// Authorities are all authorities known, by name.
func (s *Store) Authorities(ctx context.Context) (all []ca.AuthorityRecord, err error) {
	err = s.read(ctx, "reading the authorities", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectAuthorities)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanAuthority)
		return err
	})
	return all, err
}

func scanAuthority(row pgx.CollectableRow) (a ca.AuthorityRecord, err error) {
	err = row.Scan(&a.Name, &a.Parent, &a.Certificate, &a.Chain, &a.Online, &a.Key.Token, &a.Key.Label, &a.Key.ID, &a.CRL.Period,
		&a.CRL.Validity, &a.CRLURL, &a.IssuerURL, &a.OCSPURL, &a.AddedAt)
	a.AddedAt = a.AddedAt.UTC()
	return a, err
}

// RecordAuthority adds an authority and its full CRL scope.
func (s *Store) RecordAuthority(ctx context.Context, a ca.AuthorityRecord, leaves ...audit.Leaf) error {
	doing := fmt.Sprintf("recording authority %q", a.Name)
	all := []any{
		a.Name, a.Parent, a.Certificate, orEmpty(a.Chain), a.Online, a.Key.Token, a.Key.Label, orEmpty(a.Key.ID), a.CRL.Period, a.CRL.Validity,
		a.CRLURL, a.IssuerURL, a.OCSPURL,
	}
	return s.inTx(ctx, doing, found(selectSameAuthority, all...), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, insertAuthority, append(all[:len(all):len(all)], a.AddedAt)...)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ca.ErrExists // unless it is this very authority: then it has landed before
		}
		if _, err := tx.Exec(ctx, insertScope, a.Name, ca.FullScope); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}
