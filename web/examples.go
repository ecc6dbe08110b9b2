package web

import (
	"net/http"

	"github.com/chancery-ca/chancery/policies"
)

// exampleOf is a problem such as an answer of this status holds. Without one, the page would show the same refusal for every status.
func exampleOf(status int) *Problem {
	example := map[int]*Problem{
		http.StatusBadRequest:            newProblem(kindInvalid, "the validity cannot be read"),
		http.StatusUnauthorized:          newProblem(kindUnauthenticated, "send Authorization: Bearer with an API token"),
		http.StatusForbidden:             newProblem(kindDenied, "the token's roles do not allow this"),
		http.StatusNotFound:              newProblem(kindNotFound, notFoundDetail),
		http.StatusNotAcceptable:         newProblem(kindNotAcceptable, "this call answers with application/json"),
		http.StatusRequestTimeout:        newProblem(kindTimeout, "the body did not arrive in time"),
		http.StatusConflict:              newProblem(kindConflict, "the certificate has expired"),
		http.StatusGone:                  newProblem(kindArchived, "the certificates of that time have ended, and are in the archive chancery-2026-01-5f3a9c01.ndjson.gz"),
		http.StatusRequestEntityTooLarge: newProblem(kindTooLarge, "the body is larger than 1 MiB"),
		http.StatusUnsupportedMediaType:  newProblem(kindMediaType, "send application/json"),
		http.StatusUnprocessableEntity:   newProblem(kindRefused, "a rule is broken"),
		http.StatusTooManyRequests:       newProblem(kindTooMany, "slow down"),
		http.StatusInternalServerError:   newProblem(kindInternal, "the service's log tells more under this request's identifier"),
		http.StatusServiceUnavailable:    newProblem(kindUnavailable, "the token or the database is away"),
	}[status]
	if example == nil {
		return nil
	}
	example.Instance = "urn:chancery:request:01a1a39f-a626-7e69-b6f2-3653b1d86edb"
	switch status {
	case http.StatusBadRequest:
		example.Violations = []policies.Violation{broken("validity", "write for example 90d", `"a quarter" is not a duration`)}
	case http.StatusUnprocessableEntity:
		example.Violations = []policies.Violation{{
			Rule: "names.namespace", Field: "subjectAltName.dns[0]", Message: `"www.other.example" does not belong to the namespace "team"`,
			Hint: "ask for names under team.example",
		}}
	}
	return example
}
