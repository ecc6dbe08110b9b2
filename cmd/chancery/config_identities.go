package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/delivery"
	"github.com/chancery-ca/chancery/identity"
	"github.com/chancery-ca/chancery/strictyaml"
)

// IdentityConfig is a rule that lets callers in by what others vouch for. The first that fits a caller says what it is; without one nobody
// comes in but by an API token. Exactly one of Certificate, OIDC and Local is needed.
type IdentityConfig struct {
	// Name says what the rule is for.
	Name string `yaml:"name"`
	// Certificate lets in by a client certificate: facts of it (uri, dns, email, cn, o, ou, issuer; namespace and profile of our own), each
	// with patterns. Each fact that stands here must fit. A pattern is the value, with at most one * for anything.
	Certificate map[string][]string `yaml:"certificate"`
	// OIDC lets in by claims of a token of an OpenID Connect provider, in the same way.
	OIDC map[string][]string `yaml:"oidc"`
	// Local lets in by the user of a process on this machine (user, uid, group, gid), on the socket listen.local.
	Local map[string][]string `yaml:"local"`
	// Namespace is where the caller acts: a name, ${fact}, or "*" for all.
	Namespace string `yaml:"namespace"`
	// Roles are what it may do.
	Roles []string `yaml:"roles"`
	// Person is who it is, so that nobody approves the own request under another credential; may hold ${fact}. Needed with
	// the roles approver and policy-admin, and by oidc with revoker. Default: the credential, or of a local caller whom orders.persons lists,
	// that person. Any other local caller is nobody: it takes no part in what persons approve.
	Person string `yaml:"person"`
	// Groups is the fact whose values are the person's groups.
	Groups string `yaml:"groups"`
	// Profiles are the only ones that it may use. Default: every one of the namespace.
	Profiles []string `yaml:"profiles"`
	// Emergency has the rule hold for local callers who break the glass, and for nobody else. Roles that are else kept apart may stand
	// together here. Each call is an event of its own.
	Emergency bool `yaml:"emergency"`
}

// ClientsConfig says which client certificates are looked at.
type ClientsConfig struct {
	// Mode is off, optional, or required: then nobody is served without a good one, whatever else he shows. Default: off.
	Mode string `yaml:"mode" env:"MODE"`
	// Authorities are those of ours whose certificates let in. Whether one is revoked is looked up at each request.
	Authorities []string `yaml:"authorities" env:"AUTHORITIES"`
	// Trust are the authorities of others.
	Trust []TrustConfig `yaml:"trust"`
}

// TrustConfig is a bundle of authorities of others.
type TrustConfig struct {
	// Name is the fact "issuer" of certificates that lead to it.
	Name string `yaml:"name"`
	// Bundle is a file of their certificates, PEM: self-signed ones are trusted, others help to build chains.
	Bundle string `yaml:"bundle"`
	// CRLs are files and URLs of the lists of every authority of a chain. They are read again each minute. Where none is current, nobody
	// comes in.
	CRLs []string `yaml:"crls"`
	// Revocation is crl, or none for authorities that revoke nothing. Default: crl.
	Revocation string `yaml:"revocation"`
}

// ProxiesConfig names the proxies whose headers count. Without it they count for nothing.
type ProxiesConfig struct {
	// Networks are where the proxies are, such as 10.0.0.5/32.
	Networks []string `yaml:"networks" env:"NETWORKS"`
	// ForwardedFor says that they write X-Forwarded-For.
	ForwardedFor bool `yaml:"forwarded_for" env:"FORWARDED_FOR"`
	// CertificateHeader is where they put the client certificate that they have verified: Client-Cert (RFC 9440), X-Forwarded-Client-Cert
	// (Envoy), or any other, which holds PEM, percent-encoded (nginx). They must remove it from what callers send. Default: none.
	CertificateHeader string `yaml:"certificate_header" env:"CERTIFICATE_HEADER"`
}

const (
	clientsOff      = "off"
	clientsOptional = "optional"
	clientsRequired = "required"
	revocationCRL   = "crl"
	revocationNone  = "none"
)

// rule is the rule as access reads it.
func (c IdentityConfig) rule() access.Rule {
	r := access.Rule{
		Name: c.Name, Namespace: c.Namespace, Person: c.Person, Groups: c.Groups, Profiles: c.Profiles, Emergency: c.Emergency,
		Roles: make([]access.Role, len(c.Roles)),
	}
	for i, role := range c.Roles {
		r.Roles[i] = access.Role(role)
	}
	for means, match := range map[access.Means]map[string][]string{
		access.ByCertificate: c.Certificate, access.ByOIDC: c.OIDC,
		access.ByPeer: c.Local,
	} {
		if match != nil {
			r.Means, r.Match = means, match
		}
	}
	return r
}

// rules are all rules, in the order of the configuration.
func (c Config) rules() access.Rules {
	rules := make(access.Rules, len(c.Identities))
	for i, one := range c.Identities {
		rules[i] = one.rule()
	}
	return rules
}

