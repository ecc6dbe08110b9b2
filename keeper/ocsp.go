package keeper

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	maxNonce   = 128 // octets of an OCSP nonce (RFC 9654, section 2.1)
	maxAnswers = 256 // in one response
)

// The hash algorithms of a CertID, as the octets of their identifiers.
const (
	oidSHA1   = "\x2b\x0e\x03\x02\x1a"
	oidSHA256 = "\x60\x86\x48\x01\x65\x03\x04\x02\x01"
)

// ocsp reads a ResponseData (RFC 6960, section 4.2.1) and holds it against whom the key answers for. It returns the serial numbers
// that are answered for, and what is said of each, with commas between them.
func (k *key) ocsp(s cryptobyte.String, now time.Time) (serials, statuses string, err error) {
	p := k.OCSP
	if p == nil {
		return "", "", refuse("the key signs no OCSP answers")
	}
	if err := k.checkResponder(&s); err != nil {
		return "", "", err
	}
	producedAt, err := generalized(&s, "producedAt")
	if err != nil {
		return "", "", err
	}
	if producedAt.Sub(now).Abs() > skew {
		return "", "", refuse("producedAt is more than 48 hours from now")
	}
	answers, err := content(&s, der.SEQUENCE, "the answers")
	if err != nil {
		return "", "", err
	}
	if answers.Empty() {
		return "", "", refuse("there are no answers")
	}
	var about, said []string
	for !answers.Empty() {
		if len(about) == maxAnswers {
			return "", "", refuse("there are more than %d answers", maxAnswers)
		}
		serial, status, err := k.singleResponse(&answers, now)
		about, said = append(about, serial), append(said, status)
		if err != nil {
			return strings.Join(about, ","), strings.Join(said, ","), err
		}
	}
	serials, statuses = strings.Join(about, ","), strings.Join(said, ",")
	if s.Empty() {
		return serials, statuses, nil
	}
	return serials, statuses, responseExtensions(s)
}

// checkResponder reads the responderID; a version before it would be the default one, which DER leaves out.
func (k *key) checkResponder(s *cryptobyte.String) error {
	var inner, hash cryptobyte.String
	if s.PeekASN1Tag(der.Tag(1).ContextSpecific().Constructed()) {
		if !s.ReadASN1(&inner, der.Tag(1).ContextSpecific().Constructed()) || len(inner) == 0 || !bytes.Equal(inner, k.responderName) {
			return refuse("the responder is named otherwise")
		}
		return nil
	}
	if !s.ReadASN1(&inner, der.Tag(2).ContextSpecific().Constructed()) || !inner.ReadASN1(&hash, der.OCTET_STRING) || !inner.Empty() ||
		!bytes.Equal(hash, k.responderKeyHash) {
		return refuse("the responder is another key")
	}
	return nil
}

func (k *key) singleResponse(s *cryptobyte.String, now time.Time) (serial, status string, err error) {
	single, err := content(s, der.SEQUENCE, "an answer")
	if err != nil {
		return "", "", err
	}
	serial, err = k.certID(&single)
	if err != nil {
		return "", "", err
	}
	if status, err = certStatus(&single); err != nil {
		return serial, status, err
	}
	thisUpdate, err := generalized(&single, "thisUpdate")
	if err != nil {
		return serial, status, err
	}
	var nextUpdate cryptobyte.String
	if !single.ReadASN1(&nextUpdate, der.Tag(0).ContextSpecific().Constructed()) {
		return serial, status, refuse("an answer has no nextUpdate")
	}
	next, err := generalized(&nextUpdate, "nextUpdate")
	switch {
	case err != nil || !nextUpdate.Empty():
		return serial, status, refuse("the nextUpdate of an answer cannot be read")
	case thisUpdate.Sub(now).Abs() > skew:
		return serial, status, refuse("thisUpdate is more than 48 hours from now")
	case !next.After(thisUpdate) || next.Sub(thisUpdate) > k.OCSP.MaxValidity:
		return serial, status, refuse("nextUpdate is not after thisUpdate, or later than the policy permits")
	case single.Empty():
		return serial, status, nil
	}
	return serial, status, archiveCutoff(single)
}

