package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

// Store keeps what must last.
//
// Durability: a write that returns nil has survived any crash from then on, and its audit leaves with it, in one transaction. A write
// that returns an error wrapping ErrUnavailable may or may not have happened (an acknowledgement can be lost): the Store itself
// re-reads by key before it says so, and the caller never repeats a signature on the strength of it. Any other error means that
// nothing was written. Every method is safe for concurrent use, by any number of replicas.
type Store interface {
	IssuanceStore
	RevocationStore
	BulkStore
	CRLStore
	RevocationFeed
	NamespaceStore
	ApprovalStore
	EvidenceStore
	OrderStore
	PolicyStore
	ReplicaStore
	LeaseStore
	UpkeepStore
	OCSPStore
	LogStore
	EventStore
	TokenStore
	SessionStore
	// RecordEvents commits leaves that go with no other change, such as refusals of access.
	RecordEvents(ctx context.Context, leaves ...audit.Leaf) error
	// Ping tells whether something can be made durable now.
	Ping(ctx context.Context) error
	// ServerTime is the database's clock, which all replicas share.
	ServerTime(ctx context.Context) (time.Time, error)
	// Authorities are all authorities known, by name.
	Authorities(ctx context.Context) ([]AuthorityRecord, error)
	// RecordAuthority adds an authority; ErrExists when the name is taken by a different certificate or the certificate by a
	// different name. The same again is not an error and writes nothing.
	RecordAuthority(ctx context.Context, a AuthorityRecord, leaves ...audit.Leaf) error
}

// IssuanceStore keeps requests, intents and certificates.
type IssuanceStore interface {
	// RecordIntent makes an intent, its request and its claim of an idempotency key durable. It returns *Replay when the key has
	// been used for the same body and led to a certificate, ErrIdempotencyMismatch when for another body, ErrIdempotencyBusy
	// while the other request is open, ErrKeyCompromised when the subject's key has been revoked as compromised, *ExhaustedError when
	// one of its reservations has no room, ErrDecided when it is of a request that waited and waits no more. What an intent reserves is
	// taken in its own transaction, and stays taken whatever becomes of it.
	RecordIntent(ctx context.Context, i Intent, leaves ...audit.Leaf) error
	// RecordCertificate makes a signed certificate durable and closes its intent. It returns ErrIntentLost when the intent has
	// been claimed by another replica, and ErrKeyCompromised when the subject's key has been revoked as compromised meanwhile: then the
	// certificate must not be released.
	RecordCertificate(ctx context.Context, c NewCertificate, leaves ...audit.Leaf) error
	// RecordPrecertificate makes a signed precertificate durable, and leaves its intent open. Errors as of RecordCertificate: then
	// the precertificate must not be submitted.
	RecordPrecertificate(ctx context.Context, c NewCertificate, leaves ...audit.Leaf) error
	// RecordFinalIntent makes the intent of the certificate durable in place of that of its recorded precertificate, once. ErrIntentLost
	// when that is not the owner's any more, has led to a certificate before, or when the serial has been revoked, and ErrKeyCompromised
	// when the subject's key has been revoked as compromised meanwhile: nothing may be signed.
	RecordFinalIntent(ctx context.Context, i Intent, leaves ...audit.Leaf) error
	// RecordRefusal keeps a request that a policy refused, with the decision's facts.
	RecordRefusal(ctx context.Context, r Request, leaves ...audit.Leaf) error
	// ClaimExpiredIntents makes the claimant the owner of intents whose lease has run out by the database's clock, and of all
	// that an earlier run of the same replica left. At most max are claimed; nobody else is given them while the new lease runs.
	ClaimExpiredIntents(ctx context.Context, by Replica, lease time.Duration, max int) ([]OpenIntent, error)
	// SettleIntent records an owned intent as possibly signed and revoked, closes it, and releases its idempotency key. It returns
	// ErrIntentLost when the intent is not the owner's (any more): settled by another, or turned into a certificate.
	SettleIntent(ctx context.Context, by Replica, o Settlement, leaves ...audit.Leaf) error
	// FindReplay looks an idempotency key up before any work is done: nil, nil when it is free.
	FindReplay(ctx context.Context, k IdempotencyKey) (*Replay, error)
	// ReservationsTaken tells how much of each reservation is taken now, for those who only ask.
	ReservationsTaken(ctx context.Context, all []policies.Reservation) ([]policies.Usage, error)
	// KeyCompromised tells whether a subject key (SHA-256 of its SubjectPublicKeyInfo) was revoked with keyCompromise.
	KeyCompromised(ctx context.Context, spki [32]byte) (bool, error)
	// KeyHistory are the certificates of a subject key, ended, revoked and imported ones among them: for each different list of names in
	// a namespace the newest, up to 100 in each namespace. It is empty and not nil when there are none.
	KeyHistory(ctx context.Context, spki [32]byte) ([]policies.KeyUse, error)
	// Certificates are the certificates with a serial, of one issuer or, when issuer is empty, of any. Orphans are among them,
	// with no DER. Namespace narrows unless it is access.AllNamespaces.
	Certificates(ctx context.Context, issuer string, serial []byte, namespace string) ([]Certificate, error)
	// IssuedCertificate is the final certificate of a serial, read so that it can be handed out as the outcome of a request: it is as durable
	// as what is acknowledged. ErrNotFound when none is known to have been issued.
	IssuedCertificate(ctx context.Context, issuer string, serial []byte) (Certificate, error)
	// ArchiveOf names the archive that holds the certificates of a serial's month; empty when they are not archived. What Certificates
	// finds is not in it, but for orphans, which stay.
	ArchiveOf(ctx context.Context, serial []byte) (file string, err error)
	// List pages through certificates, newest first.
	List(ctx context.Context, f Filter) (Page, error)
}

