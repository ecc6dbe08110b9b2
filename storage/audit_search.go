package storage

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// maxWalked is how many events one call looks at.
	maxWalked = 20_000
	// eventsOfSerial is how long after the moment in a serial number its first events are looked for: an issuance takes 30 s at most, and then
	// its certificate, orphan or revocation names its event.
	eventsOfSerial = time.Minute

	// searchWalk looks at events in the order of their identifiers, which is that of their time, newest first. The last one that it looked at
	// comes back whether it fits or not: from there the next page goes on. %[1]s are conditions on which events are looked at, %[2]s on which
	// of them fit.
	searchWalk = `
	WITH walked AS (
		SELECT l.id, l.leaf FROM audit_leaves AS l WHERE l.id < $1::text::uuid AND l.id >= $2::text::uuid%[1]s ORDER BY l.id DESC LIMIT $3
	), judged AS (
		SELECT w.id, w.leaf, (true%[2]s) AS fits, row_number() OVER (ORDER BY w.id DESC) AS place, count(*) OVER () AS walked FROM walked AS w
	)
	SELECT j.id::text, j.leaf, coalesce(s.index, -1), j.fits, j.walked, ` + privateOf + ` = j.id)
	FROM judged AS j LEFT JOIN audit_sequence AS s ON s.id = j.id
	WHERE j.fits OR j.place = j.walked ORDER BY j.id DESC LIMIT $4`

	// searchSerial looks at the events that rows of a certificate name, and at those of the time when it was issued.
	searchSerial = `
	WITH named AS (
		SELECT event_id AS id FROM certificates WHERE serial = $5
		UNION SELECT event_id FROM orphans WHERE serial = $5
		UNION SELECT r.event_id FROM authorities AS a JOIN revocations AS r ON r.issuer = a.name AND r.serial = $5
		UNION (SELECT l.id FROM audit_leaves AS l WHERE l.id >= $6::text::uuid AND l.id < $7::text::uuid ORDER BY l.id LIMIT $3)
	), walked AS (
		SELECT l.id, l.leaf FROM named AS n JOIN audit_leaves AS l ON l.id = n.id WHERE l.id < $1::text::uuid AND l.id >= $2::text::uuid%[1]s
	)
	SELECT w.id::text, w.leaf, coalesce(s.index, -1), true, 0::bigint, ` + privateOf + ` = w.id)
	FROM walked AS w LEFT JOIN audit_sequence AS s ON s.id = w.id
	WHERE true%[2]s ORDER BY w.id DESC LIMIT $4`

	// privateOf are the private texts of an event, as far as they have not been erased.
	privateOf = `(SELECT json_agg(json_build_object('field', p.field, 'salt', encode(p.salt, 'hex'), 'value', p.value))
		FROM audit_private AS p WHERE p.event_id`

	selectEvent = `
	SELECT l.id::text, l.leaf, coalesce(s.index, -1), ` + privateOf + ` = l.id)
	FROM audit_leaves AS l LEFT JOIN audit_sequence AS s ON s.id = l.id WHERE l.id = $1::text::uuid`

	// textInAnyCase finds a text in a leaf, or in the private texts of its event. A leaf that is not UTF-8, which is no event, ends it: then
	// textInOctets does so, but finds letters that are not of ASCII in leaves in the case alone that they are given in.
	textInAnyCase = `(strpos(lower(convert_from(w.leaf, 'UTF8')), lower(?)) > 0` + orInPrivate
	textInOctets  = `(strpos(lower(convert_from(w.leaf, 'LATIN1') COLLATE "C"),
		lower(convert_from(convert_to(?, 'UTF8'), 'LATIN1') COLLATE "C")) > 0` + orInPrivate
	orInPrivate = ` OR EXISTS (SELECT FROM audit_private AS p WHERE p.event_id = w.id AND strpos(lower(p.value), lower(?)) > 0))`
	notUTF8     = "22021"

	// frequentKinds are those of every issuance. All others share an index.
	frequentKinds = ` AND l.kind NOT IN ('certificate.intended', 'certificate.issued', 'key.signed')`
)

// SearchEvents looks for events in the leaves themselves, whose canonical form makes a search for octets exact: a quote never stands in a
// value as it is.
func (s *Store) SearchEvents(ctx context.Context, f ca.EventFilter) (page ca.EventPage, err error) {
	sql, args, err := searchStatement(f, textInAnyCase)
	if err != nil {
		return page, err
	}
	var last string
	var walked int64
	search := func(ctx context.Context, db querier) error {
		page = ca.EventPage{}
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		var leaf []byte
		var index int64
		var fits bool
		var private []privateText
		_, err = pgx.ForEachRow(rows, []any{&last, &leaf, &index, &fits, &walked, &private}, func() error {
			if fits {
				page.Events = append(page.Events, ca.LoggedEvent{Event: eventOf(last, leaf, private), Index: index})
			}
			return nil
		})
		return err
	}
	err = s.read(ctx, "searching the audit log", func(ctx context.Context, db querier) error {
		err := search(ctx, db)
		if sqlState(err) == notUTF8 && f.Text != "" {
			if sql, args, err = searchStatement(f, textInOctets); err == nil {
				err = search(ctx, db)
			}
		}
		return err
	})
	if isNoUUID(err) {
		return ca.EventPage{}, errCursor()
	}
	if err != nil {
		return ca.EventPage{}, err
	}
	switch {
	case len(page.Events) > f.Limit:
		page.Events = page.Events[:f.Limit]
		page.Next = page.Events[f.Limit-1].ID
	case walked == maxWalked:
		page.Next = last
	}
	return page, nil
}

