// Package usage owns the usage policy of keys: which operations a key is for, by which mechanisms, who may cause them, in which hours,
// until which date and how many times. The policy is a YAML file that people review; hsm asks it before each use of a key, and key
// generation takes over what a token can enforce by itself.
//
// It holds on the host where it is read: counts are this host's, and whoever has the PIN and another PKCS#11 program passes it by. What
// the token enforces (CKA_SIGN, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_ALLOWED_MECHANISMS, CKA_MODIFIABLE, CKA_COPYABLE, CKA_DESTROYABLE)
// holds against everybody.
package usage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the hours of a policy must not depend on what is installed

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/strictyaml"
)

// operations are those that a rule can permit.
var operations = []hsm.Op{
	hsm.OpSign, hsm.OpVerify, hsm.OpMAC, hsm.OpEncrypt, hsm.OpDecrypt, hsm.OpWrap, hsm.OpUnwrap, hsm.OpExport, hsm.OpAttest, hsm.OpDestroy, hsm.OpLabel,
}

// bounded tells whether hours, date and number of uses bound the operation. The housekeeping of a key that must no longer be used is not.
func bounded(op hsm.Op) bool { return op != hsm.OpVerify && op != hsm.OpDestroy && op != hsm.OpLabel }

// file is the policy as it is written.
type file struct {
	Roles  map[string][]string `yaml:"roles"`
	Others string              `yaml:"others"`
	Keys   []rule              `yaml:"keys"`
}

type rule struct {
	Key         keyName  `yaml:"key"`
	Operations  []string `yaml:"operations"`
	Mechanisms  []string `yaml:"mechanisms"`
	Roles       []string `yaml:"roles"`
	Hours       *hours   `yaml:"hours"`
	Until       string   `yaml:"until"`
	Uses        int64    `yaml:"uses"`
	Modifiable  bool     `yaml:"modifiable"`
	Copyable    bool     `yaml:"copyable"`
	Destroyable *bool    `yaml:"destroyable"`

	until time.Time
	id    []byte
}

type keyName struct {
	Label string `yaml:"label"`
	ID    string `yaml:"id"`
}

type hours struct {
	Days []string `yaml:"days"`
	From string   `yaml:"from"`
	To   string   `yaml:"to"`
	Zone string   `yaml:"zone"`

	from, to time.Duration // since midnight
	zone     *time.Location
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // in the order of time.Weekday

// Policy is a usage policy. It is safe for concurrent use.
type Policy struct {
	file   file
	counts *counts
}

var _ hsm.UsagePolicy = (*Policy)(nil)

// Load reads a policy. Numbers of uses are kept in a file beside it, named like it with ".uses.json" behind, or in countsFile where that
// is not empty. Where there is a directory beside it, named like it with ".uses" behind, they are kept in that: several users can share it
// and yet leave the policy alone.
func Load(path, countsFile string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the usage policy: %w", err)
	}
	p, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	p.counts = &counts{path: countsFile}
	if countsFile == "" {
		p.counts = &counts{path: path + ".uses.json", directory: path + ".uses"}
	}
	return p, nil
}

// Parse reads a policy from memory. Uses cannot be counted without a file: a rule that bounds them refuses every use.
func Parse(name string, data []byte) (*Policy, error) {
	p := &Policy{}
	doc := strictyaml.Decode(name, data, &p.file)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	p.validate(doc)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) validate(doc *strictyaml.Document) {
	if p.file.Others != "permit" && p.file.Others != "refuse" {
		doc.Refuse("others", "write permit or refuse", "it has to be said what holds for keys that are not named here")
	}
	for i := range p.file.Keys {
		r, field := &p.file.Keys[i], fmt.Sprintf("keys[%d]", i)
		r.validate(doc, field, p.file.Roles)
		for _, other := range p.file.Keys[:i] {
			if other.Key == r.Key {
				doc.Refuse(field+".key", "join the two", "the key stands here twice")
			}
		}
	}
}

