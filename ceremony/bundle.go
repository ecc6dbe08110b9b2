package ceremony

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/strictyaml"
)

// Bundle is an authority as a ceremony hands it over: what the service must know to open it.
type Bundle struct {
	Name        string
	Parent      string // the issuer's name; empty for a root
	Online      bool   // the service opens its key
	Certificate []byte // DER
	Chain       [][]byte
	List        []byte // DER of the CRL that the ceremony made; nil where the service makes it
	Key         BundleKey
	CRLPeriod   time.Duration // of an online authority: a new CRL is made at least so often
	CRLValidity time.Duration // nextUpdate - thisUpdate; 0 where the plan has no CRL for it
	CRLURL      string        // where clients fetch its CRL; written into what it issues
	IssuerURL   string        // where clients fetch its certificate; written into what it issues
	OCSPURL     string        // where its OCSP responder is; written into what it issues
}

// BundleKey tells where an authority's key is.
type BundleKey struct {
	Token string // the token's serial
	Label string // CKA_LABEL
	ID    []byte // CKA_ID
}

// bundleFile is <name>.authority.json. File names are without directories: all files of a bundle lie side by side.
type bundleFile struct {
	Version     int       `json:"v"`
	Name        string    `json:"name"`
	Parent      string    `json:"parent,omitempty"`
	Online      bool      `json:"online"`
	Certificate string    `json:"certificate"`
	SHA256      string    `json:"certificate_sha256"`
	Chain       string    `json:"chain"`
	List        string    `json:"crl_file,omitempty"`
	Key         bundleKey `json:"key"`
	CRL         *schedule `json:"crl,omitempty"`
	CRLURL      string    `json:"crl_url,omitempty"`
	IssuerURL   string    `json:"issuer_url,omitempty"`
	OCSPURL     string    `json:"ocsp_url,omitempty"`
}

type bundleKey struct {
	Token string `json:"token"`
	Label string `json:"label"`
	ID    string `json:"id"`
}

type schedule struct {
	Period   string `json:"period,omitempty"`
	Validity string `json:"validity"`
}

const bundleVersion = 1

// bundle describes a finished authority.
func (a *authority) bundle(token string, list []byte) bundleFile {
	f := bundleFile{
		Version: bundleVersion, Name: a.Name, Parent: a.Issuer, Online: a.online(),
		Certificate: a.Name + certificateSuffix, SHA256: hexDigest(a.chain[0]), Chain: a.Name + chainSuffix,
		Key:    bundleKey{Token: token, Label: a.key.ref.Label, ID: hex.EncodeToString(a.key.ref.ID)},
		CRLURL: a.URLs.CRL, IssuerURL: a.URLs.Issuer, OCSPURL: a.URLs.OCSP,
	}
	if list != nil {
		f.List = a.Name + crlSuffix
	}
	if a.CRL != nil {
		f.CRL = &schedule{Validity: a.CRL.Validity.String()}
		if a.CRL.Period != 0 {
			f.CRL.Period = a.CRL.Period.String()
		}
	}
	return f
}

func (f bundleFile) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("encoding the bundle of %s: %w", f.Name, err)
	}
	return b.Bytes(), nil
}

// ReadBundle reads <name>.authority.json and the files that it names, which lie beside it, and refuses them unless they agree: the
// chain begins with the certificate, each certificate is signed by the next, the last is a root, the CRL is the authority's own.
func ReadBundle(path string) (Bundle, error) {
	b, err := readBundle(path)
	if err != nil {
		return Bundle{}, fmt.Errorf("reading the authority's bundle %s: %w", path, err)
	}
	return b, nil
}

func readBundle(path string) (Bundle, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Bundle{}, err
	}
	f, err := decodeBundle(data)
	if err != nil {
		return Bundle{}, err
	}
	b, err := f.facts()
	if err != nil {
		return Bundle{}, err
	}
	if filepath.Base(path) != f.Name+bundleSuffix {
		return Bundle{}, fmt.Errorf("it is that of %q, whose file is named %s", f.Name, f.Name+bundleSuffix)
	}
	dir := filepath.Dir(path)
	if b.Certificate, err = os.ReadFile(filepath.Join(dir, f.Certificate)); err != nil {
		return Bundle{}, err
	}
	chain, err := os.ReadFile(filepath.Join(dir, f.Chain))
	if err != nil {
		return Bundle{}, err
	}
	if b.Chain, err = certificatesOf(chain); err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", f.Chain, err)
	}
	if f.List != "" {
		if b.List, err = os.ReadFile(filepath.Join(dir, f.List)); err != nil {
			return Bundle{}, err
		}
	}
	return b, b.agree(f.SHA256)
}

