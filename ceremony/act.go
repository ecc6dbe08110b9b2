package ceremony

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

// act is one playing of a plan: the rehearsal, or the ceremony itself. What differs between them is the place.
type act struct {
	plan   Plan
	now    time.Time
	random io.Reader
	place  place
	made   map[string]*authority
}

func newAct(p Plan, now time.Time, random io.Reader, at place) *act {
	return &act{plan: p, now: now, random: random, place: at, made: map[string]*authority{}}
}

// place is where keys are, and where it is kept what happens with them.
type place interface {
	// key makes an authority's key, or finds it where the plan says that it exists. A want other than nil is what its public key must be.
	key(authority string, k Key, want crypto.PublicKey) (openKey, error)
	// issuer opens the key of an authority of an earlier ceremony, and gives the certificate to sign under: its own, or a stand-in's.
	issuer(planned Issuer, chain []*x509.Certificate) (openKey, *x509.Certificate, error)
	// intents makes durable what the issuer's key is about to sign about a subject.
	intents(issuer, subject string) issuance.Recorder
	// input makes durable which file was read.
	input(f fileLine) error
	// signed makes durable what was signed. After it, and not before, anything may be done with it.
	signed(subject string, kind issuance.Kind, der []byte) error
	// file writes an artefact.
	file(name string, data []byte) error
	// tell says something to those present.
	tell(format string, args ...any)
	// tokenSerial tells where the keys are.
	tokenSerial() string
}

// openKey is a key that can sign.
type openKey struct {
	signer crypto.Signer
	ref    hsm.KeyRef
	spki   []byte
	// standIn tells a rehearsal's key in the place of one that has signed before.
	standIn bool
}

// authority is an authority that has its certificate.
type authority struct {
	Authority
	key    openKey
	issuer *issuance.Issuer
	chain  [][]byte // DER, from its own certificate to the root
}

// perform makes all that the plan asks for, issuers first.
func (a *act) perform(ctx context.Context) error {
	for _, planned := range a.plan.Issuers {
		if err := a.adopt(planned); err != nil {
			return fmt.Errorf("issuer %s: %w", planned.Name, err)
		}
	}
	for _, planned := range a.plan.order() {
		if err := a.establish(ctx, planned); err != nil {
			return fmt.Errorf("authority %s: %w", planned.Name, err)
		}
	}
	for _, planned := range a.plan.Logs {
		if err := a.equip(ctx, planned); err != nil {
			return fmt.Errorf("log %s: %w", planned.Name, err)
		}
	}
	for _, planned := range a.plan.CRLs {
		if err := a.renew(ctx, planned); err != nil {
			return fmt.Errorf("CRL of %s: %w", planned.Issuer, err)
		}
	}
	return nil
}

// establish makes one authority: its key, the decision about it, its certificate, its CRL where it is offline, and its files.
func (a *act) establish(ctx context.Context, planned Authority) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key, err := a.place.key(planned.Name, planned.Key, nil)
	if err != nil {
		return err
	}
	grant, err := a.grant(planned, key.spki)
	if err != nil {
		return err
	}
	der, err := a.certify(ctx, planned, key, grant)
	if err != nil {
		return err
	}
	made, err := a.open(planned, key, der)
	if err != nil {
		return err
	}
	var list []byte
	if planned.CRL != nil && !planned.online() {
		from, err := a.plan.succession(*planned.CRL, made.issuer.Certificate(), key.standIn, a.now)
		if err != nil {
			return err
		}
		for _, f := range from.inputs {
			if err := a.place.input(f); err != nil {
				return err
			}
		}
		if list, err = a.list(ctx, planned.Name, made.issuer, from.contents); err != nil {
			return err
		}
	}
	return a.write(made, list)
}

// grant has the policies decide what exactly the authority's certificate says.
func (a *act) grant(planned Authority, spki []byte) (*policies.Grant, error) {
	r := policies.AuthorityRequest{
		Name: planned.Name, Root: planned.root(), SPKI: spki, PathLen: -1, Permitted: planned.permitted, Excluded: planned.excluded,
		Policies: planned.policies, ExtKeyUsage: planned.usages, Now: a.now,
	}
	for _, attribute := range planned.Subject.attributes() {
		oid, err := policies.AttributeType(attribute.short)
		if err != nil {
			return nil, err
		}
		r.Subject = append(r.Subject, policies.Attribute{OID: oid, Value: attribute.value})
	}
	r.NotBefore, r.NotAfter = planned.window(a.now)
	if planned.PathLen != nil {
		r.PathLen = *planned.PathLen
	}
	if issuer := a.made[planned.Issuer]; issuer != nil {
		r.Parent, r.CRLURL = issuer.issuer.Certificate(), issuer.URLs.CRL
		for _, der := range issuer.chain[1:] {
			above, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("reading the chain of %s: %w", planned.Issuer, err)
			}
			r.Above = append(r.Above, above)
		}
		if issuer.URLs.Issuer != "" {
			r.IssuerURLs = []string{issuer.URLs.Issuer}
		}
		if issuer.URLs.OCSP != "" {
			r.OCSPURLs = []string{issuer.URLs.OCSP}
		}
	}
	grant, err := policies.DecideAuthority(r).Grant()
	var refusal *policies.Refusal
	if errors.As(err, &refusal) {
		return nil, refused(refusal)
	}
	return grant, err
}

