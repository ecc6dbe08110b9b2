package issuance

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// Revoked is the entries of a scope's CRL as they stand on it: each is encoded once and kept as DER, in the order of serial numbers. What a
// change costs is the change and one move of memory; a CRL is made by putting a head before the octets and a signature behind them.
//
// A Revoked is changed and prepared by one goroutine at a time. Its zero value is empty.
type Revoked struct {
	entries []byte   // DER, one after the other
	starts  []uint32 // of each in entries
	ends    []int64  // of each certificate's validity, Unix seconds
	sample  map[form]RevokedEntry
	ahead   map[string]RevokedEntry // dated by a clock ahead of the last CRL's, by serial: they are written anew each time
	delta   bool                    // it is of a delta CRL, on which RemoveFromCRL is an entry
}

// RevokedEntry is a change of a Revoked: a certificate that is revoked or, with RemoveFromCRL, not any more.
type RevokedEntry struct {
	CRLEntry
	NotAfter time.Time // of the certificate
}

// form is what lints could tell entries by. Places are the entries revoked first and last.
type form struct {
	reason      Reason
	invalidity  bool
	serial      int
	generalized bool
	place       int
}

const (
	firstRevoked = 1
	lastRevoked  = 2
)

// maxList is the greatest length of a Revoked, in octets: some sixty million entries.
const maxList = math.MaxUint32

// Len is the number of entries.
func (l *Revoked) Len() int { return len(l.starts) }

// change is a RevokedEntry that was found good, with its DER; nil when it leaves.
type change struct {
	serial []byte // as the content of a DER INTEGER
	der    []byte
	entry  RevokedEntry
	end    int64
}

// Apply brings changes into the list, for a CRL of the moment thisUpdate: a revocation dated later, by a clock ahead, is written as of
// then. There may be one change of a certificate at most. With an error, which is about what the changes say, the list is as it was.
func (l *Revoked) Apply(thisUpdate time.Time, entries []RevokedEntry) error {
	changes, ahead, err := l.encode(thisUpdate.UTC().Truncate(time.Second), entries)
	if err != nil {
		return err
	}
	grown := 0
	for _, c := range changes {
		grown += len(c.der)
	}
	if len(l.entries)+grown > maxList {
		return errors.New("the list would have more than 4 GiB")
	}
	l.ahead = ahead
	l.merge(changes, grown)
	l.keepSample(changes)
	return nil
}

// encode checks and encodes changes, and what was ahead of the last CRL, and puts them in order.
func (l *Revoked) encode(thisUpdate time.Time, entries []RevokedEntry) ([]change, map[string]RevokedEntry, error) {
	changes := make([]change, 0, len(entries)+len(l.ahead))
	octets := make([]byte, 0, len(entries)*maxEntry)
	ahead := map[string]RevokedEntry{}
	add := func(e RevokedEntry) error {
		c, err := l.checked(thisUpdate, e)
		if err != nil {
			return err
		}
		if l.stands(e.Reason) {
			if e.RevokedAt.After(thisUpdate) {
				ahead[string(c.serial)] = e
			}
			at := len(octets)
			octets = appendEntry(octets, &c.entry.CRLEntry)
			c.der = octets[at:len(octets):len(octets)]
		}
		changes = append(changes, c)
		return nil
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return compareSerials(a.serial, b.serial) })
	for n := 1; n < len(changes); n++ {
		if bytes.Equal(changes[n-1].serial, changes[n].serial) {
			return nil, nil, fmt.Errorf("the serial number %x stands twice", changes[n].serial)
		}
	}
	fresh := len(changes)
	for serial, e := range l.ahead {
		_, changed := slices.BinarySearchFunc(changes[:fresh], []byte(serial), func(c change, s []byte) int { return compareSerials(c.serial, s) })
		if changed {
			continue
		}
		if err := add(e); err != nil {
			return nil, nil, err
		}
	}
	if len(changes) > fresh {
		slices.SortFunc(changes, func(a, b change) int { return compareSerials(a.serial, b.serial) })
	}
	return changes, ahead, nil
}

// stands tells whether a change with a reason puts an entry in, or takes one out.
func (l *Revoked) stands(r Reason) bool { return r != RemoveFromCRL || l.delta }

// CanSayInvalidity tells whether an invalidityDate can be written: a GeneralizedTime has four digits for the year, in UTC.
func CanSayInvalidity(at time.Time) bool {
	year := at.UTC().Year()
	return year >= 0 && year <= 9999
}

