package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

// shownReplica is a replica as people and programs read it.
type shownReplica struct {
	Name      string      `json:"name"`
	State     string      `json:"state"`
	Version   string      `json:"version"`
	Schema    int64       `json:"schema"`
	Host      string      `json:"host"`
	Run       string      `json:"run"`
	StartedAt time.Time   `json:"started_at"`
	SeenAt    time.Time   `json:"seen_at"`
	Leads     []shownLead `json:"leads"`
}

// shownLead is a duty that a replica leads.
type shownLead struct {
	Duty  string    `json:"duty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"lease_until"`
	Fence int64     `json:"fence"`
}

func (a *app) replicasCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "replicas",
		Short: "List the replicas: which are alive, what they run, what they lead",
		Long: `List the replicas that share the database. One is alive that gave a sign of life in the last five seconds, silent when it gave none
(it died, hangs, or does not reach the database), and stopped when it ended in good order. One that has been gone for three days is forgotten.

The schema is the number of the last migration that a replica's program knows. A replica leads a duty that one does for all, such as upkeep;
when it is gone, another does within seconds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				replicas, err := store.Replicas(cmd.Context())
				if err != nil {
					return err
				}
				leads, err := store.Leads(cmd.Context())
				if err != nil {
					return err
				}
				result := struct {
					Replicas []shownReplica `json:"replicas"`
				}{showReplicas(replicas, leads)}
				return a.print(result, func(w io.Writer) { writeReplicas(w, result.Replicas) })
			})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func showReplicas(replicas []ca.Seen, leads []ca.Lead) []shownReplica {
	all := []shownReplica{}
	for _, r := range replicas {
		one := shownReplica{
			Name: r.Name, State: string(r.State), Version: r.Version, Schema: r.Schema, Host: r.Host, Run: r.Run, StartedAt: r.StartedAt,
			SeenAt: r.SeenAt, Leads: []shownLead{},
		}
		for _, l := range leads {
			if l.Leader == r.Replica && l.Holds {
				one.Leads = append(one.Leads, shownLead{string(l.Duty), l.Since, l.Until, l.Fence})
			}
		}
		all = append(all, one)
	}
	return all
}

func writeReplicas(w io.Writer, all []shownReplica) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no replica has run in the last days")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tVERSION\tSCHEMA\tHOST\tSTARTED\tSEEN\tLEADS")
	for _, r := range all {
		leads := []string{}
		for _, l := range r.Leads {
			leads = append(leads, l.Duty+" since "+l.Since.Format(time.RFC3339))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Name, r.State, r.Version, r.Schema, r.Host, r.StartedAt.Format(time.RFC3339),
			r.SeenAt.Format(time.RFC3339), orDash(strings.Join(leads, ", ")))
	}
	_ = t.Flush()
}
