package web

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
)

// CRLList is where the CRLs of an authority stand.
type CRLList struct {
	CRLs []CRLState `json:"crls"`
}

// CRLState is where the CRL of a scope stands.
type CRLState struct {
	Scope      string     `json:"scope" doc:"full, or the number of a shard"`
	Number     string     `json:"number,omitempty" doc:"Decimal; left out before the first CRL"`
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	Entries    int        `json:"entries"`
	Size       int        `json:"size" doc:"Octets"`
	Delta      string     `json:"delta,omitempty" doc:"The number of the delta CRL, decimal; left out where there is none"`
	Pending    int        `json:"pending" doc:"Revocations that no complete CRL shows yet"`
}

// CRLRequest says which CRL is wanted now.
type CRLRequest struct {
	Scope string `json:"scope,omitempty" maxLength:"20" doc:"full, or the number of a shard; left out: all scopes of the authority"`
}

type publishCRLInput struct {
	Name string `path:"name"`
}

type crlListAnswer struct{ Body CRLList }

func (s *Server) routePublishCRL(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/authorities/{name}/crl", id: "publish-crl", tag: tagAuthorities, success: http.StatusOK,
		summary: "Publish CRLs now",
		description: "Makes a new complete CRL of a scope of the authority, or of all, due or not, and tells where they stand then. Where one " +
			"was made so within ten seconds, and nothing was revoked since, that one stays.",
		bodies:   []media{{name: typeJSON, json: CRLRequest{}}},
		answers:  []media{{name: typeJSON, json: CRLList{}}},
		problems: append([]int{http.StatusNotFound}, requestProblems...),
	}, s.publishCRL)
}

func (s *Server) publishCRL(ctx context.Context, in *publishCRLInput) (*crlListAnswer, error) {
	if !nameable(in.Name) {
		return nil, ca.ErrNotFound
	}
	var body CRLRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	states, err := s.ca.PublishNow(ctx, exchangeOf(ctx).actor, in.Name, body.Scope)
	if err != nil {
		return nil, err
	}
	list := CRLList{CRLs: make([]CRLState, len(states))}
	for i, state := range states {
		shown := CRLState{Scope: state.Scope, Entries: state.Entries, Size: state.Octets, Pending: state.Pending}
		if state.Number != nil {
			from, to := state.ThisUpdate.UTC(), state.NextUpdate.UTC()
			shown.Number, shown.ThisUpdate, shown.NextUpdate = state.Number.String(), &from, &to
		}
		if state.Delta != nil {
			shown.Delta = state.Delta.String()
		}
		list.CRLs[i] = shown
	}
	return &crlListAnswer{Body: list}, nil
}
