package storage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

var everywhere = ca.Selection{Namespace: access.AllNamespaces}

func newJob(reason issuance.Reason) ca.RevocationJob {
	return ca.RevocationJob{
		ID: newID(), Namespace: access.AllNamespaces, Actor: access.Actor{ID: "actor-2", Name: "team sec", Person: "rita", Namespace: access.AllNamespaces},
		Selection: map[string]string{"all": "true"}, Reason: reason, Comment: "a bad day", AskedAt: now(), ExpiresAt: now().Add(time.Hour), EventID: newID(),
	}
}

// order records a job. Needs is how many approvals it needs.
func (f *fixture) order(s ca.Selection, j ca.RevocationJob, needs int) (ca.RevocationJob, ca.RevocationOutlook) {
	f.t.Helper()
	j, o, err := f.RecordRevocationJob(context.Background(), j, s, func(j *ca.RevocationJob) ([]audit.Leaf, error) {
		j.Needs = needs
		return []audit.Leaf{leafWithID(f.t, j.EventID, audit.RevocationOrdered)}, nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return j, o
}

// lot is what revokes the items of one.
func (f *fixture) lot(j ca.RevocationJob, number int, fence int64) (ca.RevocationLot, []audit.Leaf) {
	f.t.Helper()
	items, err := f.RevocationItems(context.Background(), j.ID, number)
	if err != nil {
		f.t.Fatal(err)
	}
	l := ca.RevocationLot{Job: j.ID, Number: number, Fence: fence, Lease: lease, Last: number == j.Lots-1, At: now()}
	var leaves []audit.Leaf
	for _, i := range items {
		if i.Sequence > 0 && i.Reason != issuance.CertificateHold {
			l.Counts.Already++
			continue
		}
		l.Counts.Revoked++
		r := ca.Revocation{
			Issuer: i.Issuer, Serial: i.Serial, Sequence: i.Sequence + 1, Reason: j.Reason, At: l.At, Comment: j.Comment, Actor: j.Actor.ID,
			EventID: newID(), CRLScope: i.CRLScope, NotAfter: i.NotAfter, SPKI: i.SPKI,
		}
		l.Revocations, leaves = append(l.Revocations, r), append(leaves, leafWithID(f.t, r.EventID, audit.CertificateRevoked))
	}
	return l, leaves
}

// An orphan stands for no certificate that is on record, whoever added it and when: what is chosen, revoked and counted is the certificate.
func TestAnOrphanHidesNoCertificate(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	service := f.as("chancery_service")
	final := f.issue()
	_, pre := f.precertify()
	const orphan = `
		INSERT INTO orphans (serial, issuer, kind, tbs, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, not_after, intended_at,
			settled_at, reason, event_id)
		VALUES ($1, $2, $3, '\x30', $4, $5, '', '', 'web', gen_random_uuid(), $6, now(), now(), '', gen_random_uuid())`
	ended := now().AddDate(-1, 0, 0)
	for _, c := range []ca.NewCertificate{final, pre} {
		refused(t, service, orphan, c.Serial[:], c.Issuer, string(c.Kind), c.SPKI[:], c.CRLScope, c.NotAfter)
		for _, kind := range []issuance.Kind{issuance.Final, issuance.Precertificate} {
			key := random32()
			refused(t, service, orphan, c.Serial[:], c.Issuer, string(kind), c.SPKI[:], "nowhere", c.NotAfter)
			refused(t, service, orphan, c.Serial[:], c.Issuer, string(kind), c.SPKI[:], c.CRLScope, ended)
			refused(t, service, orphan, c.Serial[:], c.Issuer, string(kind), key[:], c.CRLScope, c.NotAfter)
		}
	}
	f.exec("ALTER TABLE orphans DISABLE TRIGGER never_on_record") // as when they come before the certificates
	for _, c := range []ca.NewCertificate{final, pre} {
		if _, err := service.Exec(ctx, orphan, c.Serial[:], c.Issuer, "final", c.SPKI[:], "nowhere", ended); err != nil {
			t.Fatal(err)
		}
	}
	f.exec("ALTER TABLE orphans ENABLE TRIGGER never_on_record")

	walked := 0
	if err := f.EachIssued(ctx, "issuing-1", func(c ca.Certificate, _ []byte) error {
		if walked++; c.Orphan || c.CRLScope != ca.FullScope {
			t.Errorf("%s comes as %+v", c.Serial, c)
		}
		return nil
	}); err != nil || walked != 2 {
		t.Errorf("%d certificates, %v; want 2", walked, err)
	}
	j, o := f.order(everywhere, newJob(issuance.Superseded), 0)
	if o.ToRevoke != 2 || o.Expired != 0 {
		t.Errorf("the order is for %+v", o)
	}
	_, fence, err := f.ClaimRevocationJob(ctx, j.ID, alpha, lease)
	if err != nil {
		t.Fatal(err)
	}
	l, leaves := f.lot(j, 0, fence)
	if err := f.RecordRevocationLot(ctx, l, leaves...); err != nil || l.Counts.Revoked != 2 {
		t.Errorf("the lot revokes %d: %v", l.Counts.Revoked, err)
	}
}

// Every criterion meets what it says, and all together.
func TestASelectionMeetsWhatItSays(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	plain := f.issue()
	other := f.issue(func(c *ca.NewCertificate) {
		c.Profile, c.Namespace, c.Names, c.DER = "tls-client", "db", []string{"db.example.com"}, []byte("other")
	})
	expired := f.issue(func(c *ca.NewCertificate) { c.NotAfter = now().Add(-time.Hour) })
	revoked := f.issue()
	f.revoke(revoked, issuance.Superseded, 0)
	held := f.issue()
	f.revoke(held, issuance.CertificateHold, 0)
	precertificate := f.intend(func(i *ca.Intent) { i.Kind = issuance.Precertificate })
	pre := certificateOf(precertificate)
	if err := f.RecordPrecertificate(ctx, pre, leafWithID(t, pre.EventID, audit.CertificateIssued)); err != nil {
		t.Fatal(err)
	}
	unknown := newSerial(t, time.Now())
	of := func(certificates ...ca.NewCertificate) (all [][]byte) {
		for _, c := range certificates {
			all = append(all, c.Serial[:])
		}
		return all
	}
	for name, c := range map[string]struct {
		change                         func(*ca.Selection)
		want                           [][]byte // to be revoked for good
		already, expired, unknown, all int
	}{
		"everything":      {func(s *ca.Selection) {}, of(plain, other, held, pre), 1, 1, 0, 6},
		"serials":         {func(s *ca.Selection) { s.Serials = of(plain, revoked, expired) }, of(plain), 1, 1, 0, 3},
		"unknown serials": {func(s *ca.Selection) { s.Serials = append(of(plain), unknown[:], unknown[:]) }, of(plain), 0, 0, 1, 1},
		"another's serial": {
			func(s *ca.Selection) { s.Serials, s.Namespace = of(plain, other), "web" }, of(plain), 0, 0, 1, 1,
		},
		"key":        {func(s *ca.Selection) { s.Keys = [][32]byte{plain.SPKI, other.SPKI} }, of(plain, other), 0, 0, 0, 2},
		"name":       {func(s *ca.Selection) { s.Names = []string{"DB.example.com"} }, of(other), 0, 0, 0, 1},
		"name's end": {func(s *ca.Selection) { s.Names = []string{"example.com"} }, nil, 0, 0, 0, 0},
		"requester":  {func(s *ca.Selection) { s.Requester = "actor-1" }, of(plain, other, held, pre), 1, 1, 0, 6},
		"nobody":     {func(s *ca.Selection) { s.Requester = "actor-9" }, nil, 0, 0, 0, 0},
		"profile":    {func(s *ca.Selection) { s.Profile = "tls-client" }, of(other), 0, 0, 0, 1},
		"namespace":  {func(s *ca.Selection) { s.Namespace = "db" }, of(other), 0, 0, 0, 1},
		"issuer":     {func(s *ca.Selection) { s.Issuer = "issuing-9" }, nil, 0, 0, 0, 0},
		"from":       {func(s *ca.Selection) { s.IssuedFrom = other.IssuedAt }, of(other, held, pre), 1, 1, 0, 5},
		"until":      {func(s *ca.Selection) { s.IssuedUntil = other.IssuedAt }, of(plain), 0, 0, 0, 1},
		"from 1970":  {func(s *ca.Selection) { s.IssuedFrom = time.Unix(0, 0) }, of(plain, other, held, pre), 1, 1, 0, 6},
		"until 1969": {func(s *ca.Selection) { s.IssuedUntil = time.Unix(-1, 0) }, nil, 0, 0, 0, 0},
		"both":       {func(s *ca.Selection) { s.Profile, s.Issuer = "tls-client", "issuing-1" }, of(other), 0, 0, 0, 1},
	} {
		s := everywhere
		c.change(&s)
		o, err := f.RevocationOutlook(ctx, s, issuance.KeyCompromise, now())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got [][]byte
		for _, e := range o.Examples {
			serial, _ := hex.DecodeString(e.Serial)
			got = append(got, serial)
		}
		slices.SortFunc(c.want, bytes.Compare)
		if !reflect.DeepEqual(got, c.want) || o.ToRevoke != len(c.want) || o.Already != c.already || o.Expired != c.expired ||
			o.Unknown != c.unknown || o.Found != c.all {
			t.Errorf("%s: %+v\nwant %x, and %d already, %d expired, %d unknown, of %d", name, o, c.want, c.already, c.expired, c.unknown, c.all)
		}
	}
	for wish, want := range map[issuance.Reason]int{issuance.RemoveFromCRL: 1, issuance.CertificateHold: 3, issuance.Superseded: 4} {
		if o, err := f.RevocationOutlook(ctx, everywhere, wish, now()); err != nil || o.ToRevoke != want {
			t.Errorf("%s changes %d, %v; want %d", wish, o.ToRevoke, err, want)
		}
	}
}

// A job is worked on by one at a time, each lot once, and what came in between is not overwritten.
func TestAJobGoesOnWhereItStopped(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const n = 2*ca.LotSize + 7
	certificates := f.bulk(n)
	before, _ := f.order(everywhere, newJob(issuance.KeyCompromise), 0)
	late := f.issue() // not in the job: it was ordered before
	j, fence, err := f.ClaimRevocationJob(ctx, "", alpha, lease)
	if err != nil || j.ID != before.ID || j.Lots != 3 || j.Total != n || j.Status(now()) != ca.JobRunning {
		t.Fatalf("claimed %+v, %v", j, err)
	}
	if _, _, err := f.ClaimRevocationJob(ctx, j.ID, beta, lease); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a second worker: %v", err)
	}
	first, leaves := f.lot(j, 0, fence)
	for range 2 { // the second as after an acknowledgement that was lost
		if err := f.RecordRevocationLot(ctx, first, leaves...); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("revocations", ca.LotSize, "crl_pending", ca.LotSize, "compromised_keys", ca.LotSize)

	// The worker's process is started anew, and its late lot is refused.
	j, again, err := f.ClaimRevocationJob(ctx, "", alpha2, lease)
	if err != nil || j.NextLot != 1 || again != fence+1 || j.Counts.Revoked != ca.LotSize {
		t.Fatalf("claimed again at fence %d: %+v, %v", again, j, err)
	}
	stale, leaves := f.lot(j, 1, fence)
	if err := f.RecordRevocationLot(ctx, stale, leaves...); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a lot under a stale fence: %v", err)
	}
	// Somebody revokes one of the lot after it was read.
	second, leaves := f.lot(j, 1, again)
	f.revoke(certificates[ca.LotSize+3], issuance.Superseded, 0)
	if err := f.RecordRevocationLot(ctx, second, leaves...); !errors.Is(err, ca.ErrExists) {
		t.Errorf("a lot with a certificate that was revoked in between: %v", err)
	}
	f.wantCounts("revocations", ca.LotSize+1)
	for number := 1; number < j.Lots; number++ {
		l, leaves := f.lot(j, number, again)
		if err := f.RecordRevocationLot(ctx, l, leaves...); err != nil {
			t.Fatal(err)
		}
	}
	j, err = f.RevocationJob(ctx, j.ID)
	if err != nil || j.Outcome != ca.JobFinished || j.Counts != (ca.RevocationCounts{Revoked: n - 1, Already: 1}) || j.ClosedAt.IsZero() {
		t.Errorf("at the end: %+v, %v", j, err)
	}
	f.wantCounts("revocations", n, "(SELECT DISTINCT serial FROM revocations) AS r", n, "crl_pending", n)
	if _, _, err := f.ClaimRevocationJob(ctx, "", beta, lease); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a finished job is claimed: %v", err)
	}
	if found, err := f.Certificates(ctx, "", late.Serial[:], access.AllNamespaces); err != nil || found[0].Revocation != nil {
		t.Errorf("a later certificate: %+v, %v", found, err)
	}
	if compromised, err := f.KeyCompromised(ctx, certificates[0].SPKI); err != nil || !compromised {
		t.Errorf("the key is compromised: %v, %v", compromised, err)
	}
}

