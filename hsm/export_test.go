package hsm

import "crypto"

// GenerateMisled generates with a template that asks for an extractable key, as a token does that ignores what it is told.
func (t *Token) GenerateMisled(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	p := profileFor(t.info)
	p.private = []condition{{attributeByName("CKA_PRIVATE"), true}, {attributeByName("CKA_EXTRACTABLE"), true}}
	return t.generate(spec, p)
}

// GenerateConservatively generates with the profile of an unknown vendor.
func (t *Token) GenerateConservatively(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(spec, profileFor(TokenInfo{Manufacturer: "unheard of"}))
}

func attributeByName(name string) uint {
	for attribute, n := range attributeNames {
		if n == name {
			return attribute
		}
	}
	panic(name)
}

// RawSigner is the key as crypto11 gives it, to measure what is put around it.
func (t *Token) RawSigner(ref KeyRef) (crypto.Signer, error) {
	var found pair
	err := t.inSession(func(s session) (err error) {
		found, err = s.pair(ref)
		return err
	})
	return found.key, err
}
