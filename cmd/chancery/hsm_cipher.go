package main

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

// cipherFlags say how something is encrypted or wrapped.
type cipherFlags struct{ hash, contextText string }

func (f *cipherFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.hash, "oaep-hash", "sha256", "hash of RSA-OAEP: sha256, sha384, sha512, sha1 (SoftHSM has sha1 alone)")
	cmd.Flags().StringVar(&f.contextText, "context", "", "with --raw: text that is authenticated and not encrypted; decrypting needs the same")
}

func (f *cipherFlags) oaep() (crypto.Hash, error) {
	hash, err := hsm.ParseHash(f.hash)
	if err != nil {
		return 0, misuse{fmt.Errorf("--oaep-hash: %w", err)}
	}
	return hash, nil
}

func (a *app) hsmEncryptCommand() *cobra.Command {
	return a.cipherCommand("encrypt", "Encrypt a file of any length with an AES key, or with the public half of an RSA key", `
The file is written in an authenticated format (docs/hsm.md): a data key of its own, encrypted by the key in the token, encrypts the contents
in chunks. With --raw the key in the token encrypts at most 1 MiB by itself: AES-GCM (nonce, ciphertext, tag) or RSA-OAEP (some octets).`,
		func(ctx context.Context, w *worksite, ref hsm.KeyRef, c hsm.Cipher, dst io.Writer, src io.Reader) error {
			return w.EncryptFile(ctx, ref, c, dst, src)
		}, (*hsm.Token).Encrypt)
}

func (a *app) hsmDecryptCommand() *cobra.Command {
	return a.cipherCommand("decrypt", "Decrypt a file", `
The output is written under another name and takes its own only when the whole input has proven authentic: a file that was cut short,
changed, or made for another key leaves nothing. Without --key the key that the file names is used.`,
		func(ctx context.Context, w *worksite, ref hsm.KeyRef, _ hsm.Cipher, dst io.Writer, src io.Reader) error {
			return w.DecryptFile(ctx, ref, dst, src)
		}, (*hsm.Token).Decrypt)
}

func (a *app) cipherCommand(verb, short, long string,
	file func(context.Context, *worksite, hsm.KeyRef, hsm.Cipher, io.Writer, io.Reader) error,
	raw func(*hsm.Token, context.Context, hsm.KeyRef, hsm.Cipher, []byte) ([]byte, error),
) *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var how cipherFlags
	var in, out string
	var whole bool
	cmd := &cobra.Command{
		Use:   verb + " --key LABEL --in FILE --out FILE",
		Short: short,
		Long:  short + ".\n" + long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ref, err := key.ref()
			if err != nil && (verb == "encrypt" || whole || key != (keyFlags{})) {
				return err
			}
			c := hsm.Cipher{Context: []byte(how.contextText)}
			if c.Hash, err = how.oaep(); err != nil {
				return err
			}
			if how.contextText != "" && !whole {
				return misuse{errors.New("--context goes with --raw")}
			}
			if err := a.checkStreams(streams{out: []string{out}, octets: true}); err != nil {
				return err
			}
			src, err := a.input(in)
			if err != nil {
				return err
			}
			defer src.Close()
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				err := a.atOnce(out, func(dst io.Writer) error {
					if !whole {
						return file(ctx, w, ref, c, dst, src)
					}
					data, err := io.ReadAll(io.LimitReader(src, maxInput))
					if err != nil {
						return fmt.Errorf("reading the input: %w", err)
					}
					if data, err = raw(w.Token, ctx, ref, c, data); err != nil {
						return err
					}
					_, err = dst.Write(data)
					return err
				})
				if err != nil {
					return err
				}
				return a.report(out, map[string]string{"file": out}, "the result is in %s", out)
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	how.add(cmd)
	cmd.Flags().StringVar(&in, "in", "", "file to read; - for standard input")
	cmd.Flags().StringVar(&out, "out", "", "file to write, - for standard output; it appears only when everything went well")
	cmd.Flags().BoolVar(&whole, "raw", false, "no file format: what the key in the token makes of the input")
	_ = cmd.MarkFlagRequired("in")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// atOnce writes a file that appears whole or not at all; "-" is standard output, which gets all of it at the end.
func (a *app) atOnce(path string, write func(io.Writer) error) error {
	if path == standardStream {
		return heldBack(a.Stdout, write)
	}
	return replaceFile(path, 0o600, write)
}

// wrapFlags say under which key and how.
type wrapFlags struct{ under, underID, method string }

func (f *wrapFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.under, "under", "", "label of the wrapping key in this token")
	cmd.Flags().StringVar(&f.underID, "under-id", "", "id of the wrapping key in hexadecimal")
	cmd.Flags().StringVar(&f.method, "method", "", "aes-kwp, rsa-oaep, rsa-aes (default: aes-kwp under an AES key, rsa-aes under an RSA key)")
}

func (f *wrapFlags) ref() (hsm.KeyRef, error) {
	id, err := parseID(f.underID)
	return hsm.KeyRef{Label: f.under, ID: id}, err
}

