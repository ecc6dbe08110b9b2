package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

// withValue refuses flags that are given without a value, as a script does that names a variable which is not set. They would pass for flags
// that were left out: what they have checked would not be, and what they narrow down would be everything.
func withValue(cmd *cobra.Command, names ...string) {
	next := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range names {
			if f := cmd.Flags().Lookup(name); f.Changed && slices.Contains([]string{"", "[]", `[""]`}, f.Value.String()) {
				return misuse{fmt.Errorf("--%s is given without a value: give one, or leave the flag out", name)}
			}
		}
		if next == nil {
			return nil
		}
		return next(cmd, args)
	}
}
