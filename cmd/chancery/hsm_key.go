package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

func (a *app) hsmKeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Generate, list, show, label and destroy keys"}
	cmd.AddCommand(a.hsmKeyGenerateCommand(), a.hsmKeyListCommand(), a.hsmKeyShowCommand(), a.hsmKeyLabelCommand(), a.hsmKeyDestroyCommand())
	return cmd
}

// specFlags say what a key is to be.
type specFlags struct {
	algorithm, label, id, usages, mechanisms string
	modifiable, copyable, indestructible     bool
}

func (f *specFlags) add(cmd *cobra.Command) {
	var names []string
	for _, algorithm := range hsm.Algorithms() {
		names = append(names, string(algorithm))
	}
	cmd.Flags().StringVar(&f.algorithm, "algorithm", "", strings.Join(names, ", "))
	cmd.Flags().StringVar(&f.label, "label", "", "label for the key (CKA_LABEL); it must be free")
	cmd.Flags().StringVar(&f.id, "id", "", "id for the key in hexadecimal (CKA_ID) (default: a random one)")
	cmd.Flags().StringVar(&f.usages, "for", "", "what it is for: sign, encrypt, wrap; several with commas (default: sign; encrypt for AES)")
	cmd.Flags().StringVar(&f.mechanisms, "mechanisms", "",
		"mechanisms it may be used with (CKA_ALLOWED_MECHANISMS), by PKCS#11 name, with commas")
	cmd.Flags().BoolVar(&f.modifiable, "modifiable", false, "CKA_MODIFIABLE: the label can be changed later")
	cmd.Flags().BoolVar(&f.copyable, "copyable", false, "CKA_COPYABLE")
	cmd.Flags().BoolVar(&f.indestructible, "indestructible", false, "CKA_DESTROYABLE is false: nobody can destroy it")
	_ = cmd.MarkFlagRequired("algorithm")
	_ = cmd.MarkFlagRequired("label")
}

// check refuses what no token could make, before one is opened.
func (f *specFlags) check() error {
	if !slices.Contains(hsm.Algorithms(), hsm.Algorithm(f.algorithm)) {
		return misuse{fmt.Errorf("the algorithm %q is unknown; take one of %v", f.algorithm, hsm.Algorithms())}
	}
	for _, u := range fields(f.usages) {
		if !slices.Contains([]hsm.Usage{hsm.UseSign, hsm.UseEncrypt, hsm.UseWrap}, hsm.Usage(u)) {
			return misuse{fmt.Errorf("--for %q: take sign, encrypt or wrap", u)}
		}
	}
	_, err := parseID(f.id)
	return err
}

