package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
)

// AuthorityList is the whole hierarchy.
type AuthorityList struct {
	Authorities []AuthorityState `json:"authorities"`
}

// AuthorityState is an authority with what its key and its CRL are at.
type AuthorityState struct {
	Name        string       `json:"name"`
	Parent      string       `json:"parent,omitempty" doc:"The authority that issued it; left out for a root"`
	Subject     string       `json:"subject" doc:"RFC 4514"`
	Serial      string       `json:"serial" doc:"Lower-case hex"`
	Certificate string       `json:"certificate" doc:"PEM"`
	Chain       string       `json:"chain" doc:"PEM, from its own certificate to the root, both included"`
	NotBefore   time.Time    `json:"not_before"`
	NotAfter    time.Time    `json:"not_after" doc:"Inclusive"`
	Online      bool         `json:"online" doc:"Whether the service holds its key"`
	Signing     bool         `json:"signing" doc:"Whether this replica has its key open"`
	Key         AuthorityKey `json:"key"`
	IssuerURL   string       `json:"issuer_url,omitempty" doc:"Where clients fetch its certificate"`
	OCSPURL     string       `json:"ocsp_url,omitempty" doc:"Where its OCSP responder is; left out where it offers none"`
	CRL         AuthorityCRL `json:"crl"`
	AddedAt     time.Time    `json:"added_at"`
}

// AuthorityKey tells where a key is and of what kind. It says nothing that would help to use it.
type AuthorityKey struct {
	Algorithm string `json:"algorithm" example:"ECDSA P-384"`
	Token     string `json:"token" doc:"The serial of the PKCS#11 token"`
	Label     string `json:"label" doc:"CKA_LABEL"`
	ID        string `json:"id" doc:"CKA_ID, lower-case hex"`
}

// AuthorityCRL is the state of an authority's CRL.
type AuthorityCRL struct {
	URL        string     `json:"url,omitempty" doc:"The distribution point of what the authority issues"`
	Number     string     `json:"number,omitempty" doc:"Decimal; left out before the first CRL"`
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	Entries    int        `json:"entries"`
	Period     int64      `json:"period" doc:"Seconds: a new one is made at least so often"`
	Validity   int64      `json:"validity" doc:"Seconds from this update to the next"`
}

type authoritiesAnswer struct{ Body AuthorityList }

func (s *Server) routeAuthorities(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/authorities", id: "list-authorities", tag: tagAuthorities, success: http.StatusOK,
		summary: "Read the hierarchy", description: "Gives every authority with its key and the state of its CRL.",
		answers: []media{{name: typeJSON, json: AuthorityList{}}},
	}, s.authorities)
}

func (s *Server) authorities(ctx context.Context, _ *struct{}) (*authoritiesAnswer, error) {
	all, err := s.ca.Authorities(ctx, exchangeOf(ctx).actor)
	if err != nil {
		return nil, err
	}
	list := AuthorityList{Authorities: make([]AuthorityState, len(all))}
	for i, a := range all {
		if list.Authorities[i], err = showAuthority(a); err != nil {
			return nil, err
		}
	}
	return &authoritiesAnswer{Body: list}, nil
}

type authorityInput struct {
	Name string `path:"name"`
}

type authorityAnswer struct{ Body AuthorityState }

func (s *Server) routeAuthority(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/authorities/{name}", id: "get-authority", tag: tagAuthorities, success: http.StatusOK,
		summary: "Read an authority", description: "Gives one authority with its key and the state of its CRL.",
		answers:  []media{{name: typeJSON, json: AuthorityState{}}},
		problems: []int{http.StatusNotFound},
	}, s.authority)
}

func (s *Server) authority(ctx context.Context, in *authorityInput) (*authorityAnswer, error) {
	all, err := s.ca.Authorities(ctx, exchangeOf(ctx).actor)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Name == in.Name {
			shown, err := showAuthority(a)
			return &authorityAnswer{Body: shown}, err
		}
	}
	return nil, ca.ErrNotFound
}

func showAuthority(a ca.AuthorityState) (AuthorityState, error) {
	c, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return AuthorityState{}, fmt.Errorf("reading the certificate of authority %q: %w", a.Name, err)
	}
	shown := AuthorityState{
		Name: a.Name, Parent: a.Parent, Subject: c.Subject.String(), Serial: hex.EncodeToString(c.SerialNumber.Bytes()),
		Certificate: encodePEM(a.Certificate), Chain: encodePEM(a.Chain...), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Online: a.Online, Signing: a.Signing, IssuerURL: a.IssuerURL, OCSPURL: a.OCSPURL, AddedAt: a.AddedAt.UTC(),
		Key: AuthorityKey{Algorithm: algorithm(c), Token: a.Key.Token, Label: a.Key.Label, ID: hex.EncodeToString(a.Key.ID)},
		CRL: AuthorityCRL{URL: a.CRLURL, Period: int64(a.CRL.Period / time.Second), Validity: int64(a.CRL.Validity / time.Second)},
	}
	if now := a.Current; now != nil {
		from, to := now.ThisUpdate.UTC(), now.NextUpdate.UTC()
		shown.CRL.Number, shown.CRL.ThisUpdate, shown.CRL.NextUpdate, shown.CRL.Entries = now.Number.String(), &from, &to, now.Entries
	}
	return shown, nil
}

// algorithm names a key by its kind and size.
func algorithm(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}