// While a job is worked on that is not urgent, its worker asks for those of compromised keys alone, and gets what nobody works on.
func TestAnUrgentJobIsClaimed(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.bulk(3)
	held, _ := f.order(everywhere, newJob(issuance.Superseded), 0)
	if _, _, err := f.ClaimRevocationJob(ctx, held.ID, alpha, lease); err != nil {
		t.Fatal(err)
	}
	f.order(everywhere, newJob(issuance.CessationOfOperation), 0)
	waiting, _ := f.order(everywhere, newJob(issuance.KeyCompromise), 1)
	if j, _, err := f.ClaimUrgentRevocation(ctx, alpha, lease); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("none is due, beside %s which waits for approval: %+v, %v", waiting.ID, j, err)
	}
	urgent, _ := f.order(everywhere, newJob(issuance.KeyCompromise), 0)
	if j, fence, err := f.ClaimUrgentRevocation(ctx, alpha, lease); err != nil || j.ID != urgent.ID || fence != 1 {
		t.Errorf("one is due: %+v at fence %d, %v", j, fence, err)
	}
	for _, by := range []ca.Replica{alpha, beta} {
		if j, _, err := f.ClaimUrgentRevocation(ctx, by, lease); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("one is worked on: %+v, %v", j, err)
		}
	}
}