// spec reads the flags, and what the usage policy says of the key.
func (f *specFlags) spec(w *worksite, extractable bool) (hsm.KeySpec, error) {
	id, err := parseID(f.id)
	if err != nil {
		return hsm.KeySpec{}, err
	}
	s := hsm.KeySpec{
		Algorithm: hsm.Algorithm(f.algorithm), Label: f.label, ID: id, Extractable: extractable,
		Modifiable: f.modifiable, Copyable: f.copyable, Indestructible: f.indestructible,
	}
	for _, u := range fields(f.usages) {
		s.Usages = append(s.Usages, hsm.Usage(u))
	}
	s.Mechanisms = fields(f.mechanisms)
	if w.usage != nil {
		return w.usage.Spec(s)
	}
	return s, nil
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// objectJSON is a key or certificate as the command line shows it.
type objectJSON struct {
	Class      string            `json:"class"`
	Label      string            `json:"label"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Algorithm  string            `json:"algorithm,omitempty"`
	Half       bool              `json:"half,omitempty"` // of a pair whose other half is not in the token
	Attributes map[string]string `json:"attributes"`
}

func newObjectJSON(o hsm.Object) objectJSON {
	j := objectJSON{
		Class: o.Class, Label: o.Label, ID: hex.EncodeToString(o.ID), Type: o.Type, Algorithm: string(o.Algorithm),
		Attributes: map[string]string{},
	}
	for _, attribute := range o.Attributes {
		j.Attributes[attribute.Name] = attribute.Value
	}
	return j
}

// isHalf tells whether an object is half of a pair of which the token does not hold the other. They belong together by their CKA_ID, and by
// their label where they have none.
func isHalf(o hsm.Object, all []hsm.Object) bool {
	other, paired := map[string]string{"CKO_PRIVATE_KEY": "CKO_PUBLIC_KEY", "CKO_PUBLIC_KEY": "CKO_PRIVATE_KEY"}[o.Class]
	return paired && !slices.ContainsFunc(all, func(k hsm.Object) bool {
		return k.Class == other && bytes.Equal(k.ID, o.ID) && (len(o.ID) > 0 || k.Label == o.Label)
	})
}

func (a *app) hsmKeyGenerateCommand() *cobra.Command {
	var f tokenFlags
	var spec specFlags
	var extractable, yes bool
	cmd := &cobra.Command{
		Use:   "generate --algorithm ALGORITHM --label LABEL",
		Short: "Generate a key in the token",
		Long: `Generate a key in the token, for what is said and nothing else, that cannot leave it.

A usage policy (--usage, or the configuration's) that names the label decides what the key is for. What the token then says of the key is
read back and compared; a key that is not what was asked for is destroyed again.

A key that falls short of what the configuration requires (compliance) is not made. Where a keeper has the token, what it requires stands
in its own configuration: give that with --keeper-config, or the command says what it has not checked.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := spec.check(); err != nil {
				return err
			}
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				s, err := spec.spec(w, extractable)
				if err != nil {
					return err
				}
				required, err := a.demanded(w, s)
				if err != nil {
					return err
				}
				if err := checkSpec(w, required, s); err != nil {
					return err
				}
				if s.Extractable {
					if err := a.confirm(yes, fmt.Sprintf("The key %q will be able to leave the token, wrapped by another key. Generate it?",
						s.Label)); err != nil {
						return err
					}
				}
				ref, public, err := w.GenerateKey(ctx, s)
				if err != nil {
					return err
				}
				return a.showKey(ctx, w, ref, public, func(out io.Writer) {
					fmt.Fprintf(out, "generated the %s key %q, id %x\n", s.Algorithm, ref.Label, ref.ID)
				})
			})
		},
	}
	f.addRecording(cmd)
	spec.add(cmd)
	cmd.Flags().BoolVar(&extractable, "extractable", false,
		"CKA_EXTRACTABLE: the key may leave the token, wrapped by another key; asks for confirmation")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return cmd
}

// keyJSON is a key with both halves and its public key.
type keyJSON struct {
	Label     string          `json:"label"`
	ID        string          `json:"id"`
	Objects   []objectJSON    `json:"objects"`
	PublicKey string          `json:"public_key,omitempty"` // PEM
	JWK       json.RawMessage `json:"jwk,omitempty"`
}

func (a *app) showKey(ctx context.Context, w *worksite, ref hsm.KeyRef, public crypto.PublicKey, text func(io.Writer)) error {
	objects, err := w.Objects(ctx, ref)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return w.noKey(ref)
	}
	result := keyJSON{Label: objects[0].Label, ID: hex.EncodeToString(objects[0].ID)}
	for _, o := range objects {
		result.Objects = append(result.Objects, newObjectJSON(o))
	}
	if public != nil {
		pemText, err := publicKeyPEM(public)
		if err != nil {
			return err
		}
		result.PublicKey = string(pemText)
		if result.JWK, err = publicKeyJWK(public, result.ID); err != nil {
			return err
		}
	}
	return a.print(result, func(out io.Writer) {
		text(out)
		for _, o := range objects {
			fmt.Fprintf(out, "%s\n", o.Class)
			for _, attribute := range o.Attributes {
				fmt.Fprintf(out, "  %-24s %s\n", attribute.Name, attribute.Value)
			}
		}
		fmt.Fprint(out, result.PublicKey)
	})
}

func publicKeyPEM(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// publicKeyJWK is RFC 7517 and 7518, and RFC 8037 for Ed25519.
func publicKeyJWK(public crypto.PublicKey, id string) (json.RawMessage, error) {
	text := base64.RawURLEncoding.EncodeToString
	var jwk map[string]string
	switch k := public.(type) {
	case *rsa.PublicKey:
		jwk = map[string]string{"kty": "RSA", "n": text(k.N.Bytes()), "e": text(big.NewInt(int64(k.E)).Bytes())}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encoding the public key: %w", err)
		}
		half := (len(point) - 1) / 2
		jwk = map[string]string{"kty": "EC", "crv": k.Curve.Params().Name, "x": text(point[1 : 1+half]), "y": text(point[1+half:])}
	case ed25519.PublicKey:
		jwk = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": text(k)}
	default:
		return nil, fmt.Errorf("a public key of type %T has no JWK here", public)
	}
	jwk["kid"] = id
	return json.Marshal(jwk)
}

