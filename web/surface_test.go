package web

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// office is the authority that these tests speak to: it asks access as the real one does, and answers with what a test has put into it.
// How the real one decides is tested where it lives; here it only matters what becomes of its answers on the wire.
type office struct {
	mu       sync.Mutex
	orders   []ca.Order
	searched ca.EventFilter
	revokes  []ca.RevokeOrder
	filters  []ca.Filter
	outcome  ca.Outcome
	revoked  ca.Revocation
	found    ca.Certificate
	page     ca.Page
	records  []ca.AuthorityRecord
	crl      ca.CRLRecord // of every scope
	delta    ca.CRLRecord
	policies *policies.Set
	waits    ca.RequestState
	words    []ca.ApproveOrder
	spaces   []ca.NamespaceVersion
	set      []access.Namespace
	after    []int
	asks     [][]byte         // OCSP requests
	answer   *ca.OCSPResponse // to all of them
	err      error            // what every verb returns, once access has been asked
	logins   [][32]byte
	bulk     bulk
	busy     func()

	token             ca.APIToken
	made              []ca.NewAPIToken
	rotated           []ca.Rotation
	visits            []string
	strayed, guessers []string
	closed            error // what keeps visits from being recorded
}

func (o *office) asked(a access.Actor, act access.Action, namespace string) error {
	if o.busy != nil {
		o.busy()
	}
	if err := access.Authorize(a, act, access.Resource{Namespace: namespace, Kind: "thing", ID: "x"}); err != nil {
		return err
	}
	return o.err
}

func (o *office) Admits(_ context.Context, a access.Actor, act access.Action) error {
	return access.Authorize(a, act, access.Resource{Namespace: a.Namespace, Kind: "thing"})
}

func (o *office) Issue(_ context.Context, order ca.Order) (ca.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.orders = append(o.orders, order)
	of := access.Resource{Namespace: order.Actor.Namespace, Profile: order.Profile}
	if err := access.Authorize(order.Actor, access.IssueCertificate, of); err != nil {
		return ca.Outcome{}, err
	}
	return o.outcome, o.asked(order.Actor, access.IssueCertificate, order.Actor.Namespace)
}

func (o *office) Evaluate(_ context.Context, order ca.Order) (*policies.Decision, error) {
	if err := o.asked(order.Actor, access.EvaluateProfile, order.Actor.Namespace); err != nil {
		return nil, err
	}
	issuing, err := x509.ParseCertificate(o.records[0].Certificate)
	if err != nil {
		return nil, err
	}
	return o.policies.Decide(policies.Request{
		CSR: order.CSR, Profile: order.Profile, Validity: order.Validity, Actor: order.Actor, Now: noon,
		Namespace: access.Namespace{Name: order.Actor.Namespace, DNS: []string{"dev.example"}},
		Issuer:    policies.Issuer{Name: "issuing-1", Certificate: issuing, CRLScope: ca.FullScope, CRLURL: o.records[0].CRLURL},
	}), nil
}

func (o *office) Revoke(_ context.Context, order ca.RevokeOrder) (ca.Revocation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revokes = append(o.revokes, order)
	return o.revoked, o.asked(order.Actor, access.RevokeCertificate, order.Actor.Namespace)
}

func (o *office) Checkpoint(_ context.Context, a access.Actor, cosigned int) ([]byte, error) {
	return fmt.Appendf(nil, "checkpoint with %d\n", cosigned), o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) SearchEvents(_ context.Context, a access.Actor, f ca.EventFilter) (ca.EventPage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.searched = f
	return ca.EventPage{
		Events: []ca.LoggedEvent{{Event: audit.Event{
			ID: "e-1", Kind: audit.AccessDenied, Time: noon, Actor: "t-1",
			Data: map[string]string{"x": "y"},
		}, Index: 5}, {Index: -1}},
		Next: "more",
	}, o.asked(a, access.ReadAudit, cmp.Or(f.Namespace, a.Namespace))
}

