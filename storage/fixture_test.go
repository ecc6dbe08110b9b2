package storage_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

var (
	alpha  = ca.Replica{Name: "alpha", Run: "1"}
	alpha2 = ca.Replica{Name: "alpha", Run: "2"} // alpha after a restart
	beta   = ca.Replica{Name: "beta", Run: "1"}
)

const lease = time.Minute

// fixture is a store on a database of its own, and the owner's connection to look behind it.
type fixture struct {
	*storage.Store
	t     testing.TB
	db    *storagetest.Database
	owner *pgx.Conn
}

func setUp(t testing.TB) *fixture {
	t.Helper()
	db := storagetest.New(t)
	return &fixture{Store: db.Store(t), t: t, db: db, owner: connect(t, db.OwnerURL)}
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// exec does to the tables what no replica may.
func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	if _, err := f.owner.Exec(context.Background(), sql, args...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) count(table string) (n int) {
	f.t.Helper()
	if err := f.owner.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// wantCounts checks the numbers of rows: table, number, table, number.
func (f *fixture) wantCounts(tablesAndNumbers ...any) {
	f.t.Helper()
	for i := 0; i < len(tablesAndNumbers); i += 2 {
		if got, want := f.count(tablesAndNumbers[i].(string)), tablesAndNumbers[i+1].(int); got != want {
			f.t.Errorf("%v has %d rows, want %d", tablesAndNumbers[i], got, want)
		}
	}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func leaf(t testing.TB, kind audit.Kind) audit.Leaf { return leafWithID(t, newID(), kind) }

func leafWithID(t testing.TB, id string, kind audit.Kind) audit.Leaf {
	t.Helper()
	l, err := audit.New(audit.Event{ID: id, Kind: kind, Time: time.Now(), Actor: "system"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func random32() (b [32]byte) {
	_, _ = rand.Read(b[:]) // never fails
	return b
}

func newSerial(t testing.TB, at time.Time) issuance.Serial {
	t.Helper()
	s, err := issuance.NewSerial(at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func newRequest() ca.Request {
	return ca.Request{
		ID: newID(), At: now(), ActorID: "actor-1", ActorName: "team web", Namespace: "web", Roles: []string{"requester"},
		Profile: "tls-server", Issuer: "issuing-1", CSR: []byte("a CSR"), SPKI: random32(), Validity: 24 * time.Hour,
		Metadata: map[string]string{"ticket": "1"}, Verdict: policies.Allow,
		Objections: []policies.RuleResult{{Rule: "key.size", Source: "RFC 5280", Verdict: policies.NeedsApproval}}, PolicyDigest: "sha256:1",
	}
}

func newIntent(t testing.TB, owner ca.Replica) ca.Intent {
	t.Helper()
	r := newRequest()
	return ca.Intent{
		Issuer: r.Issuer, Serial: newSerial(t, time.Now()), Kind: issuance.Final, CRLScope: ca.FullScope, TBS: []byte("to be signed " + r.ID),
		NotAfter: now().Add(24 * time.Hour), Request: r, Owner: owner, Lease: lease,
	}
}

// certificateOf is the certificate that an intent leads to.
func certificateOf(i ca.Intent) ca.NewCertificate {
	return ca.NewCertificate{
		Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, DER: append([]byte("signed "), i.TBS...), SPKI: i.Request.SPKI, CRLScope: i.CRLScope,
		Profile: i.Request.Profile, PolicyDigest: i.Request.PolicyDigest, Namespace: i.Request.Namespace, RequestID: i.Request.ID,
		Subject: "CN=www.Example.com", Names: []string{"www.Example.com", "192.0.2.1"}, NotBefore: i.NotAfter.Add(-24 * time.Hour),
		NotAfter: i.NotAfter, IssuedAt: now(), EventID: newID(), Owner: i.Owner,
	}
}

func (f *fixture) intend(change ...func(*ca.Intent)) ca.Intent {
	f.t.Helper()
	i := newIntent(f.t, alpha)
	for _, c := range change {
		c(&i)
	}
	if err := f.RecordIntent(context.Background(), i, leaf(f.t, audit.CertificateIntended)); err != nil {
		f.t.Fatal(err)
	}
	return i
}

func (f *fixture) issue(change ...func(*ca.NewCertificate)) ca.NewCertificate {
	f.t.Helper()
	return f.finish(f.intend(), change...)
}

func (f *fixture) finish(i ca.Intent, change ...func(*ca.NewCertificate)) ca.NewCertificate {
	f.t.Helper()
	c := certificateOf(i)
	for _, ch := range change {
		ch(&c)
	}
	if err := f.RecordCertificate(context.Background(), c, leafWithID(f.t, c.EventID, audit.CertificateIssued)); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func revocationOf(c ca.NewCertificate, reason issuance.Reason) ca.Revocation {
	return ca.Revocation{
		Issuer: c.Issuer, Serial: c.Serial[:], Reason: reason, At: now(), Comment: "because", Actor: "actor-2", EventID: newID(),
		CRLScope: c.CRLScope, NotAfter: c.NotAfter, SPKI: c.SPKI,
	}
}

func (f *fixture) revoke(c ca.NewCertificate, reason issuance.Reason, after int) ca.Revocation {
	f.t.Helper()
	r := revocationOf(c, reason)
	recorded, err := f.RecordRevocation(context.Background(), r, after, leafWithID(f.t, r.EventID, audit.CertificateRevoked))
	if err != nil {
		f.t.Fatal(err)
	}
	return recorded
}

func newAuthority(name string) ca.AuthorityRecord {
	return ca.AuthorityRecord{
		Name: name, Parent: "root-1", Certificate: []byte("certificate of " + name), Chain: [][]byte{[]byte("certificate of " + name), []byte("root")},
		Online: true, Key: ca.KeyName{Token: "0011", Label: name, ID: []byte{1, 2}}, CRL: ca.CRLPlan{Period: time.Hour, Validity: 24 * time.Hour},
		CRLURL: "http://ca.example/crl/" + name + ".crl", IssuerURL: "http://ca.example/ca/" + name + ".cer", AddedAt: now(),
	}
}

func (f *fixture) addAuthority(name string) ca.AuthorityRecord {
	f.t.Helper()
	a := newAuthority(name)
	if err := f.RecordAuthority(context.Background(), a, leaf(f.t, audit.AuthorityAdded)); err != nil {
		f.t.Fatal(err)
	}
	return a
}

// publish makes a CRL of the claim, through both steps.
func (f *fixture) publish(claim claimed, thisUpdate time.Time) ca.CRLRecord {
	f.t.Helper()
	ctx := context.Background()
	number := next(claim)
	der := []byte(fmt.Sprintf("CRL %s", number))
	if err := f.RecordCRLIntent(ctx, crlIntent(claim, alpha), leaf(f.t, audit.CRLIntended)); err != nil {
		f.t.Fatal(err)
	}
	record := ca.CRLRecord{
		Issuer: claim.Issuer, Scope: claim.Scope, Number: number, DER: der, ThisUpdate: thisUpdate.Truncate(time.Second),
		NextUpdate: thisUpdate.Truncate(time.Second).Add(24 * time.Hour), Entries: len(claim.Entries), Pending: claim.Pending, EventID: newID(),
	}
	if err := f.RecordCRL(ctx, record, claim.Fence, leafWithID(f.t, record.EventID, audit.CRLPublished)); err != nil {
		f.t.Fatal(err)
	}
	return record
}

func crlIntent(claim claimed, owner ca.Replica) ca.CRLIntent {
	n := next(claim)
	return ca.CRLIntent{Issuer: claim.Issuer, Scope: claim.Scope, Number: n, TBS: sha256.Sum256(n.Bytes()), Fence: claim.Fence, Owner: owner, At: now()}
}

// claimed is a claim with all that its CRL must show.
type claimed struct {
	ca.CRLClaim
	Entries []issuance.RevokedEntry
}

func (f *fixture) claim(issuer string) claimed {
	f.t.Helper()
	c, err := claimBy(f.Store, issuer, ca.FullScope, alpha)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// claimBy reads a scope's list, claims the scope, and brings in what has changed meanwhile, as a publisher does.
func claimBy(store ca.Store, issuer, scope string, by ca.Replica) (claimed, error) {
	ctx := context.Background()
	state := map[string]issuance.RevokedEntry{}
	at, err := store.ListedRevocations(ctx, issuer, scope, func(e issuance.RevokedEntry) error {
		state[string(e.Serial)] = e
		return nil
	})
	if err != nil {
		return claimed{}, err
	}
	claim, err := store.ClaimCRL(ctx, ca.CRLAsk{Issuer: issuer, Scope: scope, By: by, Lease: lease, Since: at})
	if err != nil {
		return claimed{}, err
	}
	for _, e := range claim.Changes {
		if state[string(e.Serial)] = e; e.Reason == issuance.RemoveFromCRL {
			delete(state, string(e.Serial))
		}
	}
	c := claimed{CRLClaim: claim}
	for _, e := range state {
		c.Entries = append(c.Entries, e)
	}
	return c, nil
}
