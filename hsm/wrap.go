package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// WrapMethod is a way of wrapping a key.
type WrapMethod string

// The methods.
const (
	// AESKWP is AES key wrap with padding (RFC 5649, NIST SP 800-38F): any key under an AES key.
	AESKWP WrapMethod = "aes-kwp"
	// OAEPWrap is RSA-OAEP: a secret key under an RSA key.
	OAEPWrap WrapMethod = "rsa-oaep"
	// RSAAES is the format of CKM_RSA_AES_KEY_WRAP (PKCS#11 2.40, section 2.1.21): a fresh AES-256 key under RSA-OAEP, then any key under
	// it by AESKWP. Where a token lacks the mechanism, or its key type, both steps are made one by one, with the AES key as a session
	// object that never leaves the token in the clear.
	RSAAES WrapMethod = "rsa-aes"
)

// WrapSpec says which key is wrapped and how.
type WrapSpec struct {
	Key       KeyRef         // the key to be wrapped: a private or a secret one, with CKA_EXTRACTABLE
	Under     KeyRef         // the wrapping key in this token: an AES key, or an RSA key pair's public half
	Recipient *rsa.PublicKey // instead of Under: the public key of another token
	Method    WrapMethod     // empty follows the wrapping key: AESKWP, or RSAAES
	Hash      crypto.Hash    // of RSA-OAEP; 0 means SHA-256
}

// UnwrapSpec says how a wrapped key is taken in.
type UnwrapSpec struct {
	Under  KeyRef           // the unwrapping key: an AES key, or an RSA key pair's private half
	Method WrapMethod       // empty follows the unwrapping key, as with WrapSpec
	Hash   crypto.Hash      // of RSA-OAEP; 0 means SHA-256
	Key    KeySpec          // what the key becomes: its algorithm must be the wrapped key's
	Public crypto.PublicKey // the public half; needed but for RSA and for secret keys
}

// ErrWrapped means that a wrapped key has been changed, or was wrapped under another key or by another method.
var ErrWrapped = errors.New("the wrapped key is damaged, or was wrapped under another key, by another method or hash")

const (
	wrapRemedy  = "choose another method or hash (SoftHSM has RSA-OAEP with sha1 alone)"
	ephemeral   = "chancery session key"
	sessionBits = 256
)

// keks are the classes that a wrapping key may have: a secret key, or the half of a pair.
func keks(half uint) []uint { return []uint{pkcs11.CKO_SECRET_KEY, half} }

// method completes and checks the method for a wrapping key.
func (m WrapMethod) of(keyType string) (WrapMethod, error) {
	switch {
	case keyType == "CKK_AES" && (m == "" || m == AESKWP):
		return AESKWP, nil
	case keyType == "CKK_RSA" && (m == "" || m == RSAAES):
		return RSAAES, nil
	case keyType == "CKK_RSA" && m == OAEPWrap:
		return m, nil
	case keyType != "CKK_AES" && keyType != "CKK_RSA":
		return "", fmt.Errorf("a key of type %s does not wrap; take an AES or an RSA key", keyType)
	}
	return "", fmt.Errorf("a key of type %s does not wrap with %q", keyType, m)
}

func (m WrapMethod) mechanismName() string {
	return map[WrapMethod]string{AESKWP: "CKM_AES_KEY_WRAP_KWP", OAEPWrap: "CKM_RSA_PKCS_OAEP", RSAAES: "CKM_RSA_AES_KEY_WRAP"}[m]
}

