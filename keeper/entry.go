package keeper

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// entry is a line of the journal: one operation. Prev is SHA-256 over the line before, without its line feed, so that no line can be
// changed, put in or taken out without all that follow being changed.
type entry struct {
	Seq    uint64            `json:"seq"` // 1, 2, 3, ...
	Time   string            `json:"time"`
	UID    *uint32           `json:"uid,omitempty"`  // of the process that asked, as the kernel says
	Key    string            `json:"key,omitempty"`  // what the policy calls the key
	SPKI   string            `json:"spki,omitempty"` // the key itself: SHA-256 over its SubjectPublicKeyInfo, in hexadecimal
	Kind   kind              `json:"kind"`
	Detail string            `json:"detail,omitempty"` // serial numbers, CRL number, size of the tree; the name of a token
	Scope  string            `json:"scope,omitempty"`  // of a CRL; of OCSP answers good, revoked or unknown, each
	SHA256 string            `json:"sha256,omitempty"` // of the bytes that were to be signed
	Result string            `json:"result"`
	Why    string            `json:"why,omitempty"`
	Memory map[string]memory `json:"memory,omitempty"` // by SPKI; by name where there was none
	Prev   string            `json:"prev"`
}

// appendTo writes the entry as encoding/json does, octet by octet: whoever reads it holds it against what encoding/json writes. It is written
// by hand because each signature waits for it.
func (e *entry) appendTo(line []byte) ([]byte, error) {
	line = strconv.AppendUint(append(line, `{"seq":`...), e.Seq, 10)
	line = appendString(append(line, `,"time":`...), e.Time)
	if e.UID != nil {
		line = strconv.AppendUint(append(line, `,"uid":`...), uint64(*e.UID), 10)
	}
	line = appendGiven(line, `,"key":`, e.Key)
	line = appendGiven(line, `,"spki":`, e.SPKI)
	line = appendString(append(line, `,"kind":`...), string(e.Kind))
	line = appendGiven(line, `,"detail":`, e.Detail)
	line = appendGiven(line, `,"scope":`, e.Scope)
	line = appendGiven(line, `,"sha256":`, e.SHA256)
	line = appendString(append(line, `,"result":`...), e.Result)
	line = appendGiven(line, `,"why":`, e.Why)
	if len(e.Memory) > 0 { // once in many entries
		memory, err := json.Marshal(e.Memory)
		if err != nil {
			return line, err
		}
		line = append(append(line, `,"memory":`...), memory...)
	}
	return append(appendString(append(line, `,"prev":`...), e.Prev), '}'), nil
}

// appendGiven writes a member that is left out when it is empty.
func appendGiven(line []byte, name, text string) []byte {
	if text == "" {
		return line
	}
	return appendString(append(line, name...), text)
}

// appendString writes a string. Where anything may have to be escaped, encoding/json does it.
func appendString(line []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			escaped, _ := json.Marshal(text) // of a string it never fails
			return append(line, escaped...)
		}
	}
	return append(append(append(line, '"'), text...), '"')
}
