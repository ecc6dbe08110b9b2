package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chancery-ca/chancery/client"
)

const (
	batchPart     = 500 // requests in one call: what is asked for again after a cut is not much
	progressEvery = time.Second
	csrSuffix     = ".csr"
	forcedRun     = ".chancery-batch" // in the directory of the certificates: names a run with --force that has not ended
)

// batchReport is what `request --batch` has done.
type batchReport struct {
	Issued  []batchFile `json:"issued"`
	Waiting []batchFile `json:"waiting"` // for approval
	Skipped []string    `json:"skipped"` // requests whose certificate was there already
	Failed  []batchFile `json:"failed"`
}

// batchFile is one request of a directory and what came of it.
type batchFile struct {
	CSR         string             `json:"csr"`
	Certificate string             `json:"certificate,omitempty"`
	Serial      string             `json:"serial,omitempty"`
	Request     string             `json:"request,omitempty"` // that waits
	NotAfter    *time.Time         `json:"not_after,omitempty"`
	Error       string             `json:"error,omitempty"`
	Violations  []client.Violation `json:"violations,omitempty"`
}

// batch asks for a certificate for each request of a directory, and puts it beside the request, or into another directory. What has its
// certificate already is left alone, so that a run that was ended is ended by another.
type batch struct {
	app         *app
	client      *client.Client
	in          client.RequestInput // but for the CSR
	source, out string
	force       bool
	forced      string // names the run, with force
	parts       int    // calls at once

	mu     sync.Mutex
	report batchReport
	total  int
	shown  time.Time
	open   bool // there may be a certificate that was not told of, or will be one
}

func (b *batch) run(ctx context.Context) error {
	if b.parts < 1 {
		return misuse{errors.New("--jobs is 1 or more")}
	}
	if b.out != "" { // before there are certificates that would have no place
		if err := os.MkdirAll(b.out, 0o755); err != nil {
			return fmt.Errorf("making the directory for the certificates: %w", err)
		}
	}
	files, err := b.files()
	if err != nil {
		return err
	}
	var requests []client.RequestInput
	for _, file := range files {
		one := b.in
		if one.CSR, err = readCSR(filepath.Join(b.source, file)); err != nil {
			return err
		}
		requests = append(requests, one)
	}
	if b.force {
		if err := b.beginForced(); err != nil {
			return err
		}
	}
	for i := range requests {
		requests[i].IdempotencyKey = b.key(requests[i])
	}
	b.total, b.shown = len(files), b.app.Now()
	calls, wanted := errgroup.WithContext(ctx)
	calls.SetLimit(b.parts)
	for from := 0; from < len(files); from += batchPart {
		to := min(from+batchPart, len(files))
		calls.Go(func() error {
			if wanted.Err() != nil { // no further call is begun when one has failed; what others are issued is still taken
				return nil
			}
			return b.client.Batch(ctx, requests[from:to], func(r client.BatchResult) error { return b.take(files[from+r.Index], r) })
		})
	}
	if err = calls.Wait(); b.force {
		err = errors.Join(err, b.endForced(err == nil && !b.open))
	}
	for _, list := range [][]batchFile{b.report.Issued, b.report.Waiting, b.report.Failed} {
		slices.SortFunc(list, func(x, y batchFile) int { return strings.Compare(x.CSR, y.CSR) })
	}
	err = errors.Join(err, b.app.print(b.report, b.show))
	if n := len(b.report.Failed); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d requests got no certificate", n, b.total))
	}
	return err
}

// beginForced names the run, and has the name on the disk before anything is asked for: a run that does not come to its end is gone on with
// by the next, which gets what was issued already.
func (b *batch) beginForced() error {
	path := filepath.Join(cmp.Or(b.out, b.source), forcedRun)
	before, err := os.ReadFile(path)
	if err == nil && len(before) > 0 {
		b.forced = string(before)
		fmt.Fprintln(b.app.Stderr, "an earlier run with --force did not end: going on with it, what it was issued is not issued again")
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the name of an earlier run: %w", err)
	}
	var random [16]byte
	if _, err := io.ReadFull(b.app.Random, random[:]); err != nil {
		return fmt.Errorf("naming the run: %w", err)
	}
	b.forced = hex.EncodeToString(random[:])
	return errors.Join(writeFile(path, []byte(b.forced), 0o644), syncParent(path))
}

