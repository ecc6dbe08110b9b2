package main

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
)

func (a *app) requestCommand() *cobra.Command {
	var (
		api                                    apiFlags
		in                                     client.RequestInput
		csrFile, keyType, keyFile, certificate string
		names                                  []string
		force                                  bool
		many                                   batch
	)
	cmd := &cobra.Command{
		Use:   "request (--csr FILE | --name NAME... | --batch DIR)",
		Short: "Ask for a certificate, or for many",
		Long: `Ask for a certificate: for a CSR made elsewhere, or for a new key made here; or for one for each CSR in a directory.

  chancery request --name www.dev.example                 makes www.dev.example.key and www.dev.example.pem
  chancery request --csr www.csr --cert www.pem           for a CSR in PEM or DER
  chancery request --csr www.csr                          prints the certificate and its chain
  chancery request --name www.dev.example --replaces SERIAL --force
                                                          renews, and revokes the old one as superseded: the token needs revoker too
  chancery request --batch requests/                      makes requests/NAME.pem for each requests/NAME.csr that has none yet`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := onlyOne(csrFile != "", len(names) > 0, many.source != ""); err != nil {
				return err
			}
			if many.source != "" && in.Replaces != "" {
				return misuse{errors.New("--replaces is for one request")}
			}
			if csrFile != "" && (keyFile != "" || cmd.Flags().Changed("key-type")) {
				return misuse{errors.New("--key and --key-type are for a new key: that of a CSR is where the CSR was made")}
			}
			c, err := a.connect(api, access.Requester)
			if err != nil {
				return err
			}
			defer c.Close()
			if many.source != "" {
				if keyFile != "" || certificate != "" || in.IdempotencyKey != "" {
					return misuse{errors.New("--key, --cert and --idempotency-key are for one request; with --batch give --out")}
				}
				many.app, many.client, many.in, many.force = a, c, in, force
				return many.run(cmd.Context())
			}
			var key []byte
			if csrFile != "" {
				in.CSR, err = readCSR(csrFile)
			} else {
				stem := strings.ReplaceAll(strings.ReplaceAll(names[0], "*", "wildcard"), "/", "_")
				keyFile, certificate = cmp.Or(keyFile, stem+".key"), cmp.Or(certificate, stem+".pem")
				in.CSR, key, err = a.newKeyAndCSR(keyType, names)
			}
			if err := errors.Join(err, fit(force, keyFile, certificate)); err != nil {
				return err
			}
			// The key is on disk before the certificate exists: a certificate without its key would have to be revoked. The key of an
			// earlier request stays in its place until then: its certificate is in use.
			kept, keyPlace := keyFile, keyFile
			if key != nil {
				if keyPlace, _, err = placeOf(keyFile); err != nil {
					return err
				}
				if _, err := os.Stat(keyPlace); err == nil {
					kept = unused(keyPlace + ".new") // an earlier request may have left one, and may get its certificate yet
				}
				if err := errors.Join(writeFile(kept, key, 0o600), syncParent(kept)); err != nil {
					return err
				}
			}
			issued, err := c.Request(cmd.Context(), in)
			var waiting *client.Waiting
			if errors.As(err, &waiting) && waiting.Request.Status == ca.StatusWaiting {
				return a.printWaiting(waiting.Request, key != nil, kept)
			}
			switch {
			case err == nil:
			case key == nil:
				return err
			case client.Undone(err):
				return errors.Join(err, os.Remove(kept))
			default:
				return fmt.Errorf("%w\nthe key stays in %s: should there be a certificate for it all the same, chancery list finds it", err, kept)
			}
			if certificate != "" {
				if err := writeFile(certificate, []byte(issued.Chain), 0o644); err != nil {
					err = fmt.Errorf("%w\nthe certificate is issued: chancery get %s --format chain prints it", err, issued.Serial)
					if key != nil {
						err = fmt.Errorf("%w; its key is in %s", err, kept)
					}
					return err
				}
			}
			if kept != keyFile {
				if err := os.Rename(kept, keyPlace); err != nil {
					return fmt.Errorf("putting the new key in the place of the old: %w", err)
				}
			}
			if in.Replaces != "" && issued.Replaced == "" {
				fmt.Fprintf(a.Stderr, "%[1]s is not revoked yet. Revoke it with: chancery revoke %[1]s --reason superseded\n", in.Replaces)
			}
			return a.print(issued, func(w io.Writer) {
				if certificate == "" {
					fmt.Fprint(w, issued.Chain)
					return
				}
				fmt.Fprintf(w, "serial       %s\nissuer       %s\nvalid until  %s\ncertificate  %s (with chain)\n", issued.Serial, issued.Issuer,
					issued.NotAfter.Local().Format(time.RFC3339), certificate)
				if key != nil {
					fmt.Fprintf(w, "key          %s\n", keyFile)
				}
				if issued.Replaced != "" {
					fmt.Fprintf(w, "replaced     %s (revoked as superseded)\n", issued.Replaced)
				}
			})
		},
	}
	api.add(cmd)
	cmd.Flags().StringVar(&csrFile, "csr", "", "certification request, PEM or DER")
	cmd.Flags().StringSliceVar(&names, "name", nil, "DNS name or IP address for a new key; repeat for more")
	cmd.Flags().StringVar(&many.source, "batch", "", "directory of certification requests, PEM or DER, whose names end in .csr")
	cmd.Flags().StringVar(&many.out, "out", "", "directory for the certificates of --batch (default: beside the requests)")
	cmd.Flags().IntVarP(&many.parts, "jobs", "j", 2, "calls of --batch at once, of up to 500 requests each")
	cmd.Flags().StringVar(&keyType, "key-type", "ecdsa-p256", "kind of the new key: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096")
	cmd.Flags().StringVar(&keyFile, "key", "", "file for the new key (default: NAME.key)")
	cmd.Flags().StringVar(&certificate, "cert", "", "file for the certificate with its chain (default: NAME.pem, or standard output)")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the files of an earlier request")
	cmd.Flags().StringVarP(&in.Profile, "profile", "p", "tls-server", "profile of the certificate")
	cmd.Flags().StringVar(&in.Validity, "validity", "", "how long it shall be valid, such as 30d (default: the profile's)")
	cmd.Flags().StringVar(&in.Issuer, "issuer", "", "authority that shall issue it (default: the service's)")
	cmd.Flags().StringVar(&in.Replaces, "replaces", "", "serial of the certificate to be revoked as superseded when the new one is there")
	cmd.Flags().StringToStringVar(&in.Metadata, "metadata", nil, "key=value to keep with the request")
	cmd.Flags().StringVar(&in.IdempotencyKey, "idempotency-key", "", "name of this request: asking again with it gives the same certificate")
	return cmd
}

