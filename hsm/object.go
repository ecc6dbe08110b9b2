package hsm

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"
)

// Object is a key or a certificate as the token tells of it.
type Object struct {
	Class string // CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY or CKO_CERTIFICATE
	KeyRef
	Type       string      // CKA_KEY_TYPE by its name, such as CKK_EC; of a certificate its CKA_CERTIFICATE_TYPE
	Algorithm  Algorithm   // empty when it is none of ours
	Attributes []Attribute // what the token tells, in a fixed order; never a key's value
}

// Attribute is an attribute by its PKCS#11 name, with its value as text: true or false, a name, a number, a date, text, or lower-case hex.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Get returns an attribute's value, empty where the token does not tell it.
func (o Object) Get(name string) string {
	for _, a := range o.Attributes {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// CKA_CERTIFICATE_TYPE, CKA_MODULUS_BITS and the rest keep PKCS#11's own order of subjects: what it is, where it is, what it may do.
var shown = []struct {
	attribute uint
	name      string
	text      func([]byte) string
}{
	{pkcs11.CKA_CLASS, "CKA_CLASS", named(classNames)},
	{pkcs11.CKA_LABEL, "CKA_LABEL", printable},
	{pkcs11.CKA_ID, "CKA_ID", hex.EncodeToString},
	{pkcs11.CKA_KEY_TYPE, "CKA_KEY_TYPE", keyType},
	{pkcs11.CKA_CERTIFICATE_TYPE, "CKA_CERTIFICATE_TYPE", named(map[uint]string{pkcs11.CKC_X_509: "CKC_X_509"})},
	{pkcs11.CKA_SUBJECT, "CKA_SUBJECT", hex.EncodeToString},
	{pkcs11.CKA_MODULUS_BITS, "CKA_MODULUS_BITS", number},
	{pkcs11.CKA_PUBLIC_EXPONENT, "CKA_PUBLIC_EXPONENT", hex.EncodeToString},
	{pkcs11.CKA_EC_PARAMS, "CKA_EC_PARAMS", hex.EncodeToString},
	{pkcs11.CKA_VALUE_LEN, "CKA_VALUE_LEN", number},
	{pkcs11.CKA_TOKEN, "CKA_TOKEN", boolean},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE", boolean},
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", boolean},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", boolean},
	{pkcs11.CKA_LOCAL, "CKA_LOCAL", boolean},
	{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", boolean},
	{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", boolean},
	{pkcs11.CKA_KEY_GEN_MECHANISM, "CKA_KEY_GEN_MECHANISM", generatedBy},
	{pkcs11.CKA_SIGN, "CKA_SIGN", boolean},
	{pkcs11.CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER", boolean},
	{pkcs11.CKA_VERIFY, "CKA_VERIFY", boolean},
	{pkcs11.CKA_ENCRYPT, "CKA_ENCRYPT", boolean},
	{pkcs11.CKA_DECRYPT, "CKA_DECRYPT", boolean},
	{pkcs11.CKA_WRAP, "CKA_WRAP", boolean},
	{pkcs11.CKA_UNWRAP, "CKA_UNWRAP", boolean},
	{pkcs11.CKA_DERIVE, "CKA_DERIVE", boolean},
	{pkcs11.CKA_ALWAYS_AUTHENTICATE, "CKA_ALWAYS_AUTHENTICATE", boolean},
	{pkcs11.CKA_WRAP_WITH_TRUSTED, "CKA_WRAP_WITH_TRUSTED", boolean},
	{pkcs11.CKA_TRUSTED, "CKA_TRUSTED", boolean},
	{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE", boolean},
	{pkcs11.CKA_COPYABLE, "CKA_COPYABLE", boolean},
	{pkcs11.CKA_DESTROYABLE, "CKA_DESTROYABLE", boolean},
	{pkcs11.CKA_ALLOWED_MECHANISMS, "CKA_ALLOWED_MECHANISMS", mechanisms},
	{pkcs11.CKA_START_DATE, "CKA_START_DATE", date},
	{pkcs11.CKA_END_DATE, "CKA_END_DATE", date},
}

var classNames = map[uint]string{
	pkcs11.CKO_PRIVATE_KEY: "CKO_PRIVATE_KEY",
	pkcs11.CKO_PUBLIC_KEY:  "CKO_PUBLIC_KEY",
	pkcs11.CKO_SECRET_KEY:  "CKO_SECRET_KEY",
	pkcs11.CKO_CERTIFICATE: "CKO_CERTIFICATE",
}

func named(names map[uint]string) func([]byte) string {
	return func(value []byte) string {
		n, ok := ulong(value)
		if !ok {
			return ""
		}
		return cmp.Or(names[n], fmt.Sprintf("0x%x", n))
	}
}

func boolean(value []byte) string {
	if len(value) != 1 {
		return ""
	}
	return strconv.FormatBool(value[0] != ckFalse)
}

func number(value []byte) string {
	if n, ok := ulong(value); ok {
		return strconv.FormatUint(uint64(n), 10)
	}
	return ""
}

// printable quotes a label that would not show as it is.
func printable(value []byte) string {
	if quoted := strconv.Quote(string(value)); quoted[1:len(quoted)-1] != string(value) {
		return quoted
	}
	return string(value)
}

func generatedBy(value []byte) string {
	n, ok := ulong(value)
	if !ok {
		return ""
	}
	if n == pkcs11.CK_UNAVAILABLE_INFORMATION {
		return "CK_UNAVAILABLE_INFORMATION"
	}
	return mechanismName(n)
}

func mechanisms(value []byte) string {
	var names []string
	for len(value) >= ulongSize {
		n, _ := ulong(value[:ulongSize])
		names, value = append(names, mechanismName(n)), value[ulongSize:]
	}
	return strings.Join(names, " ")
}

// date reads a CK_DATE: year, month and day in digits.
func date(value []byte) string {
	if len(value) != 8 {
		return ""
	}
	return string(value[:4]) + "-" + string(value[4:6]) + "-" + string(value[6:])
}

// Objects lists the keys and certificates that have the label and the CKA_ID of ref, where they are set: all of them for the zero ref.
func (t *Token) Objects(ctx context.Context, ref KeyRef) ([]Object, error) {
	var all []Object
	err := t.inSession(ctx, &Operation{Op: OpList, Key: ref}, func(s session) (err error) {
		all, err = s.objects(ref)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the objects of token %q: %w", t.info.Label, err)
	}
	return all, nil
}

func (s session) objects(ref KeyRef) (all []Object, err error) {
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_CERTIFICATE} {
		found, err := s.findClass(class, ref)
		if err != nil {
			return nil, err
		}
		for _, handle := range found {
			object, err := s.object(handle)
			if is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
				continue // destroyed since it was found
			}
			if err != nil {
				return nil, err
			}
			all = append(all, object)
		}
	}
	slices.SortStableFunc(all, func(a, b Object) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), bytes.Compare(a.ID, b.ID))
	})
	return all, nil
}

// object reads what the token tells of an object.
func (s session) object(handle pkcs11.ObjectHandle) (Object, error) {
	var types []uint
	for _, a := range shown {
		if !slices.Contains(profileFor(s.token.info).unread, a.attribute) {
			types = append(types, a.attribute)
		}
	}
	told, err := s.read(handle, types...)
	if err != nil {
		return Object{}, err
	}
	o := Object{KeyRef: KeyRef{Label: string(told[pkcs11.CKA_LABEL]), ID: bytes.Clone(told[pkcs11.CKA_ID])}}
	for _, a := range shown {
		value, known := told[a.attribute]
		if !known {
			continue
		}
		if text := a.text(value); text != "" {
			o.Attributes = append(o.Attributes, Attribute{a.name, text})
		}
	}
	o.Class, o.Type = o.Get("CKA_CLASS"), cmp.Or(o.Get("CKA_KEY_TYPE"), o.Get("CKA_CERTIFICATE_TYPE"))
	if o.Class != "CKO_CERTIFICATE" {
		k, err := s.key(handle)
		if err != nil {
			return Object{}, err
		}
		o.Algorithm = k.algorithm
	}
	return o, nil
}

// key is a key object as it is worked with.
type key struct {
	handle    pkcs11.ObjectHandle
	ref       KeyRef
	keyType   string
	algorithm Algorithm // empty when it is none of ours
	octets    int       // of an RSA modulus, of a curve's order, of a secret key
}

// key reads what must be known of a key to work with it.
func (s session) key(handle pkcs11.ObjectHandle) (key, error) {
	told, err := s.read(handle, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_MODULUS, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return key{}, err
	}
	k := key{
		handle: handle, keyType: keyType(told[pkcs11.CKA_KEY_TYPE]),
		ref: KeyRef{Label: string(told[pkcs11.CKA_LABEL]), ID: bytes.Clone(told[pkcs11.CKA_ID])},
	}
	length, _ := ulong(told[pkcs11.CKA_VALUE_LEN])
	switch k.keyType {
	case "CKK_RSA":
		k.octets = len(new(big.Int).SetBytes(told[pkcs11.CKA_MODULUS]).Bytes())
	case "CKK_AES", "CKK_GENERIC_SECRET":
		k.octets = int(length)
	}
	for name, a := range algorithms {
		if a.keyType == k.keyType && a.is(told[pkcs11.CKA_MODULUS], told[pkcs11.CKA_EC_PARAMS], length) {
			k.algorithm = name
			if a.curve != nil {
				k.octets = (a.curve.Params().N.BitLen() + 7) / 8
			}
		}
	}
	return k, nil
}

// oneOf returns the one object of a class that ref names.
func (s session) oneOf(class uint, ref KeyRef) (pkcs11.ObjectHandle, error) {
	object, there, err := s.lookUp(class, ref)
	if err == nil && !there {
		err = s.absent(ref, class)
	}
	return object, err
}

// lookUp returns the one object of a class that ref names, or that there is none. What there is instead is not looked for.
func (s session) lookUp(class uint, ref KeyRef) (object pkcs11.ObjectHandle, there bool, err error) {
	if ref.Label == "" && len(ref.ID) == 0 {
		return 0, false, errors.New("no key is named: give its label or its CKA_ID")
	}
	found, err := s.findClass(class, ref)
	if err != nil || len(found) == 0 {
		return 0, false, err
	}
	if len(found) == 1 {
		return found[0], true, nil
	}
	var several []string
	for _, object := range found {
		other, err := s.ref(object)
		if err != nil {
			return 0, false, err
		}
		several = append(several, other.String())
	}
	return 0, false, fmt.Errorf("%w, name one by label and CKA_ID: %s", ErrAmbiguous, strings.Join(several, "; "))
}

// absent says that no object of these classes is named by ref, and what is instead.
func (s session) absent(ref KeyRef, classes ...uint) error {
	var wanted, instead []string
	for _, class := range classes {
		wanted = append(wanted, classNames[class])
	}
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_CERTIFICATE} {
		if slices.Contains(classes, class) {
			continue
		}
		found, err := s.findClass(class, ref)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			instead = append(instead, classNames[class])
		}
	}
	missing := fmt.Sprintf("there is no %s with %s", strings.Join(wanted, " or "), ref)
	if len(instead) > 0 {
		missing += ", but a " + strings.Join(instead, " and a ")
	}
	if slices.Equal(classes, []uint{pkcs11.CKO_CERTIFICATE}) {
		return fmt.Errorf("%w: %s; `chancery hsm certificate list` shows them", ErrCertificateNotFound, missing)
	}
	return fmt.Errorf("%w: %s; `chancery hsm key list` shows the keys", ErrKeyNotFound, missing)
}

