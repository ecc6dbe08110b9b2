package policies

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// AuthorityRequest asks for the certificate of an authority, root or subordinate, in a ceremony. Everything in it was written by the
// ceremony's people, and is refused where it is wrong, never put right.
type AuthorityRequest struct {
	Name    string      // the authority's name, for the record
	Root    bool        // self-signed; then there is no parent
	Subject []Attribute // in the order of the certificate; each in an RDN of its own
	SPKI    []byte      // DER of the SubjectPublicKeyInfo
	// NotBefore and NotAfter are whole seconds, both inclusive.
	NotBefore, NotAfter time.Time
	PathLen             int              // how many authorities may follow below this one; -1 means any number
	Permitted           *NameConstraints // nil: none
	Excluded            *NameConstraints // nil: none
	Policies            []asn1.ObjectIdentifier
	ExtKeyUsage         []asn1.ObjectIdentifier // of a technically constrained subordinate
	CRLURL              string                  // where the parent's CRL is found
	IssuerURLs          []string                // where the parent's certificate is found
	OCSPURLs            []string                // where the parent's OCSP responder is found
	CRLScope            string                  // the parent's CRL scope that the certificate belongs to
	Parent              *x509.Certificate       // nil for a root
	Above               []*x509.Certificate     // of the authorities above the parent, up to the root
	Now                 time.Time
}

// Attribute is one attribute of an authority's distinguished name.
type Attribute struct {
	OID   asn1.ObjectIdentifier
	Value string
}

// AttributeType finds the object identifier of an attribute that may stand in an authority's name: by its name in RFC 5280
// ("organizationName"), its short form ("O"), or its digits.
func AttributeType(name string) (asn1.ObjectIdentifier, error) {
	if long, ok := shortNames[name]; ok {
		name = long
	}
	if a, ok := attributeByName(name); ok {
		return a.oid, nil
	}
	return parseOID(name)
}

// shortNames are the attribute types as they are written in short (RFC 4514, section 3).
var shortNames = map[string]string{
	"CN": "commonName", "C": "countryName", "O": "organizationName", "OU": "organizationalUnitName", "L": "localityName",
	"ST": "stateOrProvinceName", "STREET": "streetAddress",
}

// ExtKeyUsage finds the object identifier of an extended key usage, by its name in RFC 5280 ("serverAuth") or its digits.
func ExtKeyUsage(name string) (asn1.ObjectIdentifier, error) { return lookUp(extKeyUsages, name) }

// authorityDigest names the version of the rules for authorities, which are no files.
const authorityDigest = "authority-rules:3"

// The names that grants of authorities carry in place of a profile's.
const (
	RootAuthority        = "root-authority"
	SubordinateAuthority = "subordinate-authority"
)

// authorityKeys are the keys of authorities. RSA below 3072 bits is refused for subordinates as well, though BR, section 6.1.5, still
// allows 2048: it is not strong enough for what lasts beyond 2030 (NIST SP 800-131A, revision 2).
var authorityKeys = keyPolicy{
	curves: []string{"P-256", "P-384"},
	rsaMin: 3072, rsaMax: 4096,
	usage: map[csr.KeyAlgorithm]x509.KeyUsage{csr.ECDSA: authorityUsage, csr.RSA: authorityUsage},
}

// authorityUsage is the key usage of authorities: they sign certificates and CRLs and nothing else (BR, section 7.1.2.10.7). OCSP
// answers are signed by responders of their own.
const authorityUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign

// authorityLint is how certificates of authorities are linted. The Baseline Requirements' lints are left out: they ask a private
// hierarchy for policies, extended key usages and validities that only a publicly trusted one owes.
var authorityLint = Lint{Sources: []string{"RFC3279", "RFC5280", "RFC5480", "RFC8813", "Community"}}

// authority is what the rules for authorities look at.
type authority struct {
	AuthorityRequest
	key csr.Key
}

func (a *authority) publicKey() csr.Key { return a.key }

