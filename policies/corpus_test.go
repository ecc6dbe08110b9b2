package policies

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

var updateCorpus = flag.Bool("update", false, "write testdata/corpus anew")

// The corpus is kept as files, for other programs to try: requests in DER, hostile/<profile>/<name>.csr with the rule that refuses each in
// hostile/rules.txt, and benign/<profile>/<name>.csr. The namespace that they are judged in is that of dev.
const corpus = "testdata/corpus"

// corpusCase is one request of the corpus.
type corpusCase struct {
	profile, name string
	rule          string // the one that must refuse, of the reader of requests or of the policies; empty: the request is allowed
	der           []byte
}

func (c corpusCase) path() string {
	kind := "hostile"
	if c.rule == "" {
		kind = "benign"
	}
	return filepath.Join(corpus, kind, c.profile, c.name+".csr")
}

// wanted is the rule of tls-server that refuses each hostile request of csrtest. Where the key is at fault the signature must not be
// reached.
var wanted = map[string]string{
	"two-common-names": "subject.structure", "cn-not-in-san": "subject.common-name", "unknown-subject-attribute": "subject.attributes",
	"multi-valued-rdn": "subject.structure", "no-names-at-all": "names.count", "cn-without-san": "names.count",
	"wildcard-middle": "names.dns-syntax", "wildcard-partial": "names.dns-syntax", "wildcard-twice": "names.dns-syntax",
	"wildcard-tld": "names.wildcard", "wildcard-alone": "names.dns-syntax", "trailing-dot": "names.dns-syntax",
	"leading-dot": "names.dns-syntax", "empty-label": "names.dns-syntax", "empty-dns": "names.dns-syntax", "ip-in-dns": "names.dns-syntax",
	"ipv6-in-dns": "names.dns-syntax", "url-in-dns": "names.dns-syntax", "port-in-dns": "names.dns-syntax", "email-in-dns": "names.dns-syntax",
	"space-in-dns": "names.dns-syntax", "underscore": "names.dns-syntax", "hyphen-first": "names.dns-syntax",
	"label-too-long": "names.dns-syntax", "name-too-long": "names.dns-syntax", "outside-namespace": "names.namespace",
	"suffix-of-namespace": "names.namespace", "1000-names": "names.count", "othername": "names.types", "x400address": "names.types",
	"invalid-name": "names.special-use", "onion-name": "names.special-use", "alt-name": "names.special-use",
	"reverse-name": "names.special-use", "reverse-name-ipv6": "names.special-use",
	"idna-symbol": "names.dns-syntax", "idna-middle-dot": "names.dns-syntax", "idna-mapped": "names.dns-syntax", "idna-bidi": "names.dns-syntax",
	"idna-ascii": "names.dns-syntax", "reserved-label": "names.dns-syntax", "hexadecimal-address": "names.dns-syntax",
	"kerberos-principal": "names.types", "ntds-sid": "names.types",
	"directoryname": "names.types", "edipartyname": "names.types", "registeredid": "names.types", "v4-mapped-ip": "names.ip",
	"v4-compatible-ip": "names.ip", "multicast-ip": "names.ip", "unspecified-ip": "names.ip",
	"ip-outside-namespace": "names.namespace", "email-in-tls": "names.types", "uri-in-tls": "names.types", "sid-uri": "names.types",
	"p-224": "key.allowed", "rsa-1024": "key.allowed", "rsa-close-primes": "key.close-primes", "rsa-exponent-3": "key.exponent",
	"rsa-exponent-1": "key.exponent", "rsa-exponent-2": "key.exponent", "rsa-even-exponent": "key.exponent", "rsa-huge-exponent": "key.exponent",
	"rsa-even-modulus": "key.modulus", "rsa-roca": "key.roca", "rsa-512": "key.allowed", "rsa-2047": "key.allowed",
	"rsa-16384": "key.allowed", "rsa-131072": "key.allowed",
	"ca-true": "extensions.basic-constraints", "ca-true-path-0": "extensions.basic-constraints",
	"key-usage-cert-sign": "extensions.key-usage", "key-usage-crl-sign": "extensions.key-usage",
	"ext-key-usage-code-signing": "extensions.ext-key-usage", "ext-key-usage-ocsp-signing": "extensions.ext-key-usage",
	"ext-key-usage-any": "extensions.ext-key-usage", "unknown-critical-extension": "extensions.unknown", "name-constraints": "extensions.unknown",
	"precertificate-poison": "extensions.unknown", "ntds-sid-extension": "extensions.unknown",
	"microsoft-extension-request": "request.attributes", "unknown-attribute": "request.attributes",
}

