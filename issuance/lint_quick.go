package issuance

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"slices"

	zasn1 "github.com/zmap/zcrypto/encoding/asn1"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	"github.com/zmap/zlint/v3/util"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Lints that cost more than most others together are run another way. What they say stays theirs.

// badCharacter compiles the same regular expression for every certificate.
const badCharacter = "e_dnsname_bad_character_in_label"

// plain are lints that decode what they look at once more, by reflection, or make text of every object identifier, with what is certain to
// pass them.
var plain = map[string]func(*zx509.Certificate) bool{
	"e_cert_ext_invalid_der":                hasPlainExtensions,
	"e_ext_cannot_be_empty_sequence":        hasElements,
	"e_ext_duplicate_extension":             hasDistinctExtensions,
	"e_serial_number_longer_than_20_octets": hasShortSerial,
	"e_subject_dn_not_printable_characters": hasPlainSubject,
	"e_subject_printable_string_badalpha":   hasPlainSubject,
}

// timeForms are lints on how the validity is written, each of which decodes the certificate up to it, by reflection. The value tells
// whether it applies to UTCTime.
var timeForms = map[string]bool{
	"e_generalized_time_does_not_include_seconds":  false,
	"e_generalized_time_includes_fraction_seconds": false,
	"e_generalized_time_not_in_zulu":               false,
	"e_utc_time_does_not_include_seconds":          true,
	"e_utc_time_not_in_zulu":                       true,
	"e_wrong_time_format_pre2050":                  true,
}

// quick is the lint itself, or a copy of it that says the same sooner.
func quick(l *lint.CertificateLint) *lint.CertificateLint {
	made := *l
	if applies, ok := timeForms[l.Name]; ok {
		made.Lint = func() lint.CertificateLintInterface { return timeForm{l.Lint(), applies} }
		return &made
	}
	if passes, ok := plain[l.Name]; ok {
		made.Lint = func() lint.CertificateLintInterface { return plainlyPassing{l.Lint(), passes} }
		return &made
	}
	if l.Name != badCharacter {
		return l
	}
	instance := l.Lint() // holds the expression and nothing else, and running it changes nothing
	made.Lint = func() lint.CertificateLintInterface { return instance }
	return &made
}

// plainlyPassing is a lint that is not asked about a certificate which it is certain to let pass.
type plainlyPassing struct {
	lint.CertificateLintInterface
	passes func(*zx509.Certificate) bool
}

func (p plainlyPassing) Execute(c *zx509.Certificate) *lint.LintResult {
	if p.passes(c) {
		return &lint.LintResult{Status: lint.Pass}
	}
	return p.CertificateLintInterface.Execute(c)
}

// timeForm is a lint that is not asked about a validity in plain UTCTime, with which it is content.
type timeForm struct {
	lint.CertificateLintInterface
	appliesToUTC bool
}

func (t timeForm) CheckApplies(c *zx509.Certificate) bool {
	if hasPlainTimes(c) {
		return t.appliesToUTC
	}
	return t.CertificateLintInterface.CheckApplies(c)
}

func (t timeForm) Execute(c *zx509.Certificate) *lint.LintResult {
	if hasPlainTimes(c) {
		return &lint.LintResult{Status: lint.Pass}
	}
	return t.CertificateLintInterface.Execute(c)
}

// hasPlainTimes tells that a certificate of version 3 is strict DER down to its validity, of which both times are written as RFC 5280,
// section 4.1.2.5.1, wants UTCTime: with seconds, and in Zulu.
func hasPlainTimes(c *zx509.Certificate) bool {
	raw := cryptobyte.String(c.RawTBSCertificate)
	var tbs, validity cryptobyte.String
	return raw.ReadASN1(&tbs, der.SEQUENCE) && tbs.SkipASN1(der.Tag(0).ContextSpecific().Constructed()) && tbs.SkipASN1(der.INTEGER) &&
		tbs.SkipASN1(der.SEQUENCE) && tbs.SkipASN1(der.SEQUENCE) && // signature, issuer
		tbs.ReadASN1(&validity, der.SEQUENCE) && isPlainUTCTime(&validity) && isPlainUTCTime(&validity) && validity.Empty()
}

func isPlainUTCTime(s *cryptobyte.String) bool {
	var text cryptobyte.String
	if !s.ReadASN1(&text, der.UTCTime) || len(text) != len("YYMMDDhhmmssZ") || text[len(text)-1] != 'Z' {
		return false
	}
	for _, digit := range text[:len(text)-1] {
		if digit < '0' || digit > '9' {
			return false
		}
	}
	return true
}

