package csrtest

import (
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/csr"
)

// Case is one request and what must become of it.
type Case struct {
	Name   string
	DER    []byte
	Rule   string // the rule by which csr.Parse refuses; empty where it reads the request
	Verify string // the rule by which VerifySignature refuses what was read; empty where the signature is good
	Policy string // what the policies must find wrong with what was read, in words; empty where nothing is, or Rule or Verify says it
}

// Base is the ordinary request that the cases are variations of: P-256, one name, which is also the common name.
func Base() Builder {
	return Builder{Key: FixedKeys().P256, Subject: CN("host.dev.example"), DNS: []string{"host.dev.example"}}
}

// Hostile gives the requests that must not become certificates. Those without Rule and Verify are for the policies to refuse; apart
// from what Policy names, they are what a tls-server profile for dev.example allows. The cases are shared: do not change them.
func Hostile() []Case { return hostile() }

// Benign gives requests that must be read, whose signatures are good and in which nothing is wrong. Whether a profile takes their kind
// of key, an organization or a challenge password is its own choice. The cases are shared: do not change them.
func Benign() []Case { return benign() }

var hostile = sync.OnceValue(func() []Case {
	var all []Case
	for _, part := range []func() []Case{
		framingCases, subjectCases, nameCases, attributeCases, extensionCases, keyCases, signatureCases,
		policyNameCases, policyKeyCases, policyExtensionCases,
	} {
		all = append(all, part()...)
	}
	return all
})

