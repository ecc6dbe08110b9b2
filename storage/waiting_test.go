package storage_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

func newWaiting() ca.WaitingRequest {
	r := newRequest()
	r.Verdict = policies.NeedsApproval
	return ca.WaitingRequest{
		Request: r, Subject: "CN=www.example.com", Names: []string{"www.example.com"}, ExpiresAt: now().Add(time.Hour), Status: ca.StatusWaiting,
		Actor: access.Actor{
			ID: r.ActorID, Name: r.ActorName, Person: "alice", Namespace: r.Namespace, Roles: []access.Role{access.Requester},
			Groups: []string{"web"}, Attributes: map[string][]string{"department": {"it"}},
		},
	}
}

func (f *fixture) await(change ...func(*ca.WaitingRequest)) ca.WaitingRequest {
	f.t.Helper()
	w := newWaiting()
	for _, c := range change {
		c(&w)
	}
	if err := f.RecordWaiting(context.Background(), w, ca.IdempotencyKey{}, leaf(f.t, audit.RequestWaiting)); err != nil {
		f.t.Fatal(err)
	}
	return w
}

func word(person string, approved bool) ca.ApprovalRecord {
	return ca.ApprovalRecord{
		Approval: policies.Approval{Person: person, Actor: "token of " + person, Groups: []string{"security"}, At: now(), Binding: "sha256:b"},
		Approved: approved, Comment: "looked at it", EventID: newID(),
	}
}

func (f *fixture) say(id string, a ca.ApprovalRecord) error {
	kind := audit.RequestApproved
	if !a.Approved {
		kind = audit.RequestRejected
	}
	return f.RecordApproval(context.Background(), id, a, leafWithID(f.t, a.EventID, kind))
}

