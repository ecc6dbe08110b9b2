package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

// revoking is what the flags of revoke say.
type revoking struct {
	api        apiFlags
	in         client.RevokeManyInput
	serials    string // file
	pem        []string
	from       string
	until      string
	invalidity string
	key        string // file
	yes        bool
	detach     bool
}

func (a *app) revokeCommand() *cobra.Command {
	var r revoking
	cmd := &cobra.Command{
		Use:   "revoke [SERIAL...] --reason REASON",
		Short: "Revoke one certificate or many",
		Long: `Revoke certificates. They are on the CRL within seconds. Only certificateHold can be undone (with --reason removeFromCRL).

One serial is revoked as it stands. More, or a selection by flags, are shown first and have to be confirmed: each flag narrows it, and of the
values of one flag any may fit. What a whole authority, profile or namespace has is revoked with --all. Many certificates are revoked by a
job, which goes on whatever happens to this command: chancery revocation list shows it.

    chancery revoke --san www.team.example --reason superseded --dry-run
    chancery revoke --issuer issuing-1 --all --reason keyCompromise
    chancery revoke 1c019a… --with-key-file www.key       (no token: who has the key may revoke; always keyCompromise)

Reasons: keyCompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold, removeFromCRL, privilegeWithdrawn,
unspecified; by name or by number (RFC 5280, section 5.3.1).`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.revoke(cmd.Context(), &r, args) },
	}
	r.api.add(cmd)
	f := cmd.Flags()
	f.StringVar(&r.in.Reason, "reason", "", "why, by RFC 5280's name or number")
	f.StringVar(&r.in.Comment, "comment", "", "a note to keep with it")
	f.StringVar(&r.invalidity, "invalidity-date", "", "since when the keys are not trusted, RFC 3339")
	f.StringVar(&r.serials, "serials", "", "file of serials, one a line; - is standard input")
	f.StringArrayVar(&r.pem, "certificate", nil, "file of certificates to revoke, PEM; may be repeated")
	f.StringSliceVar(&r.in.Keys, "spki", nil, "of this public key: SHA-256 of the SubjectPublicKeyInfo, hex")
	f.StringSliceVar(&r.in.Names, "san", nil, "with this subject alternative name, whole")
	f.StringVar(&r.in.Requester, "requester", "", "asked for by this credential's ID")
	f.StringVar(&r.in.Profile, "profile", "", "of this profile")
	f.StringVar(&r.in.Namespace, "namespace", "", "of this namespace")
	f.StringVar(&r.in.Issuer, "issuer", "", "of this authority")
	f.StringVar(&r.from, "issued-from", "", "issued at or after this time, RFC 3339")
	f.StringVar(&r.until, "issued-until", "", "issued before this time, RFC 3339")
	f.BoolVar(&r.in.All, "all", false, "everything of the authority, profile or namespace named")
	f.BoolVar(&r.in.DryRun, "dry-run", false, "show what would be revoked, and revoke nothing")
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	f.BoolVar(&r.detach, "detach", false, "do not wait for the end of a job")
	f.StringVar(&r.key, "with-key-file", "", "file of the certificate's private key, PEM: revoke by possession of it, without a token")
	withValue(cmd, "serials", "certificate", "spki", "san", "requester", "profile", "namespace", "issuer", "issued-from", "issued-until",
		"with-key-file")
	return cmd
}

func (a *app) revoke(ctx context.Context, r *revoking, args []string) (err error) {
	for _, arg := range args {
		serial, err := parseSerial(arg)
		if err != nil {
			return err
		}
		r.in.Serials = append(r.in.Serials, serial)
	}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{
		{"--invalidity-date", r.invalidity, &r.in.InvalidityDate},
		{"--issued-from", r.from, &r.in.IssuedFrom},
		{"--issued-until", r.until, &r.in.IssuedUntil},
	} {
		if t.text == "" {
			continue
		}
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return misuse{fmt.Errorf("%s: %q is not a time such as 2026-05-01T00:00:00Z", t.flag, t.text)}
		}
	}
	if r.key != "" {
		return a.revokeByKey(ctx, r)
	}
	if r.in.Reason == "" {
		return misuse{errors.New("why? give --reason, such as superseded or keyCompromise")}
	}
	if err := a.readSelectionFiles(r); err != nil {
		return err
	}
	for i, digest := range r.in.Keys {
		r.in.Keys[i] = strings.ToLower(strings.ReplaceAll(digest, ":", ""))
		if raw, err := hex.DecodeString(r.in.Keys[i]); err != nil || len(raw) != 32 {
			return misuse{fmt.Errorf("--spki: %q is not a SHA-256 in hex; this makes one: "+
				"openssl x509 -in www.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum | cut -c1-64", digest)}
		}
	}
	c, err := a.connect(r.api, access.Revoker)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(args) == 1 && r.one() {
		return a.revokeOne(ctx, c, r)
	}
	return a.revokeMany(ctx, c, r)
}

