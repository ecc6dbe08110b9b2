package ceremony

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

const hierarchyPlan = `
ceremony: first-hierarchy
description: Root and first issuing authority
output: out
authorities:
  - name: issuing-1
    issuer: root-1
    key: {algorithm: ecdsa-p256, label: issuing-1, id: "0a0b0c"}
    subject: {common_name: "Example Issuing CA 1", organization: "Example", country: "NL"}
    validity: 10y
    path_len: 0
    name_constraints:
      permitted: {dns: [example.com], ip: [10.0.0.0/8], email: [.example.com], uri: [example.com]}
      excluded: {dns: [secret.example.com], ip: ["fd00::/8"]}
    policies: ["2.23.140.1.2.1"]
    ext_key_usage: [serverAuth, clientAuth]
    urls: {crl: "http://pki.example.com/crl/issuing-1.crl", issuer: "http://pki.example.com/ca/issuing-1.cer"}
    crl: {period: 24h, validity: 7d}
  - name: root-1
    key: {algorithm: ecdsa-p384, label: root-1}
    subject: {common_name: "Example Root CA 1", organization: "Example", country: "NL"}
    validity: 20y
    path_len: 1
    crl: {validity: 180d}
    urls: {crl: "http://pki.example.com/crl/root-1.crl", issuer: "http://pki.example.com/ca/root-1.cer"}
`

var ceremonyTime = time.Date(2026, 11, 24, 10, 30, 15, 0, time.UTC)

// clock is a clock that stands still.
func clock() time.Time { return ceremonyTime }

