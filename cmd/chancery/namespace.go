package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/strictyaml"
)

func (a *app) namespaceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "namespace", Short: "What teams own and may use, changed while the service runs"}
	cmd.AddCommand(a.namespaceListCommand(), a.namespaceShowCommand(), a.namespaceSetCommand(), a.namespaceRemoveCommand())
	return cmd
}

func (a *app) namespaceListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the namespaces",
		Args:  cobra.NoArgs,
	}
	return a.overAPI(cmd, access.Operator, func(ctx context.Context, c *client.Client, _ []string) error {
		all, err := c.Namespaces(ctx)
		if err != nil {
			return err
		}
		return a.print(all, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tVERSION\tSET IN\tOWNS\tPROFILES")
			for _, n := range all {
				owns := strings.Join(append(append(append(append([]string{}, n.DNS...), n.IP...), n.Email...), n.URI...), ",")
				fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", n.Name, n.Version, n.Source, orDash(owns), cmp.Or(strings.Join(n.Profiles, ","), "every one"))
			}
			_ = t.Flush()
		})
	})
}

func (a *app) namespaceShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a namespace and its history",
		Args:  cobra.ExactArgs(1),
	}
	return a.overAPI(cmd, access.Operator, func(ctx context.Context, c *client.Client, args []string) error {
		n, err := c.Namespace(ctx, args[0])
		if err != nil {
			return err
		}
		return a.print(n, func(w io.Writer) { writeNamespace(w, n) })
	})
}

func writeNamespace(w io.Writer, n *client.Namespace) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, values ...string) {
		if text := strings.Join(values, ", "); text != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, text)
		}
	}
	row("name", n.Name)
	if n.Removed {
		row("removed", "nothing is issued in it")
	}
	row("dns", n.DNS...)
	row("ip", n.IP...)
	row("email", n.Email...)
	row("uri", n.URI...)
	row("subjects", n.Subjects...)
	row("profiles", n.Profiles...)
	for _, q := range n.Quotas {
		row("quota", fmt.Sprintf("%d certificates in %s%s", q.Certificates, q.Per, under(q.Profile)))
	}
	for _, r := range n.Rates {
		row("rate", fmt.Sprintf("%d requests in %s%s", r.Requests, r.Per, under(r.Profile)))
	}
	for _, v := range n.History {
		change := "set"
		if v.Removed {
			change = "removed"
		}
		row(fmt.Sprintf("version %d", v.Version), fmt.Sprintf("%s by %s (%s), %s", change, v.ChangedBy, v.Source, v.ChangedAt.Local().Format(time.RFC3339)))
	}
	_ = t.Flush()
}

func under(profile string) string {
	if profile == "" {
		return ""
	}
	return " under " + profile
}

func (a *app) namespaceSetCommand() *cobra.Command {
	after := -1
	cmd := &cobra.Command{
		Use:   "set FILE.yaml",
		Short: "Set a namespace, or add one",
		Long: `Set a namespace, or add one, as a file says that looks like an entry of namespaces in the configuration:

  name: team-a
  dns: [team-a.example]
  profiles: [tls-server]
  quotas: [{certificates: 1000, per: 24h}]
  rates: [{requests: 50, per: 1m}]

It becomes exactly what the file says. It holds on all replicas within two seconds; every version is kept, and the audit log tells of it.`,
		Args: cobra.ExactArgs(1),
	}
	afterFlag(cmd, &after)
	return a.overAPI(cmd, access.Operator, func(ctx context.Context, c *client.Client, args []string) error {
		name, spec, err := readNamespace(args[0])
		if err != nil {
			return err
		}
		n, err := c.SetNamespace(ctx, name, spec, after)
		if err != nil {
			return err
		}
		return a.print(n, func(w io.Writer) { fmt.Fprintf(w, "%s is at version %d\n", n.Name, n.Version) })
	})
}

func afterFlag(cmd *cobra.Command, after *int) {
	cmd.Flags().IntVar(after, "after", -1, "the version that was seen, 0 for none: refuse if another has been set since")
}

// readNamespace reads a file that holds one namespace. Its errors name the line of everything that is wrong.
func readNamespace(path string) (name string, spec client.NamespaceSpec, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", spec, fmt.Errorf("reading the namespace: %w", err)
	}
	var n NamespaceConfig
	doc := strictyaml.Decode(path, data, &n)
	if doc.OK() {
		n.validate(doc, "")
	}
	if err := doc.Err(); err != nil {
		return "", spec, err
	}
	spec = client.NamespaceSpec{DNS: n.DNS, IP: n.IP, Email: n.Email, URI: n.URI, Subjects: n.Subjects, Profiles: n.Profiles}
	for _, q := range n.Quotas {
		spec.Quotas = append(spec.Quotas, client.Quota{Profile: q.Profile, Certificates: q.Certificates, Per: time.Duration(q.Per).String()})
	}
	for _, r := range n.Rates {
		spec.Rates = append(spec.Rates, client.Rate{Profile: r.Profile, Requests: r.Requests, Per: time.Duration(r.Per).String()})
	}
	return n.Name, spec, nil
}

func (a *app) namespaceRemoveCommand() *cobra.Command {
	var yes bool
	after := -1
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a namespace: nothing is issued in it any more",
		Args:  cobra.ExactArgs(1),
	}
	afterFlag(cmd, &after)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return a.overAPI(cmd, access.Operator, func(ctx context.Context, c *client.Client, args []string) error {
		if err := a.confirm(yes, fmt.Sprintf("Nothing will be issued in namespace %s any more; what was issued stays valid.", args[0])); err != nil {
			return err
		}
		n, err := c.RemoveNamespace(ctx, args[0], after)
		if err != nil {
			return err
		}
		return a.print(n, func(w io.Writer) { fmt.Fprintf(w, "%s is removed\n", n.Name) })
	})
}