// one tells whether nothing but the one serial, and perhaps its issuer, was given.
func (r *revoking) one() bool {
	s := r.in.Selection
	return len(s.Serials) == 1 && len(r.pem)+len(s.Keys)+len(s.Names) == 0 && s.Requester+s.Profile+s.Namespace+r.serials+r.from+r.until == "" &&
		!s.All && !r.in.DryRun
}

func (a *app) revokeOne(ctx context.Context, c *client.Client, r *revoking) error {
	revoked, err := c.Revoke(ctx, client.RevokeInput{
		Serial: r.in.Serials[0], Issuer: r.in.Issuer, Reason: r.in.Reason, Comment: r.in.Comment, InvalidityDate: r.in.InvalidityDate,
	})
	if err != nil {
		return err
	}
	return a.printRevoked(revoked)
}

func (a *app) printRevoked(revoked *client.Revoked) error {
	return a.print(revoked, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s (%s) since %s\n", revoked.Serial, revoked.Status, revoked.Reason, revoked.RevokedAt.Local().Format(time.RFC3339))
	})
}

// revokeByKey needs no token: the service is called without one.
func (a *app) revokeByKey(ctx context.Context, r *revoking) error {
	if len(r.in.Serials) != 1 {
		return misuse{errors.New("--with-key-file revokes one certificate: give its serial")}
	}
	if r.in.Reason != "" && !strings.EqualFold(r.in.Reason, "keyCompromise") && r.in.Reason != "1" {
		return misuse{errors.New("who revokes by the key says that the key is not the subscriber's alone: the reason is always keyCompromise")}
	}
	key, err := readPrivateKey(r.key)
	if err != nil {
		return err
	}
	c, err := a.connect(r.api, "")
	if err != nil {
		return err
	}
	defer c.Close()
	revoked, err := c.RevokeByKey(ctx, key, r.in.Serials[0], r.in.Issuer, r.in.Comment, a.Now())
	if err != nil {
		return err
	}
	return a.printRevoked(revoked)
}

// readPrivateKey reads a key in PEM, as openssl and this program write it.
func readPrivateKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if signer, ok := key.(crypto.Signer); ok && err == nil {
			return signer, nil
		}
		return nil, fmt.Errorf("%s holds a private key that cannot be read", path)
	}
	return nil, fmt.Errorf("%s holds no private key in PEM; one that is encrypted has to be decrypted first (openssl pkey)", path)
}

// readSelectionFiles adds what the files name.
func (a *app) readSelectionFiles(r *revoking) error {
	for _, path := range r.pem {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading the certificates: %w", err)
		}
		all, whole := certificatesIn(data)
		if !whole {
			return fmt.Errorf("%s holds a certificate that is damaged, which would not be revoked with the others", path)
		}
		meant := slices.DeleteFunc(all, ofAuthority)
		r.in.Certificates += pemOf(meant)
		if len(meant) == 0 {
			return fmt.Errorf("%s holds no certificate in PEM, but perhaps those of authorities, which chancery authority revoke is for", path)
		}
	}
	if r.serials == "" {
		return nil
	}
	in := a.Stdin
	if r.serials != "-" {
		file, err := os.Open(r.serials)
		if err != nil {
			return fmt.Errorf("reading the serials: %w", err)
		}
		defer file.Close()
		in = file
	}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		serial, err := parseSerial(text)
		if err != nil {
			return misuse{fmt.Errorf("line %d of the serials: %w", n, err)}
		}
		r.in.Serials = append(r.in.Serials, serial)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the serials: %w", err)
	}
	if len(r.in.Serials) == 0 {
		return fmt.Errorf("%s holds no serial", r.serials)
	}
	return nil
}

