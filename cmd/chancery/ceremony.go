package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm"
)

// tokenFlags select a token on the command line. There is no flag for a PIN: whoever lists processes would read it.
type tokenFlags struct {
	module, label, serial, pinFile string
}

func (f *tokenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.module, "module", "", "PKCS#11 library (default: SoftHSM, where it is found)")
	cmd.Flags().StringVar(&f.label, "token-label", "", "label of the token")
	cmd.Flags().StringVar(&f.serial, "token-serial", "", "serial of the token")
	cmd.Flags().StringVar(&f.pinFile, "pin-file", "", "file that holds the user PIN (default: ask)")
}

// config is the token that the flags select.
func (f *tokenFlags) config() (HSMConfig, error) {
	c := HSMConfig{Module: f.module, Token: TokenConfig{Label: f.label, Serial: f.serial}, PIN: PINConfig{File: f.pinFile, Prompt: f.pinFile == ""}}
	if c.Token == (TokenConfig{}) {
		return c, misuse{fmt.Errorf("which token? give --token-label or --token-serial")}
	}
	if c.Module == "" {
		module, err := hsm.FindSoftHSM()
		if err != nil {
			return c, err
		}
		c.Module = module
	}
	return c, nil
}

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
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := ceremony.ReadPlan(args[0])
			if err != nil {
				return err
			}
			if output != "" {
				if plan.Output, err = filepath.Abs(output); err != nil {
					return fmt.Errorf("--output-dir: %w", err)
				}
			}
			where, err := flags.config()
			if err != nil {
				return err
			}
			token, err := a.openToken(cmd.Context(), where)
			if err != nil {
				return err
			}
			defer token.Close()
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
	run.Flags().StringVar(&output, "output-dir", "", "directory for certificates, CRLs and transcript (default: the plan's)")
	run.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return run
}

func (a *app) ceremonyVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify TRANSCRIPT.jsonl",
		Short: "Verify that a ceremony's transcript is whole and accounts for every signature",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("opening the transcript: %w", err)
			}
			defer f.Close()
			summary, err := ceremony.VerifyTranscript(f)
			if err != nil {
				return err
			}
			return a.print(summary, func(w io.Writer) {
				text, _ := json.MarshalIndent(summary, "", "  ")
				fmt.Fprintf(w, "the transcript is whole\n%s\n", text)
			})
		},
	}
}