// Where keys are compromised, a job is about those too whose certificates stay as they are: each key once, and what is known is left out.
func TestAJobRemembersKeys(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	sharing := func(with ca.NewCertificate, change ...func(*ca.NewCertificate)) ca.NewCertificate {
		return f.issue(append(change, func(c *ca.NewCertificate) { c.SPKI = with.SPKI })...)
	}
	expire := func(c *ca.NewCertificate) { c.NotAfter = now().Add(-time.Hour) }
	plain := f.issue()
	sharing(plain, expire) // revoking plain makes its key known
	known := f.issue()
	sharing(known, expire)
	f.revoke(known, issuance.KeyCompromise, 0)
	expired := f.issue(expire)
	revoked := f.issue()
	f.revoke(revoked, issuance.Superseded, 0)
	f.revoke(sharing(revoked), issuance.Superseded, 0)
	outside := f.issue(expire, func(c *ca.NewCertificate) { c.Namespace = "db" })

	for wish, want := range map[issuance.Reason][3]int{issuance.KeyCompromise: {1, 2, 3}, issuance.Superseded: {1, 0, 1}} {
		s := ca.Selection{Namespace: "web"}
		o, err := f.RevocationOutlook(ctx, s, wish, now())
		if err != nil || o.ToRevoke != want[0] || o.Keys != want[1] || o.Already != 3 || o.Expired != 3 {
			t.Errorf("%s: %+v, %v", wish, o, err)
		}
		j, o := f.order(s, newJob(wish), 1) // waits
		if j.Total != want[2] || j.Keys != want[1] || o.Keys != want[1] || j.Found != 7 || j.Total+j.Counts.Already+j.Counts.Expired != 7 {
			t.Errorf("%s: %+v", wish, j)
		}
	}

	job, _ := f.order(ca.Selection{Namespace: "web"}, newJob(issuance.KeyCompromise), 0)
	j, fence, err := f.ClaimRevocationJob(ctx, job.ID, alpha, lease)
	if err != nil || j.Keys != 2 {
		t.Fatalf("%+v, %v", j, err)
	}
	items, err := f.RevocationItems(ctx, j.ID, 0)
	if err != nil || len(items) != 3 || items[0].SPKI != plain.SPKI || items[1].SPKI != expired.SPKI || items[2].SPKI != revoked.SPKI {
		t.Fatalf("%+v, %v", items, err)
	}
	revocation := revocationOf(plain, issuance.KeyCompromise)
	revocation.Sequence = 1
	l := ca.RevocationLot{
		Job: j.ID, Fence: fence, Lease: lease, Last: true, At: now(), Revocations: []ca.Revocation{revocation}, Keys: items[1:],
		Counts: ca.RevocationCounts{Revoked: 1, Already: 1, Expired: 1, Remembered: 2},
	}
	leaves := []audit.Leaf{leafWithID(t, revocation.EventID, audit.CertificateRevoked)}

	// One of the keys becomes known after the lot was read: it is looked at again, and nothing was written.
	if err := f.RecordCompromisedKey(ctx, expired.SPKI, expired.Issuer, expired.Serial[:], now(), leaf(t, audit.KeyCompromised)); err != nil {
		t.Fatal(err)
	}
	if err := f.RecordRevocationLot(ctx, l, leaves...); !errors.Is(err, ca.ErrExists) {
		t.Errorf("a lot with a key that became known in between: %v", err)
	}
	f.wantCounts("compromised_keys", 2)
	l.Keys, l.Counts.Remembered = l.Keys[1:], 1
	for range 2 { // the second as after an acknowledgement that was lost
		if err := f.RecordRevocationLot(ctx, l, leaves...); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("compromised_keys", 4, "revocations", 4)
	j, err = f.RevocationJob(ctx, j.ID)
	if want := (ca.RevocationCounts{Revoked: 1, Already: 3, Expired: 3, Remembered: 1}); err != nil || j.Counts != want ||
		j.Outcome != ca.JobFinished {
		t.Errorf("at the end: %+v, %v", j, err)
	}
	if again, o := f.order(ca.Selection{Namespace: "web"}, newJob(issuance.KeyCompromise), 1); again.Outcome != ca.JobFinished || o.Keys != 0 {
		t.Errorf("ordered again: %+v", again)
	}
	if bad, err := f.KeyCompromised(ctx, outside.SPKI); err != nil || bad {
		t.Errorf("the key of another namespace's certificate: %v, %v", bad, err)
	}
}

// bulk are many certificates, written as no replica does.
func (f *fixture) bulk(n int) []ca.NewCertificate {
	f.t.Helper()
	all := make([]ca.NewCertificate, n)
	var serials, keys [][]byte
	ends := now().AddDate(0, 0, 1)
	for i := range all {
		all[i] = certificateOf(newIntent(f.t, alpha))
		all[i].SPKI, all[i].NotAfter = sha256.Sum256(all[i].Serial[:]), ends
		serials, keys = append(serials, all[i].Serial[:]), append(keys, all[i].SPKI[:])
	}
	f.exec(`INSERT INTO certificates (serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, subject, names, search,
		not_before, not_after, issued_at, event_id)
		SELECT serial, 'issuing-1', 'final', serial, key, 'full', 'tls-server', '', 'web', '', '{}', '', now(), $3, now(),
			gen_random_uuid()
		FROM unnest($1::bytea[], $2::bytea[]) AS i (serial, key)`, serials, keys, ends)
	slices.SortFunc(all, func(a, b ca.NewCertificate) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
	return all
}

// What is approved is the list of certificates, and its digest can be made again by everybody.
func TestTheDigestIsOfTheList(t *testing.T) {
	f := setUp(t)
	certificates := f.bulk(ca.LotSize + 1)
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 1)
	var lots []byte
	for _, lot := range [][]ca.NewCertificate{certificates[:ca.LotSize], certificates[ca.LotSize:]} {
		var list []byte
		for _, c := range lot {
			list = append(append(append(list, c.Issuer...), 0), c.Serial[:]...)
		}
		digest := sha256.Sum256(list)
		lots = append(lots, digest[:]...)
	}
	if want := sha256.Sum256(lots); j.Digest != want {
		t.Errorf("the digest is %x, want %x", j.Digest, want)
	}
	if nothing, _ := f.order(ca.Selection{Namespace: "nobody"}, newJob(issuance.Superseded), 1); nothing.Digest != sha256.Sum256(nil) ||
		nothing.Outcome != ca.JobFinished {
		t.Errorf("a job with nothing to do: %+v", nothing)
	}
}

func TestAJobWaitsForItsApprovals(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.issue()
	vote := func(j ca.RevocationJob, person string, approves bool) error {
		v := ca.RevocationVote{Person: person, Approves: approves, Digest: j.Digest, ActorID: "id of " + person, ActorName: "n", At: now(), EventID: newID()}
		return f.VoteOnRevocation(ctx, j.ID, v, leafWithID(t, v.EventID, audit.RevocationApproved))
	}
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 2)
	if _, _, err := f.ClaimRevocationJob(ctx, j.ID, alpha, lease); !errors.Is(err, ca.ErrNotFound) || j.Status(now()) != ca.JobWaiting {
		t.Errorf("a job that waits is claimed: %v", err)
	}
	for i, c := range []struct {
		person string
		want   error
		status string
	}{{"ann", nil, ca.JobWaiting}, {"ann", ca.ErrExists, ca.JobWaiting}, {"bob", nil, ca.JobRunning}, {"carl", ca.ErrDecided, ca.JobRunning}} {
		if err := vote(j, c.person, true); !errors.Is(err, c.want) {
			t.Errorf("vote %d: %v, want %v", i, err, c.want)
		}
		if now, err := f.RevocationJob(ctx, j.ID); err != nil || now.Status(time.Now()) != c.status {
			t.Errorf("after vote %d it is %s, %v", i, now.Status(time.Now()), err)
		}
	}
	if again, err := f.RevocationJob(ctx, j.ID); err != nil || len(again.Votes) != 2 || again.Votes[0].Digest != j.Digest || again.Actor.Person != "rita" {
		t.Errorf("%+v, %v", again, err)
	}
	rejected, _ := f.order(everywhere, newJob(issuance.Superseded), 1)
	if err := errors.Join(vote(rejected, "ann", false)); err != nil {
		t.Fatal(err)
	}
	if err := vote(rejected, "bob", true); !errors.Is(err, ca.ErrDecided) {
		t.Errorf("a rejected job: %v", err)
	}
	tooLate := newJob(issuance.Superseded)
	tooLate.ExpiresAt = now().Add(-time.Second)
	tooLate, _ = f.order(everywhere, tooLate, 1)
	if err := vote(tooLate, "ann", true); !errors.Is(err, ca.ErrDecided) || tooLate.Status(now()) != ca.JobExpired {
		t.Errorf("a job that waited for too long: %v", err)
	}
	if err := vote(ca.RevocationJob{ID: newID()}, "ann", true); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("no job: %v", err)
	}
}

