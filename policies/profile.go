package policies

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// Profile is one kind of certificate: what may be asked for, and what is written. It does not change once loaded. The fields are
// explained where they are declared as a file, in profile_file.go.
type Profile struct {
	name         string
	description  string
	restricted   bool
	keys         keyPolicy
	extKeyUsage  []asn1.ObjectIdentifier
	validity     validityPolicy
	subject      subjectPolicy
	names        namesPolicy
	drop         dropPolicy
	policies     []asn1.ObjectIdentifier
	ocspNoCheck  bool
	subjectKeyID bool
	lint         Lint
	standards    follow
	own          []ownRule
	rules        []rule[*evaluation] // all that are asked, in order
	approval     approvalPolicy
	quota        quotaPolicy
	transparency *Transparency
}

// keyPolicy says which keys are certified; an algorithm without key usage is refused.
type keyPolicy struct {
	curves         []string
	rsaMin, rsaMax int
	usage          map[csr.KeyAlgorithm]x509.KeyUsage
	reuse          keyReusePolicy
	once           bool // a key is certified only once, ever
}

// keyReusePolicy says which certificates may share a key.
type keyReusePolicy string

const (
	reuseAnywhere      keyReusePolicy = "anywhere"
	reuseSameNamespace keyReusePolicy = "same-namespace"
	reuseSameNames     keyReusePolicy = "same-names"
)

type validityPolicy struct {
	normal   time.Duration // what a request gets that asks for nothing
	max      time.Duration
	limits   []validityLimit // in order of time
	backdate time.Duration
	follow   follow // the standards whose limits hold as well
}

type validityLimit struct {
	from time.Time
	max  time.Duration
}

// maxAt is the longest validity of a certificate made at a time.
func (v validityPolicy) maxAt(now time.Time) time.Duration {
	longest := v.max
	for _, l := range v.limits {
		if !now.Before(l.from) {
			longest = min(longest, l.max)
		}
	}
	for _, s := range v.follow {
		if l, ok := s.maxAt(now); ok {
			longest = min(longest, l)
		}
	}
	return longest
}

// bindingAt is the standard that makes a validity longer than it is allowed, if one does: for the words of a refusal.
func (v validityPolicy) bindingAt(now time.Time) (standard, bool) {
	longest := v.maxAt(now)
	for _, s := range v.follow {
		if l, ok := s.maxAt(now); ok && l == longest && longest < v.max {
			return s, true
		}
	}
	return standard{}, false
}

// defaultAt is the validity of a certificate made at a time for a request that asks for nothing.
func (v validityPolicy) defaultAt(now time.Time) time.Duration { return min(v.normal, v.maxAt(now)) }

type subjectPolicy struct {
	attributes []attributePolicy
	commonName commonNameSource
	drop       []asn1.ObjectIdentifier
}

// commonNameSource says where the common name comes from.
type commonNameSource string

const (
	commonNameCopies commonNameSource = "copy-of-san"
	commonNameFree   commonNameSource = "free"
)

// presence says whether an attribute must, may, or does stand in the subject, or is checked and not written.
type presence string

const (
	required presence = "required"
	optional presence = "optional"
	checked  presence = "checked"
	fixed    presence = "fixed"
)

type attributePolicy struct {
	attributeType
	presence presence
	value    string // of a fixed attribute
	pattern  *pattern
}

// attribute finds what the profile says of an attribute.
func (s subjectPolicy) attribute(oid asn1.ObjectIdentifier) (attributePolicy, bool) {
	i := slices.IndexFunc(s.attributes, func(a attributePolicy) bool { return a.oid.Equal(oid) })
	if i < 0 {
		return attributePolicy{}, false
	}
	return s.attributes[i], true
}

// namesPolicy says which names are allowed; a nil kind is refused.
type namesPolicy struct {
	min, max int
	dns      *dnsPolicy
	ip       *ipPolicy
	email    *emailPolicy
	uri      *uriPolicy
	// permitted and excluded hold whatever the types of their own say; empty constrains nothing.
	permitted, excluded NameConstraints
}

type dnsPolicy struct {
	wildcards, underscores, public, caa bool
	pattern                             *pattern
}

type ipPolicy struct{ reserved bool }

type emailPolicy struct{ pattern *pattern }

type uriPolicy struct {
	schemes []string
	pattern *pattern
}

type dropPolicy struct {
	extensions []asn1.ObjectIdentifier
	attributes []asn1.ObjectIdentifier
}

// pattern is a regular expression that whole values must match. A nil pattern is matched by everything.
type pattern struct {
	source string
	whole  *regexp.Regexp
}

// The bounds on patterns. RE2 never backtracks: what a match costs is bounded by the product of the value's and the program's length.
const (
	maxPattern        = 500  // characters
	maxPatternProgram = 2000 // instructions
)

func compilePattern(source string) (*pattern, error) {
	if len(source) > maxPattern {
		return nil, fmt.Errorf("the pattern has more than %d characters", maxPattern)
	}
	if _, err := regexp.Compile(source); err != nil { // alone first: "a)|(b" must not become sound by being wrapped
		return nil, err
	}
	whole, err := regexp.Compile(`\A(?:` + source + `)\z`)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxPatternProgram {
		return nil, fmt.Errorf("the pattern unfolds to %d instructions; %d is the most", len(program.Inst), maxPatternProgram)
	}
	return &pattern{source: source, whole: whole}, nil
}

func (p *pattern) matches(s string) bool { return p == nil || p.whole.MatchString(s) }

// Name is the profile's name.
func (p *Profile) Name() string { return p.name }

// Description says what the certificates are for.
func (p *Profile) Description() string { return p.description }
