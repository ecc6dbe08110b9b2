package ceremony

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/strictyaml"
)

// distinct refuses what two parts of the plan would have in common and must not.
func (p *Plan) distinct(d *strictyaml.Document) {
	type use struct{ what, value string }
	first, claimed := map[use]string{}, map[string]bool{}
	claim := func(field, what, value string) {
		if value == "" {
			return
		}
		if other, taken := first[use{what, value}]; taken {
			d.Refuse(field, "", "the %s %q is that of %s already", what, value, other)
			return
		}
		first[use{what, value}] = field
	}
	for i, a := range p.Authorities {
		at := fmt.Sprintf("authorities[%d]", i)
		claim(at+".name", "name", a.Name)
		claim(at+".key.label", "label", a.Key.Label)
		claim(at+".key.id", "id", a.Key.ID)
		if a.Subject.CommonName != "" { // the case of letters does not tell two names apart (RFC 5280, section 7.1)
			claim(at+".subject", "subject", strings.ToLower(strings.ToUpper(a.Subject.String())))
		}
		claim(at+".urls.crl", "URL", a.URLs.CRL)
		claim(at+".urls.issuer", "URL", a.URLs.Issuer)
		claim(at+".urls.ocsp", "URL", a.URLs.OCSP)
	}
	for i, l := range p.Logs {
		at := fmt.Sprintf("logs[%d]", i)
		claim(at+".name", "name", l.Name)
		claim(at+".origin", "origin", l.Origin)
		claim(at+".key.label", "label", l.Key.Label)
		claim(at+".key.id", "id", l.Key.ID)
	}
	issuers := map[string]Issuer{}
	for i, issuer := range p.Issuers {
		at := fmt.Sprintf("issuers[%d]", i)
		claim(at+".name", "name", issuer.Name)
		claim(at+".key.label", "label", issuer.Key.Label)
		claim(at+".key.id", "id", issuer.Key.ID)
		claim(at+".urls.crl", "URL", issuer.URLs.CRL)
		claim(at+".urls.issuer", "URL", issuer.URLs.Issuer)
		claim(at+".urls.ocsp", "URL", issuer.URLs.OCSP)
		issuers[issuer.Name] = issuer
	}
	for i, c := range p.CRLs {
		at := fmt.Sprintf("crls[%d]", i)
		if issuer, same := issuers[c.Issuer]; same { // it certifies and lists in one ceremony, with one key
			if c.Key.Label != issuer.Key.Label || c.Key.ID != issuer.Key.ID {
				d.Refuse(at+".key", "write the same key in both places", "the key is not that of the issuer %s", c.Issuer)
			}
			if claimed[c.Issuer] {
				d.Refuse(at+".issuer", "", "a second CRL of %s", c.Issuer)
			}
			claimed[c.Issuer] = true
			continue
		}
		claim(at+".issuer", "name", c.Issuer)
		claim(at+".key.label", "label", c.Key.Label)
		claim(at+".key.id", "id", c.Key.ID)
	}
}

// hierarchy refuses issuers that are not there, cycles, and authorities that reach further than their issuer.
func (p *Plan) hierarchy(d *strictyaml.Document) {
	byName := map[string]Authority{}
	for _, a := range p.Authorities {
		byName[a.Name] = a
	}
	for i, a := range p.Authorities {
		if a.root() || p.adopts(a.Issuer) { // what an adopted issuer allows stands in its certificate, which the rehearsal looks at
			continue
		}
		at := fmt.Sprintf("authorities[%d]", i)
		issuer, ok := byName[a.Issuer]
		if !ok {
			d.Refuse(at+".issuer", "an issuer is an authority of the same plan, or one of issuers", "there is no authority %q", a.Issuer)
			continue
		}
		if outlives(a, issuer) {
			d.Refuse(at+".validity", "", "%s would outlive its issuer %s", a.Name, issuer.Name)
		}
		switch limit := issuer.PathLen; {
		case limit == nil:
		case *limit == 0:
			d.Refuse(at+".issuer", "raise its path_len", "%s has path_len 0: no authority may follow it", issuer.Name)
		case a.PathLen == nil:
			d.Refuse(at+".path_len", fmt.Sprintf("at most %d", *limit-1), "a path length is needed below %s, which has path_len %d", issuer.Name,
				*limit)
		case *a.PathLen >= *limit:
			d.Refuse(at+".path_len", fmt.Sprintf("at most %d", *limit-1), "%s has path_len %d", issuer.Name, *limit)
		}
	}
	for i, issuer := range p.Issuers {
		if !slices.ContainsFunc(p.Authorities, func(a Authority) bool { return a.Issuer == issuer.Name }) {
			d.Refuse(fmt.Sprintf("issuers[%d].name", i), "leave it out, or name it as the issuer of an authority", "%s certifies nothing here",
				issuer.Name)
		}
	}
	if !d.OK() {
		return
	}
	if inOrder := p.order(); len(inOrder) < len(p.Authorities) {
		for i, a := range p.Authorities {
			if !containsName(inOrder, a.Name) {
				d.Refuse(fmt.Sprintf("authorities[%d].issuer", i), "every line of issuers ends at a root",
					"%s is below itself, or below such an authority", a.Name)
			}
		}
	}
}

