package web

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/access"
)

// Caller is who a caller is to this service.
type Caller struct {
	ID        string   `json:"id" doc:"Of the credential, as the audit log names it"`
	Name      string   `json:"name"`
	Person    string   `json:"person" doc:"Who stands behind the credential: two credentials of one person are one approver"`
	Namespace string   `json:"namespace" doc:"Where the caller acts; * is everywhere"`
	Roles     []string `json:"roles"`
	Groups    []string `json:"groups,omitempty"`
	Profiles  []string `json:"profiles,omitempty" doc:"The only ones that the credential may be used for; left out: every one of the namespace"`
	Networks  []string `json:"networks,omitempty" doc:"The only ones that the credential may be used from; left out: every one"`
}

type callerAnswer struct{ Body Caller }

func (s *Server) routeWhoAmI(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/whoami", id: "who-am-i", tag: tagLogin, success: http.StatusOK,
		summary: "Read who you are here", description: "Gives the caller's identity, namespace and roles, as each call is judged by them.",
		answers: []media{{name: typeJSON, json: Caller{}}},
	}, s.whoAmI)
}

func (s *Server) whoAmI(ctx context.Context, _ *struct{}) (*callerAnswer, error) {
	actor := exchangeOf(ctx).actor
	if err := access.Authorize(actor, access.ReadSelf, access.Resource{Namespace: actor.Namespace, Kind: "caller", ID: actor.ID}); err != nil {
		return nil, err
	}
	c := Caller{
		ID: actor.ID, Name: actor.Name, Person: actor.Person, Namespace: actor.Namespace, Roles: make([]string, len(actor.Roles)),
		Groups: actor.Groups, Profiles: actor.Scope.Profiles,
	}
	for i, role := range actor.Roles {
		c.Roles[i] = string(role)
	}
	for _, n := range actor.Scope.Networks {
		c.Networks = append(c.Networks, n.String())
	}
	return &callerAnswer{Body: c}, nil
}
