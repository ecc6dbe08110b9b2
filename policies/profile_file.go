package policies

// profileFile is a profile as it is written: profiles/<name>.yaml. Every field that a file may hold is declared and explained here;
// any other is refused. Durations are whole days ("90d") or hours, minutes and seconds ("12h", "5m").
type profileFile struct {
	// Name is the profile's name and the name of its file without ".yaml": lower-case letters, digits and inner hyphens.
	Name string `yaml:"name"`
	// Description says, in a sentence or two, what the certificates are for.
	Description string `yaml:"description"`
	// Restricted keeps the profile from every namespace that does not list it by name, also from those that list none.
	Restricted bool `yaml:"restricted"`
	// Keys are the public keys that are certified, and what each may be used for.
	Keys keysFile `yaml:"keys"`
	// ExtKeyUsage are the extended key usages of every certificate (RFC 5280, section 4.2.1.12), by name or object identifier.
	// A request may ask for them or for fewer, and gets them all; it may not ask for others.
	ExtKeyUsage []string `yaml:"ext_key_usage"`
	// Validity bounds how long a certificate lasts.
	Validity validityFile `yaml:"validity"`
	// Subject says what the distinguished name may hold. Without it the subject is empty.
	Subject subjectFile `yaml:"subject"`
	// Names says which subject alternative names may stand in a certificate. A type that is left out is refused.
	Names namesFile `yaml:"names"`
	// Drop are the harmless things that a request may carry and that leave no trace in the certificate. Whatever is neither
	// understood nor dropped is refused; a critical extension that is not understood is refused even when it is dropped.
	Drop dropFile `yaml:"drop"`
	// CertificatePolicies are the policy identifiers of every certificate (RFC 5280, section 4.2.1.4), dotted.
	CertificatePolicies []string `yaml:"certificate_policies"`
	// OCSPNoCheck writes id-pkix-ocsp-nocheck (RFC 6960, section 4.2.2.2.1), for OCSP responders alone. Such a certificate carries no
	// pointers to its own revocation status.
	OCSPNoCheck bool `yaml:"ocsp_no_check"`
	// SubjectKeyID writes the subjectKeyIdentifier extension (RFC 5280, section 4.2.1.2).
	SubjectKeyID bool `yaml:"subject_key_id"`
	// Lint says what is linted before signing.
	Lint lintFile `yaml:"lint"`
	// Standards are those that the profile follows: cabf-br, rfc5280-strict, private-default, smime-br, code-signing. What they demand of
	// a profile is checked when it is loaded; their limits on validity come into force with the calendar.
	Standards []string `yaml:"standards"`
	// Rules are the profile's own, in CEL; docs/profiles.md says what their expressions may use.
	Rules []ruleFile `yaml:"rules"`
	// Approval asks persons for their consent. Without it nobody is asked.
	Approval *approvalFile `yaml:"approval"`
	// Quota bounds how many certificates are issued. Without it their number is not bounded.
	Quota *quotaFile `yaml:"quota"`
	// CT asks for signed certificate timestamps of certificate transparency logs (RFC 6962) in every certificate. Without it a certificate
	// is not sent to any log.
	CT *ctFile `yaml:"ct"`
}

type ruleFile struct {
	// ID names the rule, in the profile and in answers: lower-case letters, digits and inner hyphens.
	ID string `yaml:"id"`
	// Expression must be true of every request that the rule lets through.
	Expression string `yaml:"expression"`
	// Message says what is wrong with a request that breaks the rule.
	Message string `yaml:"message"`
	// Hint says how a request can satisfy the rule.
	Hint string `yaml:"hint"`
	// Field is the part of the request that the rule is about, such as subjectAltName.dns; "request" when left out.
	Field string `yaml:"field"`
	// Effect is "refuse", which is meant when it is left out, or "approve": a request that breaks the rule waits for approval.
	Effect string `yaml:"effect"`
}

type approvalFile struct {
	// Count is how many distinct persons must consent, the requester never among them: from 1 to 10.
	Count int `yaml:"count"`
	// Groups are those of which an approver must be in one; when left out, every approver counts.
	Groups []string `yaml:"groups"`
	// Signed asks that each approval be signed by the approver's own key, which must be registered.
	Signed bool `yaml:"signed"`
	// Expires is how long a request may wait and an approval counts: 7d when left out, at most 90d.
	Expires string `yaml:"expires"`
	// When is "always", which is meant when it is left out, or "rules": only where a rule of effect approve asks for it.
	When string `yaml:"when"`
}

type quotaFile struct {
	// Certificates is how many may be issued within Per: at least 1.
	Certificates int `yaml:"certificates"`
	// Per is the length of time, ending now, in which they are counted: at most 366d.
	Per string `yaml:"per"`
	// Of says whose certificates are counted together: those of a "namespace", of a "requester" (a person), or of each "name".
	Of string `yaml:"of"`
}

// keysFile holds the allowed algorithms; one that is left out is refused. At least one must be there.
type keysFile struct {
	ECDSA   *ecdsaFile   `yaml:"ecdsa"`
	RSA     *rsaFile     `yaml:"rsa"`
	Ed25519 *ed25519File `yaml:"ed25519"`
	// Reuse says which certificates may share a key: "anywhere", when left out; "same-namespace"; or "same-names", for renewals alone.
	Reuse string `yaml:"reuse"`
	// Once has a key certified only once, ever: a renewal needs a new key.
	Once bool `yaml:"once"`
}

type ecdsaFile struct {
	// Curves are P-256, P-384 and P-521.
	Curves []string `yaml:"curves"`
	// KeyUsage is the key usage of certificates with these keys, by RFC 5280's names.
	KeyUsage []string `yaml:"key_usage"`
}