func TestACancelledJobStops(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.bulk(ca.LotSize + 1)
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 0)
	j, fence, err := f.ClaimRevocationJob(ctx, j.ID, alpha, lease)
	if err != nil {
		t.Fatal(err)
	}
	first, leaves := f.lot(j, 0, fence)
	if err := f.RecordRevocationLot(ctx, first, leaves...); err != nil {
		t.Fatal(err)
	}
	second, leaves := f.lot(j, 1, fence)
	at := now()
	for range 2 {
		if err := f.CancelRevocation(ctx, j.ID, at, leaf(t, audit.RevocationCancelled)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.CancelRevocation(ctx, j.ID, at.Add(time.Second), leaf(t, audit.RevocationCancelled)); !errors.Is(err, ca.ErrDecided) {
		t.Errorf("cancelled again: %v", err)
	}
	if err := f.RecordRevocationLot(ctx, second, leaves...); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a lot of a cancelled job: %v", err)
	}
	f.wantCounts("revocations", ca.LotSize)
	page, next, err := f.RevocationJobs(ctx, access.AllNamespaces, "", 1)
	if err != nil || next != "" || len(page) != 1 || page[0].Outcome != ca.JobCancelled || page[0].Counts.Revoked != ca.LotSize {
		t.Errorf("%+v, %q, %v", page, next, err)
	}
	if page, _, err := f.RevocationJobs(ctx, "web", "", 10); err != nil || len(page) != 0 {
		t.Errorf("another namespace sees %+v, %v", page, err)
	}
	if _, _, err := f.RevocationJobs(ctx, "web", "x", 10); fmt.Sprint(err) == "" || !errors.As(err, new(*ca.InvalidError)) {
		t.Errorf("a cursor that is none: %v", err)
	}
	if _, err := f.RevocationJob(ctx, "x"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("an ID that is none: %v", err)
	}
}
