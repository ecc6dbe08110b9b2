package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/strictyaml"
)

// authorityRevocationJSON is a revoked authority as the command line shows it.
type authorityRevocationJSON struct {
	Authority string    `json:"authority"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	Reason    string    `json:"reason"`
	RevokedAt time.Time `json:"revoked_at"`
	Event     string    `json:"audit_event"`
	Plan      string    `json:"plan,omitempty"` // of the ceremony that makes the issuer's CRL, where that is offline
	// Revokes are what the plan puts on that CRL: this one, and what was revoked before and is not on the CRL that is served.
	Revokes []plannedRevocation `json:"revokes,omitempty"`
	// Listed says that the CRL that is served, of an offline issuer, shows it already: there is nothing to plan.
	Listed bool `json:"listed,omitempty"`
}

// plannedRevocation is a certificate that a plan puts on a CRL.
type plannedRevocation struct {
	Authority string    `json:"authority,omitempty"` // empty: it is none's that is on record
	Serial    string    `json:"serial"`
	Reason    string    `json:"reason"`
	RevokedAt time.Time `json:"revoked_at"`
}

func (r plannedRevocation) name() string { return cmp.Or(r.Authority, "serial "+r.Serial) }

// unexplained tells of a revocation without a reason: of one that was recorded before a reason was asked for, or of a certificate that is
// on no record. Only people can say which it is; the plan waits for that.
func (r plannedRevocation) unexplained() bool { return r.Reason == issuance.Unspecified.String() }

func (a *app) authorityRevokeCommand() *cobra.Command {
	var path, reason, comment, out string
	validity := "180d"
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke NAME --reason REASON",
		Short: "Revoke a subordinate authority",
		Long: `Revoke a subordinate authority: all that it has issued stands and falls with it, for those who look at its issuer's CRL.

The revocation is recorded. An issuer that is online puts it on its next CRL within seconds. An offline one makes that CRL in a ceremony: for
that this command writes a directory to carry into the room, with the plan (revoke.yaml), the issuer's certificate and its last CRL. The plan
names all that the CRL that is served does not have yet, also what was revoked before. There:

    chancery ceremony run revoke.yaml --token-label … --pin-file …
and with what comes of it, here:
    chancery crl import --config chancery.yaml --authority root out/root.crl

Until that is done, chancery revocation check tells that it is missing. Reasons: cACompromise, keyCompromise, affiliationChanged,
superseded, cessationOfOperation, privilegeWithdrawn; not unspecified, because a CRL has to say why an authority is revoked (BR 7.2.2). What the
authority has issued is revoked by chancery revoke --issuer NAME --all; take the authority out of the configuration's list when its last CRL is out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			why, err := ca.ParseReason(reason)
			if err != nil {
				return misuse{fmt.Errorf("--reason: %w", err)}
			}
			life, err := strictyaml.ParseDuration(validity)
			if err != nil || life <= 0 {
				return misuse{fmt.Errorf("--validity: %q is not a span such as 180d", validity)}
			}
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				if !yes {
					question := fmt.Sprintf("Revoke the authority %s? It does not come back", args[0])
					if ca.IsCompromise(why) {
						question += ", and its key is certified never again"
					}
					if err := a.confirmWord(question+".", args[0]); err != nil {
						return err
					}
				}
				revoked, err := a.registrar(store).RevokeAuthority(cmd.Context(), args[0], why, comment)
				if err != nil {
					return err
				}
				result := authorityRevocationJSON{
					Authority: args[0], Issuer: revoked.Parent.Name, Serial: hex.EncodeToString(revoked.Serial), Reason: revoked.Revocation.Reason.String(),
					RevokedAt: revoked.Revocation.At, Event: revoked.Revocation.EventID,
				}
				if !revoked.Parent.Online {
					dir := cmp.Or(out, "revoke-"+args[0])
					if err := result.plan(cmd.Context(), store, revoked, dir, validity); err != nil {
						return err
					}
				}
				return a.print(result, func(w io.Writer) { writeRevokedAuthority(w, result) })
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&reason, "reason", "", "why, by RFC 5280's name or number")
	cmd.Flags().StringVar(&comment, "comment", "", "a note to keep with it")
	cmd.Flags().StringVar(&out, "out", "", "directory for the ceremony of an offline issuer (default: revoke-NAME)")
	cmd.Flags().StringVar(&validity, "validity", validity, "of the CRL that the ceremony makes")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func writeRevokedAuthority(w io.Writer, r authorityRevocationJSON) {
	fmt.Fprintf(w, "%s, serial %s, is revoked (%s) since %s\n", r.Authority, r.Serial, r.Reason, r.RevokedAt.Local().Format(time.RFC3339))
	switch {
	case r.Listed:
		fmt.Fprintf(w, "the CRL of %s that is served shows it\n", r.Issuer)
		return
	case r.Plan == "":
		fmt.Fprintf(w, "%s puts it on its next CRL\n", r.Issuer)
		return
	}
	fmt.Fprintf(w, "%s is offline: nobody learns of it before its CRL is made in a ceremony.\n", r.Issuer)
	for _, planned := range r.Revokes {
		fmt.Fprintf(w, "  that CRL revokes %s, serial %s (%s)\n", planned.name(), planned.Serial, planned.Reason)
		if planned.unexplained() {
			fmt.Fprintln(w, "    of which nobody said why: write a reason into the plan, the ceremony refuses unspecified")
		}
	}
	fmt.Fprintf(w, "The plan is %s; then: chancery crl import --authority %s %s\n", r.Plan, r.Issuer,
		filepath.Join(filepath.Dir(r.Plan), "out", r.Issuer+".crl"))
}

