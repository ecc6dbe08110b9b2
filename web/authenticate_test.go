package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// knows is an Authenticator that a test decides for.
type knows struct {
	actor access.Actor
	found bool
	err   error
	asked int
}

func (k *knows) Authenticate(*http.Request) (access.Actor, bool, error) {
	k.asked++
	return k.actor, k.found, k.err
}

func auditorCalled(id string) access.Actor {
	return access.Actor{ID: id, Namespace: "dev", Roles: []access.Role{access.Auditor}}
}

// TestTheChain holds who is asked about which credentials, and that a bad credential is never made good by another.
func TestTheChain(t *testing.T) {
	bad := &access.Unauthenticated{Detail: "no", Shown: true, Cause: errors.New("revoked at noon")}
	for _, c := range []struct {
		name            string
		bearer, ambient *knows
		header          []string
		token           bool // the header is a good API token
		want            int
		asked           [2]int // of the two
	}{
		{"nothing", &knows{}, &knows{}, nil, false, 401, [2]int{0, 1}},
		{"a certificate", &knows{}, &knows{actor: auditorCalled("certificate:x"), found: true}, nil, false, 200, [2]int{0, 1}},
		{"a bad certificate", &knows{}, &knows{err: bad}, nil, false, 401, [2]int{0, 1}},
		{"a good token beside a bad certificate", &knows{}, &knows{err: bad}, nil, true, 200, [2]int{0, 0}},
		{"another bearer", &knows{actor: auditorCalled("oidc:x"), found: true}, &knows{}, []string{"Bearer a.b.c"}, false, 200, [2]int{1, 0}},
		{
			"a bad bearer beside a good certificate", &knows{err: bad}, &knows{actor: auditorCalled("x"), found: true},
			[]string{"Bearer a.b.c"},
			false, 401,
			[2]int{1, 0},
		},
		{
			"an unknown bearer beside a good certificate", &knows{}, &knows{actor: auditorCalled("x"), found: true},
			[]string{"Bearer a.b.c"},
			false,
			401,
			[2]int{1, 0},
		},
		{
			"another scheme beside a good certificate", &knows{}, &knows{actor: auditorCalled("x"), found: true},
			[]string{"Basic eDp5"},
			false, 401,
			[2]int{1, 0},
		},
		{
			"two headers beside a good certificate", &knows{}, &knows{actor: auditorCalled("x"), found: true},
			[]string{"Bearer a", "Bearer b"},
			false, 401,
			[2]int{0, 0},
		},
		{
			"an empty header beside a good certificate", &knows{}, &knows{actor: auditorCalled("x"), found: true},
			[]string{""},
			false, 401,
			[2]int{1, 0},
		},
		{"what is asked is away", &knows{}, &knows{err: ca.ErrUnavailable}, nil, false, 503, [2]int{0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSurface(t, func(cfg *Config) { cfg.Bearers, cfg.Ambient = []Authenticator{c.bearer}, []Authenticator{c.ambient} })
			r := httptest.NewRequest(http.MethodGet, "/api/v1/profiles", nil)
			r.Header["Authorization"] = c.header
			if c.token {
				r.Header.Set("Authorization", "Bearer "+s.tokens[access.Auditor])
			}
			w := httptest.NewRecorder()
			s.API().ServeHTTP(w, r)
			if w.Code != c.want || c.bearer.asked != c.asked[0] || c.ambient.asked != c.asked[1] {
				t.Errorf("%d, asked %d and %d times; want %d, %v: %s", w.Code, c.bearer.asked, c.ambient.asked, c.want, c.asked, w.Body)
			}
			if strings.Contains(w.Body.String(), "noon") {
				t.Error("the answer tells what is wrong with the credential")
			}
			if visited := len(s.office.visits) > 0; visited != (c.want == http.StatusOK) {
				t.Errorf("visits %v", s.office.visits)
			}
		})
	}
}

