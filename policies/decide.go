package policies

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// evaluation is what the rules look at: the request with its facts, and what was made of them before the first rule.
type evaluation struct {
	Request
	profile *Profile // nil when there is no such profile
	issuer  *x509.Certificate
	key     csr.Key
	subject []csr.Attribute
	names   names
	replay  bool       // the request was proven when it was made
	awaits  Facts      // what rules asked for and the request does not hold
	vars    *variables // of expressions, made when the first asks
}

// rules are the rules for requests under a profile, in the order in which they are asked: what is cheap comes first, what costs
// in proportion to what is sent comes after the rule that bounds it, and the signature after everything that is said of its key.
var rules = []rule[*evaluation]{
	requestComplete, issuerSigns, profileKnown, profileNamespace,
	keyAllowed, keyModulus[*evaluation](), keyExponent[*evaluation](), keyROCA[*evaluation](), keyClosePrimes[*evaluation](),
	keyCompromised, keyListed, keyOfAuthority, keyReuse,
	subjectStructure, subjectAttributes, subjectOrganisation, subjectCommonName, subjectClaims, subjectOfAuthority,
	namesTypes, namesCount, namesDNS, namesSpecial, namesConfusable, namesWildcard, namesPublic, namesIP, namesEmail, namesURI, namesPattern,
	namesNamespace, namesSubtrees, namesConstraints, namesCAA,
	extensionBasicConstraints, extensionKeyUsage, extensionExtKeyUsage, issuerExtKeyUsage, extensionUnknown, requestAttribute,
	validityRule, quotaLeft, approvalNeeded, signatureProof,
}

// rules are those of the request's profile, the built-in ones where there is no such profile.
func (e *evaluation) rules() []rule[*evaluation] {
	if e.profile == nil {
		return rules
	}
	return e.profile.rules
}

// Decide asks every rule of the request's profile. It never fails: what it cannot decide it refuses.
func (s *Set) Decide(r Request) *Decision {
	return s.decide(&evaluation{Request: r, issuer: r.Issuer.Certificate})
}

// Replay decides on a request of the past, whose proof of possession was verified when it was made and is not verified again.
// Nor are rules asked about facts that no request keeps: the history of its key, and CAA records. The decision tells what would be; it
// grants nothing.
func (s *Set) Replay(r Request) *Decision {
	return s.decide(&evaluation{Request: r, issuer: r.Issuer.Certificate, replay: true})
}

func (s *Set) decide(e *evaluation) *Decision {
	r := e.Request
	d := &Decision{verdict: Refuse, profile: r.Profile}
	if s != nil {
		d.digest, e.profile = s.digest, s.profiles[r.Profile]
	}
	if r.CSR != nil {
		e.key, e.subject, e.names = r.CSR.Key(), r.CSR.Subject(), normalise(r.CSR.Names())
	}
	results, verdict := ask(e.rules(), e)
	d.awaits = e.awaited(results)
	d.results, d.evaluation, e.vars = results, e, nil
	if verdict == Refuse {
		return d
	}
	id, err := keyIdentifier(e.key.SPKI)
	if err != nil {
		return d
	}
	d.verdict, d.template, d.lint, d.approval = verdict, e.template(id), e.profile.lint, e.profile.approval
	d.transparency = e.profile.transparency
	return d
}

// template is what the certificate says, built from the profile. Only what the rules have looked at is taken from the request.
func (e *evaluation) template(keyID []byte) Template {
	p := e.profile
	t := Template{
		Subject: e.subjectSequence(),
		SPKI:    slices.Clone(e.key.SPKI), PublicKey: e.key.Public,
		DNS: values(e.names.dns), IP: values(e.names.ip), Email: values(e.names.email), URI: values(e.names.uri),
		KeyUsage: p.keys.usage[e.key.Algorithm], ExtKeyUsage: slices.Clone(p.extKeyUsage), Policies: slices.Clone(p.policies),
		PathLen: -1, OCSPNoCheck: p.ocspNoCheck,
		CRLScope: e.Issuer.CRLScope, IssuerURLs: slices.Clone(e.Issuer.IssuerURLs),
		SubjectKeyID: keyID, WriteSubjectKeyID: p.subjectKeyID,
	}
	t.NotBefore, t.NotAfter = e.period()
	if !p.ocspNoCheck { // a certificate that says "do not check me" points to nowhere where it could be checked
		t.CRLURL, t.OCSPURLs = e.Issuer.CRLURL, slices.Clone(e.Issuer.OCSPURLs)
	}
	return t
}

// subjectSequence is the distinguished name in the order of the profile, one attribute in each RDN.
func (e *evaluation) subjectSequence() pkix.RDNSequence {
	var sequence pkix.RDNSequence
	for _, a := range e.profile.subject.attributes {
		value := a.value
		switch a.presence {
		case checked:
			continue
		case required, optional:
			i := slices.IndexFunc(e.subject, func(given csr.Attribute) bool { return given.OID.Equal(a.oid) })
			if i < 0 {
				continue
			}
			value = e.subject[i].Value
			if a.oid.Equal(oidCommonName) && e.profile.subject.commonName == commonNameCopies {
				value, _ = e.names.matching(value)
			}
		}
		sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: a.oid, Value: value}})
	}
	return sequence
}

// period is the validity of the certificate: whole seconds in UTC, both ends inclusive (RFC 5280, section 4.1.2.5). It begins
// backdated, but never before the issuer does.
func (e *evaluation) period() (notBefore, notAfter time.Time) {
	notBefore = e.Now.UTC().Add(-e.profile.validity.backdate).Truncate(time.Second)
	if begin := e.issuer.NotBefore.UTC(); notBefore.Before(begin) {
		notBefore = begin
	}
	return notBefore, notBefore.Add(e.lifetime() - time.Second)
}

// lifetime is the length of the validity: what was asked for, or the profile's default.
func (e *evaluation) lifetime() time.Duration {
	if e.Validity == 0 {
		return e.profile.validity.defaultAt(e.Now)
	}
	return e.Validity
}
