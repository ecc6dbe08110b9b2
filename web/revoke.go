package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// RevokeRequest asks for a certificate to be revoked, put on hold, or released from a hold.
type RevokeRequest struct {
	Reason         string `json:"reason" example:"superseded" doc:"Of RFC 5280, by name or number; removeFromCRL ends a hold"`
	Comment        string `json:"comment,omitempty" doc:"For people; at most 1,000 octets"`
	InvalidityDate string `json:"invalidity_date,omitempty" format:"date-time" doc:"Since when the key is not to be trusted"`
}

// Revocation is how a certificate was revoked or put on hold.
type Revocation struct {
	Reason         string     `json:"reason"`
	RevokedAt      time.Time  `json:"revoked_at"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	Comment        string     `json:"comment,omitempty"`
	AuditEvent     string     `json:"audit_event"`
}

// Revoked is a revocation with what was revoked.
type Revoked struct {
	Serial         string     `json:"serial"`
	Issuer         string     `json:"issuer"`
	Reason         string     `json:"reason"`
	RevokedAt      time.Time  `json:"revoked_at"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	Comment        string     `json:"comment,omitempty"`
	Status         string     `json:"status" enum:"valid,expired,revoked,on-hold"`
	AuditEvent     string     `json:"audit_event"`
}

const (
	timeHint = "write it like 2030-01-31T00:00:00Z"
	notTime  = "the time is not in the form of RFC 3339"
)

type revokeInput struct {
	Serial string `path:"serial" pattern:"^([0-9a-f]{2}){1,20}$" doc:"Lower-case hex"`
	Issuer string `query:"issuer" doc:"The authority, needed only where several have issued the serial"`
}

type revokeAnswer struct{ Body Revoked }

func (s *Server) routeRevoke(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/certificates/{serial}/revoke", id: "revoke-certificate", tag: tagCertificates, success: http.StatusOK,
		summary: "Revoke a certificate",
		description: "The revocation is durable when it is answered; the CRL follows within seconds. Repeating is harmless: a certificate " +
			"that is revoked already stays as it is. The reasons are " + strings.Join(ca.ReasonNames(), ", ") + ".",
		bodies:   []media{{name: typeJSON, json: RevokeRequest{}}},
		answers:  []media{{name: typeJSON, json: Revoked{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict, http.StatusGone}, requestProblems...),
	}, s.revoke)
}

func (s *Server) revoke(ctx context.Context, in *revokeInput) (*revokeAnswer, error) {
	wish, err := readRevoke(ctx, in)
	if err != nil {
		return nil, err
	}
	r, err := s.ca.Revoke(ctx, wish)
	if err != nil {
		return nil, err
	}
	return s.answerRevoked(r), nil
}

// readRevoke makes an order of the call and reports all that is wrong with it.
func readRevoke(ctx context.Context, in *revokeInput) (ca.RevokeOrder, error) {
	o := ca.RevokeOrder{Actor: exchangeOf(ctx).actor, Issuer: in.Issuer}
	var body RevokeRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return o, err
	}
	var all []policies.Violation
	collect := func(err error) {
		var bad *invalid
		if errors.As(err, &bad) {
			all = append(all, bad.violations...)
		}
	}
	var err error
	o.Serial, err = parseSerial(in.Serial)
	collect(err)
	collect(checkIssuer(in.Issuer))
	if o.Reason, err = ca.ParseReason(body.Reason); err != nil {
		all = append(all, broken("reason", "use one of "+strings.Join(ca.ReasonNames(), ", "), "there is no such reason"))
	}
	if body.InvalidityDate != "" {
		if o.InvalidityDate, err = time.Parse(time.RFC3339, body.InvalidityDate); err != nil {
			all = append(all, broken("invalidity_date", timeHint, notTime))
		}
	}
	if !printable(strings.ReplaceAll(body.Comment, "\n", "")) {
		all = append(all, broken("comment", "send text", "the comment holds control characters"))
	}
	o.Comment = body.Comment
	return o, refusal(all...)
}

func showRevocation(r ca.Revocation) Revocation {
	shown := Revocation{Reason: r.Reason.String(), RevokedAt: r.At.UTC(), Comment: r.Comment, AuditEvent: r.EventID}
	shown.InvalidityDate = showTime(r.InvalidityDate)
	return shown
}

// showTime is a time, or nothing for the zero time, and for one of a year that JSON cannot say (RFC 3339, section 5.6): earlier versions
// took such invalidity dates, and what they are of must be shown all the same.
func showTime(t time.Time) *time.Time {
	t = t.UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return nil
	}
	return &t
}