func (a *app) hsmKeyListCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys in the token",
		Long: `List the keys in the token.

A pair is two objects. One that is alone is marked as half: of a key whose destruction was cut short, which "key destroy" ends when it is
called again, or a public key that somebody stored by itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				objects, err := w.Objects(ctx, hsm.KeyRef{})
				if err != nil {
					return err
				}
				all := []objectJSON{}
				for _, o := range objects {
					if o.Class != "CKO_CERTIFICATE" {
						shown := newObjectJSON(o)
						shown.Half = isHalf(o, objects)
						all = append(all, shown)
					}
				}
				return a.print(all, func(out io.Writer) {
					t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "LABEL\tID\tCLASS\tALGORITHM\tFOR\tEXTRACTABLE")
					for _, o := range all {
						var may []string
						for _, name := range []string{"SIGN", "VERIFY", "ENCRYPT", "DECRYPT", "WRAP", "UNWRAP"} {
							if o.Attributes["CKA_"+name] == "true" {
								may = append(may, strings.ToLower(name))
							}
						}
						algorithm := o.Algorithm
						if algorithm == "" {
							algorithm = o.Type
						}
						class := o.Class
						if o.Half {
							class += " (half)"
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", cell(0, o.Label), o.ID, class, algorithm, strings.Join(may, ","),
							orDash(o.Attributes["CKA_EXTRACTABLE"]))
					}
					_ = t.Flush()
				})
			})
		},
	}
	f.addRecording(cmd)
	return cmd
}

func (a *app) hsmKeyShowCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var public string
	cmd := &cobra.Command{
		Use:   "show --key LABEL",
		Short: "Show a key's attributes by their PKCS#11 names, and its public key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if public != "" && public != "pem" && public != "jwk" {
				return misuse{fmt.Errorf("--public %q: use pem or jwk", public)}
			}
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				half, err := w.PublicKey(ref)
				if err != nil && (public != "" || !errors.Is(err, hsm.ErrKeyNotFound)) {
					return err
				}
				switch public {
				case "pem":
					text, err := publicKeyPEM(half)
					if err != nil {
						return err
					}
					return a.print(map[string]string{"public_key": string(text)}, func(out io.Writer) { _, _ = out.Write(text) })
				case "jwk":
					exact, err := w.exact(ctx, ref)
					if err != nil {
						return err
					}
					text, err := publicKeyJWK(half, hex.EncodeToString(exact.ID))
					if err != nil {
						return err
					}
					return a.deliver(standardStream, append(text, '\n'), 0)
				}
				return a.showKey(ctx, w, ref, half, func(io.Writer) {})
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&public, "public", "", "print the public key alone, as pem or jwk")
	return cmd
}

func (a *app) hsmKeyLabelCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var label string
	var yes bool
	cmd := &cobra.Command{
		Use:   "label --key LABEL --label NEW",
		Short: "Give a key another label",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				exact, err := w.exact(ctx, ref)
				if err != nil {
					return err
				}
				if _, err := a.confirmUnused(ctx, w, exact, yes, "relabel"); err != nil {
					return err
				}
				if _, err := w.unused(ctx, exact); err != nil {
					return err
				}
				if err := w.SetLabel(ctx, exact, label); err != nil {
					return err
				}
				result := map[string]string{"label": label, "id": hex.EncodeToString(exact.ID)}
				return a.print(result, func(out io.Writer) { fmt.Fprintf(out, "the key %q is now %q\n", exact.Label, label) })
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&label, "label", "", "the new label")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	_ = cmd.MarkFlagRequired("label")
	return cmd
}

func (a *app) hsmKeyDestroyCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var yes bool
	var order string
	cmd := &cobra.Command{
		Use:   "destroy --key LABEL",
		Short: "Destroy a key for ever",
		Long: `Destroy a key for ever: both halves of a pair, or a secret key.

Where a token was lost between the two halves, one is left, which "key list" shows. Call the command again: it destroys that.

