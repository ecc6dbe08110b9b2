// Package policies decides: may this requester have this certificate, and what exactly would it say?
//
// It owns the profiles (profiles/*.yaml), the rules (one file each, with the source of the rule), and the decision. It owns no
// facts: time, namespace, issuer and key history come in with the request, so that a decision can be repeated on history. The
// package is pure. What a certificate says is built from the profile; what the request asks for is only ever a candidate value.
package policies

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
)

// Request is a certification request with every fact that a rule may look at.
type Request struct {
	CSR       *csr.Request
	Profile   string
	Validity  time.Duration // asked for; 0 means the profile's default
	Actor     access.Actor
	Namespace access.Namespace
	Issuer    Issuer
	Now       time.Time
	// CompromisedKey says that the key is known to be compromised (revoked with keyCompromise here, or listed).
	CompromisedKey bool
	// KeyLists are the titles of the lists of keys unfit for any certificate in which the key stands: Debian's weak keys, leaked ones.
	KeyLists []string
	// KeyHistory are the earlier certificates of the key, those that have ended included; nil when they have not been looked up, and empty
	// when there are none. Where a key has many, one for each different set of names in a namespace will do.
	KeyHistory []KeyUse
	// CAA are the answers of the DNS, one for each name that was asked about.
	CAA []CAAAnswer
	// AuthorityKeys are the SubjectPublicKeyInfos of the authority's own keys, which nobody may have certified.
	AuthorityKeys [][]byte
	// Usage is how much of the reservations of this request was used before (Set.Reservations names them).
	Usage []Usage
	// Besides is what the certificate would take of the quotas of its namespace, which are none of its profile: for an early answer. Whoever
	// records the intent adds them to the grant's.
	Besides []Taken
}

// Issuer is what a decision must know of the authority that would sign.
type Issuer struct {
	Name        string
	Certificate *x509.Certificate
	Above       []*x509.Certificate // of the authorities above it, up to the root: their name constraints and purposes hold as well
	CRLScope    string              // the CRL scope that a certificate issued now belongs to
	CRLURL      string              // the distribution point written into it; empty means none
	IssuerURLs  []string            // caIssuers of authorityInfoAccess
	OCSPURLs    []string            // id-ad-ocsp of authorityInfoAccess
	CAADomains  []string            // the domains by which CAA records name the authority (RFC 8659, section 4.2)
}

// Verdict is the outcome of a decision or of one rule.
type Verdict string

// The verdicts. NotReached is a rule's alone: an earlier refusal made looking pointless or unsafe.
const (
	Allow         Verdict = "allow"
	NeedsApproval Verdict = "needs-approval"
	Refuse        Verdict = "refuse"
	NotReached    Verdict = "not-reached"
)

// Violation is one way in which a request breaks a rule, in words for the requester.
type Violation struct {
	Rule    string `json:"rule"`
	Field   string `json:"field"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	// Temporary says that the same request may be allowed later without anybody changing anything.
	Temporary bool `json:"temporary,omitempty"`
}

// RuleResult is what one rule said.
type RuleResult struct {
	Rule       string      `json:"rule"`
	Source     string      `json:"source"` // the citation: RFC section, BR section, or "profile"
	Verdict    Verdict     `json:"verdict"`
	Seen       string      `json:"seen,omitempty"` // the value that the rule looked at, quoted and bounded
	Violations []Violation `json:"violations,omitempty"`
	// Notices are what the rule remarks without refusing; where the verdict is NeedsApproval, why it asks for approval is among them.
	Notices []Violation `json:"notices,omitempty"`
}

// Template is the exact content of a certificate but for its serial, its issuer's name and key identifier, and its signature.
// NotBefore and NotAfter are whole seconds in UTC, inclusive (RFC 5280, section 4.1.2.5).
type Template struct {
	Subject           pkix.RDNSequence // each RDN holds one attribute; values are printable or UTF-8 strings
	SPKI              []byte
	PublicKey         crypto.PublicKey
	NotBefore         time.Time
	NotAfter          time.Time
	DNS               []string
	IP                []netip.Addr
	Email             []string
	URI               []string
	KeyUsage          x509.KeyUsage
	ExtKeyUsage       []asn1.ObjectIdentifier
	CA                bool
	PathLen           int // -1 means no limit; of meaning only where CA
	Permitted         *NameConstraints
	Excluded          *NameConstraints
	Policies          []asn1.ObjectIdentifier
	OCSPNoCheck       bool
	CRLURL            string
	FreshestCRLURL    string // of the delta CRL; empty: there is none
	IssuerURLs        []string
	OCSPURLs          []string
	CRLScope          string
	SubjectKeyID      []byte // RFC 7093, section 2, method 1: the leftmost 160 bits of SHA-256 of the key
	WriteSubjectKeyID bool   // whether the subjectKeyIdentifier extension is written
}

// Names are all subject alternative names as text: DNS names, addresses, mailboxes, URIs.
func (t Template) Names() []string {
	names := append([]string{}, t.DNS...)
	for _, ip := range t.IP {
		names = append(names, ip.String())
	}
	return append(append(names, t.Email...), t.URI...)
}

// NameConstraints are subtrees of one kind, permitted or excluded (RFC 5280, section 4.2.1.10).
type NameConstraints struct {
	DNS   []string
	IP    []netip.Prefix
	Email []string
	URI   []string
}

// Lint says how a certificate is linted before it is signed.
type Lint struct {
	Sources []string        // zlint lint sources, such as "RFC5280", "CABF_BR"
	Except  []LintException // lints left out, each with its reason
}

// LintException is one lint that a profile leaves out, and why.
type LintException struct {
	Lint   string `yaml:"lint"`
	Reason string `yaml:"reason"`
}

// Refusal is the error of a decision that refuses. It carries every violation found, not only the first.
type Refusal struct {
	Profile    string
	Violations []Violation
}

// Temporary tells whether the same request may be allowed later without anybody changing anything: every violation is of that kind.
func (r *Refusal) Temporary() bool {
	return len(r.Violations) > 0 && !slices.ContainsFunc(r.Violations, func(v Violation) bool { return !v.Temporary })
}

func (r *Refusal) Error() string {
	if len(r.Violations) == 0 {
		return "refused by policy"
	}
	return "refused by policy: " + r.Violations[0].Message
}
