package issuance

import (
	"bytes"
	"cmp"
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
	tbs        []byte
	digest     [sha256.Size]byte
}

// TBS is the exact TBSCertList that will be signed. It must not be changed.
func (p *PreparedCRL) TBS() []byte { return p.tbs }

// Digest is SHA-256 over TBS.
func (p *PreparedCRL) Digest() [sha256.Size]byte { return p.digest }

// PrepareCRL encodes a CRL, version 2, and lints it under a placeholder in place of the signature. The key is not used. A refusal by a
// lint is a *LintError. What would be wrong with a single entry refuses the whole list: a CRL that leaves one out would vouch for it.
func (i *Issuer) PrepareCRL(c CRLContents) (*PreparedCRL, error) {
	prepared, err := i.prepareCRL(c)
	if err != nil {
		return nil, fmt.Errorf("preparing a CRL: %w", err)
	}
	return prepared, nil
}

func (i *Issuer) prepareCRL(c CRLContents) (*PreparedCRL, error) {
	if c.Number == nil || c.Number.Sign() <= 0 || c.Number.BitLen() > maxNumberBits {
		return nil, errors.New("the number is not above 0 and below 2^159")
	}
	c.ThisUpdate, c.NextUpdate = c.ThisUpdate.UTC().Truncate(time.Second), c.NextUpdate.UTC().Truncate(time.Second)
	if !c.NextUpdate.After(c.ThisUpdate) {
		return nil, fmt.Errorf("nextUpdate is %s, not after thisUpdate, which is %s", stamp(c.NextUpdate), stamp(c.ThisUpdate))
	}
	entries, err := orderedEntries(c)
	if err != nil {
		return nil, err
	}
	if err := i.lintCRL(c, lintSample(entries)); err != nil {
		return nil, err
	}
	tbs, err := i.marshalCRL(c, entries)
	if err != nil {
		return nil, err
	}
	return &PreparedCRL{
		issuer: i, number: new(big.Int).Set(c.Number), thisUpdate: c.ThisUpdate, nextUpdate: c.NextUpdate, entries: len(entries),
		tbs: tbs, digest: sha256.Sum256(tbs),
	}, nil
}

// orderedEntries checks the entries and puts them in order of serial number. The entries and serials of c stay as they are.
func orderedEntries(c CRLContents) ([]CRLEntry, error) {
	entries := slices.Clone(c.Entries)
	for n := range entries {
		e := &entries[n]
		e.Serial = bytes.TrimLeft(e.Serial, "\x00")
		if len(e.Serial) == 0 || len(e.Serial) > maxSerial {
			return nil, fmt.Errorf("the serial number %x is not of 1 to %d octets", e.Serial, maxSerial)
		}
		if e.Reason < Unspecified || e.Reason > AACompromise || e.Reason == 7 || e.Reason == RemoveFromCRL {
			return nil, fmt.Errorf("%s cannot be the reason of %x on a complete CRL", e.Reason, e.Serial)
		}
		if e.RevokedAt.IsZero() {
			return nil, fmt.Errorf("%x has no time of revocation", e.Serial)
		}
		e.RevokedAt = e.RevokedAt.UTC().Truncate(time.Second)
		if e.RevokedAt.After(c.ThisUpdate) {
			e.RevokedAt = c.ThisUpdate
		}
	}
	slices.SortFunc(entries, func(a, b CRLEntry) int {
		return cmp.Or(cmp.Compare(len(a.Serial), len(b.Serial)), bytes.Compare(a.Serial, b.Serial))
	})
	for n := 1; n < len(entries); n++ {
		if bytes.Equal(entries[n-1].Serial, entries[n].Serial) {
			return nil, fmt.Errorf("the serial number %x stands twice", entries[n].Serial)
		}
	}
	return entries, nil
}

// marshalCRL encodes a TBSCertList (RFC 5280, section 5.1) from checked entries. Without any, revokedCertificates is absent.
func (i *Issuer) marshalCRL(c CRLContents, entries []CRLEntry) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 512+len(entries)*maxEntry))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		i.key.algorithm.add(b)
		b.AddBytes(i.certificate.RawSubject)
		addTime(b, c.ThisUpdate)
		addTime(b, c.NextUpdate)
		if len(entries) > 0 {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				for n := range entries {
					addEntry(b, &entries[n])
				}
			})
		}
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { i.addCRLExtensions(b, c) })
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the CRL: %w", err)
	}
	return tbs, nil
}

func (i *Issuer) addCRLExtensions(b *cryptobyte.Builder, c CRLContents) {
	addExtension(b, oidAuthorityKeyID, false, keyIdentifier(i.certificate.SubjectKeyId))
	addExtension(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(c.Number) })
	if c.Distribution != "" {
		addExtension(b, oidIssuingDistribution, true, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPointName(b, c.Distribution) })
		})
	}
}

// maxEntry is the length of the longest entry, in octets.
const maxEntry = 96

// reasonExtension is the DER of the reasonCode extension but for its last octet, the reason.
var reasonExtension = []byte{0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01}

// addEntry writes one entry of revokedCertificates. The reason is absent where it is unspecified (RFC 5280, section 5.3.1).
func addEntry(b *cryptobyte.Builder, e *CRLEntry) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.INTEGER, func(b *cryptobyte.Builder) {
			if e.Serial[0]&0x80 != 0 {
				b.AddUint8(0)
			}
			b.AddBytes(e.Serial)
		})
		addTime(b, e.RevokedAt)
		if e.Reason == Unspecified && e.InvalidityDate.IsZero() {
			return
		}
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			if !e.InvalidityDate.IsZero() {
				addExtension(b, oidInvalidityDate, false, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(e.InvalidityDate.UTC()) })
			}
			if e.Reason != Unspecified {
				b.AddBytes(reasonExtension)
				b.AddUint8(uint8(e.Reason))
			}
		})
	})
}

// lintWhole is the longest CRL that is linted as it is.
const lintWhole = 1000

// lintSample is what of a CRL is linted. A long one is represented by a shorter one: linting and its parsing need more time and memory
// than making the list. That is enough because the lints look at the head, which is the same, and at entries one by one; the sample
// holds the first entry of every form that an entry can have, and those revoked first and last. The only lint that looks at entries
// together is that of duplicates, which orderedEntries refuses.
func lintSample(entries []CRLEntry) []CRLEntry {
	if len(entries) <= lintWhole {
		return entries
	}
	type form struct {
		reason      Reason
		invalidity  bool
		serial      int
		generalized bool
	}
	var sample []CRLEntry
	seen := make(map[form]bool)
	first, last := entries[0], entries[0]
	for _, e := range entries {
		f := form{e.Reason, !e.InvalidityDate.IsZero(), len(e.Serial), e.RevokedAt.Year() >= 2050}
		if !seen[f] {
			seen[f] = true
			sample = append(sample, e)
		}
		if e.RevokedAt.Before(first.RevokedAt) {
			first = e
		}
		if e.RevokedAt.After(last.RevokedAt) {
			last = e
		}
	}
	for _, e := range []CRLEntry{first, last} {
		if !slices.ContainsFunc(sample, func(s CRLEntry) bool { return bytes.Equal(s.Serial, e.Serial) }) {
			sample = append(sample, e)
		}
	}
	return sample
}

func (i *Issuer) lintCRL(c CRLContents, sample []CRLEntry) error {
	tbs, err := i.marshalCRL(c, sample)
	if err != nil {
		return err
	}
	draft, err := i.key.draft(tbs)
	if err != nil {
		return err
	}
	return i.crlLinter.check(draft)
}
