package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// ledger is what clients have: the list of every certificate that any of them received, and what they were told.
type ledger struct {
	mu       sync.Mutex
	held     map[string][]byte          // DER by serial
	keys     map[string]map[string]bool // serials by idempotency key
	revoked  map[string]bool            // serials whose revocation was acknowledged
	numbers  map[string]*big.Int        // the highest CRL number seen, by replica
	forgiven map[string]bool            // digests signed after a backup that was then restored
}

func newLedger() *ledger {
	return &ledger{
		held: map[string][]byte{}, keys: map[string]map[string]bool{}, revoked: map[string]bool{}, numbers: map[string]*big.Int{},
		forgiven: map[string]bool{},
	}
}

// asked is what came of asking for a certificate.
type asked struct {
	serial string
	got    answer
	err    error // nil: there is a certificate
}

var errNoCertificate = errors.New("no certificate")

// ask asks a replica for a certificate, and keeps it.
func (h *harness) ask(ctx context.Context, r *replica, csr, key string) asked {
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	issued, got, err := r.issueCSR(ctx, csr, header)
	if err == nil && got.status != http.StatusCreated && got.status != http.StatusOK {
		err = fmt.Errorf("%w: %d %s", errNoCertificate, got.status, got.body)
	}
	if err != nil {
		return asked{got: got, err: err}
	}
	block, _ := pem.Decode([]byte(issued.Certificate))
	if block == nil {
		return asked{got: got, err: fmt.Errorf("%w in %s", errNoCertificate, got.body)}
	}
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	h.held[issued.Serial] = block.Bytes
	if key != "" {
		if h.keys[key] == nil {
			h.keys[key] = map[string]bool{}
		}
		h.keys[key][issued.Serial] = true
	}
	return asked{issued.Serial, got, nil}
}

// load are clients at work, and others who verify what they have. What a client is answered is held against what it may see.
type load struct {
	t    *testing.T
	h    *harness
	sees sight
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	issued, revoked, unavailable, cut, refused, complaints atomic.Int64
}

// At every moment of a fault some request is on its way, and there is room left on two processors for four tables of faults at a time.
const (
	clients    = 4
	clientRest = 200 * time.Millisecond
	verifyRest = 250 * time.Millisecond
)

// load has clients begin. They go on until end.
func (h *harness) load(t *testing.T, sees sight) *load {
	l := &load{t: t, h: h, sees: sees, done: make(chan struct{})}
	for range clients {
		l.wg.Go(l.work)
	}
	for _, name := range h.names {
		l.wg.Go(func() { l.verify(name) })
	}
	return l
}

// end has every client finish what it is at.
func (l *load) end() {
	l.once.Do(func() { close(l.done) })
	l.wg.Wait()
}

// every does something again and again until the load ends.
func (l *load) every(rest time.Duration, do func(n int)) {
	tick := time.NewTicker(rest)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-l.done:
			return
		case <-tick.C:
			do(n)
		}
	}
}

// work is a client: of four requests one has no idempotency key, two are repeated under theirs until there is a certificate, and one
// revokes.
func (l *load) work() {
	var mine []string
	l.every(clientRest, func(n int) {
		switch {
		case n%4 == 3 && len(mine) > 0:
			if l.revoke(mine[0]) {
				mine = mine[1:]
			}
		case n%4 == 0:
			if a, ok := l.request(newRequest(l.t, "once.dev.example"), ""); ok {
				mine = append(mine, a.serial)
			}
		default:
			csr, key := newRequest(l.t, "keyed.dev.example"), newID()
			for {
				if a, ok := l.request(csr, key); ok {
					mine = append(mine, a.serial)
					return
				}
				select {
				case <-l.done:
					return
				case <-time.After(clientRest):
				}
			}
		}
	})
}

