package main

import "github.com/spf13/cobra"

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The record of what was done"}
	cmd.AddCommand(a.reconcileCommand())
	return cmd
}
