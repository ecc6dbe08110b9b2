package issuance

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// ReadList is what a CRL says of itself. Its octets are those that it was read from.
type ReadList struct {
	TBS          []byte
	Number       *big.Int
	Base         *big.Int // of a delta CRL; nil otherwise
	ThisUpdate   time.Time
	NextUpdate   time.Time
	Entries      int
	Distribution string   // the URL of its issuingDistributionPoint; empty: it has none
	Contains     Contents // as its issuingDistributionPoint says
	Freshest     string   // the URL of its freshestCRL; empty: it has none, or one that is not written as ours are

	issuer    []byte // DER
	algorithm []byte // DER of the identifier
	signature []byte
}

// ReadCRL reads a CRL whole, in one pass and without keeping its entries: a million of them take some tens of milliseconds. It refuses
// what is not DER, entries that are not in strict order of serial numbers, extensions of the list or of an entry that it does not know
// where they are critical, indirect CRLs, and octets that follow. The signature is not verified; VerifiedBy does.
func ReadCRL(list []byte) (*ReadList, error) {
	r, err := parseCRL(list, (*ReadList).readEntries)
	if err != nil {
		return nil, fmt.Errorf("reading a CRL: %w", err)
	}
	return r, nil
}

// ReadCRLHead is ReadCRL for a CRL that was read whole before: it takes microseconds, and no look at the entries, which it does not count.
func ReadCRLHead(list []byte) (*ReadList, error) {
	r, err := parseCRL(list, func(*ReadList, cryptobyte.String) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("reading the head of a CRL: %w", err)
	}
	return r, nil
}

var errNotCRL = errors.New("it is not the DER of a CertificateList")

