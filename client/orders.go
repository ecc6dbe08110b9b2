package client

import (
	"context"
	"net/http"
	"time"
)

// Order is the wish to do something that cannot be undone, and what persons say to it.
type Order struct {
	ID         string      `json:"id"`
	Kind       string      `json:"kind"`  // "key.destroy", "authority.add"
	State      string      `json:"state"` // "waiting", "approved", "rejected", "expired", "used"
	Facts      []OrderFact `json:"facts"` // exactly what is to be done
	Binding    string      `json:"binding"`
	Needs      int         `json:"needs"`
	Have       int         `json:"have"`
	Signed     bool        `json:"signed"` // approvals must be signed
	Person     string      `json:"person"` // who placed it
	Comment    string      `json:"comment,omitempty"`
	At         time.Time   `json:"at"`
	ExpiresAt  time.Time   `json:"expires_at"`
	UsedAt     *time.Time  `json:"used_at,omitempty"`
	Statement  string      `json:"statement,omitempty"` // what the caller signs to approve it, while it waits
	Votes      []Vote      `json:"votes"`
	AuditEvent string      `json:"audit_event"`
}

// OrderFact is a part of what is to be done.
type OrderFact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// OrderWord is what a person says to an order.
type OrderWord struct {
	Binding   string `json:"binding,omitempty"` // as the order showed it; empty: whatever it is
	Comment   string `json:"comment,omitempty"`
	Signature string `json:"signature,omitempty"` // PEM, by the caller's own key over the statement
}

// Orders are the latest orders, newest first.
func (c *Client) Orders(ctx context.Context) ([]Order, error) {
	var list struct {
		Orders []Order `json:"orders"`
	}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"orders"}}, &list); err != nil {
		return nil, err
	}
	return list.Orders, nil
}

// Order is one order.
func (c *Client) Order(ctx context.Context, id string) (*Order, error) {
	return c.order(ctx, call{method: http.MethodGet, path: []string{"orders", id}})
}

// ApproveOrder approves an order; with the last approval that is needed it can be carried out.
func (c *Client) ApproveOrder(ctx context.Context, id string, w OrderWord) (*Order, error) {
	return c.order(ctx, call{method: http.MethodPost, path: []string{"orders", id, "approve"}, body: w})
}

// RejectOrder ends an order.
func (c *Client) RejectOrder(ctx context.Context, id string, w OrderWord) (*Order, error) {
	return c.order(ctx, call{method: http.MethodPost, path: []string{"orders", id, "reject"}, body: w})
}

func (c *Client) order(ctx context.Context, r call) (*Order, error) {
	o := &Order{}
	if _, err := c.json(ctx, r, o); err != nil {
		return nil, err
	}
	return o, nil
}
