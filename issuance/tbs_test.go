package issuance

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/policies"
)

// TestTBSAgreesWithStandardLibrary holds our encoding against that of crypto/x509, octet by octet, for templates of every form.
func TestTBSAgreesWithStandardLibrary(t *testing.T) {
	leafKey, h := p256(t), ecdsaHierarchy(t)
	parent := h.issuing.Certificate()
	rapid.Check(t, func(rt *rapid.T) {
		tpl := withKey(t, drawTemplate(rt), leafKey.Public())
		serial, err := NewSerial(now, rand.Reader)
		if err != nil {
			rt.Fatal(err)
		}
		ours, err := marshalTBS(frame{ecdsaSHA256, serial, parent.RawSubject, parent.SubjectKeyId}, &tpl)
		if err != nil {
			rt.Fatal(err)
		}
		theirs := standardTBS(rt, parent, h.issuingKey, &tpl, serial)
		if !bytes.Equal(ours, theirs) {
			rt.Fatalf("ours   %x\ntheirs %x", ours, theirs)
		}
	})
}

// TestTimeStampingIsCritical: the purpose of an authority for time stamps stands alone and critical in its certificate (RFC 3161, section
// 2.3), or nobody accepts what it stamps. No other purpose is critical.
func TestTimeStampingIsCritical(t *testing.T) {
	h, key := ecdsaHierarchy(t), p256(t)
	stamping, signing := oidTimeStamping, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	for name, c := range map[string]struct {
		usages    []asn1.ObjectIdentifier
		authority bool
		critical  bool
	}{
		"time stamping":                 {[]asn1.ObjectIdentifier{stamping}, false, true},
		"code signing":                  {[]asn1.ObjectIdentifier{signing}, false, false},
		"both":                          {[]asn1.ObjectIdentifier{stamping, signing}, false, false},
		"an authority of stamping ones": {[]asn1.ObjectIdentifier{stamping}, true, false},
	} {
		tpl := leafTemplate(t, key.Public())
		if c.authority {
			tpl = intermediateTemplate(t, key.Public())
			tpl.Subject = commonName("Stamping CA")
		}
		tpl.ExtKeyUsage, tpl.Policies = c.usages, nil
		issuer := h.issuing
		if c.authority {
			issuer = h.root
		}
		certificate := parse(t, issue(t, issuer, tpl, policies.Lint{Sources: []string{"RFC5280"}, Except: publicLint.Except}).DER)
		at := slices.IndexFunc(certificate.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidExtKeyUsage) })
		if at < 0 || certificate.Extensions[at].Critical != c.critical {
			t.Errorf("%s: extension %d, want critical %v", name, at, c.critical)
		}
	}
}

