package trial

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

// CasesDir is the directory beside the profiles that holds files of cases, one *.yaml each, and the CSRs that they name.
const CasesDir = "cases"

// maxCSR is the longest CSR that a case reads. Octets.
const maxCSR = 1 << 20

// Case is a request, made of facts or read from a file, and what must become of it.
type Case struct {
	File string
	Line int
	Name string

	request  policies.Request // but for CSR and Issuer
	history  []policies.KeyUse
	caa      []policies.CAAAnswer
	der      []byte // of the CSR; nil: it is made of the facts
	template x509.CertificateRequest
	key      string
	expect   policies.Verdict
	rules    []string // that must object
	exactly  bool     // and no others
	notices  []string // rules that must have something to remark
}

// caseFile is a file of cases as it is written.
type caseFile struct {
	// Profile is asked for by cases that name none.
	Profile string `yaml:"profile"`
	// Namespace asks in cases that name none. Without any, whoever asks owns every name.
	Namespace *namespaceFile `yaml:"namespace"`
	// Now is the time of cases that have none, as RFC 3339; without it, that of the run.
	Now   string        `yaml:"now"`
	Cases []writtenCase `yaml:"cases"`
}

type writtenCase struct {
	Name      string         `yaml:"name"` // unique in the file
	Profile   string         `yaml:"profile"`
	Namespace *namespaceFile `yaml:"namespace"`
	Now       string         `yaml:"now"`
	Validity  string         `yaml:"validity"`
	// CSR is a file beside the cases, PEM or DER. Without it a CSR is made of the fields that follow.
	CSR        string             `yaml:"csr"`
	Key        string             `yaml:"key"` // ecdsa-p256, -p384, -p521, ed25519, rsa-2048, -3072, -4096; the first when left out
	Subject    []writtenAttribute `yaml:"subject"`
	DNS        []string           `yaml:"dns"`
	IP         []string           `yaml:"ip"`
	Email      []string           `yaml:"email"`
	URI        []string           `yaml:"uri"`
	Extensions []writtenExtension `yaml:"extensions"`
	Requester  writtenRequester   `yaml:"requester"`
	// Facts are what else a decision looks at. Those left out stand in nobody's way.
	Facts writtenFacts `yaml:"facts"`
	// Expect is "allow", "needs-approval" or "refuse".
	Expect string `yaml:"expect"`
	// Rules are exactly the rules that must object; when left out it does not matter which.
	Rules []string `yaml:"rules"`
	// Notices are rules that must remark on something without objecting.
	Notices []string `yaml:"notices"`
}

type writtenAttribute struct {
	Type  string `yaml:"type"`
	Value string `yaml:"value"`
}

type writtenExtension struct {
	OID      string `yaml:"oid"`
	Critical bool   `yaml:"critical"`
	Value    string `yaml:"value"` // DER, in hexadecimal
}

type writtenRequester struct {
	Groups     []string            `yaml:"groups"`
	Attributes map[string][]string `yaml:"attributes"`
}

type writtenFacts struct {
	CompromisedKey bool     `yaml:"compromised_key"`
	KeyLists       []string `yaml:"key_lists"` // titles of lists that hold the key
	// KeyHistory are earlier certificates of the key.
	KeyHistory []struct {
		Namespace string   `yaml:"namespace"`
		Names     []string `yaml:"names"`
	} `yaml:"key_history"`
	// CAA are the records that stand at a name.
	CAA []struct {
		Name    string `yaml:"name"`
		Records []struct {
			Critical bool   `yaml:"critical"`
			Tag      string `yaml:"tag"`
			Value    string `yaml:"value"`
		} `yaml:"records"`
	} `yaml:"caa"`
}

