package policies

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// The limits within which profiles move.
const (
	defaultMaxNames = 100
	minRSABits      = 2048           // BR, section 6.1.5
	maxRSABits      = 8192           // more buys nothing and costs every client
	maxBackdate     = 48 * time.Hour // before the signature (BR, section 7.1.2.7)
	toSignature     = time.Hour      // more than what passes between decision and signature, where the DNS is asked, too
)

// lintSources are the sources that lints of zlint are filed under.
var lintSources = []string{
	"RFC3279", "RFC5280", "RFC5480", "RFC5891", "RFC6960", "RFC6962", "RFC8813", "CABF_BR", "CABF_CS_BR",
	"CABF_SMIME_BR", "CABF_EV", "Mozilla", "Apple", "Chrome", "Community", "ETSI_ESI",
}

var (
	profileName = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
	lintName    = regexp.MustCompile(`\A[enw]_[a-z0-9_]+\z`)
	schemeName  = regexp.MustCompile(`\A[a-z][a-z0-9+.-]*\z`)
)

// compile turns a file into a profile and reports everything that is wrong with it, contradictions between its parts included.
// The profile is of use only when nothing was reported.
func compile(r *report, f *profileFile, l *language) *Profile {
	p := &Profile{
		name: f.Name, description: strings.TrimSpace(f.Description), restricted: f.Restricted,
		ocspNoCheck: f.OCSPNoCheck, subjectKeyID: f.SubjectKeyID,
	}
	if !profileName.MatchString(f.Name) {
		r.field("name", "lower-case letters, digits and inner hyphens, at most 63", "%s is not a name for a profile", quote(f.Name))
	}
	if base := strings.TrimSuffix(path.Base(r.file), ".yaml"); f.Name != base {
		r.field("name", "the file is named <name>.yaml", "%s is not the file's name, %s", quote(f.Name), quote(base))
	}
	if p.description == "" {
		r.field("description", "say what the certificates are for", "there is no description")
	}
	p.keys = compileKeys(r, f.Keys)
	p.extKeyUsage = compileExtKeyUsage(r, f)
	p.validity = compileValidity(r, f.Validity)
	p.names = compileNames(r, f.Names)
	p.subject = compileSubject(r, f.Subject, p.names)
	p.drop = dropPolicy{
		extensions: compileOIDs(r, "drop.extensions", extensions, f.Drop.Extensions),
		attributes: compileOIDs(r, "drop.attributes", requestAttributes, f.Drop.Attributes),
	}
	for i, oid := range p.drop.extensions {
		if containsOID(oidsOf(judgedExtensions), oid) {
			r.field(index("drop.extensions", i), "leave it out: a rule of its own judges it", "%s cannot be dropped", nameOf(judgedExtensions, oid))
		}
	}
	p.policies = compileOIDs(r, "certificate_policies", nil, f.CertificatePolicies)
	p.lint = compileLint(r, f.Lint)
	p.approval = compileApproval(r, f.Approval)
	p.quota = compileQuota(r, f.Quota)
	p.standards = compileStandards(r, f.Standards, p)
	p.validity.follow = p.standards
	p.own = compileRules(r, f.Rules, p, l)
	p.rules = rulesWith(p.own)
	if p.approval.count > 0 && !p.approval.always && !slices.ContainsFunc(p.own, func(o ownRule) bool { return o.effect == effectApprove }) {
		r.field("approval.when", "give a rule effect: approve, or leave when out", "approval is for rules to ask for, but no rule does")
	}
	p.transparency = compileTransparency(r, f.CT)
	anonymous := p.names.min == 0 && !slices.ContainsFunc(p.subject.attributes, func(a attributePolicy) bool { return a.presence == required || a.presence == fixed })
	if anonymous {
		r.field("names.min", "ask for at least one name or one subject attribute", "a certificate could be made that names nobody")
	}
	return p
}