// decodeBundle is strict: a field that is unknown, given twice, or written in other letters is refused.
func decodeBundle(data []byte) (bundleFile, error) {
	var f bundleFile
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return bundleFile{}, err
	}
	again, err := f.encode()
	if err != nil {
		return bundleFile{}, err
	}
	var read, written bytes.Buffer
	if err := errors.Join(json.Compact(&read, data), json.Compact(&written, again)); err != nil {
		return bundleFile{}, err
	}
	if !bytes.Equal(read.Bytes(), written.Bytes()) {
		return bundleFile{}, errors.New("a field stands there twice, in other letters, empty or out of order")
	}
	return f, nil
}

// facts refuses values that no ceremony writes.
func (f bundleFile) facts() (Bundle, error) {
	b := Bundle{Name: f.Name, Parent: f.Parent, Online: f.Online, CRLURL: f.CRLURL, IssuerURL: f.IssuerURL, OCSPURL: f.OCSPURL}
	b.Key = BundleKey{Token: f.Key.Token, Label: f.Key.Label}
	var err error
	switch {
	case f.Version != bundleVersion:
		return b, fmt.Errorf("its version %d is not known", f.Version)
	case !nameForm.MatchString(f.Name) || f.Parent != "" && !nameForm.MatchString(f.Parent):
		return b, errors.New("the name or the parent is malformed")
	case f.Certificate != f.Name+certificateSuffix || f.Chain != f.Name+chainSuffix || f.List != "" && f.List != f.Name+crlSuffix:
		return b, errors.New("the files are not named after the authority")
	case f.Key.Token == "" || f.Key.Label == "" || !hexForm.MatchString(f.Key.ID):
		return b, errors.New("the key is not named in full")
	case f.Online && (f.CRL == nil || f.CRL.Period == ""):
		return b, errors.New("an online authority needs a schedule for its CRL")
	case f.Online && f.List != "", !f.Online && (f.CRL != nil) != (f.List != ""):
		return b, errors.New("the CRL comes with the bundle where the authority is offline, and only there")
	}
	if b.Key.ID, err = hex.DecodeString(f.Key.ID); err != nil {
		return b, err
	}
	if f.CRL != nil {
		if b.CRLValidity, err = positive(f.CRL.Validity); err != nil {
			return b, err
		}
		if f.CRL.Period != "" {
			b.CRLPeriod, err = positive(f.CRL.Period)
		}
		if err == nil && b.CRLPeriod >= b.CRLValidity {
			err = errors.New("a CRL would end before the next is made")
		}
	}
	return b, err
}

func positive(s string) (time.Duration, error) {
	d, err := strictyaml.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is no length of time", s)
	}
	return d, err
}

// maxChain bounds the chains that are looked at.
const maxChain = 10

// certificatesOf reads a file of PEM certificates and nothing else.
func certificatesOf(data []byte) ([][]byte, error) {
	var all [][]byte
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(all) == maxChain {
			return nil, fmt.Errorf("it does not hold certificates alone, at most %d", maxChain)
		}
		all = append(all, block.Bytes)
	}
	if !bytes.Equal(pemOf(all...), data) {
		return nil, errors.New("it holds more than certificates")
	}
	return all, nil
}

// agree refuses files that do not belong together.
func (b Bundle) agree(digest string) error {
	if hexDigest(b.Certificate) != digest {
		return errors.New("the certificate is not the one that the bundle was made for")
	}
	if len(b.Chain) == 0 || !bytes.Equal(b.Chain[0], b.Certificate) {
		return errors.New("the chain does not begin with the certificate")
	}
	chain, err := parseChain(b.Chain)
	if err != nil {
		return err
	}
	if (b.Parent == "") != (len(chain) == 1) {
		return errors.New("a root has no parent, and every other authority has one")
	}
	if b.List == nil {
		return nil
	}
	list, err := x509.ParseRevocationList(b.List)
	if err != nil {
		return fmt.Errorf("the CRL: %w", err)
	}
	if err := list.CheckSignatureFrom(chain[0]); err != nil {
		return fmt.Errorf("the CRL is not the authority's own: %w", err)
	}
	if !bytes.Equal(list.RawIssuer, chain[0].RawSubject) {
		return fmt.Errorf("the CRL is that of %q", list.Issuer)
	}
	return nil
}
