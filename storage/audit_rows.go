package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// rowsPage is how many rows are held against their events at once.
	rowsPage = 2000
	// sameMoment is how far apart a revocation and its event may be: the clock is read for each, and a machine may stand still between them.
	sameMoment = time.Minute
)

const (
	selectWaitingLots = `
	SELECT ids::text[], written_at FROM audit_unsequenced WHERE written_at < clock_timestamp() - $1::interval ORDER BY lot LIMIT 1000`

	// selectOutsideLog are leaves that are neither in the log nor on their way to it. The snapshot is one: none can be on the way between
	// them.
	selectOutsideLog = `
	WITH page AS (SELECT id, kind FROM audit_leaves WHERE id > $1 ORDER BY id LIMIT $2)
	SELECT id, kind, NOT EXISTS (SELECT FROM audit_sequence AS s WHERE s.id = page.id)
		AND NOT EXISTS (SELECT FROM audit_unsequenced AS u WHERE page.id = ANY (u.ids))
		AND NOT EXISTS (SELECT FROM audit_backlog AS b WHERE page.id > b.after AND page.id <= b.until)
	FROM page ORDER BY id`

	selectPrivateRows = `
	SELECT p.event_id::text, p.field, encode(p.salt, 'hex'), p.value, coalesce(s.index, -1), l.leaf
	FROM (
		SELECT event_id, field, salt, value FROM audit_private WHERE (event_id, field) > ($1::text::uuid, $2) ORDER BY event_id, field LIMIT $3
	) AS p LEFT JOIN audit_leaves AS l ON l.id = p.event_id LEFT JOIN audit_sequence AS s ON s.id = p.event_id
	ORDER BY p.event_id, p.field`

	selectCertificateRows = `
	SELECT c.serial, c.issuer, c.kind, c.der, c.event_id::text, coalesce(s.index, -1), l.leaf
	FROM (
		SELECT serial, issuer, kind, der, event_id FROM certificates WHERE (serial, issuer, kind) > ($1, $2, $3)
		ORDER BY serial, issuer, kind LIMIT $4
	) AS c LEFT JOIN audit_leaves AS l ON l.id = c.event_id LEFT JOIN audit_sequence AS s ON s.id = c.event_id
	ORDER BY c.serial, c.issuer, c.kind`

	selectRevocationRows = `
	SELECT r.issuer, r.serial, r.sequence, r.reason, r.at, r.invalidity_date, r.crl_scope, r.not_after, c.der, o.tbs,
		coalesce(c.crl_scope, o.crl_scope, ''),
		EXISTS (SELECT FROM archives AS a WHERE r.serial >= a.serials_from AND r.serial < a.serials_until),
		r.event_id::text, coalesce(s.index, -1), l.leaf
	FROM (
		SELECT issuer, serial, sequence, reason, at, invalidity_date, crl_scope, not_after, event_id FROM revocations
		WHERE (issuer, serial, sequence) > ($1, $2, $3) ORDER BY issuer, serial, sequence LIMIT $4
	) AS r LEFT JOIN audit_leaves AS l ON l.id = r.event_id LEFT JOIN audit_sequence AS s ON s.id = r.event_id
	LEFT JOIN LATERAL (
		SELECT der, crl_scope FROM certificates AS x WHERE x.serial = r.serial AND x.issuer = r.issuer ORDER BY x.kind LIMIT 1
	) AS c ON true
	LEFT JOIN LATERAL (
		SELECT tbs, crl_scope FROM orphans AS x WHERE x.serial = r.serial AND x.issuer = r.issuer ORDER BY x.kind LIMIT 1
	) AS o ON true
	ORDER BY r.issuer, r.serial, r.sequence`

	selectArchiveRows = `
	SELECT to_char(r.month, 'YYYY-MM'), r.file, encode(r.sha256, 'hex'), r.certificates::text, r.requests::text, r.event_id::text,
		coalesce(s.index, -1), l.leaf
	FROM archives AS r LEFT JOIN audit_leaves AS l ON l.id = r.event_id LEFT JOIN audit_sequence AS s ON s.id = r.event_id
	ORDER BY r.month`

	selectEventsOfRows = `
	SELECT s.index, s.id::text, l.leaf FROM audit_sequence AS s JOIN audit_leaves AS l ON l.id = s.id
	WHERE s.index >= $1 AND s.index < $2 AND l.kind IN ('certificate.issued', 'certificate.revoked', 'certificate.released',
		'certificate.orphaned', 'certificate.intended', 'request.refused', 'request.waiting')
	ORDER BY s.index`

	// selectRequested tells of each event of a request whether that is there, or in an archive, and asks for what the event says.
	selectRequested = `
	SELECT EXISTS (SELECT FROM requests AS q WHERE q.id = e.request
			AND (e.csr_sha256 = '' OR encode(sha256(coalesce(q.csr, ''::bytea)), 'hex') = e.csr_sha256))
		OR EXISTS (SELECT FROM archives AS a WHERE a.month = e.month)
	FROM unnest($1::text[]::uuid[], $2::text[], $3::date[]) WITH ORDINALITY AS e (request, csr_sha256, month, place) ORDER BY e.place`

	// selectRecorded tells of each event whether its row is there, or in an archive. What was possibly signed is revoked from its settlement
	// on: by it, or by what was on record before.
	selectRecorded = `
	SELECT CASE WHEN e.kind = 'certificate.issued'
		THEN EXISTS (SELECT FROM certificates AS c WHERE c.serial = e.serial AND c.issuer = e.issuer AND c.event_id = e.id)
			OR EXISTS (SELECT FROM archives AS a WHERE e.serial >= a.serials_from AND e.serial < a.serials_until)
		ELSE EXISTS (SELECT FROM revocations AS r WHERE r.serial = e.serial AND r.issuer = e.issuer AND r.event_id = e.id)
			OR EXISTS (SELECT FROM archives AS a WHERE e.serial >= a.serials_from AND e.serial < a.serials_until)
			OR e.kind = 'certificate.orphaned' AND coalesce((
				SELECT r.reason FROM revocations AS r WHERE r.serial = e.serial AND r.issuer = e.issuer ORDER BY r.sequence DESC LIMIT 1
			), 8) NOT IN (6, 8)
	END
	FROM unnest($1::text[]::uuid[], $2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY AS e (id, kind, issuer, serial, place) ORDER BY e.place`
)

