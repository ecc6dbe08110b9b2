package issuance

import (
	"crypto/sha256"
	"encoding/asn1"
	"reflect"

	zx509 "github.com/zmap/zcrypto/x509"
	zpkix "github.com/zmap/zcrypto/x509/pkix"
)

// The lints read a certificate as zcrypto has parsed it, by reflection, which takes longer than most of them. What the shape decides is
// the same in all certificates of it, so it is parsed for the first and taken from there for the others.

// specimen is a certificate as zcrypto has parsed it. Those made from it share with it what the fields point to that the shape decides. No
// lint writes to that, nor behind the end of such a list (TestLintsLeaveCertificatesAlone).
type specimen struct {
	certificate zx509.Certificate
	identifiers []string // of its extensions, as they stand in ExtensionsMap
}

// specimenOf is a specimen made of a certificate that zcrypto has parsed, and no lint has seen, if it can be made anew from what varies
// in it. If not, something in it that the shape decides is out of the ordinary, and it is nil: say, an extension that is marked not
// critical, which DER leaves out, so that FingerprintNoCT is of other octets.
func specimenOf(parsed, varies *zx509.Certificate) *specimen {
	s := &specimen{certificate: *parsed}
	for _, e := range parsed.Extensions {
		s.identifiers = append(s.identifiers, e.Id.String())
	}
	again, err := s.completed(varies)
	if err != nil || !reflect.DeepEqual(again, parsed) {
		return nil
	}
	return s
}

// parse is what zcrypto parses of a certificate, of which varies is what varying has read, or nil, and what is known of its shape.
func (l *linter) parse(room, certificate []byte, varies *zx509.Certificate) (c *zx509.Certificate, at sighting, err error) {
	if varies != nil {
		at = l.sight(room, varies, true)
	}
	if at.known != nil && at.known.specimen != nil {
		c, err = at.known.specimen.completed(varies)
	} else {
		c, err = zx509.ParseCertificate(certificate)
	}
	if varies == nil && err == nil {
		at = l.sight(room, c, false)
	}
	return c, at, err
}

// completed is what zcrypto would parse of a certificate of the specimen's shape. Of v, which is what varies in it, the lists and numbers
// go over into the certificate.
func (s *specimen) completed(v *zx509.Certificate) (*zx509.Certificate, error) {
	c := s.certificate
	c.Raw, c.RawTBSCertificate, c.RawSubjectPublicKeyInfo = v.Raw, v.RawTBSCertificate, v.RawSubjectPublicKeyInfo
	c.RawSubject, c.RawIssuer, c.Signature = v.RawSubject, v.RawIssuer, v.Signature
	c.SerialNumber, c.NotBefore, c.NotAfter, c.Subject = v.SerialNumber, v.NotBefore, v.NotAfter, v.Subject
	c.PublicKey, c.SubjectKeyId = v.PublicKey, v.SubjectKeyId
	c.DNSNames, c.EmailAddresses, c.URIs, c.IPAddresses = v.DNSNames, v.EmailAddresses, v.URIs, v.IPAddresses
	c.SignedCertificateTimestampList = v.SignedCertificateTimestampList
	c.Extensions = v.Extensions
	c.ExtensionsMap = make(map[string]zpkix.Extension, len(c.Extensions))
	for i, e := range c.Extensions {
		c.ExtensionsMap[s.identifiers[i]] = e
	}
	c.ValidityPeriod = int(c.NotAfter.Sub(c.NotBefore).Seconds())
	return &c, setFingerprints(&c)
}

// setFingerprints computes the fingerprints. For FingerprintNoCT zcrypto encodes anew what is left without the extensions of RFC 6962,
// which makes the same octets of what is DER.
func setFingerprints(c *zx509.Certificate) error {
	c.FingerprintMD5, c.FingerprintSHA1 = zx509.MD5Fingerprint(c.Raw), zx509.SHA1Fingerprint(c.Raw)
	c.FingerprintSHA256 = zx509.SHA256Fingerprint(c.Raw)
	c.SPKIFingerprint = zx509.SHA256Fingerprint(c.RawSubjectPublicKeyInfo)
	both := sha256.New()
	both.Write(c.RawSubjectPublicKeyInfo)
	both.Write(c.RawSubject)
	c.SPKISubjectFingerprint = both.Sum(nil)
	c.TBSCertificateFingerprint = zx509.SHA256Fingerprint(c.RawTBSCertificate)
	rest := c.RawTBSCertificate
	for _, e := range c.Extensions {
		if id := asn1.ObjectIdentifier(e.Id); id.Equal(oidPoison) || id.Equal(oidSCTList) {
			var err error
			if rest, err = withoutExtension(rest, id); err != nil {
				return err
			}
		}
	}
	c.FingerprintNoCT = zx509.SHA256Fingerprint(rest)
	return nil
}