// RevocationStore keeps revocations. They are facts in a sequence per certificate: revoked, or put on hold, released, revoked.
type RevocationStore interface {
	// RecordRevocation appends to the certificate's sequence if its latest entry is still the one the caller saw (after; 0 for
	// none), and marks the certificate's CRL scope as due. It returns the entry as recorded, or, where another came first,
	// ErrFenced: read again and decide again.
	RecordRevocation(ctx context.Context, r Revocation, after int, leaves ...audit.Leaf) (Revocation, error)
	// LatestRevocation is the latest entry of a serial's sequence, whether its certificate is on record or not; ErrNotFound.
	LatestRevocation(ctx context.Context, issuer string, serial []byte) (Revocation, error)
	// RevocationOnRecord is the same, read so that it can be told to whoever asked for it: it is as durable as what is acknowledged.
	RevocationOnRecord(ctx context.Context, issuer string, serial []byte) (Revocation, error)
	// RecordCompromisedKey remembers the key of a certificate as compromised. When it is known as such already, nothing is written.
	RecordCompromisedKey(ctx context.Context, spki [32]byte, issuer string, serial []byte, at time.Time, leaves ...audit.Leaf) error
}

// AuthorityRecord is an authority as it is kept. It names its key and never holds it.
type AuthorityRecord struct {
	Name        string
	Parent      string   // name of its issuer; empty for a root
	Certificate []byte   // DER
	Chain       [][]byte // DER, from its own certificate to the root, both included
	Online      bool     // serve opens its key
	Key         KeyName
	CRL         CRLPlan
	CRLURL      string // where clients fetch its CRL: the distribution point of what it issues
	IssuerURL   string // where clients fetch its certificate: the caIssuers of what it issues
	OCSPURL     string // where its OCSP responder is: the id-ad-ocsp of what it issues; empty: it offers none
	AddedAt     time.Time
}

