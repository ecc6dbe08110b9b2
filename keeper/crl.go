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
	released := false // an entry ends a hold: only a delta CRL may say so
	if s.PeekASN1Tag(der.SEQUENCE) {
		if released, err = revoked(&s); err != nil {
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
	if _, delta := ext[oidDeltaCRL]; released && !delta {
		return list{}, refuse("the reason of an entry is not one of a complete CRL")
	}
	return k.crlExtensions(ext)
}

// revoked reads the entries: none is left unread, because an extension may change what an entry means.
func revoked(s *cryptobyte.String) (released bool, err error) {
	entries, err := content(s, der.SEQUENCE, "the entries")
	if err != nil {
		return false, err
	}
	if entries.Empty() {
		return false, refuse("the list of entries is there and empty")
	}
	for !entries.Empty() {
		entry, err := content(&entries, der.SEQUENCE, "an entry")
		if err != nil {
			return false, err
		}
		if _, err := positive(&entry, "the serial number of an entry"); err != nil {
			return false, err
		}
		if _, err := moment(&entry, "the time of an entry"); err != nil {
			return false, err
		}
		if entry.Empty() {
			continue
		}
		inner, err := sequence(entry, "the extensions of an entry")
		if err != nil {
			return false, err
		}
		reason, err := entryExtensions(inner)
		if err != nil {
			return false, err
		}
		released = released || reason == removeFromCRL
	}
	return released, nil
}

const removeFromCRL = 8 // RFC 5280, section 5.3.1

// plainReason is the DER of a reasonCode but for the reason. Nearly all entries have it alone, and a list may have a million.
const plainReason = "\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"

// entryExtensions accepts reasonCode and invalidityDate. certificateIssuer would make an entry another authority's.
func entryExtensions(list cryptobyte.String) (reason int, err error) {
	if len(list) == len(plainReason)+1 && string(list[:len(plainReason)]) == plainReason {
		reason = int(list[len(plainReason)])
		return reason, checkReason(reason)
	}
	ext, err := extensions(list, "the extensions of an entry")
	if err != nil {
		return 0, err
	}
	for oid, e := range ext {
		value := e.value
		switch oid {
		case oidReason:
			if e.critical || !value.ReadASN1Enum(&reason) || !value.Empty() {
				return 0, refuse("the reason of an entry cannot be read")
			}
			if err := checkReason(reason); err != nil {
				return 0, err
			}
		case oidInvalidityDate:
			if _, err := generalized(&value, "the invalidityDate"); err != nil || e.critical || !value.Empty() {
				return 0, refuse("the invalidityDate of an entry cannot be read")
			}
		default:
			return 0, refuse("an entry has an extension that is unknown: %x", oid)
		}
	}
	return reason, nil
}

func checkReason(reason int) error {
	if reason < 1 || reason > 10 || reason == 7 {
		return refuse("the reason of an entry is not one of a CRL")
	}
	return nil
}

// checkDistribution reads an issuingDistributionPoint (RFC 5280, section 5.2.5): one URL, and that the list is for subscribers'
// certificates or for authorities' alone, one of the two at least. So strict, there is one spelling of each, and its digest names the
// scope: a list cannot be taken for one of another scope because it says the same in other octets.
func checkDistribution(e extension) error {
	inner, err := sequence(e.value, "the issuingDistributionPoint")
	switch {
	case err != nil:
		return err
	case !e.critical:
		return refuse("the issuingDistributionPoint is not critical")
	case inner.Empty():
		return refuse("the issuingDistributionPoint is empty: the scope would be that of a CRL without one")
	}
	field := func(n uint8) der.Tag { return der.Tag(n).ContextSpecific() }
	if inner.PeekASN1Tag(field(0).Constructed()) {
		var point, names, url cryptobyte.String
		if !inner.ReadASN1(&point, field(0).Constructed()) || !point.ReadASN1(&names, field(0).Constructed()) || !point.Empty() ||
			!names.ReadASN1(&url, field(6)) || !names.Empty() || !visible(url) {
			return refuse("the issuingDistributionPoint does not have the name of one URL")
		}
	}
	for n := uint8(1); n <= 2; n++ { // onlyContainsUserCerts or onlyContainsCACerts
		if inner.PeekASN1Tag(field(n)) {
			var flag cryptobyte.String
			if !inner.ReadASN1(&flag, field(n)) || string(flag) != "\xff" { // DER leaves FALSE, the default, out
				return refuse("the issuingDistributionPoint is not in DER")
			}
			break
		}
	}
	if !inner.Empty() {
		return refuse("the issuingDistributionPoint says more than for which certificates the CRL is")
	}
	return nil
}

// visible tells whether a text is one of visible ASCII.
func visible(text []byte) bool {
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(text) > 0
}

func (k *key) crlExtensions(ext map[string]extension) (list, error) {
	l := list{scope: fullScope}
	for oid, e := range ext {
		switch oid {
		case oidAuthorityKeyID, oidCRLNumber, oidFreshestCRL:
			if e.critical {
				return l, refuse("an extension of the CRL must not be critical: %x", oid)
			}
		case oidIssuingDistribution:
			if err := checkDistribution(e); err != nil {
				return l, err
			}
			digest := sha256.Sum256(e.value)
			l.scope = hex.EncodeToString(digest[:scopeOctets])
		case oidDeltaCRL:
			value := e.value
			if _, err := positive(&value, "the base of the delta CRL"); err != nil || !e.critical || !value.Empty() {
				return l, refuse("the deltaCRLIndicator is not critical, or cannot be read")
			}
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
	if base, ok := ext[oidDeltaCRL]; ok {
		if octets, err := positive(&base.value, "the base of the delta CRL"); err != nil || new(big.Int).SetBytes(octets).Cmp(l.number) >= 0 {
			return l, refuse("the base of the delta CRL is not below its number")
		}
	}
	if !value.Empty() || l.number.BitLen() > maxNumberBits {
		return l, refuse("the CRL number is not below 2^159")
	}
	return l, nil
}
