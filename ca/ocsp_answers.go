package ca

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// formsOfCertID is in how many ways a certificate is asked for: each has an answer of its own.
const formsOfCertID = 4

// statusAlone, in place of a form, is a flight that looks a status up and signs nothing.
const statusAlone = -1

// serialKey is a serial number as a key of maps.
type serialKey struct {
	octets uint8
	serial [20]byte
}

func serialOf(id issuance.CertID) serialKey { return serialKeyOf(id.Serial) }

// serialKeyOf cuts what is longer than any serial number is; the parser of requests and the database refuse such.
func serialKeyOf(serial []byte) (k serialKey) {
	k.octets = uint8(copy(k.serial[:], serial))
	return k
}

// answers are what is known of an authority's certificates, and the answers signed about them. Those asked for least recently are
// forgotten first. What was never issued has a place of its own, so that asking about many such serials forgets nothing else.
type answers struct {
	mu      sync.Mutex
	issued  recent
	unknown recent
	flights map[flightKey]*flight
}

type flightKey struct {
	serial serialKey
	form   int
}

// recent is a bounded map that forgets what was not used for longest.
type recent struct {
	most     int
	bySerial map[serialKey]*list.Element // of *certificateAnswers
	order    *list.List                  // the last used in front
}

// certificateAnswers are what is known of one certificate.
type certificateAnswers struct {
	serial  serialKey
	status  CertificateStatus
	knownAt time.Time
	signed  [formsOfCertID]keptAnswer
}

type keptAnswer struct {
	response *OCSPResponse
	dueAt    time.Time // when it is made anew
	until    time.Time // when it is not given any more
}

// flight is an answer, or a status, in the making.
type flight struct {
	done  chan struct{}
	stale bool // guarded by answers.mu: a revocation has come since it took off

	// Written before done is closed.
	status CertificateStatus
	answer *OCSPResponse
	err    error
}

// wait waits for the flight to land.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return errOCSPBusy
	}
}

func newAnswers(issued, unknown int) *answers {
	return &answers{issued: newRecent(issued), unknown: newRecent(unknown), flights: map[flightKey]*flight{}}
}

func newRecent(most int) recent {
	return recent{most: most, bySerial: map[serialKey]*list.Element{}, order: list.New()}
}

func (r *recent) get(serial serialKey) *certificateAnswers {
	element := r.bySerial[serial]
	if element == nil {
		return nil
	}
	r.order.MoveToFront(element)
	return element.Value.(*certificateAnswers)
}

// put is get, and makes a place where there is none.
func (r *recent) put(serial serialKey) *certificateAnswers {
	if known := r.get(serial); known != nil {
		return known
	}
	if len(r.bySerial) >= r.most {
		oldest := r.order.Back()
		r.order.Remove(oldest)
		delete(r.bySerial, oldest.Value.(*certificateAnswers).serial)
	}
	made := &certificateAnswers{serial: serial}
	r.bySerial[serial] = r.order.PushFront(made)
	return made
}

func (r *recent) forget(serial serialKey) {
	if element := r.bySerial[serial]; element != nil {
		r.order.Remove(element)
		delete(r.bySerial, serial)
	}
}

// get is what is known of a serial.
func (a *answers) get(serial serialKey) *certificateAnswers {
	if known := a.issued.get(serial); known != nil {
		return known
	}
	return a.unknown.get(serial)
}

// answer is a kept answer, if there is one that may still be given, and whether it is due to be made anew. One of a time that is still to
// come is: it was made before the clock was put back, and clients may refuse it.
func (a *answers) answer(serial serialKey, form int, now time.Time) (response *OCSPResponse, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.get(serial)
	if known == nil {
		return nil, true
	}
	kept := &known.signed[form]
	if kept.response == nil || !now.Before(kept.until) {
		return nil, true
	}
	return kept.response, !now.Before(kept.dueAt) || now.Before(kept.response.ThisUpdate)
}

// status is what was found out about a serial, and when, if not before a moment.
func (a *answers) status(serial serialKey, since time.Time) (CertificateStatus, time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.issued.get(serial)
	if known == nil || known.knownAt.Before(since) {
		return CertificateStatus{}, time.Time{}, false
	}
	return known.status, known.knownAt, true
}

