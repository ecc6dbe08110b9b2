package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

const (
	historyPage = 5000 // requests read at once

	// selectHistory pages by identifier, which is the order of time: identifiers begin with it.
	selectHistory = `
	SELECT id::text, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, verdict, results::text,
	       policy_digest, compromised_key
	FROM requests WHERE id > $1::text::uuid AND id <= $2::text::uuid ORDER BY id LIMIT $3`

	selectHistoryCertificates = `
	SELECT request_id::text, issuer, serial, subject, names, not_before, not_after, der
	FROM certificates WHERE request_id BETWEEN $1::text::uuid AND $2::text::uuid AND kind = 'final'`
)

// Requests are the requests made from one moment to another, in about the order of their time, with what came of each. They are read a page
// at a time, so that no transaction stays open however long the reader takes. The metadata is left out.
func (s *Store) Requests(ctx context.Context, since, until time.Time) iter.Seq2[ca.PastRequest, error] {
	return func(yield func(ca.PastRequest, error) bool) {
		after, last := idBound(since, 0), idBound(until, 0xff)
		for {
			page, err := s.historyPage(ctx, after, last)
			if err != nil {
				yield(ca.PastRequest{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < historyPage {
				return
			}
			after = page[len(page)-1].ID
		}
	}
}

// idBound is the identifier of version 7 (RFC 9562, section 5.7) at the beginning or the end of a moment's millisecond.
func idBound(at time.Time, fill byte) string {
	ms := max(at.UnixMilli(), 0)
	rest := fmt.Sprintf("%02x", fill)
	return fmt.Sprintf("%08x-%04x-%s%[3]s-%[3]s%[3]s-%[3]s%[3]s%[3]s%[3]s%[3]s%[3]s", ms>>16, ms&0xffff, rest)
}

func (s *Store) historyPage(ctx context.Context, after, last string) (page []ca.PastRequest, err error) {
	err = s.read(ctx, "reading the requests of the past", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectHistory, after, last, historyPage)
		if err != nil {
			return err
		}
		if page, err = pgx.CollectRows(rows, scanPastRequest); err != nil || len(page) == 0 {
			return err
		}
		place := make(map[string]int, len(page))
		for i, r := range page {
			place[r.ID] = i
		}
		return eachPastCertificate(ctx, db, page[0].ID, page[len(page)-1].ID, func(request string, c ca.PastCertificate) {
			if i, ok := place[request]; ok {
				page[i].Certificate = &c
			}
		})
	})
	return page, err
}

// eachPastCertificate reads what requests led to, those between two identifiers.
func eachPastCertificate(ctx context.Context, db querier, first, last string, each func(request string, c ca.PastCertificate)) error {
	rows, err := db.Query(ctx, selectHistoryCertificates, first, last)
	if err != nil {
		return err
	}
	var id string
	var c ca.PastCertificate
	_, err = pgx.ForEachRow(rows, []any{&id, &c.Issuer, &c.Serial, &c.Subject, &c.Names, &c.NotBefore, &c.NotAfter, &c.DER}, func() error {
		c.NotBefore, c.NotAfter = c.NotBefore.UTC(), c.NotAfter.UTC()
		each(id, c)
		c.Serial, c.Names, c.DER = nil, nil, nil // the next row's are its own
		return nil
	})
	return err
}

func scanPastRequest(row pgx.CollectableRow) (r ca.PastRequest, err error) {
	var spki []byte
	var results string
	if err := row.Scan(&r.ID, &r.At, &r.ActorID, &r.ActorName, &r.Namespace, &r.Roles, &r.Profile, &r.Issuer, &r.CSR, &spki, &r.Validity, &r.Verdict,
		&results, &r.PolicyDigest, &r.CompromisedKey); err != nil {
		return r, err
	}
	r.At, r.SPKI = r.At.UTC(), [32]byte(spki)
	if results != "[]" {
		if err := json.Unmarshal([]byte(results), &r.Objections); err != nil {
			return r, fmt.Errorf("reading the results of request %s: %w", r.ID, err)
		}
	}
	return r, nil
}
