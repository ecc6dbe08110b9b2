package ceremony

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/strictyaml"
)

func TestPlanIsReadAsItIsWritten(t *testing.T) {
	p, err := ParsePlan("plans/first.yaml", []byte(hierarchyPlan))
	if err != nil {
		t.Fatal(err)
	}
	if p.OutputDir() != filepath.Join("plans", "out") || !p.Valid() {
		t.Errorf("output %s", p.OutputDir())
	}
	order := p.order()
	if len(order) != 2 || order[0].Name != "root-1" || order[1].Name != "issuing-1" {
		t.Fatalf("order %v", order)
	}
	root, issuing := order[0], order[1]
	if root.online() || !issuing.online() || *issuing.PathLen != 0 || len(issuing.policies) != 1 || len(issuing.usages) != 2 {
		t.Errorf("issuing %+v", issuing)
	}
	if len(issuing.permitted.IP) != 1 || issuing.permitted.IP[0].Bits() != 8 || len(issuing.excluded.DNS) != 1 {
		t.Errorf("constraints %+v, %+v", issuing.permitted, issuing.excluded)
	}
	notBefore, notAfter := root.window(ceremonyTime.Add(time.Millisecond))
	if !notBefore.Equal(ceremonyTime) || !notAfter.Equal(ceremonyTime.Add(20*365*24*time.Hour-time.Second)) {
		t.Errorf("window %s to %s", notBefore, notAfter)
	}
	if other, err := ParsePlan("x", []byte(hierarchyPlan+"\n")); err != nil || other.Digest() == p.Digest() {
		t.Errorf("another text has the same digest, or %v", err)
	}
}

func TestReadPlanNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if _, err := ReadPlan(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("ceremony: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPlan(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestPlansAreRefused(t *testing.T) {
	const (
		issuing = 0 // the authorities of hierarchyPlan, by their places
		root    = 1
	)
	at := func(i int, field string) string { return fmt.Sprintf("authorities[%d].%s", i, field) }
	replace := func(from, to string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, from) {
				t.Fatalf("the plan does not hold %q", from)
			}
			return strings.ReplaceAll(s, from, to)
		}
	}
	add := func(after, line string) func(string) string { return replace(after, after+"\n"+line) }
	for name, c := range map[string]struct {
		change func(string) string
		field  string
		want   string // of the message
	}{
		"unknown field":             {add("    path_len: 0", "    pathlen: 0"), "pathlen", "unknown field"},
		"no name":                   {replace("ceremony: first-hierarchy", "ceremony: First Hierarchy"), "ceremony", "malformed"},
		"no output":                 {replace("output: out\n", ""), "output", "missing"},
		"nothing to do":             {func(string) string { return "ceremony: a\noutput: b\n" }, "authorities", "nothing to do"},
		"authority without name":    {replace("- name: root-1", "- name: Root"), at(root, "name"), "malformed"},
		"authority called roots":    {replace("- name: root-1", "- name: roots"), at(root, "name"), "served"},
		"authority called a chain":  {replace("- name: root-1", "- name: issuing-1-chain"), at(root, "name"), "chain of another"},
		"duplicate name":            {replace("- name: root-1", "- name: issuing-1"), at(root, "name"), "already"},
		"duplicate label":           {replace("label: root-1", "label: issuing-1"), at(root, "key.label"), "already"},
		"duplicate id":              {replace("label: root-1", "label: root-1, id: \"0a0b0c\""), at(root, "key.id"), "already"},
		"duplicate subject":         {replace("Example Root CA 1", "Example Issuing CA 1"), at(root, "subject"), "already"},
		"duplicate URL":             {replace("/crl/root-1.crl", "/crl/issuing-1.crl"), at(root, "urls.crl"), "already"},
		"unknown issuer":            {replace("issuer: root-1\n", "issuer: root-2\n"), at(issuing, "issuer"), "no authority"},
		"own issuer":                {replace("issuer: root-1\n", "issuer: issuing-1\n"), at(issuing, "issuer"), "path_len 0"},
		"empty issuer":              {replace("issuer: root-1\n", "issuer:\n"), at(issuing, "issuer"), "empty"},
		"cycle":                     {add("- name: root-1", "    issuer: issuing-1\n    online: false"), at(root, "issuer"), "path_len 0"},
		"unknown algorithm":         {replace("ecdsa-p384", "ecdsa-p224"), at(root, "key.algorithm"), "unknown"},
		"no label":                  {replace("label: root-1", "label: \"\""), at(root, "key.label"), "missing"},
		"label with a tab":          {replace("label: root-1", `label: "a\tb"`), at(root, "key.label"), "malformed"},
		"id not hex":                {replace("0a0b0c", "0A0B0C"), at(issuing, "key.id"), "not a CKA_ID"},
		"no common name":            {replace(`common_name: "Example Root CA 1", `, ""), at(root, "subject.common_name"), "missing"},
		"bad country":               {replace(`country: "NL"`, `country: "nl"`), at(root, "subject.country"), "not a country"},
		"long common name":          {replace("Example Root CA 1", strings.Repeat("x", 65)), at(root, "subject.common_name"), "more than 64"},
		"control character":         {replace("Example Root CA 1", `a\u0000b`), at(root, "subject.common_name"), "cannot be seen"},
		"space at the end":          {replace("Example Root CA 1", "a "), at(root, "subject.common_name"), "spaces"},
		"no validity":               {replace("    validity: 20y\n", ""), at(root, "validity"), "missing"},
		"empty validity":            {replace("validity: 20y", "validity: 0s"), at(root, "validity"), "empty"},
		"validity twice":            {add("    validity: 20y", "    not_after: 2040-01-01"), at(root, "validity"), "twice"},
		"half a window":             {replace("validity: 20y", "not_before: 2026-01-01"), at(root, "not_after"), "not a moment"},
		"window upside down":        {replace("validity: 20y", "not_before: 2027-01-01\n    not_after: 2026-01-01"), at(root, "not_after"), "after not_before"},
		"child outlives parent":     {replace("validity: 10y", "validity: 21y"), at(issuing, "validity"), "outlive"},
		"path_len too large":        {replace("path_len: 0", "path_len: 1"), at(issuing, "path_len"), "has path_len 1"},
		"path_len missing":          {replace("    path_len: 0\n", ""), at(issuing, "path_len"), "needed"},
		"path_len negative":         {replace("path_len: 1", "path_len: -1"), at(root, "path_len"), "not negative"},
		"path_len empty":            {replace("path_len: 1", "path_len:"), at(root, "path_len"), "empty"},
		"https":                     {replace("http://pki.example.com/crl/root-1", "https://pki.example.com/crl/root-1"), at(root, "urls.crl"), "plain http"},
		"URL without host":          {replace("http://pki.example.com/crl/root-1", "http:///crl/root-1"), at(root, "urls.crl"), "host"},
		"URL with a password":       {replace("http://pki.example.com/crl/root-1", "http://a:b@pki.example.com/crl/root-1"), at(root, "urls.crl"), "host"},
		"URL with a space":          {replace("http://pki.example.com/crl/root-1", "http://pki.example.com/crl/root 1"), at(root, "urls.crl"), "malformed"},
		"empty URL":                 {replace(`crl: "http://pki.example.com/crl/root-1.crl"`, `crl: ""`), at(root, "urls.crl"), "empty"},
		"wildcard constraint":       {replace("dns: [example.com]", `dns: ["*.example.com"]`), at(issuing, "name_constraints.permitted.dns[0]"), "malformed"},
		"capital constraint":        {replace("dns: [example.com]", "dns: [Example.com]"), at(issuing, "name_constraints.permitted.dns[0]"), "malformed"},
		"empty constraint list":     {replace("dns: [example.com]", "dns: []"), at(issuing, "name_constraints.permitted.dns"), "permit all"},
		"null constraint list":      {replace("dns: [example.com]", "dns: "), at(issuing, "name_constraints.permitted.dns"), "the value is empty"},
		"constraint twice":          {replace("dns: [example.com]", "dns: [example.com, example.com]"), at(issuing, "name_constraints.permitted.dns[1]"), "twice"},
		"network with host bits":    {replace("10.0.0.0/8", "10.0.0.1/8"), at(issuing, "name_constraints.permitted.ip[0]"), "bits set"},
		"mapped network":            {replace("10.0.0.0/8", `"::ffff:10.0.0.0/104"`), at(issuing, "name_constraints.permitted.ip[0]"), "IPv6 clothes"},
		"address for a domain":      {replace("dns: [example.com]", "dns: [10.0.0.1]"), at(issuing, "name_constraints.permitted.dns[0]"), "malformed"},
		"empty constraints":         {replace("      excluded: {dns: [secret.example.com], ip: [\"fd00::/8\"]}\n", "      excluded: {}\n"), at(issuing, "name_constraints.excluded"), "nothing"},
		"null constraints":          {add("    validity: 20y", "    name_constraints:"), at(root, "name_constraints"), "empty"},
		"bad policy":                {replace(`["2.23.140.1.2.1"]`, `["2.23.0140"]`), at(issuing, "policies[0]"), "not an object identifier"},
		"policy twice":              {replace(`["2.23.140.1.2.1"]`, `["2.23.1", "2.23.1"]`), at(issuing, "policies[1]"), "twice"},
		"unknown usage":             {replace("[serverAuth, clientAuth]", "[serverauth]"), at(issuing, "ext_key_usage[0]"), "serverauth"},
		"no usage":                  {replace("[serverAuth, clientAuth]", "[]"), at(issuing, "ext_key_usage"), "empty"},
		"online without schedule":   {replace("    crl: {period: 24h, validity: 7d}\n", ""), at(issuing, "crl"), "schedule"},
		"schedule with a gap":       {replace("validity: 7d", "validity: 24h"), at(issuing, "crl.period"), "end before"},
		"schedule without period":   {replace("{period: 24h, validity: 7d}", "{validity: 7d}"), at(issuing, "crl.period"), "period"},
		"root with a period":        {replace("{validity: 180d}", "{period: 1d, validity: 180d}"), at(root, "crl.period"), "not periodically"},
		"CRL of nobody":             {replace("    crl: {validity: 180d}\n", ""), at(root, "crl"), "nobody makes"},
		"CRL outlives authority":    {replace("{validity: 180d}", "{validity: 21y}"), at(root, "crl.validity"), "outlive"},
		"CRL without length":        {replace("{validity: 180d}", "{}"), at(root, "crl.validity"), "missing"},
		"online that says nothing":  {add("    path_len: 1", "    online:"), at(root, "online"), "empty"},
		"number not decimal":        {withCRL(`number: "0x10"`), "crls[0].number", "not a CRL number"},
		"number with a zero":        {withCRL(`number: "010"`), "crls[0].number", "not a CRL number"},
		"number too large":          {withCRL(`number: "730750818665451459101842416358141509827966271488"`), "crls[0].number", "not a CRL number"},
		"no certificate":            {withCRL("certificate: \"\""), "crls[0].certificate", "missing"},
		"algorithm of a CRL's key":  {withCRL("key: {label: x, algorithm: ecdsa-p256}"), "crls[0].key.algorithm", "certificate says"},
		"no validity of a CRL":      {withCRL("validity: 0s"), "crls[0].validity", "empty"},
		"CRL that forgets":          {withCRL("first: false"), "crls[0].previous", "forgotten"},
		"first CRL after another":   {withCRL("previous: a.crl"), "crls[0].first", "none before"},
		"issuer without a file":     {withIssuer(`certificate: ""`), "issuers[0].certificate", "missing"},
		"issuer without a name":     {withIssuer("name: Root 9"), "issuers[0].name", "malformed"},
		"issuer with an algorithm":  {withIssuer("key: {label: x, algorithm: ecdsa-p256}"), "issuers[0].key.algorithm", "certificate says"},
		"issuer made here":          {withIssuer("name: root-1"), "issuers[0].name", "already"},
		"issuer with another's key": {withIssuer("key: {label: root-1}"), "issuers[0].key.label", "already"},
		"issuer with another's URL": {withIssuer(`urls: {crl: "http://pki.example.com/crl/root-1.crl"}`), "issuers[0].urls.crl", "already"},
		"issuer by https":           {withIssuer(`urls: {crl: "https://pki.example.com/crl/x.crl"}`), "issuers[0].urls.crl", "plain http"},
		"issuer without a CRL":      {withIssuer(`urls: {issuer: "http://pki.example.com/ca/root-9.cer"}`), "issuers[0].urls.crl", "would name no CRL"},
		"issuer's CRL is empty":     {withIssuer(`urls: {crl: ""}`), "issuers[0].urls.crl", "empty"},
		"issuer with and without":   {withIssuer("no_crl: true"), "issuers[0].no_crl", "names its CRL, or none"},
		"issuer of nothing":         {withIssuer("name: root-8"), "issuers[0].name", "certifies nothing"},
		"two keys of an issuer": {func(s string) string {
			return withIssuer("key: {label: root-9}")(withCRL("issuer: root-9")(s))
		}, "crls[0].key", "not that of the issuer"},
		"serial in capitals":        {withRevoked("serial: 0A"), "crls[0].revoked[0].serial", "not a serial"},
		"serial zero":               {withRevoked(`serial: "00"`), "crls[0].revoked[0].serial", "not a serial"},
		"serial with leading zeros": {withRevoked(`serial: "000a"`), "crls[0].revoked[0].serial", "not a serial"},
		"serial too long":           {withRevoked("serial: " + strings.Repeat("0a", 21)), "crls[0].revoked[0].serial", "not a serial"},
		"hold":                      {withRevoked("reason: certificateHold"), "crls[0].revoked[0].reason", "not a reason"},
		"no reason":                 {withRevoked("reason: unspecified"), "crls[0].revoked[0].reason", "not a reason"},
		"no moment":                 {withRevoked("at: yesterday"), "crls[0].revoked[0].at", "not a moment"},
		"serial twice":              {withRevoked("serial: 0b"), "crls[0].revoked[1].serial", "already"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePlan("plan.yaml", []byte(c.change(hierarchyPlan)))
			var refusal *strictyaml.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v", err)
			}
			if !slices.ContainsFunc(refusal.Problems, func(p strictyaml.Problem) bool {
				return p.Field == c.field && strings.Contains(p.Message, c.want) && p.Line > 0
			}) {
				t.Errorf("%s is not refused with %q:\n%v", c.field, c.want, err)
			}
		})
	}
}

