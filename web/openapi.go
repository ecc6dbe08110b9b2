package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
)

// newOpenAPI makes the API that routes are registered with. The OpenAPI document is made of what is registered, and of nothing else.
func (s *Server) newOpenAPI(router chi.Router) huma.API {
	asJSON := huma.Format{Marshal: writeJSON, Unmarshal: decodeStrict}
	return humachi.New(router, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Chancery", Version: s.version, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
				Description: "A certificate authority whose keys stay in a hardware security module. Every answer that is not a success is a " +
					"problem (RFC 9457) with a stable type; a refused request carries every rule broken and how to satisfy it.",
			},
			Tags: []*huma.Tag{
				{Name: tagCertificates, Description: "Certificates: ask for one, read, search, revoke"},
				{Name: tagRevocations, Description: "Revocations of many certificates by one order"},
				{Name: tagRequests, Description: "Requests that need the approval of persons"},
				{Name: tagNamespaces, Description: "Namespaces: what teams own and may use, with quotas and rates"},
				{Name: tagProfiles, Description: "Profiles: what can be asked for, and what would come of it"},
				{Name: tagPolicies, Description: "Policies: which rule, which ruled, and how others come to rule"},
				{Name: tagOrders, Description: "Orders for what cannot be undone, which persons approve"},
				{Name: tagAuthorities, Description: "Authorities: the hierarchy, its keys and its CRLs"},
				{Name: tagAudit, Description: "The audit log: events, checkpoints, proofs and receipts"},
				{Name: tagTokens, Description: "API tokens: create, rotate, withdraw, and see when they were last used"},
				{Name: tagLogin, Description: "Who calls, and where people sign in"},
				{Name: tagConsole, Description: "The console: pages for people, in a browser"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":       {Type: "http", Scheme: "bearer", Description: "An API token, which begins with " + access.TokenPrefix},
					"certificate": {Type: "mutualTLS", Description: "A client certificate, where the configuration says who comes in by one"},
				},
			},
		},
		Formats:       map[string]huma.Format{typeJSON: asJSON, "json": asJSON}, // the second is huma's name for all that ends in +json
		DefaultFormat: typeJSON,
		Transformers:  []huma.Transformer{s.foreignErrors},
	})
}

const (
	tagCertificates = "certificates"
	tagRevocations  = "revocations"
	tagRequests     = "requests"
	tagNamespaces   = "namespaces"
	tagProfiles     = "profiles"
	tagAuthorities  = "authorities"
	tagPolicies     = "policies"
	tagOrders       = "orders"
	tagAudit        = "audit"
	tagTokens       = "tokens"
	tagConsole      = "console"
	tagLogin        = "login"
)

// foreignErrors turns errors that huma itself makes into problems. What it would echo of the request is left out.
func (s *Server) foreignErrors(ctx huma.Context, _ string, v any) (any, error) {
	foreign, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(kindMalformed, foreign.Detail)
	p.Status, p.Instance = foreign.Status, instance(ctx.Context())
	return p, nil
}

// call is one route of the API, as code and document need it.
type call struct {
	method, path string // path without the version
	id           string
	summary      string
	description  string
	tag          string
	success      int
	bodies       []media // of the request, when it has one
	answers      []media // of the answer; the first is what callers get who do not care
	accepted     []media // of an answer 202, where a call can have one
	problems     []int   // statuses besides those that every call can answer with
	maxBody      int64   // octets of its body; 0: the service's limit
	places       *places // one for each of these calls, from before its body is read until it is answered; nil: they are not counted
}

// media is a media type with what it holds: a JSON type, or nil for text and octets.
type media struct {
	name string
	json any
	text string // what it holds, where that is not JSON
}

const (
	bodiesOf  = "bodies"
	answersOf = "answers"
	maxBodyOf = "max-body"
	placesOf  = "places"
)

func acceptedBodies(op *huma.Operation) []string { return mediaNames(op, bodiesOf) }
func offeredAnswers(op *huma.Operation) []string { return mediaNames(op, answersOf) }

func mediaNames(op *huma.Operation, which string) []string {
	names, _ := op.Metadata[which].([]string)
	return names
}

// route registers a call with its handler. It refuses one that the table of permissions does not have.
func route[I, O any](s *Server, api huma.API, c call, handler func(context.Context, *I) (*O, error)) error {
	path := pattern(c.path)
	action, listed := permissions[c.method+" "+path]
	if !listed {
		return unlisted(c.method, path)
	}
	schemas := api.OpenAPI().Components.Schemas
	op := huma.Operation{
		OperationID: c.id, Method: c.method, Path: path, Summary: c.summary, Tags: []string{c.tag}, DefaultStatus: c.success,
		Description:        c.description,
		SkipValidateParams: true, // the handlers read parameters themselves, to tell which rule is broken and how to mend it
		Metadata:           map[string]any{bodiesOf: names(c.bodies), answersOf: names(c.answers), maxBodyOf: c.maxBody, placesOf: c.places},
		Responses: map[string]*huma.Response{
			strconv.Itoa(c.success): {Description: http.StatusText(c.success), Content: content(schemas, c.answers)},
		},
	}
	if action != public {
		op.Description += fmt.Sprintf("\n\nNeeds a role that allows `%s`: %s.", action, holders(action))
		op.Security = []map[string][]string{{"token": {}}, {"certificate": {}}}
		op.Extensions = map[string]any{"x-chancery-action": action, "x-chancery-roles": access.Holders(action)}
	}
	if len(c.accepted) > 0 {
		op.Responses["202"] = &huma.Response{Description: http.StatusText(http.StatusAccepted), Content: content(schemas, c.accepted)}
	}
	for _, status := range append([]int{400, 401, 403, 406, 429, 500, 503}, c.problems...) {
		described := content(schemas, []media{{name: problemType, json: Problem{}}})
		described[problemType].Example = exampleOf(status)
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: described}
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
	if len(c.bodies) > 0 {
		// The body is documented after the registration, so that it is this room's reader that reads it, and not huma's.
		of := api.OpenAPI().Paths[path]
		operation := of.Post
		if c.method == http.MethodPut {
			operation = of.Put
		}
		operation.RequestBody = &huma.RequestBody{Required: true, Content: content(schemas, c.bodies)}
	}
	return nil
}

// holders are the roles that may do something, in words.
func holders(action access.Action) string {
	var all []string
	for _, r := range access.Holders(action) {
		all = append(all, string(r))
	}
	return strings.Join(all, ", ")
}

func names(all []media) []string {
	list := make([]string, len(all))
	for i, m := range all {
		list[i] = m.name
	}
	return list
}

func content(schemas huma.Registry, all []media) map[string]*huma.MediaType {
	types := map[string]*huma.MediaType{}
	for _, m := range all {
		schema := &huma.Schema{Type: huma.TypeString, Description: m.text}
		if m.json != nil {
			schema = schemas.Schema(reflect.TypeOf(m.json), true, "")
		}
		types[m.name] = &huma.MediaType{Schema: schema}
	}
	return types
}

// Empty is the body of a call that takes nothing: an object without members. It has a name because a schema needs one.
type Empty struct{}

// answer is a success in one of several media types.
type answer struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Body        []byte
}

// jsonAnswer is an answer of a call that has other media types as well.
func jsonAnswer(v any) (*answer, error) {
	var body bytes.Buffer
	if err := writeJSON(&body, v); err != nil {
		return nil, err
	}
	return &answer{ContentType: typeJSON, Body: body.Bytes()}, nil
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
