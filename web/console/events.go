package console

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	maxEventText = 200 // octets of what is searched for in events
	maxEventKind = 100 // octets
	fieldsInRow  = 3   // of an event, in a table
	wordsInRow   = 24  // characters of a field or an actor's ID there
)

// searchFields are what events are searched by, as the form names them.
var searchFields = []string{"kind", "actor", "namespace", "serial", "text", "since", "until"}

// eventRow is an event as the table shows it.
type eventRow struct {
	ca.LoggedEvent
	Some []field // of what it says
	More int     // fields that are left out
	Who  string  // the actor's ID, short enough for a column
}

// field is one thing that an event says.
type field struct{ Name, Value string }

// fields are all that an event says, by name.
func fields(e audit.Event) []field {
	all := make([]field, 0, len(e.Data))
	for _, name := range slices.Sorted(maps.Keys(e.Data)) {
		all = append(all, field{name, e.Data[name]})
	}
	return all
}

// telling are the fields that say most about an event; they come first in the table.
var telling = []string{"serial", "action", "reason", "name", "token", "job", "request", "issuer", "authority", "profile"}

func rowOf(e ca.LoggedEvent) eventRow {
	rank := func(f field) int {
		if i := slices.Index(telling, f.Name); i >= 0 {
			return i
		}
		return len(telling)
	}
	all := slices.DeleteFunc(fields(e.Event), func(f field) bool { // the event's own page has them
		return f.Value == "" || f.Name == "replica" || strings.HasSuffix(f.Name, audit.Salted)
	})
	slices.SortStableFunc(all, func(a, b field) int { return rank(a) - rank(b) })
	row := eventRow{LoggedEvent: e, Some: all[:min(len(all), fieldsInRow)], More: max(0, len(all)-fieldsInRow), Who: short(e.Actor)}
	for i, f := range row.Some {
		row.Some[i].Value = short(f.Value)
	}
	return row
}

// short keeps the beginning and the end of a long text: the end tells an ID or a serial number from others of the same time.
func short(text string) string {
	all := []rune(text)
	if len(all) <= wordsInRow {
		return text
	}
	return string(all[:8]) + "…" + string(all[len(all)-12:])
}

// events searches the audit log, newest first. Who only opens the page has not searched yet: a search is an event itself.
func (v *visits) events(w http.ResponseWriter, r *http.Request, visit *visit) {
	asked, given := r.URL.Query(), map[string]string{}
	for _, name := range searchFields {
		given[name] = strings.TrimSpace(asked.Get(name))
	}
	about := map[string]any{
		"Given": given, "All": visit.person().Namespace == access.AllNamespaces, "Kinds": audit.Kinds(), "Searched": len(asked) > 0,
	}
	if len(asked) == 0 && visit.may(access.ReadAudit) { // who may not is refused by the authority, which records it
		v.show(w, r, visit, http.StatusOK, "events", about)
		return
	}
	filter, missing := readEventFilter(given, asked.Get("cursor"))
	if missing != "" {
		about["Missing"], about["Searched"] = missing, false
		v.show(w, r, visit, http.StatusBadRequest, "events", about)
		return
	}
	page, err := v.CA.SearchEvents(r.Context(), visit.person(), filter)
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	rows := make([]eventRow, len(page.Events))
	for i, e := range page.Events {
		rows[i] = rowOf(e)
	}
	next := ""
	if page.Next != "" {
		asked.Set("cursor", page.Next)
		next = "/console/audit?" + asked.Encode()
	}
	about["Rows"], about["Next"] = rows, next
	v.show(w, r, visit, http.StatusOK, "events", about)
}

// readEventFilter reads the form. missing says what cannot be read, and how to write it.
func readEventFilter(given map[string]string, cursor string) (f ca.EventFilter, missing string) {
	f = ca.EventFilter{
		Kind: given["kind"], Actor: given["actor"], Namespace: given["namespace"], Text: given["text"], Cursor: cursor, Limit: pageLength,
	}
	for _, text := range given {
		if len(text) > maxEventText || !printable(text) {
			return f, "Search for up to 200 characters of text."
		}
	}
	if len(cursor) > maxCursor || !printable(cursor) || len(f.Kind) > maxEventKind {
		return f, "This search cannot be read. Begin it anew."
	}
	var err error
	if given["serial"] != "" {
		if f.Serial, err = parseSerial(given["serial"]); err != nil {
			return f, "Write the serial number in hexadecimal, with colons or without."
		}
	}
	for name, to := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if *to, err = readTime(given[name]); err != nil {
			return f, "Write times as 2026-11-23T12:00, in UTC."
		}
	}
	return f, ""
}

// readTime reads a time as a form sends it, which has no zone and means UTC, or as people copy it. Empty is the zero time.
func readTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New("this is no time")
}

// event shows one event, and what proves that it was logged.
func (v *visits) event(w http.ResponseWriter, r *http.Request, visit *visit) {
	id := chi.URLParam(r, "event")
	e, err := v.CA.Event(r.Context(), visit.person(), id)
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	what := ""
	for _, k := range audit.Kinds() {
		if k.Kind == e.Kind {
			what = k.What
		}
	}
	about := map[string]any{"Event": e, "What": what, "Fields": fields(e.Event), "Path": "/console/audit/events/" + url.PathEscape(id)}
	switch receipt, err := v.CA.Receipt(r.Context(), visit.person(), id, 0); {
	case err == nil:
		about["Receipt"], about["Hashes"] = string(receipt.Checkpoint), len(receipt.Proof)
		_, err := v.CA.Receipt(r.Context(), visit.person(), id, 1)
		about["Witnessed"] = err == nil
	case !errors.Is(err, ca.ErrNotLogged):
		v.failed(w, r, visit, err)
		return
	}
	v.show(w, r, visit, http.StatusOK, "event", about)
}

// receipt gives the receipt of an event as a file.
func (v *visits) receipt(w http.ResponseWriter, r *http.Request, visit *visit) {
	id, cosigned := chi.URLParam(r, "event"), 0
	if r.URL.Query().Get("witnesses") == "1" {
		cosigned = 1
	}
	receipt, err := v.CA.Receipt(r.Context(), visit.person(), id, cosigned)
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	// What the event says of its own ID names the file: it is a UUID, and not what was asked for.
	name := "receipt"
	if e, err := audit.Parse(receipt.Leaf); err == nil {
		name = e.ID
	}
	download(w, name+".tlog-proof", receipt.Bytes())
}

// log shows how the log is doing.
func (v *visits) log(w http.ResponseWriter, r *http.Request, visit *visit) {
	view, err := v.CA.Log(r.Context(), visit.person())
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	v.show(w, r, visit, http.StatusOK, "log", map[string]any{"State": view.State, "Latest": view.Latest, "Cosigned": view.Cosigned})
}

// checkpoint gives the latest checkpoint, or the latest that a witness has signed, as a file.
func (v *visits) checkpoint(w http.ResponseWriter, r *http.Request, visit *visit) {
	view, err := v.CA.Log(r.Context(), visit.person())
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	chosen := view.Latest
	if r.URL.Query().Get("witnesses") == "1" {
		chosen = view.Cosigned
	}
	if chosen == nil {
		v.problem(w, r, visit, v.desk.NotFound())
		return
	}
	download(w, "checkpoint-"+strconv.FormatInt(chosen.Size, 10)+".txt", chosen.Note)
}

// download sends a text as a file of its own.
func download(w http.ResponseWriter, name string, text []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text) // who has left needs no file
}
