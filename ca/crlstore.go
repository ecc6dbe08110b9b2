package ca

import (
	"context"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// CRLStore keeps CRLs and says who may make the next. A scope is what one distribution point covers.
type CRLStore interface {
	// AddCRLScopes makes scopes of an authority known. Those that are already are left alone.
	AddCRLScopes(ctx context.Context, issuer string, scopes []string) error
	// DueCRLs are the scopes that need a new CRL, complete or delta, by the schedules of their authorities.
	DueCRLs(ctx context.Context, schedules []CRLSchedule) ([]CRLDue, error)
	// ListedRevocations gives, in the order of their octets, what the next complete CRL of a scope must show, and the position to claim
	// from: every certificate whose latest entry revokes it. One leaves the list only when a CRL that showed it was made after its end
	// (RFC 5280, section 3.3). ErrNotFound when there is no such scope. An error of yield's ends it, and is returned.
	ListedRevocations(ctx context.Context, issuer, scope string, yield func(issuance.RevokedEntry) error) (FeedPosition, error)
	// ClaimCRL makes the claimant the only publisher of a scope for the length of the lease and tells it, in one snapshot, what has
	// changed. ErrFenced while another's lease runs, ErrStalePosition when the position is none of this server's life: list anew. The
	// fence rises with every claim.
	ClaimCRL(ctx context.Context, ask CRLAsk) (CRLClaim, error)
	// ReleaseCRL ends a claim of which no CRL comes, so that nobody need wait for its lease. One that is stale ends nothing.
	ReleaseCRL(ctx context.Context, claim CRLClaim) error
	// RecordCRLIntent makes a CRL's number and the digest of its to-be-signed bytes durable. ErrFenced when the claim is stale or
	// the number is not above every earlier one of the scope.
	RecordCRLIntent(ctx context.Context, i CRLIntent, leaves ...audit.Leaf) error
	// RecordCRL makes a signed CRL the current one, clears what was pending in the claim's snapshot, and ends the claim. A delta marks
	// what was pending instead. ErrFenced when the claim is stale: then the CRL must not be released.
	RecordCRL(ctx context.Context, c CRLRecord, fence int64, leaves ...audit.Leaf) error
	// ImportCRL makes a CRL signed elsewhere the current one of an authority's scope, in place of the one with the number after, nil for none;
	// ErrFenced when another is the current one, or when the number is not above the last.
	ImportCRL(ctx context.Context, c CRLRecord, after *big.Int, leaves ...audit.Leaf) error
	// CurrentCRL is the complete CRL of a scope that was published last; ErrNotFound before the first. When the number is the one given
	// in unless, the DER is left empty: the caller has it.
	CurrentCRL(ctx context.Context, issuer, scope string, unless *big.Int) (CRLRecord, error)
	// CurrentDelta is CurrentCRL for delta CRLs.
	CurrentDelta(ctx context.Context, issuer, scope string, unless *big.Int) (CRLRecord, error)
	// CRLStates are where the scopes of an authority stand, by name.
	CRLStates(ctx context.Context, issuer string) ([]CRLState, error)
}

// CRLPlan says when an authority's CRLs are made. For an offline authority it only informs.
type CRLPlan struct {
	Period   time.Duration // a new one is made at least so often
	Validity time.Duration // nextUpdate - thisUpdate
}

// FullScope is the CRL scope of all certificates of an authority that has no shards.
const FullScope = "full"

// CRLSchedule says when the CRLs of an authority are due: complete ones a period after the last, deltas likewise. Each scope's period is
// shorter by a fixed part of the jitter, so that not all come at once. What is revoked makes a CRL due at once: a delta where there are
// deltas, a complete one otherwise.
type CRLSchedule struct {
	Issuer      string
	Period      time.Duration
	Jitter      time.Duration
	DeltaPeriod time.Duration // 0: there are no deltas
}

// CRLDue is a scope that needs a new CRL.
type CRLDue struct {
	Issuer, Scope string
	Delta         bool
	// Why is "first", "revocation", "schedule", "base": a delta to a new complete CRL; "clock": the last is of a time to come; "form": it
	// does not say of itself what the next would; "corrupted", "demand", or "key".
	Why string
}

// CRLAsk asks for the right to make the next CRL of a scope.
type CRLAsk struct {
	Issuer, Scope string
	By            Replica
	Lease         time.Duration
	Since         FeedPosition // up to where a complete CRL's entries are known
	Delta         bool         // what is asked for is a delta CRL
}

// CRLClaim is the right to make the next CRL of a scope, and what it must show.
type CRLClaim struct {
	Issuer, Scope string
	Fence         int64
	LastNumber    *big.Int  // highest number ever intended; 0 when none
	Now           time.Time // the database's clock at the snapshot
	// Published and PublishedAt are the number and thisUpdate of the current complete CRL; nil and zero before the first.
	Published   *big.Int
	PublishedAt time.Time
	Alone       bool // the authority has no other scope
	// Changes are for a complete CRL the latest entries of certificates that changed since the position; for a delta, those of what no
	// complete CRL shows.
	Changes  []issuance.RevokedEntry
	Position FeedPosition // to ask from the next time
	Pending  []CRLPending // what RecordCRL clears
}

// CRLPending is a revocation that no complete CRL shows yet.
type CRLPending struct {
	ID     int64
	Serial []byte
	Since  time.Time
}

// CRLIntent is a to-be-signed CRL that must be durable before a key is asked.
type CRLIntent struct {
	Issuer, Scope string
	Number        *big.Int
	TBS           [32]byte // SHA-256 of the to-be-signed bytes
	Fence         int64
	Owner         Replica
	At            time.Time
}

// CRLRecord is a signed CRL.
type CRLRecord struct {
	Issuer, Scope string
	Number        *big.Int
	Base          *big.Int // of a delta CRL; nil for a complete one
	DER           []byte
	ThisUpdate    time.Time
	NextUpdate    time.Time
	Entries       int
	Pending       []CRLPending // what it shows, as claimed; of an imported one by serial alone
	EventID       string
}

// CRLState is where a scope stands.
type CRLState struct {
	Scope      string
	Number     *big.Int // nil before the first CRL
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int
	Octets     int
	Delta      *big.Int // nil without one
	Pending    int      // revocations that no complete CRL shows
}
