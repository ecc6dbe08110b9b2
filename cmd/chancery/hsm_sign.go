package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
)

// signFlags say what is signed and how.
type signFlags struct{ in, digest, scheme, hash string }

func (f *signFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.in, "in", "", "file with the message; - for standard input")
	cmd.Flags().StringVar(&f.digest, "digest", "", "instead of a message: its digest in hexadecimal")
	cmd.Flags().StringVar(&f.scheme, "scheme", "", "rsa-pss, rsa-pkcs1, ecdsa, eddsa (default: what the key does; rsa-pss for RSA)")
	cmd.Flags().StringVar(&f.hash, "hash", "", "sha256, sha384, sha512 (default: as strong as the key)")
}

func (f *signFlags) options() (hsm.SignOptions, error) {
	o := hsm.SignOptions{Scheme: hsm.Scheme(f.scheme)}
	if (f.in == "") == (f.digest == "") {
		return o, misuse{errors.New("what is signed? give --in FILE or --digest HEX")}
	}
	if f.scheme != "" && !slices.Contains([]hsm.Scheme{hsm.RSAPSS, hsm.RSAPKCS1, hsm.ECDSA, hsm.EdDSA}, o.Scheme) {
		return o, misuse{fmt.Errorf("--scheme %q: take rsa-pss, rsa-pkcs1, ecdsa or eddsa", f.scheme)}
	}
	if f.hash != "" {
		hash, err := hsm.ParseHash(f.hash)
		if err != nil {
			return o, misuse{fmt.Errorf("--hash: %w", err)}
		}
		o.Hash = hash
	}
	return o, nil
}

// over calls with what is signed: the digest, or the message.
func (f *signFlags) over(a *app, digest func([]byte) error, message func(io.Reader) error) error {
	if f.digest != "" {
		octets, err := hex.DecodeString(f.digest)
		if err != nil {
			return misuse{errors.New("--digest: write it in hexadecimal digits")}
		}
		return digest(octets)
	}
	in, err := a.input(f.in)
	if err != nil {
		return err
	}
	defer in.Close()
	return message(in)
}

