package main

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

// ArchiveConfig says what becomes of months whose certificates have all ended.
type ArchiveConfig struct {
	// Directory is where archives are written and read. It must be on a disk that is backed up, and the same for all replicas. Default: none,
	// and nothing is archived.
	Directory string `yaml:"directory" env:"DIRECTORY"`
	// After is how long the last certificate of a month must have ended: at least 8 days, which is longer than a request may be repeated.
	// Default: 90 days.
	After strictyaml.Duration `yaml:"after" env:"AFTER"`
	// Manual keeps the service from archiving by itself: then `chancery archive run` does it.
	Manual bool `yaml:"manual" env:"MANUAL"`
}

const (
	defaultArchiveAfter  = strictyaml.Duration(90 * 24 * time.Hour)
	shortestArchiveAfter = ca.IdempotencyAge + 24*time.Hour
)

func (c ArchiveConfig) validate(doc *strictyaml.Document) {
	if time.Duration(c.After) < shortestArchiveAfter {
		doc.Refuse("archive.after", "write for example 90d", "%s is too short: a request of 7 days ago may still be repeated", time.Duration(c.After))
	}
}

// retention is for how long after its end a certificate is surely in the database; 0: for ever.
func (c ArchiveConfig) retention() time.Duration {
	if c.Directory == "" {
		return 0
	}
	return time.Duration(c.After)
}

// archiver archives into the configured directory. Made may be nil.
func (c ArchiveConfig) archiver(e Env, store archive.Source, actor string, log *slog.Logger, made func(archive.Made)) archive.Archiver {
	return archive.Archiver{Source: store, Dir: c.Directory, Now: e.Now, NewID: newID, Actor: actor, Log: log, Made: made}
}

func (a *app) archiveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Move months whose certificates have ended into files, and read those",
		Long: `Move months whose certificates have ended into files, and read those.

An archive holds one month: its certificates, the requests that were made in it, and what goes with them. It is a gzip file of JSON, one
object a line, that ends with its own digest. docs/scale.md tells more.`,
	}
	cmd.AddCommand(a.archiveListCommand(), a.archiveRunCommand(), a.archiveShowCommand(), a.archiveVerifyCommand())
	return cmd
}

// shownMonth is a month as people and programs read it.
type shownMonth struct {
	Month        archive.Month `json:"month"`
	State        string        `json:"state"` // archived, ready, kept
	Certificates int64         `json:"certificates"`
	Octets       int64         `json:"octets"`
	Why          string        `json:"why,omitempty"`    // it is kept
	File         string        `json:"file,omitempty"`   // of what is archived
	SHA256       string        `json:"sha256,omitempty"` // of the file
	At           *time.Time    `json:"at,omitempty"`     // it was archived
	AuditEvent   string        `json:"audit_event,omitempty"`
}

func shownArchive(m archive.Made) shownMonth {
	return shownMonth{
		Month: m.Month, State: "archived", Certificates: m.Certificates, Octets: m.Octets, File: m.File, SHA256: hex.EncodeToString(m.SHA256[:]),
		At: &m.At, AuditEvent: m.EventID,
	}
}

func (a *app) archiveListCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the months: which are archived, which could be, and what keeps the others",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(cfg Config, store *storage.Store) error {
				made, err := store.Archives(cmd.Context())
				if err != nil {
					return err
				}
				months, err := store.Months(cmd.Context(), a.Now().Add(-time.Duration(cfg.Archive.After)))
				if err != nil {
					return err
				}
				all := []shownMonth{}
				for _, m := range made {
					all = append(all, shownArchive(m))
				}
				for _, m := range months {
					one := shownMonth{Month: m.Month, State: "ready", Certificates: m.Certificates, Octets: m.Octets, Why: m.Obstacle}
					if m.Obstacle != "" {
						one.State = "kept"
					}
					all = append(all, one)
				}
				return a.print(all, func(w io.Writer) { writeMonths(w, all) })
			})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func writeMonths(w io.Writer, all []shownMonth) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MONTH\tSTATE\tCERTIFICATES\tOCTETS\t")
	for _, m := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s%s\n", m.Month, m.State, m.Certificates, m.Octets, m.Why, m.File)
	}
	_ = t.Flush()
}

var errNoArchive = misuse{errors.New("the configuration names no archive.directory: where should archives be?")}

