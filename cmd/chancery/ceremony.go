package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

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

func (a *app) hsmCommand() *cobra.Command {
	var module, label, soPINFile, pinFile string
	cmd := &cobra.Command{Use: "hsm", Short: "Work on tokens"}
	create := &cobra.Command{
		Use:   "init --label LABEL --so-pin-file FILE --pin-file FILE",
		Short: "Initialise a free token",
		Long: `Initialise a free token: give it a label, the security officer's PIN and the user PIN.

A token that is initialised already is left alone, and a label that is taken is refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if module == "" {
				found, err := hsm.FindSoftHSM()
				if err != nil {
					return err
				}
				module = found
			}
			info, err := hsm.InitToken(cmd.Context(), hsm.InitConfig{
				Module: module, Label: label, SOPIN: hsm.PINFromFile(soPINFile), UserPIN: hsm.PINFromFile(pinFile),
			})
			if err != nil {
				return err
			}
			result := struct {
				Label  string `json:"label"`
				Serial string `json:"serial"`
				Model  string `json:"model"`
			}{info.Label, info.Serial, info.Model}
			return a.print(result, func(w io.Writer) { fmt.Fprintf(w, "token %q is ready; its serial is %s\n", info.Label, info.Serial) })
		},
	}
	create.Flags().StringVar(&module, "module", "", "PKCS#11 library (default: SoftHSM, where it is found)")
	create.Flags().StringVar(&label, "label", "", "label for the token")
	create.Flags().StringVar(&soPINFile, "so-pin-file", "", "file that holds the security officer's PIN")
	create.Flags().StringVar(&pinFile, "pin-file", "", "file that holds the user PIN")
	for _, required := range []string{"label", "so-pin-file", "pin-file"} {
		_ = create.MarkFlagRequired(required)
	}
	cmd.AddCommand(create)
	return cmd
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
				fmt.Fprintf(w, "the transcript is whole: ceremony %s, %s\nplan   %s\ntoken  %s\nhead   %s\n", summary.Ceremony,
					summary.Ended.Format(time.RFC3339), summary.PlanDigest, summary.Token, summary.Head)
				for _, k := range summary.Keys {
					fmt.Fprintf(w, "key    %s, label %q, id %s, %s\n", k.Authority, k.Label, k.ID,
						map[bool]string{true: "generated here", false: "in the token before"}[k.Generated])
				}
				for _, s := range summary.Signed {
					fmt.Fprintf(w, "signed %s %s by %s, SHA-256 %s\n", s.Kind, s.Subject, s.Issuer, s.SHA256)
				}
			})
		},
	}
}
