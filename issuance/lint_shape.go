package issuance

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// The shape of a certificate is all of it but what differs from one certificate of a profile to the next: serial number, validity, subject,
// public key, and the values of the extensions named in isVarying. Most lints read nothing else, so what they find in one certificate
// they find in every one of its shape: they are run once for each shape. lint_reads.go says which they are, as found from their code.

// decision is how much of a lint's verdict the shape of a certificate decides.
type decision int

const (
	decidesNothing decision = iota
	decidesApplies          // whether the lint applies; where it does, what it finds depends on more
	decidesVerdict
)

// Bounds of what a linter remembers. Beyond the first it forgets everything and begins again; what is longer than the second is not
// remembered.
const (
	maxShapes = 256
	maxShape  = 4096 // octets
)

// shapes is what a linter remembers. Reading takes no lock: whoever adds a shape puts a new map in the place of the old one.
type shapes struct {
	known atomic.Pointer[map[string]*shapeVerdict]
	mu    sync.Mutex // held while adding
}

// shapeVerdict is what holds for all certificates of a shape.
type shapeVerdict struct {
	findings []Finding
	rest     []*lint.CertificateLint // still to be run on each
}

func (s *shapes) get(shape []byte) *shapeVerdict {
	known := s.known.Load()
	if known == nil {
		return nil
	}
	return (*known)[string(shape)]
}

func (s *shapes) add(shape []byte, v *shapeVerdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]*shapeVerdict{}
	if known := s.known.Load(); known != nil && len(*known) < maxShapes {
		next = maps.Clone(*known)
	}
	next[string(shape)] = v
	s.known.Store(&next)
}

// find runs the lints on a certificate, but for those that need not be run again on one of its shape.
func (l *linter) find(c *zx509.Certificate) []Finding {
	var room [1024]byte
	shape, ok := l.shape(room[:0], c)
	if !ok {
		return l.run(nil, l.lints, c)
	}
	known := l.shapes.get(shape)
	if known == nil {
		return l.findFirst(shape, c)
	}
	return l.run(slices.Clone(known.findings), known.rest, c)
}

func (l *linter) run(findings []Finding, lints []*lint.CertificateLint, c *zx509.Certificate) []Finding {
	for _, one := range lints {
		findings = appendFinding(findings, one.Name, one.Execute(c, l.configuration))
	}
	return findings
}

// findFirst runs all lints on the first certificate of a shape, and remembers what holds for the others. Where a lint fails, as one does
// that panics, nothing is remembered.
func (l *linter) findFirst(shape []byte, c *zx509.Certificate) []Finding {
	var findings []Finding
	var made shapeVerdict
	sound, named := true, !bytes.Equal(c.RawSubject, []byte{0x30, 0})
	for _, one := range l.lints {
		result, executed := watch(one, c, l.configuration)
		findings = appendFinding(findings, one.Name, result)
		switch decides := decidedByShape(one.Name, named); {
		case decides == decidesVerdict:
			made.findings = appendFinding(made.findings, one.Name, result)
		case decides == decidesNothing || executed:
			made.rest = append(made.rest, one)
		}
		sound = sound && result.Status != lint.Fatal
	}
	if sound {
		l.shapes.add(shape, &made)
	}
	return findings
}

// watch runs a lint and tells whether it applied, so that it was asked for what it finds.
func watch(one *lint.CertificateLint, c *zx509.Certificate, with lint.Configuration) (result *lint.LintResult, executed bool) {
	if _, configured := one.Lint().(lint.Configurable); configured {
		return one.Execute(c, with), true
	}
	watched := *one
	watched.Lint = func() lint.CertificateLintInterface { return witness{one.Lint(), &executed} }
	result = watched.Execute(c, with)
	return result, executed
}

// witness is a lint that notes when it is run.
type witness struct {
	lint.CertificateLintInterface
	executed *bool
}

func (w witness) Execute(c *zx509.Certificate) *lint.LintResult {
	*w.executed = true
	return w.CertificateLintInterface.Execute(c)
}

