package web

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
)

// SignedRevocation is a JSON Web Signature, flattened (RFC 7515, section 7.2.2), by the key of the certificate to be revoked.
type SignedRevocation struct {
	Protected string `json:"protected" doc:"base64url of the header: alg, typ, url and iat, and nothing else"`
	Payload   string `json:"payload" doc:"base64url of the payload"`
	Signature string `json:"signature" doc:"base64url"`
}

// possessionHeader is what the signer says beside the payload. Url and iat are what ACME's url and nonce are for: the words are for this
// service and this certificate alone, and for now. Said again, they would do nothing new, for a revocation is for good.
type possessionHeader struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	URL       string `json:"url"`
	IssuedAt  int64  `json:"iat"`
}

type possessionPayload struct {
	Serial  string `json:"serial"`
	Issuer  string `json:"issuer"`
	Comment string `json:"comment"`
}

const (
	possessionType  = "chancery-revocation+jws"
	possessionClock = 5 * time.Minute // how far iat may be from now
	maxPossession   = 12 << 10        // octets of the body: the longest comment, escaped, and the signature of the longest key fit in
)

// possessionInput knows the host that was called: the service itself may be reached under any name.
type possessionInput struct {
	Serial string `path:"serial" pattern:"^([0-9a-f]{2}){1,20}$" doc:"Lower-case hex"`
	host   string
}

// Resolve takes the host of the call.
func (in *possessionInput) Resolve(ctx huma.Context) []error {
	in.host = ctx.Host()
	return nil
}

func (s *Server) routeRevokeByKey(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/certificates/{serial}/revoke-by-key", id: "revoke-certificate-by-key", tag: tagCertificates,
		success: http.StatusOK, summary: "Revoke a certificate by its key",
		description: "Whoever has a certificate's key may revoke it: by a JSON Web Signature of that key (ES256, ES384, ES512, RS256, PS256 or " +
			"EdDSA). The protected header has `alg`, `typ` (`" + possessionType + "`), `url` (this very URL, which begins with https:// " +
			"also over a socket) and `iat` (now, in Unix seconds, five minutes off at most); the payload is a JSON object with `serial`, " +
			"and if need be `issuer` and `comment`. The reason is always " +
			"keyCompromise, and the key is certified never again.",
		bodies:   []media{{name: typeJSON, json: SignedRevocation{}}},
		answers:  []media{{name: typeJSON, json: Revoked{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
		maxBody:  maxPossession,
	}, s.revokeByKey)
}

func (s *Server) revokeByKey(ctx context.Context, in *possessionInput) (*revokeAnswer, error) {
	proof, said, err := readPossession(exchangeOf(ctx).body, "https://"+in.host+pattern("/certificates/"+in.Serial+"/revoke-by-key"), s.now())
	if err != nil {
		return nil, err
	}
	if said.Serial != in.Serial {
		return nil, refusal(broken("payload.serial", "sign the serial of the certificate in the URL", "the serial is not that of the URL"))
	}
	serial, err := parseSerial(said.Serial)
	if err != nil {
		return nil, err
	}
	r, err := s.ca.RevokeByKey(ctx, said.Issuer, serial, proof, said.Comment)
	if err != nil {
		return nil, err
	}
	return s.answerRevoked(r), nil
}

// readPossession reads what a certificate's key is said to have signed, and whether it is meant for this place and time. Whose key it is
// the authority finds out.
func readPossession(body []byte, url string, now time.Time) (ca.Possession, possessionPayload, error) {
	var p ca.Possession
	var header possessionHeader
	var said possessionPayload
	var signed SignedRevocation
	if err := decodeStrict(body, &signed); err != nil {
		return p, said, err
	}
	for _, part := range []struct {
		name, text string
		into       any
	}{{"protected", signed.Protected, &header}, {"payload", signed.Payload, &said}, {"signature", signed.Signature, &p.Signature}} {
		octets, err := base64.RawURLEncoding.Strict().DecodeString(part.text)
		if err != nil || len(octets) == 0 {
			return p, said, refusal(broken(part.name, "write base64url without padding (RFC 7515, section 2)", "the "+part.name+" is not base64url"))
		}
		if raw, ok := part.into.(*[]byte); ok {
			*raw = octets
			continue
		}
		if err := decodeStrict(octets, part.into); err != nil {
			return p, said, within(part.name, err)
		}
	}
	p.Algorithm, p.Signed = header.Algorithm, []byte(signed.Protected+"."+signed.Payload)
	switch {
	case header.Type != possessionType:
		return p, said, refusal(broken("protected.typ", "set typ to "+possessionType, "the words were signed for another purpose"))
	case header.URL != url:
		return p, said, refusal(broken("protected.url", "sign the URL that you call, as you call it", "the words were signed for another place"))
	case now.Sub(time.Unix(header.IssuedAt, 0)).Abs() > possessionClock:
		return p, said, refusal(broken("protected.iat", "sign the Unix time of now, in seconds", "the words were signed at another time"))
	case !printable(strings.ReplaceAll(said.Comment, "\n", "")):
		return p, said, refusal(broken("payload.comment", "send text", "the comment holds control characters"))
	}
	return p, said, checkIssuer(said.Issuer)
}

// within says of violations in which part of the body they are.
func within(part string, err error) error {
	var bad *invalid
	if !errors.As(err, &bad) {
		return err
	}
	for i := range bad.violations {
		bad.violations[i].Field = fmt.Sprintf("%s.%s", part, bad.violations[i].Field)
	}
	return bad
}

func (s *Server) answerRevoked(r ca.Revocation) *revokeAnswer {
	shown := showRevocation(r)
	state := ca.Certificate{NewCertificate: ca.NewCertificate{NotAfter: r.NotAfter}, Revocation: &r}
	return &revokeAnswer{Body: Revoked{
		Serial: hex.EncodeToString(r.Serial), Issuer: r.Issuer, Reason: shown.Reason, RevokedAt: shown.RevokedAt,
		InvalidityDate: shown.InvalidityDate, Comment: shown.Comment, Status: state.Status(s.now()), AuditEvent: shown.AuditEvent,
	}}
}
