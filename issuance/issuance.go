// Package issuance owns the contents of what an authority signs: it builds the to-be-signed bytes of certificates and CRLs, lints
// them, has the intent recorded, signs them with the authority's key, and verifies the signature.
//
// It is the only user of issuer keys. The order is in the types: a *policies.Grant makes a *Prepared, a *Prepared is signed once
// and makes a *Certificate, and nothing is signed before a Recorder has made its intent durable. It knows no database and no HSM:
// the recorder and the crypto.Signer come in.
package issuance

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Kind is what is signed.
type Kind string

// The kinds.
const (
	Final          Kind = "final"          // a certificate
	Precertificate Kind = "precertificate" // RFC 6962, section 3.1
	List           Kind = "crl"
)

// Signing is what is about to be signed. It is the intent that must be durable before a key is asked.
type Signing struct {
	Kind   Kind
	Serial Serial   // of a certificate
	Number *big.Int // of a CRL
	TBS    []byte   // the exact bytes; must not be changed or kept past the call without a copy
	Digest [32]byte // SHA-256 over TBS
}

// Recorder makes an intent durable. Record returns nil only when the intent has survived any crash from then on; on any error
// nothing is signed. It is called once for each signature, before it.
type Recorder interface {
	Record(ctx context.Context, s Signing) error
}

// RecorderFunc makes a function a Recorder.
type RecorderFunc func(ctx context.Context, s Signing) error

// Record calls f.
func (f RecorderFunc) Record(ctx context.Context, s Signing) error { return f(ctx, s) }

// Signature tells of one use of the key, for the audit log.
type Signature struct {
	KeyID     []byte // subject key identifier of the issuer
	Algorithm string // "ECDSA-SHA256", ...
	Digest    []byte // SHA-256 of the signed bytes
	Duration  time.Duration
}

// Certificate is a certificate that was signed and verified.
type Certificate struct {
	DER       []byte
	TBS       []byte
	Serial    Serial
	Kind      Kind
	Signature Signature
}

// CRL is a certificate revocation list that was signed and verified.
type CRL struct {
	DER        []byte
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int
	Signature  Signature
}

// CRLContents is what a CRL shall say. Times are cut to whole seconds.
type CRLContents struct {
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    []CRLEntry // any order; written in order of serial
	Revoked    *Revoked   // in place of Entries: those of a complete CRL, kept from one to the next
	// Distribution, when not empty, is the one URL of a critical issuingDistributionPoint (RFC 5280, section 5.2.5): the CRL is
	// complete only for certificates whose distribution point is that URL.
	Distribution string
	Contains     Contents // which certificates the CRL is for, in the issuingDistributionPoint
	Reasons      []Reason // for which reasons alone; empty: for all. Unspecified cannot be among them
	// Base makes it a delta CRL: it lists what has changed since the complete CRL of this number (RFC 5280, section 5.2.4).
	Base *big.Int
	// Freshest, when not empty, is where the delta CRL of a complete one is found (RFC 5280, section 5.2.6).
	Freshest string
}

// Contents are the certificates that a CRL is for.
type Contents int

// What a CRL can be for.
const (
	Everything            Contents = iota
	UserCertificates               // onlyContainsUserCerts
	AuthorityCertificates          // onlyContainsCACerts
)

// CRLEntry is one revoked certificate.
type CRLEntry struct {
	Serial         []byte    // big-endian, at most 20 octets; leading zeros do not count
	RevokedAt      time.Time // one later than ThisUpdate, from a clock ahead, is written as ThisUpdate
	Reason         Reason    // not 7; RemoveFromCRL on delta CRLs alone
	InvalidityDate time.Time // zero: absent
}

// Reason is a CRLReason (RFC 5280, section 5.3.1).
type Reason int

// The reasons. 7 is not used.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	RemoveFromCRL        Reason = 8
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = [...]string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
	"certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
}

// String is the reason's name in RFC 5280.
func (r Reason) String() string {
	if r < 0 || int(r) >= len(reasonNames) || reasonNames[r] == "" {
		return fmt.Sprintf("reason(%d)", int(r))
	}
	return reasonNames[r]
}

// ParseReason reads a reason by its RFC 5280 name, in any case, or by number.
func ParseReason(s string) (Reason, error) {
	for i, name := range reasonNames {
		if name != "" && (strings.EqualFold(name, s) || fmt.Sprint(i) == s) {
			return Reason(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a revocation reason of RFC 5280; use one of %s", s, strings.Join(ReasonNames(), ", "))
}

// ReasonNames are the names of all reasons, in order of number.
func ReasonNames() []string {
	var names []string
	for _, n := range reasonNames {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// ErrPossiblySigned marks an error after which a signature may exist although none is returned: the intent must stay on record
// and its serial must be treated as issued.
var ErrPossiblySigned = errors.New("the key may have signed")

// PassedNumber is the error of a key whose keeper has signed the number of a CRL, or a higher one, in the same scope. That one may be known
// to nobody else.
type PassedNumber interface {
	error
	// LastNumber is the highest number that the key signed in the scope.
	LastNumber() *big.Int
}

// ErrSpent is returned for something prepared that was signed, or tried, before.
var ErrSpent = errors.New("issuance: prepared bytes are signed at most once")

// LintError is the refusal of to-be-signed bytes by a lint. It means that a profile or this program is at fault, never the
// requester alone: policies should have refused first.
type LintError struct {
	Findings []Finding
}

// Finding is one lint's complaint.
type Finding struct {
	Lint    string
	Level   string // "notice", "warn", "error", "fatal"
	Details string
}

func (e *LintError) Error() string {
	parts := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		parts[i] = f.Level + " " + f.Lint
		if f.Details != "" {
			parts[i] += " (" + f.Details + ")"
		}
	}
	return "lint refused: " + strings.Join(parts, ", ")
}
