package oidc

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"

	"github.com/chancery-ca/chancery/access"
)

// refuse says why a token is not good. Whoever holds a token can read it, so that the reason tells nothing new.
func refuse(format string, args ...any) error {
	return &access.Unauthenticated{
		Detail: "the token is not good: " + fmt.Sprintf(format, args...), Challenge: `Bearer realm="chancery", error="invalid_token"`,
		Shown: true,
	}
}

// claims are those that are judged here (RFC 7519, section 4.1).
type claims struct {
	Issuer    string
	Subject   string
	Audience  audience
	Expires   *seconds
	NotBefore *seconds
	IssuedAt  *seconds
	Nonce     string
	Party     string
}

// UnmarshalJSON reads each claim under its very name. encoding/json would take "AUD" for "aud" as well, and of a name that stands twice the
// last: two readers of such a token would judge it differently, so that it is refused (RFC 7519, section 4).
func (c *claims) UnmarshalJSON(text []byte) error {
	judged := map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "exp": &c.Expires, "nbf": &c.NotBefore, "iat": &c.IssuedAt,
		"nonce": &c.Nonce, "azp": &c.Party,
	}
	members := json.NewDecoder(bytes.NewReader(text))
	if start, err := members.Token(); err != nil || start != json.Delim('{') {
		return errors.New("they are no object")
	}
	seen := map[string]bool{}
	for members.More() {
		token, err := members.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string) // nothing else stands before a colon
		if seen[name] {
			return errors.New("one stands twice")
		}
		seen[name] = true
		var value json.RawMessage
		if err := members.Decode(&value); err != nil {
			return err
		}
		if into, isJudged := judged[name]; isJudged {
			if err := json.Unmarshal(value, into); err != nil {
				return err
			}
			continue
		}
		for exact := range judged {
			if strings.EqualFold(name, exact) {
				return fmt.Errorf("%s is written in another way", exact)
			}
		}
	}
	return nil
}

// audience is one text or several.
type audience []string

// UnmarshalJSON reads both forms.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// seconds is a NumericDate (RFC 7519, section 2).
type seconds time.Time

// UnmarshalJSON reads whole seconds and fractions.
func (s *seconds) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil || n < 0 || n > 1<<40 {
		return errors.New("a time is none")
	}
	*s = seconds(time.Unix(int64(n), 0))
	return nil
}

// bearerTypes are the types of tokens that may come as bearer tokens: access tokens (RFC 9068) and ID tokens. A token of another kind that
// the same issuer signs, such as a logout token, must not pass for one (RFC 8725, section 3.11).
var bearerTypes = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// Authenticate takes a JSON Web Token from the Authorization header. found is false when there is none. The error is
// *access.Unauthenticated, or wraps ErrUnavailable.
func (ps *Providers) Authenticate(r *http.Request) (actor access.Actor, found bool, err error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return access.Actor{}, false, nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || strings.Count(token, ".") != 2 {
		return access.Actor{}, false, nil
	}
	actor, err = ps.Bearer(r.Context(), token)
	return actor, err == nil, err
}

// Bearer finds out whose a bearer token is. The error is *access.Unauthenticated, or wraps ErrUnavailable.
func (ps *Providers) Bearer(ctx context.Context, token string) (access.Actor, error) {
	p, err := ps.issuerOf(token)
	if err != nil {
		return access.Actor{}, err
	}
	h, err := p.verify(ctx, token, bearerTypes, func(c claims) error {
		if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(p.issuer.Audiences, a) }) {
			return refuse("it is meant for another audience")
		}
		return nil
	})
	if err != nil {
		return access.Actor{}, err
	}
	return ps.actor(h)
}

// issuerOf finds the provider that a token says it is of. Nothing about the token is believed yet.
func (ps *Providers) issuerOf(token string) (*provider, error) {
	if len(token) > maxToken {
		return nil, refuse("it is too long")
	}
	all := make([]jose.SignatureAlgorithm, len(known))
	for i, name := range known {
		all[i] = jose.SignatureAlgorithm(name)
	}
	jws, err := jose.ParseSignedCompact(token, all)
	if err != nil {
		return nil, refuse("it is not a JSON Web Token with a signature by a public key")
	}
	var c claims
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &c); err != nil {
		return nil, refuse("its claims cannot be read: %v", err)
	}
	p := ps.byURL[c.Issuer]
	if p == nil {
		return nil, refuse("its issuer is none that this service trusts")
	}
	return p, nil
}

// holder is whom a verified token is about.
type holder struct {
	issuer, subject string
	claims          map[string][]string // all of them
}