// withCRL adds a CRL with one field changed.
func withCRL(field string) func(string) string {
	return func(s string) string {
		lines := []string{"issuer: other", "certificate: a.cer", "key: {label: other}", "validity: 90d", "first: true"}
		key, _, _ := strings.Cut(field, ":")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, key+":") })
		return s + "crls:\n  - " + strings.Join(append(lines, field), "\n    ") + "\n"
	}
}

// withIssuer has another authority of the plan certified by one of an earlier ceremony, with one field of that changed.
func withIssuer(field string) func(string) string {
	return func(s string) string {
		lines := []string{"name: root-9", "certificate: a.cer", "key: {label: root-9}", `urls: {crl: "http://pki.example.com/crl/root-9.crl"}`}
		key, _, _ := strings.Cut(field, ":")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, key+":") })
		further := "  - {name: offline-9, issuer: root-9, online: false, validity: 1y, key: {algorithm: ecdsa-p256, label: offline-9}, " +
			"subject: {common_name: Offline 9}}\n"
		s, crls, _ := strings.Cut(s, "crls:")
		if crls != "" {
			crls = "crls:" + crls
		}
		return s + further + crls + "issuers:\n  - " + strings.Join(append(lines, field), "\n    ") + "\n"
	}
}

// withRevoked adds a CRL with a revoked certificate of which one field is changed.
func withRevoked(field string) func(string) string {
	values := map[string]string{"serial": "0a", "reason": "cACompromise", "at": "2026-01-01"}
	key, value, _ := strings.Cut(field, ": ")
	values[key] = value
	return withCRL(fmt.Sprintf("revoked:\n      - {serial: %s, reason: %s, at: %s}\n      - {serial: 0b, reason: superseded, at: 2026-01-01}",
		values["serial"], values["reason"], values["at"]))
}

