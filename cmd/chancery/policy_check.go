package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/policies/analysis"
	"github.com/chancery-ca/chancery/policies/trial"
)

func (a *app) policyTestCommand() *cobra.Command {
	var dir string
	var coverage bool
	cmd := &cobra.Command{
		Use:   "test [--policies DIR]",
		Short: "Run the cases that are kept beside profiles",
		Long: `Run the cases that are kept beside profiles, in DIR/cases/*.yaml: requests, and what must become of each. No service is needed.
Without --policies the shipped profiles are tested by their own cases.

The exit code is 1 when a case ends otherwise than it should. --coverage lists for each profile the rules that no case saw objecting.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			set, err := loadPolicies(PoliciesConfig{Directory: dir})
			if err != nil {
				return err
			}
			cases, err := trial.ReadCases(profileFiles(dir))
			if err != nil {
				return fmt.Errorf("reading the cases: %w", err)
			}
			if len(cases) == 0 {
				return fmt.Errorf("there are no cases in %s/%s: docs/policies.md shows how to write some", cmp.Or(dir, "."), trial.CasesDir)
			}
			report, err := trial.RunCases(set, cases, a.Random, a.Now())
			if err != nil {
				return err
			}
			if err := a.print(report, func(w io.Writer) { writeCases(w, report, coverage) }); err != nil {
				return err
			}
			if report.Failed > 0 {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "policies", "", "directory of profiles, with their cases in its directory cases (default: the shipped ones)")
	cmd.Flags().BoolVar(&coverage, "coverage", false, "list the rules that no case saw objecting")
	return cmd
}

// profileFiles are the files of a directory of profiles, or of the shipped ones.
func profileFiles(dir string) fs.FS {
	if dir == "" {
		return policies.ShippedFiles()
	}
	return os.DirFS(dir)
}

func writeCases(w io.Writer, r *trial.CasesReport, coverage bool) {
	for _, one := range r.Results {
		if one.Passed {
			continue
		}
		fmt.Fprintf(w, "FAIL  %s:%d: %s (%s)\n", one.File, one.Line, one.Case, one.Profile)
		for _, d := range one.Differences {
			fmt.Fprintln(w, "        "+d)
		}
		for _, v := range one.Violations {
			fmt.Fprintf(w, "        %s: %s\n", v.Rule, v.Message)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROFILE\tCASES\tRULES SEEN OBJECTING")
	for _, c := range r.Coverage {
		seen := "-"
		if c.Cases > 0 {
			seen = fmt.Sprintf("%d of %d", c.Seen, c.Rules)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", c.Profile, c.Cases, seen)
	}
	_ = t.Flush()
	for _, c := range r.Coverage {
		if coverage && len(c.Never) > 0 {
			fmt.Fprintf(w, "%s: no case saw objecting: %s\n", c.Profile, strings.Join(c.Never, ", "))
		}
	}
	fmt.Fprintf(w, "%d cases, %d failed\n", r.Cases, r.Failed)
}

func (a *app) policyLintCommand() *cobra.Command {
	var dir, before string
	cmd := &cobra.Command{
		Use:   "lint [--policies DIR] [--before DIR]",
		Short: "Find what is pointless or contradictory in profiles, and what they allow that others do not",
		Long: `Find what is pointless or contradictory in profiles: rules that can never matter, parts that cannot both be meant. With --before also
everything that they allow and the profiles before did not. What cannot be loaded at all is told with file and line, as everywhere.

The exit code is 1 when something is found.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := loadPolicies(PoliciesConfig{Directory: dir})
			if err != nil {
				return err
			}
			var earlier *policies.Set
			if cmd.Flags().Changed("before") {
				if earlier, err = namedPolicies(before); err != nil {
					return err
				}
			}
			found := analysis.Lint(set, earlier)
			if found == nil {
				found = []analysis.Finding{}
			}
			err = a.print(found, func(w io.Writer) {
				for _, f := range found {
					fmt.Fprintln(w, f)
				}
				if len(found) == 0 {
					fmt.Fprintln(w, "nothing was found")
				}
			})
			if err == nil && len(found) > 0 {
				err = errSilent
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "policies", "", "directory of profiles (default: the shipped ones)")
	cmd.Flags().StringVar(&before, "before", "", `directory of the profiles before, or "shipped"`)
	return cmd
}

func (a *app) policyDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say in words what is different between two sets of profiles",
		Long: `Say in words what is different between two sets of profiles, and whether each change allows more or less. Each is a directory, or
"shipped". What ruled at some time is had as a directory by chancery policy show DIGEST --out DIR.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			before, err := namedPolicies(args[0])
			if err != nil {
				return err
			}
			after, err := namedPolicies(args[1])
			if err != nil {
				return err
			}
			changes := analysis.Diff(before, after)
			if changes == nil {
				changes = []analysis.Change{}
			}
			return a.print(changes, func(w io.Writer) {
				for _, c := range changes {
					fmt.Fprintln(w, c)
				}
				if len(changes) == 0 {
					fmt.Fprintln(w, "they say the same")
				}
			})
		},
	}
}

// namedPolicies are those of a directory, or the shipped ones.
func namedPolicies(name string) (*policies.Set, error) {
	switch name {
	case "":
		return nil, misuse{errors.New(`name a directory of profiles, or "shipped"`)}
	case "shipped":
		name = ""
	}
	return loadPolicies(PoliciesConfig{Directory: name})
}
