package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

func (a *app) migrateCommand() *cobra.Command {
	var path, urlFile, login string
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
	return cmd
}

// withStore opens the store of a configuration for one command.
func (a *app) withStore(ctx context.Context, path string, do func(cfg Config, store *storage.Store) error) error {
	cfg, err := loadConfig(path, a.Environ)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer store.Close()
	return do(cfg, store)
}

func (a *app) registrar(store ca.Store) ca.Registrar {
	return ca.Registrar{Store: store, Now: a.Now, NewID: newID, Actor: operator()}
}

// operator is who is at the keyboard, for the audit log.
func operator() string {
	if u, err := user.Current(); err == nil {
		return "local:" + u.Username
	}
	return "local:unknown"
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
	j := authorityJSON{Name: r.Name, Parent: r.Parent, Online: r.Online, Token: r.Key.Token, KeyLabel: r.Key.Label, CRLURL: r.CRLURL, OCSPURL: r.OCSPURL}
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func authorityRecord(b ceremony.Bundle) ca.AuthorityRecord {
	return ca.AuthorityRecord{
		Name: b.Name, Parent: b.Parent, Certificate: b.Certificate, Chain: b.Chain, Online: b.Online,
		Key: ca.KeyName{Token: b.Key.Token, Label: b.Key.Label, ID: b.Key.ID},
		CRL: ca.CRLPlan{Period: b.CRLPeriod, Validity: b.CRLValidity}, CRLURL: b.CRLURL, IssuerURL: b.IssuerURL, OCSPURL: b.OCSPURL,
	}
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
				result := struct {
					Authority  string    `json:"authority"`
					Number     string    `json:"number"`
					Entries    int       `json:"entries"`
					NextUpdate time.Time `json:"next_update"`
				}{record.Issuer, record.Number.String(), record.Entries, record.NextUpdate}
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

func (a *app) tokenCommand() *cobra.Command {
	var path, name, person, namespace, roles, expires string
	cmd := &cobra.Command{Use: "token", Short: "Create API tokens"}
	create := &cobra.Command{
		Use:   "create --name NAME --role ROLE[,ROLE] --namespace NAMESPACE",
		Short: "Create an API token; it is shown once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec := storage.Token{ID: newID(), Name: name, Person: person, Namespace: namespace, CreatedAt: a.Now()}
			for _, r := range strings.Split(roles, ",") {
				role, err := access.ParseRole(strings.TrimSpace(r))
				if err != nil {
					return misuse{fmt.Errorf("--role: %w", err)}
				}
				spec.Roles = append(spec.Roles, role)
			}
			if expires != "" {
				life, err := strictyaml.ParseDuration(expires)
				if err != nil {
					return misuse{fmt.Errorf("--expires: %w", err)}
				}
				spec.ExpiresAt = a.Now().Add(life)
			}
			if spec.Person == "" {
				spec.Person = name
			}
			return a.withStore(cmd.Context(), path, func(cfg Config, store *storage.Store) error {
				known, err := namespaceKnown(cmd.Context(), cfg, store, namespace)
				if err != nil {
					return err
				}
				if !known {
					return misuse{fmt.Errorf("--namespace: %q is not in the configuration, nor was it set", namespace)}
				}
				token, err := a.createToken(cmd.Context(), store, spec, operator())
				if err != nil {
					return err
				}
				result := struct {
					ID    string `json:"id"`
					Token string `json:"token"`
				}{spec.ID, token}
				return a.print(result, func(w io.Writer) {
					fmt.Fprintf(a.Stderr, "Token %s for %s. It is shown this once; keep it like a password.\n", spec.ID, name)
					fmt.Fprintln(w, token)
				})
			})
		},
	}
	configFlag(create, &path)
	create.Flags().StringVar(&name, "name", "", "what the token is for")
	create.Flags().StringVar(&person, "person", "", "who stands behind it (default: the name)")
	create.Flags().StringVar(&namespace, "namespace", "", "the namespace it acts in, or * for all")
	create.Flags().StringVar(&roles, "role", "", "requester, approver, revoker, auditor, operator; several with commas")
	create.Flags().StringVar(&expires, "expires", "90d", "how long it lasts")
	for _, required := range []string{"name", "namespace", "role"} {
		_ = create.MarkFlagRequired(required)
	}
	cmd.AddCommand(create)
	return cmd
}

// namespaceKnown tells whether a token can be for a namespace: one of the configuration, or one that was set while the service ran.
func namespaceKnown(ctx context.Context, cfg Config, store *storage.Store, name string) (bool, error) {
	if _, known := cfg.namespaces()[name]; known || name == access.AllNamespaces {
		return true, nil
	}
	all, err := store.Namespaces(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the namespaces: %w", err)
	}
	return slices.ContainsFunc(all, func(v ca.NamespaceVersion) bool { return v.Name == name && !v.Removed }), nil
}

// createToken makes a token and records its digest.
func (a *app) createToken(ctx context.Context, store *storage.Store, spec storage.Token, by string) (string, error) {
	token, digest, err := access.NewToken(a.Random)
	if err != nil {
		return "", err
	}
	roles := make([]string, len(spec.Roles))
	for i, r := range spec.Roles {
		roles[i] = string(r)
	}
	leaf, err := audit.New(audit.Event{ID: newID(), Kind: audit.TokenCreated, Time: a.Now(), Actor: by, Namespace: spec.Namespace, Data: map[string]string{
		"token": spec.ID, "name": spec.Name, "person": spec.Person, "roles": strings.Join(roles, ","),
	}})
	if err != nil {
		return "", err
	}
	if err := store.CreateToken(ctx, spec, digest, leaf); err != nil {
		return "", fmt.Errorf("recording the token: %w", err)
	}
	return token, nil
}

// confirm asks on the terminal; it refuses where there is none, unless yes says so already.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(a.Stderr, "%s [type yes] ", question)
	var answer string
	if _, err := fmt.Fscanln(a.Stdin, &answer); err != nil || answer != "yes" {
		return errors.New("not confirmed; nothing was done (--yes confirms beforehand)")
	}
	return nil
}