func parseCRL(list []byte, readEntries func(*ReadList, cryptobyte.String) error) (*ReadList, error) {
	var whole, tbs cryptobyte.String
	s := cryptobyte.String(list)
	if !s.ReadASN1(&whole, der.SEQUENCE) || !s.Empty() || !whole.ReadASN1Element(&tbs, der.SEQUENCE) {
		return nil, errNotCRL
	}
	r := &ReadList{TBS: tbs}
	var outer cryptobyte.String
	var signature asn1.BitString
	if !whole.ReadASN1Element(&outer, der.SEQUENCE) || !whole.ReadASN1BitString(&signature) || !whole.Empty() || signature.BitLength%8 != 0 {
		return nil, errNotCRL
	}
	r.algorithm, r.signature = outer, signature.Bytes
	var version int
	var inner, issuer cryptobyte.String
	if !tbs.ReadASN1(&tbs, der.SEQUENCE) || !tbs.ReadASN1Integer(&version) || version != 1 || !tbs.ReadASN1Element(&inner, der.SEQUENCE) ||
		!tbs.ReadASN1Element(&issuer, der.SEQUENCE) || !bytes.Equal(inner, outer) {
		return nil, errNotCRL
	}
	r.issuer = issuer
	if !readTime(&tbs, &r.ThisUpdate) || !readTime(&tbs, &r.NextUpdate) {
		return nil, errors.New("its times cannot be read")
	}
	if tbs.PeekASN1Tag(der.SEQUENCE) {
		var entries cryptobyte.String
		if !tbs.ReadASN1(&entries, der.SEQUENCE) || entries.Empty() {
			return nil, errNotCRL
		}
		if err := readEntries(r, entries); err != nil {
			return nil, err
		}
	}
	var extensions cryptobyte.String
	if !tbs.ReadASN1(&extensions, der.Tag(0).ContextSpecific().Constructed()) || !tbs.Empty() ||
		!extensions.ReadASN1(&extensions, der.SEQUENCE) {
		return nil, errNotCRL
	}
	return r, r.readExtensions(extensions)
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(der.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}

// readEntries goes over the entries. Those of the form in which we write them, and nearly all have it, are compared octet by octet.
func (r *ReadList) readEntries(entries cryptobyte.String) error {
	var last []byte
	for !entries.Empty() {
		var entry, serial cryptobyte.String
		if !entries.ReadASN1(&entry, der.SEQUENCE) || !entry.ReadASN1(&serial, der.INTEGER) || !plainSerial(serial) {
			return fmt.Errorf("entry %d cannot be read", r.Entries+1)
		}
		if last != nil && compareSerials(last, serial) >= 0 {
			return fmt.Errorf("entry %d, %x, is out of order", r.Entries+1, []byte(serial))
		}
		last = serial
		r.Entries++
		if !skipTime(&entry) {
			return fmt.Errorf("the time of entry %x cannot be read", []byte(serial))
		}
		if entry.Empty() {
			continue
		}
		var extensions cryptobyte.String
		if !entry.ReadASN1(&extensions, der.SEQUENCE) || extensions.Empty() || !entry.Empty() {
			return fmt.Errorf("the extensions of entry %x cannot be read", []byte(serial))
		}
		if rest, found := bytes.CutPrefix(extensions, reasonExtension); found && len(rest) == 1 {
			continue
		}
		for !extensions.Empty() {
			e, err := nextExtension(&extensions)
			if err == nil && !knownInEntries(e) {
				err = fmt.Errorf("the extension %s is not known, without which the entry cannot be understood", e.oid)
			}
			if err != nil {
				return fmt.Errorf("entry %x: %w", []byte(serial), err)
			}
		}
	}
	return nil
}

// knownInEntries tells whether an entry can be understood that has the extension: with a critical one that is not known the whole CRL
// must not be used (RFC 5280, section 5.3), and with a certificateIssuer it is another authority's certificate that is revoked, and
// those of the entries that follow (section 5.3.3).
func knownInEntries(e readOne) bool {
	switch e.oid {
	case oidReasonCode.String(), oidInvalidityDate.String():
		return true
	case oidCertificateIssuer.String():
		return false
	}
	return !e.critical
}

// plainSerial tells whether the content of an INTEGER is a serial number: positive, and written in as few octets as can be.
func plainSerial(s []byte) bool {
	switch {
	case len(s) == 0 || len(s) > maxSerial+1 || s[0]&0x80 != 0:
		return false
	case s[0] == 0:
		return len(s) > 1 && s[1]&0x80 != 0
	}
	return true
}

// skipTime is readTime for a value that nobody asks for: the digits are looked at, and no calendar.
func skipTime(s *cryptobyte.String) bool {
	b := []byte(*s)
	if len(b) < 15 || b[1] != 13 && b[1] != 15 {
		return false
	}
	length := int(b[1])
	if (b[0] != 0x17 || length != 13) && (b[0] != 0x18 || length != 15) || len(b) < 2+length || b[length+1] != 'Z' {
		return false
	}
	for _, c := range b[2 : length+1] {
		if c < '0' || c > '9' {
			return false
		}
	}
	*s = (*s)[2+length:]
	return true
}

type readOne struct {
	oid      string
	critical bool
	value    cryptobyte.String
}

func nextExtension(s *cryptobyte.String) (e readOne, err error) {
	var one cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&one, der.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) ||
		one.PeekASN1Tag(der.BOOLEAN) && !one.ReadASN1Boolean(&e.critical) || !one.ReadASN1(&e.value, der.OCTET_STRING) || !one.Empty() {
		return e, errors.New("an extension cannot be read")
	}
	e.oid = oid.String()
	return e, nil
}

func (r *ReadList) readExtensions(s cryptobyte.String) error {
	seen := map[string]bool{}
	for !s.Empty() {
		e, err := nextExtension(&s)
		if err != nil {
			return err
		}
		if seen[e.oid] {
			return fmt.Errorf("the extension %s stands twice", e.oid)
		}
		seen[e.oid] = true
		ok := true
		switch e.oid {
		case oidCRLNumber.String():
			r.Number = new(big.Int)
			ok = e.value.ReadASN1Integer(r.Number) && e.value.Empty() && r.Number.Sign() > 0 && r.Number.BitLen() <= maxNumberBits
		case oidDeltaCRL.String():
			r.Base = new(big.Int)
			ok = e.critical && e.value.ReadASN1Integer(r.Base) && e.value.Empty() && r.Base.Sign() > 0
		case oidIssuingDistribution.String():
			ok = e.critical && r.readDistribution(e.value)
		case oidFreshestCRL.String():
			r.Freshest = onlyURL(e.value)
		case oidAuthorityKeyID.String():
		default:
			ok = !e.critical
		}
		if !ok {
			return fmt.Errorf("the extension %s cannot be read", e.oid)
		}
	}
	if r.Number == nil {
		return errors.New("it has no number")
	}
	return nil
}

