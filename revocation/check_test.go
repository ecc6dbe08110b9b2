package revocation

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is an authority, what is on record, and what clients are told: at first the same.
type world struct {
	t         *testing.T
	key       crypto.Signer
	authority Authority
	records   []Record
	later     map[string]Record // by serial: what is on record at the second look
	entries   []x509.RevocationListEntry
	answers   map[string]ocsp.Response // by serial
	extra     []pkix.Extension         // of the CRL
	next      time.Time                // of the CRL
	signer    crypto.Signer            // of CRL and OCSP
	listedAs  *x509.Certificate        // whose name the CRL has; nil: the authority's

	number, delta int64 // of the complete CRL, and of the delta
	base          byte  // of the delta
	deltaExtra    []pkix.Extension
	fetched       func() // after each fetch of the complete CRL
	server        *httptest.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, key: newKey(t), answers: map[string]ocsp.Response{}, later: map[string]Record{}, next: noon.Add(time.Hour)}
	w.number, w.delta, w.base = 7, 8, 7
	w.signer = w.key
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Issuing"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, w.key.Public(), w.key)
	if err != nil {
		t.Fatal(err)
	}
	w.authority = Authority{Name: "issuing", CRLURL: w.url("/crl")}
	if w.authority.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		w.issue(int64(0x1000+n), noon.Add(time.Hour))
	}
	w.revoke(1, 4)
	w.revoke(2, 1)
	return w
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) url(path string) string { return w.server.URL + path }

func (w *world) issue(serial int64, notAfter time.Time) {
	w.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: noon.Add(-2 * time.Hour), NotAfter: notAfter,
		CRLDistributionPoints: []string{w.url("/crl")}, OCSPServer: []string{w.url("/ocsp")},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.authority.Certificate, w.key.Public(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.records = append(w.records, Record{Issuer: "issuing", Serial: template.SerialNumber.Bytes(), DER: der, NotAfter: notAfter})
	w.answers[string(template.SerialNumber.Bytes())] = ocsp.Response{Status: ocsp.Good, SerialNumber: template.SerialNumber}
}

// revoke revokes the n-th certificate everywhere.
func (w *world) revoke(n, reason int) {
	at := noon.Add(-10 * time.Minute)
	r := &w.records[n]
	r.Revoked, r.Reason, r.RevokedAt, r.ChangedAt, r.InvalidityDate = true, reason, at, at, noon.Add(-time.Hour)
	date, err := asn1.MarshalWithParams(r.InvalidityDate, "generalized")
	if err != nil {
		w.t.Fatal(err)
	}
	serial := new(big.Int).SetBytes(r.Serial)
	w.entries = append(w.entries, x509.RevocationListEntry{
		SerialNumber: serial, RevocationTime: at, ReasonCode: reason, ExtraExtensions: []pkix.Extension{{Id: invalidityDate, Value: date}},
	})
	w.answers[string(r.Serial)] = ocsp.Response{Status: ocsp.Revoked, SerialNumber: serial, RevokedAt: at, RevocationReason: reason}
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/crl":
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(w.number), ThisUpdate: noon.Add(-time.Minute), NextUpdate: w.next, RevokedCertificateEntries: w.entries, ExtraExtensions: w.extra,
		}, cmp.Or(w.listedAs, w.authority.Certificate), w.key)
		if err == nil && w.signer != w.key {
			der[len(der)-1] ^= 1
		}
		if w.fetched != nil {
			w.fetched()
		}
		w.answer(rw, der, err)
	case "/delta":
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(w.delta), ThisUpdate: noon, NextUpdate: w.next,
			ExtraExtensions: append([]pkix.Extension{{Id: deltaIndicator, Critical: true, Value: []byte{2, 1, w.base}}}, w.deltaExtra...),
			RevokedCertificateEntries: []x509.RevocationListEntry{
				{SerialNumber: new(big.Int).SetBytes(w.records[1].Serial), RevocationTime: noon, ReasonCode: 8},
			},
		}, w.authority.Certificate, w.key)
		w.answer(rw, der, err)
	case "/ocsp":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.t.Error(err)
		}
		request, err := ocsp.ParseRequest(body)
		if err != nil {
			w.answer(rw, ocsp.MalformedRequestErrorResponse, nil)
			return
		}
		answer, known := w.answers[string(request.SerialNumber.Bytes())]
		if !known {
			answer = w.answers[""]
			answer.SerialNumber = request.SerialNumber
		}
		answer.ThisUpdate, answer.NextUpdate = noon, w.next
		der, err := ocsp.CreateResponse(w.authority.Certificate, w.authority.Certificate, answer, w.signer)
		w.answer(rw, der, err)
	default:
		http.NotFound(rw, r)
	}
}

