package policies

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

// TestLoadSurvivesBombs holds that files made to exhaust who reads them are refused at once, with their place.
func TestLoadSurvivesBombs(t *testing.T) {
	laughs := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		before := string(c - 1)
		laughs += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+before+",", 10), ",") + "]\n"
	}
	for name, text := range map[string]string{
		"a billion laughs": laughs + plain,
		"deep lists":       plain + "rules: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n",
		"deep mappings":    plain + "drop: " + strings.Repeat("{a: ", 5000) + "b" + strings.Repeat("}", 5000) + "\n",
		"itself":           strings.Replace(plain, "names:", "names: &n\n  excluded: *n", 1),
		"a long key":       plain + strings.Repeat("k", 200_000) + ": 1\n",
		"many keys":        plain + strings.Repeat("k: 1\n", 40_000),
		"many documents":   plain + strings.Repeat("---\n", 50_000),
	} {
		began := time.Now()
		_, err := Load(file("plain.yaml", text))
		var failed *LoadError
		if !errors.As(err, &failed) || failed.Problems[0].File != "plain.yaml" || failed.Problems[0].Line == 0 {
			t.Errorf("%s: got %.300v", name, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
}

// TestNoProfileIssuesAnAuthority holds that every way in which a profile could come to issue CA:TRUE is refused when it is loaded.
func TestNoProfileIssuesAnAuthority(t *testing.T) {
	for name, c := range map[string]struct{ old, new, field string }{
		"a field for it":            {"lint:", "ca: true\nlint:", "ca"},
		"basic constraints":         {"lint:", "basic_constraints: {ca: true}\nlint:", "basic_constraints"},
		"keyCertSign":               {"[digitalSignature]", "[keyCertSign]", "keys.ecdsa.key_usage[0]"},
		"cRLSign":                   {"[digitalSignature]", "[digitalSignature, cRLSign]", "keys.ecdsa.key_usage[1]"},
		"looking away":              {"lint:", "drop: {extensions: [2.5.29.19]}\nlint:", "drop.extensions[0]"},
		"looking away by name":      {"lint:", "drop: {extensions: [basicConstraints]}\nlint:", "drop.extensions[0]"},
		"away from its constraints": {"lint:", "drop: {extensions: [2.5.29.30]}\nlint:", "drop.extensions[0]"},
		"every purpose":             {"[serverAuth]", "[2.5.29.37.0]", "ext_key_usage"},
	} {
		_, err := Load(file("plain.yaml", strings.Replace(plain, c.old, c.new, 1)))
		var failed *LoadError
		if !errors.As(err, &failed) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		if p := failed.Problems[0]; p.Field != c.field || p.Line == 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPatternsAreBounded holds that a pattern which would unfold without end is refused, and that those which make other matchers
// backtrack cost next to nothing.
func TestPatternsAreBounded(t *testing.T) {
	for _, source := range []string{
		strings.Repeat("a", maxPattern+1), `(a{1,1000}){1,1000}`, `((a{90}){90}){90}`, `(?:.{1,500}){4}`, `(a)\1`, `(?=a)b`, `(?<!a)b`, `a**`, `[`, `\C`,
	} {
		_, err := Load(file("plain.yaml", strings.Replace(plain, "  dns: {}", "  dns: {pattern: '"+source+"'}", 1)))
		var failed *LoadError
		if !errors.As(err, &failed) || failed.Problems[0].Field != "names.dns.pattern" || failed.Problems[0].Line != 13 {
			t.Errorf("%.40s: got %.300v", source, err)
		}
	}
	r := benign(t)
	r.Profile = "plain"
	r.Namespace.DNS = []string{"*"}
	label := strings.Repeat("a", maxLabel)
	with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{label + "." + label + "." + label + ".b"} })(t, &r)
	for _, source := range []string{`(a+)+x`, `(a|aa)+x`, `(.*)*x`, `([a-z]+)*[0-9]`, `(a|a)*x`} {
		set := changed(t, "  dns: {}", "  dns: {pattern: '"+source+"'}")
		began := time.Now()
		if got := refusing(set.Decide(r)); len(got) != 1 || got[0] != "names.pattern" {
			t.Errorf("%s: refused by %v", source, got)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %s", source, took)
		}
	}
}

// TestContradictionsAreRefused holds that a profile whose parts exclude each other is not loaded.
func TestContradictionsAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, field string }{
		"public names that are internal": {"  dns: {}", "  dns: {public: true}\n  permitted: {dns: [team.internal]}", "names.permitted.dns[0]"},
		"a rule that nothing satisfies":  {"lint:", "rules: [{id: a, message: m, hint: h, expression: '1 > 2'}]\nlint:", "rules[0].expression"},
		"a rule that cannot be told":     {"lint:", "rules: [{id: a, message: m, hint: h, expression: '1 / 0 == 1'}]\nlint:", "rules[0].expression"},
		"approval that no rule asks for": {"lint:", "approval: {count: 1, when: rules}\nlint:", "approval.when"},
		"a standard that it breaks":      {"lint:", "standards: [cabf-br]\nlint:", "names.dns.public"},
	} {
		_, err := Load(file("plain.yaml", strings.Replace(plain, c.old, c.new, 1)))
		var failed *LoadError
		found := false
		if errors.As(err, &failed) {
			for _, p := range failed.Problems {
				found = found || p.Field == c.field && p.Line > 0 && p.File == "plain.yaml"
			}
		}
		if !found {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
