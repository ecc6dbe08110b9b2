package issuance

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// usableReasons are those that a complete CRL may hold.
var usableReasons = []Reason{
	Unspecified, KeyCompromise, CACompromise, AffiliationChanged, Superseded, CessationOfOperation, CertificateHold, PrivilegeWithdrawn,
	AACompromise,
}

func drawCRL(t *rapid.T) CRLContents {
	serials := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 1, 20), 0, 20, func(s []byte) string { return number(s).String() })
	c := CRLContents{
		Number:     number(rapid.SliceOfN(rapid.Byte(), 1, 19).Draw(t, "number")),
		ThisUpdate: now.Add(time.Duration(rapid.IntRange(0, 1e9).Draw(t, "thisUpdate")) * time.Second),
	}
	c.Number.Add(c.Number, big.NewInt(1))
	c.NextUpdate = c.ThisUpdate.Add(time.Duration(rapid.IntRange(1, 300*86400).Draw(t, "validity")) * time.Second)
	for _, serial := range serials.Draw(t, "serials") {
		if number(serial).Sign() == 0 {
			continue
		}
		e := CRLEntry{
			Serial: serial, Reason: rapid.SampledFrom(usableReasons).Draw(t, "reason"),
			RevokedAt: now.Add(-time.Duration(rapid.IntRange(0, 1e8).Draw(t, "age")) * time.Second),
		}
		if rapid.Bool().Draw(t, "invalid") {
			e.InvalidityDate = e.RevokedAt.Add(-time.Hour)
		}
		c.Entries = append(c.Entries, e)
	}
	if rapid.Bool().Draw(t, "scoped") {
		c.Distribution = httpURL.Draw(t, "distribution")
		c.Contains = rapid.SampledFrom([]Contents{Everything, UserCertificates, AuthorityCertificates}).Draw(t, "contains")
		if rapid.Bool().Draw(t, "for compromises") {
			c.Reasons = []Reason{CACompromise, KeyCompromise}
		}
	}
	switch rapid.IntRange(0, 2).Draw(t, "delta") {
	case 1:
		c.Freshest = httpURL.Draw(t, "freshest")
	case 2:
		if c.Base = new(big.Int).Sub(c.Number, big.NewInt(1)); c.Base.Sign() == 0 {
			c.Base = nil
			break
		}
		for n := range c.Entries {
			if rapid.Bool().Draw(t, "released") {
				c.Entries[n].Reason = RemoveFromCRL
			}
		}
	}
	return c
}

// TestCRLAgreesWithStandardLibrary holds our encoding against that of crypto/x509, octet by octet, and reads what was signed.
func TestCRLAgreesWithStandardLibrary(t *testing.T) {
	h := ecdsaHierarchy(t)
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCRL(rt)
		prepared, err := h.issuing.PrepareCRL(c)
		if err != nil {
			rt.Fatal(err)
		}
		slices.SortFunc(c.Entries, func(a, b CRLEntry) int { return number(a.Serial).Cmp(number(b.Serial)) })
		if theirs := standardCRL(rt, h.issuing.Certificate(), c, func(template *x509.RevocationList) ([]byte, error) {
			return x509.CreateRevocationList(rand.Reader, template, h.issuing.Certificate(), h.issuingKey)
		}); !bytes.Equal(prepared.TBS(), theirs) {
			rt.Fatalf("ours   %x\ntheirs %x", prepared.TBS(), theirs)
		}
		signed, err := h.issuing.SignCRL(t.Context(), prepared, nothing)
		if err != nil {
			rt.Fatal(err)
		}
		if signed.Entries != len(c.Entries) || signed.Number.Cmp(c.Number) != 0 ||
			!signed.ThisUpdate.Equal(c.ThisUpdate) || !signed.NextUpdate.Equal(c.NextUpdate) {
			rt.Fatalf("signed %+v from %+v", signed, c)
		}
		for what, reader := range map[string]func([]byte) (*ReadList, error){"whole": ReadCRL, "head": ReadCRLHead} {
			read, err := reader(signed.DER)
			if err != nil {
				rt.Fatalf("%s: %v", what, err)
			}
			if read.Distribution != c.Distribution || read.Contains != c.Contains || read.Freshest != c.Freshest || read.Number.Cmp(c.Number) != 0 ||
				(read.Base == nil) != (c.Base == nil) {
				rt.Fatalf("%s: read %+v from %+v", what, read, c)
			}
		}
	})
}

