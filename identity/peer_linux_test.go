package identity

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
)

func TestWhoIsAtTheOtherEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	uid := strconv.Itoa(os.Getuid())
	peers := Peers{Now: time.Now, Rules: access.Rules{
		{
			Name: "me", Means: access.ByPeer, Match: map[string][]string{"uid": {uid}, "gid": {strconv.Itoa(os.Getgid())}}, Namespace: "*",
			Roles: []access.Role{access.Auditor},
		},
		{Name: "glass", Means: access.ByPeer, Match: map[string][]string{"uid": {uid}}, Namespace: "*", Roles: access.Roles(), Emergency: true},
	}}
	type outcome struct {
		actor access.Actor
		found bool
		err   error
	}
	outcomes := make(chan outcome, 1)
	server := &http.Server{ConnContext: PeerContext, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var o outcome
		o.actor, o.found, o.err = peers.Authenticate(r)
		if !IsLocal(r) {
			o.err = errors.New("it is not local")
		}
		outcomes <- o
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()
	call := func(header ...string) outcome {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
		defer client.CloseIdleConnections()
		r, err := http.NewRequest(http.MethodGet, "http://local/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header[HeaderEmergency] = header
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return <-outcomes
	}
	if o := call(); o.err != nil || !o.found || len(o.actor.Roles) != 1 || !strings.HasPrefix(o.actor.ID, "local:") ||
		o.actor.Emergency != "" {
		t.Errorf("on an ordinary day: %+v", o)
	}
	if o := call(); !o.actor.Unnamed() {
		t.Errorf("nobody has said who it is, and it is %q", o.actor.Person)
	}
	peers.Persons = map[string]string{strings.TrimPrefix(call().actor.ID, "local:"): "ada"}
	for _, reason := range [][]string{nil, {"the provider is down"}} {
		if o := call(reason...); o.actor.Person != "ada" || o.actor.Unnamed() {
			t.Errorf("who is known by the user is %q", o.actor.Person)
		}
	}
	if o := call("the provider is down"); o.err != nil || !o.found || len(o.actor.Roles) != len(access.Roles()) ||
		o.actor.Emergency != "the provider is down" {
		t.Errorf("in an emergency: %+v", o)
	}
	for _, bad := range [][]string{{""}, {strings.Repeat("x", 501)}, {"a", "b"}, {"a\tb"}} {
		if o := call(bad...); o.err == nil || o.found {
			t.Errorf("%q is no reason: %+v", bad, o)
		}
	}
	peers.Rules = peers.Rules[:0]
	if o := call(); o.err == nil || o.found {
		t.Errorf("without a rule: %+v", o)
	}
	r, err := http.NewRequest(http.MethodGet, "https://elsewhere/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := peers.Authenticate(r); found || err != nil {
		t.Errorf("of a caller that is not local: %v, %v", found, err)
	}
}

// within stands for a connection that a listener's limit counts.
type within struct{ net.Conn }

func (w within) NetConn() net.Conn { return w.Conn }

// TestWhoIsAtTheOtherEndOfACountedConnection: the limit on connections hides nobody.
func TestWhoIsAtTheOtherEndOfACountedConnection(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at, isLocal := PeerContext(t.Context(), within{conn}).Value(peerKey{}).(*peer)
	if !isLocal || at.err != nil || int(at.uid) != os.Getuid() {
		t.Errorf("got %+v, %v", at, isLocal)
	}
}

// Who is taken out of a group does not go on by a connection that is kept open.
func TestGroupsAreLookedUpAgain(t *testing.T) {
	now := noon
	peers := Peers{Now: func() time.Time { return now }, Rules: access.Rules{{
		Name: "admins", Means: access.ByPeer, Match: map[string][]string{"group": {"one that nobody is in"}}, Namespace: "*",
		Roles: []access.Role{access.Operator},
	}}}
	facts := map[string][]string{"group": {"one that nobody is in"}} // as was true when the connection was made
	for after, in := range map[time.Duration]bool{59 * time.Second: true, time.Minute: false, -time.Second: false} {
		kept := peer{uid: uint32(os.Getuid()), gid: uint32(os.Getgid()), asked: noon, name: "ada", facts: facts}
		now = noon.Add(after)
		actor, found, err := peers.Authenticate((&http.Request{}).WithContext(context.WithValue(t.Context(), peerKey{}, &kept)))
		if found != in || (err == nil) != in {
			t.Errorf("after %s: %+v, %v, %v", after, actor, found, err)
		}
	}
}
