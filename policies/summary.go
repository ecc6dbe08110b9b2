package policies

import (
	"slices"
	"strconv"
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
	CertificatePolicies []string           `json:"certificate_policies"` // dotted
	LintSources         []string           `json:"lint_sources"`
	LintExceptions      []ExceptionSummary `json:"lint_exceptions"`
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
	Max      int    `json:"max"` // characters
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
		s.Subject = append(s.Subject, AttributeSummary{Type: a.name, Presence: string(a.presence), Value: a.value, Max: a.max})
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
	if p.names.dns != nil {
		s.Wildcards, s.PublicNames = p.names.dns.wildcards, p.names.dns.public
	}
	for _, e := range p.lint.Except {
		s.LintExceptions = append(s.LintExceptions, ExceptionSummary(e))
	}
	return s
}