func (o *office) Cosign(_ context.Context, a access.Actor, signed []byte) ([]string, error) {
	return []string{string(signed)}, o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) LogKeys(_ context.Context, a access.Actor) ([]string, error) {
	return []string{"log+1+k"}, o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) AuditEntries(_ context.Context, a access.Actor, from, to int64) ([]ca.AuditEntry, error) {
	return []ca.AuditEntry{{Index: from, Leaf: []byte("first")}, {Index: to, Leaf: []byte("after")}}, o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) ProveInclusion(_ context.Context, a access.Actor, index, size int64) (ca.LogProof, error) {
	return ca.LogProof{Size: size, Hashes: []audit.Hash{{byte(index)}}, Checkpoint: []byte("note")}, o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) ProveConsistency(_ context.Context, a access.Actor, from, to int64) (ca.LogProof, error) {
	return ca.LogProof{Size: to, Hashes: []audit.Hash{{byte(from)}, {byte(to)}}, Checkpoint: []byte("note")},
		o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) Receipt(_ context.Context, a access.Actor, event string, cosigned int) (audit.Receipt, error) {
	return audit.Receipt{Leaf: []byte(event), Index: int64(cosigned), Checkpoint: []byte("note")}, o.asked(a, access.ReadReceipt, a.Namespace)
}

func (o *office) Tile(_ context.Context, a access.Actor, t audit.Tile) ([]byte, error) {
	return fmt.Appendf(nil, "%d %d %d", t.Level, t.N, t.Width), o.asked(a, access.ReadAudit, a.Namespace)
}

func (o *office) Requests(_ context.Context, a access.Actor, f ca.WaitingFilter) ([]ca.WaitingRequest, string, error) {
	return []ca.WaitingRequest{o.waits.WaitingRequest}, "r-6", o.asked(a, access.ReadRequest, a.Namespace)
}

func (o *office) Request(_ context.Context, a access.Actor, _ string) (ca.RequestState, error) {
	return o.waits, o.asked(a, access.ReadRequest, a.Namespace)
}

func (o *office) Approve(_ context.Context, order ca.ApproveOrder) (ca.RequestState, error) {
	o.words = append(o.words, order)
	return o.waits, o.asked(order.Actor, access.ApproveRequest, order.Actor.Namespace)
}

func (o *office) Reject(_ context.Context, order ca.ApproveOrder) (ca.RequestState, error) {
	o.words = append(o.words, order)
	return o.waits, o.asked(order.Actor, access.ApproveRequest, order.Actor.Namespace)
}

func (o *office) Namespaces(_ context.Context, a access.Actor) ([]ca.NamespaceVersion, error) {
	return o.spaces, o.asked(a, access.ReadNamespace, a.Namespace)
}

func (o *office) NamespaceHistory(_ context.Context, a access.Actor, _ string) ([]ca.NamespaceVersion, error) {
	return o.spaces, o.asked(a, access.ReadNamespace, a.Namespace)
}

func (o *office) SetNamespace(_ context.Context, a access.Actor, n access.Namespace, after int) (ca.NamespaceVersion, error) {
	o.set, o.after = append(o.set, n), append(o.after, after)
	return o.spaces[0], o.asked(a, access.ChangeNamespace, a.Namespace)
}

func (o *office) RemoveNamespace(_ context.Context, a access.Actor, _ string, after int) (ca.NamespaceVersion, error) {
	o.after = append(o.after, after)
	return o.spaces[0], o.asked(a, access.ChangeNamespace, a.Namespace)
}

func (o *office) Certificate(_ context.Context, a access.Actor, _ string, _ []byte) (ca.Certificate, error) {
	return o.found, o.asked(a, access.ReadCertificate, a.Namespace)
}

