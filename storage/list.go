package storage

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

const (
	maxListed = 500

	// listReach is how many certificates of a namespace one page looks through for what a filter wants.
	listReach = 50_000

	// listCertificates is followed by the conditions of the filter and by listOrder. Newest first is the order of serials, which begin
	// with their time, and the order of two indexes: of the primary key, and of certificates_namespace.
	//
	// Months follow each other only where nothing but certificates is asked for: then one is looked at after the other, newest first, until
	// the page is full. With orphans among them, the first of every month is looked for before any is shown, and a month that has none to
	// show is read whole.
	listCertificates = `SELECT` + certificateColumns + ` FROM (SELECT *, false AS orphan FROM certificates) AS c` + latestRevocation + listed
	listWithOrphans  = `SELECT` + certificateColumns + withState + listed
	listed           = ` WHERE (c.kind = 'final' OR NOT EXISTS (
		SELECT FROM issued AS f WHERE f.serial = c.serial AND f.issuer = c.issuer AND f.kind = 'final'))`
	listOrder = ` ORDER BY c.serial DESC, c.issuer DESC LIMIT `
)

// statusConditions say ca.Certificate.Status in SQL. What is asked of not_after is asked so that no index answers it: rows come in the order
// of a page then, and only as many as it needs. An orphan is listed where revoked ones are asked for, and nowhere else.
var statusConditions = map[string]string{
	"":        `NOT c.orphan`,
	"valid":   `NOT c.orphan AND coalesce(r.reason, 8) = 8 AND (c.not_after >= $now) IS TRUE`,
	"expired": `NOT c.orphan AND coalesce(r.reason, 8) = 8 AND (c.not_after < $now) IS TRUE`,
	"revoked": `r.reason NOT IN (6, 8)`,
	"on-hold": `r.reason = 6`,
}

// List pages through certificates, newest first. A page looks through no more than some: one that is not full, or empty, and has a next one,
// has come to the end of its reach and not of the certificates.
func (s *Store) List(ctx context.Context, f ca.Filter) (page ca.Page, err error) {
	selected, args, err := listQuery(f, nil)
	if err != nil {
		return ca.Page{}, err
	}
	var reach *cursor
	err = s.read(ctx, "listing certificates", func(ctx context.Context, db querier) error {
		if mayBeRare(f) {
			if reach, err = reachOf(ctx, db, f, s.listReach); err != nil {
				return err
			}
			if selected, args, err = listQuery(f, reach); err != nil {
				return err
			}
		}
		rows, err := db.Query(ctx, selected, args...)
		if err != nil {
			return err
		}
		page.Certificates, err = pgx.CollectRows(rows, scanCertificate)
		return err
	})
	if err != nil {
		return ca.Page{}, err
	}
	switch {
	case len(page.Certificates) > f.Limit:
		page.Certificates = page.Certificates[:f.Limit]
		last := page.Certificates[f.Limit-1]
		page.Next = cursor{serial: last.Serial[:], issuer: last.Issuer}.String()
	case reach != nil:
		page.Next = reach.String()
	}
	return page, nil
}

// mayBeRare tells whether few certificates of a namespace may be what a filter wants, so that looking for them could take long.
func mayBeRare(f ca.Filter) bool {
	return f.Query != "" || f.Profile != "" || f.Issuer != "" || f.Status != "" || !f.ExpiresBefore.IsZero()
}

// reachOf is the last certificate that a page looks at; nil: it looks at all that are left. The index alone is read for it.
func reachOf(ctx context.Context, db querier, f ca.Filter, reach int) (*cursor, error) {
	var sql statement
	sql.WriteString("SELECT c.serial, c.issuer FROM certificates AS c WHERE true")
	if err := whereToList(&sql, f); err != nil {
		return nil, err
	}
	fmt.Fprintf(&sql, "%s1 OFFSET %d", listOrder, reach-1)
	var last cursor
	err := db.QueryRow(ctx, sql.String(), sql.args...).Scan(&last.serial, &last.issuer)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking how far a page reaches: %w", err)
	}
	return &last, nil
}

// whereToList adds the conditions that an index answers: whose certificates, and after which.
func whereToList(b *statement, f ca.Filter) error {
	if f.Namespace != access.AllNamespaces {
		b.where("c.namespace = ?", f.Namespace)
	}
	if f.Cursor != "" {
		after, err := parseCursor(f.Cursor)
		if err != nil {
			return err
		}
		// The first says nothing that the second does not, but it is what keeps later months from being looked at.
		b.where("c.serial <= ? AND (c.serial, c.issuer) < (?, ?)", after.serial, after.serial, after.issuer)
	}
	return nil
}

// listQuery has one more row than asked for be read, to know whether there is a next page, and none beyond the reach.
func listQuery(f ca.Filter, reach *cursor) (sql string, args []any, err error) {
	if f.Limit < 1 || f.Limit > maxListed {
		return "", nil, &ca.InvalidError{Field: "limit", Message: fmt.Sprintf("a page has 1 to %d certificates", maxListed), Hint: "leave it out"}
	}
	status, ok := statusConditions[f.Status]
	if !ok {
		return "", nil, &ca.InvalidError{Field: "status", Message: "there is no such status", Hint: "use valid, expired, revoked or on-hold"}
	}
	var b statement
	if strings.Contains(status, "NOT c.orphan") {
		b.WriteString(listCertificates)
	} else {
		b.WriteString(listWithOrphans)
	}
	if strings.Contains(status, "$now") {
		b.where(strings.Replace(status, "$now", "?", 1), f.Now)
	} else {
		b.where(status)
	}
	if f.Profile != "" {
		b.where("c.profile = ?", f.Profile)
	}
	if f.Issuer != "" {
		b.where("c.issuer = ?", f.Issuer)
	}
	if f.Query != "" {
		b.where("strpos(c.search, ?) > 0", strings.ToLower(f.Query))
	}
	if !f.ExpiresBefore.IsZero() {
		b.where("(c.not_after < ?) IS TRUE", f.ExpiresBefore)
	}
	if err := whereToList(&b, f); err != nil {
		return "", nil, err
	}
	if reach != nil {
		b.where("c.serial >= ? AND (c.serial, c.issuer) >= (?, ?)", reach.serial, reach.serial, reach.issuer)
	}
	fmt.Fprintf(&b, "%s%d", listOrder, f.Limit+1)
	return b.String(), b.args, nil
}

// cursor is the last certificate of a page. Its text means nothing to others.
type cursor struct {
	serial []byte
	issuer string
}

const serialLength = 20

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(append(bytes.Clone(c.serial), c.issuer...))
}

func parseCursor(s string) (cursor, error) {
	const longest = 1024
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) <= serialLength || len(raw) > longest || !utf8.Valid(raw[serialLength:]) {
		return cursor{}, errCursor()
	}
	return cursor{serial: raw[:serialLength], issuer: string(raw[serialLength:])}, nil
}