// checked refuses what cannot stand on a CRL, and cuts times to seconds.
func (l *Revoked) checked(thisUpdate time.Time, e RevokedEntry) (change, error) {
	serial := bytes.TrimLeft(e.Serial, "\x00")
	if len(serial) == 0 || len(serial) > maxSerial {
		return change{}, fmt.Errorf("the serial number %x is not of 1 to %d octets", e.Serial, maxSerial)
	}
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	c := change{serial: serial, entry: e, end: e.NotAfter.Unix()}
	c.entry.Serial = serial
	if !l.stands(e.Reason) {
		return c, nil
	}
	if e.Reason < Unspecified || e.Reason > AACompromise || e.Reason == 7 {
		return change{}, fmt.Errorf("%s cannot be the reason of %x on a CRL", e.Reason, e.Serial)
	}
	if e.RevokedAt.IsZero() {
		return change{}, fmt.Errorf("%x has no time of revocation", e.Serial)
	}
	c.entry.RevokedAt = e.RevokedAt.UTC().Truncate(time.Second)
	if c.entry.RevokedAt.After(thisUpdate) {
		c.entry.RevokedAt = thisUpdate
	}
	if year := c.entry.RevokedAt.Year(); year < 1950 || year > 9999 {
		return change{}, fmt.Errorf("%x was revoked in the year %d, which cannot be written", e.Serial, year)
	}
	if !e.InvalidityDate.IsZero() {
		if !CanSayInvalidity(e.InvalidityDate) {
			return change{}, fmt.Errorf("the key of %x became bad in the year %d, which cannot be written", e.Serial, e.InvalidityDate.UTC().Year())
		}
		c.entry.InvalidityDate = e.InvalidityDate.UTC().Truncate(time.Second)
	}
	return c, nil
}

// compareSerials orders contents of DER INTEGERs that are not negative.
func compareSerials(a, b []byte) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), bytes.Compare(a, b))
}

// serialAt is the content of the INTEGER with which every entry begins. All of an entry's lengths have one octet.
func (l *Revoked) serialAt(n int) []byte {
	at := l.starts[n] + 4
	return l.entries[at : at+uint32(l.entries[at-1])]
}

// entryEnd is where an entry ends in entries.
func (l *Revoked) entryEnd(n int) int {
	if n+1 < len(l.starts) {
		return int(l.starts[n+1])
	}
	return len(l.entries)
}

// find is where a serial stands, or would.
func (l *Revoked) find(serial []byte) (int, bool) {
	n := sort.Search(len(l.starts), func(n int) bool { return compareSerials(l.serialAt(n), serial) >= 0 })
	return n, n < len(l.starts) && bytes.Equal(l.serialAt(n), serial)
}

// merge takes out every entry that changes and puts in the new ones. Both move what lies between two changes as one block: first
// forward over what goes, then backward to make room for what comes.
func (l *Revoked) merge(changes []change, grown int) {
	if len(changes) == 0 {
		return
	}
	if n := len(l.starts); n == 0 || compareSerials(l.serialAt(n-1), changes[0].serial) < 0 {
		l.extend(changes, grown)
		return
	}
	var gone []int
	for _, c := range changes {
		if n, found := l.find(c.serial); found {
			gone = append(gone, n)
		}
	}
	l.remove(gone)
	l.insert(changes, grown)
}

// extend is insert where all that comes stands behind what is there.
func (l *Revoked) extend(changes []change, grown int) {
	l.entries = slices.Grow(l.entries, grown)
	for _, c := range changes {
		if c.der == nil {
			continue
		}
		l.starts = append(l.starts, uint32(len(l.entries)))
		l.ends = append(l.ends, c.end)
		l.entries = append(l.entries, c.der...)
	}
}

// remove takes entries out, which are given in ascending order.
func (l *Revoked) remove(gone []int) {
	if len(gone) == 0 {
		return
	}
	kept, octets := gone[0], int(l.starts[gone[0]])
	for g, n := range gone {
		next := len(l.starts)
		if g+1 < len(gone) {
			next = gone[g+1]
		}
		if n+1 == next {
			continue
		}
		from := l.entryEnd(n)
		to := l.entryEnd(next - 1)
		shift := uint32(from - octets)
		copy(l.entries[octets:], l.entries[from:to])
		octets += to - from
		for m := n + 1; m < next; m++ {
			l.starts[kept], l.ends[kept] = l.starts[m]-shift, l.ends[m]
			kept++
		}
	}
	l.entries, l.starts, l.ends = l.entries[:octets], l.starts[:kept], l.ends[:kept]
}

// insert puts entries in that are not there, from the last to the first.
func (l *Revoked) insert(changes []change, grown int) {
	changes = slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.der == nil })
	if len(changes) == 0 {
		return
	}
	before, octets := len(l.starts), len(l.entries)
	l.entries = slices.Grow(l.entries, grown)[:octets+grown]
	l.starts = slices.Grow(l.starts, len(changes))[:before+len(changes)]
	l.ends = slices.Grow(l.ends, len(changes))[:before+len(changes)]
	old := &Revoked{entries: l.entries[:octets], starts: l.starts[:before], ends: l.ends[:before]}
	for place := len(changes) - 1; place >= 0; place-- {
		c := changes[place]
		n, _ := old.find(c.serial)
		start := octets
		if n < before {
			start = int(l.starts[n])
		}
		// What stands behind the new entry moves by all that is put before it.
		copy(l.entries[start+grown:], l.entries[start:octets])
		for m := before - 1; m >= n; m-- {
			l.starts[m+place+1], l.ends[m+place+1] = l.starts[m]+uint32(grown), l.ends[m]
		}
		grown -= len(c.der)
		copy(l.entries[start+grown:], c.der)
		l.starts[n+place], l.ends[n+place] = uint32(start+grown), c.end
		before, octets = n, start
		old.entries, old.starts = old.entries[:octets], old.starts[:before]
	}
}

