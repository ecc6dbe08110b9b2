package ceremony

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

// Plan is a ceremony as it was reviewed. ParsePlan and ReadPlan make it, validated whole; the zero value is refused by Run.
// Durations are written as 20y, 180d or 24h; a day is 86,400 seconds, a year 365 days. Paths are relative to the plan's own directory.
type Plan struct {
	// Ceremony names the ceremony, in lower-case letters, digits and inner hyphens.
	Ceremony string `yaml:"ceremony"`
	// Description says in words for people what is made, and why.
	Description string `yaml:"description"`
	// Output is the directory for certificates, CRLs and the transcript. It is made if it is not there. One that holds a transcript is
	// refused.
	Output string `yaml:"output"`
	// Authorities are the authorities to be made, in any order: an issuer always comes before those that it certifies.
	Authorities []Authority `yaml:"authorities"`
	// Issuers are authorities of earlier ceremonies that certify authorities of this one.
	Issuers []Issuer `yaml:"issuers"`
	// CRLs are the CRLs to be made for authorities that exist already.
	CRLs []CRL `yaml:"crls"`
	// Logs are audit logs whose keys are to be made. Their public halves are written to <name>.key.pem, and their verifier keys are told to
	// those present.
	Logs []Log `yaml:"logs"`

	text []byte // the file as it was read; what the digest is of
	dir  string // what paths are relative to
}

// Authority is one authority to be made.
type Authority struct {
	// Name is the authority's name and the beginning of its files' names: lower-case letters, digits and inner hyphens, at most 64.
	Name string `yaml:"name"`
	// Issuer is the name of the authority, of the same plan (authorities or issuers), that certifies this one. Left out for a root, which
	// certifies itself.
	Issuer string `yaml:"issuer"`
	// Key is the authority's key pair.
	Key Key `yaml:"key"`
	// Subject is the authority's distinguished name, unlike that of any other in the plan.
	Subject Subject `yaml:"subject"`
	// Validity is how long the certificate lasts, beginning with the ceremony; both ends belong to it. Or else NotBefore and NotAfter.
	Validity strictyaml.Duration `yaml:"validity"`
	// NotBefore is the first second of the certificate: 2027-01-01 (its midnight in UTC) or 2027-01-01T08:00:00Z. Of an offline authority with
	// a CRL, which begins with the ceremony, it is not later than that.
	NotBefore string `yaml:"not_before"`
	// NotAfter is the last second of the certificate, written like NotBefore.
	NotAfter string `yaml:"not_after"`
	// PathLen is how many authorities may follow below this one (RFC 5280, section 4.2.1.9). Left out for a root it means any number.
	PathLen *int `yaml:"path_len"`
	// NameConstraints bound the names below this authority (RFC 5280, section 4.2.1.10).
	NameConstraints *Constraints `yaml:"name_constraints"`
	// Policies are the certificate policies, as dotted object identifiers (RFC 5280, section 4.2.1.4).
	Policies []string `yaml:"policies"`
	// ExtKeyUsage limits what certificates below this authority are good for: serverAuth, clientAuth, codeSigning, emailProtection,
	// timeStamping, or a dotted object identifier. The authority issues under no profile for more than these. Left out there is no limit.
	ExtKeyUsage []string `yaml:"ext_key_usage"`
	// URLs are where clients find this authority's CRL and certificate. They are written into what it issues, not into its own certificate.
	URLs URLs `yaml:"urls"`
	// CRL says how this authority's CRL is made: for an offline authority once, in the ceremony; for an online one by the service.
	CRL *Schedule `yaml:"crl"`
	// Online says that the service opens this authority's key. Left out: every authority but a root.
	Online *bool `yaml:"online"`

	notBefore, notAfter time.Time // where the plan fixes them
	permitted, excluded *policies.NameConstraints
	policies, usages    []asn1.ObjectIdentifier
}

// Log is an audit log whose key is to be made: a key that signs checkpoints and nothing else.
type Log struct {
	// Name is the beginning of its file's name: lower-case letters, digits and inner hyphens, at most 64.
	Name string `yaml:"name"`
	// Origin is the log's name, as every checkpoint begins: ca.example.com/audit-log.
	Origin string `yaml:"origin"`
	// Key is the log's key pair: ed25519, or ecdsa-p256 where the token has no Ed25519.
	Key Key `yaml:"key"`
}

