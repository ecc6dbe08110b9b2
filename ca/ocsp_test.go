package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha1" // of a CertID
	_ "crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// asked counts how often the status of a serial is looked up.
type asked struct {
	Store
	status CertificateStatus
	times  int
}

func (a *asked) CertificateStatus(context.Context, string, []byte) (CertificateStatus, error) {
	a.times++
	return a.status, nil
}

// requestOCSP asks about a serial of an authority, by names that a hash makes.
func requestOCSP(t *testing.T, issuer *x509.Certificate, hash crypto.Hash, oid asn1.ObjectIdentifier, serial int64) []byte {
	t.Helper()
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	type certID struct {
		Algorithm pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}
	type single struct{ ID certID }
	type tbs struct{ List []single }
	der, err := asn1.Marshal(struct{ TBS tbs }{tbs{[]single{{certID{
		pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}, sum(issuer.RawSubject), sum(spki.Key.Bytes), big.NewInt(serial),
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What is known of a certificate is looked up again when an answer made with it is due, in however many forms it is asked for.
func TestAStatusIsLookedUpAgain(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	store := &asked{status: CertificateStatus{Issued: true, NotAfter: now.AddDate(1, 0, 0)}}
	c := publishing(store, clock, a)
	const validity = 10 * time.Hour
	offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: validity})
	c.ocsp.following.Store(true)
	forms := [][]byte{
		requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5),
		requestOCSP(t, a.Certificate, crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, 5),
	}
	began := now
	for n, one := range []struct {
		after time.Duration
		form  int
		times int
	}{
		{0, 0, 1},
		{4 * time.Hour, 1, 1}, // the other form is signed from what is known
		{6 * time.Hour, 0, 2}, // the first is due: what is known of it is six hours old
		{10 * time.Hour, 1, 2},
		{12 * time.Hour, 0, 3},
	} {
		now = began.Add(one.after)
		c.ocsp.syncedAt.Store(now.UnixNano())
		response, err := c.OCSP(context.Background(), a.Name, forms[one.form])
		c.ocsp.work.Wait()
		if err != nil || response.Refusal != 0 || store.times != one.times {
			t.Errorf("%d: looked up %d times, want %d; %v, %v", n, store.times, one.times, response.Refusal, err)
		}
	}
}

// offerOCSP has a CA answer for one of its authorities.
func offerOCSP(t *testing.T, c *CA, plan OCSPPlan) *responder {
	t.Helper()
	var err error
	if c.ocsp, err = newOCSP([]OCSPPlan{plan}, c.authorities); err != nil {
		t.Fatal(err)
	}
	return c.ocsp.responders[plan.Authority]
}

// withNonce adds a nonce to a request.
func withNonce(t *testing.T, request []byte) []byte {
	t.Helper()
	var plain struct{ TBS struct{ List asn1.RawValue } }
	if _, err := asn1.Unmarshal(request, &plain); err != nil {
		t.Fatal(err)
	}
	type tbs struct {
		List       asn1.RawValue
		Extensions []pkix.Extension `asn1:"explicit,tag:2"`
	}
	nonce := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: []byte{4, 4, 1, 2, 3, 4}}
	der, err := asn1.Marshal(struct{ TBS tbs }{tbs{plain.TBS.List, []pkix.Extension{nonce}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Whoever asks and hangs up while the key signs leaves it as it is: anybody can, and a key that counts as failed issues nothing. The place
// is taken as long as the token is busy.
func TestWhoLeavesDoesNotMakeTheKeyFail(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, key := openAuthority(t, "issuing-1", now)
	hung := &hanging{Signer: key.Signer, asked: make(chan struct{}), letGo: make(chan struct{})}
	key.Signer = hung
	c := publishing(&asked{status: CertificateStatus{Issued: true, NotAfter: now.AddDate(1, 0, 0)}}, func() time.Time { return now }, a)
	offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 10 * time.Hour})
	request := withNonce(t, requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5))
	ctx, leave := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		if response, err := c.OCSP(ctx, a.Name, request); err != nil || response.Refusal != 0 {
			t.Error(response.Refusal, err)
		}
	})
	<-hung.asked
	leave()
	if len(c.ocsp.signing) != 1 {
		t.Error("the place is free while the token is busy")
	}
	close(hung.letGo)
	asking.Wait()
	if a.failedAt.Load() != 0 || len(c.ocsp.signing) != 0 {
		t.Errorf("the key counts as failed at %d, %d places are taken", a.failedAt.Load(), len(c.ocsp.signing))
	}
}

// oneAtATime is a key that makes one signature after another, and takes a while for each.
type oneAtATime struct {
	crypto.Signer
	turn  chan struct{}
	takes time.Duration
	calls sync.WaitGroup
}

func (o *oneAtATime) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	o.calls.Add(1)
	defer o.calls.Done()
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	time.Sleep(o.takes)
	return o.Signer.Sign(random, digest, options)
}