// Waiting tells of events that have had no place in the log for longer than they should, by the database's clock.
func (h *History) Waiting(ctx context.Context, longerThan time.Duration) (found []audit.Finding, err error) {
	rows, err := h.pool.Query(ctx, selectWaitingLots, longerThan)
	if err != nil {
		return nil, describeHistory("looking for events that wait", err)
	}
	var ids []string
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&ids, &since}, func() error {
		for _, id := range ids {
			found = append(found, audit.Finding{Kind: audit.Unsequenced, Index: -1, What: fmt.Sprintf(
				"event %s was recorded at %s and has no place in the log", id, since.UTC().Format(time.RFC3339))})
		}
		return nil
	})
	return found, describeHistory("looking for events that wait", err)
}

// HoldRows holds the rows of certificates, of what was possibly signed and of revocations against their events, both ways, and revocations
// against what their certificates say besides, and events against the requests that they speak of, and archives, which account for rows that
// are gone, against their events, and looks for leaves that the log does not have.
// What it finds it gives to found; done is told how many rows and events have been looked at, and may be nil.
func (h *History) HoldRows(ctx context.Context, found func(audit.Finding), done func(int64)) error {
	r := rowsCheck{h: h, found: found, done: done}
	for _, step := range []struct {
		doing string
		run   func(context.Context) error
	}{
		{"looking for leaves outside the log", r.leaves},
		{"holding private texts against their digests", r.private},
		{"holding certificates against their events", r.certificates},
		{"holding what was possibly signed against its events", r.orphans},
		{"holding revocations against their events", r.revocations},
		{"holding archives against their events", r.archives},
		{"holding events against their rows", r.events},
	} {
		if err := step.run(ctx); err != nil {
			return describeHistory(step.doing, err)
		}
	}
	return nil
}

type rowsCheck struct {
	h     *History
	found func(audit.Finding)
	done  func(int64)
	seen  int64
}

func (r *rowsCheck) saw(n int) {
	if r.seen += int64(n); r.done != nil {
		r.done(r.seen)
	}
}

