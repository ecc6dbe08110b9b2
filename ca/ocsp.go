package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

const (
	// MinOCSPValidity is the least that an answer holds (Baseline Requirements, section 4.9.10). Both ends of the interval count.
	MinOCSPValidity = 8 * time.Hour
	// MaxOCSPValidity is the most that an answer holds (Baseline Requirements, section 4.9.10).
	MaxOCSPValidity = 10 * 24 * time.Hour
	// DefaultOCSPAnswers is of how many certificates answers are kept where the plan does not say. An answer takes about 1.5 KB.
	DefaultOCSPAnswers = 100_000

	// ocspDeadline is how long a client waits until an answer is looked up and it is its turn to have it signed, and how long the key then
	// has for that. Afterwards the client is told to try later.
	ocspDeadline = 2 * time.Second
	// ocspPatience is how long a client waits at most for an answer that is made anew while there is one that holds.
	ocspPatience = time.Second
	// ocspSigning and ocspLooking are how many answers are signed, and certificates looked up, at once. More wait for their turn.
	ocspSigning = 64
	ocspLooking = 8

	// unknownValidity is how long it holds that a serial was never issued: it may be issued at any moment. unknownKept is how long such an
	// answer is given again, and unknownAnswers of how many serials it is kept.
	unknownValidity = 5 * time.Minute
	unknownKept     = 5 * time.Second
	unknownAnswers  = 10_000
	// unknownPerSecond and unknownBurst bound the signatures over what was never issued, so that they leave room for those over what was.
	unknownPerSecond = 200
	unknownBurst     = 400
)

// OCSPStore looks up what OCSP answers say, and the certificates of responders.
type OCSPStore interface {
	// CertificateStatus is the state of one serial of an authority. Precertificates, orphans, imported certificates and those of
	// authorities below count as issued.
	CertificateStatus(ctx context.Context, issuer string, serial []byte) (CertificateStatus, error)
	// ResponderCertificates are the certificates, DER, that an authority has issued to a key under ResponderProfile and that are neither
	// revoked nor expired; the one that ends last comes first.
	ResponderCertificates(ctx context.Context, issuer string, spki [32]byte) ([][]byte, error)
}

// CertificateStatus is what an OCSP answer says of a serial.
type CertificateStatus struct {
	Issued    bool
	NotAfter  time.Time // zero where it is not known
	Revoked   bool      // or on hold
	RevokedAt time.Time
	Reason    issuance.Reason
}

// OCSPPlan says how OCSP requests about one authority's certificates are answered.
type OCSPPlan struct {
	Authority string
	// Key is a key of the responder's own, which the authority certifies. Nil: the authority's key answers.
	Key      crypto.Signer
	Validity time.Duration // from thisUpdate to nextUpdate, both seconds included; MinOCSPValidity to MaxOCSPValidity
	Answers  int           // of how many certificates answers are kept; 0: DefaultOCSPAnswers
	// Retention is for how long after its end the state of a certificate is surely known; 0: for as long as there is the authority.
	Retention time.Duration
}

// OCSPMetrics counts OCSP answers. Status is good, revoked or unknown, "several" where a request asks about more than one certificate, or
// the name of a refusal; source is cache, signed (and kept), live (for this request alone) or none, of a refusal.
type OCSPMetrics interface {
	OCSPAnswered(authority, status, source string, age time.Duration)
	OCSPSigned(authority string, took time.Duration)
	OCSPKept(authority string, certificates int)
}

// OCSPResponse is what a request is answered with. It is shared, and must not be changed.
type OCSPResponse struct {
	DER        []byte
	Refusal    issuance.OCSPRefusal // 0: the response is signed
	Digest     [sha256.Size]byte    // of DER
	ThisUpdate time.Time            // zero for a refusal
	NextUpdate time.Time            // the earliest there is in it
	Shared     bool                 // it is the same for whoever asks, and about a certificate that was issued: caches may keep it
	status     string
	rendering  sync.Once
	rendered   any
}

// Rendered is what render made of the response the first time. A kept response is given often, and a front end need not write the same
// headers each time.
func (r *OCSPResponse) Rendered(render func() any) any {
	r.rendering.Do(func() { r.rendered = render() })
	return r.rendered
}

// ocsp answers OCSP requests.
type ocsp struct {
	responders map[string]*responder
	signing    chan struct{}
	looking    chan struct{}
	unknown    *bucket
	wake       bell         // a revocation may have been committed
	following  atomic.Bool  // revocations are followed, so that answers can be kept
	syncedAt   atomic.Int64 // Unix nanoseconds: every revocation until then is known here
	work       sync.WaitGroup
}