// Of many who ask at once some wait too long for their turn, here or at the token. The key has failed only where it signs for nobody.
func TestWaitingForATurnIsNoFailureOfTheKey(t *testing.T) {
	for takes, failed := range map[time.Duration]bool{20 * time.Millisecond: false, 100 * time.Millisecond: false, 2 * ocspDeadline: true} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, key := openAuthority(t, "issuing-1", time.Now())
				token := &oneAtATime{Signer: key.Signer, turn: make(chan struct{}, 1), takes: takes}
				token.calls.Add(1) // the test's own, until all have asked
				key.Signer = token
				c := publishing(&asked{status: CertificateStatus{Issued: true, NotAfter: time.Now().AddDate(1, 0, 0)}}, time.Now, a)
				r := offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 10 * time.Hour})
				ids, statuses := []issuance.CertID{r.signs.Load().CertID([]byte{5})}, []CertificateStatus{{Issued: true}}
				var all sync.WaitGroup
				late := atomic.Int32{}
				for range 200 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), ocspDeadline)
						defer cancel()
						if _, err := c.signOCSP(ctx, r, ids, statuses, []byte("nonce")); err != nil {
							late.Add(1)
						}
					})
				}
				all.Wait()
				token.calls.Done()
				token.calls.Wait()
				if late.Load() == 0 || (a.failedAt.Load() != 0) != failed {
					t.Errorf("%d were told to try later, and the key counts as failed at %d", late.Load(), a.failedAt.Load())
				}
			})
		})
	}
}

// hurried is a key that is limited in how often it signs, and has no room for more.
type hurried struct{ *fickle }

func (hurried) Reserve(int, time.Time) error {
	return errors.New("the key signs at most once a second")
}

// What cannot be said, and what the key has no room for, is not its failure either.
func TestAKeyThatIsNotAskedHasNotFailed(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, key := openAuthority(t, "issuing-1", now)
	c := publishing(nil, func() time.Time { return now }, a)
	r := offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 10 * time.Hour})
	ours, began := r.signs.Load().CertID([]byte{5}), now
	busy, err := issuance.NewIssuer(a.Certificate, hurried{key})
	if err != nil {
		t.Fatal(err)
	}
	for what, one := range map[string]struct {
		issuer *issuance.Issuer
		now    time.Time
		id     issuance.CertID
	}{
		"an authority that has ended": {a.Issuer, a.Certificate.NotAfter, ours},
		"another authority's":         {a.Issuer, began, issuance.CertID{Serial: []byte{5}}},
		"no room":                     {busy, began, ours},
	} {
		signs, err := one.issuer.Responder()
		if err != nil {
			t.Fatal(err)
		}
		r.signs.Store(signs)
		now = one.now
		_, err = c.signOCSP(t.Context(), r, []issuance.CertID{one.id}, []CertificateStatus{{Issued: true}}, nil)
		if err == nil || a.failedAt.Load() != 0 {
			t.Errorf("%s: %v, the key counts as failed at %d", what, err, a.failedAt.Load())
		}
	}
}