// Issuer is an authority of an earlier ceremony, whose key is in the token.
type Issuer struct {
	// Name is the authority's name, as in the ceremony that made it.
	Name string `yaml:"name"`
	// Certificate is the file of the authority's certificate, DER or PEM. Where it is not a root's, the certificates above it follow in PEM,
	// the root's last: <name>-chain.pem of the ceremony that made it.
	Certificate string `yaml:"certificate"`
	// Key is the authority's key.
	Key Key `yaml:"key"`
	// URLs are where clients find the authority's CRL and certificate, as in the ceremony that made it. urls.crl is required unless NoCRL is
	// true.
	URLs URLs `yaml:"urls"`
	// NoCRL says that what the authority certifies names no CRL. It has to be said, because nothing else tells that from an address that was
	// forgotten, and what is certified without one lasts for years.
	NoCRL bool `yaml:"no_crl"`
}

// Key names a key pair in the token.
type Key struct {
	// Algorithm is ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096. Left out where the certificate says it (issuers, crls).
	Algorithm hsm.Algorithm `yaml:"algorithm"`
	// Label is the key's CKA_LABEL, at most 64 printable ASCII characters. A label that the token knows already is refused.
	Label string `yaml:"label"`
	// ID is the key's CKA_ID in hex, at most 32 octets. Left out, one is made.
	ID string `yaml:"id"`
	// Existing says that the key is in the token already and is not to be generated.
	Existing bool `yaml:"existing"`

	id []byte
}

// Subject is a distinguished name. It is written in this order, each attribute at most once (RFC 5280, appendix A, for the lengths).
type Subject struct {
	// Country is an ISO 3166 code of two capital letters.
	Country string `yaml:"country"`
	// State is stateOrProvinceName, at most 128 characters.
	State string `yaml:"state"`
	// Locality is localityName, at most 128 characters.
	Locality string `yaml:"locality"`
	// Organization is organizationName, at most 64 characters.
	Organization string `yaml:"organization"`
	// CommonName is the name that people see, at most 64 characters. It is required.
	CommonName string `yaml:"common_name"`
}

// Constraints are name constraints: what is permitted and what is excluded. A kind of name that Permitted does not mention is permitted
// whole, unless Excluded says otherwise.
type Constraints struct {
	Permitted *Subtrees `yaml:"permitted"`
	Excluded  *Subtrees `yaml:"excluded"`
}

// Subtrees are sets of names. A list that is written must not be empty: to a reader an empty list of permitted names means none, to a
// certificate it means any.
type Subtrees struct {
	// DNS are domains; each stands for itself and everything under it.
	DNS []string `yaml:"dns"`
	// IP are networks in CIDR form, such as 10.0.0.0/8.
	IP []string `yaml:"ip"`
	// Email are mailboxes (a@example.com), hosts (example.com: mailboxes there) or domains (.example.com: mailboxes on hosts under it).
	Email []string `yaml:"email"`
	// URI are hosts (example.com) or domains (.example.com: hosts under it).
	URI []string `yaml:"uri"`
}

// URLs are addresses of plain HTTP: whoever checks a certificate cannot yet make a TLS connection.
type URLs struct {
	// CRL is the CRL's address: cRLDistributionPoints of what the authority issues.
	CRL string `yaml:"crl"`
	// Issuer is the address of the authority's certificate: caIssuers of what it issues.
	Issuer string `yaml:"issuer"`
	// OCSP is the address of the authority's OCSP responder: id-ad-ocsp of what it issues. Left out where it offers none.
	OCSP string `yaml:"ocsp"`
}

// Schedule is how an authority's CRL is made.
type Schedule struct {
	// Period is how often the service makes a new one, for online authorities alone. It is shorter than Validity.
	Period strictyaml.Duration `yaml:"period"`
	// Validity is nextUpdate - thisUpdate.
	Validity strictyaml.Duration `yaml:"validity"`
	// Previous is the file of the last CRL under this key and subject, DER or PEM. Its entries are kept. Of an offline authority whose key is
	// existing it is required unless First is true: what that key signs is valid for an older authority of the same subject, too.
	Previous string `yaml:"previous"`
	// First says that there has never been a CRL under this key and subject.
	First bool `yaml:"first"`
}

// CRL is a CRL to be made for an authority that exists, usually an offline root.
type CRL struct {
	// Issuer is the authority's name, for the name of the file.
	Issuer string `yaml:"issuer"`
	// Certificate is the file of the authority's certificate, DER or PEM.
	Certificate string `yaml:"certificate"`
	// Key is the authority's key, by label or id.
	Key Key `yaml:"key"`
	// Number is the CRL's number in decimal, above that of Previous. Left out: the Unix time in milliseconds, or one above Previous
	// where that is more.
	Number string `yaml:"number"`
	// Validity is nextUpdate - thisUpdate.
	Validity strictyaml.Duration `yaml:"validity"`
	// Revoked are the certificates that join those of Previous.
	Revoked []Revoked `yaml:"revoked"`
	// Previous is the file of the CRL before this one, DER or PEM. Its entries are kept. It is required unless First is true.
	Previous string `yaml:"previous"`
	// First says that the authority has never had a CRL. It has to be said, because nothing else tells a first CRL from one that
	// forgets what was revoked before.
	First bool `yaml:"first"`

	number *big.Int // nil where the plan does not fix it
}

