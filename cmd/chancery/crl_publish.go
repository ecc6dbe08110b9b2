package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

func (a *app) crlPublishCommand() *cobra.Command {
	var authority, scope string
	cmd := &cobra.Command{
		Use:   "publish --authority NAME",
		Short: "Have the service make new complete CRLs of an authority now, due or not",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&authority, "authority", "", "the authority, whose key the service holds")
	cmd.Flags().StringVar(&scope, "scope", "", "full, or the number of a shard (default all)")
	_ = cmd.MarkFlagRequired("authority")
	return a.overAPI(cmd, access.Operator, func(ctx context.Context, c *client.Client, _ []string) error {
		crls, err := c.PublishCRL(ctx, authority, scope)
		if err != nil {
			return err
		}
		result := struct {
			CRLs []client.CRLState `json:"crls"`
		}{crls}
		return a.print(result, func(w io.Writer) {
			for _, s := range crls {
				if s.NextUpdate == nil {
					continue
				}
				fmt.Fprintf(w, "%s %s: CRL %s, %d entries, %d octets, until %s\n", authority, s.Scope, s.Number, s.Entries, s.Size, s.NextUpdate.Format(time.RFC3339))
			}
		})
	})
}
