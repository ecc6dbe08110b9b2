package web

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// ProfileList is every profile.
type ProfileList struct {
	PolicyVersion string             `json:"policy_version"`
	Profiles      []policies.Summary `json:"profiles"`
}

type profilesAnswer struct{ Body ProfileList }

func (s *Server) routeProfiles(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/profiles", id: "list-profiles", tag: tagProfiles, success: http.StatusOK,
		summary: "Read all profiles", description: "A profile says what can be asked for and what a certificate will say.",
		answers: []media{{name: typeJSON, json: ProfileList{}}},
	}, s.profiles)
}

func (s *Server) profiles(ctx context.Context, _ *struct{}) (*profilesAnswer, error) {
	all, err := s.ca.Profiles(ctx, exchangeOf(ctx).actor)
	if err != nil {
		return nil, err
	}
	list := ProfileList{PolicyVersion: s.ca.PolicyDigest(), Profiles: make([]policies.Summary, len(all))}
	for i, p := range all {
		list.Profiles[i] = p.Summary(s.now())
	}
	return &profilesAnswer{Body: list}, nil
}

type profileInput struct {
	Name string `path:"name"`
}

type profileAnswer struct{ Body policies.Summary }

func (s *Server) routeProfile(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/profiles/{name}", id: "get-profile", tag: tagProfiles, success: http.StatusOK,
		summary: "Read a profile", description: "Limits on validity are those of the moment: some come into force with the calendar.",
		answers:  []media{{name: typeJSON, json: policies.Summary{}}},
		problems: []int{http.StatusNotFound},
	}, s.profile)
}

func (s *Server) profile(ctx context.Context, in *profileInput) (*profileAnswer, error) {
	if !nameable(in.Name) {
		return nil, ca.ErrNotFound
	}
	p, err := s.ca.Profile(ctx, exchangeOf(ctx).actor, in.Name)
	if err != nil {
		return nil, err
	}
	return &profileAnswer{Body: p.Summary(s.now())}, nil
}

// EvaluateRequest asks what would come of a certification request.
type EvaluateRequest struct {
	CSR      string `json:"csr" example:"-----BEGIN CERTIFICATE REQUEST-----\n…" doc:"The certification request (PKCS#10), PEM"`
	Validity string `json:"validity,omitempty" example:"90d" doc:"How long the certificate would be valid"`
	Issuer   string `json:"issuer,omitempty" example:"issuing-1" doc:"The authority that would sign"`
}

// Decision is what the policies say about a request, rule by rule.
type Decision struct {
	Verdict       policies.Verdict      `json:"verdict" enum:"allow,needs-approval,refuse"`
	Profile       string                `json:"profile"`
	PolicyVersion string                `json:"policy_version"`
	Results       []policies.RuleResult `json:"results" doc:"Every rule asked, in order"`
	Violations    []policies.Violation  `json:"violations" doc:"All violations, in order"`
	Content       *Content              `json:"content,omitempty" doc:"What the certificate would say, where a refusal does not leave it open"`
}

// Content is what a certificate would say.
type Content struct {
	Subject   string    `json:"subject" doc:"RFC 4514"`
	Names     []string  `json:"names" doc:"Every subject alternative name"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after" doc:"Inclusive"`
}

type evaluateInput struct {
	Name     string `path:"name"`
	Validity string `query:"validity" doc:"The validity, where the body is not JSON"`
	Issuer   string `query:"issuer" doc:"The authority, where the body is not JSON"`
}

type evaluateAnswer struct{ Body Decision }

func (s *Server) routeEvaluate(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/profiles/{name}/evaluate", id: "evaluate-profile", tag: tagProfiles, success: http.StatusOK,
		summary: "Try a request", description: "Tells what the policies would decide, rule by rule. Nothing is issued, nothing recorded.",
		bodies:   requestBodies(EvaluateRequest{}),
		answers:  []media{{name: typeJSON, json: Decision{}}},
		problems: append([]int{http.StatusNotFound}, requestProblems...),
		maxBody:  min(maxOrder, s.maxBody),
	}, s.evaluate)
}

func (s *Server) evaluate(ctx context.Context, in *evaluateInput) (*evaluateAnswer, error) {
	if !nameable(in.Name) {
		return nil, ca.ErrNotFound
	}
	wish, err := readEvaluate(ctx, in)
	if err != nil {
		return nil, err
	}
	if _, err := s.ca.Profile(ctx, wish.Actor, in.Name); err != nil {
		return nil, err
	}
	d, err := s.ca.Evaluate(ctx, wish)
	if err != nil {
		return nil, unknownIssuer(err, wish.Issuer)
	}
	return &evaluateAnswer{Body: showDecision(d)}, nil
}

func readEvaluate(ctx context.Context, in *evaluateInput) (ca.Order, error) {
	e, o := exchangeOf(ctx), newOrder(ctx)
	o.profile(in.Name)
	if e.mediaType == typeJSON {
		var body EvaluateRequest
		if err := decodeStrict(e.body, &body); err != nil {
			return ca.Order{}, err
		}
		o.queryIsForRaw(parameter{"issuer", in.Issuer}, parameter{"validity", in.Validity})
		o.issuer(body.Issuer)
		o.validity(body.Validity)
		o.pem([]byte(body.CSR))
		return o.result()
	}
	o.issuer(in.Issuer)
	o.validity(in.Validity)
	o.raw(e)
	return o.result()
}

func showDecision(d *policies.Decision) Decision {
	shown := Decision{
		Verdict: d.Verdict(), Profile: d.Profile(), PolicyVersion: d.PolicyDigest(),
		Results: append([]policies.RuleResult{}, d.Results()...), Violations: append([]policies.Violation{}, d.Violations()...),
	}
	if t, ok := d.Template(); ok {
		shown.Content = &Content{Subject: t.Subject.String(), Names: t.Names(), NotBefore: t.NotBefore.UTC(), NotAfter: t.NotAfter.UTC()}
	}
	return shown
}
