package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

const (
	// shownFindings is how many findings are shown, and told to the audit log one by one. Their number is told whole.
	shownFindings = 1000
	// reconcileSlack is how far apart an intent and its signature may be, or the clocks of two hosts, with a good deal to spare.
	reconcileSlack = 2 * time.Hour
)

// reconcileOptions say what is accounted for, and by which journals.
type reconcileOptions struct {
	config, archives, state, grace string
	journals, transcripts, heads   []string
	quiet                          bool
	origin                         string // of the audit log, by the configuration
}

// reconcileReport is what an account came to.
type reconcileReport struct {
	Since    *time.Time          `json:"since,omitempty"` // what came before was judged by an earlier run
	Until    time.Time           `json:"until"`           // what came after is for a later one
	Journals []reconciledJournal `json:"journals"`
	Counts   reconcile.Counts    `json:"counts"`
	Refused  []refusedOperation  `json:"refused"` // what keepers refused to sign, the first ones
	Findings []reconcile.Finding `json:"findings"`
	Restored []reconcile.Finding `json:"recorded_after_restore"` // no findings: what the records of lost certificates account for
	Unknown  []string            `json:"unknown"`                // what this account cannot tell
	Event    string              `json:"audit_event,omitempty"`
}

// refusedOperation is what a keeper refused to sign. It is no finding: the refusal is the guard at work. Somebody asked, though.
type refusedOperation struct {
	Journal string    `json:"journal"`
	Entry   uint64    `json:"entry"`
	At      time.Time `json:"at"`
	UID     *uint32   `json:"uid,omitempty"`
	Key     string    `json:"key,omitempty"`
	Kind    string    `json:"kind"`
	Why     string    `json:"why"`
}

