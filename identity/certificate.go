// Package identity finds out who calls by what comes with a connection: a client certificate, the peer of a Unix socket; and where a caller
// is, behind proxies that are trusted.
//
// It owns the judging of such credentials, anew at each request, and the facts that they hold. What a caller may be and do by these facts
// is said by access.Rules. It keeps nothing but what it was configured with, the CRLs of others, and what became of signatures that it has
// verified.
package identity

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// Issued is a certificate as the authority that issued it has it on record.
type Issued struct {
	DER       []byte
	Namespace string // that it was issued in
	Profile   string
	Revoked   bool // or on hold
}

// Registry is the record of our own authorities.
type Registry interface {
	// Issued finds a certificate by its authority's name and its serial, as it stands now. Nil when that authority has issued no such
	// certificate, or is revoked itself.
	Issued(ctx context.Context, authority string, serial []byte) (*Issued, error)
}

// Anchor vouches for client certificates: one of our own authorities, or a bundle of others.
type Anchor struct {
	Name          string // the fact "issuer" of what it vouches for
	Certificates  []*x509.Certificate
	Intermediates []*x509.Certificate // that callers need not send; none for our own
	Own           bool                // Certificates holds one of our own authorities, named Name; the Registry says how they stand
	Lists         *Lists              // the CRLs of others; nil: revocation is not looked at
}

// Certificates knows client certificates.
type Certificates struct {
	Anchors  []Anchor
	Rules    access.Rules
	Registry Registry // needed where an anchor is our own
	Proxies  Proxies
	Now      func() time.Time

	mu       sync.Mutex
	verified map[[32]byte]verified
	refused  map[[32]byte]refusal
}

// verified are the chains of a certificate whose signatures, uses and constraints are in order. Time and revocation are looked at again and
// again: where an authority's certificate was renewed there are two, of which the older ends first, or is revoked as superseded.
type verified struct {
	anchor int
	chains [][]*x509.Certificate // each from the leaf to a certificate of the anchor
}

// refusal is what find said of certificates for which no anchor vouches. Without it whoever shows bad ones would have signatures verified
// at each request of a connection. It is short, whatever a stranger's certificates hold.
type refusal struct {
	from, until time.Time
	why         string
}

const (
	maxVerified  = 4096            // certificates whose chains, or refusals, are remembered; with more, all are forgotten and verified anew
	refusedFor   = 5 * time.Second // how long a refusal is remembered
	maxPresented = 10              // certificates that a caller shows; chains have two to four
	maxRSA       = 4096            // bits of an authority's key that a caller brings: verifying by longer ones takes long
)

// errNoMatch stands for a certificate that is good, of a caller whom no rule lets in.
var errNoMatch = errors.New("no rule lets this certificate in")

// Authenticate finds who calls by a client certificate.
func (c *Certificates) Authenticate(r *http.Request) (access.Actor, bool, error) {
	evidence, found, err := c.evidence(r)
	if !found || err != nil {
		return access.Actor{}, false, err
	}
	actor, ok := c.Rules.Identify(evidence)
	if !ok {
		return access.Actor{}, false, refusedCertificate(fmt.Errorf("%w: %s", errNoMatch, evidence.Subject))
	}
	return actor, true, nil
}

// Require is nil for a request with a good client certificate, whoever it is of, and *access.Unauthenticated for any other.
func (c *Certificates) Require(r *http.Request) error {
	_, found, err := c.evidence(r)
	if err == nil && !found {
		return &access.Unauthenticated{Detail: "a client certificate is needed here"}
	}
	return err
}

// refusedCertificate is the one answer to every certificate that is not good. What is wrong with it goes into the log.
func refusedCertificate(cause error) error {
	return &access.Unauthenticated{Detail: "the client certificate is not accepted here", Shown: true, Cause: cause}
}

// evidence judges the certificate of a request.
func (c *Certificates) evidence(r *http.Request) (access.Evidence, bool, error) {
	presented, err := c.Proxies.certificates(r)
	if err != nil {
		return access.Evidence{}, false, refusedCertificate(err)
	}
	if len(presented) == 0 {
		return access.Evidence{}, false, nil
	}
	anchor, err := c.vouching(presented)
	if err != nil {
		return access.Evidence{}, false, refusedCertificate(err)
	}
	leaf := presented[0]
	facts := factsOf(leaf)
	facts["issuer"] = []string{anchor.Name}
	digest := sha256.Sum256(leaf.Raw)
	e := access.Evidence{
		Means: access.ByCertificate, Subject: anchor.Name + "/sha256-" + hex.EncodeToString(digest[:16]), Name: nameOf(leaf),
		Facts: facts,
	}
	if !anchor.Own {
		return e, true, nil
	}
	issued, err := c.Registry.Issued(r.Context(), anchor.Name, leaf.SerialNumber.FillBytes(make([]byte, serialLength(leaf))))
	switch {
	case err != nil:
		return access.Evidence{}, false, fmt.Errorf("looking up a client certificate: %w", err)
	case issued == nil || !slices.Equal(issued.DER, leaf.Raw):
		return access.Evidence{}, false,
			refusedCertificate(fmt.Errorf("%s has no such certificate on record: serial %x", anchor.Name, leaf.SerialNumber))
	case issued.Revoked:
		return access.Evidence{}, false, refusedCertificate(fmt.Errorf("serial %x of %s is revoked or on hold", leaf.SerialNumber, anchor.Name))
	}
	e.Subject = anchor.Name + "/" + leaf.SerialNumber.Text(16)
	facts["namespace"], facts["profile"] = []string{issued.Namespace}, []string{issued.Profile}
	return e, true, nil
}

