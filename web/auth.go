package web

import (
	"cmp"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/access"
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
	"POST /api/v1/console/logins":                      access.OpenSession,
	"GET /api/v1/login":                                public, // tells nothing that a person who signs in does not see
	"GET /api/v1/whoami":                               access.ReadSelf,
	"GET /api/v1/openapi.json":                         public,
	"GET /api/v1/docs":                                 public,
	"GET /api/v1/docs/{file}":                          public,
	"GET /api/v1/policies":                             access.ReadPolicy,
	"GET /api/v1/policies/{digest}":                    access.ReadPolicy,
	"POST /api/v1/policies":                            access.ChangePolicy,
	"POST /api/v1/policies/reload":                     access.ChangePolicy,
	"POST /api/v1/policies/proposals/{id}/approve":     access.ApprovePolicy,
	"POST /api/v1/policies/proposals/{id}/reject":      access.ApprovePolicy,
	"GET /api/v1/orders":                               access.ReadOrder,
	"GET /api/v1/orders/{id}":                          access.ReadOrder,
	"POST /api/v1/orders/{id}/approve":                 access.ApproveOrder,
	"POST /api/v1/orders/{id}/reject":                  access.ApproveOrder,
	"GET /api/v1/audit/checkpoint":                     access.ReadAudit,
	"POST /api/v1/audit/checkpoint":                    access.ReadAudit, // what counts is the signature of a witness
	"GET /api/v1/audit/keys":                           access.ReadAudit,
	"GET /api/v1/audit/entries":                        access.ReadAudit,
	"GET /api/v1/audit/proof":                          access.ReadAudit,
	"GET /api/v1/audit/receipt/{event}":                access.ReadReceipt,
	"GET /api/v1/audit/events":                         access.ReadAudit,
	"GET /api/v1/audit/log/checkpoint":                 access.ReadAudit,
	"GET /api/v1/audit/log/tile/{path}":                access.ReadAudit,
	"GET /api/v1/tokens":                               access.ReadToken,
	"GET /api/v1/tokens/{id}":                          access.ReadToken,
	"POST /api/v1/tokens":                              access.ManageToken,
	"POST /api/v1/tokens/{id}/rotate":                  access.ManageToken,
	"POST /api/v1/tokens/{id}/revoke":                  access.ManageToken,
}

// Permission is one row of the table: a route of the API, and what whoever calls it must be allowed to do.
type Permission struct {
	Method, Path string        // the path with the version, its variable parts in braces
	Action       access.Action // empty: everybody may, without credentials
}

// Permissions is the table, by path and method. The caller may keep and change it.
func Permissions() []Permission {
	table := make([]Permission, 0, len(permissions))
	for route, action := range permissions {
		method, path, _ := strings.Cut(route, " ")
		table = append(table, Permission{Method: method, Path: path, Action: action})
	}
	slices.SortFunc(table, func(a, b Permission) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	return table
}