// elsewhere are the hostile requests that are wrong for tls-server alone, and right for another profile.
var elsewhere = map[string]string{"cn-without-san": "ocsp-responder", "email-in-tls": "tls-client", "uri-in-tls": "tls-client"}

// hostileCases are all hostile requests: those of csrtest, for tls-server, and those of every profile's own.
func hostileCases(t *testing.T) []corpusCase {
	t.Helper()
	var all []corpusCase
	for _, c := range csrtest.Hostile() {
		rule := c.Rule
		switch {
		case rule != "":
		case c.Policy == "":
			rule = "signature.proof" // only the signature is wrong
		default:
			if rule = wanted[c.Policy]; rule == "" {
				t.Fatalf("no rule is written down for the hostile request %q", c.Policy)
			}
		}
		all = append(all, corpusCase{"tls-server", c.Name, rule, c.DER})
	}
	return append(all, hostileOfProfiles(t)...)
}

// made is a request built for a profile.
func made(t *testing.T, profile, name, rule string, build func(*csrtest.Builder)) corpusCase {
	t.Helper()
	b := csrtest.Builder{Key: csrtest.FixedKeys().P256}
	build(&b)
	der, err := b.Build()
	if err != nil {
		t.Fatalf("%s, %s: %v", profile, name, err)
	}
	return corpusCase{profile, name, rule, der}
}

func dnsOnly(names ...string) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { b.DNS = names }
}

func ipOnly(address string) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { b.IP = []netip.Addr{netip.MustParseAddr(address)} }
}

func emailOnly(mailbox string) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { b.Email = []string{mailbox} }
}

func uriOnly(uri string) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { b.URI = []string{uri} }
}

func subjectOnly(attributes ...csrtest.Attr) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { b.Subject = attributes }
}

func both(parts ...func(*csrtest.Builder)) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) {
		for _, part := range parts {
			part(b)
		}
	}
}

func key(choose func(csrtest.Keys, *csrtest.Builder)) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) { choose(csrtest.FixedKeys(), b) }
}

func commonName(v string) csrtest.Attr { return csrtest.Attr{OID: csrtest.OIDCommonName, Value: v} }

func organisation(v string) csrtest.Attr { return csrtest.Attr{OID: csrtest.OIDOrganization, Value: v} }

func country(v string) csrtest.Attr {
	return csrtest.Attr{OID: csrtest.OIDCountry, Value: v, Tag: 0x13} // PrintableString
}

// asks is an extended key usage by its last arc under id-kp.
func asks(arc byte) func(*csrtest.Builder) {
	return func(b *csrtest.Builder) {
		b.Extensions = append(b.Extensions, csrtest.Extension{OID: csrtest.OIDExtKeyUsage, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, arc}})
	}
}

func caTrue(b *csrtest.Builder) {
	b.Extensions = append(b.Extensions, csrtest.Extension{OID: csrtest.OIDBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}})
}