// publicKey reads a public key object.
func (s session) publicKey(object pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	told, err := s.read(object, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	switch kind := keyType(told[pkcs11.CKA_KEY_TYPE]); kind {
	case "CKK_RSA":
		n, e := new(big.Int).SetBytes(told[pkcs11.CKA_MODULUS]), new(big.Int).SetBytes(told[pkcs11.CKA_PUBLIC_EXPONENT])
		if n.BitLen() < 1024 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, errors.New("the token does not tell a usable RSA public key")
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case "CKK_EC", "CKK_EC_EDWARDS":
		return ecPublicKey(told[pkcs11.CKA_EC_PARAMS], told[pkcs11.CKA_EC_POINT])
	default:
		return nil, fmt.Errorf("a public key of type %s is not understood", kind)
	}
}

// ecPublicKey reads CKA_EC_PARAMS and CKA_EC_POINT. The point is an OCTET STRING by the standard; some modules leave its header out.
func ecPublicKey(parameters, point []byte) (crypto.PublicKey, error) {
	var bare []byte
	if rest, err := asn1.Unmarshal(point, &bare); err != nil || len(rest) > 0 {
		bare = point
	}
	if isEd25519(parameters) {
		if len(bare) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the Ed25519 public key has %d octets", len(bare))
		}
		return ed25519.PublicKey(bare), nil
	}
	for _, a := range algorithms {
		if a.curve == nil || !bytes.Equal(a.parameters, parameters) {
			continue
		}
		public, err := ecdsa.ParseUncompressedPublicKey(a.curve, bare)
		if err != nil {
			return nil, fmt.Errorf("the point of the public key is not on %s: %w", a.curve.Params().Name, err)
		}
		return public, nil
	}
	return nil, fmt.Errorf("the curve %x is not understood", parameters)
}

