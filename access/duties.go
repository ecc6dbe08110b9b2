package access

import (
	"errors"
	"fmt"
	"slices"
)

// apart are the roles that nobody is given together, because each is there to hold the other.
var apart = []struct {
	one, other Role
	why        string
}{
	{Operator, Approver, "who hands out tokens can make persons, and would approve what they ask for"},
	{PolicyAdmin, Requester, "who writes the rules does not ask under them"},
	{PolicyAdmin, Operator, "who writes the rules does not hand out the tokens that ask under them"},
}

// CheckDuties reports roles that must not be in one credential (separation of duties). Tokens that were made before this was held keep
// theirs.
func CheckDuties(roles []Role) error {
	var wrong []error
	for _, pair := range apart {
		if slices.Contains(roles, pair.one) && slices.Contains(roles, pair.other) {
			wrong = append(wrong, fmt.Errorf("%s and %s must not be in one hand: %s", pair.one, pair.other, pair.why))
		}
	}
	return errors.Join(wrong...)
}

// CheckUnion reports roles that must not be in one hand and come together when somebody who has some is given others. What those that he has
// bring together by themselves is from before this was held, and is kept.
func CheckUnion(given, has []Role) error {
	var wrong []error
	for _, pair := range apart {
		one, other := slices.Contains(has, pair.one), slices.Contains(has, pair.other)
		if one != other && (one && slices.Contains(given, pair.other) || other && slices.Contains(given, pair.one)) {
			wrong = append(wrong, fmt.Errorf("%s and %s must not be in one hand: %s", pair.one, pair.other, pair.why))
		}
	}
	return errors.Join(wrong...)
}

// granted are the roles that an operator hands out over the API. Approvers and policy admins are made on the machine itself, or by rules
// of the configuration: they are there to hold the operator too.
var granted = []Role{Requester, Revoker, Auditor, Operator}

// CheckGrant reports roles that nobody can hand out over the API.
func CheckGrant(roles []Role) error {
	for _, r := range roles {
		if !slices.Contains(granted, r) {
			return fmt.Errorf("the role %s is not given through the API: make its token on the machine itself, with chancery token create --config",
				r)
		}
	}
	return nil
}
