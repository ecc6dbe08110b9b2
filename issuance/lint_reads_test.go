package issuance

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"go/format"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/zmap/zlint/v3/lint"
)

// shapeFields are the fields of a parsed certificate that its shape decides: what zcrypto derives from issuer, algorithms, version and
// extensions whose value does not vary.
var shapeFields = []string{
	"RawIssuer", "Issuer", "SignatureAlgorithm", "SignatureAlgorithmOID", "SelfSigned", "PublicKeyAlgorithm", "PublicKeyAlgorithmOID",
	"Version", "IssuerUniqueId", "SubjectUniqueId",
	"KeyUsage", "ExtKeyUsage", "UnknownExtKeyUsage", "BasicConstraintsValid", "IsCA", "MaxPathLen", "MaxPathLenZero", "AuthorityKeyId",
	"OCSPServer", "IssuingCertificateURL", "CRLDistributionPoints", "IsPrecert",
	"IANOtherNames", "IANDNSNames", "IANEmailAddresses", "IANDirectoryNames", "IANEDIPartyNames", "IANURIs", "IANIPAddresses",
	"IANRegisteredIDs",
	"PolicyIdentifiers", "QualifierId", "CPSuri", "ExplicitTexts", "NoticeRefOrgnization", "NoticeRefNumbers",
	"ParsedExplicitTexts", "ParsedNoticeRefOrganization", "UserNotices",
	"NameConstraintsCritical", "PermittedDNSNames", "ExcludedDNSNames", "PermittedEmailAddresses", "ExcludedEmailAddresses", "PermittedURIs",
	"ExcludedURIs", "PermittedIPAddresses", "ExcludedIPAddresses", "PermittedDirectoryNames", "ExcludedDirectoryNames",
	"PermittedEdiPartyNames", "ExcludedEdiPartyNames", "PermittedRegisteredIDs", "ExcludedRegisteredIDs", "PermittedX400Addresses", "ExcludedX400Addresses",
	"CABFOrganizationIdentifier", "QCStatements", "TorServiceDescriptors",
}

// facetFields are those that are empty where a certificate is without a facet.
var facetFields = map[string]facets{
	"RawSubject": aSubject, "ValidationLevel": otherAttributes,
	"DNSNames": dnsNames, "EmailAddresses": emailAddresses, "URIs": uris, "IPAddresses": ipAddresses, "OtherNames": otherNames,
	"DirectoryNames": directoryNames, "EDIPartyNames": ediPartyNames, "RegisteredIDs": registeredIDs,
}

// attributeFields are the fields of a name that are empty where it has one common name and nothing else.
var attributeFields = []string{
	"Country", "Organization", "OrganizationalUnit", "Locality", "Province", "StreetAddress", "PostalCode", "DomainComponent", "EmailAddress",
	"SerialNumber", "SerialNumbers", "GivenName", "Surname", "OrganizationIDs", "JurisdictionLocality", "JurisdictionProvince",
	"JurisdictionCountry",
}

// trusted are functions of other packages that lints call. Each does nothing but compute an answer from its arguments, or write it to the
// memory that the arguments of these numbers point to.
var trusted = map[string][]int{
	"(github.com/zmap/zcrypto/encoding/asn1.ObjectIdentifier).Equal":  nil,
	"(github.com/zmap/zcrypto/encoding/asn1.ObjectIdentifier).String": nil,
	"github.com/zmap/zcrypto/encoding/asn1.Unmarshal":                 {1},
	"github.com/zmap/zcrypto/encoding/asn1.Marshal":                   nil,
	"encoding/asn1.Unmarshal":                                         {1},
	"(encoding/asn1.ObjectIdentifier).Equal":                          nil,
	"(encoding/asn1.ObjectIdentifier).String":                         nil,
	"(time.Time).Before":                                              nil,
	"(time.Time).After":                                               nil,
	"(time.Time).Sub":                                                 nil,
	"(time.Time).Add":                                                 nil,
	"(time.Duration).Seconds":                                         nil,
	"time.Date":                                                       nil,
	"(time.Time).Equal":                                               nil,
	"strings.ToLower":                                                 nil,
	"strings.HasSuffix":                                               nil,
	"strings.HasPrefix":                                               nil,
	"strings.TrimPrefix":                                              nil,
	"strings.TrimSuffix":                                              nil,
	"strings.Split":                                                   nil,
	"strings.Join":                                                    nil,
	"strings.Contains":                                                nil,
	"strings.ContainsAny":                                             nil,
	"strings.TrimSpace":                                               nil,
	"strings.EqualFold":                                               nil,
	"strings.Index":                                                   nil,
	"strings.Count":                                                   nil,
	"strings.ContainsRune":                                            nil,
	"strings.ToUpper":                                                 nil,
	"strings.Compare":                                                 nil,
	"fmt.Sprintf":                                                     nil,
	"fmt.Errorf":                                                      nil,
	"fmt.Sprint":                                                      nil,
	"errors.New":                                                      nil,
	"bytes.Equal":                                                     nil,
	"bytes.Compare":                                                   nil,
	"regexp.MustCompile":                                              nil,
	"(*regexp.Regexp).MatchString":                                    nil,
	"net/url.Parse":                                                   nil,
	"(*net/url.URL).Hostname":                                         nil,
	"net.ParseIP":                                                     nil,
	"(net.IP).To4":                                                    nil,
	"(*math/big.Int).BitLen":                                          nil,
	"(*math/big.Int).Sign":                                            nil,
	"(*math/big.Int).Cmp":                                             nil,
	"math/big.NewInt":                                                 nil,
	"unicode/utf8.ValidString":                                        nil,
	"unicode/utf8.DecodeRune":                                         nil,
	"unicode/utf8.RuneCountInString":                                  nil,
	"unicode/utf8.DecodeRuneInString":                                 nil,
	"unicode/utf8.RuneCount":                                          nil,
	"sort.Strings":                                                    {0},
	"encoding/hex.EncodeToString":                                     nil,
	"reflect.TypeOf":                                                  nil,
	"(*regexp.Regexp).Match":                                          nil,
	"github.com/zmap/zcrypto/encoding/asn1.UnmarshalWithParams":   {1},
	"(*golang.org/x/crypto/cryptobyte.String).ReadASN1":           {0, 1},
	"(*golang.org/x/crypto/cryptobyte.String).ReadASN1BitString":  {0, 1},
	"(*golang.org/x/crypto/cryptobyte.String).ReadASN1Element":    {0, 1},
	"(*golang.org/x/crypto/cryptobyte.String).SkipASN1":           {0},
	"(*golang.org/x/crypto/cryptobyte.String).SkipOptionalASN1":   {0},
	"(*golang.org/x/crypto/cryptobyte.String).ReadAnyASN1Element": {0, 1, 2},
	"(golang.org/x/crypto/cryptobyte.String).Empty":               nil,
	"(golang.org/x/crypto/cryptobyte/asn1.Tag).ContextSpecific":   nil,
	"(golang.org/x/crypto/cryptobyte/asn1.Tag).Constructed":       nil,
	"(*math/big.Int).SetBytes":                                    {0},
	"(*math/big.Int).IsInt64":                                     nil,
	"(*math/big.Int).Int64":                                       nil,
	"(*math/big.Int).Bit":                                         nil,
	"(*math/big.Int).TrailingZeroBits":                            nil,
	"math.Ceil":                                                   nil,
	"(time.Time).AddDate":                                         nil,
	"unicode/utf16.Decode":                                        nil,
	"(golang.org/x/text/unicode/norm.Form).IsNormal":              nil,
	"(*net/url.URL).IsAbs":                                        nil,
}

