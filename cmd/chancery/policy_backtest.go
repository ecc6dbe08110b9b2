package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/policies/trial"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

// backtestOptions say what is replayed, and by which policies.
type backtestOptions struct {
	config, policies, since, rows, archives string
	trial                                   trial.Options
}

func (a *app) policyBacktestCommand() *cobra.Command {
	var o backtestOptions
	cmd := &cobra.Command{
		Use:   "backtest --policies DIR --since 90d",
		Short: "Decide on the requests of the past by other policies, and tell what would change",
		Long: `Decide on the requests of the past by the profiles in a directory, and tell what would change: by profile, namespace and rule, with
examples. Requests, and the certificates that came of them, are read from the database of the configuration, and those of archived months
from the archives; nothing is written.

Each request is judged as of its own time, in its namespace as it is now. What no request keeps cannot be replayed: quotas used, the
history of keys and the lists that hold them, CAA records, proofs of possession (they were verified then). The exit code is 0
whatever would change.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := a.backtest(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.print(report, func(w io.Writer) { writeReport(w, report) })
		},
	}
	configFlag(cmd, &o.config)
	cmd.Flags().StringVar(&o.policies, "policies", "", "directory of the profiles to try; without it, those of the configuration")
	cmd.Flags().StringVar(&o.policies, "policy", "", "the same")
	_ = cmd.Flags().MarkHidden("policy")
	cmd.Flags().StringVar(&o.since, "since", "90d", "how far to go back, such as 90d")
	cmd.Flags().StringVar(&o.archives, "archives", "", "directory of the archives; without it, that of the configuration")
	cmd.Flags().StringVar(&o.rows, "rows", "", "file for every request that would change, one JSON object a line")
	cmd.Flags().IntVar(&o.trial.Examples, "examples", 3, "examples of each kind of change and rule")
	return cmd
}

func (a *app) backtest(ctx context.Context, o backtestOptions) (report *trial.Report, err error) {
	span, err := strictyaml.ParseDuration(o.since)
	if err != nil {
		return nil, misuse{fmt.Errorf("--since: %w", err)}
	}
	if o.rows != "" {
		file, failed := os.OpenFile(o.rows, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if failed != nil {
			return nil, fmt.Errorf("writing the changed requests: %w", failed)
		}
		each, done := rowsInto(file)
		o.trial.Each = each
		defer func() { err = errors.Join(err, done()) }()
	}
	told := a.Now()
	o.trial.Progress = func(done int) {
		if now := a.Now(); now.Sub(told) >= time.Second {
			told = now
			fmt.Fprintf(a.Stderr, "%d requests\n", done)
		}
	}
	err = a.withStore(ctx, o.config, func(cfg Config, store *storage.Store) error {
		if o.policies != "" {
			cfg.Policies.Directory = o.policies
		}
		set, err := loadPolicies(cfg.Policies)
		if err != nil {
			return err
		}
		world, err := pastWorld(ctx, cfg, store)
		if err != nil {
			return err
		}
		now := a.Now()
		past, err := pastOf(ctx, store, cmp.Or(o.archives, cfg.Archive.Directory), now.Add(-span), now)
		if err != nil {
			return err
		}
		report, err = trial.Backtest(ctx, set, world, pastRequests(past), o.trial)
		return err
	})
	return report, err
}

// rowsInto writes requests that would change into a file, one JSON object a line. The file holds all of them when done returns nil.
func rowsInto(file io.WriteCloser) (each func(trial.Finding) error, done func() error) {
	rows := bufio.NewWriter(file)
	encoder := json.NewEncoder(rows)
	return func(f trial.Finding) error { return encoder.Encode(f) }, func() error {
		if err := errors.Join(rows.Flush(), file.Close()); err != nil {
			return fmt.Errorf("writing the changed requests: %w", err)
		}
		return nil
	}
}

// pastWorld is what history is replayed in: namespaces and authorities as they are now.
func pastWorld(ctx context.Context, cfg Config, store *storage.Store) (trial.World, error) {
	w := trial.World{Namespaces: cfg.namespaces(), Issuers: map[string]policies.Issuer{}}
	kept, err := store.Namespaces(ctx)
	if err != nil {
		return w, err
	}
	for _, n := range kept {
		if !n.Removed {
			w.Namespaces[n.Name] = n.Namespace
		}
	}
	records, err := store.Authorities(ctx)
	if err != nil {
		return w, err
	}
	for _, r := range records {
		certificate, err := parseCertificate(r.Certificate)
		if err != nil {
			return w, fmt.Errorf("reading authority %q: %w", r.Name, err)
		}
		above, err := r.Above()
		if err != nil {
			return w, err
		}
		w.Issuers[r.Name] = r.Facts(certificate, above)
		w.AuthorityKeys = append(w.AuthorityKeys, certificate.RawSubjectPublicKeyInfo)
	}
	return w, nil
}

// pastRequests are requests from the database in the words of a trial.
func pastRequests(kept iter.Seq2[ca.PastRequest, error]) iter.Seq2[trial.Past, error] {
	return func(yield func(trial.Past, error) bool) {
		for r, err := range kept {
			if !yield(pastRequest(r), err) || err != nil {
				return
			}
		}
	}
}

func pastRequest(r ca.PastRequest) trial.Past {
	actor := access.Actor{ID: r.ActorID, Name: r.ActorName, Namespace: r.Namespace, Roles: make([]access.Role, len(r.Roles))}
	for i, role := range r.Roles {
		actor.Roles[i] = access.Role(role)
	}
	p := trial.Past{
		ID: r.ID, At: r.At, CSR: r.CSR, Profile: r.Profile, Namespace: r.Namespace, Issuer: r.Issuer, Actor: actor, Validity: r.Validity,
		CompromisedKey: r.CompromisedKey, Objections: r.Objections,
	}
	if c := r.Certificate; c != nil {
		p.Certificate = &trial.Certificate{
			Serial: hex.EncodeToString(c.Serial), Subject: c.Subject, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			DER: c.DER,
		}
	}
	return p
}

// writeReport tells people what would change.
func writeReport(w io.Writer, r *trial.Report) {
	fmt.Fprintf(w, "policies %s\n%d requests, %d replayed, %d would come to another outcome\n", r.Policy, r.Requests, r.Replayed, r.Changes())
	for _, reason := range slices.Sorted(maps.Keys(r.Skipped)) {
		fmt.Fprintf(w, "%d not replayed: %s\n", r.Skipped[reason], reason)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, kind := range []trial.Kind{trial.RefusedNow, trial.ApprovalNow, trial.AllowedNow, trial.ContentNow} {
		if n := r.Changed[kind]; n > 0 {
			fmt.Fprintf(t, "  %s\t%d\t%s\n", kind, n, kindWords[kind])
		}
	}
	for _, one := range []struct {
		what   string
		counts map[string]int
	}{{"profile", r.Profiles}, {"namespace", r.Namespaces}, {"rule", r.Rules}} {
		for _, name := range slices.SortedFunc(maps.Keys(one.counts), func(a, b string) int {
			return cmp.Or(one.counts[b]-one.counts[a], strings.Compare(a, b))
		}) {
			fmt.Fprintf(t, "by %s\t%d\t%s\n", one.what, one.counts[name], name)
		}
	}
	_ = t.Flush()
	for _, f := range r.Examples {
		fmt.Fprintf(w, "\n%s  %s  %s/%s\n", f.Kind, f.At.UTC().Format(time.RFC3339), f.Namespace, f.Profile)
		if f.Serial != "" {
			fmt.Fprintf(w, "  certificate %s  %s\n", f.Serial, strings.Join(f.Names, ", "))
		} else {
			fmt.Fprintf(w, "  request %s\n", f.Request)
		}
		if len(f.Violations) == 0 && len(f.Rules) > 0 {
			fmt.Fprintf(w, "  %s\n", strings.Join(f.Rules, ", "))
		}
		for _, v := range f.Violations {
			fmt.Fprintf(w, "  %s: %s\n    hint: %s\n", v.Rule, v.Message, v.Hint)
		}
	}
}

var kindWords = map[trial.Kind]string{
	trial.RefusedNow:  "were allowed and would be refused",
	trial.ApprovalNow: "were allowed and would need approval",
	trial.AllowedNow:  "were refused and could be had",
	trial.ContentNow:  "would be allowed again, and the certificate would say something else",
}
