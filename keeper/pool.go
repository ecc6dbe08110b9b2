package keeper

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// healthEvery is how often each copy of a key that is in several tokens is made to sign.
	healthEvery = 2 * time.Second
	healthRest  = 15 // rounds that a healthy copy is left alone
)

// held is a key and where it is.
type held struct {
	key    *key
	guard  *guard
	places []*place // one for each token that holds it
	turn   atomic.Uint32
	// hurried counts what was asked for beyond the key's rate since the log told of it, which it does at intervals.
	hurried atomic.Uint64
	tell    rate.Sometimes
}

// place is a key in one token.
type place struct {
	token *token
	index int // among the keys of the worker
	// sick is true from a wrong signature, or none, to the next good one of the health check. Of a key that is in one token alone it is never
	// set: there is no other to turn to.
	sick atomic.Bool
}

// errWrongSignature means that a token answered with what is no signature of the key.
var errWrongSignature = fmt.Errorf("%w: the token signed wrongly", hsm.ErrUnavailable)

// sign has one of the tokens sign, and when it does not, whatever it says, another: what is signed the guard has admitted, and each of them
// should sign it. Copies of a key are only as good as the tokens that they were restored into, so the signatures of a key that is in
// several are verified here.
func (h *held) sign(hash crypto.Hash, digest []byte) (signature []byte, err error) {
	if len(h.places) == 1 {
		return h.places[0].sign(hash, digest)
	}
	for _, p := range h.order() {
		signature, err = p.sign(hash, digest)
		if err == nil && !verifies(h.key.public, hash, digest, signature) {
			err = errWrongSignature
		}
		if err == nil {
			return signature, nil
		}
		p.sick.Store(true)
	}
	return nil, err
}

// away tells why no token with the key is there; nil when one is.
func (h *held) away() error {
	var why []error
	for _, p := range h.places {
		_, err := p.token.state()
		if err == nil {
			return nil
		}
		why = append(why, err)
	}
	return errors.Join(why...)
}

func (p *place) sign(hash crypto.Hash, digest []byte) ([]byte, error) {
	return p.token.sign(digestRequest{key: p.index, hash: hash, digest: digest})
}

// order is the places to try: the healthy ones by turns, then the others.
func (h *held) order() []*place {
	n := len(h.places)
	from := int(h.turn.Add(1))
	healthy, sick := make([]*place, 0, n), []*place(nil)
	for i := range n {
		p := h.places[(from+i)%n]
		if _, err := p.token.state(); err != nil || p.sick.Load() {
			sick = append(sick, p)
			continue
		}
		healthy = append(healthy, p)
	}
	return append(healthy, sick...)
}

// verifies checks a signature over a digest; over a message where there is no hash.
func verifies(public crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, digest, signature)
	}
	return false
}

// checkHealth has each copy of a key sign from time to time, those that failed more often.
func (k *Keeper) checkHealth(ctx context.Context, h *held) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		for _, p := range h.places {
			if p.sick.Load() || round%healthRest == 0 {
				k.checkPlace(h, p)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkPlace has one copy of a key sign something of the keeper's own making, which never leaves the keeper.
func (k *Keeper) checkPlace(h *held, p *place) {
	random := make([]byte, 16)
	if _, err := io.ReadFull(k.config.Random, random); err != nil {
		return
	}
	message := healthMessage(random)
	sum := sha256.Sum256(message[:])
	digest := digested(h.key.algorithm.hash, message[:], sum[:])
	signature, err := p.sign(h.key.algorithm.hash, digest)
	if err == nil && !verifies(h.key.public, h.key.algorithm.hash, digest, signature) {
		err = errWrongSignature
	}
	was := p.sick.Swap(err != nil)
	e := entry{
		Key: h.key.Name, SPKI: h.key.inHex, Kind: kindHealth, Detail: p.token.Name, SHA256: hex.EncodeToString(digest), Result: resultSigned,
	}
	if err != nil {
		e.Result, e.Why = resultFailed, err.Error()
	}
	// A token that is away is asked for nothing; that it is away is not written down again and again.
	if err == nil || !was || errors.Is(err, errWrongSignature) {
		if err := k.journal.add(e); err != nil {
			k.config.Log.Error("the health of a key could not be written down", "error", err)
		}
	}
	if was != (err != nil) {
		k.config.Log.Warn("the health of a key in a token has changed", "key", h.key.Name, "token", p.token.Name, "healthy", err == nil, "error",
			err)
	}
}

// healthMessage is what a key signs to show that it can: nothing that anybody takes for a certificate, and different each time.
func healthMessage(random []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("chancery keeper: this key answers\n"), random...))
}
