package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
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
	validity, err := c.ownValidity(ServiceProfile, c.first)
	if err != nil {
		return nil, fmt.Errorf("issuing the service's TLS certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), c.random)
	if err != nil {
		return nil, fmt.Errorf("making the service's TLS key: %w", err)
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
		return nil, fmt.Errorf("requesting the service's TLS certificate: %w", err)
	}
	request, err := csr.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("requesting the service's TLS certificate: %w", err)
	}
	outcome, err := c.Issue(ctx, Order{Actor: c.itself(), Profile: ServiceProfile, CSR: request, Validity: validity})
	if err != nil {
		return nil, fmt.Errorf("issuing the service's TLS certificate: %w", err)
	}
	if outcome.Waiting != nil {
		return nil, fmt.Errorf("issuing the service's TLS certificate: profile %s needs approval, which nobody gives a service that does not run yet", ServiceProfile)
	}
	leaf, err := x509.ParseCertificate(outcome.Certificate.DER)
	if err != nil {
		return nil, fmt.Errorf("reading the service's TLS certificate: %w", err)
	}
	return &tls.Certificate{Certificate: outcome.Chain, PrivateKey: key, Leaf: leaf}, nil
}
