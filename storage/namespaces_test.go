package storage_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

func newNamespace(name string, version int) ca.NamespaceVersion {
	return ca.NamespaceVersion{
		Namespace: access.Namespace{
			Name: name, DNS: []string{name + ".example"}, IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Quotas: []access.Quota{{Certificates: 3, Per: time.Hour}},
			Rates:  []access.Rate{{Profile: "tls-server", Requests: 5, Per: time.Second}},
		},
		Version: version, Source: ca.SourceAPI, Actor: "operator", At: now(), EventID: newID(),
	}
}

func (f *fixture) setNamespace(v ca.NamespaceVersion) error {
	return f.RecordNamespace(context.Background(), v, leafWithID(f.t, v.EventID, audit.NamespaceChanged))
}

func TestNamespacesAreVersioned(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	first, second := newNamespace("web", 1), newNamespace("web", 2)
	second.Removed = true
	for _, v := range []ca.NamespaceVersion{first, newNamespace("api", 1), second} {
		if err := f.setNamespace(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, stale := range []int{0, 1, 2, 4} {
		if err := f.setNamespace(newNamespace("web", stale)); !errors.Is(err, ca.ErrFenced) && stale > 0 || err == nil {
			t.Errorf("version %d after 2: %v", stale, err)
		}
	}
	if err := f.setNamespace(second); err != nil {
		t.Errorf("the same again: %v", err)
	}
	n, err := f.NamespaceVersions(ctx)
	if err != nil || n != 3 {
		t.Errorf("%d versions, %v", n, err)
	}
	latest, err := f.Namespaces(ctx)
	if err != nil || len(latest) != 2 || latest[0].Name != "api" || latest[1].Version != 2 || !latest[1].Removed {
		t.Errorf("the latest are %+v, %v", latest, err)
	}
	history, err := f.NamespaceHistory(ctx, "web")
	if err != nil || len(history) != 2 || !reflect.DeepEqual(history[1], first) {
		t.Errorf("the history is %+v, %v; want %+v at its beginning", history, err, first)
	}
	f.wantCounts("namespaces", 3, "audit_leaves", 3)
}

// Of changes made at the same time one is the next version, and the others learn it.
func TestOneNamespaceChangeIsNext(t *testing.T) {
	f := setUp(t)
	outcomes := make([]error, 8)
	var writers sync.WaitGroup
	for i := range outcomes {
		v := newNamespace("web", 1)
		writers.Go(func() { outcomes[i] = f.setNamespace(v) })
	}
	writers.Wait()
	won := 0
	for _, err := range outcomes {
		if err == nil {
			won++
		} else if !errors.Is(err, ca.ErrFenced) {
			t.Errorf("got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of them are the next version", won)
	}
	f.wantCounts("namespaces", 1, "audit_leaves", 1)
}
