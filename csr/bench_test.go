package csr_test

import (
	"encoding/pem"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// measured are the requests that are worth a figure: the ordinary ones, and the dearest ones that are read at all.
var measured = []string{"p256", "usual-extensions", "p384", "rsa2048", "ed25519", "1000-names", "rsa-16384", "rsa-131072"}

func eachMeasured(b *testing.B, f func(b *testing.B, c csrtest.Case)) {
	b.Helper()
	for _, name := range measured {
		for _, c := range append(csrtest.Benign(), csrtest.Hostile()...) {
			if c.Name == name {
				b.Run(name, func(b *testing.B) { f(b, c) })
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	eachMeasured(b, func(b *testing.B, c csrtest.Case) {
		b.ReportAllocs()
		b.SetBytes(int64(len(c.DER)))
		for b.Loop() {
			if _, err := csr.Parse(c.DER); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParsePEM(b *testing.B) {
	eachMeasured(b, func(b *testing.B, c csrtest.Case) {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: c.DER})
		b.ReportAllocs()
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := csr.ParsePEM(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	eachMeasured(b, func(b *testing.B, c csrtest.Case) {
		r, err := csr.Parse(c.DER)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := r.VerifySignature(); (err == nil) != (c.Verify == "") {
				b.Fatal(err)
			}
		}
	})
}