func standardCRL(t fataler, issuer *x509.Certificate, c CRLContents, create func(*x509.RevocationList) ([]byte, error)) []byte {
	template := standardTemplate(t, c)
	der, err := create(template)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return list.RawTBSRevocationList
}

// standardTemplate is what crypto/x509 is to make the same CRL from, its entries in the order in which they are given.
func standardTemplate(t fataler, c CRLContents) *x509.RevocationList {
	template := &x509.RevocationList{Number: c.Number, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate}
	for _, e := range c.Entries {
		entry := x509.RevocationListEntry{SerialNumber: number(e.Serial), RevocationTime: e.RevokedAt, ReasonCode: int(e.Reason)}
		if !e.InvalidityDate.IsZero() {
			value, err := asn1.MarshalWithParams(e.InvalidityDate, "generalized")
			if err != nil {
				t.Fatal(err)
			}
			entry.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: value}}
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, entry)
	}
	extend := func(oid asn1.ObjectIdentifier, critical bool, value any) {
		der, err := asn1.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
	}
	point := func(url string) standardPoint {
		return standardPoint{Point: standardName{[]asn1.RawValue{{Class: 2, Tag: 6, Bytes: []byte(url)}}}}
	}
	if c.Base != nil {
		extend(asn1.ObjectIdentifier{2, 5, 29, 27}, true, c.Base)
	}
	if c.Distribution != "" {
		p := point(c.Distribution)
		p.User, p.CA = c.Contains == UserCertificates, c.Contains == AuthorityCertificates
		if len(c.Reasons) > 0 { // keyCompromise and cACompromise
			p.Reasons = asn1.BitString{Bytes: []byte{0x60}, BitLength: 3}
		}
		extend(asn1.ObjectIdentifier{2, 5, 29, 28}, true, p)
	}
	if c.Freshest != "" {
		extend(asn1.ObjectIdentifier{2, 5, 29, 46}, false, []standardPoint{point(c.Freshest)})
	}
	return template
}

type standardName struct {
	FullName []asn1.RawValue `asn1:"optional,tag:0"`
}

type standardPoint struct {
	Point   standardName   `asn1:"optional,tag:0"`
	User    bool           `asn1:"optional,tag:1"`
	CA      bool           `asn1:"optional,tag:2"`
	Reasons asn1.BitString `asn1:"optional,tag:3"`
}

// smallCRL is a list that nothing is wrong with.
func smallCRL() CRLContents {
	return CRLContents{
		Number: big.NewInt(now.UnixMilli()), ThisUpdate: now, NextUpdate: now.Add(7 * 24 * time.Hour),
		Entries: []CRLEntry{
			{Serial: []byte{0x80}, RevokedAt: now.Add(-time.Hour), Reason: KeyCompromise, InvalidityDate: now.Add(-48 * time.Hour)},
			{Serial: []byte{0x7f, 1}, RevokedAt: now.Add(-time.Minute)},
			{Serial: []byte{0, 0, 5}, RevokedAt: now, Reason: CertificateHold},
		},
	}
}

