package storage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage/postgres"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// What was acknowledged outlives a kill of the server; while it is away everything is unavailable, and afterwards all goes on by itself.
func TestAKilledServer(t *testing.T) {
	server := storagetest.NewServer(t, storagetest.Options{Durable: true})
	f := &fixture{Store: server.Store(t), t: t, db: &server.Database} // not Unsafe: the server passes every check
	ctx := context.Background()
	c := f.issue()
	open := f.intend()
	for name, outage := range map[string]func() error{
		"killed":              server.Kill,
		"stopped fast":        func() error { return server.Stop(postgres.Fast) },
		"stopped immediately": func() error { return server.Stop(postgres.Immediate) },
	} {
		if err := outage(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		calls := map[string]func() error{
			"RecordIntent":        func() error { return f.RecordIntent(ctx, newIntent(t, alpha)) },
			"RecordCertificate":   func() error { return f.RecordCertificate(ctx, certificateOf(open)) },
			"RecordEvents":        func() error { return f.RecordEvents(ctx, leaf(t, audit.ServiceStarted)) },
			"Certificates":        func() error { _, err := f.Certificates(ctx, "", c.Serial[:], "*"); return err },
			"ClaimExpiredIntents": func() error { _, err := f.ClaimExpiredIntents(ctx, alpha, lease, 1); return err },
			"Ping":                func() error { return f.Ping(ctx) },
		}
		for call, run := range calls {
			if err := run(); !errors.Is(err, ca.ErrUnavailable) {
				t.Errorf("%s, %s: %v, want ErrUnavailable", name, call, err)
			}
		}
		cancel()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		found, err := f.Certificates(context.Background(), "", c.Serial[:], access.AllNamespaces)
		if err != nil || len(found) != 1 {
			t.Errorf("%s, afterwards: %d certificates, %v", name, len(found), err)
		}
	}
	f.finish(open)
}

func TestAReadOnlyServerIsUnavailable(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	var name string
	if err := f.owner.QueryRow(ctx, `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	f.exec(`ALTER DATABASE ` + name + ` SET default_transaction_read_only = on`) // for connections to come
	s := f.db.Store(t)                                                           // its connections are read-only from the start; making partitions that exist writes nothing
	if err := s.Ping(ctx); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("Ping = %v, want ErrUnavailable", err)
	}
	if err := s.RecordEvents(ctx, leaf(t, audit.ServiceStarted)); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("RecordEvents = %v, want ErrUnavailable", err)
	}
	f.exec(`ALTER DATABASE ` + name + ` SET default_transaction_read_only = off`) // the failover is over
	if err := s.RecordEvents(ctx, leaf(t, audit.ServiceStarted)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A call that has to wait longer than its caller does ends with the caller.
func TestALockedRowIsWaitedForNoLongerThanTheCaller(t *testing.T) {
	f := setUp(t)
	f.addAuthority("issuing-1")
	since := at(t, f.Store)
	tx, err := f.owner.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), `SELECT FROM crl_scopes FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := f.ClaimCRL(ctx, ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: alpha, Lease: lease, Since: since}); !errors.Is(err, ca.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ClaimCRL = %v, want ErrUnavailable for a deadline", err)
	}
	if err := tx.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.claim("issuing-1")
}
