package hsm

import (
	"fmt"
	"slices"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// template turns conditions into what crypto11 generates from.
func template(ref KeyRef, conditions []condition) (crypto11.AttributeSet, error) {
	set, err := crypto11.NewAttributeSetWithIDAndLabel(ref.ID, []byte(ref.Label))
	if err != nil {
		return nil, err
	}
	for _, c := range conditions {
		if err := set.Set(c.attribute, c.want); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// The attributes that stand for a usage, of a private key, of a public key, and both of a secret key.
var usageAttributes = map[Usage]struct{ private, public uint }{
	UseSign:    {pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY},
	UseEncrypt: {pkcs11.CKA_DECRYPT, pkcs11.CKA_ENCRYPT},
	UseWrap:    {pkcs11.CKA_UNWRAP, pkcs11.CKA_WRAP},
}

// usages are what the key is for, and a word on what it cannot be for.
func (s KeySpec) usages(k kind) ([]Usage, error) {
	can := []Usage{UseSign}
	switch k.keyType {
	case "CKK_RSA":
		can = []Usage{UseSign, UseEncrypt, UseWrap}
	case "CKK_AES":
		can = []Usage{UseEncrypt, UseWrap}
	}
	if len(s.Usages) == 0 {
		return can[:1], nil
	}
	for _, u := range s.Usages {
		if !slices.Contains(can, u) {
			return nil, fmt.Errorf("a key of this algorithm is not for %q; it is for %v", u, can)
		}
	}
	return s.Usages, nil
}

// conditions are the vendor's template for the private key, and for the public one, as the specification changes it. A secret key has the
// attributes of both.
func (s KeySpec) conditions(p profile, k kind) (private, public []condition, err error) {
	usages, err := s.usages(k)
	if err != nil {
		return nil, nil, err
	}
	private, public = slices.Clone(p.private), slices.Clone(p.public)
	if k.secret() {
		private = slices.DeleteFunc(private, func(c condition) bool { return c.attribute == pkcs11.CKA_SIGN_RECOVER })
	}
	for usage, of := range usageAttributes {
		wanted := slices.Contains(usages, usage)
		private = set(private, of.private, wanted, true)
		if k.secret() {
			private = set(private, of.public, wanted, true)
		}
		public = set(public, of.public, wanted, usage != UseWrap || wanted)
	}
	private = set(private, pkcs11.CKA_EXTRACTABLE, s.Extractable, true)
	private = set(private, pkcs11.CKA_MODIFIABLE, s.Modifiable, s.Modifiable)
	public = set(public, pkcs11.CKA_MODIFIABLE, s.Modifiable, s.Modifiable)
	private = set(private, pkcs11.CKA_COPYABLE, s.Copyable, s.Copyable)
	private = set(private, pkcs11.CKA_DESTROYABLE, false, s.Indestructible)
	if !s.Indestructible {
		private = slices.DeleteFunc(private, func(c condition) bool { return c.attribute == pkcs11.CKA_DESTROYABLE })
	}
	return p.without(private), p.without(public), nil
}

// without leaves out what the token cannot be told.
func (p profile) without(template []condition) []condition {
	return slices.DeleteFunc(template, func(c condition) bool { return slices.Contains(p.silent, c.attribute) })
}

// set gives an attribute its value where the template has it, and adds it where it must be there.
func set(template []condition, attribute uint, want, add bool) []condition {
	for i := range template {
		if template[i].attribute == attribute {
			template[i].want = want
			return template
		}
	}
	if add {
		template = append(template, condition{attribute, want})
	}
	return template
}

// allowed are the mechanisms that the key may be used with.
func (s KeySpec) allowed(k kind) ([]uint, error) {
	if len(s.Mechanisms) > 0 {
		var all []uint
		for _, name := range s.Mechanisms {
			mechanism, err := mechanismByName(name)
			if err != nil {
				return nil, err
			}
			all = append(all, mechanism)
		}
		return all, nil
	}
	usages, err := s.usages(k)
	if err != nil {
		return nil, err
	}
	var all []uint
	for _, u := range usages {
		switch {
		case u == UseSign:
			all = append(all, k.mechanisms...)
		case k.keyType == "CKK_RSA":
			all = append(all, pkcs11.CKM_RSA_PKCS_OAEP)
			if u == UseWrap {
				all = append(all, pkcs11.CKM_RSA_AES_KEY_WRAP)
			}
		case u == UseEncrypt:
			all = append(all, pkcs11.CKM_AES_GCM)
		case u == UseWrap:
			all = append(all, ckmAESKeyWrapKWP, pkcs11.CKM_AES_KEY_WRAP_PAD)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
