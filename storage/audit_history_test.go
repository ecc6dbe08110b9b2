package storage_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/postgres"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// history is a log of its own size in a database, with checkpoints of the sizes given. What signs them here is a word.
func (f *fixture) history(n int, checkpoints ...int) {
	f.t.Helper()
	ctx := context.Background()
	tree := &audit.Tree{}
	var leaves, places, subtrees, signed [][]any
	for i := range n {
		id := newID()
		leaf, err := audit.New(audit.Event{
			ID: id, Kind: audit.CertificateIssued, Time: time.Now(), Actor: "system", Namespace: "dev", Data: map[string]string{
				"issuer": "issuing-1", "serial": fmt.Sprintf("1c%038x", i), "kind": "final", "certificate_sha256": strings.Repeat("ab", 32),
				"request": newID(),
				"profile": "tls-server", "policy": strings.Repeat("cd", 32), "not_after": "2027-01-01T00:00:00Z", "replica": "alpha",
			},
		})
		if err != nil {
			f.t.Fatal(err)
		}
		hash := audit.HashOf(leaf.Bytes())
		leaves = append(leaves, []any{uuidOf(f.t, id), string(leaf.Kind()), leaf.Bytes()})
		places = append(places, []any{int64(i), uuidOf(f.t, id), hash[:]})
		for _, s := range tree.Append(hash) {
			subtrees = append(subtrees, []any{int16(s.Level), s.N, s.Hash[:]})
		}
		for len(checkpoints) > 0 && checkpoints[0] == i+1 {
			root := tree.Root()
			signed = append(signed, []any{int64(i + 1), root[:], logWord(i+1, root)})
			checkpoints = checkpoints[1:]
		}
	}
	for _, c := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"audit_leaves", []string{"id", "kind", "leaf"}, leaves},
		{"audit_sequence", []string{"index", "id", "hash"}, places},
		{"audit_subtrees", []string{"level", "n", "hash"}, subtrees},
		{"audit_checkpoints", []string{"size", "root", "note"}, signed},
	} {
		if _, err := f.owner.CopyFrom(ctx, pgx.Identifier{c.table}, c.columns, pgx.CopyFromRows(c.rows)); err != nil {
			f.t.Fatalf("%s: %v", c.table, err)
		}
	}
	f.exec("DELETE FROM audit_unsequenced")
}

func uuidOf(t testing.TB, id string) (u [16]byte) {
	if _, err := hex.Decode(u[:], []byte(strings.ReplaceAll(id, "-", ""))); err != nil {
		t.Fatal(err)
	}
	return u
}

// logWord is what stands for a signed checkpoint here, and readLogWord reads it.
func logWord(size int, root audit.Hash) string { return fmt.Sprintf("signed %d %x", size, root[:]) }

func readLogWord(text []byte) (c audit.Checkpoint, err error) {
	parts := strings.Fields(string(text))
	if len(parts) != 3 || parts[0] != "signed" || len(parts[2]) != 64 {
		return c, errors.New("the signature is not of the log's key")
	}
	if c.Size, err = strconv.ParseInt(parts[1], 10, 64); err == nil {
		_, err = hex.Decode(c.Root[:], []byte(parts[2]))
	}
	return c, err
}