func (a *app) hsmWrapCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var under wrapFlags
	var how cipherFlags
	var recipient, out, publicOut string
	var yes bool
	cmd := &cobra.Command{
		Use:   "wrap --key LABEL (--under KEY | --recipient PUBLIC.pem) --out FILE",
		Short: "Take a key out of the token, encrypted for another",
		Long: `Take a key out of the token, encrypted under a key in it, or for the public key of another token (` + "`chancery hsm key show --public pem`" + ` there).

Only a key that was generated with --extractable can be wrapped.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec := hsm.WrapSpec{Method: hsm.WrapMethod(under.method)}
			var err error
			if spec.Under, err = under.ref(); err != nil {
				return err
			}
			if err := a.checkStreams(streams{out: []string{out, publicOut}, octets: true}); err != nil {
				return err
			}
			if spec.Hash, err = how.oaep(); err != nil {
				return err
			}
			if (recipient == "") == (under.under == "" && under.underID == "") {
				return misuse{errors.New("under which key? give --under, or --recipient with the public key of another token")}
			}
			if recipient != "" {
				public, err := a.publicKeyFile(recipient)
				if err != nil {
					return err
				}
				rsaKey, ok := public.(*rsa.PublicKey)
				if !ok {
					return fmt.Errorf("%s: keys are wrapped for RSA keys, and this is a %T", recipient, public)
				}
				spec.Recipient = rsaKey
			}
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				exact, err := w.exact(ctx, ref)
				if err != nil {
					return err
				}
				spec.Key = exact
				if !yes { // nobody is asked in vain; with --yes the token answers
					if err := w.leavable(ctx, exact); err != nil {
						return err
					}
				}
				if err := a.confirm(yes, fmt.Sprintf("The key %q, id %x, will leave token %q, wrapped. Go on?", exact.Label, exact.ID, w.Info().Label)); err != nil {
					return err
				}
				var half []byte
				if publicOut != "" { // which a key may not have: it is looked for before the key leaves
					public, err := w.PublicKey(exact)
					if err != nil {
						return err
					}
					if half, err = publicKeyPEM(public); err != nil {
						return err
					}
				}
				wrapped, err := w.Wrap(ctx, spec)
				if err != nil {
					return err
				}
				if publicOut != "" {
					if err := a.deliver(publicOut, half, 0o644); err != nil {
						return err
					}
				}
				if err := a.deliver(out, wrapped, 0o600); err != nil {
					return err
				}
				if publicOut == standardStream {
					return nil // standard output is taken
				}
				return a.report(out, map[string]string{"file": out, "id": hex.EncodeToString(exact.ID)}, "the wrapped key is in %s, %d octets", out, len(wrapped))
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	under.add(cmd)
	how.add(cmd)
	_ = cmd.Flags().MarkHidden("context")
	cmd.Flags().StringVar(&recipient, "recipient", "", "file with another token's RSA public key, PEM")
	cmd.Flags().StringVar(&out, "out", "", "file for the wrapped key; - for standard output")
	cmd.Flags().StringVar(&publicOut, "public-out", "", "file for the public key of a pair, PEM, which unwrapping needs; - for standard output")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// leavable refuses a key that was made to stay.
func (w *worksite) leavable(ctx context.Context, key hsm.KeyRef) error {
	objects, err := w.Objects(ctx, key)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.Get("CKA_EXTRACTABLE") == "false" {
			return fmt.Errorf("the key %q was made to stay in token %q (CKA_EXTRACTABLE is false) and cannot be wrapped; "+
				"only a key generated with --extractable can", key.Label, w.Info().Label)
		}
	}
	return nil
}

func (a *app) hsmUnwrapCommand() *cobra.Command {
	var f tokenFlags
	var spec specFlags
	var under wrapFlags
	var how cipherFlags
	var in, publicFile string
	var extractable bool
	cmd := &cobra.Command{
		Use:   "unwrap --under KEY --in FILE --algorithm ALGORITHM --label LABEL [--public-key FILE]",
		Short: "Take a wrapped key into the token",
		Long: `Take a wrapped key into the token, with a whole template: it can do what is said and nothing else, and cannot leave again.

The key is proven to be what is said; when anything is wrong, nothing stays in the token. A key that was outside stays marked:
CKA_LOCAL and CKA_NEVER_EXTRACTABLE are false, and no authority will take it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := spec.check(); err != nil {
				return err
			}
			ref, err := under.ref()
			if err != nil {
				return err
			}
			hash, err := how.oaep()
			if err != nil {
				return err
			}
			if err := a.checkStreams(streams{in: []string{in, publicFile}}); err != nil {
				return err
			}
			wrapped, err := a.inputWhole(in)
			if err != nil {
				return err
			}
			var public crypto.PublicKey
			if publicFile != "" {
				if public, err = a.publicKeyFile(publicFile); err != nil {
					return err
				}
			}
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				s, err := spec.spec(w, extractable)
				if err != nil {
					return err
				}
				s.Extractable = extractable // the policy permits it, and nobody is asked here
				made, err := w.Unwrap(ctx, hsm.UnwrapSpec{Under: ref, Method: hsm.WrapMethod(under.method), Hash: hash, Key: s, Public: public}, wrapped)
				if err != nil {
					return err
				}
				result := map[string]string{"label": made.Label, "id": hex.EncodeToString(made.ID)}
				return a.print(result, func(out io.Writer) { fmt.Fprintf(out, "the key is in the token as %q, id %x\n", made.Label, made.ID) })
			})
		},
	}
	f.addRecording(cmd)
	spec.add(cmd)
	under.add(cmd)
	how.add(cmd)
	_ = cmd.Flags().MarkHidden("context")
	cmd.Flags().StringVar(&in, "in", "", "file with the wrapped key; - for standard input")
	cmd.Flags().StringVar(&publicFile, "public-key", "", "file with the public key of a pair, PEM; needed but for RSA")
	cmd.Flags().BoolVar(&extractable, "extractable", false, "the key may leave this token too, wrapped")
	_ = cmd.MarkFlagRequired("in")
	return cmd
}

// publicKeyFile reads a public key in PEM.
func (a *app) publicKeyFile(path string) (crypto.PublicKey, error) {
	data, err := a.inputWhole(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s holds no PEM block PUBLIC KEY; `chancery hsm key show --public pem` writes one", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return public, nil
}
