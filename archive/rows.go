package archive

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Octets are a value of bytea: "\x" and hexadecimal.
type Octets []byte

// UnmarshalText reads "\x" and hexadecimal, and nothing else.
func (o *Octets) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), `\x`)
	if !ok {
		return fmt.Errorf("octets begin with \\x")
	}
	raw, err := hex.DecodeString(digits)
	*o = raw
	return err
}

// Certificate is a row of kind certificate, as far as the program asks for it.
type Certificate struct {
	Serial    Octets    `json:"serial"`
	Issuer    string    `json:"issuer"`
	Kind      string    `json:"kind"` // precertificate or final
	DER       Octets    `json:"der"`
	Profile   string    `json:"profile"`
	Namespace string    `json:"namespace"`
	RequestID string    `json:"request_id"`
	Subject   string    `json:"subject"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	IssuedAt  time.Time `json:"issued_at"`
	EventID   string    `json:"event_id"` // of the certificate.issued leaf in the audit log
}

// LedTo is what came of a request: the certificate, as far as its row tells.
type LedTo struct {
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal
	Subject   string    `json:"subject"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Request is a row of kind request, as far as a decision on it asks.
type Request struct {
	ID             string          `json:"id"`
	At             time.Time       `json:"at"`
	ActorID        string          `json:"actor_id"`
	ActorName      string          `json:"actor_name"`
	Namespace      string          `json:"namespace"`
	Roles          []string        `json:"roles"`
	Profile        string          `json:"profile"`
	Issuer         string          `json:"issuer"`
	CSR            *Octets         `json:"csr"` // DER; nil where the authority made the request itself
	Validity       Interval        `json:"validity"`
	Verdict        string          `json:"verdict"`
	Results        json.RawMessage `json:"results"`
	PolicyDigest   string          `json:"policy_digest"`
	CompromisedKey bool            `json:"compromised_key"`
}

// Revocation is a row of kind revocation, as far as the program asks for it.
type Revocation struct {
	Issuer   string    `json:"issuer"`
	Serial   Octets    `json:"serial"`
	Sequence int       `json:"sequence"`
	Reason   int       `json:"reason"` // RFC 5280, section 5.3.1
	At       time.Time `json:"at"`
	EventID  string    `json:"event_id"`
}

// Interval is a length of time as the database writes it: ISO 8601, days as 24 hours.
type Interval time.Duration

var interval = regexp.MustCompile(`^P(?:(-?\d{1,6})D)?(?:T(?:(-?\d{1,8})H)?(?:(-?\d{1,3})M)?(?:(-?\d{1,3}(?:\.\d{1,6})?)S)?)?$`)

// UnmarshalText reads days, hours, minutes and seconds. Months and years, which have no one length, are refused.
func (i *Interval) UnmarshalText(text []byte) error {
	parts := interval.FindSubmatch(text)
	if parts == nil || len(text) < 3 {
		return fmt.Errorf("%q is no interval of days, hours, minutes and seconds", text)
	}
	var total float64 // seconds; a microsecond of ten years needs fewer bits than it has
	for n, unit := range []float64{24 * 3600, 3600, 60, 1} {
		if len(parts[n+1]) > 0 {
			v, err := strconv.ParseFloat(string(parts[n+1]), 64)
			if err != nil {
				return fmt.Errorf("reading an interval: %w", err)
			}
			total += v * unit
		}
	}
	*i = Interval(time.Duration(total*1e6+0.5) * time.Microsecond)
	if total < 0 {
		*i = Interval(time.Duration(total*1e6-0.5) * time.Microsecond)
	}
	return nil
}

// Certificate reads a row of kind certificate.
func (r Record) Certificate() (c Certificate, err error) { return c, r.read(KindCertificate, &c) }

// Request reads a row of kind request.
func (r Record) Request() (q Request, err error) { return q, r.read(KindRequest, &q) }

// Revocation reads a row of kind revocation.
func (r Record) Revocation() (v Revocation, err error) { return v, r.read(KindRevocation, &v) }

func (r Record) read(kind Kind, to any) error {
	if r.Kind != kind {
		return fmt.Errorf("reading a row of kind %q as one of kind %q", r.Kind, kind)
	}
	if err := json.Unmarshal(r.Row, to); err != nil {
		return fmt.Errorf("reading a row of kind %q: %w", kind, err)
	}
	return nil
}
