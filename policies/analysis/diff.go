package analysis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// Effect is what a change means for what is issued.
type Effect string

// The effects of changes.
const (
	EffectBroader  Effect = "broader"  // more is allowed
	EffectNarrower Effect = "narrower" // less is allowed
	EffectUnclear  Effect = "unclear"  // it cannot be told: patterns and expressions were changed
	EffectNeutral  Effect = "neutral"  // the same is allowed, said or written otherwise
)

// Change is one difference between two sets.
type Change struct {
	Profile string `json:"profile"`
	Field   string `json:"field"` // where, in the profile's file
	Effect  Effect `json:"effect"`
	Words   string `json:"words"`
}

func (c Change) String() string {
	return fmt.Sprintf("%s: %s: %s (%s)", c.Profile, c.Field, c.Words, c.Effect)
}

// Diff says in words what b does otherwise than a, profile by profile, in order of name.
func Diff(a, b *policies.Set) []Change {
	names := append(a.Names(), b.Names()...)
	slices.Sort(names)
	var all []Change
	for _, name := range slices.Compact(names) {
		before, had := a.Profile(name)
		after, has := b.Profile(name)
		switch {
		case !had:
			all = append(all, Change{name, "name", EffectBroader, "the profile is new"})
		case !has:
			all = append(all, Change{name, "name", EffectNarrower, "the profile is gone"})
		default:
			all = append(all, diffProfile(before, after)...)
		}
	}
	return all
}

type differ struct {
	profile string
	changes []Change
}

func (d *differ) report(effect Effect, field, format string, args ...any) {
	d.changes = append(d.changes, Change{d.profile, field, effect, fmt.Sprintf(format, args...)})
}

func diffProfile(before, after *policies.Profile) []Change {
	d := &differ{profile: after.Name()}
	a, b := before.Summary(time.Time{}), after.Summary(time.Time{})
	d.text("description", "the description", a.Description, b.Description, EffectNeutral)
	d.flag("restricted", "only namespaces that list it may use the profile", a.Restricted, b.Restricted, EffectNarrower)
	d.keys(a.Keys, b.Keys)
	d.flag("keys.once", "a key is certified only once", a.KeyOnce, b.KeyOnce, EffectNarrower)
	d.reuse(a.KeyReuse, b.KeyReuse)
	d.list("ext_key_usage", "the extended key usage", a.ExtKeyUsage, b.ExtKeyUsage, EffectBroader)
	d.validity(before, after, a, b)
	d.subject(a, b)
	d.names(a, b)
	d.list("drop.extensions", "the extension, which is dropped,", a.ExtensionsDropped, b.ExtensionsDropped, EffectBroader)
	d.list("drop.attributes", "the attribute, which is dropped,", a.AttributesDropped, b.AttributesDropped, EffectBroader)
	d.list("certificate_policies", "the certificate policy", a.CertificatePolicies, b.CertificatePolicies, EffectUnclear)
	d.flag("ocsp_no_check", "id-pkix-ocsp-nocheck is written", a.OCSPNoCheck, b.OCSPNoCheck, EffectUnclear)
	d.flag("subject_key_id", "the subjectKeyIdentifier is written", a.SubjectKeyID, b.SubjectKeyID, EffectNeutral)
	d.list("lint.sources", "linting by", a.LintSources, b.LintSources, EffectNarrower)
	d.exceptions(a.LintExceptions, b.LintExceptions)
	d.list("standards", "the standard", a.Standards, b.Standards, EffectNarrower)
	d.rules(a.Rules, b.Rules)
	d.approval(a.Approval, b.Approval)
	d.quota(a.Quota, b.Quota)
	d.transparency(a.CT, b.CT)
	return d.changes
}

// opposite is the effect of the reverse of a change.
func opposite(e Effect) Effect {
	switch e {
	case EffectBroader:
		return EffectNarrower
	case EffectNarrower:
		return EffectBroader
	}
	return e
}

// flag compares a statement; on is the effect of its becoming true.
func (d *differ) flag(field, statement string, a, b bool, on Effect) {
	switch {
	case b && !a:
		d.report(on, field, "now %s", statement)
	case a && !b:
		d.report(opposite(on), field, "no longer: %s", statement)
	}
}

