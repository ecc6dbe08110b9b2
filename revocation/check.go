// Package revocation holds what clients are told of revocations against what is on record: for every certificate, what the record, the CRL
// and the OCSP responder say must be one thing.
//
// It owns the comparison, and sees CRLs and OCSP as clients do: fetched over HTTP from where the certificate says, verified with the issuer's
// certificate alone. It knows neither the database nor how CRLs are made, so that a mistake there cannot be made here again.
package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The kinds of a Difference.
const (
	CRLMissing     = "crl-missing"      // revoked, and not on its CRL
	CRLExtra       = "crl-extra"        // on its CRL, and not revoked
	CRLDiffers     = "crl-differs"      // on its CRL with another date or reason
	CRLNeverIssued = "crl-never-issued" // on a CRL, and never issued
	CRLUnusable    = "crl-unusable"     // a CRL cannot be had, is not the issuer's, of another scope, or has run out
	OCSPMissing    = "ocsp-missing"     // revoked, and OCSP says otherwise
	OCSPExtra      = "ocsp-extra"       // not revoked, and OCSP says otherwise
	OCSPDiffers    = "ocsp-differs"     // revoked with another date or reason
	OCSPUnusable   = "ocsp-unusable"    // the responder gives no valid answer
	OCSPGuesses    = "ocsp-guesses"     // the responder knows a certificate that was never issued
)

// Kinds are all kinds of difference.
func Kinds() []string {
	return []string{
		CRLMissing, CRLExtra, CRLDiffers, CRLNeverIssued, CRLUnusable, OCSPMissing, OCSPExtra, OCSPDiffers, OCSPUnusable, OCSPGuesses,
	}
}

// Difference is one thing on which two sources do not agree.
type Difference struct {
	Kind   string `json:"kind"`
	Issuer string `json:"issuer"`
	Serial string `json:"serial,omitempty"` // lower-case hex; empty where it is of no single certificate
	Source string `json:"source"`           // URL of the CRL or the responder
	Detail string `json:"detail"`
}

// Record is what is on record of a certificate.
type Record struct {
	Issuer         string // name of the authority
	Serial         []byte
	DER            []byte // the certificate; nil where only its to-be-signed part is known
	TBS            []byte
	Lost           *Places // of one that is not on record itself, but revoked: where its issuer tells of that. DER and TBS are nil
	NotAfter       time.Time
	Revoked        bool // or on hold
	Reason         int  // RFC 5280, section 5.3.1
	RevokedAt      time.Time
	InvalidityDate time.Time // zero: none
	ChangedAt      time.Time // when it last came to be revoked, held or released; zero: never
}

// Places are where clients are told of a certificate; empty: nowhere.
type Places struct {
	CRL, OCSP string
}

// Records is where the record is.
type Records interface {
	// Each calls yield for every certificate of an issuer that counts as issued, expired ones among them, and for each that is revoked and
	// lost.
	Each(ctx context.Context, issuer string, yield func(Record) error) error
	// One is a certificate as it is on record now; known is false when there is none.
	One(ctx context.Context, issuer string, serial []byte) (r Record, known bool, err error)
}

// Authority is an issuer whose certificates are looked at.
type Authority struct {
	Name        string
	Certificate *x509.Certificate
	CRLURL      string // its CRL, which is looked at even when no certificate leads there; empty: none
}

// Check says how to look.
type Check struct {
	Records Records
	Client  *http.Client
	Now     func() time.Time
	Random  io.Reader
	// Through, when set, is fetched from in place of the scheme and host that certificates name: one replica, or a cache.
	Through string
	// Grace is how old a change must be before everybody has to know it.
	Grace time.Duration
	// NoOCSP leaves the responders alone.
	NoOCSP bool
	// Workers is how many questions are asked at once; 0: 16.
	Workers int
}

// Report is what was found.
type Report struct {
	At           time.Time      `json:"at"`
	Certificates int            `json:"certificates"` // looked at, expired ones among them
	Revoked      int            `json:"revoked"`      // of these, on record
	CRLs         []ListReport   `json:"crls"`
	OCSPAnswers  int            `json:"ocsp_answers"`
	Pending      int            `json:"pending"` // changed so lately that not everybody has to know it yet, and does not
	Counts       map[string]int `json:"counts"`  // of differences, by kind
	Differences  []Difference   `json:"differences"`
}

