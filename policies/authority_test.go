package policies

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

// rootTestKey is the key of roots that tests make.
var rootTestKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func authoritySubjectOf(commonName string) []Attribute {
	return []Attribute{{oidCountry, "DE"}, {oidOrganisation, "Example Ltd"}, {oidCommonName, commonName}}
}

func rootRequest(t testing.TB) AuthorityRequest {
	t.Helper()
	begin := now.Truncate(time.Second)
	return AuthorityRequest{
		Name: "root", Root: true, Subject: authoritySubjectOf("Example Root 1"), SPKI: spkiOf(t, rootTestKey().Public()),
		NotBefore: begin, NotAfter: begin.Add(20*365*day - time.Second), PathLen: -1, Now: now,
	}
}

// rootCertificate is a root in force. change may alter it before it is signed.
func rootCertificate(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key := rootTestKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"DE"}, Organization: []string{"Example Ltd"}, CommonName: "Example Root 1"},
		NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(20 * 365 * day).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: -1,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func subordinateRequest(t testing.TB) AuthorityRequest {
	t.Helper()
	begin := now.Truncate(time.Second)
	return AuthorityRequest{
		Name: "issuing-1", Subject: authoritySubjectOf("Example Issuing 1"), SPKI: spkiOf(t, authorityTestKey().Public()),
		NotBefore: begin, NotAfter: begin.Add(5*365*day - time.Second), PathLen: 0, Now: now, Parent: rootCertificate(t, nil),
		CRLURL: "http://127.0.0.1:8080/crl/root.crl", IssuerURLs: []string{"http://ca.example/ca/root.cer"}, CRLScope: "root",
	}
}

func TestDecideAuthorityAllows(t *testing.T) {
	d := DecideAuthority(rootRequest(t))
	g, err := d.Grant()
	if err != nil {
		t.Fatal(err, d.Violations())
	}
	root := g.Template()
	if !root.CA || root.PathLen != -1 || root.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || root.CRLURL != "" || !root.WriteSubjectKeyID ||
		len(root.SubjectKeyID) != 20 || len(root.Subject) != 3 || root.Permitted != nil || g.Profile() != RootAuthority || len(g.Lint().Sources) == 0 {
		t.Errorf("root: %+v", root)
	}

	r := subordinateRequest(t)
	r.Permitted = &NameConstraints{DNS: []string{"dev.example"}, IP: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	r.Excluded = &NameConstraints{Email: []string{".example"}}
	r.Policies = []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}}
	r.ExtKeyUsage = oidsOf(extKeyUsages[:2])
	d = DecideAuthority(r)
	if g, err = d.Grant(); err != nil {
		t.Fatal(err, d.Violations())
	}
	got := g.Template()
	want := Template{
		Subject: pkix.RDNSequence{{{Type: oidCountry, Value: "DE"}}, {{Type: oidOrganisation, Value: "Example Ltd"}}, {{Type: oidCommonName, Value: "Example Issuing 1"}}},
		SPKI:    r.SPKI, PublicKey: authorityTestKey().Public(), NotBefore: r.NotBefore, NotAfter: r.NotAfter,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: r.ExtKeyUsage, CA: true, PathLen: 0,
		Permitted: r.Permitted, Excluded: r.Excluded, Policies: r.Policies,
		CRLURL: r.CRLURL, IssuerURLs: r.IssuerURLs, CRLScope: "root", SubjectKeyID: got.SubjectKeyID, WriteSubjectKeyID: true,
	}
	if !reflect.DeepEqual(got, want) || g.Profile() != SubordinateAuthority {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Permitted == r.Permitted {
		t.Error("the grant can be changed through the request")
	}
}

