package web

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// NamespaceRequest is what a namespace shall be.
type NamespaceRequest struct {
	DNS      []string `json:"dns,omitempty" example:"[\"team.example\"]" doc:"Domains: each owns itself and everything under it"`
	IP       []string `json:"ip,omitempty" example:"[\"10.1.0.0/16\"]" doc:"Prefixes of addresses"`
	Email    []string `json:"email,omitempty" example:"[\"team.example\"]" doc:"Mail domains"`
	URI      []string `json:"uri,omitempty" example:"[\"spiffe://team.example\"]" doc:"URI prefixes, and SPIFFE trust domains"`
	Subjects []string `json:"subjects,omitempty" doc:"Organisations that may stand in a subject"`
	Profiles []string `json:"profiles,omitempty" doc:"Profiles that may be used; left out: every one that is not restricted"`
	Quotas   []Quota  `json:"quotas,omitempty" doc:"How many certificates it gets at most"`
	Rates    []Rate   `json:"rates,omitempty" doc:"How fast it may ask, for each replica"`
}

// Quota bounds certificates in any span of a length.
type Quota struct {
	Profile      string `json:"profile,omitempty" doc:"Under this profile; left out: under all together"`
	Certificates int    `json:"certificates" example:"1000"`
	Per          string `json:"per" example:"24h"`
}

// Rate bounds requests: so many in a span on average, and at once.
type Rate struct {
	Profile  string `json:"profile,omitempty" doc:"Under this profile; left out: under all together"`
	Requests int    `json:"requests" example:"50"`
	Per      string `json:"per" example:"1m"`
}

// Namespace is a team's share of the name space, as it was set at one time.
type Namespace struct {
	Name string `json:"name"`
	NamespaceRequest
	Version    int       `json:"version" doc:"1 for the first"`
	Source     string    `json:"source" enum:"file,api" doc:"One of the configuration file is changed there alone"`
	Removed    bool      `json:"removed,omitempty" doc:"Nothing is issued in it any more"`
	ChangedBy  string    `json:"changed_by" doc:"The credential's ID"`
	ChangedAt  time.Time `json:"changed_at"`
	AuditEvent string    `json:"audit_event"`
}

// NamespaceList is every namespace that the caller may see.
type NamespaceList struct {
	Namespaces []Namespace `json:"namespaces"`
}

// NamespaceHistory is a namespace with all its versions, latest first.
type NamespaceHistory struct {
	Namespace
	History []Namespace `json:"history" doc:"Every version, the latest among them"`
}

type namespacesAnswer struct{ Body NamespaceList }

func (s *Server) routeNamespaces(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/namespaces", id: "list-namespaces", tag: tagNamespaces, success: http.StatusOK,
		summary: "Read the namespaces", description: "The caller's own, or all, where the caller acts in all.",
		answers: []media{{name: typeJSON, json: NamespaceList{}}},
	}, s.namespaces)
}

func (s *Server) namespaces(ctx context.Context, _ *struct{}) (*namespacesAnswer, error) {
	all, err := s.ca.Namespaces(ctx, exchangeOf(ctx).actor)
	if err != nil {
		return nil, err
	}
	list := NamespaceList{Namespaces: []Namespace{}}
	for _, v := range all {
		list.Namespaces = append(list.Namespaces, showNamespace(v))
	}
	return &namespacesAnswer{Body: list}, nil
}

type namespaceInput struct {
	Name string `path:"name" doc:"Lower-case letters, digits and hyphens"`
}

type namespaceHistoryAnswer struct{ Body NamespaceHistory }

func (s *Server) routeNamespace(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/namespaces/{name}", id: "get-namespace", tag: tagNamespaces, success: http.StatusOK,
		summary: "Read a namespace", description: "Gives what it is now, and every version that it had.",
		answers:  []media{{name: typeJSON, json: NamespaceHistory{}}},
		problems: []int{http.StatusNotFound},
	}, s.namespace)
}

func (s *Server) namespace(ctx context.Context, in *namespaceInput) (*namespaceHistoryAnswer, error) {
	if !nameable(in.Name) {
		return nil, ca.ErrNotFound
	}
	history, err := s.ca.NamespaceHistory(ctx, exchangeOf(ctx).actor, in.Name)
	if err != nil {
		return nil, err
	}
	out := &namespaceHistoryAnswer{}
	for _, v := range history {
		out.Body.History = append(out.Body.History, showNamespace(v))
	}
	out.Body.Namespace = out.Body.History[0]
	return out, nil
}

type changeNamespaceInput struct {
	Name  string `path:"name" doc:"Lower-case letters, digits and hyphens"`
	After string `query:"after" pattern:"^[0-9]{1,9}$" doc:"The version that was seen, 0 for none; left out: whatever holds"`
}

type namespaceAnswer struct{ Body Namespace }

