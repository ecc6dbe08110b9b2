package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

// Limits of what a requester may attach to a request.
const (
	maxMetadata      = 16  // entries
	maxMetadataKey   = 64  // octets
	maxMetadataValue = 256 // octets
	maxName          = 63  // octets of the name of a profile or an authority
	maxKey           = 255 // characters of an idempotency key
	// maxOrder is how many octets a body or a line has at most that asks for a certificate: a certification request, twice as long in PEM with
	// words around it, and what may be attached. In memory JSON takes many times its room.
	maxOrder = 2*csr.MaxDER + 32<<10
)

// order gathers what a call asks for, from a body or from the query, and with it every violation of its form.
type order struct {
	ca.Order
	violations []policies.Violation
	unreadable bool // the certification request itself is at fault
}

func newOrder(ctx context.Context) *order {
	return &order{Order: ca.Order{Actor: exchangeOf(ctx).actor}}
}

// result is the order, or the refusal that names all that is wrong with it.
func (o *order) result() (ca.Order, error) {
	switch {
	case len(o.violations) == 0:
		return o.Order, nil
	case o.unreadable:
		return ca.Order{}, &invalid{kind: kindUnreadableCSR, violations: o.violations}
	}
	return ca.Order{}, &invalid{kind: kindInvalid, violations: o.violations}
}

func (o *order) report(v policies.Violation) { o.violations = append(o.violations, v) }

func (o *order) profile(name string) {
	if !nameable(name) {
		o.report(broken("profile", "name a profile of /api/v1/profiles", "the request names no profile, or one that cannot exist"))
	}
	o.Profile = name
}

func (o *order) issuer(name string) {
	if name != "" && !nameable(name) {
		o.report(broken("issuer", "name one of the authorities at /api/v1/authorities, or leave it out", "no authority has such a name"))
	}
	o.Issuer = name
}

func (o *order) validity(text string) {
	if text == "" {
		return
	}
	length, err := parseValidity(text)
	if err != nil {
		o.report(broken("validity", validityHint, err.Error()))
	}
	o.Validity = length
}

func (o *order) replaces(serial string) {
	if serial == "" {
		return
	}
	read, err := parseSerial(serial)
	if err != nil {
		o.report(broken("replaces", "write it in lower-case hex, as the API does, or leave it out", "this is not a serial number"))
	}
	o.Replaces = read
}

func (o *order) metadata(m map[string]string) {
	if len(m) > maxMetadata {
		o.report(broken("metadata", "send fewer", fmt.Sprintf("there are more than %d entries of metadata", maxMetadata)))
		return
	}
	for _, key := range sortedKeys(m) {
		switch value := m[key]; {
		case key == "" || len(key) > maxMetadataKey || !printable(key):
			hint := fmt.Sprintf("a key has 1 to %d octets of text", maxMetadataKey)
			o.report(broken("metadata", hint, "a key of the metadata is not acceptable"))
		case len(value) > maxMetadataValue || !printable(value):
			hint := fmt.Sprintf("a value has at most %d octets of text", maxMetadataValue)
			o.report(broken("metadata", hint, "the metadata's value for "+quote(key)+" is not acceptable"))
		}
	}
	o.Metadata = m
}

// pem reads the certification request from a JSON field or a PEM body.
func (o *order) pem(text []byte) {
	if len(text) == 0 {
		o.report(broken("csr", "put a PKCS#10 request in PEM into it", "the request holds no certification request"))
		return
	}
	request, err := csr.ParsePEM(text)
	o.read(request, err)
}

// der reads the certification request from a binary body.
func (o *order) der(body []byte) {
	request, err := csr.Parse(body)
	o.read(request, err)
}

func (o *order) read(request *csr.Request, err error) {
	var why *csr.Error
	switch {
	case errors.As(err, &why):
		o.unreadable = true
		o.report(csrViolation(why))
	case err != nil:
		o.unreadable = true
		o.report(broken("csr", "send a PKCS#10 request (RFC 2986)", "the certification request cannot be read"))
	}
	o.CSR = request
}

// idempotencyKey reads the caller's name for the request.
func (o *order) idempotencyKey(key string) {
	if len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		o.report(broken("idempotency-key", "send 1 to 255 visible ASCII characters, such as a UUID", "the idempotency key is not acceptable"))
	}
	o.IdempotencyKey = key
}

// parameter is one of the query string.
type parameter struct{ name, value string }

// queryIsForRaw reports query parameters that belong to bodies without room for them.
func (o *order) queryIsForRaw(all ...parameter) {
	for _, p := range all {
		if p.value != "" {
			o.report(broken(p.name, "put it into the JSON body", p.name+" stands in the query string beside a JSON body"))
		}
	}
}

// nameable tells whether a profile or an authority could have this name.
func nameable(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	})
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// unknownIssuer tells an order for an authority that is not here from a certificate that is not: the path exists, the body is at fault.
func unknownIssuer(err error, issuer string) error {
	if !errors.Is(err, ca.ErrNotFound) || issuer == "" {
		return err
	}
	return refusal(broken("issuer", "name a signing authority of /api/v1/authorities, or none", "no authority of this name signs here"))
}

// requestBodies are the bodies that a certification request comes in.
func requestBodies(inJSON any) []media {
	return []media{
		{name: typeJSON, json: inJSON},
		{name: typePKCS10, text: "the PKCS#10 request in DER; the rest stands in the query string"},
		{name: typePEM, text: "the PKCS#10 request in PEM; the rest stands in the query string"},
	}
}

var requestProblems = []int{http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}