func TestThatTheAddedCRLsAreRightOtherwise(t *testing.T) {
	for _, change := range []func(string) string{
		withCRL("number: \"7\""), withRevoked("serial: 0c"), withIssuer("certificate: b.pem"),
		func(s string) string {
			return strings.Replace(withIssuer("urls: {}")(s), "urls: {}", "no_crl: true", 1)
		},
	} {
		if _, err := ParsePlan("plan.yaml", []byte(change(hierarchyPlan))); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryProblemIsToldAtOnce(t *testing.T) {
	text := strings.NewReplacer("ecdsa-p384", "dsa", `country: "NL"`, `country: "Holland"`, "path_len: 0", "path_len: 5", "output: out", "output: \"\"").Replace(hierarchyPlan)
	_, err := ParsePlan("plan.yaml", []byte(text))
	var refusal *strictyaml.Error
	if !errors.As(err, &refusal) || len(refusal.Problems) != 5 {
		t.Errorf("got %v", err)
	}
}

func TestCyclesAreRefused(t *testing.T) {
	text := strings.NewReplacer("    path_len: 1\n", "", "    path_len: 0\n", "", "- name: root-1", "- name: root-1\n    issuer: issuing-1\n    online: false",
		"validity: 20y", "validity: 10y").Replace(hierarchyPlan)
	_, err := ParsePlan("plan.yaml", []byte(text))
	if err == nil || strings.Count(err.Error(), "is below itself") != 2 {
		t.Errorf("got %v", err)
	}
}

// TestOrder draws hierarchies, with cycles among them: issuers come first, and what is in a cycle does not come at all.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		var p Plan
		for i := range n {
			a := Authority{Name: fmt.Sprint(i)}
			if issuer := rapid.IntRange(-1, n-1).Draw(t, "issuer"); issuer >= 0 {
				a.Issuer = fmt.Sprint(issuer)
			}
			p.Authorities = append(p.Authorities, a)
		}
		byName := map[string]Authority{}
		for _, a := range p.Authorities {
			byName[a.Name] = a
		}
		rooted := func(a Authority) bool {
			for range n {
				if a.root() {
					return true
				}
				a = byName[a.Issuer]
			}
			return a.root()
		}
		done := map[string]bool{}
		for _, a := range p.order() {
			if done[a.Name] || !a.root() && !done[a.Issuer] {
				t.Fatalf("%s comes twice, or before its issuer", a.Name)
			}
			done[a.Name] = true
		}
		for _, a := range p.Authorities {
			if done[a.Name] != rooted(a) {
				t.Fatalf("%s: done %t, rooted %t", a.Name, done[a.Name], rooted(a))
			}
		}
	})
}

