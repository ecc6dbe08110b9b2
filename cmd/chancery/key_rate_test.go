package main

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestAKeysRateLeavesNoIntents: more requests than the keeper signs in a second are told to come again, before anything is recorded. Were
// they told afterwards, each would leave a serial number that is revoked as possibly signed.
func TestAKeysRateLeavesNoIntents(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	policy, err := os.ReadFile(k.path("keys.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.path("keys.yaml"), append(policy, "    per_second: 5\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	k.kill()
	k.start()
	r := s.start("hurried", "")
	var issued, later atomic.Int64
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 4 {
				_, got, err := r.issue(context.WithoutCancel(t.Context()), "hurried.dev.example", nil)
				switch {
				case err != nil:
					t.Error(err)
				case got.status == http.StatusCreated:
					issued.Add(1)
				case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
					later.Add(1)
				default:
					t.Errorf("%d %s", got.status, got.body)
				}
			}
		})
	}
	callers.Wait()
	if issued.Load() < 4 || later.Load() == 0 { // the service has one of its own besides
		t.Errorf("%d were issued, %d were to come later", issued.Load(), later.Load())
	}
	if settled := r.metric(t, "chancery_intents_settled_total"); settled != 0 {
		t.Errorf("%v intents were settled as possibly signed", settled)
	}
	if limited := r.metric(t, `chancery_requests_limited_total{by="key"`); int64(limited) != later.Load() {
		t.Errorf("%v were counted, %d were told to come later", limited, later.Load())
	}
	r.stop()
	if strings.Contains(k.log.String(), "more signatures in a second") {
		t.Errorf("the keeper was asked for more:\n%s", k.log)
	}
}
