package csr

import "fmt"

// The rules that the reader can find broken. They are part of the REST surface: a rule may be added, never renamed.
const (
	RuleNotPEM             = "csr.not-pem"             // not one PEM block of the right type and nothing else
	RuleNotDER             = "csr.not-der"             // not a DER SEQUENCE at all
	RuleTooLarge           = "csr.too-large"           // more than MaxDER octets
	RuleTruncated          = "csr.truncated"           // the request says that it is longer than it is
	RuleTrailingData       = "csr.trailing-data"       // something follows the request
	RuleEncoding           = "csr.encoding"            // not DER, or not the structure that RFC 2986 and RFC 5280 give
	RuleVersion            = "csr.version"             // a version other than 0
	RuleStringType         = "csr.string-type"         // a string type that is not read
	RuleControlCharacter   = "csr.control-character"   // a character in a name that cannot be seen
	RuleEmptyValue         = "csr.empty-value"         // an empty value in the subject
	RuleTooLong            = "csr.too-long"            // a value in the subject of more than MaxValue octets
	RuleTooMany            = "csr.too-many-elements"   // more than MaxElements of one kind
	RuleTooManyNames       = "csr.too-many-names"      // more than MaxNames subject alternative names
	RuleIPAddress          = "csr.ip-address"          // an iPAddress of other than 4 or 16 octets
	RuleKey                = "csr.key"                 // a key that is no valid key of its algorithm, or is too costly to use
	RuleKeyAlgorithm       = "csr.key-algorithm"       // a key of an algorithm or on a curve that is not read
	RuleDuplicateExtension = "csr.duplicate-extension" // one extension twice
	RuleDuplicateAttribute = "csr.duplicate-attribute" // one attribute of the request twice
	RuleExtensionRequest   = "csr.extension-request"   // an extensionRequest without exactly one value
	RuleSignatureAlgorithm = "csr.signature-algorithm" // a signature algorithm that is unknown, outdated, or not the key's
	RuleSignature          = "csr.signature"           // a signature that the request's key did not make
)

// derHint goes with every refusal of an encoding: the requester's software, not the requester, has to change.
const derHint = "make the request with software that writes DER, such as a current OpenSSL"

func refuse(rule, field, hint, format string, args ...any) error {
	return &Error{Rule: rule, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func notDER(field, format string, args ...any) error {
	return refuse(RuleEncoding, field, derHint, format, args...)
}
