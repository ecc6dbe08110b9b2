package storage_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
)

// idAt is an identifier of a moment.
func idAt(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	serial, _ := issuance.SerialBounds(at, at)
	copy(id[:6], serial[1:7])
	return id.String()
}

// longAgo is a moment in a month that is over for long enough.
func longAgo() time.Time { return archive.MonthOf(time.Now()).AddDate(0, -4, 10) }

// issueAt issues a certificate that was asked for and made at a moment, and lived for a day.
func (f *fixture) issueAt(at time.Time, change ...func(*ca.Intent)) ca.NewCertificate {
	f.t.Helper()
	i := f.intend(append([]func(*ca.Intent){func(i *ca.Intent) {
		i.Serial, i.Request.ID, i.Request.At, i.NotAfter = newSerial(f.t, at), idAt(at), at, at.Add(24*time.Hour)
	}}, change...)...)
	return f.finish(i)
}

func (f *fixture) archiver(dir string) archive.Archiver { return archiverOf(f.Store, dir) }

func archiverOf(s archive.Source, dir string) archive.Archiver {
	return archive.Archiver{Source: s, Dir: dir, Now: time.Now, NewID: newID, Actor: "system", Log: slog.New(slog.DiscardHandler)}
}

func (f *fixture) obstacle(month archive.Month) string {
	f.t.Helper()
	all, err := f.Months(context.Background(), time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range all {
		if m.Month == month {
			return m.Obstacle
		}
	}
	f.t.Fatalf("the month %s is not in the database", month)
	return ""
}

// past is the history as a backtest sees it, archives included.
func (f *fixture) past(dir string, since time.Time) (all []ca.PastRequest) {
	f.t.Helper()
	ctx := context.Background()
	made, err := f.Archives(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range made {
		file, err := archive.Open(filepath.Join(dir, m.File))
		if err != nil {
			f.t.Fatal(err)
		}
		defer file.Close()
		for {
			r, err := file.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				f.t.Fatal(err)
			}
			if r.Kind != archive.KindRequest {
				continue
			}
			q, err := r.Request()
			if err != nil {
				f.t.Fatal(err)
			}
			p, err := storage.ArchivedRequest(q, r.LedTo)
			if err != nil {
				f.t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	for p, err := range f.Requests(ctx, since, time.Now()) {
		if err != nil {
			f.t.Fatal(err)
		}
		p.SPKI = [32]byte{} // not asked for
		all = append(all, p)
	}
	return all
}

func TestAMonthGoesIntoAnArchive(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	at := longAgo()
	month := archive.MonthOf(at)
	f.addAuthority("issuing-1")
	var issued []ca.NewCertificate
	for n := range 5 {
		issued = append(issued, f.issueAt(at.Add(time.Duration(n)*time.Hour), func(i *ca.Intent) { i.Request.Validity = 36*time.Hour + 1500*time.Millisecond }))
	}
	refused := newRequest()
	refused.ID, refused.At, refused.Verdict, refused.CSR = idAt(at), at, policies.Refuse, nil
	if err := f.RecordRefusal(ctx, refused, leaf(t, audit.RequestRefused)); err != nil {
		t.Fatal(err)
	}
	// One was asked for at the end of the month, and issued in the next, which must not go first.
	end := month.AddDate(0, 1, 0)
	late := f.issueAt(end.Add(time.Hour), func(i *ca.Intent) { i.Request.ID, i.Request.At = idAt(end.Add(-time.Hour)), end.Add(-time.Hour) })
	newest := f.issue()
	f.revoke(issued[1], issuance.KeyCompromise, 0)

	// It waits until two CRLs have been made since: one that shows the revoked certificate after its end, and one that does not.
	dir := t.TempDir()
	run := func() []archive.Made {
		t.Helper()
		made, err := f.archiver(dir).Run(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	for range 2 {
		if why := f.obstacle(month); !strings.Contains(why, "CRL issuing-1/full") {
			t.Errorf("obstacle %q, want the CRL", why)
		}
		if made := run(); len(made) != 0 && made[0].Month == month {
			t.Fatalf("archived %v", made)
		}
		f.publish(f.claim("issuing-1"), time.Now())
	}
	if why := f.obstacle(archive.MonthOf(end)); !strings.Contains(why, "requested in another month") {
		t.Errorf("obstacle %q of the next month, want that the other goes first", why)
	}

	before := f.past(dir, at.AddDate(0, -1, 0))
	for _, p := range before {
		if i := slices.IndexFunc(issued, func(c ca.NewCertificate) bool { return c.RequestID == p.ID }); i >= 0 && string(p.Certificate.DER) != string(issued[i].DER) {
			t.Errorf("request %s led to another certificate", p.ID)
		}
	}
	keys := func() (all [][]policies.KeyUse) {
		for _, c := range append(slices.Clone(issued), late, newest) {
			uses, err := f.KeyHistory(ctx, c.SPKI)
			if err != nil || len(uses) != 1 {
				t.Fatalf("a key has %d uses, %v", len(uses), err)
			}
			all = append(all, uses)
		}
		return all
	}
	taken := func() []policies.Usage {
		used, err := f.ReservationsTaken(ctx, []policies.Reservation{{Kind: policies.ReserveKey, Scope: "*", Key: hex.EncodeToString(issued[0].SPKI[:]), Limit: 1}})
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	history, reserved := keys(), taken()
	made := run()
	if len(made) == 0 || made[0].Month != month || made[0].Certificates != 5 || made[0].Requests != 7 {
		t.Fatalf("archived %+v", made)
	}
	made = append(made, run()...) // now the next month may
	f.wantCounts("archives", len(made), "certificates", 1, "archived_keys", 6, "audit_leaves WHERE kind = 'archive.made'", len(made))
	if after := f.past(dir, at.AddDate(0, -1, 0)); inOrder(t, after) != inOrder(t, before) {
		t.Errorf("the past was\n%s\nand is now\n%s", inOrder(t, before), inOrder(t, after))
	}
	if after := keys(); !reflect.DeepEqual(after, history) {
		t.Errorf("the keys' history was\n%+v\nand is now\n%+v", history, after)
	}
	if after := taken(); !reflect.DeepEqual(after, reserved) || after[0].Used != 1 {
		t.Errorf("%+v was taken, and now %+v", reserved, after)
	}
	if compromised, err := f.KeyCompromised(ctx, issued[1].SPKI); err != nil || !compromised {
		t.Errorf("the key is compromised: %v, %v", compromised, err)
	}

	v, err := archive.Verify(t.Context(), filepath.Join(dir, made[0].File))
	if err != nil || !made[0].Is(v) || v.End.Counts[archive.KindRevocation] != 1 || v.End.FirstSerial != issued[0].Serial.String() {
		t.Errorf("the file: %+v, %v", v, err)
	}
	for _, c := range issued {
		found, err := f.Certificates(ctx, "", c.Serial[:], "*")
		if err != nil || len(found) != 0 {
			t.Errorf("%d certificates, %v", len(found), err)
		}
		if file, err := f.ArchiveOf(ctx, c.Serial[:]); err != nil || file != made[0].File {
			t.Errorf("archived in %q, %v", file, err)
		}
	}
	if file, err := f.ArchiveOf(ctx, newest.Serial[:]); err != nil || file != "" {
		t.Errorf("one that is not archived is in %q, %v", file, err)
	}
	// A clock that is wrong by months brings no month back.
	i := newIntent(t, alpha)
	i.Serial = newSerial(t, at)
	if err := f.RecordIntent(ctx, i); err == nil || !strings.Contains(err.Error(), "is the clock right") {
		t.Errorf("an intent in an archived month: %v", err)
	}
	f.wantCounts("pg_class WHERE relname = 'certificates_"+at.Format("2006_01")+"'", 0, "pg_class WHERE relname = 'requests_"+at.Format("2006_01")+"'", 0)
	if err := f.EnsurePartitions(ctx, time.Now()); err != nil {
		t.Error(err)
	}
}

// inOrder writes a history down, whatever order it came in, without the certificates themselves: in an archive they are rows of their own.
func inOrder(t *testing.T, all []ca.PastRequest) string {
	t.Helper()
	for i, p := range all {
		if p.Certificate != nil {
			told := *p.Certificate
			told.DER, all[i].Certificate = nil, &told
		}
	}
	slices.SortFunc(all, func(a, b ca.PastRequest) int { return strings.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// However many certificates of a month were revoked, a page of them is read at a time: what comes while the first is handed out is among
// them.
func TestRevocationsAreExportedInPages(t *testing.T) {
	f := setUp(t)
	for _, name := range []string{"issuing-1", "issuing-2"} {
		f.addAuthority(name)
	}
	month := archive.MonthOf(time.Now())
	add := func(issuer string, first, last int) {
		t.Helper()
		f.exec(`INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
			SELECT $1, substring(serial_bound(now()) FROM 1 FOR 7) || decode(lpad(to_hex(n), 26, '0'), 'hex'), 1, 4, now(), '', 'x', gen_random_uuid(),
				'full', now(), sha256('')
			FROM generate_series($2::int, $3::int) AS n`, issuer, first, last)
	}
	add("issuing-1", 1, 2001)
	add("issuing-2", 1, 3)
	seen := map[string]int{}
	err := f.ExportMonth(t.Context(), month, func(kind archive.Kind, row []byte, _ *archive.LedTo) error {
		if kind == archive.KindRevocation {
			if len(seen) == 0 {
				add("issuing-1", 5001, 5001)
			}
			seen[string(row)]++
		}
		return nil
	})
	if err != nil || len(seen) != 2005 {
		t.Errorf("%d revocations were exported, %v", len(seen), err)
	}
	for row, n := range seen {
		if n != 1 {
			t.Errorf("%s was exported %d times", row, n)
		}
	}
}

// Who asked for a certificate stands in its request, which is where an order to revoke what somebody asked for finds him: so a month stays
// until what was requested in it has ended, wherever that was made.
func TestAMonthKeepsTheRequestsOfValidCertificates(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	month := archive.MonthOf(longAgo())
	end := month.AddDate(0, 1, 0)
	f.addAuthority("issuing-1")
	f.issueAt(longAgo())
	// asked for an hour before the month's end, approved an hour after it
	late := func(until time.Time) ca.Intent {
		return f.intend(func(i *ca.Intent) {
			i.Serial, i.Request.ID, i.Request.At, i.NotAfter = newSerial(t, end.Add(time.Hour)), idAt(end.Add(-time.Hour)), end.Add(-time.Hour), until
		})
	}
	const ofAnother = "a certificate of another month that was requested in it has not ended"
	want := func(when, why string) {
		t.Helper()
		if got := f.obstacle(month); got != why {
			t.Errorf("%s: the obstacle is %q, want %q", when, got, why)
		}
	}
	ended := late(end.Add(2 * time.Hour))
	want("with an intent", "an intent is open")
	f.finish(ended)
	want("with what has ended", "")
	f.finish(late(now().AddDate(0, 8, 0)))
	want("with a valid certificate", ofAnother)
	if made, err := f.archiver(t.TempDir()).Run(ctx, time.Hour); err != nil || len(made) != 0 {
		t.Errorf("archived %d, %v", len(made), err)
	}
	requested := ca.Selection{Namespace: access.AllNamespaces, Requester: "actor-1"}
	if o, err := f.RevocationOutlook(ctx, requested, issuance.KeyCompromise, now()); err != nil || o.ToRevoke != 1 {
		t.Errorf("an order would revoke %d, %v", o.ToRevoke, err)
	}

	month = archive.MonthOf(longAgo().AddDate(0, -2, 0))
	end = month.AddDate(0, 1, 0)
	f.issueAt(end.Add(-48 * time.Hour))
	want("alone", "")
	f.settle(late(now().AddDate(0, 8, 0)))
	want("with what was possibly signed", ofAnother)
}

// What keeps a month is found by the database itself, whoever asks for the archive.
func TestTheDatabaseKeepsWhatIsNotArchived(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	at := longAgo()
	month := archive.MonthOf(at)
	f.addAuthority("issuing-1")
	f.issueAt(at)
	open := f.intend(func(i *ca.Intent) { i.Serial, i.Request.ID, i.NotAfter = newSerial(t, at), idAt(at), at.Add(time.Hour) })
	if why := f.obstacle(month); why != "an intent is open" {
		t.Errorf("obstacle %q", why)
	}
	f.finish(open)
	if why := f.obstacle(month); why != "" {
		t.Errorf("obstacle %q", why)
	}
	if why := f.obstacle(archive.MonthOf(time.Now())); why != "the month is not long enough over" {
		t.Errorf("obstacle of this month %q", why)
	}
	good := archive.Made{Month: month, File: "f", EventID: newID(), Certificates: 2, Requests: 2, Actor: "x"}
	for name, c := range map[string]struct {
		change func(*archive.Made) time.Time
		want   string
	}{
		"other rows":      {func(*archive.Made) time.Time { return time.Now() }, "holds other certificates"},
		"fewer rows":      {func(m *archive.Made) time.Time { m.Certificates = 1; return time.Now() }, "holds other certificates"},
		"before its end":  {func(*archive.Made) time.Time { return at }, "has not ended"},
		"in the future":   {func(*archive.Made) time.Time { return time.Now().Add(time.Hour) }, "must have ended"},
		"another month":   {func(m *archive.Made) time.Time { m.Month = archive.MonthOf(at.AddDate(-3, 0, 0)); return time.Now() }, "does not exist"},
		"the present one": {func(m *archive.Made) time.Time { m.Month = archive.MonthOf(time.Now()); return time.Now() }, "not long enough over"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			endedBefore := c.change(&m)
			if err := f.RecordArchive(ctx, m, endedBefore, leaf(t, audit.ArchiveMade)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// A row that comes while the file is written is in neither digest.
	dir := t.TempDir()
	if _, err := archiverOf(lateRow{f}, dir).Run(ctx, 0); err == nil || !strings.Contains(err.Error(), "holds other") {
		t.Errorf("with a late row: %v", err)
	}
	f.wantCounts("certificates", 3, "archives", 0, "archived_keys", 0, "audit_leaves WHERE kind = 'archive.made'", 0)
	if made, err := f.archiver(dir).Run(ctx, 0); err != nil || len(made) == 0 || made[0].Certificates != 3 {
		t.Errorf("then: %+v, %v", made, err)
	}
}

// lateRow has a certificate issued after the month was read.
type lateRow struct{ *fixture }

func (l lateRow) ExportMonth(ctx context.Context, month archive.Month, add func(archive.Kind, []byte, *archive.LedTo) error) error {
	if err := l.Store.ExportMonth(ctx, month, add); err != nil {
		return err
	}
	if month == archive.MonthOf(longAgo()) {
		l.issueAt(longAgo())
	}
	return nil
}

// untold makes archives and says other things of them in the log, or nothing.
type untold struct {
	*fixture
	say func(archive.Made) []audit.Leaf
}

func (u untold) RecordArchive(ctx context.Context, m archive.Made, endedBefore time.Time, _ ...audit.Leaf) error {
	return u.Store.RecordArchive(ctx, m, endedBefore, u.say(m)...)
}

// No month leaves the database unless the log names its file, whoever has the service's rights.
func TestNoMonthGoesUnlogged(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.issueAt(longAgo())
	event := func(m archive.Made, kind audit.Kind, change ...string) []audit.Leaf {
		t.Helper()
		data := map[string]string{"month": m.Month.String(), "file": m.File, "sha256": hex.EncodeToString(m.SHA256[:])}
		for i := 0; i < len(change); i += 2 {
			data[change[i]] = change[i+1]
		}
		l, err := audit.New(audit.Event{ID: m.EventID, Kind: kind, Time: time.Now(), Actor: "x", Data: data})
		if err != nil {
			t.Fatal(err)
		}
		return []audit.Leaf{l}
	}
	for what, say := range map[string]func(archive.Made) []audit.Leaf{
		"nothing":       func(archive.Made) []audit.Leaf { return nil },
		"another event": func(archive.Made) []audit.Leaf { return []audit.Leaf{leaf(t, audit.ArchiveMade)} },
		"another kind":  func(m archive.Made) []audit.Leaf { return event(m, audit.ServiceStarted) },
		"another file":  func(m archive.Made) []audit.Leaf { return event(m, audit.ArchiveMade, "file", "another") },
		"another digest": func(m archive.Made) []audit.Leaf {
			return event(m, audit.ArchiveMade, "sha256", strings.Repeat("00", 32))
		},
		"another month": func(m archive.Made) []audit.Leaf { return event(m, audit.ArchiveMade, "month", "2020-01") },
	} {
		if _, err := archiverOf(untold{f, say}, t.TempDir()).Run(ctx, 0); err == nil || !strings.Contains(err.Error(), "archive.made") {
			t.Errorf("the log is told %s: %v", what, err)
		}
	}
	f.wantCounts("certificates", 1, "requests", 1, "archives", 0, "audit_leaves WHERE kind = 'archive.made'", 0)
}

// How long certificates must have ended is the owner's to say, at the least; whoever has the service's rights may only ask for longer.
func TestTheOwnerSaysWhatMayBeArchived(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	at := longAgo()
	month := archive.MonthOf(at)
	f.issueAt(at, func(i *ca.Intent) { i.NotAfter = time.Now().Add(-7 * 24 * time.Hour) })
	archived := func(after time.Duration) bool {
		t.Helper()
		made, err := f.archiver(t.TempDir()).Run(ctx, after)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(made, func(m archive.Made) bool { return m.Month == month })
	}
	if archived(0) || f.obstacle(month) != "a certificate has not ended" {
		t.Errorf("the obstacle is %q", f.obstacle(month))
	}
	f.exec(`UPDATE archive_settings SET least_age = '2 days'`)
	if archived(10 * 24 * time.Hour) {
		t.Error("it went before the service would have it go")
	}
	if !archived(0) {
		t.Error("it stays, though the owner and the service would have it go")
	}
}

func TestTheServiceCannotInventArchives(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	conn := connect(t, f.db.URL)
	if _, err := conn.Exec(ctx, "SET ROLE chancery_service"); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"archives", "archived_keys"} {
		for _, sql := range []string{"INSERT INTO " + table + " SELECT * FROM " + table, "UPDATE " + table + " SET month = now()", "DELETE FROM " + table, "TRUNCATE " + table} {
			if _, err := conn.Exec(ctx, sql); sqlState(err) != insufficientPrivilege {
				t.Errorf("the service may %s: %v", sql, err)
			}
		}
		for _, sql := range []string{"DELETE FROM " + table, "TRUNCATE " + table} {
			if _, err := f.owner.Exec(ctx, sql); table == "archives" && strings.HasPrefix(sql, "TRUNCATE") && sqlState(err) != restrictViolation {
				t.Errorf("the owner may %s: %v", sql, err)
			}
		}
	}
	if _, err := conn.Exec(ctx, "SELECT make_month_partition('requests', now()::timestamp, '', '')"); sqlState(err) != insufficientPrivilege {
		t.Errorf("the service may make any partition: %v", err)
	}
}

// The steps of archiving at which a process is killed.
var archiveSteps = []string{"in the middle of the file", "before the file is durable", "before the archive is recorded", "after the archive is recorded"}

const (
	dieArchivingAt = "CHANCERY_TEST_DIE_ARCHIVING_AT"
	archiveURL     = "CHANCERY_TEST_ARCHIVE_URL"
	archiveDir     = "CHANCERY_TEST_ARCHIVE_DIR"
)

// archiveAndDie archives as another process does, and is killed at a step.
func archiveAndDie(step string) error {
	ctx := context.Background()
	s, err := storage.Open(ctx, storage.Config{URL: os.Getenv(archiveURL), Unsafe: true})
	if err != nil {
		return err
	}
	_, err = archiverOf(mortal{s, step}, os.Getenv(archiveDir)).Run(ctx, 0)
	return fmt.Errorf("it was not killed: %w", err)
}

type mortal struct {
	*storage.Store
	step string
}

func (m mortal) at(step string) {
	if m.step == step {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (m mortal) ExportMonth(ctx context.Context, month archive.Month, add func(archive.Kind, []byte, *archive.LedTo) error) error {
	err := m.Store.ExportMonth(ctx, month, func(kind archive.Kind, row []byte, ledTo *archive.LedTo) error {
		if kind == archive.KindCertificate {
			m.at(archiveSteps[0])
		}
		return add(kind, row, ledTo)
	})
	m.at(archiveSteps[1])
	return err
}

func (m mortal) RecordArchive(ctx context.Context, made archive.Made, endedBefore time.Time, leaves ...audit.Leaf) error {
	m.at(archiveSteps[2])
	err := m.Store.RecordArchive(ctx, made, endedBefore, leaves...)
	m.at(archiveSteps[3])
	return err
}

// TestKillWhileArchiving kills an archiving process at each step. Each certificate is then either in the database, or in a whole file that
// is on record; and the next run ends what was begun.
func TestKillWhileArchiving(t *testing.T) {
	for n, step := range archiveSteps {
		t.Run(step, func(t *testing.T) {
			f := setUp(t)
			ctx := context.Background()
			serials := map[string]bool{}
			for n := range 7 {
				serials[f.issueAt(longAgo().Add(time.Duration(n)*time.Hour)).Serial.String()] = true
			}
			dir := t.TempDir()
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), dieArchivingAt+"="+step, archiveURL+"="+f.db.URL, archiveDir+"="+dir)
			output, err := child.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process ended with %v\n%s", err, output)
			}
			archived := 0
			if n == len(archiveSteps)-1 {
				archived = 7
			}
			f.wantCounts("certificates", 7-archived, "requests", 7-archived, "archives WHERE certificates = 7", archived/7)
			if _, err := f.archiver(dir).Run(ctx, 0); err != nil {
				t.Fatal(err)
			}
			f.wantCounts("certificates", 0, "archives WHERE certificates = 7", 1)
			made, err := f.Archives(ctx)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]bool{}
			for _, m := range made {
				files[m.File] = true
				if v, err := archive.Verify(t.Context(), filepath.Join(dir, m.File)); err != nil || !m.Is(v) {
					t.Errorf("%s: %v", m.File, err)
				}
				for _, serial := range archivedSerials(t, filepath.Join(dir, m.File)) {
					delete(serials, serial)
				}
			}
			if len(serials) != 0 {
				t.Errorf("%v are nowhere", serials)
			}
			left, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range left {
				if !files[file.Name()] {
					t.Errorf("%s is left over", file.Name())
				}
			}
		})
	}
}

func archivedSerials(t *testing.T, path string) (all []string) {
	t.Helper()
	file, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for {
		r, err := file.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == archive.KindCertificate {
			c, err := r.Certificate()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, hex.EncodeToString(c.Serial))
		}
	}
}

// Two that archive at once: one makes the archive, the other is told so, or finds the month gone.
func TestTwoArchiversMakeOneArchive(t *testing.T) {
	f := setUp(t)
	f.issueAt(longAgo())
	ctx := context.Background()
	outcomes := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := f.archiver(t.TempDir()).Run(ctx, 0)
			outcomes <- err
		}()
	}
	for range 2 {
		if err := <-outcomes; err != nil && !strings.Contains(err.Error(), "exist") && !strings.Contains(err.Error(), "holds other") &&
			!errors.Is(err, ca.ErrUnavailable) {
			t.Error(err)
		}
	}
	f.wantCounts("archives WHERE certificates = 1", 1, "archived_keys", 1)
}