func (r *rowsCheck) tell(kind audit.Fault, index int64, format string, args ...any) {
	r.found(audit.Finding{Kind: kind, Index: index, Until: index + 1, What: fmt.Sprintf(format, args...)})
}

func (r *rowsCheck) leaves(ctx context.Context) error {
	for after := [16]byte{}; ; {
		rows, err := r.h.pool.Query(ctx, selectOutsideLog, after, rowsPage)
		if err != nil {
			return err
		}
		var kind string
		var outside bool
		n := 0
		if _, err := pgx.ForEachRow(rows, []any{&after, &kind, &outside}, func() error {
			if n++; outside {
				r.tell(audit.Unsequenced, -1, "the event %s, %s, is neither in the log nor on its way to it", uuidText(after[:]), kind)
			}
			return nil
		}); err != nil {
			return err
		}
		if r.saw(n); n < rowsPage {
			return nil
		}
	}
}

func (r *rowsCheck) private(ctx context.Context) error {
	event, field := "00000000-0000-0000-0000-000000000000", ""
	var salt, value string
	var leaf []byte
	var index int64
	for {
		rows, err := r.h.pool.Query(ctx, selectPrivateRows, event, field, rowsPage)
		if err != nil {
			return err
		}
		n := 0
		if _, err := pgx.ForEachRow(rows, []any{&event, &field, &salt, &value, &index, &leaf}, func() error {
			n++
			e, err := audit.Parse(leaf)
			if err != nil && leaf != nil {
				return nil // told by the verification of the log
			}
			if !(privateText{field, salt, value}).in(e) {
				r.tell(audit.Mislabelled, index, "the text kept as %s of the event %s is not the one that was logged", field, event)
			}
			return nil
		}); err != nil {
			return err
		}
		if r.saw(n); n < rowsPage {
			return nil
		}
	}
}

func (r *rowsCheck) certificates(ctx context.Context) error {
	known, err := readListedBy(ctx, r.h.pool)
	if err != nil {
		return err
	}
	var serial, der, leaf []byte
	var issuer, kind, event string
	var index int64
	for {
		rows, err := r.h.pool.Query(ctx, selectCertificateRows, append([]byte{}, serial...), issuer, kind, rowsPage)
		if err != nil {
			return err
		}
		n := 0
		if _, err := pgx.ForEachRow(rows, []any{&serial, &issuer, &kind, &der, &event, &index, &leaf}, func() error {
			n++
			what, digest := fmt.Sprintf("the %s certificate %x of %s", kind, serial, issuer), sha256.Sum256(der)
			r.hold(what, event, index, leaf, []audit.Kind{audit.CertificateIssued}, map[string]string{
				"issuer": issuer, "serial": hex.EncodeToString(serial), "kind": kind, "certificate_sha256": hex.EncodeToString(digest[:]),
			})
			if err := known.misplaced(issuer, serial, toBeSigned(der)); err != nil {
				r.tell(audit.Unlogged, index, "%s %v", what, err)
			}
			return nil
		}); err != nil {
			return err
		}
		if r.saw(n); n < rowsPage {
			return nil
		}
	}
}