// Wrap takes a key out of the token, encrypted. Only keys that were made so, and of which the token says so (CKA_EXTRACTABLE), can be
// wrapped.
func (t *Token) Wrap(ctx context.Context, spec WrapSpec) (wrapped []byte, err error) {
	if spec.Hash == 0 {
		spec.Hash = crypto.SHA256
	}
	o := &Operation{Op: OpWrap, Key: spec.Under, Target: spec.Key}
	err = t.inSession(ctx, o, func(s session) error {
		if spec.Recipient != nil { // which has no name here that could be recorded
			spki, err := x509.MarshalPKIXPublicKey(spec.Recipient)
			if err != nil {
				return fmt.Errorf("encoding the recipient's public key: %w", err)
			}
			o.digestOf(spki)
		}
		target, err := s.oneAmong([]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY}, spec.Key)
		if err != nil {
			return err
		}
		o.Target = target.ref
		if err := s.mayLeave(target); err != nil {
			return err
		}
		under, done, err := s.wrappingKey(spec)
		if err != nil {
			return err
		}
		defer done()
		o.Key = under.ref
		if spec.Method, err = spec.Method.of(under.keyType); err != nil {
			return err
		}
		o.Mechanism = spec.Method.mechanismName()
		if err := t.permitWrap(ctx, *o, spec.Recipient != nil); err != nil {
			return err
		}
		wrapped, err = s.wrap(spec, under.handle, target.handle)
		if is(err, pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_KEY_NOT_WRAPPABLE) {
			return fmt.Errorf("the token does not let the key be wrapped by this one: %w", err)
		}
		return errMechanism(err, wrapRemedy)
	})
	if err != nil {
		return nil, fmt.Errorf("wrapping the key with %s in token %q: %w", spec.Key, t.info.Label, err)
	}
	return wrapped, nil
}

// mayLeave refuses a key of which the token does not say that it may leave. Whether a key does that may not is not left to the module: NSS
// wraps it.
func (s session) mayLeave(k key) error {
	told, err := s.read(k.handle, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	switch value := told[pkcs11.CKA_EXTRACTABLE]; {
	case len(value) != 1:
		return errors.New("the token does not tell whether the key may leave it (CKA_EXTRACTABLE), so it is not wrapped")
	case value[0] == ckFalse:
		return errors.New("the key was made to stay in its token (CKA_EXTRACTABLE is false) and cannot be wrapped")
	}
	return nil
}

// permitWrap asks the usage policy for both keys that take part. A recipient's public key is none of this token's, and no rule could name
// it: that the other key may leave is what is asked then.
func (t *Token) permitWrap(ctx context.Context, o Operation, recipient bool) error {
	leaving := o
	leaving.Op, leaving.Key = OpExport, o.Target
	if recipient {
		return t.permit(ctx, &leaving)
	}
	if err := t.allowed(ctx, &o); err != nil { // before a use of the other is counted: a refusal costs nothing
		return err
	}
	if err := t.permit(ctx, &leaving); err != nil {
		return err
	}
	return t.permit(ctx, &o)
}

// wrappingKey is the key in the token, or the recipient's as a session object that done removes.
func (s session) wrappingKey(spec WrapSpec) (_ key, done func(), err error) {
	if spec.Recipient == nil {
		k, err := s.oneAmong(keks(pkcs11.CKO_PUBLIC_KEY), spec.Under)
		return k, func() {}, err
	}
	if spec.Under.Label != "" || len(spec.Under.ID) > 0 {
		return key{}, nil, errors.New("a wrapping key in the token and a recipient's public key are named; name one")
	}
	if spec.Recipient.N.BitLen() < 2048 {
		return key{}, nil, fmt.Errorf("the recipient's RSA key has %d bits; at least 2048 are needed", spec.Recipient.N.BitLen())
	}
	template, err := publicTemplate(spec.Recipient)
	if err != nil {
		return key{}, nil, err
	}
	handle, err := s.ctx.CreateObject(s.handle, append(template,
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true)))
	if err != nil {
		return key{}, nil, fmt.Errorf("putting the recipient's public key into the session: %w", err)
	}
	return key{handle: handle, keyType: "CKK_RSA", octets: spec.Recipient.Size()}, func() { _ = s.ctx.DestroyObject(s.handle, handle) }, nil
}

func (s session) wrap(spec WrapSpec, under, target pkcs11.ObjectHandle) ([]byte, error) {
	switch spec.Method {
	case AESKWP:
		return s.wrapKWP(under, target)
	case OAEPWrap:
		return s.ctx.WrapKey(s.handle, []*pkcs11.Mechanism{oaep(spec.Hash, nil)}, under, target)
	}
	h := hashes[spec.Hash]
	one := pkcs11.NewMechanism(pkcs11.CKM_RSA_AES_KEY_WRAP,
		&pkcs11.RSAAESKeyWrapParams{AESKeyBits: sessionBits, OAEPParams: *pkcs11.NewOAEPParams(h.mechanism, h.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)})
	wrapped, err := s.ctx.WrapKey(s.handle, []*pkcs11.Mechanism{one}, under, target)
	if !notThere(err) {
		return wrapped, err
	}
	session, err := s.ctx.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, append(sessionKey(),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, sessionBits/8)))
	if err != nil {
		return nil, fmt.Errorf("making the AES key between: %w", err)
	}
	defer func() { _ = s.ctx.DestroyObject(s.handle, session) }()
	first, err := s.ctx.WrapKey(s.handle, []*pkcs11.Mechanism{oaep(spec.Hash, nil)}, under, session)
	if err != nil {
		return nil, err
	}
	second, err := s.wrapKWP(session, target)
	if err != nil {
		return nil, err
	}
	return append(first, second...), nil
}

