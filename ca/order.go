package ca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
)

// The kinds of order: what cannot be undone, and is done at the keyboard of whoever may.
const (
	OrderDestroyKey   = "key.destroy"   // a key in a token, for ever
	OrderAddAuthority = "authority.add" // an authority that a ceremony made is taken in, to issue from then on
)

// unnamedNeeds is how many approvals an order needs at least when it is not known which person placed it, and a change of the policies when
// a signal asked for it: that one may be among those who approve, and then there is another.
const unnamedNeeds = 2

// orderLife is how long an order waits, and how long it can be carried out.
const orderLife = 7 * 24 * time.Hour

// ActOrder is the wish to do something that cannot be undone, and what persons say to it. Whoever placed it carries it out, once, when
// enough others have approved.
type ActOrder struct {
	ID        string
	Kind      string
	Facts     []approval.Fact // exactly what is to be done, in an order that the kind fixes
	Binding   string          // the digest of kind and facts: what is approved
	Needs     int             // approvals of persons other than who placed it
	Signed    bool            // each must be signed by the approver's own key
	Actor     string
	Person    string // the actor where it is not known who that is: then Needs is two at least
	Comment   string
	At        time.Time
	ExpiresAt time.Time
	EventID   string
	Votes     []OrderVote
	UsedAt    time.Time // zero: it has not been begun
}

// OrderVote is what a person says to an order.
type OrderVote struct {
	Person    string
	Approves  bool
	Actor     string
	Comment   string
	At        time.Time
	EventID   string
	Evidence  *Evidence // nil: it is not signed
	Withdrawn bool      // as of ApprovalRecord
}

// The states of an order.
const (
	OrderWaiting  = "waiting"
	OrderReady    = "approved" // it can be carried out
	OrderRejected = "rejected"
	OrderExpired  = "expired"
	OrderDone     = "used" // it was begun: how it ended the audit log tells
)

// State says where an order stands at a moment.
func (o ActOrder) State(now time.Time) string {
	for _, v := range o.Votes {
		if !v.Approves {
			return OrderRejected
		}
	}
	switch {
	case !o.UsedAt.IsZero():
		return OrderDone
	case !now.Before(o.ExpiresAt):
		return OrderExpired
	case o.Have() >= o.Needs:
		return OrderReady
	}
	return OrderWaiting
}

// needing raises what an order needs to what it must need at least.
func (o ActOrder) needing(approvals int) int {
	if o.Person == o.Actor {
		return max(o.Needs, approvals, unnamedNeeds)
	}
	return max(o.Needs, approvals)
}

// Have is how many approvals count: of distinct persons with distinct credentials and keys, none of them who placed it. What
// was withdrawn does not.
func (o ActOrder) Have() (n int) {
	seen := map[string]bool{"person " + o.Person: true, "actor " + o.Actor: true}
	for _, v := range o.Votes {
		person, actor, key := "person "+v.Person, "actor "+v.Actor, ""
		if v.Evidence != nil {
			key = "key " + v.Evidence.Key.Fingerprint()
		}
		if !v.Approves || v.Withdrawn || seen[person] || seen[actor] || key != "" && seen[key] || o.Signed && key == "" {
			continue
		}
		seen[person], seen[actor], seen[key], n = true, true, true, n+1
	}
	return n
}

