package issuance

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"
)

// keep puts entries into a Revoked.
func keep(t testing.TB, entries []CRLEntry) *Revoked {
	t.Helper()
	changes := make([]RevokedEntry, len(entries))
	for n, e := range entries {
		changes[n] = RevokedEntry{e, now.Add(time.Hour)}
	}
	var kept Revoked
	if err := kept.Apply(now, changes); err != nil {
		t.Fatal(err)
	}
	return &kept
}

// TestKeptEntriesAgreeWithStandardLibrary changes a list again and again, and holds each CRL of it against what crypto/x509 makes anew.
func TestKeptEntriesAgreeWithStandardLibrary(t *testing.T) {
	h := ecdsaHierarchy(t)
	rapid.Check(t, func(rt *rapid.T) {
		var kept Revoked
		state := map[string]RevokedEntry{}
		pool := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) []byte {
			s := bytes.TrimLeft(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "octets"), "\x00")
			if len(s) == 0 {
				return []byte{1}
			}
			return s
		}), 1, 40, func(s []byte) string { return string(s) }).Draw(rt, "serials")
		at := now
		for range rapid.IntRange(1, 6).Draw(rt, "turns") {
			at = at.Add(time.Minute)
			var changes []RevokedEntry
			for _, serial := range pool {
				if !rapid.Bool().Draw(rt, "changes") {
					continue
				}
				e := RevokedEntry{CRLEntry{Serial: serial, RevokedAt: at.Add(time.Duration(rapid.IntRange(-500, 90).Draw(rt, "age")) * time.Second)}, at.Add(time.Duration(rapid.IntRange(-300, 300).Draw(rt, "end")) * time.Second)}
				e.Reason = rapid.SampledFrom(append(slices.Clone(usableReasons), RemoveFromCRL)).Draw(rt, "reason")
				if rapid.Bool().Draw(rt, "invalid") {
					e.InvalidityDate = e.RevokedAt.Add(-time.Hour)
				}
				changes = append(changes, e)
				if e.Reason == RemoveFromCRL {
					delete(state, string(serial))
				} else {
					state[string(serial)] = e
				}
			}
			if err := kept.Apply(at, rapid.Permutation(changes).Draw(rt, "order")); err != nil {
				rt.Fatal(err)
			}
			stays := pool[0]
			before := at.Add(-time.Minute)
			kept.Expire(before, func(serial []byte) bool { return bytes.Equal(serial, stays) })
			c := CRLContents{Number: big.NewInt(at.UnixMilli()), ThisUpdate: at, NextUpdate: at.Add(time.Hour)}
			for serial, e := range state {
				if e.NotAfter.Before(before) && serial != string(stays) {
					delete(state, serial)
					continue
				}
				written := e.CRLEntry
				if written.RevokedAt.After(at) {
					written.RevokedAt = at
				}
				c.Entries = append(c.Entries, written)
			}
			slices.SortFunc(c.Entries, func(a, b CRLEntry) int { return number(a.Serial).Cmp(number(b.Serial)) })
			if kept.Len() != len(c.Entries) {
				rt.Fatalf("%d entries, want %d", kept.Len(), len(c.Entries))
			}
			prepared, err := h.issuing.PrepareCRL(CRLContents{Number: c.Number, ThisUpdate: at, NextUpdate: c.NextUpdate, Revoked: &kept})
			if err != nil {
				rt.Fatal(err)
			}
			if theirs := theirTBS(rt, h, c); !bytes.Equal(prepared.TBS(), theirs) {
				rt.Fatalf("ours   %x\ntheirs %x", prepared.TBS(), theirs)
			}
		}
	})
}

func theirTBS(t fataler, h hierarchy, c CRLContents) []byte {
	return standardCRL(t, h.issuing.Certificate(), c, func(template *x509.RevocationList) ([]byte, error) {
		return x509.CreateRevocationList(rand.Reader, template, h.issuing.Certificate(), h.issuingKey)
	})
}

