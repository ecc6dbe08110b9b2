package policies

import (
	"errors"

	"github.com/chancery-ca/chancery/csr"
)

// signatureProof holds that whoever asks has the key (RFC 2986, section 4.2; BR, section 3.2.1), by a signature that does not rest on
// SHA-1 (BR, section 7.1.3.2). It is asked last, and not at all of a key that was refused: verifying costs with the size of the key.
var signatureProof = rule[*evaluation]{
	id: "signature.proof", source: "RFC 2986, 4.2",
	seen:  seenSignature,
	after: []string{ruleKeyAllowed, ruleKeyModulus, ruleKeyExponent, ruleKeyROCA, ruleKeyClosePrimes, ruleKeyCompromised, ruleKeyListed, ruleKeyOfAuthority},
	check: func(e *evaluation, f *findings) {
		if e.replay {
			return
		}
		err := e.CSR.VerifySignature()
		if err == nil {
			return
		}
		var refused *csr.Error
		if errors.As(err, &refused) {
			f.refuse(refused.Field, refused.Hint, "%s", refused.Message)
			return
		}
		f.refuse("signature", "sign the request with the key that it holds", "the request's signature does not verify")
	},
}
