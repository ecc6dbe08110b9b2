package access

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Means is the kind of credentials by which a caller shows who it is, where that is no API token.
type Means string

// The means.
const (
	ByCertificate Means = "certificate" // a client certificate; facts: uri, dns, email, cn, o, ou, issuer, and of our own namespace, profile
	ByOIDC        Means = "oidc"        // a token of an OpenID Connect provider; facts: its claims
	ByPeer        Means = "local"       // the peer of a Unix socket; facts: user, uid, group, gid
)

// Evidence is what good credentials say about a caller, before anybody has decided what the caller may do.
type Evidence struct {
	Means   Means
	Subject string // names the caller among all of the same means, and never somebody else later
	Name    string // for people to read
	Facts   map[string][]string
	// Emergency is why the caller breaks the glass; empty: it does not. Rules for emergencies hold then, and no others.
	Emergency string
}

// Rule says who may come in by evidence, and as what.
type Rule struct {
	Name  string
	Means Means
	// Match names facts, each with patterns: every one of these facts must have a value that fits one of its patterns. A pattern is the
	// value itself, in which one "*" stands for any characters, at least one.
	Match     map[string][]string
	Namespace string // may be or hold ${fact}; AllNamespaces only when it is written so
	Roles     []Role
	Person    string   // may hold ${fact}; empty: the means and the subject, which for a local caller says nobody (Actor.Unnamed)
	Groups    string   // the fact whose values are the person's groups; empty: none
	Profiles  []string // the profiles that may be used; empty: those of the namespace
	Emergency bool     // for who breaks the glass: each use is an event of its own kind
}

// Rules are asked in their order.
type Rules []Rule

// Identify is the actor that the first rule which fits makes of evidence. Where no rule fits there is no actor. A rule whose namespace or
// person asks for a fact that is missing, or that has several values, does not fit: a caller must not choose among persons.
func (rules Rules) Identify(e Evidence) (Actor, bool) {
	for _, r := range rules {
		if actor, fits := r.actor(e); fits {
			return actor, true
		}
	}
	return Actor{}, false
}

func (r Rule) actor(e Evidence) (Actor, bool) {
	if e.Subject == "" || r.Means != e.Means || r.Emergency != (e.Emergency != "") || !r.fits(e.Facts) {
		return Actor{}, false
	}
	id := string(e.Means) + ":" + e.Subject
	namespace, known := fill(r.Namespace, e.Facts)
	if !known || namespace != AllNamespaces && !isToken(namespace) || namespace == AllNamespaces && r.Namespace != AllNamespaces {
		return Actor{}, false
	}
	person, known := fill(r.Person, e.Facts)
	if !known {
		return Actor{}, false
	}
	if person == "" {
		person = id
	}
	actor := Actor{
		ID: id, Name: e.Name, Person: person, Namespace: namespace, Roles: slices.Clone(r.Roles), Attributes: e.Facts,
		Scope: Scope{Profiles: slices.Clone(r.Profiles)}, Emergency: e.Emergency,
	}
	if r.Groups != "" {
		actor.Groups = slices.Clone(e.Facts[r.Groups])
	}
	return actor, true
}

func (r Rule) fits(facts map[string][]string) bool {
	for fact, patterns := range r.Match {
		if !slices.ContainsFunc(facts[fact], func(value string) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, value) })
		}) {
			return false
		}
	}
	return len(r.Match) > 0
}

// matches tells whether a value fits a pattern.
func matches(pattern, value string) bool {
	before, after, open := strings.Cut(pattern, "*")
	if !open {
		return pattern == value && value != ""
	}
	return len(value) > len(before)+len(after) && strings.HasPrefix(value, before) && strings.HasSuffix(value, after)
}

// fill puts facts into a text. known is false when one is missing or has several values.
func fill(text string, facts map[string][]string) (filled string, known bool) {
	var b strings.Builder
	for {
		before, rest, open := strings.Cut(text, "${")
		b.WriteString(before)
		if !open {
			return b.String(), true
		}
		fact, after, closed := strings.Cut(rest, "}")
		if !closed || len(facts[fact]) != 1 || facts[fact][0] == "" {
			return "", false
		}
		b.WriteString(facts[fact][0])
		text = after
	}
}

// factsOf are the facts that evidence by a means can have; nil for OIDC, whose claims the provider chooses.
func factsOf(m Means) []string {
	switch m {
	case ByCertificate:
		return []string{"uri", "dns", "email", "cn", "o", "ou", "issuer", "namespace", "profile"}
	case ByPeer:
		return []string{"user", "uid", "group", "gid"}
	default:
		return nil
	}
}

// Validate reports everything that is wrong with a rule.
func (r Rule) Validate() error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if r.Name == "" {
		add("a rule needs a name")
	}
	if r.Means != ByCertificate && r.Means != ByOIDC && r.Means != ByPeer {
		add("%q is no means of showing who one is", r.Means)
	}
	if len(r.Match) == 0 {
		add("a rule that asks for nothing would let everybody in: name a fact to match")
	}
	known := factsOf(r.Means)
	for _, fact := range slices.Sorted(maps.Keys(r.Match)) {
		if known != nil && !slices.Contains(known, fact) {
			add("%q is not known of a caller by %s; known are %s", fact, r.Means, strings.Join(known, ", "))
		}
		if len(r.Match[fact]) == 0 {
			add("%s has no pattern", fact)
		}
		for _, p := range r.Match[fact] {
			if p == "" || strings.Count(p, "*") > 1 {
				add("%s: %q is no pattern: write a value, with at most one * in it", fact, p)
			}
		}
	}
	if r.Namespace != AllNamespaces && !strings.Contains(r.Namespace, "${") && !isToken(r.Namespace) {
		add("%q cannot be a namespace: write a name, ${fact}, or %q for all", r.Namespace, AllNamespaces)
	}
	for _, text := range []string{r.Namespace, r.Person} {
		for _, part := range strings.Split(text, "${")[1:] {
			if fact, _, closed := strings.Cut(part, "}"); !closed || fact == "" || known != nil && !slices.Contains(known, fact) {
				add("%q: ${...} must name a fact", text)
			}
		}
	}
	if r.Emergency && r.Means != ByPeer {
		add("glass is broken on the machine itself alone: an emergency's rule is for local callers")
	}
	if len(r.Roles) == 0 {
		add("a rule without roles lets nobody do anything")
	}
	for _, role := range r.Roles {
		if _, err := ParseRole(string(role)); err != nil {
			wrong = append(wrong, err)
		}
	}
	if !r.Emergency {
		wrong = append(wrong, CheckDuties(r.Roles))
	}
	return errors.Join(wrong...)
}
