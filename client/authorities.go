package client

import (
	"context"
	"net/http"
	"time"
)

// Authority is an authority with what its key and its CRL are at.
type Authority struct {
	Name        string       `json:"name"`
	Parent      string       `json:"parent,omitempty"` // empty for a root
	Subject     string       `json:"subject"`
	Serial      string       `json:"serial"`
	Certificate string       `json:"certificate"` // PEM
	Chain       string       `json:"chain"`       // PEM, to the root, both included
	NotBefore   time.Time    `json:"not_before"`
	NotAfter    time.Time    `json:"not_after"`
	Online      bool         `json:"online"`
	Signing     bool         `json:"signing"`
	Key         AuthorityKey `json:"key"`
	IssuerURL   string       `json:"issuer_url,omitempty"`
	CRL         AuthorityCRL `json:"crl"`
	AddedAt     time.Time    `json:"added_at"`
}

// AuthorityKey tells where a key is and of what kind.
type AuthorityKey struct {
	Algorithm string `json:"algorithm"`
	Token     string `json:"token"`
	Label     string `json:"label"`
	ID        string `json:"id"`
}

// AuthorityCRL is the state of an authority's CRL. Period and validity are in seconds.
type AuthorityCRL struct {
	URL        string     `json:"url,omitempty"`
	Number     string     `json:"number,omitempty"`
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	Entries    int        `json:"entries"`
	Period     int64      `json:"period"`
	Validity   int64      `json:"validity"`
}

// Authorities reads the whole hierarchy.
func (c *Client) Authorities(ctx context.Context) ([]Authority, error) {
	var list struct {
		Authorities []Authority `json:"authorities"`
	}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"authorities"}}, &list); err != nil {
		return nil, err
	}
	return list.Authorities, nil
}

// CRLState is where the CRL of a scope stands.
type CRLState struct {
	Scope      string     `json:"scope"`            // "full", or the number of a shard
	Number     string     `json:"number,omitempty"` // decimal; empty before the first CRL
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	Entries    int        `json:"entries"`
	Size       int        `json:"size"`            // octets
	Delta      string     `json:"delta,omitempty"` // the number of the delta CRL
	Pending    int        `json:"pending"`         // revocations that no complete CRL shows yet
}

// PublishCRL has new complete CRLs of an authority made now, of one scope or, when scope is empty, of all. It tells where they stand then.
func (c *Client) PublishCRL(ctx context.Context, authority, scope string) ([]CRLState, error) {
	var list struct {
		CRLs []CRLState `json:"crls"`
	}
	body := struct {
		Scope string `json:"scope,omitempty"`
	}{scope}
	if _, err := c.json(ctx, call{method: http.MethodPost, path: []string{"authorities", authority, "crl"}, body: body}, &list); err != nil {
		return nil, err
	}
	return list.CRLs, nil
}

// Authority reads one authority.
func (c *Client) Authority(ctx context.Context, name string) (*Authority, error) {
	a := &Authority{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"authorities", name}}, a); err != nil {
		return nil, err
	}
	return a, nil
}