// orderBinding is the digest of what an order is about.
func orderBinding(kind string, facts []approval.Fact) string {
	h := sha256.New()
	for _, part := range append([]approval.Fact{{Name: "chancery order 1", Value: kind}}, facts...) {
		fmt.Fprintf(h, "%d:%s%d:%s", len(part.Name), part.Name, len(part.Value), part.Value)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// statement is what an approver signs to say a word on an order.
func (o ActOrder) statement(person string, approves bool) approval.Statement {
	return approval.Statement{
		Kind: approval.KindOrder, ID: o.ID, Approves: approves, Person: person, Expires: o.ExpiresAt, Binding: o.Binding,
		Facts: append([]approval.Fact{{Name: "order", Value: o.Kind}}, o.Facts...),
	}
}

// Statement is the text that a person signs to approve the order. There is none for whoever placed it.
func (o ActOrder) Statement(person string) string {
	return statementText(o.statement(person, true), o.Person)
}

// OrderStore keeps orders. All of it is facts.
type OrderStore interface {
	// RecordOrder adds an order.
	RecordOrder(ctx context.Context, o ActOrder, leaves ...audit.Leaf) error
	// Orders are the latest orders, newest first, with their votes: the one with an ID or, when it is empty, all.
	Orders(ctx context.Context, id string, limit int) ([]ActOrder, error)
	// VoteOnOrder records what a person says to an order that waits: ErrExists when the person has spoken before, ErrDecided when it waits
	// no more by the database's clock, was rejected, or used.
	VoteOnOrder(ctx context.Context, order string, v OrderVote, leaves ...audit.Leaf) error
	// UseOrder records that an order is begun to be carried out; ErrDecided when it was before. It is durable before anything is done.
	UseOrder(ctx context.Context, order, actor string, at time.Time, event string, leaves ...audit.Leaf) error
}

// PlaceOrder records an order that others must approve before it is carried out: two at least where it is not known who places it. A fact
// that is empty, or that could not stand in a statement, is refused.
func (r Registrar) PlaceOrder(ctx context.Context, kind string, facts []approval.Fact, needs int, signed bool,
	comment string,
) (ActOrder, error) {
	o := ActOrder{
		ID: r.NewID(), Kind: kind, Facts: facts, Binding: orderBinding(kind, facts), Signed: signed, Actor: r.Actor,
		Person: cmp.Or(r.Person, r.Actor), Comment: comment, At: r.Now(), ExpiresAt: r.Now().Add(orderLife), EventID: r.NewID(),
	}
	o.Needs = o.needing(needs)
	if _, err := o.statement("anybody", true).Text(); err != nil {
		return ActOrder{}, fmt.Errorf("placing an order: %w", err)
	}
	data := map[string]string{
		"order": o.ID, "kind": kind, "binding": o.Binding, "needs": strconv.Itoa(o.Needs), "person": o.Person, "comment": comment,
		"expires": o.ExpiresAt.UTC().Format(time.RFC3339),
	}
	for _, f := range facts {
		data["what_"+f.Name] = f.Value
	}
	leaf, err := r.leafWithID(o.EventID, audit.OrderPlaced, data)
	if err != nil {
		return ActOrder{}, err
	}
	if err := r.Store.RecordOrder(ctx, o, leaf); err != nil {
		return ActOrder{}, fmt.Errorf("placing an order: %w", err)
	}
	return o, nil
}

// ErrOrderNotReady means that an order cannot be carried out: it is about something else, or not approved, or was used before.
var ErrOrderNotReady = errors.New("the order does not allow this")

// UseOrder allows what an order is about to be done, once. At least so many must have approved it, whatever it asked for when it was
// placed.
func (r Registrar) UseOrder(ctx context.Context, id, kind string, facts []approval.Fact, needs int, signed bool) (ActOrder, error) {
	found, err := r.Store.Orders(ctx, id, 1)
	if err != nil {
		return ActOrder{}, fmt.Errorf("looking an order up: %w", err)
	}
	if len(found) == 0 || id == "" {
		return ActOrder{}, fmt.Errorf("order %q: %w", id, ErrNotFound)
	}
	o := found[0]
	o.Needs, o.Signed = o.needing(needs), o.Signed || signed
	switch state := o.State(r.Now()); {
	case o.Kind != kind || o.Binding != orderBinding(kind, facts):
		return o, fmt.Errorf("%w: it is about something else", ErrOrderNotReady)
	case state != OrderReady:
		return o, fmt.Errorf("%w: it is %s, with %d of %d approvals", ErrOrderNotReady, state, o.Have(), o.Needs)
	}
	event := r.NewID()
	leaf, err := r.leafWithID(event, audit.OrderUsed, map[string]string{"order": o.ID, "kind": o.Kind, "binding": o.Binding})
	if err != nil {
		return o, err
	}
	switch err := r.Store.UseOrder(ctx, o.ID, r.Actor, r.Now(), event, leaf); {
	case errors.Is(err, ErrDecided):
		return o, fmt.Errorf("%w: it was used before", ErrOrderNotReady)
	case err != nil:
		return o, fmt.Errorf("using an order: %w", err)
	}
	return o, nil
}

// Orders are the latest orders, newest first.
func (c *CA) Orders(ctx context.Context, actor access.Actor) ([]ActOrder, error) {
	if err := c.authorize(ctx, actor, access.ReadOrder, orderResource("")); err != nil {
		return nil, err
	}
	return c.store.Orders(ctx, "", maxHistory)
}

// Order is one order.
func (c *CA) Order(ctx context.Context, actor access.Actor, id string) (ActOrder, error) {
	return c.findOrder(ctx, actor, access.ReadOrder, id)
}

func (c *CA) findOrder(ctx context.Context, actor access.Actor, action access.Action, id string) (ActOrder, error) {
	if err := c.authorize(ctx, actor, action, orderResource(id)); err != nil {
		return ActOrder{}, err
	}
	found, err := c.store.Orders(ctx, id, 1)
	switch {
	case err != nil:
		return ActOrder{}, fmt.Errorf("looking an order up: %w", err)
	case len(found) == 0 || id == "":
		return ActOrder{}, fmt.Errorf("order %q: %w", id, ErrNotFound)
	}
	return found[0], nil
}

// OrderDecision is what a person says to an order. Binding, when given, is that of the order that was looked at.
type OrderDecision struct {
	Order     string
	Approves  bool
	Binding   string
	Comment   string
	Signature []byte // PEM, by the actor's own key over the order's statement; needed for an approval where the order says so
}

// DecideOnOrder records what a person says to an order: one rejection ends it. Whoever placed it has no say, and nobody speaks twice. It
// returns ErrOwnRequest, ErrUnnamed, ErrDecided, ErrVotedAlready, ErrBindingChanged, ErrUnsigned, ErrSignature, ErrNotFound, or
// *access.Denied.
func (c *CA) DecideOnOrder(ctx context.Context, actor access.Actor, d OrderDecision) (ActOrder, error) {
	o, err := c.findOrder(ctx, actor, access.ApproveOrder, d.Order)
	if err != nil {
		return ActOrder{}, err
	}
	state := o.State(c.now())
	switch {
	case actor.Unnamed():
		return ActOrder{}, ErrUnnamed
	case actor.Person == o.Person || actor.ID == o.Actor:
		return ActOrder{}, ErrOwnRequest
	case slices.ContainsFunc(o.Votes, func(v OrderVote) bool { return isRenamed(actor, v.Actor, v.Person) }):
		return ActOrder{}, ErrVotedAlready
	case state != OrderWaiting && !(state == OrderReady && !d.Approves):
		return ActOrder{}, ErrDecided
	case d.Binding != "" && d.Binding != o.Binding:
		return ActOrder{}, ErrBindingChanged
	case len(d.Comment) > maxComment:
		return ActOrder{}, longComment()
	}
	evidence, err := c.evidence(ctx, o.statement(actor.Person, d.Approves), d.Signature, o.Signed && d.Approves)
	if err != nil {
		return ActOrder{}, err
	}
	v := OrderVote{
		Person: actor.Person, Approves: d.Approves, Actor: actor.ID, Comment: d.Comment, At: c.now(), EventID: c.newID(), Evidence: evidence,
	}
	kind := audit.OrderRejected
	if d.Approves {
		kind = audit.OrderApproved
	}
	data := map[string]string{
		"order": o.ID, "kind": o.Kind, "binding": o.Binding, "person": v.Person, "comment": v.Comment,
	}
	evidence.tell(data)
	leaf, err := c.leafWithID(v.EventID, kind, actor.ID, access.AllNamespaces, v.At, data)
	if err != nil {
		return ActOrder{}, err
	}
	switch err := c.store.VoteOnOrder(ctx, o.ID, v, leaf); {
	case errors.Is(err, ErrExists):
		return ActOrder{}, ErrVotedAlready
	case err != nil:
		return ActOrder{}, fmt.Errorf("deciding on an order: %w", err)
	}
	return c.findOrder(ctx, actor, access.ReadOrder, o.ID)
}

func orderResource(id string) access.Resource {
	return access.Resource{Namespace: access.AllNamespaces, Kind: "order", ID: id}
}