// ancestors are the parent's certificate and those above it, of a root none: what bounds one of them bounds whatever is below.
func (a *authority) ancestors() []*x509.Certificate {
	if a.Parent == nil {
		return nil
	}
	return append([]*x509.Certificate{a.Parent}, a.Above...)
}

// authorityRules are the rules for authorities, in the order in which they are asked.
var authorityRules = []rule[*authority]{
	authorityComplete,
	authorityKey, keyModulus[*authority](), keyExponent[*authority](), keyROCA[*authority](), keyClosePrimes[*authority](), authorityOwnKey,
	authorityParent, authoritySubject, authorityValidity, authorityPathLen, authorityNames, authorityUsages, authorityPolicies,
	authorityRoot, authorityURLs,
}

// DecideAuthority asks the rules for authority certificates (RFC 5280, section 4.2.1.9 and following). Like Decide it never fails.
func DecideAuthority(r AuthorityRequest) *Decision {
	a := &authority{AuthorityRequest: r, key: keyOf(r.SPKI)}
	d := &Decision{verdict: Refuse, profile: SubordinateAuthority, digest: authorityDigest}
	if r.Root {
		d.profile = RootAuthority
	}
	results, verdict := ask(authorityRules, a)
	d.results = results
	if verdict != Allow {
		return d
	}
	id, err := keyIdentifier(a.key.SPKI)
	if err != nil {
		return d
	}
	d.verdict, d.template, d.lint = Allow, a.template(id), authorityLint
	return d
}

func (a *authority) template(keyID []byte) Template {
	t := Template{
		SPKI: slices.Clone(a.key.SPKI), PublicKey: a.key.Public,
		NotBefore: a.NotBefore.UTC(), NotAfter: a.NotAfter.UTC(),
		KeyUsage: authorityUsage, ExtKeyUsage: slices.Clone(a.ExtKeyUsage), CA: true, PathLen: a.PathLen,
		Permitted: a.Permitted.clone(), Excluded: a.Excluded.clone(), Policies: slices.Clone(a.Policies),
		CRLURL: a.CRLURL, IssuerURLs: slices.Clone(a.IssuerURLs), OCSPURLs: slices.Clone(a.OCSPURLs), CRLScope: a.CRLScope,
		SubjectKeyID: keyID, WriteSubjectKeyID: true,
	}
	t.Subject = a.subjectSequence()
	return t
}

// subjectSequence is the distinguished name, one attribute in each RDN.
func (a *authority) subjectSequence() (sequence pkix.RDNSequence) {
	for _, attribute := range a.Subject {
		sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: attribute.OID, Value: attribute.Value}})
	}
	return sequence
}

func (n *NameConstraints) clone() *NameConstraints {
	if n.empty() {
		return nil
	}
	return &NameConstraints{DNS: slices.Clone(n.DNS), IP: slices.Clone(n.IP), Email: slices.Clone(n.Email), URI: slices.Clone(n.URI)}
}

func (n *NameConstraints) empty() bool {
	return n == nil || len(n.DNS)+len(n.IP)+len(n.Email)+len(n.URI) == 0
}

// keyOf states the facts of a key from its SubjectPublicKeyInfo; of one that cannot be read it states nothing.
func keyOf(spki []byte) csr.Key {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return csr.Key{}
	}
	canonical, err := x509.MarshalPKIXPublicKey(public)
	if err != nil || !slices.Equal(canonical, spki) {
		return csr.Key{}
	}
	return keyFacts(public, canonical)
}

func keyFacts(public crypto.PublicKey, spki []byte) csr.Key {
	k := csr.Key{Public: public, SPKI: spki}
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		k.Algorithm, k.Curve, k.Bits = csr.ECDSA, p.Curve.Params().Name, p.Curve.Params().BitSize
	case *rsa.PublicKey:
		k.Algorithm, k.Bits, k.Modulus, k.Exponent = csr.RSA, p.N.BitLen(), p.N.Bytes(), big.NewInt(int64(p.E)).Bytes()
	case ed25519.PublicKey:
		k.Algorithm, k.Bits = csr.Ed25519, 256
	default:
		return csr.Key{}
	}
	return k
}
