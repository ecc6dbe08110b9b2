package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list, rotate and withdraw API tokens",
		Long: `Create, list, rotate and withdraw API tokens.

The service is asked, as an operator. With --config, or with a chancery.yaml here and no service named, the database is worked on directly:
that makes the first token, and those of approvers and policy admins, which nobody gets through the API.`,
	}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenShowCommand(), a.tokenRotateCommand(), a.tokenRevokeCommand())
	return cmd
}

// tokenKeeper is what the verbs about API tokens are asked of: the service, or the database.
type tokenKeeper interface {
	Tokens(ctx context.Context) ([]client.Token, error)
	Token(ctx context.Context, id string) (*client.Token, error)
	CreateToken(ctx context.Context, s client.TokenSpec) (*client.Token, error)
	RotateToken(ctx context.Context, id string, r client.TokenRotation) (*client.Token, error)
	RevokeToken(ctx context.Context, id string) (*client.Token, error)
}

// overTokens is a command about API tokens.
func (a *app) overTokens(cmd *cobra.Command, do func(ctx context.Context, k tokenKeeper, args []string) error) *cobra.Command {
	var api apiFlags
	var config string
	api.add(cmd)
	configFlag(cmd, &config)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if a.wantsDatabase(cmd, api, config) {
			return a.withStore(cmd.Context(), config, func(cfg Config, store *storage.Store) error {
				return do(cmd.Context(), tokenDesk{cfg: cfg, store: store, desk: a.tokenDesk(store, operator(), cfg.Limits.tokenLife())}, args)
			})
		}
		c, err := a.connect(api, access.Operator)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
	return cmd
}

// wantsDatabase tells whether a command works on the database: when it is told to, or when a configuration lies here and no service is
// named.
func (a *app) wantsDatabase(cmd *cobra.Command, api apiFlags, config string) bool {
	if cmd.Flags().Changed("config") {
		return true
	}
	if api != (apiFlags{}) || a.lookup("CHANCERY_API") != "" {
		return false
	}
	_, err := os.Stat(config)
	return err == nil
}

func (a *app) tokenDesk(store ca.TokenStore, by string, longest time.Duration) ca.TokenDesk {
	return ca.TokenDesk{Store: store, Now: a.Now, NewID: newID, Random: a.Random, Actor: by, MaxLife: longest}
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var s client.TokenSpec
	cmd := &cobra.Command{
		Use:   "create --name NAME --role ROLE[,ROLE] --namespace NAMESPACE",
		Short: "Create an API token; it is shown once",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&s.Name, "name", "", "what the token is for")
	cmd.Flags().StringVar(&s.Person, "person", "", "who stands behind it (default: the name)")
	cmd.Flags().StringVar(&s.Namespace, "namespace", "", "the namespace it acts in, or * for all")
	cmd.Flags().StringSliceVar(&s.Roles, "role", nil, "requester, approver, revoker, auditor, operator, policy-admin; several with commas")
	cmd.Flags().StringVar(&s.ExpiresIn, "expires", "90d", "how long it lasts")
	cmd.Flags().StringSliceVar(&s.Profiles, "profile", nil,
		"the only profiles that it asks for certificates under (default: every one of the namespace)")
	cmd.Flags().StringSliceVar(&s.Networks, "network", nil,
		"the only addresses that it is used from, such as 10.1.0.0/16 (default: every one)")
	for _, required := range []string{"name", "namespace", "role"} {
		_ = cmd.MarkFlagRequired(required)
	}
	cmd.PreRunE = func(*cobra.Command, []string) error { return checkTokenFlags(s) }
	return a.overTokens(cmd, func(ctx context.Context, k tokenKeeper, _ []string) error {
		t, err := k.CreateToken(ctx, s)
		return a.printSecret(t, err)
	})
}

// checkTokenFlags finds what is wrong before anything is opened.
func checkTokenFlags(s client.TokenSpec) error {
	for _, r := range s.Roles {
		if _, err := access.ParseRole(r); err != nil {
			return misuse{fmt.Errorf("--role: %w", err)}
		}
	}
	if _, err := strictyaml.ParseDuration(s.ExpiresIn); err != nil {
		return misuse{fmt.Errorf("--expires: %w", err)}
	}
	for _, n := range s.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			return misuse{fmt.Errorf("--network: %q is no prefix of addresses such as 10.1.0.0/16", n)}
		}
	}
	return nil
}

// printSecret shows a token that was made: the secret on standard output, everything else beside it.
func (a *app) printSecret(t *client.Token, err error) error {
	if err != nil {
		return err
	}
	return a.print(t, func(w io.Writer) {
		fmt.Fprintf(a.Stderr, "Token %s for %s. It is shown this once; keep it like a password.\n", t.ID, t.Name)
		fmt.Fprintln(w, t.Secret)
	})
}

