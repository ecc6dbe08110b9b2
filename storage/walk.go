package storage

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

// walkPage is how many certificates are read at once.
const walkPage = 2000

// selectIssued reads certificates of an issuer in the order of their serials, each once: where there is a precertificate as well, the
// certificate; and no orphan beside either. Of an orphan there is its to-be-signed part. The page is cut by the index first, in whose order
// it comes, so that the states of no others are read.
const selectIssued = `
	SELECT` + certificateColumns + `, o.tbs
	FROM (
		SELECT DISTINCT ON (i.serial) * FROM issued AS i
		WHERE i.serial > $2 AND i.issuer = $1
			AND NOT (i.orphan AND EXISTS (SELECT FROM certificates AS k WHERE k.serial = i.serial AND k.issuer = i.issuer))
		ORDER BY i.serial, i.kind LIMIT $3
	) AS c LEFT JOIN LATERAL (
		SELECT * FROM revocations AS l WHERE l.issuer = c.issuer AND l.serial = c.serial ORDER BY l.sequence DESC LIMIT 1
	) AS r ON true
	LEFT JOIN orphans AS o ON c.orphan AND o.serial = c.serial AND o.issuer = c.issuer AND o.kind = c.kind
	ORDER BY c.serial`

// EachIssued calls yield for every certificate of an issuer that counts as issued, in the order of their serials, with its state; of an
// orphan with the to-be-signed bytes. An error of yield's ends it, and is returned.
func (s *Store) EachIssued(ctx context.Context, issuer string, yield func(c ca.Certificate, tbs []byte) error) error {
	for after := []byte{}; ; {
		var page []issuedRow
		err := s.read(ctx, "walking through certificates", func(ctx context.Context, db querier) error {
			rows, err := db.Query(ctx, selectIssued, issuer, after, walkPage)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, scanIssued)
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range page {
			if err := yield(row.certificate, row.tbs); err != nil {
				return err
			}
		}
		if len(page) < walkPage {
			return nil
		}
		after = page[len(page)-1].certificate.Serial[:]
	}
}

type issuedRow struct {
	certificate ca.Certificate
	tbs         []byte
}

// scanIssued reads a certificate's columns and one more.
func scanIssued(row pgx.CollectableRow) (r issuedRow, err error) {
	r.certificate, err = scanCertificate(oneMore{row, &r.tbs})
	return r, err
}

// oneMore is a row whose last column goes elsewhere.
type oneMore struct {
	pgx.CollectableRow
	last any
}

// Scan reads the columns and, besides, the last one.
func (r oneMore) Scan(into ...any) error { return r.CollectableRow.Scan(append(into, r.last)...) }
