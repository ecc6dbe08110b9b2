package web

import (
	"context"
	"encoding/pem"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// IssueRequest asks for a certificate.
type IssueRequest struct {
	Profile  string            `json:"profile" example:"tls-server" doc:"The profile that the certificate shall follow"`
	CSR      string            `json:"csr" doc:"The certification request (PKCS#10), PEM"`
	Validity string            `json:"validity,omitempty" example:"90d" doc:"How long it shall be valid; left out: the profile's default"`
	Issuer   string            `json:"issuer,omitempty" example:"issuing-1" doc:"The authority that shall sign; the default one when left out"`
	Metadata map[string]string `json:"metadata,omitempty" doc:"Kept with the request: up to 16 entries, 64 and 256 octets"`
}

// Issued is a certificate that was just issued.
type Issued struct {
	Serial        string    `json:"serial" doc:"Lower-case hex"`
	Certificate   string    `json:"certificate" doc:"PEM"`
	Chain         string    `json:"chain" doc:"PEM, leaf first, without the root"`
	Issuer        string    `json:"issuer" doc:"The authority that signed"`
	Profile       string    `json:"profile"`
	PolicyVersion string    `json:"policy_version" doc:"The version of the policies that decided"`
	NotBefore     time.Time `json:"not_before"`
	NotAfter      time.Time `json:"not_after" doc:"Inclusive"`
	AuditEvent    string    `json:"audit_event" doc:"The entry in the audit log"`
}

// Certificate is a certificate with its state.
type Certificate struct {
	Serial         string      `json:"serial" doc:"Lower-case hex"`
	Certificate    string      `json:"certificate,omitempty" doc:"PEM; left out in lists and where possibly_signed"`
	Chain          string      `json:"chain,omitempty" doc:"PEM, leaf first, without the root; left out in lists"`
	PossiblySigned bool        `json:"possibly_signed,omitempty" doc:"The issuance broke off; a signature may exist: revoked"`
	Issuer         string      `json:"issuer"`
	Profile        string      `json:"profile"`
	PolicyVersion  string      `json:"policy_version"`
	Namespace      string      `json:"namespace" doc:"The team it belongs to"`
	Subject        string      `json:"subject" doc:"RFC 4514"`
	Names          []string    `json:"names" doc:"Every subject alternative name"`
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after" doc:"Inclusive"`
	IssuedAt       time.Time   `json:"issued_at"`
	Status         string      `json:"status" enum:"valid,expired,revoked,on-hold"`
	Revocation     *Revocation `json:"revocation,omitempty" doc:"While it is revoked or on hold"`
	AuditEvent     string      `json:"audit_event" doc:"The entry of its issuance in the audit log"`
	Request        string      `json:"request" doc:"The request that it was issued for"`
}

// CertificateList is one page of certificates, newest first.
type CertificateList struct {
	Certificates []Certificate `json:"certificates"`
	Next         string        `json:"next,omitempty" doc:"The cursor of the next page; left out on the last"`
}

type issueInput struct {
	Profile  string `query:"profile" doc:"The profile, where the body is not JSON"`
	Validity string `query:"validity" doc:"The validity, where the body is not JSON"`
	Issuer   string `query:"issuer" doc:"The authority, where the body is not JSON"`
	Key      string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters; repeated, it gets the same certificate"`
}

type issueAnswer struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Location    string `header:"Location" doc:"Where the certificate is from now on"`
	Replayed    string `header:"Idempotency-Replayed" doc:"\"true\" when issued for an earlier request with this key"`
	Body        []byte
}