func (l *load) request(csr, key string) (asked, bool) {
	r := l.h.pick()
	if r == nil {
		return asked{}, false
	}
	a := l.h.ask(l.t.Context(), r, csr, key)
	if errors.Is(a.err, errNoCertificate) {
		l.judge(r, "a request", a.got, nil, key != "")
		return a, false
	}
	if a.err != nil {
		l.judge(r, "a request", a.got, a.err, false)
		return a, false
	}
	l.issued.Add(1)
	return a, true
}

func (l *load) revoke(serial string) bool {
	r := l.h.pick()
	if r == nil {
		return false
	}
	got, err := r.revoke(l.t.Context(), serial, "superseded")
	if err == nil && got.status == http.StatusNotFound && l.sees&unknown != 0 {
		return true
	}
	if err != nil || got.status != http.StatusOK {
		l.judge(r, "a revocation", got, err, false)
		return false
	}
	l.revoked.Add(1)
	l.h.ledger.mu.Lock()
	defer l.h.ledger.mu.Unlock()
	l.h.ledger.revoked[serial] = true
	return true
}

func (r *replica) revoke(ctx context.Context, serial, reason string) (answer, error) {
	return r.call(ctx, http.MethodPost, "/api/v1/certificates/"+serial+"/revoke", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, fmt.Appendf(nil, `{"reason":%q}`, reason))
}

// mustRevoke is revoke where it must succeed.
func (r *replica) mustRevoke(ctx context.Context, t testing.TB, serial, reason string) {
	t.Helper()
	if got, err := r.revoke(ctx, serial, reason); err != nil || got.status != http.StatusOK {
		t.Fatalf("revoking: %d %s, %v", got.status, got.body, err)
	}
}

func hexSerial(c *x509.Certificate) string { return fmt.Sprintf("%040x", c.SerialNumber) }

// judge counts an answer that is none, and complains of one that the fault does not permit.
func (l *load) judge(r *replica, what string, got answer, err error, keyed bool) {
	var kind sight
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		l.refused.Add(1)
		kind = refused
	case err != nil:
		l.cut.Add(1)
		kind = cut
	case got.status == http.StatusServiceUnavailable:
		l.unavailable.Add(1)
		if got.header.Get("Retry-After") == "" {
			l.t.Errorf("%s of replica %s was answered 503 without Retry-After", what, r.name)
		}
		kind = unavailable
	case got.status == http.StatusConflict && keyed:
		return // the first of two requests with a key is open
	}
	const enough = 5
	if l.sees&kind == 0 && l.complaints.Add(1) <= enough {
		l.t.Errorf("%s of replica %s was answered %d %s, %v", what, r.name, got.status, got.body, err)
	}
}

// verify fetches from a replica what everybody may, all the time: it is served whatever happens, and no CRL is older than one before.
func (l *load) verify(name string) {
	l.every(verifyRest, func(int) {
		r := l.h.replica(name)
		if r == nil || !l.h.isServing(r) {
			return
		}
		for _, path := range []string{"/crl/" + devIssuer + ".crl", "/ca/" + devIssuer + "/chain.pem"} {
			status, body, err := l.h.get(r.distribution + path)
			if !l.h.isServing(r) {
				return // it went away meanwhile
			}
			if err != nil || status != http.StatusOK {
				l.t.Errorf("%s of replica %s is not served: %d, %v", path, name, status, err)
				return
			}
			if path == "/ca/"+devIssuer+"/chain.pem" {
				return
			}
			list, err := x509.ParseRevocationList(body)
			if err != nil {
				l.t.Errorf("the CRL of replica %s: %v", name, err)
				return
			}
			if before := l.h.sawNumber(name, list.Number); before != nil {
				l.t.Errorf("replica %s served CRL %s after %s", name, list.Number, before)
			}
		}
	})
}

// sawNumber keeps the number of a CRL that a replica served, and returns the one before where that was higher.
func (g *ledger) sawNumber(name string, number *big.Int) (before *big.Int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.numbers[name]; known != nil && number.Cmp(known) < 0 {
		return known
	}
	g.numbers[name] = number
	return nil
}
