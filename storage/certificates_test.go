package storage_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

func TestACertificateIsReadAsItWasRecorded(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	f.wantCounts("certificates", 1, "intents", 0, "audit_leaves", 2)
	want := c
	want.Owner = ca.Replica{} // it served its purpose
	for _, issuer := range []string{"", "issuing-1"} {
		for _, namespace := range []string{"web", access.AllNamespaces} {
			found, err := f.Certificates(ctx, issuer, c.Serial[:], namespace)
			if err != nil || len(found) != 1 {
				t.Fatalf("issuer %q, namespace %q: %d certificates, %v", issuer, namespace, len(found), err)
			}
			if !reflect.DeepEqual(found[0].NewCertificate, want) || found[0].Orphan || found[0].Revocation != nil {
				t.Errorf("read %+v\nwant %+v", found[0], want)
			}
		}
	}
	for _, none := range []struct {
		issuer, namespace string
		serial            []byte
	}{{"", "mail", c.Serial[:]}, {"issuing-2", "web", c.Serial[:]}, {"", "web", []byte{1}}, {"", "web", nil}} {
		if found, err := f.Certificates(ctx, none.issuer, none.serial, none.namespace); err != nil || len(found) != 0 {
			t.Errorf("%+v: %d certificates, %v", none, len(found), err)
		}
	}
}

