package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxList      = 64 << 20 // octets of a CRL that is read
	fetchTimeout = 30 * time.Second
	ahead        = 5 * time.Minute // by which the clock of an authority may be ahead of ours

	maxWaiting       = 4       // lists of one source that wait for a certificate which verifies them
	maxWaitingOctets = maxList // of all of these together
	maxAuthorities   = 16      // authorities whose lists one source is believed to have
	maxLearned       = 1024    // authorities' certificates that callers brought; with more, all are forgotten and learned anew
)

// Lists are the CRLs of other authorities, from files and URLs. It fails closed: a certificate whose issuer has no list that is in order
// and current is refused.
//
// A list may come over a way on which somebody else can put one in. So what is not verified changes nothing about what is: a list counts,
// takes the place of another, and is what later ones are held against, only once its signature is verified by its authority's certificate.
// That stands in the bundle, or callers bring it, in a chain that leads to the bundle. Until then the newest lists of each source wait.
type Lists struct {
	sources []string
	bundle  []*x509.Certificate
	client  *http.Client
	most    int64 // octets of a list that are read

	parsing sync.Mutex // held from the parsing of a list to its end: it takes several times what the list does, and one at a time may
	mu      sync.Mutex // held to change
	current atomic.Pointer[known]
}

// known is what is known at one time. It does not change.
type known struct {
	authorities map[string]*x509.Certificate // by their octets: the bundle's, and those that callers brought
	places      []place                      // in the order of the sources
}

// place is what one source brought.
type place struct {
	// verified has the last list of each authority. One that has ended stays, so that none before it is taken again. An authority is a name
	// and a key: lists by different keys are numbered apart, and one never takes another's place.
	verified []*list
	// waiting are in the order in which they came. What they say of themselves orders nothing: anybody can write a high number.
	waiting []waitingList
}

// waitingList is a list that no known certificate verifies. It is kept as it came: a list of its size, made for looking up, needs several
// times as much.
type waitingList struct{ der, issuer []byte }

// Reason is what kept a list from being taken.
type Reason string

// The reasons.
const (
	Unreadable Reason = "unreadable" // it did not come, or is no complete list that is understood
	Unverified Reason = "unverified" // none of the certificates that are known verifies its signature
	Older      Reason = "older"      // its authority has issued a newer one, which was taken before
	TooMany    Reason = "too-many"   // its source has brought lists of as many authorities as it is believed to have
)

// RefusedList tells of a list that was not taken. What was taken before stays, until it has ended.
type RefusedList struct {
	Source string
	Reason Reason
	Err    error
}

func (r *RefusedList) Error() string { return fmt.Sprintf("reading the CRL %s: %v", r.Source, r.Err) }

func (r *RefusedList) Unwrap() error { return r.Err }

// NewLists makes Lists of paths and of http and https URLs. Nothing is read before Refresh. bundle are the authorities' certificates that
// are known before any caller comes; whether they are trusted is not asked here. client fetches; nil: one that waits 30 seconds.
func NewLists(sources []string, bundle []*x509.Certificate, client *http.Client) *Lists {
	if client == nil {
		client = &http.Client{Timeout: fetchTimeout}
	}
	l := &Lists{sources: sources, bundle: bundle, client: client, most: maxList}
	l.current.Store(&known{authorities: l.ofBundle(), places: make([]place, len(sources))})
	return l
}

func (l *Lists) ofBundle() map[string]*x509.Certificate {
	authorities := make(map[string]*x509.Certificate, len(l.bundle))
	for _, one := range l.bundle {
		authorities[string(one.Raw)] = one
	}
	return authorities
}

// Refresh reads all lists again, and tells which were not taken. A list of an authority of which no certificate is known yet, from a source
// that has brought no other, waits for its first caller and is not told. The sources are read side by side: one that does not answer keeps
// nobody from what the others bring.
func (l *Lists) Refresh(ctx context.Context) (refused []*RefusedList) {
	all := make([]*RefusedList, len(l.sources))
	var reading sync.WaitGroup
	for i, source := range l.sources {
		reading.Go(func() {
			if reason, err := l.renew(ctx, i); err != nil {
				all[i] = &RefusedList{source, reason, err}
			}
		})
	}
	reading.Wait()
	for _, r := range all {
		if r != nil {
			refused = append(refused, r)
		}
	}
	return refused
}

// renew reads the list of a source again.
func (l *Lists) renew(ctx context.Context, i int) (Reason, error) {
	data, err := l.octets(ctx, l.sources[i])
	if err != nil {
		return Unreadable, err
	}
	l.parsing.Lock()
	defer l.parsing.Unlock()
	read, err := parseList(data)
	if err != nil {
		return Unreadable, err
	}
	return l.take(i, read)
}

