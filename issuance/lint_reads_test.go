package issuance

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"go/format"
	"os"
	"slices"
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
	"IANOtherNames", "IANDNSNames", "IANEmailAddresses", "IANDirectoryNames", "IANEDIPartyNames", "IANURIs", "IANIPAddresses", "IANRegisteredIDs",
	"PolicyIdentifiers", "QualifierId", "CPSuri", "ExplicitTexts", "NoticeRefOrgnization", "NoticeRefNumbers",
	"ParsedExplicitTexts", "ParsedNoticeRefOrganization", "UserNotices",
	"NameConstraintsCritical", "PermittedDNSNames", "ExcludedDNSNames", "PermittedEmailAddresses", "ExcludedEmailAddresses", "PermittedURIs",
	"ExcludedURIs", "PermittedIPAddresses", "ExcludedIPAddresses", "PermittedDirectoryNames", "ExcludedDirectoryNames", "PermittedEdiPartyNames",
	"ExcludedEdiPartyNames", "PermittedRegisteredIDs", "ExcludedRegisteredIDs", "PermittedX400Addresses", "ExcludedX400Addresses",
	"CABFOrganizationIdentifier", "QCStatements", "TorServiceDescriptors",
}

// subjectFields are the fields that, beside the shape, only the subject decides. Of a certificate without a subject the shape decides them
// as well.
var subjectFields = []string{"RawSubject", "Subject", "ValidationLevel"}

// trusted are functions of other packages that lints call. Each does nothing but compute an answer from its arguments, or write it to the
// memory that the argument of that number points to; -1 is none.
var trusted = map[string]int{
	"(github.com/zmap/zcrypto/encoding/asn1.ObjectIdentifier).Equal": -1,
	"(github.com/zmap/zcrypto/encoding/asn1.ObjectIdentifier).String": -1,
	"github.com/zmap/zcrypto/encoding/asn1.Unmarshal": 1,
	"github.com/zmap/zcrypto/encoding/asn1.Marshal": -1,
	"encoding/asn1.Unmarshal": 1,
	"(encoding/asn1.ObjectIdentifier).Equal": -1,
	"(encoding/asn1.ObjectIdentifier).String": -1,
	"(time.Time).Before": -1,
	"(time.Time).After": -1,
	"(time.Time).Sub": -1,
	"(time.Time).Add": -1,
	"(time.Duration).Seconds": -1,
	"time.Date": -1,
	"(time.Time).Equal": -1,
	"strings.ToLower": -1,
	"strings.HasSuffix": -1,
	"strings.HasPrefix": -1,
	"strings.TrimPrefix": -1,
	"strings.TrimSuffix": -1,
	"strings.Split": -1,
	"strings.Join": -1,
	"strings.Contains": -1,
	"strings.ContainsAny": -1,
	"strings.TrimSpace": -1,
	"strings.EqualFold": -1,
	"strings.Index": -1,
	"strings.Count": -1,
	"strings.ContainsRune": -1,
	"strings.ToUpper": -1,
	"strings.Compare": -1,
	"fmt.Sprintf": -1,
	"fmt.Errorf": -1,
	"fmt.Sprint": -1,
	"errors.New": -1,
	"bytes.Equal": -1,
	"bytes.Compare": -1,
	"regexp.MustCompile": -1,
	"(*regexp.Regexp).MatchString": -1,
	"net/url.Parse": -1,
	"(*net/url.URL).Hostname": -1,
	"net.ParseIP": -1,
	"(net.IP).To4": -1,
	"(*math/big.Int).BitLen": -1,
	"(*math/big.Int).Sign": -1,
	"(*math/big.Int).Cmp": -1,
	"math/big.NewInt": -1,
	"unicode/utf8.ValidString": -1,
	"unicode/utf8.DecodeRune": -1,
	"unicode/utf8.RuneCountInString": -1,
	"unicode/utf8.DecodeRuneInString": -1,
	"unicode/utf8.RuneCount": -1,
	"sort.Strings": 0,
	"encoding/hex.EncodeToString": -1,
	"reflect.TypeOf": -1,
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
	names := map[[2]decision][]string{}
	counts := map[decision]int{}
	for _, l := range lint.GlobalRegistry().CertificateLints().Lints() {
		always, why := a.decides(l, shapeFields)
		unnamed, _ := a.decides(l, slices.Concat(shapeFields, subjectFields))
		names[[2]decision{always, unnamed}] = append(names[[2]decision{always, unnamed}], l.Name)
		counts[always]++
		if testing.Verbose() {
			t.Log(l.Name, always, unnamed, why)
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

// readsTable writes the function that says how much of each lint is decided: always, and of a certificate without a subject.
func readsTable(names map[[2]decision][]string) ([]byte, error) {
	said := map[decision]string{decidesNothing: "decidesNothing", decidesApplies: "decidesApplies", decidesVerdict: "decidesVerdict"}
	var b bytes.Buffer
	b.WriteString(`// Code generated from zlint by "go test ./issuance -run LintReads -update". DO NOT EDIT.

package issuance

// decidedByShape says how much of a lint's verdict the shape of a certificate decides, which has a subject or not.
func decidedByShape(name string, named bool) decision {
	switch name {
`)
	for _, unnamed := range []decision{decidesVerdict, decidesApplies} {
		for _, always := range []decision{decidesVerdict, decidesApplies, decidesNothing} {
			group := names[[2]decision{always, unnamed}]
			if len(group) == 0 {
				continue
			}
			slices.Sort(group)
			b.WriteString("case ")
			for i, name := range group {
				if i > 0 {
					b.WriteString(",\n")
				}
				fmt.Fprintf(&b, "%q", name)
			}
			b.WriteString(":\n")
			if always != unnamed {
				fmt.Fprintf(&b, "if named {\nreturn %s\n}\n", said[always])
			}
			fmt.Fprintf(&b, "return %s\n", said[unnamed])
		}
	}
	b.WriteString("}\nreturn decidesNothing\n}\n")
	return format.Source(b.Bytes())
}
