package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	// S3 is a bucket where every CRL is put as well. Default: none.
	S3 S3Config `yaml:"s3" envPrefix:"S3_"`
	// Authorities are those that do not make one complete CRL by their record's plan.
	Authorities []CRLListsConfig `yaml:"authorities"`
}

// S3Config says where a bucket of S3 is, or of a service that speaks as S3 does, and how it is written.
type S3Config struct {
	// Endpoint is the service's address, without the bucket: https://s3.eu-central-1.amazonaws.com.
	Endpoint string `yaml:"endpoint" env:"ENDPOINT"`
	// Bucket is the bucket's name.
	Bucket string `yaml:"bucket" env:"BUCKET"`
	// Prefix begins every key: before "crl/issuing-1.crl", say. Default: nothing.
	Prefix string `yaml:"prefix" env:"PREFIX"`
	// Region is what requests are signed for. Default: us-east-1, which services without regions take.
	Region string `yaml:"region" env:"REGION"`
	// AccessKeyFile and SecretKeyFile are files that hold the two keys; they are read anew for each CRL. Default: the environment variables
	// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where the keys are lent.
	AccessKeyFile string `yaml:"access_key_file" env:"ACCESS_KEY_FILE"`
	SecretKeyFile string `yaml:"secret_key_file" env:"SECRET_KEY_FILE"`
}

const defaultRegion = "us-east-1"

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
	for _, p := range []*string{&c.Directory, &c.S3.AccessKeyFile, &c.S3.SecretKeyFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// validate refuses at their lines what can be judged without the authorities' records; the rest is judged when the service is opened.
func (c CRLsConfig) validate(doc *strictyaml.Document, authorities []string) {
	c.S3.validate(doc)
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

// checkSubordinates refuses CRLs for subscribers alone where an authority has others below it: clients must not believe such a CRL of an
// authority's certificate (RFC 5280, section 6.3.3, step b 2), so that nobody would learn of its revocation.
func (c CRLsConfig) checkSubordinates(records []ca.AuthorityRecord) error {
	lists := c.lists()
	for _, r := range records {
		if lists[r.Parent].Contains == issuance.UserCertificates {
			return fmt.Errorf("the configuration has the CRLs of %[1]s be for subscribers alone, and %[1]s is the issuer of the authority %[2]s, "+
				"which they could not revoke: leave out contains: subscribers in crls.authorities", r.Parent, r.Name)
		}
	}
	return nil
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

// mirrors are where CRLs are put.
func (c CRLsConfig) mirrors(e Env) (map[string]ca.CRLMirror, error) {
	all := map[string]ca.CRLMirror{}
	if c.Directory != "" {
		directory, err := mirror.OpenDirectory(c.Directory)
		if err != nil {
			return nil, err
		}
		all["directory"] = directory
	}
	if c.S3.Bucket != "" {
		bucket, err := c.S3.open(e)
		if err != nil {
			return nil, err
		}
		all["bucket"] = bucket
	}
	return all, nil
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	keyPrefix  = regexp.MustCompile(`^([A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*$`)
	regionName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
)

func (c S3Config) validate(doc *strictyaml.Document) {
	if c == (S3Config{Region: c.Region}) {
		return
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		doc.Refuse("crls.s3.endpoint", "write for example https://s3.eu-central-1.amazonaws.com, without the bucket", "it is not the address of a service")
	}
	if !bucketName.MatchString(c.Bucket) {
		doc.Refuse("crls.s3.bucket", "", "%q is not the name of a bucket", c.Bucket)
	}
	if !keyPrefix.MatchString(c.Prefix) {
		doc.Refuse("crls.s3.prefix", "write for example pki/, without a slash at its beginning", "%q cannot begin a key", c.Prefix)
	}
	if !regionName.MatchString(c.Region) {
		doc.Refuse("crls.s3.region", "leave it out for "+defaultRegion, "%q is not a region", c.Region)
	}
	if (c.AccessKeyFile == "") != (c.SecretKeyFile == "") {
		doc.Refuse("crls.s3", "give both, or neither and both in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
			"access_key_file and secret_key_file belong together")
	}
}

func (c S3Config) open(e Env) (*mirror.Bucket, error) {
	if _, err := c.keys(e); err != nil {
		return nil, fmt.Errorf("crls.s3: %w", err)
	}
	return mirror.OpenBucket(mirror.BucketConfig{
		Endpoint: c.Endpoint, Bucket: c.Bucket, Prefix: c.Prefix, Region: c.Region, Now: e.Now,
		Keys: func() (mirror.Keys, error) { return c.keys(e) },
	})
}

// keys reads what requests to the bucket are signed with.
func (c S3Config) keys(e Env) (mirror.Keys, error) {
	if c.AccessKeyFile == "" {
		k := mirror.Keys{Access: e.lookup("AWS_ACCESS_KEY_ID"), Secret: e.lookup("AWS_SECRET_ACCESS_KEY"), Session: e.lookup("AWS_SESSION_TOKEN")}
		if k.Access == "" || k.Secret == "" {
			return k, errors.New("there are no keys: give access_key_file and secret_key_file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		return k, nil
	}
	var k mirror.Keys
	for path, into := range map[string]*string{c.AccessKeyFile: &k.Access, c.SecretKeyFile: &k.Secret} {
		text, err := readSecret(path)
		if err != nil {
			return k, err
		}
		if *into = text; *into == "" {
			return k, fmt.Errorf("%s is empty", path)
		}
	}
	return k, nil
}
