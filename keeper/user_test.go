package keeper

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-ca/chancery/hsm"
)

// connected is a connection to a keeper on which one writes and reads as one likes.
func connected(t *testing.T, r *running) *link {
	t.Helper()
	l, err := r.client.connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// asking is a request to sign a message with the authority's key.
func (a *authority) asking(request uint64, message []byte) []byte {
	id := sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
	return appendFrame(nil, frameSign, request, id[:], []byte{1}, message)
}

// user is the one that this process runs as, after changes.
func (r *running) user(changes ...func(*user)) *user {
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	u := r.keeper.userOf(uint32(os.Geteuid()))
	for _, change := range changes {
		change(u)
	}
	return u
}

// waits has the keeper wait so long for a request that has begun, on connections that come from now on.
func (r *running) waits(limit time.Duration) {
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	r.keeper.frameTimeout = limit
}

// TestALongHelloIsNotWaitedFor: nobody has memory or time of the keeper's before he has said what he speaks.
func TestALongHelloIsNotWaitedFor(t *testing.T) {
	r := startEither(t, newAuthority(t, 0), false)
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, frameHead+maxHello+1), make([]byte, frameHead)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a hello that is too long: %v", err)
	}
	within(t, patience, "the log tells why", func() error {
		if !strings.Contains(r.log.String(), "a frame of a length that cannot be") {
			return errors.New("it does not")
		}
		return nil
	})
}

// TestHalfARequest is not waited for: what a client begins he must send, wherever he stops.
func TestHalfARequest(t *testing.T) {
	a := newAuthority(t, 0)
	for _, worker := range []bool{false, true} {
		r := startEither(t, a, worker)
		r.waits(100 * time.Millisecond)
		short, long := a.asking(1, a.tbs(t, leaf())), a.asking(1, make([]byte, 1<<20))
		for _, begun := range [][]byte{short[:20], short[:len(short)-1], long[:20], long[:len(long)-1]} {
			l := connected(t, r)
			if _, err := l.out.Write(begun); err != nil && !errors.Is(err, syscall.EPIPE) { // where even this takes too long
				t.Fatal(err)
			}
			if err := l.in.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.frames.next(); !errors.Is(err, io.EOF) {
				t.Errorf("worker %t: after %d octets of a request: %v", worker, len(begun), err)
			}
		}
		l := connected(t, r)
		if _, err := l.out.Write(long[:20]); err != nil {
			t.Fatal(err)
		}
		l.close() // whoever hangs up leaves nothing behind either
		within(t, patience, "all room is given back", func() error {
			if !r.user().room.TryAcquire(maxRoom) {
				return errors.New("some is taken")
			}
			r.user().room.Release(maxRoom)
			return nil
		})
		r.stop()
	}
}

