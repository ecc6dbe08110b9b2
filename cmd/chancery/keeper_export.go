package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/keeper"
)

func (a *app) exportJournalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export-journal JOURNAL COPY",
		Short: "Append to a copy of a keeper's journal what is new in it, for who may not reach the keeper's directory",
		Long: `Append to a copy of a keeper's journal what is new in it, for who may not reach the keeper's directory.

The copy must be what the journal begins with, and each new entry must follow from the one before: otherwise the exit code is 1. The copy is
readable by its group. The keeper may be at work meanwhile. What is printed last, the head, fixes all that comes before: keep it elsewhere.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			end, err := keeper.ExportJournal(args[0], args[1])
			if err != nil {
				return err
			}
			return a.print(end, func(w io.Writer) {
				fmt.Fprintf(w, "%s has %d entries.\nhead %s\n", args[1], end.Entries, end.Head)
			})
		},
	}
}