const namespaceHolds = "It holds on this replica at once, and on the others within two seconds."

func (s *Server) routeSetNamespace(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPut, path: "/namespaces/{name}", id: "set-namespace", tag: tagNamespaces, success: http.StatusOK,
		summary: "Set a namespace", description: "Makes it exactly what is sent, or adds it. " + namespaceHolds,
		bodies:   []media{{name: typeJSON, json: NamespaceRequest{}}},
		answers:  []media{{name: typeJSON, json: Namespace{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, s.setNamespace)
}

func (s *Server) setNamespace(ctx context.Context, in *changeNamespaceInput) (*namespaceAnswer, error) {
	var body NamespaceRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	n, violations := body.read(in.Name)
	after, v := readAfter(in.After)
	if violations = append(violations, v...); len(violations) > 0 {
		return nil, refusal(violations...)
	}
	set, err := s.ca.SetNamespace(ctx, exchangeOf(ctx).actor, n, after)
	if err != nil {
		return nil, err
	}
	return &namespaceAnswer{Body: showNamespace(set)}, nil
}

func (s *Server) routeRemoveNamespace(api huma.API) error {
	return route(s, api, call{
		method: http.MethodDelete, path: "/namespaces/{name}", id: "remove-namespace", tag: tagNamespaces, success: http.StatusOK,
		summary:     "Remove a namespace",
		description: "Nothing is issued in it any more; its certificates and its history stay. " + namespaceHolds,
		answers:     []media{{name: typeJSON, json: Namespace{}}},
		problems:    []int{http.StatusNotFound, http.StatusConflict},
	}, s.removeNamespace)
}

func (s *Server) removeNamespace(ctx context.Context, in *changeNamespaceInput) (*namespaceAnswer, error) {
	if !nameable(in.Name) {
		return nil, ca.ErrNotFound
	}
	after, violations := readAfter(in.After)
	if len(violations) > 0 {
		return nil, refusal(violations...)
	}
	removed, err := s.ca.RemoveNamespace(ctx, exchangeOf(ctx).actor, in.Name, after)
	if err != nil {
		return nil, err
	}
	return &namespaceAnswer{Body: showNamespace(removed)}, nil
}

func readAfter(text string) (after int, violations []policies.Violation) {
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, []policies.Violation{broken("after", "send the version as it was shown", "the version is not a number")}
	}
	return int(n), nil
}

// read makes a namespace of what came, and reports what is wrong with its form.
func (r NamespaceRequest) read(name string) (n access.Namespace, violations []policies.Violation) {
	n = access.Namespace{Name: name, DNS: r.DNS, Email: r.Email, URI: r.URI, Subjects: r.Subjects, Profiles: r.Profiles}
	for i, text := range r.IP {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			violations = append(violations, broken(fmt.Sprintf("ip[%d]", i), "write a prefix such as 10.1.0.0/16", "it is not a prefix of addresses"))
		}
		n.IP = append(n.IP, prefix)
	}
	span := func(field, text string) time.Duration {
		d, err := parseValidity(text)
		if err != nil {
			violations = append(violations, broken(field, "write for example 24h or 30d", err.Error()))
		}
		return d
	}
	for i, q := range r.Quotas {
		n.Quotas = append(n.Quotas, access.Quota{Profile: q.Profile, Certificates: q.Certificates, Per: span(fmt.Sprintf("quotas[%d].per", i), q.Per)})
	}
	for i, l := range r.Rates {
		n.Rates = append(n.Rates, access.Rate{Profile: l.Profile, Requests: l.Requests, Per: span(fmt.Sprintf("rates[%d].per", i), l.Per)})
	}
	return n, violations
}

func showNamespace(v ca.NamespaceVersion) Namespace {
	shown := Namespace{
		Name: v.Name, Version: v.Version, Source: v.Source, Removed: v.Removed, ChangedBy: v.Actor, ChangedAt: v.At.UTC(), AuditEvent: v.EventID,
		NamespaceRequest: NamespaceRequest{DNS: v.DNS, Email: v.Email, URI: v.URI, Subjects: v.Subjects, Profiles: v.Profiles},
	}
	for _, p := range v.IP {
		shown.IP = append(shown.IP, p.String())
	}
	for _, q := range v.Quotas {
		shown.Quotas = append(shown.Quotas, Quota{Profile: q.Profile, Certificates: q.Certificates, Per: showSpan(q.Per)})
	}
	for _, r := range v.Rates {
		shown.Rates = append(shown.Rates, Rate{Profile: r.Profile, Requests: r.Requests, Per: showSpan(r.Per)})
	}
	return shown
}

// showSpan writes a span as it is read: in the largest unit of which it is a whole number.
func showSpan(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d%unit.length == 0 {
			return strconv.FormatInt(int64(d/unit.length), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
