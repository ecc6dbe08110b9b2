package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/web"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// nasty is a text that must come out as a text.
const nasty = `<script>alert(1)</script>"'>&`

// office is the authority that these tests speak to: it keeps sessions in memory, asks access as the real one does, and answers with what a
// test has put into it. How the real one decides is tested where it lives.
type office struct {
	sessions map[[32]byte]ca.Session
	links    map[[32]byte]access.Actor
	found    ca.Certificate
	waits    ca.RequestState
	revoked  []ca.RevokeOrder
	words    []ca.ApproveOrder
	filters  []ca.Filter
	searches []ca.EventFilter
	event    ca.LoggedEvent
	receipt  audit.Receipt
	view     ca.LogView
	waiting  bool // no checkpoint covers the event
	err      error
}

func (o *office) asked(a access.Actor, act access.Action) error {
	if err := access.Authorize(a, act, access.Resource{Namespace: a.Namespace, Kind: "thing", ID: "x"}); err != nil {
		return err
	}
	return o.err
}

func (o *office) Certificate(_ context.Context, a access.Actor, _ string, _ []byte) (ca.Certificate, error) {
	return o.found, o.asked(a, access.ReadCertificate)
}

func (o *office) List(_ context.Context, a access.Actor, f ca.Filter) (ca.Page, error) {
	o.filters = append(o.filters, f)
	return ca.Page{Certificates: []ca.Certificate{o.found}, Next: "more"}, o.asked(a, access.ReadCertificate)
}

func (o *office) ChainOf(context.Context, ca.Certificate) ([][]byte, error) { return nil, nil }

func (o *office) Revoke(_ context.Context, order ca.RevokeOrder) (ca.Revocation, error) {
	o.revoked = append(o.revoked, order)
	return ca.Revocation{}, o.asked(order.Actor, access.RevokeCertificate)
}

func (o *office) Requests(_ context.Context, a access.Actor, _ ca.WaitingFilter) ([]ca.WaitingRequest, string, error) {
	return []ca.WaitingRequest{o.waits.WaitingRequest}, "more", o.asked(a, access.ReadRequest)
}

func (o *office) Request(_ context.Context, a access.Actor, _ string) (ca.RequestState, error) {
	return o.waits, o.asked(a, access.ReadRequest)
}

func (o *office) Approve(_ context.Context, order ca.ApproveOrder) (ca.RequestState, error) {
	o.words = append(o.words, order)
	return o.waits, o.asked(order.Actor, access.ApproveRequest)
}

func (o *office) Reject(ctx context.Context, order ca.ApproveOrder) (ca.RequestState, error) {
	return o.Approve(ctx, order)
}

func (o *office) Authorities(_ context.Context, a access.Actor) ([]ca.AuthorityState, error) {
	return []ca.AuthorityState{
		{AuthorityRecord: ca.AuthorityRecord{Name: nasty, CRLURL: "javascript:alert(1)"}},
		{
			AuthorityRecord: ca.AuthorityRecord{Name: "issuing-1", Parent: "root-1", Online: true, CRLURL: "http://ca.dev.example/crl"},
			Signing:         true,
			Current:         &ca.CRLRecord{Number: big.NewInt(7), ThisUpdate: noon.Add(-2 * time.Hour), NextUpdate: noon.Add(-time.Hour)},
		},
	}, o.asked(a, access.ReadAuthority)
}

func (o *office) SearchEvents(_ context.Context, a access.Actor, f ca.EventFilter) (ca.EventPage, error) {
	o.searches = append(o.searches, f)
	if f.Text == "nothing" {
		return ca.EventPage{Next: "older"}, o.asked(a, access.ReadAudit)
	}
	return ca.EventPage{Events: []ca.LoggedEvent{o.event}, Next: "older"}, o.asked(a, access.ReadAudit)
}

func (o *office) Event(_ context.Context, a access.Actor, id string) (ca.LoggedEvent, error) {
	if id != o.event.ID {
		return ca.LoggedEvent{}, ca.ErrNotFound
	}
	return o.event, o.asked(a, access.ReadAudit)
}