// archiveCutoff accepts the extension of an answer that says since when statuses are kept (RFC 6960, section 4.4.4), and nothing else.
func archiveCutoff(s cryptobyte.String) error {
	ext, err := explicitExtensions(s, "an answer's extensions")
	if err != nil {
		return err
	}
	for oid, e := range ext {
		value := e.value
		if oid != oidArchiveCutoff || e.critical {
			return refuse("an answer has an extension that is not its archive cutoff")
		}
		if _, err := generalized(&value, "the archive cutoff"); err != nil || !value.Empty() {
			return refuse("the archive cutoff of an answer cannot be read")
		}
	}
	return nil
}

// explicitExtensions reads extensions under the tag [1], which are all that is left.
func explicitExtensions(s cryptobyte.String, what string) (map[string]extension, error) {
	outer, err := content(&s, der.Tag(1).ContextSpecific().Constructed(), what)
	if err != nil || !s.Empty() {
		return nil, refuse("something that is not read follows the answers")
	}
	inner, err := sequence(outer, what)
	if err != nil {
		return nil, err
	}
	return extensions(inner, what)
}

// certID reads whose certificate is answered for (RFC 6960, section 4.1.1) and refuses another authority's.
func (k *key) certID(s *cryptobyte.String) (string, error) {
	inner, err := content(s, der.SEQUENCE, "a CertID")
	if err != nil {
		return "", err
	}
	hash, err := content(&inner, der.SEQUENCE, "the hash algorithm of a CertID")
	var null, nameHash, keyHash cryptobyte.String
	oid, ok := identifier(&hash)
	if err != nil || !ok {
		return "", refuse("the hash algorithm of a CertID cannot be read")
	}
	if hash.PeekASN1Tag(der.NULL) && !hash.ReadASN1(&null, der.NULL) || !null.Empty() || !hash.Empty() {
		return "", refuse("the hash algorithm of a CertID cannot be read")
	}
	which := slices.Index([]string{oidSHA1, oidSHA256}, string(oid))
	if which < 0 || !inner.ReadASN1(&nameHash, der.OCTET_STRING) || !inner.ReadASN1(&keyHash, der.OCTET_STRING) ||
		!bytes.Equal(nameHash, k.issuerNameHashes[which]) || !bytes.Equal(keyHash, k.issuerKeyHashes[which]) {
		return "", refuse("an answer is about another authority's certificate")
	}
	serial, err := positive(&inner, "the serial number of an answer")
	if err != nil || !inner.Empty() {
		return "", refuse("the serial number of an answer cannot be read")
	}
	return hex.EncodeToString(serial), nil
}

// What an OCSP answer says of a certificate, as the journal writes it.
const (
	statusGood    = "good"
	statusRevoked = "revoked"
	statusUnknown = "unknown"
)

// certStatus reads good, revoked or unknown.
func certStatus(s *cryptobyte.String) (string, error) {
	var inner cryptobyte.String
	for tag, status := range map[der.Tag]string{0: statusGood, 2: statusUnknown} {
		if s.PeekASN1Tag(tag.ContextSpecific()) {
			if !s.ReadASN1(&inner, tag.ContextSpecific()) || !inner.Empty() {
				return "", refuse("the status of an answer cannot be read")
			}
			return status, nil
		}
	}
	if !s.ReadASN1(&inner, der.Tag(1).ContextSpecific().Constructed()) {
		return "", refuse("the status of an answer cannot be read")
	}
	if _, err := generalized(&inner, "the time of revocation"); err != nil {
		return "", err
	}
	if inner.Empty() {
		return statusRevoked, nil
	}
	var explicit cryptobyte.String
	var reason int
	if !inner.ReadASN1(&explicit, der.Tag(0).ContextSpecific().Constructed()) || !explicit.ReadASN1Enum(&reason) || !explicit.Empty() ||
		!inner.Empty() || reason < 0 || reason > 10 || reason == 7 {
		return "", refuse("the reason of a revocation cannot be read")
	}
	return statusRevoked, nil
}

// responseExtensions accepts a nonce, and nothing else.
func responseExtensions(s cryptobyte.String) error {
	ext, err := explicitExtensions(s, "the answer's extensions")
	if err != nil {
		return err
	}
	for oid, e := range ext {
		value := e.value
		var nonce cryptobyte.String
		if oid != oidOCSPNonce || e.critical || !value.ReadASN1(&nonce, der.OCTET_STRING) || !value.Empty() || len(nonce) == 0 ||
			len(nonce) > maxNonce {
			return refuse("the answer has an extension that is not a nonce of at most %d octets", maxNonce)
		}
	}
	return nil
}
