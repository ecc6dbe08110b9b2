package main

import "github.com/spf13/cobra"

func (a *app) hsmCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "hsm", Short: "Work on tokens"}
	cmd.AddCommand(
		a.hsmInitCommand(),
		a.hsmProbeCommand(),
	)
	return cmd
}
