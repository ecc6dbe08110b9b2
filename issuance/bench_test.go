package issuance

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"syscall"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"

	"github.com/chancery-ca/chancery/policies"
)

func BenchmarkMarshalTBS(b *testing.B) {
	h := ecdsaHierarchy(b)
	tpl := leafTemplate(b, p256(b).Public())
	f := frame{ecdsaSHA256, newSerial(b), h.issuing.certificate.RawSubject, h.issuing.certificate.SubjectKeyId}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := marshalTBS(f, &tpl); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	h := ecdsaHierarchy(b)
	all := rootLint
	all.Except = append(all.Except[:1:1], publicLint.Except...)
	for name, selection := range map[string]policies.Lint{"RFC5280+CABF_BR": publicLint, "RFC5280+CABF_BR+Mozilla+Community": all} {
		linter := linterOf(b, selection)
		for kind, tpl := range map[string]policies.Template{
			"P-256": leafTemplate(b, p256(b).Public()), "RSA-2048": leafTemplate(b, rsaKey().Public()),
		} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				defer reportCPU(b)()
				serial := newSerial(b)
				for b.Loop() {
					if _, err := h.issuing.prepare(tpl, linter, serial, now); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSign(b *testing.B) {
	h := ecdsaHierarchy(b)
	linter := linterOf(b, publicLint)
	prepared, err := h.issuing.prepare(leafTemplate(b, p256(b).Public()), linter, newSerial(b), now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		again := &Prepared{issuer: prepared.issuer, serial: prepared.serial, tbs: prepared.tbs, digest: prepared.digest}
		if _, err := h.issuing.Sign(b.Context(), again, nothing); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCRL makes the next CRL after a hundred revocations, from entries that are kept, beside crypto/x509 doing so from its template.
// Both sign with a P-256 key in software.
func BenchmarkCRL(b *testing.B) {
	h := ecdsaHierarchy(b)
	for _, n := range sizes(1_000, 100_000, 1_000_000) {
		all := manyEntries(n)
		b.Run(fmt.Sprintf("kept/%d", n), func(b *testing.B) {
			kept := keep(b, all)
			b.ReportAllocs()
			defer reportCPU(b)()
			for turn := 0; b.Loop(); turn++ {
				changes := make([]RevokedEntry, 100)
				for i := range changes {
					changes[i] = RevokedEntry{all[(turn*7919+i*(n/100))%n], now.Add(time.Hour)}
				}
				if err := kept.Apply(now, changes); err != nil {
					b.Fatal(err)
				}
				c := CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Revoked: kept}
				prepared, err := h.issuing.PrepareCRL(c)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := h.issuing.SignCRL(b.Context(), prepared, nothing); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("x509/%d", n), func(b *testing.B) {
			template := standardTemplate(b, CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: all})
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if _, err := x509.CreateRevocationList(rand.Reader, template, h.issuing.Certificate(), h.issuingKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// sizes are those to measure, or the first alone where it is only to be seen that a benchmark runs.
func sizes(all ...int) []int {
	if testing.Short() {
		return all[:1]
	}
	return all
}

// reportCPU reports the processor's time for an operation, of all threads: on a machine that others use, the clock tells of them.
func reportCPU(b *testing.B) func() {
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	return func() { b.ReportMetric(float64(spent()-before)/float64(b.N)/1e6, "cpu-ms/op") }
}

func BenchmarkReadCRL(b *testing.B) {
	h := ecdsaHierarchy(b)
	prepared, err := h.issuing.PrepareCRL(CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Revoked: keep(b, manyEntries(slices.Max(sizes(1_000, 1_000_000))))})
	if err != nil {
		b.Fatal(err)
	}
	signed, err := h.issuing.SignCRL(b.Context(), prepared, nothing)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(signed.DER)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadCRL(signed.DER); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLint lints certificates of one shape, as issuance does, beside running every lint on each.
func BenchmarkLint(b *testing.B) {
	h := ecdsaHierarchy(b)
	linter := linterOf(b, publicLint)
	named := leafTemplate(b, p256(b).Public())
	named.Subject = commonName("www.example.com")
	for name, tpl := range map[string]policies.Template{"no subject": leafTemplate(b, p256(b).Public()), "common name": named} {
		tbs, err := marshalTBS(frame{ecdsaSHA256, newSerial(b), h.issuing.certificate.RawSubject, h.issuing.certificate.SubjectKeyId}, &tpl)
		if err != nil {
			b.Fatal(err)
		}
		draft, err := h.issuing.key.draft(tbs)
		if err != nil {
			b.Fatal(err)
		}
		parsed, err := zx509.ParseCertificate(draft)
		if err != nil {
			b.Fatal(err)
		}
		for way, find := range map[string]func(*zx509.Certificate) []Finding{
			"once a shape": linter.findAlone,
			"each":         func(c *zx509.Certificate) []Finding { return linter.run(nil, linter.lints, c) },
		} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				defer reportCPU(b)()
				for b.Loop() {
					find(parsed)
				}
			})
		}
	}
}

// BenchmarkReadDraft reads certificates of one shape for the lints, as issuance does, beside having zcrypto parse each.
func BenchmarkReadDraft(b *testing.B) {
	h := ecdsaHierarchy(b)
	linter := linterOf(b, publicLint)
	for name, subject := range map[string]pkix.RDNSequence{"no subject": nil, "common name": commonName("www.example.com")} {
		tpl := leafTemplate(b, p256(b).Public())
		tpl.Subject = subject
		draft := draftOf(b, h.issuing, tpl, marker{})
		_ = linter.check(draft)
		for way, parse := range map[string]func(*x509.Certificate) (*zx509.Certificate, error){
			"from a specimen": func(read *x509.Certificate) (c *zx509.Certificate, err error) {
				var room [1024]byte // as check has it
				c, _, err = linter.parse(room[:0], draft, varying(read))
				return c, err
			},
			"by zcrypto": func(*x509.Certificate) (*zx509.Certificate, error) { return zx509.ParseCertificate(draft) },
		} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				defer reportCPU(b)()
				for b.Loop() {
					read, err := x509.ParseCertificate(draft)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := parse(read); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
