package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
)

// maxIntents is how many intents of each kind are shown.
const maxIntents = 1000

// shownIntent is an intent as people and programs read it.
type shownIntent struct {
	Serial    string    `json:"serial"`
	Issuer    string    `json:"issuer"`
	Kind      string    `json:"kind"`
	Profile   string    `json:"profile"`
	Namespace string    `json:"namespace"`
	Request   string    `json:"request"`
	Since     time.Time `json:"since"`
	// Of open ones.
	Replica    string     `json:"replica,omitempty"`
	LeaseUntil *time.Time `json:"lease_until,omitempty"`
	Expired    bool       `json:"expired,omitempty"`
	// Of settled ones.
	SettledAt  *time.Time `json:"settled_at,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	AuditEvent string     `json:"audit_event,omitempty"`
}

func (a *app) issuanceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "issuance", Short: "See what is being issued"}
	cmd.AddCommand(a.intentsCommand())
	return cmd
}

func (a *app) intentsCommand() *cobra.Command {
	var path, since string
	cmd := &cobra.Command{
		Use:   "intents",
		Short: "List what may be signed at this moment, and what crashes left behind",
		Long: `List the open intents: each is recorded before the HSM is asked for a signature, and closed with its certificate. One whose replica is
gone is settled by another when its lease has run out: recorded as possibly signed, revoked, its idempotency key released. Those that were
settled are listed with --settled.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var span time.Duration
			if since != "" {
				var err error
				if span, err = policies.ParseDuration(since); err != nil {
					return misuse{fmt.Errorf("--settled: %w", err)}
				}
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				open, err := store.WorkedIntents(cmd.Context(), maxIntents)
				if err != nil {
					return err
				}
				result := struct {
					Open    []shownIntent `json:"open"`
					Settled []shownIntent `json:"settled,omitempty"`
				}{Open: []shownIntent{}}
				for _, i := range open {
					result.Open = append(result.Open, shownIntent{
						Serial: i.Serial.String(), Issuer: i.Issuer, Kind: string(i.Kind), Profile: i.Profile, Namespace: i.Namespace, Request: i.RequestID,
						Since: i.CreatedAt.UTC(), Replica: i.Owner.Name, LeaseUntil: &i.LeaseUntil, Expired: i.Expired,
					})
				}
				if span > 0 {
					settled, err := store.SettledIntents(cmd.Context(), a.Now().Add(-span), maxIntents)
					if err != nil {
						return err
					}
					for _, i := range settled {
						result.Settled = append(result.Settled, shownIntent{
							Serial: i.Serial.String(), Issuer: i.Issuer, Kind: string(i.Kind), Profile: i.Profile, Namespace: i.Namespace, Request: i.RequestID,
							Since: i.IntendedAt.UTC(), SettledAt: &i.SettledAt, Reason: i.Reason, AuditEvent: i.EventID,
						})
					}
				}
				return a.print(result, func(w io.Writer) { writeIntents(w, result.Open, result.Settled) })
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&since, "settled", "", "also those that were settled within this time, such as 30d")
	return cmd
}

func writeIntents(w io.Writer, open, settled []shownIntent) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, i := range open {
		state := "until " + i.LeaseUntil.UTC().Format(time.RFC3339)
		if i.Expired {
			state = "its lease has run out: a replica that runs will settle it"
		}
		fmt.Fprintf(t, "open\t%s\t%s\t%s\t%s\t%s\n", i.Serial, i.Issuer, i.Kind, i.Replica, state)
	}
	for _, i := range settled {
		fmt.Fprintf(t, "settled\t%s\t%s\t%s\t%s\t%s\n", i.Serial, i.Issuer, i.Kind, i.SettledAt.UTC().Format(time.RFC3339), i.Reason)
	}
	_ = t.Flush()
	if len(open) == 0 {
		fmt.Fprintln(w, "no intent is open")
	}
}
