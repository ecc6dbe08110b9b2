package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// pressing is a store in which the CRLs of some authorities are due.
type pressing struct {
	quiet
	made chan string // the authorities of CRLs, in order

	mu    sync.Mutex
	due   map[string]bool
	asked []int // of how many authorities, each time
}

func (p *pressing) press(authority string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due[authority] = true
}

func (p *pressing) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	p.mu.Lock()
	delete(p.due, r.Issuer)
	p.mu.Unlock()
	p.made <- r.Issuer
	return nil
}

func (p *pressing) DueCRLs(_ context.Context, schedules []CRLSchedule) (all []CRLDue, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, len(schedules))
	for _, s := range schedules {
		if p.due[s.Issuer] {
			all = append(all, CRLDue{Issuer: s.Issuer, Scope: FullScope, Why: "revocation"})
		}
	}
	return all, nil
}

// hanging is a key that does not answer until it is let go.
type hanging struct {
	crypto.Signer
	asked, letGo chan struct{}
}

func (h *hanging) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	h.asked <- struct{}{}
	<-h.letGo
	return h.Signer.Sign(random, digest, options)
}

// A key that hangs does not keep other authorities' revocations from their CRLs.
func TestAKeyThatHangsHoldsUpNoOtherAuthority(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	ill, key := openAuthority(t, "issuing-1", now)
	well, _ := openAuthority(t, "issuing-2", now)
	hung := &hanging{Signer: key.Signer, asked: make(chan struct{}), letGo: make(chan struct{})}
	key.Signer = hung
	store := &pressing{quiet: quiet{now: clock, number: new(big.Int)}, due: map[string]bool{}, made: make(chan string, 2)}
	c := publishing(store, clock, ill, well)
	told := &alarms{}
	c.metrics = told
	c.publications.keep(CRLRecord{
		Issuer: ill.Name, Scope: FullScope, Number: big.NewInt(1), ThisUpdate: now.Add(-3 * time.Hour), NextUpdate: now.Add(time.Hour),
	}, now.Add(-3*time.Hour), 0)

	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.keepPublishing(ctx)
	}()
	store.press(ill.Name)
	<-hung.asked
	store.press(well.Name)
	c.publications.wakeUp()
	select {
	case made := <-store.made:
		if made != well.Name {
			t.Errorf("the key that hangs made the CRL of %s", made)
		}
	case <-time.After(10 * time.Second):
		t.Error("the CRL of another authority waits for the key that hangs")
	}
	close(hung.letGo)
	if made := <-store.made; made != ill.Name {
		t.Errorf("the key that is let go made the CRL of %s", made)
	}
	end()
	<-ended
	if slices.ContainsFunc(store.asked, func(of int) bool { return of != 2 }) {
		t.Errorf("what is due was asked for %v authorities, not for all at once", store.asked)
	}
	if !slices.Contains(told.steps, "crl ending") {
		t.Errorf("%v are told, and not that the CRL of the key that hangs runs out", told.steps)
	}
}

// What becomes due while its authority is at work is looked for as soon as that has ended.
func TestWhatIsDueMeanwhileIsMadeNext(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	a, key := openAuthority(t, "issuing-1", now)
	hung := &hanging{Signer: key.Signer, asked: make(chan struct{}), letGo: make(chan struct{})}
	key.Signer = hung
	store := &pressing{quiet: quiet{now: clock, number: new(big.Int)}, due: map[string]bool{a.Name: true}, made: make(chan string, 2)}
	c := publishing(store, clock, a)
	p := &publisher{Authority: a, lots: make(chan []CRLDue)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.publishLots(t.Context(), p)
	}()
	p.lots <- []CRLDue{{Issuer: a.Name, Scope: FullScope, Why: "revocation"}}
	<-hung.asked
	if p.offer([]CRLDue{{Issuer: a.Name, Scope: "1", Why: "revocation"}}); len(c.publications.wake) > 0 {
		t.Error("they are woken while it is at work")
	}
	close(hung.letGo)
	<-c.publications.wake
	p.offer(nil)
	close(p.lots)
	<-ended
}

// sharded is a store in which the CRLs of many scopes are due by their schedule, and some for a revocation.
type sharded struct {
	quiet
	asked chan struct{} // at each look, while somebody waits for one
	made  chan string

	mu  sync.Mutex
	due []CRLDue
}

func (s *sharded) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.due), nil
}

func (s *sharded) press(d CRLDue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = append(s.due, d)
}

