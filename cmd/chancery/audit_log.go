package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/client"
)

// auditLogCommands are the verbs of the tree: what a key has signed, and what can be proved by it.
func (a *app) auditLogCommands() []*cobra.Command {
	return []*cobra.Command{
		a.auditKeyCommand(), a.auditCheckpointCommand(), a.auditProofCommand(), a.auditReceiptCommand(),
		a.auditCosignCommand(),
	}
}

func (a *app) auditKeyCommand() *cobra.Command {
	return a.overAPI(&cobra.Command{
		Use: "key", Args: cobra.NoArgs,
		Short: "Print the verifier keys of the log, the newest first",
		Long: `Print the verifier keys of the log (C2SP signed-note), the newest first.

Keep the key somewhere else as well, from a source that whoever runs the service cannot change: the record of the ceremony that made it. A
key that is asked of the service proves nothing against the service.`,
	}, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) error {
		keys, err := c.LogKeys(ctx)
		if err != nil {
			return err
		}
		return a.print(map[string][]string{"keys": append([]string{}, keys...)}, func(w io.Writer) {
			for _, k := range keys {
				fmt.Fprintln(w, k)
			}
		})
	})
}

// shownCheckpoint is a checkpoint as `audit checkpoint` tells it.
type shownCheckpoint struct {
	Origin     string           `json:"origin"`
	Size       int64            `json:"size"`
	Root       string           `json:"root"` // base64
	Checkpoint string           `json:"checkpoint"`
	Verified   bool             `json:"verified"` // with --key
	Signatures []shownSignature `json:"signatures"`
}

type shownSignature struct {
	Name string     `json:"name"`
	At   *time.Time `json:"at,omitempty"` // when a witness signed
}

func (a *app) auditCheckpointCommand() *cobra.Command {
	var keys []string
	var witnesses int
	cmd := a.overAPI(&cobra.Command{
		Use: "checkpoint", Args: cobra.NoArgs,
		Short: "Print the latest checkpoint of the log",
		Long: `Print the latest checkpoint of the log: a signed note (C2SP tlog-checkpoint) with the log's name, its size and its root hash.

With --key its signature is verified, and those of witnesses whose verifier keys are given as well.`,
	}, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) error {
		known, err := verifiers(keys)
		if err != nil {
			return err
		}
		note, err := c.Checkpoint(ctx, witnesses)
		if err != nil {
			return err
		}
		shown, err := showCheckpoint(note, known)
		if err != nil {
			return err
		}
		return a.print(shown, func(w io.Writer) { fmt.Fprint(w, shown.Checkpoint) })
	})
	verifierFlag(cmd, &keys)
	witnessesFlag(cmd, &witnesses)
	return cmd
}

func showCheckpoint(note []byte, known []*audit.Verifier) (shownCheckpoint, error) {
	c, err := audit.ReadCheckpoint(note)
	shown := shownCheckpoint{Checkpoint: string(note), Signatures: []shownSignature{}}
	if err == nil && len(known) > 0 {
		var signatures []audit.Signature
		c, signatures, err = audit.OpenCheckpoint(note, known...)
		shown.Verified, shown.Signatures = true, showSignatures(signatures)
	}
	shown.Origin, shown.Size, shown.Root = c.Origin, c.Size, c.Root.String()
	return shown, err
}

func showSignatures(all []audit.Signature) []shownSignature {
	shown := []shownSignature{}
	for _, s := range all {
		one := shownSignature{Name: s.By.Name()}
		if s.By.IsWitness() {
			at := s.At
			one.At = &at
		}
		shown = append(shown, one)
	}
	return shown
}

func verifierFlag(cmd *cobra.Command, keys *[]string) {
	cmd.Flags().StringArrayVar(keys, "key", nil, "verifier key of the log (name+ID+key), or a file of such keys; also those of witnesses")
}

func witnessesFlag(cmd *cobra.Command, witnesses *int) {
	cmd.Flags().IntVar(witnesses, "witnesses", 0, "take the latest checkpoint that so many witnesses have signed")
}

func (a *app) auditProofCommand() *cobra.Command {
	var index, size, from, to int64
	cmd := a.overAPI(&cobra.Command{
		Use:   "proof (--index N [--size N] | --from N [--to N])",
		Short: "Print a proof that an event is in the log, or that the log has only grown",
		Long: `Print a proof (RFC 6962, section 2.1): the hashes, one a line in base64.

With --index, that the event with this index is in the tree of --size events. With --from, that the tree of so many events is the beginning
of that of --to events. Without --size or --to: of the latest checkpoint.`,
		Args: cobra.NoArgs,
	}, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) (err error) {
		var proof *client.LogProof
		switch {
		case (index >= 0) == (from > 0) || index >= 0 && to != 0 || from > 0 && size != 0:
			return misuse{errors.New("give --index and perhaps --size, or --from and perhaps --to")}
		case index >= 0:
			proof, err = c.ProveInclusion(ctx, index, size)
		default:
			proof, err = c.ProveConsistency(ctx, from, to)
		}
		if err != nil {
			return err
		}
		return a.print(proof, func(w io.Writer) {
			for _, h := range proof.Hashes {
				fmt.Fprintln(w, h)
			}
		})
	})
	cmd.Flags().Int64Var(&index, "index", -1, "index of the event")
	cmd.Flags().Int64Var(&size, "size", 0, "size of the tree")
	cmd.Flags().Int64Var(&from, "from", 0, "size of the smaller tree")
	cmd.Flags().Int64Var(&to, "to", 0, "size of the larger tree")
	return cmd
}

func (a *app) auditCosignCommand() *cobra.Command {
	return a.overAPI(&cobra.Command{
		Use:   "cosign FILE",
		Short: "Hand in a checkpoint that a witness has signed",
		Long: `Hand in a checkpoint to which a witness has added its signature (C2SP tlog-cosignature).

The witness holds a key of its own, sees to it that each checkpoint extends the one before (audit proof --from), and signs. The service
keeps signatures of the witnesses that its configuration names, and serves them with the checkpoint.`,
		Args: cobra.ExactArgs(1),
	}, access.Auditor, func(ctx context.Context, c *client.Client, args []string) error {
		signed, err := os.ReadFile(args[0])
		if err != nil {
			return fmt.Errorf("reading the cosigned checkpoint: %w", err)
		}
		witnesses, err := c.Cosign(ctx, signed)
		if err != nil {
			return err
		}
		return a.print(map[string][]string{"witnesses": append([]string{}, witnesses...)}, func(w io.Writer) {
			fmt.Fprintf(w, "kept: the signature of %s\n", strings.Join(witnesses, ", "))
		})
	})
}