// number compares a bound; up is the effect of its growing.
func (d *differ) number(field, what string, a, b int64, up Effect, write func(int64) string) {
	switch {
	case b > a:
		d.report(up, field, "%s is %s instead of %s", what, write(b), write(a))
	case b < a:
		d.report(opposite(up), field, "%s is %s instead of %s", what, write(b), write(a))
	}
}

func plain(n int64) string { return fmt.Sprint(n) }

// list compares sets of words; more is the effect of one more.
func (d *differ) list(field, what string, a, b []string, more Effect) {
	for _, s := range b {
		if !slices.Contains(a, s) {
			d.report(more, field, "%s %s is new", what, s)
		}
	}
	for _, s := range a {
		if !slices.Contains(b, s) {
			d.report(opposite(more), field, "%s %s is gone", what, s)
		}
	}
}

// text compares texts of which nothing but that they differ can be said.
func (d *differ) text(field, what, a, b string, change Effect) {
	if a != b {
		d.report(change, field, "%s is %q instead of %q", what, b, a)
	}
}

// pattern compares patterns: none lets everything through.
func (d *differ) pattern(field, a, b string) {
	switch {
	case a == b:
	case b == "":
		d.report(EffectBroader, field, "there is no pattern any more; it was %s", a)
	case a == "":
		d.report(EffectNarrower, field, "there is a pattern: %s", b)
	default:
		d.report(EffectUnclear, field, "the pattern is %s instead of %s", b, a)
	}
}

// keys compares the kinds of keys, lengths of RSA keys by their bounds.
func (d *differ) keys(a, b []policies.KeySummary) {
	const field = "keys"
	find := func(all []policies.KeySummary, name string) (policies.KeySummary, bool) {
		i := slices.IndexFunc(all, func(k policies.KeySummary) bool { return kind(k) == name })
		if i < 0 {
			return policies.KeySummary{}, false
		}
		return all[i], true
	}
	for _, k := range b {
		old, had := find(a, kind(k))
		if !had {
			d.report(EffectBroader, field, "%s keys are new", k.Algorithm)
			continue
		}
		d.list(field, "for "+kind(k)+" keys the key usage", old.KeyUsage, k.KeyUsage, EffectBroader)
		if kind(k) == "RSA" {
			oldMin, oldMax := bits(old)
			newMin, newMax := bits(k)
			d.number("keys.rsa.min", "the shortest RSA key", oldMin, newMin, EffectNarrower, plain)
			d.number("keys.rsa.max", "the longest RSA key", oldMax, newMax, EffectBroader, plain)
		}
	}
	for _, k := range a {
		if _, has := find(b, kind(k)); !has {
			d.report(EffectNarrower, field, "%s keys are gone", k.Algorithm)
		}
	}
}

// reuse compares which certificates may share a key.
func (d *differ) reuse(a, b string) {
	strict := []string{"anywhere", "same-namespace", "same-names"}
	switch from, to := slices.Index(strict, a), slices.Index(strict, b); {
	case to > from:
		d.report(EffectNarrower, "keys.reuse", "a key may be used again: %s, instead of %s", b, a)
	case to < from:
		d.report(EffectBroader, "keys.reuse", "a key may be used again: %s, instead of %s", b, a)
	}
}

// kind is the algorithm without the lengths of RSA keys.
func kind(k policies.KeySummary) string {
	if strings.HasPrefix(k.Algorithm, "RSA ") {
		return "RSA"
	}
	return k.Algorithm
}

func bits(k policies.KeySummary) (least, most int64) {
	if _, err := fmt.Sscanf(k.Algorithm, "RSA %d-%d", &least, &most); err != nil {
		return 0, 0
	}
	return least, most
}

// validity compares the longest validity on every day on which one of the two changes, and on the days before all of them.
func (d *differ) validity(before, after *policies.Profile, a, b policies.Summary) {
	d.number("validity.default", "the validity that is given when none is asked for", a.ValidityDefault, b.ValidityDefault, EffectNeutral, days)
	d.number("validity.backdate", "backdating", a.Backdate, b.Backdate, EffectNeutral, days)
	changes := append([]time.Time{{}}, before.ValidityChanges()...)
	changes = append(changes, after.ValidityChanges()...)
	slices.SortFunc(changes, time.Time.Compare)
	said := ""
	for _, day := range slices.CompactFunc(changes, time.Time.Equal) {
		x, y := int64(before.MaxValidityAt(day)/time.Second), int64(after.MaxValidityAt(day)/time.Second)
		what := "the longest validity"
		if !day.IsZero() {
			what += " from " + day.Format(time.DateOnly) + " on"
		}
		if pair := days(x) + " " + days(y); pair != said {
			d.number("validity", what, x, y, EffectBroader, days)
			said = pair
		}
	}
}

