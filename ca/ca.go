// Package ca is the authority: its verbs, one file each. issue.go turns an order into a certificate, revoke.go takes one back,
// bulk.go takes back many, approve.go lets one wait for approvals, publish.go keeps the CRLs current, ocsp.go answers OCSP requests,
// policy.go has other policies rule, recover.go settles what a crash left open, lead.go has one replica at a time do what is to be done
// once, and tls.go gets the service its own certificate.
//
// It alone knows the order of steps. Who may do what is asked of access, what a certificate says of policies, how it is built and signed
// of issuance; what must last goes to the Store and what was done goes into audit leaves, in one transaction with it. The package
// declares the Store that it needs and knows neither the database nor HTTP.
package ca

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/policies"
)

// CA is the authority. New makes one; Run keeps its CRLs current and settles what was left open.
type CA struct {
	store         Store
	authorities   map[string]*Authority
	first         *Authority
	authorityKeys [][]byte
	ruling        atomic.Pointer[ruling]
	unfollowed    atomic.Pointer[unfollowed]
	plan          PolicyPlan
	keyLists      KeyLists
	caa           CAA
	namespaces    atomic.Pointer[namespaces]
	withheld      atomic.Pointer[map[string]access.Namespace] // of the configuration file, and not adopted
	rates         *rates
	replica       Replica
	about         About
	now           func() time.Time // by the database's clock, as near as it is known
	random        io.Reader
	newID         func() string
	log           *slog.Logger
	metrics       Metrics
	transparency  Transparency
	publications  *publications
	bulk          RevocationPlan
	jobs          bell
	lags          *lags
	directory     *directory
	clock         *clock
	ocsp          *ocsp
	mirrors       []*mirroring
	expiring      time.Duration
	logPlan       LogPlan
	tokenLife     time.Duration
	visits        *visits
}

// Config is what a CA is made of. Every field but About, PolicyPlan, Revocations, KeyLists, CAA, Metrics, Transparency, OCSP, Lists,
// Mirrors, Expiring, AuditLog and TokenLife is required.
type Config struct {
	Store       Store
	Authorities []*Authority  // the first is the default issuer
	Policies    *policies.Set // what is configured; AdoptPolicies settles what rules
	PolicyPlan  PolicyPlan
	Revocations RevocationPlan
	KeyLists    KeyLists
	CAA         CAA
	Namespaces  map[string]access.Namespace // that hold until LearnNamespaces has read those on record; the service's own stays
	Replica     Replica
	About       About
	Now         func() time.Time
	Random      io.Reader
	NewID       func() string // makes event and request IDs: UUIDs of version 7
	Log         *slog.Logger
	Metrics     Metrics
	MaxSkew     time.Duration // how far Now may be off the database's clock; 0: it is not judged
	// Transparency is needed where a profile asks for it alone.
	Transparency Transparency
	// OCSP says for which of the authorities OCSP requests are answered.
	OCSP []OCSPPlan
	// Lists are of authorities, by name, that do not make one complete CRL by their record's plan.
	Lists map[string]CRLLists
	// Mirrors are where CRLs are put besides being served, by the names under which the log speaks of them. Run puts them there.
	Mirrors map[string]CRLMirror
	// Expiring is how long before its end an event tells of a request that waits; 0: none does.
	Expiring time.Duration
	// AuditLog says who signs the checkpoints of the audit log.
	AuditLog LogPlan
	// TokenLife is how long an API token lasts at most that is made over the API; 0: MaxTokenLife.
	TokenLife time.Duration
}

// Metrics counts what the authority does. A nil Metrics counts nothing.
type Metrics interface {
	Issued(authority, profile string, took time.Duration)
	Refused(profile string)
	Failed(step string)
	Revoked(authority string, reason string)
	RevocationJob(status string) // a job came to be waiting, running, rejected, cancelled or finished
	Orphaned(authority string)
	Published(authority, scope string, took time.Duration) // a CRL was made here; the scope of a delta ends in "/delta"
	Serves(authority, scope string, r CRLRecord)           // the CRL that this replica serves, whoever made it; told again and again
	// RevocationsPublished tells of revocations that are on a CRL from now on, so long after they became durable.
	RevocationsPublished(authority, scope string, count int, after time.Duration)
	Waiting(profile string)          // a request began to wait for approval
	Decided(profile, outcome string) // it waits no more: issued, rejected, expired or refused
	Limited(profile, by string)      // a request was turned away by a rate, a reservation or the key
	LookedUpCAA(failures int, took time.Duration)
	Leads(replica, duty string, since time.Time) // the zero time: it does not, or no more
	Log(LogState)                                // how the audit log is doing; told again and again
	// CertificateEnds tells when a certificate ends that the service itself needs (ForAuthority, ForOCSP, ForTLS), and RenewalFailed that one
	// was not to be had. The name is the authority's, or the replica's.
	CertificateEnds(kind, name string, notAfter time.Time)
	RenewalFailed(kind, name string)
	// KeyAvailable tells whether the key of an authority, or of an OCSP responder, signed when it was last asked to; told again and again.
	KeyAvailable(kind, name string, available bool)
	OCSPMetrics
}

