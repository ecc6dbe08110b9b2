package policies

import (
	"cmp"
	"fmt"
	"strings"
)

// The limits on what a profile may ask of persons and bound by number.
const (
	maxApprovals     = 10
	maxApprovalWait  = 90 * day
	maxQuotaWindow   = 366 * day
	maxGroupName     = 100
	approvalAlways   = "always"
	approvalForRules = "rules"
)

func compileApproval(r *report, f *approvalFile) approvalPolicy {
	if f == nil {
		return approvalPolicy{}
	}
	a := approvalPolicy{
		count: f.Count, groups: f.Groups, signed: f.Signed, expires: defaultExpiry, always: cmp.Or(f.When, approvalAlways) == approvalAlways,
	}
	if f.Count < 1 || f.Count > maxApprovals {
		r.field("approval.count", fmt.Sprintf("from 1 to %d", maxApprovals), "%d is not a number of persons who can be asked", f.Count)
	}
	if f.Expires != "" {
		a.expires = compileDuration(r, "approval.expires", f.Expires)
	}
	if a.expires > maxApprovalWait {
		r.field("approval.expires", "at most "+formatDuration(maxApprovalWait), "%s is too long to wait", formatDuration(a.expires))
	}
	if !a.always && f.When != approvalForRules {
		r.field("approval.when", "always or rules", "%s does not say when approval is needed", quote(f.When))
	}
	if f.Groups != nil && len(f.Groups) == 0 {
		r.field("approval.groups", "leave it out if every approver counts", "nobody is in none of the groups: no request could ever be approved")
	}
	for i, group := range f.Groups {
		if group == "" || len(group) > maxGroupName || strings.TrimSpace(group) != group {
			r.field(index("approval.groups", i), "", "%s is not a group", quote(group))
		}
	}
	reportRepeated(r, "approval.groups", f.Groups)
	return a
}

func compileQuota(r *report, f *quotaFile) quotaPolicy {
	if f == nil {
		return quotaPolicy{}
	}
	q := quotaPolicy{certificates: f.Certificates, per: compileDuration(r, "quota.per", f.Per), of: quotaOf(f.Of)}
	if q.certificates < 1 {
		r.field("quota.certificates", "at least 1", "%d certificates are not worth a profile", f.Certificates)
	}
	if q.per > maxQuotaWindow {
		r.field("quota.per", "at most "+formatDuration(maxQuotaWindow), "%s is too long to count over", formatDuration(q.per))
	}
	switch q.of {
	case quotaOfNamespace, quotaOfRequester, quotaOfName:
	default:
		r.field("quota.of", "namespace, requester or name", "%s does not say whose certificates are counted", quote(f.Of))
	}
	return q
}

// hint says who is asked for approval.
func (a approvalPolicy) hint() string {
	who := "ask an approver"
	if len(a.groups) > 0 {
		who = "ask an approver of " + strings.Join(a.groups, " or ")
	}
	return who + "; the request waits for " + formatDuration(a.expires)
}

// persons counts people in words.
func persons(n int) string {
	switch n {
	case 0:
		return "nobody"
	case 1:
		return "1 person"
	}
	return fmt.Sprintf("%d persons", n)
}

// usedOf says how much of a reservation is used.
func usedOf(used int, r Reservation) string {
	if r.Window == 0 {
		return fmt.Sprintf("%d of %d for %s %s", used, r.Limit, r.Kind, quote(r.Key))
	}
	return fmt.Sprintf("%d of %d in %s for %s", used, r.Limit, formatDuration(r.Window), quote(r.Key))
}
