package storage_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// BenchmarkIssue writes an intent and its certificate, the two commits of an issuance, to a server that syncs. With a quota, each of them
// counts in the same one.
func BenchmarkIssue(b *testing.B) {
	server := storagetest.NewServer(b, storagetest.Options{Durable: true})
	for name, reserved := range map[string][]policies.Reservation{"free": nil, "quota": {quota("web", 1_000_000_000, 24*time.Hour)}} {
		for _, clients := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				s, err := storage.Open(context.Background(), storage.Config{URL: server.URL, MaxConns: clients})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				benchmarkIssue(b, s, clients, reserved)
			})
		}
	}
}

func benchmarkIssue(b *testing.B, s *storage.Store, clients int, reserved []policies.Reservation) {
	b.ResetTimer()
	issueMany(b, s, clients, b.N, reserved...)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}

// issueMany has clients write n intents and their certificates between them.
func issueMany(b *testing.B, s *storage.Store, clients, n int, reserved ...policies.Reservation) {
	ctx := context.Background()
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan error, clients)
	for range clients {
		go func() {
			for left.Add(-1) >= 0 {
				i := newIntent(b, alpha)
				i.TBS, i.Reservations = make([]byte, 900), reserved
				if err := s.RecordIntent(ctx, i, leaf(b, audit.CertificateIntended)); err != nil {
					done <- err
					return
				}
				c := certificateOf(i)
				if err := s.RecordCertificate(ctx, c, leafWithID(b, c.EventID, audit.CertificateIssued), leaf(b, audit.KeySigned)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkLookUp reads one certificate by serial.
func BenchmarkLookUp(b *testing.B) {
	f := setUp(b)
	c := f.issue()
	for b.Loop() {
		if found, err := f.Certificates(context.Background(), c.Issuer, c.Serial[:], "web"); err != nil || len(found) != 1 {
			b.Fatal(len(found), err)
		}
	}
}