func (o *office) List(_ context.Context, a access.Actor, f ca.Filter) (ca.Page, error) {
	o.filters = append(o.filters, f)
	return o.page, o.asked(a, access.ReadCertificate, a.Namespace)
}

func (o *office) ChainOf(_ context.Context, c ca.Certificate) ([][]byte, error) {
	return [][]byte{c.DER, o.records[0].Certificate}, nil
}

func (o *office) Profiles(_ context.Context, a access.Actor) ([]*policies.Profile, error) {
	if err := o.asked(a, access.ReadProfile, access.AllNamespaces); err != nil {
		return nil, err
	}
	var all []*policies.Profile
	for _, name := range o.policies.Names() {
		p, _ := o.policies.Profile(name)
		all = append(all, p)
	}
	return all, nil
}

func (o *office) Profile(_ context.Context, a access.Actor, name string) (*policies.Profile, error) {
	if err := o.asked(a, access.ReadProfile, access.AllNamespaces); err != nil {
		return nil, err
	}
	p, ok := o.policies.Profile(name)
	if !ok {
		return nil, fmt.Errorf("profile %q: %w", name, ca.ErrNotFound)
	}
	return p, nil
}

func (o *office) hasProfile(name string) bool {
	_, ok := o.policies.Profile(name)
	return ok
}

func (o *office) PolicyDigest() string { return o.policies.Digest() }

func (o *office) PolicyHistory(_ context.Context, a access.Actor) ([]ca.PolicyActivation, error) {
	activation := ca.PolicyActivation{Number: 3, Digest: o.policies.Digest(), ActorName: "op", At: noon, EventID: "e-3"}
	return []ca.PolicyActivation{activation}, o.asked(a, access.ReadPolicy, access.AllNamespaces)
}

func (o *office) PolicyProposals(_ context.Context, a access.Actor) ([]ca.PolicyProposal, error) {
	return []ca.PolicyProposal{o.proposal()}, o.asked(a, access.ReadPolicy, access.AllNamespaces)
}

func (o *office) proposal() ca.PolicyProposal {
	return ca.PolicyProposal{
		ID: "p-1", Digest: "sha256:01", Replaces: o.policies.Digest(), Needs: 2, ActorName: "op", Person: "Olga", At: noon,
		ExpiresAt: noon.Add(day),
		EventID:   "e-4", Votes: []ca.PolicyVote{{Person: "Ann", Approves: true, ActorName: "ann", At: noon, EventID: "e-5"}},
	}
}

func (o *office) PolicySet(_ context.Context, a access.Actor, digest string) (string, []policies.File, error) {
	if err := o.asked(a, access.ReadPolicy, access.AllNamespaces); err != nil {
		return "", nil, err
	}
	if digest != "" && digest != o.policies.Digest() {
		return "", nil, ca.ErrNotFound
	}
	return o.policies.Digest(), o.policies.Files(), nil
}

func (o *office) ReloadPolicies(_ context.Context, a access.Actor, _ string) (ca.PolicyChange, error) {
	return ca.PolicyChange{Digest: o.policies.Digest()}, o.asked(a, access.ChangePolicy, access.AllNamespaces)
}

func (o *office) ChangePolicies(_ context.Context, a access.Actor, files []policies.File, _ string) (ca.PolicyChange, error) {
	if err := o.asked(a, access.ChangePolicy, access.AllNamespaces); err != nil {
		return ca.PolicyChange{}, err
	}
	set, err := policies.LoadFiles(files)
	if err != nil {
		return ca.PolicyChange{}, err
	}
	p := o.proposal()
	p.Digest = set.Digest()
	return ca.PolicyChange{Digest: set.Digest(), Proposal: &p}, nil
}

func (o *office) DecideOnPolicies(_ context.Context, a access.Actor, d ca.PolicyDecision) (ca.PolicyProposal, error) {
	p := o.proposal()
	p.Votes = append(p.Votes, ca.PolicyVote{Person: "Bob", Approves: d.Approves, Comment: d.Comment, At: noon})
	p.Activated = d.Approves
	return p, o.asked(a, access.ApprovePolicy, access.AllNamespaces)
}