// hostileOfProfiles are requests that are hostile to one profile in particular.
func hostileOfProfiles(t *testing.T) []corpusCase {
	t.Helper()
	const server, client, code = 1, 2, 3
	www, ann := dnsOnly("www.example.com"), emailOnly("ann@dev.example")
	signer := subjectOnly(organisation("Example Ltd"), commonName("Release signing"))
	named := func(name string) func(*csrtest.Builder) {
		return subjectOnly(organisation("Example Ltd"), commonName(name))
	}
	responder := subjectOnly(commonName("OCSP responder 1"))
	upn := []byte{0xa0, 0x17, 6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x14, 2, 3, 0xa0, 9, 0x0c, 7, 'a', 'd', 'm', 'i', 'n', '@', 'x'}
	var all []corpusCase
	for _, c := range []struct {
		profile, name, rule string
		build               func(*csrtest.Builder)
	}{
		{"tls-public", "internal-name", "names.public", dnsOnly("host.corp")},
		{"tls-public", "single-label", "names.public", dnsOnly("intranet")},
		{"tls-public", "localhost", "names.public", dnsOnly("localhost")},
		{"tls-public", "reserved-example", "names.public", dnsOnly("host.dev.example")},
		{"tls-public", "reserved-test", "names.public", dnsOnly("host.test")},
		{"tls-public", "reserved-local", "names.public", dnsOnly("printer.local")},
		{"tls-public", "reserved-internal", "names.public", dnsOnly("db.internal")},
		{"tls-public", "home-arpa", "names.public", dnsOnly("router.home.arpa")},
		{"tls-public", "public-suffix", "names.public", dnsOnly("co.uk")},
		{"tls-public", "top-level", "names.public", dnsOnly("com")},
		{"tls-public", "wildcard-public-suffix", "names.wildcard", dnsOnly("*.co.uk")},
		{"tls-public", "wildcard-private-suffix", "names.wildcard", dnsOnly("*.github.io")},
		{"tls-public", "underscore", "names.dns-syntax", dnsOnly("a_b.example.com")},
		{"tls-public", "private-address", "names.ip", ipOnly("10.0.0.1")},
		{"tls-public", "loopback-address", "names.ip", ipOnly("127.0.0.1")},
		{"tls-public", "loopback-address-ipv6", "names.ip", ipOnly("::1")},
		{"tls-public", "metadata-address", "names.ip", ipOnly("169.254.169.254")},
		{"tls-public", "documentation-address", "names.ip", ipOnly("2001:db8::1")},
		{"tls-public", "unique-local-address", "names.ip", ipOnly("fd00::1")},
		{"tls-public", "nat64-address", "names.ip", ipOnly("64:ff9b::7f00:1")},
		{"tls-public", "others-name", "names.namespace", dnsOnly("www.example.org")},
		{"tls-public", "common-name-elsewhere", "subject.common-name", both(www, subjectOnly(commonName("www.example.org")))},
		{"tls-public", "mailbox", "names.types", both(www, ann)},
		{"tls-public", "uri", "names.types", both(www, uriOnly("https://www.example.com/"))},
		{"tls-public", "ed25519", "key.allowed", both(www, key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.Ed25519 }))},
		{"tls-public", "p-521", "key.allowed", both(www, key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.P521 }))},
		{"tls-public", "client-auth", "extensions.ext-key-usage", both(www, asks(client))},
		{"tls-public", "authority", "extensions.basic-constraints", both(www, caTrue)},

		{"tls-client", "wildcard", "names.wildcard", dnsOnly("*.dev.example")},
		{"tls-client", "mailbox-of-others", "names.namespace", emailOnly("ceo@bank.example")},
		{"tls-client", "mailbox-under-the-namespace", "names.namespace", emailOnly("ann@sub.dev.example")},
		{"tls-client", "mailbox-with-name", "names.email", emailOnly("Ann <ann@dev.example>")},
		{"tls-client", "mailbox-twice-at", "names.email", emailOnly("ann@dev.example@bank.example")},
		{"tls-client", "mailbox-quoted", "names.email", emailOnly(`"ann @"@dev.example`)},
		{"tls-client", "mailbox-at-address", "names.email", emailOnly("ann@[127.0.0.1]")},
		{"tls-client", "mailbox-at-wildcard", "names.email", emailOnly("ann@*.dev.example")},
		{"tls-client", "trust-domain-of-others", "names.namespace", uriOnly("spiffe://bank.example/a")},
		{"tls-client", "trust-domain-prefix", "names.namespace", uriOnly("spiffe://dev.example.bank.example/a")},
		{"tls-client", "uri-with-user", "names.uri", uriOnly("spiffe://dev.example@bank.example/a")},
		{"tls-client", "uri-with-backslash", "names.uri", uriOnly(`spiffe://bank.example\@dev.example/a`)},
		{"tls-client", "uri-with-fragment", "names.uri", uriOnly("spiffe://dev.example/a#b")},
		{"tls-client", "uri-that-climbs", "names.uri", uriOnly("spiffe://dev.example/a/../b")},
		{"tls-client", "uri-that-climbs-encoded", "names.uri", uriOnly("spiffe://dev.example/a/%2e%2e/b")},
		{"tls-client", "uri-of-one-label", "names.uri", uriOnly("spiffe://dev/a")},
		{"tls-client", "uri-without-authority", "names.uri", uriOnly("spiffe:///a")},
		{"tls-client", "uri-of-other-scheme", "names.uri", uriOnly("ftp://dev.example/a")},
		{"tls-client", "uri-of-script", "names.uri", uriOnly("javascript:alert(1)")},
		{"tls-client", "sid-in-uri", "names.uri", uriOnly("tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500")},
		{"tls-client", "user-principal-name", "names.types", both(ann, func(b *csrtest.Builder) { b.RawNames = [][]byte{upn} })},
		{"tls-client", "common-name-elsewhere", "subject.common-name", both(ann, subjectOnly(commonName("ceo@bank.example")))},
		{"tls-client", "server-auth", "extensions.ext-key-usage", both(ann, asks(server))},

		{"code-signing", "organisation-of-others", "subject.organisation", subjectOnly(organisation("Bank Ltd"), commonName("Release signing"))},
		{"code-signing", "organisation-almost", "subject.organisation", subjectOnly(organisation("Example Ltd."), commonName("Release signing"))},
		{"code-signing", "organisation-lookalike", "subject.organisation", subjectOnly(organisation("Еxample Ltd"), commonName("Release signing"))},
		{"code-signing", "no-organisation", "subject.attributes", subjectOnly(commonName("Release signing"))},
		{"code-signing", "two-organisations", "subject.structure", subjectOnly(organisation("Example Ltd"), organisation("Bank Ltd"), commonName("a"))},
		{"code-signing", "zero-width", "subject.attributes", named("Release\u200b signing")},
		{"code-signing", "right-to-left", "csr.control-character", named("Release \u202egningis")},
		{"code-signing", "white-space", "subject.attributes", named(" Release signing")},
		{"code-signing", "country-in-words", "subject.attributes", both(signer, func(b *csrtest.Builder) { b.Subject = append(b.Subject, country("Germany")) })},
		{"code-signing", "too-long", "subject.attributes", named(strings.Repeat("a", 65))},
		{"code-signing", "claims-dns-name", "subject.claims", named("login.bank.example")},
		{"code-signing", "claims-wildcard", "subject.claims", named("*.bank.example")},
		{"code-signing", "claims-address", "subject.claims", named("192.0.2.1")},
		{"code-signing", "claims-mailbox", "subject.claims", named("ceo@bank.example")},
		{"code-signing", "claims-uri", "subject.claims", named("https://bank.example/")},
		{"code-signing", "dns-name", "names.types", both(signer, dnsOnly("host.dev.example"))},
		{"code-signing", "rsa-2048", "key.allowed", both(signer, key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.RSA2048 }))},
		{"code-signing", "ed25519", "key.allowed", both(signer, key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.Ed25519 }))},
		{"code-signing", "server-auth", "extensions.ext-key-usage", both(signer, asks(server))},

		{"ocsp-responder", "no-name", "subject.attributes", func(*csrtest.Builder) {}},
		{"ocsp-responder", "claims-dns-name", "subject.claims", subjectOnly(commonName("ocsp.bank.example"))},
		{"ocsp-responder", "dns-name", "names.types", both(responder, dnsOnly("host.dev.example"))},
		{"ocsp-responder", "p-521", "key.allowed", both(responder, key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.P521 }))},
		{"ocsp-responder", "code-signing", "extensions.ext-key-usage", both(responder, asks(code))},
		{"ocsp-responder", "authority", "extensions.basic-constraints", both(responder, caTrue)},
	} {
		all = append(all, made(t, c.profile, c.name, c.rule, c.build))
	}
	return all
}