// onlyOne refuses several ways of saying what is asked for, and none.
func onlyOne(csr, name, batch bool) error {
	given := 0
	for _, one := range []bool{csr, name, batch} {
		if one {
			given++
		}
	}
	if given != 1 {
		return misuse{errors.New("give one of --csr, --name and --batch")}
	}
	return nil
}

// printWaiting tells of a request that needs approval. The key stays where it is: the certificate will be for it.
func (a *app) printWaiting(r client.WaitingRequest, hasKey bool, keyFile string) error {
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "request      %s\nstatus       %s for approval, until %s\n", r.ID, r.Status, r.ExpiresAt.Local().Format(time.RFC3339))
		if hasKey {
			fmt.Fprintf(w, "key          %s\n", keyFile)
		}
		fmt.Fprintf(a.Stderr, "Persons must approve it. See where it stands with: chancery requests %s\n", r.ID)
	})
}

// fit refuses, before anything is asked for, files that cannot be written, and without force those that are there. An empty name is none.
func fit(force bool, files ...string) error {
	for _, f := range files {
		if f == "" {
			continue
		}
		about, err := os.Stat(f)
		switch {
		case err == nil && about.IsDir():
			return fmt.Errorf("%s is a directory: name a file in it", f)
		case err == nil && !about.Mode().IsRegular():
			return fmt.Errorf("%s is no file that a key or a certificate can be kept in: name another", f)
		case err == nil && !force:
			return fmt.Errorf("%s exists; name other files with --key and --cert, or give --force", f)
		}
		place, _, err := placeOf(f)
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", f, err)
		}
		probe, err := os.CreateTemp(filepath.Dir(place), "."+filepath.Base(place)+"-*") // as writeFile does
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", f, err)
		}
		if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
			return fmt.Errorf("%s cannot be written: %w", f, err)
		}
	}
	return nil
}

// unused is a path that no file has: the one given, or with a number behind it.
func unused(path string) string {
	free := path
	for n := 2; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s-%d", path, n)
	}
}

func readCSR(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the request: %w", err)
	}
	if len(data) > 0 && data[0] == 0x30 { // a DER SEQUENCE
		data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: data})
	}
	return string(data), nil
}

// newKeyAndCSR makes a key, in PKCS#8 PEM, and a request for names.
func (a *app) newKeyAndCSR(kind string, names []string) (request string, keyPEM []byte, err error) {
	key, err := a.newKey(kind)
	if err != nil {
		return "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", nil, fmt.Errorf("encoding the key: %w", err)
	}
	request, err = newCSR(a.Random, key, names)
	return request, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

func (a *app) newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "ecdsa-p256":
		return ecdsa.GenerateKey(elliptic.P256(), a.Random)
	case "ecdsa-p384":
		return ecdsa.GenerateKey(elliptic.P384(), a.Random)
	}
	for name, bits := range map[string]int{"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096} {
		if kind == name {
			return rsa.GenerateKey(a.Random, bits)
		}
	}
	return nil, misuse{fmt.Errorf("--key-type %q: use ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096", kind)}
}