func (r *rule) validate(doc *strictyaml.Document, field string, roles map[string][]string) {
	var err error
	if r.id, err = hex.DecodeString(r.Key.ID); err != nil {
		doc.Refuse(field+".key.id", "write the CKA_ID in hexadecimal digits", "%q is not hexadecimal", r.Key.ID)
	}
	r.written(doc, field)
	if r.Key == (keyName{}) {
		doc.Refuse(field+".key", "give its label, its id or both", "the key is not named")
	}
	if len(r.Operations) == 0 {
		doc.Refuse(field+".operations", "", "at least one operation is needed")
	}
	for i, op := range r.Operations {
		if !slices.Contains(operations, hsm.Op(op)) {
			doc.Refuse(fmt.Sprintf("%s.operations[%d]", field, i), fmt.Sprintf("take of %v", operations), "%q is no operation", op)
		}
	}
	for i, name := range r.Mechanisms {
		if err := hsm.CheckMechanism(name); err != nil {
			doc.Refuse(fmt.Sprintf("%s.mechanisms[%d]", field, i), "", "%v", err)
		}
	}
	for i, role := range r.Roles {
		if _, known := roles[role]; !known {
			doc.Refuse(fmt.Sprintf("%s.roles[%d]", field, i), "define it under roles", "the role %q is not defined", role)
		}
	}
	if r.Until != "" {
		if r.until, err = time.Parse(time.DateOnly, r.Until); err != nil {
			if r.until, err = time.Parse(time.RFC3339, r.Until); err != nil {
				doc.Refuse(field+".until", "write 2027-12-31 or 2027-12-31T18:00:00Z", "%q is no date", r.Until)
			}
		} else {
			r.until = r.until.AddDate(0, 0, 1) // the whole day, in UTC
		}
	}
	if r.Uses < 0 || r.Uses == 0 && doc.Has(field+".uses") {
		doc.Refuse(field+".uses", "leave the field out where the uses are not bounded", "%d is no number of uses", r.Uses)
	}
	if r.Hours != nil {
		r.Hours.validate(doc, field+".hours")
	}
}

// written refuses fields that stand in the file without a value: they would bound nothing, and read as if nothing were permitted.
func (r *rule) written(doc *strictyaml.Document, field string) {
	for _, one := range []struct {
		name  string
		empty bool
	}{
		{"key.label", r.Key.Label == ""},
		{"key.id", r.Key.ID == ""},
		{"mechanisms", len(r.Mechanisms) == 0},
		{"roles", len(r.Roles) == 0},
		{"hours.days", r.Hours == nil || len(r.Hours.Days) == 0},
		{"until", r.Until == ""},
	} {
		if one.empty && doc.Has(field+"."+one.name) {
			doc.Refuse(field+"."+one.name, "give a value or leave the field out", "the field is empty, and would bound nothing")
		}
	}
}

func (h *hours) validate(doc *strictyaml.Document, field string) {
	for i, day := range h.Days {
		if !slices.Contains(days, day) {
			doc.Refuse(fmt.Sprintf("%s.days[%d]", field, i), "take of "+strings.Join(days, ", "), "%q is no day", day)
		}
	}
	var err error
	if h.zone, err = time.LoadLocation(h.Zone); err != nil || h.Zone == "" || h.Zone == "Local" {
		doc.Refuse(field+".zone", "write for example Europe/Amsterdam or UTC", "%q is no time zone", h.Zone)
	}
	for _, one := range []struct {
		name, text string
		into       *time.Duration
	}{{"from", h.From, &h.from}, {"to", h.To, &h.to}} {
		at, err := time.Parse("15:04", one.text)
		if err != nil {
			doc.Refuse(field+"."+one.name, `write for example "08:00", in quotes`, "%q is no time of the day", one.text)
			continue
		}
		*one.into = time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
	}
	if h.from >= h.to {
		doc.Refuse(field, "write the hours of one day", "%s is not before %s", h.From, h.To)
	}
}

// matches tells whether the rule speaks of the key.
func (r *rule) matches(key hsm.KeyRef) bool {
	return hsm.KeyRef{Label: r.Key.Label, ID: r.id}.Names(key)
}

