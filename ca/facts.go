package ca

import (
	"context"
	"fmt"

	"github.com/chancery-ca/chancery/policies"
)

// KeyLists are lists of keys that nobody may have certified.
type KeyLists interface {
	// Listed are the titles of the lists in which a key stands (SHA-256 of its SubjectPublicKeyInfo).
	Listed(spki [32]byte) (titles []string, err error)
}

// CAAResolver asks the DNS which authorities may certify a name (RFC 8659).
type CAAResolver interface {
	// Lookup has an answer for each DNS name, in their order and within a bounded time. That a name could not be asked about is an
	// answer, too.
	Lookup(ctx context.Context, names []string) []policies.CAAAnswer
}

// CAA says how the authority deals with CAA records. Without a resolver, profiles that ask for them issue nothing.
type CAA struct {
	Resolver CAAResolver
	Domains  []string // by which records name the authority (RFC 8659, section 4.2)
}

// noKeyLists is what an authority without lists has.
type noKeyLists struct{}

func (noKeyLists) Listed([32]byte) ([]string, error) { return nil, nil }

// decision completes a request with the facts that its decision comes to depend on, and has it decided. Those that cost much are gathered
// only where nothing else stands in the way. Whether the key is compromised may be presumed: what the policies then let through at once
// goes to the store with that, and the intent is refused if it is not so.
func (c *CA) decision(ctx context.Context, rules *policies.Set, r *policies.Request, spki [32]byte, presumed bool) (_ *policies.Decision, err error) {
	if r.KeyLists, err = c.keyLists.Listed(spki); err != nil {
		return nil, fmt.Errorf("deciding: %w: %w", ErrUnavailable, err)
	}
	if presumed {
		if decision := rules.Decide(*r); decision.Verdict() == policies.Allow && decision.Awaits().None() {
			return decision, nil
		}
	}
	if r.CompromisedKey, err = c.store.KeyCompromised(ctx, spki); err != nil {
		return nil, fmt.Errorf("deciding: looking the key up: %w", err)
	}
	decision := rules.Decide(*r)
	awaits := decision.Awaits()
	if awaits.None() {
		return decision, nil
	}
	if awaits.KeyHistory {
		if r.KeyHistory, err = c.store.KeyHistory(ctx, spki); err != nil {
			return nil, fmt.Errorf("deciding: looking the key's history up: %w", err)
		}
	}
	if len(awaits.CAA) > 0 && c.caa.Resolver != nil {
		began := c.now()
		r.CAA = c.caa.Resolver.Lookup(ctx, awaits.CAA)
		c.metrics.LookedUpCAA(failures(r.CAA), c.now().Sub(began))
	}
	return rules.Decide(*r), nil
}

func failures(answers []policies.CAAAnswer) (n int) {
	for _, a := range answers {
		if a.Failure != "" {
			n++
		}
	}
	return n
}