// ReadCases reads the files of cases beside profiles; there may be none. Everything that is wrong is reported at once, with file and line.
func ReadCases(profiles fs.FS) ([]Case, error) {
	files, err := fs.Glob(profiles, path.Join(CasesDir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing cases: %w", err)
	}
	var all []Case
	var wrong []error
	for _, file := range files {
		content, err := fs.ReadFile(profiles, file)
		if err != nil {
			return nil, fmt.Errorf("reading cases: %w", err)
		}
		cases, err := readCaseFile(profiles, file, content)
		if err != nil {
			wrong = append(wrong, err)
		}
		all = append(all, cases...)
	}
	return all, errors.Join(wrong...)
}

func readCaseFile(profiles fs.FS, file string, content []byte) ([]Case, error) {
	var w caseFile
	doc := strictyaml.Decode(file, content, &w)
	if !doc.OK() {
		return nil, doc.Err()
	}
	r := caseReader{doc: doc, profiles: profiles, dir: path.Dir(file)}
	now := r.time("now", w.Now)
	namespace := r.namespace("namespace", w.Namespace, Everything())
	var cases []Case
	seen := map[string]bool{}
	for i, one := range w.Cases {
		field := fmt.Sprintf("cases[%d]", i)
		if one.Name == "" || seen[one.Name] {
			doc.Refuse(field+".name", "say in a few words what the case is about", "a case needs a name that no other of the file has")
		}
		seen[one.Name] = true
		one.Profile = cmp.Or(one.Profile, w.Profile)
		c := r.read(field, one, namespace)
		if c.File = file; c.request.Now.IsZero() {
			c.request.Now = now
		}
		cases = append(cases, c)
	}
	if len(w.Cases) == 0 {
		doc.Refuse("cases", "", "there are no cases")
	}
	return cases, doc.Err()
}

type caseReader struct {
	doc      *strictyaml.Document
	profiles fs.FS
	dir      string
}

func (r caseReader) time(field, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		r.doc.Refuse(field, "write for example 2026-11-25T12:00:00Z", "%q is no time", text)
	}
	return at
}

func (r caseReader) namespace(field string, w *namespaceFile, otherwise access.Namespace) access.Namespace {
	if w == nil {
		return otherwise
	}
	one := *w
	one.Name = cmp.Or(one.Name, "case")
	n, _ := compileNamespace(r.doc, field, one)
	return n
}

// read compiles one case.
func (r caseReader) read(field string, w writtenCase, namespace access.Namespace) Case {
	c := Case{Line: r.doc.Line(field), Name: w.Name, expect: policies.Verdict(w.Expect), rules: w.Rules, notices: w.Notices, key: cmp.Or(w.Key, "ecdsa-p256")}
	c.exactly = r.doc.Has(field + ".rules")
	switch c.expect {
	case policies.Allow, policies.NeedsApproval, policies.Refuse:
	default:
		r.doc.Refuse(field+".expect", "write allow, needs-approval or refuse", "%q is no verdict", w.Expect)
	}
	if c.expect == policies.Allow && len(w.Rules) > 0 {
		r.doc.Refuse(field+".rules", "leave it out, or write notices", "no rule objects to what is allowed")
	}
	if w.Profile == "" {
		r.doc.Refuse(field+".profile", "name it here, or once for the whole file", "the case names no profile")
	}
	n := r.namespace(field+".namespace", w.Namespace, namespace)
	c.request = policies.Request{
		Profile: w.Profile, Namespace: n, Now: r.time(field+".now", w.Now), CompromisedKey: w.Facts.CompromisedKey, KeyLists: w.Facts.KeyLists,
		Actor: access.Actor{
			ID: "case", Name: "case", Person: "case", Namespace: n.Name, Roles: []access.Role{access.Requester},
			Groups: w.Requester.Groups, Attributes: w.Requester.Attributes,
		},
	}
	if w.Validity != "" {
		length, err := policies.ParseDuration(w.Validity)
		if err != nil {
			r.doc.Refuse(field+".validity", "write for example 90d", "%v", err)
		}
		c.request.Validity = length
	}
	for _, use := range w.Facts.KeyHistory {
		c.history = append(c.history, policies.KeyUse{Namespace: use.Namespace, Names: use.Names, Serial: "00"})
	}
	for _, at := range w.Facts.CAA {
		answer := policies.CAAAnswer{Name: at.Name, At: at.Name}
		for _, record := range at.Records {
			answer.Records = append(answer.Records, policies.CAARecord{Critical: record.Critical, Tag: record.Tag, Value: record.Value})
		}
		c.caa = append(c.caa, answer)
	}
	r.body(field, w, &c)
	return c
}

