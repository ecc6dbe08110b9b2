package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// archived writes an archive with these rows, and tells what a database would have on record of it.
func archived(t *testing.T, dir string, month archive.Month, rows ...archive.Record) archive.Made {
	t.Helper()
	var file bytes.Buffer
	w, err := archive.NewWriter(&file, archive.Header{Month: month, SerialsFrom: "10", SerialsUntil: "20"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := w.Add(r.Kind, r.Row, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := archive.Made{Month: month, File: "archive"}
	if err := os.WriteFile(filepath.Join(dir, m.File), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := archive.Verify(t.Context(), filepath.Join(dir, m.File))
	if err != nil {
		t.Fatal(err)
	}
	m.SHA256, m.Certificates, m.Requests = v.SHA256, v.End.Counts[archive.KindCertificate], v.End.Counts[archive.KindRequest]
	for text, to := range map[string][]byte{v.End.CertificatesDigest: m.CertificatesDigest[:], v.End.RequestsDigest: m.RequestsDigest[:]} {
		if _, err := hex.Decode(to, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// row is a row of an archive.
func row(t *testing.T, kind archive.Kind, columns map[string]any) archive.Record {
	t.Helper()
	text, err := json.Marshal(columns)
	if err != nil {
		t.Fatal(err)
	}
	return archive.Record{Kind: kind, Row: text}
}

// A responder's key signs the request for its certificate. Once the month of that request is archived, the archive accounts for it.
func TestArchivedRequestsAccountForSignatures(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		profile, kind string
		want          uint64
	}{
		{ca.ResponderProfile, reconcile.Request, 0},
		{ca.ResponderProfile, reconcile.Certificate, 1},
		{"tls-server", reconcile.Request, 1},
	} {
		dir := t.TempDir()
		made := archived(t, dir, archive.MonthOf(at), row(t, archive.KindRequest, map[string]any{
			"id": "01960000-0000-7000-8000-000000000001", "at": at, "profile": c.profile, "csr": `\x` + hex.EncodeToString(der), "validity": "P7D",
		}))
		account := reconcile.Open(t.TempDir(), reconcile.Span{Until: at.AddDate(1, 0, 0)}, []string{"journal"})
		defer account.Close()
		account.Begin(at)
		if err := account.Signature(reconcile.Signature{Digest: reconcile.SignedPart(der), At: at, Entry: 1, Kind: c.kind}); err != nil {
			t.Fatal(err)
		}
		add := func(r archive.Record) error { return addArchived(account, nil, r) }
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := made.Each(over, dir, add); !errors.Is(err, context.Canceled) {
			t.Errorf("who does not wait for an archive: %v", err)
		}
		if err := made.Each(t.Context(), dir, add); err != nil {
			t.Fatal(err)
		}
		counts, err := account.Settle(t.Context(), reconcile.Oracle{
			Unissued: func(context.Context, [][]byte) ([][]byte, error) { return nil, nil },
		}, func(reconcile.Finding) error { return nil })
		if err != nil || counts.Findings != c.want {
			t.Errorf("a %s, and a request of the profile %s: %+v, %v", c.kind, c.profile, counts, err)
		}
	}
}

// A certificate that went into an archive as another authority's accounts for no signature there either.
func TestArchivedCertificatesAccountAsThemselves(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for issuer, want := range map[string]uint64{"issuing-1": 0, "issuing-2": 1} {
		dir := t.TempDir()
		made := archived(t, dir, archive.MonthOf(at), row(t, archive.KindAuthority, map[string]any{"name": issuer}),
			row(t, archive.KindCertificate, map[string]any{
				"serial": `\x11`, "issuer": issuer, "kind": "final", "der": `\x30023000`, "issued_at": at,
			}))
		account := reconcile.Open(t.TempDir(), reconcile.Span{Until: at.AddDate(1, 0, 0)}, []string{"journal"})
		defer account.Close()
		account.Begin(at)
		r := reconcile.SignedCertificate("final", issuer, []byte{0x11}, []byte{0x30, 2, 0x30, 0}, at)
		for _, source := range []reconcile.Source{reconcile.IntentEvent, reconcile.SignedEvent} {
			r.Source = source
			if err := account.Record(r); err != nil {
				t.Fatal(err)
			}
		}
		signed := reconcile.Signature{Digest: r.Digest, At: at, Entry: 1, Kind: reconcile.Certificate, Detail: "11"}
		if err := account.Signature(signed); err != nil {
			t.Fatal(err)
		}
		misplaced := func(issuer string, _, _ []byte) bool { return issuer != "issuing-1" }
		err := made.Each(t.Context(), dir, func(r archive.Record) error { return addArchived(account, misplaced, r) })
		if err != nil {
			t.Fatal(err)
		}
		counts, err := account.Settle(t.Context(), reconcile.Oracle{}, func(reconcile.Finding) error { return nil })
		if err != nil || counts.Findings != want {
			t.Errorf("as one of %s: %+v, %v", issuer, counts, err)
		}
	}
}

// Whoever can write the directory of archives can write another file, sound by itself. It is not the one that the database has on record.
func TestOnlyTheArchiveOnRecordIsRead(t *testing.T) {
	t.Parallel()
	month := archive.MonthOf(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	authority := row(t, archive.KindAuthority, map[string]any{"name": "issuing-1"})
	request := row(t, archive.KindRequest, map[string]any{"id": "01960000-0000-7000-8000-000000000001", "validity": "P7D"})
	one := row(t, archive.KindCertificate, map[string]any{"serial": `\x11`, "issuer": "issuing-1", "kind": "final"})
	two := row(t, archive.KindCertificate, map[string]any{"serial": `\x12`, "issuer": "issuing-1", "kind": "final"})
	dir := t.TempDir()
	made := archived(t, dir, month, authority, request, one)
	read := func() error { return made.Each(t.Context(), dir, func(archive.Record) error { return nil }) }
	if err := read(); err != nil {
		t.Errorf("the archive on record: %v", err)
	}
	for what, rows := range map[string][]archive.Record{
		"a request more":                             {authority, request, request, one},
		"a request less":                             {authority, one},
		"a certificate more, twice":                  {authority, request, one, two, two},
		"an authority more":                          {authority, authority, request, one},
		"another certificate":                        {authority, request, two},
		"a certificate more, and a request more too": {authority, request, request, request, one, two, two},
	} {
		archived(t, dir, month, rows...)
		if err := read(); err == nil || !strings.Contains(err.Error(), "is not the archive that the database has on record") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Nor is one on record as itself that does not hold what the database let go of.
	made = archived(t, dir, month, authority, request, one)
	for what, change := range map[string]func(*archive.Made){
		"another number of certificates": func(m *archive.Made) { m.Certificates++ },
		"another number of requests":     func(m *archive.Made) { m.Requests++ },
		"other certificates":             func(m *archive.Made) { m.CertificatesDigest[0]++ },
		"other requests":                 func(m *archive.Made) { m.RequestsDigest[0]++ },
	} {
		whole := made
		change(&made)
		if err := read(); err == nil {
			t.Errorf("%s: taken", what)
		}
		made = whole
	}
}

// The name of an archive is on record as the service wrote it, and the directory is the service's. Whoever accounts for signatures is led
// nowhere else by it, nor made to wait.
func TestAnArchiveIsAFileOfItsDirectory(t *testing.T) {
	t.Parallel()
	dir, month := t.TempDir(), archive.MonthOf(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	inner := filepath.Join(dir, "inner")
	if err := errors.Join(os.Mkdir(inner, 0o700), syscall.Mkfifo(filepath.Join(inner, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	made := archived(t, dir, month)
	for _, c := range []struct{ dir, name string }{
		{inner, "../archive"},
		{inner, filepath.Join(dir, "archive")},
		{filepath.Dir(dir), filepath.Base(dir) + "/archive"},
		{dir, "./archive"},
		{inner, ".."},
		{inner, "."},
		{inner, "fifo"},
		{dir, "inner"},
	} {
		made.File = c.name
		done := make(chan error, 1)
		go func() { done <- made.Each(t.Context(), c.dir, func(archive.Record) error { return nil }) }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%q: taken", c.name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%q: waited for", c.name)
		}
	}
}

// What a run came to is recorded however many journals it was given, and whatever they are called.
func TestARunOverManyJournalsIsRecorded(t *testing.T) {
	t.Parallel()
	a := &app{Env: Env{Now: time.Now}}
	for what, name := range map[string]string{
		"short names":                 "/var/lib/journals/%d",
		"long names":                  strings.Repeat("x", 990) + "%d",
		"names of control characters": strings.Repeat("\a", 990) + "%d",
		"names that are too long":     "%d" + strings.Repeat("\x01", 4000),
	} {
		report := &reconcileReport{}
		for i := range 200 {
			j := reconciledJournal{File: fmt.Sprintf(name, i), End: keeper.JournalPlace{Entries: math.MaxUint64, Head: strings.Repeat("a", 64)}}
			report.Journals = append(report.Journals, j)
		}
		leaves, err := a.reconciledEvents(report)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		told := map[string]bool{}
		for _, l := range leaves {
			e, err := audit.Parse(l.Bytes())
			if err != nil || e.Kind != audit.ReconcileDone || e.Data["findings"] != "0" {
				t.Fatalf("%s: %+v, %v", what, e, err)
			}
			for i := range 200 {
				if e.Data[fmt.Sprintf("journal.%d.head", i+1)] != "" && e.Data[fmt.Sprintf("journal.%d", i+1)] != "" {
					told[strconv.Itoa(i)] = true
				}
			}
		}
		if len(told) != 200 {
			t.Errorf("%s: %d journals are told", what, len(told))
		}
	}
}

// journalOf is a journal with entries of these times, and their heads.
func journalOf(t *testing.T, times ...time.Time) (text string, heads []string) {
	t.Helper()
	prev := strings.Repeat("0", 64)
	for i, at := range times {
		line, err := json.Marshal(struct {
			Seq    int    `json:"seq"`
			Time   string `json:"time"`
			Kind   string `json:"kind"`
			Detail string `json:"detail"`
			SHA256 string `json:"sha256"`
			Result string `json:"result"`
			Prev   string `json:"prev"`
		}{i + 1, at.Format(time.RFC3339Nano), "crl", "1", strings.Repeat("a", 64), "signed", prev})
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(line)
		prev = hex.EncodeToString(digest[:])
		heads = append(heads, prev)
		text += string(line) + "\n"
	}
	return text, heads
}

// A head from before the place at which the last run will be gone on from is still looked for.
func TestHeadsAreLookedForInTheWholeJournal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	text, heads := journalOf(t, now, now.Add(24*time.Hour), now.Add(48*time.Hour), now.Add(72*time.Hour))
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(state reconcileState, heads ...string) (reconcileState, *journalReading) {
		account := reconcile.Open(t.TempDir(), reconcile.Span{}, []string{path})
		defer account.Close()
		r := &journalReading{
			account: account, state: state, report: &reconcileReport{}, mark: now.AddDate(1, 0, 0), heads: map[string]bool{},
		}
		for _, head := range heads {
			r.heads[head] = false
		}
		if wrong, err := r.journal(t.Context(), 0, path); wrong != nil || err != nil {
			t.Fatalf("%+v, %v", wrong, err)
		}
		return r.next(now), r
	}
	state, _ := read(reconcileState{})
	if mark := state.Journals[path].Mark; mark != (keeper.JournalPlace{Octets: int64(len(text)), Entries: 4, Head: heads[3]}) {
		t.Fatalf("the next run goes on at %+v", mark)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	account := reconcile.Open(t.TempDir(), reconcile.Span{}, []string{path})
	defer account.Close()
	waits := &journalReading{account: account, report: &reconcileReport{}}
	if _, err := waits.journal(over, 0, path); !errors.Is(err, context.Canceled) {
		t.Errorf("who does not wait for a journal: %v", err)
	}
	again, r := read(state, heads[0], heads[3], "cut off")
	if !r.heads[heads[0]] || !r.heads[heads[3]] || r.heads["cut off"] {
		t.Errorf("seen: %v", r.heads)
	}
	if again.Journals[path].Mark != state.Journals[path].Mark || len(r.report.Journals[0].Results) != 0 {
		t.Errorf("entries were judged again: %+v", r.report.Journals[0])
	}
}

// A journal whose host had its clock set back after the first entry tells of what came after that all the same.
func TestAJournalBeginsWithItsOldestEntry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	text, _ := journalOf(t, now.AddDate(10, 0, 0), now, now.Add(time.Hour))
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	account := reconcile.Open(t.TempDir(), reconcile.Span{Until: now.AddDate(1, 0, 0)}, []string{path})
	defer account.Close()
	r := &journalReading{account: account, report: &reconcileReport{}, mark: now}
	if wrong, err := r.journal(t.Context(), 0, path); wrong != nil || err != nil {
		t.Fatalf("%+v, %v", wrong, err)
	}
	row := reconcile.SignedCertificate("final", "issuing-1", []byte{1}, []byte("never signed"), now.Add(time.Minute))
	for _, source := range []reconcile.Source{reconcile.IntentEvent, reconcile.SignedEvent, reconcile.SignedRow} {
		row.Source = source
		if err := account.Record(row); err != nil {
			t.Fatal(err)
		}
	}
	var found []reconcile.Kind
	if _, err := account.Settle(t.Context(), reconcile.Oracle{}, func(f reconcile.Finding) error {
		if f.Kind != reconcile.Unrecorded { // what the entries tell of
			found = append(found, f.Kind)
		}
		return nil
	}); err != nil || !slices.Equal(found, []reconcile.Kind{reconcile.Unjournaled}) {
		t.Errorf("found %q, %v", found, err)
	}
}

// The state of the last run is read as it was written, or not at all: it says from where on entries are judged.
func TestReconcileStateIsReadInOneWay(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	want := reconcileState{Version: reconcileStateVersion, Until: time.Date(2026, 11, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Journals: map[string]reconciledJournal{
		"journal": {File: "journal", End: keeper.JournalPlace{Octets: 7, Entries: 2, Head: "5c"}, Results: map[string]uint64{"signed": 2}},
	}}
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text  string
		sound bool
	}{
		"as it was written":  {string(text), true},
		"a field twice":      {strings.Replace(string(text), `"version"`, `"until": "2000-01-01T00:00:00Z", "version"`, 1), false},
		"something behind":   {string(text) + "}", false},
		"a second one":       {string(text) + string(text), false},
		"in other letters":   {strings.Replace(string(text), `"until"`, `"Until"`, 1), false},
		"an unknown version": {strings.Replace(string(text), "1", "2", 1), false},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := readReconcileState(path); (err == nil) != c.sound || c.sound && !state.Until.Equal(want.Until) {
			t.Errorf("%s: %+v, %v", name, state, err)
		}
	}
}

// A finding quotes what a service that was taken over may have written: however long that is, the account ends, and tells it.
func TestAFindingIsToldHoweverLongItsEventIs(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	service, err := pgx.Connect(t.Context(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close(context.Background())
	if _, err := service.Exec(t.Context(), "SET ROLE chancery_service"); err != nil {
		t.Fatal(err)
	}
	id := newID()
	at := time.Now().Add(-time.Hour)
	leaf, err := audit.New(audit.Event{ID: id, Kind: audit.CertificateIntended, Time: at, Actor: "x", Data: map[string]string{
		"issuer": strings.Repeat("é", 8020), "serial": "1c07", "tbs_sha256": strings.Repeat("ab", 32),
	}})
	if err != nil {
		t.Fatal(err)
	}
	const add = "INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, $2, $3)"
	if _, err := service.Exec(t.Context(), add, id, string(leaf.Kind()), leaf.Bytes()); err != nil {
		t.Fatal(err)
	}
	report, code := s.reconcileNow(t)
	wantFindings(t, "an event with a long name", report, code, reconcile.Erased)
	alarms := s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'reconcile.alarm'`)
	if len(alarms) != 1 || report.Event == "" || !strings.Contains(alarms[0], strings.Repeat("é", 200)+"…") {
		t.Errorf("%q is recorded", alarms)
	}
}
