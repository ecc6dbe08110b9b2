package web

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
)

// permissionsPage writes docs/permissions.md: who may call what, from the tables that the program decides by.
func permissionsPage() []byte {
	var b bytes.Buffer
	roles := access.Roles()
	heading := func(first ...string) {
		cells := slices.Clone(first)
		for _, r := range roles {
			cells = append(cells, string(r))
		}
		fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(cells, " | "), strings.Repeat(" --- |", len(cells)))
	}
	marks := func(action access.Action) string {
		var cells []string
		for _, r := range roles {
			mark := " "
			if slices.Contains(access.Holders(action), r) {
				mark = "yes"
			}
			cells = append(cells, mark)
		}
		return strings.Join(cells, " | ")
	}
	b.WriteString(`# Who may call what

This page is made from the tables that the program decides by (` + "`access/table.go`, `web/auth.go`" + `); a test compares it with them, and another
calls every route as every role, in its own namespace, in another and in all, on a running service. What is empty is refused. Write it anew
with ` + "`go test ./web -run Permissions -update`" + `.

A role holds in the namespace of its credential. What lies in another namespace is answered with 404, as if there were no such thing, and the
attempt is an event in the audit log. What belongs to the whole authority (policies, namespaces, authorities, profiles) is seen by members of
a namespace as far as the last table says, and changed by those alone who act in all (` + "`*`" + `).

## Routes

`)
	heading("route", "needs")
	for _, p := range Permissions() {
		if p.Action == public {
			fmt.Fprintf(&b, "| `%s %s` | nothing | %s |\n", p.Method, p.Path, strings.TrimSuffix(strings.Repeat("yes | ", len(roles)), " | "))
			continue
		}
		fmt.Fprintf(&b, "| `%s %s` | `%s` | %s |\n", p.Method, p.Path, p.Action, marks(p.Action))
	}
	b.WriteString("\n`revoke-by-key` needs no token: a signature by the certificate's own key is the right to revoke it.\n\n## Roles kept " +
		"apart\n\nNobody is given both:\n\n")
	for _, one := range roles {
		for _, other := range roles {
			if one < other {
				if err := access.CheckDuties([]access.Role{one, other}); err != nil {
					fmt.Fprintf(&b, "* %v\n", err)
				}
			}
		}
	}
	b.WriteString("\nThis is held within a rule of `identities` and within an API token, and among the tokens of one person that hold in one namespace: " +
		"a token\nis refused, and a rotation of it, while another has the other role. Of logins and client certificates nobody knows which there will " +
		"be: whose rules\ngive one role must not have the other by a token or another rule, and that is yours to see to.\n")
	b.WriteString("\nOver the API operators make tokens of these roles alone: ")
	var given []string
	for _, r := range roles {
		if access.CheckGrant([]access.Role{r}) == nil {
			given = append(given, string(r))
		}
	}
	b.WriteString(strings.Join(given, ", ") + ". The others hold the operator too; their tokens are made on the machine itself.\n")
	b.WriteString("\n## Members of a namespace and the whole authority\n\nWith the role for it, they may also do this to what belongs to " +
		"all:\n\n")
	seen := map[access.Action]bool{}
	for _, g := range access.Table() {
		for _, action := range g.Actions {
			member := access.Actor{ID: "a", Namespace: "team", Roles: []access.Role{g.Role}}
			if !seen[action] && access.Authorize(member, action, access.Resource{Namespace: access.AllNamespaces}) == nil {
				seen[action] = true
				fmt.Fprintf(&b, "* `%s`\n", action)
			}
		}
	}
	return b.Bytes()
}

func TestPermissionsPageIsOfTheTable(t *testing.T) {
	path := filepath.Join("..", "docs", "permissions.md")
	want := permissionsPage()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/permissions.md differs from the tables; if that is meant: go test ./web -run Permissions -update")
	}
}
