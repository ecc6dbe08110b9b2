// Package audit owns the record of what happened: the kinds of event, and the canonical bytes of each, one leaf an event.
//
// A leaf is committed in the transaction of the change that it records, so that there is no change without its leaf. The package
// knows neither the database nor the clock: both come from whoever makes the event. Leaves never hold secrets or whole
// certificates; they hold digests and names of what they speak of.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Version is the version of the leaf format, written into every leaf.
const Version = 1

// MaxLeaf is the largest canonical leaf, in octets.
const MaxLeaf = 16 << 10

// Kind is the kind of an event. Kinds are stable: a leaf once written is read for years.
type Kind string

// The kinds of event.
const (
	RequestRefused      Kind = "request.refused"      // a policy refused a request
	RequestWaiting      Kind = "request.waiting"      // a request needs approval, and waits for it
	RequestApproved     Kind = "request.approved"     // one person approved a request that waits
	RequestRejected     Kind = "request.rejected"     // a person rejected it; it waits no more
	RequestExpired      Kind = "request.expired"      // it waited for too long
	AccessDenied        Kind = "access.denied"        // an actor tried what its roles do not allow
	CertificateIntended Kind = "certificate.intended" // a to-be-signed certificate became durable; its serial is revocable from here
	CertificateIssued   Kind = "certificate.issued"   // the signed certificate became durable
	CertificateOrphaned Kind = "certificate.orphaned" // an intent was settled as possibly signed
	CertificateRevoked  Kind = "certificate.revoked"  // or put on hold
	CertificateReleased Kind = "certificate.released" // a hold ended (removeFromCRL)
	KeyCompromised      Kind = "key.compromised"      // a key turned out to be compromised after its certificate was revoked for another reason
	RevocationOrdered   Kind = "revocation.ordered"   // many certificates are to be revoked by one order
	RevocationApproved  Kind = "revocation.approved"  // a person agreed to such an order
	RevocationRejected  Kind = "revocation.rejected"  // a person ended it before it began
	RevocationCancelled Kind = "revocation.cancelled" // it was ended half way; what was revoked stays revoked
	RevocationFinished  Kind = "revocation.finished"  // all of its certificates were seen to
	CRLIntended         Kind = "crl.intended"         // a to-be-signed CRL became durable
	CRLPublished        Kind = "crl.published"        // a signed CRL became the current one of its scope
	CRLImported         Kind = "crl.imported"         // a CRL signed elsewhere became the current one of its scope
	KeySigned           Kind = "key.signed"           // a key in a token made a signature; rides with what was signed
	HSMOperation        Kind = "hsm.operation"        // an operation on a token other than a signature of an authority
	AuthorityAdded      Kind = "authority.added"      // an authority was registered
	TokenCreated        Kind = "token.created"        // an API token was created
	TokenRevoked        Kind = "token.revoked"        // an API token was withdrawn
	NamespaceChanged    Kind = "namespace.changed"    // a namespace was set or removed, through the API or in the configuration file
	PolicyActivated     Kind = "policy.activated"     // a policy set began to decide
	PolicyProposed      Kind = "policy.proposed"      // a policy set was proposed, and waits for approvals
	PolicyApproved      Kind = "policy.approved"      // a person agreed to a proposed policy set
	PolicyRejected      Kind = "policy.rejected"      // a person ended a proposal
	ServiceStarted      Kind = "service.started"      // a replica began to serve
	ServiceStopped      Kind = "service.stopped"      // a replica stopped in good order
	ArchiveMade         Kind = "archive.made"         // a month of certificates left the database for a file
	LogKeyAdded         Kind = "log.key_added"        // a key began to sign the checkpoints of this log
	ReconcileAlarm      Kind = "reconcile.alarm"      // a signature, a record of one, or a keeper's journal, does not agree with the others
	ReconcileDone       Kind = "reconcile.done"       // signatures were accounted for: how many, up to which entry of each journal
)

// Event is what happened. Data holds strings alone, so that its canonical form is beyond doubt; numbers are written in decimal,
// octets in lower-case hex, times in RFC 3339 with UTC.
type Event struct {
	ID        string // UUID version 7, given by the maker
	Kind      Kind
	Time      time.Time
	Actor     string // who caused it: the ID of an actor, or "system"
	Namespace string
	Data      map[string]string
}

// Leaf is the canonical form of an event. Its zero value is no leaf.
type Leaf struct {
	id    string
	kind  Kind
	bytes []byte
}

// ID is the event's ID.
func (l Leaf) ID() string { return l.id }

// Kind is the event's kind.
func (l Leaf) Kind() Kind { return l.kind }

// Bytes are the canonical octets. They must not be changed.
func (l Leaf) Bytes() []byte { return l.bytes }

type leafJSON struct {
	Actor     string            `json:"actor"`
	Data      map[string]string `json:"data"`
	ID        string            `json:"id"`
	Kind      Kind              `json:"kind"`
	Namespace string            `json:"namespace"`
	Time      string            `json:"time"`
	Version   int               `json:"v"`
}

// TimeFormat is the format of times in leaves: UTC with microseconds, always of one length.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// New makes the leaf of an event. The canonical form is JSON with keys in byte order, no white space, and no escaping but what
// RFC 8259 requires, which is what encoding/json writes for these types with HTML escaping off.
func New(e Event) (Leaf, error) {
	if e.ID == "" || e.Kind == "" || e.Time.IsZero() || e.Actor == "" {
		return Leaf{}, errors.New("audit: an event needs an ID, a kind, a time and an actor")
	}
	if e.Data == nil {
		e.Data = map[string]string{}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(leafJSON{
		Version: Version, ID: e.ID, Kind: e.Kind, Time: e.Time.UTC().Format(TimeFormat), Actor: e.Actor,
		Namespace: e.Namespace, Data: e.Data,
	}); err != nil {
		return Leaf{}, fmt.Errorf("audit: encoding %s: %w", e.Kind, err)
	}
	canonical := []byte(strings.TrimSuffix(b.String(), "\n"))
	if len(canonical) > MaxLeaf {
		return Leaf{}, fmt.Errorf("audit: a leaf of kind %s has %d octets, more than %d", e.Kind, len(canonical), MaxLeaf)
	}
	return Leaf{id: e.ID, kind: e.Kind, bytes: canonical}, nil
}

// Parse reads canonical octets back. It refuses any that New would not have written.
func Parse(canonical []byte) (Event, error) {
	if len(canonical) > MaxLeaf {
		return Event{}, fmt.Errorf("audit: a leaf of %d octets is larger than %d", len(canonical), MaxLeaf)
	}
	var j leafJSON
	if err := json.Unmarshal(canonical, &j); err != nil {
		return Event{}, fmt.Errorf("audit: reading a leaf: %w", err)
	}
	if j.Version != Version {
		return Event{}, fmt.Errorf("audit: leaf version %d is not known", j.Version)
	}
	at, err := time.Parse(TimeFormat, j.Time)
	if err != nil {
		return Event{}, fmt.Errorf("audit: reading a leaf's time: %w", err)
	}
	e := Event{ID: j.ID, Kind: j.Kind, Time: at, Actor: j.Actor, Namespace: j.Namespace, Data: j.Data}
	again, err := New(e)
	if err != nil {
		return Event{}, err
	}
	if string(again.bytes) != string(canonical) {
		return Event{}, errors.New("audit: the leaf is not in canonical form")
	}
	return e, nil
}