var benign = sync.OnceValue(func() []Case {
	keys := FixedKeys()
	usage := Extension{OID: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}}
	server := Extension{OID: OIDExtKeyUsage, Value: sequence(oid(OIDServerAuth))}
	leaf := Extension{OID: OIDBasicConstraints, Critical: true, Value: sequence()}
	keyID := Extension{OID: OIDSubjectKeyID, Value: element(cryptobyte_asn1.OCTET_STRING, make([]byte, 20))}
	return []Case{
		accepted("p256", "", func(b *Builder) {}),
		accepted("p384", "", func(b *Builder) { b.Key = keys.P384 }),
		accepted("p384-sha384", "", func(b *Builder) { b.Key, b.SigAlg = keys.P384, "ECDSA-SHA384" }),
		accepted("p521-sha512", "", func(b *Builder) { b.Key, b.SigAlg = keys.P521, "ECDSA-SHA512" }),
		accepted("ed25519", "", func(b *Builder) { b.Key = keys.Ed25519 }),
		accepted("rsa2048", "", func(b *Builder) { b.Key = keys.RSA2048 }),
		accepted("rsa2048-sha384", "", func(b *Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-SHA384" }),
		accepted("rsa2048-sha512", "", func(b *Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-SHA512" }),
		accepted("rsa2048-pss-sha256", "", func(b *Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-PSS-SHA256" }),
		accepted("rsa2048-pss-sha384", "", func(b *Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-PSS-SHA384" }),
		accepted("rsa2048-pss-sha512", "", func(b *Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-PSS-SHA512" }),
		accepted("empty-subject", "", func(b *Builder) { b.Subject, b.SANCritical = nil, true }),
		accepted("no-common-name", "", func(b *Builder) { b.Subject = []Attr{{OID: OIDOrganization, Value: "Example Ltd"}} }),
		accepted("utf8-organization", "", func(b *Builder) {
			b.Subject = append(b.Subject, Attr{OID: OIDOrganization, Value: "Größe 東京"},
				Attr{OID: OIDCountry, Value: "DE", Tag: cryptobyte_asn1.PrintableString})
		}),
		accepted("many-names", "", func(b *Builder) {
			b.DNS = append(b.DNS, "a.dev.example", "b.dev.example", "localhost")
			b.IP = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
		}),
		accepted("wildcard", "", func(b *Builder) { b.Subject, b.DNS = CN("*.dev.example"), []string{"*.dev.example"} }),
		accepted("upper-case", "", func(b *Builder) { b.Subject, b.DNS = CN("Host.Dev.Example"), []string{"Host.Dev.Example"} }),
		accepted("usual-extensions", "", func(b *Builder) { b.Extensions = []Extension{usage, server, leaf, keyID} }),
		accepted("challenge-password", "", func(b *Builder) {
			b.Attributes = [][]byte{Attribute(OIDChallenge, element(cryptobyte_asn1.PrintableString, []byte("once")))}
		}),
	}
})

// accepted is a request that is read and properly signed.
func accepted(name, policy string, change func(*Builder)) Case {
	b := Base()
	change(&b)
	return Case{Name: name, DER: b.must(), Policy: policy}
}

// refused is a request that is not read.
func refused(name, rule string, change func(*Builder)) Case {
	c := accepted(name, "", change)
	c.Rule = rule
	return c
}

// framingCases are about the request as a whole: what it is, where it ends, which version it has.
func framingCases() []Case {
	good := Base().must()
	bytesCase := func(name, rule string, parts ...[]byte) Case {
		var der []byte
		for _, part := range parts {
			der = append(der, part...)
		}
		return Case{Name: name, Rule: rule, DER: der}
	}
	raw := func(name, rule string, version ...byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawVersion = version })
	}
	_, body := split(good)
	return []Case{
		bytesCase("empty", csr.RuleNotDER),
		bytesCase("text", csr.RuleNotDER, []byte("please issue a certificate for host.dev.example")),
		bytesCase("pem-as-der", csr.RuleNotDER, []byte("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n")),
		bytesCase("zeros", csr.RuleNotDER, make([]byte, 64)),
		bytesCase("truncated-header", csr.RuleTruncated, good[:3]),
		bytesCase("truncated-half", csr.RuleTruncated, good[:len(good)/2]),
		bytesCase("truncated-by-one", csr.RuleTruncated, good[:len(good)-1]),
		bytesCase("trailing-zero", csr.RuleTrailingData, good, []byte{0}),
		bytesCase("trailing-request", csr.RuleTrailingData, good, good),
		bytesCase("too-large", csr.RuleTooLarge, good, make([]byte, csr.MaxDER)),
		bytesCase("claims-4-gibibytes", csr.RuleTruncated, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, body),
		bytesCase("indefinite-length", csr.RuleEncoding, []byte{0x30, 0x80}, body, []byte{0, 0}),
		bytesCase("long-length", csr.RuleEncoding, []byte{0x30, 0x84, 0, 0, byte(len(body) >> 8), byte(len(body))}, body),
		bytesCase("empty-sequence", csr.RuleEncoding, []byte{0x30, 0}),
		bytesCase("trailing-inside", csr.RuleEncoding, sequence(body, null)),
		bytesCase("signature-missing", csr.RuleEncoding, sequence(sequence(Base().mustInfo()...), mustAlgorithm("ECDSA-SHA256"))),
		bytesCase("trailing-in-info", csr.RuleEncoding,
			sequence(sequence(append(Base().mustInfo(), null)...), mustAlgorithm("ECDSA-SHA256"), bits([]byte{0}))),
		bytesCase("certificate", csr.RuleEncoding,
			sequence(sequence(element(0xa0, []byte{2, 1, 2}), []byte{2, 1, 1}), mustAlgorithm("ECDSA-SHA256"), bits(nil))),
		bytesCase("private-key", csr.RuleEncoding,
			sequence([]byte{2, 1, 0}, sequence(oid(OIDServerAuth)), element(cryptobyte_asn1.OCTET_STRING))),
		raw("version-1", csr.RuleVersion, 2, 1, 1),
		raw("version-minus-1", csr.RuleVersion, 2, 1, 0xff),
		raw("version-256", csr.RuleVersion, 2, 2, 1, 0),
		raw("version-long-zero", csr.RuleEncoding, 2, 2, 0, 0),
		raw("version-no-octets", csr.RuleEncoding, 2, 0),
		raw("version-as-enumerated", csr.RuleEncoding, 0x0a, 1, 0),
	}
}

func subjectCases() []Case {
	value := func(name, rule string, tag cryptobyte_asn1.Tag, value string) Case {
		return refused(name, rule, func(b *Builder) { b.Subject = []Attr{{OID: OIDCommonName, Value: value, Tag: tag}} })
	}
	raw := func(name, rule string, rdns ...[]byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawSubject = sequence(rdns...) })
	}
	cn := CN("host.dev.example")[0].encode()
	long := make([]byte, csr.MaxValue+1)
	for i := range long {
		long[i] = 'a'
	}
	return []Case{
		value("cn-teletex", csr.RuleStringType, cryptobyte_asn1.T61String, "host"),
		value("cn-bmp", csr.RuleStringType, 30, "\x00h\x00i"),
		value("cn-universal", csr.RuleStringType, 28, "\x00\x00\x00h"),
		value("cn-numeric", csr.RuleStringType, 18, "123"),
		value("cn-octets", csr.RuleStringType, cryptobyte_asn1.OCTET_STRING, "host"),
		value("cn-constructed-string", csr.RuleStringType, cryptobyte_asn1.UTF8String.Constructed(), "\x0c\x02hi"),
		value("cn-printable-asterisk", csr.RuleEncoding, cryptobyte_asn1.PrintableString, "*.dev.example"),
		value("cn-printable-at", csr.RuleEncoding, cryptobyte_asn1.PrintableString, "a@dev.example"),
		value("cn-printable-utf8", csr.RuleEncoding, cryptobyte_asn1.PrintableString, "hö"),
		value("cn-ia5-latin1", csr.RuleEncoding, cryptobyte_asn1.IA5String, "h\xf6"),
		value("cn-utf8-invalid", csr.RuleEncoding, 0, "h\xf6st"),
		value("cn-utf8-overlong-nul", csr.RuleEncoding, 0, "a\xc0\x80b"),
		value("cn-utf8-surrogate", csr.RuleEncoding, 0, "a\xed\xa0\x80b"),
		value("cn-nul", csr.RuleControlCharacter, 0, "host.dev.example\x00.evil.example"),
		value("cn-printable-nul", csr.RuleControlCharacter, cryptobyte_asn1.PrintableString, "host\x00"),
		value("cn-ia5-newline", csr.RuleControlCharacter, cryptobyte_asn1.IA5String, "host\n"),
		value("cn-delete", csr.RuleControlCharacter, 0, "host\x7f"),
		value("cn-c1", csr.RuleControlCharacter, 0, "host\u0085"),
		value("cn-bidi-override", csr.RuleControlCharacter, 0, "host\u202eelpmaxe"),
		value("cn-line-separator", csr.RuleControlCharacter, 0, "host\u2028"),
		value("cn-empty", csr.RuleEmptyValue, 0, ""),
		value("cn-too-long", csr.RuleTooLong, 0, string(long)),
		raw("rdn-empty", csr.RuleEncoding, element(cryptobyte_asn1.SET)),
		raw("rdn-unsorted", csr.RuleEncoding, element(cryptobyte_asn1.SET,
			Attr{OID: OIDOrganization, Value: "a"}.encode(), Attr{OID: OIDCommonName, Value: "a"}.encode())),
		raw("rdn-same-twice", csr.RuleEncoding, element(cryptobyte_asn1.SET, cn, cn)),
		raw("rdn-as-sequence", csr.RuleEncoding, sequence(cn)),
		raw("rdn-trailing", csr.RuleEncoding,
			element(cryptobyte_asn1.SET, sequence(oid(OIDCommonName), element(cryptobyte_asn1.UTF8String, []byte("a")), null))),
		raw("rdn-oid-padded", csr.RuleEncoding,
			element(cryptobyte_asn1.SET, sequence([]byte{6, 4, 0x55, 4, 0x80, 3}, element(cryptobyte_asn1.UTF8String, []byte("a"))))),
		refused("subject-as-set", csr.RuleEncoding, func(b *Builder) { b.RawSubject = element(cryptobyte_asn1.SET) }),
		raw("subject-too-many", csr.RuleTooMany, repeat(csr.MaxElements+1, element(cryptobyte_asn1.SET, cn))...),
	}
}

func nameCases() []Case {
	general := func(name, rule string, names ...[]byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawNames = names })
	}
	text := func(name, rule string, tag cryptobyte_asn1.Tag, value string) Case {
		return general(name, rule, element(tag, []byte(value)))
	}
	whole := func(name, rule string, san []byte) Case {
		return refused(name, rule, func(b *Builder) {
			b.DNS, b.Extensions = nil, []Extension{{OID: OIDSubjectAltName, Value: san}}
		})
	}
	short := element(0x82, []byte("a.b"))
	dns := sequence(element(0x82, []byte("host.dev.example")))
	return []Case{
		text("dns-nul", csr.RuleControlCharacter, 0x82, "host.dev.example\x00.evil.example"),
		text("dns-newline", csr.RuleControlCharacter, 0x82, "host.dev.example\n"),
		text("dns-delete", csr.RuleControlCharacter, 0x82, "host\x7f.dev.example"),
		text("dns-utf8", csr.RuleEncoding, 0x82, "höst.dev.example"),
		text("dns-latin1", csr.RuleEncoding, 0x82, "h\xf6st.dev.example"),
		text("email-nul", csr.RuleControlCharacter, 0x81, "a\x00@dev.example"),
		text("email-utf8", csr.RuleEncoding, 0x81, "ä@dev.example"),
		text("uri-carriage-return", csr.RuleControlCharacter, 0x86, "https://dev.example/\r\nHost: x"),
		text("uri-utf8", csr.RuleEncoding, 0x86, "https://dev.example/ä"),
		text("ip-no-octets", csr.RuleIPAddress, 0x87, ""),
		text("ip-5-octets", csr.RuleIPAddress, 0x87, "\x7f\x00\x00\x01\x00"),
		text("ip-with-mask", csr.RuleIPAddress, 0x87, "\x0a\x00\x00\x00\xff\x00\x00\x00"),
		text("ip-as-text", csr.RuleIPAddress, 0x87, "127.0.0.1"),
		text("name-unknown-choice", csr.RuleEncoding, 0x89, "x"),
		text("dns-constructed", csr.RuleEncoding, 0xa2, "\x16\x03a.b"),
		text("dns-as-ia5string", csr.RuleEncoding, cryptobyte_asn1.IA5String, "host.dev.example"),
		text("registered-id-empty", csr.RuleEncoding, 0x88, ""),
		text("registered-id-cut-off", csr.RuleEncoding, 0x88, "\x55\x84"),
		general("othername-without-value", csr.RuleEncoding, element(0xa0, oid(OIDUserPrincipal))),
		general("othername-two-values", csr.RuleEncoding, element(0xa0, oid(OIDUserPrincipal), element(0xa0, null, null))),
		general("othername-trailing", csr.RuleEncoding, element(0xa0, oid(OIDUserPrincipal), element(0xa0, null), null)),
		general("directoryname-implicit", csr.RuleEncoding, element(0xa4, element(cryptobyte_asn1.SET, CN("a")[0].encode()))),
		whole("san-empty", csr.RuleEncoding, sequence()),
		whole("san-no-octets", csr.RuleEncoding, []byte{}),
		whole("san-trailing", csr.RuleEncoding, append(append([]byte{}, dns...), 0)),
		whole("san-trailing-name", csr.RuleEncoding, append(append([]byte{}, dns...), dns...)),
		whole("san-as-set", csr.RuleEncoding, element(cryptobyte_asn1.SET, short)),
		whole("san-length-too-long", csr.RuleEncoding, []byte{0x30, 5, 0x82, 4, 'a', '.', 'b'}),
		whole("1001-names", csr.RuleTooManyNames, sequence(repeat(csr.MaxNames+1, short)...)),
		whole("10000-names", csr.RuleTooManyNames, sequence(repeat(10_000, short)...)),
	}
}

func attributeCases() []Case {
	san := Extension{OID: OIDSubjectAltName, Value: sequence(element(0x82, []byte("host.dev.example")))}.encode()
	evil := Extension{OID: OIDSubjectAltName, Value: sequence(element(0x82, []byte("evil.example")))}.encode()
	other := Extension{OID: OIDExtKeyUsage, Value: sequence(oid(OIDServerAuth))}.encode()
	attributes := func(name, rule string, all ...[]byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawAttributes = element(0xa0, all...) })
	}
	password := Attribute(OIDChallenge, element(cryptobyte_asn1.PrintableString, []byte("once")))
	var hundred [][]byte
	for i := range csr.MaxElements + 1 {
		hundred = append(hundred, Attribute(append(OIDChallenge[:len(OIDChallenge):len(OIDChallenge)], i), null))
	}
	deep := null
	for range 40 {
		deep = sequence(deep)
	}
	return []Case{
		refused("attributes-missing", csr.RuleEncoding, func(b *Builder) { b.RawAttributes = []byte{} }),
		refused("attributes-as-set", csr.RuleEncoding, func(b *Builder) { b.RawAttributes = element(cryptobyte_asn1.SET) }),
		attributes("extensionrequest-two-values", csr.RuleExtensionRequest, Attribute(OIDExtensionRequest, sequence(san), sequence(evil))),
		attributes("extensionrequest-no-value", csr.RuleExtensionRequest, Attribute(OIDExtensionRequest)),
		attributes("extensionrequest-empty", csr.RuleExtensionRequest, Attribute(OIDExtensionRequest, sequence())),
		attributes("extensionrequest-twice", csr.RuleDuplicateAttribute,
			Attribute(OIDExtensionRequest, sequence(san)), Attribute(OIDExtensionRequest, sequence(other))),
		attributes("extensionrequest-not-a-sequence", csr.RuleExtensionRequest, Attribute(OIDExtensionRequest, null)),
		attributes("attribute-twice", csr.RuleDuplicateAttribute, password, password),
		attributes("attribute-no-value", csr.RuleEncoding, Attribute(OIDChallenge)),
		attributes("attribute-value-cut-off", csr.RuleEncoding, Attribute(OIDChallenge, []byte{0x13, 5, 'a'})),
		attributes("attribute-value-indefinite", csr.RuleEncoding, Attribute(OIDChallenge, []byte{0x30, 0x80, 0, 0})),
		attributes("attribute-value-bad-boolean", csr.RuleEncoding, Attribute(OIDChallenge, []byte{1, 1, 1})),
		attributes("attribute-value-long-integer", csr.RuleEncoding, Attribute(OIDChallenge, []byte{2, 2, 0, 1})),
		attributes("attribute-value-padded-oid", csr.RuleEncoding, Attribute(OIDChallenge, []byte{6, 2, 0x80, 1})),
		attributes("attribute-value-bad-null", csr.RuleEncoding, Attribute(OIDChallenge, []byte{5, 1, 0})),
		attributes("attribute-values-unsorted", csr.RuleEncoding, Attribute(OIDChallenge, []byte{2, 1, 2}, []byte{2, 1, 1})),
		attributes("attribute-value-too-deep", csr.RuleEncoding, Attribute(OIDChallenge, deep)),
		attributes("attribute-trailing", csr.RuleEncoding, sequence(oid(OIDChallenge), element(cryptobyte_asn1.SET, null), null)),
		attributes("attribute-not-a-sequence", csr.RuleEncoding, null),
		attributes("attributes-too-many", csr.RuleTooMany, hundred...),
	}
}

func extensionCases() []Case {
	one := func(name, rule string, extension Extension) Case {
		return refused(name, rule, func(b *Builder) { b.Extensions = []Extension{extension} })
	}
	raw := func(name, rule string, extensions ...[]byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawExtensions = sequence(extensions...) })
	}
	octets := func(value ...byte) []byte { return element(cryptobyte_asn1.OCTET_STRING, value) }
	unknown := Extension{OID: OIDSubjectKeyID, Value: octets(1, 2, 3)}
	var hundred [][]byte
	for i := range csr.MaxElements + 1 {
		hundred = append(hundred, Extension{OID: append(OIDSubjectKeyID[:len(OIDSubjectKeyID):len(OIDSubjectKeyID)], i), Value: null}.encode())
	}
	return []Case{
		one("san-twice", csr.RuleDuplicateExtension, Extension{OID: OIDSubjectAltName, Value: sequence(element(0x82, []byte("evil.example")))}),
		refused("unknown-twice", csr.RuleDuplicateExtension, func(b *Builder) { b.Extensions = []Extension{unknown, unknown} }),
		raw("critical-false", csr.RuleEncoding, sequence(oid(OIDSubjectKeyID), []byte{1, 1, 0}, octets(4, 0))),
		raw("critical-one", csr.RuleEncoding, sequence(oid(OIDSubjectKeyID), []byte{1, 1, 1}, octets(4, 0))),
		raw("critical-twice", csr.RuleEncoding, sequence(oid(OIDSubjectKeyID), []byte{1, 1, 0xff}, []byte{1, 1, 0xff}, octets(4, 0))),
		raw("extension-without-value", csr.RuleEncoding, sequence(oid(OIDSubjectKeyID))),
		raw("extension-trailing", csr.RuleEncoding, sequence(oid(OIDSubjectKeyID), octets(4, 0), null)),
		raw("extension-not-a-sequence", csr.RuleEncoding, null),
		raw("extensions-too-many", csr.RuleTooMany, hundred...),
		one("unknown-value-no-der", csr.RuleEncoding, Extension{OID: OIDSubjectKeyID, Value: []byte("text")}),
		one("unknown-value-empty", csr.RuleEncoding, Extension{OID: OIDSubjectKeyID}),
		one("unknown-value-trailing", csr.RuleEncoding, Extension{OID: OIDSubjectKeyID, Value: append(octets(1), 0)}),
		one("key-usage-empty", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{3, 1, 0}}),
		one("key-usage-trailing-zero-bits", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{3, 2, 0, 0x80}}),
		one("key-usage-padding-set", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{3, 2, 7, 0x81}}),
		one("key-usage-bit-9", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{3, 3, 6, 0x80, 0x40}}),
		one("key-usage-trailing", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{3, 2, 7, 0x80, 0}}),
		one("key-usage-integer", csr.RuleEncoding, Extension{OID: OIDKeyUsage, Value: []byte{2, 1, 1}}),
		one("ext-key-usage-empty", csr.RuleEncoding, Extension{OID: OIDExtKeyUsage, Value: sequence()}),
		one("ext-key-usage-trailing", csr.RuleEncoding, Extension{OID: OIDExtKeyUsage, Value: append(sequence(oid(OIDServerAuth)), 0)}),
		one("ext-key-usage-null", csr.RuleEncoding, Extension{OID: OIDExtKeyUsage, Value: sequence(null)}),
		one("ext-key-usage-too-many", csr.RuleTooMany,
			Extension{OID: OIDExtKeyUsage, Value: sequence(repeat(csr.MaxElements+1, oid(OIDServerAuth))...)}),
		one("basic-constraints-false", csr.RuleEncoding, Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 0})}),
		one("basic-constraints-one", csr.RuleEncoding, Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 1})}),
		one("basic-constraints-path-without-ca", csr.RuleEncoding, Extension{OID: OIDBasicConstraints, Value: sequence([]byte{2, 1, 0})}),
		one("basic-constraints-path-negative", csr.RuleEncoding,
			Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 0xff}, []byte{2, 1, 0xff})}),
		one("basic-constraints-path-huge", csr.RuleEncoding,
			Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 0xff}, []byte{2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0})}),
		one("basic-constraints-trailing", csr.RuleEncoding, Extension{OID: OIDBasicConstraints, Value: append(sequence(), 0)}),
		one("basic-constraints-inner-trailing", csr.RuleEncoding, Extension{OID: OIDBasicConstraints, Value: sequence([]byte{1, 1, 0xff}, []byte{2, 1, 0}, null)}),
	}
}

func repeat(n int, element []byte) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = element
	}
	return all
}

// mustInfo gives the elements of the certificationRequestInfo.
func (b Builder) mustInfo() [][]byte {
	info, err := b.info()
	if err != nil {
		panic(err)
	}
	parts, _ := split(info)
	return parts
}

// split gives the elements of a SEQUENCE, and its contents as one.
func split(der []byte) (parts [][]byte, contents []byte) {
	s := cryptobyte.String(der)
	var rest, part cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !s.ReadASN1(&rest, cryptobyte_asn1.SEQUENCE) {
		panic(fmt.Sprintf("csrtest: not a SEQUENCE: %x", der))
	}
	contents = rest
	for rest.ReadAnyASN1Element(&part, &tag) {
		parts = append(parts, part)
	}
	return parts, contents
}

func mustAlgorithm(name csr.SignatureAlgorithm) []byte {
	der, err := Algorithm(name)
	if err != nil {
		panic(err)
	}
	return der
}