// responder answers for one authority.
type responder struct {
	authority *Authority
	key       crypto.Signer // of its own; nil: the authority's
	validity  time.Duration
	retention time.Duration
	signs     atomic.Pointer[issuance.Responder] // nil until there is a certificate
	health    *health
	kept      *answers
}

func newOCSP(plans []OCSPPlan, authorities map[string]*Authority) (*ocsp, error) {
	o := &ocsp{
		responders: map[string]*responder{}, signing: make(chan struct{}, ocspSigning), looking: make(chan struct{}, ocspLooking),
		unknown: &bucket{perSecond: unknownPerSecond, burst: unknownBurst}, wake: newBell(),
	}
	for _, p := range plans {
		a := authorities[p.Authority]
		switch {
		case a == nil || o.responders[p.Authority] != nil:
			return nil, fmt.Errorf("ca: OCSP is planned for %q, which has no open key, or twice", p.Authority)
		case p.Validity < MinOCSPValidity || p.Validity > MaxOCSPValidity:
			return nil, fmt.Errorf("ca: OCSP answers for %q: a validity of %s is not between %s and %s", p.Authority, p.Validity, MinOCSPValidity, MaxOCSPValidity)
		}
		most := p.Answers
		if most == 0 {
			most = DefaultOCSPAnswers
		}
		r := &responder{authority: a, key: p.Key, validity: p.Validity, retention: p.Retention, health: &a.health, kept: newAnswers(most, unknownAnswers)}
		if p.Key == nil {
			direct, err := a.Issuer.Responder()
			if err != nil {
				return nil, fmt.Errorf("ca: OCSP answers for %q: %w", p.Authority, err)
			}
			r.signs.Store(direct)
		} else {
			r.health = &health{}
		}
		o.responders[p.Authority] = r
	}
	return o, nil
}

// OCSP answers one request about certificates of an authority. Its only error is ErrNotFound, where no OCSP is offered for the authority.
// Everybody may ask. What can be signed beforehand is, and kept until half its validity has nearly passed, until a revocation, or until
// there are too many others; a request with a nonce, or about several certificates, is signed as it comes.
func (c *CA) OCSP(ctx context.Context, authority string, request []byte) (*OCSPResponse, error) {
	r := c.ocsp.responders[authority]
	if r == nil {
		return nil, fmt.Errorf("OCSP for %q: %w", authority, ErrNotFound)
	}
	response, source, err := c.answerOCSP(ctx, r, request)
	if err != nil {
		response, source = c.refuseOCSP(ctx, r, err), "none"
	}
	age := time.Duration(0)
	if response.Refusal == 0 {
		age = c.now().Sub(response.ThisUpdate)
	}
	c.metrics.OCSPAnswered(authority, response.status, source, age)
	return response, nil
}

// Errors that become refusals.
var (
	errNotResponsible = errors.New("the request is about another authority's certificate")
	errOCSPBusy       = errors.New("too much is waiting to be answered")
)

// refusals are those without an answer, made once.
var refusals = map[issuance.OCSPRefusal]*OCSPResponse{
	issuance.OCSPMalformed: refusal(issuance.OCSPMalformed), issuance.OCSPUnauthorized: refusal(issuance.OCSPUnauthorized),
	issuance.OCSPTryLater: refusal(issuance.OCSPTryLater), issuance.OCSPInternalError: refusal(issuance.OCSPInternalError),
}

func refusal(r issuance.OCSPRefusal) *OCSPResponse {
	return &OCSPResponse{DER: r.DER(), Refusal: r, Digest: sha256.Sum256(r.DER()), status: r.String()}
}

func (c *CA) refuseOCSP(ctx context.Context, r *responder, why error) *OCSPResponse {
	switch {
	case errors.Is(why, issuance.ErrOCSPRequest):
		return refusals[issuance.OCSPMalformed]
	case errors.Is(why, errNotResponsible):
		return refusals[issuance.OCSPUnauthorized]
	case errors.Is(why, ErrUnavailable), errors.Is(why, errOCSPBusy), errors.Is(why, context.DeadlineExceeded), errors.Is(why, context.Canceled):
		return refusals[issuance.OCSPTryLater]
	}
	c.log.ErrorContext(ctx, "an OCSP request could not be answered", "authority", r.authority.Name, "error", why)
	return refusals[issuance.OCSPInternalError]
}

