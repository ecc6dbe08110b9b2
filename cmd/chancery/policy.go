package main

import "github.com/spf13/cobra"

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Work on what decides about requests"}
	cmd.AddCommand(a.blocklistCommand())
	return cmd
}
