package reconcile

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"
)

// inMemory is how many octets of each side are held in memory; the rest waits on disk.
const inMemory = 64 << 20

// lookUp is how many serial numbers are asked for at once.
const lookUp = 1000

// maxSerial is how many octets of a serial number are looked up: more than any has (RFC 5280, section 4.1.2.2).
const maxSerial = 64

// Account is an account of signatures. Close must be called.
type Account struct {
	span     Span
	journals []string
	begin    time.Time // of the oldest journal
	ahead    time.Time // from then on no honest clock can have been; zero: never
	sides    sorted    // signatures and records, by digest
	answers  sorted    // OCSP answers, by serial number
	counts   Counts
	scratch  []byte

	lost   map[string][]*lostRecord   // by serial number
	signs  map[string]map[string]bool // of each key, by the names of authorities
	claims []claim                    // signatures with the serial numbers of lost certificates
}

// Open opens an account that judges a span by journals of these names. None means that no journal tells of signatures: then only what is on
// record is held against the audit log. dir is for files; empty: the system's directory for them.
func Open(dir string, span Span, journals []string) *Account {
	return &Account{span: span, journals: journals, sides: sorted{dir: dir, most: inMemory}, answers: sorted{dir: dir, most: inMemory}}
}

// Close gives back what is on disk.
func (a *Account) Close() error { return errors.Join(a.sides.close(), a.answers.close()) }

// Begin says that a journal began then. What is on record from before the first of them was not theirs to tell.
func (a *Account) Begin(at time.Time) {
	if a.begin.IsZero() || at.Before(a.begin) {
		a.begin = at
	}
}

// Until ends the span that is judged earlier: of what comes after, a journal tells nothing.
func (a *Account) Until(at time.Time) {
	if at.Before(a.span.Until) {
		a.span.Until = at
	}
}

// Ahead says that no record made so far can honestly be dated then or later. An account from the beginning judges one that is as if its time
// had come: else it would be too young for ever. Another account leaves it alone, for what belongs to it may have been read by an earlier one.
func (a *Account) Ahead(at time.Time) {
	if a.span.Since.IsZero() {
		a.ahead = at
	}
}

// Signature adds what a journal tells.
func (a *Account) Signature(s Signature) error {
	if !s.Old {
		a.counts.Signatures++
	}
	if s.Kind == OCSP {
		return a.answer(s)
	}
	a.scratch = s.append(a.scratch[:0])
	return a.sides.add(a.scratch)
}

// answer adds an OCSP answer. The journal is the one record of it: what can be asked is whether the serial number is one that was issued.
func (a *Account) answer(s Signature) error {
	serials, statuses := strings.Split(s.Detail, ","), strings.Split(s.Status, ",")
	if s.Old || s.Status == "" || len(serials) != len(statuses) {
		return nil
	}
	for i, serial := range serials {
		octets, err := hex.DecodeString(serial)
		if statuses[i] == "unknown" || err != nil || len(octets) > maxSerial {
			continue
		}
		a.counts.Answers++
		one := s
		one.Detail, one.Status = serial, statuses[i]
		a.scratch = append(append(a.scratch[:0], byte(len(octets))), octets...)
		if err := a.answers.add(one.append(a.scratch)); err != nil {
			return err
		}
	}
	return nil
}

// Record adds what is on record.
func (a *Account) Record(r Record) error {
	a.counts.Records++
	a.meet(r)
	a.scratch = r.append(a.scratch[:0])
	return a.sides.add(a.scratch)
}

// Oracle answers what an account asks while it is settled.
type Oracle struct {
	// Unissued tells which of some serial numbers were never issued.
	Unissued func(ctx context.Context, serials [][]byte) ([][]byte, error)
	// Truthful tells of the signature of a checkpoint that is not on record whether it says what the log says of that size: then it was
	// signed, and recording it failed, which takes nothing from anybody. Nil: none is.
	Truthful func(ctx context.Context, s Signature) (bool, error)
}

