// Package audit owns the record of what happened: the kinds of event, and the canonical bytes of each, one leaf an event.
//
// A leaf is committed in the transaction of the change that it records, so that there is no change without its leaf. The package
// knows neither the database nor the clock: both come from whoever makes the event. Leaves never hold secrets or whole
// certificates; they hold digests and names of what they speak of.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
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
	KeyCompromised      Kind = "key.compromised"      // a key turned out compromised after its certificate was revoked for another reason
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
	LogSearched         Kind = "log.searched"         // somebody searched the audit log
	TokenRotated        Kind = "token.rotated"        // an API token got a successor, and ends with the overlap
	IdentityUsed        Kind = "identity.used"        // an actor called, for the first time in an hour on this replica
	GlassBroken         Kind = "glass.broken"         // a local administrator came in by a rule for emergencies, and says why
	GuessingSeen        Kind = "guessing.seen"        // credentials that are not good came from one address again and again
	SessionOpened       Kind = "session.opened"       // a person signed in to the console
	SessionEnded        Kind = "session.ended"        // a person signed out of it
	RequestExpiring     Kind = "request.expiring"     // a request has waited for long, and will soon wait no more
	ApproverKeyAdded    Kind = "approver.key_added"   // the key of a person who approves was registered
	ApproverKeyEnded    Kind = "approver.key_ended"   // it counts no more
	OrderPlaced         Kind = "order.placed"         // something that cannot be undone is to be done, and waits for approvals
	OrderApproved       Kind = "order.approved"       // a person agreed to it
	OrderRejected       Kind = "order.rejected"       // a person ended it
	OrderUsed           Kind = "order.used"           // it was begun to be carried out
	ReconcileAlarm      Kind = "reconcile.alarm"      // a signature, a record of one, or a keeper's journal, does not agree with the others
	ReconcileDone       Kind = "reconcile.done"       // signatures were accounted for: how many, up to which entry of each journal
	PrivateErased       Kind = "private.erased"       // private texts of events were erased
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
	id      string
	kind    Kind
	bytes   []byte
	private []Private
}

// ID is the event's ID.
func (l Leaf) ID() string { return l.id }

// Kind is the event's kind.
func (l Leaf) Kind() Kind { return l.kind }

// Bytes are the canonical octets. They must not be changed.
func (l Leaf) Bytes() []byte { return l.bytes }

// TimeFormat is the format of times in leaves: UTC with microseconds, always of one length.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// New makes the leaf of an event. The canonical form is JSON with keys in byte order, no white space, and no escaping but what
// RFC 8259 requires, which is what encoding/json writes with HTML escaping off. Of what names a person, or was written by one, the leaf holds
// a salted digest: Private.
func New(e Event) (Leaf, error) {
	if e.ID == "" || e.Kind == "" || e.Time.IsZero() || e.Actor == "" {
		return Leaf{}, errors.New("audit: an event needs an ID, a kind, a time and an actor")
	}
	if year := e.Time.UTC().Year(); year < 0 || year > 9999 {
		return Leaf{}, fmt.Errorf("audit: the year %d of an event of kind %s has not four digits", year, e.Kind)
	}
	e, err := readable(e)
	if err != nil {
		return Leaf{}, err
	}
	e, private := conceal(e)
	canonical := canonical(e)
	if len(canonical) > MaxLeaf {
		return Leaf{}, fmt.Errorf("audit: a leaf of kind %s has %d octets, more than %d", e.Kind, len(canonical), MaxLeaf)
	}
	return Leaf{id: e.ID, kind: e.Kind, bytes: canonical, private: private}, nil
}

// canonical writes an event whose texts are UTF-8. What it writes, scan reads.
func canonical(e Event) []byte {
	leaf := make([]byte, 0, 640) // more than most leaves are
	leaf = appendText(append(leaf, `{"actor":`...), e.Actor)
	leaf = append(leaf, `,"data":{`...)
	keys := slices.AppendSeq(make([]string, 0, 16), maps.Keys(e.Data)) // room for more than most leaves have
	slices.Sort(keys)
	for i, key := range keys {
		if i > 0 {
			leaf = append(leaf, ',')
		}
		leaf = appendText(append(appendText(leaf, key), ':'), e.Data[key])
	}
	leaf = appendText(append(leaf, `},"id":`...), e.ID)
	leaf = appendText(append(leaf, `,"kind":`...), string(e.Kind))
	leaf = appendText(append(leaf, `,"namespace":`...), e.Namespace)
	leaf = append(leaf, `,"time":"`...)
	leaf = append(e.Time.UTC().AppendFormat(leaf, TimeFormat), '"')
	return append(leaf, tail...)
}

// appendText writes a string. Where anything may have to be escaped, encoding/json does it.
func appendText(leaf []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return appendEscaped(leaf, text)
		}
	}
	return append(append(append(leaf, '"'), text...), '"')
}

func appendEscaped(leaf []byte, text string) []byte {
	b := bytes.NewBuffer(leaf)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // never fails for a string
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// readable replaces what is not UTF-8 by U+FFFD. JSON cannot hold it, and an event must not get lost because its caller sent such text.
func readable(e Event) (Event, error) {
	clean := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
	e.ID, e.Kind, e.Actor, e.Namespace = clean(e.ID), Kind(clean(string(e.Kind))), clean(e.Actor), clean(e.Namespace)
	data := e.Data
	for key, value := range e.Data {
		if !utf8.ValidString(key) {
			return e, fmt.Errorf("audit: an event of kind %s has a field whose name is not UTF-8", e.Kind)
		}
		if !utf8.ValidString(value) {
			data = maps.Clone(data) // the caller's own stays as it is
			data[key] = clean(value)
		}
	}
	e.Data = data
	return e, nil
}

// Parse reads canonical octets back. It refuses any that New would not have written.
func Parse(canonical []byte) (Event, error) {
	s, err := scan(canonical, nil)
	if err != nil {
		return Event{}, err
	}
	return s.event(), nil
}
