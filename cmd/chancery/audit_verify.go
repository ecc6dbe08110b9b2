package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage"
)

// auditVerifyFlags say what a history is held against.
type auditVerifyFlags struct {
	historyFlags
	keys, checkpoints []string
	since, save       string
	rows, service     bool
	api               apiFlags
	waiting           time.Duration
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var f auditVerifyFlags
	cmd := &cobra.Command{
		Use:   "verify [EXPORT...] --key VERIFIER-KEY",
		Short: "Verify the whole history: of the database, or of exports without any database",
		Long: `Verify the whole history: every leaf against the tree, the tree against every signed checkpoint, each event once, and nothing missing.

Without arguments the log in the database is read; any login with the role chancery_auditor will do (--database). With arguments exports are
read, or directories of them, and nothing else is needed. With --service the service is asked, as its auditor. --checkpoint names
checkpoints that were kept outside: the history must extend each of them, which is how a rewritten, forked or shortened log is found whoever
did it. --since verifies only what came after one, and --save keeps the newest one for the next time:

    chancery audit verify --since last.checkpoint --save last.checkpoint --key log.vkey

The exit code is 1 when something is wrong. The first line then names the first bad index, and what is known of it.`,
		RunE: func(cmd *cobra.Command, exports []string) error { return a.auditVerify(cmd.Context(), f, exports) },
	}
	f.add(cmd)
	f.api.add(cmd)
	cmd.Flags().BoolVar(&f.service, "service", false, "read the log from the service, as its auditor, up to the newest checkpoint")
	cmd.Flags().StringArrayVar(&f.keys, "key", nil,
		"verifier key of the log, or a file of such keys; without it the source's own word is taken for it")
	cmd.Flags().StringArrayVar(&f.checkpoints, "checkpoint", nil, "file of a signed checkpoint that the history must extend")
	cmd.Flags().StringVar(&f.since, "since", "", "file of a signed checkpoint: verify what came after it, and that it was extended")
	cmd.Flags().StringVar(&f.save, "save", "", "file to keep the newest checkpoint in, when all is well")
	cmd.Flags().IntVar(&f.workers, "workers", runtime.GOMAXPROCS(0), "how many leaves are looked at at a time")
	cmd.Flags().BoolVar(&f.rows, "rows", false, "hold certificates and revocations in the database against their events as well")
	cmd.Flags().DurationVar(&f.waiting, "waiting", 30*time.Second, "how long an event of the database may be without a place in the log; an hour longer, without a checkpoint")
	withValue(cmd, "key", "checkpoint", "since")
	return cmd
}

func (a *app) auditVerify(ctx context.Context, f auditVerifyFlags, exports []string) error {
	if (len(exports) > 0 || f.service) && f.rows {
		return misuse{errors.New("--rows holds the database against its log: it goes neither with exports nor with --service")}
	}
	if len(exports) > 0 && f.service {
		return misuse{errors.New("--service reads the log from the service: it does not go with exports")}
	}
	v := audit.Verification{Workers: f.workers}
	paths := slices.Clone(f.checkpoints)
	if f.since != "" {
		paths = append(paths, f.since)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && path == f.since && f.since == f.save {
			f.since = ""
			fmt.Fprintf(a.Stderr, "%s does not exist yet: the whole history is verified\n", path)
			continue
		}
		if err != nil {
			return fmt.Errorf("reading a checkpoint: %w", err)
		}
		v.Kept = append(v.Kept, audit.Note{Text: text, Where: path})
	}
	keys, err := verifiers(f.keys)
	if err != nil {
		return err
	}
	shown, report, err := a.readHistory(ctx, f, exports, keys, v)
	if err != nil {
		return err
	}
	shown.fill(report)
	if report.Sound() && f.save != "" {
		if report.Newest == nil {
			return errors.New("there is no signed checkpoint to save")
		}
		if err := writeFile(f.save, report.Newest, 0o644); err != nil {
			return err
		}
	}
	if err := a.print(shown, shown.write); err != nil {
		return err
	}
	if !report.Sound() {
		return errSilent
	}
	return nil
}

