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
	*hsm.Token
	declared hsm.Declaration
}

// openTokens opens those of the configured tokens that hold a key of the authorities. Which they are is asked of the modules before
// anybody logs in, so that a token nobody needs is left alone.
func (s *service) openTokens(ctx context.Context, a *app, authorities []ca.AuthorityRecord, observer hsm.Observer) error {
	configured := s.cfg.allTokens()
	s.tokens = map[string]*openToken{}
	needed := map[string]bool{}
	for _, record := range authorities {
		needed[record.Key.Token] = true
	}
	for _, c := range configured {
		if len(configured) > 1 {
			serial, err := serialOf(ctx, c.HSMConfig)
			if err != nil {
				return fmt.Errorf("token %q: %w", c.Name, err)
			}
			if !needed[serial] {
				s.log.InfoContext(ctx, "the token holds no authority's key and is not opened", "token", c.Name, "serial", serial)
				continue
			}
		}
		token, err := a.openToken(ctx, c.HSMConfig, serviceActor, observer)
		if err != nil {
			return fmt.Errorf("token %q: %w", c.Name, err)
		}
		s.tokens[token.Info().Serial] = &openToken{token, c.declaration()}
	}
	return nil
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
		return "", fmt.Errorf("%w with %s in %s; `chancery hsm list --module %[3]s` shows what there is", hsm.ErrNoToken, c.Token.selector(), c.Module)
	case 1:
		return serials[0], nil
	}
	return "", fmt.Errorf("%w: %s has the tokens with the serials %s; name one by its serial", hsm.ErrAmbiguous, c.Token.selector(), strings.Join(serials, ", "))
}

// tokenOf is the open token that holds an authority's key.
func (s *service) tokenOf(record ca.AuthorityRecord) (*openToken, error) {
	if token := s.tokens[record.Key.Token]; token != nil {
		return token, nil
	}
	open := slices.Sorted(maps.Keys(s.tokens))
	if record.Key.Token == "" && len(open) == 1 {
		return s.tokens[open[0]], nil
	}
	return nil, fmt.Errorf("its key is in the token with serial %s, and the configured tokens that hold a key have the serials %s; "+
		"add it to tokens", record.Key.Token, strings.Join(open, ", "))
}

// signer is a key in the token, if it and the token are what is required.
func (t *openToken) signer(required hsm.Requirement, ref hsm.KeyRef, want crypto.PublicKey) (hsm.Signer, error) {
	if err := required.CheckToken(t.Info(), t.declared); err != nil {
		return nil, err
	}
	signer, err := t.Token.Signer(ref, want)
	if err != nil {
		return nil, err
	}
	attributes, err := t.Token.Attributes(ref)
	if err != nil {
		return nil, err
	}
	return signer, required.CheckKey(attributes)
}

// serviceObserver counts the operations of the service's tokens, and records those that no transaction records: the event of an
// authority's signature rides with what was signed.
type serviceObserver struct {
	metrics *web.Metrics
	store   *storage.Store
	log     *slog.Logger
}

// Observe records one operation.
func (o serviceObserver) Observe(ctx context.Context, op hsm.Operation) error {
	o.metrics.HSMOperation(string(op.Op), op.Duration)
	if op.Op == hsm.OpSign || op.Op == hsm.OpRandom {
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
