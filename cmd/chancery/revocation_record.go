package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
)

// recordedJSON is a revocation of a lost certificate as the command line shows it.
type recordedJSON struct {
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	Reason    string    `json:"reason"`
	RevokedAt time.Time `json:"revoked_at"`
	Event     string    `json:"audit_event"`
}

func (a *app) revocationRecordCommand() *cobra.Command {
	var path, reason string
	var signed []string
	var yes bool
	lost := ca.LostCertificate{}
	cmd := &cobra.Command{
		Use:   "record --issuer NAME SERIAL...",
		Short: "Revoke certificates that an authority signed and that are on no record",
		Long: `Revoke certificates that an authority signed and that are on no record: an older copy of the database took the place of the one
that had them. chancery audit reconcile names their serial numbers (signature-unrecorded).

The next CRL and OCSP say so, within seconds. The serial numbers stay on the CRL until the authority ends. What is on record is revoked by
chancery revoke.

With --sha256, as the account has it, the record also says what was signed, and later accounts hold the journal against it. Of a serial
number alone they take the first certificate for the one that was meant. What is recorded stays: say it at once.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, serials []string) error {
			why, err := ca.ParseReason(reason)
			if err != nil {
				return misuse{fmt.Errorf("--reason: %w", err)}
			}
			lost.Reason = why
			all := make([]issuance.Serial, len(serials))
			for i, text := range serials {
				octets, err := hex.DecodeString(text)
				if err != nil || len(octets) != len(all[i]) {
					return misuse{fmt.Errorf("%q is no serial number: write its 40 hexadecimal digits", text)}
				}
				copy(all[i][:], octets)
			}
			if lost.Signed, err = readDigests(signed); err != nil {
				return misuse{fmt.Errorf("--sha256: %w", err)}
			}
			if len(signed) > 0 && len(all) > 1 {
				return misuse{errors.New("--sha256 is of one certificate: record it by itself")}
			}
			return a.withStore(cmd.Context(), path, func(cfg Config, store *storage.Store) error {
				if !yes {
					question := fmt.Sprintf("Revoke %d certificates of %s that are on no record?", len(all), lost.Issuer)
					if err := a.confirmWord(question, lost.Issuer); err != nil {
						return err
					}
				}
				done := []recordedJSON{}
				for _, serial := range all {
					lost.Serial, lost.Scope = serial, cfg.CRLs.lists()[lost.Issuer].ScopeOf(serial)
					r, err := a.registrar(store).RevokeLost(cmd.Context(), lost)
					if err != nil {
						return err
					}
					done = append(done, recordedJSON{r.Issuer, serial.String(), r.Reason.String(), r.At, r.EventID})
				}
				return a.print(done, func(w io.Writer) {
					for _, r := range done {
						fmt.Fprintf(w, "%s is revoked (%s) since %s\n", r.Serial, r.Reason, r.RevokedAt.Local().Format(time.RFC3339))
					}
				})
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&lost.Issuer, "issuer", "", "the authority that signed them")
	cmd.Flags().StringVar(&lost.Comment, "comment", "", "a note to keep with it")
	cmd.Flags().StringArrayVar(&signed, "sha256", nil,
		"digest of what was signed, as the account names it; twice where the certificate has a precertificate")
	cmd.Flags().StringVar(&reason, "reason", "unspecified", "why, by RFC 5280's name or number")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("issuer")
	return cmd
}

func readDigests(texts []string) ([][sha256.Size]byte, error) {
	all := make([][sha256.Size]byte, len(texts))
	for i, text := range texts {
		octets, err := hex.DecodeString(text)
		if err != nil || len(octets) != len(all[i]) {
			return nil, fmt.Errorf("%q is no digest: write its 64 hexadecimal digits", text)
		}
		all[i] = [sha256.Size]byte(octets)
	}
	return all, nil
}
