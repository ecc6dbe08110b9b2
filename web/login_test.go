package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
)

func TestWhereToLogInIsToldToEverybody(t *testing.T) {
	none := newSurface(t).call(ask{path: "/api/v1/login"})
	if none.Code != http.StatusOK || strings.TrimSpace(none.Body.String()) != `{"providers":[]}` {
		t.Errorf("without providers: %d %s", none.Code, none.Body)
	}
	given := LoginProvider{
		Issuer: "https://id.example", ClientID: "chancery-cli", Scopes: []string{"email"}, Bearer: "access_token", Roots: "PEM",
	}
	s := newSurface(t, func(c *Config) { c.Providers = []LoginProvider{given} })
	list := decode[LoginProviderList](t, s.call(ask{path: "/api/v1/login"}), http.StatusOK)
	if len(list.Providers) != 1 || list.Providers[0].Issuer != given.Issuer || list.Providers[0].ClientID != given.ClientID ||
		list.Providers[0].Roots != "PEM" {
		t.Errorf("told %+v", list)
	}
}

func TestWhoAmI(t *testing.T) {
	s := newSurface(t)
	for digest, actor := range s.ring.actors {
		if slices.Contains(actor.Roles, access.Requester) {
			actor.Name, actor.Person, actor.Groups = "ci of web", "ada", []string{"web"}
			actor.Scope = access.Scope{Profiles: []string{"tls-server"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
			s.ring.actors[digest] = actor
		}
	}
	s.clientAddr = func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
	who := decode[Caller](t, s.call(ask{path: "/api/v1/whoami", role: access.Requester}), http.StatusOK)
	if who.ID != "actor-requester" || who.Name != "ci of web" || who.Person != "ada" || who.Namespace != "dev" ||
		!slices.Equal(who.Roles, []string{"requester"}) || !slices.Equal(who.Groups, []string{"web"}) ||
		!slices.Equal(who.Profiles, []string{"tls-server"}) || !slices.Equal(who.Networks, []string{"192.0.2.0/24"}) {
		t.Errorf("told %+v", who)
	}
}
