package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm"
)

func (a *app) ceremonyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ceremony", Short: "Make roots, intermediates and root CRLs from a reviewed file"}
	cmd.AddCommand(a.ceremonyRunCommand(), a.ceremonyVerifyCommand())
	return cmd
}

func (a *app) ceremonyRunCommand() *cobra.Command {
	var flags tokenFlags
	var output string
	var yes bool
	run := &cobra.Command{
		Use:   "run PLAN.yaml",
		Short: "Run a ceremony",
		Long: `Run a ceremony.

Certificates, CRLs and the transcript go into the plan's output directory. Every operation on the token, the log-in and what failed included,
is a line of a journal beside that directory (OUTPUT.hsm-journal.jsonl, or --journal), also when the ceremony is refused.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			plan, err := ceremony.ReadPlan(args[0])
			if err != nil {
				return err
			}
			if output != "" {
				if plan.Output, err = filepath.Abs(output); err != nil {
					return fmt.Errorf("--output-dir: %w", err)
				}
			}
			w, err := flags.resolve(a)
			if err != nil {
				return err
			}
			if flags.journal == "" {
				flags.journal = filepath.Clean(plan.OutputDir()) + "." + journalName
				if err := os.MkdirAll(filepath.Dir(flags.journal), 0o755); err != nil {
					return fmt.Errorf("making the directory for the ceremony's output: %w", err)
				}
			}
			operations, err := openJournal(flags.journal)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, operations.Close()) }()
			token, err := a.openToken(cmd.Context(), w.where, operator(), operations)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, token.Close()) }()
			if w.cfg != nil {
				w.Token = token
				if err := w.meets(plan); err != nil {
					return err
				}
			}
			progress := a.Stdout
			if a.output == "json" {
				progress = a.Stderr
			}
			result, err := ceremony.Run(cmd.Context(), plan, ceremony.Options{
				Token: token, Now: a.Now, Random: a.Random, Out: progress,
				Confirm: func(digest string) error {
					return a.confirm(yes, fmt.Sprintf("Run ceremony %q with plan %s on token %q?", plan.Ceremony, digest, token.Info().Label))
				},
			})
			if err != nil {
				return err
			}
			return a.print(result, func(io.Writer) {})
		},
	}
	flags.add(run)
	run.Flags().StringVar(&flags.journal, "journal", "", "file that the operations on the token are recorded in (default: OUTPUT."+journalName+")")
	run.Flags().StringVar(&output, "output-dir", "", "directory for certificates, CRLs and transcript (default: the plan's)")
	run.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return run
}

// meets refuses a token, and keys that are in it already, that are not what the configuration requires of those whose keys the plan uses:
// the authorities that it makes, those that certify them, those that it makes CRLs for, and logs; nor what the keeper's requires of the keys,
// where that is given. Keys that the ceremony makes are local to the token and never extractable, or are not made.
func (w *worksite) meets(plan ceremony.Plan) error {
	type user struct {
		what     string
		required hsm.Requirement
		key      ceremony.Key
		existing bool
	}
	var users []user
	for _, a := range plan.Authorities {
		users = append(users, user{fmt.Sprintf("authority %q", a.Name), w.cfg.required(a.Name, ""), a.Key, a.Key.Existing})
	}
	for _, i := range plan.Issuers {
		users = append(users, user{fmt.Sprintf("issuer %q", i.Name), w.cfg.required(i.Name, ""), i.Key, true})
	}
	for _, c := range plan.CRLs {
		users = append(users, user{fmt.Sprintf("CRL of %q", c.Issuer), w.cfg.required(c.Issuer, ""), c.Key, true})
	}
	for _, l := range plan.Logs {
		users = append(users, user{fmt.Sprintf("log %q", l.Name), w.cfg.required("", l.Key.Label), l.Key, l.Key.Existing})
	}
	for _, u := range users {
		id, err := parseID(u.key.ID)
		if err != nil {
			return fmt.Errorf("%s: %w", u.what, err)
		}
		if w.keeping != nil {
			ofKeeper, _ := w.keeping.requires(hsm.KeySpec{Label: u.key.Label, ID: id})
			u.required = u.required.And(ofKeeper)
		}
		if u.required == (hsm.Requirement{}) {
			continue
		}
		if err := u.required.CheckToken(w.Info(), w.where.FIPS140.declaration()); err != nil {
			return fmt.Errorf("%s: %w", u.what, err)
		}
		if !u.existing {
			continue
		}
		attributes, err := w.Attributes(hsm.KeyRef{Label: u.key.Label, ID: id})
		if err != nil {
			return fmt.Errorf("%s: %w", u.what, err)
		}
		if err := u.required.CheckKey(attributes); err != nil {
			return fmt.Errorf("%s: %w", u.what, err)
		}
	}
	return nil
}

func (a *app) ceremonyVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify TRANSCRIPT.jsonl",
		Short: "Verify that a ceremony's transcript is whole and accounts for every signature",
		Long: `Verify that a ceremony's transcript is whole and accounts for every signature.

Of a ceremony that failed or was interrupted it fails, and tells all the same which keys were made, what was signed, and what a signature
was asked for that was not kept.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("opening the transcript: %w", err)
			}
			defer f.Close()
			summary, broken := ceremony.VerifyTranscript(f)
			if broken != nil && !errors.Is(broken, ceremony.ErrIncomplete) {
				return broken
			}
			return errors.Join(a.print(summary, func(w io.Writer) {
				soundness := "whole"
				if !summary.Complete {
					soundness = "sound as far as it goes"
				}
				fmt.Fprintf(w, "the transcript is %s: ceremony %s, %s\nplan   %s\ntoken  %s\nhead   %s\n", soundness, summary.Ceremony,
					summary.Ended.Format(time.RFC3339), summary.PlanDigest, legible(summary.Token), summary.Head)
				for _, k := range summary.Keys {
					fmt.Fprintf(w, "key    %s, label %q, id %s, %s\n", k.Authority, k.Label, k.ID,
						map[bool]string{true: "generated here", false: "in the token before"}[k.Generated])
				}
				for _, s := range summary.Signed {
					fmt.Fprintf(w, "signed %s %s by %s, SHA-256 %s\n", s.Kind, s.Subject, s.Issuer, s.SHA256)
				}
				for _, subject := range summary.Unanswered {
					fmt.Fprintf(w, "open   a signature for %s was asked for; whether it was made is not known\n", subject)
				}
			}), broken)
		},
	}
}