func (o *office) Receipt(_ context.Context, a access.Actor, _ string, cosigned int) (audit.Receipt, error) {
	if o.waiting || cosigned > 1 {
		return audit.Receipt{}, ca.ErrNotLogged
	}
	return o.receipt, o.asked(a, access.ReadReceipt)
}

func (o *office) Log(_ context.Context, a access.Actor) (ca.LogView, error) {
	return o.view, o.asked(a, access.ReadAudit)
}

func (o *office) OpenSession(_ context.Context, s ca.Session, secret [32]byte, life time.Duration) error {
	if err := o.asked(s.Actor, access.OpenSession); err != nil {
		return err
	}
	s.ID, s.OpenedAt, s.ExpiresAt = fmt.Sprint(len(o.sessions)), noon, noon.Add(life)
	o.sessions[secret] = s
	return nil
}

func (o *office) OfferedLogin(_ context.Context, login [32]byte) (access.Actor, error) {
	actor, ok := o.links[login]
	if !ok {
		return access.Actor{}, ca.ErrNotFound
	}
	return actor, nil
}

func (o *office) TakeLogin(ctx context.Context, login, secret [32]byte, idle, life time.Duration) (ca.Session, error) {
	actor, err := o.OfferedLogin(ctx, login)
	if err != nil {
		return ca.Session{}, err
	}
	delete(o.links, login)
	s := ca.Session{Actor: actor, Method: ca.SignedInByToken, Token: actor.ID, Idle: idle}
	return s, o.OpenSession(ctx, s, secret, life)
}

func (o *office) Session(_ context.Context, secret [32]byte) (ca.Session, error) {
	s, ok := o.sessions[secret]
	if !ok {
		return ca.Session{}, ca.ErrNotFound
	}
	return s, nil
}

func (o *office) EndSession(_ context.Context, s ca.Session, everywhere bool) error {
	maps.DeleteFunc(o.sessions, func(_ [32]byte, other ca.Session) bool {
		return other.ID == s.ID || everywhere && other.Actor.ID == s.Actor.ID
	})
	return nil
}

// desk answers as the surface's does, in few words.
type desk struct{ admitted []string }

func (d *desk) Admit(_ *http.Request, a access.Actor) *web.Problem {
	d.admitted = append(d.admitted, a.ID)
	return nil
}

func (d *desk) Problem(_ context.Context, err error) *web.Problem {
	var denied *access.Denied
	switch {
	case errors.As(err, &denied) && !denied.Hidden:
		return &web.Problem{Title: "Denied", Status: http.StatusForbidden, Detail: "not allowed"}
	case denied != nil, errors.Is(err, ca.ErrNotFound):
		return d.NotFound()
	}
	return &web.Problem{Title: "The service failed", Status: http.StatusInternalServerError}
}

func (*desk) NotFound() *web.Problem {
	return &web.Problem{Title: "There is no such thing", Status: http.StatusNotFound}
}

// provider signs in whom a test has named.
type provider struct {
	actor access.Actor
	err   error
}

func (*provider) Issuer() string { return "https://id.dev.example" }

func (p *provider) Begin(context.Context) (oidc.Attempt, string, error) {
	return oidc.Attempt{State: "state-1", Nonce: "n", Verifier: "v"}, "https://id.dev.example/authorize?state=state-1", p.err
}

func (p *provider) Finish(_ context.Context, a oidc.Attempt, answer url.Values) (access.Actor, error) {
	if a.State == "" || a.State != answer.Get("state") {
		return access.Actor{}, &access.Unauthenticated{Detail: "this login was not begun in this browser"}
	}
	return p.actor, p.err
}

func (*provider) SignOutURL(_ context.Context, back string) string {
	return "https://id.dev.example/end?back=" + url.QueryEscape(back)
}

func person(roles ...access.Role) access.Actor {
	return access.Actor{
		ID: "oidc:ada", Name: "Ada " + nasty, Person: "ada", Namespace: access.AllNamespaces, Roles: roles,
		Groups: []string{nasty},
	}
}

