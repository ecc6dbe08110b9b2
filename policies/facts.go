package policies

import (
	"slices"
	"time"
)

// KeyUse is an earlier certificate of the key that a request is made with.
type KeyUse struct {
	Namespace string
	Names     []string // every subject alternative name as text: "example.com", "192.0.2.1"
	Serial    string   // lower-case hex
	NotAfter  time.Time
}

// CAAAnswer is what the DNS says of the authorities that may certify a name (RFC 8659): the relevant record set, found by whoever asked, or
// why there is no answer.
type CAAAnswer struct {
	Name    string // the DNS name, lower-case and without "*."
	At      string // the name at or above it where the record set stands; empty where there is none
	Records []CAARecord
	Failure string // why the DNS could not be asked; empty with an answer
}

// CAARecord is one record of a CAA record set (RFC 8659, section 4.1).
type CAARecord struct {
	Critical bool
	Tag      string
	Value    string
}

// Facts are those that cost a look-up, so that they are gathered only for decisions that come to depend on them.
type Facts struct {
	KeyHistory bool     // the earlier certificates of the key
	CAA        []string // the DNS names whose CAA records must be known
}

// None tells that no fact is awaited.
func (f Facts) None() bool { return !f.KeyHistory && len(f.CAA) == 0 }

// Awaits are the facts without which nothing but a refusal was possible. It is empty for a decision that has what it needs, and for one
// that would refuse whatever they are. Whoever gathers them decides again.
func (d *Decision) Awaits() Facts {
	if d == nil {
		return Facts{}
	}
	return d.awaits
}

// awaited are the facts that alone stand in the way of the request. Where something else does as well, the rules that lack facts count as
// not reached: what they would say is not worth a look-up.
func (e *evaluation) awaited(results []RuleResult) Facts {
	lacks := func(r RuleResult) bool {
		return r.Rule == ruleKeyReuse && e.awaits.KeyHistory || r.Rule == ruleNamesCAA && len(e.awaits.CAA) > 0
	}
	if e.awaits.None() || !slices.ContainsFunc(results, func(r RuleResult) bool {
		return (r.Verdict == Refuse || r.Verdict == NotReached) && !lacks(r)
	}) {
		return e.awaits
	}
	for i, r := range results {
		if lacks(r) {
			results[i].Verdict, results[i].Violations = NotReached, nil
		}
	}
	return Facts{}
}

// AsksCAA tells whether the profile needs CAA records of its names.
func (p *Profile) AsksCAA() bool { return p.names.dns != nil && p.names.dns.caa }