// TestManyEntriesAgreeWithStandardLibrary compares lists that were made at once and grown by a bulk of changes.
func TestManyEntriesAgreeWithStandardLibrary(t *testing.T) {
	h := ecdsaHierarchy(t)
	for _, n := range []int{0, 1, 127, 128, 1_000, 1_001, 2_000} { // up to lengths of three octets
		prepared, c, all := h.longList(t, n)
		slices.SortFunc(all, func(a, b CRLEntry) int { return bytes.Compare(a.Serial, b.Serial) })
		c.Revoked, c.Entries = nil, all
		theirs, err := x509.CreateRevocationList(rand.Reader, standardTemplate(t, c), h.issuing.Certificate(), h.issuingKey)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(prepared.TBS(), ofTBS(t, theirs)) {
			t.Errorf("with %d entries the octets differ", n)
		}
		signed, err := h.issuing.SignCRL(t.Context(), prepared, nothing)
		if err != nil || signed.Entries != n {
			t.Errorf("with %d entries: %v", n, err)
		}
	}
}

// TestOpenSSLReadsAVeryLongList: one whose lengths take four octets. The standard library would take a minute to make it with the race
// detector.
func TestOpenSSLReadsAVeryLongList(t *testing.T) {
	const n = 500_000
	h := ecdsaHierarchy(t)
	prepared, _, all := h.longList(t, n)
	signed, err := h.issuing.SignCRL(t.Context(), prepared, nothing)
	if err != nil || signed.Entries != n || len(signed.DER) < 1<<24 {
		t.Fatalf("%d octets, %d entries, %v", len(signed.DER), signed.Entries, err)
	}
	issuer := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(issuer, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.issuing.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl := exec.CommandContext(t.Context(), "openssl", "crl", "-inform", "DER", "-noout", "-text", "-CAfile", issuer)
	openssl.Stdin = bytes.NewReader(signed.DER)
	output, err := openssl.CombinedOutput()
	if err != nil || !bytes.Contains(output, []byte("verify OK")) {
		t.Fatalf("openssl: %v, %.200s", err, output)
	}
	read := map[string]bool{}
	for line := range bytes.Lines(output) {
		if _, serial, found := bytes.Cut(line, []byte("Serial Number: ")); found {
			read[string(bytes.TrimSpace(serial))] = true
		}
	}
	for _, e := range all {
		if serial := fmt.Sprintf("%X", e.Serial); !read[serial] {
			t.Fatalf("openssl does not read %s among its %d entries", serial, len(read))
		}
	}
	if len(read) != n {
		t.Errorf("openssl reads %d entries of %d", len(read), n)
	}
}

// longList prepares a CRL from kept entries, the last tenth of which came later.
func (h hierarchy) longList(t *testing.T, n int) (*PreparedCRL, CRLContents, []CRLEntry) {
	t.Helper()
	all := manyEntries(n)
	kept := keep(t, all[:n-n/10])
	var rest []RevokedEntry
	for _, e := range all[n-n/10:] {
		rest = append(rest, RevokedEntry{e, now.Add(time.Hour)})
	}
	if err := kept.Apply(now, rest); err != nil {
		t.Fatal(err)
	}
	c := CRLContents{
		Number: big.NewInt(int64(n) + 1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Distribution: "http://ca.example/crl/a/7.crl", Revoked: kept,
	}
	prepared, err := h.issuing.PrepareCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	return prepared, c, all
}

// TestARefusedChangeLeavesTheListAlone refuses a change as a whole.
func TestARefusedChangeLeavesTheListAlone(t *testing.T) {
	kept := keep(t, manyEntries(10))
	before := slices.Clone(kept.entries)
	good := RevokedEntry{CRLEntry{Serial: []byte{7}, RevokedAt: now}, now}
	for name, bad := range map[string]RevokedEntry{
		"no time":         {CRLEntry{Serial: []byte{9}}, now},
		"no serial":       {CRLEntry{RevokedAt: now}, now},
		"the reason 7":    {CRLEntry{Serial: []byte{9}, RevokedAt: now, Reason: 7}, now},
		"the same serial": good,
		"the year 1949":   {CRLEntry{Serial: []byte{9}, RevokedAt: time.Date(1949, 1, 1, 0, 0, 0, 0, time.UTC)}, now},
	} {
		if err := kept.Apply(now, []RevokedEntry{good, bad}); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if !bytes.Equal(kept.entries, before) || kept.Len() != 10 {
			t.Errorf("%s changed the list", name)
		}
	}
}

// TestABadEntryIsLintedAway finds a fault in a long list that grows, and none when the entry has left.
func TestABadEntryIsLintedAway(t *testing.T) {
	h := ecdsaHierarchy(t)
	kept := keep(t, manyEntries(lintWhole+500))
	bad := RevokedEntry{CRLEntry{Serial: []byte{9}, RevokedAt: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}, now.Add(time.Hour)}
	c := CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Revoked: kept}
	for _, reason := range []Reason{Unspecified, RemoveFromCRL} {
		bad.Reason = reason
		if err := kept.Apply(now, []RevokedEntry{bad}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.issuing.PrepareCRL(c); (err == nil) != (reason == RemoveFromCRL) {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// TestReadCRLSeesEveryFlip changes one octet after the other: either the list cannot be read, or its signature does not verify.
func TestReadCRLSeesEveryFlip(t *testing.T) {
	h := ecdsaHierarchy(t)
	c := smallCRL()
	c.Distribution = "http://ca.example/crl/a/7.crl"
	prepared, err := h.issuing.PrepareCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := h.issuing.SignCRL(t.Context(), prepared, nothing)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ReadCRL(signed.DER)
	if err != nil || read.Distribution != c.Distribution || read.Entries != 3 || read.VerifiedBy(h.issuing.Certificate()) != nil {
		t.Fatalf("read %+v, %v", read, err)
	}
	for at := range signed.DER {
		for _, bit := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(signed.DER)
			changed[at] ^= bit
			if read, err := ReadCRL(changed); err == nil && read.VerifiedBy(h.issuing.Certificate()) == nil {
				t.Errorf("the change of octet %d is not seen", at)
			}
		}
	}
	for at := range signed.DER {
		if _, err := ReadCRL(signed.DER[:at]); err == nil {
			t.Errorf("%d octets were read as a CRL", at)
		}
	}
}

// TestReadCRLUnderstandsWhatItAccepts: a list whose scope or entries are not understood must not be used (RFC 5280, sections 5.2 and 5.3).
func TestReadCRLUnderstandsWhatItAccepts(t *testing.T) {
	h := ecdsaHierarchy(t)
	point := func(fields ...byte) x509.RevocationList {
		e := pkix.Extension{Id: oidIssuingDistribution, Critical: true, Value: append([]byte{0x30, byte(len(fields))}, fields...)}
		return x509.RevocationList{ExtraExtensions: []pkix.Extension{e}}
	}
	entry := func(oid asn1.ObjectIdentifier, critical bool, value ...byte) x509.RevocationList {
		return x509.RevocationList{RevokedCertificateEntries: []x509.RevocationListEntry{{
			SerialNumber: big.NewInt(1), RevocationTime: now, ExtraExtensions: []pkix.Extension{{Id: oid, Critical: critical, Value: value}},
		}}}
	}
	for name, c := range map[string]struct {
		list    x509.RevocationList
		good    bool
		partial bool
	}{
		"nothing":                         {point(), true, true},
		"users":                           {point(0x81, 1, 0xff), true, true},
		"authorities":                     {point(0x82, 1, 0xff), true, true},
		"both":                            {point(0x81, 1, 0xff, 0x82, 1, 0xff), false, true},
		"neither, said in vain":           {point(0x81, 1, 0), false, true},
		"some reasons":                    {point(0x83, 2, 6, 0x40), true, true},
		"a URL for some reasons":          {point(0xa0, 5, 0xa0, 3, 0x86, 1, 'a', 0x83, 2, 6, 0x40), true, true},
		"indirect":                        {point(0x84, 1, 0xff), false, true},
		"attribute certificates":          {point(0x85, 1, 0xff), false, true},
		"out of order":                    {point(0x83, 2, 6, 0x40, 0x81, 1, 0xff), false, true},
		"a field of no name":              {point(0x86, 1, 0xff), false, true},
		"an entry with a date":            {entry(oidInvalidityDate, false, []byte("\x18\x0f20260101000000Z")...), true, false},
		"an entry with a note":            {entry(asn1.ObjectIdentifier{2, 5, 29, 99}, false, 5, 0), true, false},
		"an entry with a condition":       {entry(asn1.ObjectIdentifier{2, 5, 29, 99}, true, 5, 0), false, false},
		"another authority's":             {entry(oidCertificateIssuer, true, 0x30, 3, 0x86, 1, 'a'), false, false},
		"another authority's, in passing": {entry(oidCertificateIssuer, false, 0x30, 3, 0x86, 1, 'a'), false, false},
	} {
		c.list.Number, c.list.ThisUpdate, c.list.NextUpdate = big.NewInt(7), now, now.Add(time.Hour)
		list, err := x509.CreateRevocationList(rand.Reader, &c.list, h.issuing.Certificate(), h.issuingKey)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := ReadCRL(list); c.good != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		parsed, err := x509.ParseRevocationList(list)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if what := Partial(parsed); c.partial != (what != "") {
			t.Errorf("%s: partial %q", name, what)
		}
	}
}

// TestAFreshestCRLIsReadAsOursAreWritten: one that is written otherwise keeps no CRL from being served, and is none of ours.
func TestAFreshestCRLIsReadAsOursAreWritten(t *testing.T) {
	h := ecdsaHierarchy(t)
	const point = "\x30\x07\xa0\x05\xa0\x03\x86\x01a"
	for name, c := range map[string]struct{ value, want string }{
		"one URL":              {"\x30\x09" + point, "a"},
		"two points":           {"\x30\x12" + point + point, ""},
		"two URLs":             {"\x30\x0c\x30\x0a\xa0\x08\xa0\x06\x86\x01a\x86\x01b", ""},
		"a URL, for a reason":  {"\x30\x0d\x30\x0b\xa0\x05\xa0\x03\x86\x01a\x81\x02\x06\x40", ""},
		"a directory's name":   {"\x30\x09\x30\x07\xa0\x05\xa0\x03\xa4\x01a", ""},
		"a URL, and one octet": {"\x30\x09" + point + "a", ""},
		"nothing":              {"", ""},
	} {
		list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(7), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
			ExtraExtensions: []pkix.Extension{{Id: oidFreshestCRL, Value: []byte(c.value)}},
		}, h.issuing.Certificate(), h.issuingKey)
		if err != nil {
			t.Fatal(err)
		}
		if read, err := ReadCRL(list); err != nil || read.Freshest != c.want {
			t.Errorf("%s: %+v, %v", name, read, err)
		}
	}
}

// FuzzReadCRL reads what may have become of a stored CRL. Whatever is accepted, crypto/x509 reads alike.
func FuzzReadCRL(f *testing.F) {
	h := ecdsaHierarchy(f)
	for _, c := range []CRLContents{smallCRL(), {Number: big.NewInt(1), Base: nil, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}} {
		prepared, err := h.issuing.PrepareCRL(c)
		if err != nil {
			f.Fatal(err)
		}
		signed, err := h.issuing.SignCRL(f.Context(), prepared, nothing)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signed.DER)
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		read, err := ReadCRL(list)
		if err != nil {
			return
		}
		theirs, err := x509.ParseRevocationList(list)
		if err != nil {
			return // it parses every value, and we those that we use
		}
		if theirs.Number.Cmp(read.Number) != 0 || len(theirs.RevokedCertificateEntries) != read.Entries || !theirs.NextUpdate.Equal(read.NextUpdate) {
			t.Errorf("ours %+v, theirs %s with %d entries", read, theirs.Number, len(theirs.RevokedCertificateEntries))
		}
		_ = read.VerifiedBy(h.issuing.Certificate())
	})
}

// ofTBS takes the to-be-signed bytes out of a CRL without reading its entries.
func ofTBS(t testing.TB, list []byte) []byte {
	t.Helper()
	var whole, tbs cryptobyte.String
	s := cryptobyte.String(list)
	if !s.ReadASN1(&whole, der.SEQUENCE) || !whole.ReadASN1Element(&tbs, der.SEQUENCE) {
		t.Fatal("no CRL")
	}
	return tbs
}