// sessionKey is the AES key between the two steps of RSAAES: it lives in the session alone.
func sessionKey() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, ephemeral),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
	}
}

// notThere tells whether the token lacks a mechanism, so that another way may be tried.
func notThere(err error) bool {
	return is(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_ARGUMENTS_BAD,
		pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT, pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT)
}

// kwp are the mechanisms by which modules offer RFC 5649: its own of PKCS#11 3.0, and the one before it, which SoftHSM means so.
var kwp = []uint{ckmAESKeyWrapKWP, pkcs11.CKM_AES_KEY_WRAP_PAD}

func (s session) wrapKWP(under, target pkcs11.ObjectHandle) (wrapped []byte, err error) {
	for _, mechanism := range kwp {
		wrapped, err = s.ctx.WrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, under, target)
		if !notThere(err) {
			break
		}
	}
	return wrapped, err
}

func (s session) unwrapKWP(under pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (object pkcs11.ObjectHandle, err error) {
	for _, mechanism := range kwp {
		object, err = s.ctx.UnwrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, under, wrapped, template)
		if !notThere(err) {
			break
		}
	}
	return object, err
}

// Unwrap takes a wrapped key into the token, with a whole template of its own: nothing of what the key may do is left to the module. The
// label and the CKA_ID must be free. The key is read back and, where it has a public half, proven to belong to it; when anything is wrong,
// nothing stays in the token. SoftHSM leaves such a key modifiable (CKA_MODIFIABLE). CKA_LOCAL and CKA_NEVER_EXTRACTABLE are false for ever: such a key has been outside.
func (t *Token) Unwrap(ctx context.Context, spec UnwrapSpec, wrapped []byte) (KeyRef, error) {
	ref, err := t.unwrap(ctx, spec, wrapped)
	if err != nil {
		return KeyRef{}, fmt.Errorf("unwrapping the key %q in token %q: %w", spec.Key.Label, t.info.Label, err)
	}
	return ref, nil
}

func (t *Token) unwrap(ctx context.Context, spec UnwrapSpec, wrapped []byte) (KeyRef, error) {
	algorithm, known := algorithms[spec.Key.Algorithm]
	switch {
	case !known:
		return KeyRef{}, fmt.Errorf("the algorithm %q is unknown; take one of %v", spec.Key.Algorithm, Algorithms())
	case spec.Key.Label == "":
		return KeyRef{}, errors.New("a label is needed")
	case spec.Public == nil && !algorithm.secret() && algorithm.bits == 0:
		return KeyRef{}, errors.New("the public key is needed (--public-key): the token cannot make it of a private key of this algorithm")
	}
	if spec.Public != nil {
		if k, err := keyOf(spec.Public); err != nil || k.algorithm != spec.Key.Algorithm {
			return KeyRef{}, fmt.Errorf("the public key is not of the algorithm %s", spec.Key.Algorithm)
		}
	}
	if spec.Hash == 0 {
		spec.Hash = crypto.SHA256
	}
	if len(spec.Key.ID) == 0 {
		seed, err := t.Random(idSize)
		if err != nil {
			return KeyRef{}, err
		}
		spec.Key.ID = seed
	}
	ref := KeyRef{Label: spec.Key.Label, ID: slices.Clone(spec.Key.ID)}
	o := &Operation{Op: OpUnwrap, Key: spec.Under, Target: ref}
	o.digestOf(wrapped)
	permitted := false
	return ref, t.making(ctx, o, spec.Key, func(s session, key KeySpec) error {
		spec := spec
		spec.Key = key
		if err := s.free(ref); err != nil {
			return err
		}
		under, err := s.oneAmong(keks(pkcs11.CKO_PRIVATE_KEY), spec.Under)
		if err != nil {
			return err
		}
		o.Key = under.ref
		if spec.Method, err = spec.Method.of(under.keyType); err != nil {
			return err
		}
		o.Mechanism = spec.Method.mechanismName()
		if !permitted { // an indestructible key is one use of the other
			if err := t.permit(ctx, o); err != nil {
				return err
			}
			permitted = true
		}
		if err := s.unwrap(spec, algorithm, under, wrapped); err != nil {
			// Both names were free before, so what has them now is what was just made.
			return errors.Join(err, s.destroy(ref))
		}
		return nil
	})
}

