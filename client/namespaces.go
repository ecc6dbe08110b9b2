package client

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// NamespaceSpec is what a namespace shall be: what a team owns and may use.
type NamespaceSpec struct {
	DNS      []string `json:"dns,omitempty"`      // domains: each owns itself and everything under it
	IP       []string `json:"ip,omitempty"`       // prefixes, "10.1.0.0/16"
	Email    []string `json:"email,omitempty"`    // mail domains
	URI      []string `json:"uri,omitempty"`      // URI prefixes, SPIFFE trust domains
	Subjects []string `json:"subjects,omitempty"` // organisations
	Profiles []string `json:"profiles,omitempty"` // empty: every one that is not restricted
	Quotas   []Quota  `json:"quotas,omitempty"`
	Rates    []Rate   `json:"rates,omitempty"`
}

// Quota bounds certificates in any span of a length.
type Quota struct {
	Profile      string `json:"profile,omitempty"` // empty: all together
	Certificates int    `json:"certificates"`
	Per          string `json:"per"` // "24h", "30d"
}

// Rate bounds requests: so many in a span on average, and at once.
type Rate struct {
	Profile  string `json:"profile,omitempty"` // empty: all together
	Requests int    `json:"requests"`
	Per      string `json:"per"`
}

// Namespace is a namespace as it was set at one time.
type Namespace struct {
	Name string `json:"name"`
	NamespaceSpec
	Version    int         `json:"version"`
	Source     string      `json:"source"` // "file" or "api"
	Removed    bool        `json:"removed,omitempty"`
	ChangedBy  string      `json:"changed_by"`
	ChangedAt  time.Time   `json:"changed_at"`
	AuditEvent string      `json:"audit_event"`
	History    []Namespace `json:"history,omitempty"` // every version, latest first; of Client.Namespace alone
}

// Namespaces are the namespaces that the caller may see.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	var list struct {
		Namespaces []Namespace `json:"namespaces"`
	}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"namespaces"}}, &list); err != nil {
		return nil, err
	}
	return list.Namespaces, nil
}

// Namespace is one namespace with its history.
func (c *Client) Namespace(ctx context.Context, name string) (*Namespace, error) {
	return c.namespace(ctx, call{method: http.MethodGet, path: []string{"namespaces", name}})
}

// SetNamespace makes a namespace exactly what s says. after is the version that was seen, 0 for none, -1 for whatever holds.
func (c *Client) SetNamespace(ctx context.Context, name string, s NamespaceSpec, after int) (*Namespace, error) {
	return c.namespace(ctx, changeNamespace(http.MethodPut, name, s, after))
}

// RemoveNamespace takes a namespace away: nothing is issued in it any more.
func (c *Client) RemoveNamespace(ctx context.Context, name string, after int) (*Namespace, error) {
	return c.namespace(ctx, changeNamespace(http.MethodDelete, name, nil, after))
}

func changeNamespace(method, name string, body any, after int) call {
	r := call{method: method, path: []string{"namespaces", name}, body: body}
	if after >= 0 {
		r.query = given(map[string]string{"after": strconv.Itoa(after)})
	}
	return r
}

func (c *Client) namespace(ctx context.Context, r call) (*Namespace, error) {
	found := &Namespace{}
	if _, err := c.json(ctx, r, found); err != nil {
		return nil, err
	}
	return found, nil
}
