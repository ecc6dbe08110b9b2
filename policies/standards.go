package policies

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// standard is a body of rules that a profile can say it follows. Its demands on the profile are checked when the profile is loaded, so
// that nothing which the profile lets through can break them; its limits on validity come into force by the calendar. A demand that a
// later program makes keeps a set from coming to rule, and does not end the rule of one that does already (LoadRuled).
type standard struct {
	name string
	// source is the document, as it is cited.
	source string
	// section is where it limits the validity.
	section string
	// limits are the longest validities, by the first day of each; those in force before the first are the first's.
	limits []validityLimit
	// demand reports what the profile must not be, or must be.
	demand func(d demands)
}

// Standards are the names of the standards that profiles can follow.
func Standards() []string {
	var names []string
	for _, s := range shippedStandards() {
		names = append(names, s.name)
	}
	return names
}

func shippedStandards() []standard {
	on := func(year int, month time.Month, day int) time.Time {
		return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	}
	return []standard{
		{
			name: "cabf-br", source: "BR", section: "6.3.2", demand: demandBR,
			limits: []validityLimit{ // ballot SC-081v3
				{on(2020, time.September, 1), 398 * day},
				{on(2026, time.March, 15), 200 * day},
				{on(2027, time.March, 15), 100 * day},
				{on(2029, time.March, 15), 47 * day},
			},
		},
		{name: "rfc5280-strict", source: "RFC 5280", demand: demandRFC5280},
		{
			name: "private-default", source: "private default", section: "validity", demand: demandPrivate,
			limits: []validityLimit{{on(2020, time.September, 1), 398 * day}},
		},
		{
			name: "smime-br", source: "S/MIME BR", section: "6.3.2", demand: demandSMIME,
			limits: []validityLimit{{on(2023, time.September, 1), 825 * day}},
		},
		{
			name: "code-signing", source: "CSBR", section: "6.3.2", demand: demandCodeSigning,
			limits: []validityLimit{
				{on(2023, time.June, 1), 1187 * day}, // 39 months, the shortest that they can be
				{on(2026, time.March, 1), 460 * day},
			},
		},
	}
}

// follow are the standards that a profile follows.
type follow []standard

func (f follow) names() []string {
	names := make([]string, len(f))
	for i, s := range f {
		names[i] = s.name
	}
	return names
}

// maxAt is the longest validity that a standard allows for a certificate made at a time; none is said as ok.
func (s standard) maxAt(now time.Time) (longest time.Duration, ok bool) {
	for i, l := range s.limits {
		if i == 0 || !now.Before(l.from) {
			longest = l.max
		}
	}
	return longest, len(s.limits) > 0
}

func compileStandards(r *report, names []string, p *Profile) follow {
	var all follow
	for i, name := range names {
		at := slices.IndexFunc(shippedStandards(), func(s standard) bool { return s.name == name })
		if at < 0 {
			r.field(index("standards", i), "one of "+strings.Join(Standards(), ", "), "%s is not a standard that is known", quote(name))
			continue
		}
		s := shippedStandards()[at]
		s.demand(demands{r, s, p})
		all = append(all, s)
	}
	reportRepeated(r, "standards", names)
	return all
}

// demands holds a profile against a standard.
type demands struct {
	r *report
	s standard
	*Profile
}

// must reports that a demand is not met, at a field of the profile.
func (d demands) must(met bool, field, section, demand string) {
	if !met {
		d.r.demands.Refuse(field, "or leave "+d.s.name+" out of standards", "%s asks that %s (%s %s)", d.s.name, demand, d.s.source, section)
	}
}

func (d demands) linted(source string) {
	d.must(slices.Contains(d.lint.Sources, source), "lint.sources", "as a whole", "certificates are linted by "+source)
}

// strict says that nothing is left out that finds errors. A lint's name does not tell its source: what RFC 5280 calls an error the forum's
// requirements do as well.
func (d demands) strict() {
	strict := !slices.ContainsFunc(d.lint.Except, func(e LintException) bool { return strings.HasPrefix(e.Lint, "e_") })
	d.must(strict, "lint.except", "as a whole", "no lint that finds errors is left out")
}

func (d demands) hasUsage(name string) bool {
	oid, err := lookUp(extKeyUsages, name)
	return err == nil && containsOID(d.extKeyUsage, oid)
}

func (d demands) someKey(usage x509.KeyUsage) bool {
	for _, u := range d.keys.usage {
		if u&usage != 0 {
			return true
		}
	}
	return false
}

func (d demands) allows(algorithm csr.KeyAlgorithm) bool {
	_, ok := d.keys.usage[algorithm]
	return ok
}

// copiesCommonName says that the common name, if any, says nothing that the names do not.
func (d demands) copiesCommonName() bool {
	a, allowed := d.subject.attribute(oidCommonName)
	return !allowed || a.presence != fixed && d.subject.commonName == commonNameCopies
}

// onePolicy says that exactly one of the certificate policies lies under an arc.
func (d demands) onePolicy(arcs ...asn1.ObjectIdentifier) bool {
	n := 0
	for _, oid := range d.policies {
		if slices.ContainsFunc(arcs, func(arc asn1.ObjectIdentifier) bool { return len(oid) >= len(arc) && oid[:len(arc)].Equal(arc) }) {
			n++
		}
	}
	return n == 1
}

