package issuance

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/bits"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/policies"
)

// The extensions and access methods that are written, or read in CRLs.
var (
	oidSubjectKeyID        = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage            = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints    = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLNumber           = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReasonCode          = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidityDate      = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidDeltaCRL            = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistribution = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer   = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidNameConstraints     = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCRLDistribution     = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidCertificatePolicies = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID      = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidFreshestCRL         = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidExtKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidAuthorityInfoAccess = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidOCSPNoCheck         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidTimeStamping        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	oidAccessOCSP          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidAccessCAIssuers     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
)

// The tags of a GeneralName (RFC 5280, section 4.2.1.6).
var (
	tagEmail = der.Tag(1).ContextSpecific()
	tagDNS   = der.Tag(2).ContextSpecific()
	tagURI   = der.Tag(6).ContextSpecific()
	tagIP    = der.Tag(7).ContextSpecific()
)

type content func(*cryptobyte.Builder)

// addExtension writes one extension. DER leaves out a criticality that is FALSE, its default.
func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value content) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(der.OCTET_STRING, cryptobyte.BuilderContinuation(value))
	})
}

// addExtensions writes the extensions of a certificate, always in this order.
func addExtensions(b *cryptobyte.Builder, t *policies.Template, authorityKeyID []byte) {
	if t.KeyUsage != 0 {
		addExtension(b, oidKeyUsage, true, keyUsage(t.KeyUsage))
	}
	if len(t.ExtKeyUsage) > 0 {
		addExtension(b, oidExtKeyUsage, stampsTime(t), extKeyUsage(t.ExtKeyUsage))
	}
	if t.CA {
		addExtension(b, oidBasicConstraints, true, basicConstraints(t.PathLen))
	}
	if t.CA || t.WriteSubjectKeyID {
		addExtension(b, oidSubjectKeyID, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(t.SubjectKeyID) })
	}
	addExtension(b, oidAuthorityKeyID, false, keyIdentifier(authorityKeyID))
	if len(t.OCSPURLs)+len(t.IssuerURLs) > 0 {
		addExtension(b, oidAuthorityInfoAccess, false, authorityInfoAccess(t.OCSPURLs, t.IssuerURLs))
	}
	if hasNames(t) {
		addExtension(b, oidSubjectAltName, len(t.Subject) == 0, subjectAltName(t))
	}
	if len(t.Policies) > 0 {
		addExtension(b, oidCertificatePolicies, false, certificatePolicies(t.Policies))
	}
	if !emptyConstraints(t.Permitted) || !emptyConstraints(t.Excluded) {
		addExtension(b, oidNameConstraints, true, nameConstraints(t.Permitted, t.Excluded))
	}
	if t.CRLURL != "" {
		addExtension(b, oidCRLDistribution, false, distributionPoints(t.CRLURL))
	}
	if t.FreshestCRLURL != "" {
		addExtension(b, oidFreshestCRL, false, distributionPoints(t.FreshestCRLURL))
	}
	if t.OCSPNoCheck {
		addExtension(b, oidOCSPNoCheck, false, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
	}
}

// keyUsage is a named bit list: trailing zeros are left out (X.690, section 11.2.2).
func keyUsage(usage x509.KeyUsage) content {
	return func(b *cryptobyte.Builder) {
		octets := []byte{bits.Reverse8(uint8(usage)), bits.Reverse8(uint8(usage >> 8))}
		if octets[1] == 0 {
			octets = octets[:1]
		}
		unused := bits.TrailingZeros8(octets[len(octets)-1])
		b.AddASN1(der.BIT_STRING, func(b *cryptobyte.Builder) {
			b.AddUint8(uint8(unused))
			b.AddBytes(octets)
		})
	}
}

// stampsTime tells whether a certificate is one of an authority for time stamps: its purpose is critical (RFC 3161, section 2.3).
func stampsTime(t *policies.Template) bool {
	return !t.CA && len(t.ExtKeyUsage) == 1 && t.ExtKeyUsage[0].Equal(oidTimeStamping)
}

func extKeyUsage(usages []asn1.ObjectIdentifier) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, usage := range usages {
				b.AddASN1ObjectIdentifier(usage)
			}
		})
	}
}

// basicConstraints of an authority. Other certificates have none: an absent cA means FALSE.
func basicConstraints(pathLen int) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Boolean(true)
			if pathLen >= 0 {
				b.AddASN1Int64(int64(pathLen))
			}
		})
	}
}

