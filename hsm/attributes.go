package hsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// flags are the boolean attributes of a private key that this package reads.
var flags = []struct {
	attribute uint
	field     func(*Attributes) *bool
}{
	{pkcs11.CKA_TOKEN, func(a *Attributes) *bool { return &a.Token }},
	{pkcs11.CKA_PRIVATE, func(a *Attributes) *bool { return &a.Private }},
	{pkcs11.CKA_SENSITIVE, func(a *Attributes) *bool { return &a.Sensitive }},
	{pkcs11.CKA_EXTRACTABLE, func(a *Attributes) *bool { return &a.Extractable }},
	{pkcs11.CKA_LOCAL, func(a *Attributes) *bool { return &a.Local }},
	{pkcs11.CKA_NEVER_EXTRACTABLE, func(a *Attributes) *bool { return &a.NeverExtractable }},
	{pkcs11.CKA_ALWAYS_SENSITIVE, func(a *Attributes) *bool { return &a.AlwaysSensitive }},
	{pkcs11.CKA_SIGN, func(a *Attributes) *bool { return &a.Sign }},
	{pkcs11.CKA_DECRYPT, func(a *Attributes) *bool { return &a.Decrypt }},
	{pkcs11.CKA_UNWRAP, func(a *Attributes) *bool { return &a.Unwrap }},
	{pkcs11.CKA_DERIVE, func(a *Attributes) *bool { return &a.Derive }},
	{pkcs11.CKA_SIGN_RECOVER, func(a *Attributes) *bool { return &a.SignRecover }},
	{pkcs11.CKA_MODIFIABLE, func(a *Attributes) *bool { return &a.Modifiable }},
	{pkcs11.CKA_COPYABLE, func(a *Attributes) *bool { return &a.Copyable }},
	{pkcs11.CKA_ALWAYS_AUTHENTICATE, func(a *Attributes) *bool { return &a.AlwaysAuthenticate }},
}

// further are those that a private key need not have. They are not reported as missing.
var further = []struct {
	attribute uint
	field     func(*Attributes) *bool
}{
	{pkcs11.CKA_VERIFY, func(a *Attributes) *bool { return &a.Verify }},
	{pkcs11.CKA_ENCRYPT, func(a *Attributes) *bool { return &a.Encrypt }},
	{pkcs11.CKA_WRAP, func(a *Attributes) *bool { return &a.Wrap }},
	{pkcs11.CKA_DESTROYABLE, func(a *Attributes) *bool { return &a.Destroyable }},
}

// confinement is what makes a key one that has never been outside the token and cannot leave it. CKA_LOCAL, CKA_NEVER_EXTRACTABLE and
// CKA_ALWAYS_SENSITIVE are set by the token itself and cannot be set by anyone else.
var confinement = []condition{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_PRIVATE, true},
	{pkcs11.CKA_SENSITIVE, true},
	{pkcs11.CKA_EXTRACTABLE, false},
	{pkcs11.CKA_LOCAL, true},
	{pkcs11.CKA_NEVER_EXTRACTABLE, true},
	{pkcs11.CKA_ALWAYS_SENSITIVE, true},
}

// condition is a value that a boolean attribute must have.
type condition struct {
	attribute uint
	want      bool
}

var attributeNames = map[uint]string{
	pkcs11.CKA_TOKEN:               "CKA_TOKEN",
	pkcs11.CKA_PRIVATE:             "CKA_PRIVATE",
	pkcs11.CKA_SENSITIVE:           "CKA_SENSITIVE",
	pkcs11.CKA_EXTRACTABLE:         "CKA_EXTRACTABLE",
	pkcs11.CKA_LOCAL:               "CKA_LOCAL",
	pkcs11.CKA_NEVER_EXTRACTABLE:   "CKA_NEVER_EXTRACTABLE",
	pkcs11.CKA_ALWAYS_SENSITIVE:    "CKA_ALWAYS_SENSITIVE",
	pkcs11.CKA_SIGN:                "CKA_SIGN",
	pkcs11.CKA_DECRYPT:             "CKA_DECRYPT",
	pkcs11.CKA_UNWRAP:              "CKA_UNWRAP",
	pkcs11.CKA_DERIVE:              "CKA_DERIVE",
	pkcs11.CKA_SIGN_RECOVER:        "CKA_SIGN_RECOVER",
	pkcs11.CKA_VERIFY:              "CKA_VERIFY",
	pkcs11.CKA_ENCRYPT:             "CKA_ENCRYPT",
	pkcs11.CKA_WRAP:                "CKA_WRAP",
	pkcs11.CKA_DESTROYABLE:         "CKA_DESTROYABLE",
	pkcs11.CKA_MODIFIABLE:          "CKA_MODIFIABLE",
	pkcs11.CKA_COPYABLE:            "CKA_COPYABLE",
	pkcs11.CKA_ALWAYS_AUTHENTICATE: "CKA_ALWAYS_AUTHENTICATE",
}