// With sixteen hours or more an answer is made anew eight hours before its end and four days after its beginning at the latest, and with
// less at half (Baseline Requirements, section 4.9.10), however long nobody asked. The interval has both its ends in it.
func TestOCSPAnswersAreUpdatedEarly(t *testing.T) {
	const day = 24 * time.Hour
	for _, validity := range []time.Duration{MinOCSPValidity, 15 * time.Hour, 16 * time.Hour, 2 * day, 8 * day, MaxOCSPValidity} {
		now := time.Now().UTC().Truncate(time.Second)
		a, _ := openAuthority(t, "issuing-1", now)
		c := publishing(&asked{status: CertificateStatus{Issued: true, NotAfter: now.AddDate(1, 0, 0)}}, func() time.Time { return now }, a)
		offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: validity})
		c.ocsp.following.Store(true)
		request := requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5)
		latest := validity / 2
		if validity >= 16*time.Hour {
			latest = min(validity-8*time.Hour, 4*day)
		}
		for _, after := range []time.Duration{0, time.Hour, latest - time.Minute, latest, validity - time.Minute, time.Minute} {
			now = now.Add(after)
			c.ocsp.syncedAt.Store(now.UnixNano())
			response, err := c.OCSP(t.Context(), a.Name, request)
			if err != nil || response.Refusal != 0 {
				t.Fatal(response.Refusal, err)
			}
			if response.NextUpdate.Sub(response.ThisUpdate)+time.Second != validity || now.Sub(response.ThisUpdate) >= latest {
				t.Errorf("validity %s, %s later: the answer is of %s to %s", validity, after, response.ThisUpdate, response.NextUpdate)
			}
		}
	}
}

// An answer that is due is given where another cannot be had, and at once to those who ask next; not when it was overtaken meanwhile.
func TestAnAnswerThatIsDueIsGivenWhereThereIsNoOther(t *testing.T) {
	for what, one := range map[string]struct {
		away, revoked bool
		waits         time.Duration
	}{"the token is away": {away: true}, "the token hangs": {waits: ocspPatience}, "revoked": {revoked: true, waits: ocspPatience}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, key := openAuthority(t, "issuing-1", time.Now())
				c := publishing(&asked{status: CertificateStatus{Issued: true, NotAfter: time.Now().AddDate(1, 0, 0)}}, time.Now, a)
				offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 48 * time.Hour})
				c.ocsp.following.Store(true)
				request := requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5)
				ask := func() (*OCSPResponse, time.Duration) {
					began := time.Now()
					response, err := c.OCSP(t.Context(), a.Name, request)
					if err != nil {
						t.Fatal(err)
					}
					return response, time.Since(began)
				}
				first, _ := ask()
				time.Sleep(47 * time.Hour)
				hung := &hanging{Signer: key.Signer, asked: make(chan struct{}, 2), letGo: make(chan struct{})}
				if key.away = one.away; !one.away {
					key.Signer = hung
				}
				if one.revoked {
					go func() {
						<-hung.asked
						c.ocsp.forgetAll()
					}()
				}
				got, waited := ask()
				if (got == first) == one.revoked || (got.Refusal == issuance.OCSPTryLater) != one.revoked || waited != one.waits {
					t.Errorf("after %s there is the answer of %s, refusal %s", waited, got.ThisUpdate, got.Refusal)
				}
				if !one.revoked {
					if got, waited = ask(); got != first || waited != 0 {
						t.Errorf("the next gets the answer of %s after %s", got.ThisUpdate, waited)
					}
				}
				close(hung.letGo)
				c.ocsp.work.Wait()
				if one.away {
					key.away = false
				}
				time.Sleep(retryOCSP)
				if got, _ = ask(); got == first || got.Refusal != 0 {
					t.Errorf("with the token back there is the answer of %s, refusal %s", got.ThisUpdate, got.Refusal)
				}
			})
		})
	}
}