// browser is a Console with somebody who looks at it.
type browser struct {
	t        *testing.T
	office   *office
	provider *provider
	routes   http.Handler
	cookies  map[string]string
	set      []*http.Cookie // by the last answer
}

func open(t *testing.T) *browser {
	t.Helper()
	b := &browser{t: t, provider: &provider{actor: person(access.Approver, access.Revoker)}, cookies: map[string]string{}, office: &office{
		sessions: map[[32]byte]ca.Session{}, links: map[[32]byte]access.Actor{},
	}}
	b.office.found = ca.Certificate{NewCertificate: ca.NewCertificate{
		Issuer: "issuing-1", DER: []byte{0x30}, Profile: nasty, Namespace: nasty, Subject: "CN=" + nasty,
		Names:     []string{"www.dev.example", nasty},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), IssuedAt: noon,
	}}
	b.office.found.Serial[0], b.office.found.Serial[19] = 0x1c, 0xab
	b.office.waits = ca.RequestState{Need: 2, Have: 1, Groups: []string{nasty}, Binding: "binding-1", WaitingRequest: ca.WaitingRequest{
		Request: ca.Request{ID: "r-7", Profile: "guarded", Namespace: "dev", Metadata: map[string]string{"ticket": nasty}},
		Status:  ca.StatusWaiting,
		Actor:   access.Actor{Name: nasty, Person: "bob"}, Subject: "CN=" + nasty, Names: []string{nasty},
		Approvals: []ca.ApprovalRecord{{Comment: nasty}},
	}}
	b.office.logged()
	c, err := New(Config{
		CA: b.office, Provider: b.provider, URL: "https://ca.dev.example", Idle: 30 * time.Minute, Life: 8 * time.Hour,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon }, Random: rand.Reader, Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	r := chi.NewRouter()
	r.Mount("/console", c.Routes(&desk{}))
	b.routes = r
	return b
}