// unlisted are the revocations that the CRL of an offline issuer must show and the one that is served does not.
func unlisted(ctx context.Context, store *storage.Store, issuer string, served []byte) (all []plannedRevocation, err error) {
	listed := map[string]bool{}
	if len(served) > 0 {
		list, err := x509.ParseRevocationList(served)
		if err != nil {
			return nil, fmt.Errorf("reading the CRL of %s that is served: %w", issuer, err)
		}
		for _, e := range list.RevokedCertificateEntries {
			listed[hex.EncodeToString(e.SerialNumber.Bytes())] = true
		}
	}
	authorities, err := store.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, a := range authorities {
		if c, err := x509.ParseCertificate(a.Certificate); err == nil && a.Parent == issuer {
			names[hex.EncodeToString(c.SerialNumber.Bytes())] = a.Name
		}
	}
	_, err = store.ListedRevocations(ctx, issuer, ca.FullScope, func(e issuance.RevokedEntry) error {
		if serial := hex.EncodeToString(e.Serial); !listed[serial] {
			all = append(all, plannedRevocation{names[serial], serial, e.Reason.String(), e.RevokedAt})
		}
		return nil
	})
	return all, err
}

// ceremonyName cuts what an authority's name makes longer than a ceremony's may be.
func ceremonyName(name string) string { return strings.TrimRight(name[:min(len(name), 64)], "-") }

// plan writes what the room needs to make the next CRL of an offline issuer: a directory that must not be there, so that no
// plan of another day is mixed with it.
func (result *authorityRevocationJSON) plan(ctx context.Context, store *storage.Store, r ca.RevokedAuthority, dir, validity string) error {
	current, err := store.CurrentCRL(ctx, r.Parent.Name, ca.FullScope, nil)
	previous := "previous: " + r.Parent.Name + ".crl"
	switch {
	case errors.Is(err, ca.ErrNotFound):
		previous = "first: true # no CRL of it was ever imported; name the last one as previous if there is one"
	case err != nil:
		return err
	}
	if result.Revokes, err = unlisted(ctx, store, r.Parent.Name, current.DER); err != nil || len(result.Revokes) == 0 {
		result.Listed = err == nil
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory of the ceremony: %w; choose another with --out", err)
	}
	key := fmt.Sprintf("label: %q", r.Parent.Key.Label)
	if r.Parent.Key.Label == "" {
		key = fmt.Sprintf("id: %q", hex.EncodeToString(r.Parent.Key.ID))
	}
	var names []string
	var entries strings.Builder
	for _, planned := range result.Revokes {
		names = append(names, planned.name())
		remark := planned.name()
		if planned.unexplained() {
			remark += ": write a reason instead of unspecified"
		}
		fmt.Fprintf(&entries, "      - {serial: %s, reason: %s, at: %q} # %s\n", planned.Serial, planned.Reason,
			planned.RevokedAt.UTC().Format(time.RFC3339), remark)
	}
	result.Plan = filepath.Join(dir, "revoke.yaml")
	files := map[string][]byte{
		r.Parent.Name + ".cer": r.Parent.Certificate,
		"revoke.yaml": fmt.Appendf(nil, `ceremony: %s
description: The CRL of %[2]s that revokes %[3]s
output: out
crls:
  - issuer: %[2]q
    certificate: %[2]s.cer
    key: {%[4]s}
    validity: %[5]s
    %[6]s
    revoked:
%[7]s`, ceremonyName("revoke-"+r.Authority.Name), r.Parent.Name, strings.Join(names, ", "), key, validity, previous, entries.String()),
	}
	if len(current.DER) > 0 {
		files[r.Parent.Name+".crl"] = current.DER
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("writing the plan of the ceremony: %w", err)
		}
	}
	return nil
}
