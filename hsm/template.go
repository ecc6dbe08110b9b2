package hsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// profile is what the private key's template says for tokens of one vendor. crypto11 and the modules have defaults of their own, which
// differ (an RSA key may decrypt, an EC key may derive, CKA_PRIVATE may be false); so everything is said that the vendor accepts.
type profile struct {
	manufacturer string      // how CK_TOKEN_INFO.manufacturerID begins; empty fits every vendor
	private      []condition // of the private key; read back after generation
	public       []condition // of the public key
	mechanisms   bool        // whether CKA_ALLOWED_MECHANISMS is understood
}

// conservative is what vendors accept: some refuse CKA_MODIFIABLE, CKA_COPYABLE or CKA_SIGN_RECOVER (CKR_TEMPLATE_INCONSISTENT).
var conservative = []condition{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_PRIVATE, true},
	{pkcs11.CKA_SENSITIVE, true},
	{pkcs11.CKA_EXTRACTABLE, false},
	{pkcs11.CKA_SIGN, true},
	{pkcs11.CKA_DECRYPT, false},
	{pkcs11.CKA_UNWRAP, false},
	{pkcs11.CKA_DERIVE, false},
}

// profiles, the most particular first.
var profiles = []profile{
	{
		manufacturer: "SoftHSM",
		private: append(slices.Clone(conservative), []condition{
			{pkcs11.CKA_SIGN_RECOVER, false},
			{pkcs11.CKA_MODIFIABLE, false},
			{pkcs11.CKA_COPYABLE, false},
		}...),
		public: []condition{
			{pkcs11.CKA_TOKEN, true},
			{pkcs11.CKA_VERIFY, true},
			{pkcs11.CKA_PRIVATE, false},
			{pkcs11.CKA_ENCRYPT, false},
			{pkcs11.CKA_WRAP, false},
			{pkcs11.CKA_MODIFIABLE, false},
		},
		mechanisms: true,
	},
	{
		private: conservative,
		public: []condition{
			{pkcs11.CKA_TOKEN, true},
			{pkcs11.CKA_VERIFY, true},
			{pkcs11.CKA_ENCRYPT, false},
		},
	},
}

func profileFor(t TokenInfo) profile {
	for _, p := range profiles {
		if strings.HasPrefix(t.Manufacturer, p.manufacturer) {
			return p
		}
	}
	return profile{}
}

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
	return private, public, nil
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