func (o *office) order() ca.ActOrder {
	return ca.ActOrder{
		ID: "o-1", Kind: ca.OrderDestroyKey, Facts: []approval.Fact{{Name: "key_label", Value: "old"}}, Binding: "sha256:aa", Needs: 1,
		Actor:  "local:root",
		Person: "local:root", At: noon, ExpiresAt: noon.Add(time.Hour),
	}
}

func (o *office) Orders(_ context.Context, a access.Actor) ([]ca.ActOrder, error) {
	return []ca.ActOrder{o.order()}, o.asked(a, access.ReadOrder, access.AllNamespaces)
}

func (o *office) Order(_ context.Context, a access.Actor, _ string) (ca.ActOrder, error) {
	return o.order(), o.asked(a, access.ReadOrder, access.AllNamespaces)
}

func (o *office) DecideOnOrder(_ context.Context, a access.Actor, d ca.OrderDecision) (ca.ActOrder, error) {
	order := o.order()
	order.Votes = append(order.Votes, ca.OrderVote{Person: "Bob", Approves: d.Approves, Comment: d.Comment, At: noon})
	return order, o.asked(a, access.ApproveOrder, access.AllNamespaces)
}

func (o *office) PublishNow(_ context.Context, a access.Actor, authority, scope string) ([]ca.CRLState, error) {
	if err := o.asked(a, access.PublishCRL, access.AllNamespaces); err != nil {
		return nil, err
	}
	if authority != "issuing-1" || scope == "9" {
		return nil, ca.ErrNotFound
	}
	return []ca.CRLState{
		{
			Scope: ca.FullScope, Number: o.crl.Number, ThisUpdate: o.crl.ThisUpdate, NextUpdate: o.crl.NextUpdate, Entries: 2, Octets: 300,
			Delta: o.crl.Number,
		},
		{Scope: "7", Pending: 1},
	}, o.err
}

func (o *office) Authorities(_ context.Context, a access.Actor) ([]ca.AuthorityState, error) {
	if err := o.asked(a, access.ReadAuthority, access.AllNamespaces); err != nil {
		return nil, err
	}
	var states []ca.AuthorityState
	for _, r := range o.records {
		states = append(states, ca.AuthorityState{AuthorityRecord: r, Signing: r.Online})
	}
	states[0].Current = &o.crl
	return states, nil
}

func (o *office) PublicAuthorities(context.Context) ([]ca.AuthorityRecord, error) {
	return o.records, o.err
}

func (o *office) PublicAuthority(_ context.Context, name string) (ca.AuthorityRecord, error) {
	for _, r := range o.records {
		if r.Name == name && o.err == nil {
			return r, nil
		}
	}
	if o.err != nil {
		return ca.AuthorityRecord{}, o.err
	}
	return ca.AuthorityRecord{}, ca.ErrNotFound
}