// ofAuthority tells whether a certificate is an authority's: such a one stands beside the certificate that is meant, as its chain.
func ofAuthority(der []byte) bool {
	certificate, err := x509.ParseCertificate(der)
	return err == nil && certificate.IsCA
}

// revokeMany shows what is to be revoked, asks, and follows the job to its end.
func (a *app) revokeMany(ctx context.Context, c *client.Client, r *revoking) error {
	dry := r.in
	dry.DryRun = true
	outlook, err := c.RevokeMany(ctx, dry)
	if err != nil {
		return err
	}
	if r.in.DryRun {
		return a.print(outlook, func(w io.Writer) { writeOutlook(w, outlook.Outlook) })
	}
	if o := outlook.Outlook; o.ToRevoke+o.Keys > 0 && !r.yes {
		writeOutlook(a.Stderr, o)
		if err := a.confirmWord(r.question(o), r.word(o)); err != nil {
			return err
		}
	}
	answer, err := c.RevokeMany(ctx, r.in)
	if err != nil && !client.Undone(err) {
		return fmt.Errorf("%w\nwhether it is ordered is not known: chancery revocation list tells, and ordering it again does no harm", err)
	}
	if err != nil {
		return err
	}
	job := answer.Job
	if job.Status == client.JobRunning && !r.detach {
		if job, err = a.follow(ctx, c, job); err != nil {
			return err
		}
	}
	done := revokedMany{job, answer.Outlook.Unknown, answer.Outlook.UnknownSerials}
	return errors.Join(a.print(done, func(w io.Writer) {
		writeJob(w, job)
		writeUnknown(w, done.Unknown, done.UnknownSerials)
	}), done.shortfall())
}

// revokedMany is a job, and what of the order it could not take up.
type revokedMany struct {
	*client.RevocationJob
	Unknown        int      `json:"unknown"`
	UnknownSerials []string `json:"unknown_serials,omitempty"`
}

// shortfall tells what was to be revoked and is not, and will not be: who gave serials believes that these are revoked then.
func (r revokedMany) shortfall() error {
	var all []error
	if r.Unknown > 0 {
		all = append(all, fmt.Errorf("%d of the serials are of no certificate that you may see, and nothing is done with them; "+
			"what an authority signed and no record tells of is revoked by chancery revocation record", r.Unknown))
	}
	if r.Refused > 0 {
		all = append(all, fmt.Errorf("%d certificates are not held: their profile knows no hold", r.Refused))
	}
	if r.Status == client.JobCancelled {
		all = append(all, fmt.Errorf("the order was cancelled with %d of %d certificates seen to", r.Done, r.Total))
	}
	return errors.Join(all...)
}

func (r *revoking) question(o client.RevocationOutlook) string {
	question := fmt.Sprintf("Revoke %d certificates as %s", o.ToRevoke, r.in.Reason)
	if o.Keys > 0 {
		question += fmt.Sprintf(", and remember %d more keys as compromised", o.Keys)
	}
	return question + "?"
}

// word is what has to be typed: the name of the whole that is revoked, or the number of certificates that something is done with.
func (r *revoking) word(o client.RevocationOutlook) string {
	if r.in.All {
		if name := cmp.Or(r.in.Issuer, r.in.Namespace, r.in.Profile); name != "" {
			return name
		}
	}
	return fmt.Sprint(o.ToRevoke + o.Keys)
}

// confirmWord asks for a word that nobody types by habit.
func (a *app) confirmWord(question, word string) error {
	fmt.Fprintf(a.Stderr, "%s [type %s] ", question, word)
	answer, err := whatIsTyped(callApart(func() (answer string, err error) {
		_, err = fmt.Fscanln(a.Stdin, &answer)
		return answer, err
	}), a.interrupted)
	switch {
	case errors.Is(err, errInterrupted):
		return err
	case err != nil || answer != word:
		return errors.New("not confirmed; nothing was done (--yes confirms beforehand)")
	}
	return nil
}

