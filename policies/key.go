package policies

import "github.com/chancery-ca/chancery/csr"

// keyed is what asks for a key to be certified: a request under a profile, or one for an authority.
type keyed interface {
	publicKey() csr.Key
}

func (e *evaluation) publicKey() csr.Key { return e.key }

// The rules that other rules wait for: what costs in proportion to a key waits until its size is known to be bounded.
const (
	ruleKeyAllowed     = "key.allowed"
	ruleKeyModulus     = "key.modulus"
	ruleKeyExponent    = "key.exponent"
	ruleKeyROCA        = "key.roca"
	ruleKeyClosePrimes = "key.close-primes"
	ruleKeyCompromised = "key.compromised"
	ruleKeyListed      = "key.listed"
	ruleKeyReuse       = "key.reuse"
	ruleKeyOfAuthority = "key.of-authority"
)

// The rules that expressions wait for: they bound what expressions look at.
const (
	ruleSubjectAttributes = "subject.attributes"
	ruleNamesCount        = "names.count"
	ruleNamesDNS          = "names.dns-syntax"
	ruleNamesIP           = "names.ip"
	ruleNamesEmail        = "names.email"
	ruleNamesURI          = "names.uri"
)

const newKeyHint = "make a new key with current software"
