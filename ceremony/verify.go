package ceremony

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// MaxTranscript is the largest transcript that is read, in octets.
const MaxTranscript = 64 << 20

// Summary is what a transcript tells.
type Summary struct {
	Ceremony   string       `json:"ceremony"`
	PlanDigest string       `json:"plan_digest"`
	Plan       []byte       `json:"plan"`  // the plan's text
	Token      string       `json:"token"` // the token's serial
	Began      time.Time    `json:"began"`
	Ended      time.Time    `json:"ended"`             // of the last line
	Complete   bool         `json:"complete"`          // it came to its end
	Failure    string       `json:"failure,omitempty"` // why it did not, where that is known
	Issuers    []IssuerUsed `json:"issuers,omitempty"` // authorities of earlier ceremonies
	Keys       []KeyUsed    `json:"keys"`
	Signed     []Signed     `json:"signed"`
	// Unanswered are the subjects of intents without a signature: the key may have signed, what it signed was not kept.
	Unanswered []string   `json:"unanswered,omitempty"`
	Artefacts  []Artefact `json:"artefacts"`
	// Head is the hash of the last line. It stands for the whole transcript: who noted it can tell any later change.
	Head string `json:"head"`
}

// IssuerUsed is an authority of an earlier ceremony that has certified authorities of this one.
type IssuerUsed struct {
	Authority   string `json:"authority"`
	Certificate []byte `json:"certificate"` // DER
}

// KeyUsed is a key of the ceremony.
type KeyUsed struct {
	Authority string `json:"authority"`
	Label     string `json:"label"`
	ID        string `json:"id"`        // CKA_ID, lower-case hex
	Generated bool   `json:"generated"` // in this ceremony
	SPKI      []byte `json:"spki"`      // SubjectPublicKeyInfo
}

// Signed is a certificate or CRL that was signed.
type Signed struct {
	Issuer  string        `json:"issuer"`
	Subject string        `json:"subject"`
	Kind    issuance.Kind `json:"kind"`
	SHA256  string        `json:"sha256"` // of DER, lower-case hex
	DER     []byte        `json:"der"`
}

// Artefact is a file that was written.
type Artefact struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // lower-case hex
}

// ErrIncomplete marks a transcript that is sound as far as it goes, of a ceremony that failed or was interrupted. Its Summary is whole.
var ErrIncomplete = errors.New("the ceremony did not come to its end")

// VerifyTranscript reads a transcript and refuses any in which a line was changed, added, moved or left out, or in which something was
// signed without an intent for exactly its to-be-signed bytes before it, by another key than the recorded one, or in which a file of a
// certificate or CRL holds anything but what was signed. A line cut off at the end makes the transcript incomplete; so that a cut
// is told from a ceremony that failed, note Summary.Head at the ceremony.
func VerifyTranscript(r io.Reader) (Summary, error) {
	v := verifier{previous: genesis, keys: map[string]*keyLine{}, issuers: map[string][]*x509.Certificate{}, files: map[string]bool{}}
	in := bufio.NewReader(io.LimitReader(r, MaxTranscript+1))
	for size := 0; ; v.lines++ {
		line, err := in.ReadBytes('\n')
		if size += len(line); size > MaxTranscript {
			return v.summary, fmt.Errorf("the transcript has more than %d octets", MaxTranscript)
		}
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return v.summary, fmt.Errorf("reading the transcript: %w", err)
		}
		e, hash, err := decode(line)
		if err == nil {
			err = v.follow(e)
		}
		if err != nil {
			return v.summary, fmt.Errorf("line %d of the transcript: %w", v.lines+1, err)
		}
		v.previous, v.summary.Head = hash, hash
	}
	return v.finish()
}

// verifier follows a transcript line by line.
type verifier struct {
	lines    int
	previous string
	closed   bool
	token    bool
	keys     map[string]*keyLine            // by authority
	issuers  map[string][]*x509.Certificate // the chains of authorities of earlier ceremonies
	open     *intent                        // the last, while it is unanswered
	files    map[string]bool
	summary  Summary
}

func (v *verifier) follow(e entry) error {
	switch {
	case v.closed:
		return errors.New("it stands after the end")
	case e.Number != v.lines+1:
		return fmt.Errorf("it is numbered %d", e.Number)
	case e.Previous != v.previous:
		return errors.New("it does not follow the line before it")
	case (e.Begin != nil) != (v.lines == 0):
		return errors.New("a transcript has one beginning, and it comes first")
	}
	if at, err := time.Parse(timeFormat, e.Time); err == nil {
		v.summary.Ended = at
	}
	switch {
	case e.Begin != nil:
		return v.begin(e.Begin)
	case e.Token != nil:
		return v.at(e.Token)
	case e.Issuer != nil:
		return v.issuer(e.Issuer)
	case e.Key != nil:
		return v.key(e.Key)
	case e.Intent != nil:
		return v.intend(e.Intent)
	case e.Signed != nil:
		return v.sign(e.Signed)
	case e.Artefact != nil:
		return v.artefact(e.Artefact)
	case e.Failed != nil:
		v.closed, v.summary.Failure = true, e.Failed.Reason
	case e.End != nil:
		return v.end(e.End)
	}
	return nil
}

