package storage_test

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
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

// While no standby has it, a commit is not acknowledged.
func TestNothingIsAcknowledgedWithoutItsStandby(t *testing.T) {
	primary := storagetest.NewServer(t, storagetest.Options{Durable: true})
	standby := primary.Standby(t)
	store, err := storage.Open(t.Context(), storage.Config{URL: primary.URL, Standbys: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	f := &fixture{Store: store, t: t}
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
