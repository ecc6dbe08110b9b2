// Package access owns who may do what: actors, roles, namespaces, and the one function that says yes or no.
//
// It owns no sessions, no storage and no protocol: the web room finds out who calls, the storage room keeps tokens, and both ask
// here. Everything is refused that the table does not allow. The package is pure.
package access

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Role is what an actor may be. Roles are fixed; which actions each allows is the table in table.go.
type Role string

// The roles.
const (
	Requester Role = "requester" // asks for certificates in the own namespace
	Approver  Role = "approver"  // decides on requests that wait
	Revoker   Role = "revoker"   // revokes certificates
	Auditor   Role = "auditor"   // reads everything, changes nothing
	Operator  Role = "operator"  // runs the service: authorities, health, CRLs, namespaces, API tokens

	PolicyAdmin Role = "policy-admin" // proposes and changes the policies, and asks for nothing under them
)

// Action is something that can be done to a resource.
type Action string

// The actions.
const (
	IssueCertificate  Action = "certificate.issue"
	ReadCertificate   Action = "certificate.read"
	RevokeCertificate Action = "certificate.revoke"
	ReadRevocation    Action = "revocation.read"    // orders to revoke many certificates
	ApproveRevocation Action = "revocation.approve" // approve or reject one
	ReadProfile       Action = "profile.read"
	EvaluateProfile   Action = "profile.evaluate"
	ReadAuthority     Action = "authority.read"
	PublishCRL        Action = "crl.publish"      // now, due or not
	ReadRequest       Action = "request.read"     // of requests that wait, or waited, for approval
	ApproveRequest    Action = "request.approve"  // approve or reject
	ReadNamespace     Action = "namespace.read"   // what a team owns and may use
	ChangeNamespace   Action = "namespace.change" // set or remove
	ReadPolicy        Action = "policy.read"      // the files of policies, their history, proposals
	ChangePolicy      Action = "policy.change"    // have other policies rule, or propose them
	ApprovePolicy     Action = "policy.approve"   // decide on a proposal
	ReadOrder         Action = "order.read"       // orders for what cannot be undone
	ApproveOrder      Action = "order.approve"    // decide on one
	ReadAudit         Action = "audit.read"       // the whole log: entries, tiles, proofs, checkpoints
	ReadReceipt       Action = "receipt.read"     // that an event of the own namespace was logged
	ReadToken         Action = "token.read"       // whose API tokens there are, never the tokens themselves
	ManageToken       Action = "token.manage"     // create, rotate, withdraw
	OpenSession       Action = "session.open"     // sign in to the console
	ReadSelf          Action = "self.read"        // who one is here
)

// AllNamespaces is the namespace of actors and resources that belong to no single team.
const AllNamespaces = "*"

// Actor is an authenticated caller.
type Actor struct {
	ID        string // of the credential, never the credential itself
	Name      string // for people to read
	Person    string // who stands behind the credential: two credentials of one person are one person
	Namespace string // the namespace it acts in, or AllNamespaces
	Roles     []Role
	// Groups are the groups that the person is in, as who authenticated the person says; API tokens have none.
	Groups []string
	// Attributes are further claims about the person, by name: of an OIDC token or a client certificate; API tokens have none.
	Attributes map[string][]string
	// Scope narrows what the credential can be used for, whatever its roles.
	Scope Scope
	// Emergency is why the actor broke the glass; empty: it did not.
	Emergency string
}

// Unnamed tells whether nobody has said which person stands behind the credential: a user of the machine may be several persons, and one
// who has other credentials besides. Who is unnamed does not take part in what persons must approve, on either side.
func (a Actor) Unnamed() bool { return Unnamed(a.ID, a.Person) }

// Unnamed is Actor.Unnamed of an actor's ID and person.
func Unnamed(id, person string) bool {
	return person == "" || person == id && strings.HasPrefix(id, LocalActor)
}

// Service is the ID of the service where it acts by itself, and what stands for its person.
const Service = "system"

// LocalActor begins the IDs of users of the machine itself.
const LocalActor = string(ByPeer) + ":"

// Scope narrows what a credential can be used for. The zero value narrows nothing.
type Scope struct {
	Profiles []string       // the only profiles that it asks for certificates under; empty: every one of the namespace
	Networks []netip.Prefix // the only addresses that it is used from; empty: every one
}

// MayUse tells whether certificates may be asked for under a profile.
func (s Scope) MayUse(profile string) bool {
	return len(s.Profiles) == 0 || slices.Contains(s.Profiles, profile)
}

// MayComeFrom tells whether the credential may be used from an address. Where networks are named, an unknown address is in none.
func (s Scope) MayComeFrom(from netip.Addr) bool {
	return len(s.Networks) == 0 || slices.ContainsFunc(s.Networks, func(n netip.Prefix) bool { return n.Contains(from.Unmap()) })
}

// Resource is what an action is done to.
type Resource struct {
	Namespace string // the owner; AllNamespaces for what belongs to the whole authority
	Kind      string // "certificate", "profile", ...: for the refusal's words
	ID        string
	Profile   string // under which a certificate is asked for; empty elsewhere
}

// Namespace is a team's share of the name space: the names that it may have in certificates.
type Namespace struct {
	Name     string
	DNS      []string       // a name owns itself and everything under it; "*" owns every name
	IP       []netip.Prefix // addresses owned
	Email    []string       // mail domains owned
	URI      []string       // URI prefixes owned, each ending with "/" or being a whole authority such as "spiffe://example"
	Subjects []string       // organisations that may stand in the subject's O
	Profiles []string       // the profiles that may be used; empty means every profile
	Quotas   []Quota        // how many certificates it gets at most
	Rates    []Rate         // how fast it may ask
}

// Quota bounds the certificates of a namespace: at most so many in any span of a length.
type Quota struct {
	Profile      string // under this profile; empty means under all together
	Certificates int    // 0 means none
	Per          time.Duration
}

// Rate bounds the requests of a namespace, granted or not: so many in a span of a length on average, and so many at once.
type Rate struct {
	Profile  string // under this profile; empty means under all together
	Requests int
	Per      time.Duration
}

// Denied is the refusal of an action. Hidden says that the caller may not even learn that the resource exists, ByScope that the roles allow
// the action and the credential was made for other profiles.
type Denied struct {
	Actor    string
	Action   Action
	Resource Resource
	Hidden   bool
	ByScope  bool
}

func (d *Denied) Error() string {
	return "access denied: " + string(d.Action) + " on " + d.Resource.Kind + " is not allowed to " + d.Actor
}
