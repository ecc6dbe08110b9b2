package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/revocation"
	"github.com/chancery-ca/chancery/storage"
)

func (a *app) revocationCheckCommand() *cobra.Command {
	var path, through, textfile string
	var only []string
	var noOCSP bool
	grace := 10 * time.Second
	most := 50
	cmd := &cobra.Command{
		Use:   "check --config chancery.yaml",
		Short: "Hold database, CRLs and OCSP against each other for every certificate",
		Long: `Hold database, CRLs and OCSP against each other for every certificate, expired ones, those that were possibly signed, and those that
are lost and known by their revocation alone (chancery revocation record) among them.

CRLs and OCSP are asked over HTTP where each certificate says, or with --through at one host: a replica, or a cache. What does not agree
is looked at again at the end, so that what changes in the meantime is no difference. The exit code is 1 when there is a difference.
With --textfile the result is also written for Prometheus (node_exporter's textfile collector), to be run every hour, say.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), path, func(_ Config, store *storage.Store) error {
				authorities, err := checkedAuthorities(cmd.Context(), store, only)
				if err != nil {
					return err
				}
				report, err := revocation.Check{
					Records: recordsOf{store}, Client: &http.Client{Timeout: time.Minute}, Now: a.Now, Random: a.Random, Through: through,
					Grace: grace, NoOCSP: noOCSP,
				}.Run(cmd.Context(), authorities)
				if err != nil {
					return err
				}
				if textfile != "" {
					if err := writeTextfile(textfile, report); err != nil {
						return err
					}
				}
				if err := a.print(report, func(w io.Writer) { writeCheck(w, report, most) }); err != nil {
					return err
				}
				if n := len(report.Differences); n > 0 {
					fmt.Fprintf(a.Stderr, "%d differences\n", n)
					return errSilent
				}
				return nil
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringSliceVar(&only, "issuer", nil, "only the certificates of these authorities")
	cmd.Flags().StringVar(&through, "through", a.lookup("CHANCERY_CHECK_THROUGH"),
		"ask here in place of the hosts that certificates name, such as http://127.0.0.1:8080 (or CHANCERY_CHECK_THROUGH)")
	cmd.Flags().BoolVar(&noOCSP, "no-ocsp", false, "leave OCSP out")
	cmd.Flags().DurationVar(&grace, "grace", grace, "how old a change must be before everybody has to know it")
	cmd.Flags().StringVar(&textfile, "textfile", "", "file to write the result to for Prometheus")
	cmd.Flags().IntVar(&most, "limit", most, "show at most so many differences as text; 0 for all")
	return cmd
}

// checkedAuthorities are the authorities on record, or those named.
func checkedAuthorities(ctx context.Context, store *storage.Store, only []string) (all []revocation.Authority, err error) {
	records, err := store.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if len(only) > 0 && !slices.Contains(only, r.Name) {
			continue
		}
		certificate, err := parseCertificate(r.Certificate)
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", r.Name, err)
		}
		all = append(all, revocation.Authority{Name: r.Name, Certificate: certificate, CRLURL: r.CRLURL})
	}
	for _, name := range only {
		if !slices.ContainsFunc(all, func(a revocation.Authority) bool { return a.Name == name }) {
			return nil, misuse{fmt.Errorf("--issuer: there is no authority %q; chancery authority list shows them", name)}
		}
	}
	return all, nil
}

// recordsOf makes records of what a store has: certificates, those of the authorities below an authority, and revocations of what was lost.
type recordsOf struct{ store *storage.Store }

func (r recordsOf) Each(ctx context.Context, issuer string, yield func(revocation.Record) error) error {
	authorities, err := r.store.Authorities(ctx)
	if err != nil {
		return err
	}
	revoked := map[string]bool{} // by serial: of what was yielded
	each := func(record revocation.Record) error {
		if record.Revoked {
			revoked[string(record.Serial)] = true
		}
		return yield(record)
	}
	var self ca.AuthorityRecord
	for _, a := range authorities {
		if a.Name == issuer {
			self = a
		}
		if a.Parent != issuer {
			continue
		}
		record, err := r.authority(ctx, a)
		if err == nil {
			err = each(record)
		}
		if err != nil {
			return err
		}
	}
	if err := r.store.EachIssued(ctx, issuer, func(c ca.Certificate, tbs []byte) error { return each(recordOf(c, tbs)) }); err != nil {
		return err
	}
	return r.eachLost(ctx, self, revoked, yield)
}

// eachLost yields the revocations on record that are of none of the certificates yielded.
func (r recordsOf) eachLost(ctx context.Context, issuer ca.AuthorityRecord, yielded map[string]bool, yield func(revocation.Record) error) error {
	states, err := r.store.CRLStates(ctx, issuer.Name)
	if err != nil {
		return err
	}
	for _, s := range states {
		var all []revocation.Record // few; those who look at them take their time, and the list is read without
		_, err := r.store.ListedRevocations(ctx, issuer.Name, s.Scope, func(e issuance.RevokedEntry) error {
			if !yielded[string(e.Serial)] {
				all = append(all, revocation.Record{
					Issuer: issuer.Name, Serial: e.Serial, NotAfter: e.NotAfter, Revoked: true, Reason: int(e.Reason), RevokedAt: e.RevokedAt,
					InvalidityDate: sayable(e.InvalidityDate), ChangedAt: e.RevokedAt,
					Lost: &revocation.Places{CRL: issuer.Distribution(s.Scope).URL, OCSP: issuer.OCSPURL},
				})
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, record := range all {
			found, err := r.store.Certificates(ctx, issuer.Name, record.Serial, access.AllNamespaces)
			if err == nil && len(found) == 0 { // else it was revoked while the others were yielded
				err = yield(record)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r recordsOf) One(ctx context.Context, issuer string, serial []byte) (revocation.Record, bool, error) {
	found, err := r.store.Certificates(ctx, issuer, serial, access.AllNamespaces)
	if err != nil {
		return revocation.Record{}, false, err
	}
	if len(found) > 0 {
		return recordOf(found[0], nil), true, nil
	}
	authorities, err := r.store.Authorities(ctx)
	if err != nil {
		return revocation.Record{}, false, err
	}
	for _, a := range authorities {
		if a.Parent != issuer {
			continue
		}
		if record, err := r.authority(ctx, a); err != nil || bytes.Equal(record.Serial, serial) {
			return record, err == nil, err
		}
	}
	// Of a certificate that was lost with a database there is its revocation alone.
	latest, err := r.store.LatestRevocation(ctx, issuer, serial)
	if errors.Is(err, ca.ErrNotFound) {
		return revocation.Record{}, false, nil
	}
	record := revocation.Record{Issuer: issuer, Serial: serial, NotAfter: latest.NotAfter}
	setState(&record, &latest)
	return record, err == nil, err
}

// authority is the record of an authority's own certificate.
func (r recordsOf) authority(ctx context.Context, a ca.AuthorityRecord) (revocation.Record, error) {
	certificate, err := parseCertificate(a.Certificate)
	if err != nil {
		return revocation.Record{}, fmt.Errorf("authority %s: %w", a.Name, err)
	}
	record := revocation.Record{Issuer: a.Parent, Serial: certificate.SerialNumber.Bytes(), DER: a.Certificate, NotAfter: certificate.NotAfter}
	latest, err := r.store.LatestRevocation(ctx, a.Parent, record.Serial)
	if errors.Is(err, ca.ErrNotFound) {
		return record, nil
	}
	setState(&record, &latest)
	return record, err
}

func recordOf(c ca.Certificate, tbs []byte) revocation.Record {
	record := revocation.Record{Issuer: c.Issuer, Serial: c.Serial[:], DER: c.DER, TBS: tbs, NotAfter: c.NotAfter}
	setState(&record, c.Revocation)
	return record
}

// setState tells a record what the latest entry of its sequence says; nil is none.
func setState(record *revocation.Record, latest *ca.Revocation) {
	if latest == nil {
		return
	}
	record.ChangedAt = latest.At
	if latest.Reason != issuance.RemoveFromCRL {
		record.Revoked, record.Reason, record.RevokedAt = true, int(latest.Reason), latest.At
		record.InvalidityDate = sayable(latest.InvalidityDate)
	}
}

// sayable is an invalidity date as a CRL has it: one that cannot be written is left out.
func sayable(date time.Time) time.Time {
	if !issuance.CanSayInvalidity(date) {
		return time.Time{}
	}
	return date
}

func writeCheck(w io.Writer, r revocation.Report, most int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "certificates\t%d\nrevoked\t%d\nOCSP answers\t%d\nstill on their way\t%d\ndifferences\t%d\n", r.Certificates, r.Revoked,
		r.OCSPAnswers, r.Pending, len(r.Differences))
	for _, l := range r.CRLs {
		fmt.Fprintf(t, "CRL\t%s  number %s, %d entries, until %s\n", l.URL, l.Number, l.Entries, l.NextUpdate.Local().Format(time.RFC3339))
	}
	for i, d := range r.Differences {
		if most > 0 && i == most {
			fmt.Fprintf(t, "...\tand %d more; --limit 0 shows all\n", len(r.Differences)-most)
			break
		}
		fmt.Fprintf(t, "%s\t%s %s at %s: %s\n", d.Kind, d.Issuer, orDash(d.Serial), d.Source, d.Detail)
	}
	_ = t.Flush()
}

// writeTextfile writes the result for Prometheus, as a whole or not at all.
func writeTextfile(path string, r revocation.Report) error {
	var b strings.Builder
	metric := func(name, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s gauge\n", name, help)
	}
	metric("chancery_revocation_check_timestamp_seconds", "When database, CRLs and OCSP were last compared.")
	fmt.Fprintf(&b, "chancery_revocation_check_timestamp_seconds %d\n", r.At.Unix())
	metric("chancery_revocation_check_certificates", "Certificates looked at.")
	fmt.Fprintf(&b, "chancery_revocation_check_certificates %d\n", r.Certificates)
	metric("chancery_revocation_check_differences", "Differences found, by kind.")
	for _, kind := range revocation.Kinds() {
		fmt.Fprintf(&b, "chancery_revocation_check_differences{kind=%q} %d\n", kind, r.Counts[kind])
	}
	if err := writeFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("telling Prometheus of the result: %w", err)
	}
	return nil
}