// ask sends a request as the browser does, and takes the cookies of the answer.
func (b *browser) ask(method, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, "https://ca.dev.example"+path, body)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	b.routes.ServeHTTP(w, r)
	b.set = w.Result().Cookies()
	for _, c := range b.set {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

func (b *browser) want(w *httptest.ResponseRecorder, status int, target string) {
	b.t.Helper()
	if w.Code != status || w.Header().Get("Location") != target {
		b.t.Fatalf("the answer is %d to %q, want %d to %q: %s", w.Code, w.Header().Get("Location"), status, target, w.Body)
	}
}

// signIn goes through a login at the provider.
func (b *browser) signIn(as ...access.Role) {
	b.t.Helper()
	if as != nil {
		b.provider.actor = person(as...)
	}
	b.want(b.ask("GET", "/console/begin", nil), http.StatusSeeOther, "https://id.dev.example/authorize?state=state-1")
	b.want(b.ask("GET", "/console/callback?state=state-1&code=c", nil, "Sec-Fetch-Site", "cross-site"), http.StatusSeeOther, "/console/")
}

var formToken = regexp.MustCompile(`name="form" value="([^"]+)"`)

// form is the token that the forms of the session carry.
func (b *browser) form() string {
	b.t.Helper()
	found := formToken.FindStringSubmatch(b.ask("GET", "/console/", nil).Body.String())
	if found == nil {
		b.t.Fatal("no form carries a token")
	}
	return found[1]
}

// everyRoute is one request for each route behind the login.
var everyRoute = map[string]string{
	"GET /console/":                              "/console/",
	"POST /console/logout":                       "/console/logout",
	"GET /console/certificates":                  "/console/certificates?q=www",
	"GET /console/certificates/{serial}":         "/console/certificates/1c00?issuer=issuing-1",
	"GET /console/certificates/{serial}/revoke":  "/console/certificates/1c00/revoke",
	"POST /console/certificates/{serial}/revoke": "/console/certificates/1c00/revoke",
	"GET /console/requests":                      "/console/requests",
	"GET /console/requests/{id}":                 "/console/requests/r-7",
	"POST /console/requests/{id}/approve":        "/console/requests/r-7/approve",
	"POST /console/requests/{id}/reject":         "/console/requests/r-7/reject",
	"GET /console/authorities":                   "/console/authorities",
	"GET /console/audit":                         "/console/audit?kind=certificate.",
	"GET /console/audit/log":                     "/console/audit/log",
	"GET /console/audit/log/checkpoint":          "/console/audit/log/checkpoint",
	"GET /console/audit/events/{event}":          "/console/audit/events/" + eventID,
	"GET /console/audit/events/{event}/receipt":  "/console/audit/events/" + eventID + "/receipt",
}

var openRoutes = []string{
	"GET /console/console.css", "GET /console/login", "GET /console/begin", "GET /console/callback", "GET /console/enter",
	"POST /console/enter",
	"GET /console/signed-out",
}

func TestNobodyGetsInWithoutASession(t *testing.T) {
	b := open(t)
	routes, ok := b.routes.(chi.Routes)
	if !ok {
		t.Fatal("there are no routes to look at")
	}
	err := chi.Walk(routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		name := method + " " + route
		if (&Console{}).Open(httptest.NewRequest(method, route, nil)) != slices.Contains(openRoutes, name) {
			t.Errorf("%s is open to everybody on one list alone", name)
		}
		if slices.Contains(openRoutes, name) {
			return nil
		}
		path, known := everyRoute[name]
		if !known {
			t.Errorf("no request of this test is for %s", name)
			return nil
		}
		for _, cookies := range []map[string]string{{}, {sessionCookie: "made-up"}, {"chancery": "made-up"}} {
			b.cookies = cookies
			w := b.ask(method, path, url.Values{})
			if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/console/login") {
				t.Errorf("%s with %v: %d %s", name, cookies, w.Code, w.Header().Get("Location"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.office.revoked)+len(b.office.words)+len(b.office.filters) > 0 {
		t.Error("the authority was asked for nobody")
	}
}

func TestALogin(t *testing.T) {
	b := open(t)
	b.want(b.ask("GET", "/console/certificates?q=www", nil), http.StatusSeeOther, "/console/login?back=%2Fconsole%2Fcertificates%3Fq%3Dwww")
	if page := b.ask("GET", "/console/login?back=%2Fconsole%2Fcertificates%3Fq%3Dwww", nil).Body.String(); !strings.Contains(page,
		"id.dev.example") {
		t.Errorf("the page does not lead to the provider: %s", page)
	}
	b.ask("GET", "/console/begin?back=%2Fconsole%2Fcertificates%3Fq%3Dwww", nil)
	b.want(b.ask("GET", "/console/callback?state=state-1&code=c", nil, "Sec-Fetch-Site", "cross-site"), http.StatusSeeOther,
		"/console/certificates?q=www")
	for _, c := range b.set {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" ||
			c.Domain != "" {
			t.Errorf("the cookie %+v", c)
		}
	}
	if len(b.office.sessions) != 1 {
		t.Fatalf("%d sessions", len(b.office.sessions))
	}
	for digest, s := range b.office.sessions {
		if digest != sha256.Sum256([]byte(b.cookies[sessionCookie])) || s.Method != ca.SignedInByOIDC || s.Provider != "https://id.dev.example" ||
			s.Idle != 30*time.Minute {
			t.Errorf("kept is %x: %+v", digest, s)
		}
	}
	if page := b.ask("GET", "/console/", nil).Body.String(); !strings.Contains(page, "request.approve") {
		t.Errorf("the page does not say what she may do: %s", page)
	}
}

func TestALoginEndsOnceAndInItsBrowser(t *testing.T) {
	b := open(t)
	b.ask("GET", "/console/begin", nil)
	other := *b
	other.cookies = map[string]string{}
	if w := other.ask("GET", "/console/callback?state=state-1&code=c", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("in another browser: %d", w.Code)
	}
	if w := b.ask("GET", "/console/callback?state=state-2&code=c", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("with another state: %d", w.Code)
	}
	if w := b.ask("GET", "/console/callback?state=state-1&code=c", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("after it failed: %d", w.Code)
	}
	b.signIn()
	if w := b.ask("GET", "/console/callback?state=state-1&code=c", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("after it was done: %d", w.Code)
	}
	if len(b.office.sessions) != 1 {
		t.Errorf("%d sessions", len(b.office.sessions))
	}
}

// TestASessionThatWasThereBeforeIsWorthNothing: whoever has put a cookie into a browser, or has read it, gains nothing by a login.
func TestASessionThatWasThereBeforeIsWorthNothing(t *testing.T) {
	b := open(t)
	b.cookies[sessionCookie] = "planted"
	b.signIn()
	if b.cookies[sessionCookie] == "planted" {
		t.Error("a login takes the secret that was there")
	}
	before := b.cookies[sessionCookie]
	b.signIn()
	if b.cookies[sessionCookie] == before || len(b.office.sessions) != 1 {
		t.Errorf("the session before goes on: %d sessions", len(b.office.sessions))
	}
	b.cookies[sessionCookie] = before
	if w := b.ask("GET", "/console/", nil); w.Code != http.StatusSeeOther {
		t.Errorf("the secret before: %d", w.Code)
	}
}

func TestAStolenSessionEndsWithTheLogout(t *testing.T) {
	b := open(t)
	b.signIn()
	thief := *b
	thief.cookies = maps.Clone(b.cookies)
	if w := thief.ask("GET", "/console/", nil); w.Code != http.StatusOK {
		t.Fatalf("before the logout: %d", w.Code)
	}
	b.want(b.ask("POST", "/console/logout", url.Values{"form": {b.form()}}), http.StatusSeeOther, "/console/signed-out?provider=1")
	if w := thief.ask("GET", "/console/", nil); w.Code != http.StatusSeeOther {
		t.Errorf("after the logout: %d", w.Code)
	}
	page := b.ask("GET", "/console/signed-out?provider=1", nil).Body.String()
	if !strings.Contains(page, "https://id.dev.example/end?back=https%3A%2F%2Fca.dev.example%2Fconsole%2Fsigned-out") {
		t.Errorf("there is no way to sign out at the provider: %s", page)
	}
}

func TestSigningOutEverywhere(t *testing.T) {
	b := open(t)
	b.signIn()
	elsewhere := *b
	elsewhere.cookies = map[string]string{}
	elsewhere.signIn()
	b.ask("POST", "/console/logout", url.Values{"form": {b.form()}, "everywhere": {"yes"}})
	if w := elsewhere.ask("GET", "/console/", nil); w.Code != http.StatusSeeOther {
		t.Errorf("elsewhere: %d", w.Code)
	}
}

func TestWhatChangesSomethingComesFromAPageOfOurs(t *testing.T) {
	b := open(t)
	b.signIn()
	token := b.form()
	other := *b
	other.cookies = map[string]string{}
	other.signIn()
	whole := url.Values{"reason": {"superseded"}, "sure": {"yes"}, "comment": {"x"}, "form": {token}}
	for name, path := range everyRoute {
		if !strings.HasPrefix(name, "POST") {
			continue
		}
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"},
			{"Sec-Fetch-Site", "same-site", "Origin", "https://evil.dev.example"},
			{"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
			{"Sec-Fetch-Site", "", "Origin", "null"},
		} {
			if w := b.ask("POST", path, whole, header...); w.Code != http.StatusForbidden {
				t.Errorf("%s from elsewhere (%v): %d", name, header, w.Code)
			}
		}
		for _, wrong := range []string{"", "x", other.form()} {
			form := maps.Clone(whole)
			form["form"] = []string{wrong}
			if w := b.ask("POST", path, form); w.Code != http.StatusForbidden {
				t.Errorf("%s with the form's token %q: %d", name, wrong, w.Code)
			}
		}
	}
	if len(b.office.revoked)+len(b.office.words) != 0 || len(b.office.sessions) != 2 {
		t.Error("something was changed")
	}
}

func TestALinkSignsInOnce(t *testing.T) {
	b := open(t)
	actor := person(access.Auditor)
	b.office.links[sha256.Sum256([]byte("CODE"))] = actor
	for range 2 { // a mail filter looks first
		if w := b.ask("GET", "/console/enter?code=CODE", nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `value="CODE"`) ||
			len(b.cookies) > 0 {
			t.Fatalf("looking at the link: %d, %v: %s", w.Code, b.cookies, w.Body)
		}
	}
	if w := b.ask("POST", "/console/enter", url.Values{"code": {"CODE"}}, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("pressed on another site: %d", w.Code)
	}
	b.want(b.ask("POST", "/console/enter", url.Values{"code": {"CODE"}}), http.StatusSeeOther, "/console/")
	if w := b.ask("GET", "/console/", nil); w.Code != http.StatusOK {
		t.Errorf("signed in: %d", w.Code)
	}
	for _, w := range []*httptest.ResponseRecorder{
		b.ask("POST", "/console/enter", url.Values{"code": {"CODE"}}), b.ask("GET", "/console/enter?code=CODE", nil),
		b.ask("GET", "/console/enter", nil),
	} {
		if w.Code != http.StatusUnauthorized {
			t.Errorf("a second time: %d", w.Code)
		}
	}
	b.want(b.ask("POST", "/console/logout", url.Values{"form": {b.form()}}), http.StatusSeeOther, "/console/signed-out")
}

func TestLoginsThatFail(t *testing.T) {
	b := open(t)
	b.provider.err = fmt.Errorf("%w: connection refused to 10.1.2.3", oidc.ErrUnavailable)
	w := b.ask("GET", "/console/begin", nil)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "10.1.2.3") {
		t.Errorf("the provider is away: %d %v %s", w.Code, w.Header(), w.Body)
	}
	b.provider.err, b.provider.actor = nil, person() // no role
	b.ask("GET", "/console/begin", nil)
	if w := b.ask("GET", "/console/callback?state=state-1&code=c", nil); w.Code != http.StatusForbidden || len(b.office.sessions) > 0 {
		t.Errorf("somebody without a role: %d, %d sessions", w.Code, len(b.office.sessions))
	}
	b.cookies[sessionCookie] = "a"
	r := httptest.NewRequest("GET", "https://ca.dev.example/console/", nil)
	b.signIn(access.Auditor)
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: b.cookies[sessionCookie]})
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: "another"})
	w = httptest.NewRecorder()
	b.routes.ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther {
		t.Errorf("two cookies of the name: %d", w.Code)
	}
}