// benignCases are ordinary requests for each profile.
func benignCases(t *testing.T) []corpusCase {
	t.Helper()
	var all []corpusCase
	for _, c := range csrtest.Benign() {
		if request, err := csr.Parse(c.DER); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		} else if request.Names().Len() > 0 {
			all = append(all, corpusCase{"tls-server", c.Name, "", c.DER})
		}
	}
	p384 := key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.P384 })
	p521 := key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.P521 })
	rsa := key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.RSA2048 })
	ed25519 := key(func(k csrtest.Keys, b *csrtest.Builder) { b.Key = k.Ed25519 })
	www, ann := dnsOnly("www.example.com", "example.com"), emailOnly("ann.lee+x@dev.example")
	signer := subjectOnly(organisation("Example Ltd"), commonName("Release signing"))
	responder := subjectOnly(commonName("OCSP responder 1"))
	for _, c := range []struct {
		profile, name string
		build         func(*csrtest.Builder)
	}{
		{"tls-server", "internationalised", dnsOnly("xn--bcher-kva.dev.example")},
		{"tls-server", "address", ipOnly("127.0.0.1")},
		{"tls-public", "p256", www},
		{"tls-public", "p384", both(www, p384)},
		{"tls-public", "rsa2048", both(www, rsa)},
		{"tls-public", "common-name", both(www, subjectOnly(commonName("WWW.example.com")))},
		{"tls-public", "dropped-subject", both(www, subjectOnly(country("DE"), organisation("Example Ltd"), commonName("www.example.com")))},
		{"tls-public", "wildcard", dnsOnly("*.example.com", "example.com")},
		{"tls-public", "internationalised", dnsOnly("xn--bcher-kva.example.com")},
		{"tls-public", "address", ipOnly("8.8.8.8")},
		{"tls-public", "server-auth", both(www, asks(1))},
		{"tls-client", "mailbox", ann},
		{"tls-client", "spiffe", uriOnly("spiffe://dev.example/ns/a/sa/b")},
		{"tls-client", "dns-name", dnsOnly("host.dev.example")},
		{"tls-client", "address", ipOnly("::1")},
		{"tls-client", "ed25519", both(ann, ed25519)},
		{"tls-client", "rsa2048", both(ann, rsa)},
		{"tls-client", "all-kinds", both(ann, uriOnly("spiffe://dev.example/a"), dnsOnly("host.dev.example"), ipOnly("127.0.0.1"))},
		{"tls-client", "common-name", both(ann, subjectOnly(commonName("ann.lee+x@dev.example")))},
		{"tls-client", "client-auth", both(ann, asks(2))},
		{"code-signing", "p256", signer},
		{"code-signing", "p521", both(signer, p521)},
		{"code-signing", "country", subjectOnly(country("DE"), organisation("Example Ltd"), commonName("Ann Lee"))},
		{"code-signing", "own-name", subjectOnly(organisation("Example Ltd"), commonName("build.dev.example"))},
		{"code-signing", "code-signing", both(signer, asks(3))},
		{"smime", "p256", ann},
		{"smime", "rsa2048", both(ann, rsa)},
		{"smime", "common-name", both(ann, subjectOnly(commonName("ann.lee+x@dev.example")))},
		{"ocsp-responder", "p256", responder},
		{"ocsp-responder", "p384", both(responder, p384)},
		{"ocsp-responder", "rsa2048", both(responder, rsa)},
		{"ocsp-responder", "dropped-subject", subjectOnly(organisation("Example Ltd"), commonName("OCSP responder 1"))},
		{"ocsp-responder", "ocsp-signing", both(responder, asks(9))},
	} {
		all = append(all, made(t, c.profile, c.name, "", c.build))
	}
	return all
}