func compileKeys(r *report, f keysFile) keyPolicy {
	k := keyPolicy{usage: make(map[csr.KeyAlgorithm]x509.KeyUsage), once: f.Once}
	if f.ECDSA == nil && f.RSA == nil && f.Ed25519 == nil {
		r.field("keys", "allow at least one of ecdsa, rsa and ed25519", "no key is allowed")
	}
	k.reuse = keyReusePolicy(cmp.Or(f.Reuse, string(reuseAnywhere)))
	if !slices.Contains([]keyReusePolicy{reuseAnywhere, reuseSameNamespace, reuseSameNames}, k.reuse) {
		r.field("keys.reuse", "anywhere, same-namespace or same-names", "%s does not say which certificates may share a key", quote(f.Reuse))
	}
	const signatureKeys = x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	const agreement = x509.KeyUsageKeyAgreement | x509.KeyUsageEncipherOnly | x509.KeyUsageDecipherOnly
	if f.ECDSA != nil {
		if len(f.ECDSA.Curves) == 0 {
			r.field("keys.ecdsa.curves", "P-256, P-384 or P-521", "no curve is allowed")
		}
		for i, curve := range f.ECDSA.Curves {
			if !slices.Contains([]string{"P-256", "P-384", "P-521"}, curve) {
				r.field(index("keys.ecdsa.curves", i), "P-256, P-384 or P-521", "%s is not a curve that can be certified", quote(curve))
			}
		}
		reportRepeated(r, "keys.ecdsa.curves", f.ECDSA.Curves)
		k.curves = f.ECDSA.Curves
		k.usage[csr.ECDSA] = compileKeyUsage(r, "keys.ecdsa.key_usage", f.ECDSA.KeyUsage, signatureKeys)
	}
	if f.RSA != nil {
		for _, bits := range []struct {
			field string
			value int
		}{{"keys.rsa.min", f.RSA.Min}, {"keys.rsa.max", f.RSA.Max}} {
			if bits.value < minRSABits || bits.value > maxRSABits || bits.value%8 != 0 {
				r.field(bits.field, "a multiple of 8 from 2048 to 8192", "%d is not a length for RSA keys", bits.value)
			}
		}
		if f.RSA.Min > f.RSA.Max {
			r.field("keys.rsa.min", "", "the shortest RSA key, %d, is longer than the longest, %d", f.RSA.Min, f.RSA.Max)
		}
		k.rsaMin, k.rsaMax = f.RSA.Min, f.RSA.Max
		k.usage[csr.RSA] = compileKeyUsage(r, "keys.rsa.key_usage", f.RSA.KeyUsage, agreement)
	}
	if f.Ed25519 != nil {
		k.usage[csr.Ed25519] = compileKeyUsage(r, "keys.ed25519.key_usage", f.Ed25519.KeyUsage, signatureKeys|agreement)
	}
	return k
}

// compileKeyUsage reads key usages; impossible are those that the algorithm cannot do (RFC 3279, RFC 8813, RFC 8410).
func compileKeyUsage(r *report, field string, names []string, impossible x509.KeyUsage) x509.KeyUsage {
	var usage x509.KeyUsage
	if len(names) == 0 {
		r.field(field, "for example digitalSignature", "there is no key usage")
	}
	for i, name := range names {
		at := slices.IndexFunc(keyUsages, func(u struct {
			name string
			bit  x509.KeyUsage
		},
		) bool {
			return u.name == name
		})
		switch {
		case name == "keyCertSign" || name == "cRLSign":
			r.field(index(field, i), "authorities are made in ceremonies", "no profile issues authorities, so none has %s", name)
		case at < 0:
			r.field(index(field, i), "use RFC 5280's names", "%s is not a key usage", quote(name))
		case keyUsages[at].bit&impossible != 0:
			r.field(index(field, i), "", "keys of this algorithm cannot be used for %s", name)
		default:
			usage |= keyUsages[at].bit
		}
	}
	reportRepeated(r, field, names)
	if usage&(x509.KeyUsageEncipherOnly|x509.KeyUsageDecipherOnly) != 0 && usage&x509.KeyUsageKeyAgreement == 0 {
		r.field(field, "add keyAgreement", "encipherOnly and decipherOnly mean nothing without keyAgreement")
	}
	return usage
}

