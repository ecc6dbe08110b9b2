package audit

import (
	"strings"
	"testing"
)

// BenchmarkNew makes a leaf as large as that of a certificate.
func BenchmarkNew(b *testing.B) {
	e := sound()
	for _, field := range []string{"certificate_sha256", "kind", "not_after", "policy", "profile", "replica", "request"} {
		e.Data[field] = strings.Repeat("v", 40)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(e); err != nil {
			b.Fatal(err)
		}
	}
}
