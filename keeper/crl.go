package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	maxNumberBits = 159 // of a CRL number (RFC 5280, section 5.2.3)
	// scopeOctets are as many of the digest of an issuingDistributionPoint as name a scope in the journal.
	scopeOctets = 8
	fullScope   = "full"
)

// list is what the guard remembers of a CRL.
type list struct {
	scope  string
	number *big.Int
}

// crl reads a TBSCertList (RFC 5280, section 5.1) and holds it against the authority.
func (k *key) crl(s cryptobyte.String, now time.Time) (list, error) {
	p := k.CRLs
	if p == nil {
		return list{}, refuse("the key signs no CRLs")
	}
	var version int
	if !s.ReadASN1Integer(&version) || version != 1 {
		return list{}, refuse("the CRL is not of version 2")
	}
	signature, err := element(&s, der.SEQUENCE, "the signature algorithm")
	if err != nil || !bytes.Equal(signature, k.algorithm.identifier) {
		return list{}, refuse("the signature algorithm is not the key's")
	}
	issuer, err := name(&s, "the issuer")
	if err != nil || !bytes.Equal(issuer, k.subject) {
		return list{}, refuse("the issuer is not the authority")
	}
	thisUpdate, err := moment(&s, "thisUpdate")
	if err != nil {
		return list{}, err
	}
	nextUpdate, err := moment(&s, "nextUpdate")
	if err != nil {
		return list{}, err
	}
	switch {
	case thisUpdate.Sub(now).Abs() > skew:
		return list{}, refuse("thisUpdate is more than 48 hours from now")
	case !nextUpdate.After(thisUpdate):
		return list{}, refuse("nextUpdate is not after thisUpdate")
	case nextUpdate.Sub(thisUpdate) > p.MaxValidity:
		return list{}, refuse("nextUpdate is later than the policy permits")
	}
	if s.PeekASN1Tag(der.SEQUENCE) {
		if err := revoked(&s); err != nil {
			return list{}, err
		}
	}
	outer, err := content(&s, der.Tag(0).ContextSpecific().Constructed(), "the CRL's extensions")
	if err != nil {
		return list{}, err
	}
	if !s.Empty() {
		return list{}, refuse("something follows the CRL's extensions")
	}
	inner, err := sequence(outer, "the CRL's extensions")
	if err != nil {
		return list{}, err
	}
	ext, err := extensions(inner, "the CRL's extensions")
	if err != nil {
		return list{}, err
	}
	return k.crlExtensions(ext)
}

// revoked reads the entries: none is left unread, because an extension may change what an entry means.
func revoked(s *cryptobyte.String) error {
	entries, err := content(s, der.SEQUENCE, "the entries")
	if err != nil {
		return err
	}
	if entries.Empty() {
		return refuse("the list of entries is there and empty")
	}
	for !entries.Empty() {
		entry, err := content(&entries, der.SEQUENCE, "an entry")
		if err != nil {
			return err
		}
		if _, err := positive(&entry, "the serial number of an entry"); err != nil {
			return err
		}
		if _, err := moment(&entry, "the time of an entry"); err != nil {
			return err
		}
		if entry.Empty() {
			continue
		}
		inner, err := sequence(entry, "the extensions of an entry")
		if err != nil {
			return err
		}
		if err := entryExtensions(inner); err != nil {
			return err
		}
	}
	return nil
}

// entryExtensions accepts reasonCode and invalidityDate. certificateIssuer would make an entry another authority's.
func entryExtensions(list cryptobyte.String) error {
	ext, err := extensions(list, "the extensions of an entry")
	if err != nil {
		return err
	}
	for oid, e := range ext {
		value := e.value
		switch oid {
		case oidReason:
			var reason int
			if e.critical || !value.ReadASN1Enum(&reason) || !value.Empty() || reason < 1 || reason > 10 || reason == 7 || reason == 8 {
				return refuse("the reason of an entry is not one of a complete CRL")
			}
		case oidInvalidityDate:
			if _, err := generalized(&value, "the invalidityDate"); err != nil || e.critical || !value.Empty() {
				return refuse("the invalidityDate of an entry cannot be read")
			}
		default:
			return refuse("an entry has an extension that is unknown: %x", oid)
		}
	}
	return nil
}

func (k *key) crlExtensions(ext map[string]extension) (list, error) {
	l := list{scope: fullScope}
	for oid, e := range ext {
		switch oid {
		case oidAuthorityKeyID, oidCRLNumber:
			if e.critical {
				return l, refuse("an extension of the CRL must not be critical: %x", oid)
			}
		case oidIssuingDistribution:
			if _, err := sequence(e.value, "issuingDistributionPoint"); err != nil || !e.critical {
				return l, refuse("the issuingDistributionPoint is not critical, or cannot be read")
			}
			digest := sha256.Sum256(e.value)
			l.scope = hex.EncodeToString(digest[:scopeOctets])
		default:
			return l, refuse("the CRL has an extension that is unknown: %x", oid)
		}
	}
	if err := k.checkAuthorityKeyID(ext); err != nil {
		return l, err
	}
	value := ext[oidCRLNumber].value
	octets, err := positive(&value, "the CRL number")
	if err != nil {
		return l, err
	}
	l.number = new(big.Int).SetBytes(octets)
	if !value.Empty() || l.number.BitLen() > maxNumberBits {
		return l, refuse("the CRL number is not below 2^159")
	}
	return l, nil
}
