package storage_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/migrations"
)

// refused has a role try what a trigger must refuse.
func refused(t *testing.T, role *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := role.Exec(context.Background(), sql, args...); sqlState(err) != restrictViolation {
		t.Errorf("%s: %v", sql, err)
	}
}

// A revocation for good is the last word: nothing that the service can add takes it back, and what a superuser added is found.
func TestNothingFollowsARevocationForGood(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	service := f.as("chancery_service")
	const entry = `
		INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
		VALUES ($1, $2, $3, $4, $5, '', 'x', $6::text::uuid, $7, $8, $9)`
	add := func(role *pgx.Conn, c ca.NewCertificate, sequence int, reason issuance.Reason, event string) error {
		_, err := role.Exec(ctx, entry, c.Issuer, c.Serial[:], sequence, int(reason), now(), event, c.CRLScope, c.NotAfter, c.SPKI[:])
		return err
	}
	for _, life := range []struct {
		name  string
		lived []issuance.Reason
		then  issuance.Reason
		at    int
		may   bool
	}{
		{"released without a hold", nil, issuance.RemoveFromCRL, 1, false},
		{"not from the first entry on", nil, issuance.Superseded, 2, false},
		{"a keyCompromise is released", []issuance.Reason{issuance.KeyCompromise}, issuance.RemoveFromCRL, 2, false},
		{"a keyCompromise becomes a hold", []issuance.Reason{issuance.KeyCompromise}, issuance.CertificateHold, 2, false},
		{"a keyCompromise becomes another reason", []issuance.Reason{issuance.KeyCompromise}, issuance.Superseded, 2, false},
		{"released twice", []issuance.Reason{issuance.CertificateHold, issuance.RemoveFromCRL}, issuance.RemoveFromCRL, 3, false},
		{"an entry is left out", []issuance.Reason{issuance.CertificateHold}, issuance.RemoveFromCRL, 3, false},
		{"a hold is released", []issuance.Reason{issuance.CertificateHold}, issuance.RemoveFromCRL, 2, true},
		{"a hold becomes a revocation", []issuance.Reason{issuance.CertificateHold}, issuance.Unspecified, 2, true},
		{"held again", []issuance.Reason{issuance.CertificateHold, issuance.RemoveFromCRL}, issuance.CertificateHold, 3, true},
		{"revoked after a release", []issuance.Reason{issuance.CertificateHold, issuance.RemoveFromCRL}, issuance.KeyCompromise, 3, true},
	} {
		c := f.issue()
		for n, reason := range life.lived {
			f.revoke(c, reason, n)
		}
		switch err := add(service, c, life.at, life.then, newID()); {
		case life.may && err != nil:
			t.Errorf("%s: %v", life.name, err)
		case !life.may && sqlState(err) != restrictViolation:
			t.Errorf("%s: %v", life.name, err)
		}
	}

	// With the trigger away, and an event that fits.
	c := f.issue(readable(t, ca.FullScope))
	f.exec(`ALTER TABLE revocations DISABLE TRIGGER entries_follow`)
	told := 0
	for n, reason := range []issuance.Reason{issuance.KeyCompromise, issuance.RemoveFromCRL} {
		event, kind := newID(), audit.CertificateRevoked
		if reason == issuance.RemoveFromCRL {
			kind = audit.CertificateReleased
		}
		l, err := audit.New(audit.Event{ID: event, Kind: kind, Time: time.Now(), Actor: "x", Data: map[string]string{
			"issuer": c.Issuer, "serial": c.Serial.String(), "reason": reason.String(),
		}})
		if err != nil {
			t.Fatal(err)
		}
		f.exec("INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, $2, $3)", event, string(kind), l.Bytes())
		if err := add(f.owner, c, n+1, reason, event); err != nil {
			t.Fatal(err)
		}
	}
	f.sequence()
	for _, x := range f.rows() {
		if strings.Contains(x.What, c.Serial.String()) && strings.Contains(x.What, "removeFromCRL, which what came before does not allow") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("a revocation that was taken back is found %d times", told)
	}
}

