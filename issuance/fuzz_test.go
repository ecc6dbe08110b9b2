package issuance

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// FuzzPrepare holds that whatever is prepared reads as what the template says.
func FuzzPrepare(f *testing.F) {
	h := ecdsaHierarchy(f)
	linter := linterOf(f, rfcLint)
	base := leafTemplate(f, p256(f).Public())
	base.WriteSubjectKeyID = true
	f.Add("", "www.example.com", "", "", []byte{192, 0, 2, 1}, int64(0), int64(86400), uint16(1), int8(-1), "http://a.example/")
	f.Add("Müller", "a\x00.example", "a@b", "spiffe://a/b", []byte{}, int64(-3600), int64(3600), uint16(0x201), int8(0), "")
	f.Add("CA", "", "", "urn:a", make([]byte, 16), int64(1), int64(4e9), uint16(0x60), int8(3), "ldap://a b")
	f.Fuzz(func(t *testing.T, subject, dns, email, uri string, ip []byte, notBefore, notAfter int64, usage uint16, pathLen int8, crl string) {
		tpl := base
		tpl.NotBefore, tpl.NotAfter = now.Add(time.Duration(notBefore)*time.Second), now.Add(time.Duration(notAfter)*time.Second)
		tpl.KeyUsage, tpl.CA, tpl.PathLen, tpl.CRLURL = x509.KeyUsage(usage&0x1ff), usage&0x200 != 0, int(pathLen), crl
		tpl.DNS, tpl.Email, tpl.URI, tpl.IP = texts(dns), texts(email), texts(uri), nil
		if subject != "" {
			tpl.Subject = commonName(subject)
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			tpl.IP = []netip.Addr{addr}
		}
		if usage&0x400 != 0 {
			tpl.Permitted = &policies.NameConstraints{DNS: texts(dns), Email: texts(email), URI: texts(uri)}
		}
		prepared, err := h.root.prepare(tpl, linter, newSerial(t), now)
		if err != nil {
			return
		}
		whole, err := ecdsaSHA256.assemble(prepared.TBS(), []byte{0})
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(whole)
		if err != nil {
			t.Fatalf("prepared, but unreadable: %v\n%x", err, prepared.TBS())
		}
		var addresses []netip.Addr
		for _, ip := range c.IPAddresses {
			addr, _ := netip.AddrFromSlice(ip)
			addresses = append(addresses, addr)
		}
		if !slices.Equal(c.DNSNames, tpl.DNS) || !slices.Equal(c.EmailAddresses, tpl.Email) || len(c.URIs) != len(tpl.URI) ||
			!slices.Equal(addresses, tpl.IP) ||
			c.Subject.CommonName != subject || c.IsCA != tpl.CA || c.KeyUsage != tpl.KeyUsage || !c.NotBefore.Equal(tpl.NotBefore) ||
			!c.NotAfter.Equal(tpl.NotAfter) || !slices.Equal(c.CRLDistributionPoints, texts(crl)) || !bytes.Equal(c.RawTBSCertificate, prepared.TBS()) {
			t.Fatalf("%+v reads as %+v", tpl, c)
		}
	})
}

// texts is nothing, or one text.
func texts(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// FuzzPrepareCRL holds that whatever list is prepared reads as what it was made from.
func FuzzPrepareCRL(f *testing.F) {
	h := ecdsaHierarchy(f)
	f.Add([]byte{1}, int64(0), int64(3600), []byte{5, 0x80, 0, 1, 2}, int64(-60), int64(0), int8(1), "")
	f.Add([]byte{0xff}, int64(-1), int64(1), []byte{}, int64(60), int64(-3600), int8(7), "http://a/b.crl")
	f.Add(bytes.Repeat([]byte{0x7f}, 20), int64(1e9), int64(8e5), append(bytes.Repeat([]byte{20}, 21), 1), int64(0), int64(1), int8(8), "\n")
	f.Fuzz(func(t *testing.T, num []byte, this, valid int64, serials []byte, revoked, invalid int64, reason int8, url string) {
		c := CRLContents{Number: number(num), ThisUpdate: now.Add(time.Duration(this) * time.Second), Distribution: url}
		c.NextUpdate = c.ThisUpdate.Add(time.Duration(valid) * time.Second)
		for len(serials) > 0 && len(c.Entries) < 50 { // a length, then that many octets
			n := min(int(serials[0]%24)+1, len(serials))
			e := CRLEntry{Serial: serials[1:n], RevokedAt: now.Add(time.Duration(revoked) * time.Second), Reason: Reason(reason)}
			if invalid != 0 {
				e.InvalidityDate = now.Add(time.Duration(invalid) * time.Second)
			}
			c.Entries = append(c.Entries, e)
			serials = serials[n:]
		}
		prepared, err := h.issuing.PrepareCRL(c)
		if err != nil {
			return
		}
		whole, err := ecdsaSHA256.assemble(prepared.TBS(), []byte{0})
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(whole)
		if err != nil {
			t.Fatalf("prepared, but unreadable: %v\n%x", err, prepared.TBS())
		}
		if list.Number.Cmp(c.Number) != 0 || len(list.RevokedCertificateEntries) != len(c.Entries) ||
			!list.ThisUpdate.Equal(c.ThisUpdate.Truncate(time.Second)) {
			t.Fatalf("%+v reads as %+v", c, list)
		}
		previous := new(big.Int)
		for _, e := range list.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(previous) <= 0 || e.ReasonCode != int(reason) || e.RevocationTime.After(list.ThisUpdate) {
				t.Fatalf("the entry %+v follows %v", e, previous)
			}
			previous = e.SerialNumber
		}
	})
}
