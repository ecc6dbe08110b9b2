package issuance_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

// subjectKey is a kind of key that is certified, and where it is refused.
type subjectKey struct {
	name      string
	key       crypto.Signer
	refusedBy []string // the profiles that do not have it
}

// subjectKeys are one key of each kind that any shipped profile has. The RSA keys are a token's, which makes them faster than the race
// detector lets Go do it.
func subjectKeys(t *testing.T, token *hsm.Token) []subjectKey {
	t.Helper()
	curve := func(c elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return []subjectKey{
		{"P-256", curve(elliptic.P256()), nil},
		{"P-384", curve(elliptic.P384()), nil},
		{"P-521", curve(elliptic.P521()), []string{"ocsp-responder", "tls-public"}},
		{"Ed25519", edwards, []string{"code-signing", "ocsp-responder", "smime", "tls-public"}},
		{"RSA-2048", tokenKey(t, token, "subject 2048", hsm.RSA2048), []string{"code-signing"}},
		{"RSA-3072", tokenKey(t, token, "subject 3072", hsm.RSA3072), nil},
		{"RSA-4096", tokenKey(t, token, "subject 4096", hsm.RSA4096), nil},
	}
}

// tokenKey makes a key in a token.
func tokenKey(t *testing.T, token *hsm.Token, label string, algorithm hsm.Algorithm) crypto.Signer {
	t.Helper()
	ref, public, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: label})
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// applications are what is asked of each shipped profile: every kind of name that it has, and the things it drops that can be asked for
// with the standard library.
func applications(t *testing.T) map[string]*x509.CertificateRequest {
	t.Helper()
	spiffe, err := url.Parse("spiffe://example.com/billing")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*x509.CertificateRequest{
		"tls-server": {
			Subject:  pkix.Name{Country: []string{"AT"}, CommonName: "www.example.com"},
			DNSNames: []string{"www.example.com", "*.shop.example.com", "xn--bcher-kva.example.com", "build-7.internal"},
			IPAddresses: []net.IP{
				net.IPv4(10, 1, 2, 3), net.ParseIP("2001:db8::7"),
			},
		},
		"tls-client": {
			Subject:        pkix.Name{CommonName: "billing.example.com"},
			DNSNames:       []string{"billing.example.com"},
			IPAddresses:    []net.IP{net.IPv4(10, 1, 2, 3)},
			EmailAddresses: []string{"billing@example.com"},
			URIs:           []*url.URL{spiffe},
		},
		"tls-public": {
			Subject:     pkix.Name{Organization: []string{"Example Ltd"}, CommonName: "www.example.com"},
			DNSNames:    []string{"www.example.com", "example.com", "*.example.com", "xn--bcher-kva.example.com"},
			IPAddresses: []net.IP{net.IPv4(8, 8, 8, 8), net.ParseIP("2a00:1450:4001:82b::200e")},
		},
		"code-signing": {
			Subject: pkix.Name{
				Country: []string{"AT"}, Province: []string{"Wien"}, Locality: []string{"Wien"}, Organization: []string{"Example Ltd"},
				CommonName: "Example Ltd Releases",
			},
		},
		"smime": {
			Subject:        pkix.Name{CommonName: "ann@example.com"},
			EmailAddresses: []string{"ann@example.com", "ann.other@example.com"},
		},
		"ocsp-responder": {Subject: pkix.Name{Organization: []string{"Example Ltd"}, CommonName: "Example Responder 1"}},
	}
}

// team owns all that the applications name.
func team(profiles []string) access.Namespace {
	return access.Namespace{
		Name: "team", DNS: []string{"example.com", "internal"}, Email: []string{"example.com"}, URI: []string{"spiffe://example.com"},
		IP: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("8.8.8.0/24"), netip.MustParsePrefix("2001:db8::/32"),
			netip.MustParsePrefix("2a00:1450::/32"),
		},
		Subjects: []string{"Example Ltd"}, Profiles: profiles,
	}
}

// office is a root and an authority below it, in files for openssl, with what the authority's keys are in.
type office struct {
	name       string
	root       *x509.Certificate
	issuing    *issuance.Issuer
	dir        string
	rootFile   string
	issuerFile string
}

