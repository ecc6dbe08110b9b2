package storage_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

func TestAuthorities(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	second := f.addAuthority("issuing-2")
	first := f.addAuthority("issuing-1")
	all, err := f.Authorities(ctx)
	if err != nil || !reflect.DeepEqual(all, []ca.AuthorityRecord{first, second}) {
		t.Errorf("read %+v, %v\nwant %+v", all, err, []ca.AuthorityRecord{first, second})
	}
	if err := f.RecordAuthority(ctx, first, leaf(t, audit.AuthorityAdded)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	otherName, otherCertificate := first, first
	otherName.Name = "issuing-3"
	otherCertificate.Certificate = []byte("another certificate")
	for _, taken := range []ca.AuthorityRecord{otherName, otherCertificate} {
		if err := f.RecordAuthority(ctx, taken); !errors.Is(err, ca.ErrExists) {
			t.Errorf("%s with %q: %v, want ErrExists", taken.Name, taken.Certificate, err)
		}
	}
	f.wantCounts("authorities", 2, "crl_scopes", 2, "audit_leaves", 2)
}

func TestAnAuthorityIsAddedOnceByMany(t *testing.T) {
	f := setUp(t)
	var wg sync.WaitGroup
	for range 8 {
		a, l := newAuthority("issuing-1"), leaf(t, audit.AuthorityAdded)
		wg.Go(func() {
			if err := f.RecordAuthority(context.Background(), a, l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.wantCounts("authorities", 1, "crl_scopes", 1, "audit_leaves", 1)
}
