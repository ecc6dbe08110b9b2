package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/storage"
)

func (a *app) migrateCommand() *cobra.Command {
	var path, urlFile, login, auditor string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to this version",
		Long: `Bring the database's schema up to this version.

The database user must own the database: the service itself runs with fewer rights and cannot change the schema.
Running it again does nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			database := DatabaseConfig{URLFile: urlFile}
			if urlFile == "" {
				cfg, err := loadConfig(path, a.Environ)
				if err != nil {
					return err
				}
				database = cfg.Database
			}
			url, err := database.databaseURL()
			if err != nil {
				return err
			}
			applied, err := storage.Migrate(cmd.Context(), url)
			if err != nil {
				return err
			}
			if login != "" {
				if err := storage.GrantService(cmd.Context(), url, login); err != nil {
					return err
				}
			}
			if auditor != "" {
				if err := storage.GrantAuditor(cmd.Context(), url, auditor); err != nil {
					return err
				}
			}
			result := struct {
				Applied []string `json:"applied"`
			}{append([]string{}, applied...)}
			return a.print(result, func(w io.Writer) {
				for _, m := range applied {
					fmt.Fprintln(w, "applied", m)
				}
				fmt.Fprintln(w, "the schema is up to date")
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&urlFile, "database-url-file", "", "file with the URL of the database's owner, instead of the configuration's")
	cmd.Flags().StringVar(&login, "service-login", "", "database login of the service, to be given the service's rights and no more")
	cmd.Flags().StringVar(&auditor, "auditor-login", "",
		"database login of an auditor, to be able to read what is on record and to change nothing")
	return cmd
}

// withStore opens the store of a configuration for one command.
func (a *app) withStore(ctx context.Context, path string, do func(cfg Config, store *storage.Store) error) error {
	return a.withStoreAs(ctx, path, storage.ServiceRole, do)
}

// withStoreAs opens it to work as a role.
func (a *app) withStoreAs(ctx context.Context, path, role string, do func(cfg Config, store *storage.Store) error) error {
	cfg, err := loadConfig(path, a.Environ)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler), func(c *storage.Config) { c.Role = role })
	if err != nil {
		return err
	}
	defer store.Close()
	return do(cfg, store)
}

func (a *app) registrar(store ca.Store) ca.Registrar {
	return ca.Registrar{Store: store, Now: a.Now, NewID: newID, Actor: operator()}
}

func (a *app) authorityCommand() *cobra.Command {
	var path, order string
	cmd := &cobra.Command{Use: "authority", Short: "Add, list and revoke authorities"}
	add := &cobra.Command{
		Use:   "add BUNDLE.authority.json...",
		Short: "Register authorities that a ceremony made",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, bundles []string) error {
			return a.withStore(cmd.Context(), path, func(cfg Config, store *storage.Store) error {
				var added []authorityJSON
				var records []ca.AuthorityRecord
				for _, file := range bundles {
					bundle, err := ceremony.ReadBundle(file)
					if err != nil {
						return err
					}
					records = append(records, authorityRecord(bundle))
				}
				if err := cfg.CRLs.checkSubordinates(records); err != nil {
					return err
				}
				for _, record := range records { // before anybody is asked, and an order is used up
					if err := a.registrar(store).CheckAuthority(cmd.Context(), record); err != nil {
						return err
					}
				}
				if err := a.addUnderOrder(cmd.Context(), cfg, store, records, order); err != nil {
					return err
				}
				for _, record := range records {
					if err := a.registrar(store).AddAuthority(cmd.Context(), record); err != nil {
						return err
					}
					added = append(added, newAuthorityJSON(record))
				}
				return a.print(added, func(w io.Writer) {
					for _, x := range added {
						fmt.Fprintf(w, "%s is registered\n", x.Name)
					}
				})
			})
		},
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the authorities",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				records, err := store.Authorities(cmd.Context())
				if err != nil {
					return err
				}
				all := []authorityJSON{}
				for _, r := range records {
					all = append(all, newAuthorityJSON(r))
				}
				return a.print(all, func(w io.Writer) { writeAuthorities(w, all) })
			})
		},
	}
	configFlag(add, &path)
	add.Flags().StringVar(&order, "order", "", "the order that others have approved (orders.add_authority in the configuration)")
	configFlag(list, &path)
	cmd.AddCommand(add, list, a.authorityRevokeCommand())
	return cmd
}

// authorityJSON is an authority as the command line shows it.
type authorityJSON struct {
	Name     string    `json:"name"`
	Parent   string    `json:"parent,omitempty"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	Online   bool      `json:"online"`
	Token    string    `json:"token"`
	KeyLabel string    `json:"key_label"`
	CRLURL   string    `json:"crl_url,omitempty"`
	OCSPURL  string    `json:"ocsp_url,omitempty"`
}