func plan(t *testing.T, dir, text string) Plan {
	t.Helper()
	path := filepath.Join(dir, "plan.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := ReadPlan(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t *testing.T, token *hsm.Token, p Plan) *Result {
	t.Helper()
	var out bytes.Buffer
	result, err := Run(t.Context(), p, Options{Token: token, Now: clock, Random: rand.Reader, Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	expected, err := rehearse(t.Context(), p, ceremonyTime, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(result.Transcript); err != nil || info.Size() > int64(expected) {
		t.Errorf("the transcript has %d octets, %v; the rehearsal expected at most %d", info.Size(), err, expected)
	}
	for _, want := range []string{p.Digest(), result.Head, p.Description} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("those present were not told %s:\n%s", want, &out)
		}
	}
	return result
}

// tool runs a program of the machine and returns what it says.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func summary(t *testing.T, path string) Summary {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := VerifyTranscript(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHierarchy(t *testing.T) {
	t.Parallel()
	dir, made := t.TempDir(), hsmtest.New(t)
	token := made.Open(t)
	result := run(t, token, plan(t, dir, hierarchyPlan))
	in := func(name string) string { return filepath.Join(result.Dir, name) }

	t.Run("the files are there and nothing else", func(t *testing.T) {
		var names []string
		entries, err := os.ReadDir(result.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		want := []string{
			"issuing-1-chain.pem", "issuing-1.authority.json", "issuing-1.cer", "issuing-1.pem",
			"root-1-chain.pem", "root-1.authority.json", "root-1.cer", "root-1.crl", "root-1.pem", "transcript.jsonl",
		}
		if !slices.Equal(names, want) {
			t.Errorf("got %v, want %v", names, want)
		}
	})

	t.Run("openssl verifies", func(t *testing.T) {
		crl := in("root-1.crl.pem")
		tool(t, "openssl", "crl", "-inform", "DER", "-in", in("root-1.crl"), "-out", crl)
		at := fmt.Sprint(ceremonyTime.Add(time.Hour).Unix())
		tool(t, "openssl", "verify", "-x509_strict", "-attime", at, "-crl_check_all", "-CAfile", in("root-1.pem"), "-CRLfile", crl, in("root-1.pem"))
		// The issuing authority's own status is on the root's CRL.
		tool(t, "openssl", "verify", "-x509_strict", "-attime", at, "-crl_check_all", "-CAfile", in("root-1.pem"), "-CRLfile", crl, in("issuing-1.pem"))
		if err := os.Remove(crl); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("openssl reads the certificates", func(t *testing.T) {
		root := tool(t, "openssl", "x509", "-in", in("root-1.pem"), "-noout", "-text")
		for _, want := range []string{
			"C = NL, O = Example, CN = Example Root CA 1", "CA:TRUE, pathlen:1", "Certificate Sign, CRL Sign",
			"ecdsa-with-SHA384", "Not Before: Nov 24 10:30:15 2026 GMT", "Not After : Nov 19 10:30:14 2046 GMT",
		} {
			if !strings.Contains(root, want) {
				t.Errorf("the root lacks %q:\n%s", want, root)
			}
		}
		for _, unwanted := range []string{"CRL Distribution", "Authority Information Access", "Extended Key Usage"} {
			if strings.Contains(root, unwanted) {
				t.Errorf("the root has %q:\n%s", unwanted, root)
			}
		}
		issuing := tool(t, "openssl", "x509", "-in", in("issuing-1.pem"), "-noout", "-text")
		for _, want := range []string{
			"Issuer: C = NL, O = Example, CN = Example Root CA 1", "CA:TRUE, pathlen:0", "DNS:example.com", "IP:10.0.0.0/255.0.0.0",
			"DNS:secret.example.com", "email:.example.com", "URI:example.com", "2.23.140.1.2.1", "TLS Web Server Authentication, TLS Web Client Authentication",
			"URI:http://pki.example.com/crl/root-1.crl", "CA Issuers - URI:http://pki.example.com/ca/root-1.cer",
		} {
			if !strings.Contains(issuing, want) {
				t.Errorf("the issuing authority lacks %q:\n%s", want, issuing)
			}
		}
		list := tool(t, "openssl", "crl", "-inform", "DER", "-in", in("root-1.crl"), "-noout", "-text")
		for _, want := range []string{"No Revoked Certificates", "X509v3 CRL Number", fmt.Sprint(ceremonyTime.UnixMilli())} {
			if !strings.Contains(list, want) {
				// openssl writes large numbers in hex.
				if want == fmt.Sprint(ceremonyTime.UnixMilli()) && strings.Contains(list, fmt.Sprintf("0x%X", ceremonyTime.UnixMilli())) {
					continue
				}
				t.Errorf("the CRL lacks %q:\n%s", want, list)
			}
		}
	})

	t.Run("certtool reads everything", func(t *testing.T) {
		for _, name := range []string{"root-1.cer", "issuing-1.cer"} {
			tool(t, "certtool", "--certificate-info", "--inder", "--infile", in(name))
		}
		tool(t, "certtool", "--crl-info", "--inder", "--infile", in("root-1.crl"))
	})

	t.Run("the bundles agree", func(t *testing.T) {
		if !slices.Equal(result.Bundles, []string{in("root-1.authority.json"), in("issuing-1.authority.json")}) {
			t.Fatalf("bundles %v", result.Bundles)
		}
		root, err := ReadBundle(result.Bundles[0])
		if err != nil {
			t.Fatal(err)
		}
		issuing, err := ReadBundle(result.Bundles[1])
		if err != nil {
			t.Fatal(err)
		}
		if root.Online || root.Parent != "" || root.List == nil || root.CRLPeriod != 0 || root.CRLValidity != 180*24*time.Hour {
			t.Errorf("root %+v", root)
		}
		if !issuing.Online || issuing.Parent != "root-1" || issuing.List != nil || issuing.CRLPeriod != 24*time.Hour || issuing.CRLValidity != 7*24*time.Hour ||
			len(issuing.Chain) != 2 || issuing.CRLURL != "http://pki.example.com/crl/issuing-1.crl" || issuing.IssuerURL != "http://pki.example.com/ca/issuing-1.cer" {
			t.Errorf("issuing %+v", issuing)
		}
		if issuing.Key.Token != made.Serial || issuing.Key.Label != "issuing-1" || !bytes.Equal(issuing.Key.ID, []byte{10, 11, 12}) {
			t.Errorf("issuing key %+v", issuing.Key)
		}
		certificate, err := x509.ParseCertificate(issuing.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.Signer(hsm.KeyRef{Label: issuing.Key.Label, ID: issuing.Key.ID}, certificate.PublicKey); err != nil {
			t.Errorf("the bundle's key: %v", err)
		}
	})

	t.Run("the transcript tells it all, and no secret", func(t *testing.T) {
		s := summary(t, result.Transcript)
		if !s.Complete || s.Head != result.Head || s.Token != made.Serial || len(s.Keys) != 2 || len(s.Signed) != 3 || len(s.Artefacts) != 9 {
			t.Errorf("summary %+v", s)
		}
		text, err := os.ReadFile(result.Transcript)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(hsmtest.UserPIN)) || bytes.Contains(text, []byte("PRIVATE KEY")) {
			t.Error("the transcript holds a secret")
		}
		if !bytes.Contains(text, []byte(`"CKA_NEVER_EXTRACTABLE":true`)) {
			t.Error("the transcript lacks the attributes as read back")
		}
		if err := os.WriteFile(in("root-1.pem"), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CompareArtefacts(s, result.Dir); err == nil {
			t.Error("a changed file was not noticed")
		}
	})

	t.Run("again in the same place is refused", func(t *testing.T) {
		_, err := Run(t.Context(), plan(t, dir, hierarchyPlan), Options{Token: token, Now: clock, Random: rand.Reader})
		if !errors.Is(err, hsm.ErrKeyExists) {
			t.Errorf("the labels are taken, got %v", err)
		}
		other := strings.NewReplacer("label: root-1", "label: root-2", "label: issuing-1", "label: issuing-2", "0a0b0c", "0a0b0d").Replace(hierarchyPlan)
		_, err = Run(t.Context(), plan(t, dir, other), Options{Token: token, Now: clock, Random: rand.Reader})
		if !errors.Is(err, ErrTranscriptExists) {
			t.Errorf("the directory is taken, got %v", err)
		}
		if err := os.Remove(result.Transcript); err != nil {
			t.Fatal(err)
		}
		_, err = Run(t.Context(), plan(t, dir, other), Options{Token: token, Now: clock, Random: rand.Reader})
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("the files are taken, got %v", err)
		}
		if keys, err := token.Keys(); err != nil || len(keys) != 2 {
			t.Errorf("refusals left keys: %v, %v", keys, err)
		}
	})
}

const rsaPlan = `
ceremony: rsa-root
output: out
authorities:
  - name: root-r
    key: {algorithm: rsa-3072, label: root-r}
    subject: {common_name: "Example RSA Root"}
    validity: 20y
    crl: {validity: 180d}
  - name: offline-r
    issuer: root-r
    online: false
    key: {algorithm: ecdsa-p256, label: offline-r}
    subject: {common_name: "Example Offline CA"}
    validity: 5y
    path_len: 3
    crl: {validity: 30d}
  - name: issuing-r
    issuer: offline-r
    key: {algorithm: ecdsa-p256, label: issuing-r, existing: true}
    subject: {common_name: "Example Issuing CA"}
    validity: 1y
    path_len: 0
    name_constraints: {permitted: {dns: [example.org]}}
    crl: {period: 12h, validity: 3d}
`

const renewalPlan = `
ceremony: rsa-root-crl
output: later
crls:
  - issuer: root-r
    certificate: out/root-r.cer
    key: {label: root-r}
    validity: 90d
    previous: out/root-r.crl
    revoked: [{serial: SERIAL, reason: cACompromise, at: 2026-11-24T10:00:00Z}]
`

// TestRSAAndLaterCRL makes three levels under an RSA root, one with a key that is there already, and later revokes the second level.
func TestRSAAndLaterCRL(t *testing.T) {
	t.Parallel()
	dir, made := t.TempDir(), hsmtest.New(t)
	token := made.Open(t)
	if _, err := Run(t.Context(), plan(t, dir, rsaPlan), Options{Token: token, Now: clock, Random: rand.Reader}); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Fatalf("an existing key that is not there: %v", err)
	}
	if _, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing-r"}); err != nil {
		t.Fatal(err)
	}
	result := run(t, token, plan(t, dir, rsaPlan))
	in := func(name string) string { return filepath.Join(result.Dir, name) }
	var lists []string
	for _, name := range []string{"root-r", "offline-r"} {
		lists = append(lists, "-CRLfile", filepath.Join(dir, name+".pem"))
		tool(t, "openssl", "crl", "-inform", "DER", "-in", in(name+".crl"), "-out", filepath.Join(dir, name+".pem"))
	}
	verify := []string{
		"openssl", "verify", "-attime", fmt.Sprint(ceremonyTime.Add(time.Hour).Unix()), "-x509_strict", "-crl_check_all",
		"-CAfile", in("root-r.pem"), "-untrusted", in("issuing-r-chain.pem"),
	}
	tool(t, append(append(verify, lists...), in("issuing-r.pem"))...)

	offline, err := ReadBundle(in("offline-r.authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	if offline.Online || offline.List == nil || len(offline.Chain) != 2 {
		t.Errorf("offline %+v", offline)
	}
	certificate, err := x509.ParseCertificate(offline.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(renewalPlan, "SERIAL", fmt.Sprintf("%040x", certificate.SerialNumber))
	later := run(t, token, plan(t, dir, text))
	next := parseList(t, later.CRLs[0])
	if next.Number.Cmp(parseList(t, in("root-r.crl")).Number) <= 0 {
		t.Error("the number did not rise although the clock stood still")
	}
	if len(next.RevokedCertificateEntries) != 1 || next.RevokedCertificateEntries[0].ReasonCode != 2 {
		t.Errorf("entries %+v", next.RevokedCertificateEntries)
	}
	tool(t, "certtool", "--crl-info", "--inder", "--infile", later.CRLs[0])
	tool(t, "openssl", "crl", "-inform", "DER", "-in", later.CRLs[0], "-out", filepath.Join(dir, "root-r.pem"))
	out, err := exec.Command("openssl", append(append(verify[1:], lists...), in("issuing-r.pem"))...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "certificate revoked") {
		t.Errorf("a revoked authority still verifies: %v\n%s", err, out)
	}
	s := summary(t, later.Transcript)
	if len(s.Signed) != 1 || len(s.Keys) != 1 || s.Keys[0].Generated {
		t.Errorf("summary %+v", s)
	}

	root, err := ReadBundle(in("root-r.authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	partial := func(name string, extension pkix.Extension) {
		t.Helper()
		issuer, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := token.Signer(hsm.KeyRef{Label: "root-r"}, issuer.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(ceremonyTime.UnixMilli()), ThisUpdate: ceremonyTime.Add(-time.Hour), NextUpdate: ceremonyTime.Add(time.Hour),
			ExtraExtensions: []pkix.Extension{extension},
		}, issuer, signer)
		if err == nil {
			err = os.WriteFile(in(name), der, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	partial("delta.crl", pkix.Extension{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{0x02, 0x01, 0x07}})
	partial("shard.crl", pkix.Extension{Id: []int{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0x03, 0x81, 0x01, 0xff}})

	t.Run("refusals", func(t *testing.T) {
		follow := func(change ...string) error {
			text := strings.NewReplacer(append(change, "output: later", "output: third")...).Replace(text)
			return Rehearse(t.Context(), plan(t, dir, text), ceremonyTime, rand.Reader)
		}
		for name, c := range map[string]struct {
			change []string
			want   string
		}{
			"number too low":          {[]string{"    validity: 90d", "    validity: 90d\n    number: \"7\""}, "is not above that of the CRL before"},
			"revoked already":         {[]string{"out/root-r.crl", "later/root-r.crl"}, "is on the CRL before"},
			"another's CRL":           {[]string{"out/root-r.crl", "out/offline-r.crl"}, "the CRL before"},
			"a delta CRL":             {[]string{"out/root-r.crl", "out/delta.crl"}, "is not complete"},
			"a CRL of one scope":      {[]string{"out/root-r.crl", "out/shard.crl"}, "is not complete"},
			"not a certificate":       {[]string{"out/root-r.cer", "out/root-r.crl"}, "reading out/root-r.crl"},
			"revoked in the future":   {[]string{"10:00:00Z", "11:00:00Z"}, "in the future"},
			"beyond its issuer":       {[]string{"validity: 90d", "validity: 30y"}, "reach beyond"},
			"a file that isn't there": {[]string{"out/root-r.crl", "out/none.crl"}, "no such file"},
		} {
			if err := follow(c.change...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
		}
		wrongKey := strings.NewReplacer("label: root-r", "label: offline-r", "output: later", "output: fourth").Replace(text)
		wrongKey = strings.ReplaceAll(wrongKey, "out/root-r.crl", "later/root-r.crl")
		wrongKey = wrongKey[:strings.Index(wrongKey, "    revoked:")]
		if _, err := Run(t.Context(), plan(t, dir, wrongKey), Options{Token: token, Now: clock, Random: rand.Reader}); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("another's key: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "fourth")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a refusal left a directory: %v", err)
		}
	})
}

func parseList(t *testing.T, path string) *x509.RevocationList {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRefusalsLeaveNothing has plans refused by the policies, by the token and by people, and looks for keys and files afterwards.
func TestRefusalsLeaveNothing(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	for name, c := range map[string]struct {
		change  []string
		confirm error
		want    string
	}{
		"policy: weak key":   {[]string{"ecdsa-p256", "rsa-2048"}, nil, "rehearsing: authority issuing-1: refused by policy"},
		"policy: long root":  {[]string{"validity: 20y", "validity: 30y"}, nil, "25 years"},
		"policy: back-dated": {[]string{"validity: 20y", "not_before: 2026-01-01\n    not_after: 2046-01-01"}, nil, "48 hours"},
		"window: ended":      {[]string{"validity: 10y", "not_before: 2020-01-01\n    not_after: 2021-01-01"}, nil, "ended"},
		"window: outlives":   {[]string{"validity: 10y", "not_before: 2026-11-24\n    not_after: 2060-01-01"}, nil, "reaches beyond"},
		"people":             {nil, errors.New("this is another plan"), "not confirmed: this is another plan"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReplacer(c.change...).Replace(hierarchyPlan)
			asked := ""
			p := plan(t, dir, text)
			_, err := Run(t.Context(), p, Options{Token: token, Now: clock, Random: rand.Reader, Confirm: func(digest string) error {
				asked = digest
				return c.confirm
			}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if c.confirm != nil && asked != p.Digest() {
				t.Errorf("asked to confirm %q", asked)
			}
			if keys, err := token.Keys(); err != nil || len(keys) > 0 {
				t.Errorf("keys were left: %v, %v", keys, err)
			}
			if _, err := os.Stat(p.OutputDir()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a directory was left: %v", err)
			}
		})
	}
	if _, err := Run(t.Context(), Plan{}, Options{Token: token, Now: clock}); err == nil {
		t.Error("a plan that nobody read was performed")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(cancelled, plan(t, dir, hierarchyPlan), Options{Token: token, Now: clock}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadBundleRefusesWhatDoesNotAgree(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	result := run(t, token, plan(t, dir, hierarchyPlan))
	original := map[string][]byte{}
	entries, err := os.ReadDir(result.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if original[e.Name()], err = os.ReadFile(filepath.Join(result.Dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(name, from, to string) map[string][]byte {
		if !bytes.Contains(original[name], []byte(from)) {
			t.Fatalf("%s does not hold %q", name, from)
		}
		return map[string][]byte{name: bytes.Replace(original[name], []byte(from), []byte(to), 1)}
	}
	const issuing, root = "issuing-1.authority.json", "root-1.authority.json"
	for name, c := range map[string]struct {
		read    string
		changed map[string][]byte
	}{
		"unknown field":       {issuing, replace(issuing, `"online"`, `"extra": 1, "online"`)},
		"field twice":         {issuing, replace(issuing, `"online": true`, `"online": false, "online": true`)},
		"other letters":       {issuing, replace(issuing, `"online"`, `"Online"`)},
		"more than one value": {issuing, map[string][]byte{issuing: append(slices.Clone(original[issuing]), "{}"...)}},
		"a version to come":   {issuing, replace(issuing, `"v": 1`, `"v": 2`)},
		"another's name":      {issuing, replace(issuing, `"name": "issuing-1"`, `"name": "issuing-2"`)},
		"a path":              {issuing, replace(issuing, `"issuing-1.cer"`, `"../issuing-1.cer"`)},
		"no parent":           {issuing, replace(issuing, "  \"parent\": \"root-1\",\n", "")},
		"no token":            {issuing, replace(issuing, `"token": "`, `"token": "", "was": "`)},
		"no schedule":         {issuing, replace(issuing, `"period": "1d"`, `"period": "9d"`)},
		"not online":          {issuing, replace(issuing, `"online": true`, `"online": false`)},
		"another certificate": {issuing, map[string][]byte{"issuing-1.cer": original["root-1.cer"]}},
		"another chain":       {issuing, map[string][]byte{"issuing-1-chain.pem": original["root-1-chain.pem"]}},
		"chain without root":  {issuing, map[string][]byte{"issuing-1-chain.pem": original["issuing-1.pem"]}},
		"words in the chain":  {issuing, map[string][]byte{"issuing-1-chain.pem": append([]byte("hello\n"), original["issuing-1-chain.pem"]...)}},
		"no chain":            {issuing, map[string][]byte{"issuing-1-chain.pem": nil}},
		"not a CRL":           {root, map[string][]byte{"root-1.crl": original["root-1.cer"]}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range original {
				if other, ok := c.changed[file]; ok {
					data = other
				}
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if b, err := ReadBundle(filepath.Join(dir, c.read)); err == nil {
				t.Errorf("read %+v", b)
			}
		})
	}
	// What is only spaced otherwise is the same.
	var compact bytes.Buffer
	if err := json.Compact(&compact, original[issuing]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(result.Dir, issuing), compact.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBundle(filepath.Join(result.Dir, issuing)); err != nil {
		t.Errorf("a bundle in one line: %v", err)
	}
}

// TestACRLIsNoOlderThanItsAuthority has an offline authority begin after the ceremony, in which its CRL begins.
func TestACRLIsNoOlderThanItsAuthority(t *testing.T) {
	t.Parallel()
	const later = `
ceremony: later
output: out
authorities:
  - name: root
    key: {algorithm: ecdsa-p384, label: root}
    subject: {common_name: "Example Root"}
    not_before: BEGIN
    not_after: 2046-01-01
    crl: {validity: 180d}
`
	for begin, refused := range map[string]bool{"2026-11-24T10:30:15Z": false, "2026-11-24T10:30:16Z": true} {
		p, err := ParsePlan("plan.yaml", []byte(strings.Replace(later, "BEGIN", begin, 1)))
		if err != nil {
			t.Fatal(err)
		}
		err = Rehearse(t.Context(), p, ceremonyTime.Add(time.Millisecond), rand.Reader)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "authority root: its CRL would be older than it") {
			t.Errorf("%s: %v", begin, err)
		}
	}
}
