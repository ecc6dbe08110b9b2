package issuance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxSerial is the longest serial number that a CRL lists, in octets without the sign's (RFC 5280, section 4.1.2.2).
	maxSerial = 20
	// maxNumberBits makes every CRL number less than 2^159 (RFC 5280, section 5.2.3).
	maxNumberBits = 159
)

// PreparedCRL is a CRL but for its signature: encoded once, linted, and good for one SignCRL of the issuer that prepared it.
type PreparedCRL struct {
	once
	issuer     *Issuer
	number     *big.Int
	thisUpdate time.Time
	nextUpdate time.Time
	entries    int
	room       []byte // the CRL to be: room for its head, the TBS, and room for the signature
	tbs        []byte // in room
	digest     [sha256.Size]byte
}

// TBS is the exact TBSCertList that will be signed. It must not be changed.
func (p *PreparedCRL) TBS() []byte { return p.tbs }

// Digest is SHA-256 over TBS.
func (p *PreparedCRL) Digest() [sha256.Size]byte { return p.digest }

// PrepareCRL encodes a CRL, version 2, and lints it under a placeholder in place of the signature. The key is not used. A refusal by a
// lint is a *LintError. What would be wrong with a single entry refuses the whole list: a CRL that leaves one out would vouch for it.
// The octets of a Revoked are copied, and it may change afterwards.
func (i *Issuer) PrepareCRL(c CRLContents) (*PreparedCRL, error) {
	prepared, err := i.prepareCRL(c)
	if err != nil {
		return nil, fmt.Errorf("preparing a CRL: %w", err)
	}
	return prepared, nil
}

func (i *Issuer) prepareCRL(c CRLContents) (*PreparedCRL, error) {
	for _, n := range []*big.Int{c.Number, c.Base} {
		if n != nil && (n.Sign() <= 0 || n.BitLen() > maxNumberBits) || c.Number == nil {
			return nil, errors.New("the number is not above 0 and below 2^159")
		}
	}
	if c.Base != nil && c.Base.Cmp(c.Number) >= 0 {
		return nil, fmt.Errorf("the base %s of a delta CRL is not below its number %s", c.Base, c.Number)
	}
	c.ThisUpdate, c.NextUpdate = c.ThisUpdate.UTC().Truncate(time.Second), c.NextUpdate.UTC().Truncate(time.Second)
	if !c.NextUpdate.After(c.ThisUpdate) {
		return nil, fmt.Errorf("nextUpdate is %s, not after thisUpdate, which is %s", stamp(c.NextUpdate), stamp(c.ThisUpdate))
	}
	list, err := c.revoked()
	if err != nil {
		return nil, err
	}
	linted, err := i.assembleTBS(c, list.sampled())
	if err != nil {
		return nil, err
	}
	draft, err := i.key.draft(linted.tbs())
	if err != nil {
		return nil, err
	}
	if err := i.crlLinter.check(draft, c.Base != nil || c.Freshest != ""); err != nil {
		return nil, err
	}
	whole := linted
	if list.Len() > lintWhole {
		if whole, err = i.assembleTBS(c, list.entries); err != nil {
			return nil, err
		}
	}
	return &PreparedCRL{
		issuer: i, number: new(big.Int).Set(c.Number), thisUpdate: c.ThisUpdate, nextUpdate: c.NextUpdate, entries: list.Len(),
		room: whole, tbs: whole.tbs(), digest: sha256.Sum256(whole.tbs()),
	}, nil
}

// revoked is the one that the contents name, or one of the entries that they hold.
func (c *CRLContents) revoked() (*Revoked, error) {
	if c.Revoked != nil {
		if len(c.Entries) > 0 {
			return nil, errors.New("there are both kept entries and others")
		}
		return c.Revoked, nil
	}
	list := &Revoked{delta: c.Base != nil}
	entries := make([]RevokedEntry, len(c.Entries))
	for n, e := range c.Entries {
		if !list.stands(e.Reason) {
			return nil, fmt.Errorf("%s cannot be the reason of %x on a complete CRL", e.Reason, e.Serial)
		}
		entries[n].CRLEntry = e
	}
	return list, list.Apply(c.ThisUpdate, entries)
}

const (
	roomBefore = 6    // octets for the head of the whole
	roomBehind = 2200 // octets for the algorithm and the signature, of the largest RSA key there is
)

// framed is a TBSCertList with room around it, so that the whole CRL is made without moving it.
type framed []byte