// fly joins the flight for a serial and form, or begins one, which is then the caller's.
func (a *answers) fly(serial serialKey, form int) (f *flight, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := flightKey{serial, form}
	if f := a.flights[key]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	a.flights[key] = f
	return f, true
}

// takeOff says that what the flight finds out from now on is not stale.
func (a *answers) takeOff(f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.stale = false
}

// landing is what a flight has found out.
type landing struct {
	status  CertificateStatus
	answer  *OCSPResponse
	err     error
	at      time.Time // when it landed
	knownAt time.Time // when the status was looked up: by this flight, or by one before
}

// retryOCSP is how long after a failure the next try may be, while there is still an answer to give: those who ask do not wait until then.
const retryOCSP = 10 * time.Second

// latestUpdate is how old an answer may become (Baseline Requirements, section 4.9.10).
const latestUpdate = 4 * 24 * time.Hour

// dueAfter is how old an answer with an interval becomes before it is made anew: half of it, at least eight hours before the end of one of
// sixteen, and four days at most. A sixteenth is left for clocks that are wrong, and for trying again.
func dueAfter(interval time.Duration) time.Duration { return min(interval/2, latestUpdate) / 16 * 15 }

// land ends a flight, and keeps what it found out, if it may. It returns false where a revocation has overtaken it: then it flies again.
func (a *answers) land(serial serialKey, form int, f *flight, l landing, keep bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.stale && l.err == nil {
		return false
	}
	switch {
	case l.err != nil:
		a.later(serial, form, l.at)
	case keep:
		a.keep(serial, form, l)
	}
	delete(a.flights, flightKey{serial, form})
	f.status, f.answer, f.err = l.status, l.answer, l.err
	close(f.done)
	return true
}

// postpone has an answer given for a while as it is that takes long to be made anew.
func (a *answers) postpone(serial serialKey, form int, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.get(serial); known != nil && !now.Before(known.signed[form].dueAt) {
		a.later(serial, form, now)
	}
}

func (a *answers) later(serial serialKey, form int, now time.Time) {
	if known := a.get(serial); known != nil && form != statusAlone {
		known.signed[form].dueAt = now.Add(retryOCSP)
	}
}

func (a *answers) keep(serial serialKey, form int, l landing) {
	unknown := !l.status.Issued && !l.status.Revoked
	if unknown && form == statusAlone {
		return // it was asked with a nonce, and is signed each time: looking it up again does not count
	}
	place := &a.issued
	if unknown {
		place = &a.unknown
	} else {
		a.unknown.forget(serial)
	}
	known := place.put(serial)
	known.status, known.knownAt = l.status, l.knownAt
	if form == statusAlone {
		return
	}
	made, until := l.answer.ThisUpdate, l.answer.NextUpdate
	kept := keptAnswer{response: l.answer, until: until, dueAt: made.Add(dueAfter(until.Sub(made)))}
	if unknown {
		kept.until = l.knownAt.Add(unknownKept)
		kept.dueAt = kept.until
	}
	known.signed[form] = kept
}

// revoked forgets what is known of a certificate, and makes flights about it stale.
func (a *answers) revoked(serial serialKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued.forget(serial)
	a.unknown.forget(serial)
	for form := statusAlone; form < formsOfCertID; form++ {
		if f := a.flights[flightKey{serial, form}]; f != nil {
			f.stale = true
		}
	}
}

// forgetAll is revoked for all certificates.
func (a *answers) forgetAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued, a.unknown = newRecent(a.issued.most), newRecent(a.unknown.most)
	for _, f := range a.flights {
		f.stale = true
	}
}

// size is of how many issued certificates something is known.
func (a *answers) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.issued.bySerial)
}

// bucket bounds how often something is done: so often in a second, and in a burst.
type bucket struct {
	perSecond, burst float64

	mu     sync.Mutex
	left   float64
	filled time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.filled.IsZero() {
		b.left = b.burst
	} else {
		b.left = min(b.burst, b.left+max(now.Sub(b.filled).Seconds(), 0)*b.perSecond)
	}
	b.filled = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
