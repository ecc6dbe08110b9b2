package csrtest

import (
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/netip"
	"strings"

	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/csr"
)

// policyNameCases are requests for names that can be read and must not be granted.
func policyNameCases() []Case {
	dns := func(policy string, names ...string) Case {
		return accepted(policy, policy, func(b *Builder) { b.DNS = append(b.DNS, names...) })
	}
	general := func(policy string, name []byte) Case {
		return accepted(policy, policy, func(b *Builder) { b.RawNames = [][]byte{name} })
	}
	subject := func(policy string, attributes ...Attr) Case {
		return accepted(policy, policy, func(b *Builder) { b.Subject = attributes })
	}
	cn, org := CN("host.dev.example")[0], Attr{OID: OIDOrganization, Value: "Example Ltd"}
	var thousand []string
	for i := range csr.MaxNames {
		thousand = append(thousand, fmt.Sprintf("h%d.dev.example", i))
	}
	return []Case{
		subject("two-common-names", cn, CN("evil.example")[0]),
		subject("cn-not-in-san", CN("other.dev.example")[0]),
		subject("unknown-subject-attribute", cn, Attr{OID: asn1.ObjectIdentifier{2, 5, 4, 99}, Value: "x"}),
		accepted("multi-valued-rdn", "multi-valued-rdn", func(b *Builder) {
			b.RawSubject = sequence(element(cryptobyte_asn1.SET, org.encode(), cn.encode())) // DER puts the shorter first
		}),
		accepted("no-names-at-all", "no-names-at-all", func(b *Builder) { b.Subject, b.DNS = nil, nil }),
		accepted("cn-without-san", "cn-without-san", func(b *Builder) { b.DNS = nil }),
		dns("wildcard-middle", "a.*.dev.example"),
		dns("wildcard-partial", "a*.dev.example"),
		dns("wildcard-twice", "*.*.dev.example"),
		dns("wildcard-tld", "*.com"),
		dns("wildcard-alone", "*"),
		dns("trailing-dot", "a.dev.example."),
		dns("leading-dot", ".dev.example"),
		dns("empty-label", "a..dev.example"),
		dns("empty-dns", ""),
		dns("ip-in-dns", "127.0.0.1"),
		dns("ipv6-in-dns", "::1"),
		dns("url-in-dns", "https://a.dev.example/"),
		dns("port-in-dns", "a.dev.example:443"),
		dns("email-in-dns", "a@dev.example"),
		dns("space-in-dns", "a b.dev.example"),
		dns("underscore", "a_b.dev.example"),
		dns("hyphen-first", "-a.dev.example"),
		dns("label-too-long", strings.Repeat("a", 64)+".dev.example"),
		dns("name-too-long", strings.Repeat("a.", 125)+"dev.example"),
		dns("outside-namespace", "evil.example"),
		dns("suffix-of-namespace", "evildev.example"),
		dns("1000-names", thousand[1:]...),
		general("othername", element(0xa0, oid(OIDUserPrincipal), element(0xa0, element(cryptobyte_asn1.UTF8String, []byte("admin@dev.example"))))),
		dns("invalid-name", "host.invalid"),
		dns("onion-name", "abc.onion"),
		dns("alt-name", "host.alt"),
		dns("reverse-name", "1.0.0.127.in-addr.arpa"),
		dns("reverse-name-ipv6", "8.b.d.0.1.0.0.2.ip6.arpa"),
		dns("idna-symbol", "xn--n3h.dev.example"),        // a snowman
		dns("idna-middle-dot", "xn--ab-0ea.dev.example"), // stands only between two l
		dns("idna-mapped", "xn--x-sy8h.dev.example"),     // a ligature, which is to be written as two letters
		dns("idna-bidi", "xn--1-0hc.dev.example"),        // a digit in front of a Hebrew letter
		dns("idna-ascii", "xn--example-.dev.example"),    // nothing that needs encoding
		dns("reserved-label", "ab--c.dev.example"),
		dns("hexadecimal-address", "0x7f.0x1"),
		general("kerberos-principal", element(0xa0, oid(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 2, 2}), element(0xa0, sequence()))),
		general("ntds-sid", element(0xa0, oid(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 25, 2, 1}),
			element(0xa0, element(cryptobyte_asn1.OCTET_STRING, []byte("S-1-5-21-1-2-3-500"))))),
		general("x400address", element(0xa3, sequence())),
		general("directoryname", element(0xa4, Subject(cn))),
		general("edipartyname", element(0xa5, element(0xa1, element(cryptobyte_asn1.UTF8String, []byte("party"))))),
		general("registeredid", element(0x88, []byte{0x2a, 3, 4})),
		accepted("v4-mapped-ip", "v4-mapped-ip", func(b *Builder) { b.IP = []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")} }),
		accepted("v4-compatible-ip", "v4-compatible-ip", func(b *Builder) { b.IP = []netip.Addr{netip.MustParseAddr("::127.0.0.1")} }),
		accepted("multicast-ip", "multicast-ip", func(b *Builder) { b.IP = []netip.Addr{netip.MustParseAddr("224.0.0.1")} }),
		accepted("unspecified-ip", "unspecified-ip", func(b *Builder) { b.IP = []netip.Addr{netip.IPv6Unspecified()} }),
		accepted("ip-outside-namespace", "ip-outside-namespace", func(b *Builder) { b.IP = []netip.Addr{netip.MustParseAddr("192.0.2.1")} }),
		accepted("email-in-tls", "email-in-tls", func(b *Builder) { b.Email = []string{"a@dev.example"} }),
		accepted("sid-uri", "sid-uri", func(b *Builder) { b.URI = []string{"tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500"} }),
		accepted("uri-in-tls", "uri-in-tls", func(b *Builder) { b.URI = []string{"spiffe://dev.example/a"} }),
	}
}

