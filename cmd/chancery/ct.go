package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/transparency"
)

func (a *app) ctCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ct", Short: "Certificate transparency"}
	cmd.AddCommand(a.ctCheckCommand())
	return cmd
}

type ctCheckOptions struct {
	issuer, logList string
	offline         bool
	timeout         time.Duration
}

func (a *app) ctCheckCommand() *cobra.Command {
	var o ctCheckOptions
	cmd := &cobra.Command{
		Use:   "check CERTIFICATE --log-list FILE",
		Short: "Verify the timestamps of a certificate, and that the logs have it",
		Long: `Verify the signed certificate timestamps in a certificate against the keys of their logs, and fetch and verify the proof that each
log has the entry that its timestamp promised (RFC 6962; tiles of static logs).

CERTIFICATE is a PEM file with the certificate and, unless --issuer is given, its issuer after it. The log list is in the format of
https://www.gstatic.com/ct/log_list/v3/log_list.json. An entry that is not in its log yet is in order while the log's merge delay runs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ctCheck(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.issuer, "issuer", "", "PEM file with the issuer's certificate (default: the second in CERTIFICATE)")
	cmd.Flags().StringVar(&o.logList, "log-list", "", "file with the logs, version 3")
	cmd.Flags().BoolVar(&o.offline, "offline", false, "verify the timestamps alone, and ask no log")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 30*time.Second, "how long the logs are waited for")
	_ = cmd.MarkFlagRequired("log-list")
	return cmd
}

// checkedSCT is what was found of one timestamp.
type checkedSCT struct {
	LogID     string `json:"log_id"`
	Log       string `json:"log,omitempty"`
	Operator  string `json:"operator,omitempty"`
	State     string `json:"state,omitempty"`
	Timestamp string `json:"timestamp,omitempty"`
	Valid     bool   `json:"valid"`
	// Inclusion is "included", "pending", "missing", "unknown" or, where no log was asked, empty.
	Inclusion string  `json:"inclusion,omitempty"`
	Index     *uint64 `json:"index,omitempty"`
	TreeSize  uint64  `json:"tree_size,omitempty"`
	Error     string  `json:"error,omitempty"`
}

// ctCheck ends with an error when a timestamp does not verify, or a log does not have what it promised.
func (a *app) ctCheck(ctx context.Context, path string, o ctCheckOptions) error {
	certificate, issuer, err := readPair(path, o.issuer)
	if err != nil {
		return err
	}
	known, err := readLogList(o.logList)
	if err != nil {
		return err
	}
	embedded, err := transparency.Read(certificate, issuer, known, a.Now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	client := transparency.HTTPClient(nil)
	defer client.CloseIdleConnections()
	var checked []checkedSCT
	sound := 0
	for i := range embedded {
		e := &embedded[i]
		c := showSCT(e)
		if c.Valid && !o.offline {
			found, err := e.Included(ctx, client, a.Now())
			c.include(found, err)
		}
		if c.Valid && (o.offline || c.Inclusion == "included" || c.Inclusion == "pending") {
			sound++
		}
		checked = append(checked, c)
	}
	if err := a.print(map[string]any{"timestamps": checked}, func(w io.Writer) { printSCTs(w, checked) }); err != nil {
		return err
	}
	if sound < len(checked) {
		return fmt.Errorf("%d of %d timestamps do not hold", len(checked)-sound, len(checked))
	}
	return nil
}

func showSCT(e *transparency.Embedded) checkedSCT {
	c := checkedSCT{LogID: hex.EncodeToString(e.LogID[:]), Valid: e.Err == nil}
	if !e.Timestamp.IsZero() {
		c.Timestamp = e.Timestamp.Format("2006-01-02T15:04:05.000Z07:00")
	}
	if e.Log != nil {
		c.Log, c.Operator, c.State = e.Log.Description, e.Log.Operator, e.Log.State
	}
	if e.Err != nil {
		c.Error = e.Err.Error()
	}
	return c
}

func (c *checkedSCT) include(found transparency.Inclusion, err error) {
	switch {
	case err == nil:
		c.Inclusion, c.Index, c.TreeSize = "included", &found.Index, found.Size
	case errors.Is(err, transparency.ErrPending):
		c.Inclusion = "pending"
	case errors.Is(err, transparency.ErrMissing):
		c.Inclusion, c.Error = "missing", err.Error()
	default:
		c.Inclusion, c.Error = "unknown", err.Error()
	}
}

func printSCTs(w io.Writer, all []checkedSCT) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LOG\tOPERATOR\tTIMESTAMP\tSIGNATURE\tINCLUSION")
	for _, c := range all {
		name, signature, inclusion := c.Log, "verified", c.Inclusion
		if name == "" {
			name = "unknown " + c.LogID
		}
		if !c.Valid {
			signature = "NOT verified: " + c.Error
		}
		switch {
		case c.Index != nil:
			inclusion = fmt.Sprintf("entry %d of %d", *c.Index, c.TreeSize)
		case c.Valid && c.Error != "":
			inclusion += ": " + c.Error
		case inclusion == "":
			inclusion = "not asked"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", name, c.Operator, c.Timestamp, signature, inclusion)
	}
	_ = table.Flush()
}

// readPair reads a certificate and its issuer from one PEM file or two.
func readPair(path, issuerPath string) (certificate, issuer []byte, err error) {
	all, err := readCertificates(path)
	if err != nil {
		return nil, nil, err
	}
	if issuerPath == "" {
		if len(all) < 2 {
			return nil, nil, misuse{fmt.Errorf("%s holds the certificate alone; give its issuer with --issuer", path)}
		}
		return all[0], all[1], nil
	}
	issuers, err := readCertificates(issuerPath)
	if err != nil {
		return nil, nil, err
	}
	return all[0], issuers[0], nil
}
