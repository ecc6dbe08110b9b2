package access

import "slices"

// allowed is the table of who may do what. What does not stand here is refused.
var allowed = map[Role][]Action{
	Requester: {
		IssueCertificate, ReadCertificate, ReadProfile, EvaluateProfile, ReadAuthority, ReadRequest, ReadNamespace, ReadReceipt, OpenSession,
		ReadSelf,
	},
	Approver: {
		ReadCertificate, ReadProfile, ReadAuthority, ReadRequest, ApproveRequest, ReadNamespace, ReadPolicy, ApprovePolicy,
		ReadRevocation, ApproveRevocation, ReadOrder, ApproveOrder, ReadReceipt, OpenSession, ReadSelf,
	},
	Revoker: {ReadCertificate, RevokeCertificate, ReadRevocation, ReadProfile, ReadAuthority, PublishCRL, ReadReceipt, OpenSession, ReadSelf},
	Auditor: {
		ReadCertificate, ReadRevocation, ReadProfile, ReadAuthority, ReadRequest, ReadNamespace, ReadPolicy, ReadToken, ReadAudit, ReadReceipt,
		ReadOrder, OpenSession, ReadSelf,
	},
	Operator: {
		ReadCertificate, ReadRevocation, ReadProfile, ReadAuthority, ReadRequest, ReadNamespace, ChangeNamespace, ReadPolicy,
		PublishCRL, ReadToken, ManageToken, ReadOrder, ReadReceipt, OpenSession, ReadSelf,
	},
	PolicyAdmin: {
		ReadCertificate, ReadProfile, EvaluateProfile, ReadAuthority, ReadNamespace, ReadPolicy, ChangePolicy, ReadReceipt,
		OpenSession, ReadSelf,
	},
}

// shared are the actions that a member of one namespace may do to what belongs to the whole authority. Certificates are not among
// them: those of no single team are read by actors of no single team.
var shared = []Action{ReadProfile, EvaluateProfile, ReadAuthority, ReadPolicy, PublishCRL}

// Grant is one row of the table: what a role may do.
type Grant struct {
	Role    Role
	Actions []Action
}

// Holders are the roles that may do an action, in the order of Roles.
func Holders(act Action) (holders []Role) {
	for _, r := range Roles() {
		if slices.Contains(allowed[r], act) {
			holders = append(holders, r)
		}
	}
	return holders
}

// Table is who may do what, in the order of Roles. The caller may keep and change it.
func Table() []Grant {
	table := make([]Grant, 0, len(allowed))
	for _, r := range Roles() {
		table = append(table, Grant{Role: r, Actions: slices.Clone(allowed[r])})
	}
	return table
}