func compileExtKeyUsage(r *report, f *profileFile) []asn1.ObjectIdentifier {
	usages := compileOIDs(r, "ext_key_usage", extKeyUsages, f.ExtKeyUsage)
	if len(f.ExtKeyUsage) == 0 {
		r.field("ext_key_usage", "for example serverAuth", "there is no extended key usage: the certificate would be good for anything")
	}
	if containsOID(usages, oidAnyExtKeyUsage) {
		r.field("ext_key_usage", "name the usages", "anyExtendedKeyUsage is not issued")
	}
	if containsOID(usages, oidTimeStamping) && len(usages) > 1 { // as a demand: a set may rule that holds it
		r.demands.Refuse("ext_key_usage", "make a profile of its own",
			"timeStamping stands alone: nobody accepts what is stamped otherwise (RFC 3161, section 2.3)")
	}
	responder := containsOID(usages, oidOCSPSigning)
	if responder && len(usages) > 1 {
		r.field("ext_key_usage", "make a profile of its own", "OCSPSigning stands alone: it speaks for the authority")
	}
	if responder && !f.Restricted {
		r.field("restricted", "set restricted: true", "whoever has a certificate with OCSPSigning speaks for the authority: it cannot be open to every namespace")
	}
	if f.OCSPNoCheck && !responder {
		r.field("ocsp_no_check", "", "only certificates with OCSPSigning carry id-pkix-ocsp-nocheck")
	}
	return usages
}

func compileValidity(r *report, f validityFile) validityPolicy {
	v := validityPolicy{
		normal:   compileDuration(r, "validity.default", f.Default),
		max:      compileDuration(r, "validity.max", f.Max),
		backdate: compileDuration(r, "validity.backdate", cmp.Or(f.Backdate, "0s")),
	}
	positive := v.normal > 0 && v.max > 0
	if !positive && r.OK() {
		r.field("validity", "", "a validity must be longer than nothing")
	}
	if positive && v.normal > v.max {
		r.field("validity.default", "", "the default, %s, is longer than the maximum, %s", formatDuration(v.normal), formatDuration(v.max))
	}
	switch {
	case v.backdate > maxBackdate:
		r.field("validity.backdate", "at most 47h", "%s is too far back", formatDuration(v.backdate))
	case v.backdate > maxBackdate-toSignature: // as a demand: a set may rule that holds it
		r.demands.Refuse("validity.backdate", "at most 47h",
			"%s leaves no time between decision and signature: what begins more than 48 hours before it is signed is not",
			formatDuration(v.backdate))
	}
	if positive && v.backdate >= v.normal {
		r.field("validity.backdate", "", "a certificate of default validity would have ended before it is made")
	}
	for i, l := range f.Limits {
		field := index("validity.limits", i)
		from, err := time.Parse(time.DateOnly, l.From)
		if err != nil {
			r.field(field+".from", "write it as 2026-03-15", "%s is not a day", quote(l.From))
		}
		limit := validityLimit{from: from, max: compileDuration(r, field+".max", l.Max)}
		if limit.max > 0 && limit.max <= v.backdate {
			r.field(field+".max", "", "a certificate would have ended before it is made")
		}
		if i > 0 && !from.After(v.limits[i-1].from) {
			r.field(field+".from", "", "the days must be in order, each once")
		}
		v.limits = append(v.limits, limit)
	}
	return v
}

func compileDuration(r *report, field, s string) time.Duration {
	d, err := ParseDuration(s)
	switch {
	case err != nil:
		r.field(field, "", "%s: %v", quote(s), err)
	case d%time.Second != 0:
		r.field(field, "", "%s is not a whole number of seconds", quote(s))
	case d == 0 && field != "validity.backdate":
		r.field(field, "", "%s is no time at all", quote(s))
	}
	return d
}