// effectiveDates are the moments, in order, at which one of the lints begins or ceases to hold for what is issued from then on.
func effectiveDates(lints []*lint.CertificateLint) []time.Time {
	var dates []time.Time
	for _, one := range lints {
		for _, date := range []time.Time{one.EffectiveDate, one.IneffectiveDate} {
			if !date.IsZero() {
				dates = append(dates, date)
			}
		}
	}
	slices.SortFunc(dates, time.Time.Compare)
	return slices.CompactFunc(dates, time.Time.Equal)
}

// shape appends the octets of a certificate that are its shape. Two certificates have the same octets only if they differ in nothing but what
// varies, their validity begins between the same two effective dates, and both have a subject or neither has. Only a certificate of
// version 3 without unique identifiers that is strict DER down to its extensions has a shape.
func (l *linter) shape(to []byte, c *zx509.Certificate) (shape []byte, ok bool) {
	raw := cryptobyte.String(c.Raw)
	var certificate, tbs, version, algorithm, issuer, subject, key, keyAlgorithm, list, extensions cryptobyte.String
	if !raw.ReadASN1(&certificate, der.SEQUENCE) || !raw.Empty() || !certificate.ReadASN1(&tbs, der.SEQUENCE) ||
		!tbs.ReadASN1(&version, der.Tag(0).ContextSpecific().Constructed()) || string(version) != "\x02\x01\x02" ||
		!tbs.SkipASN1(der.INTEGER) || !tbs.ReadASN1Element(&algorithm, der.SEQUENCE) || !tbs.ReadASN1Element(&issuer, der.SEQUENCE) ||
		!tbs.SkipASN1(der.SEQUENCE) || !tbs.ReadASN1(&subject, der.SEQUENCE) ||
		!tbs.ReadASN1(&key, der.SEQUENCE) || !key.ReadASN1Element(&keyAlgorithm, der.SEQUENCE) ||
		!tbs.ReadASN1(&list, der.Tag(3).ContextSpecific().Constructed()) || !tbs.Empty() ||
		!list.ReadASN1(&extensions, der.SEQUENCE) || !list.Empty() {
		return nil, false
	}
	to = binary.AppendUvarint(to, uint64(l.interval(c.NotBefore)))
	to = append(to, bit(c.SelfSigned), bit(subject.Empty()))
	to = append(append(append(to, algorithm...), issuer...), keyAlgorithm...)
	for !extensions.Empty() {
		if to, ok = appendExtension(to, &extensions); !ok {
			return nil, false
		}
	}
	return to, len(to) <= maxShape
}

// appendExtension appends the next extension whole, or without its value if that varies. What is appended begins with another tag then.
func appendExtension(to []byte, extensions *cryptobyte.String) (shape []byte, ok bool) {
	var whole, extension, id cryptobyte.String
	if !extensions.ReadASN1Element(&whole, der.SEQUENCE) {
		return nil, false
	}
	if inner := whole; !inner.ReadASN1(&extension, der.SEQUENCE) {
		return nil, false
	}
	rest := extension
	if !rest.ReadASN1(&id, der.OBJECT_IDENTIFIER) || !rest.SkipOptionalASN1(der.BOOLEAN) {
		return nil, false
	}
	if !isVarying(id) {
		return append(to, whole...), true
	}
	return append(to, extension[:len(extension)-len(rest)]...), true
}

// isVarying tells, by the contents octets of its identifier, whether an extension's value is no part of the shape.
func isVarying(id []byte) bool {
	switch string(id) {
	case "\x55\x1d\x0e", // subjectKeyIdentifier
		"\x55\x1d\x11",                             // subjectAltName
		"\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x02": // the list of SCTs
		return true
	}
	return false
}

// interval is the number of effective dates up to a moment.
func (l *linter) interval(at time.Time) int {
	n := len(l.dates)
	for n > 0 && l.dates[n-1].After(at) {
		n-- // nearly all lie in the past
	}
	return n
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