func TestPrepareCRLRefuses(t *testing.T) {
	h := ecdsaHierarchy(t)
	if _, err := h.issuing.PrepareCRL(smallCRL()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*CRLContents){
		"no number":              func(c *CRLContents) { c.Number = nil },
		"the number 0":           func(c *CRLContents) { c.Number = big.NewInt(0) },
		"a negative number":      func(c *CRLContents) { c.Number = big.NewInt(-1) },
		"the number 2^159":       func(c *CRLContents) { c.Number = new(big.Int).Lsh(big.NewInt(1), 159) },
		"no time to the next":    func(c *CRLContents) { c.NextUpdate = c.ThisUpdate.Add(time.Second - 1) },
		"no next":                func(c *CRLContents) { c.NextUpdate = time.Time{} },
		"a serial twice":         func(c *CRLContents) { c.Entries[0].Serial = []byte{5} },
		"no serial":              func(c *CRLContents) { c.Entries[0].Serial = nil },
		"the serial 0":           func(c *CRLContents) { c.Entries[0].Serial = []byte{0} },
		"a serial of 21 octets":  func(c *CRLContents) { c.Entries[0].Serial = bytes.Repeat([]byte{1}, 21) },
		"the reason 7":           func(c *CRLContents) { c.Entries[0].Reason = 7 },
		"the reason 11":          func(c *CRLContents) { c.Entries[0].Reason = 11 },
		"a negative reason":      func(c *CRLContents) { c.Entries[0].Reason = -1 },
		"a released hold":        func(c *CRLContents) { c.Entries[0].Reason = RemoveFromCRL },
		"no time of revocation":  func(c *CRLContents) { c.Entries[0].RevokedAt = time.Time{} },
		"a URL with a space":     func(c *CRLContents) { c.Distribution = "http://a b/" },
		"a date of five digits":  func(c *CRLContents) { c.Entries[0].InvalidityDate = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"an end of five digits":  func(c *CRLContents) { c.NextUpdate = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"more than a year's use": func(c *CRLContents) { c.NextUpdate = c.ThisUpdate.AddDate(1, 0, 1) },
		"a revocation in 1980":   func(c *CRLContents) { c.Entries[0].RevokedAt = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		c := smallCRL()
		change(&c)
		if _, err := h.issuing.PrepareCRL(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestNumberBelowLimit accepts the highest number there is.
func TestNumberBelowLimit(t *testing.T) {
	h := ecdsaHierarchy(t)
	c := smallCRL()
	c.Number = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(1))
	prepared, err := h.issuing.PrepareCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.issuing.SignCRL(t.Context(), prepared, nothing); err != nil {
		t.Error(err)
	}
}

// TestClockAhead lists a revocation whose time comes from a clock ahead of the publisher's: late would be worse than a second off.
func TestClockAhead(t *testing.T) {
	h := ecdsaHierarchy(t)
	c := CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	c.Entries = []CRLEntry{{Serial: []byte{1}, RevokedAt: now.Add(time.Hour)}}
	list := signedCRL(t, h.issuing, c)
	if got := list.RevokedCertificateEntries[0].RevocationTime; !got.Equal(now) {
		t.Errorf("the revocation is dated %v, want %v", got, now)
	}
	if !c.Entries[0].RevokedAt.Equal(now.Add(time.Hour)) {
		t.Error("the caller's entry was changed")
	}
}

func signedCRL(t *testing.T, i *Issuer, c CRLContents) *x509.RevocationList {
	t.Helper()
	prepared, err := i.PrepareCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := i.SignCRL(t.Context(), prepared, nothing)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(signed.DER)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// manyEntries are n entries of our own serials.
func manyEntries(n int) []CRLEntry {
	entries := make([]CRLEntry, n)
	for i := range entries {
		serial := Serial{serialPrefix}
		binary.BigEndian.PutUint64(serial[8:], uint64(n-i)*0x9e3779b97f4a7c15)
		entries[i] = CRLEntry{Serial: serial[:], RevokedAt: now.Add(-time.Duration(i%100000) * time.Second), Reason: usableReasons[i%5]}
	}
	return entries
}

// TestLongCRLIsLinted makes a list that is too long to be linted whole, with a fault that only a lint finds, wherever it is.
func TestLongCRLIsLinted(t *testing.T) {
	h := ecdsaHierarchy(t)
	const n = lintWhole + 500
	for _, at := range []int{-1, 0, n / 2, n - 1} {
		c := CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: manyEntries(n)}
		if at >= 0 {
			c.Entries[at].RevokedAt = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) // e_crl_revocation_date_too_early
		}
		_, err := h.issuing.PrepareCRL(c)
		var lint *LintError
		if refused := errors.As(err, &lint); refused != (at >= 0) {
			t.Errorf("a fault at %d: %v", at, err)
		}
	}
}

func TestReasons(t *testing.T) {
	for i, name := range ReasonNames() {
		r, err := ParseReason(name)
		if err != nil || r.String() != name {
			t.Errorf("reason %d, %q: %v, %v", i, name, r, err)
		}
		if again, err := ParseReason(fmt.Sprint(int(r))); err != nil || again != r {
			t.Errorf("reason %q by number: %v, %v", name, again, err)
		}
	}
	for _, name := range []string{"", "7", "11", "-1", "reason(7)", "revoked"} {
		if r, err := ParseReason(name); err == nil {
			t.Errorf("%q was read as %v", name, r)
		}
	}
	if got := len(ReasonNames()); got != 10 {
		t.Errorf("there are %d reasons, want 10", got)
	}
	if got := Reason(7).String(); got != "reason(7)" {
		t.Errorf("the reason 7 is %q", got)
	}
}