func (c *CA) answerOCSP(ctx context.Context, r *responder, request []byte) (_ *OCSPResponse, source string, err error) {
	asked, err := issuance.ParseOCSPRequest(request)
	if err != nil {
		return nil, "", err
	}
	signs := r.signs.Load()
	if signs == nil {
		return nil, "", fmt.Errorf("the responder has no certificate yet: %w", ErrUnavailable)
	}
	form := 0
	for _, id := range asked.Certificates {
		var ours bool
		if form, ours = signs.Form(id); !ours {
			return nil, "", errNotResponsible
		}
	}
	if len(asked.Certificates) == 1 && asked.Nonce == nil {
		return c.keptAnswer(ctx, r, asked.Certificates[0], form)
	}
	response, err := c.liveAnswer(ctx, r, asked)
	return response, "live", err
}

// keptAnswer is the answer to the plain question about one certificate. One that is due to be made anew is given only where that fails, or
// takes too long, until its nextUpdate: given while it is made anew, it would be what a client gets who is the first to ask in days.
func (c *CA) keptAnswer(ctx context.Context, r *responder, id issuance.CertID, form int) (*OCSPResponse, string, error) {
	serial := serialOf(id)
	kept, due := r.kept.answer(serial, form, c.now())
	if kept != nil && !due {
		return kept, "cache", nil
	}
	f := c.begin(r, id, form)
	if kept != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ocspPatience)
		defer cancel()
	}
	err := f.wait(ctx)
	switch {
	case err != nil:
		r.kept.postpone(serial, form, c.now()) // not all who ask meanwhile should wait as long
	case f.err != nil:
		err = f.err
	default:
		return f.answer, "signed", nil
	}
	if kept, _ = r.kept.answer(serial, form, c.now()); kept != nil { // a revocation may have overtaken it since
		return kept, "cache", nil
	}
	return nil, "", err
}

// liveAnswer signs for one request alone.
func (c *CA) liveAnswer(ctx context.Context, r *responder, asked *issuance.OCSPRequest) (*OCSPResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, ocspDeadline)
	defer cancel()
	statuses := make([]CertificateStatus, len(asked.Certificates))
	for n, id := range asked.Certificates {
		status, _, known := r.kept.status(serialOf(id), c.statusesSince(r))
		if !known {
			f := c.begin(r, id, statusAlone)
			if err := f.wait(ctx); err != nil {
				return nil, err
			}
			if f.err != nil {
				return nil, f.err
			}
			status = f.status
		}
		statuses[n] = status
	}
	response, err := c.signOCSP(ctx, r, asked.Certificates, statuses, asked.Nonce)
	if err != nil {
		return nil, err
	}
	response.Shared = false
	return response, nil
}

// statusesSince is how old a status may be that was looked up earlier. While revocations are followed, one stays true until it is told
// otherwise; it is looked up again all the same when an answer is due that was made with it. Where revocations have not been heard of for a
// while, none is good enough.
func (c *CA) statusesSince(r *responder) time.Time {
	now := c.now()
	if !c.ocsp.following.Load() || now.Sub(time.Unix(0, c.ocsp.syncedAt.Load())).Abs() > followGrace {
		return now.Add(time.Hour) // later than any
	}
	return now.Add(-dueAfter(r.validity))
}

// begin makes an answer, or finds out a status, for whoever asks in the meantime. It goes on when they leave.
func (c *CA) begin(r *responder, id issuance.CertID, form int) *flight {
	f, mine := r.kept.fly(serialOf(id), form)
	if mine {
		c.ocsp.work.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), ocspDeadline)
			defer cancel()
			c.fly(ctx, r, id, form, f)
		})
	}
	return f
}

// fly looks a certificate up and signs. A revocation in the meantime makes what was found out stale: then it is done again, so that no
// answer is kept that was overtaken.
func (c *CA) fly(ctx context.Context, r *responder, id issuance.CertID, form int, f *flight) {
	serial := serialOf(id)
	for {
		r.kept.takeOff(f)
		now := c.now()
		status, knownAt, known := r.kept.status(serial, c.statusesSince(r))
		var err error
		if !known {
			knownAt = now
			status, err = c.lookUpStatus(ctx, r, id.Serial)
		}
		var answer *OCSPResponse
		if err == nil && form != statusAlone {
			answer, err = c.signOCSP(ctx, r, []issuance.CertID{id}, []CertificateStatus{status}, nil)
		}
		if r.kept.land(serial, form, f, landing{status, answer, err, c.now(), knownAt}, c.ocsp.following.Load()) {
			c.metrics.OCSPKept(r.authority.Name, r.kept.size())
			return
		}
	}
}

func (c *CA) lookUpStatus(ctx context.Context, r *responder, serial []byte) (CertificateStatus, error) {
	leave, err := enter(ctx, c.ocsp.looking)
	if err != nil {
		return CertificateStatus{}, err
	}
	defer leave()
	status, err := c.store.CertificateStatus(ctx, r.authority.Name, serial)
	if err != nil {
		return CertificateStatus{}, fmt.Errorf("looking up the status of %x: %w", serial, err)
	}
	return status, nil
}

