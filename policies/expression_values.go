package policies

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/chancery-ca/chancery/csr"
)

// The variables of expressions. What they hold is part of the language in which profiles are written: names are added, never changed.
const (
	variableCSR       = "csr"
	variableCert      = "cert"
	variableRequester = "requester"
	variableProfile   = "profile"
	variableNow       = "now"
)

// keyValue is a public key as expressions see it.
type keyValue struct {
	Algorithm string `cel:"algorithm"` // "RSA", "ECDSA", "Ed25519"
	Curve     string `cel:"curve"`     // "P-256", ...; empty unless ECDSA
	Bits      int64  `cel:"bits"`
	SHA256    string `cel:"sha256"` // of the SubjectPublicKeyInfo, lower-case hex
}

// requestValue is the variable csr: what was asked for. Names are in their normal form, without those whose syntax is broken; the
// subject holds, by name, the attributes that the profile writes or checks, not those that it drops.
type requestValue struct {
	Subject            map[string]string `cel:"subject"`
	CommonName         string            `cel:"common_name"`
	DNS                []string          `cel:"dns"`
	IP                 []string          `cel:"ip"`
	Email              []string          `cel:"email"`
	URI                []string          `cel:"uri"`
	Key                keyValue          `cel:"key"`
	KeyUsage           []string          `cel:"key_usage"`     // by RFC 5280's names
	ExtKeyUsage        []string          `cel:"ext_key_usage"` // by name where there is one
	Extensions         []string          `cel:"extensions"`    // the others, by name where there is one
	Attributes         []string          `cel:"attributes"`
	SignatureAlgorithm string            `cel:"signature_algorithm"`
	Validity           time.Duration     `cel:"validity"` // asked for; 0: nothing was
}

// certificateValue is the variable cert: what would be issued.
type certificateValue struct {
	Subject     map[string]string `cel:"subject"`
	CommonName  string            `cel:"common_name"`
	DNS         []string          `cel:"dns"`
	IP          []string          `cel:"ip"`
	Email       []string          `cel:"email"`
	URI         []string          `cel:"uri"`
	Names       []string          `cel:"names"` // all of the four
	Key         keyValue          `cel:"key"`
	KeyUsage    []string          `cel:"key_usage"`
	ExtKeyUsage []string          `cel:"ext_key_usage"`
	Policies    []string          `cel:"policies"` // dotted
	NotBefore   time.Time         `cel:"not_before"`
	NotAfter    time.Time         `cel:"not_after"`
	Validity    time.Duration     `cel:"validity"` // both ends included
	Issuer      string            `cel:"issuer"`   // the authority's name
}

// requesterValue is the variable requester: who asks.
type requesterValue struct {
	ID         string              `cel:"id"`
	Name       string              `cel:"name"`
	Person     string              `cel:"person"`
	Namespace  string              `cel:"namespace"` // whose names are asked for
	Roles      []string            `cel:"roles"`
	Groups     []string            `cel:"groups"`
	Attributes map[string][]string `cel:"attributes"`
}

// profileValue is the variable profile. It is known when the profile is loaded.
type profileValue struct {
	Name        string   `cel:"name"`
	Description string   `cel:"description"`
	Restricted  bool     `cel:"restricted"`
	ExtKeyUsage []string `cel:"ext_key_usage"`
	Standards   []string `cel:"standards"`
	NamesMax    int64    `cel:"names_max"`
}

// variables resolves the variables of expressions for one request, each made when it is first asked for.
type variables struct {
	e         *evaluation
	csr       *requestValue
	cert      *certificateValue
	requester *requesterValue
}

// Parent is none: there are no other variables.
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName finds a variable.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case variableCSR:
		if v.csr == nil {
			v.csr = v.e.requestValue()
		}
		return v.csr, true
	case variableCert:
		if v.cert == nil {
			v.cert = v.e.certificateValue()
		}
		return v.cert, true
	case variableRequester:
		if v.requester == nil {
			v.requester = v.e.requesterValue()
		}
		return v.requester, true
	case variableProfile:
		return v.e.profile.value(), true
	case variableNow:
		return v.e.Now, true
	}
	return nil, false
}

func (e *evaluation) requestValue() *requestValue {
	extensions := e.CSR.Extensions()
	v := &requestValue{
		Subject: map[string]string{},
		DNS:     values(e.names.dns), IP: texts(e.names.ip), Email: values(e.names.email), URI: values(e.names.uri),
		Key: valueOfKey(e.key), Attributes: namesOf(requestAttributes, e.CSR.Attributes()),
		SignatureAlgorithm: string(e.CSR.SignatureAlgorithm()), Validity: e.Validity,
	}
	for _, a := range e.subject {
		if _, known := e.profile.subject.attribute(a.OID); known {
			v.Subject[attributeName(a.OID)] = a.Value
		}
	}
	v.CommonName = v.Subject[attributeName(oidCommonName)]
	if usage := extensions.KeyUsage; usage != nil {
		v.KeyUsage = usageNames(x509.KeyUsage(usage.Bits))
	}
	if usage := extensions.ExtKeyUsage; usage != nil {
		v.ExtKeyUsage = namesOf(extKeyUsages, usage.OIDs)
	}
	for _, x := range extensions.Unknown {
		v.Extensions = append(v.Extensions, extensionName(x.OID))
	}
	return v
}

func (e *evaluation) certificateValue() *certificateValue {
	t := e.template(nil)
	v := &certificateValue{
		Subject: map[string]string{},
		DNS:     t.DNS, IP: texts(e.names.ip), Email: t.Email, URI: t.URI, Names: e.names.written(),
		Key: valueOfKey(e.key), KeyUsage: usageNames(t.KeyUsage), ExtKeyUsage: namesOf(extKeyUsages, t.ExtKeyUsage),
		Policies: namesOf(nil, t.Policies), NotBefore: t.NotBefore, NotAfter: t.NotAfter,
		Validity: t.NotAfter.Sub(t.NotBefore) + time.Second, Issuer: e.Issuer.Name,
	}
	for _, rdn := range t.Subject {
		for _, a := range rdn {
			if value, ok := a.Value.(string); ok {
				v.Subject[attributeName(a.Type)] = value
			}
		}
	}
	v.CommonName = v.Subject[attributeName(oidCommonName)]
	return v
}

func (e *evaluation) requesterValue() *requesterValue {
	v := &requesterValue{
		ID: e.Actor.ID, Name: e.Actor.Name, Person: e.Actor.Person, Namespace: e.Namespace.Name,
		Groups: e.Actor.Groups, Attributes: e.Actor.Attributes,
	}
	for _, role := range e.Actor.Roles {
		v.Roles = append(v.Roles, string(role))
	}
	return v
}

func (p *Profile) value() *profileValue {
	return &profileValue{
		Name: p.name, Description: p.description, Restricted: p.restricted, ExtKeyUsage: namesOf(extKeyUsages, p.extKeyUsage),
		Standards: p.standards.names(), NamesMax: int64(p.names.max),
	}
}

func valueOfKey(k csr.Key) keyValue {
	sum := sha256.Sum256(k.SPKI)
	return keyValue{Algorithm: string(k.Algorithm), Curve: k.Curve, Bits: int64(k.Bits), SHA256: hex.EncodeToString(sum[:])}
}

// extensionName is the name of an extension that a request asks for, or its digits.
func extensionName(oid asn1.ObjectIdentifier) string {
	if name := nameOf(judgedExtensions, oid); name != oid.String() {
		return name
	}
	return nameOf(extensions, oid)
}