func (c *Config) validateIdentities(doc *strictyaml.Document) {
	for i, one := range c.Identities {
		field := fmt.Sprintf("identities[%d]", i)
		ways := 0
		for _, match := range []map[string][]string{one.Certificate, one.OIDC, one.Local} {
			if match != nil {
				ways++
			}
		}
		if ways != 1 {
			doc.Refuse(field, "give certificate, oidc or local", "a rule is about exactly one way to come in")
			continue
		}
		if err := one.rule().Validate(); err != nil {
			doc.Refuse(field, "see docs/identities.md", "%v", err)
		}
		if slices.ContainsFunc(c.Identities[:i], func(other IdentityConfig) bool { return other.Name == one.Name }) {
			doc.Refuse(field+".name", "", "%q stands here twice", one.Name)
		}
		if one.Certificate != nil && c.Clients.Mode == clientsOff {
			doc.Refuse(field+".certificate", "set clients.mode to optional or required", "client certificates are not looked at")
		}
		c.validatePerson(doc, field, one)
		if one.Local != nil && c.Listen.Local == "" {
			doc.Refuse(field+".local", "set listen.local to the path of a socket", "nobody can come in locally")
		}
	}
	c.validateClients(doc)
	c.Proxies.validate(doc)
	if path := c.Listen.Local; len(path) > maxSocketPath {
		doc.Refuse("listen.local", "choose a shorter one, such as /run/chancery/local.sock", "a socket's path has at most %d octets",
			maxSocketPath)
	}
}

// validatePerson refuses a rule that would let in somebody who approves, or who asks for what others must approve, of whom nobody says
// which person that is: who has a token besides would be two persons, and could approve alone what needs two.
func (c *Config) validatePerson(doc *strictyaml.Document, field string, one IdentityConfig) {
	const nobody = "%q gives the role %s to somebody of whom nobody says which person that is"
	if one.Local != nil && strings.HasPrefix(one.Person, localActor) {
		doc.Refuse(field+".person", "write the person as chancery token create --person has it", "%q names nobody", one.Person)
		return
	}
	role := one.ofPersons()
	switch {
	case one.Person != "" || role == "":
	case one.Local == nil:
		doc.Refuse(field+".roles", `add person: "${email}", or another fact that is one person's alone and is the name that other credentials have; `+
			"or leave "+string(role)+" out", nobody, one.Name, role)
	case len(c.Orders.Persons) == 0:
		doc.Refuse(field+".roles", `add person: "${user}" where each user is one person, under the name that other credentials have; or list `+
			"the users in orders.persons; or leave approver out", nobody, one.Name, role)
	}
}

// ofPersons is a role of the rule that only persons have by its means; empty: there is none. Machines with client certificates revoke what
// is theirs, and local callers who are no persons are refused whatever needs approval.
func (c IdentityConfig) ofPersons() access.Role {
	of := []access.Role{access.Approver, access.PolicyAdmin}
	switch {
	case c.Local != nil:
		of = of[:1]
	case c.OIDC != nil:
		of = append(of, access.Revoker)
	}
	for _, role := range of {
		if slices.Contains(c.Roles, string(role)) {
			return role
		}
	}
	return ""
}

const maxSocketPath = 100 // sockaddr_un has 108

func (c *Config) validateClients(doc *strictyaml.Document) {
	clients := c.Clients
	if !slices.Contains([]string{clientsOff, clientsOptional, clientsRequired}, clients.Mode) {
		doc.Refuse("clients.mode", "use off, optional or required", "%q is no mode", clients.Mode)
	}
	if clients.Mode != clientsOff && len(clients.Authorities)+len(clients.Trust) == 0 {
		doc.Refuse("clients", "name authorities, or trust a bundle", "no authority's certificates would be accepted")
	}
	for i, name := range clients.Authorities {
		if !slices.Contains(c.Authorities, name) {
			doc.Refuse(fmt.Sprintf("clients.authorities[%d]", i), "name one that stands in authorities", "%q is none of this service's", name)
		}
	}
	names := slices.Clone(clients.Authorities)
	for i, t := range clients.Trust {
		field := fmt.Sprintf("clients.trust[%d]", i)
		if t.Name == "" || slices.Contains(names, t.Name) {
			doc.Refuse(field+".name", "give a short name of its own", "%q is no name, or taken", t.Name)
		}
		names = append(names, t.Name)
		if t.Bundle == "" {
			doc.Refuse(field+".bundle", "name a file of certificates in PEM", "there is nothing to trust")
		}
		switch {
		case t.Revocation != "" && t.Revocation != revocationCRL && t.Revocation != revocationNone:
			doc.Refuse(field+".revocation", "use crl or none", "%q is not known", t.Revocation)
		case t.Revocation == revocationNone && len(t.CRLs) > 0:
			doc.Refuse(field+".revocation", "leave one of the two out", "there are CRLs, and revocation is not looked at")
		case t.Revocation != revocationNone && len(t.CRLs) == 0:
			doc.Refuse(field+".crls", "name files or URLs, or write revocation: none", "nobody could tell which certificates are revoked")
		}
	}
}

