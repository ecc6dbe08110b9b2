package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
)

// Options are what a ceremony needs besides its plan.
type Options struct {
	Token  *hsm.Token
	Now    func() time.Time
	Random io.Reader // for serial numbers; nil means the token's own generator
	Out    io.Writer // where each step is told to those present; nil means nowhere
	// Confirm is asked once, after the rehearsal and before anything is made, with the plan's digest. An error ends the ceremony,
	// which has then left no trace. Nil asks nobody.
	Confirm func(planDigest string) error
}

// Result tells what a ceremony has made.
type Result struct {
	Dir        string   `json:"dir"`        // of all files
	Transcript string   `json:"transcript"` // path
	Head       string   `json:"head"`       // hash of the transcript's last line: who notes it can tell any later change to the transcript
	Bundles    []string `json:"bundles"`    // paths of the new authorities' bundles, issuers first
	CRLs       []string `json:"crls"`       // paths of the CRLs made for existing authorities
}

// Run performs a ceremony: the plan is rehearsed, the token and the output directory are looked at, the plan's digest is shown and
// confirmed; then authority by authority a key is made, its certificate decided, prepared, recorded, signed and verified, and its
// files are written; in the end everything is read back from the disk.
//
// What can be refused is refused before the transcript begins, and then nothing was made. After that a failure, a crash included,
// leaves the transcript, which holds an intent for every signature that was made, and the keys that it names. A failed ceremony is not
// resumed; see the package's comment.
func Run(ctx context.Context, p Plan, o Options) (*Result, error) {
	if !p.Valid() {
		return nil, errNoPlan
	}
	if o.Token == nil || o.Now == nil {
		return nil, errors.New("a ceremony needs a token and a clock")
	}
	if o.Random == nil {
		o.Random = o.Token
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(o.Out, format+"\n", args...) // a lost word to the audience does not stop a ceremony
	}
	say("ceremony %s: %s", p.Ceremony, audit.Legible(p.Description, "| "))
	say("plan %s", p.Digest())

	if err := Rehearse(ctx, p, o.Now(), o.Random); err != nil {
		return nil, fmt.Errorf("rehearsing: %w", err)
	}
	if err := survey(ctx, o.Token, p, o.Now()); err != nil {
		return nil, fmt.Errorf("looking at the token: %w", err)
	}
	if err := vacant(p); err != nil {
		return nil, fmt.Errorf("looking at the output directory: %w", err)
	}
	say("rehearsed: nothing is refused")
	present := o.Now()
	say("clock %s", present.UTC().Format(time.RFC3339)) // of a machine that perhaps no network tells the time
	for _, a := range p.order() {
		from, to := a.window(present)
		say("%s: from %s to %s", a.Name, from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	for _, name := range p.withoutCRL() {
		say("%s: what it issues will name no CRL (urls.crl), for as long as it lasts", name)
	}
	if o.Confirm != nil {
		if err := o.Confirm(p.Digest()); err != nil {
			return nil, fmt.Errorf("the plan was not confirmed: %w", err)
		}
	}

	now := o.Now()
	if err := p.fits(now); err != nil {
		return nil, err
	}
	record, err := createTranscript(p.OutputDir(), o.Now)
	if err != nil {
		return nil, err
	}
	hall := &hall{token: o.Token, record: record, dir: p.OutputDir(), say: say}
	if err := hall.play(ctx, newAct(p, now, o.Random, hall)); err != nil {
		return nil, err
	}
	result, err := readBack(p)
	if err != nil {
		return nil, fmt.Errorf("reading back what was made: %w", err)
	}
	say("transcript %s", result.Head)
	return result, nil
}

// vacant refuses an output directory that holds what the ceremony would write.
func vacant(p Plan) error {
	names := []string{TranscriptFile}
	for _, a := range p.Authorities {
		for _, suffix := range []string{certificateSuffix, pemSuffix, chainSuffix, crlSuffix, bundleSuffix} {
			names = append(names, a.Name+suffix)
		}
	}
	for _, c := range p.CRLs {
		names = append(names, c.Issuer+crlSuffix)
	}
	for _, l := range p.Logs {
		names = append(names, l.Name+keySuffix)
	}
	for _, name := range names {
		path := filepath.Join(p.OutputDir(), name)
		switch _, err := os.Lstat(path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case name == TranscriptFile:
			return fmt.Errorf("%s: %w", path, ErrTranscriptExists)
		default:
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
	}
	return nil
}

// readBack checks what lies on the disk, as whoever takes it over will.
func readBack(p Plan) (*Result, error) {
	dir := p.OutputDir()
	result := &Result{Dir: dir, Transcript: filepath.Join(dir, TranscriptFile), Bundles: []string{}, CRLs: []string{}}
	f, err := os.Open(result.Transcript)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	summary, err := VerifyTranscript(f)
	if err != nil {
		return nil, err
	}
	result.Head = summary.Head
	if err := CompareArtefacts(summary, dir); err != nil {
		return nil, err
	}
	for _, a := range p.order() {
		path := filepath.Join(dir, a.Name+bundleSuffix)
		if _, err := ReadBundle(path); err != nil {
			return nil, err
		}
		result.Bundles = append(result.Bundles, path)
	}
	for _, c := range p.CRLs {
		result.CRLs = append(result.CRLs, filepath.Join(dir, c.Issuer+crlSuffix))
	}
	return result, nil
}

// CompareArtefacts checks that the files of a verified transcript lie in a directory as they were written.
func CompareArtefacts(s Summary, dir string) error {
	for _, a := range s.Artefacts {
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(a.Name)))
		if err != nil {
			return err
		}
		if hexDigest(data) != a.SHA256 {
			return fmt.Errorf("%s is not the file that the ceremony wrote", a.Name)
		}
	}
	return nil
}
