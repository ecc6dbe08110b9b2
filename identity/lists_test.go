package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listAt is a list by number and times.
func (o *office) listAt(number *big.Int, updated, until time.Time, revoked ...int64) []byte {
	o.t.Helper()
	template := &x509.RevocationList{Number: number, ThisUpdate: updated, NextUpdate: until}
	for _, serial := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: noon})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, o.certificate, o.key)
	if err != nil {
		o.t.Fatal(err)
	}
	return der
}

// poisonous is a list that claims to be newer than any other.
func (o *office) poisonous() []byte {
	return o.listAt(new(big.Int).Lsh(big.NewInt(1), 158), noon.Add(100*365*24*time.Hour), noon.Add(200*365*24*time.Hour))
}

// way is how a list comes by plain HTTP: what stands on it can be changed by others.
type way struct {
	*httptest.Server
	body atomic.Pointer[[]byte]
	huge atomic.Bool // then as many octets as are read, and not one fewer
}

func newWay(t *testing.T, body []byte) *way {
	t.Helper()
	w := &way{}
	w.carry(body)
	w.Server = httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
		body := *w.body.Load()
		_, _ = to.Write(body)
		if w.huge.Load() {
			_, _ = io.CopyN(to, zeros{}, mostHere)
		}
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *way) carry(body []byte) { w.body.Store(&body) }

const mostHere = 1 << 20 // octets of a list that these tests read: 64 MiB take long

type zeros struct{}

func (zeros) Read(into []byte) (int, error) { clear(into); return len(into), nil }

// refresh reads the lists, and wants the one source to be refused for a reason; empty: to be taken.
func refresh(t *testing.T, name string, l *Lists, want Reason) {
	t.Helper()
	refused := l.Refresh(t.Context())
	if want == "" && len(refused) != 0 || want != "" && (len(refused) != 1 || refused[0].Reason != want) {
		t.Errorf("%s: refused %v, want %q", name, refused, want)
	}
}

// judged wants what is said about a chain to hold some words; empty: that it is good.
func judged(t *testing.T, name string, l *Lists, want string, chain ...*x509.Certificate) {
	t.Helper()
	if err := l.check(chain, noon); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

// TestPoisonedListsChangeNothing: whoever stands in the way of a list can keep new ones away while there, and does nothing that lasts.
func TestPoisonedListsChangeNothing(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp", nil)
	other, impostor := newOffice(t, "Corp Other", root), newOffice(t, "Corp", nil)
	revoked, good := root.issue(), root.issue(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(78) })
	later := noon.Add(24 * time.Hour)
	genuine := root.list(5, later, 77)
	forged := bytes.Clone(root.poisonous())
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		body []byte
		huge bool
		want Reason
	}{
		"a signature that is none":          {forged, false, Unverified},
		"another's key under the name":      {impostor.poisonous(), false, Unverified},
		"another's name":                    {newOffice(t, "Elsewhere", nil).poisonous(), false, Unverified},
		"an old one":                        {root.listAt(big.NewInt(4), noon.Add(-2*time.Hour), noon.Add(1000*time.Hour)), false, Older},
		"of another authority of theirs":    {other.poisonous(), false, ""},
		"a good one that does not end":      {root.list(6, later), true, Unreadable},
		"nothing but length":                {nil, true, Unreadable},
		"rubbish":                           {[]byte("rubbish"), false, Unreadable},
		"nothing":                           {nil, false, Unreadable},
		"the same list, with octets behind": {append(bytes.Clone(genuine), 0), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWay(t, genuine)
			l := NewLists([]string{w.URL}, []*x509.Certificate{root.certificate, other.certificate}, w.Client())
			l.most = mostHere
			refresh(t, "at first", l, "")
			judged(t, "revoked", l, "is revoked", revoked, root.certificate)
			w.carry(c.body)
			w.huge.Store(c.huge)
			for range 2 {
				refresh(t, "poisoned", l, c.want)
				judged(t, "revoked, poisoned", l, "is revoked", revoked, root.certificate)
				judged(t, "good, poisoned", l, "", good, root.certificate)
			}
			// The poisoner is gone, and the next list of all counts.
			w.huge.Store(false)
			w.carry(root.list(6, later, 77, 78))
			refresh(t, "afterwards", l, "")
			judged(t, "revoked since", l, "is revoked", good, root.certificate)
		})
	}
	t.Run("first of all", func(t *testing.T) {
		w := newWay(t, impostor.poisonous())
		l := NewLists([]string{w.URL}, []*x509.Certificate{root.certificate}, w.Client())
		refresh(t, "poisoned", l, Unverified)
		judged(t, "poisoned", l, "no current CRL", good, root.certificate)
		w.carry(genuine)
		refresh(t, "afterwards", l, "")
		judged(t, "afterwards", l, "", good, root.certificate)
	})
}