func (d *differ) subject(a, b policies.Summary) {
	find := func(all []policies.AttributeSummary, name string) (policies.AttributeSummary, bool) {
		i := slices.IndexFunc(all, func(s policies.AttributeSummary) bool { return s.Type == name })
		if i < 0 {
			return policies.AttributeSummary{}, false
		}
		return all[i], true
	}
	for _, s := range b.Subject {
		field := "subject." + s.Type
		old, had := find(a.Subject, s.Type)
		if !had {
			d.report(opposite(gone(s.Presence)), field, "%s is new in the subject, %s", s.Type, s.Presence)
			continue
		}
		if old.Presence != s.Presence {
			d.report(presence(old.Presence, s.Presence), field, "%s is %s instead of %s", s.Type, s.Presence, old.Presence)
		}
		d.text(field, "the fixed value", old.Value, s.Value, EffectUnclear)
		d.number(field, "the greatest number of characters", int64(old.Max), int64(s.Max), EffectBroader, plain)
		d.pattern(field, old.Pattern, s.Pattern)
	}
	for _, s := range a.Subject {
		if _, has := find(b.Subject, s.Type); !has {
			d.report(gone(s.Presence), "subject."+s.Type, "%s is gone from the subject, where it was %s", s.Type, s.Presence)
		}
	}
	if old, now := order(a.Subject, b.Subject), order(b.Subject, a.Subject); !slices.Equal(old, now) {
		d.report(EffectUnclear, "subject.attributes", "the subject's attributes stand in the order %s instead of %s",
			strings.Join(now, ", "), strings.Join(old, ", "))
	}
	switch {
	case a.CommonName == b.CommonName:
	case b.CommonName == "free":
		d.report(EffectBroader, "subject.common_name", "the common name need not repeat a name any more")
	default:
		d.report(EffectNarrower, "subject.common_name", "the common name must repeat a name")
	}
	d.list("subject.drop", "the subject's attribute, which is dropped,", a.SubjectDropped, b.SubjectDropped, EffectBroader)
}

// order are the types of those attributes that another subject has as well, as they follow each other.
func order(of, other []policies.AttributeSummary) (types []string) {
	for _, s := range of {
		if slices.ContainsFunc(other, func(o policies.AttributeSummary) bool { return o.Type == s.Type }) {
			types = append(types, s.Type)
		}
	}
	return types
}

// gone is the effect of an attribute's leaving the subject. Where it had to stand, requests are allowed that were not, and certificates
// say less of whom they name; those that asked for it are refused.
func gone(presence string) Effect {
	if presence == "required" || presence == "fixed" {
		return EffectUnclear
	}
	return EffectNarrower
}

// presence is the effect of a change between presences.
func presence(a, b string) Effect {
	switch {
	case a == "required" && b == "optional", a == "checked" && b == "optional", a == "fixed" && b == "optional":
		return EffectBroader
	case a == "optional" && (b == "required" || b == "checked"):
		return EffectNarrower
	}
	return EffectUnclear
}

