package keeper

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// closeTime is how long is waited for a token to be closed. A library that hangs keeps nobody.
const closeTime = 2 * time.Second

// tokenKey is a key that is to be found in a token.
type tokenKey struct {
	Name     string `json:"name"`
	Label    string `json:"label"`
	ID       []byte `json:"id"`
	SPKI     []byte `json:"spki"` // the pinned public key
	Restored bool   `json:"restored"`
	// Require is what the key and its token must be, and Declared what the operator says of the token.
	Require  hsm.Requirement `json:"require"`
	Declared hsm.Declaration `json:"declared"`
}

// findings are what is found when a token is opened.
type findings struct {
	Token hsm.TokenInfo `json:"token"`
	Wrong []string      `json:"wrong"` // what is wrong with keys that were not found or not taken
	// Lacks says, by the names of keys, what keys or the token lack of what is required of them.
	Lacks map[string]string `json:"lacks,omitempty"`
}

// opened is a token whose library is loaded in this process, and the keys in it.
type opened struct {
	token *hsm.Recovering
	keys  []*openKey
}

// open opens the token, logs in, and looks for the keys. One that is not found is no error: it is looked for again when it is asked for.
func open(ctx context.Context, c hsm.Config, keys []tokenKey, log *slog.Logger) (*opened, findings, error) {
	token, err := hsm.OpenRecovering(ctx, c, log)
	if err != nil {
		return nil, findings{}, err
	}
	o := &opened{token: token}
	found := findings{Token: token.Info(), Lacks: map[string]string{}}
	for _, k := range keys {
		one := &openKey{tokenKey: k}
		if _, err := one.find(token); err != nil {
			found.Wrong = append(found.Wrong, fmt.Sprintf("key %q: %v", k.Name, err))
			if errors.Is(err, hsm.ErrNotCompliant) {
				found.Lacks[k.Name] = err.Error()
			}
		}
		o.keys = append(o.keys, one)
	}
	return o, found, nil
}

// sign signs a digest with one of the keys.
func (o *opened) sign(r digestRequest) ([]byte, error) {
	if r.key >= len(o.keys) {
		return nil, fmt.Errorf("%w: a request for key %d", ErrProtocol, r.key)
	}
	signer, err := o.keys[r.key].find(o.token)
	if err != nil {
		return nil, err
	}
	return signer.Sign(nil, r.digest, r.hash)
}

// stuck waits until the token, which was lost, has been being opened anew for longer than it may be, or until the context ends. Only the end of
// the process ends such a call.
func (o *opened) stuck(ctx context.Context, limit time.Duration) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if o.token.Busy() > limit {
			return fmt.Errorf("%w: the library did not come back within %s from opening the token anew", hsm.ErrUnavailable, limit)
		}
	}
}

// close closes the token, unless its library does not answer.
func (o *opened) close() error {
	closed := make(chan error, 1)
	go func() { closed <- o.token.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTime):
		return errors.New("closing the token: the library does not answer")
	}
}

// openKey is a key in an opened token.
type openKey struct {
	tokenKey
	mu     sync.Mutex
	signer hsm.Signer
	err    error
	at     time.Time
}

// find finds the key in the token; one that was not there is looked for again, at most once a second.
func (k *openKey) find(token *hsm.Recovering) (hsm.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil {
		return k.signer, nil
	}
	if k.err != nil && time.Since(k.at) < time.Second {
		return nil, k.err
	}
	k.at = time.Now()
	public, err := x509.ParsePKIXPublicKey(k.SPKI)
	if err == nil {
		terms := hsm.Terms{Restored: k.Restored, Require: k.Require, Declared: k.Declared}
		k.signer, err = token.Signer(hsm.KeyRef{Label: k.Label, ID: k.ID}, public, terms)
	}
	if k.err = err; err != nil && !unavailable(err) {
		k.err = fmt.Errorf("%w: %w", hsm.ErrUnavailable, err)
	}
	return k.signer, k.err
}