// TestAListOfAPartIsNotTaken: an authority's own delta CRL, or one of a part of what it issues, has its signature and says less: whoever
// stands in the way puts it in place of the complete one. That such lists are for a part is to be understood even where it is not critical.
func TestAListOfAPartIsNotTaken(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp", nil)
	later := noon.Add(24 * time.Hour)
	for name, extension := range map[string]pkix.Extension{
		"a delta CRL":           {Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Value: []byte{2, 1, 5}},
		"that of authorities":   {Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Value: []byte{0x30, 3, 0x82, 1, 0xff}},
		"a delta, as it should": {Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 5}},
	} {
		part, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(6), ThisUpdate: noon, NextUpdate: later, ExtraExtensions: []pkix.Extension{extension},
		}, root.certificate, root.key)
		if err != nil {
			t.Fatal(err)
		}
		way := newWay(t, root.list(5, later, 77))
		l := NewLists([]string{way.URL}, []*x509.Certificate{root.certificate}, way.Client())
		refresh(t, name+", before", l, "")
		way.carry(part)
		refresh(t, name, l, Unreadable)
		judged(t, name, l, "is revoked", root.issue(), root.certificate)
	}
}

// TestAListOfTheFutureIsNotCurrent: authorities that are mostly off sign lists beforehand, which know nothing of what is revoked meanwhile.
func TestAListOfTheFutureIsNotCurrent(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp", nil)
	later := noon.Add(48 * time.Hour)
	for name, c := range map[string]struct {
		updated time.Time
		want    string
	}{
		"a clock a little ahead": {noon.Add(ahead), ""},
		"tomorrow's":             {noon.Add(ahead + time.Second), "no current CRL"},
	} {
		way := newWay(t, root.listAt(big.NewInt(9), c.updated, later))
		l := NewLists([]string{way.URL}, []*x509.Certificate{root.certificate}, way.Client())
		refresh(t, name, l, "")
		judged(t, name, l, c.want, root.issue(), root.certificate)
	}
}