// What no database can be asked for is not there.
func TestPathsThatAreNoText(t *testing.T) {
	b := open(t)
	b.signIn(access.Approver, access.Auditor)
	for _, c := range []struct{ method, path string }{
		{"GET", "/console/requests/%00"},
		{"GET", "/console/requests/%ff"},
		{"POST", "/console/requests/r-7%00/approve"},
		{"GET", "/console/audit/events/%00"},
		{"GET", "/console/audit/events/%ff/receipt"},
	} {
		if w := b.ask(c.method, c.path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s %s: %d", c.method, c.path, w.Code)
		}
	}
}

func TestALoginLeadsNowhereElse(t *testing.T) {
	for back, want := range map[string]string{
		"/console/certificates?q=a%20b": "/console/certificates?q=a%20b", "": "/console/", "https://evil.example/": "/console/",
		"//evil.example":     "/console/",
		"/console/../api/v1": "/console/", "/console//evil.example": "/console/", `/console/\evil.example`: "/console/",
		"/api/v1/docs":                 "/console/",
		"/console/\r\nSet-Cookie: a=b": "/console/", "/consoles/": "/console/", "/console/" + strings.Repeat("a", 2000): "/console/",
	} {
		if got := ownPath(back); got != want {
			t.Errorf("%q leads to %q, want %q", back, got, want)
		}
	}
}

