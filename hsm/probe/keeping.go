package probe

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// told are the attributes of a private key that Chancery reads, and what the standard has them be on a key made as here. An empty value
// fits any.
var told = []struct {
	attribute uint
	name      string
	want      string
	meaning   string
}{
	{pkcs11.CKA_LOCAL, "CKA_LOCAL", "01", "Chancery refuses keys that the token does not say it generated"},
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", "01", "Chancery refuses keys that are not told to be sensitive"},
	{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", "01", "Chancery refuses keys that are not told to have been sensitive always"},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", "00", "Chancery refuses keys that may leave the token"},
	{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", "01", "Chancery refuses keys that are not told never to have been extractable"},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE", "01", "Chancery refuses keys that are seen without a log-in"},
	{pkcs11.CKA_SIGN, "CKA_SIGN", "01", "Chancery refuses keys that are not told to sign"},
	{pkcs11.CKA_ALWAYS_AUTHENTICATE, "CKA_ALWAYS_AUTHENTICATE", "00", ""},
	{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE", "", ""},
	{pkcs11.CKA_COPYABLE, "CKA_COPYABLE", "", ""},
	{pkcs11.CKA_DESTROYABLE, "CKA_DESTROYABLE", "", ""},
	{pkcs11.CKA_KEY_GEN_MECHANISM, "CKA_KEY_GEN_MECHANISM", "", "hsm attest cannot say how the key was made"},
	{pkcs11.CKA_ALLOWED_MECHANISMS, "CKA_ALLOWED_MECHANISMS", "", ""},
}

// taken are attributes that a template may have. CKA_DESTROYABLE is not among them: what cannot be destroyed would stay.
var taken = []struct {
	attribute uint
	name      string
}{
	{pkcs11.CKA_DECRYPT, "CKA_DECRYPT"},
	{pkcs11.CKA_UNWRAP, "CKA_UNWRAP"},
	{pkcs11.CKA_DERIVE, "CKA_DERIVE"},
	{pkcs11.CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER"},
	{pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE"},
	{pkcs11.CKA_COPYABLE, "CKA_COPYABLE"},
}

// sample is the pair that attributes are tried with: of the first algorithm that the token has.
func (p *run) sample() pair {
	for _, k := range pairs {
		if p.parents[generating(k.name)] {
			return k
		}
	}
	return pairs[0]
}

func (p *run) attributes(ctx context.Context) {
	k := p.sample()
	for _, a := range told {
		p.check(ctx, want{"attributes told", a.name + " is told", generating(k.name), a.meaning}, func(s session) (string, error) {
			key, err := s.one(pkcs11.CKO_PRIVATE_KEY, k.name)
			if err != nil {
				return "", err
			}
			value, err := s.read(key, a.attribute)
			if err != nil {
				return "", err
			}
			seen := hex.EncodeToString(value)
			if a.want != "" && seen != a.want {
				return "", fmt.Errorf("it is %q", seen)
			}
			return seen, nil
		})
	}
	for i, a := range taken {
		name := fmt.Sprintf("attribute-%d", i)
		p.check(ctx, want{"attributes taken", a.name + "=false is taken", generating(k.name), ""}, func(s session) (string, error) {
			key, err := s.generate(k, name, pkcs11.NewAttribute(a.attribute, false))
			if err != nil {
				return "", err
			}
			value, err := s.read(key, a.attribute)
			if err != nil {
				return "", fmt.Errorf("it is taken, but not told: %w", err)
			}
			if len(value) != 1 || value[0] != 0 {
				return "", fmt.Errorf("it is taken, and told as %x", value)
			}
			return "", nil
		})
	}
	p.check(ctx, want{"attributes taken", "CKA_ALLOWED_MECHANISMS is enforced", generating("rsa-2048"), ""}, func(s session) (string, error) {
		rsa := pairs[4]
		key, err := s.generate(rsa, "narrow", pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, ulong(pkcs11.CKM_RSA_PKCS_PSS)))
		if err != nil {
			return "", err
		}
		if _, err := s.sign(scheme{mechanism: pkcs11.CKM_RSA_PKCS, digested: true}, key); err == nil {
			return "", errors.New("the key signed by a mechanism that it is not for")
		}
		return "", nil
	})
}

// refused turns success into failure: what is tried must not be possible.
func refused(err error) (string, error) {
	if err == nil {
		return "", errors.New("the token permitted it")
	}
	if name := answer(err); name != "" {
		return "refused with " + name, nil
	}
	return "refused", nil
}

const (
	leak   = "a key that should stay CAN LEAVE THE TOKEN: do not run an authority here"
	mutant = "what the token says of a key can be changed afterwards by whoever has the PIN: CKA_EXTRACTABLE and CKA_SENSITIVE prove nothing here"
)

func (p *run) confinement(ctx context.Context) {
	k := p.sample()
	on := func(work func(s session, key pkcs11.ObjectHandle) error) func(session) (string, error) {
		return func(s session) (string, error) {
			key, err := s.one(pkcs11.CKO_PRIVATE_KEY, k.name)
			if err != nil {
				return "", err
			}
			return refused(work(s, key))
		}
	}
	value := uint(pkcs11.CKA_VALUE)
	if k.mechanism == pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN {
		value = pkcs11.CKA_PRIVATE_EXPONENT
	}
	set := func(attribute uint, to bool) func(session, pkcs11.ObjectHandle) error {
		return func(s session, key pkcs11.ObjectHandle) error {
			err := s.ctx.SetAttributeValue(s.handle, key, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, to)})
			if err != nil {
				return err
			}
			// Some modules say yes and do nothing.
			if now, err := s.read(key, attribute); err == nil && len(now) == 1 && (now[0] != 0) != to {
				return errors.New("it was taken, and had no effect")
			}
			return nil
		}
	}
	read := func(s session, key pkcs11.ObjectHandle) error {
		octets, err := s.read(key, value)
		if err == nil && len(octets) == 0 {
			return errors.New("nothing is told")
		}
		return err
	}
	p.check(ctx, want{"confinement", "the private value cannot be read", generating(k.name), leak}, on(read))
	p.check(ctx, want{"confinement", "CKA_EXTRACTABLE cannot be made true", generating(k.name), mutant}, on(set(pkcs11.CKA_EXTRACTABLE, true)))
	p.check(ctx, want{"confinement", "CKA_SENSITIVE cannot be made false", generating(k.name), mutant}, on(set(pkcs11.CKA_SENSITIVE, false)))
	p.check(ctx, want{"confinement", "after that, the private value still cannot be read", generating(k.name), leak}, on(read))
}

