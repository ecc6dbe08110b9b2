package storage_test

import (
	"context"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// approver makes a person who signs, and registers the key.
func (f *fixture) approver(person string) (approval.Signer, ca.ApproverKey) {
	f.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	signer, err := approval.OpenSSH(pkcs8(f.t, private), nil, rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	k := ca.ApproverKey{Key: signer.Key(), Person: person, Name: "laptop", Actor: "local:root", At: now(), EventID: newID()}
	if err := f.RecordApproverKey(context.Background(), k, leafWithID(f.t, k.EventID, audit.ApproverKeyAdded)); err != nil {
		f.t.Fatal(err)
	}
	return signer, k
}

func signed(t *testing.T, signer approval.Signer, id, person string) *ca.Evidence {
	t.Helper()
	text, err := approval.Statement{
		Kind: approval.KindRequest, ID: id, Approves: true, Person: person, Expires: now(),
		Binding: "sha256:b",
	}.Text()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	return &ca.Evidence{
		Kind: approval.KindRequest, Subject: id, Person: person,
		Evidence: approval.Evidence{Statement: text, Signature: signature, Key: signer.Key()},
	}
}

func TestAKeyIsOnePersons(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	_, k := f.approver("bob")
	before := f.count("audit_leaves")
	for _, person := range []string{"bob", "dave"} {
		again := k
		again.Person, again.EventID = person, newID()
		if err := f.RecordApproverKey(ctx, again, leaf(t, audit.ApproverKeyAdded)); !errors.Is(err, ca.ErrExists) {
			t.Errorf("registered again for %s: %v", person, err)
		}
	}
	if after := f.count("audit_leaves"); after != before {
		t.Errorf("%d leaves of what was refused", after-before)
	}
	end := func(fingerprint string) error {
		return f.EndApproverKey(ctx, fingerprint, "lost", "local:root", now(), newID(), leaf(t, audit.ApproverKeyEnded))
	}
	if err := end("sha256:none"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a key that nobody has: %v", err)
	}
	if err := end(k.Key.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	if err := end(k.Key.Fingerprint()); !errors.Is(err, ca.ErrExists) {
		t.Errorf("ended twice: %v", err)
	}
	all, err := f.ApproverKeys(ctx, "bob")
	if err != nil || len(all) != 1 || all[0].EndedAt.IsZero() || all[0].Why != "lost" || all[0].Key.Fingerprint() != k.Key.Fingerprint() {
		t.Errorf("%+v, %v", all, err)
	}
	if none, err := f.ApproverKeys(ctx, "dave"); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
}

// An approval is kept with its evidence, in the transaction of the approval; said again it changes nothing.
func TestEvidenceIsKeptWhole(t *testing.T) {
	f := setUp(t)
	w := f.await()
	signer, _ := f.approver("bob")
	bob := word("bob", true)
	bob.Evidence = signed(t, signer, w.ID, "bob")
	for range 2 {
		if err := f.say(w.ID, bob); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.say(w.ID, word("carol", true)); err != nil {
		t.Fatal(err)
	}
	kept := f.waiting(w.ID).Approvals
	if len(kept) != 2 || kept[0].Evidence == nil || kept[0].Key != signer.Key().Fingerprint() || kept[1].Evidence != nil || kept[1].Key != "" {
		t.Fatalf("%+v", kept)
	}
	if s, err := kept[0].Evidence.Verify(); err != nil || s.ID != w.ID || kept[0].Evidence.Digest() != bob.Evidence.Digest() {
		t.Errorf("%+v, %v", s, err)
	}
	// What is decided takes no evidence either.
	if err := f.say(w.ID, word("dan", false)); err != nil {
		t.Fatal(err)
	}
	late := word("erin", true)
	erin, _ := f.approver("erin")
	late.Evidence = signed(t, erin, w.ID, "erin")
	if err := f.say(w.ID, late); !errors.Is(err, ca.ErrDecided) {
		t.Errorf("got %v", err)
	}
	if n := f.count("approval_evidence"); n != 1 {
		t.Errorf("%d pieces of evidence", n)
	}
}

// What was said with a key that has ended since, or with an API token that was withdrawn, counts no more for what is open: wherever votes are
// counted, whoever comes next is not the second of two.
func TestWhatIsWithdrawnCountsNoMore(t *testing.T) {
	t.Parallel()
	f, ctx := setUp(t), context.Background()
	f.issue()
	token := newToken("of ann")
	if err := f.CreateToken(ctx, token, random32()); err != nil {
		t.Fatal(err)
	}
	signer, _ := f.approver("bob")
	w := f.await(func(w *ca.WaitingRequest) { w.ActorID, w.Actor.ID = token.ID, token.ID })
	p := proposal("sha256:2", 2)
	if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 2)
	o := ca.ActOrder{
		ID: newID(), Kind: ca.OrderDestroyKey, Facts: []approval.Fact{{Name: "key_label", Value: "old"}}, Binding: "sha256:b", Needs: 2,
		Actor: "local:root", Person: "local:root", At: now(), ExpiresAt: now().Add(time.Hour), EventID: newID(),
	}
	if err := f.RecordOrder(ctx, o, leafWithID(t, o.EventID, audit.OrderPlaced)); err != nil {
		t.Fatal(err)
	}
	// say has a person approve all four, and tells which of them have enough then.
	say := func(person, actor string, evidence func(id string) *ca.Evidence) (rules, runs, ready bool) {
		t.Helper()
		r := word(person, true)
		r.Actor, r.Evidence = actor, evidence(w.ID)
		v := vote(person, true)
		v.ActorID, v.Evidence = actor, evidence(p.ID)
		rv := ca.RevocationVote{
			Person: person, Approves: true, Digest: j.Digest, ActorID: actor, ActorName: "n", At: now(), EventID: newID(), Evidence: evidence(j.ID),
		}
		ov := ca.OrderVote{Person: person, Approves: true, Actor: actor, At: now(), EventID: newID(), Evidence: evidence(o.ID)}
		rules, err := f.votes(p, v, activation(1, ""))
		if err := errors.Join(err, f.say(w.ID, r), f.VoteOnRevocation(ctx, j.ID, rv, leafWithID(t, rv.EventID, audit.RevocationApproved)),
			f.VoteOnOrder(ctx, o.ID, ov, leafWithID(t, ov.EventID, audit.OrderApproved))); err != nil {
			t.Fatal(err)
		}
		job, err := f.RevocationJob(ctx, j.ID)
		if err != nil {
			t.Fatal(err)
		}
		orders, err := f.Orders(ctx, o.ID, 1)
		if err != nil {
			t.Fatal(err)
		}
		return rules, !job.ApprovedAt.IsZero(), orders[0].State(now()) == ca.OrderReady
	}
	unsigned := func(string) *ca.Evidence { return nil }
	say("bob", "oidc:bob", func(id string) *ca.Evidence { return signed(t, signer, id, "bob") })
	if err := f.EndApproverKey(ctx, signer.Key().Fingerprint(), "stolen", "local:root", now(), newID(), leaf(t, audit.ApproverKeyEnded)); err != nil {
		t.Fatal(err)
	}
	if rules, runs, ready := say("ann", token.ID, unsigned); rules || runs || ready {
		t.Errorf("after the end of bob's key and a word of ann: rules %t, runs %t, ready %t", rules, runs, ready)
	}
	if f.waiting(w.ID).Withdrawn {
		t.Error("the requester's token is said to be withdrawn")
	}
	if err := f.RevokeToken(ctx, token.ID); err != nil {
		t.Fatal(err)
	}
	if rules, runs, ready := say("carol", "oidc:carol", unsigned); rules || runs || ready {
		t.Errorf("after ann's token was withdrawn and a word of carol: rules %t, runs %t, ready %t", rules, runs, ready)
	}
	said := map[string][]bool{}
	kept := f.waiting(w.ID)
	for _, a := range kept.Approvals {
		said[a.Person] = append(said[a.Person], a.Withdrawn)
	}
	proposals, err := f.PolicyProposals(ctx, p.ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range proposals[0].Votes {
		said[v.Person] = append(said[v.Person], v.Withdrawn)
	}
	job, err := f.RevocationJob(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range job.Votes {
		said[v.Person] = append(said[v.Person], v.Withdrawn)
	}
	yes, no := []bool{true, true, true}, []bool{false, false, false}
	if want := map[string][]bool{"bob": yes, "ann": yes, "carol": no}; !reflect.DeepEqual(said, want) || !kept.Withdrawn {
		t.Errorf("withdrawn are %v, and the request's own: %t", said, kept.Withdrawn)
	}
	if rules, runs, ready := say("dan", "oidc:dan", unsigned); !rules || !runs || !ready {
		t.Errorf("after a word of dan, too: rules %t, runs %t, ready %t", rules, runs, ready)
	}
}

func TestRequestsThatExpireAreToldOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	age := func(asked, left time.Duration) func(*ca.WaitingRequest) {
		return func(w *ca.WaitingRequest) { w.At, w.ExpiresAt = now().Add(-asked), now().Add(left) }
	}
	f.await(age(time.Hour, time.Hour))                     // half of its time is left
	f.await(age(10*24*time.Hour, 48*time.Hour))            // two days are left
	f.await(age(10*24*time.Hour, -time.Second))            // over
	soon := f.await(age(10*24*time.Hour, 23*time.Hour))    // a day before its end
	short := f.await(age(50*time.Minute, 10*time.Minute))  // a quarter of its time
	decided := f.await(age(10*24*time.Hour, 23*time.Hour)) // would be
	if err := f.say(decided.ID, word("bob", false)); err != nil {
		t.Fatal(err)
	}
	found, err := f.ExpiringRequests(ctx, 24*time.Hour, 10)
	if err != nil || len(found) != 2 || found[0].ID != short.ID || found[1].ID != soon.ID {
		t.Fatalf("%+v, %v", found, err)
	}
	again, err := f.ExpiringRequests(ctx, 24*time.Hour, 10)
	if err != nil || again[0] != found[0] {
		t.Errorf("another replica would tell %+v, %v", again, err)
	}
	if at := soon.ExpiresAt.Add(-24 * time.Hour); found[1].At.Sub(at).Abs() > time.Millisecond {
		t.Errorf("it is to be told at %s, want %s", found[1].At, at)
	}
	for range 2 { // two replicas at once: the second's is the first's
		if err := f.RecordEvents(ctx, leafAt(t, found[0].EventID, audit.RequestExpiring, found[0].At)); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := f.ExpiringRequests(ctx, 24*time.Hour, 10); err != nil || len(left) != 1 || left[0].ID != soon.ID {
		t.Errorf("%+v, %v", left, err)
	}
	// It is found among the events of its time, and not among later ones.
	for since, want := range map[time.Duration]int{-time.Second: 1, time.Second: 0} {
		page, err := f.SearchEvents(ctx, ca.EventFilter{
			Kind: string(audit.RequestExpiring), Namespace: access.AllNamespaces, Since: found[0].At.Add(since), Limit: 10,
		})
		if err != nil || len(page.Events) != want {
			t.Errorf("%d events since %s, want %d; %v", len(page.Events), found[0].At.Add(since), want, err)
		}
	}
	if id := uuid.MustParse(found[0].EventID); id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		t.Errorf("its identifier is %s", id)
	}
	// What a program of before has told is not told again.
	told := md5.Sum([]byte("request.expiring " + soon.ID))
	if err := f.RecordEvents(ctx, leafAt(t, uuid.UUID(told).String(), audit.RequestExpiring, found[1].At)); err != nil {
		t.Fatal(err)
	}
	if left, err := f.ExpiringRequests(ctx, 24*time.Hour, 10); err != nil || len(left) != 0 {
		t.Errorf("%+v, %v", left, err)
	}
}

func TestDeliveryCursors(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const duty ca.Duty = "delivery/siem"
	f.write(12)
	f.sequence()
	term, err := f.ClaimLease(ctx, duty, alpha, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, start := range []int64{7, 3} { // the second finds it there
		if next, err := f.NextDelivery(ctx, term, "siem", start); err != nil || next != 7 {
			t.Errorf("%d, %v", next, err)
		}
	}
	if err := f.MoveDelivery(ctx, term, "siem", 12); err != nil {
		t.Fatal(err)
	}
	if err := f.MoveDelivery(ctx, term, "siem", 11); err == nil {
		t.Error("the cursor went back")
	}
	// Beyond the end it would keep from the receiver what comes, and could not be brought back.
	service := f.as("chancery_service")
	for _, sql := range []string{
		"UPDATE delivery_cursors SET next_index = 13", "UPDATE delivery_cursors SET next_index = 9223372036854775807",
		"INSERT INTO delivery_cursors (receiver, next_index) VALUES ('mail', 13)",
	} {
		if _, err := service.Exec(ctx, sql); sqlState(err) != restrictViolation {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := f.ResignLease(ctx, term); err != nil {
		t.Fatal(err)
	}
	if err := f.MoveDelivery(ctx, term, "siem", 20); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("moved in a term that is over: %v", err)
	}
	if all, err := f.DeliveryCursors(ctx); err != nil || len(all) != 1 || all[0].Next != 12 || all[0].Receiver != "siem" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestOrders(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	placed := ca.ActOrder{
		ID: newID(), Kind: ca.OrderDestroyKey, Facts: []approval.Fact{{Name: "key_label", Value: "old"}}, Binding: "sha256:b", Needs: 1,
		Actor:  "local:root",
		Person: "local:root", At: now(), ExpiresAt: now().Add(time.Hour), EventID: newID(),
	}
	for range 2 {
		if err := f.RecordOrder(ctx, placed, leafWithID(t, placed.EventID, audit.OrderPlaced)); err != nil {
			t.Fatal(err)
		}
	}
	vote := func(order, person string, approves bool) error {
		v := ca.OrderVote{Person: person, Approves: approves, Actor: "token", At: now(), EventID: newID()}
		return f.VoteOnOrder(ctx, order, v, leafWithID(t, v.EventID, audit.OrderApproved))
	}
	use := func(order string) error {
		return f.UseOrder(ctx, order, "local:root", now(), newID(), leaf(t, audit.OrderUsed))
	}
	state := func() string {
		all, err := f.Orders(ctx, placed.ID, 1)
		if err != nil || len(all) != 1 || len(all[0].Facts) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].State(now())
	}
	if got := state(); got != ca.OrderWaiting {
		t.Errorf("placed: %s", got)
	}
	if err := vote(placed.ID, "bob", true); err != nil {
		t.Fatal(err)
	}
	if err := vote(placed.ID, "bob", true); !errors.Is(err, ca.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if got := state(); got != ca.OrderReady {
		t.Errorf("approved: %s", got)
	}
	if err := use(placed.ID); err != nil {
		t.Fatal(err)
	}
	if err := use(placed.ID); !errors.Is(err, ca.ErrDecided) {
		t.Errorf("used twice: %v", err)
	}
	if err := vote(placed.ID, "carol", false); !errors.Is(err, ca.ErrDecided) {
		t.Errorf("rejected afterwards: %v", err)
	}
	if got := state(); got != ca.OrderDone {
		t.Errorf("used: %s", got)
	}
	if err := vote(newID(), "carol", true); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("an order that nobody placed: %v", err)
	}
}

func leafAt(t testing.TB, id string, kind audit.Kind, at time.Time) audit.Leaf {
	t.Helper()
	l, err := audit.New(audit.Event{ID: id, Kind: kind, Time: at, Actor: "system"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func pkcs8(t testing.TB, private ed25519.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
