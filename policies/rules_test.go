package policies

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// ruleCase is one request that a rule must refuse, or allow: a change to the benign one.
type ruleCase struct {
	name   string
	rule   string // the rule that the case is about
	refuse bool
	field  string // of the first violation; empty where it does not matter
	change func(*testing.T, *Request)
}

// with is a case about the request as sent.
func with(change func(*csrtest.Builder)) func(*testing.T, *Request) {
	return func(t *testing.T, r *Request) {
		b := csrtest.Base()
		change(&b)
		r.CSR = parseCSR(t, b)
	}
}

func dnsCase(rule string, refuse bool, profile string, names ...string) ruleCase {
	c := ruleCase{name: strings.Join(names, " "), rule: rule, refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = profile
		r.Namespace.DNS = []string{"*"}
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, names })(t, r)
	}}
	if refuse {
		c.field = "subjectAltName.dns[0]"
	}
	return c
}

func ipCase(rule string, refuse bool, profile, address string) ruleCase {
	return ruleCase{name: profile + " " + address, rule: rule, refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = profile
		r.Namespace.IP = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		with(func(b *csrtest.Builder) {
			b.Subject, b.DNS, b.IP = nil, nil, []netip.Addr{netip.MustParseAddr(address)}
		})(t, r)
	}}
}

func clientName(rule string, refuse bool, kind, value string) ruleCase {
	return ruleCase{name: kind + " " + value, rule: rule, refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = "tls-client"
		r.Namespace.Email, r.Namespace.URI = []string{"*"}, []string{"*"}
		with(func(b *csrtest.Builder) {
			b.Subject, b.DNS = nil, nil
			if kind == "email" {
				b.Email = []string{value}
			} else {
				b.URI = []string{value}
			}
		})(t, r)
	}}
}

func subjectCase(rule string, refuse bool, name string, attributes ...csrtest.Attr) ruleCase {
	return ruleCase{name: name, rule: rule, refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = "code-signing"
		r.Namespace.Subjects = append(r.Namespace.Subjects, "Größe 東京")
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = attributes, nil })(t, r)
	}}
}

func claimCase(commonName string, refuse bool) ruleCase {
	c := subjectCase("subject.claims", refuse, commonName, csrtest.Attr{OID: csrtest.OIDOrganization, Value: "Example Ltd"},
		csrtest.Attr{OID: csrtest.OIDCommonName, Value: commonName})
	if refuse {
		c.field = "subject.commonName"
	}
	return c
}

func constrained(name string, refuse bool, change func(*x509.Certificate), ask func(*csrtest.Builder)) ruleCase {
	return ruleCase{name: name, rule: "names.issuer-constraints", refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = "tls-client"
		r.Issuer.Certificate = issuingAuthority(t, change)
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, nil; ask(b) })(t, r)
	}}
}

// issuersName asks for a subject that an issuer may have, too.
func issuersName(organisation, commonName string) func(*testing.T, *Request) {
	return func(t *testing.T, r *Request) {
		r.Profile = "code-signing"
		r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) {
			c.Subject = pkix.Name{Organization: []string{organisation}, CommonName: commonName}
		})
		with(func(b *csrtest.Builder) {
			b.Subject = []csrtest.Attr{{OID: csrtest.OIDOrganization, Value: "Example Ltd"}, {OID: csrtest.OIDCommonName, Value: "Issuing 1"}}
			b.DNS = nil
		})(t, r)
	}
}

// directoryConstrained is an authority with name constraints on subjects.
func directoryConstrained(t *testing.T, permitted, excluded []pkix.Name) *x509.Certificate {
	t.Helper()
	return issuingAuthority(t, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{directoryConstraints(t, permitted, excluded)}
	})
}

func directoryConstraints(t *testing.T, permitted, excluded []pkix.Name) pkix.Extension {
	t.Helper()
	type subtree struct{ Base asn1.RawValue }
	trees := func(names []pkix.Name) (all []subtree) {
		for _, name := range names {
			der, err := asn1.Marshal(name.ToRDNSequence())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, subtree{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: der}})
		}
		return all
	}
	value, err := asn1.Marshal(struct {
		Permitted []subtree `asn1:"optional,omitempty,tag:0"`
		Excluded  []subtree `asn1:"optional,omitempty,tag:1"`
	}{trees(permitted), trees(excluded)})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: value}
}

func subjectConstrained(name string, refuse bool, permitted, excluded []pkix.Name) ruleCase {
	c := ruleCase{name: name, rule: "names.issuer-constraints", refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = "code-signing"
		r.Issuer.Certificate = directoryConstrained(t, permitted, excluded)
		with(func(b *csrtest.Builder) {
			b.Subject = []csrtest.Attr{{OID: csrtest.OIDOrganization, Value: "Example Ltd"}, {OID: csrtest.OIDCommonName, Value: "Release signing"}}
			b.DNS = nil
		})(t, r)
	}}
	if refuse {
		c.field = "subject"
	}
	return c
}

// namedConstrained asks for a certificate without names from an issuer whose names are constrained.
func namedConstrained(commonName string, refuse bool, change func(*x509.Certificate)) ruleCase {
	c := ruleCase{name: "common name " + commonName, rule: "names.issuer-constraints", refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile = "code-signing"
		r.Issuer.Certificate = issuingAuthority(t, change)
		with(func(b *csrtest.Builder) {
			b.Subject = []csrtest.Attr{{OID: csrtest.OIDOrganization, Value: "Example Ltd"}, {OID: csrtest.OIDCommonName, Value: commonName}}
			b.DNS = nil
		})(t, r)
	}}
	if refuse {
		c.field = "subject.commonName"
	}
	return c
}

// above has an issuer without constraints stand below authorities that are permitted a domain each.
func above(domains ...string) func(*testing.T, *Request) {
	return func(t *testing.T, r *Request) {
		for _, domain := range domains {
			c := issuingAuthority(t, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{domain} })
			r.Issuer.Above = append(r.Issuer.Above, c)
		}
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{"a.dev.example"} })(t, r)
	}
}