// offices are hierarchies with issuing authorities of every kind of key, all of them in a token.
func offices(t *testing.T, token *hsm.Token) []office {
	t.Helper()
	var all []office
	for _, c := range []struct {
		name          string
		root, issuing hsm.Algorithm
	}{
		{"P-256 under P-384", hsm.ECDSAP384, hsm.ECDSAP256},
		{"P-384 under RSA-3072", hsm.RSA3072, hsm.ECDSAP384},
		{"RSA-3072 under P-256", hsm.ECDSAP256, hsm.RSA3072},
	} {
		rootKey, key := tokenKey(t, token, "root of "+c.name, c.root), tokenKey(t, token, "issuing of "+c.name, c.issuing)
		signed, err := issuance.SelfSign(t.Context(), rootGrant(t, rootKey.Public()), rootKey, serial(t), now, nothing)
		if err != nil {
			t.Fatal(err)
		}
		root := read(t, signed.DER)
		above, err := issuance.NewIssuer(root, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		prepared, err := above.Prepare(decide(t, policies.AuthorityRequest{
			Name: "issuing", Subject: subject("Issuing"), SPKI: spki(t, key.Public()), NotBefore: now, NotAfter: now.AddDate(5, 0, 0), PathLen: 0,
			Now: now, Parent: root, CRLURL: "http://pki.example.com/crl/root.crl", IssuerURLs: []string{"http://pki.example.com/ca/root.cer"},
		}), serial(t), now)
		if err != nil {
			t.Fatal(err)
		}
		if signed, err = above.Sign(t.Context(), prepared, nothing); err != nil {
			t.Fatal(err)
		}
		issuing, err := issuance.NewIssuer(read(t, signed.DER), key)
		if err != nil {
			t.Fatal(err)
		}
		o := office{name: c.name, root: root, issuing: issuing, dir: t.TempDir()}
		o.rootFile, o.issuerFile = o.file(t, "root", root.Raw), o.file(t, "issuing", signed.DER)
		all = append(all, o)
	}
	return all
}

func (o office) file(t *testing.T, name string, der []byte) string {
	t.Helper()
	path := filepath.Join(o.dir, name+".pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue takes a request the whole way: it is read, decided, granted, prepared and signed.
func (o office) issue(t *testing.T, set *policies.Set, profile string, request *csr.Request, validity time.Duration, at time.Time) *x509.Certificate {
	t.Helper()
	d := set.Decide(policies.Request{
		CSR: request, Profile: profile, Validity: validity, Actor: access.Actor{ID: "a", Namespace: "team"}, Namespace: team(set.Names()), Now: at,
		Issuer: policies.Issuer{
			Name: "issuing", Certificate: o.issuing.Certificate(), CRLScope: "issuing", CRLURL: "http://pki.example.com/crl/issuing.crl",
			IssuerURLs: []string{"http://pki.example.com/ca/issuing.cer"},
		},
	})
	grant, err := d.Grant()
	if err != nil {
		t.Fatal(err, d.Violations())
	}
	number, err := issuance.NewSerial(at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := o.issuing.Prepare(grant, number, at)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := o.issuing.Sign(t.Context(), prepared, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, signed.DER)
}

// verify has openssl verify the chain at a time, and certtool read the certificate.
func (o office) verify(t *testing.T, file string, at time.Time) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), "openssl", "verify", "-x509_strict", "-attime", fmt.Sprint(at.Unix()), "-CAfile", o.rootFile,
		"-untrusted", o.issuerFile, file).CombinedOutput(); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, output)
	}
	output, err := exec.CommandContext(t.Context(), "certtool", "--certificate-info", "--infile", file).CombinedOutput()
	if err != nil || !strings.Contains(string(output), "Version: 3") || strings.Contains(string(output), "error") {
		t.Errorf("certtool: %v\n%s", err, output)
	}
}