func (r *rowsCheck) revocations(ctx context.Context) error {
	known, err := readListedBy(ctx, r.h.pool)
	if err != nil {
		return err
	}
	var serial, leaf []byte
	var issuer, event string
	var sequence, reason int
	var before entryPlace
	var index int64
	var at time.Time
	var invalidity *time.Time
	var row listedRow
	for {
		rows, err := r.h.pool.Query(ctx, selectRevocationRows, issuer, append([]byte{}, serial...), sequence, rowsPage)
		if err != nil {
			return err
		}
		n := 0
		if _, err := pgx.ForEachRow(rows, []any{
			&issuer, &serial, &sequence, &reason, &at, &invalidity, &row.scope, &row.notAfter, &row.der, &row.tbs, &row.issuedInto, &row.archived,
			&event, &index, &leaf,
		}, func() error {
			n++
			what := fmt.Sprintf("the revocation %d of %x of %s", sequence, serial, issuer)
			kinds, want := revocationEvent(issuance.Reason(reason), leaf)
			want["issuer"], want["serial"], want["invalidity_date"] = issuer, hex.EncodeToString(serial), ""
			if invalidity != nil {
				want["invalidity_date"] = invalidity.UTC().Format(time.RFC3339)
			}
			r.hold(what, event, index, leaf, kinds, want)
			row.lostInto = lostInto(leaf)
			place := entryPlace{issuer, string(serial), sequence, issuance.Reason(reason)}
			follows := place.follows(before)
			before = place
			for _, err := range []error{
				known.disagrees(issuer, serial, row), orphanRevoked(issuance.Reason(reason), kinds), revokedThen(at, leaf), follows,
			} {
				if err != nil {
					r.tell(audit.Unlogged, index, "%s %v", what, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if r.saw(n); n < rowsPage {
			return nil
		}
	}
}

// entryPlace is which entry of a certificate's sequence of revocations a row is.
type entryPlace struct {
	issuer, serial string
	sequence       int
	reason         issuance.Reason
}

// follows tells of an entry that it cannot come after the one before it, in the order of certificates and their sequences: a release of what was
// no hold would take a revocation back, and a gap hides what one says.
func (p entryPlace) follows(before entryPlace) error {
	if before.issuer != p.issuer || before.serial != p.serial {
		before = entryPlace{reason: issuance.RemoveFromCRL} // as good as new
	}
	if p.sequence != before.sequence+1 {
		return fmt.Errorf("comes after the entry %d", before.sequence)
	}
	held, released := before.reason == issuance.CertificateHold, before.reason == issuance.RemoveFromCRL
	ok := held || released
	switch p.reason {
	case issuance.RemoveFromCRL:
		ok = held
	case issuance.CertificateHold:
		ok = released
	}
	if !ok {
		return fmt.Errorf("is %s, which what came before does not allow", p.reason)
	}
	return nil
}

// revokedThen tells of a revocation that its event is of another time: which signatures it invalidates depends on its own.
func revokedThen(at time.Time, leaf []byte) error {
	e, err := audit.Parse(leaf)
	if err != nil || e.Time.Sub(at).Abs() <= sameMoment {
		return nil // what cannot be read is told by the verification of the log
	}
	return fmt.Errorf("is of %s, and its event of %s", at.UTC().Format(time.RFC3339), e.Time.UTC().Format(time.RFC3339))
}

// lostInto is the scope that the event of a revocation tells; only that of a lost certificate tells one.
func lostInto(leaf []byte) string {
	e, err := audit.Parse(leaf)
	if err != nil {
		return ""
	}
	return e.Data["crl_scope"]
}

// revocationEvent is what the event of a revocation must be and say: a changed reason would end a revocation, or make a hold of it. The event
// of an orphan names no reason.
func revocationEvent(reason issuance.Reason, leaf []byte) (kinds []audit.Kind, want map[string]string) {
	if reason == issuance.RemoveFromCRL {
		return []audit.Kind{audit.CertificateReleased}, map[string]string{"reason": reason.String()}
	}
	if e, err := audit.Parse(leaf); err == nil && e.Kind == audit.CertificateOrphaned {
		return []audit.Kind{audit.CertificateOrphaned}, map[string]string{}
	}
	return []audit.Kind{audit.CertificateRevoked}, map[string]string{"reason": reason.String()}
}

// hold holds a row against the event that it names.
func (r *rowsCheck) hold(row, event string, index int64, leaf []byte, kinds []audit.Kind, want map[string]string) {
	if leaf == nil {
		r.tell(audit.Unlogged, index, "%s names the event %s, and there is none", row, event)
		return
	}
	e, err := audit.Parse(leaf)
	if err != nil {
		return // told by the verification of the log
	}
	if !slices.Contains(kinds, e.Kind) || e.ID != event {
		r.tell(audit.Unlogged, index, "%s names the event %s, which is %s %s", row, event, e.Kind, e.ID)
		return
	}
	for field, value := range want {
		if e.Data[field] != value {
			r.tell(audit.Unlogged, index, "%s has the %s %q, and its event says %q", row, field, value, e.Data[field])
			return
		}
	}
}

// archives are few: one for each month.
func (r *rowsCheck) archives(ctx context.Context) error {
	rows, err := r.h.pool.Query(ctx, selectArchiveRows)
	if err != nil {
		return err
	}
	var month, file, digest, certificates, requests, event string
	var index int64
	var leaf []byte
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&month, &file, &digest, &certificates, &requests, &event, &index, &leaf}, func() error {
		n++
		r.hold("the archive of "+month, event, index, leaf, []audit.Kind{audit.ArchiveMade}, map[string]string{
			"month": month, "file": file, "sha256": digest, "certificates": certificates, "requests": requests,
		})
		return nil
	})
	r.saw(n)
	return err
}

// events holds events against their rows.
func (r *rowsCheck) events(ctx context.Context) error {
	for from := int64(0); from < r.h.size; from += audit.BatchSize {
		rows, err := r.h.pool.Query(ctx, selectEventsOfRows, from, min(from+audit.BatchSize, r.h.size))
		if err != nil {
			return err
		}
		var index int64
		var id string
		var leaf []byte
		var indexes []int64
		var ids, kinds, issuers []string
		var serials [][]byte
		var of requestEvents
		if _, err := pgx.ForEachRow(rows, []any{&index, &id, &leaf}, func() error {
			e, err := audit.Parse(bytes.Clone(leaf))
			if err != nil {
				return nil // told by the verification of the log
			}
			switch e.Kind {
			case audit.CertificateIntended, audit.RequestRefused, audit.RequestWaiting:
				of.add(index, id, e)
				return nil
			}
			serial, err := hex.DecodeString(e.Data["serial"])
			if err != nil {
				serial = []byte{}
			}
			indexes, ids, kinds = append(indexes, index), append(ids, id), append(kinds, askable(string(e.Kind)))
			issuers, serials = append(issuers, askable(e.Data["issuer"])), append(serials, serial)
			return nil
		}); err != nil {
			return err
		}
		found, err := r.h.pool.Query(ctx, selectRecorded, ids, kinds, issuers, serials)
		if err != nil {
			return err
		}
		recorded, err := pgx.CollectRows(found, pgx.RowTo[bool])
		if err != nil {
			return err
		}
		for i, yes := range recorded {
			if !yes {
				r.tell(audit.Unrecorded, indexes[i], "the event %s, %s, speaks of %x of %s, and the database has no such row", ids[i], kinds[i],
					serials[i], issuers[i])
			}
		}
		r.saw(len(recorded))
		if err := r.requests(ctx, of); err != nil {
			return err
		}
	}
	return nil
}

// requestEvents are events that tell of which request they are, and what it asks for.
type requestEvents struct {
	indexes                []int64
	ids, requests, digests []string
	months                 []time.Time // of the requests
}

func (of *requestEvents) add(index int64, event string, e audit.Event) {
	var id pgtype.UUID
	if id.Scan(e.Data["request"]) != nil || !id.Valid {
		return // an event that names no request speaks of none
	}
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(id.Bytes[:8]) >> 16)).UTC() // RFC 9562, section 5.7
	of.indexes, of.ids, of.months = append(of.indexes, index), append(of.ids, event), append(of.months, archive.MonthOf(at).Time)
	of.requests, of.digests = append(of.requests, uuidText(id.Bytes[:])), append(of.digests, askable(e.Data["csr_sha256"]))
}

// askable is what an event says as the database can be asked for it: it has no text with NUL, and would answer nothing at all. Events may have
// been written by a service that was taken over; their own IDs are not asked for, but those of their rows.
func askable(said string) string { return strings.ReplaceAll(said, "\x00", "\ufffd") }

// requests holds events of requests against the requests.
func (r *rowsCheck) requests(ctx context.Context, of requestEvents) error {
	found, err := r.h.pool.Query(ctx, selectRequested, of.requests, of.digests, of.months)
	if err != nil {
		return err
	}
	requested, err := pgx.CollectRows(found, pgx.RowTo[bool])
	if err != nil {
		return err
	}
	for i, yes := range requested {
		if !yes {
			r.tell(audit.Unrecorded, of.indexes[i], "the event %s speaks of the request %s, and the database has none that asks for the same", of.ids[i],
				of.requests[i])
		}
	}
	r.saw(len(requested))
	return nil
}