func (p ProxiesConfig) validate(doc *strictyaml.Document) {
	for i, text := range p.Networks {
		if n, err := netip.ParsePrefix(text); err != nil || n != n.Masked() {
			doc.Refuse(fmt.Sprintf("proxies.networks[%d]", i), "write a prefix such as 10.0.0.5/32, with its host bits zero",
				"%q is not a prefix of addresses", text)
		} else if n.Bits() == 0 {
			doc.Refuse(fmt.Sprintf("proxies.networks[%d]", i), "name the proxies", "every caller would be a proxy, and could say who it is")
		}
	}
	if (p.ForwardedFor || p.CertificateHeader != "") && len(p.Networks) == 0 {
		doc.Refuse("proxies.networks", "name the addresses of the proxies", "headers count from named addresses alone")
	}
	if strings.ContainsFunc(p.CertificateHeader,
		func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
		doc.Refuse("proxies.certificate_header", "write for example Client-Cert", "%q is no header", p.CertificateHeader)
	}
}

func (p ProxiesConfig) proxies() identity.Proxies {
	proxies := identity.Proxies{ForwardedFor: p.ForwardedFor, CertificateHeader: p.CertificateHeader}
	for _, text := range p.Networks {
		if n, err := netip.ParsePrefix(text); err == nil { // validate has refused any other
			proxies.Networks = append(proxies.Networks, n)
		}
	}
	return proxies
}

func (c *Config) resolveIdentityPaths(dir string) {
	absolute := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	absolute(&c.Listen.Local)
	for i := range c.Clients.Trust {
		absolute(&c.Clients.Trust[i].Bundle)
		for j, source := range c.Clients.Trust[i].CRLs {
			if !isURL(source) {
				absolute(&c.Clients.Trust[i].CRLs[j])
			}
		}
	}
}

func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// registry answers about our own certificates.
type registry struct{ ca *ca.CA }

// Issued finds a certificate as it stands now.
func (r registry) Issued(ctx context.Context, authority string, serial []byte) (*identity.Issued, error) {
	holder, err := r.ca.HolderOf(ctx, authority, serial)
	if errors.Is(err, ca.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &identity.Issued{DER: holder.DER, Namespace: holder.Namespace, Profile: holder.Profile, Revoked: !holder.Good}, nil
}

// openClients makes what judges client certificates; nil when they are not looked at. The lists of others are read once: where one is
// missing, the start fails, and not some caller later. One that is there and that no known certificate verifies is told alone: callers may
// bring the certificate, and whoever can put such a list in must not keep the service from starting.
func openClients(ctx context.Context, c Config, authority *ca.CA, certificates map[string]*x509.Certificate,
	now func() time.Time, tell func(trust string, r *identity.RefusedList),
) (*identity.Certificates, error) {
	if c.Clients.Mode == clientsOff {
		return nil, nil
	}
	clients := &identity.Certificates{Rules: c.rules(), Registry: registry{authority}, Proxies: c.Proxies.proxies(), Now: now}
	for _, name := range c.Clients.Authorities {
		clients.Anchors = append(clients.Anchors, identity.Anchor{Name: name, Own: true, Certificates: []*x509.Certificate{certificates[name]}})
	}
	for _, t := range c.Clients.Trust {
		anchor, err := t.anchor()
		if err != nil {
			return nil, fmt.Errorf("reading what %q trusts: %w", t.Name, err)
		}
		if t.Revocation != revocationNone {
			anchor.Lists = identity.NewLists(t.CRLs, slices.Concat(anchor.Certificates, anchor.Intermediates), listClient())
			for _, r := range anchor.Lists.Refresh(ctx) {
				if tell(t.Name, r); r.Reason != identity.Unverified {
					return nil, fmt.Errorf("client certificates of %q: %w", t.Name, r)
				}
			}
		}
		clients.Anchors = append(clients.Anchors, anchor)
	}
	return clients, nil
}

const listTimeout = 30 * time.Second

// listClient fetches lists from where the configuration says, and from nowhere else: what answers there, over plain HTTP perhaps anybody,
// must not have this machine ask others of its network.
func listClient() *http.Client {
	client := delivery.NewHTTPClient(nil)
	client.Timeout = listTimeout
	return client
}

func (t TrustConfig) anchor() (identity.Anchor, error) {
	anchor := identity.Anchor{Name: t.Name}
	f, err := os.Open(t.Bundle)
	if err != nil {
		return anchor, err
	}
	defer f.Close()
	rest, err := io.ReadAll(io.LimitReader(f, maxBundle))
	if err != nil {
		return anchor, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" || !certificate.IsCA {
			return anchor, fmt.Errorf("%s holds something that is no authority's certificate: %s", t.Bundle, block.Type)
		}
		if certificate.CheckSignatureFrom(certificate) == nil {
			anchor.Certificates = append(anchor.Certificates, certificate)
		} else {
			anchor.Intermediates = append(anchor.Intermediates, certificate)
		}
	}
	if len(strings.TrimSpace(string(rest))) > 0 || len(anchor.Certificates) == 0 {
		return anchor, fmt.Errorf("%s is no bundle in PEM with at least one self-signed certificate", t.Bundle)
	}
	return anchor, nil
}

const maxBundle = 4 << 20 // octets