// unwrap makes the key, and its public half, and proves them.
func (s session) unwrap(spec UnwrapSpec, k kind, under key, wrapped []byte) error {
	ref := KeyRef{Label: spec.Key.Label, ID: spec.Key.ID}
	p := profileFor(s.token.info)
	private, public, err := spec.Key.conditions(p, k)
	if err != nil {
		return err
	}
	private = slices.DeleteFunc(private, func(c condition) bool { return slices.Contains(p.unwrapped, c.attribute) })
	template, err := s.unwrapTemplate(spec.Key, k, private, p.mechanisms)
	if err != nil {
		return err
	}
	object, err := s.unwrapBy(spec, under, wrapped, template)
	if is(err, pkcs11.CKR_ATTRIBUTE_READ_ONLY) {
		// A module that is not known to refuse CKA_MODIFIABLE here, and does.
		private = slices.DeleteFunc(private, func(c condition) bool { return c.attribute == pkcs11.CKA_MODIFIABLE })
		template = slices.DeleteFunc(template, func(a *pkcs11.Attribute) bool { return a.Type == pkcs11.CKA_MODIFIABLE })
		object, err = s.unwrapBy(spec, under, wrapped, template)
	}
	if err != nil {
		if is(err, pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE, pkcs11.CKR_ENCRYPTED_DATA_INVALID,
			pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DATA_INVALID) {
			return &notUnwrapped{err}
		}
		return errMechanism(err, wrapRemedy)
	}
	if !k.secret() {
		if err := s.createPublic(spec, object, ref, public); err != nil {
			return err
		}
	}
	made, err := s.readBack(ref, k.secret(), private, true)
	if err != nil {
		return err
	}
	found, err := s.key(object)
	if err != nil {
		return err
	}
	if found.algorithm != spec.Key.Algorithm && !(k.secret() && found.keyType == k.keyType && found.octets == 0 && k.fits(spec.Method, under, wrapped)) {
		return fmt.Errorf("%w: it is a key of type %s, of %d octets, not of the algorithm %s", ErrWrapped, found.keyType, found.octets, spec.Key.Algorithm)
	}
	if k.secret() {
		return nil
	}
	allowed, err := spec.Key.allowed(k)
	if err != nil {
		return err
	}
	return s.prove(found, made, allowed)
}

// fits tells whether a wrapped secret key can be of the kind. SoftHSM does not tell the length of a key that it unwrapped (CKA_VALUE_LEN is
// 0); what was wrapped by AESKWP tells it, up to 8 octets.
func (k kind) fits(method WrapMethod, under key, wrapped []byte) bool {
	n := len(wrapped)
	switch method {
	case OAEPWrap:
		return true
	case RSAAES:
		n -= under.octets
	}
	return n == 8+int(k.octets+7)/8*8
}

// notUnwrapped is a wrapped key's fault although the token's answer may also mean that the token is away.
type notUnwrapped struct{ answer error }

func (e *notUnwrapped) Error() string        { return fmt.Sprintf("%s (%s)", ErrWrapped, e.answer) }
func (e *notUnwrapped) Is(target error) bool { return target == ErrWrapped }

