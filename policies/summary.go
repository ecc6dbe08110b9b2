package policies

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// Summary is what a profile allows, as plain data for people and programs to read. Durations are in seconds.
type Summary struct {
	Name                string             `json:"name"`
	Description         string             `json:"description"`
	Restricted          bool               `json:"restricted"`           // only namespaces that list the profile may use it
	Keys                []KeySummary       `json:"keys"`                 // what may be certified
	ExtKeyUsage         []string           `json:"ext_key_usage"`        // by name where there is one
	ValidityDefault     int64              `json:"validity_default"`     // what a request gets that asks for nothing
	ValidityMax         int64              `json:"validity_max"`         // the most that can be asked for at the time of asking
	Subject             []AttributeSummary `json:"subject"`              // in the order of the certificate
	SubjectDropped      []string           `json:"subject_dropped"`      // what a request may hold without effect
	NameTypes           []string           `json:"name_types"`           // "dns", "ip", "email", "uri"
	NamesMin            int                `json:"names_min"`            // the fewest names
	NamesMax            int                `json:"names_max"`            // the most names
	Wildcards           bool               `json:"wildcards"`            // whether "*." is allowed in DNS names
	PublicNames         bool               `json:"public_names"`         // whether DNS names must be of the public DNS
	CAA                 bool               `json:"caa"`                  // whether the DNS is asked who may certify DNS names (RFC 8659)
	CertificatePolicies []string           `json:"certificate_policies"` // dotted
	LintSources         []string           `json:"lint_sources"`
	LintExceptions      []ExceptionSummary `json:"lint_exceptions"`
	ValidityLimits      []LimitSummary     `json:"validity_limits"` // the profile's own, in order of day
	Standards           []string           `json:"standards"`       // that the profile follows; their limits on validity hold as well
	KeyOnce             bool               `json:"key_once"`        // a key is certified only once, ever
	KeyReuse            string             `json:"key_reuse"`       // which certificates may share a key: "anywhere", "same-namespace", "same-names"
	CommonName          string             `json:"common_name"`
	Backdate            int64              `json:"backdate"`
	Underscores         bool               `json:"underscores"` // whether "_" is allowed in DNS names
	ReservedIP          bool               `json:"reserved_ip"` // whether addresses that are not globally reachable are allowed
	URISchemes          []string           `json:"uri_schemes"` // of names of type uri
	DNSPattern          string             `json:"dns_pattern"` // RE2, of whole names; empty: any
	EmailPattern        string             `json:"email_pattern"`
	URIPattern          string             `json:"uri_pattern"`
	Permitted           SubtreeSummary     `json:"permitted"` // in one of which every name of its type must lie; empty: anywhere
	Excluded            SubtreeSummary     `json:"excluded"`  // in which no name may lie
	ExtensionsDropped   []string           `json:"extensions_dropped"`
	AttributesDropped   []string           `json:"attributes_dropped"` // of the request, not of the subject
	OCSPNoCheck         bool               `json:"ocsp_no_check"`
	SubjectKeyID        bool               `json:"subject_key_id"`
	Rules               []RuleSummary      `json:"rules"` // the profile's own
	Approval            *ApprovalSummary   `json:"approval,omitempty"`
	Quota               *QuotaSummary      `json:"quota,omitempty"`
	CT                  *CTSummary         `json:"ct,omitempty"`
}

// CTSummary says what stands in each certificate of certificate transparency's logs (RFC 6962).
type CTSummary struct {
	SCTs      int             `json:"scts"`      // signed certificate timestamps
	Longer    []LongerSummary `json:"longer"`    // what certificates need that last longer, in order of duration
	Operators int             `json:"operators"` // how many different ones the logs have, at least
	Logs      []string        `json:"logs"`      // that may be asked; empty: every usable one
	Patience  int64           `json:"patience"`  // after which another log is asked beside one that has not answered
	Timeout   int64           `json:"timeout"`   // after which the certificate is given up
}

// LongerSummary is how many timestamps a certificate needs that lasts longer than a duration.
type LongerSummary struct {
	Than int64 `json:"than"`
	SCTs int   `json:"scts"`
}

// LimitSummary lowers the longest validity from a day on.
type LimitSummary struct {
	From string `json:"from"` // the first day, in UTC: 2026-03-15
	Max  int64  `json:"max"`
}

// SubtreeSummary are subtrees of names, by type.
type SubtreeSummary struct {
	DNS   []string `json:"dns"`
	IP    []string `json:"ip"`
	Email []string `json:"email"`
	URI   []string `json:"uri"`
}

// RuleSummary is one rule of a profile's own.
type RuleSummary struct {
	ID         string `json:"id"` // in answers "rules." stands in front of it
	Expression string `json:"expression"`
	Message    string `json:"message"`
	Hint       string `json:"hint"`
	Field      string `json:"field"`
	Effect     string `json:"effect"`           // "refuse" or "approve"
	Always     string `json:"always,omitempty"` // "holds" or "fails" where no request can change the answer
	Line       int    `json:"-"`                // where the expression stands in the profile's file
}

