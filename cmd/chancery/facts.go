package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/chancery-ca/chancery/blocklist"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/caa"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

const (
	refreshEvery = 30 * time.Second
	resolvConf   = "/etc/resolv.conf"
)

// CAAConfig says how profiles that ask for CAA records (names: {dns: {caa: true}}) come by them.
type CAAConfig struct {
	// Domains are those by which CAA records name this authority, such as ca.example. Required by profiles that ask for CAA records.
	Domains []string `yaml:"domains" env:"DOMAINS"`
	// Resolvers are recursive DNS resolvers, host:port. They should validate DNSSEC. Default: those of /etc/resolv.conf.
	Resolvers []string `yaml:"resolvers" env:"RESOLVERS"`
	// Timeout bounds the questions for one request. Default: 10s.
	Timeout string `yaml:"timeout" env:"TIMEOUT"`
}

var caaDomain = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c CAAConfig) validate(doc *strictyaml.Document) {
	for i, domain := range c.Domains {
		if !caaDomain.MatchString(domain) {
			doc.Refuse(fmt.Sprintf("caa.domains[%d]", i), "write for example ca.example, in lower case", "%q is not a domain", domain)
		}
	}
	if timeout, err := time.ParseDuration(c.Timeout); err != nil || timeout < time.Second || timeout > time.Minute {
		doc.Refuse("caa.timeout", "write for example 10s", "%q is not a time from 1s to 1m", c.Timeout)
	}
	if len(c.Resolvers) > 0 {
		if _, err := c.resolver(); err != nil {
			doc.Refuse("caa.resolvers", "write host:port, for example 127.0.0.1:53", "%v", err)
		}
	}
}

func (c CAAConfig) resolver() (*caa.Resolver, error) {
	timeout, err := time.ParseDuration(c.Timeout)
	if err != nil {
		return nil, err
	}
	resolvers := c.Resolvers
	if len(resolvers) == 0 {
		if resolvers, err = caa.SystemResolvers(resolvConf); err != nil {
			return nil, err
		}
	}
	return caa.New(caa.Config{Resolvers: resolvers, Timeout: timeout})
}

// open is what the authority needs for CAA records: nothing when no domain is configured. A profile that asks for them then, and would
// refuse every request, is an error.
func (c CAAConfig) open(set *policies.Set) (ca.CAA, error) {
	if len(c.Domains) == 0 {
		for _, name := range set.Names() {
			if profile, _ := set.Profile(name); profile.AsksCAA() {
				return ca.CAA{}, fmt.Errorf("profile %s asks for CAA records, but the configuration has no caa.domains by which they could name this authority", name)
			}
		}
		return ca.CAA{}, nil
	}
	resolver, err := c.resolver()
	if err != nil {
		return ca.CAA{}, err
	}
	return ca.CAA{Resolver: resolver, Domains: c.Domains}, nil
}

// openLists opens the lists of keys.
func (s *service) openLists() (err error) {
	if s.lists, err = blocklist.OpenAll(s.cfg.Policies.KeyLists); err != nil {
		return err
	}
	for _, l := range s.lists.All() {
		s.log.Info("a list of keys that nobody may have certified", "title", l.Title(), "keys", l.Len())
	}
	return nil
}

// refreshLists takes up the lists that were replaced. Of one that cannot be read, the one before stays in use.
func (s *service) refreshLists(ctx context.Context) error {
	fresh, err := s.lists.Refresh()
	for _, l := range fresh {
		s.log.InfoContext(ctx, "a list of keys was replaced", "title", l.Title(), "keys", l.Len())
	}
	return err
}