func (v *verifier) begin(b *beginning) error {
	switch {
	case !nameForm.MatchString(b.Ceremony):
		return fmt.Errorf("%q is no ceremony's name", b.Ceremony)
	case digestOf(b.Plan) != b.Digest:
		return errors.New("the plan is not the one of the digest")
	}
	v.summary.Ceremony, v.summary.PlanDigest, v.summary.Plan, v.summary.Began = b.Ceremony, b.Digest, b.Plan, v.summary.Ended
	return nil
}

func (v *verifier) at(t *tokenLine) error {
	if v.token {
		return errors.New("a second token")
	}
	v.token, v.summary.Token = true, t.Serial
	return nil
}

func (v *verifier) issuer(i *issuerLine) error {
	if !nameForm.MatchString(i.Authority) {
		return fmt.Errorf("%q is no authority's name", i.Authority)
	}
	if v.issuers[i.Authority] != nil || v.keys[i.Authority] != nil {
		return fmt.Errorf("a second issuer %s", i.Authority)
	}
	chain, err := parseChain(i.Chain)
	if err != nil {
		return fmt.Errorf("the issuer %s: %w", i.Authority, err)
	}
	v.issuers[i.Authority] = chain
	v.summary.Issuers = append(v.summary.Issuers, IssuerUsed{Authority: i.Authority, Certificate: chain[0].Raw})
	return nil
}

func (v *verifier) key(k *keyLine) error {
	_, err := hex.DecodeString(k.ID)
	switch {
	case !v.token:
		return errors.New("a key without a token")
	case !nameForm.MatchString(k.Authority):
		return fmt.Errorf("%q is no name of whose key it is", k.Authority)
	case v.keys[k.Authority] != nil:
		return fmt.Errorf("a second key of %s", k.Authority)
	case err != nil || k.SPKIDigest != hexDigest(k.SPKI):
		return fmt.Errorf("the key of %s is not the one of its digest", k.Authority)
	}
	if _, err := x509.ParsePKIXPublicKey(k.SPKI); err != nil {
		return fmt.Errorf("the key of %s: %w", k.Authority, err)
	}
	if chain := v.issuers[k.Authority]; chain != nil && (k.Generated || !bytes.Equal(chain[0].RawSubjectPublicKeyInfo, k.SPKI)) {
		return fmt.Errorf("the key of %s is not that of its certificate", k.Authority)
	}
	v.keys[k.Authority] = k
	v.summary.Keys = append(v.summary.Keys, KeyUsed{Authority: k.Authority, Label: k.Label, ID: k.ID, Generated: k.Generated, SPKI: k.SPKI})
	return nil
}

func (v *verifier) intend(i *intent) error {
	certificate := i.Kind == issuance.Final && i.Serial != "" && i.Number == ""
	list := i.Kind == issuance.List && i.Serial == "" && i.Number != "" && i.Subject == i.Issuer
	switch {
	case v.open != nil:
		return fmt.Errorf("an intent while that for %s is unanswered", v.open.Subject)
	case !certificate && !list:
		return errors.New("the intent is neither for a certificate nor for a CRL")
	case certificate && v.issuers[i.Subject] != nil:
		return fmt.Errorf("an intent to certify %s, which has its certificate", i.Subject)
	case v.keys[i.Issuer] == nil || v.keys[i.Subject] == nil:
		return errors.New("an intent without a key")
	}
	v.open = i
	return nil
}

// sign checks that what was signed is what was intended, of the recorded subject, by the recorded key.
func (v *verifier) sign(s *signed) error {
	i := v.open
	if i == nil {
		return errors.New("a signature without an intent")
	}
	if hexDigest(s.DER) != s.SHA256 {
		return errors.New("what was signed is not what its digest says")
	}
	issuer, err := x509.ParsePKIXPublicKey(v.keys[i.Issuer].SPKI)
	if err != nil {
		return err
	}
	if i.Kind == issuance.List {
		err = checkList(s.DER, i, issuer)
	} else {
		err = checkCertificate(s.DER, i, issuer, v.keys[i.Subject].SPKI)
	}
	if err != nil {
		return err
	}
	v.open = nil
	v.summary.Signed = append(v.summary.Signed, Signed{Issuer: i.Issuer, Subject: i.Subject, Kind: i.Kind, SHA256: s.SHA256, DER: s.DER})
	return nil
}

var errOther = errors.New("what was signed is not what was intended")