// isEd25519 knows both forms of CKA_EC_PARAMS: the OID of RFC 8410, and the name that PKCS#11 3.0 took first.
func isEd25519(parameters []byte) bool {
	return bytes.Equal(parameters, ed25519OID) || bytes.Equal(parameters, append([]byte{asn1.TagPrintableString, 12}, "edwards25519"...))
}

var ed25519OID = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}

// publicTemplate describes a public key for C_CreateObject.
func publicTemplate(public crypto.PublicKey) ([]*pkcs11.Attribute, error) {
	class := pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY)
	switch k := public.(type) {
	case *rsa.PublicKey:
		exponent := new(big.Int).SetInt64(int64(k.E)).Bytes()
		return []*pkcs11.Attribute{
			class, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS, k.N.Bytes()), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, exponent),
		}, nil
	case *ecdsa.PublicKey:
		for _, a := range algorithms {
			if a.curve != k.Curve {
				continue
			}
			point, err := k.Bytes()
			if err != nil {
				return nil, err
			}
			return ecTemplate(class, pkcs11.CKK_EC, a.parameters, point)
		}
	case ed25519.PublicKey:
		return ecTemplate(class, ckkECEdwards, ed25519OID, k)
	}
	return nil, fmt.Errorf("a public key of type %T is not understood", public)
}

func ecTemplate(class *pkcs11.Attribute, kind uint, parameters, point []byte) ([]*pkcs11.Attribute, error) {
	octets, err := asn1.Marshal(point)
	if err != nil {
		return nil, err
	}
	return []*pkcs11.Attribute{
		class, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, parameters), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, octets),
	}, nil
}