// body reads the CSR, or what one is made of.
func (r caseReader) body(field string, w writtenCase, c *Case) {
	facts := len(w.Subject)+len(w.DNS)+len(w.IP)+len(w.Email)+len(w.URI)+len(w.Extensions) > 0 || w.Key != ""
	if w.CSR != "" {
		if facts {
			r.doc.Refuse(field+".csr", "leave out the one or the others", "a CSR is read from a file or made of facts, not both")
		}
		der, err := r.csr(w.CSR)
		if err != nil {
			r.doc.Refuse(field+".csr", "name a file beside the cases, PEM or DER", "%v", err)
		}
		c.der = der
		return
	}
	if !slices.Contains(caseKeys, c.key) {
		r.doc.Refuse(field+".key", "write one of "+strings.Join(caseKeys, ", "), "%q is no kind of key", w.Key)
	}
	for i, a := range w.Subject {
		oid, err := policies.AttributeType(a.Type)
		if err != nil {
			r.doc.Refuse(fmt.Sprintf("%s.subject[%d].type", field, i), "write a name that profiles use, such as commonName", "%v", err)
		}
		c.template.Subject.ExtraNames = append(c.template.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oid, Value: a.Value})
	}
	c.template.DNSNames, c.template.EmailAddresses = w.DNS, w.Email
	for i, text := range w.IP {
		ip := net.ParseIP(text)
		if ip == nil {
			r.doc.Refuse(fmt.Sprintf("%s.ip[%d]", field, i), "", "%q is no address", text)
		}
		c.template.IPAddresses = append(c.template.IPAddresses, ip)
	}
	for i, text := range w.URI {
		uri, err := url.Parse(text)
		if err != nil {
			r.doc.Refuse(fmt.Sprintf("%s.uri[%d]", field, i), "put it into a CSR, and name that", "%q is no URI that can be written here", text)
		}
		c.template.URIs = append(c.template.URIs, uri)
	}
	for i, e := range w.Extensions {
		at := fmt.Sprintf("%s.extensions[%d]", field, i)
		oid, err := parseOID(e.OID)
		value, err2 := hex.DecodeString(e.Value)
		if err != nil {
			r.doc.Refuse(at+".oid", "write for example 2.5.29.19", "%v", err)
		}
		if err2 != nil {
			r.doc.Refuse(at+".value", "write DER in hexadecimal", "%v", err2)
		}
		c.template.ExtraExtensions = append(c.template.ExtraExtensions, pkix.Extension{Id: oid, Critical: e.Critical, Value: value})
	}
}

func parseOID(text string) (oid asn1.ObjectIdentifier, err error) {
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is no object identifier", text)
		}
		oid = append(oid, int(n))
	}
	return oid, nil
}

func (r caseReader) csr(name string) ([]byte, error) {
	if path.Base(name) != name {
		return nil, fmt.Errorf("%q is not beside the cases", name)
	}
	file, err := r.profiles.Open(path.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxCSR))
	if err != nil {
		return nil, err
	}
	if len(content) > 0 && content[0] == 0x30 { // a DER SEQUENCE
		return content, nil
	}
	_, body, found := bytes.Cut(content, []byte("-----BEGIN"))
	if !found || len(body) == 0 {
		return nil, fmt.Errorf("%s is neither PEM nor DER", name)
	}
	return content, nil
}

// caseKeys are the kinds of keys that CSRs are made with.
var caseKeys = []string{"ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"}

// keyring makes one key of each kind that is asked for.
type keyring struct {
	random io.Reader
	keys   map[string]crypto.Signer
}

func (k *keyring) key(kind string) (crypto.Signer, error) {
	if key := k.keys[kind]; key != nil {
		return key, nil
	}
	var key crypto.Signer
	var err error
	switch family, size, _ := strings.Cut(kind, "-"); family {
	case "ecdsa":
		curve := map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()}[size]
		key, err = ecdsa.GenerateKey(curve, k.random)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(k.random)
	default:
		bits, _ := strconv.Atoi(size) // of caseKeys
		key, err = rsa.GenerateKey(k.random, bits)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	k.keys[kind] = key
	return key, nil
}

// CaseResult is what became of a case.
type CaseResult struct {
	File        string               `json:"file"`
	Line        int                  `json:"line"`
	Case        string               `json:"case"`
	Profile     string               `json:"profile"`
	Passed      bool                 `json:"passed"`
	Verdict     policies.Verdict     `json:"verdict"`
	Rules       []string             `json:"rules"`                 // those that objected
	Differences []string             `json:"differences,omitempty"` // from what was expected, in words
	Violations  []policies.Violation `json:"violations,omitempty"`
}

// Coverage says which rules of a profile the cases have seen objecting.
type Coverage struct {
	Profile string   `json:"profile"`
	Cases   int      `json:"cases"`
	Rules   int      `json:"rules"` // that are asked
	Seen    int      `json:"seen"`  // that a case saw objecting
	Never   []string `json:"never"` // the others, in the order in which they are asked
}

// CasesReport is what became of all cases.
type CasesReport struct {
	Policy   string       `json:"policy"` // digest of the set
	Cases    int          `json:"cases"`
	Failed   int          `json:"failed"`
	Results  []CaseResult `json:"results"`
	Coverage []Coverage   `json:"coverage"` // by profile
}

