package web

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/access"
)

// TestOneNamespaceLeavesRoom: while one namespace has as many calls under way as it may, another's is answered.
func TestOneNamespaceLeavesRoom(t *testing.T) {
	const places = 4
	s := newSurface(t, func(c *Config) { c.InFlight = places })
	other, digest, err := access.NewToken(zeros{})
	if err != nil {
		t.Fatal(err)
	}
	s.ring.actors[digest] = access.Actor{ID: "other", Namespace: "other", Roles: []access.Role{access.Requester}}
	arrived, free := make(chan struct{}), make(chan struct{})
	s.office.busy = func() { arrived <- struct{}{}; <-free }
	profiles := ask{path: "/api/v1/profiles", role: access.Requester}
	var calls sync.WaitGroup
	for range places / 2 {
		calls.Go(func() {
			if w := s.call(profiles); w.Code != http.StatusOK {
				t.Errorf("a call of the share: %d", w.Code)
			}
		})
		<-arrived
	}
	w := s.call(profiles)
	wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	if w.Header().Get("Retry-After") == "" {
		t.Error("nobody says when to come back")
	}
	answered := make(chan *httptest.ResponseRecorder)
	go func() { answered <- s.call(ask{path: profiles.path}.with("Authorization", "Bearer "+other)) }()
	<-arrived
	close(free)
	if w := <-answered; w.Code != http.StatusOK {
		t.Errorf("another namespace's call: %d %s", w.Code, w.Body)
	}
	calls.Wait()
	s.office.busy = nil
	if w := s.call(profiles); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d", w.Code)
	}
	if len(s.shares.held) != 0 {
		t.Errorf("it counts %v as under way", s.shares.held)
	}
}

// zeros is randomness for a token that nobody else has.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
