package csr_test

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"net/netip"
	"slices"
	"testing"

	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// generator draws requests that must be read.
var generator = rapid.Custom(func(t *rapid.T) csrtest.Builder {
	keys := csrtest.FixedKeys()
	seen := map[string]bool{}
	arc := rapid.IntRange(0, 1<<31-1)
	b := csrtest.Builder{
		Key:         rapid.SampledFrom([]crypto.Signer{keys.P256, keys.Ed25519}).Draw(t, "key"),
		DNS:         rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,40}`), 0, 5).Draw(t, "dns"),
		Email:       rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,40}`), 0, 2).Draw(t, "email"),
		URI:         rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,40}`), 0, 2).Draw(t, "uri"),
		SANCritical: rapid.Bool().Draw(t, "critical"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "addresses") {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		address, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		b.IP = append(b.IP, address)
	}
	for range rapid.IntRange(0, 4).Draw(t, "attributes") {
		a := csrtest.Attr{OID: asn1.ObjectIdentifier{2, 5, 4, arc.Draw(t, "arc")}}
		a.Tag = rapid.SampledFrom([]cryptobyte_asn1.Tag{
			cryptobyte_asn1.UTF8String, cryptobyte_asn1.PrintableString, cryptobyte_asn1.IA5String,
		}).Draw(t, "tag")
		pattern := map[cryptobyte_asn1.Tag]string{
			cryptobyte_asn1.UTF8String:      `[\p{L}\p{N} *@_]{1,20}`,
			cryptobyte_asn1.PrintableString: `[A-Za-z0-9 '()+,./:=?-]{1,64}`,
			cryptobyte_asn1.IA5String:       `[ -~]{1,64}`,
		}[a.Tag]
		a.Value = rapid.StringMatching(pattern).Draw(t, "value")
		b.Subject = append(b.Subject, a)
	}
	for range rapid.IntRange(0, 3).Draw(t, "extensions") {
		id := asn1.ObjectIdentifier{1, 3, 6, 1, arc.Draw(t, "arc")}
		if !seen[id.String()] {
			seen[id.String()] = true
			b.Extensions = append(b.Extensions, csrtest.Extension{OID: id, Critical: rapid.Bool().Draw(t, "critical"), Value: []byte{5, 0}})
		}
	}
	return b
})

// TestBuiltIsRead: what is written is what is read, and nothing else.
func TestBuiltIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := generator.Draw(t, "request")
		der, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		r, err := csr.Parse(der)
		if err != nil {
			t.Fatalf("Parse: %v\n%x", err, der)
		}
		if err := r.VerifySignature(); err != nil {
			t.Fatalf("VerifySignature: %v", err)
		}
		n := r.Names()
		if !slices.Equal(n.DNS, b.DNS) || !slices.Equal(n.IP, b.IP) || !slices.Equal(n.Email, b.Email) || !slices.Equal(n.URI, b.URI) || n.Other != nil {
			t.Fatalf("the names are read as %+v", n)
		}
		if n.Critical != (b.SANCritical && n.Len() > 0) {
			t.Fatalf("critical is read as %v", n.Critical)
		}
		subject := r.Subject()
		if len(subject) != len(b.Subject) {
			t.Fatalf("the subject is read as %v", subject)
		}
		for i, a := range b.Subject {
			if !subject[i].OID.Equal(a.OID) || subject[i].Value != a.Value || subject[i].RDN != i {
				t.Fatalf("attribute %d is read as %v", i, subject[i])
			}
		}
		e := r.Extensions()
		if len(e.Unknown) != len(b.Extensions) || e.KeyUsage != nil || e.ExtKeyUsage != nil || e.BasicConstraints != nil {
			t.Fatalf("the extensions are read as %+v", e)
		}
		for i, x := range b.Extensions {
			if !e.Unknown[i].OID.Equal(x.OID) || e.Unknown[i].Critical != x.Critical {
				t.Fatalf("extension %d is read as %v", i, e.Unknown[i])
			}
		}
	})
}

// TestEveryCut: a request cut off anywhere, or with anything behind it, is refused for that reason.
func TestEveryCut(t *testing.T) {
	der := csrtest.Benign()[0].DER
	for n := 1; n < len(der); n++ {
		if _, err := csr.Parse(der[:n]); ruleOf(t, err) != csr.RuleTruncated {
			t.Fatalf("cut off after %d octets: %v", n, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		behind := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "behind")
		if _, err := csr.Parse(append(bytes.Clone(der), behind...)); ruleOf(t, err) != csr.RuleTrailingData {
			t.Fatalf("with %x behind: %v", behind, err)
		}
	})
}

// TestEveryOctetCounts: no octet can be changed so that the request is still read and its signature still good.
func TestEveryOctetCounts(t *testing.T) {
	for _, c := range csrtest.Benign() {
		if c.Name != "usual-extensions" && c.Name != "ed25519" && c.Name != "rsa2048-pss-sha256" {
			continue
		}
		for at := range c.DER {
			for bit := range 8 {
				changed := bytes.Clone(c.DER)
				changed[at] ^= 1 << bit
				r, err := csr.Parse(changed)
				if err == nil {
					err = r.VerifySignature()
				}
				if ruleOf(t, err) == "" {
					t.Errorf("%s: bit %d of octet %d does not matter", c.Name, bit, at)
				}
			}
		}
	}
}