// findings has zlint's whole registry, for the sources that a profile names, look at a finished certificate: those from notice up, by lint.
func findings(t *testing.T, sources []string, certificate *x509.Certificate) map[string]string {
	t.Helper()
	var include lint.SourceList
	for _, source := range sources {
		include = append(include, lint.LintSource(source))
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: include})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := zx509.ParseCertificate(certificate.Raw)
	if err != nil {
		t.Fatal(err)
	}
	results := zlint.LintCertificateEx(parsed, registry)
	if len(results.Results) < 100 {
		t.Fatalf("only %d lints of %v looked at it", len(results.Results), sources)
	}
	found := map[string]string{}
	for name, result := range results.Results {
		if result.Status >= lint.Notice {
			found[name] = fmt.Sprintf("%s %s", result.Status, result.Details)
		}
	}
	return found
}

// changes are now and the days, within the issuers' validity, on which the Baseline Requirements shorten what is allowed (section 6.3.2).
func changes(now time.Time) []time.Time {
	days := []time.Time{now}
	for _, year := range []int{2027, 2029} {
		if change := time.Date(year, time.March, 15, 0, 10, 0, 0, time.UTC); change.After(now) {
			days = append(days, change)
		}
	}
	return days
}

// TestShippedProfiles takes a request for every kind of key through every shipped profile to a certificate of every kind of issuer, and
// has openssl, certtool and zlint look at it. zlint finds what the profile excepts and nothing else, and every exception is needed.
func TestShippedProfiles(t *testing.T) {
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	asked := applications(t)
	if got := slices.Sorted(maps.Keys(asked)); !slices.Equal(got, set.Names()) {
		t.Fatalf("something is asked of %v, and the profiles are %v", got, set.Names())
	}
	token := hsmtest.New(t).Open(t)
	keys, issuers := subjectKeys(t, token), offices(t, token)
	for _, name := range set.Names() {
		profile, _ := set.Profile(name)
		summary := profile.Summary(now)
		excepted := map[string]bool{}
		for _, e := range summary.LintExceptions {
			if excepted[e.Lint] = false; e.Reason == "" {
				t.Errorf("%s excepts %s without a reason", name, e.Lint)
			}
		}
		look := func(t *testing.T, certificate *x509.Certificate) {
			t.Helper()
			for one, why := range findings(t, summary.LintSources, certificate) {
				if _, known := excepted[one]; !known {
					t.Errorf("zlint: %s: %s", one, why)
				}
				excepted[one] = true
			}
		}
		for _, k := range keys {
			der, err := x509.CreateCertificateRequest(rand.Reader, asked[name], k.key)
			if err != nil {
				t.Fatal(err)
			}
			request, err := csr.Parse(der)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(k.refusedBy, name) {
				if d := set.Decide(policies.Request{
					CSR: request, Profile: name, Now: now, Actor: access.Actor{ID: "a", Namespace: "team"},
					Namespace: team(set.Names()), Issuer: policies.Issuer{Name: "issuing", Certificate: issuers[0].issuing.Certificate()},
				}); d.Verdict() != policies.Refuse {
					t.Errorf("%s allows a key of the kind %s", name, k.name)
				}
				continue
			}
			for _, o := range issuers {
				t.Run(name+"/"+k.name+"/"+o.name, func(t *testing.T) {
					certificate := o.issue(t, set, name, request, 0, now)
					look(t, certificate)
					o.verify(t, o.file(t, name+" "+k.name, certificate.Raw), now)
				})
			}
			if k.name != "P-256" {
				continue
			}
			for _, at := range changes(now) {
				t.Run(name+"/the longest of "+at.Format(time.DateOnly), func(t *testing.T) {
					longest := time.Duration(profile.Summary(at).ValidityMax) * time.Second
					certificate := issuers[0].issue(t, set, name, request, longest, at)
					if got := certificate.NotAfter.Sub(certificate.NotBefore) + time.Second; got != longest {
						t.Errorf("it lasts %s, want %s", got, longest)
					}
					look(t, certificate)
					issuers[0].verify(t, issuers[0].file(t, name+" "+at.Format(time.DateOnly), certificate.Raw), at)
				})
			}
		}
		for one, fired := range excepted {
			if !fired {
				t.Errorf("%s excepts %s, which finds nothing in any certificate of this profile", name, one)
			}
		}
	}
}