// purposes has an issuer and the authorities above it be for what is named, each in turn.
func purposes(name, profile string, refuse bool, chain ...[]string) ruleCase {
	c := ruleCase{name: name, rule: "extensions.issuer-ext-key-usage", refuse: refuse, change: func(t *testing.T, r *Request) {
		r.Profile, r.Issuer.Above = profile, nil
		if profile == "ocsp-responder" {
			r.Namespace.Profiles = []string{profile}
			with(func(b *csrtest.Builder) { b.Subject, b.DNS = csrtest.CN("OCSP 1"), nil })(t, r)
		}
		for i, names := range chain {
			authority := issuingAuthority(t, func(c *x509.Certificate) {
				for _, name := range names {
					oid, err := lookUp(extKeyUsages, name)
					if err != nil {
						t.Fatal(err)
					}
					c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, oid)
				}
			})
			if i == 0 {
				r.Issuer.Certificate = authority
			} else {
				r.Issuer.Above = append(r.Issuer.Above, authority)
			}
		}
	}}
	if refuse {
		c.field = "extKeyUsage"
	}
	return c
}

func ruleCases() []ruleCase {
	cn := func(v string) csrtest.Attr { return csrtest.Attr{OID: csrtest.OIDCommonName, Value: v} }
	org := func(v string) csrtest.Attr { return csrtest.Attr{OID: csrtest.OIDOrganization, Value: v} }
	country := func(v string) csrtest.Attr { return csrtest.Attr{OID: csrtest.OIDCountry, Value: v} }
	ok := org("Example Ltd")
	keys := csrtest.FixedKeys()
	extension := func(id asn1.ObjectIdentifier, critical bool, value ...byte) func(*testing.T, *Request) {
		return with(func(b *csrtest.Builder) {
			b.Extensions = []csrtest.Extension{{OID: id, Critical: critical, Value: value}}
		})
	}
	validity := func(d time.Duration) func(*testing.T, *Request) {
		return func(_ *testing.T, r *Request) { r.Validity = d }
	}
	public := func(at time.Time, d time.Duration) func(*testing.T, *Request) {
		return func(t *testing.T, r *Request) {
			r.Now, r.Validity, r.Profile = at, d, "tls-public"
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = at.Add(-day), at.Add(1000*day) })
			with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{"www.example.com"} })(t, r)
		}
	}
	unsigned := func(n, e *big.Int) func(*testing.T, *Request) {
		return with(func(b *csrtest.Builder) {
			b.RawSPKI, b.RawSigAlg, b.RawSignature = csrtest.RSAKey(n, e), algorithm("RSA-SHA256"), []byte{3, 2, 0, 1}
		})
	}
	f4 := big.NewInt(65537)
	prime := func(p int64) *big.Int { // 2048 bits, with the prime factor p
		n := csrtest.Modulus(2048)
		n.Sub(n, new(big.Int).Mod(n, big.NewInt(2*p)))
		return n.Add(n, big.NewInt(p))
	}
	day15 := func(year int) time.Time { return time.Date(year, 3, 15, 0, 0, 0, 0, time.UTC) }

	return []ruleCase{
		{"no request", "request.complete", true, "csr", func(_ *testing.T, r *Request) { r.CSR = nil }},
		{"no time", "request.complete", true, "now", func(_ *testing.T, r *Request) { r.Now = time.Time{} }},
		{"no actor", "request.complete", true, "namespace", func(_ *testing.T, r *Request) { r.Actor = access.Actor{} }},
		{"no namespace", "request.complete", true, "", func(_ *testing.T, r *Request) { r.Namespace.Name = "" }},
		{"another namespace", "request.complete", true, "", func(_ *testing.T, r *Request) { r.Actor.Namespace = "ops" }},
		{"actor of all namespaces", "request.complete", false, "", func(_ *testing.T, r *Request) { r.Actor.Namespace = access.AllNamespaces }},

		{"no issuer", "issuer.signs", true, "issuer", func(_ *testing.T, r *Request) { r.Issuer.Certificate = nil }},
		{"issuer is none", "issuer.signs", true, "issuer", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
		}},
		{"issuer of CRLs alone", "issuer.signs", true, "issuer", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
		}},
		{"issuer not yet", "issuer.signs", true, "issuer", func(_ *testing.T, r *Request) { r.Now = now.Add(-2 * time.Hour) }},
		{"issuer no more", "issuer.signs", true, "issuer", func(_ *testing.T, r *Request) { r.Now = now.Add(6 * 365 * day) }},

		{"unknown profile", "profile.unknown", true, "profile", func(_ *testing.T, r *Request) { r.Profile = "tls-serve\x00r" }},
		{"no profile", "profile.unknown", true, "profile", func(_ *testing.T, r *Request) { r.Profile = "" }},

		{"profile not listed", "profile.namespace", true, "profile", func(_ *testing.T, r *Request) { r.Namespace.Profiles = []string{"tls-client"} }},
		{"profile listed", "profile.namespace", false, "", func(_ *testing.T, r *Request) { r.Namespace.Profiles = []string{"tls-server"} }},
		{"restricted profile, no list", "profile.namespace", true, "profile", func(t *testing.T, r *Request) {
			r.Profile = "ocsp-responder"
			with(func(b *csrtest.Builder) { b.DNS = nil })(t, r)
		}},
		{"restricted profile, listed", "profile.namespace", false, "", func(t *testing.T, r *Request) {
			r.Profile, r.Namespace.Profiles = "ocsp-responder", []string{"ocsp-responder"}
			with(func(b *csrtest.Builder) { b.DNS = nil })(t, r)
		}},

		{"P-224", "key.allowed", true, "subjectPublicKeyInfo", with(func(b *csrtest.Builder) { b.Key = keys.P224 })},
		{"P-521", "key.allowed", false, "", with(func(b *csrtest.Builder) { b.Key = keys.P521 })},
		{"Ed25519", "key.allowed", false, "", with(func(b *csrtest.Builder) { b.Key = keys.Ed25519 })},
		{"RSA-1024", "key.allowed", true, "subjectPublicKeyInfo", with(func(b *csrtest.Builder) { b.Key = keys.RSA1024 })},
		{"RSA-2052", "key.allowed", true, "subjectPublicKeyInfo", unsigned(csrtest.Modulus(2052), f4)},
		{"RSA-4104", "key.allowed", true, "subjectPublicKeyInfo", unsigned(csrtest.Modulus(4104), f4)},
		{"RSA-2048 for code", "key.allowed", true, "subjectPublicKeyInfo", func(t *testing.T, r *Request) {
			r.Profile = "code-signing"
			with(func(b *csrtest.Builder) { b.Key = keys.RSA2048 })(t, r)
		}},
		{"Ed25519 in public", "key.allowed", true, "subjectPublicKeyInfo", func(t *testing.T, r *Request) {
			r.Profile = "tls-public"
			with(func(b *csrtest.Builder) { b.Key = keys.Ed25519 })(t, r)
		}},

		{"even modulus", "key.modulus", true, "subjectPublicKeyInfo", unsigned(new(big.Int).Add(keys.RSA2048.N, big.NewInt(1)), f4)},
		{"factor 3", "key.modulus", true, "subjectPublicKeyInfo", unsigned(prime(3), f4)},
		{"factor 751", "key.modulus", true, "subjectPublicKeyInfo", unsigned(prime(751), f4)},
		{"sound modulus", "key.modulus", false, "", with(func(b *csrtest.Builder) { b.Key = keys.RSA2048 })},

		{"exponent 3", "key.exponent", true, "subjectPublicKeyInfo", with(func(b *csrtest.Builder) { b.Key = keys.RSAExponent3 })},
		{"exponent 65535", "key.exponent", true, "subjectPublicKeyInfo", unsigned(keys.RSA2048.N, big.NewInt(65535))},
		{"exponent 65536", "key.exponent", true, "subjectPublicKeyInfo", unsigned(keys.RSA2048.N, big.NewInt(65536))},
		{"exponent 2^64+1", "key.exponent", true, "subjectPublicKeyInfo", unsigned(keys.RSA2048.N, new(big.Int).SetBit(big.NewInt(1), 64, 1))},
		{"exponent 2^256+1", "key.exponent", true, "subjectPublicKeyInfo", unsigned(keys.RSA2048.N, new(big.Int).SetBit(big.NewInt(1), 256, 1))},
		{"exponent 65539", "key.exponent", false, "", func(t *testing.T, r *Request) {
			unsigned(keys.RSA2048.N, big.NewInt(65539))(t, r)
		}},

		{"sound key", "key.roca", false, "", with(func(b *csrtest.Builder) { b.Key = keys.RSA2048 })},
		{"close primes", "key.close-primes", true, "subjectPublicKeyInfo", with(func(b *csrtest.Builder) { b.Key = keys.RSAClose })},
		{"distant primes", "key.close-primes", false, "", with(func(b *csrtest.Builder) { b.Key = keys.RSA2048 })},

		{"compromised", "key.compromised", true, "subjectPublicKeyInfo", func(_ *testing.T, r *Request) { r.CompromisedKey = true }},
		{"in a list", "key.listed", true, "subjectPublicKeyInfo", func(_ *testing.T, r *Request) { r.KeyLists = []string{"Debian weak keys"} }},
		{"in no list", "key.listed", false, "", func(_ *testing.T, r *Request) { r.KeyLists = []string{} }},
		{"the issuer's key", "key.of-authority", true, "subjectPublicKeyInfo", with(func(b *csrtest.Builder) { b.Key = authorityTestKey() })},
		{"another authority's key", "key.of-authority", true, "subjectPublicKeyInfo", func(t *testing.T, r *Request) {
			r.AuthorityKeys = [][]byte{spkiOf(t, keys.P384.Public()), spkiOf(t, keys.P256.Public())}
		}},
		{"no authority's key", "key.of-authority", false, "", func(t *testing.T, r *Request) {
			r.AuthorityKeys = [][]byte{spkiOf(t, keys.P384.Public())}
		}},

		{"SHA-1", "signature.proof", true, "signatureAlgorithm", with(func(b *csrtest.Builder) { b.Key, b.SigAlg = keys.RSA2048, "RSA-SHA1" })},
		{"no signature", "signature.proof", true, "signature", with(func(b *csrtest.Builder) { b.RawSignature = []byte{3, 1, 0} })},

		subjectCase("subject.structure", true, "two common names", cn("a"), cn("b"), ok),
		subjectCase("subject.structure", true, "two organisations", cn("a"), ok, ok),
		subjectCase("subject.structure", false, "two dropped units", cn("a"), ok,
			csrtest.Attr{OID: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "x"}, csrtest.Attr{OID: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "y"}),

		subjectCase("subject.attributes", false, "all allowed", country("DE"), ok, cn("Release signing")),
		subjectCase("subject.attributes", false, "other letters", org("Größe 東京"), cn("Größe")),
		subjectCase("subject.attributes", true, "no common name", ok),
		subjectCase("subject.attributes", true, "no organisation", cn("a")),
		subjectCase("subject.attributes", true, "long common name", ok, cn(strings.Repeat("a", 65))),
		subjectCase("subject.attributes", false, "as long as may be", ok, cn(strings.Repeat("ö", 64))),
		subjectCase("subject.attributes", true, "white space in front", ok, cn(" a")),
		subjectCase("subject.attributes", true, "replacement character", ok, cn("a\ufffd")),
		subjectCase("subject.attributes", true, "zero width", ok, cn("a\u200bb")),
		subjectCase("subject.attributes", true, "country in words", ok, cn("a"), country("Germany")),
		subjectCase("subject.attributes", true, "country in small letters", ok, cn("a"), country("de")),
		subjectCase("subject.attributes", true, "title", ok, cn("a"), csrtest.Attr{OID: asn1.ObjectIdentifier{2, 5, 4, 12}, Value: "Dr"}),

		subjectCase("subject.organisation", true, "organisation of others", cn("a"), org("Evil Ltd")),
		subjectCase("subject.organisation", true, "almost the organisation", cn("a"), org("Example Ltd.")),
		subjectCase("subject.organisation", false, "the organisation", cn("a"), ok),

		{"common name that repeats nothing", "subject.common-name", true, "subject.commonName", with(func(b *csrtest.Builder) { b.Subject = csrtest.CN("x.dev.example") })},
		{"common name that repeats a wildcard's own", "subject.common-name", true, "subject.commonName", with(func(b *csrtest.Builder) {
			b.DNS = []string{"*.dev.example"}
		})},
		{"common name in other case", "subject.common-name", false, "", with(func(b *csrtest.Builder) { b.Subject = csrtest.CN("HOST.dev.example") })},
		{"common name that repeats an address", "subject.common-name", false, "", with(func(b *csrtest.Builder) {
			b.Subject, b.IP = csrtest.CN("0:0:0:0:0:0:0:1"), []netip.Addr{netip.IPv6Loopback()}
		})},
		{"common name checked and not written", "subject.common-name", true, "subject.commonName", func(t *testing.T, r *Request) {
			r.Profile = "tls-public"
			with(func(b *csrtest.Builder) { b.Subject, b.DNS = csrtest.CN("www.example.com"), []string{"example.com"} })(t, r)
		}},

		claimCase("Release signing", false),
		claimCase("node v2.1", false),
		claimCase("Example Ltd.", false),
		claimCase("host.dev.example", false),
		claimCase("*.dev.example", false),
		claimCase("127.0.0.1", false),
		claimCase("ann@dev.example", false),
		claimCase("spiffe://dev.example/a", false),
		claimCase("login.bank.example", true),
		claimCase("LOGIN.Bank.example.", true),
		claimCase("*.bank.example", true),
		claimCase("192.0.2.1", true),
		claimCase("::ffff:127.0.0.1", true),
		claimCase("192.0.2.1:443", true),
		claimCase("[2001:db8::1]", true),
		claimCase("127.0.0.1:443", false),
		claimCase("r3---sn-x.bank.example", true),
		claimCase("www-.bank.example", true),
		claimCase("w*.bank.example", true),
		claimCase("xn--0.bank.example", true),
		claimCase("b\u00fccher.example", true),
		claimCase("login.bank.example:443", true),
		claimCase("login.bank.example.:443", true),
		claimCase("r3---sn-x.dev.example:443", false),
		claimCase("Dr. A. B. Smith", false),
		claimCase("release v1.2.3", false),
		claimCase("v1.2.3", false),
		claimCase("2026.11.29-rc: signing", false),
		claimCase("wait...", false),
		claimCase("ceo@bank.example", true),
		claimCase("ceo@bank.example.", true),
		claimCase("j\u00fcrgen@bank.example", true),
		claimCase("ceo@b\u00fccher.example", true),
		claimCase("ceo@-bank.example", true),
		claimCase(`"c e o"@bank.example`, true),
		claimCase("mailto:ceo@bank.example", true),
		claimCase("ceo@dev.example@bank.example", true),
		claimCase("j\u00fcrgen@dev.example", false),
		claimCase("ceo@bank.example.:25", true),
		claimCase("signed @ bank.example", false),
		claimCase("spiffe://dev.example/ceo@bank.example", false),
		claimCase("spiffe://ceo@bank.example", true),
		claimCase("login\u3002bank\uff0eexample", true),
		claimCase("host\u3002dev\uff61example", false),
		claimCase("https://bank.example/", true),
		claimCase("https://bank", true),

		subjectCase("subject.of-authority", false, "another name", ok, cn("Issuing 1")),
		{"the issuer's name", "subject.of-authority", true, "subject", issuersName("Example Ltd", "Issuing 1")},
		{"the issuer's name in other writing", "subject.of-authority", true, "subject", issuersName("EXAMPLE  Ltd", " issuing 1")},
		{"the issuer's name and more", "subject.of-authority", false, "", issuersName("Example Ltd", "Issuing 10")},

		{"mail in tls-server", "names.types", true, "subjectAltName.email", with(func(b *csrtest.Builder) { b.Email = []string{"a@dev.example"} })},
		{"uri in tls-server", "names.types", true, "subjectAltName.uri", with(func(b *csrtest.Builder) { b.URI = []string{"spiffe://dev.example/a"} })},
		{"dns in code-signing", "names.types", true, "subjectAltName.dns", func(_ *testing.T, r *Request) { r.Profile = "code-signing" }},
		{"registeredID", "names.types", true, "subjectAltName.registeredID", with(func(b *csrtest.Builder) { b.RawNames = [][]byte{{0x88, 3, 0x2a, 3, 4}} })},

		{"no name", "names.count", true, "subjectAltName", with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, nil })},
		{"100 names", "names.count", false, "", with(func(b *csrtest.Builder) { b.DNS = append(b.DNS, many(99)...) })},
		{"101 names", "names.count", true, "subjectAltName", with(func(b *csrtest.Builder) { b.DNS = append(b.DNS, many(100)...) })},

		dnsCase("names.dns-syntax", false, "tls-server", "a.dev.example", "localhost", "1.dev.example", "a-b.dev.example"),
		dnsCase("names.dns-syntax", false, "tls-server", "xn--bcher-kva.example"),
		dnsCase("names.dns-syntax", false, "tls-server", strings.Repeat("a", 63)+".example"),
		dnsCase("names.dns-syntax", false, "tls-server", strings.Repeat("a.", 122)+"a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", strings.Repeat("a", 64)+".example"),
		dnsCase("names.dns-syntax", true, "tls-server", strings.Repeat("a.", 124)+"example"),
		dnsCase("names.dns-syntax", true, "tls-server", ""),
		dnsCase("names.dns-syntax", true, "tls-server", "."),
		dnsCase("names.dns-syntax", true, "tls-server", "a.example."),
		dnsCase("names.dns-syntax", true, "tls-server", ".a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a..example"),
		dnsCase("names.dns-syntax", true, "tls-server", "-a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a-.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a_b.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a b.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "ab--c.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "xn--.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "xn--a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "xn--example-.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "xn--0000h.example"), // not in IDNA2008
		dnsCase("names.dns-syntax", true, "tls-server", "127.0.0.1"),
		dnsCase("names.dns-syntax", true, "tls-server", "2130706433"),
		dnsCase("names.dns-syntax", true, "tls-server", "a.0x7f"),
		dnsCase("names.dns-syntax", true, "tls-server", "a.0x"),
		dnsCase("names.dns-syntax", true, "tls-server", "::1"),
		dnsCase("names.dns-syntax", true, "tls-server", "a.example:443"),
		dnsCase("names.dns-syntax", true, "tls-server", "https://a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a.example/b"),
		dnsCase("names.dns-syntax", true, "tls-server", "a@b.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "*"),
		dnsCase("names.dns-syntax", true, "tls-server", "*."),
		dnsCase("names.dns-syntax", true, "tls-server", "**.a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "*a.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "a.*.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "*.*.example"),
		dnsCase("names.dns-syntax", true, "tls-server", "*.127.0.0.1"),

		dnsCase("names.dns-syntax", false, "tls-server", "xn--ll-0ea.example", "xn--wgv71a119e.example", "xn--fa-hia.example"), // l·l, 日本語, faß
		dnsCase("names.dns-syntax", true, "tls-server", "xn--n3h.example"),                                                     // ☃
		dnsCase("names.dns-syntax", true, "tls-server", "xn--i-7iq.example"),                                                   // i❤
		dnsCase("names.dns-syntax", true, "tls-server", "xn--ab-0ea.example"),                                                  // a·b

		dnsCase("names.special-use", true, "tls-server", "host.invalid"),
		dnsCase("names.special-use", true, "tls-server", "invalid"),
		dnsCase("names.special-use", true, "tls-server", "abc.onion"),
		dnsCase("names.special-use", true, "tls-client", "a.b.alt"),
		dnsCase("names.special-use", true, "tls-server", "1.0.0.127.in-addr.arpa"),
		dnsCase("names.special-use", true, "tls-server", "*.8.b.d.0.1.0.0.2.ip6.arpa"),
		dnsCase("names.special-use", false, "tls-server", "router.home.arpa", "host.local", "host.test", "salt.example", "xin-addr.arpa"),

		dnsCase("names.wildcard", false, "tls-server", "*.dev.example"),
		dnsCase("names.wildcard", true, "tls-server", "*.example"),
		dnsCase("names.wildcard", true, "tls-server", "*.localhost"),
		dnsCase("names.wildcard", true, "tls-server", "*.com"),
		dnsCase("names.wildcard", true, "tls-server", "*.co.uk"),
		dnsCase("names.wildcard", true, "tls-server", "*.github.io"),
		dnsCase("names.wildcard", false, "tls-public", "*.example.co.uk"),
		dnsCase("names.wildcard", true, "tls-client", "*.dev.example"),

		dnsCase("names.public", false, "tls-public", "www.example.com", "example.com", "a.example.co.uk", "x.y.ck"),
		dnsCase("names.public", false, "tls-public", "xn--bcher-kva.example.com"),
		dnsCase("names.public", true, "tls-public", "localhost"),
		dnsCase("names.public", true, "tls-public", "com"),
		dnsCase("names.public", true, "tls-public", "co.uk"),
		dnsCase("names.public", true, "tls-public", "host.dev.example"),
		dnsCase("names.public", true, "tls-public", "host.test"),
		dnsCase("names.public", true, "tls-public", "host.local"),
		dnsCase("names.public", true, "tls-public", "host.internal"),
		dnsCase("names.public", true, "tls-public", "host.corp"),
		dnsCase("names.public", true, "tls-public", "abc.onion"),
		dnsCase("names.public", true, "tls-public", "1.0.0.127.in-addr.arpa"),
		dnsCase("names.public", true, "tls-public", "router.home.arpa"),
		dnsCase("names.public", false, "tls-server", "host.internal"),

		ipCase("names.ip", false, "tls-server", "10.0.0.1"),
		ipCase("names.ip", false, "tls-server", "fd00::1"),
		ipCase("names.ip", true, "tls-server", "::ffff:10.0.0.1"),
		ipCase("names.ip", true, "tls-server", "::10.0.0.1"),
		ipCase("names.ip", true, "tls-server", "0.0.0.0"),
		ipCase("names.ip", true, "tls-server", "::"),
		ipCase("names.ip", true, "tls-server", "224.0.0.1"),
		ipCase("names.ip", true, "tls-server", "ff02::1"),
		ipCase("names.ip", true, "tls-server", "255.255.255.255"),
		ipCase("names.ip", false, "tls-public", "8.8.8.8"),
		ipCase("names.ip", false, "tls-public", "2606:4700:4700::1111"),
		ipCase("names.ip", true, "tls-public", "127.0.0.1"),
		ipCase("names.ip", true, "tls-public", "10.0.0.1"),
		ipCase("names.ip", true, "tls-public", "172.31.255.255"),
		ipCase("names.ip", true, "tls-public", "192.168.1.1"),
		ipCase("names.ip", true, "tls-public", "100.64.0.1"),
		ipCase("names.ip", true, "tls-public", "169.254.169.254"),
		ipCase("names.ip", true, "tls-public", "203.0.113.7"),
		ipCase("names.ip", true, "tls-public", "240.0.0.1"),
		ipCase("names.ip", true, "tls-public", "::1"),
		ipCase("names.ip", true, "tls-public", "fe80::1"),
		ipCase("names.ip", true, "tls-public", "fd00::1"),
		ipCase("names.ip", true, "tls-public", "2001:db8::1"),
		ipCase("names.ip", true, "tls-public", "64:ff9b::1"),

		clientName("names.email", false, "email", "Ann.Lee+x@DEV.example"),
		clientName("names.email", true, "email", "ann"),
		clientName("names.email", true, "email", "@dev.example"),
		clientName("names.email", true, "email", "ann@"),
		clientName("names.email", true, "email", "a@b@dev.example"),
		clientName("names.email", true, "email", ".ann@dev.example"),
		clientName("names.email", true, "email", "a..b@dev.example"),
		clientName("names.email", true, "email", `"a b"@dev.example`),
		clientName("names.email", true, "email", "a@[127.0.0.1]"),
		clientName("names.email", true, "email", "a@*.dev.example"),
		clientName("names.email", true, "email", "Ann <ann@dev.example>"),
		clientName("names.email", true, "email", strings.Repeat("a", 65)+"@dev.example"),

		clientName("names.uri", false, "uri", "spiffe://dev.example/ns/a/sa/b"),
		clientName("names.uri", false, "uri", "HTTPS://Api.Dev.example:8443/A?b=C"),
		clientName("names.uri", false, "uri", "https://[2001:db8::1]/"),
		clientName("names.uri", true, "uri", "dev.example/a"),
		clientName("names.uri", true, "uri", "//dev.example/a"),
		clientName("names.uri", true, "uri", "spiffe:///a"),
		clientName("names.uri", true, "uri", "spiffe://localhost/a"),
		clientName("names.uri", true, "uri", "ftp://dev.example/a"),
		clientName("names.uri", true, "uri", "urn:uuid:0"),
		clientName("names.uri", true, "uri", "TAG:Microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500"),
		clientName("names.uri", true, "uri", "https://user@dev.example/"),
		clientName("names.uri", true, "uri", "https://dev.example/#x"),
		clientName("names.uri", true, "uri", "https://dev.example/a/../b"),
		clientName("names.uri", true, "uri", "https://dev.example/a b"),
		clientName("names.uri", true, "uri", `https://dev.example\@evil.example/`),
		clientName("names.uri", true, "uri", "https://dev.example:/"),
		clientName("names.uri", true, "uri", "https://2130706433/"),
		clientName("names.uri", true, "uri", "https://dev.example/%zz"),
		clientName("names.uri", true, "uri", "https://dev.example/"+strings.Repeat("a", 2048)),

		{"name of others", "names.namespace", true, "subjectAltName.dns[0]", with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{"evil.example"} })},
		{"wildcard over the namespace", "names.namespace", true, "subjectAltName.dns[1]", with(func(b *csrtest.Builder) { b.DNS = append(b.DNS, "*.org.uk") })},
		{"address of others", "names.namespace", true, "subjectAltName.ip[0]", with(func(b *csrtest.Builder) { b.IP = []netip.Addr{netip.MustParseAddr("10.0.0.1")} })},
		{"mail and uri of others", "names.namespace", true, "subjectAltName.email[0]", func(t *testing.T, r *Request) {
			r.Profile = "tls-client"
			with(func(b *csrtest.Builder) {
				b.Email, b.URI = []string{"a@evil.example"}, []string{"spiffe://evil.example/a"}
			})(t, r)
		}},
		{"own mail and uri", "names.namespace", false, "", func(t *testing.T, r *Request) {
			r.Profile = "tls-client"
			with(func(b *csrtest.Builder) {
				b.Email, b.URI = []string{"a@dev.example"}, []string{"spiffe://dev.example/a"}
			})(t, r)
		}},

		constrained("permitted dns", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} },
			func(b *csrtest.Builder) { b.DNS = []string{"dev.example", "a.dev.example"} }),
		constrained("not permitted dns", true, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} },
			func(b *csrtest.Builder) { b.DNS = []string{"a.dev.example"} }),
		constrained("excluded dns", true, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"a.dev.example"} },
			func(b *csrtest.Builder) { b.DNS = []string{"x.a.dev.example"} }),
		constrained("beside the excluded dns", false, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"a.dev.example"} },
			func(b *csrtest.Builder) { b.DNS = []string{"ba.dev.example"} }),
		constrained("dns where only addresses are constrained", false, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("127.0.0.0/8")} },
			func(b *csrtest.Builder) { b.DNS = []string{"a.dev.example"} }),
		constrained("permitted address", false, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("127.0.0.0/8"), cidr("::1/128")} },
			func(b *csrtest.Builder) { b.IP = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} }),
		constrained("not permitted address", true, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("127.0.0.0/8")} },
			func(b *csrtest.Builder) { b.IP = []netip.Addr{netip.IPv6Loopback()} }),
		constrained("excluded address", true, func(c *x509.Certificate) { c.ExcludedIPRanges = []*net.IPNet{cidr("0.0.0.0/0")} },
			func(b *csrtest.Builder) { b.IP = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }),
		constrained("permitted mail", false, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"dev.example"} },
			func(b *csrtest.Builder) { b.Email = []string{"a@dev.example"} }),
		constrained("not permitted mail", true, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{".dev.example"} },
			func(b *csrtest.Builder) { b.Email = []string{"a@dev.example"} }),
		constrained("excluded mailbox", true, func(c *x509.Certificate) { c.ExcludedEmailAddresses = []string{"a@dev.example"} },
			func(b *csrtest.Builder) { b.Email = []string{"a@dev.example"} }),
		constrained("permitted uri", false, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"dev.example"} },
			func(b *csrtest.Builder) { b.URI = []string{"spiffe://dev.example/a"} }),
		constrained("not permitted uri", true, func(c *x509.Certificate) { c.PermittedURIDomains = []string{".dev.example"} },
			func(b *csrtest.Builder) { b.URI = []string{"spiffe://dev.example/a"} }),
		constrained("excluded uri", true, func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"dev.example"} },
			func(b *csrtest.Builder) { b.URI = []string{"spiffe://dev.example/a"} }),
		subjectConstrained("a permitted subject", false, []pkix.Name{{Organization: []string{"Example Ltd"}}}, nil),
		subjectConstrained("one of two", false, []pkix.Name{{Organization: []string{"Bank Ltd"}}, {Organization: []string{"EXAMPLE ltd"}}}, nil),
		subjectConstrained("the whole subject", false, []pkix.Name{{Organization: []string{"Example Ltd"}, CommonName: "Release signing"}}, nil),
		subjectConstrained("a longer one", true, []pkix.Name{{Organization: []string{"Example Ltd"}, CommonName: "Release"}}, nil),
		subjectConstrained("not permitted subject", true, []pkix.Name{{Organization: []string{"Bank Ltd"}}}, nil),
		subjectConstrained("excluded subject", true, nil, []pkix.Name{{Organization: []string{"Example Ltd"}}}),
		subjectConstrained("excluded below the permitted", true, []pkix.Name{{Organization: []string{"Example Ltd"}}},
			[]pkix.Name{{Organization: []string{"Example Ltd"}, CommonName: "Release signing"}}),
		subjectConstrained("beside the excluded", false, nil, []pkix.Name{{CommonName: "Release signing"}}),
		subjectConstrained("every subject excluded", true, nil, []pkix.Name{{}}),
		namedConstrained("build.dev.example", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} }),
		namedConstrained("Build.DEV.example", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} }),
		namedConstrained("build.dev.example", true, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} }),
		namedConstrained("host_1.dev.example", true, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} }),
		namedConstrained("build.dev.example", true, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"dev.example"} }),
		namedConstrained("Release signing", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} }),
		namedConstrained("Example-.Ltd", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} }),
		namedConstrained("localhost", false, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"ops.example"} }),
		{"a common name beside names", "names.issuer-constraints", false, "", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} })
		}},
		{"no subject", "names.issuer-constraints", false, "", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = directoryConstrained(t, []pkix.Name{{Organization: []string{"Bank Ltd"}}}, nil)
			with(func(b *csrtest.Builder) { b.Subject = nil })(t, r)
		}},
		{"a subject beyond those of the root", "names.issuer-constraints", true, "subject", func(t *testing.T, r *Request) {
			r.Issuer.Above = []*x509.Certificate{directoryConstrained(t, []pkix.Name{{Organization: []string{"Bank Ltd"}}}, nil)}
		}},
		{"within those above", "names.issuer-constraints", false, "", above("dev.example", "example")},
		{"beyond those of the root", "names.issuer-constraints", true, "subjectAltName.dns[0]", above("dev.example", "other.example")},
		{"beyond those between", "names.issuer-constraints", true, "subjectAltName.dns[0]", above("other.example", "example")},
		{"wildcard over an excluded name", "names.issuer-constraints", true, "subjectAltName.dns[0]", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"a.dev.example"} })
			with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{"*.dev.example"} })(t, r)
		}},

		{"CA:TRUE", "extensions.basic-constraints", true, "basicConstraints", extension(csrtest.OIDBasicConstraints, true, 0x30, 3, 1, 1, 0xff)},
		{"CA:FALSE", "extensions.basic-constraints", false, "", extension(csrtest.OIDBasicConstraints, true, 0x30, 0)},
		{"keyCertSign", "extensions.key-usage", true, "keyUsage", extension(csrtest.OIDKeyUsage, true, 3, 2, 2, 4)},
		{"keyEncipherment with ECDSA", "extensions.key-usage", true, "keyUsage", extension(csrtest.OIDKeyUsage, true, 3, 2, 5, 0xa0)},
		{"keyEncipherment with RSA", "extensions.key-usage", false, "", with(func(b *csrtest.Builder) {
			b.Key, b.Extensions = keys.RSA2048, []csrtest.Extension{{OID: csrtest.OIDKeyUsage, Critical: true, Value: []byte{3, 2, 5, 0xa0}}}
		})},
		{"digitalSignature", "extensions.key-usage", false, "", extension(csrtest.OIDKeyUsage, true, 3, 2, 7, 0x80)},
		{"anyExtendedKeyUsage", "extensions.ext-key-usage", true, "extKeyUsage", extension(csrtest.OIDExtKeyUsage, false, 0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0)},
		{"serverAuth", "extensions.ext-key-usage", false, "", extension(csrtest.OIDExtKeyUsage, false, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1)},
		{"clientAuth", "extensions.ext-key-usage", true, "extKeyUsage", extension(csrtest.OIDExtKeyUsage, false, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2)},
		purposes("the issuer's purpose", "tls-server", false, []string{"serverAuth"}),
		purposes("one of the issuer's", "tls-server", false, []string{"1.2.3.4", "clientAuth", "serverAuth"}),
		purposes("another purpose", "tls-server", true, []string{"emailProtection", "codeSigning"}),
		purposes("an unknown purpose", "tls-server", true, []string{"1.2.3.4"}),
		purposes("any purpose", "tls-server", false, []string{"emailProtection", "2.5.29.37.0"}),
		purposes("within those above", "tls-server", false, []string{"serverAuth"}, nil, []string{"clientAuth", "serverAuth"}),
		purposes("beyond those between", "tls-server", true, nil, []string{"clientAuth"}, []string{"serverAuth"}),
		purposes("beyond those of the root", "tls-server", true, []string{"serverAuth"}, nil, []string{"clientAuth"}),
		purposes("a responder's", "ocsp-responder", false, []string{"serverAuth"}),
		{"key identifier", "extensions.unknown", false, "", extension(csrtest.OIDSubjectKeyID, false, 4, 1, 1)},
		{"critical key identifier", "extensions.unknown", true, "extension.subjectKeyIdentifier", extension(csrtest.OIDSubjectKeyID, true, 4, 1, 1)},
		{"unknown extension", "extensions.unknown", true, "extension.1.2.3.4", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, false, 5, 0)},
		{"name constraints", "extensions.unknown", true, "extension.nameConstraints", extension(asn1.ObjectIdentifier{2, 5, 29, 30}, false, 0x30, 0)},
		{"challenge password", "request.attributes", false, "", with(func(b *csrtest.Builder) {
			b.Attributes = [][]byte{csrtest.Attribute(csrtest.OIDChallenge, []byte{0x13, 1, 'x'})}
		})},
		{"unknown attribute", "request.attributes", true, "attribute.1.2.3.4", with(func(b *csrtest.Builder) {
			b.Attributes = [][]byte{csrtest.Attribute(asn1.ObjectIdentifier{1, 2, 3, 4}, []byte{5, 0})}
		})},

		{"default", "validity", false, "", validity(0)},
		{"most", "validity", false, "", validity(398 * day)},
		{"a second more than most", "validity", true, "validity", validity(398*day + time.Second)},
		{"negative", "validity", true, "validity", validity(-day)},
		{"smallest number", "validity", true, "validity", validity(-1 << 63)},
		{"half a second", "validity", true, "validity", validity(day + time.Second/2)},
		{"shorter than backdating", "validity", true, "validity", validity(time.Minute)},
		{"an hour", "validity", false, "", validity(time.Hour)},
		{"public 199 days", "validity", false, "", public(now, 199*day)},
		{"public 199 days and a second", "validity", true, "validity", public(now, 199*day+time.Second)},
		{"public 199 days on the last day", "validity", false, "", public(day15(2027).Add(-time.Second), 199*day)},
		{"public 100 days on the first day", "validity", true, "validity", public(day15(2027), 100*day)},
		{"public 99 days on the first day", "validity", false, "", public(day15(2027), 99*day)},
		{"public 47 days in 2029", "validity", true, "validity", public(day15(2029), 47*day)},
		{"public default in 2029", "validity", false, "", public(day15(2029), 0)},
		{"beyond the issuer", "validity", true, "validity", func(t *testing.T, r *Request) {
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.NotAfter = now.Add(30 * day) })
		}},
		{"to the issuer's last second", "validity", false, "", func(t *testing.T, r *Request) {
			begin := now.Add(-5 * time.Minute).Truncate(time.Second)
			r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.NotAfter = begin.Add(30*day - time.Second) })
			r.Validity = 30 * day
		}},
	}
}

