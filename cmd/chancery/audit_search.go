package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/strictyaml"
)

func (a *app) auditSearchCommand() *cobra.Command {
	var f client.EventFilter
	var since, until string
	limit := 100
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Find events by kind, actor, serial number, time or text, newest first",
		Long: `Find events by kind, actor, serial number, time or text, newest first. Whatever is given must fit.

    chancery audit search --serial 1c01…                           everything that happened to a certificate
    chancery audit search --kind certificate.revoked --since 7d    who revoked what in the last week
    chancery audit search --kind access. --actor t-0193…           what somebody tried and may not do`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&f.Kind, "kind", "", "a kind of event (docs/audit.md), or the beginning of some with its dot: certificate.")
	cmd.Flags().StringVar(&f.Actor, "actor", "", "ID of who caused it")
	cmd.Flags().StringVar(&f.Namespace, "namespace", "", "of this namespace alone")
	cmd.Flags().StringVar(&f.Serial, "serial", "", "of the certificate that it speaks of, in hexadecimal")
	cmd.Flags().StringVar(&f.Text, "text", "", "that stands somewhere in the event")
	cmd.Flags().StringVar(&since, "since", "", "not older than this: 7d, 2h, or a time such as 2026-11-23T12:00:00Z")
	cmd.Flags().StringVar(&until, "until", "", "older than this")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many; 0 for all")
	return a.overAPI(cmd, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) error {
		var err error
		if f.Since, err = a.moment("--since", since); err != nil {
			return err
		}
		if f.Until, err = a.moment("--until", until); err != nil {
			return err
		}
		found, err := collect(c.Events(ctx, f), limit)
		if err != nil {
			return err
		}
		return a.print(found, func(w io.Writer) {
			for _, e := range found {
				writeEvent(w, e)
			}
		})
	})
}

// moment reads a time, or a length of time back from now. Empty is the zero time.
func (a *app) moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	span, err := strictyaml.ParseDuration(text)
	if err != nil {
		return time.Time{}, misuse{fmt.Errorf("%s: %q is neither a time such as 2026-11-23T12:00:00Z nor a length of time such as 7d", flag,
			text)}
	}
	return a.Now().Add(-time.Duration(span)), nil
}

// writeEvent writes an event in a line: its place, time, kind and actor, and then what else it says. What others chose is quoted.
func writeEvent(w io.Writer, e client.Event) {
	place := "-"
	if e.Index != nil {
		place = strconv.FormatInt(*e.Index, 10)
	}
	var said strings.Builder
	for _, name := range slices.Sorted(maps.Keys(e.Data)) {
		fmt.Fprintf(&said, " %s=%s", name, quoted(e.Data[name]))
	}
	fmt.Fprintf(w, "%8s  %s  %s  by %s  in %s %s\n", place, e.Time.UTC().Format(time.RFC3339), e.Kind, quoted(e.Actor),
		orDash(quoted(e.Namespace)), said.String())
}

// quoted is a text as it is where it is one plain word, and in quotes where it is not.
func quoted(text string) string {
	plain := func(r rune) bool { return r > ' ' && r < 0x7f && r != '"' && r != '=' && r != '\\' }
	if strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return strconv.Quote(text)
}

func (a *app) auditWatchCommand() *cobra.Command {
	from, count := int64(-1), 0
	var kind, actor, namespace string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the audit log: print each event as it gets its place",
		Long: `Follow the audit log: print each event as it gets its place, which takes a second. It goes on until it is interrupted, through restarts of
the service; no event is left out, and none comes twice. With -o json each event is one line.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Int64Var(&from, "from", from, "index of the first event (default: what comes after the newest checkpoint)")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many events; 0: never")
	cmd.Flags().StringVar(&kind, "kind", "", "this kind of event alone, or kinds by their beginning with its dot: certificate.")
	cmd.Flags().StringVar(&actor, "actor", "", "what this actor caused alone, by ID")
	cmd.Flags().StringVar(&namespace, "namespace", "", "of this namespace alone")
	fits := func(e client.Event) bool {
		return (kind == "" || e.Kind == kind || (strings.HasSuffix(kind, ".") && strings.HasPrefix(e.Kind, kind))) &&
			(actor == "" || e.Actor == actor) && (namespace == "" || e.Namespace == namespace)
	}
	return a.overAPI(cmd, access.Auditor, func(ctx context.Context, c *client.Client, _ []string) error {
		if from < 0 {
			var err error
			if from, err = c.LogSize(ctx); err != nil {
				return err
			}
		}
		shown := 0
		for e, err := range c.Follow(ctx, from) {
			if err != nil {
				return err
			}
			if !fits(e) {
				continue
			}
			if err := a.printEvent(e); err != nil {
				return err
			}
			if shown++; shown == count {
				return nil
			}
		}
		return nil
	})
}

// printEvent writes an event of many: a line either way.
func (a *app) printEvent(e client.Event) error {
	if a.output != "json" {
		return a.printText(func(w io.Writer) { writeEvent(w, e) })
	}
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