func (s *Server) routeIssue(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/certificates", id: "issue-certificate", tag: tagCertificates, success: http.StatusCreated,
		summary:     "Ask for a certificate",
		description: "Turns a certification request into a certificate, or into a problem that names every rule broken and how to satisfy it.",
		bodies:      requestBodies(IssueRequest{}),
		answers:     []media{{name: typeJSON, json: Issued{}}, {name: typeChain, text: "the chain alone: the certificate, then its issuers"}},
		problems:    append([]int{http.StatusConflict, http.StatusUnprocessableEntity}, requestProblems...),
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
	c := outcome.Certificate
	chain := encodePEM(outcome.Chain...)
	out := &issueAnswer{ContentType: typeChain, Location: pattern("/certificates/" + c.Serial.String()), Body: []byte(chain)}
	if outcome.Replayed {
		out.Replayed = "true"
	}
	if exchangeOf(ctx).answer == typeChain {
		return out, nil
	}
	body, err := jsonAnswer(Issued{
		Serial: c.Serial.String(), Certificate: encodePEM(c.DER), Chain: chain, Issuer: c.Issuer, Profile: c.Profile,
		PolicyVersion: c.PolicyDigest, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), AuditEvent: c.EventID,
	})
	if err != nil {
		return nil, err
	}
	out.ContentType, out.Body = body.ContentType, body.Body
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
		o.queryIsForRaw(map[string]string{"profile": in.Profile, "validity": in.Validity, "issuer": in.Issuer})
		o.profile(body.Profile)
		o.issuer(body.Issuer)
		o.validity(body.Validity)
		o.metadata(body.Metadata)
		o.pem([]byte(body.CSR))
		return o.result()
	}
	o.profile(in.Profile)
	o.issuer(in.Issuer)
	o.validity(in.Validity)
	o.raw(e)
	return o.result()
}

// raw reads a certification request that is the whole body.
func (o *order) raw(e *exchange) {
	if e.mediaType == typePEM {
		o.pem(e.body)
		return
	}
	o.der(e.body)
}

const orphanDetail = "the issuance of this serial broke off: a signature may exist, so it is revoked, but there is no certificate to show"

type certificateInput struct {
	Serial string `path:"serial" pattern:"^([0-9a-f]{2}){1,20}$" doc:"Lower-case hex"`
	Issuer string `query:"issuer" doc:"The authority, needed only where several have issued the serial"`
}

func (s *Server) routeCertificate(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/certificates/{serial}", id: "get-certificate", tag: tagCertificates, success: http.StatusOK,
		summary:     "Read a certificate",
		description: "Gives a certificate with its state, or the certificate alone.",
		answers: []media{
			{name: typeJSON, json: Certificate{}}, {name: typePEM, text: "the certificate alone, PEM"},
			{name: typeChain, text: "the certificate, then its issuers, PEM"}, {name: typeDER, text: "the certificate alone, DER"},
		},
		problems: []int{http.StatusNotFound, http.StatusConflict},
	}, s.certificate)
}

func (s *Server) certificate(ctx context.Context, in *certificateInput) (*answer, error) {
	serial, err := parseSerial(in.Serial)
	if err != nil {
		return nil, err
	}
	if err := checkIssuer(in.Issuer); err != nil {
		return nil, err
	}
	e := exchangeOf(ctx)
	c, err := s.ca.Certificate(ctx, e.actor, in.Issuer, serial)
	if err != nil {
		return nil, err
	}
	if len(c.DER) == 0 && e.answer != typeJSON {
		return nil, newProblem(kindNotFound, orphanDetail)
	}
	switch e.answer {
	case typeDER:
		return &answer{ContentType: typeDER, Body: c.DER}, nil
	case typePEM:
		return &answer{ContentType: typePEM, Body: []byte(encodePEM(c.DER))}, nil
	}
	var chain [][]byte
	if len(c.DER) > 0 {
		if chain, err = s.ca.ChainOf(ctx, c); err != nil {
			return nil, err
		}
	}
	if e.answer == typeChain {
		return &answer{ContentType: typeChain, Body: []byte(encodePEM(chain...))}, nil
	}
	shown := s.show(c)
	shown.Chain = encodePEM(chain...)
	if len(c.DER) > 0 {
		shown.Certificate = encodePEM(c.DER)
	}
	return jsonAnswer(shown)
}

// show writes a certificate down without its PEM.
func (s *Server) show(c ca.Certificate) Certificate {
	shown := Certificate{
		Serial: c.Serial.String(), PossiblySigned: c.Orphan, Issuer: c.Issuer, Profile: c.Profile, PolicyVersion: c.PolicyDigest,
		Namespace: c.Namespace, Subject: c.Subject, Names: slices.Concat([]string{}, c.Names),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), IssuedAt: c.IssuedAt.UTC(), Status: c.Status(s.now()),
		AuditEvent: c.EventID, Request: c.RequestID,
	}
	if c.Revocation != nil && (shown.Status == statusRevoked || shown.Status == statusOnHold) {
		r := showRevocation(*c.Revocation)
		shown.Revocation = &r
	}
	return shown
}