func (a *app) tokenListCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "list", Short: "List the API tokens and when they were last used", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&all, "all", false, "those that have ended as well")
	return a.overTokens(cmd, func(ctx context.Context, k tokenKeeper, _ []string) error {
		tokens, err := k.Tokens(ctx)
		if err != nil {
			return err
		}
		tokens = slices.DeleteFunc(append([]client.Token{}, tokens...),
			func(t client.Token) bool { return !all && t.Status != "active" && t.Status != "retiring" })
		return a.print(tokens, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tNAME\tPERSON\tNAMESPACE\tROLES\tSTATUS\tENDS\tLAST USED")
			for _, x := range tokens {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.ID, cell(1, x.Name), cell(2, x.Person), x.Namespace,
					strings.Join(x.Roles, ","), x.Status, showTime(earliest(x.ExpiresAt, x.RetiresAt), "never"), showTime(x.LastUsedAt, "-"))
			}
			_ = t.Flush()
		})
	})
}

func earliest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

func showTime(t *time.Time, otherwise string) string {
	if t == nil {
		return otherwise
	}
	return t.Local().Format("2006-01-02 15:04")
}

func (a *app) tokenShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show an API token: whose it is, what it may do, when it was last used",
		Args: cobra.ExactArgs(1),
	}
	return a.overTokens(cmd, func(ctx context.Context, k tokenKeeper, args []string) error {
		t, err := k.Token(ctx, args[0])
		if err != nil {
			return err
		}
		return a.print(t, func(w io.Writer) { writeToken(w, t) })
	})
}

func writeToken(w io.Writer, t *client.Token) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"id", t.ID},
		{"name", t.Name},
		{"person", t.Person},
		{"namespace", t.Namespace},
		{"roles", strings.Join(t.Roles, ", ")},
		{"profiles", cmp.Or(strings.Join(t.Profiles, ", "), "every one of the namespace")},
		{"networks", cmp.Or(strings.Join(t.Networks, ", "), "every one")},
		{"status", t.Status},
		{"created", showTime(&t.CreatedAt, "") + " by " + orDash(t.CreatedBy)},
		{"expires", showTime(t.ExpiresAt, "never")},
		{"replaces", t.Replaces},
		{"retires", showTime(t.RetiresAt, "")},
		{"withdrawn", showTime(t.RevokedAt, "")},
		{"last used", strings.TrimSuffix(showTime(t.LastUsedAt, "never")+" from "+t.LastUsedFrom, " from ")},
	} {
		if row[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", row[0], cell(1, row[1]))
		}
	}
	_ = table.Flush()
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var r client.TokenRotation
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Replace an API token by one that may do the same; both work until the overlap ends",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&r.Overlap, "overlap", "1h", "how long the old token goes on, 7d at most; 0s ends it at once")
	cmd.Flags().StringVar(&r.ExpiresIn, "expires", "90d", "how long the new one lasts")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		for flag, text := range map[string]string{"overlap": r.Overlap, "expires": r.ExpiresIn} {
			if _, err := strictyaml.ParseDuration(text); err != nil && text != "0s" {
				return misuse{fmt.Errorf("--%s: %w", flag, err)}
			}
		}
		return nil
	}
	return a.overTokens(cmd, func(ctx context.Context, k tokenKeeper, args []string) error {
		t, err := k.RotateToken(ctx, args[0], r)
		return a.printSecret(t, err)
	})
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "revoke ID", Short: "Withdraw an API token: it is refused from its next use on", Args: cobra.ExactArgs(1)}
	cmd.Long = `Withdraw an API token: it is refused from its next use on. Approvals that were given with it count no more for what is open, and a
request that was asked for with it is not issued any more. To replace a token that nobody else had: chancery token rotate.`
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.overTokens(cmd, func(ctx context.Context, k tokenKeeper, args []string) error {
		t, err := k.Token(ctx, args[0])
		if err != nil {
			return err
		}
		if t.RevokedAt == nil {
			if err := a.confirm(yes, fmt.Sprintf("Withdraw token %s (%s, of %s)? Whoever uses it is refused at once.", t.ID, t.Name,
				t.Person)); err != nil {
				return err
			}
		}
		if t, err = k.RevokeToken(ctx, t.ID); err != nil {
			return err
		}
		return a.print(t, func(w io.Writer) { fmt.Fprintf(w, "token %s is withdrawn\n", t.ID) })
	})
}

// tokenDesk works on the database for who is at the keyboard.
type tokenDesk struct {
	cfg   Config
	store *storage.Store
	desk  ca.TokenDesk
}