// policyKeyCases are keys that can be read and must not be certified. Where nobody has the private key, the signature is empty; such
// a key must be refused before its signature is looked at.
func policyKeyCases() []Case {
	keys := FixedKeys()
	unsigned := func(policy, verify string, modulus, exponent *big.Int) Case {
		c := accepted(policy, policy, func(b *Builder) {
			b.RawSPKI, b.RawSigAlg, b.RawSignature = RSAKey(modulus, exponent), mustAlgorithm("RSA-SHA256"), bits(make([]byte, 256))
		})
		c.Verify = verify
		return c
	}
	n, e := keys.RSA2048.N, big.NewInt(65537)
	even := new(big.Int).Add(n, big.NewInt(1))
	huge := new(big.Int).SetBit(big.NewInt(1), 300, 1)
	return []Case{
		accepted("p-224", "p-224", func(b *Builder) { b.Key = keys.P224 }),
		accepted("rsa-1024", "rsa-1024", func(b *Builder) { b.Key = keys.RSA1024 }),
		accepted("rsa-close-primes", "rsa-close-primes", func(b *Builder) { b.Key = keys.RSAClose }),
		accepted("rsa-exponent-3", "rsa-exponent-3", func(b *Builder) { b.Key = keys.RSAExponent3 }),
		unsigned("rsa-exponent-1", csr.RuleSignature, n, big.NewInt(1)),
		unsigned("rsa-exponent-2", csr.RuleSignature, n, big.NewInt(2)),
		unsigned("rsa-even-exponent", csr.RuleSignature, n, big.NewInt(65536)),
		unsigned("rsa-huge-exponent", csr.RuleKey, n, huge),
		unsigned("rsa-even-modulus", csr.RuleSignature, even, e),
		unsigned("rsa-roca", csr.RuleSignature, rocaModulus(), e),
		unsigned("rsa-512", csr.RuleSignature, Modulus(512), e),
		unsigned("rsa-2047", csr.RuleSignature, Modulus(2047), e),
		unsigned("rsa-16384", csr.RuleKey, Modulus(16384), e),
		unsigned("rsa-131072", csr.RuleKey, Modulus(131072), e),
	}
}

// policyExtensionCases are extensions and attributes that can be read and must not be granted.
func policyExtensionCases() []Case {
	one := func(policy string, extensions ...Extension) Case {
		return accepted(policy, policy, func(b *Builder) { b.Extensions = extensions })
	}
	attribute := func(policy string, id asn1.ObjectIdentifier, values ...[]byte) Case {
		return accepted(policy, policy, func(b *Builder) { b.Attributes = [][]byte{Attribute(id, values...)} })
	}
	unknown := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	oldRequest := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
	evil := Extension{OID: OIDSubjectAltName, Value: sequence(element(0x82, []byte("evil.example")))}.encode()
	nameConstraints := asn1.ObjectIdentifier{2, 5, 29, 30}
	precertPoison := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}
	return []Case{
		one("ca-true", Extension{OID: OIDBasicConstraints, Critical: true, Value: sequence([]byte{1, 1, 0xff})}),
		one("ca-true-path-0", Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 0xff}, []byte{2, 1, 0})}),
		one("key-usage-cert-sign", Extension{OID: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 2, 0x84}}),
		one("key-usage-crl-sign", Extension{OID: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 1, 0x82}}),
		one("ext-key-usage-code-signing", Extension{OID: OIDExtKeyUsage, Value: sequence(oid(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}))}),
		one("ext-key-usage-ocsp-signing",
			Extension{OID: OIDExtKeyUsage, Value: sequence(oid(OIDServerAuth), oid(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}))}),
		one("ext-key-usage-any", Extension{OID: OIDExtKeyUsage, Value: sequence(oid(asn1.ObjectIdentifier{2, 5, 29, 37, 0}))}),
		one("unknown-critical-extension", Extension{OID: unknown, Critical: true, Value: null}),
		one("name-constraints", Extension{OID: nameConstraints, Critical: true, Value: sequence(element(0xa0, sequence(element(0x82, nil))))}),
		one("ntds-sid-extension", Extension{OID: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 25, 2}, Value: sequence()}),
		one("precertificate-poison", Extension{OID: precertPoison, Critical: true, Value: null}),
		attribute("microsoft-extension-request", oldRequest, sequence(evil)),
		attribute("unknown-attribute", unknown, null),
	}
}
