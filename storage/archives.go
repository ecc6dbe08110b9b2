package storage

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/migrations"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// exportPage is how many rows one statement of an export reads. No transaction stays open longer.
	exportPage = 2000

	// exportSettings make rows come out as archive_month digests them.
	exportSettings = `SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'iso_8601', true),
		set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true)`

	// selectMonths may see a month that another archives at this moment: its size is then none.
	selectMonths = `
	SELECT date_trunc('month', to_date(right(p.relname, 7), 'YYYY_MM'))::date, greatest(p.reltuples, 0)::bigint,
		coalesce(pg_total_relation_size(p.oid), 0) + coalesce((SELECT pg_total_relation_size(r.oid) FROM pg_class AS r
			WHERE r.relnamespace = p.relnamespace AND r.relname = 'requests' || right(p.relname, 8)), 0)
	FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhrelid
	WHERE i.inhparent = 'certificates'::regclass ORDER BY 1`

	selectObstacle = `SELECT archive_obstacle($1, $2)`

	archiveMonth = `SELECT archive_month($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::uuid)`

	archiveColumns = ` month, certificates, requests, certificates_digest, requests_digest, file, octets, sha256, actor, at, event_id::text FROM archives `

	selectArchives    = `SELECT` + archiveColumns + `ORDER BY month`
	selectArchiveOf   = `SELECT` + archiveColumns + `WHERE serials_from <= $1 AND $1 < serials_until`
	selectSameArchive = `SELECT EXISTS (SELECT FROM archives WHERE month = $1 AND event_id = $2::text::uuid)`

	// Each of these gives the row, and the key from which the next page goes on.
	exportAuthorities = `
	SELECT row_to_json(t)::text, t.name FROM authorities AS t WHERE t.name > $1 ORDER BY t.name LIMIT $2`
	exportRequests = `
	SELECT row_to_json(t)::text, t.id::text FROM requests AS t WHERE t.id > $1::text::uuid AND t.id <= $2::text::uuid ORDER BY t.id LIMIT $3`
	exportApprovals = `
	SELECT row_to_json(t)::text FROM approvals AS t WHERE t.request_id > $1::text::uuid AND t.request_id <= $2::text::uuid
	ORDER BY t.request_id, t.event_id`
	exportCertificates = `
	SELECT row_to_json(t)::text, t.serial, t.issuer, t.kind FROM certificates AS t
	WHERE t.serial >= $1 AND t.serial < $2 AND (t.serial, t.issuer, t.kind) > ($1, $3, $4)
	ORDER BY t.serial, t.issuer, t.kind LIMIT $5`
	exportOrphans = `
	SELECT row_to_json(t)::text, t.serial, t.issuer, t.kind FROM orphans AS t
	WHERE t.serial >= $1 AND t.serial < $2 AND (t.serial, t.issuer, t.kind) > ($1, $3, $4)
	ORDER BY t.serial, t.issuer, t.kind LIMIT $5`
	exportRevokers    = `SELECT name FROM authorities ORDER BY name`
	exportRevocations = `
	SELECT row_to_json(t)::text, t.serial, t.sequence FROM revocations AS t
	WHERE t.issuer = $1 AND t.serial >= $2 AND t.serial < $3 AND (t.serial, t.sequence) > ($2, $4)
	ORDER BY t.serial, t.sequence LIMIT $5`
)

// errNotArchivable wraps what archive_month refuses.
var errNotArchivable = errors.New("the month stays in the database")

// MonthState is a month of certificates that the database holds.
type MonthState struct {
	Month        archive.Month
	Certificates int64  // about
	Octets       int64  // on disk, requests and indexes included
	Obstacle     string // why it cannot be archived now; empty: it can
}

// Months are the months of certificates in the database, oldest first, and whether each could be archived, if certificates that ended before
// a moment may go.
func (s *Store) Months(ctx context.Context, endedBefore time.Time) (all []MonthState, err error) {
	err = s.read(ctx, "looking at the months", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectMonths)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m MonthState, err error) {
			var first time.Time
			err = row.Scan(&first, &m.Certificates, &m.Octets)
			m.Month = archive.MonthOf(first)
			return m, err
		})
		return err
	})
	for i := range all {
		if err != nil {
			break
		}
		err = s.read(ctx, "asking what keeps a month", func(ctx context.Context, db querier) error {
			return db.QueryRow(ctx, selectObstacle, all[i].Month.Time, endedBefore).Scan(&all[i].Obstacle)
		})
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ArchivableMonths are the months that nothing keeps in the database, if certificates that ended before a moment may go; oldest first.
func (s *Store) ArchivableMonths(ctx context.Context, endedBefore time.Time) (free []archive.Month, err error) {
	all, err := s.Months(ctx, endedBefore)
	for _, m := range all {
		if m.Obstacle == "" {
			free = append(free, m.Month)
		}
	}
	return free, err
}

// Archives are the months that were archived, oldest first.
func (s *Store) Archives(ctx context.Context) (all []archive.Made, err error) {
	err = s.read(ctx, "reading what is archived", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectArchives)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanArchive)
		return err
	})
	return all, err
}