type rsaFile struct {
	// Min and Max bound the length of the modulus in bits: multiples of 8 from 2048 to 8192.
	Min int `yaml:"min"`
	Max int `yaml:"max"`
	// KeyUsage is the key usage of certificates with these keys, by RFC 5280's names.
	KeyUsage []string `yaml:"key_usage"`
}

type ed25519File struct {
	// KeyUsage is the key usage of certificates with these keys, by RFC 5280's names.
	KeyUsage []string `yaml:"key_usage"`
}

type validityFile struct {
	// Default is what a request gets that asks for nothing.
	Default string `yaml:"default"`
	// Max is the longest that a request may ask for. Both ends of a validity are inclusive: 90d ends one second before the ninetieth
	// midnight after its beginning.
	Max string `yaml:"max"`
	// Limits lower the maximum from a day on, in order of day. The clock brings them into force, nobody needs to.
	Limits []limitFile `yaml:"limits"`
	// Backdate lets a certificate begin this long before it is made, for clocks that are slow. It is part of the validity. At most 47h.
	Backdate string `yaml:"backdate"`
}

type limitFile struct {
	// From is the first day in UTC, written as 2026-03-15.
	From string `yaml:"from"`
	// Max is the longest validity of certificates made from then on.
	Max string `yaml:"max"`
}

type subjectFile struct {
	// Attributes are what the subject may hold, in the order in which the certificate holds it, one value each.
	Attributes []attributeFile `yaml:"attributes"`
	// CommonName says where the common name comes from: "copy-of-san" must repeat one of the subject alternative names; "free" is
	// bounded by its pattern alone.
	CommonName string `yaml:"common_name"`
	// Drop are attributes, by name or object identifier, that a request may hold and that do not reach the certificate.
	Drop []string `yaml:"drop"`
}

type attributeFile struct {
	// Type is the attribute's name, such as organizationName.
	Type string `yaml:"type"`
	// Presence is "required"; "optional"; "checked": a request may hold it and it must obey its rules, but it is not written; or "fixed":
	// the certificate holds Value, and a request may hold nothing else.
	Presence string `yaml:"presence"`
	// Value is what a fixed attribute holds.
	Value string `yaml:"value"`
	// Max lowers RFC 5280's upper bound on the number of characters.
	Max int `yaml:"max"`
	// Pattern is a regular expression (RE2) that the whole value must match.
	Pattern string `yaml:"pattern"`
}

type namesFile struct {
	// Min is how many names a certificate must have, at least.
	Min int `yaml:"min"`
	// Max is how many it may have, at most; 100 when left out.
	Max int `yaml:"max"`
	// DNS allows dNSName.
	DNS *dnsFile `yaml:"dns"`
	// IP allows iPAddress.
	IP *ipFile `yaml:"ip"`
	// Email allows rfc822Name.
	Email *emailFile `yaml:"email"`
	// URI allows uniformResourceIdentifier.
	URI *uriFile `yaml:"uri"`
	// Permitted are subtrees, as of RFC 5280's name constraints, in one of which every name of their type must lie.
	Permitted *subtreesFile `yaml:"permitted"`
	// Excluded are subtrees in which no name may lie, also where Permitted holds it.
	Excluded *subtreesFile `yaml:"excluded"`
}

// subtreesFile are subtrees by type of name (RFC 5280, section 4.2.1.10). A type without subtrees is not constrained.
type subtreesFile struct {
	// DNS are domains: each holds itself and everything under it; one that begins with a dot, only what is under it.
	DNS []string `yaml:"dns"`
	// IP are CIDRs.
	IP []string `yaml:"ip"`
	// Email are mailboxes ("a@b.example"), hosts ("b.example"), or everything under a domain (".b.example").
	Email []string `yaml:"email"`
	// URI are hosts, such as SPIFFE trust domains, or everything under a domain (".b.example").
	URI []string `yaml:"uri"`
}

type dnsFile struct {
	// Wildcards allows "*." as the whole left-most label, never directly under a public suffix.
	Wildcards bool `yaml:"wildcards"`
	// Underscores allows "_" in labels.
	Underscores bool `yaml:"underscores"`
	// Public asks for names of the public DNS: under a suffix of the ICANN section of the public suffix list, and outside of every
	// reserved and reverse zone.
	Public bool `yaml:"public"`
	// CAA asks the DNS for each name's CAA records (RFC 8659), for public names alone: who owns the domain says which authorities may
	// certify it. The operator configures the authority's CAA domains.
	CAA bool `yaml:"caa"`
	// Pattern is a regular expression (RE2) that every whole lower-case name must match.
	Pattern string `yaml:"pattern"`
}

type ipFile struct {
	// Reserved allows addresses that are not globally reachable (the IANA special-purpose registries), such as 10.0.0.1.
	Reserved bool `yaml:"reserved"`
}

type emailFile struct {
	// Pattern is a regular expression (RE2) that every whole mailbox must match.
	Pattern string `yaml:"pattern"`
}

type uriFile struct {
	// Schemes are the allowed schemes, in lower case.
	Schemes []string `yaml:"schemes"`
	// Pattern is a regular expression (RE2) that every whole URI must match.
	Pattern string `yaml:"pattern"`
}

type dropFile struct {
	// Extensions by name or object identifier.
	Extensions []string `yaml:"extensions"`
	// Attributes of the request (RFC 2986), by name or object identifier.
	Attributes []string `yaml:"attributes"`
}

type lintFile struct {
	// Sources are zlint's lint sources, such as RFC5280 and CABF_BR. At least one.
	Sources []string `yaml:"sources"`
	// Except are the lints left out, each with its reason.
	Except []LintException `yaml:"except"`
}