func (s *sharded) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	s.mu.Lock()
	s.due = slices.DeleteFunc(s.due, func(d CRLDue) bool { return d.Scope == r.Scope })
	s.mu.Unlock()
	s.made <- r.Scope
	return nil
}

// Where a thousand shards are due by their schedule at once, a revocation meanwhile waits for a few of them, and they go on after it.
func TestASchedulesCRLsHoldUpNoRevocation(t *testing.T) {
	const scopes = 50
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	a, key := openAuthority(t, "issuing-1", now)
	hung := &hanging{Signer: key.Signer, asked: make(chan struct{}, scopes+1), letGo: make(chan struct{}, scopes+1)}
	key.Signer = hung
	store := &sharded{quiet: quiet{now: clock, number: new(big.Int)}, asked: make(chan struct{}), made: make(chan string, scopes+1)}
	for n := range scopes {
		store.due = append(store.due, CRLDue{Issuer: a.Name, Scope: fmt.Sprint(n), Why: "schedule"})
	}
	c := publishing(store, clock, a)
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.keepPublishing(ctx)
	}()
	for range publishAtOnce {
		<-hung.asked
	}
	store.press(CRLDue{Issuer: a.Name, Scope: "pressing", Why: "revocation"})
	for range 3 { // what was found the second time has been offered
		<-store.asked
	}
	close(hung.letGo)
	made := map[string]int{}
	for n := range scopes + 1 {
		select {
		case scope := <-store.made:
			made[scope] = n
		case <-time.After(10 * time.Second):
			t.Fatalf("%d CRLs are made, want %d", n, scopes+1)
		}
	}
	if n := made["pressing"]; n > scopes/2 || len(made) != scopes+1 { // on a machine that is busy, some made beside it may be done before
		t.Errorf("of %d, the CRL that tells of the revocation is made after %d others", len(made), n)
	}
	end()
	<-ended
}

// gone is a store that is away.
type gone struct{ quiet }

func (*gone) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) { return nil, ErrUnavailable }

// alarms are the steps that are told to have failed.
type alarms struct {
	noMetrics
	steps  []string
	served atomic.Bool // whether a CRL is told of
}

func (f *alarms) Serves(string, string, CRLRecord) { f.served.Store(true) }

func (f *alarms) Failed(step string) { f.steps = append(f.steps, step) }

// That a CRL runs out is told also while the store is away, which is when it does.
func TestACRLThatRunsOutIsToldWhileTheStoreIsAway(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	c := publishing(&gone{}, func() time.Time { return now }, a)
	told := &alarms{}
	c.metrics = told
	record := CRLRecord{Issuer: a.Name, Scope: FullScope, Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(2 * time.Hour)}
	c.publications.keep(record, now, 0)
	c.PublishDue(t.Context())
	if len(told.steps) > 0 {
		t.Errorf("%v are told while two thirds of the time are left", told.steps)
	}
	now = now.Add(2 * time.Hour)
	c.PublishDue(t.Context())
	if !slices.Contains(told.steps, "crl ending") {
		t.Errorf("%v are told, and not that the CRL runs out", told.steps)
	}
}

// The last delta that is left where none is made any more runs out, and nobody is told, also not by what is learnt again and again. Where
// one is missing, somebody is.
func TestADeltaThatIsLeftAlarmsNobody(t *testing.T) {
	for _, period := range []time.Duration{0, time.Hour} {
		now := time.Now().UTC().Truncate(time.Second)
		clock := func() time.Time { return now }
		a, _ := openAuthority(t, "issuing-1", now)
		a.lists.DeltaPeriod = time.Hour
		made := &upgraded{quiet: quiet{now: clock, number: new(big.Int)}}
		before := publishing(made, clock, a)
		for _, delta := range []bool{false, true} {
			if err := before.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope, Delta: delta}); err != nil {
				t.Fatal(err)
			}
		}
		a.lists.DeltaPeriod = period
		store := &leftover{quiet{now: clock, number: new(big.Int)}, a.AuthorityRecord, made.made[1]}
		c := publishing(store, clock, a)
		told := &alarms{}
		c.metrics = told
		if err := c.LearnPublished(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(24 * time.Hour)
		if _, err := c.CurrentDelta(t.Context(), a.Name, FullScope); err != nil {
			t.Fatal(err)
		}
		c.watchEnds(t.Context())
		if alarmed := slices.Contains(told.steps, "crl ending"); alarmed != (period > 0) || told.served.Load() != (period > 0) {
			t.Errorf("with deltas each %s: the end of the last alarms: %t, it is told of: %t", period, alarmed, told.served.Load())
		}
	}
}

