package web

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
)

// IssueRequest asks for a certificate.
type IssueRequest struct {
	Profile  string            `json:"profile" example:"tls-server" doc:"The profile that the certificate shall follow"`
	CSR      string            `json:"csr" example:"-----BEGIN CERTIFICATE REQUEST-----\n…" doc:"The certification request (PKCS#10), PEM"`
	Validity string            `json:"validity,omitempty" example:"90d" doc:"How long it shall be valid; left out: the profile's default"`
	Issuer   string            `json:"issuer,omitempty" example:"issuing-1" doc:"The authority that shall sign; the default one when left out"`
	Replaces string            `json:"replaces,omitempty" doc:"Serial of an own certificate, to be revoked as superseded once this is issued; needs the right to"`
	Metadata map[string]string `json:"metadata,omitempty" example:"{\"ticket\":\"OPS-7\"}" doc:"Kept with the request: up to 16 entries, 64 and 256 octets"`
}

// Issued is a certificate that was just issued.
type Issued struct {
	Serial        string    `json:"serial" example:"1c01a2139d145a71ff91898130dd6f68d3a4b5c6" doc:"Lower-case hex"`
	Certificate   string    `json:"certificate" example:"-----BEGIN CERTIFICATE-----\n…" doc:"PEM"`
	Chain         string    `json:"chain" example:"-----BEGIN CERTIFICATE-----\n…" doc:"PEM, leaf first, without the root"`
	Issuer        string    `json:"issuer" example:"issuing-1" doc:"The authority that signed"`
	Profile       string    `json:"profile" example:"tls-server"`
	PolicyVersion string    `json:"policy_version" example:"sha256:e4b1…" doc:"The version of the policies that decided"`
	NotBefore     time.Time `json:"not_before" example:"2027-01-01T08:00:00Z"`
	NotAfter      time.Time `json:"not_after" example:"2027-04-01T07:59:59Z" doc:"Inclusive"`
	Replaced      string    `json:"replaced,omitempty" doc:"The serial that is replaced, once it is revoked or expired; else repeat the request with its key"`
	AuditEvent    string    `json:"audit_event" example:"01a2139d-146b-7e62-9022-6ded5b4b6f0e" doc:"The entry in the audit log"`
}

type issueInput struct {
	Profile  string `query:"profile" doc:"The profile, where the body is not JSON"`
	Validity string `query:"validity" doc:"The validity, where the body is not JSON"`
	Issuer   string `query:"issuer" doc:"The authority, where the body is not JSON"`
	Replaces string `query:"replaces" doc:"The serial to be revoked as superseded, where the body is not JSON"`
	Key      string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters; repeated within 7 days, it gets the same certificate"`
}

type issueAnswer struct {
	Status      int    `hidden:"true"`
	ContentType string `header:"Content-Type" hidden:"true"`
	Location    string `header:"Location" doc:"Where the certificate is from now on, or the request that waits"`
	Replayed    string `header:"Idempotency-Replayed" doc:"\"true\" when issued for an earlier request with this key"`
	Body        []byte
}

func (s *Server) routeIssue(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/certificates", id: "issue-certificate", tag: tagCertificates, success: http.StatusCreated,
		summary: "Ask for a certificate",
		description: "Turns a certification request into a certificate, or into a problem that names every rule broken and how to satisfy it. " +
			"Where persons must approve, the answer is 202 and Location leads to the request; asked again with the same Idempotency-Key, it is " +
			"the same, and the certificate once that is issued.",
		bodies:   requestBodies(IssueRequest{}),
		answers:  []media{{name: typeJSON, json: Issued{}}, {name: typeChain, text: "the chain alone: the certificate, then its issuers"}},
		accepted: []media{{name: typeJSON, json: WaitingRequest{}}},
		problems: append([]int{http.StatusConflict, http.StatusUnprocessableEntity}, requestProblems...),
		maxBody:  min(maxOrder, s.maxBody),
	}, s.issue)
}

func (s *Server) issue(ctx context.Context, in *issueInput) (*issueAnswer, error) {
	wish, err := readIssue(ctx, in)
	if err != nil {
		return nil, err
	}
	outcome, err := s.ca.Issue(ctx, wish)
	if err != nil {
		return nil, unknownIssuer(err, wish.Issuer)
	}
	if outcome.Waiting != nil {
		return answerWaiting(outcome)
	}
	issued := issuedOf(outcome)
	out := &issueAnswer{
		Status: http.StatusCreated, Location: pattern("/certificates/" + issued.Serial),
	}
	if outcome.Replayed {
		out.Replayed = "true"
	}
	if exchangeOf(ctx).answer == typeChain {
		out.ContentType, out.Body = typeChain, []byte(issued.Chain)
		return out, nil
	}
	body, err := jsonAnswer(issued)
	if err != nil {
		return nil, err
	}
	out.ContentType, out.Body = body.ContentType, body.Body
	return out, nil
}

func issuedOf(outcome ca.Outcome) Issued {
	c := outcome.Certificate
	certificate := encodePEM(c.DER) // which the chain begins with
	return Issued{
		Serial: c.Serial.String(), Certificate: certificate, Chain: certificate + encodePEM(outcome.Chain[1:]...), Issuer: c.Issuer,
		Profile: c.Profile, PolicyVersion: c.PolicyDigest, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), AuditEvent: c.EventID,
		Replaced: hex.EncodeToString(outcome.Replaced),
	}
}

// answerWaiting tells of a request that needs approval, whatever the caller would have liked to read of a certificate.
func answerWaiting(outcome ca.Outcome) (*issueAnswer, error) {
	body, err := jsonAnswer(showWaiting(*outcome.Waiting))
	if err != nil {
		return nil, err
	}
	out := &issueAnswer{
		Status: http.StatusAccepted, ContentType: body.ContentType, Location: pattern("/requests/" + outcome.Waiting.ID), Body: body.Body,
	}
	if outcome.Replayed {
		out.Replayed = "true"
	}
	return out, nil
}

// readIssue makes an order of the body that came.
func readIssue(ctx context.Context, in *issueInput) (ca.Order, error) {
	e, o := exchangeOf(ctx), newOrder(ctx)
	o.idempotencyKey(in.Key)
	if e.mediaType == typeJSON {
		var body IssueRequest
		if err := decodeStrict(e.body, &body); err != nil {
			return ca.Order{}, err
		}
		o.queryIsForRaw(
			parameter{"issuer", in.Issuer}, parameter{"profile", in.Profile}, parameter{"replaces", in.Replaces}, parameter{"validity", in.Validity})
		o.body(body)
		return o.result()
	}
	o.profile(in.Profile)
	o.issuer(in.Issuer)
	o.validity(in.Validity)
	o.replaces(in.Replaces)
	o.raw(e)
	return o.result()
}

// body reads what a JSON object asks for.
func (o *order) body(body IssueRequest) {
	o.profile(body.Profile)
	o.issuer(body.Issuer)
	o.validity(body.Validity)
	o.replaces(body.Replaces)
	o.metadata(body.Metadata)
	o.pem([]byte(body.CSR))
}

// raw reads a certification request that is the whole body.
func (o *order) raw(e *exchange) {
	if e.mediaType == typePEM {
		o.pem(e.body)
		return
	}
	o.der(e.body)
}