// refused says all of a refusal, not only its first violation.
func refused(r *policies.Refusal) error {
	var all []string
	for _, v := range r.Violations {
		all = append(all, strings.TrimPrefix(v.Field+": "+v.Message, ": "))
	}
	return fmt.Errorf("%w; in full: %s", r, strings.Join(all, "; "))
}

// certify prepares the certificate, has its intent recorded, and has it signed: by the issuer, or of a root by itself.
func (a *act) certify(ctx context.Context, planned Authority, key openKey, grant *policies.Grant) ([]byte, error) {
	serial, err := issuance.NewSerial(a.now, a.random)
	if err != nil {
		return nil, err
	}
	var certificate *issuance.Certificate
	if planned.root() {
		certificate, err = issuance.SelfSign(ctx, grant, key.signer, serial, a.now, a.place.intents(planned.Name, planned.Name))
	} else {
		issuer := a.made[planned.Issuer].issuer
		var prepared *issuance.Prepared
		if prepared, err = issuer.Prepare(grant, serial, a.now); err != nil {
			return nil, err
		}
		certificate, err = issuer.Sign(ctx, prepared, a.place.intents(planned.Issuer, planned.Name))
	}
	if err != nil {
		return nil, err
	}
	return certificate.DER, a.place.signed(planned.Name, issuance.Final, certificate.DER)
}

// open checks the signed certificate against its key and its issuer, and keeps the authority for those that follow.
func (a *act) open(planned Authority, key openKey, der []byte) (*authority, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate back: %w", err)
	}
	issuer, err := issuance.NewIssuer(certificate, key.signer)
	if err != nil {
		return nil, err
	}
	made := &authority{Authority: planned, key: key, issuer: issuer, chain: [][]byte{der}}
	if parent := a.made[planned.Issuer]; parent != nil {
		if err := certificate.CheckSignatureFrom(parent.issuer.Certificate()); err != nil {
			return nil, fmt.Errorf("verifying the certificate: %w", err)
		}
		made.chain = append(made.chain, parent.chain...)
	}
	a.made[planned.Name] = made
	return made, nil
}

// list prepares a CRL, has its intent recorded, and has it signed.
func (a *act) list(ctx context.Context, name string, issuer *issuance.Issuer, contents issuance.CRLContents) ([]byte, error) {
	prepared, err := issuer.PrepareCRL(contents)
	if err != nil {
		return nil, err
	}
	list, err := issuer.SignCRL(ctx, prepared, a.place.intents(name, name))
	if err != nil {
		return nil, err
	}
	return list.DER, a.place.signed(name, issuance.List, list.DER)
}

// write writes an authority's files, the bundle last: where it is, the others are.
func (a *act) write(made *authority, list []byte) error {
	bundle, err := made.bundle(a.place.tokenSerial(), list).encode()
	if err != nil {
		return err
	}
	files := []struct {
		suffix string
		data   []byte
	}{
		{certificateSuffix, made.chain[0]},
		{pemSuffix, pemOf(made.chain[0])},
		{chainSuffix, pemOf(made.chain...)},
		{crlSuffix, list},
		{bundleSuffix, bundle},
	}
	for _, f := range files {
		if f.data == nil {
			continue
		}
		if err := a.place.file(made.Name+f.suffix, f.data); err != nil {
			return err
		}
	}
	return nil
}

// nextNumber is the Unix time in milliseconds, or one above the last number where that is more: whatever is lost, it rises.
func nextNumber(last *big.Int, now time.Time) *big.Int {
	number := big.NewInt(now.UnixMilli())
	if last == nil || last.Cmp(number) < 0 {
		return number
	}
	return new(big.Int).Add(last, big.NewInt(1))
}

// algorithmOf is the algorithm of a public key; empty when it is none of ours.
func algorithmOf(public crypto.PublicKey) hsm.Algorithm {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return map[string]hsm.Algorithm{"P-256": hsm.ECDSAP256, "P-384": hsm.ECDSAP384}[k.Curve.Params().Name]
	case ed25519.PublicKey:
		return hsm.Ed25519
	case *rsa.PublicKey:
		return map[int]hsm.Algorithm{2048: hsm.RSA2048, 3072: hsm.RSA3072, 4096: hsm.RSA4096}[k.N.BitLen()]
	}
	return ""
}