// ApprovalSummary says whose consent is needed.
type ApprovalSummary struct {
	Count   int      `json:"count"`   // distinct persons, never the requester
	Groups  []string `json:"groups"`  // of which an approver must be in one; empty: any approver
	Signed  bool     `json:"signed"`  // by the approver's own key
	Expires int64    `json:"expires"` // how long a request may wait
	When    string   `json:"when"`    // "always", or "rules" where a rule asks for it
}

// QuotaSummary bounds how many certificates are issued.
type QuotaSummary struct {
	Certificates int    `json:"certificates"`
	Per          int64  `json:"per"`
	Of           string `json:"of"` // "namespace", "requester" or "name"
}

// KeySummary is one kind of key that is certified, and its key usage.
type KeySummary struct {
	Algorithm string   `json:"algorithm"` // "ECDSA P-256", "RSA 2048-4096", "Ed25519"
	KeyUsage  []string `json:"key_usage"`
}

// AttributeSummary is one attribute of the subject.
type AttributeSummary struct {
	Type     string `json:"type"`
	Presence string `json:"presence"` // "required", "optional", "checked", "fixed"
	Value    string `json:"value,omitempty"`
	Max      int    `json:"max"`               // characters
	Pattern  string `json:"pattern,omitempty"` // RE2, of the whole value
}

// ExceptionSummary is one lint that is left out, and why.
type ExceptionSummary struct {
	Lint   string `json:"lint"`
	Reason string `json:"reason"`
}

// Summary is what the profile allows at a time: limits on validity come into force with the calendar. No list in it is nil.
func (p *Profile) Summary(now time.Time) Summary {
	s := Summary{
		Name: p.name, Description: p.description, Restricted: p.restricted,
		Keys:                []KeySummary{},
		ExtKeyUsage:         namesOf(extKeyUsages, p.extKeyUsage),
		ValidityDefault:     int64(p.validity.defaultAt(now) / time.Second),
		ValidityMax:         int64(p.validity.maxAt(now) / time.Second),
		Subject:             []AttributeSummary{},
		SubjectDropped:      []string{},
		NameTypes:           []string{},
		NamesMin:            p.names.min,
		CertificatePolicies: namesOf(nil, p.policies),
		LintSources:         slices.Clone(p.lint.Sources),
		LintExceptions:      []ExceptionSummary{},
		ValidityLimits:      []LimitSummary{},
		Standards:           p.standards.names(),
		KeyOnce:             p.keys.once,
		KeyReuse:            string(p.keys.reuse),
		CommonName:          string(p.subject.commonName),
		Backdate:            int64(p.validity.backdate / time.Second),
		URISchemes:          []string{},
		Permitted:           p.names.permitted.summary(),
		Excluded:            p.names.excluded.summary(),
		ExtensionsDropped:   namesOf(extensions, p.drop.extensions),
		AttributesDropped:   namesOf(requestAttributes, p.drop.attributes),
		OCSPNoCheck:         p.ocspNoCheck,
		SubjectKeyID:        p.subjectKeyID,
		Rules:               make([]RuleSummary, len(p.own)),
	}
	for _, curve := range p.keys.curves {
		s.Keys = append(s.Keys, KeySummary{Algorithm: "ECDSA " + curve, KeyUsage: usageNames(p.keys.usage[csr.ECDSA])})
	}
	if usage, ok := p.keys.usage[csr.RSA]; ok {
		bits := strconv.Itoa(p.keys.rsaMin) + "-" + strconv.Itoa(p.keys.rsaMax)
		s.Keys = append(s.Keys, KeySummary{Algorithm: "RSA " + bits, KeyUsage: usageNames(usage)})
	}
	if usage, ok := p.keys.usage[csr.Ed25519]; ok {
		s.Keys = append(s.Keys, KeySummary{Algorithm: "Ed25519", KeyUsage: usageNames(usage)})
	}
	for _, a := range p.subject.attributes {
		s.Subject = append(s.Subject, AttributeSummary{Type: a.name, Presence: string(a.presence), Value: a.value, Max: a.max, Pattern: a.pattern.text()})
	}
	for _, oid := range p.subject.drop {
		s.SubjectDropped = append(s.SubjectDropped, attributeName(oid))
	}
	for _, kind := range []struct {
		name    string
		allowed bool
	}{{"dns", p.names.dns != nil}, {"ip", p.names.ip != nil}, {"email", p.names.email != nil}, {"uri", p.names.uri != nil}} {
		if kind.allowed {
			s.NameTypes = append(s.NameTypes, kind.name)
			s.NamesMax = p.names.max
		}
	}
	if d := p.names.dns; d != nil {
		s.Wildcards, s.PublicNames, s.CAA, s.Underscores, s.DNSPattern = d.wildcards, d.public, d.caa, d.underscores, d.pattern.text()
	}
	if p.names.ip != nil {
		s.ReservedIP = p.names.ip.reserved
	}
	if p.names.email != nil {
		s.EmailPattern = p.names.email.pattern.text()
	}
	if p.names.uri != nil {
		s.URISchemes, s.URIPattern = append(s.URISchemes, p.names.uri.schemes...), p.names.uri.pattern.text()
	}
	for _, l := range p.validity.limits {
		s.ValidityLimits = append(s.ValidityLimits, LimitSummary{From: l.from.Format(time.DateOnly), Max: int64(l.max / time.Second)})
	}
	for i, o := range p.own {
		s.Rules[i] = RuleSummary{ID: o.id, Expression: o.source, Message: o.message, Hint: o.hint, Field: o.field, Effect: string(o.effect), Always: o.always, Line: o.line}
	}
	if a := p.approval; a.count > 0 {
		s.Approval = &ApprovalSummary{Count: a.count, Groups: append([]string{}, a.groups...), Signed: a.signed, Expires: int64(a.expires / time.Second), When: approvalForRules}
		if a.always {
			s.Approval.When = approvalAlways
		}
	}
	if q := p.quota; q.certificates > 0 {
		s.Quota = &QuotaSummary{Certificates: q.certificates, Per: int64(q.per / time.Second), Of: string(q.of)}
	}
	if t := p.transparency; t != nil {
		s.CT = &CTSummary{
			SCTs: t.SCTs, Longer: []LongerSummary{}, Operators: t.Operators, Logs: append([]string{}, t.Logs...),
			Patience: int64(t.Patience / time.Second), Timeout: int64(t.Timeout / time.Second),
		}
		for _, l := range t.Longer {
			s.CT.Longer = append(s.CT.Longer, LongerSummary{Than: int64(l.Than / time.Second), SCTs: l.SCTs})
		}
	}
	for _, e := range p.lint.Except {
		s.LintExceptions = append(s.LintExceptions, ExceptionSummary(e))
	}
	return s
}