// standardTBS is the TBSCertificate that crypto/x509 makes of a template.
func standardTBS(t *rapid.T, parent *x509.Certificate, key crypto.Signer, tpl *policies.Template, serial Serial) []byte {
	subject, err := marshalName(tpl.Subject) // crypto/x509 would choose the string types by the values
	if err != nil {
		t.Fatal(err)
	}
	std := &x509.Certificate{
		SerialNumber: number(serial[:]), RawSubject: subject, NotBefore: tpl.NotBefore, NotAfter: tpl.NotAfter, KeyUsage: tpl.KeyUsage,
		UnknownExtKeyUsage: tpl.ExtKeyUsage, BasicConstraintsValid: tpl.CA, IsCA: tpl.CA, DNSNames: tpl.DNS, EmailAddresses: tpl.Email,
		OCSPServer: tpl.OCSPURLs, IssuingCertificateURL: tpl.IssuerURLs, PermittedDNSDomainsCritical: true,
	}
	if tpl.CA {
		std.MaxPathLen, std.MaxPathLenZero = tpl.PathLen, tpl.PathLen == 0
	}
	if tpl.CA || tpl.WriteSubjectKeyID {
		std.SubjectKeyId = tpl.SubjectKeyID
	}
	for _, ip := range tpl.IP {
		std.IPAddresses = append(std.IPAddresses, ip.AsSlice())
	}
	for _, uri := range tpl.URI {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		std.URIs = append(std.URIs, u)
	}
	for _, policy := range tpl.Policies {
		id, err := x509.ParseOID(policy.String())
		if err != nil {
			t.Fatal(err)
		}
		std.Policies = append(std.Policies, id)
	}
	if c := tpl.Permitted; c != nil {
		std.PermittedDNSDomains, std.PermittedEmailAddresses, std.PermittedURIDomains = c.DNS, c.Email, c.URI
		std.PermittedIPRanges = ranges(c.IP)
	}
	if c := tpl.Excluded; c != nil {
		std.ExcludedDNSDomains, std.ExcludedEmailAddresses, std.ExcludedURIDomains = c.DNS, c.Email, c.URI
		std.ExcludedIPRanges = ranges(c.IP)
	}
	if tpl.CRLURL != "" {
		std.CRLDistributionPoints = []string{tpl.CRLURL}
	}
	if tpl.OCSPNoCheck {
		std.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}}
	}
	der, err := x509.CreateCertificate(rand.Reader, std, parent, tpl.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der).RawTBSCertificate
}

func ranges(prefixes []netip.Prefix) []*net.IPNet {
	var nets []*net.IPNet
	for _, p := range prefixes {
		addr := p.Addr().AsSlice()
		nets = append(nets, &net.IPNet{IP: addr, Mask: net.CIDRMask(p.Bits(), 8*len(addr))})
	}
	return nets
}

var (
	label     = rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`)
	dnsName   = rapid.Custom(func(t *rapid.T) string { return label.Draw(t, "label") + "." + label.Draw(t, "label") + ".example" })
	mailbox   = rapid.Custom(func(t *rapid.T) string { return label.Draw(t, "local") + "@" + dnsName.Draw(t, "domain") })
	uri       = rapid.Custom(func(t *rapid.T) string { return "spiffe://" + dnsName.Draw(t, "host") + "/" + label.Draw(t, "path") })
	httpURL   = rapid.Custom(func(t *rapid.T) string { return "http://" + dnsName.Draw(t, "host") + "/" + label.Draw(t, "path") })
	oid       = rapid.Custom(drawOID)
	address   = rapid.Custom(drawAddress)
	attribute = rapid.Custom(drawAttribute)
)

func drawOID(t *rapid.T) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1}, rapid.SliceOfN(rapid.IntRange(0, 1<<31-1), 1, 5).Draw(t, "arcs")...)
}

func drawAddress(t *rapid.T) netip.Addr {
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
	addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "octets"))
	if addr.Is4In6() {
		return netip.IPv6Loopback()
	}
	return addr
}

func drawPrefix(t *rapid.T) netip.Prefix {
	addr := address.Draw(t, "address")
	p, err := addr.Prefix(rapid.IntRange(0, addr.BitLen()).Draw(t, "bits"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Addr().Is4In6() {
		return netip.MustParsePrefix("::/0")
	}
	return p
}

func drawAttribute(t *rapid.T) pkix.RelativeDistinguishedNameSET {
	kind := rapid.SampledFrom([]asn1.ObjectIdentifier{
		{2, 5, 4, 3}, {2, 5, 4, 10}, {2, 5, 4, 11}, {2, 5, 4, 7}, {2, 5, 4, 5}, {2, 5, 4, 46},
	}).Draw(t, "type")
	value := rapid.StringMatching(`[\pL0-9 ._&@-]{1,30}`)
	if kind[3] == 5 || kind[3] == 46 {
		value = rapid.StringMatching(`[A-Za-z0-9 '()+,./:=?-]{1,30}`)
	}
	return pkix.RelativeDistinguishedNameSET{{Type: kind, Value: value.Draw(t, "value")}}
}

