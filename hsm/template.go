package hsm

import (
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