func (a *app) reconcileCommand() *cobra.Command {
	var o reconcileOptions
	cmd := &cobra.Command{
		Use:   "reconcile --journal FILE...",
		Short: "Account for every signature that an HSM key made: one too many, or one too few, is an alarm",
		Long: `Account for every signature that an HSM key made: one too many, or one too few, is an alarm.

What the journals of all keepers say was signed is held against what the database, its archives and its audit log have on record, both ways.
Each finding becomes an event of the audit log (reconcile.alarm), and so does the run (reconcile.done, with the head of each journal).
The exit code is 1 when there is a finding.

With --state, a run goes on where the last one ended, and fails where a journal does not. Run it without now and then: only a whole run sees
that something old was erased. Without a journal only the database is held against its audit log, and the report says what that leaves open.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			grace, err := strictyaml.ParseDuration(o.grace)
			if err != nil {
				return misuse{fmt.Errorf("--grace: %w", err)}
			}
			role := storage.ServiceRole
			if o.quiet {
				role = storage.AuditorRole
			}
			return a.withStoreAs(cmd.Context(), o.config, role, func(cfg Config, store *storage.Store) error {
				if o.archives == "" {
					o.archives = cfg.Archive.Directory
				}
				o.origin = cfg.Audit.Origin
				report, err := a.reconcile(cmd.Context(), store, o, grace)
				if err != nil {
					return err
				}
				if err := a.print(report, func(w io.Writer) { writeReconciled(w, report) }); err != nil {
					return err
				}
				if report.Counts.Findings > 0 {
					return errSilent
				}
				return nil
			})
		},
	}
	configFlag(cmd, &o.config)
	cmd.Flags().StringArrayVar(&o.journals, "journal", nil, "journal of a keeper, or its copy; once for each keeper")
	cmd.Flags().StringArrayVar(&o.heads, "head", nil, "head of an earlier account or of verify-journal, which must be in one of the journals")
	cmd.Flags().StringArrayVar(&o.transcripts, "transcript", nil, "transcript of a ceremony whose signatures a keeper's journal may tell of")
	cmd.Flags().StringVar(&o.archives, "archives", "", "directory of the archives; without it, that of the configuration")
	cmd.Flags().StringVar(&o.state, "state", "", "file that says where the last run ended; made when there is none")
	cmd.Flags().StringVar(&o.grace, "grace", "5m",
		"how old a record must be for its signature to be missed: longer than a journal's copy is behind")
	cmd.Flags().BoolVar(&o.quiet, "no-events", false,
		"write nothing into the audit log: the database is used as chancery_auditor, which can only read")
	return cmd
}

// reconcile makes the account. The journals are read first: whatever they tell of then has its intent on record.
func (a *app) reconcile(ctx context.Context, store *storage.Store, o reconcileOptions,
	grace time.Duration,
) (report *reconcileReport, err error) {
	until := a.Now().UTC().Add(-grace)
	state, err := readReconcileState(o.state)
	if err != nil {
		return nil, err
	}
	if err := distinctJournals(o.journals); err != nil {
		return nil, err
	}
	report = &reconcileReport{Until: until, Journals: []reconciledJournal{}, Refused: []refusedOperation{}, Findings: []reconcile.Finding{}}
	report.Restored = []reconcile.Finding{}
	for path := range state.Journals {
		if !slices.Contains(o.journals, path) {
			return nil, misuse{fmt.Errorf("the last run read the journal %s as well: give it with --journal, or begin anew with another --state",
				path)}
		}
	}
	if !state.Until.IsZero() {
		report.Since = &state.Until
	}
	account := reconcile.Open("", reconcile.Span{Since: state.Until, Until: until}, o.journals)
	defer func() { err = errors.Join(err, account.Close()) }()
	found := func(f reconcile.Finding) error {
		to := &report.Findings
		if f.Kind == reconcile.Restored {
			to = &report.Restored
		}
		if len(*to) < shownFindings {
			*to = append(*to, f)
		}
		return nil
	}
	reading := journalReading{account: account, state: state, report: report, mark: until.Add(-reconcileSlack), heads: map[string]bool{}}
	for _, head := range o.heads {
		reading.heads[head] = false
	}
	var broken uint64
	for i, path := range o.journals {
		wrong, err := reading.journal(ctx, i, path)
		if err != nil {
			return nil, err
		}
		if wrong != nil {
			broken++
			_ = found(*wrong)
		}
	}
	for head, seen := range reading.heads {
		if !seen {
			broken++
			_ = found(reconcile.Finding{
				Kind: reconcile.Cut,
				Why:  "no journal has an entry with the head " + head + ": it was cut off, or is another one",
			})
		}
	}
	if err := a.addRecords(ctx, store, account, o, earliestRecord(state, reading.oldest)); err != nil {
		return nil, err
	}
	account.Ahead(a.Now().UTC().Add(grace + reconcileSlack))
	counts, err := account.Settle(ctx, reconcile.Oracle{
		Unissued: store.Unissued,
		Truthful: func(ctx context.Context, s reconcile.Signature) (bool, error) {
			return saysWhatTheLogSays(ctx, store, o.origin, s)
		},
	}, found)
	if err != nil {
		return nil, err
	}
	report.Counts = counts
	report.Counts.Findings += broken
	report.Unknown = unknowns(o)
	if !o.quiet {
		if report.Event, err = a.recordReconciled(ctx, store, report); err != nil {
			return nil, err
		}
	}
	if broken > 0 { // the next run must find it, too
		return report, nil
	}
	return report, reading.next(until).write(o.state)
}

// distinctJournals refuses a journal that is given twice: every certificate in it would have been signed twice.
func distinctJournals(paths []string) error {
	var seen []os.FileInfo
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		if same := slices.IndexFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }); same >= 0 {
			return misuse{fmt.Errorf("--journal: %s and %s are the same journal", paths[same], path)}
		}
		seen = append(seen, info)
	}
	return nil
}

// saysWhatTheLogSays tells whether a signature is over the checkpoint that the log has at its size.
func saysWhatTheLogSays(ctx context.Context, store *storage.Store, origin string, s reconcile.Signature) (bool, error) {
	size, err := strconv.ParseInt(s.Detail, 10, 64)
	if err != nil || size < 1 || origin == "" {
		return false, nil
	}
	has, _, err := store.LogEdge(ctx)
	if err != nil || size > has {
		return false, err
	}
	edge, err := store.LogHashes(ctx, audit.Edge(size))
	if err != nil {
		return false, err
	}
	tree, err := audit.TreeFrom(size, edge)
	if err != nil {
		return false, err
	}
	c := audit.Checkpoint{Origin: origin, Size: size, Root: tree.Root()}
	return sha256.Sum256([]byte(c.Text())) == s.Digest, nil
}

// earliestRecord is how far back records are read: far enough for every signature that is judged, and for every record that is.
func earliestRecord(state reconcileState, oldest time.Time) time.Time {
	if state.Until.IsZero() {
		return time.Time{}
	}
	from := state.Until
	if !oldest.IsZero() && oldest.Before(from) {
		from = oldest
	}
	return from.Add(-reconcileSlack)
}

// addRecords adds what the database, the archives and the transcripts have on record.
func (a *app) addRecords(ctx context.Context, store *storage.Store, account *reconcile.Account, o reconcileOptions, since time.Time) error {
	lost, err := store.LostCertificates(ctx, since)
	if err != nil {
		return err
	}
	for _, l := range lost {
		account.Lost(l)
	}
	if err := store.SigningRecords(ctx, since, account.Record); err != nil {
		return err
	}
	misplaced, err := store.Misplaced(ctx)
	if err != nil {
		return err
	}
	made, err := store.Archives(ctx)
	if err != nil {
		return err
	}
	for _, m := range made {
		if m.Month.AddDate(0, 1, 0).Before(since) {
			continue
		}
		if o.archives == "" {
			return misuse{fmt.Errorf("the certificates of %s are archived in %s: say with --archives where that is", m.Month, m.File)}
		}
		if err := m.Each(ctx, o.archives, func(r archive.Record) error { return addArchived(account, misplaced, r) }); err != nil {
			return fmt.Errorf("reading an archive: %w", err)
		}
	}
	for _, path := range o.transcripts {
		if err := addTranscript(account, path); err != nil {
			return fmt.Errorf("reading the transcript %s: %w", path, err)
		}
	}
	return nil
}

// addArchived adds a row of an archive: a certificate, or a request that the key of an OCSP responder signed.
func addArchived(account *reconcile.Account, misplaced func(issuer string, serial, der []byte) bool, record archive.Record) error {
	switch record.Kind {
	case archive.KindCertificate:
		c, err := record.Certificate()
		if err != nil {
			return err
		}
		r := reconcile.SignedCertificate(c.Kind, c.Issuer, c.Serial, c.DER, c.IssuedAt)
		r.Misplaced = misplaced(c.Issuer, c.Serial, c.DER)
		return account.Record(r)
	case archive.KindRequest:
		q, err := record.Request()
		if err != nil || q.Profile != ca.ResponderProfile || q.CSR == nil {
			return err
		}
		return account.Record(reconcile.Record{
			Source: reconcile.OtherRow, Digest: reconcile.SignedPart(*q.CSR), Kind: reconcile.Request, At: q.At, Subject: "request " + q.ID,
		})
	}
	return nil
}

func addTranscript(account *reconcile.Account, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	summary, err := ceremony.VerifyTranscript(file)
	if err != nil {
		return err
	}
	for _, s := range summary.Signed {
		kind := reconcile.Certificate
		if s.Kind == issuance.List {
			kind = reconcile.CRL
		}
		err := account.Record(reconcile.Record{
			Source: reconcile.OtherRow, Digest: reconcile.SignedPart(s.DER), Kind: kind,
			Subject: fmt.Sprintf("%s of %s, in a ceremony", s.Kind, s.Subject),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recordReconciled writes the findings and the run into the audit log, and returns the run's event.
func (a *app) recordReconciled(ctx context.Context, store *storage.Store, report *reconcileReport) (string, error) {
	leaves, err := a.reconciledEvents(report)
	if err != nil {
		return "", err
	}
	for lot := leaves; len(lot) > 0; lot = lot[min(len(lot), 100):] {
		if err := store.RecordEvents(ctx, lot[:min(len(lot), 100)]...); err != nil {
			return "", err
		}
	}
	return leaves[len(leaves)-1].ID(), nil
}

// reconciledEvents are an event of each finding, and those of the run: as many as its journals have room in, each with what the run came to.
func (a *app) reconciledEvents(report *reconcileReport) (leaves []audit.Leaf, err error) {
	add := func(kind audit.Kind, data map[string]string) error {
		leaf, err := audit.New(audit.Event{ID: newID(), Kind: kind, Time: a.Now(), Actor: operator(), Data: data})
		leaves = append(leaves, leaf)
		return err
	}
	for _, f := range report.Findings {
		data := map[string]string{"finding": string(f.Kind), "why": quotable(f.Why)}
		for name, value := range map[string]string{"sha256": f.Digest, "subject": f.Subject, "journal": f.Journal, "key": f.Key} {
			if value != "" {
				data[name] = quotable(value)
			}
		}
		if f.Entry != 0 {
			data["entry"] = strconv.FormatUint(f.Entry, 10)
		}
		if err := add(audit.ReconcileAlarm, data); err != nil {
			return nil, err
		}
	}
	c := report.Counts
	run := map[string]string{
		"until": report.Until.Format(time.RFC3339), "signatures": strconv.FormatUint(c.Signatures, 10),
		"records":  strconv.FormatUint(c.Records, 10),
		"agreeing": strconv.FormatUint(c.Agreeing, 10), "restored": strconv.FormatUint(c.Restored, 10),
		"findings": strconv.FormatUint(c.Findings, 10),
	}
	const besides = 300 // octets that a journal takes, but for its name
	data, octets := maps.Clone(run), 0
	for i, j := range report.Journals {
		name, file := "journal."+strconv.Itoa(i+1), quotable(j.File)
		takes := len(strconv.Quote(file))*3 + besides // JSON's escapes have at most three times the octets of Go's
		if octets > 0 && octets+takes > audit.MaxLeaf-2048 {
			if err := add(audit.ReconcileDone, data); err != nil {
				return nil, err
			}
			data, octets = maps.Clone(run), 0
		}
		data[name], data[name+".entries"], data[name+".head"] = file, strconv.FormatUint(j.End.Entries, 10), j.End.Head
		octets += takes
	}
	return leaves, add(audit.ReconcileDone, data)
}

// quotable is a text that quotes what is on record, short enough for an event to hold several.
func quotable(text string) string {
	const most = 1000 // octets, each of which takes six in an event where it is a control character
	return audit.Beginning(text, most)
}

// unknowns are what the account leaves open, for the report.
func unknowns(o reconcileOptions) []string {
	if len(o.journals) == 0 {
		return []string{
			"no journal was given: a signature of which nothing is on record is not seen, nor a record whose signature no key here made",
			"no journal was given: OCSP answers are on record nowhere else",
		}
	}
	open := []string{"an OCSP answer is on record in the journal alone: what was looked up is whether its serial number was issued"}
	if len(o.heads) == 0 && o.state == "" {
		open = append(open, "no earlier head was given (--head, --state): that a journal was cut off at its end, or begun anew, is not seen")
	}
	return open
}

func writeReconciled(w io.Writer, r *reconcileReport) {
	for _, j := range r.Journals {
		fmt.Fprintf(w, "%s: %d entries, head %s\n", j.File, j.End.Entries, j.End.Head)
	}
	c := r.Counts
	fmt.Fprintf(w, "%d signatures and %d records accounted for: %d agree, %d are too young to be judged, %d are older than the journals.\n",
		c.Signatures, c.Records, c.Agreeing, c.Pending, c.Before)
	for _, x := range r.Refused {
		fmt.Fprintf(w, "refused  %s entry %d  %s  %s\n", x.Journal, x.Entry, x.At.Format(time.RFC3339), legible(x.Why))
	}
	for _, f := range r.Findings {
		where := ""
		if f.Entry != 0 {
			where = fmt.Sprintf("  %s entry %d", legible(f.Journal), f.Entry)
		}
		if f.Kind == reconcile.Unrecorded {
			where += "  sha256 " + f.Digest
		}
		fmt.Fprintf(w, "ALARM  %s  %s%s\n       %s\n", f.Kind, legible(f.Subject), where, legible(f.Why))
	}
	for _, f := range r.Restored {
		fmt.Fprintf(w, "recorded after a restore  %s  %s entry %d\n       %s\n", legible(f.Subject), legible(f.Journal), f.Entry, legible(f.Why))
	}
	if more := c.Restored - uint64(len(r.Restored)); more > 0 {
		fmt.Fprintf(w, "%d more were recorded after a restore.\n", more)
	}
	for _, open := range r.Unknown {
		fmt.Fprintf(w, "not known: %s\n", open)
	}
	switch {
	case c.Findings == 0:
		fmt.Fprintln(w, "Every signature is accounted for.")
	case c.Findings > uint64(len(r.Findings)):
		fmt.Fprintf(w, "%d findings, of which the first %d are shown.\n", c.Findings, len(r.Findings))
	default:
		fmt.Fprintf(w, "%d findings.\n", c.Findings)
	}
	if c.Findings > 0 {
		fmt.Fprintln(w, "What each means, and what to do, is in docs/security.md. A certificate that is on no record is revoked by:\n"+
			"  chancery revocation record --issuer NAME SERIAL --sha256 DIGEST")
	}
}

// journalReading reads journals into an account.
type journalReading struct {
	account *reconcile.Account
	state   reconcileState
	report  *reconcileReport
	mark    time.Time // entries from then on are read again by the next run
	oldest  time.Time // of the signatures that are judged
	heads   map[string]bool
}

// journal reads one journal, from where the last run left off where there was one and no head is looked for. What is wrong with it is a
// finding, up to which its entries still count.
func (r *journalReading) journal(ctx context.Context, number int, path string) (wrong *reconcile.Finding, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer file.Close()
	last, known := r.state.Journals[path]
	j := reconciledJournal{File: path, Begin: last.Begin, Mark: last.Mark, Results: map[string]uint64{}}
	var latest time.Time
	from := last.Mark
	if len(r.heads) > 0 { // any of which may be from before the mark
		from = keeper.JournalPlace{}
	}
	if _, err := file.Seek(from.Octets, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w", path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w", path, err)
	}
	// Whether the head of the last run is there still.
	again := !known || last.Mark == last.End && info.Size() >= last.End.Octets
	end, _, err := keeper.ReadJournal(file, from, func(e keeper.JournalEntry, place keeper.JournalPlace) error {
		latest = e.Time
		if j.Begin.IsZero() || e.Time.Before(j.Begin) { // the clock may have been ahead then
			j.Begin = e.Time
		}
		if e.Time.Before(r.mark) {
			j.Mark = place
		}
		if _, asked := r.heads[place.Head]; asked {
			r.heads[place.Head] = true
		}
		again = again || place == last.End
		return cmp.Or(ctx.Err(), r.entry(&j, number, e, e.Seq <= last.End.Entries))
	})
	j.End = end
	var broken *keeper.BrokenJournalError
	if errors.As(err, &broken) {
		wrong = &reconcile.Finding{Kind: reconcile.Broken, Journal: path, Entry: broken.Entry, Why: broken.Why}
		if latest.Before(r.report.Until) { // of what follows, this journal tells nothing
			r.account.Until(latest)
		}
	} else if err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w", path, err)
	} else if !again {
		wrong = &reconcile.Finding{Kind: reconcile.Cut, Journal: path, Entry: last.End.Entries, Why: fmt.Sprintf(
			"the last run read it up to entry %d, head %s, which is not there any more", last.End.Entries, last.End.Head)}
	}
	if !j.Begin.IsZero() {
		r.account.Begin(j.Begin)
	}
	r.report.Journals = append(r.report.Journals, j)
	return wrong, nil
}

// entry takes one entry. Of old ones only what was signed counts, for the records that are judged now.
func (r *journalReading) entry(j *reconciledJournal, number int, e keeper.JournalEntry, old bool) error {
	if !old {
		j.Results[e.Result]++
		if e.Result == "refused" && len(r.report.Refused) < shownFindings {
			r.report.Refused = append(r.report.Refused, refusedOperation{j.File, e.Seq, e.Time, e.UID, e.Key, e.Kind, e.Why})
		}
	}
	if e.Result != "signed" || e.Kind == "health" {
		return nil
	}
	if !old && (r.oldest.IsZero() || e.Time.Before(r.oldest)) {
		r.oldest = e.Time
	}
	return r.account.Signature(reconcile.Signature{
		Digest: e.SHA256, At: e.Time, Journal: number, Entry: e.Seq, Key: e.Key, Kind: e.Kind, Detail: e.Detail, Status: e.Scope, Old: old,
	})
}

// next is where the next run goes on.
func (r *journalReading) next(until time.Time) reconcileState {
	if until.Before(r.state.Until) {
		until = r.state.Until
	}
	state := reconcileState{Version: reconcileStateVersion, Until: until, Journals: map[string]reconciledJournal{}}
	for _, j := range r.report.Journals {
		j.Results = nil
		state.Journals[j.File] = j
	}
	return state
}