func newAuthorityJSON(r ca.AuthorityRecord) authorityJSON {
	j := authorityJSON{
		Name: r.Name, Parent: r.Parent, Online: r.Online, Token: r.Key.Token, KeyLabel: r.Key.Label, CRLURL: r.CRLURL,
		OCSPURL: r.OCSPURL,
	}
	if certificate, err := parseCertificate(r.Certificate); err == nil {
		j.Subject, j.NotAfter = certificate.Subject.String(), certificate.NotAfter
	}
	return j
}

func writeAuthorities(w io.Writer, all []authorityJSON) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPARENT\tKEY\tEXPIRES\tSUBJECT")
	for _, x := range all {
		key := "offline"
		if x.Online {
			key = "online"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Name, orDash(x.Parent), key, x.NotAfter.Format(time.DateOnly), x.Subject)
	}
	_ = t.Flush()
}

func orDash(s string) string { return cmp.Or(s, "-") }

func authorityRecord(b ceremony.Bundle) ca.AuthorityRecord {
	return ca.AuthorityRecord{
		Name: b.Name, Parent: b.Parent, Certificate: b.Certificate, Chain: b.Chain, Online: b.Online,
		Key: ca.KeyName{Token: b.Key.Token, Label: b.Key.Label, ID: b.Key.ID},
		CRL: ca.CRLPlan{Period: b.CRLPeriod, Validity: b.CRLValidity}, CRLURL: b.CRLURL, IssuerURL: b.IssuerURL, OCSPURL: b.OCSPURL,
	}
}

// importedJSON is a CRL that was taken in, as the command line shows it.
type importedJSON struct {
	Authority  string    `json:"authority"`
	Number     string    `json:"number"`
	Entries    int       `json:"entries"`
	NextUpdate time.Time `json:"next_update"`
	// Unlisted is what is revoked and not on it, because it was revoked later.
	Unlisted []plannedRevocation `json:"unlisted,omitempty"`
}

func (a *app) crlCommand() *cobra.Command {
	var path, authority string
	cmd := &cobra.Command{Use: "crl", Short: "Publish CRLs now, or take in those that an offline authority signed"}
	add := &cobra.Command{
		Use:   "import --authority NAME FILE.crl",
		Short: "Make a CRL signed in a ceremony the one that is served",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			der, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("reading the CRL: %w", err)
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				record, err := a.registrar(store).ImportCRL(cmd.Context(), authority, der)
				if err != nil {
					return err
				}
				younger, err := unlisted(cmd.Context(), store, authority, der)
				if err != nil {
					return fmt.Errorf("the CRL is served; looking for what it does not show: %w", err)
				}
				for _, r := range younger {
					fmt.Fprintf(a.Stderr, "%s, revoked since %s, is not on this CRL: clients learn of it from the next; make that one now\n",
						r.name(), r.RevokedAt.Format(time.RFC3339))
				}
				result := importedJSON{record.Issuer, record.Number.String(), record.Entries, record.NextUpdate, younger}
				return a.print(result, func(w io.Writer) {
					fmt.Fprintf(w, "CRL %s of %s is served, until %s\n", result.Number, result.Authority, result.NextUpdate.Format(time.RFC3339))
				})
			})
		},
	}
	configFlag(add, &path)
	add.Flags().StringVar(&authority, "authority", "", "the authority that signed it")
	_ = add.MarkFlagRequired("authority")
	cmd.AddCommand(add, a.crlPublishCommand())
	return cmd
}

// confirm asks on the terminal; it refuses where there is none, unless yes says so already.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	return a.confirmWord(question, "yes")
}