// keyIdentifier is an authorityKeyIdentifier with the key's identifier alone.
func keyIdentifier(id []byte) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(der.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(id) })
		})
	}
}

func authorityInfoAccess(ocsp, issuers []string) content {
	return func(b *cryptobyte.Builder) {
		access := func(b *cryptobyte.Builder, method asn1.ObjectIdentifier, urls []string) {
			for _, url := range urls {
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(method)
					addText(b, tagURI, url)
				})
			}
		}
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			access(b, oidAccessOCSP, ocsp)
			access(b, oidAccessCAIssuers, issuers)
		})
	}
}

func hasNames(t *policies.Template) bool {
	return len(t.DNS)+len(t.Email)+len(t.IP)+len(t.URI) > 0
}

func subjectAltName(t *policies.Template) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, name := range t.DNS {
				addText(b, tagDNS, name)
			}
			for _, mailbox := range t.Email {
				addText(b, tagEmail, mailbox)
			}
			for _, ip := range t.IP {
				if !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" {
					b.SetError(fmt.Errorf("%q cannot stand in a certificate: an address is plain IPv4 or IPv6", ip))
					return
				}
				b.AddASN1(tagIP, func(b *cryptobyte.Builder) { b.AddBytes(ip.AsSlice()) })
			}
			for _, uri := range t.URI {
				addText(b, tagURI, uri)
			}
		})
	}
}

func certificatePolicies(ids []asn1.ObjectIdentifier) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, id := range ids {
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) })
			}
		})
	}
}

func emptyConstraints(c *policies.NameConstraints) bool {
	return c == nil || len(c.DNS)+len(c.IP)+len(c.Email)+len(c.URI) == 0
}

func nameConstraints(permitted, excluded *policies.NameConstraints) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for i, c := range []*policies.NameConstraints{permitted, excluded} {
				if !emptyConstraints(c) {
					b.AddASN1(der.Tag(i).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { addSubtrees(b, c) })
				}
			}
		})
	}
}

func addSubtrees(b *cryptobyte.Builder, c *policies.NameConstraints) {
	subtree := func(add content) { b.AddASN1(der.SEQUENCE, cryptobyte.BuilderContinuation(add)) }
	for _, name := range c.DNS {
		subtree(func(b *cryptobyte.Builder) { addText(b, tagDNS, name) })
	}
	for _, prefix := range c.IP {
		subtree(func(b *cryptobyte.Builder) { addPrefix(b, prefix) })
	}
	for _, mailbox := range c.Email {
		subtree(func(b *cryptobyte.Builder) { addText(b, tagEmail, mailbox) })
	}
	for _, host := range c.URI {
		subtree(func(b *cryptobyte.Builder) { addText(b, tagURI, host) })
	}
}

// addPrefix writes an address range as its first address and its mask (RFC 5280, section 4.2.1.10).
func addPrefix(b *cryptobyte.Builder, prefix netip.Prefix) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
		b.SetError(fmt.Errorf("%q cannot be a name constraint: a range is plain IPv4 or IPv6 and has no bits beyond its mask", prefix))
		return
	}
	address := prefix.Addr().AsSlice()
	mask := make([]byte, len(address))
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	b.AddASN1(tagIP, func(b *cryptobyte.Builder) {
		b.AddBytes(address)
		b.AddBytes(mask)
	})
}

// distributionPoints is a sequence of one distribution point, with its name alone.
func distributionPoints(url string) content {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { addDistributionPointName(b, url) })
		})
	}
}

// addDistributionPointName writes the distributionPoint field of a DistributionPoint or of an IssuingDistributionPoint: a full name
// that is one URL.
func addDistributionPointName(b *cryptobyte.Builder, url string) {
	zero := der.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(zero, func(b *cryptobyte.Builder) {
		b.AddASN1(zero, func(b *cryptobyte.Builder) { addText(b, tagURI, url) })
	})
}

// addText writes a name that is an IA5String. Only visible characters are accepted: no name needs others, and control characters in
// names have fooled those who read them.
func addText(b *cryptobyte.Builder, tag der.Tag, text string) {
	if text == "" {
		b.SetError(fmt.Errorf("a name of type %d is empty", tag&^0xe0))
		return
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			b.SetError(fmt.Errorf("%+q cannot stand in a certificate: names are visible ASCII", text))
			return
		}
	}
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}
