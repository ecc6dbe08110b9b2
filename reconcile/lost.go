package reconcile

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Lost is the record of a certificate that was lost with a database: its revocation, and nothing else.
type Lost struct {
	Issuer string    // name of the authority that signed it
	Serial string    // in hex, as journals have it
	At     time.Time // when it was recorded
	// Signed are SHA-256 of what was signed, as whoever recorded it named them. None: the serial number alone is known.
	Signed [][32]byte
}

// lostRecord is a Lost, and what has become known of it.
type lostRecord struct {
	Lost
	known bool       // something with its issuer and serial number is on record after all
	first *Signature // that it accounts for
}

// claim is a signature of which nothing is on record but, perhaps, that the certificate was lost.
type claim struct {
	Signature
	first Signature // of the same bytes
}

// Lost adds the record of a lost certificate. It comes before what is on record.
func (a *Account) Lost(l Lost) {
	if a.lost == nil {
		a.lost = map[string][]*lostRecord{}
	}
	a.lost[l.Serial] = append(a.lost[l.Serial], &lostRecord{Lost: l})
}

// meet notes that what a record is of was not lost.
func (a *Account) meet(r Record) {
	for _, l := range a.lost[r.Serial] {
		l.known = l.known || l.Issuer == r.Issuer
	}
}

// learn notes for which authority a key signs: by what is on record of what it signed.
func (a *Account) learn(key, issuer string) {
	if issuer == "" || a.signs[key][issuer] {
		return
	}
	if a.signs == nil {
		a.signs = map[string]map[string]bool{}
	}
	if a.signs[key] == nil {
		a.signs[key] = map[string]bool{}
	}
	a.signs[key][issuer] = true
}

// signsFor tells whether a key is that of an authority. Of one that has signed nothing on record, its name must tell.
func (a *Account) signsFor(key, issuer string) bool {
	if len(a.signs[key]) > 0 {
		return a.signs[key][issuer]
	}
	return key == issuer
}

// judgeLost judges the signatures whose serial numbers are those of lost certificates, once it is known which key is whose. Of two with one
// serial number the earlier comes first.
func (a *Account) judgeLost(told, restored func(Finding) error) error {
	slices.SortFunc(a.claims, func(x, y claim) int {
		return cmp.Or(cmp.Compare(x.Detail, y.Detail), x.At.Compare(y.At), cmp.Compare(x.Journal, y.Journal), cmp.Compare(x.Entry, y.Entry))
	})
	for i := range a.claims {
		c := &a.claims[i]
		g := group{digest: c.Digest, first: c.first}
		why, accounted := unrecorded(c.Signature), false
		for _, l := range a.lost[c.Detail] {
			if !a.signsFor(c.Key, l.Issuer) {
				continue
			}
			if why, accounted = a.accountsFor(l, &c.Signature); accounted {
				g.subject = CertificateName("certificate", l.Issuer, l.Serial)
				break
			}
		}
		switch again := c.first.Journal != c.Journal || c.first.Entry != c.Entry; {
		case !accounted:
			if err := told(a.finding(Unrecorded, &g, &c.Signature, why)); err != nil {
				return err
			}
		case again:
			if err := told(a.finding(Repeated, &g, &c.Signature, a.before(&g))); err != nil {
				return err
			}
		default:
			if err := restored(a.finding(Restored, &g, &c.Signature, why)); err != nil {
				return err
			}
		}
	}
	return nil
}

// accountsFor tells whether the record of a lost certificate accounts for a signature, and why or why not. A record that names what was
// signed accounts for that alone. One of a serial number accounts for the first certificate with it that was signed before the record was
// made: another one is another certificate. Which was the first, only an account from the beginning knows.
func (a *Account) accountsFor(l *lostRecord, s *Signature) (why string, accounted bool) {
	since := "its serial number was recorded as that of a lost certificate at " + l.At.UTC().Format(time.RFC3339)
	switch {
	case l.known:
		return since + ", and a certificate with it is on record: this is another one", false
	case slices.Contains(l.Signed, s.Digest):
		return since + ", and what was signed is what the record names", true
	case len(l.Signed) > 0:
		return since + ", and the record names something else that was signed: this is another one", false
	case !a.span.Since.IsZero():
		return since + ", without what was signed: whether this is the one, only a whole run tells", false
	case s.At.After(l.At):
		return since + ", and this was signed later: it is another one", false
	case l.first != nil && l.first.Digest != s.Digest:
		return fmt.Sprintf("%s, and entry %d of %s is of one with it already, of which %s was signed: this is another one", since, l.first.Entry,
			a.journal(*l.first), hex.EncodeToString(l.first.Digest[:])), false
	case l.first == nil:
		l.first = s
	}
	return since + "; whether this is the one cannot be checked, for the record does not name what was signed", true
}

// unrecorded is why a signature is a finding of which nothing is on record.
func unrecorded(s Signature) string {
	return "the key signed this " + s.Kind + ", and nothing on record tells of it"
}

// before is why a signature is a finding that is not the first of its bytes.
func (a *Account) before(g *group) string {
	return fmt.Sprintf("it was signed before, in entry %d of %s: there may be two of it", g.first.Entry, a.journal(g.first))
}