// readHistory verifies the source that was asked for.
func (a *app) readHistory(ctx context.Context, f auditVerifyFlags, exports []string, keys []*audit.Verifier,
	v audit.Verification,
) (*shownHistory, *audit.Report, error) {
	switch {
	case f.service:
		return a.readService(ctx, f, keys, v)
	case len(exports) == 0:
		return a.readDatabase(ctx, f, keys, v)
	}
	x, err := openExports(exports)
	if err != nil {
		return nil, nil, err
	}
	defer x.Close()
	shown := &shownHistory{Source: strings.Join(exports, ", ")}
	if v.Open, err = a.opener(shown, keys, "the export", x.Keys); err != nil {
		return nil, nil, err
	}
	v.Start = x.Start
	report, err := a.verified(ctx, shown, x, v, 0)
	if err != nil {
		return nil, nil, err
	}
	if from, found := report.Unsigned(); found && len(shown.Keys) > 0 {
		report.Add(audit.Finding{
			Kind: audit.Unsigned, Index: from, Until: report.Size,
			What: "no checkpoint in the export signs this: whoever made the export may have written it. An export without --to ends with a checkpoint",
		})
	}
	if report.RootText() != x.End.Root {
		report.Add(audit.Finding{
			Kind: audit.WrongRoot, Index: report.From, Until: report.Size,
			What: "the export says at its end that its root is " + x.End.Root,
		})
	}
	return shown, report, nil
}