// TestListsWaitForTheirAuthority: where callers bring the certificate that verifies a list, poison before them waits in vain.
func TestListsWaitForTheirAuthority(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp Root", nil)
	between, impostor := newOffice(t, "Corp Issuing", root), newOffice(t, "Corp Issuing", nil)
	leaf, later := between.issue(), noon.Add(24*time.Hour)
	chain := []*x509.Certificate{leaf, between.certificate, root.certificate}
	setting := func(t *testing.T) (*way, *Lists) {
		t.Helper()
		roots, w := newWay(t, root.list(1, later)), newWay(t, impostor.poisonous())
		return w, NewLists([]string{roots.URL, w.URL}, []*x509.Certificate{root.certificate}, w.Client())
	}
	t.Run("poison, then a list, then poison, then a caller", func(t *testing.T) {
		w, l := setting(t)
		refresh(t, "poison", l, "") // of an authority that nobody knows: that is told only once somebody does
		w.carry(between.list(5, later, 77))
		refresh(t, "a list", l, "")
		w.carry(between.list(4, later)) // an old one, which comes later
		refresh(t, "an old list", l, "")
		w.carry(impostor.poisonous())
		refresh(t, "poison again", l, "")
		judged(t, "a caller", l, "is revoked", chain...)
		refresh(t, "poison, now that its authority is known", l, Unverified)
		w.carry(between.list(4, later))
		refresh(t, "the old list, now that its authority is known", l, Older)
		judged(t, "a caller again", l, "is revoked", chain...)
		w.carry(between.list(6, later))
		refresh(t, "a new list", l, "")
		judged(t, "a caller at last", l, "", chain...)
	})
	t.Run("more poison than waits", func(t *testing.T) {
		w, l := setting(t)
		w.carry(between.list(5, later))
		refresh(t, "a list", l, "")
		for range maxWaiting {
			w.carry(impostor.poisonous()) // signed anew: other octets
			refresh(t, "poison", l, "")
		}
		if n := len(l.current.Load().places[1].waiting); n != maxWaiting {
			t.Errorf("%d lists wait", n)
		}
		judged(t, "a caller", l, "no current CRL of CN=Corp Issuing", chain...)
		w.carry(between.list(5, later))
		refresh(t, "the list again", l, "")
		judged(t, "a caller afterwards", l, "", chain...)
		for range maxWaiting + 1 {
			w.carry(impostor.poisonous())
			refresh(t, "poison again", l, Unverified)
		}
		judged(t, "what was verified is not among what is forgotten", l, "", chain...)
	})
	t.Run("the authority has a new key", func(t *testing.T) {
		w, l := setting(t)
		w.carry(between.list(500, later, 77))
		refresh(t, "by the old key", l, "")
		judged(t, "a caller of the old key", l, "is revoked", chain...)
		anew := newOffice(t, "Corp Issuing", root)
		w.carry(anew.list(1, later))
		refresh(t, "by the new key", l, Unverified)
		judged(t, "a caller of the new key", l, "", anew.issue(), anew.certificate, root.certificate)
		w.carry(anew.list(2, later, 77))
		refresh(t, "by the new key, which is known", l, "")
		judged(t, "a caller of the new key again", l, "is revoked", anew.issue(), anew.certificate, root.certificate)
		judged(t, "a caller of the old key again", l, "is revoked", chain...)
	})
	t.Run("an authority that is revoked itself", func(t *testing.T) {
		w := newWay(t, between.list(1, later))
		roots := newWay(t, root.list(2, later, between.certificate.SerialNumber.Int64()))
		l := NewLists([]string{roots.URL, w.URL}, []*x509.Certificate{root.certificate}, w.Client())
		refresh(t, "both", l, "")
		judged(t, "a caller", l, "is revoked", chain...)
		if at := l.current.Load(); len(at.authorities) != 1 || len(at.places[1].verified) != 0 {
			t.Error("a list by an authority that is revoked was taken")
		}
	})
	t.Run("a certificate that lets its key sign no lists", func(t *testing.T) {
		w, l := setting(t)
		w.carry(between.list(5, later))
		refresh(t, "a list", l, "")
		judged(t, "with the certificate for it", l, "", chain...)
		template := *between.certificate
		template.KeyUsage = x509.KeyUsageCertSign
		der, err := x509.CreateCertificate(rand.Reader, &template, root.certificate, between.key.Public(), root.key)
		if err != nil {
			t.Fatal(err)
		}
		narrow, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		judged(t, "with the other", l, "no current CRL", leaf, narrow, root.certificate)
	})
}

// TestAListThatHasEndedStillHoldsOffOlderOnes: an old list may end later than the one that was issued in a hurry.
func TestAListThatHasEndedStillHoldsOffOlderOnes(t *testing.T) {
	t.Parallel()
	corp := newOffice(t, "Corp", nil)
	w := newWay(t, corp.list(6, noon.Add(-time.Minute), 77))
	l := NewLists([]string{w.URL}, []*x509.Certificate{corp.certificate}, w.Client())
	refresh(t, "one that has ended", l, "")
	w.carry(corp.list(5, noon.Add(time.Hour)))
	refresh(t, "an older one", l, Older)
	judged(t, "a caller", l, "no current CRL", corp.issue(), corp.certificate)
}

