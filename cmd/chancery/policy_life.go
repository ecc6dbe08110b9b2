package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/policies"
)

func (a *app) policyReloadCommand() *cobra.Command {
	var comment string
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the service read its configured policies again, as SIGHUP does",
		Long: `Have the service read its configured policies again, as SIGHUP does. They rule at once, on all replicas, or are proposed where
approvals are needed. With a single problem nothing changes, and every problem is told with file and line.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&comment, "comment", "", "why, for those who decide and for the audit log")
	return a.overAPI(cmd, access.PolicyAdmin, func(ctx context.Context, c *client.Client, _ []string) error {
		change, err := c.ReloadPolicies(ctx, comment)
		return a.printChange(change, err)
	})
}

func (a *app) policyActivateCommand() *cobra.Command {
	var dir, comment string
	cmd := &cobra.Command{
		Use:   "activate --policies DIR",
		Short: "Send the profiles in a directory to the service and have them rule, or propose them",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "policies", "", "directory of profiles: the whole set")
	cmd.Flags().StringVar(&comment, "comment", "", "why, for those who decide and for the audit log")
	_ = cmd.MarkFlagRequired("policies")
	return a.overAPI(cmd, access.PolicyAdmin, func(ctx context.Context, c *client.Client, _ []string) error {
		set, err := loadPolicies(PoliciesConfig{Directory: dir})
		if err != nil {
			return err
		}
		files := map[string]string{}
		for _, f := range set.Files() {
			files[f.Name] = string(f.Content)
		}
		change, err := c.ChangePolicies(ctx, files, comment)
		return a.printChange(change, err)
	})
}

func (a *app) printChange(change *client.PolicyChange, err error) error {
	if err != nil && !client.Undone(err) {
		return fmt.Errorf("%w\nwhether they rule, or are proposed, is not known: chancery policy history tells", err)
	}
	if err != nil {
		return err
	}
	return a.print(change, func(w io.Writer) {
		switch p := change.Proposal; {
		case p != nil:
			fmt.Fprintf(w, "%s is proposed: %s\nit rules when %d persons have approved it, until %s:\n  chancery policy approve %s\n", change.Digest,
				p.ID, p.Needs,
				p.ExpiresAt.Local().Format(time.RFC3339), p.ID)
		case change.Activation != nil:
			fmt.Fprintf(w, "%s rules\n", change.Digest)
		default:
			fmt.Fprintf(w, "%s ruled already\n", change.Digest)
		}
	})
}

func (a *app) policyDecisionCommand(verb, short string, approves bool,
	decide func(*client.Client, context.Context, string, client.PolicyWord) (*client.PolicyProposal, error),
) *cobra.Command {
	var word client.PolicyWord
	var sign signWith
	cmd := &cobra.Command{Use: verb + " PROPOSAL", Short: short, Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&word.Comment, "comment", "", "why, for the audit log")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if sign.given() {
			p, err := findProposal(ctx, c, args[0])
			if err != nil {
				return err
			}
			if word.Signature, err = a.sign(sign, proposalDecided(p), approves); err != nil {
				return err
			}
		}
		p, err := decide(c, ctx, args[0], word)
		if err != nil {
			return err
		}
		return a.print(p, func(w io.Writer) {
			fmt.Fprintf(w, "%s is %s: %d of %d approvals\n", p.Digest, p.State, approvals(p), p.Needs)
		})
	})
}

func approvals(p *client.PolicyProposal) (n int) {
	for _, v := range p.Votes {
		if v.Approves && !v.Withdrawn {
			n++
		}
	}
	return n
}

func (a *app) policyHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "history", Short: "Show which policies rule, which ruled before, and what is proposed", Args: cobra.NoArgs}
	return a.overAPI(cmd, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) error {
		state, err := c.Policies(ctx)
		if err != nil {
			return err
		}
		return a.print(state, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NUMBER\tRULES SINCE\tDIGEST\tBY\tCOMMENT")
			for _, x := range state.Activations {
				fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", x.Number, x.At.Local().Format(time.RFC3339), x.Digest, cell(3, x.Actor),
					cell(4, x.Comment))
			}
			if len(state.Proposals) > 0 {
				fmt.Fprintln(t, "\nPROPOSAL\tSTATE\tDIGEST\tBY\tAPPROVALS")
			}
			for _, p := range state.Proposals {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d of %d\n", p.ID, p.State, p.Digest, cell(3, p.Person), approvals(&p), p.Needs)
			}
			_ = t.Flush()
		})
	})
}

func (a *app) policyShowCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "show [DIGEST]",
		Short: "Print exactly the files that ruled under a digest; without one, those that rule",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&dir, "out", "", "directory to write the files into, in place of printing them; it must not exist")
	return a.overAPI(cmd, access.Auditor, func(ctx context.Context, c *client.Client, args []string) error {
		asked := cmp.Or(append(args, ruling)...)
		set, err := c.PolicySet(ctx, asked)
		if err != nil {
			return err
		}
		if err := checkShown(asked, set); err != nil {
			return err
		}
		if dir != "" {
			if err := writePolicies(dir, set.Files); err != nil {
				return err
			}
		}
		return a.print(set, func(w io.Writer) {
			fmt.Fprintln(w, "#", set.Digest)
			for _, name := range slices.Sorted(maps.Keys(set.Files)) {
				if dir != "" {
					fmt.Fprintln(w, filepath.Join(dir, name))
					continue
				}
				fmt.Fprintf(w, "\n# --- %s\n%s", name, strings.TrimSuffix(set.Files[name], "\n")+"\n")
			}
		})
	})
}

// ruling asks for the set that rules, whichever that is.
const ruling = "ruling"

// checkShown refuses files that are not those of the digest that was asked for: whoever approves policies signs their digest, and looks at the
// files here.
func checkShown(asked string, set *client.PolicySet) error {
	files := make([]policies.File, 0, len(set.Files))
	for name, content := range set.Files {
		files = append(files, policies.File{Name: name, Content: []byte(content)})
	}
	if digest := policies.Digest(files); digest != set.Digest || asked != ruling && digest != asked {
		return fmt.Errorf("the service shows the files of %s as those of %s", digest, cmp.Or(strings.TrimPrefix(asked, ruling), set.Digest))
	}
	return nil
}

func writePolicies(dir string, files map[string]string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("writing the policies: %w", err)
	}
	for name, content := range files {
		if name != filepath.Base(name) {
			return fmt.Errorf("writing the policies: %q is no file's name", name)
		}
		if err := writeFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
