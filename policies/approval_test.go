package policies

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// waiting is a request under a profile that asks two persons of the group security.
func waiting(t *testing.T) (*Set, Request) {
	t.Helper()
	set := changed(t, "lint:", "approval: {count: 2, groups: [security, board], expires: 2d}\nlint:")
	r := benign(t)
	r.Profile, r.Actor = "plain", access.Actor{ID: "a1", Person: "ann", Namespace: "dev"}
	return set, r
}

func TestApprovalIsNeeded(t *testing.T) {
	set, r := waiting(t)
	d := set.Decide(r)
	if _, ok := d.Template(); !ok || d.Verdict() != NeedsApproval || len(d.Violations()) != 0 {
		t.Fatalf("got %s with %v", d.Verdict(), d.Violations())
	}
	if result := resultOf(t, d, "approval"); result.Verdict != NeedsApproval || len(result.Notices) != 1 || result.Seen != "2 persons" {
		t.Errorf("the rule says %+v", result)
	}
	g, err := d.Grant()
	var needed *ApprovalNeeded
	if g != nil || !errors.As(err, &needed) {
		t.Fatalf("got %v, %v", g, err)
	}
	want := &ApprovalNeeded{
		Profile: "plain", Need: 2, Groups: []string{"security", "board"}, Expires: 2 * day, Binding: d.Binding(),
		Reasons: d.Notices(),
	}
	if !reflect.DeepEqual(needed, want) || len(needed.Reasons) != 1 {
		t.Errorf("got  %+v\nwant %+v", needed, want)
	}
}

func TestApprovalsThatCount(t *testing.T) {
	set, r := waiting(t)
	d := set.Decide(r)
	of := func(person string) Approval {
		return Approval{
			Person: person, Actor: "token of " + person, Groups: []string{"all", "security"}, At: now.Add(-time.Hour),
			Binding: d.Binding(),
		}
	}
	but := func(a Approval, change func(*Approval)) Approval { change(&a); return a }
	for name, c := range map[string]struct {
		second Approval
		counts bool
	}{
		"another person":          {of("cid"), true},
		"through another group":   {but(of("cid"), func(a *Approval) { a.Groups = []string{"board"} }), true},
		"at the last moment":      {but(of("cid"), func(a *Approval) { a.At = now.Add(-2 * day) }), true},
		"the same person":         {of("bob"), false},
		"by another credential":   {but(of("bob"), func(a *Approval) { a.Actor = "other token" }), false},
		"by the same credential":  {but(of("cid"), func(a *Approval) { a.Actor = "token of bob" }), false},
		"the requester":           {of("ann"), false},
		"the requester's token":   {but(of("cid"), func(a *Approval) { a.Actor = "a1" }), false},
		"nobody":                  {of(""), false},
		"of no group":             {but(of("cid"), func(a *Approval) { a.Groups = nil }), false},
		"of another group":        {but(of("cid"), func(a *Approval) { a.Groups = []string{"Security"} }), false},
		"expired":                 {but(of("cid"), func(a *Approval) { a.At = now.Add(-2*day - time.Second) }), false},
		"at no time":              {but(of("cid"), func(a *Approval) { a.At = time.Time{} }), false},
		"of another request":      {but(of("cid"), func(a *Approval) { a.Binding = "sha256:00" }), false},
		"of no request":           {but(of("cid"), func(a *Approval) { a.Binding = "" }), false},
		"of nothing in the least": {Approval{}, false},
	} {
		g, err := d.Grant(of("bob"), c.second)
		var needed *ApprovalNeeded
		switch {
		case c.counts && (err != nil || !g.Valid()):
			t.Errorf("%s: %v", name, err)
		case !c.counts && (!errors.As(err, &needed) || needed.Have != 1 || g.Valid()):
			t.Errorf("%s: granted, or %v", name, err)
		}
	}
}

// TestSignedApprovals holds that an approval without a signature does not count where signatures are asked for, and that one key is one
// person, whatever it calls itself.
func TestSignedApprovals(t *testing.T) {
	_, r := waiting(t)
	for name, c := range map[string]struct {
		ask  string
		keys []string // of bob, cid, dan
		have int
	}{
		"each with a key":                  {"count: 3, signed: true", []string{"k1", "k2", "k3"}, 3},
		"one without":                      {"count: 3, signed: true", []string{"k1", "", "k3"}, 2},
		"two names of one key":             {"count: 3, signed: true", []string{"k1", "k1", "k2"}, 2},
		"not asked for":                    {"count: 3", []string{"", "", ""}, 3},
		"not asked for, given":             {"count: 3", []string{"", "k1", ""}, 3},
		"not asked for, two names one key": {"count: 3", []string{"k1", "k1", ""}, 2},
	} {
		d := changed(t, "lint:", "approval: {"+c.ask+"}\nlint:").Decide(r)
		var all []Approval
		for i, person := range []string{"bob", "cid", "dan"} {
			all = append(all, Approval{Person: person, Actor: person, At: now, Binding: d.Binding(), Key: c.keys[i]})
		}
		g, err := d.Grant(all...)
		var needed *ApprovalNeeded
		switch {
		case c.have == 3 && (err != nil || !g.Valid()):
			t.Errorf("%s: %v", name, err)
		case c.have < 3 && (!errors.As(err, &needed) || needed.Have != c.have || needed.Signed != strings.Contains(c.ask, "signed")):
			t.Errorf("%s: %v, %+v", name, err, needed)
		}
	}
}

