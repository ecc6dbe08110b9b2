package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/storage"
)

// historyFlags say where the database of the log is. An auditor's login is enough, and then no configuration is needed.
type historyFlags struct {
	config, urlFile string
	workers         int
}

func (f *historyFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.urlFile, "database", "", "file that holds the URL of the database; an auditor's login, which reads and no more, is enough")
}

// url is the database's.
func (f historyFlags) url(a *app) (string, error) {
	if f.urlFile != "" {
		return DatabaseConfig{URLFile: f.urlFile}.databaseURL()
	}
	cfg, err := loadConfig(f.config, a.Environ)
	if err != nil {
		return "", err
	}
	return cfg.Database.databaseURL()
}

// open opens the log in the database.
func (f historyFlags) open(ctx context.Context, a *app) (*storage.History, error) {
	url, err := f.url(a)
	if err != nil {
		return nil, err
	}
	return storage.OpenHistory(ctx, url, f.workers)
}

// verifiers reads verifier keys, given in place or as the name of a file that holds some, one a line: a log whose key was replaced has several.
func verifiers(given []string) (keys []*audit.Verifier, err error) {
	for _, one := range given {
		lines := strings.Fields(one)
		if strings.Count(one, "+") < 2 {
			data, err := os.ReadFile(one)
			if err != nil {
				return nil, misuse{fmt.Errorf("--key: neither a verifier key nor a file of them: %w", err)}
			}
			lines = strings.Fields(string(data))
		}
		for _, line := range lines {
			v, err := audit.ParseVerifier(line)
			if err != nil {
				return nil, misuse{fmt.Errorf("--key: %w", err)}
			}
			keys = append(keys, v)
		}
	}
	return keys, nil
}

// exportFiles are exports that follow each other, as one source.
type exportFiles struct {
	paths []string
	Start audit.Start // of the first
	Keys  []string    // that the exporter knew
	End   audit.ExportEnd

	mu     sync.Mutex
	file   *os.File
	reader *audit.ExportReader
	next   int // path
	number int
}

const exportSuffix = ".ndjson.gz"

// openExports opens exports and directories of exports.
func openExports(given []string) (*exportFiles, error) {
	x := &exportFiles{}
	for _, path := range given {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("opening an export: %w", err)
		}
		if !info.IsDir() {
			x.paths = append(x.paths, path)
			continue
		}
		inside, err := exportsIn(path)
		if err != nil {
			return nil, err
		}
		x.paths = append(x.paths, inside...)
	}
	if len(x.paths) == 0 {
		return nil, fmt.Errorf("there is no export in %s", strings.Join(given, ", "))
	}
	if err := x.Again(context.Background()); err != nil {
		return nil, err
	}
	x.Keys = x.reader.Header.Keys
	var err error
	x.Start, err = x.reader.Header.Start()
	return x, err
}

// exportsIn are the exports of a directory. Their names are in the order of their places.
func exportsIn(dir string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "audit-*"+exportSuffix))
	slices.Sort(all)
	return all, err
}

// Again begins anew.
func (x *exportFiles) Again(context.Context) error {
	x.next, x.number, x.End = 0, 0, audit.ExportEnd{}
	return x.advance()
}

// advance opens the next file, which must go on where the last one ended.
func (x *exportFiles) advance() error {
	if err := x.Close(); err != nil {
		return err
	}
	path := x.paths[x.next]
	x.next++
	var err error
	if x.file, err = os.Open(path); err != nil {
		return fmt.Errorf("opening an export: %w", err)
	}
	if x.reader, err = audit.NewExportReader(x.file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if x.next == 1 {
		return nil
	}
	start, err := x.reader.Header.Start()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	root, err := start.Root()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if start.Size != x.End.To || fmt.Sprintf("%x", root[:]) != x.End.Root {
		return fmt.Errorf("%s begins at index %d, with another history than %s ends with, at %d", path, start.Size, x.paths[x.next-2], x.End.To)
	}
	return nil
}

// Next reads on.
func (x *exportFiles) Next(context.Context) (audit.Batch, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		b, err := x.reader.Next(audit.BatchSize)
		if err == nil {
			b.Number = x.number
			x.number++
			return b, nil
		}
		if !errors.Is(err, io.EOF) {
			return b, fmt.Errorf("%s: %w", x.paths[x.next-1], err)
		}
		x.End = x.reader.End
		if x.next == len(x.paths) {
			return b, io.EOF
		}
		if err := x.advance(); err != nil {
			return b, err
		}
	}
}

// Close closes the open file.
func (x *exportFiles) Close() error {
	if x.file == nil {
		return nil
	}
	err := x.file.Close()
	x.file = nil
	return err
}

// serviceHistory is the log as the service gives it to its auditors, up to its newest checkpoint.
type serviceHistory struct {
	client *client.Client
	note   []byte
	size   int64

	mu     sync.Mutex
	from   int64
	number int
}

// openService asks the service for its newest checkpoint.
func openService(ctx context.Context, c *client.Client) (*serviceHistory, error) {
	h := &serviceHistory{client: c}
	var err error
	if h.note, err = c.Checkpoint(ctx, 0); err != nil {
		return nil, err
	}
	at, err := audit.ReadCheckpoint(h.note)
	h.size = at.Size
	return h, err
}

// Again begins anew.
func (h *serviceHistory) Again(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.from, h.number = 0, 0
	return nil
}

// Next asks for the next run of entries.
func (h *serviceHistory) Next(ctx context.Context) (audit.Batch, error) {
	h.mu.Lock()
	if h.from >= h.size && h.number > 0 {
		h.mu.Unlock()
		return audit.Batch{}, io.EOF
	}
	b := audit.Batch{Number: h.number, From: h.from, To: min(h.from+audit.BatchSize, h.size)}
	h.number, h.from = h.number+1, b.To
	h.mu.Unlock()
	for next := b.From; next < b.To; {
		page, err := h.client.LogEntries(ctx, next, b.To)
		if err != nil {
			return b, err
		}
		if len(page) == 0 {
			break // what is missing is found
		}
		for _, e := range page {
			if e.Index < next || e.Index >= b.To {
				return b, fmt.Errorf("reading the log from the service: asked for the events from %d to %d, it gives that of %d", next, b.To-1, e.Index)
			}
			if next = e.Index + 1; e.Leaf != "" { // else it is gone
				b.Entries = append(b.Entries, audit.Entry{Index: e.Index, Leaf: []byte(e.Leaf)})
			}
		}
	}
	if b.To == h.size {
		b.Checkpoints = []audit.Note{{Text: h.note, Where: "of the service"}}
	}
	return b, nil
}
