package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// tell records an event.
func (f *fixture) tell(id string, kind audit.Kind, actor, namespace string, data map[string]string) string {
	f.t.Helper()
	l, err := audit.New(audit.Event{ID: id, Kind: kind, Time: time.Now(), Actor: actor, Namespace: namespace, Data: data})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.RecordEvents(context.Background(), l); err != nil {
		f.t.Fatal(err)
	}
	return id
}

// found pages through what fits, and holds that no page has more than asked for and none comes twice.
func (f *fixture) found(filter ca.EventFilter) (ids []string) {
	f.t.Helper()
	filter.Limit = 2
	for pages := 0; ; pages++ {
		page, err := f.SearchEvents(context.Background(), filter)
		if err != nil || len(page.Events) > 2 || pages > 100 {
			f.t.Fatalf("page %d: %d events, %v", pages, len(page.Events), err)
		}
		for _, e := range page.Events {
			ids = append(ids, e.ID)
		}
		if page.Next == "" {
			return ids
		}
		filter.Cursor = page.Next
	}
}

func TestSearchEvents(t *testing.T) {
	f := setUp(t)
	f.exec("ALTER TABLE audit_leaves DISABLE TRIGGER facts_stay")
	c := f.issue()
	f.addAuthority(c.Issuer)
	r := f.revoke(c, issuance.KeyCompromise, 0)
	f.exec("DELETE FROM audit_leaves")
	serial := map[string]string{"serial": c.Serial.String(), "issuer": c.Issuer}
	intended := f.tell(newID(), audit.CertificateIntended, "t-1", "dev", serial)
	issued := f.tell(c.EventID, audit.CertificateIssued, "system", "dev", serial)
	started := f.tell(newID(), audit.ServiceStarted, "system", "", map[string]string{"version": `1 "x" \ Ä`})
	denied := f.tell(newID(), audit.AccessDenied, `t-"2"`, "dev", map[string]string{"action": "x", "id": `"actor":"t-1","data":{`})
	revoked := f.tell(r.EventID, audit.CertificateRevoked, "t-1", "ops", serial)
	f.sequence()
	waiting := f.tell(newID(), audit.ServiceStopped, "system", "", nil)

	if one, err := f.Event(t.Context(), waiting); err != nil || one.Kind != audit.ServiceStopped || one.Index != -1 {
		t.Errorf("an event without an index: %+v, %v", one, err)
	}
	for _, id := range []string{newID(), "none", ""} {
		if _, err := f.Event(t.Context(), id); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("the event %q: %v", id, err)
		}
	}

	// c and r got their identifiers first.
	byID := []string{intended, issued, started, denied, revoked, waiting}
	slices.Sort(byID)
	slices.Reverse(byID)
	sorted := func(ids ...string) []string {
		slices.Sort(ids)
		slices.Reverse(ids)
		return ids
	}
	for name, c := range map[string]struct {
		filter ca.EventFilter
		want   []string
	}{
		"everything":         {ca.EventFilter{}, byID},
		"kind":               {ca.EventFilter{Kind: "certificate.revoked"}, sorted(revoked)},
		"kind of issuances":  {ca.EventFilter{Kind: "certificate.issued"}, sorted(issued)},
		"kinds":              {ca.EventFilter{Kind: "certificate."}, sorted(intended, issued, revoked)},
		"actor":              {ca.EventFilter{Actor: "t-1"}, sorted(intended, revoked)},
		"actor with quotes":  {ca.EventFilter{Actor: `t-"2"`}, sorted(denied)},
		"namespace":          {ca.EventFilter{Namespace: "ops"}, sorted(revoked)},
		"serial":             {ca.EventFilter{Serial: c.Serial[:]}, sorted(intended, issued, revoked)},
		"serial, and kind":   {ca.EventFilter{Serial: c.Serial[:], Kind: "certificate.revoked"}, sorted(revoked)},
		"a serial of nobody": {ca.EventFilter{Serial: make([]byte, 20)}, nil},
		"text in any case":   {ca.EventFilter{Text: `"X" \ Ä`}, sorted(started)},
		"no text":            {ca.EventFilter{Text: "100%"}, nil},
		"since":              {ca.EventFilter{Since: time.Now().Add(time.Hour)}, nil},
		"until":              {ca.EventFilter{Until: time.Now().Add(-time.Hour)}, nil},
		"time":               {ca.EventFilter{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}, byID},
	} {
		if c.filter.Namespace == "" {
			c.filter.Namespace = "*"
		}
		if got := f.found(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
	}
	page, err := f.SearchEvents(context.Background(), ca.EventFilter{Namespace: "*", Limit: 6})
	if err != nil || page.Events[0].Index != -1 || page.Events[0].ID != waiting || page.Events[1].Index < 0 {
		t.Errorf("places: %+v, %v", page, err)
	}
	var invalid *ca.InvalidError
	for _, bad := range []ca.EventFilter{{Namespace: "*"}, {Namespace: "*", Limit: 501}, {Namespace: "*", Limit: 1, Cursor: "x"}} {
		if _, err := f.SearchEvents(context.Background(), bad); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A search for what is nowhere looks at a bounded number of events at a time, and reaches the end all the same.
func TestSearchIsBounded(t *testing.T) {
	f := setUp(t)
	oldest := f.tell("01900000-0000-7000-8000-000000000000", audit.AccessDenied, "t-1", "dev", map[string]string{"id": "needle"})
	f.exec(`INSERT INTO audit_leaves (id, kind, leaf)
		SELECT ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'certificate.issued',
			convert_to('{"actor":"a","data":{},"id":"01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') ||
			'","kind":"certificate.issued","namespace":"dev","time":"2026-01-01T00:00:00.000000Z","v":1}', 'UTF8')
		FROM generate_series(1, 45000) AS n`)
	filter := ca.EventFilter{Namespace: "*", Text: "needle", Limit: 10}
	var pages []int
	for {
		page, err := f.SearchEvents(context.Background(), filter)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, len(page.Events))
		if filter.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if fmt.Sprint(pages) != "[0 0 1]" {
		t.Errorf("the pages have %v events, want [0 0 1]", pages)
	}
	// Of what happens seldom there is an index.
	page, err := f.SearchEvents(context.Background(), ca.EventFilter{Namespace: "*", Kind: "access.denied", Limit: 10})
	if err != nil || len(page.Events) != 1 || page.Events[0].ID != oldest || page.Next != "" {
		t.Errorf("a kind that is seldom: %+v, %v", page, err)
	}
}

// What a service that was taken over has logged, and is no event, hides none of the others.
func TestAnUnreadableLeafHidesNoEvent(t *testing.T) {
	f := setUp(t)
	before := f.tell(newID(), audit.AccessDenied, "t-1", "dev", map[string]string{"id": "Zürich"})
	var unreadable []string
	service := f.as("chancery_service")
	for _, leaf := range []string{"no event", "\xff\xfe", `{"kind": "access.denied"}`} {
		id := newID()
		const add = "INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, 'access.denied', $2)"
		if _, err := service.Exec(t.Context(), add, id, []byte(leaf)); err != nil {
			t.Fatal(err)
		}
		unreadable = append([]string{id}, unreadable...)
	}
	after := f.tell(newID(), audit.AccessDenied, "t-1", "dev", map[string]string{"id": "zürich"})
	for name, c := range map[string]struct {
		filter ca.EventFilter
		want   []string
	}{
		"everything": {ca.EventFilter{}, append(append([]string{after}, unreadable...), before)},
		"kind":       {ca.EventFilter{Kind: "access.denied"}, append(append([]string{after}, unreadable...), before)},
		"actor":      {ca.EventFilter{Actor: "t-1"}, []string{after, before}},
		"text":       {ca.EventFilter{Text: "RICH"}, []string{after, before}},
	} {
		c.filter.Namespace = "*"
		if got := f.found(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
	}
	if e, err := f.Event(t.Context(), unreadable[0]); err != nil || e.ID != unreadable[0] || e.Kind != audit.Unreadable || e.Namespace != "" {
		t.Errorf("one that cannot be read: %+v, %v", e, err)
	}
}