func (s session) unwrapTemplate(spec KeySpec, k kind, conditions []condition, knowsMechanisms bool) ([]*pkcs11.Attribute, error) {
	class := uint(pkcs11.CKO_PRIVATE_KEY)
	if k.secret() {
		class = pkcs11.CKO_SECRET_KEY
	}
	all := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyTypeNumber(k.keyType)),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, spec.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, spec.ID),
	}
	for _, c := range conditions {
		all = append(all, pkcs11.NewAttribute(c.attribute, c.want))
	}
	if knowsMechanisms || len(spec.Mechanisms) > 0 {
		allowed, err := spec.allowed(k)
		if err != nil {
			return nil, err
		}
		all = append(all, pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, ulongs(allowed)))
	}
	return all, nil
}

func keyTypeNumber(name string) uint {
	for number, known := range keyTypes {
		if known == name {
			return number
		}
	}
	return pkcs11.CKK_VENDOR_DEFINED
}

func (s session) unwrapBy(spec UnwrapSpec, under key, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if len(wrapped) == 0 || spec.Method == RSAAES && len(wrapped) <= under.octets {
		return 0, fmt.Errorf("%w: it has %d octets", ErrWrapped, len(wrapped))
	}
	switch spec.Method {
	case AESKWP:
		return s.unwrapKWP(under.handle, wrapped, template)
	case OAEPWrap:
		return s.ctx.UnwrapKey(s.handle, []*pkcs11.Mechanism{oaep(spec.Hash, nil)}, under.handle, wrapped, template)
	}
	h := hashes[spec.Hash]
	one := pkcs11.NewMechanism(pkcs11.CKM_RSA_AES_KEY_WRAP,
		&pkcs11.RSAAESKeyWrapParams{AESKeyBits: sessionBits, OAEPParams: *pkcs11.NewOAEPParams(h.mechanism, h.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)})
	object, err := s.ctx.UnwrapKey(s.handle, []*pkcs11.Mechanism{one}, under.handle, wrapped, template)
	if !notThere(err) {
		return object, err
	}
	first := append(sessionKey(), pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES))
	session, err := s.ctx.UnwrapKey(s.handle, []*pkcs11.Mechanism{oaep(spec.Hash, nil)}, under.handle, wrapped[:under.octets], first)
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.ctx.DestroyObject(s.handle, session) }()
	return s.unwrapKWP(session, wrapped[under.octets:], template)
}

// createPublic stores the public half, which no unwrapping makes.
func (s session) createPublic(spec UnwrapSpec, private pkcs11.ObjectHandle, ref KeyRef, conditions []condition) error {
	public := spec.Public
	if public == nil {
		var err error
		if public, err = s.publicKey(private); err != nil {
			return fmt.Errorf("reading the public half: %w", err)
		}
	}
	template, err := publicTemplate(public)
	if err != nil {
		return err
	}
	template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID))
	for _, c := range conditions {
		template = append(template, pkcs11.NewAttribute(c.attribute, c.want))
	}
	if _, err := s.ctx.CreateObject(s.handle, template); err != nil {
		return fmt.Errorf("storing the public half: %w", err)
	}
	return nil
}

// prove has the private half sign something random, by a mechanism that it is allowed, and verifies it. Of an RSA key that does not sign,
// or by no mechanism of ours, the moduli were compared.
func (s session) prove(k key, public crypto.PublicKey, allowed []uint) error {
	told, err := s.read(k.handle, pkcs11.CKA_SIGN)
	if err != nil {
		return err
	}
	if !bytes.Equal(told[pkcs11.CKA_SIGN], []byte{1}) {
		return nil
	}
	o, err := SignOptions{}.complete(k)
	if err != nil {
		return err
	}
	if k.keyType == "CKK_RSA" {
		switch {
		case slices.Contains(allowed, pkcs11.CKM_RSA_PKCS):
			o.Scheme = RSAPKCS1 // every module has it
		case !slices.Contains(allowed, pkcs11.CKM_RSA_PKCS_PSS):
			return nil
		}
	}
	message := []byte("chancery proof of a restored key " + rand.Text())
	input, err := reading(bytes.NewReader(message))(o, &Operation{})
	if err != nil {
		return err
	}
	signature, err := s.sign(k, o, []*pkcs11.Mechanism{o.mechanism()}, input)
	if err != nil {
		return fmt.Errorf("proving that the halves belong together: %w", err)
	}
	if err := VerifyWith(public, o, bytes.NewReader(message), signature); err != nil {
		return fmt.Errorf("%w: the public key given is not the private key's", ErrKeyMismatch)
	}
	return nil
}
