package ceremony

import (
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

var (
	domainForm  = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	mailboxForm = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@`)
)

func (c Constraints) validate(d *strictyaml.Document, at string) (permitted, excluded *policies.NameConstraints) {
	if c.Permitted == nil && c.Excluded == nil {
		d.Refuse(at, "write permitted or excluded, or leave the field out", "the constraints constrain nothing")
	}
	written(d, at+".permitted", c.Permitted != nil)
	written(d, at+".excluded", c.Excluded != nil)
	if c.Permitted != nil {
		permitted = c.Permitted.validate(d, at+".permitted")
	}
	if c.Excluded != nil {
		excluded = c.Excluded.validate(d, at+".excluded")
	}
	return permitted, excluded
}

func (s Subtrees) validate(d *strictyaml.Document, at string) *policies.NameConstraints {
	if len(s.DNS)+len(s.IP)+len(s.Email)+len(s.URI) == 0 {
		d.Refuse(at, "write dns, ip, email or uri, or leave the field out", "the constraints constrain nothing")
	}
	for _, kind := range []struct {
		name   string
		values []string
		form   func(string) bool
		hint   string
	}{
		{"dns", s.DNS, validDomain, "write example.com: it stands for itself and everything under it"},
		{"ip", s.IP, func(string) bool { return true }, ""},
		{"email", s.Email, validMailboxes, "write a@example.com, example.com or .example.com"},
		{"uri", s.URI, validHosts, "write example.com or .example.com"},
	} {
		field := at + "." + kind.name
		if d.Has(field) && len(kind.values) == 0 {
			d.Refuse(field, "leave the field out, or exclude what is not wanted", "an empty list of permitted names would permit all of this kind")
		}
		for i, value := range kind.values {
			item := fmt.Sprintf("%s[%d]", field, i)
			if !kind.form(value) {
				d.Refuse(item, kind.hint, "%q is malformed", value)
			}
			if slices.Contains(kind.values[:i], value) {
				d.Refuse(item, "", "%q stands in the list twice", value)
			}
		}
	}
	subtrees := &policies.NameConstraints{DNS: s.DNS, Email: s.Email, URI: s.URI}
	for i, text := range s.IP {
		prefix, err := parsePrefix(text)
		if err != nil {
			d.Refuse(fmt.Sprintf("%s.ip[%d]", at, i), "write for example 10.0.0.0/8", "%s", err)
		}
		subtrees.IP = append(subtrees.IP, prefix)
	}
	return subtrees
}

func validDomain(s string) bool { return len(s) <= 253 && domainForm.MatchString(s) && !numeric(s) }

// validHosts tells a host, or a period and a domain: all hosts under it.
func validHosts(s string) bool { return validDomain(strings.TrimPrefix(s, ".")) }

func validMailboxes(s string) bool {
	if prefix := mailboxForm.FindString(s); prefix != "" {
		return len(prefix) <= 65 && validDomain(s[len(prefix):])
	}
	return validHosts(s)
}

// numeric tells a name that would pass for an IPv4 address: its last label has digits alone.
func numeric(s string) bool {
	_, err := strconv.ParseUint(s[strings.LastIndexByte(s, '.')+1:], 10, 64)
	return err == nil
}

// validateOIDs refuses what read does not read, and what stands twice.
func validateOIDs(d *strictyaml.Document, field string, values []string, read func(string) (asn1.ObjectIdentifier, error)) []asn1.ObjectIdentifier {
	if d.Has(field) && len(values) == 0 {
		d.Refuse(field, "leave the field out", "the list is empty")
	}
	var oids []asn1.ObjectIdentifier
	for i, value := range values {
		item := fmt.Sprintf("%s[%d]", field, i)
		oid, err := read(value)
		switch {
		case err != nil:
			d.Refuse(item, "", "%s", err)
		case slices.ContainsFunc(oids, oid.Equal):
			d.Refuse(item, "", "%q stands in the list twice", value)
		}
		oids = append(oids, oid)
	}
	return oids
}

// parseOID reads a dotted object identifier: at least two arcs, the first at most 2, the second below 40 under 0 and 1, without leading
// zeros (X.660).
func parseOID(s string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != arc || len(oid) == 32 {
			return nil, fmt.Errorf("%q is not an object identifier", s)
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 2 || oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, fmt.Errorf("%q is not an object identifier", s)
	}
	return oid, nil
}