// TestPagesShowWhatTheyAreGivenAsText looks at every page, with texts that are not meant well in it.
func TestPagesShowWhatTheyAreGivenAsText(t *testing.T) {
	b := open(t)
	b.signIn(access.Approver, access.Revoker, access.Auditor)
	pages := map[string]string{"a search for nothing": b.ask("GET", "/console/audit", nil).Body.String()}
	for name, path := range everyRoute {
		if strings.HasPrefix(name, "GET") && !strings.HasSuffix(name, "/receipt") && !strings.HasSuffix(name, "/checkpoint") {
			w := b.ask("GET", path, nil)
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
			pages[name] = w.Body.String()
		}
	}
	b.office.links[sha256.Sum256([]byte("CODE"))] = person(access.Auditor)
	for _, path := range []string{
		"/console/login", "/console/enter?code=CODE", "/console/signed-out?provider=1", "/console/nowhere",
		"/console/certificates?status=" + url.QueryEscape(nasty),
		"/console/audit?serial=" + url.QueryEscape(nasty),
	} {
		pages[path] = b.ask("GET", path, nil).Body.String()
	}
	for name, page := range pages {
		for _, bad := range []string{"<script", "style=", " on", "javascript:"} {
			if bad == " on" {
				if regexp.MustCompile(`<[^>]* on[a-z]+=`).MatchString(page) {
					t.Errorf("%s has a handler in it", name)
				}
			} else if strings.Contains(page, bad) {
				t.Errorf("%s holds %q", name, bad)
			}
		}
		if !strings.Contains(page, `<html lang="en">`) || !strings.Contains(page, "<h1>") && !strings.Contains(page, "<h1 ") {
			t.Errorf("%s lacks its language or its title: %s", name, page)
		}
		for _, loaded := range regexp.MustCompile(`<(?:link|img|script|iframe|object)[^>]*(?:href|src|data)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if loaded[1] != "/console/console.css" && loaded[1] != "data:," {
				t.Errorf("%s loads %s", name, loaded[1])
			}
		}
	}
	if !strings.Contains(pages["GET /console/authorities"], "overdue") {
		t.Error("an overdue CRL is not seen")
	}
}

func TestRevokingTakesTwoWords(t *testing.T) {
	b := open(t)
	b.signIn()
	token := b.form()
	path := "/console/certificates/" + b.office.found.Serial.String() + "/revoke?issuer=issuing-1"
	for name, form := range map[string]url.Values{
		"no reason":          {"sure": {"yes"}},
		"not a reason":       {"sure": {"yes"}, "reason": {"bored"}},
		"not sure":           {"reason": {"superseded"}},
		"a very long word":   {"sure": {"yes"}, "reason": {"superseded"}, "comment": {strings.Repeat("a", 1001)}},
		"control characters": {"sure": {"yes"}, "reason": {"superseded"}, "comment": {"a\x00"}},
	} {
		form.Set("form", token)
		if w := b.ask("POST", path, form); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "role=\"alert\"") {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if len(b.office.revoked) > 0 {
		t.Fatalf("revoked was %+v", b.office.revoked)
	}
	w := b.ask("POST", path, url.Values{"form": {token}, "sure": {"yes"}, "reason": {"keyCompromise"}, "comment": {"lost\r\nlaptop"}})
	b.want(w, http.StatusSeeOther, "/console/certificates/"+b.office.found.Serial.String()+"?issuer=issuing-1")
	if o := b.office.revoked; len(o) != 1 || o[0].Comment != "lost\nlaptop" || o[0].Reason.String() != "keyCompromise" ||
		o[0].Actor.ID != "oidc:ada" ||
		o[0].Issuer != "issuing-1" || new(big.Int).SetBytes(o[0].Serial).Cmp(new(big.Int).SetBytes(b.office.found.Serial[:])) != 0 {
		t.Errorf("revoked was %+v", o)
	}
}

func TestRolesAreHeldOnPagesToo(t *testing.T) {
	b := open(t)
	b.signIn(access.Auditor)
	token := b.form()
	if page := b.ask("GET", "/console/certificates/1c00", nil).Body.String(); strings.Contains(page, "Revoke…") {
		t.Error("an auditor is offered to revoke")
	}
	if page := b.ask("GET", "/console/requests/r-7", nil).Body.String(); strings.Contains(page, ">Approve<") {
		t.Error("an auditor is offered to approve")
	}
	for path, form := range map[string]url.Values{
		"/console/certificates/1c00/revoke": {"sure": {"yes"}, "reason": {"superseded"}}, "/console/requests/r-7/approve": {},
		"/console/requests/r-7/reject": {},
	} {
		form.Set("form", token)
		if w := b.ask("POST", path, form); w.Code != http.StatusForbidden {
			t.Errorf("%s by an auditor: %d", path, w.Code)
		}
	}
	b.signIn(access.Revoker)
	page := b.ask("GET", "/console/", nil).Body.String()
	if strings.Contains(page, "/console/requests") || !strings.Contains(page, "/console/certificates") {
		t.Error("the tabs are not those of her role")
	}
	if w := b.ask("GET", "/console/requests", nil); w.Code != http.StatusForbidden {
		t.Errorf("requests to a revoker: %d", w.Code)
	}
	if strings.Contains(page, "/console/audit") {
		t.Error("a revoker is offered the audit log")
	}
	for name, path := range everyRoute {
		if strings.Contains(path, "/console/audit") && !strings.HasSuffix(name, "/receipt") { // of the own namespace anybody may have receipts
			if w := b.ask("GET", path, nil); w.Code != http.StatusForbidden {
				t.Errorf("%s to a revoker: %d", path, w.Code)
			}
		}
	}
	if w := b.ask("GET", "/console/audit", nil); w.Code != http.StatusForbidden {
		t.Errorf("the empty search to a revoker: %d", w.Code)
	}
}

func TestApprovingIsForWhatWasShown(t *testing.T) {
	b := open(t)
	b.signIn()
	page := b.ask("GET", "/console/requests/r-7", nil).Body.String()
	if !strings.Contains(page, `name="binding" value="binding-1"`) || !strings.Contains(page, `formaction="/console/requests/r-7/reject"`) {
		t.Fatalf("the page: %s", page)
	}
	b.want(b.ask("POST", "/console/requests/r-7/approve", url.Values{"form": {b.form()}, "binding": {"binding-1"}, "comment": {"seen"}}),
		http.StatusSeeOther, "/console/requests/r-7")
	if w := b.office.words; len(w) != 1 || w[0].Binding != "binding-1" || w[0].Comment != "seen" || w[0].Request != "r-7" ||
		w[0].Actor.Person != "ada" {
		t.Errorf("said was %+v", w)
	}
	b.office.waits.Actor.Person = "ada"
	if page := b.ask("GET", "/console/requests/r-7", nil).Body.String(); strings.Contains(page, ">Approve<") ||
		!strings.Contains(page, "somebody else") {
		t.Error("she is offered to approve what she asked for")
	}
}

func TestASerialLeadsToItsCertificate(t *testing.T) {
	b := open(t)
	b.signIn()
	serial := b.office.found.Serial.String()
	var colons []string
	for i := 0; i < len(serial); i += 2 {
		colons = append(colons, strings.ToUpper(serial[i:i+2]))
	}
	for _, typed := range []string{serial, strings.ToUpper(serial), strings.Join(colons, ":"), " " + serial + " "} {
		b.want(b.ask("GET", "/console/certificates?q="+url.QueryEscape(typed), nil), http.StatusSeeOther, "/console/certificates/"+serial)
	}
	b.ask("GET", "/console/certificates?q=cafe&status=revoked&profile=tls-server&cursor=c", nil)
	if f := b.office.filters[len(b.office.filters)-1]; f.Query != "cafe" || f.Status != "revoked" || f.Profile != "tls-server" ||
		f.Cursor != "c" {
		t.Errorf("asked was %+v", f)
	}
	for _, path := range []string{"/console/certificates/xyz", "/console/certificates/" + strings.Repeat("ab", 21)} {
		if w := b.ask("GET", path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	b.office.err = ca.ErrNotFound
	if w := b.ask("GET", "/console/certificates/1c00", nil); w.Code != http.StatusNotFound {
		t.Errorf("nothing there: %d", w.Code)
	}
}