// TestNoCertificateSatisfiesBoth shows why tls-public has to except a lint: with the extension that RFC 5280 recommends, zlint finds what the
// Baseline Requirements recommend against.
func TestNoCertificateSatisfiesBoth(t *testing.T) {
	shipped, err := os.ReadFile("../policies/profiles/tls-public.yaml")
	if err != nil {
		t.Fatal(err)
	}
	head, exceptions, found := strings.Cut(string(shipped), "  except:")
	if !found || strings.Count(exceptions, "- lint:") != 1 || !strings.Contains(exceptions, "w_ext_subject_key_identifier_missing_sub_cert") {
		t.Fatalf("the exceptions are other ones:\n%s", exceptions)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, applications(t)["tls-public"], softwareKey(t))
	if err != nil {
		t.Fatal(err)
	}
	request, err := csr.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	rootKey := softwareKey(t)
	root, err := issuance.SelfSign(t.Context(), rootGrant(t, rootKey.Public()), rootKey, serial(t), now, nothing)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := issuance.NewIssuer(read(t, root.DER), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	for write, want := range map[string]string{
		"true": "w_ext_subject_key_identifier_not_recommended_subscriber", "false": "w_ext_subject_key_identifier_missing_sub_cert",
	} {
		text := strings.Replace(head, "subject_key_id: false", "subject_key_id: "+write, 1)
		set, err := policies.Load(fstest.MapFS{"tls-public.yaml": {Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		grant, err := set.Decide(policies.Request{
			CSR: request, Profile: "tls-public", Actor: access.Actor{ID: "a", Namespace: "team"}, Namespace: team(nil), Now: now,
			Issuer: policies.Issuer{
				Name: "root", Certificate: issuer.Certificate(), CRLURL: "http://pki.example.com/crl/root.crl",
				IssuerURLs: []string{"http://pki.example.com/ca/root.cer"},
			},
		}).Grant()
		if err != nil {
			t.Fatal(err)
		}
		_, err = issuer.Prepare(grant, serial(t), now)
		var refused *issuance.LintError
		if !errors.As(err, &refused) || len(refused.Findings) != 1 || refused.Findings[0].Lint != want {
			t.Errorf("subject_key_id %s: %v, want %s alone", write, err, want)
		}
	}
}

// TestAuthoritiesUnderAllLints has zlint's whole registry look at the certificates of authorities of every kind of key and at their CRLs. For
// certificates that is every lint of the sources chosen for authorities, for CRLs every lint there is.
func TestAuthoritiesUnderAllLints(t *testing.T) {
	for _, o := range offices(t, hsmtest.New(t).Open(t)) {
		t.Run(o.name, func(t *testing.T) {
			lints := rootGrant(t, o.root.PublicKey).Lint()
			if len(lints.Except) != 0 {
				t.Errorf("%v are excepted, and nothing should be", lints.Except)
			}
			for _, certificate := range []*x509.Certificate{o.root, o.issuing.Certificate()} {
				for one, why := range findings(t, lints.Sources, certificate) {
					t.Errorf("%s: zlint: %s: %s", certificate.Subject.CommonName, one, why)
				}
			}
			o.verify(t, o.issuerFile, now)
			for _, entries := range [][]issuance.CRLEntry{nil, {{Serial: []byte{0x1c, 1}, RevokedAt: now, Reason: issuance.KeyCompromise}}} {
				prepared, err := o.issuing.PrepareCRL(issuance.CRLContents{
					Number: big.NewInt(now.UnixMilli()), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7), Entries: entries,
				})
				if err != nil {
					t.Fatal(err)
				}
				signed, err := o.issuing.SignCRL(t.Context(), prepared, nothing)
				if err != nil {
					t.Fatal(err)
				}
				list, err := zx509.ParseRevocationList(signed.DER)
				if err != nil {
					t.Fatal(err)
				}
				for one, result := range zlint.LintRevocationList(list).Results {
					if result.Status >= lint.Notice {
						t.Errorf("CRL of %d entries: zlint: %s: %s %s", len(entries), one, result.Status, result.Details)
					}
				}
			}
		})
	}
}
