package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/probe"
)

// probeFlags say how a token is probed and where the report goes.
type probeFlags struct {
	tokenFlags
	format, out, signKey string
	speed                time.Duration
	sessions             int
	leftovers            bool
}

func (a *app) hsmProbeCommand() *cobra.Command {
	var f probeFlags
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Try out what a token can do, and say whether Chancery can run on it",
		Long: `Try out what a token can do, and say whether Chancery can run on it.

Every algorithm, mechanism and attribute that Chancery makes use of is tried with objects that the probe makes and removes again; no other
object is touched. The report says for each what works, or the token's answer (CKR_...) and what that means, and how fast the token signs.
Nobody else should use the token meanwhile. The exit code is 0 if Chancery can run on it.

With --out and -o json the report goes into a file; --sign-key then has a key in the token sign it. The signature, over the octets of the
file, and the public key are put beside it, and openssl verifies them:

    openssl dgst -sha256 -verify FILE.pub -signature FILE.sig FILE`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.hsmProbe(cmd.Context(), f) },
	}
	f.addRecording(cmd)
	cmd.Flags().StringVar(&f.format, "format", "text", "format of the report without -o json: text or markdown")
	cmd.Flags().StringVar(&f.out, "out", "", "file to write the report to (default, and -: standard output)")
	cmd.Flags().StringVar(&f.signKey, "sign-key", "", "label of a key in the token, RSA or EC, that signs the JSON report; needs --out and -o json")
	cmd.Flags().DurationVar(&f.speed, "speed", 300*time.Millisecond, "how long signing is measured at each number of sessions; 0 for not at all")
	cmd.Flags().IntVar(&f.sessions, "sessions", 8, "up to how many sessions signing is measured with, at most 64")
	cmd.Flags().BoolVar(&f.leftovers, "remove-leftovers", false, "remove what earlier probes, which were killed, left in the token")
	cmd.AddCommand(a.hsmProbeCompareCommand())
	return cmd
}

func (a *app) hsmProbe(ctx context.Context, f probeFlags) error {
	switch {
	case f.format != "text" && f.format != "markdown":
		return misuse{fmt.Errorf("--format %q: use text or markdown", f.format)}
	case f.signKey != "" && (f.out == "" || f.out == standardStream || a.output != "json"):
		return misuse{errors.New("--sign-key signs a file of JSON: give --out and -o json as well")}
	case f.sessions < 1 || f.sessions > 64:
		return misuse{fmt.Errorf("--sessions %d: 1 to 64 can be tried", f.sessions)}
	case f.speed < 0 || f.speed > 10*time.Second:
		return misuse{fmt.Errorf("--speed %s: at most 10s", f.speed)}
	}
	starting := func(string) {}
	if a.output == "text" {
		starting = func(check string) { fmt.Fprintln(a.Stderr, "trying:", check) }
	}
	var report *probe.Report
	failure := a.inToken(ctx, &f.tokenFlags, func(ctx context.Context, w *worksite) (err error) {
		if f.leftovers {
			if _, err := probe.Clean(ctx, w.Token); err != nil {
				return err
			}
		}
		report, err = probe.Run(ctx, probe.Config{Token: w.Token, Now: a.Now, Speed: f.speed, Sessions: f.sessions, Starting: starting})
		return err
	})
	if report == nil {
		return failure
	}
	if errors.Is(failure, probe.ErrLeft) {
		failure = a.cleanAnew(ctx, f, report, failure)
	}
	if err := a.writeReport(ctx, report, f); err != nil {
		return errors.Join(failure, err)
	}
	if failure == nil && !report.Verdict.Runs {
		return errSilent
	}
	return failure
}

// cleanAnew opens the token anew and removes what it did not let go of before. It returns the probe's failure, unless it is settled so.
func (a *app) cleanAnew(ctx context.Context, f probeFlags, report *probe.Report, failure error) error {
	// An interrupted probe cleans up, too.
	err := a.inToken(context.WithoutCancel(ctx), &f.tokenFlags, func(ctx context.Context, w *worksite) (err error) {
		report.Left, err = probe.Clean(ctx, w.Token)
		return err
	})
	switch {
	case err != nil || len(report.Left) > 0:
		return errors.Join(failure, err)
	case report.Cancelled:
		return ctx.Err()
	}
	return nil
}

func (a *app) writeReport(ctx context.Context, report *probe.Report, f probeFlags) error {
	var text bytes.Buffer
	var err error
	switch {
	case a.output == "json":
		enc := json.NewEncoder(&text)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(report)
	case f.format == "markdown":
		err = report.Markdown(&text)
	default:
		err = report.Text(&text)
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if f.out == "" || f.out == standardStream {
		_, err := a.Stdout.Write(text.Bytes())
		return err
	}
	// The signature is made first, so that a report without one is not taken for signed by an old one beside it.
	files := map[string][]byte{f.out: text.Bytes()}
	if f.signKey != "" {
		err := a.inToken(ctx, &f.tokenFlags, func(ctx context.Context, w *worksite) (err error) {
			files[f.out+".sig"], files[f.out+".pub"], err = signReport(ctx, w.Token, hsm.KeyRef{Label: f.signKey}, text.Bytes())
			return err
		})
		if err != nil {
			return fmt.Errorf("signing the report: %w", err)
		}
	}
	for name, data := range files {
		if err := writeFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// signReport signs with SHA-256, as ECDSA in DER or as RSA by PKCS#1 v1.5: what openssl dgst takes without being told more.
func signReport(ctx context.Context, token *hsm.Token, ref hsm.KeyRef, report []byte) (signature, public []byte, err error) {
	key, err := token.PublicKey(ref)
	if err != nil {
		return nil, nil, err
	}
	options := hsm.SignOptions{Hash: crypto.SHA256}
	switch key.(type) {
	case ed25519.PublicKey:
		return nil, nil, errors.New("take an RSA or an EC key: openssl dgst verifies no Ed25519 signatures")
	case *rsa.PublicKey:
		options.Scheme = hsm.RSAPKCS1
	}
	if signature, err = token.Sign(ctx, ref, options, bytes.NewReader(report)); err != nil {
		return nil, nil, err
	}
	if err := hsm.VerifyWith(key, options, bytes.NewReader(report), signature); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	return signature, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func (a *app) hsmProbeCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare REPORT.json...",
		Short: "Set the reports of several probes side by side, as Markdown tables",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var reports []*probe.Report
			if err := a.checkStreams(streams{in: args}); err != nil {
				return err
			}
			for _, name := range args {
				data, err := a.inputWhole(name)
				if err != nil {
					return fmt.Errorf("reading a report: %w", err)
				}
				var r probe.Report
				if err := json.Unmarshal(data, &r); err != nil {
					return fmt.Errorf("reading the report %s: %w", name, err)
				}
				if r.Version != probe.Version {
					return fmt.Errorf("the report %s is of version %d; this program reads version %d", name, r.Version, probe.Version)
				}
				reports = append(reports, &r)
			}
			return a.print(reports, func(w io.Writer) { _ = probe.Compare(w, reports) })
		},
	}
}