func (n NameConstraints) summary() SubtreeSummary {
	s := SubtreeSummary{DNS: append([]string{}, n.DNS...), IP: []string{}, Email: append([]string{}, n.Email...), URI: append([]string{}, n.URI...)}
	for _, p := range n.IP {
		s.IP = append(s.IP, p.String())
	}
	return s
}

// text is the pattern as it was written; empty where there is none.
func (p *pattern) text() string {
	if p == nil {
		return ""
	}
	return p.source
}

// ValidityChanges are the days on which the longest validity may change, in order.
func (p *Profile) ValidityChanges() []time.Time {
	var days []time.Time
	for _, l := range p.validity.limits {
		days = append(days, l.from)
	}
	for _, s := range p.standards {
		for _, l := range s.limits {
			days = append(days, l.from)
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal)
}

// MaxValidityAt is the longest validity of a certificate made at a time.
func (p *Profile) MaxValidityAt(now time.Time) time.Duration { return p.validity.maxAt(now) }

// HoldsAll tells whether every name that lies in some of the subtrees lies in these as well; no subtrees hold everything. It errs on the
// side of no.
func (s SubtreeSummary) HoldsAll(of SubtreeSummary) bool {
	a, b := s.constraints(), of.constraints()
	same := func(wide, narrow []string, holds func(wide, narrow string) bool) bool {
		if len(wide) == 0 || len(narrow) == 0 {
			return len(wide) == 0
		}
		return !slices.ContainsFunc(narrow, func(n string) bool {
			return !slices.ContainsFunc(wide, func(w string) bool { return w == n || holds(w, n) })
		})
	}
	within := func(w, n string) bool { return within(strings.TrimPrefix(n, "."), w) && !strings.HasPrefix(w, ".") }
	underDot := func(w, n string) bool {
		_, domain, whole := strings.Cut(n, "@")
		if !whole {
			domain = n
		}
		return w == domain || strings.HasPrefix(w, ".") && strings.HasSuffix(domain, w)
	}
	addresses := len(a.IP) == 0 || len(b.IP) > 0 && !slices.ContainsFunc(b.IP, func(n netip.Prefix) bool {
		return !slices.ContainsFunc(a.IP, func(w netip.Prefix) bool { return w.Bits() <= n.Bits() && w.Contains(n.Addr()) })
	})
	return same(a.DNS, b.DNS, within) && addresses && same(a.Email, b.Email, underDot) && same(a.URI, b.URI, underDot)
}

func (s SubtreeSummary) constraints() NameConstraints {
	n := NameConstraints{DNS: s.DNS, Email: s.Email, URI: s.URI}
	for _, cidr := range s.IP {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			n.IP = append(n.IP, p)
		}
	}
	return n
}

// WrittenMaxValidity is the longest validity as the profile's file says it, without its limits and standards.
func (p *Profile) WrittenMaxValidity() time.Duration { return p.validity.max }