// A delta that is left where none is made any more, and suffered in the database, is not made anew: it could not be, and each try would claim
// its scope.
func TestADeltaThatIsLeftIsNotMadeAnew(t *testing.T) {
	for period, want := range map[time.Duration]int64{0: 0, time.Hour: 1} {
		now := time.Now().UTC().Truncate(time.Second)
		clock := func() time.Time { return now }
		a, _ := openAuthority(t, "issuing-1", now)
		a.lists.DeltaPeriod = period
		store := &upgraded{quiet: quiet{now: clock, number: new(big.Int)}}
		c := publishing(store, clock, a)
		if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
			t.Fatal(err)
		}
		claims := store.fence
		c.publications.spoil(crlID{a.Name, FullScope, true}, now)
		c.PublishDue(t.Context())
		if n := store.fence - claims; n != want {
			t.Errorf("with deltas each %s the scope is claimed %d times, want %d", period, n, want)
		}
	}
}

// leftover is a store with a delta, and no complete CRL.
type leftover struct {
	quiet
	authority AuthorityRecord
	delta     CRLRecord
}

func (l *leftover) Authorities(context.Context) ([]AuthorityRecord, error) {
	return []AuthorityRecord{l.authority}, nil
}

func (l *leftover) CRLStates(context.Context, string) ([]CRLState, error) {
	return []CRLState{{Scope: FullScope, Delta: l.delta.Number}}, nil
}

func (l *leftover) CurrentDelta(context.Context, string, string, *big.Int) (CRLRecord, error) {
	return l.delta, nil
}

// upgraded is a store in which revocations are on record that an earlier version accepted.
type upgraded struct {
	quiet
	listed, changed []issuance.RevokedEntry
	made            []CRLRecord
}

func (u *upgraded) ListedRevocations(_ context.Context, _, _ string, yield func(issuance.RevokedEntry) error) (FeedPosition, error) {
	for _, e := range u.listed {
		if err := yield(e); err != nil {
			return FeedPosition{}, err
		}
	}
	return FeedPosition{Server: "1", Xact: 1}, nil
}

func (u *upgraded) ClaimCRL(ctx context.Context, ask CRLAsk) (CRLClaim, error) {
	claim, err := u.quiet.ClaimCRL(ctx, ask)
	claim.Changes = slices.Clone(u.changed)
	for _, r := range u.made {
		claim.Published = r.Number
	}
	return claim, err
}

func (u *upgraded) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	u.made = append(u.made, r)
	return nil
}

// A revocation whose invalidity date no CRL can say, on record from before such dates were refused, keeps nothing from being listed:
// neither itself nor others, on complete CRLs and deltas.
func TestAnInvalidityDateThatCannotBeWrittenStopsNoCRL(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	written, err := time.Parse(time.RFC3339, "0000-01-01T00:00:00+14:00") // as it came in: the year before the year 0
	if err != nil {
		t.Fatal(err)
	}
	entry := func(serial byte, invalid time.Time) issuance.RevokedEntry {
		return issuance.RevokedEntry{
			CRLEntry: issuance.CRLEntry{Serial: []byte{serial}, RevokedAt: now, Reason: issuance.KeyCompromise, InvalidityDate: invalid},
			NotAfter: now.Add(time.Hour),
		}
	}
	good := now.Add(-time.Hour)
	for what, c := range map[string]struct {
		listed, changed []issuance.RevokedEntry
		delta           bool
	}{
		"a list that is read":  {[]issuance.RevokedEntry{entry(1, good), entry(2, written)}, nil, false},
		"a list that goes on":  {[]issuance.RevokedEntry{entry(1, good)}, []issuance.RevokedEntry{entry(2, written)}, false},
		"a delta of both":      {nil, []issuance.RevokedEntry{entry(1, good), entry(2, written)}, true},
		"a list without cause": {[]issuance.RevokedEntry{entry(1, good), entry(2, time.Time{})}, nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			clock := func() time.Time { return now }
			a, _ := openAuthority(t, "issuing-1", now)
			if c.delta {
				a.lists.DeltaPeriod = time.Hour
			}
			store := &upgraded{quiet: quiet{now: clock, number: new(big.Int)}, listed: c.listed, changed: c.changed}
			p := publishing(store, clock, a)
			var told strings.Builder
			p.log = slog.New(slog.NewTextHandler(&told, nil))
			if c.delta { // has a base
				if err := p.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
					t.Fatal(err)
				}
				told.Reset()
			}
			if err := p.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope, Delta: c.delta}); err != nil {
				t.Fatal(err)
			}
			list, err := x509.ParseRevocationList(store.made[len(store.made)-1].DER)
			if err != nil {
				t.Fatal(err)
			}
			if all := list.RevokedCertificateEntries; len(all) != 2 || len(all[0].Extensions) != 2 || len(all[1].Extensions) != 1 ||
				all[1].ReasonCode != int(issuance.KeyCompromise) {
				t.Errorf("the CRL has the entries %+v", all)
			}
			if wrong := what != "a list without cause"; strings.Contains(told.String(), "level=WARN") != wrong ||
				strings.Contains(told.String(), "serial=02") != wrong {
				t.Errorf("the log says %q", told.String())
			}
		})
	}
}

