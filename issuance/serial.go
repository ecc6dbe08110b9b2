package issuance

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// serialPrefix is the fixed first octet: positive as a DER INTEGER and not zero, so that every serial has exactly 20 octets.
const serialPrefix = 0x1c

// Serial is a serial number of our own: 20 octets, ordered by time. The first octet is fixed, 48 bits of Unix milliseconds follow,
// and 104 bits from a cryptographic source of randomness (at least 64 are required by the Baseline Requirements, section 7.1).
type Serial [20]byte

// NewSerial makes a serial. Its only errors are a source of randomness that fails and a clock outside 1970 to 10889.
func NewSerial(now time.Time, random io.Reader) (Serial, error) {
	var s Serial
	ms := now.UnixMilli()
	if ms <= 0 || ms >= 1<<48 {
		return s, fmt.Errorf("making a serial: the clock says %s, outside what 48 bits of milliseconds hold", now.UTC().Format(time.RFC3339))
	}
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(ms))
	s[0] = serialPrefix
	copy(s[1:7], stamp[2:])
	if _, err := io.ReadFull(random, s[7:]); err != nil {
		return Serial{}, fmt.Errorf("making a serial: reading randomness: %w", err)
	}
	return s, nil
}

// Time is the moment that the serial was made at, in whole milliseconds.
func (s Serial) Time() time.Time {
	var stamp [8]byte
	copy(stamp[2:], s[1:7])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(stamp[:]))).UTC()
}

// String is lower-case hex, 40 digits.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// Valid tells a serial that NewSerial made from a zero value.
func (s Serial) Valid() bool { return s[0] == serialPrefix }

// SerialBounds are the smallest serial of a moment and of the one that follows a span: certificates made in [from, to) have serials
// in [low, high). The database's partitions are cut along them. Moments outside those of which serials are made are taken for the first
// or the last of these: nothing was issued before 1970.
func SerialBounds(from, to time.Time) (low, high Serial) {
	at := func(t time.Time) (s Serial) {
		var stamp [8]byte
		binary.BigEndian.PutUint64(stamp[:], uint64(min(max(t.UnixMilli(), 0), 1<<48-1)))
		s[0] = serialPrefix
		copy(s[1:7], stamp[2:])
		return s
	}
	return at(from), at(to)
}
