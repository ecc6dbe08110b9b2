package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

type receiptOptions struct {
	api       apiFlags
	out       string
	witnesses int
	verify    string
	keys      []string
}

func (a *app) auditReceiptCommand() *cobra.Command {
	var o receiptOptions
	cmd := &cobra.Command{
		Use:   "receipt (EVENT [--out FILE] | --verify FILE --key KEY)",
		Short: "Get the receipt of an event, or verify one offline",
		Long: `Get the receipt of an event, or verify one offline.

EVENT is the audit_event that an answer named. The receipt (a C2SP tlog-proof) holds the event, its place in the log, and a checkpoint that
the log's key has signed. It proves that the event was logged to anybody who has that key, without the service, the database or the network.

With --key, what is fetched is verified before it is written. With --witnesses N, or with keys of witnesses, so many witnesses must have signed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.auditReceipt(cmd.Context(), o, args) },
	}
	o.api.add(cmd)
	cmd.Flags().StringVar(&o.out, "out", "", "write the receipt into this file; its name should end in .tlog-proof (default: standard output)")
	cmd.Flags().StringVar(&o.verify, "verify", "", "verify the receipt in this file, offline")
	verifierFlag(cmd, &o.keys)
	witnessesFlag(cmd, &o.witnesses)
	return cmd
}

func (a *app) auditReceipt(ctx context.Context, o receiptOptions, args []string) error {
	known, err := verifiers(o.keys)
	if err != nil {
		return err
	}
	switch {
	case o.verify != "" && len(args) > 0, o.verify == "" && len(args) == 0:
		return misuse{errors.New("give the ID of an event to get its receipt, or --verify with the file of one")}
	case o.verify != "" && len(known) == 0:
		return misuse{errors.New("a receipt is verified with the log's key: give --key; `chancery audit key` prints it")}
	case o.verify != "":
		text, err := os.ReadFile(o.verify)
		if err != nil {
			return fmt.Errorf("reading the receipt: %w", err)
		}
		shown, err := verifyReceipt(text, known, o.witnesses)
		if err != nil {
			return fmt.Errorf("verifying %s: %w", o.verify, err)
		}
		return a.print(shown, shown.print)
	}
	c, err := a.connect(o.api, access.Requester)
	if err != nil {
		return err
	}
	defer c.Close()
	text, err := c.Receipt(ctx, args[0], o.witnesses)
	if err != nil {
		return err
	}
	shown := shownReceipt{Event: args[0], Receipt: string(text), File: o.out}
	if len(known) > 0 {
		if shown, err = verifyReceipt(text, known, o.witnesses); err != nil {
			return fmt.Errorf("what the service gave is no receipt: %w", err)
		}
		if shown.Event != args[0] {
			return fmt.Errorf("what the service gave is the receipt of another event, %s", shown.Event)
		}
		shown.Receipt, shown.File = string(text), o.out
	}
	if o.out != "" {
		if err := writeFile(o.out, text, 0o644); err != nil {
			return err
		}
	}
	return a.print(shown, func(w io.Writer) {
		if o.out == "" {
			fmt.Fprint(w, shown.Receipt)
		} else {
			fmt.Fprintf(w, "%s\n", o.out)
		}
	})
}

// shownReceipt is a receipt as `audit receipt` tells it.
type shownReceipt struct {
	Event      string            `json:"event"`
	Receipt    string            `json:"receipt,omitempty"`
	File       string            `json:"file,omitempty"`
	Verified   bool              `json:"verified"`
	Index      *int64            `json:"index,omitempty"` // what follows is told of what was verified alone
	Kind       string            `json:"kind,omitempty"`
	Time       *time.Time        `json:"time,omitempty"`
	Actor      string            `json:"actor,omitempty"`
	Namespace  string            `json:"namespace,omitempty"`
	Data       map[string]string `json:"data,omitempty"`
	Origin     string            `json:"origin,omitempty"`
	Size       int64             `json:"size,omitempty"`
	Signatures []shownSignature  `json:"signatures,omitempty"`
}

// verifyReceipt verifies a receipt with known keys. Every witness whose key is given must have signed, or so many of them as are asked for.
func verifyReceipt(text []byte, known []*audit.Verifier, witnesses int) (shownReceipt, error) {
	r, err := audit.ParseReceipt(text)
	if err != nil {
		return shownReceipt{}, err
	}
	event, c, signatures, err := r.Verify(known...)
	if err != nil {
		return shownReceipt{}, err
	}
	need := witnesses
	if need == 0 {
		need = countOf(known, (*audit.Verifier).IsWitness)
	}
	if have := countOf(signatures, func(s audit.Signature) bool { return s.By.IsWitness() }); have < need {
		return shownReceipt{}, fmt.Errorf("%d witnesses whose keys are given have signed the checkpoint, %d are needed", have, need)
	}
	return shownReceipt{
		Event: event.ID, Verified: true, Index: &r.Index, Kind: string(event.Kind), Time: &event.Time, Actor: event.Actor,
		Namespace: event.Namespace,
		Data:      event.Data, Origin: c.Origin, Size: c.Size, Signatures: showSignatures(signatures),
	}, nil
}

func countOf[T any](all []T, is func(T) bool) (n int) {
	for _, one := range all {
		if is(one) {
			n++
		}
	}
	return n
}

func (r shownReceipt) print(w io.Writer) {
	fmt.Fprintf(w, "The receipt is good: event %s is number %d of the log %s, of which %d events are under this checkpoint.\n",
		legible(r.Event), *r.Index, legible(r.Origin), r.Size)
	fmt.Fprintf(w, "%s at %s by %s\n", legible(r.Kind), r.Time.Format(time.RFC3339), legible(r.Actor))
	for _, name := range slices.Sorted(maps.Keys(r.Data)) {
		fmt.Fprintf(w, "  %s: %s\n", legible(name), legible(r.Data[name]))
	}
	for _, s := range r.Signatures {
		fmt.Fprintf(w, "signed by %s", s.Name)
		if s.At != nil {
			fmt.Fprintf(w, " at %s", s.At.Format(time.RFC3339))
		}
		fmt.Fprintln(w)
	}
}
