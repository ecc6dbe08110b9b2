package storage

import (
	"bytes"
	"context"
	"crypto/x509"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// selectStatus asks the tables beneath issued, which lacks the imported certificates. A serial has several rows: its precertificate's,
	// its certificate's. Where a partition was archived, the revocations are still there.
	selectStatus = `
	SELECT i.issued, coalesce(i.not_after, r.not_after), r.reason, r.at
	FROM (
		SELECT count(*) > 0 AS issued, max(not_after) AS not_after FROM (
			SELECT not_after FROM issued WHERE serial = $2 AND issuer = $1
			UNION ALL
			SELECT not_after FROM imported_certificates WHERE serial = $2 AND issuer = $1
		) AS every
	) AS i LEFT JOIN LATERAL (
		SELECT reason, at, not_after FROM revocations WHERE issuer = $1 AND serial = $2 ORDER BY sequence DESC LIMIT 1
	) AS r ON true`

	// selectBelow are the authorities that an authority has certified in a ceremony, those in whose certificate a serial occurs.
	selectBelow = `SELECT certificate FROM authorities WHERE parent = $1 AND position($2 IN certificate) > 0`

	selectResponders = `
	SELECT c.der FROM certificates AS c
	WHERE c.spki_sha256 = $2 AND c.issuer = $1 AND c.profile = $3 AND c.kind = 'final' AND c.not_after > now()
		AND NOT EXISTS (SELECT FROM revocations AS r WHERE r.issuer = c.issuer AND r.serial = c.serial)
	ORDER BY c.not_after DESC, c.serial DESC LIMIT 10`
)

// CertificateStatus is the state of one serial of an authority. Whether it is that of an authority below is looked up only where
// nothing else is found: nearly all who ask ask about something else. There are few such authorities.
func (s *Store) CertificateStatus(ctx context.Context, issuer string, serial []byte) (status ca.CertificateStatus, err error) {
	err = s.read(ctx, "looking up the status of a serial", func(ctx context.Context, db querier) error {
		status = ca.CertificateStatus{}
		var reason *int
		var notAfter, revokedAt *time.Time
		if err := db.QueryRow(ctx, selectStatus, issuer, serial).Scan(&status.Issued, &notAfter, &reason, &revokedAt); err != nil {
			return err
		}
		status.NotAfter = orZero(notAfter)
		if reason != nil && issuance.Reason(*reason) != issuance.RemoveFromCRL {
			status.Revoked, status.RevokedAt, status.Reason = true, revokedAt.UTC(), issuance.Reason(*reason)
		}
		status.Issued = status.Issued || reason != nil
		if status.Issued {
			return nil
		}
		status.NotAfter, status.Issued, err = ofAuthorityBelow(ctx, db, issuer, serial)
		return err
	})
	return status, err
}

// ofAuthorityBelow finds out whether a serial is that of the certificate of an authority, and when that ends.
func ofAuthorityBelow(ctx context.Context, db querier, issuer string, serial []byte) (notAfter time.Time, found bool, err error) {
	rows, err := db.Query(ctx, selectBelow, issuer, serial)
	if err != nil {
		return notAfter, false, err
	}
	below, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return notAfter, false, err
	}
	for _, der := range below {
		if c, err := x509.ParseCertificate(der); err == nil && bytes.Equal(c.SerialNumber.Bytes(), serial) {
			return c.NotAfter.UTC(), true, nil
		}
	}
	return notAfter, false, nil
}

// ResponderCertificates are the certificates of a responder's key that can be used, the one that ends last first.
func (s *Store) ResponderCertificates(ctx context.Context, issuer string, spki [32]byte) (all [][]byte, err error) {
	err = s.read(ctx, "looking for the certificates of an OCSP responder", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectResponders, issuer, spki[:], ca.ResponderProfile)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
		return err
	})
	return all, err
}
