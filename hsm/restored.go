package hsm

import "github.com/miekg/pkcs11"

// restoration is confinement without what a token can only say of a key that was made in it: a key restored from a backup, or cloned from
// another token of the vendor's, cannot leave this token either, but has been outside it.
var restoration = []condition{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_PRIVATE, true},
	{pkcs11.CKA_SENSITIVE, true},
	{pkcs11.CKA_EXTRACTABLE, false},
}

// KeptHere is Kept for a key that was restored into the token: it cannot leave it now. That it never was elsewhere, nobody vouches for.
func (a Attributes) KeptHere() error {
	if wrong := a.wrong(restoration); len(wrong) > 0 {
		return &KeyNotKeptError{Key: a.ref(), Wrong: wrong}
	}
	return nil
}