// follow waits for the end of a job, and shows on a terminal how far it is. Who stops waiting stops nothing.
func (a *app) follow(ctx context.Context, c *client.Client, job *client.RevocationJob) (*client.RevocationJob, error) {
	out, isFile := a.Stderr.(*os.File)
	terminal := isFile && term.IsTerminal(int(out.Fd()))
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for job.Status == client.JobRunning {
		if terminal {
			const width = 40
			full := width * job.Done / max(1, job.Total)
			fmt.Fprintf(a.Stderr, "\r[%s%s] %d of %d", strings.Repeat("#", full), strings.Repeat(".", width-full), job.Done, job.Total)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the job goes on without this command: chancery revocation show %s: %w", job.ID, ctx.Err())
		case <-tick.C:
		}
		next, err := c.RevocationJob(ctx, job.ID)
		if err != nil {
			return nil, fmt.Errorf("the job goes on; chancery revocation show %s tells how far it is: %w", job.ID, err)
		}
		job = next
	}
	if terminal {
		fmt.Fprintln(a.Stderr)
	}
	return job, nil
}

func writeOutlook(w io.Writer, o client.RevocationOutlook) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "to revoke\t%d\n", o.ToRevoke)
	for name, counts := range map[string]map[string]int{"authority": o.Issuers, "profile": o.Profiles, "namespace": o.Namespaces} {
		for _, key := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(t, "  of %s %s\t%d\n", name, key, counts[key])
		}
	}
	fmt.Fprintf(t, "revoked already\t%d\nexpired\t%d\nunknown\t%d\n", o.Already, o.Expired, o.Unknown)
	if o.Keys > 0 {
		fmt.Fprintf(t, "keys to remember\t%d, of those that are revoked already or expired\n", o.Keys)
	}
	for _, e := range o.Examples {
		fmt.Fprintf(t, "for example\t%s  %s\n", e.Serial, cell(1, cmp.Or(strings.Join(e.Names, ","), e.Subject)))
	}
	_ = t.Flush()
	writeUnknown(w, o.Unknown, o.UnknownSerials)
}

// writeUnknown writes the serials that are of no certificate, one a line.
func writeUnknown(w io.Writer, n int, serials []string) {
	for _, serial := range serials {
		fmt.Fprintf(w, "unknown serial   %s\n", serial)
	}
	if more := n - len(serials); more > 0 {
		fmt.Fprintf(w, "unknown serials  %d more\n", more)
	}
}

func writeJob(w io.Writer, j *client.RevocationJob) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, cell(1, value))
		}
	}
	row("job", j.ID)
	row("status", j.Status)
	row("ordered by", fmt.Sprintf("%s (%s) at %s", orDash(j.Requester.Person), j.Requester.Name, j.AskedAt.Local().Format(time.RFC3339)))
	for _, name := range slices.Sorted(maps.Keys(j.Selection)) {
		row("  "+name, j.Selection[name])
	}
	row("reason", j.Reason)
	row("comment", j.Comment)
	row("certificates", fmt.Sprintf("%d, seen to: %d", j.Total, j.Done))
	if j.Keys > 0 {
		row("only keys", fmt.Sprintf("of %d of them, revoked already or expired; remembered as compromised: %d", j.Keys, j.Remembered))
	}
	row("revoked", fmt.Sprint(j.Revoked))
	row("revoked already", fmt.Sprint(j.Already))
	row("expired", fmt.Sprint(j.Expired))
	if j.Refused > 0 {
		row("refused", fmt.Sprintf("%d, whose profile knows no hold", j.Refused))
	}
	if j.Need > 0 {
		row("digest", j.Digest)
		row("approvals", fmt.Sprintf("%d needed", j.Need))
	}
	for _, v := range j.Approvals {
		said, counts := "approved by", ""
		if !v.Approved {
			said = "rejected by"
		} else if v.Withdrawn {
			counts = idle
		}
		row(said, strings.TrimSuffix(v.Person+", "+v.At.Local().Format(time.RFC3339)+counts+": "+v.Comment, ": "))
	}
	if j.ExpiresAt != nil {
		row("to be approved", fmt.Sprintf("before %s: chancery revocation approve %s --digest %s", j.ExpiresAt.Local().Format(time.RFC3339), j.ID, j.Digest))
	}
	_ = t.Flush()
}