// ListReport is a CRL that was looked at.
type ListReport struct {
	URL        string    `json:"url"`
	Issuer     string    `json:"issuer"`
	Number     string    `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
}

// suspicion is a certificate on which sources did not agree at the first look.
type suspicion struct {
	authority Authority
	serial    []byte
	source    string // where the difference was seen
	ocsp      bool
}

// run is one check on its way.
type run struct {
	Check
	ctx    context.Context
	report Report
	lists  map[string]*list // by URL

	mu        sync.Mutex // of what follows, and of report while questions are asked
	suspects  []suspicion
	unusables map[string]bool // by kind, issuer and source: told once
}

// Run looks at every certificate of the authorities. What does not agree is looked at again at the end, record first: a revocation that is
// made while the check runs is no difference.
func (c Check) Run(ctx context.Context, authorities []Authority) (Report, error) {
	if c.Workers <= 0 {
		c.Workers = 16
	}
	r := &run{Check: c, ctx: ctx, lists: map[string]*list{}, unusables: map[string]bool{}}
	r.report = Report{At: c.Now().UTC(), CRLs: []ListReport{}, Counts: map[string]int{}, Differences: []Difference{}}
	for _, a := range authorities {
		if err := r.authority(a); err != nil {
			return Report{}, fmt.Errorf("checking the certificates of %s: %w", a.Name, err)
		}
	}
	if err := r.lookAgain(); err != nil {
		return Report{}, err
	}
	slices.SortFunc(r.report.Differences, func(a, b Difference) int {
		return strings.Compare(a.Issuer+a.Serial+a.Kind+a.Source, b.Issuer+b.Serial+b.Kind+b.Source)
	})
	slices.SortFunc(r.report.CRLs, func(a, b ListReport) int { return strings.Compare(a.URL, b.URL) })
	return r.report, nil
}

// question is one certificate to ask a responder about.
type question struct {
	record Record
	url    string
}

func (r *run) authority(a Authority) error {
	if a.CRLURL != "" {
		r.list(a, a.CRLURL)
	}
	questions := make(chan question)
	var workers sync.WaitGroup
	for range r.Workers {
		workers.Go(func() {
			for q := range questions {
				r.ask(a, q)
			}
		})
	}
	responders := map[string]bool{}
	err := r.Records.Each(r.ctx, a.Name, func(record Record) error {
		r.count(record)
		certificate, err := record.certificate()
		if err != nil {
			return fmt.Errorf("reading certificate %x on record: %w", record.Serial, err)
		}
		r.compare(a, record, certificate)
		if r.NoOCSP || r.Now().After(record.NotAfter) {
			return r.ctx.Err()
		}
		for _, url := range certificate.OCSPServer {
			responders[url] = true
			select {
			case questions <- question{record, url}:
			case <-r.ctx.Done():
				return r.ctx.Err()
			}
		}
		return nil
	})
	close(questions)
	workers.Wait()
	if err != nil {
		return err
	}
	r.strangers(a)
	for url := range responders {
		if err := r.probe(a, url); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) count(record Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Certificates++
	if record.Revoked {
		r.report.Revoked++
	}
}

// certificate reads the certificate, or what would be one if it were signed. Of one that is lost there is what it would name.
func (r Record) certificate() (*x509.Certificate, error) {
	switch {
	case r.Lost != nil:
		named := &x509.Certificate{}
		if r.Lost.CRL != "" {
			named.CRLDistributionPoints = []string{r.Lost.CRL}
		}
		if r.Lost.OCSP != "" {
			named.OCSPServer = []string{r.Lost.OCSP}
		}
		return named, nil
	case len(r.DER) > 0:
		return x509.ParseCertificate(r.DER)
	}
	return unsigned(r.TBS)
}

// compare holds a record against the CRLs that its certificate names.
func (r *run) compare(a Authority, record Record, certificate *x509.Certificate) {
	urls := certificate.CRLDistributionPoints
	if len(urls) == 0 {
		return
	}
	var entry *entry
	usable := true
	for _, url := range urls {
		l := r.list(a, url)
		usable = usable && l.usable()
		if err := l.only.covers(certificate); err != nil && record.Lost == nil && l.usable() {
			usable = false
			r.unusable(CRLUnusable, a.Name, url, err)
		}
		if e, ok := l.entries[string(record.Serial)]; ok {
			e.known, entry = true, e
		}
	}
	if usable && r.differs(record, entry) != "" {
		r.suspect(suspicion{authority: a, serial: record.Serial, source: urls[0]})
	}
}

// differs tells the kind of difference between a record and an entry, if there is one. An expired certificate may have left its CRL.
func (r *run) differs(record Record, e *entry) string {
	switch {
	case e == nil && record.Revoked && !r.Now().After(record.NotAfter):
		return CRLMissing
	case e != nil && !record.Revoked:
		return CRLExtra
	case e != nil && !e.says(record):
		return CRLDiffers
	}
	return ""
}

// says tells whether an entry says what is on record, in the whole seconds that CRLs and OCSP have.
func (e entry) says(record Record) bool {
	return e.reason == record.Reason && e.at.Equal(record.RevokedAt.Truncate(time.Second)) &&
		e.invalidityDate.Equal(record.InvalidityDate.Truncate(time.Second))
}

// strangers finds entries that no certificate on record has.
func (r *run) strangers(a Authority) {
	for url, l := range r.lists {
		if l.issuer != a.Name {
			continue
		}
		for serial, e := range l.entries {
			if !e.known {
				r.suspect(suspicion{authority: a, serial: []byte(serial), source: url})
			}
		}
	}
}

func (r *run) suspect(s suspicion) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspects = append(r.suspects, s)
}

func (r *run) tell(d Difference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Counts[d.Kind]++
	r.report.Differences = append(r.report.Differences, d)
}

// unusable tells once that a source cannot be used.
func (r *run) unusable(kind, issuer, source string, err error) {
	r.mu.Lock()
	told := r.unusables[kind+issuer+source]
	r.unusables[kind+issuer+source] = true
	r.mu.Unlock()
	if !told {
		r.tell(Difference{Kind: kind, Issuer: issuer, Source: source, Detail: err.Error()})
	}
}

// lookAgain looks once more at what did not agree: first at the record, then at CRLs and OCSP, fetched anew.
func (r *run) lookAgain() error {
	suspects := r.suspects
	records := make([]Record, len(suspects))
	known := make([]bool, len(suspects))
	for i, s := range suspects {
		var err error
		if records[i], known[i], err = r.Records.One(r.ctx, s.authority.Name, s.serial); err != nil {
			return fmt.Errorf("reading certificate %x again: %w", s.serial, err)
		}
	}
	r.lists = map[string]*list{}
	r.report.CRLs = slices.DeleteFunc(r.report.CRLs, func(l ListReport) bool {
		return slices.ContainsFunc(suspects, func(s suspicion) bool { return s.source == l.URL })
	})
	for i, s := range suspects {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if s.ocsp {
			r.askAgain(s, records[i], known[i])
			continue
		}
		r.compareAgain(s, records[i], known[i])
	}
	return nil
}

func (r *run) compareAgain(s suspicion, record Record, known bool) {
	l := r.list(s.authority, s.source)
	if !l.usable() {
		return
	}
	e := l.entries[string(s.serial)]
	d := Difference{Issuer: s.authority.Name, Serial: hex.EncodeToString(s.serial), Source: s.source}
	switch {
	case !known && e == nil:
		return
	case !known:
		d.Kind, d.Detail = CRLNeverIssued, "the CRL lists a serial that is on no record"
	default:
		if d.Kind = r.differs(record, e); d.Kind == "" {
			return
		}
		d.Detail = fmt.Sprintf("on record: %s; the CRL: %s", record.words(), e.words())
	}
	r.judge(d, record)
}

// judge tells of a difference, unless the change is so young that it may still be on its way.
func (r *run) judge(d Difference, record Record) {
	if !record.ChangedAt.IsZero() && r.Now().Sub(record.ChangedAt) < r.Grace {
		r.mu.Lock()
		r.report.Pending++
		r.mu.Unlock()
		return
	}
	r.tell(d)
}

func (r Record) words() string {
	if !r.Revoked {
		return "not revoked"
	}
	return words(r.Reason, r.RevokedAt, r.InvalidityDate)
}

func (e *entry) words() string {
	if e == nil {
		return "nothing"
	}
	return words(e.reason, e.at, e.invalidityDate)
}

func words(reason int, at, invalidityDate time.Time) string {
	text := fmt.Sprintf("revoked at %s for reason %d", at.UTC().Format(time.RFC3339), reason)
	if !invalidityDate.IsZero() {
		text += ", invalid since " + invalidityDate.UTC().Format(time.RFC3339)
	}
	return text
}

// maxAnswer bounds what is read of a CRL: some six million entries.
const maxAnswer = 256 << 20

// fetch asks over HTTP.
func (r *run) fetch(method, url, contentType string, body []byte) ([]byte, error) {
	if r.Through != "" {
		_, rest, _ := strings.Cut(url, "://")
		_, path, _ := strings.Cut(rest, "/")
		url = strings.TrimSuffix(r.Through, "/") + "/" + path
	}
	request, err := http.NewRequestWithContext(r.ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := r.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the answer has status %d", response.StatusCode)
	case len(data) > maxAnswer:
		return nil, errors.New("the answer has more than 256 MiB")
	}
	return data, nil
}

// randomSerial is a serial that no authority has issued: of 20 octets, at random.
func (r *run) randomSerial() (*big.Int, error) {
	octets := make([]byte, 20)
	if _, err := io.ReadFull(r.Random, octets); err != nil {
		return nil, fmt.Errorf("making a serial: %w", err)
	}
	octets[0] = octets[0]&0x7f | 0x40
	return new(big.Int).SetBytes(octets), nil
}
