package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/web"
)

// serviceActor is who the service's own operations on a token are caused by.
const serviceActor = "service"

// openToken is an open token, and what the configuration declares of it.
type openToken struct {
	*hsm.Recovering
	declared hsm.Declaration
}

// ownKeys are the keys in tokens that this process has open.
type ownKeys struct {
	cfg    Config
	tokens map[string]*openToken // by serial
}

// openTokens opens those of the configured tokens that hold a key of the authorities. Which they are is asked of the modules before
// anybody logs in, so that a token nobody needs is left alone.
func (a *app) openTokens(ctx context.Context, cfg Config, authorities []ca.AuthorityRecord, observer hsm.Observer,
	log *slog.Logger,
) (_ *ownKeys, err error) {
	configured := cfg.allTokens()
	p := &ownKeys{cfg: cfg, tokens: map[string]*openToken{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	needed := map[string]bool{}
	for _, record := range authorities {
		needed[record.Key.Token] = true
	}
	switch logKey, err := cfg.logKey(ctx); {
	case err != nil:
		return nil, err
	case logKey != nil:
		needed[logKey.Key.Token] = true
	}
	for _, c := range configured {
		if len(configured) > 1 {
			serial, err := serialOf(ctx, c.HSMConfig)
			if err != nil {
				return nil, fmt.Errorf("token %q: %w", c.Name, err)
			}
			if !needed[serial] {
				log.InfoContext(ctx, "the token holds no key that is needed and is not opened", "token", c.Name, "serial", serial)
				continue
			}
		}
		token, err := a.openRecovering(ctx, c.HSMConfig, serviceActor, observer, log)
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", c.Name, err)
		}
		p.tokens[token.Info().Serial] = &openToken{token, c.FIPS140.declaration()}
	}
	return p, nil
}

// serials are the serials of the open tokens.
func (p *ownKeys) serials() []string { return slices.Sorted(maps.Keys(p.tokens)) }

// Close closes the tokens.
func (p *ownKeys) Close() (err error) {
	for _, token := range p.tokens {
		err = errors.Join(err, token.Close())
	}
	return err
}

// serialOf finds the serial of a configured token without logging in.
func serialOf(ctx context.Context, c HSMConfig) (string, error) {
	if c.Token.Serial != "" {
		return c.Token.Serial, nil
	}
	module, err := hsm.List(ctx, hsm.ListConfig{Module: c.Module, Actor: serviceActor})
	if err != nil {
		return "", err
	}
	var serials []string
	for _, slot := range module.Slots {
		if t := slot.Token; t != nil && (c.Token.Label == "" || c.Token.Label == t.Label) && (c.Token.Slot == nil || *c.Token.Slot == slot.ID) {
			serials = append(serials, t.Serial)
		}
	}
	switch len(serials) {
	case 0:
		return "", fmt.Errorf("%w with %s in %s; `chancery hsm list --module %[3]s` shows what there is", hsm.ErrNoToken, c.Token.selector(),
			c.Module)
	case 1:
		return serials[0], nil
	}
	return "", fmt.Errorf("%w: %s has the tokens with the serials %s; name one by its serial", hsm.ErrAmbiguous, c.Token.selector(),
		strings.Join(serials, ", "))
}

// tokenOf is the open token that holds an authority's key.
func (p *ownKeys) tokenOf(record ca.AuthorityRecord) (*openToken, error) {
	if token := p.tokens[record.Key.Token]; token != nil {
		return token, nil
	}
	open := p.serials()
	if record.Key.Token == "" && len(open) == 1 {
		return p.tokens[open[0]], nil
	}
	return nil, fmt.Errorf("its key is in the token with serial %s, and the configured tokens that hold a key have the serials %s; "+
		"add it to tokens", record.Key.Token, strings.Join(open, ", "))
}

// signer is an authority's key, if it and its token are what the configuration requires.
func (p *ownKeys) signer(_ context.Context, record ca.AuthorityRecord, public crypto.PublicKey) (crypto.Signer, error) {
	token, err := p.tokenOf(record)
	if err != nil {
		return nil, err
	}
	ref := hsm.KeyRef{Label: record.Key.Label, ID: record.Key.ID}
	return token.Signer(ref, public, hsm.Terms{Require: p.cfg.requiredOf(record), Declared: token.declared})
}

// serviceObserver counts the operations of the service's tokens, and records those that no transaction records: the event of an
// authority's signature rides with what was signed. One that failed or was refused signed nothing that it could ride with.
type serviceObserver struct {
	metrics *web.Metrics
	store   *storage.Store
	log     *slog.Logger
}

// Observe records one operation.
func (o serviceObserver) Observe(ctx context.Context, op hsm.Operation) error {
	o.metrics.HSMOperation(string(op.Op), op.Duration)
	if op.Op == hsm.OpSign && op.Err == nil || op.Op == hsm.OpRandom {
		return nil
	}
	err := recordOperation(ctx, o.store, op)
	if err != nil && op.Op == hsm.OpClose {
		o.log.Error("closing a token could not be recorded", "error", err)
		return nil // the token is to be released all the same
	}
	return err
}

// recordOperation appends an operation to the database's audit log.
func recordOperation(ctx context.Context, store *storage.Store, op hsm.Operation) error {
	actor := op.Actor
	if actor == "" {
		return errors.New("nobody is named who causes it")
	}
	leaf, err := audit.New(audit.Event{ID: newID(), Kind: audit.HSMOperation, Time: op.Began, Actor: actor, Data: operationData(op)})
	if err != nil {
		return err
	}
	return store.RecordEvents(ctx, leaf)
}
