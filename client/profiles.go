package client

import (
	"context"
	"net/http"
	"time"
)

// Profile says what can be asked for and what a certificate will say. Durations are in seconds.
type Profile struct {
	Name                string             `json:"name"`
	Description         string             `json:"description"`
	Restricted          bool               `json:"restricted"`
	Keys                []ProfileKey       `json:"keys"`
	ExtKeyUsage         []string           `json:"ext_key_usage"`
	ValidityDefault     int64              `json:"validity_default"`
	ValidityMax         int64              `json:"validity_max"`
	Subject             []ProfileAttribute `json:"subject"`
	SubjectDropped      []string           `json:"subject_dropped"`
	NameTypes           []string           `json:"name_types"`
	NamesMin            int                `json:"names_min"`
	NamesMax            int                `json:"names_max"`
	Wildcards           bool               `json:"wildcards"`
	PublicNames         bool               `json:"public_names"`
	CAA                 bool               `json:"caa"`
	CertificatePolicies []string           `json:"certificate_policies"`
	LintSources         []string           `json:"lint_sources"`
	LintExceptions      []LintException    `json:"lint_exceptions"`
	ValidityLimits      []ProfileLimit     `json:"validity_limits"`
	Standards           []string           `json:"standards"`
	KeyOnce             bool               `json:"key_once"`
	KeyReuse            string             `json:"key_reuse"`
	CommonName          string             `json:"common_name"`
	Backdate            int64              `json:"backdate"`
	Underscores         bool               `json:"underscores"`
	ReservedIP          bool               `json:"reserved_ip"`
	URISchemes          []string           `json:"uri_schemes"`
	DNSPattern          string             `json:"dns_pattern"`
	EmailPattern        string             `json:"email_pattern"`
	URIPattern          string             `json:"uri_pattern"`
	Permitted           Subtrees           `json:"permitted"`
	Excluded            Subtrees           `json:"excluded"`
	ExtensionsDropped   []string           `json:"extensions_dropped"`
	AttributesDropped   []string           `json:"attributes_dropped"`
	OCSPNoCheck         bool               `json:"ocsp_no_check"`
	SubjectKeyID        bool               `json:"subject_key_id"`
	Rules               []ProfileRule      `json:"rules"`
	Approval            *ProfileApproval   `json:"approval,omitempty"`
	Quota               *ProfileQuota      `json:"quota,omitempty"`
	CT                  *ProfileCT         `json:"ct,omitempty"`
}

// ProfileCT says what stands in each certificate of certificate transparency's logs.
type ProfileCT struct {
	SCTs      int           `json:"scts"`
	Longer    []ProfileSCTs `json:"longer"`
	Operators int           `json:"operators"`
	Logs      []string      `json:"logs"`
	Patience  int64         `json:"patience"`
	Timeout   int64         `json:"timeout"`
}

// ProfileSCTs is how many timestamps a certificate needs that lasts longer than a duration.
type ProfileSCTs struct {
	Than int64 `json:"than"`
	SCTs int   `json:"scts"`
}

// ProfileLimit lowers the longest validity from a day on.
type ProfileLimit struct {
	From string `json:"from"` // 2026-03-15
	Max  int64  `json:"max"`
}

// Subtrees are subtrees of names, by type.
type Subtrees struct {
	DNS   []string `json:"dns"`
	IP    []string `json:"ip"`
	Email []string `json:"email"`
	URI   []string `json:"uri"`
}

// ProfileRule is one rule of a profile's own, in CEL.
type ProfileRule struct {
	ID         string `json:"id"`
	Expression string `json:"expression"`
	Message    string `json:"message"`
	Hint       string `json:"hint"`
	Field      string `json:"field"`
	Effect     string `json:"effect"`
	Always     string `json:"always,omitempty"`
}

// ProfileApproval says whose consent is needed.
type ProfileApproval struct {
	Count   int      `json:"count"`
	Groups  []string `json:"groups"`
	Signed  bool     `json:"signed"`
	Expires int64    `json:"expires"`
	When    string   `json:"when"`
}

// ProfileQuota bounds how many certificates are issued.
type ProfileQuota struct {
	Certificates int    `json:"certificates"`
	Per          int64  `json:"per"`
	Of           string `json:"of"`
}

// ProfileKey is one kind of key that is certified, and its key usage.
type ProfileKey struct {
	Algorithm string   `json:"algorithm"`
	KeyUsage  []string `json:"key_usage"`
}

// ProfileAttribute is one attribute of the subject.
type ProfileAttribute struct {
	Type     string `json:"type"`
	Presence string `json:"presence"`
	Value    string `json:"value,omitempty"`
	Max      int    `json:"max"`
	Pattern  string `json:"pattern,omitempty"`
}

// LintException is one lint that a profile leaves out, and why.
type LintException struct {
	Lint   string `json:"lint"`
	Reason string `json:"reason"`
}

// ProfileList is every profile, and the version of the policies.
type ProfileList struct {
	PolicyVersion string    `json:"policy_version"`
	Profiles      []Profile `json:"profiles"`
}

// Profiles reads all profiles.
func (c *Client) Profiles(ctx context.Context) (*ProfileList, error) {
	list := &ProfileList{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"profiles"}}, list); err != nil {
		return nil, err
	}
	return list, nil
}

// Profile reads one profile.
func (c *Client) Profile(ctx context.Context, name string) (*Profile, error) {
	p := &Profile{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"profiles", name}}, p); err != nil {
		return nil, err
	}
	return p, nil
}

// EvaluateInput asks what would come of a certification request.
type EvaluateInput struct {
	Profile  string `json:"-"`
	CSR      string `json:"csr"` // PKCS#10, PEM
	Validity string `json:"validity,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

// Decision is what the policies say about a request, rule by rule.
type Decision struct {
	Verdict       string       `json:"verdict"` // "allow", "needs-approval", "refuse"
	Profile       string       `json:"profile"`
	PolicyVersion string       `json:"policy_version"`
	Results       []RuleResult `json:"results"`
	Violations    []Violation  `json:"violations"`
	Content       *Content     `json:"content,omitempty"` // nil where a refusal leaves it undetermined
}

// RuleResult is what one rule said.
type RuleResult struct {
	Rule       string      `json:"rule"`
	Source     string      `json:"source"`
	Verdict    string      `json:"verdict"`
	Seen       string      `json:"seen,omitempty"` // the value that the rule looked at
	Violations []Violation `json:"violations,omitempty"`
	Notices    []Violation `json:"notices,omitempty"` // what was remarked without being refused, and why approval is needed
}

// Content is what a certificate would say.
type Content struct {
	Subject   string    `json:"subject"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Evaluate tells what would be decided. Nothing is issued and nothing is recorded.
func (c *Client) Evaluate(ctx context.Context, in EvaluateInput) (*Decision, error) {
	d := &Decision{}
	r := call{method: http.MethodPost, path: []string{"profiles", in.Profile, "evaluate"}, body: in}
	if _, err := c.json(ctx, r, d); err != nil {
		return nil, err
	}
	return d, nil
}