func mayVary(id asn1.ObjectIdentifier) bool {
	encoded, err := asn1.Marshal(id)
	return err != nil || isVarying(encoded[2:])
}

// TestLintReads derives from zlint's code how much of each lint's verdict the shape of a certificate decides. With -update it writes
// lint_reads.go.
func TestLintReads(t *testing.T) {
	a := analyse(t)
	if len(a.written) > 0 {
		t.Fatalf("identifiers may not be constant: %v write lists of integers", a.written)
	}
	names := map[[2]facets][]string{}
	for _, l := range lint.GlobalRegistry().CertificateLints().Lints() {
		applies, verdict, why := a.readsOf(l)
		names[[2]facets{applies, verdict}] = append(names[[2]facets{applies, verdict}], l.Name)
		if testing.Verbose() {
			t.Logf("%s: %s; %s %q", l.Name, namesOf(applies), namesOf(verdict), why)
		}
	}
	want, err := readsTable(names)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("lint_reads.go", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("lint_reads.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("lint_reads.go differs from what zlint's code says; look at the difference that go test ./issuance -run LintReads -update makes")
	}
}

var facetNames = []string{
	"aSubject", "otherAttributes", "dnsNames", "emailAddresses", "uris", "ipAddresses", "otherNames", "directoryNames", "ediPartyNames",
	"registeredIDs",
}

// namesOf writes facets as an expression.
func namesOf(f facets) string {
	var names []string
	for i, name := range facetNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	switch {
	case f&everything != 0:
		return "everything" // the other bits say no more
	case len(names) == 0:
		return "0"
	}
	return strings.Join(names, " | ")
}

// readsTable writes the function that says what each lint reads.
func readsTable(lints map[[2]facets][]string) ([]byte, error) {
	groups := map[string][]string{}
	for reads, names := range lints {
		said := namesOf(reads[0]) + ", " + namesOf(reads[1])
		groups[said] = append(groups[said], names...)
	}
	delete(groups, "everything, everything")
	var b bytes.Buffer
	b.WriteString(`// Code generated from zlint by "go test ./issuance -run LintReads -update". DO NOT EDIT.

package issuance

// readsOf says what a lint reads of a certificate, beside its shape, to know whether it applies, and in all.
func readsOf(lint string) (applies, verdict facets) {
	switch lint {
`)
	for _, said := range slices.Sorted(maps.Keys(groups)) {
		b.WriteString("case ")
		for i, name := range slices.Sorted(slices.Values(groups[said])) {
			if i > 0 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, "%q", name)
		}
		fmt.Fprintf(&b, ":\nreturn %s\n", said)
	}
	b.WriteString("}\nreturn everything, everything\n}\n")
	return format.Source(b.Bytes())
}

// TestAnalysis looks at functions that read a certificate openly and less so, as if zlint had them.
func TestAnalysis(t *testing.T) {
	a := analyse(t, "./testdata/tricky")
	looked := 0
	for name := range a.functions {
		_, what, ok := strings.Cut(name, "/testdata/tricky.")
		want, _, tricky := strings.Cut(what, "_")
		if !ok || !tricky || strings.Contains(what, "$") {
			continue
		}
		looked++
		r := &reading{analysis: a, visited: map[string]bool{}, why: map[string]bool{}}
		r.enter(name, []kind{wholeCertificate})
		if got := strings.Replace(namesOf(r.reads), "0", "nothing", 1); got != want {
			t.Errorf("%s is found to read %s: %v", what, got, slices.Sorted(maps.Keys(r.why)))
		}
	}
	if looked < 41 {
		t.Errorf("%d functions were looked at", looked)
	}
}