// readDistribution reads an issuingDistributionPoint from end to end (RFC 5280, section 5.2.5), and takes the URL out of it, where it has
// one. Lists of attribute certificates and indirect ones are none of ours.
func (r *ReadList) readDistribution(value cryptobyte.String) bool {
	field := func(n uint8) der.Tag { return der.Tag(n).ContextSpecific() }
	var inner, name, reasons cryptobyte.String
	if !value.ReadASN1(&inner, der.SEQUENCE) || !value.Empty() {
		return false
	}
	if inner.PeekASN1Tag(field(0).Constructed()) {
		var url cryptobyte.String
		if !inner.ReadASN1(&name, field(0).Constructed()) || !name.ReadASN1(&name, field(0).Constructed()) || !name.ReadASN1(&url, tagURI) {
			return false
		}
		r.Distribution = string(url)
	}
	var only bool
	for n := uint8(1); n <= 2; n++ { // onlyContainsUserCerts, onlyContainsCACerts
		var flag cryptobyte.String
		if inner.PeekASN1Tag(field(n)) && (only || !inner.ReadASN1(&flag, field(n)) || !bytes.Equal(flag, []byte{0xff})) {
			return false
		}
		if flag != nil {
			only, r.Contains = true, [...]Contents{1: UserCertificates, 2: AuthorityCertificates}[n]
		}
	}
	return (!inner.PeekASN1Tag(field(3)) || inner.ReadASN1(&reasons, field(3))) && inner.Empty()
}

// onlyURL is the URL of one distribution point that is nothing else, as distributionPoints writes it; empty where it is written otherwise.
func onlyURL(value cryptobyte.String) string {
	zero := der.Tag(0).ContextSpecific().Constructed()
	for _, tag := range []der.Tag{der.SEQUENCE, der.SEQUENCE, zero, zero, tagURI} {
		var inner cryptobyte.String
		if !value.ReadASN1(&inner, tag) || !value.Empty() {
			return ""
		}
		value = inner
	}
	return string(value)
}

// Partial says what makes a CRL list less than all that its authority has revoked (RFC 5280, sections 5.2.4 and 5.2.5); empty: nothing.
// Whoever takes a partial CRL for the complete one forgets what the others revoke.
func Partial(list *x509.RevocationList) string {
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDeltaCRL):
			return "a delta CRL (deltaCRLIndicator)"
		case e.Id.Equal(oidIssuingDistribution):
			return "one of several (issuingDistributionPoint)"
		}
	}
	return ""
}

// VerifiedBy checks that the list is the authority's and that its key has signed it.
func (r *ReadList) VerifiedBy(authority *x509.Certificate) error {
	a, err := algorithmOf(authority.PublicKey)
	if err != nil {
		return err
	}
	if !bytes.Equal(r.issuer, authority.RawSubject) {
		return errors.New("the CRL is another authority's")
	}
	return r.verifiedBy(authority.PublicKey, a, sha256.Sum256(r.TBS))
}

// verifiedBy is VerifiedBy where SHA-256 over the TBS is known: most often it is what was signed.
func (r *ReadList) verifiedBy(public crypto.PublicKey, a algorithm, sum [sha256.Size]byte) error {
	var b cryptobyte.Builder
	a.add(&b)
	if identifier, err := b.Bytes(); err != nil || !bytes.Equal(identifier, r.algorithm) {
		return errors.New("the CRL's signature algorithm is not that of the key")
	}
	digest := sum[:]
	if a.hash != crypto.SHA256 {
		digest = a.digest(r.TBS)
	}
	return a.verifyDigest(public, digest, r.signature)
}