func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("h%d.dev.example", i)
	}
	return names
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func algorithm(name string) []byte {
	der, err := csrtest.Algorithm("RSA-SHA256")
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return der
}

func TestRules(t *testing.T) {
	set := shippedSet(t)
	base := benign(t)
	for _, c := range ruleCases() {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			r := base
			c.change(t, &r)
			d := set.Decide(r)
			result := resultOf(t, d, c.rule)
			want := Allow
			if c.refuse {
				want = Refuse
			}
			if result.Verdict != want {
				t.Fatalf("the rule says %s, want %s; all violations: %v", result.Verdict, want, d.Violations())
			}
			if result.Source == "" || c.refuse == (len(result.Violations) == 0) {
				t.Fatalf("source %q, violations %v", result.Source, result.Violations)
			}
			for _, v := range result.Violations {
				if v.Rule != c.rule || v.Message == "" || v.Hint == "" || strings.ContainsFunc(v.Message, func(r rune) bool { return r < ' ' || r > '~' }) || len(v.Message) > 500 {
					t.Errorf("a violation cannot be shown: %+v", v)
				}
			}
			if c.refuse && c.field != "" && result.Violations[0].Field != c.field {
				t.Errorf("field %q, want %q", result.Violations[0].Field, c.field)
			}
			if _, ok := d.Template(); ok != (d.Verdict() == Allow) || c.refuse && d.Verdict() != Refuse {
				t.Errorf("the decision is %s, with a template: %v", d.Verdict(), ok)
			}
		})
	}
}

