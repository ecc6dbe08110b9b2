package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

func (a *app) hsmListCommand() *cobra.Command {
	var modules []string
	var configPath string
	var mechanisms bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List modules, slots and tokens; nobody logs in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if configPath != "" {
				cfg, err := loadConfig(configPath, a.Environ)
				if err != nil {
					return err
				}
				for _, t := range cfg.allTokens() {
					modules = append(modules, t.Module)
				}
			}
			if len(modules) == 0 {
				found, err := moduleOr("")
				if err != nil {
					return err
				}
				modules = []string{found}
			}
			all, seen := []hsm.Module{}, map[string]bool{}
			for _, path := range modules {
				m, err := hsm.List(cmd.Context(), hsm.ListConfig{Module: path, Mechanisms: mechanisms, Actor: operator()})
				if err != nil {
					return err
				}
				if !seen[m.Path] {
					seen[m.Path] = true
					all = append(all, m)
				}
			}
			return a.print(all, func(w io.Writer) { writeModules(w, all) })
		},
	}
	cmd.Flags().StringArrayVar(&modules, "module", nil, "PKCS#11 library; several times for several (default: SoftHSM, where it is found)")
	cmd.Flags().StringVarP(&configPath, "config", "c", "", "configuration whose modules are listed")
	cmd.Flags().BoolVar(&mechanisms, "mechanisms", false, "list the mechanisms of each token as well")
	return cmd
}

func writeModules(w io.Writer, all []hsm.Module) {
	for _, m := range all {
		fmt.Fprintf(w, "module %s: %s, %s, version %s, PKCS#11 %s\n", m.Path, m.Manufacturer, m.Description, m.Version, m.Cryptoki)
		for _, s := range m.Slots {
			kind := "software"
			if s.Hardware {
				kind = "hardware"
			}
			fmt.Fprintf(w, "  slot %d: %s (%s)\n", s.ID, s.Description, kind)
			if s.Token == nil {
				fmt.Fprintln(w, "    no token")
				continue
			}
			t := s.Token
			if slices.Contains(t.Flags, "CKF_TOKEN_INITIALIZED") {
				fmt.Fprintf(w, "    token    %q, serial %s\n", t.Label, t.Serial)
			} else {
				fmt.Fprintln(w, "    token    not initialised yet; `chancery hsm init` does it")
			}
			fmt.Fprintf(w, "    model    %s %s, hardware %s, firmware %s\n    flags    %s\n    PIN      %d to %d octets\n    sessions %s\n",
				t.Manufacturer, t.Model, t.HardwareVersion, t.FirmwareVersion, strings.Join(t.Flags, " "), t.MinPIN, t.MaxPIN, t.Sessions)
			table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, m := range t.Mechanisms {
				fmt.Fprintf(table, "      %s\t%d to %d\t%s\n", m.Name, m.MinSize, m.MaxSize, strings.Join(m.Flags, " "))
			}
			_ = table.Flush()
		}
	}
}

// newPIN is the source of a PIN that is to be set: a file, or twice the terminal.
func (a *app) newPIN(file, whose string, weak bool) hsm.PIN {
	pin := hsm.PINFromFile(file)
	if file == "" {
		pin = hsm.PINFromPrompt(func() ([]byte, error) {
			one, err := a.askSecret("New " + whose + " PIN: ")
			if err != nil {
				return nil, err
			}
			two, err := a.askSecret("The same again: ")
			if err != nil {
				return nil, err
			}
			defer clear(two)
			if !bytes.Equal(one, two) {
				clear(one)
				return nil, errors.New("the two are not the same; nothing was done")
			}
			return one, nil
		})
	}
	if weak {
		return pin
	}
	return pin.Strong()
}

// presentPIN is the source of a PIN that is in force.
func (a *app) presentPIN(file, whose string) hsm.PIN {
	if file != "" {
		return hsm.PINFromFile(file)
	}
	return hsm.PINFromPrompt(func() ([]byte, error) { return a.askSecret("Present " + whose + " PIN: ") })
}

