package csr

import (
	"encoding/base64"
	"strings"
)

// The longest PEM that is looked at: base64 takes 4 characters for 3 octets, lines and labels some more.
const maxPEM = 2 * MaxDER

const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
	pemTail  = "-----"
	pemSpace = " \t\r\n"
	pemHint  = "send one block that begins with -----BEGIN CERTIFICATE REQUEST-----, as openssl req writes it"
)

// ParsePEM reads one certification request in PEM (RFC 7468, section 7): one block labelled CERTIFICATE REQUEST or, as older
// software has it, NEW CERTIFICATE REQUEST, with nothing but white space around it. The error is always an *Error.
func ParsePEM(pem []byte) (*Request, error) {
	if len(pem) > maxPEM {
		return nil, refuse(RuleTooLarge, "request", "ask for fewer names or a smaller key",
			"the request is %d characters long; at most %d are read", len(pem), maxPEM)
	}
	text := strings.Trim(string(pem), pemSpace)
	if !strings.HasPrefix(text, pemBegin) {
		return nil, notPEM(text)
	}
	label, rest, ok := strings.Cut(text[len(pemBegin):], pemTail)
	if !ok || strings.ContainsAny(label, "\r\n") {
		return nil, refuse(RuleNotPEM, "request", pemHint, "the first line is not a PEM label")
	}
	if label != "CERTIFICATE REQUEST" && label != "NEW CERTIFICATE REQUEST" {
		return nil, otherLabel(label)
	}
	body, after, ok := strings.Cut(rest, pemEnd+label+pemTail)
	if !ok {
		if strings.Contains(rest, pemEnd) {
			return nil, refuse(RuleNotPEM, "request", pemHint, "the block begins as %s and ends as something else", label)
		}
		return nil, refuse(RuleTruncated, "request", "send the whole block, with its last line", "the PEM block has no end")
	}
	if after != "" {
		return nil, refuse(RuleTrailingData, "request", "send one request and nothing else", "something follows the end of the PEM block")
	}
	der, err := decodeBody(body)
	if err != nil {
		return nil, err
	}
	return Parse(der)
}

// decodeBody decodes the lines between the labels. They hold base64 alone: RFC 7468 has no headers.
func decodeBody(body string) ([]byte, error) {
	if strings.Contains(body, ":") {
		return nil, refuse(RuleNotPEM, "request", "remove the header lines inside the block", "the PEM block has headers")
	}
	if strings.Contains(body, `\n`) {
		return nil, refuse(RuleNotPEM, "request", "send line ends, not a backslash and an n: the text was escaped twice",
			"the PEM block is not base64")
	}
	packed := strings.ReplaceAll(strings.ReplaceAll(body, " ", ""), "\t", "") // line ends are nothing to the decoder
	der, err := base64.StdEncoding.Strict().DecodeString(packed)
	if err != nil {
		return nil, refuse(RuleNotPEM, "request", pemHint, "the PEM block is not base64")
	}
	return der, nil
}

// notPEM says what to do about text that does not begin with a block.
func notPEM(text string) error {
	hint := pemHint
	switch {
	case strings.Contains(text, pemBegin):
		hint = "remove what stands before the -----BEGIN line (openssl req writes it with -text)"
	case strings.HasPrefix(text, "\x30"):
		hint = "this may be DER: send it as application/pkcs10, or convert it with openssl req -inform DER"
	}
	return refuse(RuleNotPEM, "request", hint, "the text does not begin with a PEM block")
}

// otherLabel says what to do about a block of another type.
func otherLabel(label string) error {
	hint := pemHint
	if strings.HasSuffix(label, "PRIVATE KEY") {
		hint = "a private key must stay with its owner: make a new one, and send only the request made with it (openssl req -new)"
	}
	return refuse(RuleNotPEM, "request", hint, "the PEM block is not a certification request but of another type")
}