func drawConstraints(t *rapid.T) *policies.NameConstraints {
	if rapid.Bool().Draw(t, "unconstrained") {
		return nil
	}
	return &policies.NameConstraints{
		DNS: rapid.SliceOfN(dnsName, 0, 3).Draw(t, "dns"), IP: rapid.SliceOfN(rapid.Custom(drawPrefix), 0, 3).Draw(t, "ip"),
		Email: rapid.SliceOfN(dnsName, 0, 3).Draw(t, "email"), URI: rapid.SliceOfN(dnsName, 0, 3).Draw(t, "uri"),
	}
}

// drawTemplate makes a template that can be encoded, sensible or not.
func drawTemplate(t *rapid.T) policies.Template {
	seconds := rapid.Int64Range(-600_000_000, 60_000_000_000) // 1950 is not reached, 2050 is passed
	tpl := policies.Template{
		Subject:     rapid.SliceOfN(attribute, 0, 5).Draw(t, "subject"),
		NotBefore:   time.Unix(seconds.Draw(t, "notBefore"), 0).UTC(),
		NotAfter:    time.Unix(seconds.Draw(t, "notAfter"), 0).UTC(),
		KeyUsage:    x509.KeyUsage(rapid.IntRange(0, 0x1ff).Draw(t, "keyUsage")),
		ExtKeyUsage: rapid.SliceOfN(oid, 0, 4).Draw(t, "extKeyUsage"),
		DNS:         rapid.SliceOfN(dnsName, 0, 5).Draw(t, "dns"),
		IP:          rapid.SliceOfN(address, 0, 3).Draw(t, "ip"),
		Email:       rapid.SliceOfN(mailbox, 0, 3).Draw(t, "email"),
		URI:         rapid.SliceOfN(uri, 0, 3).Draw(t, "uri"),
		CA:          rapid.Bool().Draw(t, "ca"), PathLen: -1,
		Policies:          rapid.SliceOfNDistinct(oid, 0, 3, asn1.ObjectIdentifier.String).Draw(t, "policies"),
		OCSPNoCheck:       rapid.Bool().Draw(t, "noCheck"),
		IssuerURLs:        rapid.SliceOfN(httpURL, 0, 2).Draw(t, "issuers"),
		OCSPURLs:          rapid.SliceOfN(httpURL, 0, 2).Draw(t, "ocsp"),
		WriteSubjectKeyID: rapid.Bool().Draw(t, "writeSubjectKeyID"),
		Permitted:         drawConstraints(t), Excluded: drawConstraints(t),
	}
	if rapid.Bool().Draw(t, "crl") {
		tpl.CRLURL = httpURL.Draw(t, "crlURL")
	}
	if tpl.CA { // crypto/x509 refuses a pathLen without keyCertSign
		tpl.PathLen = rapid.IntRange(-1, 5).Draw(t, "pathLen")
		tpl.KeyUsage |= x509.KeyUsageCertSign
	}
	return tpl
}

