package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

// OrdersConfig says what, of what cannot be undone, others must approve before it is done.
type OrdersConfig struct {
	// DestroyKey is about chancery hsm key destroy.
	DestroyKey OrderConfig `yaml:"destroy_key" envPrefix:"DESTROY_KEY_"`
	// AddAuthority is about chancery authority add.
	AddAuthority OrderConfig `yaml:"add_authority" envPrefix:"ADD_AUTHORITY_"`
	// Persons says who the users of this machine are, by the names that their credentials have (chancery token create --person): that person
	// has no say in an order of the user. Of a user who is not here it is not known, and two others must approve at least.
	Persons map[string]string `yaml:"persons"`
}

// OrderConfig says who must approve one kind of order.
type OrderConfig struct {
	// Approvals is how many persons, besides whoever is at the keyboard: 0 to 10. Default: 0, none. 1 counts as 2 for a user of whom Persons
	// does not say who that is.
	Approvals int `yaml:"approvals" env:"APPROVALS"`
	// Signed asks that each sign with the own key (chancery approver key add).
	Signed bool `yaml:"signed" env:"SIGNED"`
}

func (c OrdersConfig) validate(doc *strictyaml.Document) {
	for name, o := range map[string]OrderConfig{"destroy_key": c.DestroyKey, "add_authority": c.AddAuthority} {
		if o.Approvals < 0 || o.Approvals > 10 {
			doc.Refuse("orders."+name+".approvals", "", "%d is not between 0 and 10", o.Approvals)
		}
		if o.Signed && o.Approvals == 0 {
			doc.Refuse("orders."+name+".signed", "set approvals", "nobody is asked for an approval that could be signed")
		}
	}
	for user, person := range c.Persons {
		if user == "" || person == "" || strings.HasPrefix(person, localActor) {
			doc.Refuse("orders.persons", "write USER: PERSON, the person as chancery token create --person has it", "%q: %q names nobody", user,
				person)
		}
	}
}

// clerk places and uses orders for whoever is at the keyboard.
func (a *app) clerk(store ca.Store, c OrdersConfig) ca.Registrar {
	r := a.registrar(store)
	r.Person = c.Persons[strings.TrimPrefix(r.Actor, localActor)]
	return r
}

// underOrder goes on where nobody else must approve, or where enough others have: with the order, which is used up by it. Otherwise it
// places the order, and returns errSilent after saying what is to be done next.
func (a *app) underOrder(ctx context.Context, clerk ca.Registrar, c OrderConfig, kind string, facts []approval.Fact, order,
	command string,
) error {
	switch {
	case c.Approvals == 0 && order != "":
		return misuse{errors.New("--order: the configuration asks for no approvals of this (orders)")}
	case c.Approvals == 0:
		return nil
	case order != "":
		_, err := clerk.UseOrder(ctx, order, kind, facts, c.Approvals, c.Signed)
		if errors.Is(err, ca.ErrNotFound) {
			return fmt.Errorf("there is no order %s", order)
		}
		return err
	}
	o, err := clerk.PlaceOrder(ctx, kind, facts, c.Approvals, c.Signed, "")
	if err != nil {
		return err
	}
	result := struct {
		Order   string `json:"order"`
		Binding string `json:"binding"`
		Needs   int    `json:"needs"`
		State   string `json:"state"`
	}{o.ID, o.Binding, o.Needs, ca.OrderWaiting}
	if err := a.print(result, func(w io.Writer) {
		if o.Needs > c.Approvals {
			fmt.Fprintf(w, "Who %s is, the configuration does not say (orders.persons): two others must approve at least.\n", o.Actor)
		}
		fmt.Fprintf(w, "This needs the approval of %d others. It is ordered, and nothing was done:\n  chancery order approve %s\nThen, until "+
			"%s:\n  %s --order %s\n",
			o.Needs, o.ID, o.ExpiresAt.Local().Format(time.RFC3339), command, o.ID)
	}); err != nil {
		return err
	}
	return errSilent
}

// destroyUnderOrder asks for the approvals that the configuration wants for the destruction of a key, and says whose it was. Where the
// database is not asked, there can be none.
func (a *app) destroyUnderOrder(ctx context.Context, w *worksite, key hsm.KeyRef, past []string, order string) error {
	if w.cfg == nil || w.cfg.Orders.DestroyKey.Approvals == 0 {
		if order != "" {
			return misuse{errors.New("--order: no configuration asks for approvals of this (--config, orders.destroy_key)")}
		}
		return nil
	}
	if w.store == nil {
		return errors.New("the configuration asks for approvals of this, which are in its database: leave --journal out")
	}
	facts := []approval.Fact{
		{Name: "token", Value: w.Info().Serial},
		{Name: "key_id", Value: "0x" + hex.EncodeToString(key.ID)},
		{Name: "key_label", Value: orDash(key.Label)},
	}
	for i, authority := range past {
		facts = append(facts, approval.Fact{Name: fmt.Sprintf("authority_%d", i+1), Value: authority})
	}
	return a.underOrder(ctx, a.clerk(w.store, w.cfg.Orders), w.cfg.Orders.DestroyKey, ca.OrderDestroyKey, facts, order,
		"chancery hsm key destroy …")
}