func TestTheGateComesFirst(t *testing.T) {
	open := false
	s := newSurface(t, func(c *Config) {
		c.Gate = func(*http.Request) error {
			if open {
				return nil
			}
			return &access.Unauthenticated{Detail: "a client certificate is needed here"}
		}
	})
	a := ask{path: "/api/v1/profiles", role: access.Auditor}
	wantProblem(t, s.call(a), http.StatusUnauthorized, "unauthenticated")
	if w := s.call(ask{path: "/api/v1/openapi.json"}); w.Code != http.StatusOK {
		t.Errorf("what is public: %d", w.Code)
	}
	open = true
	if w := s.call(a); w.Code != http.StatusOK {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

// TestAStolenTokenIsAsNone uses a token from a network that it may not be used from.
func TestAStolenTokenIsAsNone(t *testing.T) {
	from := netip.MustParseAddr("10.1.2.3")
	s := newSurface(t, func(c *Config) { c.ClientAddr = func(*http.Request) netip.Addr { return from } })
	for digest, actor := range s.ring.actors {
		actor.Scope.Networks = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		s.ring.actors[digest] = actor
	}
	a := ask{path: "/api/v1/profiles", role: access.Auditor}
	if w := s.call(a); w.Code != http.StatusOK || len(s.office.visits) != 1 || s.office.visits[0] != "actor-auditor 10.1.2.3" {
		t.Fatalf("from where it may: %d, %v", w.Code, s.office.visits)
	}
	unknown, _, err := access.NewToken(strings.NewReader(strings.Repeat("x", 64)))
	if err != nil {
		t.Fatal(err)
	}
	for _, elsewhere := range []netip.Addr{netip.MustParseAddr("192.0.2.9"), {}} {
		from = elsewhere
		stolen := wantProblem(t, s.call(a), http.StatusUnauthorized, "unauthenticated")
		guessed := wantProblem(t, s.call(ask{path: a.path}.with("Authorization", "Bearer "+unknown)), http.StatusUnauthorized, "unauthenticated")
		if stolen.Detail != guessed.Detail {
			t.Errorf("they differ: %q and %q", stolen.Detail, guessed.Detail)
		}
	}
	if len(s.office.visits) != 1 || len(s.office.strayed) != 2 || s.office.strayed[0] != "actor-auditor 192.0.2.9/32" {
		t.Errorf("visits %v, strayed %v", s.office.visits, s.office.strayed)
	}
}

// TestNobodyComesInUnseen holds that a visit which cannot be recorded is none.
func TestNobodyComesInUnseen(t *testing.T) {
	s := newSurface(t)
	s.office.closed = ca.ErrUnavailable
	wantProblem(t, s.call(ask{path: "/api/v1/profiles", role: access.Auditor}), http.StatusServiceUnavailable, "unavailable")
	if len(s.office.filters) > 0 {
		t.Error("the authority was asked")
	}
}

// TestGuessingLocksNobodyOut guesses until it is turned away, and holds that good credentials from the same address work all along.
func TestGuessingLocksNobodyOut(t *testing.T) {
	now, from := noon, netip.MustParseAddr("2001:db8:0:7::1")
	s := newSurface(t, func(c *Config) {
		c.Now = func() time.Time { return now }
		c.ClientAddr = func(*http.Request) netip.Addr { return from }
	})
	unknown, _, err := access.NewToken(strings.NewReader(strings.Repeat("x", 64)))
	if err != nil {
		t.Fatal(err)
	}
	guess := func() int { return s.call(ask{path: "/api/v1/profiles"}.with("Authorization", "Bearer "+unknown)).Code }
	good := func() int { return s.call(ask{path: "/api/v1/profiles", role: access.Auditor}).Code }
	for n := range 3 * failuresAtOnce {
		from = netip.MustParseAddr("2001:db8:0:7::1")
		if n%2 == 1 {
			from = netip.MustParseAddr("2001:db8:0:7::2") // the same site
		}
		want := http.StatusUnauthorized
		if n >= failuresAtOnce {
			want = http.StatusTooManyRequests
		}
		if got := guess(); got != want {
			t.Fatalf("guess %d: %d, want %d", n, got, want)
		}
		if got := good(); got != http.StatusOK {
			t.Fatalf("a good token after %d guesses from its address: %d", n, got)
		}
		if got := s.call(ask{path: "/api/v1/profiles"}).Code; got != http.StatusUnauthorized {
			t.Fatalf("no credentials are no guess: %d", got)
		}
	}
	w := s.call(ask{path: "/api/v1/profiles"}.with("Authorization", "Bearer "+unknown))
	wantProblem(t, w, http.StatusTooManyRequests, "too-many-requests")
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	if len(s.office.guessers) != 1 || s.office.guessers[0] != "2001:db8:0:7::/64" {
		t.Errorf("events of %v, want one of the site", s.office.guessers)
	}
	from = netip.MustParseAddr("2001:db8:0:8::1")
	if got := guess(); got != http.StatusUnauthorized {
		t.Errorf("another site: %d", got)
	}
	from, now = netip.MustParseAddr("2001:db8:0:7::1"), noon.Add(time.Second)
	if got := guess(); got != http.StatusUnauthorized {
		t.Errorf("a second later: %d", got)
	}
	if got := guess(); got != http.StatusTooManyRequests || len(s.office.guessers) != 1 {
		t.Errorf("and again: %d, %v", got, s.office.guessers)
	}
	now = noon.Add(2 * guessingLasts)
	for range failuresAtOnce + 1 {
		guess()
	}
	if len(s.office.guessers) != 2 {
		t.Errorf("events of %v, want a second one hours later", s.office.guessers)
	}
}