// Above are the certificates of the authorities above it, up to the root.
func (a AuthorityRecord) Above() (all []*x509.Certificate, err error) {
	for _, der := range a.Chain[min(1, len(a.Chain)):] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the chain of authority %q: %w", a.Name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// Facts are what a decision must know of the authority. The certificates are the record's, parsed.
func (a AuthorityRecord) Facts(certificate *x509.Certificate, above []*x509.Certificate) policies.Issuer {
	return policies.Issuer{
		Name: a.Name, Certificate: certificate, Above: above, CRLScope: FullScope, CRLURL: a.CRLURL, IssuerURLs: nonEmpty(a.IssuerURL),
		OCSPURLs: nonEmpty(a.OCSPURL),
	}
}

// KeyName tells where an authority's key is.
type KeyName struct {
	Token string // the token's serial
	Label string // CKA_LABEL
	ID    []byte // CKA_ID
}

// Request is a request with all facts that its decision saw; later policies are tried on it.
type Request struct {
	ID             string
	At             time.Time
	ActorID        string
	ActorName      string
	Namespace      string
	Roles          []string
	Profile        string
	Issuer         string
	CSR            []byte // DER; nil where the authority made the request itself
	SPKI           [32]byte
	Validity       time.Duration
	Metadata       map[string]string
	Verdict        policies.Verdict
	Objections     []policies.RuleResult // of the rules that did not simply allow; which were asked besides, the policy digest tells
	PolicyDigest   string
	CompromisedKey bool
}

// PastRequest is a request as it is kept, with the certificate that came of it: nil where there is none.
type PastRequest struct {
	Request
	Certificate *PastCertificate
}

// PastCertificate is what a certificate says, as far as what is kept with its request tells.
type PastCertificate struct {
	Issuer    string
	Serial    []byte
	Subject   string
	Names     []string
	NotBefore time.Time
	NotAfter  time.Time
	DER       []byte // nil of an archived request
}

// IdempotencyKey is a caller's name for one request: (actor, key), and the digest of the body that it was first used for.
type IdempotencyKey struct {
	Actor string
	Key   string // empty: the request has none
	Body  [32]byte
}

// Intent is a to-be-signed certificate that must be durable before a key is asked.
type Intent struct {
	Issuer      string
	Serial      issuance.Serial
	Kind        issuance.Kind
	CRLScope    string
	TBS         []byte
	NotAfter    time.Time
	Request     Request
	Idempotency IdempotencyKey
	Owner       Replica
	Lease       time.Duration // from the database's now
	// Reservations are what the grant takes of what is bounded.
	Reservations []policies.Reservation
	// Approved says that the request is on record as waiting and has its approvals. The intent ends its waiting.
	Approved bool
}

// OpenIntent is an intent without a certificate.
type OpenIntent struct {
	Issuer    string
	Serial    issuance.Serial
	Kind      issuance.Kind
	TBS       []byte
	Namespace string
	RequestID string
	CreatedAt time.Time
	Owner     Replica // the one before the claim
}

// NewCertificate is a certificate as it becomes durable.
type NewCertificate struct {
	Issuer       string
	Serial       issuance.Serial
	Kind         issuance.Kind
	DER          []byte
	SPKI         [32]byte
	CRLScope     string
	Profile      string
	PolicyDigest string
	Namespace    string
	RequestID    string
	Subject      string   // RFC 4514, for reading and searching
	Names        []string // every subject alternative name as text: "example.com", "192.0.2.1"
	NotBefore    time.Time
	NotAfter     time.Time
	IssuedAt     time.Time
	EventID      string // of the CertificateIssued leaf
	Owner        Replica
}

// Certificate is a certificate as it is kept, with its state. An orphan, settled as possibly signed, has no DER. One of the kind
// Precertificate has led to no certificate: it counts as issued.
type Certificate struct {
	NewCertificate
	Orphan     bool
	Revocation *Revocation // the latest entry of its sequence; nil when there is none
}

// Status is "valid", "expired", "revoked" or "on-hold" at a moment. Revoked wins over expired.
func (c Certificate) Status(now time.Time) string {
	switch r := c.Revocation; {
	case r != nil && r.Reason == issuance.CertificateHold:
		return "on-hold"
	case r != nil && r.Reason != issuance.RemoveFromCRL:
		return "revoked"
	case now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}

// Settlement turns an open intent into an orphan: possibly signed, revoked.
type Settlement struct {
	Issuer   string
	Serial   issuance.Serial
	Kind     issuance.Kind
	At       time.Time
	EventID  string // of the CertificateOrphaned leaf
	Reason   string // why it was settled, for people
	NotAfter time.Time
}

// Replay is the earlier outcome of an idempotency key. Certificate is the zero value while Open, and where Waiting names a request that
// needs, or needed, approval.
type Replay struct {
	Open        bool
	Mismatch    bool // the key was used for another body
	Certificate Certificate
	Waiting     string // the request's ID
}

func (r *Replay) Error() string { return "the idempotency key has been used" }

// Revocation is one entry of a certificate's sequence.
type Revocation struct {
	Issuer         string
	Serial         []byte
	Sequence       int // 1 for the first
	Reason         issuance.Reason
	At             time.Time
	InvalidityDate time.Time // zero: none
	Comment        string
	Actor          string
	EventID        string
	CRLScope       string
	NotAfter       time.Time // of the certificate
	SPKI           [32]byte
}

// Filter selects certificates.
type Filter struct {
	Namespace     string // access.AllNamespaces for all
	Query         string // a part of a name or of the subject, in any case
	Profile       string
	Issuer        string
	Status        string // "", "valid", "expired", "revoked", "on-hold"
	ExpiresBefore time.Time
	Cursor        string // as the last Page gave it
	Limit         int    // 1 to 500
	Now           time.Time
}

// Page is a page of certificates; Next is empty at the end.
type Page struct {
	Certificates []Certificate
	Next         string
}