func (a *app) readService(ctx context.Context, f auditVerifyFlags, keys []*audit.Verifier,
	v audit.Verification,
) (*shownHistory, *audit.Report, error) {
	c, err := a.connect(f.api, access.Auditor)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	known, err := c.LogKeys(ctx)
	if err != nil {
		return nil, nil, err
	}
	shown := &shownHistory{Source: "service"}
	if v.Open, err = a.opener(shown, keys, "the service", known); err != nil {
		return nil, nil, err
	}
	h, err := openService(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	report, err := a.verified(ctx, shown, h, v, h.size)
	return shown, report, err
}

func (a *app) readDatabase(ctx context.Context, f auditVerifyFlags, keys []*audit.Verifier,
	v audit.Verification,
) (*shownHistory, *audit.Report, error) {
	h, err := f.open(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	shown := &shownHistory{Source: "database"}
	known, err := h.Keys(ctx)
	if err != nil {
		return nil, nil, err
	}
	if v.Open, err = a.opener(shown, keys, "the database", known); err != nil {
		return nil, nil, err
	}
	if f.since != "" {
		since, err := v.Open(v.Kept[len(v.Kept)-1].Text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.since, err)
		}
		if since.Size <= h.Size() { // of a longer one, it is found below that the end is gone
			if v.Start, err = h.Since(ctx, since.Size); err != nil {
				return nil, nil, err
			}
		}
	}
	report, err := a.verified(ctx, shown, h, v, h.Size())
	if err != nil {
		return nil, nil, err
	}
	if err := addUnsigned(ctx, h, report, shown, f.waiting); err != nil {
		return nil, nil, err
	}
	waiting, err := h.Waiting(ctx, f.waiting)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range waiting {
		report.Add(w)
	}
	if f.rows {
		if err := h.HoldRows(ctx, report.Add, a.progress("rows", 0)); err != nil {
			return nil, nil, err
		}
	}
	return shown, report, nil
}

// addUnsigned adds the finding that the end of the database's log is signed by nobody, where somebody should have by now. A log that has
// no key is signed by nobody.
func addUnsigned(ctx context.Context, h *storage.History, report *audit.Report, shown *shownHistory, waiting time.Duration) error {
	from, found := report.Unsigned()
	switch {
	case !found || len(shown.Keys) == 0:
		return nil
	case report.Covered == 0 && shown.KeysFrom == keysGiven:
		report.Add(audit.Finding{
			Kind: audit.Unsigned, Index: from, Until: report.Size,
			What: "there is no checkpoint: nothing here was signed with the key that was given, or all checkpoints were deleted",
		})
		return nil
	}
	late, err := h.Unsigned(ctx, from, longestCheckpointEvery+waiting)
	for _, f := range late {
		report.Add(f)
	}
	return err
}

// keysGiven is where keys come from that the source did not name itself.
const keysGiven = "--key"

// opener reads signed checkpoints with the keys given, or with those that the source itself names.
func (a *app) opener(shown *shownHistory, keys []*audit.Verifier, source string,
	named []string,
) (func([]byte) (audit.Checkpoint, error), error) {
	shown.KeysFrom = keysGiven
	if len(keys) == 0 {
		shown.KeysFrom = source
		var err error
		if keys, err = verifiers(named); err != nil {
			return nil, err
		}
		fmt.Fprintf(a.Stderr, "the log's key was taken from %s itself: whoever could rewrite one could rewrite the other; keep it elsewhere and "+
			"give --key\n", source)
	}
	for _, k := range keys {
		shown.Keys = append(shown.Keys, k.String())
	}
	return func(note []byte) (audit.Checkpoint, error) {
		c, _, err := audit.OpenCheckpoint(note, keys...)
		return c, err
	}, nil
}

func (a *app) verified(ctx context.Context, shown *shownHistory, source audit.Source, v audit.Verification,
	size int64,
) (*audit.Report, error) {
	began := a.Now()
	v.Progress = a.progress("events", max(0, size-v.Start.Size))
	report, err := audit.Verify(ctx, source, v)
	if seconds := a.Now().Sub(began).Seconds(); err == nil && seconds > 0 {
		shown.Seconds, shown.PerSecond = seconds, float64(report.Size-report.From)/seconds
	}
	return report, err
}

// progress tells every few seconds how far something is, on standard error. A total of 0 is not known.
func (a *app) progress(what string, total int64) func(done int64) {
	const every = 5 * time.Second
	began, last := a.Now(), a.Now()
	return func(done int64) {
		now := a.Now()
		if now.Sub(last) < every {
			return
		}
		last = now
		of := ""
		if total > 0 {
			of = fmt.Sprintf(" of %d", total)
		}
		fmt.Fprintf(a.Stderr, "%d%s %s, %.0f a second\n", done, of, what, float64(done)/now.Sub(began).Seconds())
	}
}

// shownHistory is what a verification has found, as people and programs read it.
type shownHistory struct {
	Sound       bool                 `json:"sound"`
	FirstBad    *int64               `json:"first_bad_index,omitempty"` // where something is wrong, and its place is known
	Source      string               `json:"source"`
	From        int64                `json:"from"`
	Size        int64                `json:"size"`
	Root        string               `json:"root"` // hexadecimal
	Checkpoints int                  `json:"checkpoints"`
	Covered     int64                `json:"covered"` // by the greatest checkpoint
	Unjudged    int                  `json:"unjudged,omitempty"`
	Older       int                  `json:"older,omitempty"`
	Keys        []string             `json:"keys"`
	KeysFrom    string               `json:"keys_from"`
	Kinds       map[audit.Kind]int64 `json:"kinds"`
	Bad         int64                `json:"bad"`
	Findings    []shownFinding       `json:"findings"`
	Seconds     float64              `json:"seconds"`
	PerSecond   float64              `json:"events_per_second"`
}

type shownFinding struct {
	Kind  audit.Fault `json:"kind"`
	Index *int64      `json:"index,omitempty"`
	Until *int64      `json:"until,omitempty"` // where the place is not known exactly: it is in [index, until)
	What  string      `json:"what"`
}

func (s *shownHistory) fill(r *audit.Report) {
	s.Sound, s.From, s.Size, s.Root, s.Checkpoints, s.Covered = r.Sound(), r.From, r.Size, r.RootText(), r.Checkpoints, r.Covered
	s.Unjudged, s.Older, s.Kinds, s.Bad, s.Findings = r.Unjudged, r.Older, r.Kinds, r.Bad, []shownFinding{}
	if s.Keys == nil {
		s.Keys = []string{}
	}
	for _, f := range r.Findings {
		one := shownFinding{Kind: f.Kind, What: f.What}
		if f.Index >= 0 {
			one.Index = &f.Index
			if s.FirstBad == nil {
				s.FirstBad = &f.Index
			}
		}
		if f.Until > f.Index+1 {
			one.Until = &f.Until
		}
		s.Findings = append(s.Findings, one)
	}
}

func (s *shownHistory) write(w io.Writer) {
	const most = 20
	if !s.Sound {
		fmt.Fprintf(w, "NOT SOUND: %d findings\n", s.Bad)
		for i, f := range s.Findings {
			if i == most {
				fmt.Fprintf(w, "and %d more (-o json shows up to 1000)\n", s.Bad-most)
				break
			}
			what := legible(f.What)
			switch {
			case f.Index == nil:
				fmt.Fprintf(w, "%s: %s\n", f.Kind, what)
			case f.Until != nil:
				fmt.Fprintf(w, "index %d to %d: %s: %s\n", *f.Index, *f.Until-1, f.Kind, what)
			default:
				fmt.Fprintf(w, "index %d: %s: %s\n", *f.Index, f.Kind, what)
			}
		}
	} else {
		fmt.Fprintf(w, "sound: %d events, from index %d on\n", s.Size-s.From, s.From)
	}
	fmt.Fprintf(w, "root          %s\ncheckpoints   %d, the greatest of size %d\n", s.Root, s.Checkpoints, s.Covered)
	if n := s.Size - s.Covered; n > 0 {
		fmt.Fprintf(w, "not covered   %d events at the end: no checkpoint signs them\n", n)
	}
	if s.Unjudged > 0 {
		fmt.Fprintf(w, "not judged    %d checkpoints, because entries before them are missing\n", s.Unjudged)
	}
	if s.Older > 0 {
		fmt.Fprintf(w, "not judged    %d checkpoints that are older than what was read\n", s.Older)
	}
	fmt.Fprintf(w, "keys          from %s\n", s.KeysFrom)
}