func (o *office) OCSP(_ context.Context, name string, request []byte) (*ca.OCSPResponse, error) {
	if name != "issuing-1" {
		return nil, ca.ErrNotFound
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asks = append(o.asks, request)
	return o.answer, o.err
}

func (o *office) CurrentCRL(_ context.Context, name, scope string) (ca.CRLRecord, error) {
	if o.busy != nil {
		o.busy()
	}
	if name != "issuing-1" || scope != ca.FullScope && scope != "7" {
		return ca.CRLRecord{}, ca.ErrNotFound
	}
	crl := o.crl
	crl.Scope = scope
	return crl, o.err
}

func (o *office) CurrentDelta(_ context.Context, name, scope string) (ca.CRLRecord, error) {
	if name != "issuing-1" || o.delta.Scope != scope {
		return ca.CRLRecord{}, ca.ErrNotFound
	}
	return o.delta, o.err
}

func (o *office) OfferLogin(_ context.Context, a access.Actor, login [32]byte) (time.Time, error) {
	o.logins = append(o.logins, login)
	return noon.Add(ca.LoginLife), o.asked(a, access.OpenSession, a.Namespace)
}

func (o *office) APITokens(_ context.Context, a access.Actor) ([]ca.APIToken, error) {
	return []ca.APIToken{o.token}, o.asked(a, access.ReadToken, a.Namespace)
}

func (o *office) APIToken(_ context.Context, a access.Actor, _ string) (ca.APIToken, error) {
	return o.token, o.asked(a, access.ReadToken, a.Namespace)
}

func (o *office) CreateToken(_ context.Context, a access.Actor, n ca.NewAPIToken) (ca.APIToken, string, error) {
	o.made = append(o.made, n)
	return o.token, "chancery_secret", o.asked(a, access.ManageToken, n.Namespace)
}

func (o *office) RotateToken(_ context.Context, a access.Actor, r ca.Rotation) (ca.APIToken, string, error) {
	o.rotated = append(o.rotated, r)
	return o.token, "chancery_secret", o.asked(a, access.ManageToken, a.Namespace)
}

func (o *office) RevokeToken(_ context.Context, a access.Actor, _ string) (ca.APIToken, error) {
	return o.token, o.asked(a, access.ManageToken, a.Namespace)
}

func (o *office) Visit(_ context.Context, a access.Actor, from netip.Addr) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.visits = append(o.visits, a.ID+" "+from.String())
	return o.closed
}

func (o *office) Strayed(_ context.Context, a access.Actor, from netip.Prefix) error {
	o.strayed = append(o.strayed, a.ID+" "+from.String())
	return o.closed
}

func (o *office) Guessing(_ context.Context, from netip.Prefix, _ int) error {
	o.guessers = append(o.guessers, from.String())
	return nil
}

func (o *office) Ready(context.Context) error { return o.err }

// ring is the tokens that these tests know.
type ring struct {
	actors map[[32]byte]access.Actor
	err    error
}

func (r *ring) ActorByToken(_ context.Context, digest [32]byte) (access.Actor, error) {
	if a, ok := r.actors[digest]; ok || r.err != nil {
		return a, r.err
	}
	return access.Actor{}, ca.ErrNotFound
}

// shipped reads the profiles once for all tests.
var shipped = sync.OnceValues(policies.Shipped)

// surface is a Server with all that a test needs to speak to it.
type surface struct {
	*Server
	office *office
	ring   *ring
	tokens map[access.Role]string
	log    *bytes.Buffer
}