// ArchiveOf names the archive that the certificates of a serial's month are in; empty when they are not archived.
func (s *Store) ArchiveOf(ctx context.Context, serial []byte) (file string, err error) {
	if len(serial) != serialLength {
		return "", nil
	}
	err = s.read(ctx, "looking for an archive", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectArchiveOf, serial)
		if err != nil {
			return err
		}
		made, err := pgx.CollectOneRow(rows, scanArchive)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		file = made.File
		return err
	})
	return file, err
}

func scanArchive(row pgx.CollectableRow) (m archive.Made, err error) {
	var first time.Time
	var certificates, requests, file []byte
	if err := row.Scan(&first, &m.Certificates, &m.Requests, &certificates, &requests, &m.File, &m.Octets, &file, &m.Actor, &m.At, &m.EventID); err != nil {
		return m, err
	}
	m.Month, m.At = archive.MonthOf(first), m.At.UTC()
	copy(m.CertificatesDigest[:], certificates)
	copy(m.RequestsDigest[:], requests)
	copy(m.SHA256[:], file)
	return m, nil
}

// MonthHeader is the header of a month's archive.
func (s *Store) MonthHeader(_ context.Context, month archive.Month) (archive.Header, error) {
	schema, err := latestMigration(migrations.FS)
	if err != nil {
		return archive.Header{}, err
	}
	low, high := serialsOf(month)
	return archive.Header{Month: month, SerialsFrom: low.String(), SerialsUntil: high.String(), Schema: schema}, nil
}

func serialsOf(month archive.Month) (low, high issuance.Serial) {
	return issuance.SerialBounds(month.Time, month.AddDate(0, 1, 0))
}

// ExportMonth hands out what an archive of a month holds, a page at a time. What the pages have in common is that a month that can be
// archived changes no more; RecordArchive finds out if one did.
func (s *Store) ExportMonth(ctx context.Context, month archive.Month, add func(kind archive.Kind, row []byte, ledTo *archive.LedTo) error) error {
	low, high := serialsOf(month)
	after, last := idBound(month.Time, 0), idBound(month.AddDate(0, 1, 0).Add(-time.Millisecond), 0xff)
	if err := s.exportPages(ctx, archive.KindAuthority, add, exportAuthorities, "", exportPage); err != nil {
		return err
	}
	if err := s.exportRequests(ctx, after, last, add); err != nil {
		return err
	}
	if err := s.exportAll(ctx, archive.KindApproval, add, exportApprovals, after, last); err != nil {
		return err
	}
	if err := s.exportBySerial(ctx, archive.KindCertificate, exportCertificates, low, high, add); err != nil {
		return err
	}
	if err := s.exportBySerial(ctx, archive.KindOrphan, exportOrphans, low, high, add); err != nil {
		return err
	}
	var authorities []string
	err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, exportRevokers)
		if err != nil {
			return err
		}
		authorities, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	for _, issuer := range authorities {
		if err == nil {
			err = s.exportRevocations(ctx, issuer, low, high, add)
		}
	}
	return err
}

type addRow = func(kind archive.Kind, row []byte, ledTo *archive.LedTo) error

// exportTx runs a statement with the settings of an export.
func (s *Store) exportTx(ctx context.Context, read func(ctx context.Context, tx pgx.Tx) error) error {
	return s.write(ctx, "exporting a month", nothingLands, func(ctx context.Context) (bool, error) {
		return s.tryTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, exportSettings); err != nil {
				return err
			}
			return read(ctx, tx)
		})
	})
}

// nothingLands is the landed of transactions that only read.
func nothingLands(context.Context, querier) (bool, error) { return false, nil }

// exportAll exports what is little, in one page.
func (s *Store) exportAll(ctx context.Context, kind archive.Kind, add addRow, sql string, args ...any) error {
	var page []string
	err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return err
	}
	for _, row := range page {
		if err := add(kind, []byte(row), nil); err != nil {
			return err
		}
	}
	return nil
}

// exportedRow is a row with the key that the next page comes after.
type exportedRow struct {
	row    string
	key    string
	serial []byte
	kind   string
}

func (s *Store) exportPages(ctx context.Context, kind archive.Kind, add addRow, sql, after string, most int) error {
	for {
		var page []exportedRow
		err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, sql, after, most)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r exportedRow, err error) { return r, row.Scan(&r.row, &r.key) })
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := add(kind, []byte(r.row), nil); err != nil {
				return err
			}
			after = r.key
		}
		if len(page) < most {
			return nil
		}
	}
}

