package issuance

import (
	"fmt"
	"math/big"
	"testing"
	"time"

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

func BenchmarkCRL(b *testing.B) {
	h := ecdsaHierarchy(b)
	for _, n := range []int{1_000, 100_000} {
		c := CRLContents{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour), Entries: manyEntries(n)}
		b.Run(fmt.Sprintf("Prepare/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.issuing.PrepareCRL(c); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("PrepareAndSign/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prepared, err := h.issuing.PrepareCRL(c)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := h.issuing.SignCRL(b.Context(), prepared, nothing); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
