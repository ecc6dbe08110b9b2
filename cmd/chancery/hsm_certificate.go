package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

func (a *app) hsmCertificateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "certificate", Short: "Store certificates beside their keys"}
	cmd.AddCommand(a.hsmCertificateImportCommand(), a.hsmCertificateListCommand(), a.hsmCertificateFetchCommand(), a.hsmCertificateDeleteCommand())
	return cmd
}

// tokenCertificateJSON is a certificate object as the command line shows it.
type tokenCertificateJSON struct {
	Label    string    `json:"label"`
	ID       string    `json:"id"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	Paired   bool      `json:"paired"` // the token holds its private key
}

func newTokenCertificateJSON(c hsm.Certificate) tokenCertificateJSON {
	x := c.Certificate
	return tokenCertificateJSON{c.Label, hex.EncodeToString(c.ID), x.Subject.String(), x.Issuer.String(), x.SerialNumber.Text(16), x.NotAfter, c.Paired}
}

func (a *app) hsmCertificateImportCommand() *cobra.Command {
	var f tokenFlags
	var in, label, id string
	cmd := &cobra.Command{
		Use:   "import --in FILE",
		Short: "Store a certificate; it is paired with its key, where the token holds it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			octets, err := parseID(id)
			if err != nil {
				return err
			}
			data, err := a.inputWhole(in)
			if err != nil {
				return err
			}
			if block, _ := pem.Decode(data); block != nil {
				data = block.Bytes
			}
			certificate, err := x509.ParseCertificate(data)
			if err != nil {
				return fmt.Errorf("%s is no certificate in PEM or DER: %w", in, err)
			}
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				stored, err := w.ImportCertificate(ctx, certificate, hsm.KeyRef{Label: label, ID: octets})
				if err != nil {
					return err
				}
				return a.print(newTokenCertificateJSON(stored), func(out io.Writer) {
					beside := "the token does not hold its key"
					if stored.Paired {
						beside = "paired with its key"
					}
					fmt.Fprintf(out, "stored as %q, id %x, %s\n", stored.Label, stored.ID, beside)
				})
			})
		},
	}
	f.addRecording(cmd)
	cmd.Flags().StringVar(&in, "in", "", "file with the certificate, PEM or DER; - for standard input")
	cmd.Flags().StringVar(&label, "label", "", "label for it (default: its key's)")
	cmd.Flags().StringVar(&id, "id", "", "id for it in hexadecimal (default: its key's)")
	_ = cmd.MarkFlagRequired("in")
	return cmd
}

func (a *app) hsmCertificateListCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificates in the token",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				found, err := w.Certificates(ctx, hsm.KeyRef{})
				if err != nil {
					return err
				}
				all := []tokenCertificateJSON{}
				for _, c := range found {
					all = append(all, newTokenCertificateJSON(c))
				}
				return a.print(all, func(out io.Writer) {
					t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "LABEL\tID\tKEY\tEXPIRES\tSERIAL\tSUBJECT")
					for _, c := range all {
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", cell(0, c.Label), c.ID, map[bool]string{true: "here", false: "-"}[c.Paired],
							c.NotAfter.Format(time.DateOnly), c.Serial, cell(5, c.Subject))
					}
					_ = t.Flush()
				})
			})
		},
	}
	f.addRecording(cmd)
	return cmd
}

// certificate is the one that ref names.
func (w *worksite) certificate(ctx context.Context, ref hsm.KeyRef) (hsm.Certificate, error) {
	found, err := w.Certificates(ctx, ref)
	switch {
	case err != nil:
		return hsm.Certificate{}, err
	case len(found) == 0:
		return hsm.Certificate{}, fmt.Errorf("there is no certificate with %s; `chancery hsm certificate list` shows them", ref)
	case len(found) > 1:
		return hsm.Certificate{}, fmt.Errorf("%w: %d certificates have %s; name one by --key and --key-id", hsm.ErrAmbiguous, len(found), ref)
	}
	return found[0], nil
}

func (a *app) hsmCertificateFetchCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var out string
	cmd := &cobra.Command{
		Use:   "fetch --key LABEL [--out FILE]",
		Short: "Write a certificate as PEM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				found, err := w.certificate(ctx, ref)
				if err != nil {
					return err
				}
				text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found.Certificate.Raw})
				if err := a.deliver(out, text, 0o644); err != nil {
					return err
				}
				return a.report(out, map[string]string{"certificate": string(text)}, "the certificate is in %s", out)
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file for the certificate (default, and -: standard output)")
	return cmd
}

func (a *app) hsmCertificateDeleteCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete --key LABEL",
		Short: "Remove a certificate from the token; its key stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				found, err := w.certificate(ctx, ref)
				if err != nil {
					return err
				}
				question := fmt.Sprintf("Remove the certificate %q of %s from token %q?", found.Label, found.Certificate.Subject, w.Info().Label)
				if err := a.confirm(yes, question); err != nil {
					return err
				}
				if err := w.DeleteCertificate(ctx, ref, found.Certificate); err != nil {
					return err
				}
				return a.print(map[string]string{"deleted": ref.String()}, func(out io.Writer) { fmt.Fprintln(out, "the certificate is removed") })
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return cmd
}

func (a *app) hsmAttestCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var signer, verify, trusted, out string
	cmd := &cobra.Command{
		Use:   "attest (--key LABEL --out FILE | --verify FILE)",
		Short: "Write signed evidence of a key and its token, or verify it",
		Long: `Write signed evidence of a key and its token: what the module, the slot and the token say of themselves, the mechanisms, the attributes
of the key (CKA_LOCAL, CKA_NEVER_EXTRACTABLE, CKA_KEY_GEN_MECHANISM and the others), its public key, and the FIPS 140 certificate that the
configuration declares. The key itself signs it, or --signer.

With --verify no token is needed. --trusted names the public key that must have signed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verify != "" {
				return a.verifyAttestation(verify, trusted)
			}
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				attestation, err := w.Attest(ctx, ref, hsm.KeyRef{Label: signer}, w.where.FIPS140.declaration())
				if err != nil {
					return err
				}
				data, err := json.MarshalIndent(attestation, "", "  ")
				if err != nil {
					return fmt.Errorf("writing the evidence: %w", err)
				}
				data = append(data, '\n')
				if out == "" || out == standardStream {
					return a.deliver(standardStream, data, 0)
				}
				if err := writeFile(out, data, 0o644); err != nil {
					return err
				}
				return a.report(out, map[string]string{"file": out}, "the evidence is in %s; anybody can check it by `chancery hsm attest --verify %[1]s`", out)
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&signer, "signer", "", "label of the key that signs the evidence (default: the key itself)")
	cmd.Flags().StringVar(&out, "out", "", "file for the evidence (default, and -: standard output)")
	cmd.Flags().StringVar(&verify, "verify", "", "file with evidence to verify; - for standard input")
	cmd.Flags().StringVar(&trusted, "trusted", "", "with --verify: file with the public key that must have signed, PEM")
	withValue(cmd, "verify", "trusted")
	return cmd
}