// overtaken is a store in which others take over the first CRLs that are made.
type overtaken struct {
	quiet
	times  int // how many
	leases []time.Duration
}

func (o *overtaken) ClaimCRL(ctx context.Context, ask CRLAsk) (CRLClaim, error) {
	o.leases = append(o.leases, ask.Lease)
	return o.quiet.ClaimCRL(ctx, ask)
}

func (o *overtaken) RecordCRL(context.Context, CRLRecord, int64, ...audit.Leaf) error {
	if o.times > 0 {
		o.times--
		return ErrFenced
	}
	return nil
}

// TestClaimsGrowUntilACRLIsMade: two replicas whose token takes longer than a claim lasts would fence each other off for ever.
func TestClaimsGrowUntilACRLIsMade(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	for _, due := range []CRLDue{{Issuer: a.Name, Scope: FullScope}, {Issuer: a.Name, Scope: "7"}} {
		store := &overtaken{quiet: quiet{now: clock, number: new(big.Int)}, times: 5}
		c := publishing(store, clock, a)
		for range 5 {
			if err := c.publish(t.Context(), due); !errors.Is(err, ErrFenced) {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := c.publish(t.Context(), due); err != nil {
				t.Fatal(err)
			}
		}
		want := []time.Duration{3, 6, 12, 24, 24, 24, 3}
		for n, lease := range store.leases {
			if lease != want[n]*time.Second {
				t.Errorf("claim %d is for %s, want %d s", n, lease, want[n])
			}
		}
	}
}

// TestRevocationsComeFirst: what is due by its schedule waits for the CRLs that tell of a revocation.
func TestRevocationsComeFirst(t *testing.T) {
	due := []CRLDue{{Scope: "1", Why: "schedule"}, {Scope: "2", Why: "revocation"}, {Scope: "3", Why: "schedule"}, {Scope: "4", Why: "revocation"}}
	var got []string
	for _, d := range byUrgency(due) {
		got = append(got, d.Scope)
	}
	if want := []string{"2", "4", "1", "3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestNothingLeavesTheListForATimeToCome: a CRL that was dated ahead has not shown the end of a certificate that is still valid.
func TestNothingLeavesTheListForATimeToCome(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	entry := func(serial byte, notAfter time.Time) issuance.RevokedEntry {
		return issuance.RevokedEntry{
			CRLEntry: issuance.CRLEntry{Serial: []byte{serial}, RevokedAt: now.Add(-time.Hour), Reason: issuance.Superseded}, NotAfter: notAfter,
		}
	}
	var kept keptList
	if err := kept.apply(CRLClaim{Changes: []issuance.RevokedEntry{
		entry(1, now.Add(-time.Minute)), entry(2, now.Add(time.Hour)), entry(3, now.Add(4*time.Hour)),
	}}, now); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]int{2 * time.Hour: 2, 0: 2} { // the second made while the clock was right
		if err := kept.apply(CRLClaim{PublishedAt: now.Add(at)}, now); err != nil {
			t.Fatal(err)
		}
		if n := kept.revoked.Len(); n != want {
			t.Errorf("after a CRL dated %s ahead %d are on the list, want %d", at, n, want)
		}
	}
}

// dated is a store with one revocation, of which it tells as the real one does: until a CRL was made after the certificate's end.
type dated struct {
	quiet
	revoked issuance.RevokedEntry
	last    CRLRecord
	entries int // of the last CRL
	listed  int // how often the revocations were read
}

func (d *dated) ListedRevocations(_ context.Context, _, _ string, yield func(issuance.RevokedEntry) error) (FeedPosition, error) {
	d.listed++
	shown := d.last.ThisUpdate
	if d.now().Before(shown) {
		shown = d.now()
	}
	if !d.revoked.NotAfter.Before(shown) {
		if err := yield(d.revoked); err != nil {
			return FeedPosition{}, err
		}
	}
	return FeedPosition{Server: "1", Xact: 1}, nil
}

func (d *dated) ClaimCRL(ctx context.Context, ask CRLAsk) (CRLClaim, error) {
	claim, err := d.quiet.ClaimCRL(ctx, ask)
	claim.Published, claim.PublishedAt = d.last.Number, d.last.ThisUpdate
	return claim, err
}

func (d *dated) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	d.last, d.entries = r, r.Entries
	return nil
}

// TestWhatLeftByAWrongClockComesBack: while the database's clock was ahead a certificate seemed to have ended, and left the CRL. When the
// clock is put right it is revoked as before, also by a replica that goes on with what it has in memory, or has begun meanwhile.
func TestWhatLeftByAWrongClockComesBack(t *testing.T) {
	for _, begun := range []bool{false, true} {
		right := time.Now().UTC().Truncate(time.Second)
		now := right
		clock := func() time.Time { return now }
		a, _ := openAuthority(t, "issuing-1", now)
		store := &dated{quiet: quiet{now: clock, number: new(big.Int)}, revoked: issuance.RevokedEntry{
			CRLEntry: issuance.CRLEntry{Serial: []byte{5}, RevokedAt: now.Add(-time.Hour), Reason: issuance.KeyCompromise},
			NotAfter: now.Add(time.Hour),
		}}
		c := publishing(store, clock, a)
		publish := func(want int) {
			t.Helper()
			if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
				t.Fatal(err)
			}
			if store.entries != want {
				t.Errorf("the CRL of %s has %d entries, want %d", now.Sub(right), store.entries, want)
			}
		}
		publish(1)
		now = now.Add(24 * time.Hour)
		publish(1) // the one more after its end
		if begun {
			c = publishing(store, clock, a)
		}
		publish(0)
		now = right.Add(time.Minute)
		publish(1)
		listed := store.listed
		now = now.Add(time.Minute)
		publish(1)
		if store.listed != listed {
			t.Error("the list is read again while the clock is right")
		}
		now = right.Add(2 * time.Hour)
		publish(1)
		publish(0)
	}
}