// verify checks a token's signature, issuer and time, and then what else the caller asks of its claims.
func (p *provider) verify(ctx context.Context, token string, types []string, accept func(claims) error) (holder, error) {
	if len(token) > maxToken {
		return holder{}, refuse("it is too long")
	}
	allowed := make([]jose.SignatureAlgorithm, len(p.issuer.Algorithms))
	for i, name := range p.issuer.Algorithms {
		allowed[i] = jose.SignatureAlgorithm(name)
	}
	jws, err := jose.ParseSignedCompact(token, allowed)
	if err != nil {
		return holder{}, refuse("its signature is none of %s", strings.Join(p.issuer.Algorithms, ", "))
	}
	header := jws.Signatures[0].Header
	kind, _ := header.ExtraHeaders[jose.HeaderType].(string)
	if !slices.Contains(types, strings.ToLower(kind)) {
		return holder{}, refuse("a token of the type %q has no place here", kind)
	}
	key, err := p.key(ctx, header.KeyID)
	if errors.Is(err, errUnknownKey) {
		return holder{}, refuse("its issuer has no such key")
	}
	if err != nil {
		return holder{}, err
	}
	if key.Algorithm != "" && key.Algorithm != header.Algorithm {
		return holder{}, refuse("its key is not for %s", header.Algorithm)
	}
	verifier := gooidc.NewVerifier(p.issuer.URL, &gooidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Key}}, &gooidc.Config{
		SupportedSigningAlgs: p.issuer.Algorithms, SkipClientIDCheck: true, SkipExpiryCheck: true, // both are judged below
	})
	verified, err := verifier.Verify(ctx, token)
	if err != nil {
		return holder{}, refuse("its signature does not verify, or its issuer is another")
	}
	var c claims
	var text json.RawMessage
	if err := errors.Join(verified.Claims(&c), verified.Claims(&text)); err != nil {
		return holder{}, refuse("its claims cannot be read: %v", err)
	}
	if err := p.inTime(c); err != nil {
		return holder{}, err
	}
	if c.Subject == "" || len(c.Subject) > 255 || c.Issuer != p.issuer.URL { // go-oidc looked for the issuer in its own way
		return holder{}, refuse("it names no subject")
	}
	if err := accept(c); err != nil {
		return holder{}, err
	}
	flat, err := flatten(text)
	if err != nil {
		return holder{}, err
	}
	return holder{p.issuer.URL, c.Subject, flat}, nil
}

// inTime judges exp, which must be there, nbf and iat.
func (p *provider) inTime(c claims) error {
	now := p.now()
	switch {
	case c.Expires == nil:
		return refuse("it has no end")
	case !now.Before(time.Time(*c.Expires).Add(Leeway)):
		return refuse("it has expired")
	case c.NotBefore != nil && now.Before(time.Time(*c.NotBefore).Add(-Leeway)), c.IssuedAt != nil &&
		now.Before(time.Time(*c.IssuedAt).Add(-Leeway)):
		return refuse("it is not valid yet")
	}
	return nil
}

const (
	maxDepth  = 4    // of objects in objects
	maxValues = 1000 // of all claims together
)

// flatten writes claims as lists of texts, by the path of each. What is deeper than the limit is left out: a rule that asks for it finds
// nothing, and allows nothing. A token with more values is refused: which of them were left out would be a matter of chance.
func flatten(text []byte) (map[string][]string, error) {
	var all map[string]any
	claims := json.NewDecoder(bytes.NewReader(text))
	claims.UseNumber()
	if err := claims.Decode(&all); err != nil {
		return nil, refuse("its claims cannot be read: %v", err)
	}
	flat, values := map[string][]string{}, 0
	add := func(name, value string) {
		if values++; values <= maxValues {
			flat[name] = append(flat[name], value)
		}
	}
	var walk func(name string, value any, depth int)
	walk = func(name string, value any, depth int) {
		if depth > maxDepth {
			return
		}
		switch v := value.(type) {
		case string:
			add(name, v)
		case bool:
			add(name, strconv.FormatBool(v))
		case json.Number:
			add(name, numeral(v))
		case []any:
			for _, one := range v {
				if _, isList := one.([]any); !isList {
					walk(name, one, depth+1)
				}
			}
		case map[string]any:
			for inner, one := range v {
				if _, taken := all[name+"."+inner]; !taken { // a claim of that very name is another thing
					walk(name+"."+inner, one, depth+1)
				}
			}
		}
	}
	for name, value := range all {
		walk(name, value, 1)
	}
	if values > maxValues {
		return nil, refuse("it has more than %d claims: have the provider send those alone that are asked for", maxValues)
	}
	return flat, nil
}

// numeral is how a number reads as a fact. A whole one stays as it is written: beyond 2^53 two of them would become one in floating point,
// and one tenant another.
func numeral(n json.Number) string {
	if !strings.ContainsAny(n.String(), ".eE") {
		return n.String()
	}
	f, err := n.Float64()
	if err != nil { // it is too large for one, and stays as well
		return n.String()
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