// TestCorpusIsCurrent holds that the files are what the generator makes. With -update it writes them.
func TestCorpusIsCurrent(t *testing.T) {
	all := append(hostileCases(t), benignCases(t)...)
	files := map[string][]byte{}
	var rules []string
	for _, c := range all {
		if _, twice := files[c.path()]; twice {
			t.Errorf("%s is made twice", c.path())
		}
		files[c.path()] = c.der
		if c.rule != "" {
			rules = append(rules, fmt.Sprintf("%s/%s %s\n", c.profile, c.name, c.rule))
		}
	}
	slices.Sort(rules)
	files[filepath.Join(corpus, "hostile", "rules.txt")] = []byte(strings.Join(rules, ""))
	kept := corpusFiles(t)
	for path, content := range files {
		switch before, ok := kept[path]; {
		case ok && sameRequest(path, before, content):
		case *updateCorpus:
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s is not what the generator makes; if that is meant: go test ./policies -run Corpus -update", path)
		}
	}
	for path := range kept {
		if _, made := files[path]; made {
			continue
		}
		if !*updateCorpus {
			t.Errorf("%s is made by nothing", path)
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// sameRequest compares requests, but for the signatures of RSA-PSS, which are others each time.
func sameRequest(path string, a, b []byte) bool {
	if strings.Contains(path, "pss") && len(a) == len(b) {
		const signature = 256
		a, b = a[:len(a)-signature], b[:len(b)-signature]
	}
	return bytes.Equal(a, b)
}

func corpusFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(corpus, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && *updateCorpus {
			return nil
		}
		if err == nil && !entry.IsDir() {
			files[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// keptHostile reads the hostile requests and their rules from the files.
func keptHostile(t *testing.T) (all []corpusCase) {
	t.Helper()
	files := corpusFiles(t)
	for line := range strings.Lines(string(files[filepath.Join(corpus, "hostile", "rules.txt")])) {
		fields := strings.Fields(line)
		profile, name, _ := strings.Cut(fields[0], "/")
		c := corpusCase{profile: profile, name: name, rule: fields[1]}
		c.der = files[c.path()]
		all = append(all, c)
	}
	return all
}

// corpusRequest is a request of the corpus with the facts that it is judged by.
func corpusRequest(t *testing.T, set *Set) Request {
	r := benign(t)
	r.Namespace.Profiles = set.Names()
	return r
}

// TestHostileCorpus holds that each hostile request is refused by the rule written down for it: those that can be read by their profile for
// the reason that they have, and, where they are no other profile's ordinary requests, by every shipped profile.
func TestHostileCorpus(t *testing.T) {
	set := shippedSet(t)
	r := corpusRequest(t, set)
	all := keptHostile(t)
	if len(all) < 80 {
		t.Errorf("there are %d hostile requests, want 80 at least", len(all))
	}
	seen := make(map[string]bool)
	for _, c := range all {
		seen[c.rule] = true
		var unread *csr.Error
		request, err := csr.Parse(c.der)
		if errors.As(err, &unread) {
			if unread.Rule != c.rule {
				t.Errorf("%s: refused by %s, want %s", c.path(), unread.Rule, c.rule)
			}
			continue
		}
		r.CSR, r.Profile = request, c.profile
		d := set.Decide(r)
		if _, ok := d.Template(); ok || d.Verdict() != Refuse || !slices.Contains(refusing(d), c.rule) {
			t.Errorf("%s: %s by %v, want %s", c.path(), d.Verdict(), refusing(d), c.rule)
		}
		signature := resultOf(t, d, "signature.proof").Verdict
		if strings.HasPrefix(c.rule, "key.") != (signature == NotReached) {
			t.Errorf("%s: the signature is %s", c.path(), signature)
		}
		if c.profile != "tls-server" {
			continue
		}
		for _, r.Profile = range set.Names() {
			if d := set.Decide(r); elsewhere[c.name] != r.Profile && (d.Verdict() != Refuse || len(d.Violations()) == 0) {
				t.Errorf("%s, for %s: got %s with %v", c.path(), r.Profile, d.Verdict(), d.Violations())
			}
		}
	}
	for _, rule := range rules {
		if !seen[rule.id] && !beyondCorpus[rule.id] {
			t.Errorf("no hostile request is refused by %s", rule.id)
		}
	}
}

// beyondCorpus are the rules that no request breaks by what it says alone: they look at facts, or at what only some profiles have.
var beyondCorpus = map[string]bool{
	"request.complete": true, "issuer.signs": true, "profile.unknown": true, "profile.namespace": true,
	"key.compromised": true, "key.listed": true, "subject.of-authority": true, "key.of-authority": true, "key.reuse": true,
	"names.subtrees": true, "quota": true, "approval": true, "names.confusable": true, "names.pattern": true, "names.issuer-constraints": true, "names.caa": true, "validity": true,
	"extensions.issuer-ext-key-usage": true,
}

// TestBenignCorpus holds that each shipped profile allows its ordinary requests, without remark.
func TestBenignCorpus(t *testing.T) {
	set := shippedSet(t)
	r := corpusRequest(t, set)
	files := corpusFiles(t)
	count := map[string]int{}
	for path, der := range files {
		profile := filepath.Base(filepath.Dir(path))
		if !strings.HasPrefix(path, filepath.Join(corpus, "benign")) {
			continue
		}
		count[profile]++
		request, err := csr.Parse(der)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		r.CSR, r.Profile = request, profile
		if d := set.Decide(r); d.Verdict() != Allow {
			t.Errorf("%s: got %s, %v", path, d.Verdict(), d.Violations())
		}
	}
	for _, profile := range set.Names() {
		if count[profile] < 3 {
			t.Errorf("there are %d benign requests for %s, want 3 at least", count[profile], profile)
		}
	}
}
