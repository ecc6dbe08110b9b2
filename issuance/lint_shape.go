package issuance

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	"github.com/zmap/zlint/v3/util"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// The shape of a certificate is all of it but what differs from one certificate of a profile to the next: serial number, validity, subject,
// public key, and the values of the extensions named in isVarying. Most lints read nothing else, so what they find in one certificate
// they find in every one of its shape: they are run once for each shape. lint_reads.go says what each reads, as found from its code. What
// zcrypto parses of all else is the same too (lint_specimen.go).

// facets are parts of what differs that a certificate may be without. Where it is, which belongs to the shape, a lint that reads no more
// than that is decided by the shape.
type facets uint16

const (
	aSubject        facets = 1 << iota
	otherAttributes        // of the subject, than one common name
	dnsNames               // and so on: the subject alternative names
	emailAddresses
	uris
	ipAddresses
	otherNames
	directoryNames
	ediPartyNames
	registeredIDs
	everything // the rest of what differs, which no certificate is without
)

// facetsOf are those that a certificate has. Subject is the contents of its subject.
func facetsOf(c *zx509.Certificate, subject cryptobyte.String) facets {
	return everything | aSubject.when(!subject.Empty()) | otherAttributes.when(!subject.Empty() && !isCommonName(subject)) |
		dnsNames.when(len(c.DNSNames) > 0) | emailAddresses.when(len(c.EmailAddresses) > 0) | uris.when(len(c.URIs) > 0) |
		ipAddresses.when(len(c.IPAddresses) > 0) | otherNames.when(len(c.OtherNames) > 0) | directoryNames.when(len(c.DirectoryNames) > 0) |
		ediPartyNames.when(len(c.EDIPartyNames) > 0) | registeredIDs.when(len(c.RegisteredIDs) > 0)
}

func (f facets) when(is bool) facets {
	if is {
		return f
	}
	return 0
}

// isCommonName tells whether the contents of a Name are one common name.
func isCommonName(name cryptobyte.String) bool {
	var set, attribute, id cryptobyte.String
	return name.ReadASN1(&set, der.SET) && name.Empty() && set.ReadASN1(&attribute, der.SEQUENCE) && set.Empty() &&
		attribute.ReadASN1(&id, der.OBJECT_IDENTIFIER) && string(id) == "\x55\x04\x03"
}

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
	specimen *specimen               // if others can be made from one
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

// sighting is the shape of a certificate, and what is known of it.
type sighting struct {
	shape []byte // nil: it has none
	has   facets
	known *shapeVerdict // nil: it is the first of its shape
}

// sight finds the shape of a certificate, and writes it into room where it fits. Plain is as for shape.
func (l *linter) sight(room []byte, c *zx509.Certificate, plain bool) sighting {
	shape, has, ok := l.shape(room, c, plain)
	if !ok {
		return sighting{}
	}
	return sighting{shape, has, l.shapes.get(shape)}
}

// find runs the lints on a certificate, but for those that need not be run again on one of its shape. Varies is what varying has read of
// it, or nil.
func (l *linter) find(at sighting, c, varies *zx509.Certificate) []Finding {
	switch {
	case at.shape == nil:
		return l.run(nil, l.lints, c)
	case at.known == nil:
		return l.findFirst(at.shape, at.has, c, varies)
	}
	return l.run(slices.Clone(at.known.findings), at.known.rest, c)
}

func (l *linter) run(findings []Finding, lints []*lint.CertificateLint, c *zx509.Certificate) []Finding {
	for _, one := range lints {
		findings = appendFinding(findings, one.Name, one.Execute(c, l.configuration))
	}
	return findings
}

// findFirst runs all lints on the first certificate of a shape, and remembers what holds for the others. Where a lint fails, as one does
// that panics, nothing is remembered.
func (l *linter) findFirst(shape []byte, has facets, c, varies *zx509.Certificate) []Finding {
	var findings []Finding
	var made shapeVerdict
	if varies != nil {
		made.specimen = specimenOf(c, varies)
	}
	sound := true
	for _, one := range l.lints {
		var result *lint.LintResult
		switch applies, verdict := readsOf(one.Name); {
		case verdict&has == 0:
			result = one.Execute(c, l.configuration)
			made.findings = appendFinding(made.findings, one.Name, result)
		case applies&has != 0:
			result = one.Execute(c, l.configuration)
			made.rest = append(made.rest, one)
		default:
			var executed bool
			if result, executed = watch(one, c, l.configuration); executed {
				made.rest = append(made.rest, applying(one))
			}
		}
		findings = appendFinding(findings, one.Name, result)
		sound = sound && result.Status != lint.Fatal
	}
	if sound {
		l.shapes.add(shape, &made)
	}
	return findings
}

