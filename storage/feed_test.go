package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// follow reads the feed from a position: what was given, as "serial sequence reason", and the next position.
func (f *fixture) follow(from ca.FeedPosition) ([]string, ca.FeedPosition) {
	f.t.Helper()
	given := []string{}
	next, err := f.RevocationsSince(context.Background(), from, func(r ca.Revocation) error {
		given = append(given, entryName(r))
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	slices.Sort(given)
	return given, next
}

func entryName(r ca.Revocation) string {
	return fmt.Sprintf("%x %d %s", r.Serial, r.Sequence, r.Reason)
}

func TestTheFeedGivesWhatIsWritten(t *testing.T) {
	f := setUp(t)
	ended := f.issue(func(c *ca.NewCertificate) { c.NotAfter = now().Add(-time.Hour) })
	f.revoke(ended, issuance.CertificateHold, 0)
	c := f.issue()
	held := f.revoke(c, issuance.CertificateHold, 0)
	given, next := f.follow(ca.FeedPosition{})
	if want := []string{entryName(held)}; !slices.Equal(given, want) {
		t.Errorf("from the start: %q, want %q", given, want)
	}
	if given, _ := f.follow(next); len(given) != 0 {
		t.Errorf("nothing was written, and given was %q", given)
	}
	released := f.revoke(c, issuance.RemoveFromCRL, 1)
	late := f.revoke(ended, issuance.Superseded, 1)
	want := []string{entryName(released), entryName(late)}
	slices.Sort(want)
	if given, _ := f.follow(next); !slices.Equal(given, want) {
		t.Errorf("since then: %q, want %q", given, want)
	}
	_, err := f.RevocationsSince(context.Background(), ca.FeedPosition{}, func(r ca.Revocation) error {
		want := held
		if r.Sequence == 2 {
			want = released
		}
		want.Comment, want.Actor, want.EventID = "", "", ""
		if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
			t.Errorf("given %+v\nwant %+v", r, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	ahead := ca.FeedPosition{Server: next.Server, Xact: next.Xact + 1_000_000} // of which the server was a copy
	if given, at := f.follow(ahead); !slices.Equal(given, []string{entryName(held), entryName(released)}) || at.Xact >= ahead.Xact {
		t.Errorf("from a position that the server has not come to: %q, and on from %v", given, at)
	}
	stop := errors.New("enough")
	if after, err := f.RevocationsSince(context.Background(), next, func(ca.Revocation) error { return stop }); !errors.Is(err, stop) || after != next {
		t.Errorf("a consumer that fails: %v, %v", after, err)
	}
}

const bareRevocation = `
	INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
	VALUES ('issuing-1', $1, 1, 4, now(), '', 'x', gen_random_uuid(), 'full', now() + interval '1 day', sha256($1))`

// A transaction that began before others, and commits after they were read, is not missed.
func TestTheFeedWaitsForTransactionsThatCommitLate(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	_, at := f.follow(ca.FeedPosition{})
	slow := connect(t, f.db.OwnerURL)
	tx, err := slow.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, bareRevocation, []byte{0x1c, 1}); err != nil {
		t.Fatal(err)
	}
	quick := f.revoke(f.issue(), issuance.Superseded, 0)
	given, next := f.follow(at)
	if want := []string{entryName(quick)}; !slices.Equal(given, want) {
		t.Errorf("while one is open: %q, want %q", given, want)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	given, next = f.follow(next)
	if want := []string{"1c01 1 superseded", entryName(quick)}; !slices.Equal(given, want) {
		t.Errorf("after its commit: %q, want %q", given, want)
	}
	if given, _ := f.follow(next); len(given) != 0 {
		t.Errorf("afterwards: %q", given)
	}
}

// Followers that read while many write have all of it in the end.
func TestTheFeedMissesNothing(t *testing.T) {
	f := setUp(t)
	const writers, each = 6, 30
	issued := make([]ca.NewCertificate, writers*each)
	for n := range issued {
		issued[n] = f.issue()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var writing, following sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				r := revocationOf(issued[w*each+n], issuance.Superseded)
				if _, err := f.RecordRevocation(ctx, r, 0, leafWithID(t, r.EventID, audit.CertificateRevoked)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	var at ca.FeedPosition
	read := func() {
		next, err := f.RevocationsSince(context.Background(), at, func(r ca.Revocation) error {
			seen[string(r.Serial)] = true
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		at = next
	}
	following.Go(func() {
		for ctx.Err() == nil {
			read()
		}
	})
	writing.Wait()
	cancel()
	following.Wait()
	read()
	if len(seen) != len(issued) {
		t.Errorf("%d of %d were seen", len(seen), len(issued))
	}
}

// Transaction numbers that a crash takes back may be given again: then everything is read anew.
func TestTheFeedBeginsAnewAfterACrash(t *testing.T) {
	server := storagetest.NewServer(t, storagetest.Options{Durable: true})
	f := &fixture{Store: server.Store(t), t: t, db: &server.Database}
	r := f.revoke(f.issue(), issuance.Superseded, 0)
	_, at := f.follow(ca.FeedPosition{})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	given, next := f.follow(at)
	if want := []string{entryName(r)}; !slices.Equal(given, want) || next.Server == at.Server {
		t.Errorf("after the crash: %q from %v to %v, want %q", given, at, next, want)
	}
}

// What a restore from another server brings has numbers that this one has not come to. It is read with everything else, once.
func TestRestoredEntriesAreReadOnce(t *testing.T) {
	f := setUp(t)
	c := f.issue()
	f.exec(`ALTER TABLE revocations DISABLE TRIGGER entries_follow`) // as whoever restores does: the trigger says who writes now
	f.exec(`ALTER TABLE revocations ALTER COLUMN xact SET DEFAULT '1000000000000'`)
	restored := f.revoke(c, issuance.CertificateHold, 0)
	f.exec(`ALTER TABLE revocations ENABLE TRIGGER entries_follow`)
	f.exec(`ALTER TABLE revocations ALTER COLUMN xact SET DEFAULT pg_current_xact_id()`)
	given, next := f.follow(ca.FeedPosition{})
	if want := []string{entryName(restored)}; !slices.Equal(given, want) {
		t.Errorf("from the start: %q, want %q", given, want)
	}
	revoked := f.revoke(c, issuance.Superseded, 1)
	if given, _ := f.follow(next); !slices.Equal(given, []string{entryName(revoked)}) {
		t.Errorf("since then: %q", given)
	}
}

func TestWatchersAreWokenSoon(t *testing.T) {
	f := setUp(t)
	ctx, cancel := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1000)
	var watching sync.WaitGroup
	watching.Go(func() { f.WatchRevocations(ctx, func() { changed <- struct{}{} }) })
	<-changed // it listens now
	conn := connect(t, f.db.OwnerURL)
	var took []time.Duration
	for n := range 20 {
		for len(changed) > 0 {
			<-changed
		}
		began := time.Now()
		if _, err := conn.Exec(context.Background(), bareRevocation, []byte{0x1c, 2, byte(n)}); err != nil {
			t.Fatal(err)
		}
		<-changed
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	// Who looks for himself is told after a second, each time. On a machine that is busy, notifications may take as long now and then.
	if soon := took[len(took)/4]; soon > 700*time.Millisecond {
		t.Errorf("of %d times a watcher was told after %s at the soonest quarter", len(took), soon)
	}
	f.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN chancery_revocations'`)
	<-changed // the fallback
	cancel()
	watching.Wait()
}

// A program from before the feed names no transaction, and is followed all the same.
func TestOlderProgramsFeedToo(t *testing.T) {
	f := setUp(t)
	_, at := f.follow(ca.FeedPosition{})
	if _, err := f.owner.Exec(context.Background(), bareRevocation, []byte{0x1c, 3}); err != nil {
		t.Fatal(err)
	}
	if given, _ := f.follow(at); !slices.Equal(given, []string{"1c03 1 superseded"}) {
		t.Errorf("given %q", given)
	}
}