func (f *fixture) waiting(id string) ca.WaitingRequest {
	f.t.Helper()
	w, err := f.WaitingRequest(context.Background(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

// approvedIntent is the intent of a request that has all its approvals.
func approvedIntent(t *testing.T, w ca.WaitingRequest) ca.Intent {
	i := newIntent(t, alpha)
	i.Request, i.Approved = w.Request, true
	i.Request.PolicyDigest = "sha256:2" // the decision that granted
	return i
}

func TestAWaitingRequestIsKeptWhole(t *testing.T) {
	f := setUp(t)
	w := f.await()
	bob := word("bob", true)
	for range 2 { // the second changes nothing
		if err := f.say(w.ID, bob); err != nil {
			t.Fatal(err)
		}
	}
	got := f.waiting(w.ID)
	want := w
	want.Approvals = []ca.ApprovalRecord{bob}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	f.wantCounts("requests", 1, "waiting_requests", 1, "approvals", 1, "audit_leaves", 2)
	for _, id := range []string{newID(), "no UUID"} {
		if _, err := f.WaitingRequest(context.Background(), id); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestARequestIsDecidedOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	decided := map[string]func(ca.WaitingRequest) error{
		ca.StatusRejected: func(w ca.WaitingRequest) error { return f.say(w.ID, word("bob", false)) },
		ca.StatusExpired: func(w ca.WaitingRequest) error {
			return f.CloseWaiting(ctx, w.ID, ca.StatusExpired, "late", now(), leaf(t, audit.RequestExpired))
		},
		ca.StatusRefused: func(w ca.WaitingRequest) error {
			return f.CloseWaiting(ctx, w.ID, ca.StatusRefused, "the policies changed", now(), leaf(t, audit.RequestRefused))
		},
		ca.StatusIssued: func(w ca.WaitingRequest) error {
			i := approvedIntent(t, w)
			if err := f.recording(f.Store, i)(); err != nil {
				return err
			}
			if got := f.waiting(w.ID).Status; got != ca.StatusIssuing {
				t.Errorf("with an intent the status is %s", got)
			}
			f.finish(i)
			return nil
		},
	}
	for status, decide := range decided {
		t.Run(status, func(t *testing.T) {
			w := f.await()
			if err := decide(w); err != nil {
				t.Fatal(err)
			}
			if got := f.waiting(w.ID); got.Status != status || (status == ca.StatusIssued) != (got.Serial != nil) {
				t.Errorf("the request is %+v", got)
			}
			leaves := f.count("audit_leaves")
			for other, again := range decided {
				if other == status && status != ca.StatusIssued {
					continue // its own word again may be told apart or not
				}
				if err := again(w); !errors.Is(err, ca.ErrDecided) {
					t.Errorf("%s after %s: %v, want ErrDecided", other, status, err)
				}
			}
			if err := f.say(w.ID, word("carol", true)); !errors.Is(err, ca.ErrDecided) {
				t.Errorf("an approval after %s: %v", status, err)
			}
			f.wantCounts("audit_leaves", leaves)
		})
	}
	f.wantCounts("certificates", 1, "intents", 0)
}

// Of replicas that issue an approved request at the same time, or reject it meanwhile, one succeeds.
func TestOneReplicaIssuesAnApprovedRequest(t *testing.T) {
	f := setUp(t)
	other := f.db.Store(t)
	w := f.await()
	outcomes := make([]error, 9)
	var calls sync.WaitGroup
	for n := range outcomes {
		store := f.Store
		if n%2 == 1 {
			store = other
		}
		do := f.recording(store, approvedIntent(t, w))
		if n == 8 {
			a := word("bob", false)
			l := leafWithID(t, a.EventID, audit.RequestRejected)
			do = func() error { return store.RecordApproval(context.Background(), w.ID, a, l) }
		}
		calls.Go(func() { outcomes[n] = do() })
	}
	calls.Wait()
	won := 0
	for n, err := range outcomes {
		if err == nil {
			won++
		} else if !errors.Is(err, ca.ErrDecided) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if won != 1 || f.count("intents")+f.count("approvals") != 1 {
		t.Errorf("%d succeeded: %v", won, outcomes)
	}
	f.wantCounts("requests", 1)
}

// An issuance that came to nothing lets its request wait again, with its approvals.
func TestASettledIntentLetsItsRequestWaitAgain(t *testing.T) {
	f := setUp(t)
	w := f.await()
	if err := f.say(w.ID, word("bob", true)); err != nil {
		t.Fatal(err)
	}
	i := approvedIntent(t, w)
	if err := f.recording(f.Store, i)(); err != nil {
		t.Fatal(err)
	}
	f.settle(i)
	if got := f.waiting(w.ID); got.Status != ca.StatusWaiting || len(got.Approvals) != 1 || got.Serial != nil {
		t.Errorf("after the settlement: %+v", got)
	}
	ctx := context.Background()
	ids, err := f.ApprovedRequests(ctx, 0, 10)
	if err != nil || len(ids) != 1 || ids[0] != w.ID {
		t.Errorf("to be taken up: %v, %v", ids, err)
	}
	if ids, err = f.ApprovedRequests(ctx, time.Hour, 10); err != nil || len(ids) != 0 {
		t.Errorf("an hour old: %v, %v", ids, err)
	}
	again := approvedIntent(t, w)
	if err := f.recording(f.Store, again)(); err != nil {
		t.Fatal(err)
	}
	f.finish(again)
	if got := f.waiting(w.ID); got.Status != ca.StatusIssued || string(got.Serial) != string(again.Serial[:]) {
		t.Errorf("in the end: %+v", got)
	}
}

// A reservation without room leaves the request waiting.
func TestAnExhaustedQuotaLeavesTheRequestWaiting(t *testing.T) {
	f := setUp(t)
	w := f.await()
	i := approvedIntent(t, w)
	none := quota("web", 0, time.Hour)
	i.Reservations = append(i.Reservations, none)
	wantExhausted(t, f.recording(f.Store, i)(), none, 0, 0)
	if got := f.waiting(w.ID); got.Status != ca.StatusWaiting || got.Serial != nil {
		t.Errorf("the request is %+v", got)
	}
	f.wantCounts("intents", 0)
}

func TestAWaitingRequestHoldsItsIdempotencyKey(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	w, k := newWaiting(), ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: [32]byte{1}}
	if err := f.RecordWaiting(ctx, w, k, leaf(t, audit.RequestWaiting)); err != nil {
		t.Fatal(err)
	}
	var replay *ca.Replay
	if err := f.RecordWaiting(ctx, newWaiting(), k, leaf(t, audit.RequestWaiting)); !errors.As(err, &replay) || replay.Waiting != w.ID {
		t.Errorf("the same again: %v, %+v", err, replay)
	}
	if err := f.reserve(withKey("k", 1)); !errors.As(err, &replay) || replay.Waiting != w.ID {
		t.Errorf("an intent with the key: %v, %+v", err, replay)
	}
	if err := f.reserve(withKey("k", 2)); !errors.Is(err, ca.ErrIdempotencyMismatch) {
		t.Errorf("an intent with another body: %v", err)
	}
	f.intend(withKey("open", 1))
	open := ca.IdempotencyKey{Actor: "actor-1", Key: "open", Body: [32]byte{1}}
	if err := f.RecordWaiting(ctx, newWaiting(), open, leaf(t, audit.RequestWaiting)); !errors.Is(err, ca.ErrIdempotencyBusy) {
		t.Errorf("the key of an open intent: %v", err)
	}
	f.wantCounts("waiting_requests", 1, "requests", 2)

	// It is remembered for as long as the request waits.
	f.exec(`UPDATE idempotency_keys SET created_at = created_at - interval '1 year' WHERE key = 'k'`)
	if n, err := f.ForgetIdempotencyKeys(ctx, f.lead(), time.Hour); err != nil || n != 0 {
		t.Errorf("forgot %d keys, %v", n, err)
	}
	if err := f.say(w.ID, word("bob", false)); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ForgetIdempotencyKeys(ctx, f.lead(), time.Hour); err != nil || n != 1 {
		t.Errorf("forgot %d keys, %v", n, err)
	}
}

func TestWaitingRequestsAreListed(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	var all []ca.WaitingRequest
	for range 5 {
		all = append(all, f.await())
	}
	elsewhere := f.await(func(w *ca.WaitingRequest) { w.Namespace = "db" })
	if err := f.say(all[1].ID, word("bob", false)); err != nil {
		t.Fatal(err)
	}
	overdue := f.await(func(w *ca.WaitingRequest) { w.Namespace = "late"; w.ExpiresAt = now().Add(-time.Second) })
	ids, err := f.OverdueRequests(ctx, 10)
	if err != nil || len(ids) != 1 || ids[0] != overdue.ID {
		t.Errorf("overdue: %v, %v", ids, err)
	}
	var seen []string
	for cursor := ""; ; {
		page, next, err := f.WaitingRequests(ctx, ca.WaitingFilter{Namespace: "web", Status: ca.StatusWaiting, Limit: 2, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range page {
			seen = append(seen, w.ID)
		}
		if cursor = next; next == "" {
			break
		}
	}
	if want := []string{all[4].ID, all[3].ID, all[2].ID, all[0].ID}; !reflect.DeepEqual(seen, want) {
		t.Errorf("waiting in web: %v, want %v", seen, want)
	}
	for status, want := range map[string]int{"": 7, ca.StatusRejected: 1, ca.StatusIssued: 0, ca.StatusIssuing: 0, ca.StatusExpired: 0, ca.StatusRefused: 0} {
		page, _, err := f.WaitingRequests(ctx, ca.WaitingFilter{Namespace: "*", Status: status, Limit: 500})
		if err != nil || len(page) != want {
			t.Errorf("%q: %d requests, %v, want %d", status, len(page), err, want)
		}
	}
	if page, _, err := f.WaitingRequests(ctx, ca.WaitingFilter{Namespace: "db", Limit: 1}); err != nil || len(page) != 1 || page[0].ID != elsewhere.ID {
		t.Errorf("in db: %+v, %v", page, err)
	}
	for _, bad := range []ca.WaitingFilter{{Status: "lost", Limit: 1}, {Limit: 0}, {Limit: 501}, {Limit: 1, Cursor: "x"}} {
		var invalid *ca.InvalidError
		if _, _, err := f.WaitingRequests(ctx, bad); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// However many requests are approved and go on waiting, each has its turn.
func TestEveryApprovedRequestHasItsTurn(t *testing.T) {
	f := setUp(t)
	waiting := map[string]bool{}
	for n := range 3 {
		w := f.await(func(w *ca.WaitingRequest) { w.ExpiresAt = now().Add(time.Duration(n+1) * time.Hour) })
		if err := f.say(w.ID, word("bob", true)); err != nil {
			t.Fatal(err)
		}
		waiting[w.ID] = true
	}
	for tries := 0; len(waiting) > 0; tries++ {
		ids, err := f.ApprovedRequests(context.Background(), 0, 1)
		if err != nil || len(ids) != 1 || tries == 200 {
			t.Fatalf("after %d tries %d requests had no turn: %v, %v", tries, len(waiting), ids, err)
		}
		delete(waiting, ids[0])
	}
}
