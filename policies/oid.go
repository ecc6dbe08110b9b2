package policies

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// named is a table entry: an object identifier by its name in the standards.
type named struct {
	name string
	oid  asn1.ObjectIdentifier
}

// The attribute types that rules speak of (RFC 5280, appendix A; X.520).
var (
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidCountry      = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidOrganisation = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// oidNameConstraints is the extension of RFC 5280, section 4.2.1.10.
var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// anyPolicy (RFC 5280, section 4.2.1.4) and the extension of section 4.2.1.5.
var (
	oidAnyPolicy      = asn1.ObjectIdentifier{2, 5, 29, 32, 0}
	oidPolicyMappings = asn1.ObjectIdentifier{2, 5, 29, 33}
)

// The extended key usages that rules speak of (RFC 5280, section 4.2.1.12).
var (
	oidAnyExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	oidOCSPSigning    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
	oidTimeStamping   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

// extKeyUsages are the extended key usages known by name. anyExtendedKeyUsage is absent: no profile may issue it.
var extKeyUsages = []named{
	{"serverAuth", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}},
	{"clientAuth", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}},
	{"codeSigning", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}},
	{"emailProtection", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}},
	{"timeStamping", oidTimeStamping},
	{"OCSPSigning", oidOCSPSigning},
}

// extensions are the extensions known by name that a profile may let a request carry without effect. Those that rules of their own
// judge (subjectAltName, keyUsage, extKeyUsage, basicConstraints) are absent, and so is every one that would widen a certificate.
var extensions = []named{
	{"subjectKeyIdentifier", asn1.ObjectIdentifier{2, 5, 29, 14}},
	{"authorityKeyIdentifier", asn1.ObjectIdentifier{2, 5, 29, 35}},
	{"certificatePolicies", asn1.ObjectIdentifier{2, 5, 29, 32}},
	{"crlDistributionPoints", asn1.ObjectIdentifier{2, 5, 29, 31}},
	{"authorityInfoAccess", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}},
	{"tlsFeature", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}},
	{"smimeCapabilities", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 15}},
	{"netscapeCertType", asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 1}},
	{"netscapeComment", asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}},
	{"msCertificateTemplateName", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2}},
	{"msCertificateTemplate", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 7}},
	{"msApplicationPolicies", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 10}},
}

// judgedExtensions have rules of their own; letting a profile drop them would switch those rules off.
var judgedExtensions = []named{
	{"subjectAltName", asn1.ObjectIdentifier{2, 5, 29, 17}},
	{"keyUsage", asn1.ObjectIdentifier{2, 5, 29, 15}},
	{"extKeyUsage", asn1.ObjectIdentifier{2, 5, 29, 37}},
	{"basicConstraints", asn1.ObjectIdentifier{2, 5, 29, 19}},
	{"nameConstraints", oidNameConstraints},
	{"ntdsObjectSid", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 25, 2}},
	{"precertificatePoison", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}},
}

// requestAttributes are the attributes of a request known by name (RFC 2985; those of Microsoft's clients).
var requestAttributes = []named{
	{"challengePassword", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}},
	{"unstructuredName", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 2}},
	{"msEnrollmentNameValuePair", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 13, 2, 1}},
	{"msEnrollmentCSP", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 13, 2, 2}},
	{"msOSVersion", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 13, 2, 3}},
	{"msRequestClientInfo", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 20}},
}

// keyUsages are the key usages by name (RFC 5280, section 4.2.1.3). Those of authorities are absent: no profile issues an authority.
var keyUsages = []struct {
	name string
	bit  x509.KeyUsage
}{
	{"digitalSignature", x509.KeyUsageDigitalSignature},
	{"nonRepudiation", x509.KeyUsageContentCommitment},
	{"keyEncipherment", x509.KeyUsageKeyEncipherment},
	{"dataEncipherment", x509.KeyUsageDataEncipherment},
	{"keyAgreement", x509.KeyUsageKeyAgreement},
	{"encipherOnly", x509.KeyUsageEncipherOnly},
	{"decipherOnly", x509.KeyUsageDecipherOnly},
}

// nameOf is the name of an identifier, or its digits.
func nameOf(table []named, oid asn1.ObjectIdentifier) string {
	if i := slices.IndexFunc(table, func(n named) bool { return n.oid.Equal(oid) }); i >= 0 {
		return table[i].name
	}
	return oid.String()
}

func namesOf(table []named, oids []asn1.ObjectIdentifier) []string {
	names := make([]string, len(oids))
	for i, oid := range oids {
		names[i] = nameOf(table, oid)
	}
	return names
}

func tableNames(table []named) []string {
	names := make([]string, len(table))
	for i, n := range table {
		names[i] = n.name
	}
	return names
}

// lookUp finds an identifier by a name of the table, or reads it as digits.
func lookUp(table []named, s string) (asn1.ObjectIdentifier, error) {
	if i := slices.IndexFunc(table, func(n named) bool { return n.name == s }); i >= 0 {
		return table[i].oid, nil
	}
	return parseOID(s)
}

// parseOID reads a dotted object identifier: at least two arcs, the first at most 2, the second below 40 under 0 and 1, no leading
// zeros (X.660).
func parseOID(s string) (asn1.ObjectIdentifier, error) {
	arcs := strings.Split(s, ".")
	if len(arcs) < 2 || len(arcs) > 32 {
		return nil, fmt.Errorf("%s is neither a known name nor an object identifier", quote(s))
	}
	oid := make(asn1.ObjectIdentifier, len(arcs))
	for i, arc := range arcs {
		n, err := strconv.ParseInt(arc, 10, 32)
		if err != nil || strconv.FormatInt(n, 10) != arc || n < 0 {
			return nil, fmt.Errorf("%s is neither a known name nor an object identifier", quote(s))
		}
		oid[i] = int(n)
	}
	if oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, fmt.Errorf("%s is not an object identifier: its first arcs do not exist", quote(s))
	}
	return oid, nil
}

func containsOID(oids []asn1.ObjectIdentifier, oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(oids, func(o asn1.ObjectIdentifier) bool { return o.Equal(oid) })
}

// usageNames are the names of the bits of a key usage, those of authorities included.
func usageNames(usage x509.KeyUsage) []string {
	var names []string
	for _, u := range keyUsages {
		if usage&u.bit != 0 {
			names = append(names, u.name)
		}
	}
	if usage&x509.KeyUsageCertSign != 0 {
		names = append(names, "keyCertSign")
	}
	if usage&x509.KeyUsageCRLSign != 0 {
		names = append(names, "cRLSign")
	}
	return names
}
