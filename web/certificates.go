package web

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

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
			{name: typeJSON, json: Certificate{}},
			{name: typePEM, text: "the certificate alone, PEM"},
			{name: typeChain, text: "the certificate, then its issuers, PEM"},
			{name: typeDER, text: "the certificate alone, DER"},
		},
		problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusGone},
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
		summary: "Search certificates",
		description: "Gives the certificates of the caller's namespace, newest first, page by page. A page looks through 50,000 of them " +
			"at most: " +
			"where few are what is asked for it may have fewer than its limit, or none, and a next one.",
		answers: []media{{name: typeJSON, json: CertificateList{}}},
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
// readPage reads which page is wanted, and adds what is wrong with that.
func readPage(cursor, limit string, all []policies.Violation) (int, []policies.Violation) {
	if len(cursor) > maxCursor || !printable(cursor) {
		all = append(all, broken("cursor", "give the cursor as the last page gave it", "the cursor is none"))
	}
	if limit == "" {
		return defaultLimit, all
	}
	n, err := strconv.Atoi(limit)
	if err != nil || n < 1 || n > maxLimit {
		all = append(all, broken("limit", "use 1 to 500", "the limit is not a number from 1 to 500"))
	}
	return n, all
}

func readFilter(in *certificatesInput) (ca.Filter, error) {
	f := ca.Filter{Query: in.Query, Profile: in.Profile, Issuer: in.Issuer, Status: in.Status, Cursor: in.Cursor}
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
	f.Limit, all = readPage(in.Cursor, in.Limit, all)
	slices.SortFunc(all, func(a, b policies.Violation) int { return strings.Compare(a.Field, b.Field) })
	return f, refusal(all...)
}

func checkIssuer(name string) error {
	if name == "" || nameable(name) {
		return nil
	}
	return refusal(broken("issuer", "name one of the authorities at /api/v1/authorities", "no authority has such a name"))
}

// encodePEM writes certificates down one after another (RFC 7468); none is nothing. encoding/pem, which writes lines through four buffers,
// took as long over the three of an issuance as reading its request does.
func encodePEM(certificates ...[]byte) string {
	const line = 48 // octets, which are 64 characters
	size := 0
	for _, der := range certificates {
		size += len(beginCertificate) + len(endCertificate) + base64.StdEncoding.EncodedLen(len(der)) + len(der)/line + 1
	}
	text := make([]byte, 0, size)
	for _, der := range certificates {
		text = append(text, beginCertificate...)
		for part := range slices.Chunk(der, line) {
			text = append(base64.StdEncoding.AppendEncode(text, part), '\n')
		}
		text = append(text, endCertificate...)
	}
	return string(text)
}

const (
	beginCertificate = "-----BEGIN CERTIFICATE-----\n"
	endCertificate   = "-----END CERTIFICATE-----\n"
)