func (p *run) names(ctx context.Context) {
	k := p.sample()
	p.check(ctx, want{
		"names", "a key is found by its label and its CKA_ID", generating(k.name), "Chancery finds keys so and cannot run",
	}, func(s session) (string, error) {
		ref := s.ref(k.name)
		for _, by := range []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID)} {
			found, err := s.search(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), by)
			if err != nil {
				return "", err
			}
			if len(found) != 1 {
				return "", fmt.Errorf("%d were found", len(found))
			}
		}
		return "", nil
	})
	p.check(ctx, want{
		"names", "a second key of the same label and CKA_ID leaves the first", generating(k.name),
		"a program that does not look before it generates may lose a key; Chancery looks",
	}, func(s session) (string, error) {
		first, err := s.generate(k, "twin")
		if err != nil {
			return "", err
		}
		if _, err := s.generate(k, "twin"); err != nil {
			name := answer(err)
			return "the second is refused with " + name, nil
		}
		found, err := s.find(pkcs11.CKO_PRIVATE_KEY, "twin")
		if err != nil {
			return "", err
		}
		if len(found) != 2 {
			return "", fmt.Errorf("the first is gone: %d are left", len(found))
		}
		_, err = s.read(first, pkcs11.CKA_CLASS)
		return "both are kept", err
	})
	p.check(ctx, want{
		"names", "label and CKA_ID can be changed", generating(k.name), "hsm key label does not work",
	}, func(s session) (string, error) {
		key, err := s.generate(k, "before")
		if err != nil {
			return "", err
		}
		after := s.ref("after")
		err = s.ctx.SetAttributeValue(s.handle, key, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, after.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, after.ID),
		})
		if err != nil {
			return "", err
		}
		_, err = s.one(pkcs11.CKO_PRIVATE_KEY, "after")
		return "", err
	})
}