// What was never issued shortens nothing that the same answer says of what was.
func TestEachSingleAnswerHasItsEnd(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	c := publishing(nil, func() time.Time { return now }, a)
	r := offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 48 * time.Hour})
	ids := []issuance.CertID{r.signs.Load().CertID([]byte{5}), r.signs.Load().CertID([]byte{6})}
	response, err := c.signOCSP(t.Context(), r, ids, []CertificateStatus{{Issued: true, NotAfter: now.AddDate(1, 0, 0)}, {}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []time.Time{now.Add(48*time.Hour - time.Second), now.Add(unknownValidity)} {
		if !bytes.Contains(response.DER, []byte(end.Format("20060102150405Z"))) {
			t.Errorf("nothing in the answer ends at %s", end)
		}
	}
	if !response.NextUpdate.Equal(now.Add(unknownValidity)) || response.Shared {
		t.Errorf("the answer as a whole holds until %s", response.NextUpdate)
	}
}

// following gives a position in the feed, and nothing new. From another server's position there is too much to read.
type following struct {
	*asked
	at FeedPosition
}

func (f *following) FeedPosition(context.Context) (FeedPosition, error) { return f.at, nil }

func (f *following) RevocationsSince(_ context.Context, from FeedPosition, _ func(Revocation) error) (FeedPosition, error) {
	if from.Server != f.at.Server {
		return from, context.DeadlineExceeded
	}
	return f.at, nil
}

// A failover may lose a revocation that was seen, and answered with, before it was acknowledged. Nothing is said of it any more: what the server
// of now has not got counts for no answer.
func TestAnotherServerMakesAllAnswersAnew(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	store := &following{&asked{status: CertificateStatus{Issued: true, Revoked: true, NotAfter: now.AddDate(1, 0, 0)}}, FeedPosition{"one 1", 7}}
	c := publishing(store, func() time.Time { return now }, a)
	offerOCSP(t, c, OCSPPlan{Authority: a.Name, Validity: 10 * time.Hour})
	c.ocsp.following.Store(true)
	request := requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5)
	position := store.at
	var err error
	for _, step := range []struct {
		server, says string
		times        int
	}{{"one 1", "revoked", 1}, {"one 1", "revoked", 1}, {"one 2", "good", 2}, {"one 2", "good", 2}} {
		store.at.Server = step.server
		if position, err = c.takeInRevocations(context.Background(), position); err != nil {
			t.Fatal(err)
		}
		response, err := c.OCSP(context.Background(), a.Name, request)
		c.ocsp.work.Wait()
		if err != nil || response.status != step.says || store.times != step.times {
			t.Errorf("by server %s the answer is %q, looked up %d times, %v; want %q, %d", step.server, response.status, store.times, err, step.says, step.times)
		}
		store.status.Revoked = false // lost with the server
	}
}

// An answer about a certificate that has ended says since when all such are known: where months are archived, not since the beginning.
func TestTheArchiveCutoff(t *testing.T) {
	const day = 24 * time.Hour
	began := time.Now().UTC().Truncate(time.Second)
	now := began.Add(200 * day)
	a, _ := openAuthority(t, "issuing-1", began)
	start := a.Certificate.NotBefore
	identifier, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		name             string
		retention, ended time.Duration // how long ago; 0: that is not known
		cutoff           time.Time
	}{
		{"nothing is archived", 0, 150 * day, start},
		{"in force", 90 * day, -day, time.Time{}},
		{"it is surely known", 90 * day, 89 * day, now.Add(-90 * day)},
		{"it may be archived soon", 90 * day, 91 * day, time.Time{}},
		{"the authority is younger", 300 * day, 150 * day, start},
		{"its end is not known", 90 * day, 0, time.Time{}},
	} {
		t.Run(one.name, func(t *testing.T) {
			status := CertificateStatus{Issued: true}
			if one.ended != 0 {
				status.NotAfter = now.Add(-one.ended)
			}
			c := publishing(&asked{status: status}, func() time.Time { return now }, a)
			plan := OCSPPlan{Authority: a.Name, Validity: 10 * time.Hour, Retention: one.retention}
			offerOCSP(t, c, plan)
			c.ocsp.syncedAt.Store(now.UnixNano())
			response, err := c.OCSP(t.Context(), a.Name, requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5))
			if err != nil || response.Refusal != 0 {
				t.Fatal(response.Refusal, err)
			}
			_, after, found := bytes.Cut(response.DER, identifier)
			if found != !one.cutoff.IsZero() {
				t.Fatalf("an archive cutoff: %t", found)
			}
			if want := one.cutoff.Format("20060102150405Z"); found && !bytes.Contains(after[:20], []byte(want)) {
				t.Errorf("%q does not say %s", after[:20], want)
			}
		})
	}
}

// responding is a store that holds the certificates of a responder's key.
type responding struct {
	Store
	certificates [][]byte // those that are not revoked
	revoked      map[string]issuance.Reason
}

func (r *responding) ResponderCertificates(context.Context, string, [32]byte) ([][]byte, error) {
	return r.certificates, nil
}

func (r *responding) LatestRevocation(_ context.Context, _ string, serial []byte) (Revocation, error) {
	if reason, revoked := r.revoked[string(serial)]; revoked {
		return Revocation{Reason: reason}, nil
	}
	return Revocation{}, ErrNotFound
}

// responderCertificate is a certificate of a responder's key.
func responderCertificate(t *testing.T, a *Authority, authorityKey, key crypto.Signer, serial int64, begin, end time.Time) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "OCSP"}, NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1.NullBytes}},
	}, a.Certificate, key.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A responder whose certificate was revoked answers under another.
