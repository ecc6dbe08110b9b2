package web

import (
	"encoding/hex"
	"strings"
)

// maxSerial is the longest serial number in octets (RFC 5280, section 4.1.2.2).
const maxSerial = 20

// parseSerial reads a serial number as the API writes it: lower-case hex, two digits an octet.
func parseSerial(s string) ([]byte, error) {
	const hint = "write the serial in lower-case hex, two digits for each of up to 20 octets, without colons or 0x"
	serial, err := hex.DecodeString(s)
	switch {
	case s == "":
		return nil, refusal(broken("serial", hint, "the serial is empty"))
	case err != nil && len(s)%2 == 1:
		return nil, refusal(broken("serial", hint, "the serial has an odd number of digits, or characters that are none"))
	case err != nil:
		return nil, refusal(broken("serial", hint, "the serial is not hex"))
	case s != strings.ToLower(s):
		return nil, refusal(broken("serial", hint, "the serial has upper-case digits"))
	case len(serial) > maxSerial:
		return nil, refusal(broken("serial", hint, "the serial is longer than 20 octets"))
	}
	return serial, nil
}