// Event looks an event up.
func (s *Store) Event(ctx context.Context, id string) (e ca.LoggedEvent, err error) {
	err = s.read(ctx, "looking up an event", func(ctx context.Context, db querier) error {
		var leaf []byte
		var private []privateText
		if err := db.QueryRow(ctx, selectEvent, id).Scan(&id, &leaf, &e.Index, &private); err != nil {
			return err
		}
		e.Event = eventOf(id, leaf, private)
		return nil
	})
	if errors.Is(err, pgx.ErrNoRows) || isNoUUID(err) {
		return ca.LoggedEvent{}, fmt.Errorf("the event: %w", ca.ErrNotFound)
	}
	return e, err
}

// eventOf reads an event from its leaf, with the private texts that were logged with it.
func eventOf(id string, leaf []byte, private []privateText) audit.Event {
	e, err := audit.Parse(leaf)
	if err != nil {
		return audit.Unread(id, leaf)
	}
	for _, p := range private {
		if p.in(e) {
			e.Data[p.Field] = p.Value
		}
	}
	return e
}

func searchStatement(f ca.EventFilter, inText string) (sql string, args []any, err error) {
	if f.Limit < 1 || f.Limit > maxListed {
		return "", nil, &ca.InvalidError{Field: "limit", Message: fmt.Sprintf("a page has 1 to %d events", maxListed), Hint: "leave it out"}
	}
	const everything = "ffffffff-ffff-ffff-ffff-ffffffffffff"
	before := everything
	switch {
	case f.Cursor != "":
		before = f.Cursor
	case !f.Until.IsZero():
		before = idBound(f.Until, 0)
	}
	from, walk, fit := idBound(f.Since, 0), &statement{}, &statement{}
	if f.Since.IsZero() {
		from = idBound(time.Unix(0, 0), 0)
	}
	args = []any{before, from, maxWalked, f.Limit + 1}
	form := searchWalk
	if len(f.Serial) > 0 {
		form = searchSerial
		at := time.Unix(0, 0)
		if len(f.Serial) == serialLength && issuance.Serial(f.Serial).Valid() {
			at = issuance.Serial(f.Serial).Time()
		}
		args = append(args, f.Serial, idBound(at.Add(-time.Second), 0), idBound(at.Add(eventsOfSerial), 0))
	}
	walk.args = args
	if f.Kind != "" {
		if prefix, isPrefix := strings.CutSuffix(f.Kind, "."); isPrefix {
			walk.where("starts_with(l.kind, ?)", prefix+".")
		} else {
			walk.where("l.kind = ?", f.Kind)
			if !slices.Contains([]string{string(audit.CertificateIntended), string(audit.CertificateIssued), string(audit.KeySigned)}, f.Kind) {
				walk.WriteString(frequentKinds)
			}
		}
	}
	fit.args = walk.args
	for _, c := range []struct {
		before, value, after string
		given                bool
	}{
		{`{"actor":`, f.Actor, `,"data":{`, f.Actor != ""},
		{`,"namespace":`, f.Namespace, `,"time":"`, f.Namespace != access.AllNamespaces},
		{`"serial":`, fmt.Sprintf("%x", f.Serial), ``, len(f.Serial) > 0},
	} {
		if c.given {
			value, err := inLeaf(c.value)
			if err != nil {
				return "", nil, err
			}
			fit.where("position(? IN w.leaf) > 0", []byte(c.before+value+c.after))
		}
	}
	if f.Text != "" {
		value, err := inLeaf(f.Text)
		if err != nil {
			return "", nil, err
		}
		fit.where(inText, strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`), f.Text)
	}
	return fmt.Sprintf(form, walk.String(), fit.String()), fit.args, nil
}

// privateText is a private text of an event as it is kept.
type privateText struct {
	Field string `json:"field"`
	Salt  string `json:"salt"`
	Value string `json:"value"`
}

// in tells whether the text is the one that was logged with an event.
func (p privateText) in(e audit.Event) bool {
	one := audit.Private{Event: e.ID, Field: p.Field, Value: p.Value}
	n, err := hex.Decode(one.Salt[:], []byte(p.Salt))
	return err == nil && n == len(one.Salt) && one.In(e)
}

// inLeaf is a text as it stands in a leaf.
func inLeaf(text string) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return "", fmt.Errorf("searching the audit log: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