// Revoked is one revoked certificate.
type Revoked struct {
	// Serial is the certificate's serial number in lower-case hex.
	Serial string `yaml:"serial"`
	// Reason is a reason of RFC 5280, section 5.3.1, by name, holds and releases excepted: an authority does not come back. Nor unspecified:
	// the Baseline Requirements, section 7.2.2, want one that says something.
	Reason string `yaml:"reason"`
	// At is the moment of revocation, written like an authority's not_before, and not in the future.
	At string `yaml:"at"`

	serial []byte
	reason issuance.Reason
	at     time.Time
}

// ReadPlan reads a plan from its file.
func ReadPlan(path string) (Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Plan{}, fmt.Errorf("reading the ceremony's plan: %w", err)
	}
	return ParsePlan(path, text)
}

// ParsePlan reads a plan from text; file is its name in problems and what its paths are relative to. Whatever is wrong with it is
// reported at once, each with its line, as *strictyaml.Error.
func ParsePlan(file string, text []byte) (Plan, error) {
	var p Plan
	d := strictyaml.Decode(file, text, &p)
	if d.OK() {
		p.validate(d)
	}
	if err := d.Err(); err != nil {
		return Plan{}, err
	}
	p.text, p.dir = append([]byte(nil), text...), filepath.Dir(file)
	return p, nil
}

// Valid tells a plan that was read from a zero value.
func (p Plan) Valid() bool { return p.text != nil }

// Digest names the plan: "sha256:" and the lower-case hex of SHA-256 over the file's octets, as sha256sum prints it.
func (p Plan) Digest() string { return digestOf(p.text) }

// OutputDir is the directory that the ceremony writes to.
func (p Plan) OutputDir() string { return p.path(p.Output) }

func (p Plan) path(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(p.dir, file)
}

// root tells an authority that certifies itself.
func (a Authority) root() bool { return a.Issuer == "" }

// online tells an authority whose key the service opens.
func (a Authority) online() bool {
	if a.Online != nil {
		return *a.Online
	}
	return !a.root()
}

// window is the first and the last second of the certificate, when the ceremony takes place now.
func (a Authority) window(now time.Time) (notBefore, notAfter time.Time) {
	if !a.notBefore.IsZero() {
		return a.notBefore, a.notAfter
	}
	notBefore = now.UTC().Truncate(time.Second)
	return notBefore, notBefore.Add(time.Duration(a.Validity) - time.Second)
}

// owned is a key, and what it is for.
type owned struct {
	Key
	owner string
}

// keys are the keys that are made, or found, for what the plan makes.
func (p Plan) keys() (all []owned) {
	for _, a := range p.Authorities {
		all = append(all, owned{a.Key, "authority " + a.Name})
	}
	for _, l := range p.Logs {
		all = append(all, owned{l.Key, "log " + l.Name})
	}
	return all
}

// withoutCRL are the authorities, made here or before, that name no CRL in what they issue.
func (p Plan) withoutCRL() (names []string) {
	for _, i := range p.Issuers {
		if i.URLs.CRL == "" {
			names = append(names, i.Name)
		}
	}
	for _, a := range p.Authorities {
		if a.URLs.CRL == "" {
			names = append(names, a.Name)
		}
	}
	return names
}

// signs tells whether an authority of the plan signs anything in the ceremony: its own certificate, its CRL, or another's certificate.
func (p Plan) signs(a Authority) bool {
	return a.root() || a.CRL != nil && !a.online() || slices.ContainsFunc(p.Authorities, func(b Authority) bool { return b.Issuer == a.Name })
}

func (k Key) ref() hsm.KeyRef { return hsm.KeyRef{Label: k.Label, ID: k.id} }

func digestOf(b []byte) string { return "sha256:" + hexDigest(b) }

func hexDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// parseMoment reads a date, which means its midnight in UTC, or a moment to the second.
func parseMoment(s string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil && t.Nanosecond() == 0 && t.Year() >= 1950 && t.Year() <= 9999 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a moment; write 2027-01-31 or 2027-01-31T08:00:00Z", s)
}

func parsePrefix(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil || n.String() != s {
		return netip.Prefix{}, fmt.Errorf("%q is not a network in its shortest form", s)
	}
	if n.Masked() != n {
		return netip.Prefix{}, fmt.Errorf("%s has bits set beyond its length; the network is %s", n, n.Masked())
	}
	if n.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 network in IPv6 clothes", n)
	}
	return n, nil
}
