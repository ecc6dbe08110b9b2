package storage_test

import (
	"context"
	"testing"

	"github.com/chancery-ca/chancery/audit"
)

// BenchmarkLeaves writes lots of leaves as an issuance under load does, with the trigger that hands them to the sequencer and without it:
// the difference is what the log costs on the issuing path.
func BenchmarkLeaves(b *testing.B) {
	for _, triggered := range []bool{true, false} {
		name := "sequenced"
		if !triggered {
			name = "written alone"
		}
		b.Run(name, func(b *testing.B) {
			f := setUp(b)
			if !triggered {
				f.exec(`ALTER TABLE audit_leaves DISABLE TRIGGER leaves_are_sequenced`)
			}
			for b.Loop() {
				var leaves []audit.Leaf
				for range 40 {
					leaves = append(leaves, leaf(b, audit.CertificateIssued))
				}
				if err := f.RecordEvents(context.Background(), leaves...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPlaces gives places to leaves that wait already, in lots as issuances under load write them: what the sequencing of one leaf
// costs.
func BenchmarkPlaces(b *testing.B) {
	f := setUp(b)
	s := f.sequencer(alpha)
	const lot, most = 40, 4096
	for b.Loop() {
		b.StopTimer()
		for range most / lot {
			f.write(lot)
		}
		b.StartTimer()
		n, err := s.round(most)
		if err != nil {
			b.Fatal(err)
		}
		if n != most/lot*lot {
			b.Fatalf("%d leaves got places", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*(most/lot*lot)), "us/leaf")
}