func compileSubject(r *report, f subjectFile, names namesPolicy) subjectPolicy {
	s := subjectPolicy{commonName: commonNameSource(f.CommonName)}
	for i, a := range f.Attributes {
		field := index("subject.attributes", i)
		if compiled, ok := compileAttribute(r, field, a); ok {
			if _, twice := s.attribute(compiled.oid); twice {
				r.field(field+".type", "", "%s stands a second time", a.Type)
			}
			s.attributes = append(s.attributes, compiled)
		}
	}
	for i, name := range f.Drop {
		field := index("subject.drop", i)
		oid, err := parseOID(name)
		if a, ok := attributeByName(name); ok {
			oid, err = a.oid, nil
		}
		if err != nil {
			r.field(field, "", "%v", err)
			continue
		}
		if _, ok := s.attribute(oid); ok {
			r.field(field, "", "%s is both allowed and dropped", attributeName(oid))
		}
		s.drop = append(s.drop, oid)
	}
	reportRepeated(r, "subject.drop", f.Drop)

	cn, hasCN := s.attribute(oidCommonName)
	noNames := names.dns == nil && names.ip == nil && names.email == nil && names.uri == nil
	switch {
	case !hasCN && f.CommonName != "":
		r.field("subject.common_name", "add commonName to subject.attributes", "the subject has no common name")
	case !hasCN:
	case cn.presence == fixed && f.CommonName != "":
		r.field("subject.common_name", "leave one of them out", "the common name is fixed")
	case cn.presence == fixed:
	case s.commonName == commonNameCopies && noNames:
		r.field("subject.common_name", "", "the common name is to copy a subject alternative name, but none is allowed")
	case s.commonName != commonNameCopies && s.commonName != commonNameFree:
		r.field("subject.common_name", "copy-of-san or free", "%s does not say where the common name comes from", quote(f.CommonName))
	}
	return s
}

func compileAttribute(r *report, field string, f attributeFile) (attributePolicy, bool) {
	known, ok := attributeByName(f.Type)
	if !ok {
		r.field(field+".type", "for example organizationName", "%s is not an attribute that is known", quote(f.Type))
		return attributePolicy{}, false
	}
	if !known.issuable {
		r.field(field+".type", "it can be dropped", "%s is not issued: it has no place in a subject any more", f.Type)
	}
	a := attributePolicy{attributeType: known, presence: presence(f.Presence), value: f.Value, pattern: compileFilePattern(r, field+".pattern", f.Pattern)}
	if f.Max != 0 {
		if f.Max < 0 || f.Max > known.max {
			r.field(field+".max", fmt.Sprintf("RFC 5280 allows 1 to %d", known.max), "%d characters are not allowed", f.Max)
		}
		a.max = f.Max
	}
	switch a.presence {
	case required, optional, checked:
		if f.Value != "" {
			r.field(field+".value", "set presence: fixed", "only a fixed attribute has a value")
		}
	case fixed:
		if problem := attributeProblem(a, f.Value); problem != "" {
			r.field(field+".value", "", "%s %s", quote(f.Value), problem)
		}
	default:
		r.field(field+".presence", "required, optional, checked or fixed", "%s is not a presence", quote(f.Presence))
	}
	return a, true
}