func (a *app) verifyAttestation(path, trusted string) error {
	if err := a.checkStreams(streams{in: []string{path, trusted}}); err != nil {
		return err
	}
	data, err := a.inputWhole(path)
	if err != nil {
		return err
	}
	var public crypto.PublicKey
	if trusted != "" {
		if public, err = a.publicKeyFile(trusted); err != nil {
			return err
		}
	}
	evidence, spki, err := hsm.VerifyAttestation(data, public)
	if err != nil {
		return err
	}
	half, _ := pem.Decode([]byte(evidence.PublicKey)) // verified; a secret key has none
	itself := half != nil && sha256.Sum256(half.Bytes) == spki
	result := struct {
		Signer   string       `json:"signer_spki_sha256"`
		Trusted  bool         `json:"signer_trusted"`
		Itself   bool         `json:"signer_is_attested_key"`
		Unsigned []string     `json:"unsigned"` // fields of the file that the signature does not cover, and that prove nothing
		Evidence hsm.Evidence `json:"evidence"`
	}{hex.EncodeToString(spki[:]), trusted != "", itself, []string{"signature.label", "signature.id"}, evidence}
	return a.print(result, func(w io.Writer) {
		said := "which is the trusted one"
		if trusted == "" {
			said = "which nothing here says is to be trusted: compare it, or give --trusted"
		}
		confined := "the token says that the key is confined to it"
		if !evidence.Confined {
			confined = "the key is NOT confined to the token: " + legible(evidence.Unconfined)
		}
		signer := "the attested key itself"
		if !itself {
			signer = "another than the attested one"
		}
		fmt.Fprintf(w, "the signature is valid\n  by the key with SHA-256 %x,\n  %s\n"+
			"  %s; the label and the id beside the signature are not signed\n  made %s on token %q, serial %s\n  %s\n", spki, said, signer,
			evidence.Time.Format(time.RFC3339), evidence.Slot.Token.Label, legible(evidence.Slot.Token.Serial), confined)
		if d := evidence.Declared; d.FIPSLevel > 0 {
			fmt.Fprintf(w, "  FIPS 140 level %d, certificate %s, as the operator declared\n", d.FIPSLevel, legible(d.FIPSCertificate))
		}
		for _, proof := range evidence.Key {
			fmt.Fprintln(w, legible(proof.Class))
			for _, attribute := range proof.Attributes {
				fmt.Fprintf(w, "  %-24s %s\n", legible(attribute.Name), legible(attribute.Value))
			}
		}
		fmt.Fprint(w, evidence.PublicKey)
	})
}