func (d tokenDesk) Tokens(ctx context.Context) ([]client.Token, error) {
	all, err := d.store.Tokens(ctx, access.AllNamespaces)
	if err != nil {
		return nil, err
	}
	shown := []client.Token{}
	for _, t := range all {
		shown = append(shown, *d.shown(t, ""))
	}
	return shown, nil
}

func (d tokenDesk) Token(ctx context.Context, id string) (*client.Token, error) {
	t, err := d.store.Token(ctx, id)
	if errors.Is(err, ca.ErrNotFound) {
		return nil, fmt.Errorf("there is no token of the ID %q; chancery token list --all names them", id)
	}
	if err != nil {
		return nil, err
	}
	return d.shown(t, ""), nil
}

func (d tokenDesk) CreateToken(ctx context.Context, s client.TokenSpec) (*client.Token, error) {
	known, err := namespaceKnown(ctx, d.cfg, d.store, s.Namespace)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, misuse{fmt.Errorf("--namespace: %q is not in the configuration, nor was it set", s.Namespace)}
	}
	n := ca.NewAPIToken{Name: s.Name, Person: s.Person, Namespace: s.Namespace, Scope: access.Scope{Profiles: s.Profiles}}
	for _, r := range s.Roles {
		n.Roles = append(n.Roles, access.Role(r))
	}
	for _, text := range s.Networks {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, misuse{fmt.Errorf("--network: %w", err)}
		}
		n.Scope.Networks = append(n.Scope.Networks, prefix)
	}
	if n.Life, err = strictyaml.ParseDuration(s.ExpiresIn); err != nil {
		return nil, misuse{fmt.Errorf("--expires: %w", err)}
	}
	t, text, err := d.desk.Create(ctx, n)
	return d.made(t, text, err)
}

func (d tokenDesk) RotateToken(ctx context.Context, id string, r client.TokenRotation) (*client.Token, error) {
	rotation := ca.Rotation{ID: id}
	var err error
	if r.Overlap != "0s" {
		if rotation.Overlap, err = strictyaml.ParseDuration(r.Overlap); err != nil {
			return nil, misuse{fmt.Errorf("--overlap: %w", err)}
		}
	}
	if rotation.Life, err = strictyaml.ParseDuration(r.ExpiresIn); err != nil {
		return nil, misuse{fmt.Errorf("--expires: %w", err)}
	}
	t, text, err := d.desk.Rotate(ctx, rotation)
	return d.made(t, text, err)
}

func (d tokenDesk) RevokeToken(ctx context.Context, id string) (*client.Token, error) {
	t, err := d.desk.Revoke(ctx, id)
	return d.made(t, "", err)
}

// made shows a token, and calls what cannot be asked for a misuse.
func (d tokenDesk) made(t ca.APIToken, text string, err error) (*client.Token, error) {
	var invalid *ca.InvalidError
	if errors.As(err, &invalid) {
		return nil, misuse{err}
	}
	if err != nil {
		return nil, err
	}
	return d.shown(t, text), nil
}

func (d tokenDesk) shown(t ca.APIToken, text string) *client.Token {
	shown := &client.Token{
		ID: t.ID, Name: t.Name, Person: t.Person, Namespace: t.Namespace, Profiles: t.Scope.Profiles, Status: t.Status(d.desk.Now()),
		CreatedAt: t.CreatedAt.UTC(), CreatedBy: t.CreatedBy, Replaces: t.Replaces, Secret: text,
	}
	for _, r := range t.Roles {
		shown.Roles = append(shown.Roles, string(r))
	}
	for _, n := range t.Scope.Networks {
		shown.Networks = append(shown.Networks, n.String())
	}
	for to, at := range map[**time.Time]time.Time{
		&shown.ExpiresAt: t.ExpiresAt, &shown.RetiresAt: t.RetiresAt, &shown.RevokedAt: t.RevokedAt, &shown.LastUsedAt: t.LastUsedAt,
	} {
		if !at.IsZero() {
			utc := at.UTC()
			*to = &utc
		}
	}
	if t.LastUsedFrom.IsValid() {
		shown.LastUsedFrom = t.LastUsedFrom.String()
	}
	return shown
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

// createToken makes a token of any life.
func (a *app) createToken(ctx context.Context, store ca.TokenStore, n ca.NewAPIToken, by string) (string, error) {
	_, text, err := a.tokenDesk(store, by, max(n.Life, ca.MaxTokenLife)).Create(ctx, n)
	return text, err
}

// localActor begins the names of those who work at the keyboard.
const localActor = access.LocalActor

// operator is who is at the keyboard, for the audit log.
func operator() string {
	if u, err := user.Current(); err == nil {
		return localActor + u.Username
	}
	return localActor + "unknown"
}