func compileNames(r *report, f namesFile) namesPolicy {
	n := namesPolicy{min: f.Min, max: cmp.Or(f.Max, defaultMaxNames)}
	if f.DNS != nil {
		n.dns = &dnsPolicy{
			wildcards: f.DNS.Wildcards, underscores: f.DNS.Underscores, public: f.DNS.Public, caa: f.DNS.CAA,
			pattern: compileFilePattern(r, "names.dns.pattern", f.DNS.Pattern),
		}
		if f.DNS.Public && f.DNS.Underscores {
			r.field("names.dns.underscores", "", "public names hold no underscores (BR, section 7.1.4.2.1)")
		}
		if f.DNS.CAA && !f.DNS.Public {
			r.field("names.dns.caa", "set public: true as well", "CAA records are asked for in the public DNS, where private names have none")
		}
		if f.DNS.Public && f.IP != nil && f.IP.Reserved {
			r.field("names.ip.reserved", "", "public names and reserved addresses contradict each other")
		}
	}
	if f.IP != nil {
		n.ip = &ipPolicy{reserved: f.IP.Reserved}
	}
	if f.Email != nil {
		n.email = &emailPolicy{pattern: compileFilePattern(r, "names.email.pattern", f.Email.Pattern)}
	}
	if f.URI != nil {
		if len(f.URI.Schemes) == 0 {
			r.field("names.uri.schemes", "for example [spiffe]", "no scheme is allowed")
		}
		for i, scheme := range f.URI.Schemes {
			if !schemeName.MatchString(scheme) {
				r.field(index("names.uri.schemes", i), "in lower case, without \"://\"", "%s is not a scheme", quote(scheme))
			}
		}
		reportRepeated(r, "names.uri.schemes", f.URI.Schemes)
		n.uri = &uriPolicy{schemes: f.URI.Schemes, pattern: compileFilePattern(r, "names.uri.pattern", f.URI.Pattern)}
	}
	n.permitted = compileSubtrees(r, "names.permitted", f.Permitted, n)
	n.excluded = compileSubtrees(r, "names.excluded", f.Excluded, n)
	reportEmptied(r, n)
	none := n.dns == nil && n.ip == nil && n.email == nil && n.uri == nil
	switch {
	case n.min < 0 || n.max < 0 || n.max > csr.MaxNames:
		r.field("names", fmt.Sprintf("from 0 to %d", csr.MaxNames), "%d to %d is not a number of names", n.min, n.max)
	case n.min > n.max:
		r.field("names.min", "", "the least number of names, %d, is more than the greatest, %d", n.min, n.max)
	case none && n.min > 0:
		r.field("names.min", "allow dns, ip, email or uri", "names are asked for but none is allowed")
	}
	return n
}

func compileLint(r *report, f lintFile) Lint {
	if len(f.Sources) == 0 {
		r.field("lint.sources", "for example RFC5280", "nothing is linted")
	}
	for i, source := range f.Sources {
		if !slices.Contains(lintSources, source) {
			r.field(index("lint.sources", i), "one of "+strings.Join(lintSources, ", "), "%s is not a source of lints", quote(source))
		}
	}
	reportRepeated(r, "lint.sources", f.Sources)
	var excepted []string
	for i, e := range f.Except {
		field := index("lint.except", i)
		if !lintName.MatchString(e.Lint) {
			r.field(field+".lint", "for example w_some_lint", "%s is not the name of a lint", quote(e.Lint))
		}
		if strings.TrimSpace(e.Reason) == "" {
			r.field(field+".reason", "say why the lint is wrong here", "an exception needs a reason")
		}
		excepted = append(excepted, e.Lint)
	}
	reportRepeated(r, "lint.except", excepted)
	return Lint(f)
}

func compileFilePattern(r *report, field, source string) *pattern {
	if source == "" {
		return nil
	}
	p, err := compilePattern(source)
	if err != nil {
		r.field(field, "patterns are RE2 and match the whole value", "%v", err)
	}
	return p
}

func compileOIDs(r *report, field string, table []named, values []string) []asn1.ObjectIdentifier {
	var oids []asn1.ObjectIdentifier
	for i, s := range values {
		oid, err := lookUp(table, s)
		switch {
		case err != nil && table != nil:
			r.field(index(field, i), "known names: "+strings.Join(tableNames(table), ", "), "%v", err)
		case err != nil:
			r.field(index(field, i), "", "%v", err)
		case containsOID(oids, oid):
			r.field(index(field, i), "", "%s stands a second time", quote(s))
		default:
			oids = append(oids, oid)
		}
	}
	return oids
}

func reportRepeated(r *report, field string, values []string) {
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			r.field(index(field, i), "", "%s stands a second time", quote(v))
		}
	}
}

func oidsOf(table []named) []asn1.ObjectIdentifier {
	oids := make([]asn1.ObjectIdentifier, len(table))
	for i, n := range table {
		oids[i] = n.oid
	}
	return oids
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