// Expire takes out entries of certificates that have ended before a moment, but for those with a serial to keep. It returns how many.
func (l *Revoked) Expire(before time.Time, keep func(serial []byte) bool) int {
	var gone []int
	for n, end := range l.ends {
		if end < before.Unix() && !keep(bytes.TrimLeft(l.serialAt(n), "\x00")) {
			gone = append(gone, n)
		}
	}
	for f, e := range l.sample {
		if n, found := l.find(e.Serial); found {
			if _, leaves := slices.BinarySearch(gone, n); leaves {
				delete(l.sample, f)
			}
		}
	}
	for _, n := range gone {
		delete(l.ahead, string(l.serialAt(n)))
	}
	l.remove(gone)
	return len(gone)
}

// keepSample remembers an entry of each form, and those revoked first and last.
func (l *Revoked) keepSample(changes []change) {
	if l.sample == nil {
		l.sample = map[form]RevokedEntry{}
	}
	for f, e := range l.sample {
		if _, found := slices.BinarySearchFunc(changes, e.Serial, func(c change, s []byte) int { return compareSerials(c.serial, s) }); found {
			delete(l.sample, f)
		}
	}
	for _, c := range changes {
		if c.der == nil {
			continue
		}
		e := c.entry
		f := form{e.Reason, !e.InvalidityDate.IsZero(), len(e.Serial), e.RevokedAt.Year() >= 2050, 0}
		if _, seen := l.sample[f]; !seen {
			l.sample[f] = e
		}
		if first, seen := l.sample[form{place: firstRevoked}]; !seen || e.RevokedAt.Before(first.RevokedAt) {
			l.sample[form{place: firstRevoked}] = e
		}
		if last, seen := l.sample[form{place: lastRevoked}]; !seen || e.RevokedAt.After(last.RevokedAt) {
			l.sample[form{place: lastRevoked}] = e
		}
	}
}

// lintWhole is the longest CRL that is linted as it is.
const lintWhole = 1000

// sampled is what of the list is linted. A long one is represented by a shorter one: linting and its parsing need more time and memory
// than making the list. That is enough because the lints look at the head, which is the same, and at entries one by one; the sample
// holds an entry of every form that an entry can have, and those revoked first and last. The only lint that looks at entries together is
// that of duplicates, which a Revoked cannot hold.
func (l *Revoked) sampled() []byte {
	if l.Len() <= lintWhole {
		return l.entries
	}
	bySerial := map[string]RevokedEntry{}
	for _, e := range l.sample {
		bySerial[string(e.Serial)] = e
	}
	var octets []byte
	serials := make([][]byte, 0, len(bySerial))
	for s := range bySerial {
		serials = append(serials, []byte(s))
	}
	slices.SortFunc(serials, compareSerials)
	for _, s := range serials {
		e := bySerial[string(s)]
		octets = appendEntry(octets, &e.CRLEntry)
	}
	return octets
}

// maxEntry is the length of the longest entry, in octets. It is below 128: every length in it is written in one octet.
const maxEntry = 96

// The DER of an entry's extensions, but for what changes.
var (
	reasonExtension     = []byte{0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01}
	invalidityExtension = []byte{0x30, 0x18, 0x06, 0x03, 0x55, 0x1d, 0x18, 0x04, 0x11, 0x18, 0x0f}
)

// appendEntry writes one entry of revokedCertificates (RFC 5280, section 5.1). Its serial is the content of an INTEGER. The reason is
// absent where it is unspecified (section 5.3.1).
func appendEntry(octets []byte, e *CRLEntry) []byte {
	at := len(octets)
	octets = append(octets, 0x30, 0, 0x02, byte(len(e.Serial)))
	octets = append(octets, e.Serial...)
	if e.RevokedAt.Year() < 2050 {
		octets = e.RevokedAt.AppendFormat(append(octets, 0x17, 13), "060102150405Z")
	} else {
		octets = e.RevokedAt.AppendFormat(append(octets, 0x18, 15), "20060102150405Z")
	}
	if e.Reason != Unspecified || !e.InvalidityDate.IsZero() {
		extensions := len(octets)
		octets = append(octets, 0x30, 0)
		if !e.InvalidityDate.IsZero() {
			octets = e.InvalidityDate.AppendFormat(append(octets, invalidityExtension...), "20060102150405Z")
		}
		if e.Reason != Unspecified {
			octets = append(append(octets, reasonExtension...), byte(e.Reason))
		}
		octets[extensions+1] = byte(len(octets) - extensions - 2)
	}
	octets[at+1] = byte(len(octets) - at - 2)
	return octets
}