func (d *differ) names(a, b policies.Summary) {
	d.list("names", "the type of names", a.NameTypes, b.NameTypes, EffectBroader)
	d.number("names.min", "the least number of names", int64(a.NamesMin), int64(b.NamesMin), EffectNarrower, plain)
	d.number("names.max", "the greatest number of names", int64(a.NamesMax), int64(b.NamesMax), EffectBroader, plain)
	d.flag("names.dns.wildcards", "wildcards are allowed", a.Wildcards, b.Wildcards, EffectBroader)
	d.flag("names.dns.underscores", "underscores are allowed", a.Underscores, b.Underscores, EffectBroader)
	d.flag("names.dns.public", "DNS names must be public", a.PublicNames, b.PublicNames, EffectNarrower)
	d.flag("names.dns.caa", "the DNS is asked who may certify a name", a.CAA, b.CAA, EffectNarrower)
	d.flag("names.ip.reserved", "reserved addresses are allowed", a.ReservedIP, b.ReservedIP, EffectBroader)
	d.list("names.uri.schemes", "the scheme", a.URISchemes, b.URISchemes, EffectBroader)
	d.pattern("names.dns.pattern", a.DNSPattern, b.DNSPattern)
	d.pattern("names.email.pattern", a.EmailPattern, b.EmailPattern)
	d.pattern("names.uri.pattern", a.URIPattern, b.URIPattern)
	for _, kind := range []string{"dns", "ip", "email", "uri"} {
		d.subtrees("names.permitted."+kind, "permitted", only(a.Permitted, kind), only(b.Permitted, kind), false)
		d.subtrees("names.excluded."+kind, "excluded", only(a.Excluded, kind), only(b.Excluded, kind), true)
	}
}

// only is one type of subtrees.
func only(s policies.SubtreeSummary, kind string) policies.SubtreeSummary {
	switch kind {
	case "dns":
		return policies.SubtreeSummary{DNS: s.DNS}
	case "ip":
		return policies.SubtreeSummary{IP: s.IP}
	case "email":
		return policies.SubtreeSummary{Email: s.Email}
	}
	return policies.SubtreeSummary{URI: s.URI}
}

func trees(s policies.SubtreeSummary) []string { return slices.Concat(s.DNS, s.IP, s.Email, s.URI) }

// subtrees compares subtrees of one type. No permitted subtrees permit everything, no excluded ones exclude nothing.
func (d *differ) subtrees(field, what string, a, b policies.SubtreeSummary, excluding bool) {
	old, now := trees(a), trees(b)
	slices.Sort(old)
	slices.Sort(now)
	if slices.Equal(old, now) {
		return
	}
	effect := EffectUnclear
	switch {
	case excluding && len(old) == 0, excluding && len(now) > 0 && b.HoldsAll(a):
		effect = EffectNarrower
	case excluding && len(now) == 0, excluding && a.HoldsAll(b):
		effect = EffectBroader
	case excluding:
	case b.HoldsAll(a):
		effect = EffectBroader
	case a.HoldsAll(b):
		effect = EffectNarrower
	}
	d.report(effect, field, "%s is %s instead of %s", what, listed(now), listed(old))
}

func listed(all []string) string {
	if len(all) == 0 {
		return "nothing in particular"
	}
	return strings.Join(all, ", ")
}

func (d *differ) rules(a, b []policies.RuleSummary) {
	for _, r := range b {
		field := "rules." + r.ID
		i := slices.IndexFunc(a, func(old policies.RuleSummary) bool { return old.ID == r.ID })
		if i < 0 {
			d.report(EffectNarrower, field, "the rule is new (%s): %s", r.Effect, r.Expression)
			continue
		}
		old := a[i]
		switch {
		case old.Effect == r.Effect:
		case r.Effect == "approve":
			d.report(EffectBroader, field, "what the rule refused needs approval now")
		default:
			d.report(EffectNarrower, field, "what needed approval by the rule is refused now")
		}
		if normal(old.Expression) != normal(r.Expression) {
			d.report(EffectUnclear, field, "the expression is %s instead of %s", r.Expression, old.Expression)
		}
		d.text(field, "the message", old.Message, r.Message, EffectNeutral)
		d.text(field, "the hint", old.Hint, r.Hint, EffectNeutral)
		d.text(field, "the field", old.Field, r.Field, EffectNeutral)
	}
	for _, r := range a {
		if !slices.ContainsFunc(b, func(now policies.RuleSummary) bool { return now.ID == r.ID }) {
			d.report(EffectBroader, "rules."+r.ID, "the rule is gone (%s): %s", r.Effect, r.Expression)
		}
	}
}