func (f framed) tbs() []byte { return f[roomBefore:len(f):len(f)] }

// assembleTBS encodes a TBSCertList (RFC 5280, section 5.1) around the DER of its entries. Without any, revokedCertificates is absent.
func (i *Issuer) assembleTBS(c CRLContents, entries []byte) (framed, error) {
	var before, behind cryptobyte.Builder
	before.AddASN1Int64(1)
	i.key.algorithm.add(&before)
	before.AddBytes(i.certificate.RawSubject)
	addTime(&before, c.ThisUpdate)
	addTime(&before, c.NextUpdate)
	behind.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { i.addCRLExtensions(b, c) })
	})
	head, err := before.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the CRL: %w", err)
	}
	tail, err := behind.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the extensions of the CRL: %w", err)
	}
	if len(entries) > 0 {
		head = appendHead(head, len(entries))
	}
	length := len(head) + len(entries) + len(tail)
	room := make(framed, roomBefore, roomBefore+roomBefore+length+roomBehind)
	room = appendHead(room, length)
	for _, part := range [][]byte{head, entries, tail} {
		room = append(room, part...)
	}
	return room, nil
}

// appendHead writes the tag and the length of a SEQUENCE.
func appendHead(octets []byte, length int) []byte {
	octets = append(octets, 0x30)
	if length < 0x80 {
		return append(octets, byte(length))
	}
	size := 1
	for length>>(8*size) > 0 {
		size++
	}
	octets = append(octets, 0x80|byte(size))
	for size--; size >= 0; size-- {
		octets = append(octets, byte(length>>(8*size)))
	}
	return octets
}

func (i *Issuer) addCRLExtensions(b *cryptobyte.Builder, c CRLContents) {
	addExtension(b, oidAuthorityKeyID, false, keyIdentifier(i.certificate.SubjectKeyId))
	addExtension(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Number) })
	if c.Base != nil {
		addExtension(b, oidDeltaCRL, true, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Base) })
	}
	if c.Distribution != "" || c.Contains != Everything || len(c.Reasons) > 0 {
		addExtension(b, oidIssuingDistribution, true, issuingDistributionPoint(c))
	}
	if c.Freshest != "" {
		addExtension(b, oidFreshestCRL, false, distributionPoints(c.Freshest))
	}
}

// issuingDistributionPoint says what a CRL is complete for (RFC 5280, section 5.2.5).
func issuingDistributionPoint(c CRLContents) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			if c.Distribution != "" {
				addDistributionPointName(b, c.Distribution)
			}
			flag := func(tag der.Tag) {
				b.AddASN1(tag.ContextSpecific(), func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
			}
			switch c.Contains {
			case UserCertificates:
				flag(1)
			case AuthorityCertificates:
				flag(2)
			}
			if len(c.Reasons) > 0 {
				b.AddASN1(der.Tag(3).ContextSpecific(), cryptobyte.BuilderContinuation(reasonFlags(c.Reasons)))
			}
		})
	}
}

// flagOf is the bit of ReasonFlags that stands for a reason (RFC 5280, section 4.2.1.13). Unspecified has none.
var flagOf = map[Reason]int{
	KeyCompromise: 1, CACompromise: 2, AffiliationChanged: 3, Superseded: 4, CessationOfOperation: 5, CertificateHold: 6,
	PrivilegeWithdrawn: 7, AACompromise: 8,
}

// reasonFlags is a named bit list: trailing zeros are left out.
func reasonFlags(reasons []Reason) content {
	return func(b *cryptobyte.Builder) {
		var octets [2]byte
		last := 0
		for _, r := range reasons {
			bit, known := flagOf[r]
			if !known {
				b.SetError(fmt.Errorf("a CRL cannot be for %s alone", r))
				return
			}
			octets[bit/8] |= 0x80 >> (bit % 8)
			last = max(last, bit)
		}
		b.AddUint8(uint8(7 - last%8))
		b.AddBytes(octets[:last/8+1])
	}
}

// finish puts the signature behind the TBS and the head of the whole before it.
func (p *PreparedCRL) finish(a algorithm, signature []byte) ([]byte, error) {
	var b cryptobyte.Builder
	a.add(&b)
	b.AddASN1BitString(signature)
	tail, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	whole := append(p.room, tail...)
	head := appendHead(nil, len(whole)-roomBefore)
	start := roomBefore - len(head)
	copy(whole[start:], head)
	return slices.Clip(whole[start:]), nil
}