// The states of a certificate that ca.Certificate.Status tells.
const (
	statusValid   = "valid"
	statusExpired = "expired"
	statusRevoked = "revoked"
	statusOnHold  = "on-hold"
)

const (
	defaultLimit = 100
	maxLimit     = 500
	maxQuery     = 253 // octets: the longest DNS name
	maxCursor    = 512 // octets
)

type certificatesInput struct {
	Query         string `query:"q" maxLength:"253" doc:"A part of a name or of the subject, in any case"`
	Profile       string `query:"profile"`
	Issuer        string `query:"issuer"`
	Status        string `query:"status" enum:"valid,expired,revoked,on-hold"`
	ExpiresBefore string `query:"expires_before" format:"date-time" doc:"RFC 3339"`
	Cursor        string `query:"cursor" doc:"As the last page gave it in next"`
	Limit         string `query:"limit" pattern:"^[0-9]{1,3}$" doc:"Certificates on a page: 1 to 500, 100 when left out"`
}

type certificatesAnswer struct{ Body CertificateList }

func (s *Server) routeCertificates(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/certificates", id: "list-certificates", tag: tagCertificates, success: http.StatusOK,
		summary:     "Search certificates",
		description: "Gives the certificates of the caller's namespace, newest first, page by page.",
		answers:     []media{{name: typeJSON, json: CertificateList{}}},
	}, s.certificates)
}

func (s *Server) certificates(ctx context.Context, in *certificatesInput) (*certificatesAnswer, error) {
	filter, err := readFilter(in)
	if err != nil {
		return nil, err
	}
	page, err := s.ca.List(ctx, exchangeOf(ctx).actor, filter)
	if err != nil {
		return nil, err
	}
	list := CertificateList{Certificates: make([]Certificate, len(page.Certificates)), Next: page.Next}
	for i, c := range page.Certificates {
		list.Certificates[i] = s.show(c)
	}
	return &certificatesAnswer{Body: list}, nil
}

// readFilter reads every parameter and reports all that are wrong.
func readFilter(in *certificatesInput) (ca.Filter, error) {
	f := ca.Filter{Query: in.Query, Profile: in.Profile, Issuer: in.Issuer, Status: in.Status, Cursor: in.Cursor, Limit: defaultLimit}
	var all []policies.Violation
	if len(in.Query) > maxQuery || !printable(in.Query) {
		all = append(all, broken("q", "search for up to 253 octets of text", "the search is too long or holds control characters"))
	}
	for name, value := range map[string]string{"profile": in.Profile, "issuer": in.Issuer} {
		if value != "" && !nameable(value) {
			all = append(all, broken(name, "names have letters, digits and hyphens", "nothing has such a name"))
		}
	}
	if in.Status != "" && !slices.Contains([]string{statusValid, statusExpired, statusRevoked, statusOnHold}, in.Status) {
		all = append(all, broken("status", "use valid, expired, revoked or on-hold", "there is no such status"))
	}
	if in.ExpiresBefore != "" {
		at, err := time.Parse(time.RFC3339, in.ExpiresBefore)
		if err != nil {
			all = append(all, broken("expires_before", timeHint+", with + as %2B", notTime))
		}
		f.ExpiresBefore = at
	}
	if len(in.Cursor) > maxCursor || !printable(in.Cursor) {
		all = append(all, broken("cursor", "give the cursor as the last page gave it", "the cursor is none"))
	}
	if in.Limit != "" {
		limit, err := strconv.Atoi(in.Limit)
		if err != nil || limit < 1 || limit > maxLimit {
			all = append(all, broken("limit", "use 1 to 500", "the limit is not a number from 1 to 500"))
		}
		f.Limit = limit
	}
	slices.SortFunc(all, func(a, b policies.Violation) int { return strings.Compare(a.Field, b.Field) })
	return f, refusal(all...)
}

func checkIssuer(name string) error {
	if name == "" || nameable(name) {
		return nil
	}
	return refusal(broken("issuer", "name one of the authorities at /api/v1/authorities", "no authority has such a name"))
}

// encodePEM writes certificates down one after another; none is nothing.
func encodePEM(certificates ...[]byte) string {
	var text []byte
	for _, der := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(text)
}