// Permit says whether the operation is permitted, and counts it. An operation that fails afterwards stays counted.
func (p *Policy) Permit(ctx context.Context, o hsm.Operation) error {
	if err := p.Allows(ctx, o); err != nil {
		return err
	}
	// Counting comes last, so that a refusal costs nothing. A use is one, however many rules speak of the key: the strictest bounds it.
	most := p.uses(o)
	if most == 0 {
		return nil
	}
	if err := p.counts.use(o.Token, o.Key, most); err != nil {
		return fmt.Errorf("%w: %s with the key with %s: %w", hsm.ErrNotPermitted, o.Op, o.Key, err)
	}
	return nil
}

// Allows says whether the operation is permitted, whatever number of uses is left.
func (p *Policy) Allows(_ context.Context, o hsm.Operation) error {
	named := false
	for i := range p.file.Keys {
		r := &p.file.Keys[i]
		if !r.matches(o.Key) {
			continue
		}
		named = true
		if err := p.permit(r, o); err != nil {
			return fmt.Errorf("%w: %s with the key with %s: %w", hsm.ErrNotPermitted, o.Op, o.Key, err)
		}
	}
	if !named && p.file.Others == "refuse" {
		return fmt.Errorf("%w: the key with %s is not named in it; add a rule for it", hsm.ErrNotPermitted, o.Key)
	}
	return nil
}

// uses is how many uses the rules permit of the operation's key; 0: they do not bound them.
func (p *Policy) uses(o hsm.Operation) (most int64) {
	if !bounded(o.Op) {
		return 0
	}
	for i := range p.file.Keys {
		if r := &p.file.Keys[i]; r.Uses > 0 && r.matches(o.Key) && (most == 0 || r.Uses < most) {
			most = r.Uses
		}
	}
	return most
}

func (p *Policy) permit(r *rule, o hsm.Operation) error {
	if !slices.Contains(r.Operations, string(o.Op)) {
		return fmt.Errorf("the key is for %s", strings.Join(r.Operations, ", "))
	}
	if o.Op == hsm.OpLabel && !r.matches(o.Target) { // whoever may rename the key could do with it whatever the rule forbids
		return fmt.Errorf("under the label %q the rule would hold for it no more; name the key by its id in the policy", o.Target.Label)
	}
	if len(r.Mechanisms) > 0 && o.Mechanism != "" && o.Op != hsm.OpExport && !slices.Contains(r.Mechanisms, o.Mechanism) {
		return fmt.Errorf("the mechanism %s is not among %s", o.Mechanism, strings.Join(r.Mechanisms, ", "))
	}
	if len(r.Roles) > 0 && !p.has(o.Actor, r.Roles) {
		return fmt.Errorf("%q has none of the roles %s", o.Actor, strings.Join(r.Roles, ", "))
	}
	if !bounded(o.Op) {
		return nil
	}
	if !r.until.IsZero() && !o.Began.Before(r.until) {
		return fmt.Errorf("the key was to be used until %s", r.Until)
	}
	if r.Hours != nil && !r.Hours.contain(o.Began) {
		return fmt.Errorf("it is outside the hours from %s to %s, %s (%s)", r.Hours.From, r.Hours.To, strings.Join(r.Hours.Days, " "), r.Hours.Zone)
	}
	return nil
}

// has tells whether an actor has one of the roles. A role's members are users of the operating system, or actors by their whole name.
func (p *Policy) has(actor string, roles []string) bool {
	user, local := strings.CutPrefix(actor, "local:")
	for _, role := range roles {
		members := p.file.Roles[role]
		if slices.Contains(members, actor) || local && slices.Contains(members, user) {
			return true
		}
	}
	return false
}

func (h *hours) contain(at time.Time) bool {
	at = at.In(h.zone)
	if len(h.Days) > 0 && !slices.Contains(h.Days, days[at.Weekday()]) {
		return false
	}
	since := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
	return since >= h.from && since < h.to
}

