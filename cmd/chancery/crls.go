package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/mirror"
	"github.com/chancery-ca/chancery/strictyaml"
)

// CRLsConfig says which CRLs the authorities make, and where they are put besides being served.
type CRLsConfig struct {
	// Directory is where every CRL is put as well, under the path of its URL, for another server to serve. Empty: nowhere.
	Directory string `yaml:"directory" env:"DIRECTORY"`
	// Authorities are those that do not make one complete CRL by their record's plan.
	Authorities []CRLListsConfig `yaml:"authorities"`
}

// CRLListsConfig is about the CRLs of one authority.
type CRLListsConfig struct {
	// Name is the authority's.
	Name string `yaml:"name"`
	// Shards is among how many CRLs new certificates are spread; up to 1000. Default: one CRL for all. Set it when every replica runs a
	// program that knows shards.
	Shards int `yaml:"shards"`
	// Period and Validity stand in for those of the authority's record: how often a CRL is made, and how long it is valid.
	Period   strictyaml.Duration `yaml:"period"`
	Validity strictyaml.Duration `yaml:"validity"`
	// Jitter is how much sooner than the period a shard may be due; each has a part of it that stays the same.
	Jitter strictyaml.Duration `yaml:"jitter"`
	// DeltaPeriod is how often a delta CRL is made at least. Default: there are none.
	DeltaPeriod strictyaml.Duration `yaml:"delta_period"`
	// Contains is what the authority issues, if only that: subscribers or authorities. Default: it is not said.
	Contains string `yaml:"contains"`
}

var contentsOf = map[string]issuance.Contents{
	"": issuance.Everything, "subscribers": issuance.UserCertificates, "authorities": issuance.AuthorityCertificates,
}

func (c *CRLsConfig) resolvePaths(dir string) {
	if c.Directory != "" && !filepath.IsAbs(c.Directory) {
		c.Directory = filepath.Join(dir, c.Directory)
	}
}

// validate refuses at their lines what can be judged without the authorities' records; the rest is judged when the service is opened.
func (c CRLsConfig) validate(doc *strictyaml.Document, authorities []string) {
	var seen []string
	for i, a := range c.Authorities {
		field := fmt.Sprintf("crls.authorities[%d]", i)
		if !slices.Contains(authorities, a.Name) {
			doc.Refuse(field+".name", "name one of authorities", "%q is not among the authorities", a.Name)
		}
		if slices.Contains(seen, a.Name) {
			doc.Refuse(field+".name", "", "%q stands here twice", a.Name)
		}
		seen = append(seen, a.Name)
		if a.Shards < 0 || a.Shards > ca.MaxShards {
			doc.Refuse(field+".shards", "", "%d is not between 0 and %d", a.Shards, ca.MaxShards)
		}
		if _, known := contentsOf[a.Contains]; !known {
			doc.Refuse(field+".contains", "write subscribers or authorities, or leave it out", "%q is not what a CRL can be for", a.Contains)
		}
	}
}

// lists are the CRLs of the authorities, by name.
func (c CRLsConfig) lists() map[string]ca.CRLLists {
	all := map[string]ca.CRLLists{}
	for _, a := range c.Authorities {
		all[a.Name] = ca.CRLLists{
			Shards: a.Shards, Period: time.Duration(a.Period), Validity: time.Duration(a.Validity), Jitter: time.Duration(a.Jitter),
			DeltaPeriod: time.Duration(a.DeltaPeriod), Contains: contentsOf[a.Contains],
		}
	}
	return all
}

// mirror is where CRLs are put; nil where nowhere.
func (c CRLsConfig) mirror() (ca.CRLMirror, error) {
	if c.Directory == "" {
		return nil, nil
	}
	return mirror.OpenDirectory(c.Directory)
}