func checkCertificate(der []byte, i *intent, issuer crypto.PublicKey, spki []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading the certificate of %s: %w", i.Subject, err)
	}
	if !bytes.Equal(c.RawTBSCertificate, i.TBS) || fmt.Sprintf("%040x", c.SerialNumber) != i.Serial {
		return fmt.Errorf("the certificate of %s: %w", i.Subject, errOther)
	}
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, spki) {
		return fmt.Errorf("the certificate of %s has another key", i.Subject)
	}
	return checkSignature(issuer, c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
}

func checkList(der []byte, i *intent, issuer crypto.PublicKey) error {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("reading the CRL of %s: %w", i.Issuer, err)
	}
	if !bytes.Equal(l.RawTBSRevocationList, i.TBS) || l.Number == nil || l.Number.String() != i.Number {
		return fmt.Errorf("the CRL of %s: %w", i.Issuer, errOther)
	}
	return checkSignature(issuer, l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature)
}

func checkSignature(issuer crypto.PublicKey, algorithm x509.SignatureAlgorithm, tbs, signature []byte) error {
	if algorithm == x509.SHA1WithRSA || algorithm == x509.ECDSAWithSHA1 { // which CheckSignature accepts
		return x509.InsecureAlgorithmError(algorithm)
	}
	if err := (&x509.Certificate{PublicKey: issuer}).CheckSignature(algorithm, tbs, signature); err != nil {
		return fmt.Errorf("the signature is not the recorded key's: %w", err)
	}
	return nil
}

// artefact checks that a file of a certificate or CRL holds what was signed, as DER or PEM.
func (v *verifier) artefact(f *fileLine) error {
	if v.files[f.Name] {
		return fmt.Errorf("the file %s is written twice", f.Name)
	}
	subject, form := f.subject()
	if form == "" || !nameForm.MatchString(subject) {
		return fmt.Errorf("the file %q is of no kind that ceremonies write", f.Name)
	}
	v.files[f.Name] = true
	v.summary.Artefacts = append(v.summary.Artefacts, Artefact{Name: f.Name, SHA256: f.SHA256})
	var certificate, list *Signed
	chain := v.chain(subject)
	if len(chain) > 0 {
		certificate = &chain[0]
	}
	for i, s := range v.summary.Signed {
		if s.Subject == subject && s.Kind == issuance.List {
			list = &v.summary.Signed[i]
		}
	}
	var holds []byte
	switch form {
	case bundleSuffix:
		return nil // says where things are; ReadBundle compares it with them
	case crlSuffix:
		if list != nil {
			holds = list.DER
		}
	case certificateSuffix:
		if certificate != nil {
			holds = certificate.DER
		}
	case pemSuffix:
		if certificate != nil {
			holds = pemOf(certificate.DER)
		}
	case chainSuffix:
		var ders [][]byte
		for _, c := range chain {
			ders = append(ders, c.DER)
		}
		holds = pemOf(ders...)
	case keySuffix:
		if k := v.keys[subject]; k != nil {
			holds = publicPEM(k.SPKI)
		}
	}
	if len(holds) == 0 || hexDigest(holds) != f.SHA256 {
		return fmt.Errorf("the file %s holds something that was not signed before", f.Name)
	}
	return nil
}

// chain is a subject's certificate and those above it, up to a root: what was signed here, then what an issuer had before.
func (v *verifier) chain(subject string) []Signed {
	var chain []Signed
	for range v.summary.Signed {
		for _, s := range v.summary.Signed {
			if s.Subject != subject || s.Kind == issuance.List {
				continue
			}
			chain = append(chain, s)
			if s.Issuer == subject {
				return chain
			}
			subject = s.Issuer
			break
		}
	}
	for _, c := range v.issuers[subject] {
		chain = append(chain, Signed{DER: c.Raw})
	}
	return chain
}

func (v *verifier) end(e *ending) error {
	switch {
	case v.open != nil:
		return errors.New("the end comes while an intent is unanswered")
	case e.Signatures != len(v.summary.Signed) || e.Artefacts != len(v.summary.Artefacts):
		return errors.New("the end counts other signatures or files than there are")
	}
	v.closed, v.summary.Complete = true, true
	return nil
}

func (v *verifier) finish() (Summary, error) {
	if v.open != nil {
		v.summary.Unanswered = append(v.summary.Unanswered, v.open.Subject)
	}
	switch {
	case v.lines == 0:
		return v.summary, errors.New("the transcript is empty")
	case v.summary.Complete:
		return v.summary, nil
	case v.summary.Failure != "":
		return v.summary, fmt.Errorf("%w: %s", ErrIncomplete, audit.Legible(v.summary.Failure, "| "))
	}
	return v.summary, fmt.Errorf("%w: it was interrupted", ErrIncomplete)
}