// A revocation is for the CRL that the certificate is on, until its end, and of its key, whatever else the service adds about its serial; what
// was recorded otherwise is set right by another entry.
func TestARevocationIsOfItsCertificate(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	ends := now().AddDate(40, 0, 0).Truncate(time.Second)
	for name, until := range map[string]time.Time{"issuing-2": ends, "issuing-3": ends.AddDate(-30, 0, 0)} {
		a := newAuthority(name)
		a.Certificate = readableDER(t, []byte{0x87, name[8]}, until, a.Parent, ca.FullScope)
		if err := f.RecordAuthority(ctx, a, leaf(t, audit.AuthorityAdded)); err != nil {
			t.Fatal(err)
		}
	}
	service := f.as("chancery_service")
	const entry = `
		INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
		VALUES ($1, $2, 1, 0, now(), '', 'x', gen_random_uuid(), $3, $4, $5)`
	add := func(issuer string, serial []byte, scope string, until any, key [32]byte) error {
		_, err := service.Exec(ctx, entry, issuer, serial, scope, until, key[:])
		return err
	}
	refuse := func(what string, err error) {
		t.Helper()
		if sqlState(err) != restrictViolation {
			t.Errorf("%s: %v", what, err)
		}
	}

	c := f.issue()
	f.exec("ALTER TABLE orphans DISABLE TRIGGER never_on_record") // one that came before the certificate
	for _, table := range []string{"certificates", "orphans"} {   // of the same serial, and of another scope
		columns := "der, subject, names, search, not_before, issued_at, request_id"
		values := `'\x30', '', '{}', '', now(), now(), gen_random_uuid()`
		if table == "orphans" {
			columns, values = "tbs, request_id, intended_at, settled_at, reason", `'\x30', gen_random_uuid(), now(), now(), ''`
		}
		if _, err := service.Exec(ctx, `INSERT INTO `+table+` (serial, issuer, kind, spki_sha256, crl_scope, profile, policy_digest, namespace,
			not_after, event_id, `+columns+`) VALUES ($1, $2, 'precertificate', $3, 'nowhere', '', '', '', now() - interval '9 years',
			gen_random_uuid(), `+values+`)`, c.Serial[:], c.Issuer, c.SPKI[:]); err != nil {
			t.Fatal(err)
		}
	}
	f.exec("ALTER TABLE orphans ENABLE TRIGGER never_on_record")
	refuse("into another scope", add(c.Issuer, c.Serial[:], "nowhere", c.NotAfter, c.SPKI))
	refuse("as of a certificate that ended", add(c.Issuer, c.Serial[:], c.CRLScope, c.NotAfter.AddDate(-9, 0, 0), c.SPKI))
	refuse("as of another key", add(c.Issuer, c.Serial[:], c.CRLScope, c.NotAfter, random32()))
	refused(t, service, `INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
		SELECT issuer, serial, 1, 0, now(), '', 'x', gen_random_uuid(), scope, $3, $4
		FROM (VALUES ('issuing-1', '\x1c01'::bytea, 'full'), ($1, $2, 'nowhere')) AS v (issuer, serial, scope)`, c.Issuer, c.Serial[:], c.NotAfter, c.SPKI[:])
	if n := f.count("revocations"); n != 0 {
		t.Fatalf("%d entries are on record", n)
	}
	f.revoke(c, issuance.Superseded, 0)

	for name, until := range map[string]time.Time{"issuing-2": ends, "issuing-3": ends.AddDate(-30, 0, 0)} {
		serial := []byte{0x87, name[8]}
		refuse(name+" on a shard", add("root-1", serial, "7", until, [32]byte{}))
		for _, other := range []time.Time{until.AddDate(-100, 0, 0), until.Add(-time.Second), time.Unix(0, 0)} {
			refuse(fmt.Sprintf("%s until %v", name, other), add("root-1", serial, ca.FullScope, other, [32]byte{}))
		}
		if err := add("root-1", serial, ca.FullScope, until, [32]byte{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := add("issuing-1", []byte{0x1c, 2}, "7", ends, [32]byte{}); err != nil {
		t.Errorf("of what is on no record: %v", err)
	}

	// Recorded before its certificate was, or before anybody looked.
	early := f.issue()
	f.exec("ALTER TABLE revocations DISABLE TRIGGER entries_agree")
	if err := add(early.Issuer, early.Serial[:], "nowhere", early.NotAfter.AddDate(-9, 0, 0), early.SPKI); err != nil {
		t.Fatal(err)
	}
	f.exec("ALTER TABLE revocations ENABLE TRIGGER entries_agree")
	for _, reason := range []issuance.Reason{issuance.CertificateHold, issuance.RemoveFromCRL} {
		r := revocationOf(early, reason)
		_, err := f.RecordRevocation(ctx, r, 1, leafWithID(t, r.EventID, audit.CertificateRevoked))
		refuse(reason.String(), err)
	}
	f.revoke(early, issuance.Superseded, 1)
	again := revocationOf(early, issuance.Superseded)
	_, err := f.RecordRevocation(ctx, again, 2, leafWithID(t, again.EventID, audit.CertificateRevoked))
	refuse("set right twice", err)
	listed := map[string]bool{}
	if _, err := f.ListedRevocations(ctx, "issuing-1", ca.FullScope, func(e issuance.RevokedEntry) error {
		listed[string(e.Serial)] = true
		return nil
	}); err != nil || !listed[string(c.Serial[:])] || !listed[string(early.Serial[:])] {
		t.Errorf("listed are %d, %v", len(listed), err)
	}
}

// Whatever the service does to the numbers and claims of a scope, the next CRL can be made, and is the current one.
func TestTheServiceLeavesRoomForCRLs(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	sound := f.publish(f.claim("issuing-1"), time.Now())
	service := f.as("chancery_service")
	end, room := new(big.Int).Lsh(big.NewInt(1), 159), new(big.Int).Lsh(big.NewInt(1), 64)
	leap := new(big.Int).Sub(end, room)
	for _, sql := range []string{
		"UPDATE crl_scopes SET last_number = 9e47", "UPDATE crl_scopes SET last_number = " + new(big.Int).Add(leap, big.NewInt(1)).String(),
		"UPDATE crl_scopes SET published_number = NULL", "UPDATE crl_scopes SET delta_number = last_number + 1",
		"UPDATE crl_scopes SET fence = fence + 2", "UPDATE crl_scopes SET fence = 9223372036854775807",
		"UPDATE crl_scopes SET holder = 'nobody', lease_until = 'infinity'",
		"INSERT INTO crl_scopes (issuer, scope, last_number) VALUES ('issuing-1', '7', 9e47)",
		"INSERT INTO crl_scopes (issuer, scope, fence) VALUES ('issuing-1', '7', 9223372036854775807)",
		"INSERT INTO crl_scopes (issuer, scope, lease_until, holder) VALUES ('issuing-1', '7', 'infinity', 'nobody')",
	} {
		refused(t, service, sql)
	}
	for _, table := range []string{"crls (issuer, scope, number, der", "crl_deltas (issuer, scope, base_number, number, der"} {
		base := ""
		if strings.HasPrefix(table, "crl_deltas") {
			base = "1, "
		}
		refused(t, service, "INSERT INTO "+table+`, this_update, next_update, entries, event_id)
			VALUES ('issuing-1', 'full', `+base+`1e40, 'forged', now(), now() + interval '1 day', 0, gen_random_uuid())`)
	}
	f.publish(f.claim("issuing-1"), time.Now())

	// A number that leaps, and a row under it that was never published.
	if _, err := service.Exec(ctx, "UPDATE crl_scopes SET last_number = "+leap.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := service.Exec(ctx, `INSERT INTO crls (issuer, scope, number, der, this_update, next_update, entries, event_id)
		VALUES ('issuing-1', 'full', `+leap.String()+`, 'forged', now(), now() + interval '1 day', 0, gen_random_uuid())`); err != nil {
		t.Fatal(err)
	}
	if c, err := f.CurrentCRL(ctx, "issuing-1", ca.FullScope, nil); err != nil || string(c.DER) == "forged" {
		t.Errorf("the current CRL is %s, %v", c.DER, err)
	}
	next := f.publish(f.claim("issuing-1"), time.Now())
	if c, err := f.CurrentCRL(ctx, "issuing-1", ca.FullScope, nil); err != nil || c.Number.Cmp(next.Number) != 0 || c.Number.Cmp(sound.Number) <= 0 {
		t.Errorf("afterwards the current CRL is %v, %v", c.Number, err)
	}
}

// What was never published takes no octets from what was.
func TestUnpublishedCRLsSupersedeNothing(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	claim := f.claim("issuing-1")
	if err := f.RecordCRLIntent(ctx, crlIntent(claim, alpha), leaf(t, audit.CRLIntended)); err != nil {
		t.Fatal(err)
	}
	der := make([]byte, 70_000)
	record := ca.CRLRecord{
		Issuer: claim.Issuer, Scope: claim.Scope, Number: next(claim), DER: der, ThisUpdate: now(), NextUpdate: now().Add(time.Hour), EventID: newID(),
	}
	if err := f.RecordCRL(ctx, record, claim.Fence, leafWithID(t, record.EventID, audit.CRLPublished)); err != nil {
		t.Fatal(err)
	}
	service := f.as("chancery_service")
	for range 2 {
		for _, sql := range []string{
			"UPDATE crl_scopes SET last_number = last_number + 1",
			`INSERT INTO crls (issuer, scope, number, der, this_update, next_update, entries, event_id)
				SELECT issuer, scope, last_number, 'forged', now(), now(), 0, gen_random_uuid() FROM crl_scopes`,
		} {
			if _, err := service.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := service.Exec(ctx, "SELECT prune_crls('issuing-1', 'full')"); err != nil {
		t.Fatal(err)
	}
	if c, err := f.CurrentCRL(ctx, "issuing-1", ca.FullScope, nil); err != nil || sha256.Sum256(c.DER) != sha256.Sum256(der) {
		t.Errorf("the CRL that was published has %d octets, %v", len(c.DER), err)
	}
	refused(t, f.owner, "UPDATE crls SET der = '', der_sha256 = sha256(der) WHERE octet_length(der) = 70000")
}

// A duty always has a next term, and one that begins within a day.
func TestTheServiceLeavesRoomForTerms(t *testing.T) {
	f := setUp(t)
	if _, err := f.claimDuty(alpha); err != nil {
		t.Fatal(err)
	}
	service := f.as("chancery_service")
	for _, sql := range []string{
		"UPDATE leases SET fence = 9223372036854775807", "UPDATE leases SET fence = fence + 2", "UPDATE leases SET duty = 'another'",
		"UPDATE leases SET lease_until = 'infinity'", "INSERT INTO leases (duty, fence) VALUES ('another', 9223372036854775807)",
	} {
		refused(t, service, sql)
	}
	f.exec(fmt.Sprintf(`INSERT INTO leases (duty) VALUES ('%s-2')`, duty))
	f.expire(duty)
	if _, err := f.claimDuty(beta); err != nil {
		t.Errorf("the next term: %v", err)
	}
}

// No row that the service can add keeps a scope's revocations from being read and listed.
func TestEveryRevocationFitsOnACRL(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	service := f.as("chancery_service")
	for name, values := range map[string]string{
		"for ever":                     `('\x1c99'::bytea, 'infinity'::timestamptz, NULL::timestamptz, now() + interval '1 day')`,
		"since ever":                   `('\x1c99'::bytea, '-infinity'::timestamptz, NULL::timestamptz, now() + interval '1 day')`,
		"in a year of no UTCTime":      `('\x1c99'::bytea, '1066-01-01'::timestamptz, NULL::timestamptz, now() + interval '1 day')`,
		"in a year of five digits":     `('\x1c99'::bytea, '10000-01-01 00:00Z'::timestamptz, NULL::timestamptz, now() + interval '1 day')`,
		"a key that will never be bad": `('\x1c99'::bytea, now(), 'infinity'::timestamptz, now() + interval '1 day')`,
		"a key that was always bad":    `('\x1c99'::bytea, now(), '-infinity'::timestamptz, now() + interval '1 day')`,
		"a certificate without end":    `('\x1c99'::bytea, now(), NULL::timestamptz, 'infinity'::timestamptz)`,
		"no serial":                    `(''::bytea, now(), NULL::timestamptz, now() + interval '1 day')`,
		"a long serial":                `(decode(repeat('1c', 21), 'hex'), now(), NULL::timestamptz, now() + interval '1 day')`,
		"a serial in two writings": `('\x1c99'::bytea, now(), NULL::timestamptz, now() + interval '1 day'),
			('\x001c99'::bytea, now(), NULL, now() + interval '1 day')`,
	} {
		if _, err := service.Exec(ctx, `INSERT INTO revocations (issuer, serial, sequence, reason, at, invalidity_date, not_after, comment, actor,
			event_id, crl_scope, spki_sha256)
			SELECT 'issuing-1', s, 1, 0, a, i, n, '', 'x', gen_random_uuid(), 'full', sha256('x') FROM (VALUES `+values+`) AS v (s, a, i, n)`,
		); sqlState(err) != checkViolation {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, serial := range []string{`''`, `'\x001c'`, `decode(repeat('1c', 21), 'hex')`} {
		if _, err := service.Exec(ctx, `INSERT INTO crl_pending (issuer, scope, serial) VALUES ('issuing-1', 'full', `+serial+`)`); sqlState(err) != checkViolation {
			t.Errorf("%s is pending: %v", serial, err)
		}
	}
	// What counts as issued is what an order revokes, one lot of it together.
	if _, err := service.Exec(ctx, `INSERT INTO orphans (serial, issuer, kind, tbs, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id,
		not_after, intended_at, settled_at, reason, event_id) VALUES (decode(repeat('00', 20), 'hex'), 'issuing-1', 'final', '', sha256('x'), 'full', '', '', '',
		gen_random_uuid(), now(), now(), now(), '', gen_random_uuid())`); sqlState(err) != checkViolation {
		t.Errorf("an orphan that cannot be revoked: %v", err)
	}

	// Everything that is let through can be read: the ends of each bound.
	before, err := f.FeedPosition(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Exec(ctx, `INSERT INTO revocations (issuer, serial, sequence, reason, at, invalidity_date, not_after, comment, actor, event_id,
		crl_scope, spki_sha256)
		SELECT 'issuing-1', s, 1, 0, a, i, n, '', 'x', gen_random_uuid(), 'full', sha256('x') FROM (VALUES
			('\x01'::bytea, '1950-01-01 00:00Z'::timestamptz, '0001-01-01 00:00Z BC'::timestamptz, '0001-01-01 00:00Z BC'::timestamptz),
			(decode(repeat('ff', 20), 'hex'), '9999-12-31 23:59:59.999999Z', '9999-12-31 23:59:59.999999Z', '9999-12-31 23:59:59.999999Z')
		) AS v (s, a, i, n)`); err != nil {
		t.Fatal(err)
	}
	r := f.revoke(f.issue(), issuance.Superseded, 0)
	var list issuance.Revoked
	var all []issuance.RevokedEntry
	if _, err := f.ListedRevocations(ctx, "issuing-1", ca.FullScope, func(e issuance.RevokedEntry) error {
		all = append(all, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := list.Apply(time.Now(), all); err != nil || list.Len() != 3 {
		t.Errorf("the next CRL has %d entries, %v", list.Len(), err)
	}
	if given, _ := f.follow(before); len(given) != 3 || !slices.Contains(given, entryName(r)) {
		t.Errorf("replicas are told of %q", given)
	}
}

// Each moment and each length of time that the service can write is one that programs can read, of all tables, those of later migrations
// among them. A migration that adds such a column bounds it, as 00024 does.
func TestTimesAreBounded(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	excused := map[string]string{
		"reservations.until": "may be for ever, and is never read",
	}
	rows, err := f.owner.Query(ctx, `
		SELECT c.relname, a.attname, a.atttypid::regtype::text,
			(SELECT array_agg(format('NULL::%s AS %I', o.atttypid::regtype, o.attname)) FROM pg_attribute AS o
				WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped AND o.attnum <> a.attnum),
			coalesce((SELECT string_agg(pg_get_expr(k.conbin, k.conrelid), ' AND ') FROM pg_constraint AS k
				WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey)), 'true')
		FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.atttypid IN ('timestamptz'::regtype, 'interval'::regtype)
			AND (has_any_column_privilege('chancery_service', c.oid, 'INSERT, UPDATE') OR c.relispartition)
		ORDER BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	type column struct {
		Table, Name, Type string
		Others            []string
		Bounds            string
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil || len(columns) < 70 {
		t.Fatalf("there are %d columns, %v", len(columns), err)
	}
	for _, c := range columns {
		values := []string{"infinity", "-infinity"}
		switch {
		case excused[c.Table+"."+c.Name] != "":
			delete(excused, c.Table+"."+c.Name)
			continue
		case c.Type == "interval":
			values = []string{"300 years", "-300 years", "100000000 years"}
		case c.Name == "lease_until":
			values = []string{"infinity"} // -infinity is the lease of nobody, and leases are only compared
		}
		for _, value := range values {
			from := strings.Join(append(c.Others, fmt.Sprintf("'%s'::%s AS %s", value, c.Type, pgx.Identifier{c.Name}.Sanitize())), ", ")
			var holds *bool
			if err := f.owner.QueryRow(ctx, "SELECT "+c.Bounds+" FROM (SELECT "+from+") AS t").Scan(&holds); err != nil {
				t.Fatal(err)
			}
			if holds == nil || *holds {
				t.Errorf("the service may write %s into %s.%s: have the migration bound it", value, c.Table, c.Name)
			}
		}
	}
	for name := range excused {
		t.Errorf("%s is excused, and there is no such column", name)
	}
}

// Whatever the service adds to working tables and facts, what reads all of them goes on.
func TestNoRowKeepsTheOthersFromBeingRead(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	c := f.issue()
	f.publish(f.claim("issuing-1"), time.Now())
	open := newIntent(t, beta)
	open.Lease = time.Millisecond
	if err := f.RecordIntent(ctx, open, leaf(t, audit.CertificateIntended)); err != nil {
		t.Fatal(err)
	}
	service := f.as("chancery_service")
	for _, sql := range []string{
		"UPDATE crl_scopes SET this_update = 'infinity'", "UPDATE crl_scopes SET this_update = '-infinity'",
		"UPDATE crl_scopes SET next_update = 'infinity'", "UPDATE crl_scopes SET delta_this_update = 'infinity'",
		`INSERT INTO crl_pending (issuer, scope, serial, at) VALUES ('issuing-1', 'full', '\x1c', 'infinity')`,
		`INSERT INTO authorities VALUES ('x', '', '', '{}', false, '', '', '', '1 day', '2 days', '', '', 'infinity')`,
		`INSERT INTO authorities VALUES ('x', '', '', '{}', false, '', '', '', '100000000 years', '2 days', '', '', now())`,
		`INSERT INTO intents (serial, issuer, kind, tbs, crl_scope, spki_sha256, namespace, profile, policy_digest, not_after, request_id,
			idempotency_actor, idempotency_key, created_at, owner_name, owner_run, lease_until)
			SELECT '\x1c' || substring(sha256('x') FROM 1 FOR 19), 'issuing-1', 'final', '', 'full', sha256('y'), '', '', '', now(), gen_random_uuid(),
			'', '', '-infinity', 'x', 'y', now() - interval '1 day'`,
		`INSERT INTO certificates SELECT set_byte(serial, 19, get_byte(serial, 19) # 1), issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest,
			namespace, request_id, subject, names, search, '-infinity', not_after, issued_at, gen_random_uuid() FROM certificates`,
	} {
		if _, err := service.Exec(ctx, sql); sqlState(err) != checkViolation {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := claimBy(f.Store, "issuing-1", ca.FullScope, alpha); err != nil {
		t.Errorf("a claim of the CRL: %v", err)
	}
	if _, err := f.CRLStates(ctx, "issuing-1"); err != nil {
		t.Errorf("the states: %v", err)
	}
	if all, err := f.Authorities(ctx); err != nil || len(all) != 1 {
		t.Errorf("%d authorities, %v", len(all), err)
	}
	if page, err := f.List(ctx, ca.Filter{Namespace: access.AllNamespaces, Limit: 10}); err != nil || len(page.Certificates) != 1 || page.Certificates[0].Serial != c.Serial {
		t.Errorf("a page of %d, %v", len(page.Certificates), err)
	}
	f.exec(`UPDATE intents SET lease_until = now() - interval '1 second'`)
	if claimed, err := f.ClaimExpiredIntents(ctx, alpha, lease, 100); err != nil || len(claimed) != 1 {
		t.Errorf("expired intents: %d, %v", len(claimed), err)
	}
}

// There is always a number for the next policies to rule, and for the next version of a namespace.
func TestTheServiceLeavesRoomForVersions(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	service := f.as("chancery_service")
	if _, err := service.Exec(ctx, `INSERT INTO policy_sets (digest, names, contents) VALUES ('d', '{a}', '{\\x00}')`); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{
		`policy_activations (number, digest, actor_id, actor_name, comment, at, event_id) VALUES (%s, 'd', '', '', '', now(), gen_random_uuid())`,
		`namespaces (name, version, source, removed, definition, actor, at, event_id) VALUES ('x', %s, 'api', false, '{}', '', now(), gen_random_uuid())`,
	} {
		insert := func(number string) string { return fmt.Sprintf("INSERT INTO "+table, number) }
		last := "9223372036854775807"
		if strings.HasPrefix(table, "namespaces") {
			last = "2147483647"
		}
		for _, number := range []string{last, "2"} {
			refused(t, service, insert(number))
		}
		for _, number := range []string{"1", "2"} {
			if _, err := service.Exec(ctx, insert(number)); err != nil {
				t.Errorf("%s: %v", number, err)
			}
		}
		refused(t, service, insert("4"))
		if _, err := service.Exec(ctx, insert("2")); sqlState(err) != "23505" { // which callers count on
			t.Errorf("a number that is taken: %v", err)
		}
	}
}

// Replicas go on from the transactions that they have seen: an entry of the service's is of the one that wrote it, whatever it says.
func TestARevocationIsOfItsTransaction(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	at, err := f.ListedRevocations(ctx, "issuing-1", ca.FullScope, func(issuance.RevokedEntry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	service := f.as("chancery_service")
	for n, xact := range []any{"5", "1000000000000", nil} {
		c := f.issue()
		if _, err := service.Exec(ctx, `INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope,
			not_after, spki_sha256, xact) VALUES ($1, $2, 1, 0, now(), '', 'x', gen_random_uuid(), $3, $4, $5, $6::text::xid8)`,
			c.Issuer, c.Serial[:], c.CRLScope, c.NotAfter, c.SPKI[:], xact); err != nil {
			t.Fatal(err)
		}
		claim, err := f.ClaimCRL(ctx, ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: alpha, Lease: lease, Since: at})
		if err != nil || len(claim.Changes) != n+1 {
			t.Errorf("an entry that says it is of transaction %v: %d changes of the list, %v", xact, len(claim.Changes), err)
		}
		f.exec("UPDATE crl_scopes SET holder = NULL, lease_until = '-infinity'")
	}
}

// The serial number of an authority is where certificates have it: what stands there of a short one stands elsewhere in every certificate.
func TestAnAuthorityOfAShortSerialIsRevoked(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	ends := now().AddDate(9, 0, 0).Truncate(time.Second)
	until := map[string]time.Time{"issuing-2": ends, "issuing-3": ends.AddDate(-3, 0, 0)}
	for name, end := range until {
		a := newAuthority(name)
		a.Certificate = readableDER(t, []byte{name[8] - '0'}, end, a.Parent, ca.FullScope)
		if err := f.RecordAuthority(ctx, a, leaf(t, audit.AuthorityAdded)); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(name string, end time.Time) error {
		id := newID()
		_, err := f.RecordRevocation(ctx, ca.Revocation{
			Issuer: "root-1", Serial: []byte{name[8] - '0'}, Sequence: 1, Reason: issuance.CACompromise, At: now(), CRLScope: ca.FullScope, NotAfter: end,
			EventID: id, Actor: "op",
		}, 0, leafWithID(t, id, audit.CertificateRevoked))
		return err
	}
	for name := range until {
		if err := revoke(name, ends.AddDate(-8, 0, 0)); sqlState(err) != restrictViolation {
			t.Errorf("%s, as of another end: %v", name, err)
		}
	}
	for name, end := range until {
		if err := revoke(name, end); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The bounds come onto tables that are in use: a long query keeps the migration waiting, and the migration nobody else for long. What was
// done before it was interrupted stays.
func TestBoundsComeBesideALongQuery(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	text, err := migrations.FS.ReadFile("00024_rows_that_can_be_read.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "-- +goose StatementBegin\n")
	block, _, _ = strings.Cut(block, "-- +goose StatementEnd")
	f.exec("ALTER TABLE certificates DROP CONSTRAINT times_are_bounded")
	reader, err := connect(t, f.db.OwnerURL).Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(ctx, "SELECT FROM certificates"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	migrating := connect(t, f.db.OwnerURL)
	go func() {
		_, err := migrating.Exec(ctx, block)
		done <- err
	}()
	const waits = `SELECT count(*)::text FROM pg_locks WHERE relation = 'certificates'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted`
	for deadline := time.Now().Add(30 * time.Second); f.column(waits)[0] == "0"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the migration waits for nobody")
		}
	}
	f.issue() // while the query goes on
	select {
	case err := <-done:
		t.Fatalf("it ended while a query was in its way: %v", err)
	default:
	}
	if err := reader.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := f.column(`SELECT count(*)::text FROM pg_constraint WHERE conname = 'times_are_bounded' AND (conrelid = 'certificates'::regclass
		OR conrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'certificates'::regclass))`)[0]; got == "0" || got == "1" {
		t.Errorf("the bound is on %s tables", got)
	}
}
