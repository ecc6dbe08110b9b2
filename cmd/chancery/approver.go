package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

func (a *app) approverCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "approver", Short: "Whose key is whose, for approvals that are signed"}
	keys := &cobra.Command{Use: "key", Short: "Register, list and end the keys of approvers"}
	keys.AddCommand(a.approverKeyAddCommand(), a.approverKeyListCommand(), a.approverKeyEndCommand())
	cmd.AddCommand(keys)
	return cmd
}

// approverKeyJSON is an approver's key as the command line shows it.
type approverKeyJSON struct {
	Person      string     `json:"person"`
	Name        string     `json:"name,omitempty"`
	Fingerprint string     `json:"fingerprint"`
	Form        string     `json:"form"`
	Public      string     `json:"public"`
	AddedAt     time.Time  `json:"added_at"`
	AddedBy     string     `json:"added_by"`
	Until       *time.Time `json:"until,omitempty"`
	EndedAt     *time.Time `json:"ended_at,omitempty"`
	Why         string     `json:"why,omitempty"`
	AuditEvent  string     `json:"audit_event"`
}

func newApproverKeyJSON(k ca.ApproverKey) approverKeyJSON {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return approverKeyJSON{
		Person: k.Person, Name: k.Name, Fingerprint: k.Key.Fingerprint(), Form: k.Key.Form, Public: k.Key.String(), AddedAt: k.At.UTC(),
		AddedBy: k.Actor,
		Until:   at(k.Key.Until()), EndedAt: at(k.EndedAt), Why: k.Why, AuditEvent: k.EventID,
	}
}

func (a *app) approverKeyAddCommand() *cobra.Command {
	var path, person, name string
	cmd := &cobra.Command{
		Use:   "add --person PERSON KEY.pub",
		Short: "Register the key of a person who approves: an SSH public key, or a certificate",
		Long: `Register the key of a person who approves: an SSH public key, or a certificate in PEM.

Whoever calls this answers for whose key it is: compare the fingerprint with its owner. PERSON is the name in the person's credentials
(chancery token create --person). One key is one person's; one that was ended does not come back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			key, err := approval.ParseKey(data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				k, err := a.registrar(store).AddApproverKey(cmd.Context(), person, name, key)
				if errors.Is(err, ca.ErrExists) {
					return fmt.Errorf("the key %s is registered already, or was: one key is one person's (chancery approver key list)", key.Fingerprint())
				}
				if err != nil {
					return err
				}
				return a.print(newApproverKeyJSON(k), func(w io.Writer) { fmt.Fprintf(w, "%s approves with %s\n", person, key.Fingerprint()) })
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&person, "person", "", "whose key it is, as their credentials say")
	cmd.Flags().StringVar(&name, "name", "", "a note, such as which device holds it")
	_ = cmd.MarkFlagRequired("person")
	return cmd
}

func (a *app) approverKeyListCommand() *cobra.Command {
	var path, person string
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys of approvers, those that count no more among them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				keys, err := store.ApproverKeys(cmd.Context(), person)
				if err != nil {
					return err
				}
				all := []approverKeyJSON{}
				for _, k := range keys {
					all = append(all, newApproverKeyJSON(k))
				}
				return a.print(all, func(w io.Writer) {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "PERSON\tFORM\tFINGERPRINT\tSINCE\tENDED\tNAME")
					for _, k := range all {
						ended := ""
						if k.EndedAt != nil {
							ended = k.EndedAt.Local().Format(time.DateOnly)
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Person, k.Form, k.Fingerprint, k.AddedAt.Local().Format(time.DateOnly), orDash(ended),
							orDash(k.Name))
					}
					_ = t.Flush()
				})
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&person, "person", "", "of this person alone")
	return cmd
}

func (a *app) approverKeyEndCommand() *cobra.Command {
	var path, why string
	var yes bool
	cmd := &cobra.Command{
		Use:   "end FINGERPRINT --why WHY",
		Short: "Have a key count no more: it was lost, or its owner has left",
		Long: `Have a key count no more, from now on. Approvals that it signed before count no more for what is open: requests, changes of policies,
revocations and orders then wait for another person. What is issued, activated or begun stays.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(yes, "End the key "+args[0]+"? It does not come back."); err != nil {
				return err
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				err := a.registrar(store).EndApproverKey(cmd.Context(), args[0], why)
				switch {
				case errors.Is(err, ca.ErrNotFound):
					return errors.New("there is no such key (chancery approver key list)")
				case errors.Is(err, ca.ErrExists):
					return errors.New("the key has ended before")
				case err != nil:
					return err
				}
				result := struct {
					Fingerprint string `json:"fingerprint"`
					Ended       bool   `json:"ended"`
				}{args[0], true}
				return a.print(result, func(w io.Writer) { fmt.Fprintf(w, "%s counts no more\n", args[0]) })
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&why, "why", "", "for the audit log")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("why")
	return cmd
}
