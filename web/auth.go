package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// public marks a route that needs no credentials.
const public access.Action = ""

// permissions is the table of the API's routes and of what an actor must be allowed to do to use each. A route that does not stand here
// cannot be registered. The authority asks access itself, with the resource in hand, and records every refusal; the table says which
// question it will ask, and a test holds it to that.
var permissions = map[string]access.Action{
	"POST /api/v1/certificates":                        access.IssueCertificate,
	"POST /api/v1/certificates:batch":                  access.IssueCertificate,
	"GET /api/v1/certificates":                         access.ReadCertificate,
	"GET /api/v1/certificates/{serial}":                access.ReadCertificate,
	"POST /api/v1/certificates/{serial}/revoke":        access.RevokeCertificate,
	"POST /api/v1/certificates/{serial}/revoke-by-key": public, // the certificate's key is the right to do it
	"POST /api/v1/revocations":                         access.RevokeCertificate,
	"GET /api/v1/revocations":                          access.ReadRevocation,
	"GET /api/v1/revocations/{job}":                    access.ReadRevocation,
	"POST /api/v1/revocations/{job}/approve":           access.ApproveRevocation,
	"POST /api/v1/revocations/{job}/reject":            access.ApproveRevocation,
	"POST /api/v1/revocations/{job}/cancel":            access.RevokeCertificate,
	"GET /api/v1/requests":                             access.ReadRequest,
	"GET /api/v1/requests/{id}":                        access.ReadRequest,
	"POST /api/v1/requests/{id}/approve":               access.ApproveRequest,
	"POST /api/v1/requests/{id}/reject":                access.ApproveRequest,
	"GET /api/v1/namespaces":                           access.ReadNamespace,
	"GET /api/v1/namespaces/{name}":                    access.ReadNamespace,
	"PUT /api/v1/namespaces/{name}":                    access.ChangeNamespace,
	"DELETE /api/v1/namespaces/{name}":                 access.ChangeNamespace,
	"GET /api/v1/profiles":                             access.ReadProfile,
	"GET /api/v1/profiles/{name}":                      access.ReadProfile,
	"POST /api/v1/profiles/{name}/evaluate":            access.EvaluateProfile,
	"GET /api/v1/authorities":                          access.ReadAuthority,
	"GET /api/v1/authorities/{name}":                   access.ReadAuthority,
	"POST /api/v1/authorities/{name}/crl":              access.PublishCRL,
	"GET /api/v1/openapi.json":                         public,
	"GET /api/v1/docs":                                 public,
	"GET /api/v1/docs/{file}":                          public,
	"GET /api/v1/policies":                             access.ReadPolicy,
	"GET /api/v1/policies/{digest}":                    access.ReadPolicy,
	"POST /api/v1/policies":                            access.ChangePolicy,
	"POST /api/v1/policies/reload":                     access.ChangePolicy,
	"POST /api/v1/policies/proposals/{id}/approve":     access.ApprovePolicy,
	"POST /api/v1/policies/proposals/{id}/reject":      access.ApprovePolicy,
	"GET /api/v1/audit/checkpoint":                     access.ReadAudit,
	"POST /api/v1/audit/checkpoint":                    access.ReadAudit, // what counts is the signature of a witness
	"GET /api/v1/audit/keys":                           access.ReadAudit,
	"GET /api/v1/audit/entries":                        access.ReadAudit,
	"GET /api/v1/audit/proof":                          access.ReadAudit,
	"GET /api/v1/audit/receipt/{event}":                access.ReadReceipt,
	"GET /api/v1/audit/log/checkpoint":                 access.ReadAudit,
	"GET /api/v1/audit/log/tile/{path}":                access.ReadAudit,
}

// authenticate finds out who calls. Without an actor nothing behind it is reached.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	if action, listed := permissions[ctx.Operation().Method+" "+ctx.Operation().Path]; listed && action == public {
		next(ctx)
		return
	}
	token, ok := bearer(r)
	if !ok {
		writeProblem(w, r, unauthenticated(`Bearer realm="chancery"`, "send an API token as Authorization: Bearer"))
		return
	}
	actor, err := s.actor(r, token)
	switch {
	case errors.Is(err, ca.ErrNotFound), errors.Is(err, access.ErrNotAToken):
		challenge := `Bearer realm="chancery", error="invalid_token"`
		writeProblem(w, r, unauthenticated(challenge, "the API token is unknown, has expired or was withdrawn"))
	case err != nil:
		writeProblem(w, r, s.problem(r.Context(), err))
	default:
		exchangeOf(r.Context()).actor = actor
		next(ctx)
	}
}

func (s *Server) actor(r *http.Request, token string) (access.Actor, error) {
	digest, err := access.TokenDigest(token)
	if err != nil {
		return access.Actor{}, err
	}
	return s.tokens.ActorByToken(r.Context(), digest)
}

// bearer reads the one Authorization header (RFC 6750, section 2.1). Several are none: which of them counts must not be a matter of taste.
func bearer(r *http.Request) (token string, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

func unauthenticated(challenge, detail string) *Problem {
	return newProblem(kindUnauthenticated, detail).with("WWW-Authenticate", challenge)
}
