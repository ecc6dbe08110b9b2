package web

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
)

// Order is the wish to do something that cannot be undone, and what persons say to it.
type Order struct {
	ID         string      `json:"id"`
	Kind       string      `json:"kind" enum:"key.destroy,authority.add"`
	State      string      `json:"state" enum:"waiting,approved,rejected,expired,used"`
	Facts      []OrderFact `json:"facts" doc:"Exactly what is to be done"`
	Binding    string      `json:"binding" doc:"Names what is approved: the digest of kind and facts"`
	Needs      int         `json:"needs" doc:"Approvals of distinct persons, none of them who placed it"`
	Have       int         `json:"have" doc:"Approvals that count"`
	Signed     bool        `json:"signed" doc:"Approvals must be signed by the approvers' own keys"`
	Person     string      `json:"person" doc:"Who placed it, and carries it out"`
	Comment    string      `json:"comment,omitempty"`
	At         time.Time   `json:"at"`
	ExpiresAt  time.Time   `json:"expires_at"`
	UsedAt     *time.Time  `json:"used_at,omitempty"`
	Statement  string      `json:"statement,omitempty" doc:"While it waits: what the caller signs to approve it"`
	Votes      []Vote      `json:"votes"`
	AuditEvent string      `json:"audit_event"`
}

// OrderFact is a part of what is to be done.
type OrderFact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// OrderList are the latest orders.
type OrderList struct {
	Orders []Order `json:"orders" doc:"Newest first, at most 200"`
}

// OrderWord is what a person says to an order.
type OrderWord struct {
	Binding   string `json:"binding,omitempty" doc:"As the order showed it: nothing else is approved"`
	Comment   string `json:"comment,omitempty" doc:"For people; at most 1,000 octets"`
	Signature string `json:"signature,omitempty" doc:"By the caller's own key over the statement, PEM; for a rejection over the statement that says reject"`
}

type ordersAnswer struct{ Body OrderList }

func (s *Server) routeOrders(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/orders", id: "list-orders", tag: tagOrders, success: http.StatusOK,
		summary: "Read the orders", description: "What cannot be undone and needs the approval of persons: the latest 200.",
		answers:  []media{{name: typeJSON, json: OrderList{}}},
		problems: []int{http.StatusNotFound},
	}, func(ctx context.Context, _ *struct{}) (*ordersAnswer, error) {
		all, err := s.ca.Orders(ctx, exchangeOf(ctx).actor)
		if err != nil {
			return nil, err
		}
		list := OrderList{Orders: []Order{}}
		for _, o := range all {
			list.Orders = append(list.Orders, s.showOrder(ctx, o))
		}
		return &ordersAnswer{Body: list}, nil
	})
}

type orderInput struct {
	ID string `path:"id"`
}

type orderAnswer struct{ Body Order }

func (s *Server) routeOrder(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/orders/{id}", id: "get-order", tag: tagOrders, success: http.StatusOK,
		summary: "Read an order", description: "Tells exactly what is to be done, and who has approved it.",
		answers:  []media{{name: typeJSON, json: Order{}}},
		problems: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *orderInput) (*orderAnswer, error) {
		if !nameable(in.ID) {
			return nil, ca.ErrNotFound
		}
		o, err := s.ca.Order(ctx, exchangeOf(ctx).actor, in.ID)
		if err != nil {
			return nil, err
		}
		return &orderAnswer{Body: s.showOrder(ctx, o)}, nil
	})
}

func (s *Server) routeApproveOrder(api huma.API) error {
	return s.routeOrderDecision(api, "approve", "Approve an order",
		"With the last approval that is needed, whoever placed it can carry it out, once.", true)
}

func (s *Server) routeRejectOrder(api huma.API) error {
	return s.routeOrderDecision(api, "reject", "Reject an order", "One rejection ends it, unless it was carried out.", false)
}

func (s *Server) routeOrderDecision(api huma.API, verb, summary, description string, approves bool) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/orders/{id}/" + verb, id: verb + "-order", tag: tagOrders, success: http.StatusOK,
		summary: summary, description: description + " Whoever placed it has no say, and each person speaks once.",
		bodies:   []media{{name: typeJSON, json: OrderWord{}}},
		answers:  []media{{name: typeJSON, json: Order{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, func(ctx context.Context, in *orderInput) (*orderAnswer, error) {
		return s.decideOnOrder(ctx, in, approves)
	})
}

func (s *Server) decideOnOrder(ctx context.Context, in *orderInput, approves bool) (*orderAnswer, error) {
	if !nameable(in.ID) {
		return nil, ca.ErrNotFound
	}
	var body OrderWord
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	if err := checkComment(body.Comment); err != nil {
		return nil, err
	}
	if len(body.Binding) > maxBinding || !printable(body.Binding) {
		return nil, refusal(broken("binding", "send it as the order showed it, or leave it out", "the binding is none"))
	}
	signature, err := readSignature(body.Signature)
	if err != nil {
		return nil, err
	}
	o, err := s.ca.DecideOnOrder(ctx, exchangeOf(ctx).actor, ca.OrderDecision{
		Order: in.ID, Approves: approves, Binding: body.Binding, Comment: body.Comment, Signature: signature,
	})
	if err != nil {
		return nil, err
	}
	return &orderAnswer{Body: s.showOrder(ctx, o)}, nil
}

func (s *Server) showOrder(ctx context.Context, o ca.ActOrder) Order {
	shown := Order{
		ID: o.ID, Kind: o.Kind, State: o.State(s.now()), Facts: []OrderFact{}, Binding: o.Binding, Needs: o.Needs, Have: o.Have(),
		Signed: o.Signed,
		Person: o.Person, Comment: o.Comment, At: o.At.UTC(), ExpiresAt: o.ExpiresAt.UTC(), Votes: []Vote{}, AuditEvent: o.EventID,
	}
	for _, f := range o.Facts {
		shown.Facts = append(shown.Facts, OrderFact{f.Name, f.Value})
	}
	for _, v := range o.Votes {
		shown.Votes = append(shown.Votes, Vote{
			Person: v.Person, Approved: v.Approves, Comment: v.Comment, At: v.At.UTC(), AuditEvent: v.EventID, Evidence: showEvidence(v.Evidence),
			Withdrawn: v.Withdrawn,
		})
	}
	if !o.UsedAt.IsZero() {
		at := o.UsedAt.UTC()
		shown.UsedAt = &at
	}
	if shown.State == ca.OrderWaiting {
		shown.Statement = o.Statement(exchangeOf(ctx).actor.Person)
	}
	return shown
}