func TestParseMoment(t *testing.T) {
	for in, want := range map[string]time.Time{
		"2027-01-31":                time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T08:00:00Z":      time.Date(2027, 1, 31, 8, 0, 0, 0, time.UTC),
		"2027-01-31T08:00:00+02:00": time.Date(2027, 1, 31, 6, 0, 0, 0, time.UTC),
	} {
		if got, err := parseMoment(in); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "2027", "2027-02-30", "2027-01-31 08:00:00", "2027-01-31T08:00:00.5Z", "1800-01-01"} {
		if got, err := parseMoment(bad); err == nil {
			t.Errorf("%q was read as %s", bad, got)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte(hierarchyPlan))
	f.Add([]byte(rsaPlan))
	f.Add([]byte(strings.ReplaceAll(renewalPlan, "SERIAL", "0a")))
	f.Add([]byte(withRevoked("serial: 0c")(hierarchyPlan)))
	f.Add([]byte(withIssuer("certificate: b.pem")(hierarchyPlan)))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePlan("plan.yaml", text)
		if err != nil {
			var refusal *strictyaml.Error
			if !errors.As(err, &refusal) || len(refusal.Problems) == 0 {
				t.Fatalf("a refusal without a problem: %v", err)
			}
			return
		}
		if len(p.order()) != len(p.Authorities) || !p.Valid() {
			t.Fatal("a plan with authorities that cannot be made was accepted")
		}
		for _, a := range p.Authorities {
			if strings.ContainsAny(a.Name, "/.\\") || a.online() && (a.CRL == nil || a.CRL.Period >= a.CRL.Validity) {
				t.Fatalf("accepted %+v", a)
			}
		}
		_ = p.fits(ceremonyTime)
	})
}