func (a *app) archiveRunCommand() *cobra.Command {
	var path string
	var yes bool
	cmd := &cobra.Command{
		Use:   "run --yes",
		Short: "Archive every month whose certificates ended long enough ago",
		Long: `Archive every month whose certificates ended long enough ago (archive.after in the configuration), oldest first. Each is written into a file
of archive.directory, made durable and read back; then the database compares what the file holds with what it holds itself, records the
archive, and drops the month. Without --yes it only tells which months these are.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(cfg Config, store *storage.Store) error {
				if cfg.Archive.Directory == "" {
					return errNoArchive
				}
				all := []shownMonth{}
				if !yes {
					months, err := store.ArchivableMonths(cmd.Context(), a.Now().Add(-time.Duration(cfg.Archive.After)))
					if err != nil {
						return err
					}
					for _, m := range months {
						all = append(all, shownMonth{Month: m, State: "ready"})
					}
					return a.print(all, func(w io.Writer) {
						for _, m := range all {
							fmt.Fprintf(w, "%s would be archived; add --yes\n", m.Month)
						}
						if len(all) == 0 {
							fmt.Fprintln(w, "there is nothing to archive; `chancery archive list` tells what keeps each month")
						}
					})
				}
				log := newLogger(a.Stderr, LogConfig{Level: "warn", Format: "text"})
				made, err := cfg.Archive.archiver(a.Env, store, operator(), log, nil).Run(cmd.Context(), time.Duration(cfg.Archive.After))
				for _, m := range made {
					all = append(all, shownArchive(m))
				}
				return errors.Join(a.print(all, func(w io.Writer) {
					for _, m := range all {
						fmt.Fprintf(w, "%s  %d certificates  %s\n", m.Month, m.Certificates, m.File)
					}
				}), err)
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&yes, "yes", false, "archive, and do not only tell")
	return cmd
}

func (a *app) archiveVerifyCommand() *cobra.Command {
	var path string
	var recorded bool
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Read archives to their end and hold them against their digests",
		Long: `Read archives to their end: every line, every digest. This needs nothing but the files. With --recorded each must also be the very file
that the database has on record, whose SHA-256 stands in the audit log too (archive.made).`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			all := []shownFile{}
			verify := func(known map[string]archive.Made) error {
				for _, file := range files {
					v, err := archive.Verify(cmd.Context(), file)
					if err != nil {
						return err
					}
					if m, ok := known[filepath.Base(file)]; recorded && (!ok || !m.Is(v)) {
						return fmt.Errorf("%s is sound, but not what the database has on record: do not rely on it", file)
					}
					all = append(all, newShownFile(file, v))
				}
				return a.print(all, func(w io.Writer) {
					for _, f := range all {
						fmt.Fprintf(w, "%s  %s  %d certificates  sound\n", f.SHA256, f.File, f.Counts[archive.KindCertificate])
					}
				})
			}
			if !recorded {
				return verify(nil)
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				made, err := store.Archives(cmd.Context())
				if err != nil {
					return err
				}
				known := map[string]archive.Made{}
				for _, m := range made {
					known[m.File] = m
				}
				return verify(known)
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&recorded, "recorded", false, "also compare with what the database has on record")
	return cmd
}

// shownFile is an archive's file as people and programs read it.
type shownFile struct {
	File        string                 `json:"file"`
	Month       archive.Month          `json:"month"`
	Schema      int64                  `json:"schema"`
	Counts      map[archive.Kind]int64 `json:"counts"`
	FirstSerial string                 `json:"first_serial,omitempty"`
	LastSerial  string                 `json:"last_serial,omitempty"`
	Octets      int64                  `json:"octets"`
	SHA256      string                 `json:"sha256"`
}

func newShownFile(file string, v archive.Verified) shownFile {
	return shownFile{
		File: file, Month: v.Header.Month, Schema: v.Header.Schema, Counts: v.End.Counts, FirstSerial: v.End.FirstSerial, LastSerial: v.End.LastSerial,
		Octets: v.Octets, SHA256: hex.EncodeToString(v.SHA256[:]),
	}
}

// archivedCertificate is a certificate of an archive with its revocations.
type archivedCertificate struct {
	Serial      string               `json:"serial"`
	Issuer      string               `json:"issuer"`
	Kind        string               `json:"kind"`
	Namespace   string               `json:"namespace"`
	Profile     string               `json:"profile"`
	Subject     string               `json:"subject"`
	Names       []string             `json:"names"`
	NotBefore   time.Time            `json:"not_before"`
	NotAfter    time.Time            `json:"not_after"`
	AuditEvent  string               `json:"audit_event"`
	Certificate string               `json:"certificate"` // PEM
	Revocations []archivedRevocation `json:"revocations,omitempty"`
}

type archivedRevocation struct {
	Reason     int       `json:"reason"` // RFC 5280, section 5.3.1
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
}

func (a *app) archiveShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE [SERIAL]",
		Short: "Show what an archive holds, or one certificate of it",
		Long: `Show what an archive holds, or one certificate of it with its revocations. The whole file is read and verified first. Everything else can be
read with other tools: zcat FILE | jq 'select(.kind == "request").row'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := archive.Verify(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				shown := newShownFile(args[0], v)
				return a.print(shown, func(w io.Writer) {
					fmt.Fprintf(w, "month    %s\nserials  %s to %s\nsha256   %s\n", shown.Month, orDash(shown.FirstSerial), orDash(shown.LastSerial), shown.SHA256)
					for _, kind := range []archive.Kind{archive.KindCertificate, archive.KindRequest, archive.KindApproval, archive.KindRevocation, archive.KindOrphan} {
						fmt.Fprintf(w, "%8d %ss\n", shown.Counts[kind], kind)
					}
				})
			}
			found, err := findArchived(cmd.Context(), args[0], strings.ToLower(args[1]))
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) {
				for _, c := range found {
					fmt.Fprintf(w, "serial     %s\nissuer     %s\nsubject    %s\nnames      %s\nvalid      %s to %s\n", c.Serial, c.Issuer, c.Subject,
						strings.Join(c.Names, ", "), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
					for _, r := range c.Revocations {
						fmt.Fprintf(w, "revoked    %s, reason %d\n", r.At.Format(time.RFC3339), r.Reason)
					}
					fmt.Fprint(w, c.Certificate)
				}
			})
		},
	}
}

