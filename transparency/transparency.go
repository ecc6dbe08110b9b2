// Package transparency is the way to certificate transparency logs (RFC 6962, and the static logs of c2sp.org/static-ct-api): a
// precertificate goes in, and a list of signed certificate timestamps comes out, each verified against the key of its log.
//
// It owns the list of logs, the choice among them, and the waiting for them. It also verifies the timestamps of a finished certificate
// and their inclusion in the logs. Nothing that a log says is believed: a timestamp counts when its signature, its log, its time and
// its extensions are as they must be.
package transparency

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	ct "github.com/google/certificate-transparency-go"
)

// Log is a certificate transparency log. Valid logs come from NewLog and ParseLogList. It must not be changed.
type Log struct {
	Description string // its name, unique in a list
	Operator    string
	URL         string // what the paths of submissions are joined to: https://log.example/2027
	Monitoring  string // of a static log: what the paths of its tiles are joined to; empty: an RFC 6962 log
	Key         []byte // SubjectPublicKeyInfo, DER
	ID          [sha256.Size]byte
	MMD         time.Duration // within which an entry that has a timestamp is in the tree
	// From and Until bound the notAfter of what the log takes: From counts, Until does not. Zero is no bound.
	From, Until time.Time
	State       string // "usable" logs are submitted to; all serve to verify

	verifier *ct.SignatureVerifier
}

// The states of a log that matter. A list may have others: pending, qualified, readonly, retired, rejected.
const (
	Usable  = "usable"
	NoState = "without a state"
)

// Static tells a log of c2sp.org/static-ct-api: submissions are those of RFC 6962, its timestamps tell the index of the entry, and its
// tree is read as tiles.
func (l *Log) Static() bool { return l.Monitoring != "" }

// Accepts tells whether the log takes certificates that end at a time.
func (l *Log) Accepts(notAfter time.Time) bool {
	return (l.From.IsZero() || !notAfter.Before(l.From)) && (l.Until.IsZero() || notAfter.Before(l.Until))
}

// FieldError is what is wrong with a log's description: which field, and how it would be right.
type FieldError struct{ Field, Message, Hint string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// NewLog completes and checks a log whose exported fields are set, but for ID, which follows from the key. An error is a *FieldError.
func NewLog(l Log) (*Log, error) {
	l.Description, l.Operator = strings.TrimSpace(l.Description), strings.TrimSpace(l.Operator)
	switch {
	case l.Description == "":
		return nil, &FieldError{"description", "the log has no name", "give it one by which profiles and metrics may name it"}
	case l.Operator == "":
		return nil, &FieldError{"operator", "the log has no operator", "name who runs it: profiles ask for different operators"}
	case l.MMD < 0:
		return nil, &FieldError{"mmd", fmt.Sprintf("%s is not a delay", l.MMD), "usual is 24h"}
	case !l.From.IsZero() && !l.Until.IsZero() && !l.Until.After(l.From):
		return nil, &FieldError{"temporal_interval", "it ends before it begins", ""}
	}
	var err error
	if l.URL, err = cleanURL(l.URL); err != nil {
		return nil, &FieldError{"url", err.Error(), "for example https://log.example/2027h1"}
	}
	if l.Monitoring != "" {
		if l.Monitoring, err = cleanURL(l.Monitoring); err != nil {
			return nil, &FieldError{"monitoring_url", err.Error(), "for example https://tiles.log.example/2027h1"}
		}
	}
	public, err := logKey(l.Key)
	if err != nil {
		return nil, &FieldError{"key", err.Error(), "a SubjectPublicKeyInfo in DER, base64: ECDSA on P-256, or RSA of 2048 bits and more"}
	}
	l.ID = sha256.Sum256(l.Key)
	if l.verifier, err = ct.NewSignatureVerifier(public); err != nil {
		return nil, &FieldError{"key", err.Error(), ""}
	}
	return &l, nil
}

// logKey reads a log's key (RFC 6962, section 2.1.4).
func logKey(spki []byte) (crypto.PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, errors.New("it is not a public key")
	}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 {
			return key, nil
		}
	}
	return nil, errors.New("it is not a key that a log signs with")
}

// cleanURL is a URL to join paths to.
func cleanURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not the address of a log", text)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func (l *Log) String() string { return fmt.Sprintf("%s (%s)", l.Description, l.Operator) }

// Unique tells what is wrong with logs in one list: two of one name or of one key.
func Unique(logs []*Log) error {
	names, keys := map[string]bool{}, map[[sha256.Size]byte]bool{}
	for _, l := range logs {
		switch {
		case names[l.Description]:
			return fmt.Errorf("two logs are called %q", l.Description)
		case keys[l.ID]:
			return fmt.Errorf("the log %q has the key of another: %s", l.Description, base64.StdEncoding.EncodeToString(l.ID[:]))
		}
		names[l.Description], keys[l.ID] = true, true
	}
	return nil
}
