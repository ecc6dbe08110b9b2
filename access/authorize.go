package access

import "slices"

// Authorize says whether an actor may do an action to a resource: nil, or *Denied.
//
// The resource's namespace is looked at before the roles, so that a resource of another team is hidden from everybody outside of
// it, whatever they may do in their own: the answer is then the same as for a resource that does not exist.
func Authorize(a Actor, act Action, r Resource) error {
	denied := &Denied{Actor: a.ID, Action: act, Resource: r}
	if !reaches(a, act, r) {
		denied.Hidden = true
		return denied
	}
	if a.ID == "" || !slices.ContainsFunc(a.Roles, func(role Role) bool { return slices.Contains(allowed[role], act) }) {
		return denied
	}
	if r.Profile != "" && !a.Scope.MayUse(r.Profile) {
		denied.ByScope = true
		return denied
	}
	return nil
}

// reaches tells whether the resource lies where the actor acts.
func reaches(a Actor, act Action, r Resource) bool {
	switch {
	case a.Namespace == "" || r.Namespace == "":
		return false
	case a.Namespace == AllNamespaces || a.Namespace == r.Namespace:
		return true
	default:
		return r.Namespace == AllNamespaces && slices.Contains(shared, act)
	}
}
