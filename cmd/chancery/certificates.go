package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/strictyaml"
)

// parseSerial reads a serial as people have it: hex as in the API, colon-hex as openssl prints it, 0x-hex, or decimal as dec:123. It
// returns the API's form.
func parseSerial(s string) (string, error) {
	wrong := misuse{fmt.Errorf("%q is not a serial; write hex such as 1c019a…, with colons or 0x if you like, or decimal as dec:123", s)}
	if decimal, ok := strings.CutPrefix(s, "dec:"); ok {
		n, ok := new(big.Int).SetString(decimal, 10)
		if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
			return "", wrong
		}
		return hex.EncodeToString(n.Bytes()), nil
	}
	digits := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X"), ":", ""))
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) == 0 || len(raw) > 21 {
		return "", wrong
	}
	if n := new(big.Int).SetBytes(raw); n.Sign() > 0 && n.BitLen() <= 160 {
		return hex.EncodeToString(n.Bytes()), nil
	}
	return "", wrong
}

func (a *app) getCommand() *cobra.Command {
	var api apiFlags
	var issuer, format string
	cmd := &cobra.Command{
		Use:   "get SERIAL",
		Short: "Show a certificate and its state, or fetch it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := parseSerial(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect(api, access.Auditor)
			if err != nil {
				return err
			}
			defer c.Close()
			fetch, ok := map[string]func() ([]byte, error){
				"":      nil,
				"pem":   func() ([]byte, error) { return c.GetPEM(cmd.Context(), serial, issuer) },
				"chain": func() ([]byte, error) { return c.GetChain(cmd.Context(), serial, issuer) },
				"der":   func() ([]byte, error) { return c.GetDER(cmd.Context(), serial, issuer) },
			}[format]
			if !ok {
				return misuse{fmt.Errorf("--format %q: use pem, chain or der", format)}
			}
			if fetch != nil {
				data, err := fetch()
				if err != nil {
					return err
				}
				_, err = a.Stdout.Write(data)
				return err
			}
			found, err := c.Get(cmd.Context(), serial, issuer)
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) { writeCertificate(w, found) })
		},
	}
	api.add(cmd)
	cmd.Flags().StringVar(&issuer, "issuer", "", "authority, where several have issued the serial")
	cmd.Flags().StringVar(&format, "format", "", "fetch the certificate itself: pem, chain or der")
	return cmd
}

func writeCertificate(w io.Writer, c *client.Certificate) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, cell(1, value))
		}
	}
	row("serial", c.Serial)
	row("status", c.Status)
	if r := c.Revocation; r != nil {
		row("revoked", r.RevokedAt.Local().Format(time.RFC3339)+", "+r.Reason)
		row("comment", r.Comment)
	}
	row("subject", c.Subject)
	row("names", strings.Join(c.Names, ", "))
	row("valid from", c.NotBefore.Local().Format(time.RFC3339))
	row("valid until", c.NotAfter.Local().Format(time.RFC3339))
	row("issuer", c.Issuer)
	row("profile", c.Profile)
	row("namespace", c.Namespace)
	row("audit event", c.AuditEvent)
	if c.PossiblySigned {
		row("note", "possibly signed: the service stopped before the certificate was recorded")
	}
	_ = t.Flush()
}

func (a *app) listCommand() *cobra.Command {
	var api apiFlags
	var f client.ListFilter
	var expiresIn string
	limit := 100
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List certificates, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if expiresIn != "" {
				span, err := strictyaml.ParseDuration(expiresIn)
				if err != nil {
					return misuse{fmt.Errorf("--expires-in: %w", err)}
				}
				f.ExpiresBefore = a.Now().Add(span)
			}
			c, err := a.connect(api, access.Auditor)
			if err != nil {
				return err
			}
			defer c.Close()
			found, err := collect(c.List(cmd.Context(), f), limit)
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "SERIAL\tSTATUS\tPROFILE\tEXPIRES\tNAMES")
				for _, x := range found {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Serial, x.Status, x.Profile, x.NotAfter.Local().Format(time.DateOnly),
						cell(4, strings.Join(x.Names, ",")))
				}
				_ = t.Flush()
				if limit > 0 && len(found) == limit {
					fmt.Fprintf(a.Stderr, "the first %d; --limit 0 shows all\n", limit)
				}
			})
		},
	}
	api.add(cmd)
	cmd.Flags().StringVarP(&f.Query, "query", "q", "", "a part of a name or of the subject")
	cmd.Flags().StringVar(&f.Profile, "profile", "", "of this profile")
	cmd.Flags().StringVar(&f.Issuer, "issuer", "", "of this authority")
	cmd.Flags().StringVar(&f.Status, "status", "", "valid, expired, revoked or on-hold")
	cmd.Flags().StringVar(&expiresIn, "expires-in", "", "that end within this time, such as 30d")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many; 0 for all")
	return cmd
}