func (d *differ) approval(a, b *policies.ApprovalSummary) {
	const field = "approval"
	switch {
	case a == nil && b == nil:
		return
	case a == nil:
		d.report(EffectNarrower, field, "the approval of %d persons is needed (%s)", b.Count, b.When)
		return
	case b == nil:
		d.report(EffectBroader, field, "approval is not needed any more")
		return
	}
	d.number("approval.count", "the number of approvals", int64(a.Count), int64(b.Count), EffectNarrower, plain)
	d.flag("approval.signed", "approvals are signed by the approver's own key", a.Signed, b.Signed, EffectNarrower)
	d.number("approval.expires", "how long a request may wait", a.Expires, b.Expires, EffectNeutral, days)
	d.flag("approval.when", "approval is needed only where a rule asks for it", a.When == "rules", b.When == "rules", EffectBroader)
	d.among("approval.groups", "approvers are of", a.Groups, b.Groups)
}

// among compares sets of which one must be met, where an empty one stands for everything.
func (d *differ) among(field, what string, a, b []string) {
	if contains(a, b) && contains(b, a) {
		return
	}
	effect := EffectUnclear
	switch {
	case len(b) == 0, len(a) > 0 && contains(b, a):
		effect = EffectBroader
	case len(a) == 0, contains(a, b):
		effect = EffectNarrower
	}
	d.report(effect, field, "%s %s instead of %s", what, listed(b), listed(a))
}

func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func (d *differ) quota(a, b *policies.QuotaSummary) {
	const field = "quota"
	switch {
	case a == nil && b == nil, a != nil && b != nil && *a == *b:
	case a == nil:
		d.report(EffectNarrower, field, "there is a quota: %s", quota(*b))
	case b == nil:
		d.report(EffectBroader, field, "there is no quota any more; it was %s", quota(*a))
	case a.Of == b.Of && b.Certificates >= a.Certificates && b.Per <= a.Per:
		d.report(EffectBroader, field, "the quota is %s instead of %s", quota(*b), quota(*a))
	case a.Of == b.Of && b.Certificates <= a.Certificates && b.Per >= a.Per:
		d.report(EffectNarrower, field, "the quota is %s instead of %s", quota(*b), quota(*a))
	default:
		d.report(EffectUnclear, field, "the quota is %s instead of %s", quota(*b), quota(*a))
	}
}

func quota(q policies.QuotaSummary) string {
	return fmt.Sprintf("%d certificates in %s for each %s", q.Certificates, days(q.Per), q.Of)
}

func (d *differ) transparency(a, b *policies.CTSummary) {
	const field = "ct"
	switch {
	case a == nil && b == nil:
		return
	case a == nil:
		d.report(EffectNarrower, field, "certificates are sent to logs, and need %d timestamps", b.SCTs)
		return
	case b == nil:
		d.report(EffectBroader, field, "certificates are not sent to logs any more; they needed %d timestamps", a.SCTs)
		return
	}
	d.number("ct.scts", "the number of timestamps", int64(a.SCTs), int64(b.SCTs), EffectNarrower, plain)
	durations := []int64{}
	for _, l := range slices.Concat(a.Longer, b.Longer) {
		durations = append(durations, l.Than)
	}
	slices.Sort(durations)
	for _, than := range slices.Compact(durations) {
		what := "the number of timestamps beyond " + days(than)
		d.number("ct.longer", what, timestamps(a, than), timestamps(b, than), EffectNarrower, plain)
	}
	d.number("ct.operators", "the number of operators", int64(a.Operators), int64(b.Operators), EffectNarrower, plain)
	d.among("ct.logs", "the logs are", a.Logs, b.Logs)
	d.number("ct.patience", "the patience with a log", a.Patience, b.Patience, EffectNeutral, days)
	d.number("ct.timeout", "the time for timestamps", a.Timeout, b.Timeout, EffectNeutral, days)
}

// timestamps is how many a certificate needs that lasts longer than a duration.
func timestamps(c *policies.CTSummary, than int64) int64 {
	n := c.SCTs
	for _, l := range c.Longer {
		if l.Than <= than {
			n = l.SCTs
		}
	}
	return int64(n)
}

// exceptions compares what is not linted; another reason for the same allows no more.
func (d *differ) exceptions(a, b []policies.ExceptionSummary) {
	const field = "lint.except"
	d.list(field, "the exception from", lints(a), lints(b), EffectBroader)
	for _, e := range b {
		if i := slices.Index(lints(a), e.Lint); i >= 0 {
			d.text(field, "the reason for the exception from "+e.Lint, a[i].Reason, e.Reason, EffectNeutral)
		}
	}
}

func lints(all []policies.ExceptionSummary) []string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.Lint
	}
	return names
}