func (f *fixture) verify(kept ...audit.Note) *audit.Report {
	f.t.Helper()
	ctx := context.Background()
	h, err := storage.OpenHistory(ctx, f.db.OwnerURL, 2)
	if err != nil {
		f.t.Fatal(err)
	}
	defer h.Close()
	r, err := audit.Verify(ctx, h, audit.Verification{Open: readLogWord, Workers: 2, Kept: kept})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// superuser is a session in which no trigger and no foreign key stands in the way.
func superuser(t testing.TB, server *storagetest.Server) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(server.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	config.Database = postgres.Database
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := conn.Exec(context.Background(), "SET session_replication_role = replica"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Whatever a superuser does to the rows of a log is found, at its place: bits, deletions, swaps, truncations; and the log that is put back
// as it was is sound.
func TestWhatASuperuserRewritesIsFound(t *testing.T) {
	const n, samples = 10_000, 12
	server := storagetest.NewServer(t, storagetest.Options{})
	f := &fixture{t: t, db: &server.Database, owner: connect(t, server.OwnerURL)}
	f.history(n, 1, 700, 2999, 3000, 7777, n)
	admin := superuser(t, server)
	do := func(sql string, args ...any) {
		t.Helper()
		if tag, err := admin.Exec(context.Background(), sql, args...); err != nil || tag.RowsAffected() == 0 {
			t.Fatalf("%s: %v, %d rows", sql, err, tag.RowsAffected())
		}
	}
	tables := []string{"audit_leaves", "audit_sequence", "audit_checkpoints", "audit_subtrees"}
	for _, table := range tables {
		do("CREATE TABLE kept_" + table + " AS TABLE " + table)
	}
	restore := func() {
		for _, table := range tables {
			_, err := admin.Exec(context.Background(), "TRUNCATE "+table+" CASCADE")
			if err != nil {
				t.Fatal(err)
			}
			do("INSERT INTO " + table + " SELECT * FROM kept_" + table)
		}
	}
	wantFirst := func(what string, kind audit.Fault, index int) {
		t.Helper()
		r := f.verify()
		if found := r.First(); found == nil || found.Kind != kind || found.Index != int64(index) || found.Until != int64(index+1) {
			t.Errorf("%s: the first finding is %v, want %s at %d; %d in all", what, found, kind, index, r.Bad)
		}
	}
	sound := func() {
		t.Helper()
		if r := f.verify(); !r.Sound() || r.Size != n || r.Covered != n || r.Checkpoints != 6 {
			t.Fatalf("the history as it was: %v, %+v", r.First(), r)
		}
	}
	sound()
	random := rand.New(rand.NewPCG(1, 2))
	atIndex := "(SELECT id FROM kept_audit_sequence WHERE index = $1)"
	for range samples {
		index, bit := random.IntN(n), 0
		if err := admin.QueryRow(context.Background(), "SELECT octet_length(leaf) FROM audit_leaves WHERE id = "+atIndex,
			index).Scan(&bit); err != nil {
			t.Fatal(err)
		}
		bit = random.IntN(8 * bit)
		flip := "UPDATE audit_leaves SET leaf = set_bit(leaf, $2, 1 - get_bit(leaf, $2)) WHERE id = " + atIndex
		do(flip, index, bit)
		wantFirst(fmt.Sprintf("bit %d of leaf %d", bit, index), audit.Changed, index)
		do(flip, index, bit)

		do("DELETE FROM audit_leaves WHERE id = "+atIndex, index)
		wantFirst("a deleted leaf", audit.Missing, index)
		do("INSERT INTO audit_leaves SELECT * FROM kept_audit_leaves WHERE id = "+atIndex, index)

		do("DELETE FROM audit_sequence WHERE index = $1", index)
		kind, gone := audit.Missing, index
		if index == n-1 {
			kind = audit.Truncated
		}
		wantFirst("a deleted place", kind, gone)
		do("INSERT INTO audit_sequence SELECT * FROM kept_audit_sequence WHERE index = $1", index)

		other := (index + 1 + random.IntN(n-1)) % n
		swap := func() {
			do(`WITH a AS (SELECT id, leaf, kind FROM audit_leaves WHERE id = (SELECT id FROM kept_audit_sequence WHERE index = $1)),
				b AS (SELECT id, leaf, kind FROM audit_leaves WHERE id = (SELECT id FROM kept_audit_sequence WHERE index = $2))
				UPDATE audit_leaves AS l SET leaf = CASE WHEN l.id = a.id THEN b.leaf ELSE a.leaf END FROM a, b WHERE l.id IN (a.id, b.id)`, index, other)
		}
		swap()
		wantFirst(fmt.Sprintf("leaves %d and %d swapped", index, other), audit.Moved, min(index, other))
		swap()
	}
	sound()
	for range 4 {
		left := 1 + random.IntN(n-1)
		do("DELETE FROM audit_leaves WHERE id IN (SELECT id FROM audit_sequence WHERE index >= $1)", left)
		do("DELETE FROM audit_sequence WHERE index >= $1", left)
		if r := f.verify(); r.First() == nil || r.First().Kind != audit.Truncated || r.First().Index != int64(left) {
			t.Errorf("truncated to %d: %v", left, r.First())
		}
		restore()

		// The places after a deleted one are moved up, so that no gap is left.
		at := random.IntN(n - 1)
		do("DELETE FROM audit_sequence WHERE index = $1", at)
		do("UPDATE audit_sequence SET index = index + 1000000 WHERE index > $1", at) // an index is not free before its row has moved
		do("UPDATE audit_sequence SET index = index - 1000001 WHERE index > $1", at)
		r := f.verify()
		if found := r.First(); found == nil || found.Index > int64(at) || found.Until <= int64(at) {
			t.Errorf("leaf %d taken out and the rest moved up: %v", at, found)
		}
		restore()
	}
	sound()

	// Whoever writes checkpoints has no key to sign them with.
	do("UPDATE audit_checkpoints SET note = 'forged', size = 5000 WHERE size = 3000")
	wantFirst("a forged checkpoint", audit.Forged, 4999)
	restore()
	// The key signs two histories of one size.
	if _, err := admin.Exec(context.Background(), "ALTER TABLE audit_checkpoints DROP CONSTRAINT audit_checkpoints_pkey CASCADE"); err != nil {
		t.Fatal(err)
	}
	do("INSERT INTO audit_checkpoints (size, root, note) VALUES (7777, '\\x"+strings.Repeat("00", 32)+"', $1)", logWord(7777, audit.Hash{}))
	if r := f.verify(); r.Bad != 1 || r.First().Kind != audit.SplitView || r.First().Until != 7777 {
		t.Errorf("a split view: %v", r.Findings)
	}
	do("DELETE FROM audit_checkpoints WHERE root = '\\x" + strings.Repeat("00", 32) + "'")
	sound()

	// Whoever deletes the checkpoints as well is found by one that was kept outside.
	kept := audit.Note{Where: "kept outside"}
	if err := admin.QueryRow(context.Background(), "SELECT note FROM audit_checkpoints WHERE size = 7777").Scan(&kept.Text); err != nil {
		t.Fatal(err)
	}
	do("DELETE FROM audit_leaves WHERE id IN (SELECT id FROM audit_sequence WHERE index >= 7000)")
	do("DELETE FROM audit_sequence WHERE index >= 7000")
	do("DELETE FROM audit_checkpoints WHERE size > 7000")
	if r := f.verify(); !r.Sound() {
		t.Errorf("with nothing kept outside: %v", r.First())
	}
	if r := f.verify(kept); r.First() == nil || r.First().Kind != audit.Truncated || r.First().Index != 7000 {
		t.Errorf("with a checkpoint kept outside: %v", r.First())
	}
}

// What is read since a checkpoint begins with what the tree says of it.
func TestHistorySince(t *testing.T) {
	f := setUp(t)
	const n = 1500
	f.history(n, 700, n)
	ctx := context.Background()
	h, err := storage.OpenHistory(ctx, f.db.OwnerURL, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, since := range []int64{0, 1, 255, 256, 257, 700, n - 1, n} {
		start, err := h.Since(ctx, since)
		if err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify(ctx, h, audit.Verification{Open: readLogWord, Workers: 2, Start: start})
		if err != nil || !r.Sound() || r.From != since || r.Size != n {
			t.Errorf("since %d: %+v, %v", since, r, err)
		}
	}
	if _, err := h.Since(ctx, n+1); err == nil {
		t.Error("a start after the end was taken")
	}
	note, err := h.Checkpoint(ctx)
	if c, _ := readLogWord(note); err != nil || c.Size != n {
		t.Errorf("the newest checkpoint: %s, %v", note, err)
	}
}

func TestHistoryOfNothing(t *testing.T) {
	f := setUp(t)
	if r := f.verify(); !r.Sound() || r.Size != 0 {
		t.Errorf("an empty log: %+v", r)
	}
	_, err := storage.OpenHistory(context.Background(), storagetest.NewEmpty(t).OwnerURL, 1)
	if !errors.Is(err, storage.ErrSchema) {
		t.Errorf("a database without a log: %v", err)
	}
}

// An auditor's login needs one role, and can do nothing but read with it.
func TestAnAuditorReads(t *testing.T) {
	server := storagetest.NewServer(t, storagetest.Options{})
	f := &fixture{t: t, db: &server.Database, owner: connect(t, server.OwnerURL)}
	f.history(300, 300)
	admin := superuser(t, server)
	if _, err := admin.Exec(context.Background(), "CREATE ROLE auditor LOGIN"); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("auditor")
	f.db.OwnerURL = u.String()
	if _, err := storage.OpenHistory(context.Background(), u.String(), 1); !errors.Is(err, storage.ErrAuditorRights) {
		t.Errorf("a login without the role: %v", err)
	}
	if _, err := admin.Exec(context.Background(), "GRANT chancery_auditor TO auditor"); err != nil {
		t.Fatal(err)
	}
	if r := f.verify(); !r.Sound() || r.Size != 300 {
		t.Errorf("an auditor: %+v", r)
	}
	conn := connect(t, u.String())
	for _, sql := range []string{
		"DELETE FROM audit_leaves", "UPDATE audit_leaves SET kind = ''", "INSERT INTO audit_leaves (id, kind, leaf) VALUES " +
			"(gen_random_uuid(), '', '')",
		"SELECT * FROM api_tokens", "DELETE FROM audit_unsequenced", "DELETE FROM certificates",
	} {
		if _, err := conn.Exec(context.Background(), sql); sqlState(err) != insufficientPrivilege {
			t.Errorf("an auditor may %s: %v", sql, err)
		}
	}
}

// BenchmarkVerifyDatabase verifies a history of a hundred thousand leaves. The server works on the same processors.
func BenchmarkVerifyDatabase(b *testing.B) {
	f := setUp(b)
	n := 100_000
	if testing.Short() {
		n = 4_000
	}
	f.history(n, 1000, n/2, n)
	f.exec("ANALYZE")
	b.ResetTimer()
	for b.Loop() {
		if r := f.verify(); r.Size != int64(n) || !r.Sound() {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "leaves/s")
}

// rows holds rows against events, and tells what does not agree.
func (f *fixture) rows() (found []audit.Finding) {
	f.t.Helper()
	ctx := context.Background()
	h, err := storage.OpenHistory(ctx, f.db.OwnerURL, 2)
	if err != nil {
		f.t.Fatal(err)
	}
	defer h.Close()
	var seen int64
	if err := h.HoldRows(ctx, func(x audit.Finding) { found = append(found, x) }, func(n int64) { seen = n }); err != nil {
		f.t.Fatal(err)
	}
	if seen == 0 {
		f.t.Error("no row was looked at")
	}
	return found
}

// wantFound holds the kinds of what is found in the rows against those that are wanted.
func (f *fixture) wantFound(what string, kinds ...audit.Fault) {
	f.t.Helper()
	var got []audit.Fault
	for _, x := range f.rows() {
		got = append(got, x.Kind)
	}
	if !slices.Equal(got, kinds) {
		f.t.Errorf("%s: found %v, want %v", what, got, kinds)
	}
}

// sequence gives every leaf that waits its place.
func (f *fixture) sequence() {
	f.exec(`WITH next AS (SELECT coalesce(max(index) + 1, 0) AS index FROM audit_sequence)
		INSERT INTO audit_sequence (index, id, hash)
		SELECT (SELECT index FROM next) + row_number() OVER (ORDER BY l.id) - 1, l.id, sha256('\x00'::bytea || l.leaf)
		FROM audit_leaves AS l WHERE NOT EXISTS (SELECT FROM audit_sequence AS s WHERE s.id = l.id)`)
	f.exec("DELETE FROM audit_unsequenced")
}

// A certificate that its event does not speak of, or speaks of otherwise, is found; and an event whose certificate is gone.
func TestRowsAndEvents(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.exec("ALTER TABLE audit_leaves DISABLE TRIGGER facts_stay")
	f.exec("ALTER TABLE certificates DISABLE TRIGGER facts_stay")
	f.exec("ALTER TABLE revocations DISABLE TRIGGER facts_stay")
	f.addReadableAuthority("issuing-1")
	c := f.issue(readable(t, ca.FullScope))
	r := f.revoke(c, issuance.KeyCompromise, 0)
	data := map[string]string{
		"issuer": c.Issuer, "serial": c.Serial.String(), "kind": string(c.Kind), "certificate_sha256": fmt.Sprintf("%x", sha256.Sum256(c.DER)),
	}
	say := func(id string, kind audit.Kind, data map[string]string) {
		t.Helper()
		leaf, err := audit.New(audit.Event{ID: id, Kind: kind, Time: time.Now(), Actor: "system", Data: data})
		if err != nil {
			t.Fatal(err)
		}
		f.exec("DELETE FROM audit_leaves WHERE id = $1::text::uuid", id)
		f.exec("INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, $2, $3)", id, string(kind), leaf.Bytes())
	}
	say(c.EventID, audit.CertificateIssued, data)
	revoked := map[string]string{"issuer": c.Issuer, "serial": c.Serial.String(), "reason": r.Reason.String()}
	say(r.EventID, audit.CertificateRevoked, revoked)
	f.exec("DELETE FROM audit_leaves WHERE id NOT IN ($1::text::uuid, $2::text::uuid)", c.EventID, r.EventID)
	f.sequence()
	if found := f.rows(); len(found) != 0 {
		t.Fatalf("a sound database: %v", found)
	}
	want := f.wantFound

	data["certificate_sha256"] = strings.Repeat("00", 32)
	say(c.EventID, audit.CertificateIssued, data)
	want("a certificate unlike its event", audit.Unlogged)
	data["certificate_sha256"] = fmt.Sprintf("%x", sha256.Sum256(c.DER))
	say(c.EventID, audit.CertificateIssued, data)
	f.exec("DELETE FROM audit_unsequenced")

	f.exec("UPDATE certificates SET event_id = gen_random_uuid()")
	want("a certificate without an event", audit.Unlogged, audit.Unrecorded)
	f.exec("UPDATE certificates SET event_id = $1::text::uuid", c.EventID)

	for _, reason := range []issuance.Reason{issuance.RemoveFromCRL, issuance.CertificateHold, issuance.Superseded} {
		f.exec("UPDATE revocations SET reason = $1", int(reason))
		faults := []audit.Fault{audit.Unlogged}
		if reason == issuance.RemoveFromCRL {
			faults = append(faults, audit.Unlogged) // there was no hold either
		}
		want("a revocation that became "+reason.String(), faults...)
	}
	f.exec("UPDATE revocations SET reason = $1", int(r.Reason))
	want("a revocation as it was")
	f.exec("UPDATE revocations SET at = at - interval '1 day'")
	want("a revocation that was earlier", audit.Unlogged)
	f.exec("UPDATE revocations SET at = at + interval '1 day', invalidity_date = at")
	want("a revocation with an invalidity date", audit.Unlogged)
	f.exec("UPDATE revocations SET invalidity_date = NULL")
	say(r.EventID, audit.CertificateOrphaned, map[string]string{"issuer": c.Issuer, "serial": c.Serial.String(), "why": "a crash"})
	want("an orphan's revocation for a reason", audit.Unlogged)
	f.exec("UPDATE revocations SET reason = $1", int(issuance.RemoveFromCRL))
	want("the revocation of an orphan that ended", audit.Unlogged, audit.Unlogged)
	f.exec("UPDATE revocations SET reason = 0")
	want("the revocation of an orphan")
	f.exec("UPDATE revocations SET reason = $1", int(r.Reason))
	say(r.EventID, audit.CertificateRevoked, revoked)
	f.exec("DELETE FROM audit_unsequenced")

	f.exec("DELETE FROM revocations")
	want("a revocation that is gone", audit.Unrecorded)
	f.exec("DELETE FROM certificates")
	want("a certificate that is gone", audit.Unrecorded, audit.Unrecorded)

	if err := f.RecordEvents(ctx, leaf(t, audit.ServiceStarted)); err != nil {
		t.Fatal(err)
	}
	want("a leaf on its way", audit.Unrecorded, audit.Unrecorded)
	f.exec("DELETE FROM audit_unsequenced")
	want("a leaf kept out of the log", audit.Unsequenced, audit.Unrecorded, audit.Unrecorded)
}

// An event speaks of a request that is gone, or that asks for something else by now: whoever reads the requests would not see what was
// decided on. One that is archived is in its file, which the log names.
func TestRequestsAndEvents(t *testing.T) {
	f := setUp(t)
	for _, table := range []string{"requests", "archives", "audit_sequence", "audit_leaves"} {
		f.exec("ALTER TABLE " + table + " DISABLE TRIGGER facts_stay")
	}
	f.exec("ALTER TABLE archives DISABLE TRIGGER archives_are_logged")
	for _, kind := range []audit.Kind{audit.RequestRefused, audit.RequestWaiting, audit.CertificateIntended} {
		r := newRequest()
		if kind == audit.CertificateIntended {
			r.CSR = nil // made by the authority itself
		}
		said, err := audit.New(audit.Event{ID: newID(), Kind: kind, Time: time.Now(), Actor: "system", Data: map[string]string{
			"request": r.ID, "csr_sha256": fmt.Sprintf("%x", sha256.Sum256(r.CSR)),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.RecordRefusal(context.Background(), r, said); err != nil {
			t.Fatal(err)
		}
		f.sequence()
		want := func(what string, kinds ...audit.Fault) {
			t.Helper()
			f.wantFound(fmt.Sprintf("%s, %s", kind, what), kinds...)
		}
		want("a sound database")
		f.exec("UPDATE requests SET csr = 'another' WHERE id = $1::text::uuid", r.ID)
		want("another CSR", audit.Unrecorded)
		f.exec("DELETE FROM requests WHERE id = $1::text::uuid", r.ID)
		want("a request that is gone", audit.Unrecorded)
		f.exec(`INSERT INTO archives (month, serials_from, serials_until, certificates, requests, certificates_digest, requests_digest,
				last_not_after, file, octets, sha256, actor, at, event_id)
			SELECT date_trunc('month', now() AT TIME ZONE 'UTC'), serial_bound(now()), serial_bound(now() + interval '1 s'), 0, 1, sha256(''), sha256(''),
				now(), 'file', 1, sha256(''), 'actor', now(), gen_random_uuid()`)
		want("an archive that the log knows nothing of", audit.Unlogged)
		month := archive.MonthOf(time.Now()).String()
		for digest, kinds := range map[[32]byte][]audit.Fault{sha256.Sum256(nil): nil, random32(): {audit.Unlogged}} {
			made, err := audit.New(audit.Event{ID: newID(), Kind: audit.ArchiveMade, Time: time.Now(), Actor: "system", Data: map[string]string{
				"month": month, "file": "file", "sha256": fmt.Sprintf("%x", digest), "certificates": "0", "requests": "1",
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.RecordEvents(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			f.sequence()
			f.exec("UPDATE archives SET event_id = $1::text::uuid", made.ID())
			want(fmt.Sprintf("a request of an archived month, whose file has the digest %x", digest), kinds...)
		}
		f.exec("DELETE FROM archives")
		f.exec("DELETE FROM audit_sequence")
		f.exec("DELETE FROM audit_leaves")
	}
}

// Whatever a service that was taken over has logged, the rows and the other events are held against each other, and signatures accounted for.
func TestNoEventKeepsRowsFromBeingHeld(t *testing.T) {
	f := setUp(t)
	service := f.as("chancery_service")
	f.addAuthority("issuing-1")
	for _, e := range []audit.Event{
		{ID: "no UUID", Kind: audit.CertificateIssued},
		{Kind: audit.CertificateIssued + "\x00"},
		{Kind: audit.CertificateIssued, Data: map[string]string{"issuer": "issuing-1\x00", "serial": "1c"}},
		{Kind: audit.CertificateRevoked, Data: map[string]string{"issuer": "issuing-1\x00", "serial": "1c", "crl_scope": "full"}},
		{Kind: audit.CertificateIntended, Data: map[string]string{"request": "01a22017Xd68eX737cX96f1X995142fc17a3"}},
		{Kind: audit.RequestRefused, Data: map[string]string{"request": newID(), "csr_sha256": "\x00"}},
	} {
		id := newID()
		e.ID, e.Time, e.Actor = cmp.Or(e.ID, id), time.Now(), "x"
		leaf, err := audit.New(e)
		if err != nil {
			t.Fatal(err)
		}
		const add = "INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, $2, $3)"
		if _, err := service.Exec(t.Context(), add, id, strings.TrimSuffix(string(e.Kind), "\x00"), leaf.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	f.sequence()
	unrecorded := 0
	for _, x := range f.rows() {
		if x.Kind == audit.Unrecorded {
			unrecorded++
		}
	}
	if unrecorded != 6 {
		t.Errorf("%d of 6 events are found that speak of what is not on record", unrecorded)
	}
	if lost, err := f.LostCertificates(t.Context(), time.Time{}); err != nil || len(lost) != 0 {
		t.Errorf("lost certificates: %v, %v", lost, err)
	}
}

// An event of an intent that names no serial number accounts for no signature: it would account for a certificate with any, such as one whose
// row a service that was taken over has written under another number, by which it is never revoked.
func TestAnIntentWithoutASerialAccountsForNothing(t *testing.T) {
	f := setUp(t)
	l, err := audit.New(audit.Event{ID: newID(), Kind: audit.CertificateIntended, Time: time.Now(), Actor: "x", Data: map[string]string{
		"issuer": "issuing-1", "kind": "final", "tbs_sha256": strings.Repeat("ab", 32),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RecordEvents(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	account := reconcile.Open(t.TempDir(), reconcile.Span{Until: time.Now().Add(time.Hour)}, []string{"journal"})
	defer account.Close()
	if err := f.SigningRecords(t.Context(), time.Time{}, account.Record); err != nil {
		t.Fatal(err)
	}
	signed := reconcile.Signature{
		Digest: [32]byte(bytes.Repeat([]byte{0xab}, 32)), At: time.Now(), Entry: 1, Key: "issuing-1", Kind: reconcile.Certificate, Detail: "1c07",
	}
	if err := account.Signature(signed); err != nil {
		t.Fatal(err)
	}
	var found []reconcile.Kind
	if _, err := account.Settle(t.Context(), reconcile.Oracle{Unissued: f.Unissued}, func(x reconcile.Finding) error {
		found = append(found, x.Kind)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(found); !slices.Equal(found, []reconcile.Kind{reconcile.Erased, reconcile.Unrecorded}) {
		t.Errorf("found %q", found)
	}
}

// An event that waits for its place for too long is told.
func TestEventsThatWait(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	one := leaf(t, audit.ServiceStarted)
	if err := f.RecordEvents(ctx, one); err != nil {
		t.Fatal(err)
	}
	h, err := storage.OpenHistory(ctx, f.db.OwnerURL, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if found, err := h.Waiting(ctx, time.Minute); err != nil || len(found) != 0 {
		t.Errorf("at once: %v, %v", found, err)
	}
	f.exec("UPDATE audit_unsequenced SET written_at = now() - interval '2 minutes'")
	if found, err := h.Waiting(ctx, time.Minute); err != nil || len(found) != 1 || !strings.Contains(found[0].What, one.ID()) {
		t.Errorf("after two minutes: %v, %v", found, err)
	}
}