func TestDecideAuthorityRefuses(t *testing.T) {
	keys := csrtest.FixedKeys()
	type change = func(*AuthorityRequest)
	parent := func(alter func(*x509.Certificate)) change {
		return func(r *AuthorityRequest) { r.Parent = rootCertificate(t, alter) }
	}
	key := func(public any) change { return func(r *AuthorityRequest) { r.SPKI = spkiOf(t, public) } }
	above := func(alter func(*x509.Certificate)) change {
		return func(r *AuthorityRequest) { r.Above = []*x509.Certificate{rootCertificate(t, alter)} }
	}
	// under has a parent with a name and a key of its own, so that what is above it is not it.
	under := func(alter func(*x509.Certificate), and change) change {
		return func(r *AuthorityRequest) {
			parent := *rootCertificate(t, func(c *x509.Certificate) { c.Subject.CommonName = "Example Policy 1" })
			parent.RawSubjectPublicKeyInfo = spkiOf(t, keys.P384.Public())
			r.Parent = &parent
			above(alter)(r)
			and(r)
		}
	}
	policy := func(text string) x509.OID {
		oid, err := x509.ParseOID(text)
		if err != nil {
			t.Fatal(err)
		}
		return oid
	}
	// underPolicies has a parent with policies, and below it some.
	underPolicies := func(above, below string) change {
		return under(nil, func(r *AuthorityRequest) {
			for _, text := range strings.Fields(above) {
				r.Parent.Policies = append(r.Parent.Policies, policy(text))
			}
			for _, text := range strings.Fields(below) {
				oid, err := parseOID(text)
				if err != nil {
					t.Fatal(err)
				}
				r.Policies = append(r.Policies, oid)
			}
		})
	}
	permit := func(n NameConstraints, alter func(*x509.Certificate)) change {
		return func(r *AuthorityRequest) { r.Permitted, r.Parent = &n, rootCertificate(t, alter) }
	}
	cases := []struct {
		name   string
		root   bool
		rule   string
		refuse bool
		change change
	}{
		{"no key", false, "authority.complete", true, func(r *AuthorityRequest) { r.SPKI = nil }},
		{"trailing data behind the key", false, "authority.complete", true, func(r *AuthorityRequest) { r.SPKI = append(slices.Clone(r.SPKI), 0) }},
		{"no time", false, "authority.complete", true, func(r *AuthorityRequest) { r.Now = time.Time{} }},
		{"no parent", false, "authority.complete", true, func(r *AuthorityRequest) { r.Parent = nil }},
		{"root with parent", true, "authority.complete", true, parent(nil)},

		{"P-521", false, "key.allowed", true, key(keys.P521.Public())},
		{"Ed25519", false, "key.allowed", true, key(keys.Ed25519.Public())},
		{"RSA-2048", false, "key.allowed", true, key(keys.RSA2048.Public())},
		{"P-384", false, "key.allowed", false, key(keys.P384.Public())},
		{"RSA-3072", false, "key.allowed", false, func(r *AuthorityRequest) { r.SPKI = csrtest.RSAKey(csrtest.Modulus(3072), big.NewInt(65537)) }},
		{"RSA with a small factor", false, "key.modulus", true, func(r *AuthorityRequest) {
			n := csrtest.Modulus(3072)
			n.Sub(n, new(big.Int).Mod(n, big.NewInt(6))).Add(n, big.NewInt(3))
			r.SPKI = csrtest.RSAKey(n, big.NewInt(65537))
		}},
		{"exponent 3", false, "key.exponent", true, func(r *AuthorityRequest) { r.SPKI = csrtest.RSAKey(csrtest.Modulus(3072), big.NewInt(3)) }},
		{"the parent's key", false, "key.of-authority", true, key(rootTestKey().Public())},

		{"the key of one above the parent", false, "key.of-authority", true, under(nil, key(rootTestKey().Public()))},

		{"parent is no authority", false, "authority.parent", true, parent(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })},
		{"parent signs CRLs alone", false, "authority.parent", true, parent(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })},
		{"parent has ended", false, "authority.parent", true, func(r *AuthorityRequest) { r.Now = now.Add(21 * 365 * day) }},

		{"no subject", true, "authority.subject", true, func(r *AuthorityRequest) { r.Subject = nil }},
		{"no common name", true, "authority.subject", true, func(r *AuthorityRequest) { r.Subject = r.Subject[:2] }},
		{"common name alone", true, "authority.subject", false, func(r *AuthorityRequest) { r.Subject = r.Subject[2:] }},
		{"two organisations", true, "authority.subject", true, func(r *AuthorityRequest) { r.Subject = append(r.Subject, Attribute{oidOrganisation, "B"}) }},
		{"country in words", true, "authority.subject", true, func(r *AuthorityRequest) {
			r.Subject = append(authoritySubjectOf("R")[1:], Attribute{oidCountry, "Germany"})
		}},
		{"unknown attribute", true, "authority.subject", true, func(r *AuthorityRequest) {
			r.Subject = append(r.Subject, Attribute{asn1.ObjectIdentifier{2, 5, 4, 99}, "x"})
		}},
		{"control characters", true, "authority.subject", true, func(r *AuthorityRequest) { r.Subject = authoritySubjectOf("a\nb") }},
		{"the parent's name", false, "authority.subject", true, func(r *AuthorityRequest) { r.Subject = authoritySubjectOf("Example Root 1") }},

		{"the parent's name in capitals", false, "authority.subject", true, func(r *AuthorityRequest) {
			r.Subject = authoritySubjectOf("EXAMPLE ROOT 1")
		}},
		{"the parent's name with a gap", false, "authority.subject", true, func(r *AuthorityRequest) {
			r.Subject = authoritySubjectOf("Example  Root 1")
		}},
		{
			"the name of one above the parent", false, "authority.subject", true,
			under(nil, func(r *AuthorityRequest) { r.Subject = authoritySubjectOf("Example Root 1") }),
		},

		{"ends before it begins", true, "authority.validity", true, func(r *AuthorityRequest) { r.NotAfter = r.NotBefore }},
		{"half seconds", true, "authority.validity", true, func(r *AuthorityRequest) { r.NotBefore = r.NotBefore.Add(time.Millisecond) }},
		{"long ago", true, "authority.validity", true, func(r *AuthorityRequest) { r.NotBefore = r.NotBefore.Add(-49 * time.Hour) }},
		{"later", true, "authority.validity", true, func(r *AuthorityRequest) { r.NotBefore = r.NotBefore.Add(49 * time.Hour) }},
		{"over already", true, "authority.validity", true, func(r *AuthorityRequest) {
			r.NotBefore, r.NotAfter = r.NotBefore.Add(-40*time.Hour), r.NotBefore.Add(-time.Hour)
		}},
		{"9132 days", true, "authority.validity", false, func(r *AuthorityRequest) { r.NotAfter = r.NotBefore.Add(9132*day - time.Second) }},
		{"a second more", true, "authority.validity", true, func(r *AuthorityRequest) { r.NotAfter = r.NotBefore.Add(9132 * day) }},
		{"beyond the parent", false, "authority.validity", true, func(r *AuthorityRequest) { r.NotAfter = r.Parent.NotAfter.Add(time.Second) }},
		{"to the parent's end", false, "authority.validity", false, func(r *AuthorityRequest) { r.NotAfter = r.Parent.NotAfter }},
		{"before the parent", false, "authority.validity", true, func(r *AuthorityRequest) { r.NotBefore = r.Parent.NotBefore.Add(-time.Second) }},

		{"path length -2", true, "authority.path-length", true, func(r *AuthorityRequest) { r.PathLen = -2 }},
		{"path length 100", true, "authority.path-length", true, func(r *AuthorityRequest) { r.PathLen = 100 }},
		{"path length of a root", true, "authority.path-length", false, func(r *AuthorityRequest) { r.PathLen = 1 }},
		{"none under 1", false, "authority.path-length", true, func(r *AuthorityRequest) {
			parent(func(c *x509.Certificate) { c.MaxPathLen = 1 })(r)
			r.PathLen = -1
		}},
		{"1 under 1", false, "authority.path-length", true, func(r *AuthorityRequest) {
			parent(func(c *x509.Certificate) { c.MaxPathLen = 1 })(r)
			r.PathLen = 1
		}},
		{"0 under 1", false, "authority.path-length", false, parent(func(c *x509.Certificate) { c.MaxPathLen = 1 })},
		{"0 under 0", false, "authority.path-length", true, parent(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })},

		{
			"none left by one above the parent", false, "authority.path-length", true,
			under(func(c *x509.Certificate) { c.MaxPathLen = 1 }, func(*AuthorityRequest) {}),
		},
		{
			"0 left by one above the parent", false, "authority.path-length", false,
			under(func(c *x509.Certificate) { c.MaxPathLen = 2 }, func(*AuthorityRequest) {}),
		},
		{
			"1 where one above the parent leaves 0", false, "authority.path-length", true,
			under(func(c *x509.Certificate) { c.MaxPathLen = 2 }, func(r *AuthorityRequest) { r.PathLen = 1 }),
		},

		{"constrained root", true, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Permitted = &NameConstraints{DNS: []string{"dev.example"}} }},
		{"constraints of nothing", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Permitted = &NameConstraints{} }},
		{"within the parent's subjects", false, "authority.name-constraints", false, parent(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{directoryConstraints(t, []pkix.Name{{Country: []string{"DE"}}}, nil)}
		})},
		{"beyond the parent's subjects", false, "authority.name-constraints", true, parent(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{directoryConstraints(t, []pkix.Name{{Country: []string{"AT"}}}, nil)}
		})},
		{
			"within the subjects of one above the parent", false, "authority.name-constraints", false,
			under(func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{directoryConstraints(t, []pkix.Name{{Country: []string{"DE"}}}, nil)}
			}, func(*AuthorityRequest) {}),
		},
		{
			"beyond the subjects of one above the parent", false, "authority.name-constraints", true,
			under(func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{directoryConstraints(t, []pkix.Name{{Country: []string{"AT"}}}, nil)}
			}, func(*AuthorityRequest) {}),
		},
		{"leading dot", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Permitted = &NameConstraints{DNS: []string{".dev.example"}} }},
		{"capitals", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Excluded = &NameConstraints{DNS: []string{"DEV.example"}} }},
		{"wildcard", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Excluded = &NameConstraints{DNS: []string{"*.dev.example"}} }},
		{"host bits", false, "authority.name-constraints", true, func(r *AuthorityRequest) {
			r.Permitted = &NameConstraints{IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}
		}},
		{"mailbox", false, "authority.name-constraints", false, func(r *AuthorityRequest) {
			r.Permitted = &NameConstraints{Email: []string{"a@dev.example", ".dev.example", "dev.example"}}
		}},
		{"bad mailbox", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Permitted = &NameConstraints{Email: []string{"a@"}} }},
		{"uri", false, "authority.name-constraints", false, func(r *AuthorityRequest) {
			r.Permitted = &NameConstraints{URI: []string{".dev.example", "dev.example"}}
		}},
		{"whole uri", false, "authority.name-constraints", true, func(r *AuthorityRequest) { r.Permitted = &NameConstraints{URI: []string{"spiffe://dev.example"}} }},
		{
			"within the parent's dns", false, "authority.name-constraints", false,
			permit(NameConstraints{DNS: []string{"a.dev.example"}}, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} }),
		},
		{
			"beyond the parent's dns", false, "authority.name-constraints", true,
			permit(NameConstraints{DNS: []string{"example"}}, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} }),
		},
		{
			"excluded by the parent", false, "authority.name-constraints", true,
			permit(NameConstraints{DNS: []string{"a.dev.example"}}, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"dev.example"} }),
		},
		{
			"beyond the parent's addresses", false, "authority.name-constraints", true,
			permit(NameConstraints{IP: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("10.0.0.0/8")} }),
		},
		{
			"within the parent's addresses", false, "authority.name-constraints", false,
			permit(NameConstraints{IP: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("10.0.0.0/8")} }),
		},
		{
			"within the parent's mail", false, "authority.name-constraints", false,
			permit(NameConstraints{Email: []string{"a@x.dev.example"}}, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{".dev.example"} }),
		},
		{
			"beyond the parent's mail", false, "authority.name-constraints", true,
			permit(NameConstraints{Email: []string{"dev.example"}}, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{".dev.example"} }),
		},
		{
			"a wider domain than the parent's", false, "authority.name-constraints", true,
			permit(NameConstraints{URI: []string{".example"}}, func(c *x509.Certificate) { c.PermittedURIDomains = []string{".dev.example"} }),
		},
		{
			"a narrower domain than the parent's", false, "authority.name-constraints", false,
			permit(NameConstraints{URI: []string{".a.dev.example"}}, func(c *x509.Certificate) { c.PermittedURIDomains = []string{".dev.example"} }),
		},

		{
			"beyond the dns of one above the parent", false, "authority.name-constraints", true,
			under(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"dev.example"} },
				func(r *AuthorityRequest) { r.Permitted = &NameConstraints{DNS: []string{"example"}} }),
		},

		{
			"beyond the parent's purposes", false, "authority.ext-key-usage", true, func(r *AuthorityRequest) {
				parent(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })(r)
				r.ExtKeyUsage = oidsOf(extKeyUsages[:1])
			},
		},
		{
			"beyond the purposes of one above the parent", false, "authority.ext-key-usage", true,
			under(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
				func(r *AuthorityRequest) { r.ExtKeyUsage = oidsOf(extKeyUsages[:1]) }),
		},
		{
			"within the parent's purposes", false, "authority.ext-key-usage", false, func(r *AuthorityRequest) {
				parent(func(c *x509.Certificate) {
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
				})(r)
				r.ExtKeyUsage = oidsOf(extKeyUsages[:1])
			},
		},
		{
			"under a parent for any purpose", false, "authority.ext-key-usage", false, func(r *AuthorityRequest) {
				parent(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })(r)
				r.ExtKeyUsage = oidsOf(extKeyUsages[:1])
			},
		},
		{"anyExtendedKeyUsage", false, "authority.ext-key-usage", true, func(r *AuthorityRequest) { r.ExtKeyUsage = []asn1.ObjectIdentifier{oidAnyExtKeyUsage} }},
		{"OCSPSigning", false, "authority.ext-key-usage", true, func(r *AuthorityRequest) { r.ExtKeyUsage = []asn1.ObjectIdentifier{oidOCSPSigning} }},
		{"no purpose below a parent's", false, "authority.ext-key-usage", false, func(r *AuthorityRequest) {
			r.ExtKeyUsage = nil
			parent(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })(r)
		}},
		{"policy twice", false, "authority.policies", true, func(r *AuthorityRequest) { r.Policies = []asn1.ObjectIdentifier{{1, 2, 3}, {1, 2, 3}} }},

		{"a policy of the parent", false, "authority.policies", false, underPolicies("1.2.3 1.2.4", "1.2.4")},
		{"a policy that the parent has not", false, "authority.policies", true, underPolicies("1.2.3", "1.2.3 1.2.4")},
		{"a policy under a parent of any", false, "authority.policies", false, underPolicies("2.5.29.32.0", "1.2.4")},
		{"any policy under a parent of one", false, "authority.policies", false, underPolicies("1.2.3", "2.5.29.32.0")},
		{"a policy under a parent of none", false, "authority.policies", false, underPolicies("", "1.2.4")},
		{"no policy under a parent of one", false, "authority.policies", false, underPolicies("1.2.3", "")},
		{"a policy that the root has not", false, "authority.policies", false, func(r *AuthorityRequest) {
			parent(func(c *x509.Certificate) { c.Policies = []x509.OID{policy("1.2.3")} })(r)
			r.Policies = []asn1.ObjectIdentifier{{1, 2, 4}}
		}},
		{"a policy that one above the parent has not", false, "authority.policies", true, func(r *AuthorityRequest) {
			underPolicies("1.2.4 1.2.5", "1.2.4")(r)
			between := *r.Parent
			between.Policies = []x509.OID{policy("1.2.5")}
			r.Above = slices.Insert(r.Above, 0, &between)
		}},
		{"a policy that the parent maps", false, "authority.policies", false, func(r *AuthorityRequest) {
			underPolicies("1.2.3", "1.2.4")(r)
			r.Parent.Extensions = append(r.Parent.Extensions, pkix.Extension{Id: oidPolicyMappings})
		}},

		{"root with CRL", true, "authority.root", true, func(r *AuthorityRequest) { r.CRLURL = "http://ca.example/root.crl" }},
		{"root with issuer", true, "authority.root", true, func(r *AuthorityRequest) { r.IssuerURLs = []string{"http://ca.example/root.cer"} }},
		{"root with OCSP", true, "authority.root", true, func(r *AuthorityRequest) { r.OCSPURLs = []string{"http://ca.example/ocsp"} }},
		{"root with purposes", true, "authority.root", true, func(r *AuthorityRequest) { r.ExtKeyUsage = oidsOf(extKeyUsages[:1]) }},
		{"root with policies", true, "authority.root", true, func(r *AuthorityRequest) { r.Policies = []asn1.ObjectIdentifier{{1, 2, 3}} }},

		{"https", false, "authority.urls", true, func(r *AuthorityRequest) { r.CRLURL = "https://ca.example/root.crl" }},
		{"no host", false, "authority.urls", true, func(r *AuthorityRequest) { r.IssuerURLs = []string{"http:///root.cer"} }},
		{"user", false, "authority.urls", true, func(r *AuthorityRequest) { r.OCSPURLs = []string{"http://a@ca.example/"} }},
		{"white space", false, "authority.urls", true, func(r *AuthorityRequest) { r.CRLURL = "http://ca.example/a b" }},
	}
	refused := make(map[string]bool)
	for _, c := range cases {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			r := subordinateRequest(t)
			if c.root {
				r = rootRequest(t)
			}
			c.change(&r)
			d := DecideAuthority(r)
			result := resultOf(t, d, c.rule)
			if got := result.Verdict == Refuse; got != c.refuse {
				t.Fatalf("the rule says %s; all violations: %v", result.Verdict, d.Violations())
			}
			for _, v := range result.Violations {
				if v.Hint == "" {
					t.Errorf("a violation without a hint: %+v", v)
				}
			}
			if _, ok := d.Template(); ok != (d.Verdict() == Allow) || c.refuse && ok || !c.refuse && !ok {
				t.Fatalf("%s, template %v, %v", d.Verdict(), ok, d.Violations())
			}
		})
		refused[c.rule] = refused[c.rule] || c.refuse
	}
	// The last two need keys that the corpus of csrtest has in 2048 bits alone; the rules are those for requests.
	refused["key.roca"], refused["key.close-primes"] = true, true
	for _, r := range authorityRules {
		if !refused[r.id] || r.source == "" {
			t.Errorf("%s is refused by no case, or has no source", r.id)
		}
	}
}

func TestAttributeType(t *testing.T) {
	for name, want := range map[string]string{"O": "2.5.4.10", "organizationName": "2.5.4.10", "CN": "2.5.4.3", "2.5.4.97": "2.5.4.97", "ST": "2.5.4.8"} {
		if oid, err := AttributeType(name); err != nil || oid.String() != want {
			t.Errorf("%s: %v, %v", name, oid, err)
		}
	}
	for _, name := range []string{"", "o", "X", "2", "3.1", "2.5.4.", strings.Repeat("1.", 40) + "1"} {
		if oid, err := AttributeType(name); err == nil {
			t.Errorf("%q was read as %v", name, oid)
		}
	}
	if oid, err := ExtKeyUsage("serverAuth"); err != nil || oid.String() != "1.3.6.1.5.5.7.3.1" {
		t.Errorf("%v, %v", oid, err)
	}
}
