package identity

import (
	"context"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/chancery-ca/chancery/access"
)

// HeaderEmergency is the header by which a local caller breaks the glass. It holds why.
const HeaderEmergency = "Chancery-Emergency"

const maxReason = 500 // octets

type peerKey struct{}

// peer is the process at the other end of a Unix socket, as the kernel noted it when the connection was made.
type peer struct {
	uid, gid uint32
	err      error // instead: the kernel did not say

	mu    sync.Mutex
	asked time.Time // when the names and groups were last looked up; zero: they were not
	name  string
	facts map[string][]string // they do not change: others take their place
}

// PeerContext is for http.Server.ConnContext of a Unix socket's listener: it has Peers know who is at the other end. A connection may stand
// in another that has it as its NetConn.
func PeerContext(ctx context.Context, conn net.Conn) context.Context {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = outer.NetConn()
	}
	unix, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		return ctx
	}
	p := &peer{}
	p.uid, p.gid, p.err = credentials(unix)
	return context.WithValue(ctx, peerKey{}, p)
}

// IsLocal tells whether a request came over a Unix socket of this machine.
func IsLocal(r *http.Request) bool { return r.Context().Value(peerKey{}) != nil }

// askAfter is how long the names and groups of a user are taken as they were: who is taken out of a group must not go on by a connection that
// is kept open.
const askAfter = time.Minute

// Peers knows the local callers of a Unix socket by their user and groups.
type Peers struct {
	Rules access.Rules
	Now   func() time.Time
	// Persons says which person a user of this machine is, whatever the rules say: one who works at the keyboard too is one person.
	Persons map[string]string
}

// Authenticate finds who calls by the user that the process at the other end runs as.
func (p Peers) Authenticate(r *http.Request) (access.Actor, bool, error) {
	at, isLocal := r.Context().Value(peerKey{}).(*peer)
	if !isLocal {
		return access.Actor{}, false, nil
	}
	if at.err != nil {
		return access.Actor{}, false, &access.Unauthenticated{Detail: "who calls is unknown", Cause: at.err}
	}
	reason, err := emergency(r)
	if err != nil {
		return access.Actor{}, false, err
	}
	name, facts := at.known(p.Now())
	actor, ok := p.Rules.Identify(access.Evidence{Means: access.ByPeer, Subject: name, Name: name, Facts: facts, Emergency: reason})
	if !ok {
		detail := "no rule of the configuration lets your user in here"
		if reason != "" {
			detail = "no rule of the configuration lets your user break the glass"
		}
		return access.Actor{}, false, &access.Unauthenticated{Detail: detail, Shown: true}
	}
	if person := p.Persons[name]; person != "" {
		actor.Person = person
	}
	return actor, true, nil
}

// emergency reads why the glass is broken; empty: it is not.
func emergency(r *http.Request) (string, error) {
	values := r.Header.Values(HeaderEmergency)
	if len(values) == 0 {
		return "", nil
	}
	reason := strings.TrimSpace(values[0])
	if len(values) > 1 || reason == "" || len(reason) > maxReason ||
		strings.ContainsFunc(reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return "", &access.Unauthenticated{Detail: "say in " + HeaderEmergency + " in one line why the glass is broken"}
	}
	return reason, nil
}

// known is the name of the user, with the facts of it, looked up not long ago.
func (p *peer) known(now time.Time) (name string, facts map[string][]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked.IsZero() || now.Sub(p.asked) >= askAfter || now.Before(p.asked) {
		p.name, p.facts = p.look()
		p.asked = now
	}
	return p.name, p.facts
}

// look finds the names of the user and its groups. A user without a name is known by its number.
func (p *peer) look() (name string, facts map[string][]string) {
	uid, gid := strconv.FormatUint(uint64(p.uid), 10), strconv.FormatUint(uint64(p.gid), 10)
	name, facts = "uid-"+uid, map[string][]string{"uid": {uid}, "gid": {gid}}
	u, err := user.LookupId(uid)
	if err != nil {
		return name, facts
	}
	name, facts["user"] = u.Username, []string{u.Username}
	gids := []string{gid}
	if others, err := u.GroupIds(); err == nil {
		for _, g := range others {
			if g != gid {
				gids = append(gids, g)
			}
		}
	}
	facts["gid"] = gids
	for _, g := range gids {
		if group, err := user.LookupGroupId(g); err == nil {
			facts["group"] = append(facts["group"], group.Name)
		}
	}
	return name, facts
}