// addUnderOrder asks for the approvals that the configuration wants for an authority. They are for all that is taken in: what its bundle says
// beside the certificate is signed by nobody, and stands for years in what it issues.
func (a *app) addUnderOrder(ctx context.Context, cfg Config, store *storage.Store, records []ca.AuthorityRecord, order string) error {
	var facts []approval.Fact
	for i, r := range records {
		digest, chain := sha256.Sum256(r.Certificate), sha256.Sum256([]byte(pemOf(r.Chain)))
		for _, f := range []approval.Fact{
			{Name: "authority", Value: r.Name},
			{Name: "certificate_sha256", Value: hex.EncodeToString(digest[:])},
			{Name: "chain_sha256", Value: hex.EncodeToString(chain[:])}, // as sha256sum prints it of the bundle's file
			{Name: "parent", Value: orDash(r.Parent)},
			{Name: "online", Value: strconv.FormatBool(r.Online)},
			{Name: "token", Value: orDash(r.Key.Token)},
			{Name: "key_id", Value: "0x" + hex.EncodeToString(r.Key.ID)},
			{Name: "key_label", Value: orDash(r.Key.Label)},
			{Name: "crl_period", Value: r.CRL.Period.String()},
			{Name: "crl_validity", Value: r.CRL.Validity.String()},
			{Name: "crl_url", Value: orDash(r.CRLURL)},
			{Name: "issuer_url", Value: orDash(r.IssuerURL)},
			{Name: "ocsp_url", Value: orDash(r.OCSPURL)},
		} {
			facts = append(facts, approval.Fact{Name: fmt.Sprintf("%s_%d", f.Name, i+1), Value: f.Value})
		}
	}
	return a.underOrder(ctx, a.clerk(store, cfg.Orders), cfg.Orders.AddAuthority, ca.OrderAddAuthority, facts, order,
		"chancery authority add …")
}

func (a *app) orderCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "order", Short: "Approve what cannot be undone: the destruction of a key, a new authority"}
	cmd.AddCommand(a.orderListCommand(), a.orderShowCommand(),
		a.orderDecisionCommand("approve", "Approve an order; with the last approval whoever placed it can carry it out", true,
			(*client.Client).ApproveOrder),
		a.orderDecisionCommand("reject", "End an order", false, (*client.Client).RejectOrder))
	return cmd
}

func (a *app) orderListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the latest orders", Args: cobra.NoArgs}
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, _ []string) error {
		all, err := c.Orders(ctx)
		if err != nil {
			return err
		}
		return a.print(all, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ORDER\tSTATE\tKIND\tBY\tAPPROVALS\tUNTIL")
			for _, o := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d of %d\t%s\n", o.ID, o.State, o.Kind, cell(3, o.Person), o.Have, o.Needs,
					o.ExpiresAt.Local().Format(time.RFC3339))
			}
			_ = t.Flush()
		})
	})
}

func (a *app) orderShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show ORDER", Short: "Show exactly what is to be done, and who has approved it", Args: cobra.ExactArgs(1)}
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		o, err := c.Order(ctx, args[0])
		if err != nil {
			return err
		}
		return a.print(o, func(w io.Writer) { writeOrder(w, o) })
	})
}

func writeOrder(w io.Writer, o *client.Order) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "order\t%s\nstate\t%s\nkind\t%s\n", o.ID, o.State, o.Kind)
	for _, f := range o.Facts {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, cell(1, f.Value))
	}
	fmt.Fprintf(t, "by\t%s\nuntil\t%s\napprovals\t%d of %d\nbinding\t%s\n", cell(1, o.Person),
		o.ExpiresAt.Local().Format(time.RFC3339), o.Have, o.Needs, o.Binding)
	if o.Signed {
		fmt.Fprintln(t, "signed\teach by the approver's own key")
	}
	for _, v := range o.Votes {
		said, counts := "rejected by", ""
		if v.Approved {
			said = "approved by"
		}
		if v.Approved && v.Withdrawn {
			counts = idle
		}
		fmt.Fprintf(t, "%s\t%s, %s%s\n", said, cell(1, v.Person), v.At.Local().Format(time.RFC3339), counts)
	}
	_ = t.Flush()
}

func orderDecided(o *client.Order) decidedOn {
	facts := map[string]string{"order": o.Kind}
	for _, f := range o.Facts {
		facts[f.Name] = f.Value
	}
	return decidedOn{approval.KindOrder, o.ID, o.Binding, facts, o.Statement, ""}
}

func (a *app) orderDecisionCommand(verb, short string, approves bool,
	decide func(*client.Client, context.Context, string, client.OrderWord) (*client.Order, error),
) *cobra.Command {
	var word client.OrderWord
	var sign signWith
	cmd := &cobra.Command{Use: verb + " ORDER", Short: short, Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&word.Comment, "comment", "", "a note to keep with it")
	cmd.Flags().StringVar(&word.Binding, "binding", "", "what was looked at, as chancery order show tells it")
	sign.add(cmd)
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		if sign.given() {
			o, err := c.Order(ctx, args[0])
			if err != nil {
				return err
			}
			if word.Binding == "" {
				word.Binding = o.Binding
			}
			if word.Signature, err = a.sign(sign, orderDecided(o), approves); err != nil {
				return err
			}
		}
		o, err := decide(c, ctx, args[0], word)
		if err != nil {
			return err
		}
		return a.print(o, func(w io.Writer) {
			fmt.Fprintf(w, "%s is %s: %d of %d persons have approved\n", o.ID, o.State, o.Have, o.Needs)
		})
	})
}
