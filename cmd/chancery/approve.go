package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

func (a *app) requestsCommand() *cobra.Command {
	var f client.RequestFilter
	limit := 100
	cmd := &cobra.Command{
		Use:   "requests [ID]",
		Short: "Show the requests that need approval, or one of them",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&f.Status, "status", "", "waiting, issuing, issued, rejected, expired or refused")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many; 0 for all")
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) > 0 {
			r, err := c.WaitingRequest(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { writeRequest(w, r) })
		}
		found, err := collect(c.Requests(ctx, f), limit)
		if err != nil {
			return err
		}
		return a.print(found, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "REQUEST\tSTATUS\tNAMESPACE\tPROFILE\tREQUESTER\tUNTIL\tCERTIFICATE")
			for _, r := range found {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Status, r.Namespace, r.Profile,
					cell(4, orDash(r.Requester.Person)), r.ExpiresAt.Local().Format(time.DateOnly),
					cell(6, orDash(cmp.Or(strings.Join(r.Names, ","), r.Subject))))
			}
			_ = t.Flush()
		})
	})
}

func writeRequest(w io.Writer, r *client.WaitingRequest) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, cell(1, value))
		}
	}
	row("request", r.ID)
	row("status", r.Status)
	row("why", r.Why)
	row("serial", r.Serial)
	row("requester", fmt.Sprintf("%s (%s)", r.Requester.Person, r.Requester.Name))
	row("namespace", r.Namespace)
	row("profile", r.Profile)
	row("subject", r.Subject)
	row("names", strings.Join(r.Names, ", "))
	row("asked at", r.AskedAt.Local().Format(time.RFC3339))
	row("until", r.ExpiresAt.Local().Format(time.RFC3339))
	if r.Need > 0 {
		row("approvals", fmt.Sprintf("%d of %d", r.Have, r.Need))
		row("groups", strings.Join(r.Groups, ", "))
		if r.Signed {
			row("signed", "each by the approver's own key")
		}
		row("binding", r.Binding)
	}
	for _, reason := range r.Reasons {
		row("because", reason.Message)
	}
	for _, word := range r.Approvals {
		said := "approved by"
		if !word.Approved {
			said = "rejected by"
		}
		counts := ""
		if word.Approved && r.Binding != "" && word.Binding != r.Binding {
			counts = ", under policies that hold no more: it does not count"
		}
		if word.Approved && word.Withdrawn {
			counts = idle
		}
		if word.Evidence != nil {
			counts += ", signed"
		}
		row(said, strings.TrimSuffix(fmt.Sprintf("%s, %s%s: %s", word.Person, word.At.Local().Format(time.RFC3339), counts, word.Comment), ": "))
	}
	_ = t.Flush()
}

// idle is said of an approval that counts no more.
const idle = ", its key ended or its token withdrawn: it does not count"

func (a *app) approveCommand() *cobra.Command {
	var word client.Word
	var sign signWith
	cmd := &cobra.Command{
		Use:   "approve ID",
		Short: "Approve a request; the last approval that it needs issues the certificate",
		Long: `Approve a request. The last approval that it needs issues the certificate.

Look at the request first (chancery requests ID) and give the binding that it shows: then nothing is approved that you have not seen, even
when the policies change in between. Nobody approves the own request. Approving again is harmless, and takes up an issuance that failed.

With --sign the approval is signed by a key of yours that is registered (chancery approver key add). What is signed is shown.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&word.Comment, "comment", "", "a note to keep with it")
	cmd.Flags().StringVar(&word.Binding, "binding", "", "what was looked at, as chancery requests ID shows it")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.signWord(ctx, c, sign, args[0], &word, true); err != nil {
			return err
		}
		r, err := c.Approve(ctx, args[0], word)
		if err != nil {
			return err
		}
		return a.print(r, func(w io.Writer) {
			if r.Serial != "" {
				fmt.Fprintf(w, "%s is %s: serial %s\n", r.ID, r.Status, r.Serial)
				return
			}
			fmt.Fprintf(w, "%s is %s: %d of %d persons have approved\n", r.ID, r.Status, r.Have, r.Need)
		})
	})
}

// signWord signs a word on a request, if it is to be signed. What is signed is what is shown now: that is what the word is bound to.
func (a *app) signWord(ctx context.Context, c *client.Client, sign signWith, id string, word *client.Word, approves bool) error {
	if !sign.given() {
		return nil
	}
	r, err := c.WaitingRequest(ctx, id)
	if err != nil {
		return err
	}
	if word.Binding != "" && r.Binding != word.Binding {
		return fmt.Errorf("the policies have changed since the request was looked at: look again (chancery requests %s)", id)
	}
	word.Binding = r.Binding
	word.Signature, err = a.sign(sign, requestDecided(r), approves)
	return err
}

func (a *app) rejectCommand() *cobra.Command {
	var word client.Word
	var sign signWith
	cmd := &cobra.Command{
		Use:   "reject ID --comment WHY",
		Short: "Reject a request",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&word.Comment, "comment", "", "why; the requester reads it")
	_ = cmd.MarkFlagRequired("comment")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.signWord(ctx, c, sign, args[0], &word, false); err != nil {
			return err
		}
		r, err := c.Reject(ctx, args[0], word)
		if err != nil {
			return err
		}
		return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s is %s\n", r.ID, r.Status) })
	})
}