// Settle judges all that was added, and calls yield with each finding, and with each signature that is accounted for by the record of a
// lost certificate (Restored), which is none. An error of the oracle's or of yield's ends it.
func (a *Account) Settle(ctx context.Context, ask Oracle, yield func(Finding) error) (Counts, error) {
	told := func(f Finding) error {
		a.counts.Findings++
		return yield(f)
	}
	restored := func(f Finding) error {
		a.counts.Restored++
		return yield(f)
	}
	var g group
	err := a.sides.each(func(raw []byte) error {
		l := line{raw}
		digest := l.digest()
		if digest != g.digest || g.empty() {
			if err := a.judge(&g, told); err != nil {
				return err
			}
			g = group{digest: digest}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if tag := l.octet(); tag != signatureTag {
			g.add(l.record(digest, Source(tag)))
			return nil
		}
		return a.sign(ctx, &g, l.signature(digest), ask, told)
	})
	if err == nil {
		err = a.judge(&g, told)
	}
	if err == nil {
		err = a.judgeLost(told, restored)
	}
	if err == nil {
		err = a.judgeAnswers(ctx, ask.Unissued, told)
	}
	return a.counts, err
}

// group is all that is known of one digest. Records come before signatures.
type group struct {
	digest     [32]byte
	has        [OtherRow + 1]bool
	at         time.Time
	subject    string
	issuer     string
	of         []signed // what the records account for
	not        []string // issuers whose it is not, whatever records say
	signatures uint64
	anew       bool // one of the signatures was not judged before
	first      Signature
}

// signed is a kind of signature and its issuer and, of a certificate, the serial number where it is known.
type signed struct{ kind, issuer, serial string }

func (g *group) empty() bool { return g.signatures == 0 && !g.known() }

func (g *group) known() bool { return g.has != [OtherRow + 1]bool{} }

func (g *group) add(r Record) {
	if !g.known() || r.At.Before(g.at) {
		g.at = r.At
	}
	g.has[r.Source] = true
	if g.subject == "" || r.Source == SignedRow {
		g.subject = r.Subject
	}
	if g.issuer == "" || r.Source == SignedRow {
		g.issuer = r.Issuer
	}
	if r.Misplaced {
		g.not = append(g.not, r.Issuer)
	}
	if of := (signed{r.Kind, r.Issuer, r.Serial}); r.Kind != "" && !slices.Contains(g.of, of) {
		g.of = append(g.of, of)
	}
}

// accountsFor tells whether a record is of such a signature. That bytes are on record is not enough: whoever has taken over the service can
// write them down as something that they are not.
func (g *group) accountsFor(s *Signature) bool {
	return slices.ContainsFunc(g.of, func(of signed) bool {
		return of.kind == s.Kind && !slices.Contains(g.not, of.issuer) && (of.kind != Certificate || of.serial == "" || of.serial == s.Detail)
	})
}

// sign judges one signature.
func (a *Account) sign(ctx context.Context, g *group, s Signature, ask Oracle, told func(Finding) error) error {
	g.signatures++
	g.anew = g.anew || !s.Old
	if g.signatures == 1 {
		g.first = s
	}
	accounted := g.accountsFor(&s)
	if accounted {
		a.learn(s.Key, g.issuer)
	}
	switch {
	case s.Old:
		return nil
	case !accounted:
		if s.Kind == Checkpoint && ask.Truthful != nil {
			if truthful, err := ask.Truthful(ctx, s); err != nil || truthful {
				return err
			}
		}
		if s.Kind == Certificate && len(a.lost[s.Detail]) > 0 {
			a.claims = append(a.claims, claim{s, g.first})
			return nil
		}
		why := unrecorded(s)
		if g.known() {
			why += "; the same bytes stand on record as something that they are not: " + g.subject
		}
		return told(a.finding(Unrecorded, &group{digest: g.digest}, &s, why))
	case g.signatures > 1 && (s.Kind == Certificate || s.Kind == CRL):
		return told(a.finding(Repeated, g, &s, a.before(g)))
	}
	return nil
}

// judge judges what is on record of a digest, once all its signatures are known.
func (a *Account) judge(g *group, told func(Finding) error) error {
	if !g.known() {
		return nil
	}
	judged := a.span.holds(g.at) || !a.ahead.IsZero() && !g.at.Before(a.ahead)
	intended, signed, open, row := g.has[IntentEvent], g.has[SignedEvent], g.has[IntentRow], g.has[SignedRow]
	certain := signed || row || g.has[CheckpointRow]
	var first *Signature
	if g.signatures > 0 {
		first = &g.first
	}
	switch {
	case !judged && !g.anew:
		if !g.at.Before(a.span.Until) {
			a.counts.Pending++
		}
		return nil
	case signed && !row:
		return told(a.finding(Erased, g, first, "the audit log says that it was signed, and it is not on record any more"))
	case intended && !row && !open:
		return told(a.finding(Erased, g, first,
			"the audit log says that it was to be signed, and neither it nor its intent is on record any more"))
	case (row || open) && !intended:
		return told(a.finding(Unannounced, g, first, "it is on record, and the audit log does not say that it was to be signed"))
	case row && !signed:
		return told(a.finding(Unannounced, g, first, "it is on record, and the audit log does not say that it was signed"))
	case len(a.journals) == 0 || g.signatures > 0:
		a.counts.Agreeing++
		return nil
	case !certain: // an intent that the key may never have seen
		return nil
	case g.at.Before(a.begin) || a.begin.IsZero():
		a.counts.Before++
		return nil
	}
	return told(a.finding(Unjournaled, g, nil,
		"it is on record as signed, and no journal tells of the signature: it was made elsewhere, or the journal of its keeper was not given"))
}

func (a *Account) finding(kind Kind, g *group, s *Signature, why string) Finding {
	f := Finding{Kind: kind, Digest: hex.EncodeToString(g.digest[:]), Subject: g.subject, Why: why}
	at := g.at
	if s != nil {
		f.Journal, f.Entry, f.Key = a.journal(*s), s.Entry, s.Key
		at = s.At
		if f.Subject == "" {
			f.Subject = strings.TrimSpace(s.Kind + " " + s.Detail)
		}
	}
	f.At = &at
	return f
}

func (a *Account) journal(s Signature) string { return a.journals[s.Journal] }

// judgeAnswers looks up what OCSP answers are about.
func (a *Account) judgeAnswers(ctx context.Context, unissued func(context.Context, [][]byte) ([][]byte, error),
	told func(Finding) error,
) error {
	var serials [][]byte
	var answers []Signature // the first about each
	ask := func() error {
		if len(serials) == 0 {
			return nil
		}
		invented, err := unissued(ctx, serials)
		if err != nil {
			return err
		}
		never := map[string]bool{}
		for _, serial := range invented {
			never[string(serial)] = true
		}
		for i, s := range answers {
			if !never[string(serials[i])] {
				continue
			}
			f := a.finding(Invented, &group{digest: s.Digest}, &s, "the answer calls a certificate "+s.Status+" that was never issued")
			f.Subject = "OCSP answer about " + s.Detail
			if err := told(f); err != nil {
				return err
			}
		}
		serials, answers = serials[:0], answers[:0]
		return nil
	}
	err := a.answers.each(func(raw []byte) error {
		size := int(raw[0])
		serial := raw[1 : 1+size]
		if n := len(serials); n > 0 && string(serials[n-1]) == string(serial) {
			return nil
		}
		if len(serials) == lookUp {
			if err := ask(); err != nil {
				return err
			}
		}
		l := line{raw[1+size:]}
		digest := l.digest()
		l.octet()
		serials, answers = append(serials, append([]byte(nil), serial...)), append(answers, l.signature(digest))
		return nil
	})
	if err != nil {
		return err
	}
	return ask()
}