func (a *app) hsmSignCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var what signFlags
	var out string
	cmd := &cobra.Command{
		Use:   "sign --key LABEL --in FILE --out FILE",
		Short: "Sign a file, or a digest",
		Long: `Sign a file, or a digest. The signature is verified before it is written.

RSA signatures are raw octets, ECDSA's a DER SEQUENCE, Ed25519's 64 octets: as openssl takes them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := what.options()
			if err != nil {
				return err
			}
			if err := a.checkStreams(streams{out: []string{a.octetsTo(out)}, octets: true}); err != nil {
				return err
			}
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				var signature []byte
				err := what.over(a, func(digest []byte) (err error) {
					signature, err = w.SignDigest(ctx, ref, options, digest)
					return err
				}, func(message io.Reader) (err error) {
					signature, err = w.Sign(ctx, ref, options, message)
					return err
				})
				if err != nil {
					return err
				}
				if err := a.deliver(out, signature, 0o644); err != nil {
					return err
				}
				return a.report(out, map[string][]byte{"signature": signature}, "the signature is in %s, %d octets", out, len(signature))
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	what.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file for the signature (default, and -: standard output)")
	return cmd
}

func (a *app) hsmVerifyCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var what signFlags
	var signatureFile string
	cmd := &cobra.Command{
		Use:   "verify --key LABEL --in FILE --signature FILE",
		Short: "Verify a signature; exit code 1 if it is not valid",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := what.options()
			if err != nil {
				return err
			}
			if err := a.checkStreams(streams{in: []string{what.in, signatureFile}}); err != nil {
				return err
			}
			signature, err := a.inputWhole(signatureFile)
			if err != nil {
				return err
			}
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				err := what.over(a, func(digest []byte) error { return w.VerifyDigest(ctx, ref, options, digest, signature) },
					func(message io.Reader) error { return w.Verify(ctx, ref, options, message, signature) })
				return a.verdict(err)
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	what.add(cmd)
	cmd.Flags().StringVar(&signatureFile, "signature", "", "file with the signature; - for standard input")
	_ = cmd.MarkFlagRequired("signature")
	return cmd
}

// verdict prints whether something is valid.
func (a *app) verdict(err error) error {
	if err != nil && !errors.Is(err, hsm.ErrSignature) {
		return err
	}
	valid := err == nil
	if printErr := a.print(map[string]bool{"valid": valid}, func(w io.Writer) { fmt.Fprintln(w, map[bool]string{true: "valid", false: "NOT valid"}[valid]) }); printErr != nil {
		return printErr
	}
	if !valid {
		return errSilent
	}
	return nil
}

func (a *app) hsmMACCommand() *cobra.Command {
	var f tokenFlags
	var key keyFlags
	var in, out, hashName, verify string
	cmd := &cobra.Command{
		Use:     "hmac --key LABEL --in FILE",
		Aliases: []string{"mac"},
		Short:   "Make an HMAC over a file, or verify one",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var hash crypto.Hash // 0: as the key says
			if hashName != "" {
				var err error
				if hash, err = hsm.ParseHash(hashName); err != nil {
					return misuse{fmt.Errorf("--hash: %w", err)}
				}
			}
			if err := a.checkStreams(streams{out: []string{out}, octets: true}); err != nil {
				return err
			}
			message, err := a.input(in)
			if err != nil {
				return err
			}
			defer message.Close()
			return a.onKey(cmd.Context(), &f, &key, func(ctx context.Context, w *worksite, ref hsm.KeyRef) error {
				if verify != "" {
					expected, err := hex.DecodeString(verify)
					if err != nil {
						return misuse{errors.New("--verify: write the HMAC in hexadecimal digits")}
					}
					return a.verdict(w.VerifyMAC(ctx, ref, hash, message, expected))
				}
				mac, err := w.MAC(ctx, ref, hash, message)
				return a.hexResult(out, "hmac", mac, err)
			})
		},
	}
	f.addRecording(cmd)
	key.add(cmd)
	cmd.Flags().StringVar(&in, "in", "-", "file with the message; - for standard input")
	cmd.Flags().StringVar(&out, "out", "", "file for the raw octets, - for standard output (default: hexadecimal digits there)")
	cmd.Flags().StringVar(&hashName, "hash", "", "sha256, sha384, sha512 (default: the one that the key is as long as, otherwise sha256)")
	cmd.Flags().StringVar(&verify, "verify", "", "the HMAC to verify, in hexadecimal; exit code 1 if it is not valid")
	withValue(cmd, "verify")
	return cmd
}

// hexResult delivers octets that people read as hexadecimal digits.
func (a *app) hexResult(out, name string, octets []byte, err error) error {
	if err != nil {
		return err
	}
	if out != "" {
		if err := a.deliver(out, octets, 0o600); err != nil {
			return err
		}
		return a.report(out, map[string]string{"file": out}, "%d octets are in %s", len(octets), out)
	}
	text := hex.EncodeToString(octets)
	return a.print(map[string]string{name: text}, func(w io.Writer) { fmt.Fprintln(w, text) })
}

func (a *app) hsmDigestCommand() *cobra.Command {
	var f tokenFlags
	var in, out, hashName string
	cmd := &cobra.Command{
		Use:   "digest --in FILE",
		Short: "Hash a file in the token",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hash, err := hsm.ParseHash(hashName)
			if err != nil || hash == crypto.SHA1 {
				return misuse{fmt.Errorf("--hash %q: take sha256, sha384 or sha512", hashName)}
			}
			if err := a.checkStreams(streams{out: []string{out}, octets: true}); err != nil {
				return err
			}
			message, err := a.input(in)
			if err != nil {
				return err
			}
			defer message.Close()
			return a.inToken(cmd.Context(), &f, func(ctx context.Context, w *worksite) error {
				digest, err := w.Digest(ctx, hash, message)
				return a.hexResult(out, "digest", digest, err)
			})
		},
	}
	f.addRecording(cmd)
	cmd.Flags().StringVar(&in, "in", "-", "file with the message; - for standard input")
	cmd.Flags().StringVar(&out, "out", "", "file for the raw octets, - for standard output (default: hexadecimal digits there)")
	cmd.Flags().StringVar(&hashName, "hash", "sha256", "sha256, sha384, sha512")
	return cmd
}

func (a *app) hsmRandomCommand() *cobra.Command {
	var f tokenFlags
	var out string
	cmd := &cobra.Command{
		Use:   "random OCTETS",
		Short: "Print random octets of the token",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 || n > maxInput {
				return misuse{fmt.Errorf("the number of octets must be between 1 and %d", maxInput)}
			}
			if err := a.checkStreams(streams{out: []string{out}, octets: true}); err != nil {
				return err
			}
			return a.inToken(cmd.Context(), &f, func(_ context.Context, w *worksite) error {
				octets, err := w.Random(n)
				return a.hexResult(out, "random", octets, err)
			})
		},
	}
	f.addRecording(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file for the raw octets, - for standard output (default: hexadecimal digits there)")
	return cmd
}
