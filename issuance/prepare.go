package issuance

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// maxSkew is how far the beginning of a validity may lie from the time of signing (Baseline Requirements, section 7.1.2.7).
const maxSkew = 48 * time.Hour

// Prepared is a certificate but for its signature: encoded once, linted, and good for one Sign of the issuer that prepared it.
type Prepared struct {
	once
	issuer   *Issuer
	serial   Serial
	template policies.Template
	kind     Kind
	tbs      []byte
	digest   [sha256.Size]byte

	precertificate *precertificate // of a precertificate
}

// TBS is the exact TBSCertificate that will be signed. It must not be changed.
func (p *Prepared) TBS() []byte { return p.tbs }

// Kind tells whether Sign will make a certificate or a precertificate.
func (p *Prepared) Kind() Kind { return p.kind }

// Serial is the serial number in it.
func (p *Prepared) Serial() Serial { return p.serial }

// Template is the content granted. The slices in it must not be changed.
func (p *Prepared) Template() policies.Template { return p.template }

// once lets something be signed one time.
type once struct{ spent atomic.Bool }

func (o *once) spend() error {
	if o.spent.Swap(true) {
		return ErrSpent
	}
	return nil
}

// Prepare encodes the certificate that a grant allows and lints it under a placeholder in place of the signature, so that what is
// linted is what will be signed. The key is not used. A refusal by a lint is a *LintError. Where the grant asks for certificate
// transparency, what is prepared is the precertificate.
func (i *Issuer) Prepare(g *policies.Grant, s Serial, now time.Time) (*Prepared, error) {
	if !g.Valid() {
		return nil, errors.New("preparing a certificate: the grant was not made by a decision")
	}
	linter, err := i.linter(g.Lint())
	if err != nil {
		return nil, fmt.Errorf("preparing a certificate of the profile %q: %w", g.Profile(), err)
	}
	kind := Final
	if g.Transparency() != nil {
		kind = Precertificate
	}
	prepared, err := i.prepareKind(kind, g.Template(), linter, s, now)
	if err != nil {
		return nil, fmt.Errorf("preparing a certificate of the profile %q: %w", g.Profile(), err)
	}
	return prepared, nil
}

func (i *Issuer) prepare(t policies.Template, l *linter, s Serial, now time.Time) (*Prepared, error) {
	return i.prepareKind(Final, t, l, s, now)
}

func (i *Issuer) prepareKind(kind Kind, t policies.Template, l *linter, s Serial, now time.Time) (*Prepared, error) {
	if err := checkContent(&t, s, now); err != nil {
		return nil, err
	}
	if err := i.checkFit(&t); err != nil {
		return nil, err
	}
	f := frame{
		algorithm: i.key.algorithm, serial: s, issuer: i.certificate.RawSubject, authorityKeyID: i.certificate.SubjectKeyId,
	}
	tbs, err := marshalMarkedTBS(f, &t, marker{poison: kind == Precertificate})
	if err != nil {
		return nil, err
	}
	draft, err := i.key.draft(tbs)
	if err != nil {
		return nil, err
	}
	if err := l.check(draft); err != nil {
		return nil, err
	}
	prepared := &Prepared{issuer: i, serial: s, template: t, kind: kind, tbs: tbs, digest: sha256.Sum256(tbs)}
	if kind == Precertificate {
		prepared.precertificate = &precertificate{frame: f, linter: l}
	}
	return prepared, nil
}

// checkContent holds for every certificate. The policies have decided already; this is what no policy may change.
func checkContent(t *policies.Template, s Serial, now time.Time) error {
	const signing = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	switch {
	case !s.Valid():
		return errors.New("the serial is not one that NewSerial made")
	case !t.NotBefore.Equal(t.NotBefore.Truncate(time.Second)) || !t.NotAfter.Equal(t.NotAfter.Truncate(time.Second)):
		return errors.New("the validity is not in whole seconds")
	case !t.NotAfter.After(t.NotBefore):
		return fmt.Errorf("the validity ends at %s, not after it begins", stamp(t.NotAfter))
	case t.NotBefore.Sub(now).Abs() > maxSkew:
		return fmt.Errorf("the validity begins at %s, more than 48 hours from now", stamp(t.NotBefore))
	case !t.NotAfter.After(now):
		return fmt.Errorf("the validity has ended already, at %s", stamp(t.NotAfter))
	case len(t.Subject) == 0 && (t.CA || !hasNames(t)):
		return errors.New("there is no subject, and nothing in its place")
	case t.CA && t.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("an authority's keyUsage lacks keyCertSign")
	case !t.CA && t.KeyUsage&signing != 0:
		return errors.New("the keyUsage of a certificate that is not an authority's has keyCertSign or cRLSign")
	case (t.CA || t.WriteSubjectKeyID) && len(t.SubjectKeyID) == 0:
		return errors.New("the subject key identifier is missing")
	case !t.CA && !(emptyConstraints(t.Permitted) && emptyConstraints(t.Excluded)):
		return errors.New("name constraints stand only in certificates of authorities")
	}
	return nil
}

// checkFit holds a certificate against the issuer's own (RFC 5280, sections 4.1.2.6, 4.2.1.9 and 6.1).
func (i *Issuer) checkFit(t *policies.Template) error {
	if t.NotAfter.After(i.certificate.NotAfter) {
		return fmt.Errorf("the validity ends at %s, after the issuer's own at %s", stamp(t.NotAfter), stamp(i.certificate.NotAfter))
	}
	if bytes.Equal(t.SPKI, i.certificate.RawSubjectPublicKeyInfo) || samePublicKey(i.key.public, t.PublicKey) {
		return errors.New("the key is the issuer's own")
	}
	subject, err := marshalName(t.Subject)
	if err != nil {
		return fmt.Errorf("encoding the subject: %w", err)
	}
	if bytes.Equal(subject, i.certificate.RawSubject) || policies.SameName(i.name, t.Subject) {
		return errors.New("the subject is the issuer's own")
	}
	if t.CA {
		return i.checkPathLen(t.PathLen)
	}
	return nil
}

// checkPathLen refuses an authority below one whose path ends there, and one that promises a longer path than its issuer has.
func (i *Issuer) checkPathLen(pathLen int) error {
	limit := i.certificate.MaxPathLen
	switch {
	case limit < 0, limit == 0 && !i.certificate.MaxPathLenZero:
		return nil
	case limit == 0:
		return errors.New("the issuer may not have authorities below it (pathLenConstraint 0)")
	case pathLen < 0 || pathLen >= limit:
		return fmt.Errorf("the pathLenConstraint must be below the issuer's own, which is %d", limit)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
