package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// genesis stands where the first line has no line before it.
var genesis = strings.Repeat("0", 64)

// ErrTranscriptExists refuses an output directory in which a ceremony has begun.
var ErrTranscriptExists = errors.New("the output directory holds a transcript already; a ceremony is not resumed: choose another output " +
	"directory and other key labels, and destroy the keys of the one that failed by their labels")

// durable is what a transcript is written to.
type durable interface {
	io.WriteCloser
	Sync() error // returns nil only when all that was written survives any crash
}

// transcript is the record of a ceremony: lines, each bound to the one before, each durable before anything that depends on it is
// done. It holds neither PINs nor private keys. It is used by one goroutine.
type transcript struct {
	to       durable
	now      func() time.Time
	lines    int
	octets   int
	previous string // hash of the last line

	signatures, artefacts int

	// broken is the first failure to write. A line may then stand there in part, or whole without our knowing: nothing is added, so
	// nothing is signed any more.
	broken error
}

// createTranscript makes the output directory, where it is not there, and the transcript in it.
func createTranscript(dir string, now func() time.Time) (*transcript, error) {
	entered := levels(dir) // as it is before
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the output directory: %w", err)
	}
	path := filepath.Join(dir, TranscriptFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrTranscriptExists)
	}
	if err != nil {
		return nil, fmt.Errorf("creating the transcript: %w", err)
	}
	// Without the directories' entries a durable file can be lost as a whole.
	for _, level := range entered {
		if err := syncDir(level); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return newTranscript(f, now), nil
}

// levels are a directory, the one above it, and so on up to the first that is there: those in which a new file in it makes new entries.
func levels(dir string) []string {
	all := []string{filepath.Clean(dir)}
	for {
		above := filepath.Dir(all[len(all)-1])
		all = append(all, above)
		if _, err := os.Stat(above); err == nil || above == filepath.Dir(above) {
			return all
		}
	}
}

func newTranscript(to durable, now func() time.Time) *transcript {
	return &transcript{to: to, now: now, previous: genesis}
}

// record adds a line. When it returns nil, the line survives any crash.
func (t *transcript) record(e entry) error {
	if t.broken != nil {
		return fmt.Errorf("the transcript cannot be continued: %w", t.broken)
	}
	e.Version, e.Number, e.Previous = transcriptVersion, t.lines+1, t.previous
	e.Time = t.now().UTC().Format(timeFormat)
	line, hash, err := e.encode()
	if e.Intent != nil && err == nil {
		if err := t.room(len(line)); err != nil {
			return err
		}
	}
	if err == nil {
		_, err = t.to.Write(line)
	}
	if err == nil {
		err = t.to.Sync()
	}
	if err != nil {
		t.broken = err
		return fmt.Errorf("writing the transcript: %w", err)
	}
	t.lines, t.octets, t.previous = t.lines+1, t.octets+len(line), hash
	switch {
	case e.Signed != nil:
		t.signatures++
	case e.Artefact != nil:
		t.artefacts++
	}
	return nil
}

// room refuses an intent after which the transcript could not be read: what would be signed is as long again, and files and an end follow. The
// rehearsal has refused it already, unless a file has become longer since.
func (t *transcript) room(intent int) error {
	return extent(t.octets + 2*intent + 16*lineRoom).readable()
}

// intents records what the issuer's key is about to sign, about a subject.
func (t *transcript) intents(issuer, subject string) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return t.record(entry{Intent: intentEntry(issuer, subject, s)})
	})
}

// end closes the transcript, with the reason where the ceremony has failed.
func (t *transcript) end(reason error) error {
	last := entry{End: &ending{Signatures: t.signatures, Artefacts: t.artefacts}}
	if reason != nil {
		last = entry{Failed: &failure{Reason: reason.Error()}}
	}
	return errors.Join(t.record(last), t.to.Close())
}