func findArchived(ctx context.Context, path, serial string) (found []archivedCertificate, err error) {
	_, err = archive.Each(ctx, path, func(r archive.Record) error {
		switch r.Kind {
		case archive.KindCertificate:
			c, err := r.Certificate()
			if err != nil || hex.EncodeToString(c.Serial) != serial {
				return err
			}
			found = append(found, archivedCertificate{
				Serial: serial, Issuer: c.Issuer, Kind: c.Kind, Namespace: c.Namespace, Profile: c.Profile, Subject: c.Subject, Names: c.Names,
				NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), AuditEvent: c.EventID,
				Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})),
			})
		case archive.KindRevocation:
			v, err := r.Revocation()
			if err != nil || hex.EncodeToString(v.Serial) != serial {
				return err
			}
			for i := range found {
				if found[i].Issuer == v.Issuer {
					found[i].Revocations = append(found[i].Revocations, archivedRevocation{Reason: v.Reason, At: v.At.UTC(), AuditEvent: v.EventID})
				}
			}
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s holds no certificate with the serial %s", path, serial)
	}
	return found, err
}

// pastOf are the requests made from one moment to another: those of archives, read from a directory, then those of the database. What the
// database has on record as archived must be there, and be the very file.
func pastOf(ctx context.Context, store *storage.Store, dir string, since, until time.Time) (iter.Seq2[ca.PastRequest, error], error) {
	made, err := archivesSince(ctx, store, since, until)
	if err != nil {
		return nil, err
	}
	for _, m := range made {
		if dir == "" {
			return nil, misuse{fmt.Errorf("the requests of %s are in the archive %s: say where with --archives, or archive.directory in the configuration", m.Month, m.File)}
		}
		path, err := m.Path(dir)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, fmt.Errorf("the requests of %s are archived: %w", m.Month, err)
		}
	}
	return func(yield func(ca.PastRequest, error) bool) {
		after, last := storage.HistoryBounds(since, until)
		for _, m := range made {
			stopped := errors.New("no more is asked for")
			err := m.Each(ctx, dir, func(r archive.Record) error {
				if r.Kind != archive.KindRequest {
					return nil
				}
				q, err := r.Request()
				if err != nil || q.ID <= after || q.ID > last {
					return err
				}
				p, err := storage.ArchivedRequest(q, r.LedTo)
				if err == nil && !yield(p, nil) {
					err = stopped
				}
				return err
			})
			if errors.Is(err, stopped) {
				return
			}
			if err != nil {
				yield(ca.PastRequest{}, err)
				return
			}
		}
		for p, err := range store.Requests(ctx, since, until) {
			if !yield(p, err) || err != nil {
				return
			}
		}
		again, err := archivesSince(ctx, store, since, until)
		if err == nil && len(again) != len(made) {
			err = errors.New("a month was archived in the meantime: run it again")
		}
		if err != nil {
			yield(ca.PastRequest{}, err)
		}
	}, nil
}

// archivesSince are the archives that may hold requests of a span of time.
func archivesSince(ctx context.Context, store *storage.Store, since, until time.Time) (some []archive.Made, err error) {
	all, err := store.Archives(ctx)
	for _, m := range all {
		if m.Month.AddDate(0, 1, 0).After(since) && !m.Month.After(until) {
			some = append(some, m)
		}
	}
	return some, err
}

// archiveDue archives what is due. It is a duty that any replica may do; the database lets one of them.
func (s *service) archiveDue(ctx context.Context) error {
	c := s.cfg.Archive
	if c.Directory == "" || c.Manual {
		return nil
	}
	_, err := c.archiver(s.env, s.store, access.Service, s.log, func(m archive.Made) { s.metrics.Archived(m.Certificates) }).Run(ctx, time.Duration(c.After))
	if errors.Is(err, archive.ErrBusy) { // another replica, or an operator
		return nil
	}
	return err
}

const (
	archiveEvery    = 6 * time.Hour
	partitionsEvery = time.Hour
)

// watchPartitions tells how far the partitions reach that the leader of upkeep makes ahead. That they do not is told long before it hurts:
// certificates whose month has no partition cannot be recorded, so none are signed.
func (s *service) watchPartitions(ctx context.Context) error {
	const near = 31 * 24 * time.Hour
	now := s.env.Now()
	if s.store.CoveredUntil().Sub(now) < near { // the leader has failed to, or is another replica and has told nobody
		if err := s.store.EnsurePartitions(ctx, now); err != nil {
			return fmt.Errorf("they reach to %s: %w", s.store.CoveredUntil().Format(time.RFC3339), err)
		}
	}
	s.metrics.PartitionedUntil(s.store.CoveredUntil())
	return nil
}