// enter takes a place, or waits for one as long as the context allows.
func enter(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, errOCSPBusy
	}
}

// knownSince is the moment since which every certificate that has ended is still known: the archive cutoff of RFC 6960, section 4.4.4.
// Whoever verifies what was signed long ago relies on it, so it must not reach back to what may be archived, of which nothing but
// revocations is left.
func (r *responder) knownSince(now time.Time) time.Time {
	since := r.authority.Certificate.NotBefore
	if r.retention > 0 && now.Add(-r.retention).After(since) {
		since = now.Add(-r.retention)
	}
	return since
}

// signOCSP signs what is said of some certificates.
func (c *CA) signOCSP(ctx context.Context, r *responder, ids []issuance.CertID, statuses []CertificateStatus, nonce []byte) (*OCSPResponse, error) {
	signs, now := r.signs.Load(), c.now().Truncate(time.Second)
	end := now.Add(r.validity - time.Second) // the last second counts
	if ends := signs.NotAfter(); end.After(ends) {
		end = ends
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the certificate of the OCSP responder has ended: %w", ErrUnavailable)
	}
	response := &OCSPResponse{ThisUpdate: now, NextUpdate: end, Shared: true, status: "several"}
	answers := make([]issuance.OCSPAnswer, len(ids))
	for n, s := range statuses {
		answers[n] = answerOf(ids[n], s)
		answers[n].ThisUpdate, answers[n].NextUpdate = now, end
		if answers[n].Status == issuance.OCSPUnknown {
			if !c.ocsp.unknown.take(now) {
				return nil, errOCSPBusy
			}
			if soon := now.Add(unknownValidity); soon.Before(end) {
				answers[n].NextUpdate = soon
			}
			response.NextUpdate, response.Shared = answers[n].NextUpdate, false
		}
		if since := r.knownSince(now); s.Issued && s.NotAfter.Before(now) && !s.NotAfter.Before(since) {
			answers[n].ArchiveCutoff = since
		}
	}
	if len(answers) == 1 {
		response.status = answers[0].Status.String()
	}
	leave, err := enter(ctx, c.ocsp.signing)
	if err != nil {
		return nil, err
	}
	defer leave()
	if !r.health.healthy(c.now()) {
		return nil, fmt.Errorf("the key of the OCSP responder failed a moment ago: %w", ErrUnavailable)
	}
	if err := signs.Reserve(c.now()); err != nil {
		return nil, fmt.Errorf("%w: %w", errOCSPBusy, err)
	}
	signed, err := c.askForOCSP(ctx, r, signs, answers, nonce, now)
	if err != nil {
		return nil, err
	}
	c.metrics.OCSPSigned(r.authority.Name, signed.Signature.Duration)
	response.DER, response.Digest = signed.DER, sha256.Sum256(signed.DER)
	return response, nil
}

// askForOCSP has a responder's key sign. Anybody may ask for that, and leave: neither this nor how long he waited for his turn says
// anything of the key, which may be the authority's and is left alone when it fails. So the key is given its own time, whoever is still
// there, and has failed only where it said so, or where it signed nothing for anybody meanwhile.
func (c *CA) askForOCSP(
	ctx context.Context, r *responder, signs *issuance.Responder, answers []issuance.OCSPAnswer, nonce []byte, now time.Time,
) (*issuance.OCSPResponse, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ocspDeadline)
	defer cancel()
	before := signs.Answered()
	signed, err := signs.Sign(ctx, answers, nonce, now)
	switch {
	case err == nil:
		r.health.recovered()
		return signed, nil
	case !errors.Is(err, issuance.ErrPossiblySigned):
		return nil, err // it was not asked
	case errors.Is(err, context.DeadlineExceeded) && signs.Answered() != before:
		return nil, errOCSPBusy // it signs for others
	}
	first := r.health.failed(c.now())
	c.metrics.Failed("ocsp")
	if first {
		c.log.ErrorContext(ctx, "signing an OCSP answer failed; trying again", "authority", r.authority.Name, "error", err)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func answerOf(id issuance.CertID, s CertificateStatus) issuance.OCSPAnswer {
	a := issuance.OCSPAnswer{ID: id, Status: issuance.OCSPGood}
	switch {
	case s.Revoked:
		a.Status, a.RevokedAt, a.Reason = issuance.OCSPRevoked, s.RevokedAt, s.Reason
	case !s.Issued:
		a.Status = issuance.OCSPUnknown
	}
	return a
}
