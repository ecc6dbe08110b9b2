package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

// ServiceNamespace is the namespace of the service's own TLS certificate. No configured namespace may have its name.
const ServiceNamespace = "chancery-service"

// ServiceProfile is the profile of the service's own TLS certificate.
const ServiceProfile = "tls-server"

// ServiceName tells the names and addresses that the service is reached at.
type ServiceName struct {
	DNS []string
	IP  []netip.Addr
}

// NewServiceNamespace is the namespace that owns exactly the service's names, and may have OCSP responders.
func NewServiceNamespace(n ServiceName) access.Namespace {
	ns := access.Namespace{Name: ServiceNamespace, DNS: n.DNS, Profiles: []string{ServiceProfile, ResponderProfile}}
	for _, ip := range n.IP {
		ns.IP = append(ns.IP, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return ns
}

// serviceName is what the service's namespace owns.
func serviceName(n access.Namespace) ServiceName {
	name := ServiceName{DNS: n.DNS}
	for _, prefix := range n.IP {
		name.IP = append(name.IP, prefix.Addr())
	}
	return name
}

// itself is the service as one who asks for certificates of its own.
func (c *CA) itself() access.Actor {
	return access.Actor{
		ID: access.Service, Name: "chancery " + c.replica.Name, Person: access.Service, Namespace: ServiceNamespace, Roles: []access.Role{access.Requester},
	}
}

// IssueServiceCertificate issues the certificate that the service answers TLS with, the ordinary way: an order, a decision, an intent, a
// signature in the token. The key is made here, lives in memory alone, and is not made again after a restart but replaced.
// One that cannot be had is counted.
func (c *CA) IssueServiceCertificate(ctx context.Context, n ServiceName) (*tls.Certificate, error) {
	certificate, err := c.issueServiceCertificate(ctx, n)
	if err != nil {
		c.renewalFailed(ctx, ForTLS, c.replica.Name)
		return nil, err
	}
	c.metrics.CertificateEnds(ForTLS, c.replica.Name, certificate.Leaf.NotAfter)
	return certificate, nil
}

func (c *CA) issueServiceCertificate(ctx context.Context, n ServiceName) (*tls.Certificate, error) {
	order, key, err := c.serviceOrder(n)
	if err != nil {
		return nil, err
	}
	outcome, err := c.issueOwn(ctx, order)
	if err != nil {
		return nil, fmt.Errorf("issuing the service's TLS certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(outcome.Certificate.DER)
	if err != nil {
		return nil, fmt.Errorf("reading the service's TLS certificate: %w", err)
	}
	return &tls.Certificate{Certificate: outcome.Chain, PrivateKey: key, Leaf: leaf}, nil
}

// serviceOrder is the order for the service's TLS certificate, for a new key.
func (c *CA) serviceOrder(n ServiceName) (Order, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), c.random)
	if err != nil {
		return Order{}, nil, fmt.Errorf("making the service's TLS key: %w", err)
	}
	template := &x509.CertificateRequest{DNSNames: n.DNS}
	for _, ip := range n.IP {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	if len(n.DNS) > 0 {
		template.Subject = pkix.Name{CommonName: n.DNS[0]}
	}
	der, err := x509.CreateCertificateRequest(c.random, template, key)
	if err != nil {
		return Order{}, nil, fmt.Errorf("requesting the service's TLS certificate: %w", err)
	}
	request, err := csr.Parse(der)
	if err != nil {
		return Order{}, nil, fmt.Errorf("requesting the service's TLS certificate: %w", err)
	}
	return Order{Actor: c.itself(), Profile: ServiceProfile, CSR: request}, key, nil
}

// issueOwn carries out an order of the service's own. What the policies do not let through at once is not asked for: nobody would approve
// it, and a service that tries again and again would fill the queue and the audit log.
func (c *CA) issueOwn(ctx context.Context, o Order) (Outcome, error) {
	if err := c.current(); err != nil {
		return Outcome{}, err
	}
	rules := c.rules()
	a, err := c.authority(o.Issuer)
	if err != nil {
		return Outcome{}, err
	}
	if o.Validity, err = c.ownValidity(rules, o.Profile, a); err != nil {
		return Outcome{}, err
	}
	if err := c.rehearse(ctx, rules, o, a, inquiry{usage: true}); err != nil {
		return Outcome{}, err
	}
	outcome, err := c.Issue(ctx, o)
	if err == nil && outcome.Waiting != nil {
		err = needsApproval(o.Profile) // others came to rule in this moment
	}
	return outcome, err
}

func needsApproval(profile string) error {
	return fmt.Errorf("profile %s needs approval, which nobody gives the service itself", profile)
}

// rehearse tells why policies would not give the service what it orders for itself. Nothing is recorded, nothing is signed.
func (c *CA) rehearse(ctx context.Context, rules *policies.Set, o Order, a *Authority, q inquiry) error {
	_, decision, err := c.decideBy(ctx, rules, o, a, q)
	if err != nil {
		return err
	}
	grant, err := decision.Grant()
	var needed *policies.ApprovalNeeded
	if errors.As(err, &needed) {
		return needsApproval(o.Profile)
	}
	if err != nil {
		return err
	}
	serial, err := issuance.NewSerial(c.now(), c.random)
	if err != nil {
		return err
	}
	_, _, err = c.draft(a, grant, serial)
	return err
}

// keepsService refuses, as *policies.LoadError, a set under which the service would not get its own certificates: its API could not be
// reached any more, and so no other policies be activated; its OCSP responders would fall silent. What may pass by itself is no reason.
func (c *CA) keepsService(ctx context.Context, set *policies.Set) error {
	var orders []Order
	if own, ok := c.namespace(ServiceNamespace); ok {
		order, _, err := c.serviceOrder(serviceName(own))
		if err != nil {
			return err
		}
		orders = append(orders, order)
	}
	for _, r := range c.ocsp.responders {
		if r.key == nil {
			continue
		}
		order, err := c.responderOrder(r)
		if err != nil { // the key is away, and with it every answer: policies must be changed all the same
			c.log.WarnContext(ctx, "whether an OCSP responder gets a certificate under the new policies is not known", "authority",
				r.authority.Name, "error", err)
			continue
		}
		orders = append(orders, order)
	}
	var problems []policies.Problem
	for _, o := range orders {
		a, err := c.authority(o.Issuer)
		if err != nil {
			return err
		}
		if o.Validity, err = c.ownValidity(set, o.Profile, a); err != nil {
			continue // the authority has ended, whatever the policies say
		}
		err = c.rehearse(ctx, set, o, a, inquiry{})
		var refusal *policies.Refusal
		switch {
		case err == nil, errors.As(err, &refusal) && refusal.Temporary():
			continue
		case errors.Is(err, ErrUnavailable):
			return err
		}
		problems = append(problems, policies.Problem{
			File: o.Profile + ".yaml", Message: fmt.Sprintf("the service would not get its own certificate: %v", err),
			Hint: "let through at once what namespace " + ServiceNamespace + " asks for; give those who need approval a profile of their own",
		})
	}
	if len(problems) > 0 {
		return &policies.LoadError{Problems: problems}
	}
	return nil
}
