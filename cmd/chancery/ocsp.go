package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/strictyaml"
)

// OCSPConfig says how OCSP requests about the certificates of one authority are answered.
type OCSPConfig struct {
	// Authority is one of authorities.
	Authority string `yaml:"authority"`
	// PublicKey is the file (PEM) of the public half of the responder's own key, which pins it. The authority certifies the key by itself, and
	// again before the certificate ends. Left out, the authority's key answers.
	PublicKey string `yaml:"public_key"`
	// Label and ID (hexadecimal) are CKA_LABEL and CKA_ID of the responder's own key, in the token that holds the authority's. A keeper
	// service finds it by its public half.
	Label string `yaml:"label"`
	ID    string `yaml:"id"`
	// Validity is how long an answer holds, 8h to 10d. It is made anew a little before half of it, or four days. Default: 2d.
	Validity strictyaml.Duration `yaml:"validity"`
	// Answers is of how many certificates answers are kept in memory, about 1.5 KB each. Default: 100000.
	Answers int `yaml:"answers"`
}

const defaultOCSPValidity = strictyaml.Duration(48 * time.Hour)

func (c *Config) validateOCSP(doc *strictyaml.Document) {
	for i, o := range c.OCSP {
		field := fmt.Sprintf("ocsp[%d]", i)
		if !slices.Contains(c.Authorities, o.Authority) {
			doc.Refuse(field+".authority", "name one of authorities", "%q is none of the authorities", o.Authority)
		}
		for _, other := range c.OCSP[:i] {
			if other.Authority == o.Authority {
				doc.Refuse(field+".authority", "", "%q stands here twice", o.Authority)
			}
		}
		if v := time.Duration(o.validity()); v < ca.MinOCSPValidity || v > ca.MaxOCSPValidity {
			doc.Refuse(field+".validity", "the Baseline Requirements, section 4.9.10, bound it", "%s is not between 8h and 10d", o.Validity)
		}
		if o.Answers < 0 || o.Answers > 50_000_000 {
			doc.Refuse(field+".answers", "", "%d is not between 1 and 50000000", o.Answers)
		}
		if _, err := hex.DecodeString(o.ID); err != nil {
			doc.Refuse(field+".id", "", "%q is not hexadecimal", o.ID)
		}
		named := o.Label != "" || o.ID != ""
		switch {
		case o.PublicKey == "" && named:
			doc.Refuse(field+".public_key", "`chancery hsm key show` prints it", "a responder's own key is pinned by its public half")
		case o.PublicKey != "" && !named && c.HSM.Isolation != isolationKeeper:
			doc.Refuse(field+".label", "give its label or its id", "the responder's own key is not named")
		}
	}
}

func (o OCSPConfig) validity() strictyaml.Duration { return cmp.Or(o.Validity, defaultOCSPValidity) }

// publicKey reads the file that pins the responder's own key.
func (o OCSPConfig) publicKey() (crypto.PublicKey, error) {
	public, err := readPublicKey(o.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading the responder's public key: %w", err)
	}
	return public, nil
}

// readPublicKey reads the file (PEM) of a public key that pins one in a token.
func readPublicKey(path string) (crypto.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s does not begin with a PEM block PUBLIC KEY", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return public, nil
}

// responderKey is where the key of a responder is: in the token of its authority, under its own name.
func (o OCSPConfig) responderKey(authority ca.AuthorityRecord) (ca.AuthorityRecord, error) {
	id, err := hex.DecodeString(o.ID)
	if err != nil {
		return authority, fmt.Errorf("the id %q is not hexadecimal", o.ID)
	}
	authority.Key.Label, authority.Key.ID = o.Label, id
	return authority, nil
}

// ocspOf is what is configured for an authority.
func (c Config) ocspOf(authority string) (OCSPConfig, bool) {
	i := slices.IndexFunc(c.OCSP, func(o OCSPConfig) bool { return o.Authority == authority })
	if i < 0 {
		return OCSPConfig{}, false
	}
	return c.OCSP[i], true
}

// openResponders opens the keys that answer OCSP requests.
func (s *service) openResponders(ctx context.Context, records []ca.AuthorityRecord) (plans []ca.OCSPPlan, err error) {
	for _, record := range records {
		o, configured := s.cfg.ocspOf(record.Name)
		if !configured {
			if record.OCSPURL != "" {
				s.log.WarnContext(ctx, "certificates of this authority say that it offers OCSP, and this service does not answer for it: "+
					"configure ocsp, or see that another does", "authority", record.Name, "url", record.OCSPURL)
			}
			continue
		}
		plan := ca.OCSPPlan{
			Authority: record.Name, Validity: time.Duration(o.validity()), Answers: o.Answers, Retention: s.cfg.Archive.retention(),
		}
		if o.PublicKey != "" {
			if plan.Key, err = s.openResponder(ctx, o, record); err != nil {
				return nil, fmt.Errorf("opening the OCSP responder of %q: %w", record.Name, err)
			}
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

func (s *service) openResponder(ctx context.Context, o OCSPConfig, authority ca.AuthorityRecord) (crypto.Signer, error) {
	public, err := o.publicKey()
	if err != nil {
		return nil, err
	}
	record, err := o.responderKey(authority)
	if err != nil {
		return nil, err
	}
	return s.keys.signer(ctx, record, public)
}