func TestARevokedResponderGivesWay(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, authorityKey := openAuthority(t, "issuing-1", now)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := func(serial int64) []byte {
		return responderCertificate(t, a, authorityKey, key, serial, now, now.AddDate(0, 1, 0))
	}
	store := &responding{certificates: [][]byte{made(5)}, revoked: map[string]issuance.Reason{}}
	c := publishing(store, func() time.Time { return now }, a)
	offerOCSP(t, c, OCSPPlan{Authority: a.Name, Key: key, Validity: 10 * time.Hour})
	second := made(6)
	for n, one := range []struct {
		change func()
		serial int64
	}{
		{func() {}, 5},
		{func() { store.certificates = append(store.certificates, second) }, 5},
		{func() { store.revoked["\x05"], store.certificates = issuance.Superseded, [][]byte{second} }, 6},
		{func() { store.revoked["\x06"] = issuance.RemoveFromCRL; store.certificates = [][]byte{made(7)} }, 6},
	} {
		one.change()
		if err := c.RenewResponders(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := c.ocsp.responders[a.Name].signs.Load().Certificate().SerialNumber.Int64(); got != one.serial {
			t.Errorf("%d: it answers under certificate %d, want %d", n, got, one.serial)
		}
	}
}

// renewals are the failures to renew that are counted.
type renewals struct {
	noMetrics
	failed []string
}

func (r *renewals) RenewalFailed(kind, name string) { r.failed = append(r.failed, kind+" "+name) }

// A responder whose certificate cannot be renewed answers under the one on record as long as that is valid, and the failure is counted. Where
// no other could last longer there is nothing to renew.
func TestAResponderKeepsWhatIsOnRecord(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now().UTC().Truncate(time.Second)
	a, authorityKey := openAuthority(t, "issuing-1", now)
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := &fickle{Signer: made, away: true} // so that it requests nothing
	end := a.Certificate.NotAfter
	for what, one := range map[string]struct {
		begin, end, at time.Time
		serial         int64 // 0: none
		failed         bool
	}{
		"fresh":                      {now, now.Add(30 * day), now.Add(19 * day), 5, false},
		"past two thirds":            {now, now.Add(30 * day), now.Add(21 * day), 5, true},
		"ended":                      {now, now.Add(30 * day), now.Add(31 * day), 0, true},
		"as long as the authority":   {end.Add(-30 * day), end.Add(-beforeIssuer), end.Add(-day), 5, false},
		"of an authority that ended": {end.Add(-30 * day), end, end.Add(day), 0, false},
	} {
		t.Run(what, func(t *testing.T) {
			store := &responding{certificates: [][]byte{responderCertificate(t, a, authorityKey, made, 5, one.begin, one.end)}}
			c, told := publishing(store, func() time.Time { return one.at }, a), &renewals{}
			c.metrics = told
			c.ruling.Store(&ruling{set: shipped(t)})
			offerOCSP(t, c, OCSPPlan{Authority: a.Name, Key: key, Validity: 10 * time.Hour})
			for n := range 2 {
				if err := c.RenewResponders(t.Context()); (err != nil) != one.failed {
					t.Error(err)
				}
				serial := int64(0)
				if got := certificateOf(c.ocsp.responders[a.Name].signs.Load()); got != nil {
					serial = got.SerialNumber.Int64()
				}
				if serial != one.serial || one.failed != (len(told.failed) == n+1) {
					t.Errorf("it answers under certificate %d, want %d; counted are %v", serial, one.serial, told.failed)
				}
			}
		})
	}
}

// What the service asks for itself does not outlive the authority.
func TestOwnCertificatesEndWithTheAuthority(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	end := a.Certificate.NotAfter
	c := publishing(&quiet{}, func() time.Time { return now }, a)
	c.ruling.Store(&ruling{set: shipped(t)})
	for _, one := range []struct {
		left, want time.Duration // want 0: the default
		refused    bool
	}{
		{5 * 365 * day, 0, false},
		{31 * day, 0, false},
		{20 * day, 20*day - beforeIssuer + 5*time.Minute, false}, // from the backdated beginning on
		{beforeIssuer / 2, 0, true},
		{-day, 0, true},
	} {
		now = end.Add(-one.left)
		if got, err := c.ownValidity(c.rules(), ResponderProfile, a); got != one.want || (err != nil) != one.refused {
			t.Errorf("with %s left it asks for %s, want %s; %v", one.left, got, one.want, err)
		}
	}
}
