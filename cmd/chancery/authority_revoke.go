package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca"
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
}

func (a *app) authorityRevokeCommand() *cobra.Command {
	var path, reason, comment, out string
	validity := "180d"
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke NAME --reason REASON",
		Short: "Revoke a subordinate authority",
		Long: `Revoke a subordinate authority: all that it has issued stands and falls with it, for those who look at its issuer's CRL.

The revocation is recorded. An issuer that is online puts it on its next CRL within seconds. An offline one makes that CRL in a ceremony: for
that this command writes a directory to carry into the room, with the plan (revoke.yaml), the issuer's certificate and its last CRL. There:

    chancery ceremony run revoke.yaml --token-label … --pin-file …
and with what comes of it, here:
    chancery crl import --config chancery.yaml --authority root out/root.crl

Until that is done, chancery revocation check tells that it is missing. Reasons: cACompromise, keyCompromise, affiliationChanged,
superseded, cessationOfOperation, privilegeWithdrawn, unspecified. What the authority has issued is revoked by
chancery revoke --issuer NAME --all; take the authority out of the configuration's list when its last CRL is out.`,
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
					if err := a.confirmWord(fmt.Sprintf("Revoke the authority %s? It does not come back.", args[0]), args[0]); err != nil {
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
					if result.Plan, err = writeRevocationPlan(cmd.Context(), store, revoked, dir, validity); err != nil {
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
	if r.Plan == "" {
		fmt.Fprintf(w, "%s puts it on its next CRL\n", r.Issuer)
		return
	}
	fmt.Fprintf(w, "%s is offline: nobody learns of it before its CRL is made in a ceremony.\nThe plan is %s; then: chancery crl import --authority %s %s\n",
		r.Issuer, r.Plan, r.Issuer, filepath.Join(filepath.Dir(r.Plan), "out", r.Issuer+".crl"))
}

// writeRevocationPlan writes what the room needs to make the next CRL of an offline issuer: a directory that must not be there, so that no
// plan of another day is mixed with it.
func writeRevocationPlan(ctx context.Context, store *storage.Store, r ca.RevokedAuthority, dir, validity string) (plan string, err error) {
	current, err := store.CurrentCRL(ctx, r.Parent.Name, ca.FullScope, nil)
	previous := "previous: " + r.Parent.Name + ".crl"
	switch {
	case errors.Is(err, ca.ErrNotFound):
		previous = "first: true # no CRL of it was ever imported; name the last one as previous if there is one"
	case err != nil:
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the directory of the ceremony: %w; choose another with --out", err)
	}
	key := fmt.Sprintf("label: %q", r.Parent.Key.Label)
	if r.Parent.Key.Label == "" {
		key = fmt.Sprintf("id: %q", hex.EncodeToString(r.Parent.Key.ID))
	}
	plan = filepath.Join(dir, "revoke.yaml")
	files := map[string][]byte{
		r.Parent.Name + ".cer": r.Parent.Certificate,
		"revoke.yaml": fmt.Appendf(nil, `ceremony: revoke-%s
description: The CRL of %s that revokes %[1]s
output: out
crls:
  - issuer: %[2]s
    certificate: %[2]s.cer
    key: {%s}
    validity: %s
    %s
    revoked:
      - {serial: %s, reason: %s, at: %q}
`, r.Authority.Name, r.Parent.Name, key, validity, previous, hex.EncodeToString(r.Serial), r.Revocation.Reason,
			r.Revocation.At.UTC().Format(time.RFC3339)),
	}
	if len(current.DER) > 0 {
		files[r.Parent.Name+".crl"] = current.DER
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return "", fmt.Errorf("writing the plan of the ceremony: %w", err)
		}
	}
	return plan, nil
}
