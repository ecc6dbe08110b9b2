package access

import "fmt"

// Roles are all roles.
func Roles() []Role { return []Role{Requester, Approver, Revoker, Auditor, Operator, PolicyAdmin} }

// ParseRole reads a role by its exact name.
func ParseRole(s string) (Role, error) {
	for _, r := range Roles() {
		if string(r) == s {
			return r, nil
		}
	}
	return "", fmt.Errorf("%q is not a role; the roles are %v", s, Roles())
}
