package ceremony

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
)

// transcriptVersion is the version of the transcript's format.
const transcriptVersion = 1

// entry is one line of a transcript without its hash. Exactly one of the pointers is set: it says what happened.
type entry struct {
	Version  int    `json:"v"`
	Number   int    `json:"n"`    // from 1
	Time     string `json:"time"` // RFC 3339 in UTC, with microseconds
	Previous string `json:"prev"` // the hash of the line before; of the first line 64 zeros

	Begin    *beginning  `json:"begin,omitempty"`
	Token    *tokenLine  `json:"token,omitempty"`
	Input    *fileLine   `json:"input,omitempty"`
	Issuer   *issuerLine `json:"issuer,omitempty"`
	Key      *keyLine    `json:"key,omitempty"`
	Intent   *intent     `json:"intent,omitempty"`
	Signed   *signed     `json:"signed,omitempty"`
	Artefact *fileLine   `json:"artefact,omitempty"`
	Failed   *failure    `json:"failed,omitempty"`
	End      *ending     `json:"end,omitempty"`
}

// beginning opens the transcript with the whole plan.
type beginning struct {
	Ceremony string `json:"ceremony"`
	Digest   string `json:"plan_digest"`
	Plan     []byte `json:"plan"`
}

// tokenLine is the token at which the ceremony takes place.
type tokenLine struct {
	Module       string `json:"module"`
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Hardware     bool   `json:"hardware"`
}

// fileLine is a file that was read or written, named without its directory.
type fileLine struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// issuerLine is an authority of an earlier ceremony that certifies authorities of this one. Its key is the next line.
type issuerLine struct {
	Authority string   `json:"authority"`
	Chain     [][]byte `json:"chain"` // DER, from its own certificate to the root
}

// keyLine is a key pair as the token tells of it after it was generated, or found.
type keyLine struct {
	Authority  string          `json:"authority"`
	Label      string          `json:"label"`
	ID         string          `json:"id"` // hex
	Generated  bool            `json:"generated"`
	SPKI       []byte          `json:"spki"`
	SPKIDigest string          `json:"spki_sha256"`
	Attributes map[string]bool `json:"attributes"`        // by their PKCS#11 names
	Missing    []string        `json:"missing,omitempty"` // attributes that the token does not tell
}

// intent is what is about to be signed. It is durable before the key is asked.
type intent struct {
	Issuer  string        `json:"issuer"`  // whose key signs
	Subject string        `json:"subject"` // whose certificate it is; of a CRL the issuer again
	Kind    issuance.Kind `json:"kind"`
	Serial  string        `json:"serial,omitempty"` // of a certificate, hex
	Number  string        `json:"number,omitempty"` // of a CRL, decimal
	TBS     []byte        `json:"tbs"`
}

// signed is what came of the intent before it. It holds the whole certificate or CRL, so that nothing that was signed can be lost
// between the key and the disk.
type signed struct {
	SHA256 string `json:"sha256"`
	DER    []byte `json:"der"`
}

// failure closes the transcript of a ceremony that did not come to its end.
type failure struct {
	Reason string `json:"reason"`
}

// ending closes the transcript.
type ending struct {
	Signatures int `json:"signatures"`
	Artefacts  int `json:"artefacts"`
}

// timeFormat has one length for every time.
const timeFormat = "2006-01-02T15:04:05.000000Z"

var flagsOf = []struct {
	name string
	of   func(hsm.Attributes) bool
}{
	{"CKA_TOKEN", func(a hsm.Attributes) bool { return a.Token }},
	{"CKA_PRIVATE", func(a hsm.Attributes) bool { return a.Private }},
	{"CKA_SENSITIVE", func(a hsm.Attributes) bool { return a.Sensitive }},
	{"CKA_EXTRACTABLE", func(a hsm.Attributes) bool { return a.Extractable }},
	{"CKA_LOCAL", func(a hsm.Attributes) bool { return a.Local }},
	{"CKA_NEVER_EXTRACTABLE", func(a hsm.Attributes) bool { return a.NeverExtractable }},
	{"CKA_ALWAYS_SENSITIVE", func(a hsm.Attributes) bool { return a.AlwaysSensitive }},
	{"CKA_SIGN", func(a hsm.Attributes) bool { return a.Sign }},
	{"CKA_DECRYPT", func(a hsm.Attributes) bool { return a.Decrypt }},
	{"CKA_UNWRAP", func(a hsm.Attributes) bool { return a.Unwrap }},
	{"CKA_DERIVE", func(a hsm.Attributes) bool { return a.Derive }},
	{"CKA_SIGN_RECOVER", func(a hsm.Attributes) bool { return a.SignRecover }},
	{"CKA_MODIFIABLE", func(a hsm.Attributes) bool { return a.Modifiable }},
	{"CKA_COPYABLE", func(a hsm.Attributes) bool { return a.Copyable }},
	{"CKA_ALWAYS_AUTHENTICATE", func(a hsm.Attributes) bool { return a.AlwaysAuthenticate }},
}

