package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage"
)

type auditExportFlags struct {
	historyFlags
	out, since string
	from, to   int64
}

func (a *app) auditExportCommand() *cobra.Command {
	f := auditExportFlags{historyFlags: historyFlags{workers: 1}}
	cmd := &cobra.Command{
		Use:   "export --out FILE|DIRECTORY",
		Short: "Write the history into a file that verifies by itself",
		Long: `Write the history into a file that verifies by itself, with ` + "`chancery audit verify FILE --key …`" + ` and no database.

An export ends with the newest signed checkpoint, so that all of it is signed; with --to it ends where that says. Into a directory goes what its last export does not have yet:
run it every night, and the directory is the whole history. A second run into it at the same time is refused. The same export is always the
same file. It is gzip and JSON, one object a line:

    zcat audit-*.ndjson.gz | jq -c 'select(.kind == "leaf").row | select(.kind == "certificate.revoked")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.since != "" && cmd.Flags().Changed("from") {
				return misuse{errors.New("--since and --from say the same: give one of them")}
			}
			if !cmd.Flags().Changed("to") {
				f.to = -1
			}
			return a.auditExport(cmd.Context(), f)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "file to write, or a directory that exists, for a file of its own name in it")
	cmd.Flags().StringVar(&f.since, "since", "", "file of an earlier export, to go on where it ended")
	cmd.Flags().Int64Var(&f.from, "from", 0, "index of the first event")
	cmd.Flags().Int64Var(&f.to, "to", 0, "index after the last event (default: what the newest checkpoint signs); events after its last checkpoint nobody signs")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// shownExport is an export that was made, as people and programs read it.
type shownExport struct {
	File        string `json:"file"` // empty: there was nothing to export
	From        int64  `json:"from"`
	To          int64  `json:"to"`
	Checkpoints int    `json:"checkpoints"`
	Unsigned    int64  `json:"unsigned,omitempty"` // events at its end that no checkpoint in it signs
	Root        string `json:"root"`
	Octets      int64  `json:"octets"`
	SHA256      string `json:"sha256"` // of the file, as sha256sum tells it
}

func (a *app) auditExport(ctx context.Context, f auditExportFlags) error {
	info, err := os.Stat(f.out)
	intoDirectory := err == nil && info.IsDir()
	if intoDirectory {
		unlock, err := lockExports(f.out)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if intoDirectory && f.since == "" && f.from == 0 {
		all, err := exportsIn(f.out)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			f.since = all[len(all)-1]
		}
	}
	h, err := f.open(ctx, a)
	if err != nil {
		return err
	}
	defer h.Close()
	start, err := startOf(ctx, h, f)
	if err != nil {
		return err
	}
	if f.to < 0 {
		f.to = max(start.Size, h.Signed())
	}
	if err := h.Until(f.to); err != nil {
		return misuse{err}
	}
	shown := shownExport{From: start.Size, To: f.to}
	if f.to > start.Size || !intoDirectory {
		path := f.out
		if intoDirectory {
			path = filepath.Join(f.out, fmt.Sprintf("audit-%012d-%012d%s", start.Size, f.to, exportSuffix))
		}
		if shown, err = a.writeExport(ctx, h, start, path); err != nil {
			return err
		}
	}
	return a.print(shown, func(w io.Writer) {
		if shown.File == "" {
			fmt.Fprintf(w, "there is nothing to export: nothing was signed since index %d\n", shown.From)
			return
		}
		fmt.Fprintf(w, "%s  %d events from index %d on, %d checkpoints, %d octets\n", shown.File, shown.To-shown.From, shown.From,
			shown.Checkpoints, shown.Octets)
		if shown.Unsigned > 0 {
			fmt.Fprintf(w, "no checkpoint in it signs the last %d events: whoever verifies it cannot rely on those\n", shown.Unsigned)
		}
	})
}

// lockExports keeps two runs from going on where the same export ends: a directory with both would not verify. The kernel lets go of it
// when the process ends, however it does. A file is locked and not the directory, which network file systems do not lock.
func lockExports(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, ".chancery-export"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the directory of exports: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another export into %s is under way: run it again when that has ended", dir)
		}
		return nil, fmt.Errorf("locking the directory of exports: %w", err)
	}
	return func() { _ = file.Close() }, nil
}

// startOf is where an export begins: at an index, or where an earlier one ended, whose history must be that of the database.
func startOf(ctx context.Context, h *storage.History, f auditExportFlags) (audit.Start, error) {
	if f.since == "" {
		return h.Since(ctx, f.from)
	}
	x, err := openExports([]string{f.since})
	if err != nil {
		return audit.Start{}, err
	}
	defer x.Close()
	for err == nil {
		_, err = x.Next(ctx)
	}
	if !errors.Is(err, io.EOF) {
		return audit.Start{}, err
	}
	start, err := h.Since(ctx, x.End.To)
	if err != nil {
		return start, err
	}
	root, err := start.Root()
	if err == nil && hex.EncodeToString(root[:]) != x.End.Root {
		err = fmt.Errorf("the first %d entries of the database are not those of %s: run chancery audit verify, on both", x.End.To, f.since)
	}
	return start, err
}

// writeExport writes an export, which appears when it is whole and durable.
func (a *app) writeExport(ctx context.Context, h *storage.History, start audit.Start, path string) (shown shownExport, err error) {
	keys, err := h.Keys(ctx)
	if err != nil {
		return shown, err
	}
	err = replaceFile(path, 0o640, func(file io.Writer) error {
		digest := &countingDigest{Hash: sha256.New()}
		out := bufio.NewWriterSize(io.MultiWriter(file, digest), 1<<18)
		x, err := audit.NewExportWriter(out, start, keys)
		if err != nil {
			return err
		}
		done := a.progress("events", h.Size()-start.Size)
		for {
			b, err := h.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = exportBatch(x, b)
			}
			if err != nil {
				return err
			}
			done(x.Size() - start.Size)
		}
		end, err := x.Close()
		if err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("writing the export: %w", err)
		}
		shown = shownExport{
			File: path, From: start.Size, To: end.To, Checkpoints: end.Checkpoints, Unsigned: end.To - max(start.Size, x.Signed()), Root: end.Root,
			Octets: digest.octets, SHA256: hex.EncodeToString(digest.Sum(nil)),
		}
		return nil
	})
	if err != nil {
		return shownExport{}, err
	}
	return shown, syncParent(path)
}

// exportBatch writes a run of entries, and the last of the checkpoints among them: that is enough to tell where a change is.
func exportBatch(x *audit.ExportWriter, b audit.Batch) error {
	var last *audit.Note
	if n := len(b.Checkpoints); n > 0 {
		last = &b.Checkpoints[n-1]
	}
	for _, e := range b.Entries {
		if err := x.Add(e); err != nil {
			return err
		}
		if last != nil && last.Size == x.Size() {
			if err := x.AddCheckpoint(last.Text); err != nil {
				return err
			}
		}
	}
	if x.Size() != b.To {
		return fmt.Errorf("exporting the audit log: there is no entry with the index %d: run chancery audit verify", x.Size())
	}
	return nil
}

// countingDigest digests what is written and counts it.
type countingDigest struct {
	hash.Hash
	octets int64
}

// Write takes octets into the account.
func (d *countingDigest) Write(p []byte) (int, error) {
	d.octets += int64(len(p))
	return d.Hash.Write(p)
}

// syncParent makes the name of a file durable.
func syncParent(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return fmt.Errorf("making the name of %s durable: %w", path, err)
	}
	return nil
}