// endForced forgets the run, when all of it is known, and tells how to go on with it otherwise.
func (b *batch) endForced(done bool) error {
	if done {
		return os.Remove(filepath.Join(cmp.Or(b.out, b.source), forcedRun))
	}
	fmt.Fprintln(b.app.Stderr, "the run did not come to its end: run it again with --force, within a week, "+
		"and what was issued already is not issued again")
	return nil
}

// key names a request by what it asks for, so that another run gets the certificate of the first, or learns that it was approved. With
// force a new certificate is meant, so each run that comes to its end has keys of its own.
func (b *batch) key(r client.RequestInput) string {
	digest := sha256.New()
	parts := []string{r.Profile, r.Issuer, r.Validity, fmt.Sprint(r.Metadata), r.CSR}
	if b.force {
		parts = append(parts, b.forced)
	}
	for _, part := range parts {
		fmt.Fprintf(digest, "%d:%s", len(part), part)
	}
	return "batch-" + hex.EncodeToString(digest.Sum(nil))
}

// files are the requests of the directory that have no certificate yet, by name.
func (b *batch) files() ([]string, error) {
	entries, err := os.ReadDir(b.source)
	if err != nil {
		return nil, fmt.Errorf("reading the requests: %w", err)
	}
	b.report = batchReport{Issued: []batchFile{}, Waiting: []batchFile{}, Skipped: []string{}, Failed: []batchFile{}}
	var files []string
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != csrSuffix {
			continue
		}
		if _, err := os.Stat(b.certificate(e.Name())); err == nil && !b.force {
			b.report.Skipped = append(b.report.Skipped, e.Name())
			continue
		}
		files = append(files, e.Name())
	}
	if len(files)+len(b.report.Skipped) == 0 {
		return nil, fmt.Errorf("%s holds no request: their names end in %s", b.source, csrSuffix)
	}
	return files, nil
}

func (b *batch) certificate(file string) string {
	return filepath.Join(cmp.Or(b.out, b.source), strings.TrimSuffix(file, csrSuffix)+".pem")
}

// take writes a certificate down as soon as it is there.
func (b *batch) take(file string, r client.BatchResult) error {
	one := batchFile{CSR: file}
	list := &b.report.Issued
	var problem *client.Problem
	var waiting *client.Waiting
	switch {
	case errors.As(r.Err, &waiting):
		list, one.Request = &b.report.Waiting, waiting.Request.ID
	case r.Err != nil:
		list, one.Error = &b.report.Failed, r.Err.Error()
		if errors.As(r.Err, &problem) {
			one.Violations = problem.Violations
		}
	default:
		one.Certificate, one.Serial, one.NotAfter = b.certificate(file), r.Issued.Serial, &r.Issued.NotAfter
		if err := writeFile(one.Certificate, []byte(r.Issued.Chain), 0o644); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = b.open || r.Err != nil && !isFinal(r.Err)
	*list = append(*list, one)
	if now := b.app.Now(); now.Sub(b.shown) >= progressEvery {
		b.shown = now
		done := len(b.report.Issued) + len(b.report.Waiting) + len(b.report.Failed)
		fmt.Fprintf(b.app.Stderr, "%d of %d done, %d failed\n", done, b.total, len(b.report.Failed))
	}
	return nil
}

// isFinal tells whether the service has said for good that there is no certificate, and not only that it takes no more requests now.
func isFinal(err error) bool {
	var problem *client.Problem
	return client.Undone(err) && errors.As(err, &problem) && (problem.Status != http.StatusTooManyRequests || problem.Type == client.TypeQuota)
}

func (b *batch) show(w io.Writer) {
	for _, one := range b.report.Issued {
		fmt.Fprintf(w, "%s  %s  until %s\n", one.Certificate, one.Serial, one.NotAfter.Local().Format(time.RFC3339))
	}
	for _, one := range b.report.Waiting {
		fmt.Fprintf(w, "%s  waits for approval: request %s\n", one.CSR, one.Request)
	}
	for _, one := range b.report.Failed {
		fmt.Fprintf(w, "%s  %s\n", one.CSR, one.Error)
	}
	fmt.Fprintf(w, "%d issued, %d waiting, %d failed, %d had a certificate already\n", len(b.report.Issued), len(b.report.Waiting),
		len(b.report.Failed), len(b.report.Skipped))
}