// TestEncodingRefuses lists what cannot be written, although it is of the right type.
func TestEncodingRefuses(t *testing.T) {
	key := p256(t)
	for name, change := range map[string]func(*policies.Template){
		"a NUL in a DNS name":       func(t *policies.Template) { t.DNS = []string{"a\x00.example"} },
		"a space in a DNS name":     func(t *policies.Template) { t.DNS = []string{"a b.example"} },
		"a non-ASCII DNS name":      func(t *policies.Template) { t.DNS = []string{"ä.example"} },
		"an empty DNS name":         func(t *policies.Template) { t.DNS = []string{""} },
		"a line break in a mailbox": func(t *policies.Template) { t.Email = []string{"a@b\n"} },
		"a non-ASCII URI":           func(t *policies.Template) { t.URI = []string{"https://ä/"} },
		"a mapped address":          func(t *policies.Template) { t.IP = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")} },
		"an address with a zone":    func(t *policies.Template) { t.IP = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		"no address":                func(t *policies.Template) { t.IP = []netip.Addr{{}} },
		"a range with stray bits": func(t *policies.Template) {
			t.Permitted = &policies.NameConstraints{IP: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/8")}}
		},
		"no range":     func(t *policies.Template) { t.Permitted = &policies.NameConstraints{IP: []netip.Prefix{{}}} },
		"an empty URL": func(t *policies.Template) { t.OCSPURLs = []string{""} },
		"two attributes in one RDN": func(t *policies.Template) {
			t.Subject = pkix.RDNSequence{append(commonName("a")[0], commonName("b")[0]...)}
		},
		"an RDN without attribute": func(t *policies.Template) { t.Subject = pkix.RDNSequence{{}} },
		"an empty attribute":       func(t *policies.Template) { t.Subject = commonName("") },
		"an attribute of no text": func(t *policies.Template) {
			t.Subject = pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: 7}}}
		},
		"an attribute not of UTF-8": func(t *policies.Template) { t.Subject = commonName("a\xff") },
		"a country not printable": func(t *policies.Template) {
			t.Subject = pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "Ö"}}}
		},
		"an attribute of IA5String": func(t *policies.Template) {
			t.Subject = pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@b"}}}
		},
		"an object identifier of 3.": func(t *policies.Template) { t.Policies = []asn1.ObjectIdentifier{{3, 1}} },
		"a year before 1950":         func(t *policies.Template) { t.NotBefore = time.Date(1949, 12, 31, 23, 59, 59, 0, time.UTC) },
		"a year of five digits":      func(t *policies.Template) { t.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		tpl := leafTemplate(t, key.Public())
		change(&tpl)
		if _, err := marshalTBS(frame{ecdsaSHA256, newSerial(t), []byte{0x30, 0}, []byte{1}}, &tpl); err == nil {
			t.Errorf("%s was encoded", name)
		}
	}
}

// TestTimes looks at the forms of a time on both sides of 2050.
func TestTimes(t *testing.T) {
	key := p256(t)
	tpl := leafTemplate(t, key.Public())
	tpl.NotBefore, tpl.NotAfter = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2050, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	tbs, err := marshalTBS(frame{ecdsaSHA256, newSerial(t), []byte{0x30, 0}, []byte{1}}, &tpl)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x17\x0d491231235959Z", "\x18\x0f20500101000000Z"} {
		if !bytes.Contains(tbs, []byte(want)) {
			t.Errorf("%q is not in %x", want, tbs)
		}
	}
}

// TestCriticality holds the criticality of every extension against RFC 5280, section 4.2.
func TestCriticality(t *testing.T) {
	full := rootTemplate(t, p256(t).Public())
	full.DNS, full.ExtKeyUsage = []string{"example.com"}, []asn1.ObjectIdentifier{oidServerAuth}
	full.Policies = []asn1.ObjectIdentifier{oidDomainValidated}
	full.CRLURL, full.OCSPURLs, full.OCSPNoCheck, full.Permitted = "http://a.example/", []string{"http://b.example/"}, true, constraints()
	unnamed := full
	unnamed.Subject = nil
	critical := map[string]bool{"2.5.29.15": true, "2.5.29.19": true, "2.5.29.30": true}
	for _, tpl := range []policies.Template{full, unnamed} {
		critical["2.5.29.17"] = len(tpl.Subject) == 0
		tbs, err := marshalTBS(frame{ecdsaSHA256, newSerial(t), []byte{0x30, 0}, []byte{1}}, &tpl)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := ecdsaSHA256.assemble(tbs, []byte{0})
		if err != nil {
			t.Fatal(err)
		}
		extensions := parse(t, whole).Extensions
		if len(extensions) != 11 {
			t.Errorf("there are %d extensions, want all 11", len(extensions))
		}
		for _, e := range extensions {
			if e.Critical != critical[e.Id.String()] {
				t.Errorf("%v: critical is %v", e.Id, e.Critical)
			}
		}
	}
}