func newSurface(t testing.TB, change ...func(*Config)) *surface {
	t.Helper()
	set, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	s := &surface{
		office: newOffice(t), ring: &ring{actors: map[[32]byte]access.Actor{}},
		tokens: map[access.Role]string{}, log: &bytes.Buffer{},
	}
	s.office.policies = set
	for _, role := range access.Roles() {
		token, digest, err := access.NewToken(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s.tokens[role] = token
		namespace := "dev"
		if role == access.Operator || role == access.Approver || role == access.PolicyAdmin { // policies belong to the whole authority
			namespace = access.AllNamespaces
		}
		s.ring.actors[digest] = access.Actor{ID: "actor-" + string(role), Namespace: namespace, Roles: []access.Role{role}}
	}
	var mu sync.Mutex
	serial := 0
	cfg := Config{
		CA: s.office, Tokens: s.ring, Log: slog.New(slog.NewTextHandler(&lockedWriter{w: s.log}, nil)), Now: func() time.Time { return noon },
		NewID: func() string {
			mu.Lock()
			defer mu.Unlock()
			serial++
			return fmt.Sprintf("request-%d", serial)
		},
		Metrics: NewMetrics(s.office.hasProfile), Version: "1.2.3", Pages: &onePage{}, PageURL: "https://ca.dev.example",
	}
	for _, c := range change {
		c(&cfg)
	}
	if s.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// onePage stands where the console is.
type onePage struct{ scope access.Scope }

// Open: there is a form at the door.
func (p *onePage) Open(r *http.Request) bool { return r.URL.Path == "/console/enter" }

func (p *onePage) Routes(d Desk) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Open(r) {
			fmt.Fprint(w, "entered with ", r.PostFormValue("code"))
			return
		}
		if problem := d.Admit(r, access.Actor{ID: "reader", Scope: p.scope}); problem != nil {
			w.WriteHeader(problem.Status)
			return
		}
		fmt.Fprint(w, "a page")
	})
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// newOffice makes a root, an issuing authority, a certificate and a CRL with keys in memory.
func newOffice(t testing.TB) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string, parent *x509.Certificate, isCA bool) []byte {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(1000 * day),
			IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	parsed := func(der []byte) *x509.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := certificate("Root", nil, true)
	issuing := certificate("Issuing", parsed(root), true)
	leaf := certificate("leaf.dev.example", parsed(issuing), false)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(5), ThisUpdate: noon.Add(-time.Minute), NextUpdate: noon.Add(time.Hour),
	}, parsed(issuing), key)
	if err != nil {
		t.Fatal(err)
	}
	stored := ca.Certificate{NewCertificate: ca.NewCertificate{
		Issuer: "issuing-1", DER: leaf, Profile: "tls-server", PolicyDigest: "sha256:00", Namespace: "dev", RequestID: "r-1", EventID: "e-1",
		Subject: "CN=leaf.dev.example", Names: []string{"leaf.dev.example"}, NotBefore: noon.Add(-time.Hour),
		NotAfter: noon.Add(time.Hour), IssuedAt: noon,
	}}
	stored.Serial[0], stored.Serial[19] = 0x1c, 0xab
	waits := ca.RequestState{WaitingRequest: ca.WaitingRequest{
		Request: ca.Request{
			ID: "r-7", At: noon, Namespace: "dev", Profile: "code-signing", Issuer: "issuing-1", CSR: []byte{0x30, 0}, PolicyDigest: "sha256:00",
		},
		Actor: access.Actor{ID: "token-1", Name: "team", Person: "alice"}, Subject: "CN=a tool", ExpiresAt: noon.Add(time.Hour),
		Status: ca.StatusWaiting,
		Approvals: []ca.ApprovalRecord{{
			Approval: policies.Approval{Person: "bob", At: noon, Binding: "sha256:b"}, Approved: true, Comment: "seen", EventID: "e-3",
		}},
	}, Need: 2, Have: 1, Binding: "sha256:b"}
	spaces := []ca.NamespaceVersion{{
		Namespace: access.Namespace{
			Name: "dev", DNS: []string{"dev.example"}, IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Quotas: []access.Quota{{Certificates: 5, Per: 36 * time.Hour}, {Profile: "tls-server", Certificates: 1, Per: 48 * time.Hour}},
			Rates:  []access.Rate{{Requests: 5, Per: 90 * time.Second}, {Requests: 5, Per: time.Minute}},
		},
		Version: 3, Source: ca.SourceAPI, Actor: "operator-1", At: noon, EventID: "e-4",
	}}
	return &office{
		token: ca.APIToken{
			ID: "t-1", Name: "ci", Person: "ada", Namespace: "dev", Roles: []access.Role{access.Requester}, CreatedAt: noon.Add(-time.Hour),
			CreatedBy: "operator-1",
			ExpiresAt: noon.Add(time.Hour), RetiresAt: noon.Add(time.Minute), Replaces: "t-0", LastUsedAt: noon,
			LastUsedFrom: netip.MustParseAddr("10.0.0.7"),
			Scope:        access.Scope{Profiles: []string{"tls-server"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		},
		waits: waits, spaces: spaces,
		outcome: ca.Outcome{Certificate: stored, Chain: [][]byte{leaf, issuing}}, found: stored,
		page: ca.Page{Certificates: []ca.Certificate{stored}, Next: "more"},
		revoked: ca.Revocation{
			Issuer: "issuing-1", Serial: stored.Serial[:], Sequence: 1, Reason: mustReason(t, "superseded"), At: noon,
			EventID:  "e-2",
			NotAfter: noon.Add(time.Hour), Comment: "replaced",
		},
		records: []ca.AuthorityRecord{
			{
				Name: "issuing-1", Parent: "root", Certificate: issuing, Chain: [][]byte{issuing, root}, Online: true, AddedAt: noon.Add(-time.Hour),
				Key: ca.KeyName{Token: "t1", Label: "issuing-1", ID: []byte{1, 2}}, CRLURL: "http://pki.example/crl/issuing-1.crl",
				CRL: ca.CRLPlan{Period: 24 * time.Hour, Validity: 7 * 24 * time.Hour},
			},
			{Name: "root", Certificate: root, Chain: [][]byte{root}, AddedAt: noon.Add(-2 * time.Hour)},
		},
		crl: ca.CRLRecord{
			Issuer: "issuing-1", Scope: ca.FullScope, Number: big.NewInt(5), DER: list, ThisUpdate: noon.Add(-time.Minute),
			NextUpdate: noon.Add(time.Hour),
		},
	}
}

func mustReason(t testing.TB, name string) ca.Reason {
	t.Helper()
	r, err := ca.ParseReason(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newCSR makes a certification request for a name.
func newCSR(t testing.TB, name string) (der []byte, inPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: name},
		DNSNames: []string{name},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// ask is one request of a test.
type ask struct {
	method, path string
	role         access.Role
	body         []byte
	header       map[string]string
}

func (a ask) json(v any) ask {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return a.with("Content-Type", typeJSON).of(body)
}

func (a ask) of(body []byte) ask { a.body = body; return a }

func (a ask) with(name, value string) ask {
	header := map[string]string{name: value}
	for k, v := range a.header {
		header[k] = v
	}
	a.header = header
	return a
}

func (s *surface) do(h http.Handler, a ask) *httptest.ResponseRecorder {
	if a.method == "" {
		a.method = http.MethodGet
	}
	r := httptest.NewRequest(a.method, a.path, bytes.NewReader(a.body))
	for k, v := range a.header {
		r.Header.Set(k, v)
	}
	if a.role != "" {
		r.Header.Set("Authorization", "Bearer "+s.tokens[a.role])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (s *surface) call(a ask) *httptest.ResponseRecorder { return s.do(s.API(), a) }

// wantProblem checks that an answer is a problem in full, and returns it.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, name string) Problem {
	t.Helper()
	var p Problem
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != problemType {
		t.Errorf("content type %q, want %q", got, problemType)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("the problem is not JSON: %v: %s", err, w.Body)
	}
	if p.Type != "urn:chancery:problem:"+name || p.Status != status || p.Title == "" {
		t.Errorf("got problem %+v, want type %s and status %d", p, name, status)
	}
	if status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		t.Error("nobody is told what would let him in (RFC 9110, section 15.5.2)")
	}
	if id := w.Header().Get("X-Request-Id"); id == "" || !strings.HasSuffix(p.Instance, ":"+id) {
		t.Errorf("instance %q does not name request %q", p.Instance, id)
	}
	return p
}

func wantRule(t *testing.T, p Problem, rule string) {
	t.Helper()
	for _, v := range p.Violations {
		if v.Rule == rule && v.Message != "" && v.Hint != "" && v.Field != "" {
			return
		}
	}
	t.Errorf("no whole violation of rule %s among %+v", rule, p.Violations)
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("not JSON: %v: %s", err, w.Body)
	}
	return v
}