With --config, a key is refused that an authority needs, an OCSP responder or the audit log of the configuration, or an approver. An authority
that the configuration does not name needs its key no more once it is revoked or has ended, or everything that it certified has, other
authorities and revoked certificates among it, which its CRLs show until then: that is said, and the key can go. Without --config nobody can tell, and --yes is needed. Keys under which others were wrapped are not known
to anybody: see first that no backup needs them.
Where the configuration asks for approvals (orders.destroy_key), it places an order, which others approve; called again with --order, it
destroys the key.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				exact, half, err := w.destroyable(ctx, ref)
				if err != nil {
					return err
				}
				past, err := a.confirmUnused(ctx, w, exact, yes, "destroy")
				if err != nil {
					return err
				}
				if err := a.destroyUnderOrder(ctx, w, exact, past, order); err != nil {
					return err
				}
				// Somebody may have made an authority of it while this person was asked, and others were.
				if _, err := w.unused(ctx, exact); err != nil {
					return err
				}
				if err := w.Destroy(ctx, exact); err != nil {
					return err
				}
				result := map[string]string{"label": exact.Label, "id": hex.EncodeToString(exact.ID)}
				return a.print(result, func(out io.Writer) {
					what := "the key"
					if half {
						what = "the public half, which was what was left of the key"
					}
					fmt.Fprintf(out, "%s %q, id %x, is destroyed\n", what, exact.Label, exact.ID)
				})
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&order, "order", "", "the order that others have approved")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return cmd
}

func (w *worksite) noKey(ref hsm.KeyRef) error {
	return fmt.Errorf("%w with %s in token %q; `chancery hsm key list` shows the keys", hsm.ErrKeyNotFound, ref, w.Info().Label)
}

// exact finds the whole name of the one private or secret key that ref names.
func (w *worksite) exact(ctx context.Context, ref hsm.KeyRef) (hsm.KeyRef, error) {
	objects, err := w.Objects(ctx, ref)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	var found []hsm.KeyRef
	var several []string
	for _, o := range objects {
		if o.Class == "CKO_PRIVATE_KEY" || o.Class == "CKO_SECRET_KEY" {
			found, several = append(found, o.KeyRef), append(several, o.KeyRef.String())
		}
	}
	switch len(found) {
	case 0:
		return hsm.KeyRef{}, w.noKey(ref)
	case 1:
		return found[0], nil
	}
	return hsm.KeyRef{}, fmt.Errorf("%w; name one by --key and --key-id: %s", hsm.ErrAmbiguous, strings.Join(several, "; "))
}

// destroyable finds what exact does, and else the public half of a key whose private half is gone.
func (w *worksite) destroyable(ctx context.Context, ref hsm.KeyRef) (key hsm.KeyRef, half bool, err error) {
	key, missing := w.exact(ctx, ref)
	if !errors.Is(missing, hsm.ErrKeyNotFound) {
		return key, false, missing
	}
	objects, err := w.Objects(ctx, ref)
	if err != nil {
		return hsm.KeyRef{}, false, err
	}
	objects = slices.DeleteFunc(objects, func(o hsm.Object) bool { return o.Class != "CKO_PUBLIC_KEY" })
	switch len(objects) {
	case 0:
		return hsm.KeyRef{}, false, missing
	case 1:
		return objects[0].KeyRef, true, nil
	}
	return hsm.KeyRef{}, false, fmt.Errorf("%w: %d public keys without their private halves have %s; name one by --key and --key-id",
		hsm.ErrAmbiguous, len(objects), ref)
}

// unused refuses a key that somebody of the configuration or its database uses now, and tells which authorities did before. Where there is no
// database, there is nobody to ask.
func (w *worksite) unused(ctx context.Context, key hsm.KeyRef) (past []string, err error) {
	if w.store == nil {
		return nil, nil
	}
	uses, err := w.usesOf(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("looking for who uses the key %q: %w", key.Label, err)
	}
	if len(uses.present) > 0 {
		return nil, fmt.Errorf("the key %q is that of the %s; a key is not to be lost, or renamed, while it is known there", key.Label,
			strings.Join(uses.present, ", and of the "))
	}
	return uses.past, nil
}

// confirmUnused refuses a key that is used, says which authorities used it, and has the person say that it may go. Where no database could be
// asked, only --yes goes on. The person may take long over it: whoever goes on looks once more.
func (a *app) confirmUnused(ctx context.Context, w *worksite, key hsm.KeyRef, yes bool, verb string) (past []string, err error) {
	if w.store == nil {
		if yes {
			return nil, nil
		}
		return nil, fmt.Errorf("whether the key %q is in use could not be checked, because no configuration with a database was asked: "+
			"give --config, or --yes to %s it all the same", key.Label, verb)
	}
	if past, err = w.unused(ctx, key); err != nil {
		return nil, err
	}
	use := "a use"
	for _, one := range past {
		fmt.Fprintf(a.Stderr, "the key %q was that of the authority %s\n", key.Label, one)
		use = "another use"
	}
	return past, a.confirm(yes, fmt.Sprintf("Neither the configuration nor its database knows %s of the key %q, id %x. %s%s it?", use, key.Label,
		key.ID, strings.ToUpper(verb[:1]), verb[1:]))
}