// TestEveryRuleIsTested holds that no rule is without a request that it refuses.
func TestEveryRuleIsTested(t *testing.T) {
	refused := map[string]bool{
		"key.roca":  true,                    // in the corpus
		"key.reuse": true, "names.caa": true, // TestKeyReuse, TestCAA
		"names.pattern":    true, // TestPatterns
		"names.confusable": true, // never refuses: TestConfusableNamesAreNoticed
	}
	for _, id := range []string{"quota", "approval", "names.subtrees"} { // in TestReservations, TestApprovalIsNeeded, TestSubtrees
		refused[id] = true
	}
	for _, c := range ruleCases() {
		refused[c.rule] = refused[c.rule] || c.refuse
	}
	var ids []string
	for _, r := range rules {
		if !refused[r.id] {
			t.Errorf("no case is refused by %s", r.id)
		}
		if r.source == "" || r.check == nil || slices.Contains(ids, r.id) {
			t.Errorf("%s has no source, no check or is not alone", r.id)
		}
		for _, before := range r.after {
			if !slices.Contains(ids, before) {
				t.Errorf("%s waits for %s, which is not asked before it", r.id, before)
			}
		}
		ids = append(ids, r.id)
	}
}

// TestTheLeastNumberOfNames: a name counts once, however often and in whatever case it is asked for.
func TestTheLeastNumberOfNames(t *testing.T) {
	set := changed(t, "  min: 1\n", "  min: 2\n")
	for asked, want := range map[string]bool{
		"a.dev.example b.dev.example": true, "a.dev.example a.dev.example": false, "a.dev.example A.DEV.example": false, "a.dev.example": false,
		"a.dev.example B.dev.example a.dev.example": true,
	} {
		r := benign(t)
		r.Profile = "plain"
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, strings.Fields(asked) })(t, &r)
		if got := resultOf(t, set.Decide(r), "names.count").Verdict == Allow; got != want {
			t.Errorf("%s: got %v", asked, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	set := changed(t, "  dns: {}", "  dns: {pattern: '[a-z]+\\.dev\\.example|b'}")
	for name, want := range map[string]bool{"host.dev.example": true, "h1.dev.example": false, "x.host.dev.example": false, "host.dev.example.evil": false} {
		r := benign(t)
		r.Profile = "plain"
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{name} })(t, &r)
		if got := resultOf(t, set.Decide(r), "names.pattern").Verdict == Allow; got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