// serialLength is how many octets a serial has.
func serialLength(c *x509.Certificate) int { return (c.SerialNumber.BitLen() + 7) / 8 }

// vouching finds the anchor to which a chain leads that holds now. Signatures are verified once, for nothing can change about them; anew where
// no chain holds that is remembered, for others may have come into force. What no anchor vouches for is refused for a moment without
// another look.
func (c *Certificates) vouching(presented []*x509.Certificate) (Anchor, error) {
	if len(presented) > maxPresented {
		return Anchor{}, fmt.Errorf("%d certificates were presented: at most %d are looked at", len(presented), maxPresented)
	}
	hash := sha256.New()
	for _, one := range presented {
		hash.Write(one.Raw)
	}
	key := [32]byte(hash.Sum(nil))
	now := c.Now()
	c.mu.Lock()
	v, known := c.verified[key]
	refused := c.refused[key]
	c.mu.Unlock()
	if known && c.Anchors[v.anchor].holds(v.chains, now) == nil {
		return c.Anchors[v.anchor], nil
	}
	if !now.Before(refused.from) && now.Before(refused.until) {
		return Anchor{}, errors.New(refused.why)
	}
	v, err := c.find(presented, now)
	if err != nil {
		c.refuse(key, presented, now, err)
		return Anchor{}, err
	}
	c.mu.Lock()
	if c.verified == nil || len(c.verified) >= maxVerified {
		c.verified = map[[32]byte]verified{}
	}
	c.verified[key] = v
	c.mu.Unlock()
	return c.Anchors[v.anchor], c.Anchors[v.anchor].holds(v.chains, now)
}

// refuse remembers what find said. Nothing but the beginning of a certificate's time could make it say otherwise soon, so that it holds no
// longer than until then.
func (c *Certificates) refuse(key [32]byte, presented []*x509.Certificate, now time.Time, err error) {
	until := now.Add(refusedFor)
	begins := func(all []*x509.Certificate) {
		for _, one := range all {
			if one.NotBefore.After(now) && one.NotBefore.Before(until) {
				until = one.NotBefore
			}
		}
	}
	begins(presented)
	for _, anchor := range c.Anchors {
		begins(anchor.Certificates)
		begins(anchor.Intermediates)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil || len(c.refused) >= maxVerified {
		c.refused = map[[32]byte]refusal{}
	}
	c.refused[key] = refusal{from: now, until: until, why: fmt.Sprintf("%.300s", err.Error())}
}

// holds is nil when one of the chains to an anchor holds at a moment: when all its certificates are in force, and none is revoked. Of our own
// authorities the Registry says that.
func (a Anchor) holds(chains [][]*x509.Certificate, now time.Time) error {
	var failed []error
	for _, chain := range chains {
		err := inForce(chain, now)
		if err == nil && !a.Own && a.Lists != nil {
			err = a.Lists.check(chain, now)
		}
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func inForce(chain []*x509.Certificate, now time.Time) error {
	for _, one := range chain {
		if now.Before(one.NotBefore) || now.After(one.NotAfter) {
			return fmt.Errorf("%s is valid from %s to %s alone", one.Subject, one.NotBefore, one.NotAfter)
		}
	}
	return nil
}

func (c *Certificates) find(presented []*x509.Certificate, now time.Time) (verified, error) {
	leaf := presented[0]
	if leaf.IsCA {
		return verified{}, fmt.Errorf("%s is an authority's certificate", leaf.Subject)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) { // x509.Verify takes a certificate without any as one for all uses
		return verified{}, fmt.Errorf("%s is not for client authentication", leaf.Subject)
	}
	var failed []error
	for i, anchor := range c.Anchors {
		options := x509.VerifyOptions{
			Roots: pool(anchor.Certificates), Intermediates: pool(anchor.Intermediates), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			CurrentTime: now,
		}
		if !anchor.Own {
			for _, one := range presented[1:] {
				if key, isRSA := one.PublicKey.(*rsa.PublicKey); !isRSA || key.N.BitLen() <= maxRSA {
					options.Intermediates.AddCert(one)
				}
			}
		}
		chains, err := leaf.Verify(options)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", anchor.Name, err))
			continue
		}
		return verified{anchor: i, chains: chains}, nil
	}
	return verified{}, fmt.Errorf("no anchor vouches for %s: %w", leaf.Subject, errors.Join(failed...))
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

var (
	oidCommonName         = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganization       = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
)

// factsOf are what a certificate says of its holder: every value of each kind, so that a rule which wants one finds out that there are two.
func factsOf(c *x509.Certificate) map[string][]string {
	facts := map[string][]string{}
	for _, u := range c.URIs {
		facts["uri"] = append(facts["uri"], u.String())
	}
	for _, d := range c.DNSNames {
		facts["dns"] = append(facts["dns"], strings.ToLower(d))
	}
	for _, address := range c.EmailAddresses {
		at := strings.LastIndexByte(address, '@')
		facts["email"] = append(facts["email"], address[:at+1]+strings.ToLower(address[at+1:]))
	}
	for _, attribute := range c.Subject.Names {
		value, isText := attribute.Value.(string)
		if !isText {
			continue
		}
		switch {
		case attribute.Type.Equal(oidCommonName):
			facts["cn"] = append(facts["cn"], value)
		case attribute.Type.Equal(oidOrganization):
			facts["o"] = append(facts["o"], value)
		case attribute.Type.Equal(oidOrganizationalUnit):
			facts["ou"] = append(facts["ou"], value)
		}
	}
	return facts
}

// nameOf is what people call the holder.
func nameOf(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return c.Subject.String()
}
