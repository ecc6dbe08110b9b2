package main

import "github.com/spf13/cobra"

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Work with the audit log",
		Long: `Work with the audit log.

Each event is a leaf of a Merkle tree whose checkpoints a key in the HSM signs, so that nobody can rewrite history unseen (docs/audit-log.md).`,
	}
	cmd.AddCommand(a.auditLogCommands()...)
	cmd.AddCommand(a.reconcileCommand())
	return cmd
}
