package archive_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/audit"
)

// oneMonth is a database with one month that can go.
type oneMonth struct{ recorded int }

func (*oneMonth) ArchivableMonths(context.Context, time.Time) ([]archive.Month, error) {
	return []archive.Month{january}, nil
}

func (*oneMonth) MonthHeader(context.Context, archive.Month) (archive.Header, error) {
	return header, nil
}

func (*oneMonth) ExportMonth(_ context.Context, _ archive.Month, add func(archive.Kind, []byte, *archive.LedTo) error) error {
	return add(archive.KindCertificate, []byte(certificateRow(1)), nil)
}

func (s *oneMonth) RecordArchive(context.Context, archive.Made, time.Time, ...audit.Leaf) error {
	s.recorded++
	return nil
}

// Who reads the archives, an auditor's program among them, is of the directory's group, whatever the umask of the service.
func TestTheGroupReadsArchives(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	source, dir := &oneMonth{}, t.TempDir()
	made, err := archive.Archiver{
		Source: source, Dir: dir, Now: time.Now, NewID: func() string { return "id" }, Actor: "system", Log: slog.New(slog.DiscardHandler),
	}.Run(t.Context(), time.Hour)
	if err != nil || len(made) != 1 || source.recorded != 1 {
		t.Fatalf("%+v, %d recorded, %v", made, source.recorded, err)
	}
	if info, err := os.Stat(filepath.Join(dir, made[0].File)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
