package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

func (a *app) hsmInitCommand() *cobra.Command {
	var module, label, soPINFile, pinFile string
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
	return create
}
