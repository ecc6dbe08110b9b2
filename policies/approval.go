package policies

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"
)

// Approval is one person's consent to one request, as it was kept. It counts only for the request that its binding names.
type Approval struct {
	Person  string    // who consented: two credentials of one person are one person
	Actor   string    // the credential's ID
	Groups  []string  // the groups that the person was in at that time
	At      time.Time // when
	Binding string    // what was consented to: ApprovalNeeded.Binding
	Key     string    // fingerprint of the key that signed it, verified; empty: it is not signed
}

// ApprovalNeeded is the error of a decision that waits for persons. Nothing was refused.
type ApprovalNeeded struct {
	Profile string
	Need    int           // how many distinct persons must consent
	Have    int           // how many of those given count
	Groups  []string      // of which an approver must be in one; empty: any approver
	Signed  bool          // each must be signed by the approver's own key
	Expires time.Duration // how long the request may wait, and an approval counts
	Binding string        // what an approval must name
	Reasons []Violation   // what asked for approval
}

func (a *ApprovalNeeded) Error() string {
	if len(a.Reasons) == 0 {
		return "the request needs approval"
	}
	return "the request needs approval: " + a.Reasons[0].Message
}

// defaultExpiry is how long a request waits for approval when its profile says nothing.
const defaultExpiry = 7 * day

// approvalPolicy says who must consent to what the profile issues. Its zero value asks for nobody.
type approvalPolicy struct {
	count   int // 0: nobody is asked
	groups  []string
	signed  bool // by the approver's own key
	expires time.Duration
	always  bool // false: only where a rule asks for it
}

// Binding names what an approval consents to: the exact request, its requester and namespace, profile, issuer and validity, and the
// policies that decided. When any of them changes, what was approved is approved no more.
func (d *Decision) Binding() string {
	if d == nil || d.evaluation == nil || d.evaluation.CSR == nil {
		return ""
	}
	e := d.evaluation
	h := sha256.New()
	for _, s := range []string{"chancery approval 1", d.digest, d.profile, e.Issuer.Name, e.Namespace.Name, e.Actor.Person, e.Actor.ID} {
		frame(h, []byte(s))
	}
	frame(h, binary.BigEndian.AppendUint64(nil, uint64(e.Validity)))
	frame(h, e.CSR.Raw())
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// consents counts the distinct persons whose approvals hold for this decision. Nobody approves a request of their own, and two names with
// one key, or with one credential, are one person: a login can be another by the claims that it has the next time.
func (d *Decision) consents(approvals []Approval) int {
	if len(approvals) == 0 {
		return 0
	}
	binding := d.Binding()
	e := d.evaluation
	var persons, actors, keys []string
	for _, a := range approvals {
		own := a.Person == e.Actor.Person || a.Actor == e.Actor.ID
		late := a.At.IsZero() || e.Now.Sub(a.At) > d.approval.expires
		if a.Person == "" || own || late || a.Binding != binding || slices.Contains(persons, a.Person) || slices.Contains(actors, a.Actor) {
			continue
		}
		if a.Key == "" && d.approval.signed || a.Key != "" && slices.Contains(keys, a.Key) {
			continue
		}
		if len(d.approval.groups) == 0 || intersect(d.approval.groups, a.Groups) {
			persons, actors, keys = append(persons, a.Person), append(actors, a.Actor), append(keys, a.Key)
		}
	}
	return len(persons)
}

func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
