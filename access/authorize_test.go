package access

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var allActions = []Action{
	IssueCertificate, ReadCertificate, RevokeCertificate, ReadProfile, EvaluateProfile, ReadAuthority,
	ReadRequest, ApproveRequest, ReadNamespace, ChangeNamespace, ReadRevocation, ApproveRevocation, PublishCRL,
	ReadPolicy, ChangePolicy, ApprovePolicy, ReadToken, ManageToken,
}

// TestAuthorizeTable walks every role and action in the actor's own namespace against the table as people would write it down.
func TestAuthorizeTable(t *testing.T) {
	want := map[Role]string{ // one letter an action, in the order of allActions
		Requester:   "yy-yyyy-y---------",
		Approver:    "-y-y-yyyy-yy-y-y--",
		Revoker:     "-yyy-y----y-y-----",
		Auditor:     "-y-y-yy-y-y--y--y-",
		Operator:    "-y-y-yy-yyy-yy--yy",
		PolicyAdmin: "-y-yyy--y----yy---",
	}
	for _, role := range Roles() {
		for i, action := range allActions {
			err := Authorize(Actor{ID: "a", Namespace: "web", Roles: []Role{role}}, action, Resource{Namespace: "web"})
			if got, want := err == nil, want[role][i] == 'y'; got != want {
				t.Errorf("%s may %s: got %v, want %v", role, action, got, want)
			}
			var denied *Denied
			if err != nil && (!errors.As(err, &denied) || denied.Hidden || denied.Action != action || denied.Actor != "a") {
				t.Errorf("%s, %s: a refusal by role must be an open *Denied, got %#v", role, action, err)
			}
		}
	}
}

func TestAuthorizeNamespaces(t *testing.T) {
	for _, c := range []struct {
		name         string
		actor        Actor
		action       Action
		resource     string
		want, hidden bool
	}{
		{"own", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, ReadCertificate, "web", true, false},
		{"another team's", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, ReadCertificate, "db", false, true},
		{"another team's without the role", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, RevokeCertificate, "db", false, true},
		{"auditor of everything", Actor{ID: "a", Namespace: "*", Roles: []Role{Auditor}}, ReadCertificate, "db", true, false},
		{"auditor of everything revokes", Actor{ID: "a", Namespace: "*", Roles: []Role{Auditor}}, RevokeCertificate, "db", false, false},
		{"shared profile", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, ReadProfile, "*", true, false},
		{"shared profile evaluated", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, EvaluateProfile, "*", true, false},
		{"shared authority", Actor{ID: "a", Namespace: "web", Roles: []Role{Revoker}}, ReadAuthority, "*", true, false},
		{"nobody's certificate", Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}}, ReadCertificate, "*", false, true},
		{
			"nobody's certificate by everybody's operator",
			Actor{ID: "a", Namespace: "*", Roles: []Role{Operator}},
			ReadCertificate, "*", true,
			false,
		},
		{"revoking everywhere at once", Actor{ID: "a", Namespace: "web", Roles: []Role{Revoker}}, RevokeCertificate, "*", false, true},
		{"no actor", Actor{}, ReadProfile, "*", false, true},
		{"no actor, no resource", Actor{}, ReadProfile, "", false, true},
		{"no namespace on the resource", Actor{ID: "a", Namespace: "*", Roles: []Role{Auditor}}, ReadCertificate, "", false, true},
		{"no ID", Actor{Namespace: "*", Roles: []Role{Auditor}}, ReadCertificate, "web", false, false},
		{"no role", Actor{ID: "a", Namespace: "*"}, ReadCertificate, "web", false, false},
		{"unknown role", Actor{ID: "a", Namespace: "*", Roles: []Role{"root"}}, ReadCertificate, "web", false, false},
		{"unknown action", Actor{ID: "a", Namespace: "*", Roles: Roles()}, "certificate.forge", "web", false, false},
		{"an operator of one team widens it", Actor{ID: "a", Namespace: "web", Roles: []Role{Operator}}, ChangeNamespace, "*", false, true},
		{"an operator of everything", Actor{ID: "a", Namespace: "*", Roles: []Role{Operator}}, ChangeNamespace, "*", true, false},
		{"two roles", Actor{ID: "a", Namespace: "web", Roles: []Role{Auditor, Revoker}}, RevokeCertificate, "web", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Authorize(c.actor, c.action, Resource{Namespace: c.resource, Kind: "thing"})
			if (err == nil) != c.want {
				t.Fatalf("got %v, want allowed %v", err, c.want)
			}
			var denied *Denied
			if err != nil && (!errors.As(err, &denied) || denied.Hidden != c.hidden) {
				t.Fatalf("got %#v, want hidden %v", err, c.hidden)
			}
		})
	}
}

// TestNoNamespaceLeaks holds that an actor of one namespace never gets at what another owns, whatever its roles.
func TestNoNamespaceLeaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := rapid.StringMatching(`[a-z]{1,6}`).Draw(t, "mine"), rapid.StringMatching(`[a-z]{0,6}`).Draw(t, "theirs")
		if mine == theirs {
			theirs += "x"
		}
		actor := Actor{ID: "a", Namespace: mine, Roles: rapid.SliceOf(rapid.SampledFrom(Roles())).Draw(t, "roles")}
		err := Authorize(actor, rapid.SampledFrom(allActions).Draw(t, "action"), Resource{Namespace: theirs})
		var denied *Denied
		if !errors.As(err, &denied) || !denied.Hidden {
			t.Fatalf("got %v", err)
		}
	})
}

func TestTableIsACopyAndWhole(t *testing.T) {
	table := Table()
	if len(table) != len(Roles()) {
		t.Fatalf("%d rows for %d roles", len(table), len(Roles()))
	}
	table[0].Actions[0] = "spoilt"
	if slices.Contains(Table()[0].Actions, "spoilt") {
		t.Fatal("the table can be changed from outside")
	}
}

func TestParseRole(t *testing.T) {
	for _, r := range Roles() {
		if got, err := ParseRole(string(r)); err != nil || got != r {
			t.Errorf("%s: %v, %v", r, got, err)
		}
	}
	for _, bad := range []string{"", "root", "Requester", "requester "} {
		if _, err := ParseRole(bad); err == nil {
			t.Errorf("%q is no role", bad)
		}
	}
}