// watch runs a lint and tells whether it applied, so that it was asked for what it finds.
func watch(one *lint.CertificateLint, c *zx509.Certificate, with lint.Configuration) (result *lint.LintResult, executed bool) {
	watched := wrap(one, func(l lint.CertificateLintInterface) lint.CertificateLintInterface { return witness{l, &executed} })
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

// applying is a lint that is known to apply, and is not asked any more.
func applying(one *lint.CertificateLint) *lint.CertificateLint {
	known := wrap(one, func(l lint.CertificateLintInterface) lint.CertificateLintInterface { return applies{l} })
	known.LintMetadata = lint.LintMetadata{Name: one.Name, OverrideFrameworkFilter: true}
	return known
}

type applies struct{ lint.CertificateLintInterface }

func (applies) CheckApplies(*zx509.Certificate) bool { return true }

// wrap is a lint with another around what it is made of. It is configured as before.
func wrap(one *lint.CertificateLint, around func(lint.CertificateLintInterface) lint.CertificateLintInterface) *lint.CertificateLint {
	wrapped := *one
	wrapped.Lint = func() lint.CertificateLintInterface {
		inner := one.Lint()
		if c, ok := inner.(lint.Configurable); ok {
			return configured{around(inner), c}
		}
		return around(inner)
	}
	return &wrapped
}

type configured struct {
	lint.CertificateLintInterface
	lint.Configurable
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

// shape appends the octets of a certificate that are its shape. Two certificates have the same octets only if they differ in nothing but
// what varies, they have the same facets, their validity begins between the same two effective dates, and both are plain, as varying has
// it, or neither is. Only a certificate of version 3 without unique identifiers that is strict DER down to its extensions has a shape. It
// is the same of a parsed certificate and of what varying reads of it.
func (l *linter) shape(to []byte, c *zx509.Certificate, plain bool) (shape []byte, has facets, ok bool) {
	raw := cryptobyte.String(c.Raw)
	var certificate, tbs, version, algorithm, issuer, subject, key, keyAlgorithm, list, extensions cryptobyte.String
	if !raw.ReadASN1(&certificate, der.SEQUENCE) || !raw.Empty() || !certificate.ReadASN1(&tbs, der.SEQUENCE) ||
		!certificate.SkipASN1(der.SEQUENCE) || !certificate.SkipASN1(der.BIT_STRING) || !certificate.Empty() ||
		!tbs.ReadASN1(&version, der.Tag(0).ContextSpecific().Constructed()) || string(version) != "\x02\x01\x02" ||
		!tbs.SkipASN1(der.INTEGER) || !tbs.ReadASN1Element(&algorithm, der.SEQUENCE) || !tbs.ReadASN1Element(&issuer, der.SEQUENCE) ||
		!tbs.SkipASN1(der.SEQUENCE) || !tbs.ReadASN1(&subject, der.SEQUENCE) ||
		!tbs.ReadASN1(&key, der.SEQUENCE) || !key.ReadASN1Element(&keyAlgorithm, der.SEQUENCE) ||
		!tbs.ReadASN1(&list, der.Tag(3).ContextSpecific().Constructed()) || !tbs.Empty() ||
		!list.ReadASN1(&extensions, der.SEQUENCE) || !list.Empty() {
		return nil, 0, false
	}
	has = facetsOf(c, subject)
	to = binary.BigEndian.AppendUint16(to, uint16(has))
	to = append(to, bit(c.SelfSigned), bit(c.Subject.CommonName == ""), bit(util.HasEmailSAN(c)), bit(plain))
	to = binary.AppendUvarint(to, l.ahead(c.NotBefore))
	to = append(append(append(to, algorithm...), issuer...), keyAlgorithm...)
	for !extensions.Empty() {
		if to, ok = appendExtension(to, &extensions); !ok {
			return nil, 0, false
		}
	}
	return to, has, len(to) <= maxShape
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
	to = append(to, extension[:len(extension)-len(rest)]...)
	return to, rest.SkipASN1(der.OCTET_STRING) && rest.Empty()
}

// isVarying tells, by the contents octets of its identifier, whether an extension's value is no part of the shape.
func isVarying(id []byte) bool {
	switch string(id) {
	case "\x55\x1d\x0e", // subjectKeyIdentifier
		"\x55\x1d\x11", // subjectAltName
		"\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x02": // the list of SCTs
		return true
	}
	return false
}

// ahead is the number of effective dates after a moment. Nearly all lie in the past.
func (l *linter) ahead(at time.Time) (n uint64) {
	for i := len(l.dates) - 1; i >= 0 && l.dates[i].After(at); i-- {
		n++
	}
	return n
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