// TestAuthoritiesStayWithinThoseAbove rehearses authorities that would have what one above them has not: nobody who checks a chain would take
// what they certify for it, and their certificates last for years. The parent alone may say nothing about it.
func TestAuthoritiesStayWithinThoseAbove(t *testing.T) {
	t.Parallel()
	const deep = `
ceremony: deep
output: out
authorities:
  - name: root
    key: {algorithm: ecdsa-p384, label: root}
    subject: {common_name: "Example Root"}
    validity: 20y
  - name: policy
    issuer: root
    online: false
    key: {algorithm: ecdsa-p384, label: policy}
    subject: {common_name: "Example Policy"}
    validity: 15y
    ext_key_usage: [serverAuth]
    name_constraints: {permitted: {dns: [example.com]}}
    policies: ["1.3.6.1.4.1.32473.1"]
  - name: between
    issuer: policy
    online: false
    key: {algorithm: ecdsa-p384, label: between}
    subject: {common_name: "Example Between"}
    validity: 10y
  - name: issuing
    issuer: between
    key: {algorithm: ecdsa-p256, label: issuing}
    subject: {common_name: "Example Issuing"}
    validity: 5y
    ext_key_usage: [serverAuth]
    name_constraints: {permitted: {dns: [www.example.com]}}
    policies: ["1.3.6.1.4.1.32473.1"] # lowest
    crl: {period: 12h, validity: 3d}
`
	const lowest = "\n    name_constraints: {permitted: {dns: [www"
	dir := t.TempDir()
	for name, c := range map[string]struct{ old, changed, want string }{
		"as it should be":           {"", "", ""},
		"another purpose":           {"[serverAuth]" + lowest, "[clientAuth]" + lowest, "clientAuth lies outside"},
		"another policy":            {`1"] # lowest`, `2"]`, "and below it is worth nothing"},
		"other names":               {"www.example.com", "www.example.org", "is not permitted to the parent"},
		"the root's name":           {`"Example Issuing"`, `"EXAMPLE ROOT"`, "is that of authorities[0].subject already"},
		"the name of one at a side": {`"Example Between"`, `"EXAMPLE Issuing"`, "is that of authorities[2].subject already"},
	} {
		path := filepath.Join(dir, "deep.yaml")
		p, err := ParsePlan(path, []byte(strings.Replace(deep, c.old, c.changed, 1)))
		if err == nil {
			err = Rehearse(t.Context(), p, ceremonyTime, rand.Reader)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