func (a *app) hsmInitCommand() *cobra.Command {
	var module, label, soPINFile, pinFile, journalFile string
	var slot int64
	var weak bool
	cmd := &cobra.Command{
		Use:   "init --label LABEL [--so-pin-file FILE] [--pin-file FILE]",
		Short: "Initialise a free token",
		Long: `Initialise a free token: give it a label, the security officer's PIN and the user PIN. They differ, and have 8 characters or more that
are not easily guessed.

A token that is initialised already is left alone, and a label that is taken is refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := moduleOr(module)
			if err != nil {
				return err
			}
			f := tokenFlags{pinFile: pinFile, journal: journalFile}
			j, err := openJournal(f.journalPath())
			if err != nil {
				return err
			}
			defer j.Close()
			c := hsm.InitConfig{
				Module: path, Label: label, SOPIN: a.newPIN(soPINFile, "security officer's", weak), UserPIN: a.newPIN(pinFile, "user", weak),
				Actor: operator(), Observer: j,
			}
			if cmd.Flags().Changed("slot") {
				if slot < 0 {
					return misuse{fmt.Errorf("--slot %d: a slot has a number from 0", slot)}
				}
				chosen := uint(slot)
				c.Slot = &chosen
			}
			info, err := hsm.InitToken(cmd.Context(), c)
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
	cmd.Flags().StringVar(&module, "module", "", "PKCS#11 library (default: SoftHSM, where it is found)")
	cmd.Flags().StringVar(&label, "label", "", "label for the token")
	cmd.Flags().StringVar(&soPINFile, "so-pin-file", "", "file that holds the security officer's PIN (default: ask)")
	cmd.Flags().StringVar(&pinFile, "pin-file", "", "file that holds the user PIN (default: ask)")
	cmd.Flags().Int64Var(&slot, "slot", 0, "slot to initialise (default: the first that is free)")
	cmd.Flags().BoolVar(&weak, "allow-weak-pins", false, "take PINs that are easily guessed, for a token that protects nothing")
	cmd.Flags().StringVar(&journalFile, "journal", "", "file that operations are recorded in (default: hsm-journal.jsonl beside the PIN file)")
	_ = cmd.MarkFlagRequired("label")
	return cmd
}

func (a *app) hsmPINCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pin", Short: "Change a PIN, or set a new user PIN where it is locked or lost"}
	cmd.AddCommand(a.hsmPINSetCommand("change", false), a.hsmPINSetCommand("unlock", true))
	return cmd
}

func (a *app) hsmPINSetCommand(use string, unlock bool) *cobra.Command {
	var f tokenFlags
	var soPINFile, newPINFile string
	var officer, weak bool
	cmd := &cobra.Command{
		Use:   use,
		Short: "Change the user PIN, or the security officer's (C_SetPIN)",
		Long: `Change the user PIN, or with --so the security officer's (C_SetPIN).

A wrong present PIN is tried once. No other process needs to be stopped, but each that has the old PIN needs the new one before it starts again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			w, err := f.resolve(a)
			if err != nil {
				return err
			}
			where := w.where
			observer, done, err := a.recording(cmd.Context(), &f, w)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			c := hsm.SetPINConfig{
				Module: where.Module, Token: where.Token.selector(), Officer: officer, Actor: operator(), Observer: observer,
				RetryAfterFailedPIN: where.RetryAfterFailedPIN,
			}
			set := hsm.ChangePIN
			switch {
			case unlock:
				c.Old, c.New, set = a.presentPIN(soPINFile, "security officer's"), a.newPIN(newPINFile, "user", weak), hsm.UnlockPIN
			case officer:
				c.Old, c.New = a.presentPIN(soPINFile, "security officer's"), a.newPIN(newPINFile, "security officer's", weak)
			default:
				c.Old, c.New = a.pin(where.PIN), a.newPIN(newPINFile, "user", weak)
			}
			if err := set(cmd.Context(), c); err != nil {
				return err
			}
			result := struct {
				Changed string `json:"changed"`
			}{map[bool]string{true: "so", false: "user"}[officer]}
			return a.print(result, func(w io.Writer) { fmt.Fprintln(w, "the PIN is changed; put the new one where the service reads it") })
		},
	}
	f.addRecording(cmd)
	cmd.Flags().StringVar(&soPINFile, "so-pin-file", "", "file that holds the security officer's PIN (default: ask)")
	cmd.Flags().StringVar(&newPINFile, "new-pin-file", "", "file that holds the new PIN (default: ask)")
	cmd.Flags().BoolVar(&weak, "allow-weak-pins", false, "take a PIN that is easily guessed, for a token that protects nothing")
	if unlock {
		cmd.Short = "Set a new user PIN by the security officer's (C_InitPIN)"
		cmd.Long = "Set a new user PIN by the security officer's (C_InitPIN), where it is locked or lost. Keys stay."
	} else {
		cmd.Flags().BoolVar(&officer, "so", false, "change the security officer's PIN")
	}
	return cmd
}