// told is what a token says of a key, without what it does not say.
func told(a hsm.Attributes) map[string]bool {
	flags := map[string]bool{}
	for _, f := range flagsOf {
		flags[f.name] = f.of(a)
	}
	for _, name := range a.Missing {
		delete(flags, name)
	}
	return flags
}

func tokenEntry(i hsm.TokenInfo) *tokenLine {
	return &tokenLine{Module: i.Module, Label: i.Label, Serial: i.Serial, Manufacturer: i.Manufacturer, Model: i.Model, Hardware: i.Hardware}
}

func intentEntry(issuer, subject string, s issuance.Signing) *intent {
	i := &intent{Issuer: issuer, Subject: subject, Kind: s.Kind, TBS: s.TBS}
	if s.Kind == issuance.List {
		i.Number = s.Number.String()
	} else {
		i.Serial = s.Serial.String()
	}
	return i
}

// Each line is {"hash":"<64 hex digits>","entry":{...}}: the hash is SHA-256 over the octets of the entry as they stand there.
const (
	lineStart  = `{"hash":"`
	lineMiddle = `","entry":`
	lineEnd    = "}\n"
)

// encode makes the line of an entry, and the line's hash.
func (e entry) encode() (line []byte, hash string, err error) {
	raw, err := e.marshal()
	if err != nil {
		return nil, "", err
	}
	hash = hexDigest(raw)
	return []byte(lineStart + hash + lineMiddle + string(raw) + lineEnd), hash, nil
}

func (e entry) marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encoding a line of the transcript: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode reads a line back and refuses any that encode would not have written.
func decode(line []byte) (e entry, hash string, err error) {
	rest, startsWell := bytes.CutPrefix(line, []byte(lineStart))
	if !startsWell || len(rest) < 64 {
		return entry{}, "", errors.New("it is not a line of a transcript")
	}
	hash, rest = string(rest[:64]), rest[64:]
	raw, ok := bytes.CutPrefix(rest, []byte(lineMiddle))
	raw, whole := bytes.CutSuffix(raw, []byte(lineEnd))
	if !ok || !whole {
		return entry{}, "", errors.New("it is not a whole line of a transcript")
	}
	if hexDigest(raw) != hash {
		return entry{}, "", errors.New("it does not have the hash that it states: it was changed")
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return entry{}, "", fmt.Errorf("reading it: %w", err)
	}
	again, err := e.marshal()
	if err != nil {
		return entry{}, "", err
	}
	if !bytes.Equal(again, raw) {
		return entry{}, "", errors.New("it is not in the form in which transcripts are written")
	}
	if e.Version != transcriptVersion {
		return entry{}, "", fmt.Errorf("transcript version %d is not known", e.Version)
	}
	if at, err := time.Parse(timeFormat, e.Time); err != nil || at.Format(timeFormat) != e.Time {
		return entry{}, "", fmt.Errorf("%q is not a time", e.Time)
	}
	if e.kinds() != 1 {
		return entry{}, "", errors.New("it does not say exactly one thing")
	}
	return e, hash, nil
}

// kinds counts what an entry says.
func (e entry) kinds() int {
	n := 0
	for _, set := range []bool{
		e.Begin != nil, e.Token != nil, e.Input != nil, e.Issuer != nil, e.Key != nil, e.Intent != nil, e.Signed != nil,
		e.Artefact != nil, e.Failed != nil, e.End != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// subject splits a file's name into whose it is and what it is.
func (f fileLine) subject() (name, form string) {
	for _, suffix := range []string{bundleSuffix, chainSuffix, certificateSuffix, keySuffix, pemSuffix, crlSuffix} {
		if name, ok := strings.CutSuffix(f.Name, suffix); ok {
			return name, suffix
		}
	}
	return f.Name, ""
}
