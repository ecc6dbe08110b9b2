package issuance

import (
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
)

// zlintDir is where zlint's source is.
func zlintDir(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/zmap/zlint/v3").Output()
	if err != nil {
		t.Fatalf("finding zlint: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// zlintCorpus are the certificates that zlint's own tests lint: good ones, and such as break each of its lints.
func zlintCorpus(t testing.TB) map[string]*zx509.Certificate {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(zlintDir(t), "testdata", "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	corpus := map[string]*zx509.Certificate{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(text); block != nil {
			if c, err := zx509.ParseCertificate(block.Bytes); err == nil {
				corpus[filepath.Base(path)] = c
			}
		}
	}
	return corpus
}

// TestQuickLintsSayTheSame holds every lint that is run another way against zlint's own, on zlint's corpus and on certificates of ours that
// were changed octet by octet.
func TestQuickLintsSayTheSame(t *testing.T) {
	registry := lint.GlobalRegistry()
	corpus := zlintCorpus(t)
	if len(corpus) < 1000 {
		t.Fatalf("zlint's corpus has %d certificates", len(corpus))
	}
	for name, der := range mutants(t) {
		if c, err := zx509.ParseCertificate(der); err == nil {
			corpus[name] = c
		}
	}
	// Parsers refuse a GeneralizedTime of which these two would complain.
	unreached := []string{"e_generalized_time_does_not_include_seconds", "e_generalized_time_includes_fraction_seconds"}
	// These name the extensions that are wrong in the order of a map, which is another each time.
	unordered := []string{"e_ext_cannot_be_empty_sequence", "e_ext_duplicate_extension"}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(timeForms)), slices.Sorted(maps.Keys(plain)), []string{badCharacter}) {
		own := registry.CertificateLints().ByName(name)
		if own == nil {
			t.Fatalf("zlint has no %s", name)
		}
		fast := quick(own)
		if fast == own {
			t.Errorf("%s is not run another way", name)
		}
		seen := map[lint.LintStatus]int{}
		for file, c := range corpus {
			want, got := own.Execute(c, registry.GetConfiguration()), fast.Execute(c, registry.GetConfiguration())
			if want.Status != got.Status || want.Details != got.Details && !slices.Contains(unordered, name) {
				t.Errorf("%s on %s: %v %q, zlint says %v %q", name, file, got.Status, got.Details, want.Status, want.Details)
			}
			seen[got.Status]++
		}
		if seen[lint.Pass] == 0 || seen[lint.Error] == 0 && !slices.Contains(unreached, name) {
			t.Errorf("%s was not seen to pass and to fail: %v", name, seen)
		}
	}
}

// TestOurCertificatesAreQuick tells that what we make takes the short way.
func TestOurCertificatesAreQuick(t *testing.T) {
	for _, subject := range []pkix.RDNSequence{{}, commonName("www.example.com")} {
		c, err := zx509.ParseCertificate(ourDraft(t, subject))
		if err != nil {
			t.Fatal(err)
		}
		if !hasPlainTimes(c) {
			t.Error("the validity of a certificate of ours is not seen to be plain")
		}
		for name, passes := range plain {
			if !passes(c) {
				t.Errorf("a certificate of ours is not seen to pass %s", name)
			}
		}
	}
}

// ourDraft is a certificate that we would sign; with a nil subject it has the template's.
func ourDraft(t testing.TB, subject pkix.RDNSequence) []byte {
	t.Helper()
	h := ecdsaHierarchy(t)
	template := leafTemplate(t, p256(t).Public())
	lints := publicLint
	if subject != nil {
		template.Subject, template.WriteSubjectKeyID, lints = subject, true, rfcLint // the Baseline Requirements want neither
	}
	p, err := h.issuing.prepare(template, linterOf(t, lints), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	draft, err := h.issuing.key.draft(p.tbs)
	if err != nil {
		t.Fatal(err)
	}
	return draft
}

// mutants are certificates of ours with each octet changed in a few ways.
func mutants(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for kind, subject := range map[string]pkix.RDNSequence{"ours": nil, "without a subject": {}, "with a common name": commonName("www.example.com")} {
		draft := ourDraft(t, subject)
		all[kind] = draft
		for i := range draft {
			for _, change := range []byte{0x01, 0x20, 0x80, 0xff} {
				changed := slices.Clone(draft)
				changed[i] ^= change
				all[fmt.Sprintf("%s, octet %d with %#x", kind, i, change)] = changed
			}
		}
	}
	return all
}
