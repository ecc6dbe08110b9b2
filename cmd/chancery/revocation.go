package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

func (a *app) revocationCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revocation", Short: "Follow, approve and check revocations, and record what a lost database knew"}
	cmd.AddCommand(a.revocationListCommand(), a.revocationShowCommand(), a.revocationApproveCommand(), a.revocationRejectCommand(),
		a.revocationCancelCommand(), a.revocationCheckCommand(), a.revocationRecordCommand())
	return cmd
}

func (a *app) revocationListCommand() *cobra.Command {
	limit := 100
	cmd := &cobra.Command{Use: "list", Short: "List the orders to revoke many certificates, newest first", Args: cobra.NoArgs}
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many; 0 for all")
	return a.overAPI(cmd, access.Revoker, func(ctx context.Context, c *client.Client, _ []string) error {
		found, err := collect(c.RevocationJobs(ctx), limit)
		if err != nil {
			return err
		}
		return a.print(found, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "JOB\tSTATUS\tREASON\tDONE\tREVOKED\tORDERED BY\tAT")
			for _, j := range found {
				fmt.Fprintf(t, "%s\t%s\t%s\t%d/%d\t%d\t%s\t%s\n", j.ID, j.Status, j.Reason, j.Done, j.Total, j.Revoked,
					cell(5, orDash(j.Requester.Person)), j.AskedAt.Local().Format(time.RFC3339))
			}
			_ = t.Flush()
		})
	})
}

func (a *app) revocationShowCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{Use: "show JOB", Short: "Show an order to revoke many certificates, and how far it is", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&wait, "wait", false, "until it has ended")
	return a.overAPI(cmd, access.Revoker, func(ctx context.Context, c *client.Client, args []string) error {
		j, err := c.RevocationJob(ctx, args[0])
		if err == nil && wait {
			j, err = a.follow(ctx, c, j)
		}
		if err != nil {
			return err
		}
		return a.print(j, func(w io.Writer) { writeJob(w, j) })
	})
}

func (a *app) revocationApproveCommand() *cobra.Command {
	var word client.JobWord
	var sign signWith
	cmd := &cobra.Command{
		Use:   "approve JOB",
		Short: "Approve an order to revoke many certificates; with the last approval it begins",
		Long: `Approve an order to revoke many certificates. With the last approval that it needs it begins.

Look at it first (chancery revocation show JOB), and give the digest that it shows: then nothing is approved but that list of certificates.
Nobody approves the own order.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&word.Digest, "digest", "", "of the list of certificates, as chancery revocation show tells it")
	cmd.Flags().StringVar(&word.Comment, "comment", "", "a note to keep with it")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.signJobWord(ctx, c, sign, args[0], &word, true); err != nil {
			return err
		}
		j, err := c.ApproveRevocation(ctx, args[0], word)
		return a.printJob(j, err)
	})
}

// signJobWord signs a word on an order to revoke many certificates, if it is to be signed: on the list that is shown now.
func (a *app) signJobWord(ctx context.Context, c *client.Client, sign signWith, id string, word *client.JobWord, approves bool) error {
	if !sign.given() {
		return nil
	}
	j, err := c.RevocationJob(ctx, id)
	if err != nil {
		return err
	}
	if word.Digest != "" && word.Digest != j.Digest {
		return fmt.Errorf("the digest is not that of the list: look again (chancery revocation show %s)", id)
	}
	word.Digest = j.Digest
	word.Signature, err = a.sign(sign, jobDecided(j), approves)
	return err
}

func (a *app) revocationRejectCommand() *cobra.Command {
	var word client.JobWord
	var sign signWith
	cmd := &cobra.Command{Use: "reject JOB --comment WHY", Short: "Reject an order to revoke many certificates", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&word.Comment, "comment", "", "why; whoever ordered it reads it")
	_ = cmd.MarkFlagRequired("comment")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.signJobWord(ctx, c, sign, args[0], &word, false); err != nil {
			return err
		}
		j, err := c.RejectRevocation(ctx, args[0], word)
		return a.printJob(j, err)
	})
}

func (a *app) revocationCancelCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "cancel JOB", Short: "End an order half way; what it has revoked stays revoked", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.overAPI(cmd, access.Revoker, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.confirm(yes, "End "+args[0]+"? What it has revoked stays revoked."); err != nil {
			return err
		}
		j, err := c.CancelRevocation(ctx, args[0])
		return a.printJob(j, err)
	})
}

func (a *app) printJob(j *client.RevocationJob, err error) error {
	if err != nil {
		return err
	}
	return a.print(j, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s: %d of %d certificates seen to\n", j.ID, j.Status, j.Done, j.Total)
	})
}