// TestWhatIsKeptOfListsIsBounded: what others send, and whom they show, takes no more memory than this.
func TestWhatIsKeptOfListsIsBounded(t *testing.T) {
	t.Parallel()
	var p place
	for i := range 10 {
		der := make([]byte, maxWaitingOctets/3)
		binary.BigEndian.PutUint32(der, uint32(i))
		p.wait(&x509.RevocationList{Raw: der})
		p.wait(&x509.RevocationList{Raw: der}) // waits once
	}
	if len(p.waiting) != 3 || p.waiting[0].der[3] != 7 || p.waiting[2].der[3] != 9 {
		t.Errorf("%d lists wait, want the newest three", len(p.waiting))
	}
	p.wait(&x509.RevocationList{Raw: make([]byte, maxWaitingOctets)})
	if len(p.waiting) != 1 {
		t.Errorf("%d lists wait beside one of the greatest size", len(p.waiting))
	}

	w := newWay(t, nil)
	var issuers []*x509.Certificate
	root := newOffice(t, "Corp", nil)
	l := NewLists([]string{w.URL}, []*x509.Certificate{root.certificate}, w.Client())
	for i := range maxAuthorities {
		one := newOffice(t, "Corp", root)
		w.carry(one.list(1, noon.Add(time.Hour)))
		l.learn(one.certificate)
		refresh(t, "a list", l, "")
		if issuers = append(issuers, one.certificate); len(l.current.Load().places[0].verified) != i+1 {
			t.Fatal("it is not kept")
		}
	}
	w.carry(root.list(1, noon.Add(time.Hour)))
	refresh(t, "one authority more", l, TooMany)

	full := &known{authorities: l.ofBundle(), places: l.current.Load().places}
	for i := range maxLearned - 1 {
		one := &x509.Certificate{Raw: binary.BigEndian.AppendUint32(nil, uint32(i))}
		full.authorities[string(one.Raw)] = one
	}
	l.current.Store(full)
	if n := len(l.learn(issuers[0]).authorities); n != 1+maxLearned {
		t.Errorf("%d certificates are known, want all that may be", n)
	}
	at := l.learn(issuers[1])
	if n := len(at.authorities); n != 2 || at.authorities[string(root.certificate.Raw)] == nil {
		t.Errorf("%d certificates are known, the bundle's among them: %v", n, at.authorities[string(root.certificate.Raw)] != nil)
	}
	for i, one := range issuers { // what they verified stays
		if !at.places[0].verified[i].of(one) {
			t.Errorf("list %d is gone", i)
		}
	}
}

// TestListsAreReadWhileCallersCome: callers at once learn one authority once, and see a whole list.
func TestListsAreReadWhileCallersCome(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp Root", nil)
	between := newOffice(t, "Corp Issuing", root)
	later := noon.Add(24 * time.Hour)
	roots, w := newWay(t, root.list(1, later)), newWay(t, between.list(1, later))
	l := NewLists([]string{roots.URL, w.URL}, []*x509.Certificate{root.certificate}, w.Client())
	refresh(t, "both", l, "")
	leaf := between.issue()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 50 {
				if err := l.check([]*x509.Certificate{leaf, between.certificate, root.certificate}, noon); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for number := range int64(10) {
		w.carry(between.list(2+number, later))
		refresh(t, "a new list", l, "")
	}
	callers.Wait()
	if n := len(l.current.Load().authorities); n != 2 {
		t.Errorf("%d authorities are known", n)
	}
}

// TestAListThatDoesNotComeDelaysNoOther: while one source does not answer, what another brings counts.
func TestAListThatDoesNotComeDelaysNoOther(t *testing.T) {
	t.Parallel()
	root := newOffice(t, "Corp Root", nil)
	asked, answer := make(chan struct{}), make(chan struct{})
	stalled := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		http.Error(to, "too late", http.StatusGatewayTimeout)
	}))
	defer stalled.Close()
	w := newWay(t, root.list(1, noon.Add(24*time.Hour)))
	l := NewLists([]string{stalled.URL, w.URL}, []*x509.Certificate{root.certificate}, w.Client())
	refused := make(chan []*RefusedList, 1)
	go func() { refused <- l.Refresh(t.Context()) }()
	<-asked
	chain := []*x509.Certificate{root.issue(), root.certificate}
	for l.check(chain, noon) != nil {
		select {
		case <-refused:
			t.Fatal("the lists were read, and that which came is not known")
		case <-time.After(10 * time.Millisecond):
		}
	}
	close(answer)
	if all := <-refused; len(all) != 1 || all[0].Source != stalled.URL || all[0].Reason != Unreadable {
		t.Errorf("refused %v, want the one that did not come", all)
	}
}

// TestOnlyVerifiedListsAreMadeForLookingUp: that takes several times what a list takes as it comes, and whoever puts one in has no part in it.
func TestOnlyVerifiedListsAreMadeForLookingUp(t *testing.T) {
	t.Parallel()
	root, impostor := newOffice(t, "Corp", nil), newOffice(t, "Corp", nil)
	for name, c := range map[string]struct {
		by   *office
		want int
	}{"a genuine one": {root, 1}, "a forged one": {impostor, 0}} {
		read, err := parseList(c.by.list(5, noon.Add(time.Hour), 77))
		if err != nil {
			t.Fatal(err)
		}
		if good := read.verify(root.certificate); good != (c.want > 0) || len(read.revoked) != c.want {
			t.Errorf("%s: good %v, %d serials", name, good, len(read.revoked))
		}
	}
}