// demandBR is the Baseline Requirements for TLS server certificates, as far as a profile can break them. CAA records (BR, section 3.2.2.8) are
// not among the demands: asking for them takes a configuration that a profile cannot know.
func demandBR(d demands) {
	other := slices.ContainsFunc(d.extKeyUsage, func(oid asn1.ObjectIdentifier) bool {
		name := nameOf(extKeyUsages, oid)
		return name != "serverAuth" && name != "clientAuth"
	})
	d.must(d.hasUsage("serverAuth") && !other, "ext_key_usage", "7.1.2.7.10", "there is serverAuth, and nothing besides but clientAuth")
	d.must(!d.allows(csr.Ed25519), "keys.ed25519", "6.1.5", "keys are RSA or ECDSA")
	d.must(!d.someKey(x509.KeyUsageContentCommitment), "keys", "7.1.2.7.11", "no key is for nonRepudiation")
	d.must(d.names.min > 0, "names.min", "7.1.2.7.12", "there is at least one name")
	d.must(d.names.dns == nil || d.names.dns.public, "names.dns.public", "4.2.2", "DNS names are of the public DNS")
	d.must(d.names.ip == nil || !d.names.ip.reserved, "names.ip.reserved", "4.2.2", "no address is reserved")
	d.must(d.names.email == nil, "names.email", "7.1.2.7.12", "names are DNS names and addresses alone")
	d.must(d.names.uri == nil, "names.uri", "7.1.2.7.12", "names are DNS names and addresses alone")
	d.must(d.copiesCommonName(), "subject.common_name", "7.1.4.3", "the common name repeats one of the names")
	_, unit := d.subject.attribute(asn1.ObjectIdentifier{2, 5, 4, 11})
	d.must(!unit, "subject.attributes", "7.1.4.2", "there is no organizationalUnitName")
	d.must(d.onePolicy(asn1.ObjectIdentifier{2, 23, 140, 1, 2}, asn1.ObjectIdentifier{2, 23, 140, 1, 1}),
		"certificate_policies", "7.1.6.1", "there is exactly one of the forum's reserved policies")
	d.linted("CABF_BR")
	d.strict()
}

// demandRFC5280 is what RFC 5280 says a certificate should be, taken as what it must be.
func demandRFC5280(d demands) {
	d.must(d.subjectKeyID || d.ocspNoCheck, "subject_key_id", "4.2.1.2", "the subjectKeyIdentifier is written")
	d.must(d.names.dns == nil || !d.names.dns.underscores, "names.dns.underscores", "4.2.1.6", "host names hold no underscores")
	d.linted("RFC5280")
	d.strict()
}

// demandPrivate is what keeps a private PKI out of trouble: names that are checked, keys that are strong, lives that are short.
func demandPrivate(d demands) {
	d.must(d.names.min > 0, "names.min", "names", "there is at least one name: the common name names nobody")
	d.must(d.copiesCommonName(), "subject.common_name", "names", "the common name repeats one of the names")
	d.must(!d.hasUsage("OCSPSigning") && !d.hasUsage("timeStamping"), "ext_key_usage", "purposes", "nothing speaks for the authority")
	d.must(!d.allows(csr.RSA) || d.keys.rsaMax <= 4096, "keys.rsa.max", "keys", "no RSA key has more than 4096 bits: larger ones cost every peer")
	d.linted("RFC5280")
}

// demandSMIME is the S/MIME Baseline Requirements, multipurpose and strict generations; the legacy one ended on 15 July 2025.
func demandSMIME(d demands) {
	beside := d.hasUsage("serverAuth") || d.hasUsage("codeSigning") || d.hasUsage("timeStamping") || d.hasUsage("OCSPSigning")
	d.must(d.hasUsage("emailProtection") && !beside, "ext_key_usage", "7.1.2.3", "there is emailProtection, and no serverAuth, codeSigning, timeStamping or OCSPSigning")
	d.must(d.names.email != nil && d.names.min > 0, "names.email", "7.1.4.2.1", "there is at least one mailbox")
	d.must(d.names.dns == nil && d.names.ip == nil && d.names.uri == nil, "names", "7.1.4.2.1", "names are mailboxes alone")
	d.must(d.onePolicy(asn1.ObjectIdentifier{2, 23, 140, 1, 5}), "certificate_policies", "7.1.6.1", "there is exactly one of the forum's reserved policies")
	legacy := slices.ContainsFunc(d.policies, func(oid asn1.ObjectIdentifier) bool {
		return len(oid) == 7 && oid[:5].Equal(asn1.ObjectIdentifier{2, 23, 140, 1, 5}) && oid[6] == 1
	})
	d.must(!legacy, "certificate_policies", "7.1.6.1", "the policy is not of the legacy generation, which ended on 15 July 2025")
	d.linted("CABF_SMIME_BR")
	d.strict()
}

// demandCodeSigning is the Code Signing Baseline Requirements, as far as a profile can break them and a private PKI shares them.
func demandCodeSigning(d demands) {
	beside := slices.ContainsFunc(d.extKeyUsage, func(oid asn1.ObjectIdentifier) bool { return nameOf(extKeyUsages, oid) != "codeSigning" })
	d.must(d.hasUsage("codeSigning") && !beside, "ext_key_usage", "7.1.2.3", "codeSigning stands alone")
	d.must(!d.allows(csr.RSA) || d.keys.rsaMin >= 3072, "keys.rsa.min", "6.1.5.2", "RSA keys have at least 3072 bits")
	a, allowed := d.subject.attribute(oidOrganisation)
	d.must(allowed && (a.presence == required || a.presence == fixed), "subject.attributes", "7.1.4.2.2", "the subject has an organizationName")
	d.must(d.names.dns == nil && d.names.ip == nil, "names", "7.1.4.2.1", "there are no names of hosts")
	d.linted("CABF_CS_BR")
	d.strict()
}
