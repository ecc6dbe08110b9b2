package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/hsm"
)

// guard decides what a key signs, from the bytes. What it remembers (counts, the last CRL numbers, the last checkpoint of a log) is taken
// from the journal at start, and so outlives the process; a total is not begun anew by a restart.
type guard struct {
	key *key

	mu      sync.Mutex
	count   uint64 // signatures reserved so far
	numbers numbers
	size    uint64  // of the tree in the last checkpoint; 0: none was signed
	text    string  // SHA-256 of that checkpoint, in hexadecimal; empty: not known
	tokens  float64 // of the bucket that bounds the rate
	filled  time.Time
}

// memory is what a guard remembers beyond its process.
type memory struct {
	// Name is what the key was last called in the policy. It is empty where the key is known by that name alone: in what was written before
	// entries named the key itself.
	Name    string  `json:"name,omitempty"`
	Count   uint64  `json:"count"`
	Numbers numbers `json:"numbers,omitempty"`
	Size    uint64  `json:"size,omitempty"`
	Text    string  `json:"text,omitempty"` // SHA-256 of the checkpoint of that size
}

func newGuard(k *key, m memory) (*guard, error) {
	g := &guard{key: k, count: m.Count, size: m.Size, text: m.Text, numbers: numbers{}}
	for scope, text := range m.Numbers {
		if _, err := ParseCRLNumber(text); err != nil {
			return nil, refuse("the journal's CRL number of scope %q cannot be read", scope)
		}
		g.numbers[scope] = text
	}
	return g, nil
}

// reading is what the guard read from the bytes.
type reading struct {
	kind   kind
	detail string // the serial number, the CRL number, the size of the tree
	list   list   // of a CRL
	size   uint64 // of a checkpoint's tree
	root   []byte // of that tree
	text   string // SHA-256 of a checkpoint, in hexadecimal
	status string // in an OCSP answer
}

// scope is what the journal says of the reading beside its detail.
func (r reading) scope() string {
	if r.kind == kindOCSP {
		return r.status
	}
	return r.list.scope
}

// read parses the bytes and holds them against the policy. It changes nothing.
func (k *key) read(message []byte, now time.Time) (reading, error) {
	if k.Checkpoints != nil && bytes.HasPrefix(message, []byte(k.Checkpoints.Origin+"\n")) {
		size, root, err := k.checkpoint(message)
		return reading{kind: kindCheckpoint, detail: strconv.FormatUint(size, 10), size: size, root: root}, err
	}
	r := reading{kind: kindUnknown}
	inner, err := sequence(message, "what is to be signed")
	if err != nil {
		return r, refuse("it is nothing that a key here signs")
	}
	switch {
	case inner.PeekASN1Tag(der.Tag(0).ContextSpecific().Constructed()):
		r.kind = kindCertificate
		r.detail, err = k.certificate(inner, now)
	case isRequest(inner):
		r.kind = kindRequest
		r.detail, err = k.request(inner)
	case inner.PeekASN1Tag(der.INTEGER):
		r.kind = kindCRL
		if r.list, err = k.crl(inner, now); err == nil {
			r.detail = r.list.number.String()
		}
	case inner.PeekASN1Tag(der.Tag(1).ContextSpecific().Constructed()), inner.PeekASN1Tag(der.Tag(2).ContextSpecific().Constructed()):
		r.kind = kindOCSP
		r.detail, r.status, err = k.ocsp(inner, now)
	default:
		err = refuse("it is nothing that a key here signs")
	}
	return r, err
}

// admit reads the bytes and, if the policy allows them and the limits leave room, counts them. What is counted stays counted even if the
// signature then fails: a CRL number that may have been signed is not free any more. That there is no room in this second is no refusal,
// but passes by itself (hsm.ErrUnavailable).
func (g *guard) admit(request signRequest, digest [sha256.Size]byte, now time.Time) (reading, error) {
	r, err := g.key.read(request.message, now)
	if err != nil {
		return r, err
	}
	r.text = hex.EncodeToString(digest[:])
	if request.hash != g.key.algorithm.hash {
		return r, refuse("the key signs with another hash")
	}
	if request.extends != nil && r.kind != kindCheckpoint {
		return r, refuse("only a checkpoint extends another")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.checkProgress(r, request.extends, now); err != nil {
		return r, err
	}
	if g.key.Total > 0 && g.count >= g.key.Total {
		return r, refuse("the key has signed as often as its policy permits (%d)", g.key.Total)
	}
	if !g.take(now) {
		return r, fmt.Errorf("%w: the key %q signs at most %g times a second", hsm.ErrUnavailable, g.key.Name, g.key.PerSecond)
	}
	g.count++
	g.note(r)
	return r, nil
}

// checkProgress refuses what goes back: a CRL number that does not rise, a tree that does not extend the last one.
func (g *guard) checkProgress(r reading, x *consistency, now time.Time) error {
	if r.kind == kindCRL {
		return g.checkNumber(r.list, now)
	}
	if r.kind == kindCheckpoint {
		return g.checkConsistency(r, x)
	}
	return nil
}

func (g *guard) note(r reading) {
	switch r.kind {
	case kindCRL:
		g.numbers.note(r.list.scope, r.detail)
	case kindCheckpoint:
		g.size, g.text = r.size, r.text
	}
}

// take is a token bucket of twice the rate, and of two at the least: as many as a certificate with its precertificate needs. Calls end in
// another order than they began; a moment that has passed fills nothing.
func (g *guard) take(now time.Time) bool {
	if g.key.PerSecond == 0 {
		return true
	}
	burst := max(2*g.key.PerSecond, 2)
	switch since := now.Sub(g.filled); {
	case g.filled.IsZero():
		g.tokens, g.filled = burst, now
	case since > 0:
		g.tokens, g.filled = min(burst, g.tokens+since.Seconds()*g.key.PerSecond), now
	case since < -time.Minute: // the clock was put back
		g.filled = now
	}
	if g.tokens < 1 {
		return false
	}
	g.tokens--
	return true
}
