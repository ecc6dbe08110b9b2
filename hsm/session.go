package hsm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// session is the housekeeping session of a token, while the caller has it to itself.
type session struct {
	token  *Token
	ctx    *pkcs11.Ctx
	handle pkcs11.SessionHandle
}

// batch is how many handles are asked for in one C_FindObjects.
const batch = 64

// find returns the objects that match the template.
func (s session) find(template ...*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	if err := s.ctx.FindObjectsInit(s.handle, template); err != nil {
		return nil, fmt.Errorf("searching for objects: %w", err)
	}
	defer func() { err = errors.Join(err, s.ctx.FindObjectsFinal(s.handle)) }()
	for {
		some, _, err := s.ctx.FindObjects(s.handle, batch)
		if err != nil {
			return nil, fmt.Errorf("searching for objects: %w", err)
		}
		if len(some) == 0 {
			return found, nil
		}
		found = append(found, some...)
	}
}

// findClass returns the objects of a class that have the label and the CKA_ID of ref, where they are set.
func (s session) findClass(class uint, ref KeyRef) ([]pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if ref.Label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label))
	}
	if len(ref.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID))
	}
	return s.find(template...)
}

// read returns the attributes that the token tells of an object. Those that it does not know or does not tell are absent.
func (s session) read(object pkcs11.ObjectHandle, types ...uint) (map[uint][]byte, error) {
	values := make(map[uint][]byte, len(types))
	template := make([]*pkcs11.Attribute, len(types))
	for i, t := range types {
		template[i] = pkcs11.NewAttribute(t, nil)
	}
	told, err := s.ctx.GetAttributeValue(s.handle, object, template)
	if err == nil {
		for _, a := range told {
			values[a.Type] = a.Value
		}
		return values, nil
	}
	if !is(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE) {
		return nil, fmt.Errorf("reading attributes: %w", err)
	}
	if len(types) == 1 {
		return values, nil
	}
	// One attribute that it does not tell spoils the whole answer: ask for each.
	for _, t := range types {
		one, err := s.read(object, t)
		if err != nil {
			return nil, err
		}
		for t, value := range one {
			values[t] = value
		}
	}
	return values, nil
}

// ref reads the label and the CKA_ID of an object.
func (s session) ref(object pkcs11.ObjectHandle) (KeyRef, error) {
	told, err := s.read(object, pkcs11.CKA_LABEL, pkcs11.CKA_ID)
	if err != nil {
		return KeyRef{}, err
	}
	return KeyRef{Label: string(told[pkcs11.CKA_LABEL]), ID: bytes.Clone(told[pkcs11.CKA_ID])}, nil
}