// outlives tells an authority that would end after its issuer, as far as the plan alone tells: where one has a fixed end and the other
// a length, the ceremony's moment decides, and fits looks again.
func outlives(a, issuer Authority) bool {
	if a.Validity != 0 && issuer.Validity != 0 {
		return a.Validity > issuer.Validity
	}
	if a.notBefore.IsZero() || issuer.notBefore.IsZero() {
		return false
	}
	return a.notAfter.After(issuer.notAfter) || a.notBefore.Before(issuer.notBefore)
}

// fits refuses what only the ceremony's moment makes wrong.
func (p Plan) fits(now time.Time) error {
	type window struct{ notBefore, notAfter time.Time }
	windows := map[string]window{}
	for _, a := range p.order() {
		var w window
		w.notBefore, w.notAfter = a.window(now)
		windows[a.Name] = w
		if !w.notAfter.After(now) {
			return fmt.Errorf("authority %s: its validity ended at %s", a.Name, w.notAfter.Format(time.RFC3339))
		}
		if issuer, ok := windows[a.Issuer]; ok && (w.notAfter.After(issuer.notAfter) || w.notBefore.Before(issuer.notBefore)) {
			return fmt.Errorf("authority %s: its validity, %s to %s, reaches beyond that of its issuer %s, %s to %s", a.Name,
				w.notBefore.Format(time.RFC3339), w.notAfter.Format(time.RFC3339), a.Issuer,
				issuer.notBefore.Format(time.RFC3339), issuer.notAfter.Format(time.RFC3339))
		}
		if a.CRL != nil && !a.online() && w.notBefore.After(now) {
			return fmt.Errorf("authority %s: its CRL would be older than it, which begins at %s", a.Name, w.notBefore.Format(time.RFC3339))
		}
		if a.CRL != nil && !a.online() && now.Add(time.Duration(a.CRL.Validity)).After(w.notAfter.Add(time.Second)) {
			return fmt.Errorf("authority %s: its CRL would outlive it", a.Name)
		}
	}
	for _, c := range p.CRLs {
		for _, r := range c.Revoked {
			if r.at.After(now) {
				return fmt.Errorf("CRL of %s: serial %s is revoked in the future, at %s", c.Issuer, r.Serial, r.at.Format(time.RFC3339))
			}
		}
	}
	return nil
}

// order is the authorities with every issuer before those that it certifies, otherwise as the plan lists them. Authorities in a cycle
// are left out.
func (p Plan) order() []Authority {
	var done []Authority
	for added := true; added; {
		added = false
		for _, a := range p.Authorities {
			if containsName(done, a.Name) || !a.root() && !containsName(done, a.Issuer) && !p.adopts(a.Issuer) {
				continue
			}
			done, added = append(done, a), true
		}
	}
	return done
}

// adopts tells the name of an authority of an earlier ceremony.
func (p Plan) adopts(name string) bool {
	return slices.ContainsFunc(p.Issuers, func(i Issuer) bool { return i.Name == name })
}

func containsName(authorities []Authority, name string) bool {
	for _, a := range authorities {
		if a.Name == name {
			return true
		}
	}
	return false
}

// String is the name in the order of the certificate, for people and for comparison.
func (s Subject) String() string {
	var b bytes.Buffer
	for _, a := range s.attributes() {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%q", a.short, a.value)
	}
	return b.String()
}

type attribute struct{ short, value string }

// attributes are those that the subject has, in the order of the certificate, by their short names (RFC 4514, section 3).
func (s Subject) attributes() []attribute {
	all := []attribute{{"C", s.Country}, {"ST", s.State}, {"L", s.Locality}, {"O", s.Organization}, {"CN", s.CommonName}}
	return slices.DeleteFunc(all, func(a attribute) bool { return a.value == "" })
}