// shards is a store in which the CRLs of many scopes are due, until it goes away.
type shards struct {
	quiet
	due  []CRLDue
	away bool
}

func (s *shards) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) {
	if s.away {
		return nil, ErrUnavailable
	}
	return s.due, nil
}

// counted counts failures, and the errors in the log.
type counted struct {
	noMetrics
	failed atomic.Int64
	log    strings.Builder
}

func (c *counted) Failed(string) { c.failed.Add(1) }

func (c *counted) errors() int { return strings.Count(c.log.String(), "level=ERROR") }

// While a key is away that many CRLs wait for, what is tried is counted, and nothing else; a row of failures is one line. So it is while the
// store is away.
func TestARowOfFailuresIsToldOnce(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	a, key := openAuthority(t, "issuing-1", now)
	store := &shards{quiet: quiet{now: clock, number: new(big.Int)}}
	for n := range 100 {
		store.due = append(store.due, CRLDue{Issuer: a.Name, Scope: fmt.Sprint(n), Why: "revocation"})
	}
	c, told := publishing(store, clock, a), &counted{}
	c.metrics, c.log = told, slog.New(slog.NewTextHandler(&told.log, nil))
	for row := range 2 {
		key.away = true
		before := store.fence
		for range 20 { // looks, two a second
			c.PublishDue(t.Context())
			now = now.Add(publishEvery)
		}
		tried := store.fence - before
		if failed := told.failed.Swap(0); failed != tried || tried > 10+publishAtOnce {
			t.Errorf("row %d: %d failures are counted of %d CRLs that were tried", row, failed, tried)
		}
		if lines := told.errors(); lines != row+1 {
			t.Errorf("row %d: %d lines:\n%s", row, lines, told.log.String())
		}
		key.away = false
		now = now.Add(keyRest)
		c.PublishDue(t.Context())
		now = now.Add(keyDoubt)
	}
	told.failed.Store(0)
	told.log.Reset()
	for range 2 {
		store.away = true
		for range 20 {
			c.PublishDue(t.Context())
		}
		store.away = false
		c.PublishDue(t.Context())
	}
	if lines := told.errors(); lines != 2 || told.failed.Load() != 0 {
		t.Errorf("%d failures, and %d lines:\n%s", told.failed.Load(), lines, told.log.String())
	}
}