// New checks that a configuration is whole and makes a CA of it.
func New(cfg Config) (*CA, error) {
	switch {
	case cfg.Store == nil, cfg.Policies == nil, cfg.Now == nil, cfg.Random == nil, cfg.NewID == nil, cfg.Log == nil:
		return nil, errors.New("ca: the configuration lacks a store, policies, clock, randomness, identifiers or log")
	case len(cfg.Authorities) == 0:
		return nil, errors.New("ca: no authority has its key open; add one with `chancery authority add`")
	case cfg.Replica.Name == "" || cfg.Replica.Run == "":
		return nil, errors.New("ca: the replica has no name")
	}
	c := &CA{
		store: cfg.Store, authorities: map[string]*Authority{}, first: cfg.Authorities[0], plan: cfg.PolicyPlan,
		keyLists: cfg.KeyLists, caa: cfg.CAA, transparency: cfg.Transparency,
		rates: newRates(), replica: cfg.Replica, about: cfg.About, random: cfg.Random, newID: cfg.NewID, log: cfg.Log, metrics: cfg.Metrics,
		publications: newPublications(), bulk: cfg.Revocations, jobs: newBell(), lags: newLags(), directory: newDirectory(),
		clock: &clock{now: cfg.Now, max: cfg.MaxSkew}, mirrors: newMirrorings(cfg.Mirrors), expiring: cfg.Expiring,
		logPlan:   cfg.AuditLog,
		tokenLife: cfg.TokenLife, visits: newVisits(),
	}
	c.now = c.clock.right
	if err := checkTransparency(cfg.Policies, cfg.Transparency); err != nil {
		return nil, err
	}
	c.namespaces.Store(&namespaces{byName: maps.Clone(cfg.Namespaces), versions: -1})
	c.ruling.Store(&ruling{set: cfg.Policies})
	if c.keyLists == nil {
		c.keyLists = noKeyLists{}
	}
	if c.metrics == nil {
		c.metrics = noMetrics{}
	}
	for _, a := range cfg.Authorities {
		if a.Issuer == nil || c.authorities[a.Name] != nil {
			return nil, fmt.Errorf("ca: authority %q is given twice or cannot sign", a.Name)
		}
		a.lists = cfg.Lists[a.Name]
		if err := a.lists.check(a); err != nil {
			return nil, fmt.Errorf("ca: the CRLs of authority %q: %w", a.Name, err)
		}
		c.authorities[a.Name] = a
		c.authorityKeys = append(c.authorityKeys, a.Certificate.RawSubjectPublicKeyInfo)
		c.metrics.CertificateEnds(ForAuthority, a.Name, a.Certificate.NotAfter)
	}
	var err error
	if c.ocsp, err = newOCSP(cfg.OCSP, c.authorities); err != nil {
		return nil, err
	}
	return c, nil
}

// Errors that a front end decides on. Refusals by policy are *policies.Refusal, by access *access.Denied.
var (
	ErrNotFound            = errors.New("not found")
	ErrAmbiguousSerial     = errors.New("several authorities have issued this serial; name the issuer")
	ErrIdempotencyMismatch = errors.New("the idempotency key was used for another request")
	ErrIdempotencyBusy     = errors.New("a request with this idempotency key is being worked on")
	ErrKeyCompromised      = errors.New("the key is known to be compromised")
	ErrRevokedOtherwise    = errors.New("the certificate is revoked already, and its state cannot change in this way")
	ErrExpired             = errors.New("the certificate has expired")
	ErrUnavailable         = errors.New("a part that is needed is away for the moment")
	ErrIntentLost          = errors.New("the intent is no longer this replica's")
	ErrFenced              = errors.New("another replica has taken over")
	ErrStalePosition       = errors.New("the position is none that the server knows")
	ErrExists              = errors.New("it exists already")
	ErrOfFile              = errors.New("it stands in the configuration file, and is changed there")
	ErrChanged             = errors.New("it has been changed since it was looked at")
	ErrDecided             = errors.New("the request waits no more")
	ErrOwnRequest          = errors.New("nobody approves the own request, and an approver must be a person")
	ErrUnnamed             = errors.New("persons must approve this, and of one of them, you or who asked for it, nobody says which person " +
		"that is: name it in the configuration, as the person of the rule or in orders.persons, and have it asked for again")
	ErrApprovalIdle   = errors.New("an approval by this person does not count for the request")
	ErrBindingChanged = errors.New("the policies have changed since the request was looked at")
)

// ArchivedError says that the certificates of a serial's month have ended, and are in an archive. Whether one of them has the serial the
// archive tells.
type ArchivedError struct {
	File string // name of the archive
}

func (e *ArchivedError) Error() string {
	return "the certificates of that time have ended, and are in the archive " + e.File
}

// InvalidError is a request that makes no sense whatever the policies say, such as an unknown reason.
type InvalidError struct {
	Field, Message, Hint string
}

func (e *InvalidError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Message) }