// hasPlainExtensions tells that a certificate is of version 3 without unique identifiers, strict DER down to its extensions, and that the
// critical flag of each is TRUE or absent. Of one that is anything else it says no, whatever that means.
func hasPlainExtensions(c *zx509.Certificate) bool {
	raw := cryptobyte.String(c.Raw)
	var certificate, tbs, version, list, extensions cryptobyte.String
	var serial, number big.Int
	var signature asn1.BitString
	if !raw.ReadASN1(&certificate, der.SEQUENCE) || !raw.Empty() || !certificate.ReadASN1(&tbs, der.SEQUENCE) ||
		!skipAlgorithm(&certificate) || !certificate.ReadASN1BitString(&signature) || !certificate.Empty() {
		return false
	}
	if !tbs.ReadASN1(&version, der.Tag(0).ContextSpecific().Constructed()) || !version.ReadASN1Integer(&number) || !version.Empty() ||
		!tbs.ReadASN1Integer(&serial) || !skipAlgorithm(&tbs) {
		return false
	}
	for range 4 { // issuer, validity, subject, subjectPublicKeyInfo
		if !tbs.SkipASN1(der.SEQUENCE) {
			return false
		}
	}
	if !tbs.ReadASN1(&list, der.Tag(3).ContextSpecific().Constructed()) || !tbs.Empty() ||
		!list.ReadASN1(&extensions, der.SEQUENCE) || !list.Empty() {
		return false
	}
	for !extensions.Empty() {
		if !isPlainExtension(&extensions) {
			return false
		}
	}
	return number.IsInt64() && number.Int64() == 2
}

func isPlainExtension(extensions *cryptobyte.String) bool {
	var extension, flag cryptobyte.String
	var id asn1.ObjectIdentifier
	var marked bool
	return extensions.ReadASN1(&extension, der.SEQUENCE) && extension.ReadASN1ObjectIdentifier(&id) &&
		extension.ReadOptionalASN1(&flag, &marked, der.BOOLEAN) && (!marked || bytes.Equal(flag, []byte{0xff})) &&
		extension.SkipASN1(der.OCTET_STRING) && extension.Empty()
}

// sequences are the extensions of RFC 5280 whose value is a SEQUENCE that has elements.
var sequences = []zasn1.ObjectIdentifier{
	util.CertPolicyOID, util.PolicyMapOID, util.SubjectAlternateNameOID, util.IssuerAlternateNameOID, util.SubjectDirAttrOID, util.EkuSynOid,
	util.CrlDistOID, util.AiaOID, util.SubjectInfoAccessOID, util.FreshCRLOID,
}

// hasElements tells that each of these, where it is there, is strict DER and has an element.
func hasElements(c *zx509.Certificate) bool {
	for _, e := range c.Extensions {
		if !slices.ContainsFunc(sequences, e.Id.Equal) {
			continue
		}
		value := cryptobyte.String(e.Value)
		var elements, element cryptobyte.String
		var tag der.Tag
		if !value.ReadASN1(&elements, der.SEQUENCE) || !value.Empty() || elements.Empty() {
			return false
		}
		for !elements.Empty() {
			if !elements.ReadAnyASN1(&element, &tag) {
				return false
			}
		}
	}
	return true
}

func hasDistinctExtensions(c *zx509.Certificate) bool {
	for i, e := range c.Extensions {
		for _, other := range c.Extensions[:i] {
			if e.Id.Equal(other.Id) {
				return false
			}
		}
	}
	return true
}

// hasShortSerial tells that a serial number takes 20 octets in DER, or fewer.
func hasShortSerial(c *zx509.Certificate) bool {
	return c.SerialNumber != nil && c.SerialNumber.Sign() >= 0 && c.SerialNumber.BitLen() < 8*20
}

// hasPlainSubject tells that a subject is strict DER, and that every value in it is text of the alphabet that all kinds of text have (RFC 5280,
// appendix B: PrintableString).
func hasPlainSubject(c *zx509.Certificate) bool {
	raw := cryptobyte.String(c.RawSubject)
	var name, set, attribute, value cryptobyte.String
	var id asn1.ObjectIdentifier
	var tag der.Tag
	if !raw.ReadASN1(&name, der.SEQUENCE) || !raw.Empty() {
		return false
	}
	for !name.Empty() {
		if !name.ReadASN1(&set, der.SET) || set.Empty() {
			return false
		}
		for !set.Empty() {
			if !set.ReadASN1(&attribute, der.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) || !attribute.ReadAnyASN1(&value, &tag) ||
				!attribute.Empty() || value.Empty() || !isPrintable(string(value)) {
				return false
			}
		}
	}
	return true
}

// skipAlgorithm passes over an AlgorithmIdentifier.
func skipAlgorithm(s *cryptobyte.String) bool {
	var algorithm cryptobyte.String
	var id asn1.ObjectIdentifier
	if !s.ReadASN1(&algorithm, der.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&id) {
		return false
	}
	var parameters cryptobyte.String
	var tag der.Tag
	return algorithm.Empty() || algorithm.ReadAnyASN1(&parameters, &tag) && algorithm.Empty()
}
