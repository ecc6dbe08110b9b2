package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// quiet is a store in which no CRL is due, and that takes every CRL.
type quiet struct {
	Store
	now func() time.Time

	mu       sync.Mutex
	number   *big.Int
	recorded int
	released int
	pending  int
	fence    int64
}

func (q *quiet) Ping(context.Context) error { return nil }

func (q *quiet) ServerTime(context.Context) (time.Time, error) { return q.now(), nil }

func (q *quiet) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) { return nil, nil }

func (q *quiet) ListedRevocations(context.Context, string, string, func(issuance.RevokedEntry) error) (FeedPosition, error) {
	return FeedPosition{Server: "1", Xact: 1}, nil
}

func (q *quiet) ClaimCRL(_ context.Context, ask CRLAsk) (CRLClaim, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fence++
	return CRLClaim{
		Issuer: ask.Issuer, Scope: ask.Scope, Fence: q.fence, LastNumber: q.number, Now: q.now(), Alone: true, Position: FeedPosition{Server: "1", Xact: 1},
	}, nil
}

func (q *quiet) RecordCRLIntent(_ context.Context, i CRLIntent, _ ...audit.Leaf) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.number = i.Number
	return nil
}

func (q *quiet) CRLStates(context.Context, string) ([]CRLState, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return []CRLState{{Scope: FullScope, Number: q.number, Pending: q.pending}}, nil
}

func (q *quiet) ReleaseCRL(context.Context, CRLClaim) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.released++
	return nil
}

func (q *quiet) RecordCRL(context.Context, CRLRecord, int64, ...audit.Leaf) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.recorded++
	return nil
}

// fickle is a key that may be away.
type fickle struct {
	crypto.Signer
	away bool
}

func (f *fickle) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	if f.away {
		return nil, errors.New("the token is away")
	}
	return f.Signer.Sign(random, digest, options)
}

// openAuthority is an authority with a key in memory.
func openAuthority(t *testing.T, name string, now time.Time) (*Authority, *fickle) {
	t.Helper()
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := &fickle{Signer: made}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := issuance.NewIssuer(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(AuthorityRecord{
		Name: name, Certificate: der, Chain: [][]byte{der}, Online: true, CRL: CRLPlan{Period: 24 * time.Hour, Validity: 7 * 24 * time.Hour},
		CRLURL: "http://ca.example/crl/" + name + ".crl",
	}, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return a, key
}

// publishing is a CA as far as it publishes.
func publishing(store Store, now func() time.Time, all ...*Authority) *CA {
	c := &CA{
		store: store, authorities: map[string]*Authority{}, publications: newPublications(), lags: newLags(), directory: newDirectory(),
		clock: &clock{now: now}, now: now, metrics: noMetrics{}, log: slog.New(slog.DiscardHandler), replica: Replica{Name: "alpha", Run: "1"},
		newID: func() string { return uuid.Must(uuid.NewV7()).String() },
	}
	for _, a := range all {
		c.authorities[a.Name] = a
	}
	if len(all) > 0 {
		c.first = all[0]
	}
	return c
}

// A replica whose key has failed is sent no requests, and so would never sign again: it finds out by itself that the key is back.
func TestAReplicaFindsOutThatItsKeyIsBack(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, key := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	store := &quiet{now: clock, number: new(big.Int)}
	c := publishing(store, clock, a)
	ctx := context.Background()
	c.PublishDue(ctx)
	if store.recorded != 0 || c.Ready(ctx) != nil {
		t.Fatalf("%d CRLs that nobody needs; %v", store.recorded, c.Ready(ctx))
	}
	key.away = true
	a.failed(now)
	for range 3 {
		now = now.Add(keyDoubt)
		c.PublishDue(ctx)
		if err := c.Ready(ctx); !errors.Is(err, ErrUnavailable) {
			t.Errorf("with the key away: %v", err)
		}
	}
	if store.fence != 3 || store.released != 3 {
		t.Errorf("of %d claims %d were given back: other replicas, whose keys are well, wait for the others", store.fence, store.released)
	}
	key.away = false
	now = now.Add(keyDoubt)
	c.PublishDue(ctx)
	if err := c.Ready(ctx); err != nil || store.recorded != 1 || store.released != 3 {
		t.Errorf("with the key back: %v, %d CRLs", err, store.recorded)
	}
	now = now.Add(time.Minute)
	c.PublishDue(ctx)
	if store.recorded != 1 {
		t.Errorf("%d CRLs that nobody needs", store.recorded-1)
	}
}

// The key that issues decides whether a replica is ready. Another that is dead is told of, and keeps no replica from what it can do.
func TestReadyByTheKeyThatIssues(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	first, _ := openAuthority(t, "issuing-2", now)
	old, _ := openAuthority(t, "issuing-1", now)
	c := publishing(&quiet{now: func() time.Time { return now }, number: new(big.Int)}, func() time.Time { return now }, first, old)
	for _, one := range []struct {
		dead  *Authority
		ready bool
	}{{old, true}, {first, false}} {
		one.dead.failed(now)
		if err := c.Ready(t.Context()); (err == nil) != one.ready {
			t.Errorf("without the key of %s: %v", one.dead.Name, err)
		}
		one.dead.recovered()
	}
}
