package main

import "github.com/spf13/cobra"

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify, export and search the audit log, and prove what stands in it",
		Long: `Verify, export and search the audit log, and prove what stands in it.

Each event is a leaf of a Merkle tree whose checkpoints a key in the HSM signs, so that nobody can rewrite history unseen. docs/audit.md
tells what stands in it and how to work with it, docs/audit-log.md how the tree is made.`,
	}
	cmd.AddCommand(a.auditLogCommands()...)
	cmd.AddCommand(a.auditVerifyCommand(), a.auditExportCommand(), a.auditSearchCommand(), a.auditWatchCommand(), a.auditEraseCommand(),
		a.reconcileCommand())
	return cmd
}
