package ceremony

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

const (
	maxAuthorities = 64
	maxRevoked     = 10_000
	maxURL         = 1024 // characters
	maxLabel       = 64   // characters of a CKA_LABEL
	maxID          = 32   // octets of a CKA_ID
)

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$`)
	hexForm    = regexp.MustCompile(`^(?:[0-9a-f]{2})+$`)
	algorithms = []string{string(hsm.ECDSAP256), string(hsm.ECDSAP384), string(hsm.RSA2048), string(hsm.RSA3072), string(hsm.RSA4096)}
	// A revoked authority stays revoked: holds and their release are not for CRLs of authorities. Nor is unspecified, whose entry has no
	// reason, as one of an authority must (BR, section 7.2.2). What an earlier CRL says is kept all the same.
	reasons = []issuance.Reason{
		issuance.KeyCompromise, issuance.CACompromise, issuance.AffiliationChanged,
		issuance.Superseded, issuance.CessationOfOperation, issuance.PrivilegeWithdrawn,
	}
	// maxNumber is what a CRL number must stay below, to fit in 20 octets with its sign (RFC 5280, section 5.2.3).
	maxNumber = new(big.Int).Lsh(big.NewInt(1), 159)
)

const nameHint = "lower-case letters, digits and inner hyphens, at most 64"

// validate refuses whatever is wrong with the plan, and fills in what is written as text.
func (p *Plan) validate(d *strictyaml.Document) {
	if !nameForm.MatchString(p.Ceremony) {
		d.Refuse("ceremony", nameHint, "the name of the ceremony is missing or malformed")
	}
	if p.Output == "" || strings.ContainsRune(p.Output, 0) {
		d.Refuse("output", "name a directory, relative to the plan", "the output directory is missing or malformed")
	}
	if len(p.Authorities)+len(p.CRLs)+len(p.Logs) == 0 {
		d.Refuse("authorities", "list authorities, crls or logs", "there is nothing to do")
	}
	if len(p.Authorities) > maxAuthorities {
		d.Refuse("authorities", "", "more than %d authorities", maxAuthorities)
		return
	}
	for i := range p.Authorities {
		p.Authorities[i].validate(d, fmt.Sprintf("authorities[%d]", i))
	}
	if len(p.Issuers) > maxAuthorities {
		d.Refuse("issuers", "", "more than %d issuers", maxAuthorities)
		return
	}
	for i := range p.Issuers {
		p.Issuers[i].validate(d, fmt.Sprintf("issuers[%d]", i))
	}
	for i := range p.CRLs {
		p.CRLs[i].validate(d, fmt.Sprintf("crls[%d]", i))
	}
	if len(p.Logs) > maxAuthorities {
		d.Refuse("logs", "", "more than %d logs", maxAuthorities)
		return
	}
	for i := range p.Logs {
		p.Logs[i].validate(d, fmt.Sprintf("logs[%d]", i))
	}
	p.distinct(d)
	p.hierarchy(d)
}

func (a *Authority) validate(d *strictyaml.Document, at string) {
	validateName(d, at+".name", a.Name)
	written(d, at+".issuer", a.Issuer != "")
	a.Key.validate(d, at+".key")
	if !slices.Contains(algorithms, string(a.Key.Algorithm)) {
		d.Refuse(at+".key.algorithm", "one of "+strings.Join(algorithms, ", "), "the algorithm is missing or unknown")
	}
	a.Subject.validate(d, at+".subject")
	a.validateWindow(d, at)
	written(d, at+".path_len", a.PathLen != nil)
	if a.PathLen != nil && *a.PathLen < 0 {
		d.Refuse(at+".path_len", "leave it out for no limit", "a path length is not negative")
	}
	written(d, at+".name_constraints", a.NameConstraints != nil)
	if a.NameConstraints != nil {
		a.permitted, a.excluded = a.NameConstraints.validate(d, at+".name_constraints")
	}
	a.policies = validateOIDs(d, at+".policies", a.Policies, parseOID)
	a.usages = validateOIDs(d, at+".ext_key_usage", a.ExtKeyUsage, policies.ExtKeyUsage)
	validateURL(d, at+".urls.crl", a.URLs.CRL)
	validateURL(d, at+".urls.issuer", a.URLs.Issuer)
	validateURL(d, at+".urls.ocsp", a.URLs.OCSP)
	written(d, at+".online", a.Online != nil)
	a.validateSchedule(d, at)
}

func validateName(d *strictyaml.Document, field, name string) {
	switch {
	case !nameForm.MatchString(name):
		d.Refuse(field, nameHint, "the authority's name is missing or malformed")
	case name == "roots":
		d.Refuse(field, "", "roots.pem is where all roots together are served")
	case strings.HasSuffix(name, "-chain"):
		d.Refuse(field, "", "names that end in -chain would be mistaken for the chain of another authority")
	}
}

// written refuses a field that stands in the file without a value: it would pass for one that was left out.
func written(d *strictyaml.Document, field string, hasValue bool) {
	if d.Has(field) && !hasValue {
		d.Refuse(field, "give a value or leave the field out", "the field is empty")
	}
}

func (k *Key) validate(d *strictyaml.Document, at string) {
	printable := !strings.ContainsFunc(k.Label, func(r rune) bool { return r < ' ' || r > '~' })
	if k.Label == "" || len(k.Label) > maxLabel || !printable {
		d.Refuse(at+".label", fmt.Sprintf("at most %d printable ASCII characters", maxLabel), "the key's label is missing or malformed")
	}
	written(d, at+".id", k.ID != "")
	if k.ID == "" {
		return
	}
	if !hexForm.MatchString(k.ID) || len(k.ID) > 2*maxID {
		d.Refuse(at+".id", fmt.Sprintf("an even number of lower-case hex digits, at most %d", 2*maxID), "%q is not a CKA_ID", k.ID)
		return
	}
	k.id, _ = hex.DecodeString(k.ID)
}

func (s Subject) validate(d *strictyaml.Document, at string) {
	if s.CommonName == "" {
		d.Refuse(at+".common_name", "people need a name to see", "the common name is missing")
	}
	for _, a := range []struct {
		field, value string
		max          int
	}{{"state", s.State, 128}, {"locality", s.Locality, 128}, {"organization", s.Organization, 64}, {"common_name", s.CommonName, 64}} {
		written(d, at+"."+a.field, a.value != "")
		switch field := at + "." + a.field; {
		case !utf8.ValidString(a.value) || strings.ContainsFunc(a.value, func(r rune) bool { return !unicode.IsPrint(r) }):
			d.Refuse(field, "", "the value has characters that cannot be seen")
		case utf8.RuneCountInString(a.value) > a.max:
			d.Refuse(field, "", "the value has more than %d characters", a.max)
		case strings.TrimSpace(a.value) != a.value || strings.Contains(a.value, "  "):
			d.Refuse(field, "", "the value has spaces around it or two in a row")
		}
	}
	written(d, at+".country", s.Country != "")
	country := func(r rune) bool { return r >= 'A' && r <= 'Z' }
	if s.Country != "" && (len(s.Country) != 2 || strings.ContainsFunc(s.Country, func(r rune) bool { return !country(r) })) {
		d.Refuse(at+".country", "two capital letters, ISO 3166", "%q is not a country", s.Country)
	}
}

func (a *Authority) validateWindow(d *strictyaml.Document, at string) {
	span, fixed := a.Validity != 0 || d.Has(at+".validity"), a.NotBefore != "" || a.NotAfter != ""
	switch {
	case span && fixed:
		d.Refuse(at+".validity", "write validity, or not_before and not_after", "the validity is said twice")
	case span && time.Duration(a.Validity) < time.Second:
		d.Refuse(at+".validity", "", "the validity is empty")
	case !span && !fixed:
		d.Refuse(at+".validity", "write validity, or not_before and not_after", "the validity is missing")
	case fixed:
		a.notBefore = moment(d, at+".not_before", a.NotBefore)
		a.notAfter = moment(d, at+".not_after", a.NotAfter)
		if !a.notBefore.IsZero() && !a.notAfter.IsZero() && !a.notAfter.After(a.notBefore) {
			d.Refuse(at+".not_after", "", "not_after does not come after not_before")
		}
	}
}

func moment(d *strictyaml.Document, field, s string) time.Time {
	t, err := parseMoment(s)
	if err != nil {
		d.Refuse(field, "", "%s", err)
	}
	return t
}

func (a *Authority) validateSchedule(d *strictyaml.Document, at string) {
	written(d, at+".crl", a.CRL != nil)
	switch field := at + ".crl"; {
	case a.CRL == nil && a.online():
		d.Refuse(field, "write crl: {period: 24h, validity: 7d}", "an online authority needs a schedule for its CRL")
	case a.CRL == nil && a.URLs.CRL != "":
		d.Refuse(field, "write crl: {validity: 180d}, or leave urls.crl out", "certificates would name a CRL that nobody makes")
	case a.CRL == nil:
	case a.CRL.Validity < strictyaml.Duration(time.Second):
		d.Refuse(field+".validity", "write for example 7d", "the CRL's validity is missing or empty")
	case a.Validity != 0 && a.CRL.Validity > a.Validity:
		d.Refuse(field+".validity", "", "a CRL would outlive its authority")
	case a.online() && a.CRL.Period < strictyaml.Duration(time.Second):
		d.Refuse(field+".period", "write for example 24h", "an online authority's CRL needs a period")
	case a.online() && a.CRL.Period >= a.CRL.Validity:
		d.Refuse(field+".period", "make it shorter than validity", "a CRL would end before the next is made")
	case !a.online() && d.Has(field+".period"):
		d.Refuse(field+".period", "leave it out, or say online: true", "an offline authority makes its CRLs in ceremonies, not periodically")
	case (a.online() || !a.Key.Existing) && (d.Has(field+".previous") || d.Has(field+".first")):
		d.Refuse(field, "leave previous and first out", "only the CRL of an offline authority whose key is existing can follow another")
	case !a.online() && a.Key.Existing:
		written(d, field+".previous", a.CRL.Previous != "")
		validateSuccession(d, field, a.CRL.Previous, a.CRL.First)
	}
}

// validateSuccession refuses a CRL that does not say what it follows: nothing else tells a first one from one that forgets.
func validateSuccession(d *strictyaml.Document, at, previous string, first bool) {
	switch {
	case first && previous != "":
		d.Refuse(at+".first", "leave one of them out", "a first CRL has none before it")
	case !first && previous == "":
		d.Refuse(at+".previous", "name the file of the last CRL, or write first: true where there has never been one",
			"without the CRL before, what it revokes would be forgotten")
	}
}

// validateURL refuses what a relying party may not be able to fetch; an absent URL is fine.
func validateURL(d *strictyaml.Document, field, s string) {
	written(d, field, s != "")
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	visible := !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	switch {
	case err != nil || !visible || len(s) > maxURL || u.String() != s:
		d.Refuse(field, fmt.Sprintf("at most %d ASCII characters, escaped where needed", maxURL), "the URL is malformed")
	case u.Scheme != "http":
		d.Refuse(field, "write http://...", "clients fetch this before they can trust TLS: plain http is needed")
	case u.Host == "" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.ForceQuery || len(u.Path) < 2:
		d.Refuse(field, "http://host/path", "the URL needs a host and a path, and nothing but them and a query")
	}
}

func (i *Issuer) validate(d *strictyaml.Document, at string) {
	validateName(d, at+".name", i.Name)
	i.Key.validateExisting(d, at, i.Certificate)
	validateURL(d, at+".urls.crl", i.URLs.CRL)
	switch {
	case i.NoCRL && i.URLs.CRL != "":
		d.Refuse(at+".no_crl", "leave one of them out", "what the issuer certifies names its CRL, or none")
	case !i.NoCRL && i.URLs.CRL == "" && !d.Has(at+".urls.crl"):
		d.Refuse(at+".urls.crl", "give it as in the ceremony that made the issuer, or write no_crl: true where it has no CRL that can be fetched",
			"what the issuer certifies would name no CRL, for as long as it lasts")
	}
	validateURL(d, at+".urls.issuer", i.URLs.Issuer)
	validateURL(d, at+".urls.ocsp", i.URLs.OCSP)
}

// validateExisting is for the key of an authority that has its certificate.
func (k *Key) validateExisting(d *strictyaml.Document, at, certificate string) {
	if certificate == "" {
		d.Refuse(at+".certificate", "name the file, relative to the plan", "the issuer's certificate is missing")
	}
	k.validate(d, at+".key")
	if d.Has(at + ".key.algorithm") {
		d.Refuse(at+".key.algorithm", "leave it out", "the issuer's certificate says the algorithm")
	}
	k.Existing = true
}

func (c *CRL) validate(d *strictyaml.Document, at string) {
	validateName(d, at+".issuer", c.Issuer)
	c.Key.validateExisting(d, at, c.Certificate)
	if c.Validity < strictyaml.Duration(time.Second) {
		d.Refuse(at+".validity", "write for example 180d", "the CRL's validity is missing or empty")
	}
	written(d, at+".previous", c.Previous != "")
	validateSuccession(d, at, c.Previous, c.First)
	written(d, at+".number", c.Number != "")
	if c.Number != "" {
		if n, ok := new(big.Int).SetString(c.Number, 10); ok && n.String() == c.Number && n.Sign() > 0 && n.Cmp(maxNumber) < 0 {
			c.number = n
		} else {
			d.Refuse(at+".number", "decimal, from 1 to 2^159 - 1", "%q is not a CRL number", c.Number)
		}
	}
	if len(c.Revoked) > maxRevoked {
		d.Refuse(at+".revoked", "", "more than %d certificates", maxRevoked)
		return
	}
	first := map[string]int{}
	for i := range c.Revoked {
		r, field := &c.Revoked[i], fmt.Sprintf("%s.revoked[%d]", at, i)
		r.validate(d, field)
		if j, seen := first[string(r.serial)]; seen && r.serial != nil {
			d.Refuse(field+".serial", "", "the serial stands in entry %d already", j+1)
		}
		first[string(r.serial)] = i
	}
}

func (r *Revoked) validate(d *strictyaml.Document, at string) {
	if octets, err := hex.DecodeString(r.Serial); err != nil || !hexForm.MatchString(r.Serial) || !wellFormedSerial(octets) {
		d.Refuse(at+".serial", "lower-case hex, two digits for each octet, at most 20 octets, without leading zeros", "%q is not a serial number",
			r.Serial)
	} else {
		r.serial = octets
	}
	i := slices.IndexFunc(reasons, func(known issuance.Reason) bool { return known.String() == r.Reason })
	if i < 0 {
		names := make([]string, len(reasons))
		for j, known := range reasons {
			names[j] = known.String()
		}
		d.Refuse(at+".reason", "one of "+strings.Join(names, ", "), "%q is not a reason to revoke an authority", r.Reason)
	} else {
		r.reason = reasons[i]
	}
	r.at = moment(d, at+".at", r.At)
}

// wellFormedSerial tells the shortest form of a positive integer of at most 20 octets.
func wellFormedSerial(octets []byte) bool {
	return len(octets) > 0 && octets[0] != 0 && (len(octets) < 20 || len(octets) == 20 && octets[0] < 0x80)
}