// TestLongRequestsShareRoom: one for which there is none waits, and those that are short do not wait for it.
func TestLongRequestsShareRoom(t *testing.T) {
	a := newAuthority(t, 0)
	for _, worker := range []bool{false, true} {
		r := startEither(t, a, worker)
		r.waits(patience)
		key, u := r.signer(t, a.certificate.PublicKey), r.user()
		if !u.room.TryAcquire(maxRoom) {
			t.Fatal("there is no room for the longest requests")
		}
		long := a.asking(7, bytes.Repeat([]byte("no certificate"), 100_000))
		l := connected(t, r)
		wrote := make(chan error, 1)
		go func() {
			_, err := l.out.Write(long)
			wrote <- err
		}()
		for range 20 {
			if err := a.issue(key, leaf()); err != nil {
				t.Errorf("worker %t: a short request: %v", worker, err)
			}
		}
		select {
		case <-wrote:
			t.Errorf("worker %t: a long request was read without room", worker)
		default:
		}
		u.room.Release(maxRoom)
		if f, err := l.frames.next(); err != nil || f.request != 7 || !errors.Is(parseError(f.body), ErrRefused) {
			t.Errorf("worker %t: when there was room again: request %d, %v", worker, f.request, err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		if !u.room.TryAcquire(maxRoom) {
			t.Errorf("worker %t: an answered request keeps its room", worker)
		}
		u.room.Release(maxRoom)
		r.stop()
	}
}

// TestRefusalsOfADay: those beyond are counted, and how many they were is told.
func TestRefusalsOfADay(t *testing.T) {
	a := newAuthority(t, 0)
	r := startEither(t, a, false)
	u := r.user()
	l := connected(t, r)
	refused := func() {
		t.Helper()
		if _, err := l.out.Write(a.asking(1, []byte("no certificate"))); err != nil {
			t.Fatal(err)
		}
		if f, err := l.frames.next(); err != nil || !errors.Is(parseError(f.body), ErrRefused) {
			t.Fatalf("it was not refused: %v", err)
		}
	}
	const hardly = 1e-9
	refused()
	u.written.SetLimit(hardly)
	if !u.written.AllowN(time.Now(), refusalsPerDay-1) {
		t.Fatal("there are fewer refusals in a day")
	}
	for range 50 {
		refused()
	}
	u.written.SetLimit(rate.Inf)
	refused()
	u.written.SetLimit(hardly)
	u.written.AllowN(time.Now(), refusalsPerDay)
	refused()
	refused()
	r.stop()
	var why []string
	for _, e := range readEntries(t, r.journal) {
		if e.Result == resultRefused {
			why = append(why, e.Why)
		}
	}
	if len(why) != 3 || !strings.HasSuffix(why[1], "(50 refusals before it were only counted)") || why[2] != "2 refusals were only counted" {
		t.Errorf("the journal tells of refusals: %q", why)
	}
	if n := strings.Count(r.log.String(), "msg=refused"); n != 2 {
		t.Errorf("the log tells of %d refusals", n)
	}
}

// TestWhatCostsAConnectionIsWrittenDown, or counted where no more is written: whoever is cut off does not go unseen.
func TestWhatCostsAConnectionIsWrittenDown(t *testing.T) {
	a := newAuthority(t, 0)
	for _, worker := range []bool{false, true} {
		r := startEither(t, a, worker)
		const hardly = 1e-9
		u := r.user()
		u.offences.SetLimit(hardly)
		if !u.offences.AllowN(time.Now(), refusalsPerSecond) {
			t.Fatal("there are fewer refusals in a second")
		}
		cut := func() {
			t.Helper()
			l := connected(t, r)
			if _, err := l.out.Write(a.asking(1, []byte("no certificate"))); err != nil {
				t.Fatal(err)
			}
			if _, err := l.frames.next(); !errors.Is(err, io.EOF) {
				t.Fatalf("it was not cut off: %v", err)
			}
		}
		cut()
		u.written.SetLimit(hardly)
		u.written.AllowN(time.Now(), refusalsPerDay-1)
		cut()
		cut()
		r.stop()
		var why []string
		for _, e := range readEntries(t, r.journal) {
			if e.Result == resultRefused {
				why = append(why, e.Why)
			}
		}
		if len(why) != 2 || !strings.HasPrefix(why[0], "more than 100 refusals in a second") || why[1] != "2 refusals were only counted" {
			t.Errorf("worker %t: the journal tells of refusals: %q", worker, why)
		}
	}
}

// TestReserve: whoever reserves what he is about to ask for is never told that there is no room. A key without a rate has room for all.
func TestReserve(t *testing.T) {
	for perSecond, room := range map[float64]int{0: 1000, 0.5: 2, 3: 3, 20: 20} {
		a := newAuthority(t, 0)
		config, log := a.config(t, a.fixture.Config())
		config.Keys[0].PerSecond, config.Worker = perSecond, nil
		r := start(t, config, log)
		key, ok := r.signer(t, a.certificate.PublicKey).(interface{ Reserve(int, time.Time) error })
		if !ok {
			t.Fatal("nothing can be reserved")
		}
		now := time.Now()
		for n := range room {
			if err := key.Reserve(1, now); err != nil {
				t.Fatalf("%g a second, after %d: %v", perSecond, n, err)
			}
		}
		if err := key.Reserve(1, now); (err == nil) != (perSecond == 0) || err != nil && !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%g a second, after %d in one moment: %v", perSecond, room, err)
		}
		if err := key.Reserve(2, now.Add(4*time.Second)); err != nil {
			t.Errorf("%g a second, four seconds later: %v", perSecond, err)
		}
		r.stop()
	}
}

// TestAHurryIsNoOffence: who asks for more than a key's rate permits is served later, and not taken for one who asks for what is not
// allowed.
func TestAHurryIsNoOffence(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	config.Keys[0].PerSecond, config.Worker = 1e-6, nil // two, and then none for days
	r := start(t, config, log)
	key := r.signer(t, a.certificate.PublicKey)
	for range 2 {
		if err := a.issue(key, leaf()); err != nil {
			t.Fatal(err)
		}
	}
	r.user().offences.SetLimit(1e-9)
	for range 2 * refusalsPerSecond {
		err := a.issue(key, leaf())
		if !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "times a second") {
			t.Fatalf("beyond the rate: %v", err)
		}
	}
	if _, err := key.SignMessage(nil, []byte("no certificate"), crypto.SHA256); !errors.Is(err, ErrRefused) {
		t.Errorf("what is not allowed: %v", err)
	}
	r.stop()
	refused := 0
	for _, e := range readEntries(t, r.journal) {
		if e.Result == resultRefused {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d refusals are written down, want 1", refused)
	}
	if n := strings.Count(log.String(), "more signatures in a second than its policy permits"); n != 1 {
		t.Errorf("the log tells %d times of the hurry", n)
	}
}

// TestRefusalsAreWrittenInFewWords, whatever was asked for.
func TestRefusalsAreWrittenInFewWords(t *testing.T) {
	a := newAuthority(t, 0)
	r := startEither(t, a, false)
	many := a.answer(t, func(r *answer) {
		for len(r.Responses) < maxAnswers {
			r.Responses = append(r.Responses, r.Responses[0])
		}
		last := r.Responses[0]
		last.NextUpdate = last.ThisUpdate.AddDate(1, 0, 0)
		r.Responses[maxAnswers-1] = last
	})
	if _, err := r.client.ask(frameSign, a.asking(0, many)[4+frameHead:]); !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	r.stop()
	for _, e := range readEntries(t, r.journal) {
		if e.Result == resultRefused && (e.Kind != kindOCSP || len(e.Detail) > 210 || len(e.Scope) > 210 || !strings.HasSuffix(e.Detail, "...")) {
			t.Errorf("of a refused %s it says %d and %d octets", e.Kind, len(e.Detail), len(e.Scope))
		}
	}
}

// TestUsersHaveTheirOwn: what one spends in connections and refusals no other lacks.
func TestUsersHaveTheirOwn(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	config.Worker = nil
	r := start(t, config, log)
	key := r.signer(t, a.certificate.PublicKey)
	r.keeper.mu.Lock()
	other := r.keeper.userOf(4712)
	other.clients = maxClients
	r.keeper.mu.Unlock()
	c := &client{keeper: r.keeper, user: other}
	other.offences.SetLimit(1e-9)
	refused := func() error {
		_, err := c.refuse(entry{Kind: kindUnknown, Result: resultRefused}, ErrRefused, time.Now())
		return err
	}
	for range refusalsPerSecond {
		if err := refused(); err != nil {
			t.Fatal(err)
		}
	}
	if refused() == nil {
		t.Error("there is no end to a user's refusals")
	}
	if err := a.issue(key, leaf()); err != nil {
		t.Error(err)
	}
	if _, err := key.SignMessage(nil, []byte("no certificate"), crypto.SHA256); !errors.Is(err, ErrRefused) {
		t.Errorf("after another's refusals: %v", err)
	}
	r.user(func(u *user) { u.clients += maxClients })
	if _, err := r.client.connect(); err == nil {
		t.Error("there is no end to a user's connections")
	}
	r.user(func(u *user) { u.clients -= maxClients })
	if _, err := r.client.connect(); err != nil {
		t.Error(err)
	}
}

// TestAnUnprovenCheckpointIsNoOffence: it is what happens after another host's keeper has signed.
func TestAnUnprovenCheckpointIsNoOffence(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	policy := a.logIn(t, hsm.ECDSAP256)
	config.Keys = append(config.Keys, policy)
	config.Worker = nil
	r := start(t, config, log)
	asks, h := asker{t, r.signer(t, policy.PublicKey)}, new(history).grow(3, "log")
	asks.must(h, 0, 2)
	r.user().offences.SetLimit(1e-9)
	for range 2 * refusalsPerSecond {
		if err := asks.signs(h, 0, 3); !isUnproven(err, 2) {
			t.Fatalf("without a proof: %v", err)
		}
	}
	asks.must(h, 2, 3)
}

// TestTheLogDoesNotFill: of clients that are turned away again and again not each is told.
func TestTheLogDoesNotFill(t *testing.T) {
	r := startEither(t, newAuthority(t, 0), false)
	r.keeper.complaints.SetLimit(1e-9)
	turnedAway := func() {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(make([]byte, 4+frameHead)); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 1))
	}
	for range complaintsAtOnce + 50 {
		turnedAway()
	}
	within(t, patience, "all have been turned away", func() error {
		if n := r.keeper.unsaid.Load(); n != 50 {
			return fmt.Errorf("of %d nothing is said", n)
		}
		return nil
	})
	if n := strings.Count(r.log.String(), "a client's connection was ended"); n != complaintsAtOnce {
		t.Errorf("the log tells of %d connections", n)
	}
	r.keeper.complaints.SetLimit(rate.Inf)
	turnedAway()
	within(t, patience, "the log says how many it has not", func() error {
		if !strings.Contains(r.log.String(), "unsaid=50") {
			return errors.New("it does not")
		}
		return nil
	})
}