// take keeps a list that a source brought: as its authority's, where one that is known has signed it, or else as one that waits.
func (l *Lists) take(i int, read *list) (Reason, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.current.Load()
	p := now.places[i].clone()
	if slices.ContainsFunc(p.verified, func(v *list) bool { return bytes.Equal(v.crl.Raw, read.crl.Raw) }) {
		return "", nil // the one that it has: its signature need not be verified again
	}
	expected := len(p.verified) > 0
	for _, authority := range now.authorities {
		if read.verify(authority) {
			reason, err := p.adopt(read)
			if err == nil {
				l.change(i, p)
			}
			return reason, err
		}
		expected = expected || bytes.Equal(authority.RawSubject, read.crl.RawIssuer)
	}
	p.wait(read.crl)
	l.change(i, p)
	if !expected {
		return "", nil
	}
	return Unverified, fmt.Errorf("no certificate of %s that is known verifies its signature: somebody may have put it in, or the authority "+
		"has a new key, whose certificate belongs into the bundle", read.crl.Issuer)
}

// change puts a place in. The lock is held.
func (l *Lists) change(i int, p place) {
	now := l.current.Load()
	places := slices.Clone(now.places)
	places[i] = p
	l.current.Store(&known{authorities: now.authorities, places: places})
}

// learn has a certificate that leads a verified chain to the bundle verify what waits, and what comes from now on.
func (l *Lists) learn(authority *x509.Certificate) *known {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.current.Load()
	if now.authorities[string(authority.Raw)] != nil {
		return now // another request was first
	}
	next := &known{authorities: maps.Clone(now.authorities), places: make([]place, len(now.places))}
	if len(next.authorities) >= len(l.bundle)+maxLearned {
		next.authorities = l.ofBundle()
	}
	next.authorities[string(authority.Raw)] = authority
	for i, p := range now.places {
		next.places[i] = p.clone()
		next.places[i].verify(authority)
	}
	l.current.Store(next)
	return next
}

func (p place) clone() place {
	return place{verified: slices.Clone(p.verified), waiting: slices.Clone(p.waiting)}
}

// adopt keeps a list that is verified.
func (p *place) adopt(read *list) (Reason, error) {
	at := slices.IndexFunc(p.verified, func(v *list) bool {
		return bytes.Equal(v.crl.RawIssuer, read.crl.RawIssuer) && bytes.Equal(v.key, read.key)
	})
	switch {
	case at < 0 && len(p.verified) >= maxAuthorities:
		return TooMany, fmt.Errorf("lists of %d authorities came from here before, and theirs are kept: give each authority a place of its own",
			maxAuthorities)
	case at < 0:
		p.verified = append(p.verified, read)
		return "", nil
	}
	if err := notOlder(read.crl, p.verified[at].crl); err != nil {
		return Older, err
	}
	p.verified[at] = read
	return "", nil
}

// wait keeps a list that is not verified, and forgets the first that came where there are too many.
func (p *place) wait(crl *x509.RevocationList) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w waitingList) bool { return bytes.Equal(w.der, crl.Raw) })
	p.waiting = append(p.waiting, waitingList{der: crl.Raw, issuer: crl.RawIssuer})
	octets := 0
	for i, w := range slices.Backward(p.waiting) {
		if octets += len(w.der); octets > maxWaitingOctets || len(p.waiting)-i > maxWaiting {
			p.waiting = slices.Delete(p.waiting, 0, i+1)
			return
		}
	}
}

// verify adopts what waits and was signed by an authority.
func (p *place) verify(authority *x509.Certificate) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w waitingList) bool {
		if !bytes.Equal(w.issuer, authority.RawSubject) {
			return false
		}
		read, err := parseList(w.der)
		if err != nil || !read.verify(authority) {
			return false
		}
		_, _ = p.adopt(read) // one that is older than another that waited is of no use any more
		return true
	})
}

func (l *Lists) octets(ctx context.Context, source string) ([]byte, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return l.limited(f)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	answer, err := l.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", answer.Status)
	}
	return l.limited(answer.Body)
}

func (l *Lists) limited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, l.most+1))
	if err == nil && int64(len(data)) > l.most {
		err = fmt.Errorf("it is longer than %d octets", l.most)
	}
	return data, err
}

// check refuses a chain of which a certificate is revoked, or of which nobody can say that it is not. The chain leads to the bundle. It is
// gone down from there, so that what an authority has signed is looked at only when that authority itself is not revoked.
func (l *Lists) check(chain []*x509.Certificate, now time.Time) error {
	for i := len(chain) - 2; i >= 0; i-- {
		one, issuer := chain[i], chain[i+1]
		at := l.current.Load()
		if at.authorities[string(issuer.Raw)] == nil {
			at = l.learn(issuer)
		}
		found := false
		for _, p := range at.places {
			for _, list := range p.verified {
				if !list.of(issuer) || !maySignLists(issuer) || now.After(list.crl.NextUpdate) || list.crl.ThisUpdate.After(now.Add(ahead)) {
					continue
				}
				found = true
				if _, revoked := list.revoked[string(one.SerialNumber.Bytes())]; revoked {
					return fmt.Errorf("serial %x of %s is revoked", one.SerialNumber, issuer.Subject)
				}
			}
		}
		if !found {
			return fmt.Errorf("no current CRL of %s says how its certificates stand", issuer.Subject)
		}
	}
	return nil
}

// maySignLists tells whether a certificate lets its key sign CRLs (RFC 5280, section 4.2.1.3): another of the same authority may have.
func maySignLists(authority *x509.Certificate) bool {
	return authority.KeyUsage == 0 || authority.KeyUsage&x509.KeyUsageCRLSign != 0
}
