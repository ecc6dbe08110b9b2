package probe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// ErrLeft means that the token did not let go of objects that the probe made. Some do once the library has been finalised: open the token
// anew and call Clean.
var ErrLeft = errors.New("the token did not let go of what the probe made")

// Clean destroys what probes left in an open token, and nothing else, and returns the labels of what stayed all the same.
func Clean(ctx context.Context, token *hsm.Token) (left []string, err error) {
	p := &run{Config: Config{Token: token}}
	err = p.inSession(ctx, "what earlier probes left", func(s session) (err error) {
		left, err = s.destroy(false)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("removing what probes left in token %q: %w", token.Info().Label, err)
	}
	return left, nil
}

// An object is a probe's if its label has this form and its CKA_ID is the digest of the label. No other object is ever destroyed.
const labelPrefix = "chancery-probe-"

var labelForm = regexp.MustCompile(`^` + labelPrefix + `[0-9a-f]{8}-[a-z0-9-]+$`)

const idSize = 20 // octets of a CKA_ID

func idOf(label string) []byte {
	digest := sha256.Sum256([]byte(label))
	return digest[:idSize]
}

// ours tells whether an object with this label and CKA_ID is a probe's.
func ours(label, id []byte) bool {
	return labelForm.Match(label) && bytes.Equal(id, idOf(string(label)))
}

// ref names an object of this run.
func (p *run) ref(name string) hsm.KeyRef {
	return hsm.KeyRef{Label: p.prefix + name, ID: idOf(p.prefix + name)}
}

// named are the attributes that make an object the probe's.
func (p *run) named(name string, more ...*pkcs11.Attribute) []*pkcs11.Attribute {
	ref := p.ref(name)
	return append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID),
	}, more...)
}

// find returns the objects of a class and name of this run.
func (s session) find(class uint, name string) ([]pkcs11.ObjectHandle, error) {
	ref := s.ref(name)
	return s.search(pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID))
}

// one returns the only one.
func (s session) one(class uint, name string) (pkcs11.ObjectHandle, error) {
	found, err := s.find(class, name)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d objects are called %s", len(found), s.ref(name))
	}
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

func (s session) search(template ...*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	if err := s.ctx.FindObjectsInit(s.handle, template); err != nil {
		return nil, fmt.Errorf("searching: %w", err)
	}
	defer func() { err = errors.Join(err, s.ctx.FindObjectsFinal(s.handle)) }()
	for {
		some, _, err := s.ctx.FindObjects(s.handle, 64)
		if err != nil {
			return nil, fmt.Errorf("searching: %w", err)
		}
		if len(some) == 0 {
			return found, nil
		}
		found = append(found, some...)
	}
}

// read returns one attribute of an object.
func (s session) read(object pkcs11.ObjectHandle, attribute uint) ([]byte, error) {
	told, err := s.ctx.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, err
	}
	return told[0].Value, nil
}

// belonging lists the probes' objects in the token by their labels; those of this run alone, or of all.
func (s session) belonging(ofThisRun bool) (objects map[pkcs11.ObjectHandle]string, err error) {
	objects = map[pkcs11.ObjectHandle]string{}
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_CERTIFICATE} {
		found, err := s.search(pkcs11.NewAttribute(pkcs11.CKA_CLASS, class))
		if err != nil {
			return nil, err
		}
		for _, object := range found {
			label, err := s.read(object, pkcs11.CKA_LABEL)
			if err != nil {
				continue // it cannot be told to be the probe's
			}
			id, err := s.read(object, pkcs11.CKA_ID)
			if err != nil || !ours(label, id) || ofThisRun && !bytes.HasPrefix(label, []byte(s.prefix)) {
				continue
			}
			objects[object] = string(label)
		}
	}
	return objects, nil
}

// destroy removes the probes' objects and returns the labels of those that stayed.
func (s session) destroy(ofThisRun bool) (left []string, err error) {
	objects, err := s.belonging(ofThisRun)
	if err != nil {
		return nil, err
	}
	for object := range objects {
		// One half of a pair goes with the other in some tokens; whether all are gone is seen below.
		_ = s.ctx.DestroyObject(s.handle, object)
	}
	if objects, err = s.belonging(ofThisRun); err != nil {
		return nil, err
	}
	for _, label := range objects {
		left = append(left, label)
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}

// inSession works in a session outside of any check.
func (p *run) inSession(ctx context.Context, purpose string, work func(s session) error) error {
	return p.Token.Direct(ctx, direct.Pass{}, "probe: "+purpose, func(library *pkcs11.Ctx, slot uint) error {
		handle, err := library.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return fmt.Errorf("opening a session: %w", err)
		}
		return errors.Join(work(session{p, library, handle}), library.CloseSession(handle))
	})
}

// leftovers looks for what earlier probes left.
func (p *run) leftovers(ctx context.Context) error {
	return p.inSession(ctx, "what earlier probes left", func(s session) (err error) {
		objects, err := s.belonging(false)
		for _, label := range objects {
			p.report.Left = append(p.report.Left, label)
		}
		slices.Sort(p.report.Left)
		p.report.Left = slices.Compact(p.report.Left)
		return err
	})
}

// remove destroys what this run made.
func (p *run) remove(ctx context.Context) error {
	return p.inSession(ctx, "removing what was made", func(s session) error {
		left, err := s.destroy(true)
		if err != nil {
			return fmt.Errorf("removing what the probe made: %w", err)
		}
		p.report.Left = append(p.report.Left, left...)
		if len(left) > 0 {
			return fmt.Errorf("%w: %q", ErrLeft, left)
		}
		return nil
	})
}
