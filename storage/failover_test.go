package storage_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// What was acknowledged by a server whose commits wait for a standby is on that standby, whenever the server dies.
func TestFailoverLosesNothing(t *testing.T) {
	primary := storagetest.NewServer(t, storagetest.Options{Durable: true})
	asked := storage.Config{URL: primary.URL, Standbys: 1}
	var unsafe *storage.UnsafeError
	if s, err := storage.Open(t.Context(), asked); err == nil {
		s.Close()
		t.Error("a server whose commits wait for no standby was accepted")
	} else if !errors.As(err, &unsafe) || unsafe.Setting != "synchronous_standby_names" {
		t.Errorf("without a standby: %v", err)
	}
	standby := primary.Standby(t)
	store, err := storage.Open(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	var mu sync.Mutex
	acknowledged := map[string]bool{}
	enough := make(chan struct{})
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for t.Context().Err() == nil {
				i := newIntent(t, alpha)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				err := store.RecordIntent(ctx, i, leaf(t, audit.CertificateIntended))
				cancel()
				if errors.Is(err, ca.ErrUnavailable) {
					return // the server is dead
				}
				if err != nil {
					t.Errorf("recording an intent: %v", err)
					return
				}
				mu.Lock()
				acknowledged[hex.EncodeToString(i.Serial[:])] = true
				if len(acknowledged) == 200 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
		t.Error("no 200 intents in half a minute")
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	standby.Promote(t)
	there := map[string]bool{}
	for _, serial := range standby.Column(t, `SELECT encode(serial, 'hex') FROM intents`) {
		there[serial] = true
	}
	for serial := range acknowledged {
		if !there[serial] {
			t.Errorf("%s was acknowledged, and the standby does not know it", serial)
		}
	}
	t.Logf("%d intents were acknowledged, %d are on the standby", len(acknowledged), len(there))
}

// withStandby is a store on a server whose commits wait for a standby.
func withStandby(t *testing.T) (primary, standby *storagetest.Server, f *fixture) {
	t.Helper()
	primary = storagetest.NewServer(t, storagetest.Options{Durable: true})
	standby = primary.Standby(t)
	store, err := storage.Open(t.Context(), storage.Config{URL: primary.URL, Standbys: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return primary, standby, &fixture{Store: store, t: t}
}

// While no standby has it, a commit is not acknowledged.
func TestNothingIsAcknowledgedWithoutItsStandby(t *testing.T) {
	_, standby, f := withStandby(t)
	store := f.Store
	f.intend()
	if err := standby.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := store.RecordIntent(ctx, newIntent(t, alpha), leaf(t, audit.CertificateIntended)); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("with its standby gone, an intent is answered with %v", err)
	}
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	f.intend()
}

// What is on no standby is not told to anybody who asked for it, though it can be read: its commit was cut off from waiting, and whoever made
// it was told that it is not known to be on record.
func TestNoPromiseIsReadWithoutItsStandby(t *testing.T) {
	primary, standby, f := withStandby(t)
	store := f.Store
	key := ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: random32()}
	before, i := f.issue(), f.intend(func(i *ca.Intent) { i.Idempotency = key })
	c, r := certificateOf(i), revocationOf(before, issuance.KeyCompromise)
	if err := standby.Kill(); err != nil {
		t.Fatal(err)
	}
	// Briefly, what is asked waits in vain.
	inVain := func(doing string, do func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := do(ctx); !errors.Is(err, ca.ErrUnavailable) {
			t.Errorf("with its standby gone, %s is answered with %v", doing, err)
		}
	}
	revoke := func(ctx context.Context) error {
		_, err := store.RecordRevocation(ctx, r, 0, leafWithID(t, r.EventID, audit.CertificateRevoked))
		return err
	}
	inVain("a revocation", revoke)
	inVain("a certificate", func(ctx context.Context) error {
		return store.RecordCertificate(ctx, c, leafWithID(t, c.EventID, audit.CertificateIssued))
	})
	admin, err := pgx.Connect(t.Context(), primary.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for rows := ""; rows != "1 2"; { // written here, when the server has been told to wait no more
		if _, err := admin.Exec(t.Context(), `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
			t.Fatal(err)
		}
		rows = strings.Join(primary.Column(t, `SELECT (SELECT count(*) FROM revocations) || ' ' || (SELECT count(*) FROM certificates)`), "")
	}
	latest, err := store.LatestRevocation(t.Context(), r.Issuer, r.Serial)
	if err != nil || latest.EventID != r.EventID {
		t.Errorf("the revocation is read as %+v, %v", latest, err)
	}
	promised := func(ctx context.Context) error {
		again, err := store.RevocationOnRecord(ctx, r.Issuer, r.Serial)
		if err == nil && again.EventID != r.EventID {
			t.Errorf("the revocation on record is %+v", again)
		}
		return err
	}
	replayed := func(ctx context.Context) error {
		replay, err := store.FindReplay(ctx, key)
		if err == nil && (replay == nil || replay.Open || replay.Certificate.Serial != c.Serial) {
			t.Errorf("the request is answered with %+v", replay)
		}
		return err
	}
	inVain("the revocation that was asked for", promised)
	inVain("the request that is repeated", replayed)
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	if err := promised(t.Context()); err != nil {
		t.Error(err)
	}
	if err := replayed(t.Context()); err != nil {
		t.Error(err)
	}
}