func (w *world) answer(rw http.ResponseWriter, body []byte, err error) {
	if err != nil {
		w.t.Error(err)
	}
	if _, err := rw.Write(body); err != nil {
		w.t.Error(err)
	}
}

// Each and One make a world's records Records.
func (w *world) Each(_ context.Context, _ string, yield func(Record) error) error {
	for _, r := range w.records {
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) One(_ context.Context, _ string, serial []byte) (Record, bool, error) {
	if r, changed := w.later[string(serial)]; changed {
		return r, true, nil
	}
	for _, r := range w.records {
		if string(r.Serial) == string(serial) {
			return r, true, nil
		}
	}
	return Record{}, false, nil
}

func (w *world) check(change ...func(*Check)) Report {
	w.t.Helper()
	if _, set := w.answers[""]; !set {
		w.answers[""] = ocsp.Response{Status: ocsp.Unknown}
	}
	c := Check{Records: w, Client: w.server.Client(), Now: func() time.Time { return noon }, Random: rand.Reader, Grace: time.Minute}
	for _, ch := range change {
		ch(&c)
	}
	report, err := c.Run(w.t.Context(), []Authority{w.authority})
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

func kinds(r Report) string {
	var all []string
	for _, d := range r.Differences {
		all = append(all, d.Kind+" "+d.Serial)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestWhereAllAgreeNothingIsTold(t *testing.T) {
	r := newWorld(t).check()
	if r.Certificates != 6 || r.Revoked != 2 || len(r.CRLs) != 1 || r.CRLs[0].Entries != 2 || r.OCSPAnswers != 6 || len(r.Differences) != 0 || r.Pending != 0 {
		t.Errorf("%+v", r)
	}
}

// TestEachKindOfDifferenceIsFound spoils one thing at a time.
func TestEachKindOfDifferenceIsFound(t *testing.T) {
	const first, second, third = "1000", "1001", "1002"
	found := map[string]bool{}
	for name, c := range map[string]struct {
		spoil func(*world)
		want  string
	}{
		"not on the CRL":       {func(w *world) { w.entries = w.entries[1:] }, CRLMissing + " " + second},
		"on the CRL unrevoked": {func(w *world) { w.entries = append(w.entries, w.entryOf(0)) }, CRLExtra + " " + first},
		"another reason":       {func(w *world) { w.entries[0].ReasonCode = 5 }, CRLDiffers + " " + second},
		"another date":         {func(w *world) { w.entries[1].RevocationTime = noon.Add(-time.Hour) }, CRLDiffers + " " + third},
		"no invalidity date":   {func(w *world) { w.entries[1].ExtraExtensions = nil }, CRLDiffers + " " + third},
		"never issued on the CRL": {func(w *world) {
			w.entries = append(w.entries, x509.RevocationListEntry{SerialNumber: big.NewInt(0x99), RevocationTime: noon})
		}, CRLNeverIssued + " 99"},
		"a CRL that has run out": {func(w *world) { w.next = noon.Add(-time.Second) }, CRLUnusable + " , " + OCSPUnusable + " "},
		"a CRL signed by others": {func(w *world) { w.signer = newKey(w.t) }, CRLUnusable + " , " + OCSPUnusable + " "},
		"a CRL in another name": {func(w *world) {
			named := *w.authority.Certificate
			named.RawSubject, _ = asn1.Marshal(pkix.Name{CommonName: "issuing"}.ToRDNSequence())
			w.listedAs = &named
		}, CRLUnusable + " "},
		"a CRL that no client understands": {func(w *world) {
			w.extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, CRLUnusable + " "},
		"an entry that no client understands": {func(w *world) {
			w.entries[0].ExtraExtensions = append(slices.Clone(w.entries[0].ExtraExtensions),
				pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, CRLUnusable + " "},
		"a CRL of another scope": {func(w *world) {
			w.extra = []pkix.Extension{pointOf(w.t, distributionPoint, "http://other.example/crl")}
		}, CRLUnusable + " "},
		"a delta, released": {func(w *world) { w.extra = []pkix.Extension{pointOf(w.t, freshestCRL, w.url("/delta"))} }, CRLMissing + " " + second},
		"a delta of a later complete CRL": {func(w *world) {
			w.extra = []pkix.Extension{pointOf(w.t, freshestCRL, w.url("/delta"))}
			w.base = 8
		}, CRLUnusable + " "},
		"a delta of another scope": {func(w *world) {
			w.extra = []pkix.Extension{pointOf(w.t, freshestCRL, w.url("/delta"))}
			w.deltaExtra = []pkix.Extension{only(w.t, contents{OnlyUser: true})}
		}, CRLUnusable + " "},
		"for authorities alone": {func(w *world) { w.extra = []pkix.Extension{only(w.t, contents{OnlyCA: true})} }, CRLUnusable + " "},
		"for attribute certificates alone": {func(w *world) {
			w.extra = []pkix.Extension{only(w.t, contents{OnlyAttributes: true})}
		}, CRLUnusable + " "},
		"an indirect CRL": {func(w *world) { w.extra = []pkix.Extension{only(w.t, contents{Indirect: true})} }, CRLUnusable + " "},
		"for some reasons alone": {func(w *world) {
			w.extra = []pkix.Extension{only(w.t, contents{Reasons: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}})}
		}, CRLUnusable + " "},
		"a lost one that is not on the CRL": {func(w *world) {
			w.lose(1)
			w.entries = w.entries[1:]
		}, CRLMissing + " " + second},
		"a lost one of which OCSP says good": {func(w *world) {
			w.lose(1)
			w.say(1, ocsp.Response{Status: ocsp.Good})
		}, OCSPMissing + " " + second},
		"a delta that is away":    {func(w *world) { w.extra = []pkix.Extension{pointOf(w.t, freshestCRL, w.url("/none"))} }, CRLUnusable + " "},
		"good, though revoked":    {func(w *world) { w.say(1, ocsp.Response{Status: ocsp.Good}) }, OCSPMissing + " " + second},
		"unknown, though revoked": {func(w *world) { w.say(1, ocsp.Response{Status: ocsp.Unknown}) }, OCSPMissing + " " + second},
		"unknown, though issued":  {func(w *world) { w.say(0, ocsp.Response{Status: ocsp.Unknown}) }, OCSPExtra + " " + first},
		"revoked, though not":     {func(w *world) { w.say(0, ocsp.Response{Status: ocsp.Revoked, RevokedAt: noon}) }, OCSPExtra + " " + first},
		"another OCSP reason":     {func(w *world) { w.say(2, ocsp.Response{Status: ocsp.Revoked, RevokedAt: noon.Add(-10 * time.Minute)}) }, OCSPDiffers + " " + third},
		"good for never issued":   {func(w *world) { w.answers[""] = ocsp.Response{Status: ocsp.Good} }, OCSPGuesses + " *"},
	} {
		w := newWorld(t)
		c.spoil(w)
		r := w.check()
		got := kinds(r)
		if len(r.Differences) == 1 && strings.HasSuffix(c.want, "*") {
			got = r.Differences[0].Kind + " *"
		}
		if got != c.want {
			t.Errorf("%s: found %q, want %q: %+v", name, got, c.want, r.Differences)
		}
		for _, d := range r.Differences {
			found[d.Kind] = true
			if d.Detail == "" || d.Source == "" || d.Issuer != "issuing" || r.Counts[d.Kind] == 0 {
				t.Errorf("%s: %+v of %+v", name, d, r.Counts)
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(found)), Kinds(); len(got) != len(want) {
		t.Errorf("found %q; all kinds are %q", got, want)
	}
}

func (w *world) entryOf(n int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(w.records[n].Serial), RevocationTime: noon}
}

// lose takes the n-th certificate off the record: its revocation stays.
func (w *world) lose(n int) {
	w.records[n].DER, w.records[n].Lost = nil, &Places{CRL: w.url("/crl"), OCSP: w.url("/ocsp")}
}

func (w *world) say(n int, answer ocsp.Response) {
	answer.SerialNumber = new(big.Int).SetBytes(w.records[n].Serial)
	w.answers[string(w.records[n].Serial)] = answer
}

// only is an issuingDistributionPoint.
func only(t *testing.T, c contents) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: distributionPoint, Critical: true, Value: der}
}

// pointOf is an issuingDistributionPoint or a freshestCRL of one URL.
func pointOf(t *testing.T, id asn1.ObjectIdentifier, url string) pkix.Extension {
	t.Helper()
	type point struct {
		Name pointName `asn1:"optional,tag:0"`
	}
	p := point{pointName{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}}}
	var value any = p
	if id.Equal(freshestCRL) {
		value = []point{p}
	}
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Critical: id.Equal(distributionPoint), Value: der}
}

// A shard's delta has the scope of its complete CRL, whose URL stands in both. One that is not above the complete CRL tells nothing, and one
// that was made after it is seen with the complete CRL that it begins from.
func TestADeltaIsLaidOverItsCompleteCRL(t *testing.T) {
	shard := func(w *world) {
		scope := pointOf(t, distributionPoint, w.url("/crl"))
		w.extra, w.deltaExtra = []pkix.Extension{scope, pointOf(t, freshestCRL, w.url("/delta"))}, []pkix.Extension{scope}
	}
	released := func(w *world) {
		w.records[1].Revoked = false
		w.say(1, ocsp.Response{Status: ocsp.Good})
	}
	w := newWorld(t)
	shard(w)
	released(w)
	if r := w.check(); len(r.Differences) != 0 {
		t.Errorf("a shard with its delta: %+v", r)
	}
	w = newWorld(t)
	shard(w)
	w.number = 9
	if r := w.check(); len(r.Differences) != 0 {
		t.Errorf("a delta from before the complete CRL: %+v", r)
	}
	w = newWorld(t)
	shard(w)
	w.fetched = sync.OnceFunc(func() { w.number, w.base, w.delta = 9, 9, 10 })
	released(w)
	if r := w.check(); len(r.Differences) != 0 || len(r.CRLs) != 1 || r.CRLs[0].Number != "9" {
		t.Errorf("a complete CRL that is made while the check runs: %+v", r)
	}
}

// What changes while the check runs, or did a moment ago, is no difference.
func TestChangesUnderWayAreNoDifferences(t *testing.T) {
	w := newWorld(t)
	changed := w.records[1]
	changed.Reason = 5
	w.records[1].Reason = 5 // the CRL and OCSP still say 4
	w.records[1].ChangedAt = noon.Add(-30 * time.Second)
	if r := w.check(); len(r.Differences) != 0 || r.Pending != 2 {
		t.Errorf("half a minute after a change: %+v", r)
	}
	if r := w.check(func(c *Check) { c.Grace = 10 * time.Second }); len(r.Differences) != 2 {
		t.Errorf("after the grace: %+v", r)
	}
	changed.Reason = 4
	w.later[string(changed.Serial)] = changed
	if r := w.check(func(c *Check) { c.Grace = 0 }); len(r.Differences) != 0 {
		t.Errorf("what was on record for a moment alone: %+v", r)
	}
	if r := newWorld(t).check(func(c *Check) { c.NoOCSP = true }); r.OCSPAnswers != 0 || len(r.Differences) != 0 {
		t.Errorf("without OCSP: %+v", r)
	}
}

func TestAnExpiredCertificateMayHaveLeft(t *testing.T) {
	w := newWorld(t)
	w.issue(0x2000, noon.Add(-time.Minute))
	w.revoke(6, 4)
	if r := w.check(); len(r.Differences) != 0 {
		t.Errorf("still on the CRL: %+v", r)
	}
	w.entries = w.entries[:2]
	if r := w.check(); len(r.Differences) != 0 {
		t.Errorf("gone from the CRL: %+v", r)
	}
}

// A certificate of which only the to-be-signed part is known leads to its CRL as well.
func TestAnOrphanIsChecked(t *testing.T) {
	w := newWorld(t)
	certificate, err := x509.ParseCertificate(w.records[1].DER)
	if err != nil {
		t.Fatal(err)
	}
	w.records[1].DER, w.records[1].TBS = nil, certificate.RawTBSCertificate
	w.entries = w.entries[1:]
	if r := w.check(); kinds(r) != CRLMissing+" 1001" {
		t.Errorf("%+v", r)
	}
	w.records[1].TBS = []byte{0x30, 1, 2}
	if _, err := (Check{Records: w, Client: w.server.Client(), Now: time.Now, Random: rand.Reader}).Run(t.Context(), []Authority{w.authority}); err == nil {
		t.Error("a record that cannot be read is passed over")
	}
}

// A replica or a cache is asked in place of the host that certificates name.
func TestThroughAnotherHost(t *testing.T) {
	w := newWorld(t)
	var paths []string
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !slices.Contains(paths, r.URL.Path) {
			paths = append(paths, r.URL.Path)
		}
		w.serve(rw, r)
	}))
	defer proxy.Close()
	r := w.check(func(c *Check) { c.Through, c.Workers = proxy.URL+"/", 1 })
	if len(r.Differences) != 0 || fmt.Sprint(paths) != "[/crl /ocsp]" {
		t.Errorf("%v %+v", paths, r)
	}
}

func FuzzUnsigned(f *testing.F) {
	f.Add([]byte{0x30, 0})
	seed, err := hex.DecodeString("3009a003020102020101300030003000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, tbs []byte) {
		if c, err := unsigned(tbs); err == nil && string(c.RawTBSCertificate) != string(tbs) {
			t.Errorf("%x became %x", tbs, c.RawTBSCertificate)
		}
		if urls, err := pointsOf(tbs); err != nil && urls != nil {
			t.Errorf("%x gave %q and %v", tbs, urls, err)
		}
	})
}
