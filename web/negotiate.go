package web

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/chancery-ca/chancery/policies"
)

// The media types of the surface.
const (
	typeJSON    = "application/json"
	typePKCS10  = "application/pkcs10"                // a request, DER (RFC 5967)
	typePEM     = "application/x-pem-file"            // PEM; no registered type exists
	typeChain   = "application/pem-certificate-chain" // PEM, leaf first (RFC 8555, section 9.1)
	typeDER     = "application/pkix-cert"             // a certificate, DER (RFC 2585)
	typeCRL     = "application/pkix-crl"              // a CRL, DER (RFC 2585)
	typeCMS     = "application/pkcs7-mime"            // certificates in CMS (RFC 8551)
	typeNDJSON  = "application/x-ndjson"              // one JSON value a line; no registered type exists
	typeOpenAPI = "application/openapi+json"
)

// negotiateAnswer finds the media type to answer with before anything is done: a certificate that cannot be shown is not issued.
func (s *Server) negotiateAnswer(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	offers := offeredAnswers(ctx.Operation())
	answer, ok := negotiate(strings.Join(r.Header.Values("Accept"), ","), offers)
	if !ok {
		writeProblem(w, r, newProblem(kindNotAcceptable, "this call answers with "+strings.Join(offers, ", ")))
		return
	}
	w.Header().Add("Vary", "Accept")
	exchangeOf(r.Context()).answer = answer
	next(ctx)
}

// negotiate picks the offer that an Accept header likes best (RFC 9110, section 12.5.1); of those liked equally, the first. No header
// is content with anything.
func negotiate(accept string, offers []string) (best string, ok bool) {
	if strings.TrimSpace(strings.ReplaceAll(accept, ",", "")) == "" {
		return offers[0], true
	}
	ranges := strings.Split(accept, ",")
	bestQ := 0.0
	for _, offer := range offers {
		if q := quality(ranges, offer); q > bestQ {
			best, bestQ = offer, q
		}
	}
	return best, bestQ > 0
}

// quality is how much a media type is liked, by the most specific range that holds it. Ranges that cannot be read hold nothing.
func quality(ranges []string, offer string) float64 {
	q, specific := 0.0, -1
	family, _, _ := strings.Cut(offer, "/")
	for _, one := range ranges {
		name, parameters, err := mime.ParseMediaType(one)
		if err != nil {
			continue
		}
		rank := slices.Index([]string{"*/*", family + "/*", offer}, name)
		if rank <= specific {
			continue
		}
		q, specific = 1, rank
		if text, given := parameters["q"]; given {
			if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
				q = 0
			}
		}
	}
	return q
}

// bodyType reads the one Content-Type header. Nothing is guessed from the body.
func bodyType(values, accepted []string) (string, error) {
	hint := func() string { return "send one of " + strings.Join(accepted, ", ") }
	if len(values) != 1 {
		return "", newProblem(kindMediaType, "the body has no Content-Type, or several; "+hint())
	}
	name, parameters, err := mime.ParseMediaType(values[0])
	if err != nil || !slices.Contains(accepted, name) {
		return "", newProblem(kindMediaType, hint())
	}
	if charset, given := parameters["charset"]; given && !strings.EqualFold(charset, "utf-8") {
		return "", newProblem(kindMediaType, "text is read as UTF-8 alone")
	}
	return name, nil
}

// checkQuery refuses query parameters that a call does not have, and those that stand twice: a misspelt "profile" must not be ignored.
func (s *Server) checkQuery(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	if err := checkParameters(r, ctx.Operation()); err != nil {
		writeProblem(w, r, s.problem(r.Context(), err))
		return
	}
	next(ctx)
}

func checkParameters(r *http.Request, op *huma.Operation) error {
	var known []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			known = append(known, p.Name)
		}
		if values := r.Header.Values(p.Name); p.In == "header" && len(values) > 1 {
			return refusal(broken(p.Name, "send the header once", "the header "+p.Name+" stands several times"))
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refusal(broken("query", "encode it as RFC 3986 says", "the query string cannot be read"))
	}
	var all []policies.Violation
	for _, name := range sortedKeys(query) {
		switch {
		case !slices.Contains(known, name):
			hint := "this call has no query parameters"
			if len(known) > 0 {
				hint = "the query parameters are " + strings.Join(known, ", ")
			}
			all = append(all, broken("query", hint, join("", name)+" is not a query parameter here"))
		case len(query[name]) > 1:
			all = append(all, broken(name, "give it once", name+" stands several times in the query string"))
		}
		if len(all) == maxViolations {
			break
		}
	}
	return refusal(all...)
}
