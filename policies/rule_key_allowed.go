package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/csr"
)

// keyAllowed holds that the key's algorithm, curve and size are the profile's (BR, section 6.1.5). Every rule that computes with the
// key waits for it: a key of 16,384 bits or more goes no further.
var keyAllowed = rule[*evaluation]{
	id: ruleKeyAllowed, source: "BR 6.1.5",
	seen:  seenKey[*evaluation],
	check: func(e *evaluation, f *findings) { e.profile.keys.check(e.key, f) },
}

// check holds a key against what is allowed.
func (p keyPolicy) check(k csr.Key, f *findings) {
	const field = "subjectPublicKeyInfo"
	if _, ok := p.usage[k.Algorithm]; !ok {
		f.refuse(field, p.hint(), "%s keys are not allowed", k.Algorithm)
		return
	}
	switch k.Algorithm {
	case csr.ECDSA:
		if !slices.Contains(p.curves, k.Curve) {
			f.refuse(field, p.hint(), "ECDSA keys on %s are not allowed", k.Curve)
		}
	case csr.RSA:
		if k.Bits < p.rsaMin || k.Bits > p.rsaMax {
			f.refuse(field, p.hint(), "RSA keys of %d bits are not allowed", k.Bits)
		} else if k.Bits%8 != 0 {
			f.refuse(field, "make a key whose length is a multiple of 8 bits", "the RSA key's length of %d bits is not a multiple of 8", k.Bits)
		}
	}
	if k.Public == nil && k.Algorithm != csr.RSA {
		f.refuse(field, newKeyHint, "the key cannot be computed with")
	}
}

// hint says which keys are allowed.
func (p keyPolicy) hint() string {
	var kinds []string
	if _, ok := p.usage[csr.ECDSA]; ok {
		kinds = append(kinds, "ECDSA on "+strings.Join(p.curves, " or "))
	}
	if _, ok := p.usage[csr.RSA]; ok {
		kinds = append(kinds, fmt.Sprintf("RSA of %d to %d bits", p.rsaMin, p.rsaMax))
	}
	if _, ok := p.usage[csr.Ed25519]; ok {
		kinds = append(kinds, "Ed25519")
	}
	return "use " + strings.Join(kinds, ", or ")
}
