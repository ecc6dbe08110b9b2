package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Source is where months come from.
type Source interface {
	// ArchivableMonths are the months whose last certificate ended before a moment and that nothing else keeps, oldest first.
	ArchivableMonths(ctx context.Context, endedBefore time.Time) ([]Month, error)
	// MonthHeader is the header of a month's file.
	MonthHeader(ctx context.Context, month Month) (Header, error)
	// ExportMonth hands out every row that belongs into a month's file, in the order of Writer.Add.
	ExportMonth(ctx context.Context, month Month, add func(kind Kind, row []byte, ledTo *LedTo) error) error
	// RecordArchive records an archive and drops the month, in one transaction with the leaves. It refuses, and changes nothing, where the
	// month now holds anything else than the archive does, or something keeps it.
	RecordArchive(ctx context.Context, m Made, endedBefore time.Time, leaves ...audit.Leaf) error
}

// Archiver makes archives in a directory.
type Archiver struct {
	Source Source
	Dir    string // must exist; whoever reads the archives needs it
	Now    func() time.Time
	NewID  func() string
	Actor  string
	Log    *slog.Logger
	// Made is told of each archive; it may be nil.
	Made func(Made)
}

const unfinished = ".unfinished"

// ErrBusy says that another process archives into the same directory.
var ErrBusy = errors.New("another process is archiving into this directory")

// Run archives every month whose last certificate ended a time ago, oldest first, and returns the archives that it made. A month that cannot
// be archived now does not keep the others from it.
func (a Archiver) Run(ctx context.Context, after time.Duration) (made []Made, err error) {
	unlock, err := a.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	endedBefore := a.Now().Add(-after)
	months, err := a.Source.ArchivableMonths(ctx, endedBefore)
	if err != nil {
		return nil, fmt.Errorf("looking for months to archive: %w", err)
	}
	for _, month := range months {
		m, failed := a.month(ctx, month, endedBefore)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("archiving %s: %w", month, failed))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		made = append(made, m)
		a.Log.InfoContext(ctx, "a month is archived", "month", month.String(), "file", m.File, "certificates", m.Certificates, "octets", m.Octets)
		if a.Made != nil {
			a.Made(m)
		}
	}
	return made, err
}

// month writes a month's file, reads it back, puts it into its place, and only then has the month dropped. A crash before the last step
// leaves a file too much, which the next run makes anew, the same; a crash in it or after it leaves the month either in the database or on
// record as archived, with its file in place.
func (a Archiver) month(ctx context.Context, month Month, endedBefore time.Time) (Made, error) {
	path := filepath.Join(a.Dir, "chancery-"+month.String()+unfinished)
	written, err := a.write(ctx, month, path)
	if err != nil {
		return Made{}, err
	}
	v, err := Verify(ctx, path)
	if err != nil {
		return Made{}, fmt.Errorf("reading back what was written: %w", err)
	}
	if v.SHA256 != written {
		return Made{}, &DamagedError{What: what, Why: "what is read back is not what was written"}
	}
	m := Made{
		Month: month, Certificates: v.End.Counts[KindCertificate], Requests: v.End.Counts[KindRequest], Octets: v.Octets, SHA256: v.SHA256,
		File: "chancery-" + month.String() + "-" + hex.EncodeToString(v.SHA256[:4]) + ".ndjson.gz", Actor: a.Actor, At: a.Now(), EventID: a.NewID(),
	}
	if _, err := hex.Decode(m.CertificatesDigest[:], []byte(v.End.CertificatesDigest)); err != nil {
		return Made{}, fmt.Errorf("reading back a digest: %w", err)
	}
	if _, err := hex.Decode(m.RequestsDigest[:], []byte(v.End.RequestsDigest)); err != nil {
		return Made{}, fmt.Errorf("reading back a digest: %w", err)
	}
	if err := os.Rename(path, filepath.Join(a.Dir, m.File)); err != nil {
		return Made{}, fmt.Errorf("putting the archive into its place: %w", err)
	}
	if err := syncDir(a.Dir); err != nil {
		return Made{}, err
	}
	leaf, err := audit.New(audit.Event{ID: m.EventID, Kind: audit.ArchiveMade, Time: m.At, Actor: m.Actor, Data: map[string]string{
		"month": month.String(), "file": m.File, "sha256": hex.EncodeToString(m.SHA256[:]), "certificates": fmt.Sprint(m.Certificates),
		"requests": fmt.Sprint(m.Requests), "first_serial": v.End.FirstSerial, "last_serial": v.End.LastSerial,
	}})
	if err != nil {
		return Made{}, err
	}
	return m, a.Source.RecordArchive(ctx, m, endedBefore, leaf)
}

// write writes a month's file and makes it durable.
func (a Archiver) write(ctx context.Context, month Month, path string) (sum [32]byte, err error) {
	header, err := a.Source.MonthHeader(ctx, month)
	if err != nil {
		return sum, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return sum, fmt.Errorf("making the file: %w", err)
	}
	defer func() {
		if closing := file.Close(); err == nil {
			err = closing
		}
	}()
	if err := file.Chmod(0o640); err != nil { // whatever the umask
		return sum, fmt.Errorf("making the file: %w", err)
	}
	digest := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(file, digest), 1<<18)
	w, err := NewWriter(out, header)
	if err != nil {
		return sum, err
	}
	if err := a.Source.ExportMonth(ctx, month, w.Add); err != nil {
		return sum, err
	}
	if _, err := w.Close(); err != nil {
		return sum, err
	}
	if err := out.Flush(); err != nil {
		return sum, fmt.Errorf("writing the file: %w", err)
	}
	if err := file.Sync(); err != nil {
		return sum, fmt.Errorf("making the file durable: %w", err)
	}
	digest.Sum(sum[:0])
	return sum, nil
}

// lock keeps two processes from writing the same file. The kernel lets go of it when the process ends, however it does.
func (a Archiver) lock() (unlock func(), err error) {
	dir, err := os.Open(a.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the directory of archives: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = dir.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("locking the directory of archives: %w", err)
	}
	return func() { _ = dir.Close() }, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("making the archive's name durable: %w", err)
	}
	err = dir.Sync()
	if err = errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("making the archive's name durable: %w", err)
	}
	return nil
}
