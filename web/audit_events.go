package web

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// Events is what the surface asks of the authority about events by what stands in them.
type Events interface {
	SearchEvents(ctx context.Context, actor access.Actor, f ca.EventFilter) (ca.EventPage, error)
}

// EventList is one page of events, newest first.
type EventList struct {
	Events []Event `json:"events"`
	Next   string  `json:"next,omitempty" doc:"The cursor of the next page; left out on the last. A page can be empty and not the last"`
}

// Event is one event of the audit log.
type Event struct {
	ID        string            `json:"id"`
	Index     *int64            `json:"index,omitempty" doc:"Its place in the log; left out until it has one, which takes a second"`
	Kind      string            `json:"kind"`
	Time      time.Time         `json:"time"`
	Actor     string            `json:"actor"`
	Namespace string            `json:"namespace"`
	Data      map[string]string `json:"data"`
}

type eventsInput struct {
	Kind      string `query:"kind" doc:"A kind of event, or the beginning of some up to and with a dot: certificate."`
	Actor     string `query:"actor" doc:"ID of who caused it"`
	Namespace string `query:"namespace" doc:"The caller's own when left out, or all for a caller of all"`
	Serial    string `query:"serial" doc:"Lower-case hex, of the certificate that it speaks of"`
	Text      string `query:"text" maxLength:"200" doc:"That stands somewhere in the event, in any case"`
	Since     string `query:"since" format:"date-time" doc:"RFC 3339"`
	Until     string `query:"until" format:"date-time" doc:"RFC 3339, exclusive"`
	Cursor    string `query:"cursor" doc:"As the last page gave it in next"`
	Limit     string `query:"limit" pattern:"^[0-9]{1,3}$" doc:"Events on a page: 1 to 500, 100 when left out"`
}

type eventsAnswer struct{ Body EventList }

func (s *Server) routeEvents(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/events", id: "search-events", tag: tagAudit, success: http.StatusOK,
		summary: "Search the audit log",
		description: "Gives the events that fit, newest first, page by page. One call looks at a bounded number of events: a page may be " +
			"empty, and " +
			"there is more as long as it has a next. A search is an event as well.",
		answers:  []media{{name: typeJSON, json: EventList{}}},
		problems: []int{http.StatusNotFound},
	}, s.events)
}

func (s *Server) events(ctx context.Context, in *eventsInput) (*eventsAnswer, error) {
	filter, err := readEventFilter(in)
	if err != nil {
		return nil, err
	}
	page, err := s.ca.SearchEvents(ctx, exchangeOf(ctx).actor, filter)
	if err != nil {
		return nil, err
	}
	list := EventList{Events: make([]Event, len(page.Events)), Next: page.Next}
	for i, e := range page.Events {
		list.Events[i] = Event{ID: e.ID, Kind: string(e.Kind), Time: e.Time, Actor: e.Actor, Namespace: e.Namespace, Data: e.Data}
		if e.Index >= 0 {
			list.Events[i].Index = &e.Index
		}
	}
	return &eventsAnswer{Body: list}, nil
}

// kindForm is the form of a kind of event, or of the beginning of some.
var kindForm = regexp.MustCompile(`^[a-z_-]{1,40}(\.[a-z_-]{0,40}){1,3}$`)

// readEventFilter reads every parameter and reports all that are wrong.
func readEventFilter(in *eventsInput) (ca.EventFilter, error) {
	f := ca.EventFilter{Kind: in.Kind, Actor: in.Actor, Namespace: in.Namespace, Text: in.Text, Cursor: in.Cursor}
	var all []policies.Violation
	if in.Kind != "" && !kindForm.MatchString(in.Kind) {
		all = append(all, broken("kind", "write for example certificate.revoked, or certificate.", "no kind of event has such a name"))
	}
	if in.Namespace != "" && in.Namespace != access.AllNamespaces && !nameable(in.Namespace) {
		all = append(all, broken("namespace", "names have letters, digits and hyphens", "nothing has such a name"))
	}
	for name, value := range map[string]string{"actor": in.Actor, "text": in.Text} {
		if len(value) > maxQuery || !printable(value) {
			all = append(all, broken(name, "search for up to 200 octets of text", "it is too long or holds control characters"))
		}
	}
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"since", in.Since, &f.Since}, {"until", in.Until, &f.Until}} {
		if t.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, t.text)
		if err != nil {
			all = append(all, broken(t.name, timeHint+", with + as %2B", notTime))
		}
		*t.to = at
	}
	f.Limit, all = readPage(in.Cursor, in.Limit, all)
	slices.SortFunc(all, func(a, b policies.Violation) int { return strings.Compare(a.Field, b.Field) })
	if err := refusal(all...); err != nil || in.Serial == "" {
		return f, err
	}
	var err error
	f.Serial, err = parseSerial(in.Serial)
	return f, err
}
