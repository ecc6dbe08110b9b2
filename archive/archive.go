// Package archive is the form of archives: files that hold a month of certificates with everything that goes with them, after the month has
// left the database. It owns the writer, the reader, and the order of steps by which a month becomes a file.
//
// An archive is a gzip file (RFC 1952) of JSON objects (RFC 8259), one a line. Each has a kind and a row; the first is the header, the last
// the end, which counts and digests what stands between them. So `zcat` and `jq` read it where there is no chancery:
//
//	zcat chancery-2026-01-5f3a9c01.ndjson.gz | jq -r 'select(.kind == "certificate").row.serial'
//
// Rows are as the database writes them: columns are fields, octets are "\x" and hexadecimal, times are RFC 3339 in UTC, intervals ISO 8601.
// The bytes of a month are always the same: an archive that is made again, after a crash, is the same file.
package archive

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// Format names the form of the file and its version.
const Format = "chancery-archive/1"

// Kind says what a row is: a row of the table whose name is its plural, but for the first and the last.
type Kind string

// The kinds of row, in the order in which they stand in a file.
const (
	KindHeader      Kind = "header"
	KindAuthority   Kind = "authority"   // every authority, so that chains can be verified from the file alone
	KindRequest     Kind = "request"     // made in the month, refused ones too
	KindApproval    Kind = "approval"    // of those requests
	KindCertificate Kind = "certificate" // with a serial of the month, precertificates too
	KindOrphan      Kind = "orphan"      // possibly signed, with a serial of the month
	KindRevocation  Kind = "revocation"  // of a serial of the month
	KindEnd         Kind = "end"
)

// kinds are those of the rows between header and end.
var kinds = []Kind{KindAuthority, KindRequest, KindApproval, KindCertificate, KindOrphan, KindRevocation}

// Header opens a file.
type Header struct {
	Format       string `json:"format"`
	Month        Month  `json:"month"`
	SerialsFrom  string `json:"serials_from"`  // hexadecimal; the month's serials are [from, until)
	SerialsUntil string `json:"serials_until"` // hexadecimal
	Schema       int64  `json:"schema"`        // number of the last migration of the database that the rows come from
}

// End closes a file. What it says is checked by whoever reads the file.
type End struct {
	Counts map[Kind]int64 `json:"counts"`
	// The digests of certificates and requests are the exclusive or of the SHA-256 of each row, as it stands in the file. The database
	// compares them with its own before it lets go of a month.
	CertificatesDigest string `json:"certificates_digest"` // hexadecimal
	RequestsDigest     string `json:"requests_digest"`     // hexadecimal
	FirstSerial        string `json:"first_serial"`        // of a certificate, hexadecimal; empty: there is none
	LastSerial         string `json:"last_serial"`
	SHA256             string `json:"sha256"` // of every octet before this line, uncompressed; hexadecimal
}

// Made is an archive on record: the month is in the file, and not in the database any more.
type Made struct {
	Month              Month
	Certificates       int64
	Requests           int64
	CertificatesDigest [32]byte
	RequestsDigest     [32]byte
	File               string // name, without directory
	Octets             int64
	SHA256             [32]byte // of the file, as sha256sum tells it
	Actor              string
	At                 time.Time
	EventID            string // of the archive.made leaf
}

// Month is a calendar month in UTC: its first day, written 2026-01.
type Month struct{ time.Time }

const monthForm = "2006-01"

// MonthOf is the month of a moment.
func MonthOf(t time.Time) Month {
	t = t.UTC()
	return Month{time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)}
}

// ParseMonth reads a month such as 2026-01.
func ParseMonth(text string) (Month, error) {
	t, err := time.Parse(monthForm, text)
	if err != nil {
		return Month{}, fmt.Errorf("%q is no month; write for example 2026-01", text)
	}
	return Month{t}, nil
}

func (m Month) String() string { return m.Format(monthForm) }

// MarshalText writes a month such as 2026-01.
func (m Month) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a month such as 2026-01, in no other form.
func (m *Month) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMonth(string(text))
	return err
}

// MarshalJSON keeps the embedded time from writing itself.
func (m Month) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// UnmarshalJSON keeps the embedded time from reading itself.
func (m *Month) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("reading a month: %w", err)
	}
	return m.UnmarshalText([]byte(text))
}

// digest is an exclusive or of SHA-256: rows in any order have the same.
type digest [sha256.Size]byte

func (d *digest) add(row []byte) {
	sum := sha256.Sum256(row)
	for i := range d {
		d[i] ^= sum[i]
	}
}