// KeyNotKeptError tells why a key is not taken for one that stays in its token. errors.Is(err, ErrKeyNotKept) holds.
type KeyNotKeptError struct {
	Key   KeyRef
	Wrong []string // each attribute that is wrong, with what is wrong: "CKA_EXTRACTABLE is true", "CKA_LOCAL is not told"
}

func (e *KeyNotKeptError) Error() string {
	return fmt.Sprintf("%s (%s): %s", ErrKeyNotKept, e.Key, strings.Join(e.Wrong, ", "))
}

func (e *KeyNotKeptError) Unwrap() error { return ErrKeyNotKept }

// Kept returns a *KeyNotKeptError unless the token vouches that the key was generated in it, cannot leave it, and never could. What the
// token does not tell counts as wrong.
func (a Attributes) Kept() error {
	if wrong := a.wrong(confinement); len(wrong) > 0 {
		return &KeyNotKeptError{Key: a.ref(), Wrong: wrong}
	}
	return nil
}

// kept is Attributes.Kept, as far as the token's configuration insists on it.
func (t *Token) kept(a Attributes) error {
	if t.notLocal {
		a.Local = true
		a.Missing = slices.DeleteFunc(slices.Clone(a.Missing), func(name string) bool { return name == attributeNames[pkcs11.CKA_LOCAL] })
	}
	return a.Kept()
}

func (a Attributes) ref() KeyRef { return KeyRef{Label: a.Label, ID: a.ID} }

// wrong lists the conditions that the attributes do not meet.
func (a Attributes) wrong(conditions []condition) []string {
	values := make(map[uint]bool, len(flags)+len(further))
	for _, f := range slices.Concat(flags, further) {
		values[f.attribute] = *f.field(&a)
	}
	var wrong []string
	for _, c := range conditions {
		name := attributeNames[c.attribute]
		switch value, known := values[c.attribute]; {
		case !known || slices.Contains(a.Missing, name) || slices.Contains(a.untold, name):
			wrong = append(wrong, name+" is not told")
		case value != c.want:
			wrong = append(wrong, fmt.Sprintf("%s is %t", name, value))
		}
	}
	return wrong
}

// attributes reads what the token tells of a private key.
func (s session) attributes(object pkcs11.ObjectHandle) (Attributes, error) {
	types := []uint{pkcs11.CKA_LABEL, pkcs11.CKA_ID}
	for _, f := range slices.Concat(flags, further) {
		types = append(types, f.attribute)
	}
	told, err := s.read(object, types...)
	if err != nil {
		return Attributes{}, err
	}
	a := Attributes{Label: string(told[pkcs11.CKA_LABEL]), ID: bytes.Clone(told[pkcs11.CKA_ID])}
	for _, f := range flags {
		// A CK_BBOOL is one octet; whatever else comes back tells nothing.
		value := told[f.attribute]
		if len(value) != 1 {
			a.Missing = append(a.Missing, attributeNames[f.attribute])
			continue
		}
		*f.field(&a) = value[0] != ckFalse
	}
	for _, f := range further {
		if value := told[f.attribute]; len(value) == 1 {
			*f.field(&a) = value[0] != ckFalse
		} else {
			a.untold = append(a.untold, attributeNames[f.attribute])
		}
	}
	return a, nil
}

const ckFalse = 0