// exportRequests gives each request the certificate that came of it along.
func (s *Store) exportRequests(ctx context.Context, after, last string, add addRow) error {
	for {
		var page []exportedRow
		ledTo := map[string]*archive.LedTo{}
		err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, exportRequests, after, last, exportPage)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r exportedRow, err error) { return r, row.Scan(&r.row, &r.key) })
			if err != nil || len(page) == 0 {
				return err
			}
			clear(ledTo)
			return eachPastCertificate(ctx, tx, page[0].key, page[len(page)-1].key, func(request string, c ca.PastCertificate) {
				ledTo[request] = &archive.LedTo{
					Issuer: c.Issuer, Serial: hex.EncodeToString(c.Serial), Subject: c.Subject, Names: orEmpty(c.Names),
					NotBefore: c.NotBefore, NotAfter: c.NotAfter,
				}
			})
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := add(archive.KindRequest, []byte(r.row), ledTo[r.key]); err != nil {
				return err
			}
			after = r.key
		}
		if len(page) < exportPage {
			return nil
		}
	}
}

// exportRevocations exports those of an authority, in the order of their serials: all may have been revoked, of one key or in one order.
func (s *Store) exportRevocations(ctx context.Context, issuer string, low, high issuance.Serial, add addRow) error {
	type revocation struct {
		row      string
		serial   []byte
		sequence int
	}
	after := revocation{serial: low[:]}
	for {
		var page []revocation
		err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, exportRevocations, issuer, after.serial, high[:], after.sequence, exportPage)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r revocation, err error) {
				return r, row.Scan(&r.row, &r.serial, &r.sequence)
			})
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := add(archive.KindRevocation, []byte(r.row), nil); err != nil {
				return err
			}
			after = r
		}
		if len(page) < exportPage {
			return nil
		}
	}
}

// exportBySerial exports what has the key (serial, issuer, kind).
func (s *Store) exportBySerial(ctx context.Context, kind archive.Kind, sql string, low, high issuance.Serial, add addRow) error {
	next := exportedRow{serial: low[:]}
	for {
		var page []exportedRow
		err := s.exportTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, sql, next.serial, high[:], next.key, next.kind, exportPage)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r exportedRow, err error) {
				return r, row.Scan(&r.row, &r.serial, &r.key, &r.kind)
			})
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := add(kind, []byte(r.row), nil); err != nil {
				return err
			}
			next = r
		}
		if len(page) < exportPage {
			return nil
		}
	}
}

// RecordArchive records an archive and drops its month, in one transaction. The database reads the month once more and compares; where it
// refuses, everything is as before. A month of many millions takes it minutes, so there is no limit on the statement; the context's holds.
func (s *Store) RecordArchive(ctx context.Context, m archive.Made, endedBefore time.Time, leaves ...audit.Leaf) error {
	const patience = 24 * time.Hour
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	done := found(selectSameArchive, m.Month.Time, m.EventID)
	return s.inTx(ctx, "recording an archive", done, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, archiveMonth, m.Month.Time, endedBefore, m.Certificates, m.CertificatesDigest[:], m.Requests, m.RequestsDigest[:], m.File,
			m.Octets, m.SHA256[:], m.Actor, m.EventID)
		if code := sqlState(err); code == "55000" || code == "22000" {
			return fmt.Errorf("%w: %w", errNotArchivable, err)
		}
		if err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// HistoryBounds are the identifiers between which the requests of a span of time are: (after, last].
func HistoryBounds(since, until time.Time) (after, last string) {
	return idBound(since, 0), idBound(until, 0xff)
}

// ArchivedRequest is a request of an archive as Requests gives those of the database.
func ArchivedRequest(r archive.Request, ledTo *archive.LedTo) (ca.PastRequest, error) {
	p := ca.PastRequest{Request: ca.Request{
		ID: r.ID, At: r.At.UTC(), ActorID: r.ActorID, ActorName: r.ActorName, Namespace: r.Namespace, Roles: r.Roles, Profile: r.Profile,
		Issuer: r.Issuer, Validity: time.Duration(r.Validity), PolicyDigest: r.PolicyDigest, CompromisedKey: r.CompromisedKey,
	}}
	p.Verdict = policies.Verdict(r.Verdict)
	if r.CSR != nil {
		p.CSR = *r.CSR
	}
	if string(r.Results) != "[]" {
		if err := json.Unmarshal(r.Results, &p.Objections); err != nil {
			return p, fmt.Errorf("reading the results of request %s: %w", r.ID, err)
		}
	}
	if ledTo != nil {
		serial, err := hex.DecodeString(ledTo.Serial)
		if err != nil {
			return p, fmt.Errorf("reading the serial that request %s led to: %w", r.ID, err)
		}
		p.Certificate = &ca.PastCertificate{
			Issuer: ledTo.Issuer, Serial: serial, Subject: ledTo.Subject, Names: ledTo.Names,
			NotBefore: ledTo.NotBefore.UTC(), NotAfter: ledTo.NotAfter.UTC(),
		}
	}
	return p, nil
}