// Spec adds to a key's specification what the policy says of a key with its label, so that the token enforces it too: what all the rules that
// speak of the key permit. It fails where the specification asks for more, and where nothing is left that a key could be for.
func (p *Policy) Spec(spec hsm.KeySpec) (hsm.KeySpec, error) {
	refused := func(format string, args ...any) (hsm.KeySpec, error) {
		return hsm.KeySpec{}, fmt.Errorf("%w: the key %q %s", hsm.ErrNotPermitted, spec.Label, fmt.Sprintf(format, args...))
	}
	of, named := p.together(hsm.KeyRef{Label: spec.Label, ID: spec.ID})
	if !named {
		if p.file.Others == "refuse" {
			return refused("is not named in it; add a rule for it")
		}
		return spec, nil
	}
	usages := usagesOf(of.operations)
	if len(usages) == 0 {
		return refused("is for nothing that a key is made for: no signature, no encryption and no wrapping is among %q", of.operations)
	}
	for _, u := range spec.Usages {
		if !slices.Contains(usages, u) {
			return refused("is for %s", strings.Join(of.operations, ", "))
		}
	}
	if of.limited && len(of.mechanisms) == 0 {
		return refused("has no mechanism that all its rules permit")
	}
	for _, name := range spec.Mechanisms {
		if of.limited && !slices.Contains(of.mechanisms, name) {
			return refused("is not for the mechanism %s, which is not among %s", name, strings.Join(of.mechanisms, ", "))
		}
	}
	extractable := slices.Contains(of.operations, string(hsm.OpExport))
	if spec.Extractable && !extractable {
		return refused("is not for export")
	}
	if spec.Modifiable && !of.modifiable {
		return refused("is not to be modifiable; write modifiable: true into its rules to make it so")
	}
	if spec.Copyable && !of.copyable {
		return refused("is not to be copyable; write copyable: true into its rules to make it so")
	}
	if len(spec.Usages) == 0 {
		spec.Usages = usages
	}
	if len(spec.Mechanisms) == 0 {
		spec.Mechanisms = of.mechanisms
	}
	spec.Extractable, spec.Modifiable, spec.Copyable = extractable, of.modifiable, of.copyable
	spec.Indestructible = spec.Indestructible || of.indestructible
	return spec, nil
}

// permitted is what several rules permit together.
type permitted struct {
	operations           []string
	mechanisms           []string
	limited              bool // to the mechanisms; else any will do
	modifiable, copyable bool
	indestructible       bool
}

// together joins the rules that speak of a key: each of them holds.
func (p *Policy) together(key hsm.KeyRef) (of permitted, named bool) {
	for i := range p.file.Keys {
		r := &p.file.Keys[i]
		if !r.matches(key) {
			continue
		}
		if !named {
			of, named = permitted{operations: r.Operations, modifiable: true, copyable: true}, true
		}
		of.operations = both(of.operations, r.Operations)
		if len(r.Mechanisms) > 0 {
			if !of.limited {
				of.mechanisms, of.limited = r.Mechanisms, true
			}
			of.mechanisms = both(of.mechanisms, r.Mechanisms)
		}
		of.modifiable, of.copyable = of.modifiable && r.Modifiable, of.copyable && r.Copyable
		of.indestructible = of.indestructible || r.Destroyable != nil && !*r.Destroyable
	}
	return of, named
}

// both are those of a that are in b.
func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// usagesOf are what a token calls operations.
func usagesOf(operations []string) (all []hsm.Usage) {
	for _, of := range []struct {
		usage hsm.Usage
		ops   []hsm.Op
	}{
		{hsm.UseSign, []hsm.Op{hsm.OpSign, hsm.OpVerify, hsm.OpMAC, hsm.OpAttest}},
		{hsm.UseEncrypt, []hsm.Op{hsm.OpEncrypt, hsm.OpDecrypt}},
		{hsm.UseWrap, []hsm.Op{hsm.OpWrap, hsm.OpUnwrap}},
	} {
		if slices.ContainsFunc(of.ops, func(op hsm.Op) bool { return slices.Contains(operations, string(op)) }) {
			all = append(all, of.usage)
		}
	}
	return all
}

var errUsedUp = errors.New("the key has been used as many times as it may")