// RunCases decides on each case by a set. A case whose CSR cannot be read ends as the service would end it: refused, by the rule of csr
// that it breaks. The error is about the run itself.
func RunCases(set *policies.Set, cases []Case, random io.Reader, now time.Time) (*CasesReport, error) {
	keys := &keyring{random: random, keys: map[string]crypto.Signer{}}
	report := &CasesReport{Policy: set.Digest(), Cases: len(cases), Results: []CaseResult{}}
	asked, objected := map[string][]string{}, map[string]map[string]bool{}
	count := map[string]int{}
	for _, c := range cases {
		r := CaseResult{File: c.File, Line: c.Line, Case: c.Name, Profile: c.request.Profile, Rules: []string{}}
		d, err := c.decide(set, keys, now)
		var unreadable *csr.Error
		var remarked []string
		switch {
		case errors.As(err, &unreadable):
			r.Verdict, r.Rules = policies.Refuse, []string{unreadable.Rule}
			r.Violations = []policies.Violation{{Rule: unreadable.Rule, Field: unreadable.Field, Message: unreadable.Message, Hint: unreadable.Hint}}
		case err != nil:
			return nil, fmt.Errorf("%s:%d: %s: %w", c.File, c.Line, c.Name, err)
		default:
			r.Verdict, r.Violations = d.Verdict(), d.Violations()
			for _, result := range d.Results() {
				if result.Verdict == policies.Refuse || result.Verdict == policies.NeedsApproval {
					r.Rules = append(r.Rules, result.Rule)
				}
				if len(result.Notices) > 0 {
					remarked = append(remarked, result.Rule)
				}
				if !slices.Contains(asked[c.request.Profile], result.Rule) {
					asked[c.request.Profile] = append(asked[c.request.Profile], result.Rule)
				}
			}
		}
		count[c.request.Profile]++
		if objected[c.request.Profile] == nil {
			objected[c.request.Profile] = map[string]bool{}
		}
		for _, rule := range r.Rules {
			objected[c.request.Profile][rule] = true
		}
		r.Differences = c.differences(r, remarked)
		if r.Passed = len(r.Differences) == 0; !r.Passed {
			report.Failed++
		}
		report.Results = append(report.Results, r)
	}
	for _, name := range set.Names() {
		one := Coverage{Profile: name, Cases: count[name], Rules: len(asked[name]), Never: []string{}}
		for _, rule := range asked[name] {
			if objected[name][rule] {
				one.Seen++
				continue
			}
			one.Never = append(one.Never, rule)
		}
		report.Coverage = append(report.Coverage, one)
	}
	return report, nil
}

// decide makes the request of a case and has it decided.
func (c Case) decide(set *policies.Set, keys *keyring, now time.Time) (*policies.Decision, error) {
	request := c.request
	if request.Now.IsZero() {
		request.Now = now
	}
	var err error
	if request.CSR, err = c.csr(keys); err != nil {
		return nil, err
	}
	if request.Issuer, err = NewIssuer(keys.random, request.Now); err != nil {
		return nil, err
	}
	request.KeyHistory, request.CAA = c.history, c.caa
	return Decide(set, request), nil
}

func (c Case) csr(keys *keyring) (*csr.Request, error) {
	switch {
	case bytes.HasPrefix(c.der, []byte{0x30}):
		return csr.Parse(c.der)
	case c.der != nil:
		return csr.ParsePEM(c.der)
	}
	key, err := keys.key(c.key)
	if err != nil {
		return nil, err
	}
	template := c.template
	der, err := x509.CreateCertificateRequest(keys.random, &template, key)
	if err != nil {
		return nil, fmt.Errorf("no CSR can be made of these facts (put one into a file, and name it): %w", err)
	}
	return csr.Parse(der)
}

// differences says in words what is not as the case expects.
func (c Case) differences(r CaseResult, remarked []string) (all []string) {
	if r.Verdict != c.expect {
		all = append(all, fmt.Sprintf("expected %s, got %s", c.expect, r.Verdict))
	}
	if c.exactly {
		for _, rule := range c.rules {
			if !slices.Contains(r.Rules, rule) {
				all = append(all, rule+" was expected to object, and did not")
			}
		}
		for _, rule := range r.Rules {
			if !slices.Contains(c.rules, rule) {
				all = append(all, rule+" objected, which was not expected")
			}
		}
	}
	for _, rule := range c.notices {
		if !slices.Contains(remarked, rule) {
			all = append(all, rule+" was expected to remark on something, and did not")
		}
	}
	return all
}