// TestApprovalIsBound holds that whatever the certificate or the decision depends on is part of what was approved.
func TestApprovalIsBound(t *testing.T) {
	set, r := waiting(t)
	other := changed(t, "lint:", "approval: {count: 2}\nlint:")
	seen := []string{set.Decide(r).Binding(), other.Decide(r).Binding()}
	for name, change := range map[string]func(*Request){
		"csr": func(r *Request) {
			with(func(b *csrtest.Builder) { b.DNS = []string{"b.dev.example"}; b.Subject = nil })(t, r)
		},
		"validity":  func(r *Request) { r.Validity = 2 * day },
		"person":    func(r *Request) { r.Actor.Person = "eve" },
		"actor":     func(r *Request) { r.Actor.ID = "a2" },
		"namespace": func(r *Request) { r.Actor.Namespace, r.Namespace.Name = "ops", "ops" },
		"issuer":    func(r *Request) { r.Issuer.Name = "issuing-2" },
	} {
		changed := r
		change(&changed)
		d := set.Decide(changed)
		if d.Verdict() != NeedsApproval || slices.Contains(seen, d.Binding()) {
			t.Errorf("%s: %s, and the binding is the same", name, d.Verdict())
		}
		seen = append(seen, d.Binding())
	}
	later := r
	later.Now = now.Add(time.Hour)
	if set.Decide(later).Binding() != seen[0] {
		t.Error("time changes what was approved")
	}
}

// TestARefusalCannotBeApproved holds that consent never overrules a rule.
func TestARefusalCannotBeApproved(t *testing.T) {
	set, r := waiting(t)
	r.CompromisedKey = true
	d := set.Decide(r)
	all := []Approval{
		{Person: "bob", Groups: []string{"board"}, At: now, Binding: d.Binding()},
		{Person: "cid", Groups: []string{"board"}, At: now, Binding: d.Binding()},
	}
	var refusal *Refusal
	if _, err := d.Grant(all...); !errors.As(err, &refusal) || len(refusal.Violations) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestReservations(t *testing.T) {
	r := benign(t)
	r.Profile, r.Actor.Person = "plain", "ann"
	with(func(b *csrtest.Builder) { b.DNS = []string{"HOST.dev.example", "b.dev.example"}; b.Subject = nil })(t, &r)
	for of, keys := range map[string][]string{
		"namespace": {"dev"}, "requester": {"person/ann"},
		"name": {"host.dev.example", "b.dev.example"},
	} {
		set := changed(t, "lint:", "quota: {certificates: 3, per: 1h, of: "+of+"}\nlint:")
		var want []Reservation
		for _, key := range keys {
			want = append(want, Reservation{Kind: ReserveQuota, Scope: "profile/plain/" + of, Key: key, Limit: 3, Window: time.Hour})
		}
		g, err := set.Decide(r).Grant()
		if err != nil || !reflect.DeepEqual(g.Reservations(), want) || !reflect.DeepEqual(set.Reservations(r), want) {
			t.Errorf("%s: got %+v, %v, %v", of, set.Reservations(r), g, err)
		}
		used := r
		used.Usage = []Usage{{ReserveQuota, "profile/plain/" + of, keys[len(keys)-1], 3}}
		if got := refusing(set.Decide(used)); !slices.Equal(got, []string{"quota"}) {
			t.Errorf("%s, used up: refused by %v", of, got)
		}
		used.Usage[0].Used = 2
		if d := set.Decide(used); d.Verdict() != Allow || resultOf(t, d, "quota").Seen == "" {
			t.Errorf("%s, one left: %v", of, d.Violations())
		}
	}
	for name, c := range map[string]struct {
		besides []Taken
		rules   []string
	}{
		"one left": {[]Taken{{Reservation{ReserveQuota, "namespace", "dev", 3, day}, 2}}, nil},
		"used up in a day, not in an hour": {[]Taken{
			{Reservation{ReserveQuota, "namespace", "dev", 3, time.Hour}, 0}, {Reservation{ReserveQuota, "namespace", "dev", 3, day}, 3},
		}, []string{"quota"}},
		"none at all": {[]Taken{{Reservation{ReserveQuota, "namespace/profile/plain", "dev", 0, day}, 0}}, []string{"quota"}},
	} {
		asked := r
		asked.Besides = c.besides
		d := changed(t).Decide(asked)
		if got := refusing(d); !slices.Equal(got, c.rules) || resultOf(t, d, "quota").Seen == "" {
			t.Errorf("quotas of the namespace, %s: refused by %v", name, got)
		}
	}
	once := changed(t, "keys:", "keys:\n  once: true")
	got := once.Reservations(r)
	if len(got) != 1 || got[0].Kind != ReserveKey || got[0].Limit != 1 || len(got[0].Key) != 64 || got[0].Window != 0 {
		t.Errorf("once: %+v", got)
	}
	r.Usage = []Usage{{ReserveKey, got[0].Scope, got[0].Key, 1}}
	if got := refusing(once.Decide(r)); !slices.Equal(got, []string{"quota"}) {
		t.Errorf("once, used up: refused by %v", got)
	}
	if none := changed(t).Reservations(r); none != nil {
		t.Errorf("reservations of a profile without any: %v", none)
	}
	if none := (*Set)(nil).Reservations(r); none != nil {
		t.Errorf("reservations of no set: %v", none)
	}
}