func TestACertificateMayBeRecordedAgain(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	if err := f.RecordCertificate(ctx, c, leafWithID(t, c.EventID, audit.CertificateIssued)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	other := c
	other.DER = []byte("another signature")
	if err := f.RecordCertificate(ctx, other); err == nil {
		t.Error("a second certificate with the serial was recorded")
	}
	f.wantCounts("certificates", 1, "audit_leaves", 2)
}

func TestListPagesNewestFirst(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	var want []issuance.Serial
	for n := range 7 {
		i := newIntent(t, alpha)
		i.Serial = newSerial(t, time.Now().Add(-time.Duration(n)*24*time.Hour*10)) // over more than one partition
		if err := f.RecordIntent(ctx, i); err != nil {
			t.Fatal(err)
		}
		want = append(want, f.finish(i).Serial)
	}
	var got []issuance.Serial
	filter := ca.Filter{Namespace: "web", Limit: 3, Now: time.Now()}
	for pages := 1; ; pages++ {
		page, err := f.List(ctx, filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Certificates {
			got = append(got, c.Serial)
		}
		if page.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
		filter.Cursor = page.Next
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed %v\nwant %v", got, want)
	}
}

// However few certificates a filter wants, a page ends: it may be empty and have a next one. All pages together are what one without bounds
// would be.
func TestListReachesOnlySoFar(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	var rare []issuance.Serial
	const all, reach = 17, 4
	for n := range all {
		i := newIntent(t, alpha)
		i.Serial = newSerial(t, time.Now().Add(-time.Duration(n)*24*time.Hour*5)) // over more than one partition
		if err := f.RecordIntent(ctx, i); err != nil {
			t.Fatal(err)
		}
		c := f.finish(i, func(c *ca.NewCertificate) {
			if n == 2 || n == 3 || n == 15 {
				c.Names = []string{"rare.example"}
			}
		})
		if n == 2 || n == 3 || n == 15 {
			rare = append(rare, c.Serial)
		}
	}
	f.SetListReach(reach)
	for _, limit := range []int{1, 2, 100} {
		var got []issuance.Serial
		pages, empty := 0, 0
		filter := ca.Filter{Namespace: "web", Query: "rare.example", Limit: limit, Now: time.Now()}
		for more := true; more; pages++ {
			page, err := f.List(ctx, filter)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page.Certificates {
				got = append(got, c.Serial)
			}
			if len(page.Certificates) == 0 && page.Next != "" {
				empty++
			}
			filter.Cursor, more = page.Next, page.Next != ""
		}
		if !reflect.DeepEqual(got, rare) || empty == 0 || pages > all/reach+1+len(rare) {
			t.Errorf("pages of %d: %d pages, %d of them empty, gave %v, want %v", limit, pages, empty, got, rare)
		}
	}
}

func TestListFilters(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	named := map[issuance.Serial]string{}
	add := func(name string, c ca.NewCertificate) ca.NewCertificate { named[c.Serial] = name; return c }
	add("valid", f.issue())
	add("expired", f.issue(func(c *ca.NewCertificate) { c.NotAfter = now().Add(-time.Hour) }))
	f.revoke(add("revoked", f.issue()), issuance.Superseded, 0)
	held := add("held", f.issue(func(c *ca.NewCertificate) { c.Profile = "tls-client" }))
	f.revoke(held, issuance.CertificateHold, 0)
	released := add("released", f.issue(func(c *ca.NewCertificate) { c.Namespace = "mail"; c.Subject = "O=Größe" }))
	f.revoke(released, issuance.CertificateHold, 0)
	f.revoke(released, issuance.RemoveFromCRL, 1)
	add("percent", f.issue(func(c *ca.NewCertificate) { c.Names, c.Subject = []string{"100%.example"}, "" }))
	orphan := f.intend()
	named[orphan.Serial] = "orphan"
	if err := f.SettleIntent(ctx, alpha, ca.Settlement{
		Issuer: orphan.Issuer, Serial: orphan.Serial, Kind: orphan.Kind, At: now(),
		EventID: newID(),
	}); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		filter ca.Filter
		want   string
	}{
		{ca.Filter{Namespace: "*"}, "percent released held revoked expired valid"},
		{ca.Filter{Namespace: "web"}, "percent held revoked expired valid"},
		{ca.Filter{Namespace: "nobody"}, ""},
		{ca.Filter{Namespace: "*", Status: "valid"}, "percent released valid"},
		{ca.Filter{Namespace: "*", Status: "expired"}, "expired"},
		{ca.Filter{Namespace: "*", Status: "revoked"}, "orphan revoked"},
		{ca.Filter{Namespace: "*", Status: "on-hold"}, "held"},
		{ca.Filter{Namespace: "*", Profile: "tls-client"}, "held"},
		{ca.Filter{Namespace: "*", Issuer: "issuing-2"}, ""},
		{ca.Filter{Namespace: "*", Query: "WWW.EXAMPLE"}, "released held revoked expired valid"},
		{ca.Filter{Namespace: "*", Query: "größe"}, "released"},
		{ca.Filter{Namespace: "*", Query: "GRÖSSE"}, ""},
		{ca.Filter{Namespace: "*", Query: "100%"}, "percent"},
		{ca.Filter{Namespace: "*", Query: "%"}, "percent"},
		{ca.Filter{Namespace: "*", Query: "' OR true --"}, ""},
		{ca.Filter{Namespace: "*", ExpiresBefore: now()}, "expired"},
		{ca.Filter{
			Namespace: "web", Status: "valid", Query: "192.0.2.1", Profile: "tls-server", Issuer: "issuing-1",
			ExpiresBefore: now().Add(48 * time.Hour),
		}, "valid"},
	} {
		tt.filter.Limit, tt.filter.Now = 100, time.Now()
		page, err := f.List(ctx, tt.filter)
		if err != nil {
			t.Errorf("%+v: %v", tt.filter, err)
			continue
		}
		var got []string
		for _, c := range page.Certificates {
			got = append(got, named[c.Serial])
			if s := tt.filter.Status; s != "" && c.Status(tt.filter.Now) != s {
				t.Errorf("%+v lists one that is %s", tt.filter, c.Status(tt.filter.Now))
			}
		}
		// Serials of one millisecond have no order of their own, so the sets are compared.
		if !sameWords(got, strings.Fields(tt.want)) {
			t.Errorf("%+v lists %v, want %s", tt.filter, got, tt.want)
		}
	}
}

func sameWords(a, b []string) bool {
	count := map[string]int{}
	for _, w := range a {
		count[w]++
	}
	for _, w := range b {
		count[w]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestALookUpTouchesOnePartition(t *testing.T) {
	f := setUp(t)
	c := f.issue()
	conn := connect(t, f.db.OwnerURL)
	if _, err := conn.Exec(context.Background(), `SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan`); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(context.Background(), fmt.Sprintf(`EXPLAIN (ANALYZE, COSTS OFF) SELECT der FROM issued WHERE serial = '\x%s' AND issuer = 'issuing-1'`, c.Serial))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	touched := strings.Count(plan, "certificates_2")
	if name := "certificates_" + c.Serial.Time().Format("2006_01"); !strings.Contains(plan, name+"_pkey") || touched != 2 { // the index, and its table
		t.Errorf("the plan is\n%s", plan)
	}
}
