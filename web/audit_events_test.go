package web

import (
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

func TestSearchingEvents(t *testing.T) {
	s := newSurface(t)
	w := s.call(ask{role: access.Auditor, path: "/api/v1/audit/events?kind=access.&actor=t-1&namespace=dev&serial=1c01&text=a+b" +
		"&since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z&cursor=c&limit=7"})
	const want = `{"events":[{"id":"e-1","index":5,"kind":"access.denied",`
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), want) || !bytes.Contains(w.Body.Bytes(), []byte(`"next":"more"`)) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if !reflect.DeepEqual(s.office.searched, ca.EventFilter{
		Kind: "access.", Actor: "t-1", Namespace: "dev", Serial: []byte{0x1c, 0x01}, Text: "a b",
		Since: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Until: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC), Cursor: "c", Limit: 7,
	}) {
		t.Errorf("the authority was asked for %+v", s.office.searched)
	}
	for _, bad := range []string{
		"kind=x", "kind=X.y", "namespace=a/b", "serial=zz", "since=yesterday", "until=1", "limit=501", "limit=x", "text=%00", "actor=%0a",
		"cursor=%00",
		"text=" + strings.Repeat("x", 254),
	} {
		if w := s.call(ask{role: access.Auditor, path: "/api/v1/audit/events?" + bad}); w.Code != http.StatusBadRequest &&
			w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}
