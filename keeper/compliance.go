package keeper

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/hsm"
)

// A key's policy says what the key and each of its tokens must be (hsm.Requirement). Whoever has the token open holds them to it whenever
// the key is found, after a loss as well: one that falls short signs nothing. A client that has requirements of its own asks, before it
// uses the key, whether the policy covers them; so a token that is away, or that comes later, cannot slip through.

// standing is the answer to frameStanding, in JSON.
type standing struct {
	Required  hsm.Requirement `json:"required"`             // what the key is held to
	Lacks     []string        `json:"lacks,omitempty"`      // what its tokens were seen to lack
	PerSecond float64         `json:"per_second,omitempty"` // KeyPolicy.PerSecond
}

// Required is what a key is held to: by its policy, and, unless it was restored, as every key is.
func (p KeyPolicy) Required() hsm.Requirement {
	if p.Restored {
		return p.Require
	}
	return p.Require.And(hsm.Requirement{Local: true, NeverExtractable: true})
}

// standing is what is known of a key.
func (h *held) standing() standing {
	s := standing{Required: h.key.Required(), PerSecond: h.key.PerSecond}
	for _, p := range h.places {
		if lack := p.token.lacking(h.key.Name); lack != "" {
			s.Lacks = append(s.Lacks, lack)
		}
	}
	return s
}

// standing answers a client that asks what a key is held to.
func (c *client) standing(body []byte) (answer []byte, failure, err error) {
	var id keyID
	if copy(id[:], body) != len(id) || len(body) != len(id) {
		return nil, nil, fmt.Errorf("%w: a key identifier of %d octets", ErrProtocol, len(body))
	}
	h := c.keeper.keys[id]
	if h == nil {
		return nil, fmt.Errorf("%w: with the identifier %x", ErrUnknownKey, id), nil
	}
	answer, err = json.Marshal(h.standing())
	return answer, nil, err
}

// Complies asks the keeper what it holds the key with the given public key to. The error wraps hsm.ErrNotCompliant where that is less than
// required, or where a token was seen not to meet it.
func (c *Client) Complies(ctx context.Context, public crypto.PublicKey, required hsm.Requirement) error {
	if err := c.complies(ctx, public, required); err != nil {
		return fmt.Errorf("asking the keeper what it holds the key to: %w", err)
	}
	return nil
}

func (c *Client) complies(ctx context.Context, public crypto.PublicKey, required hsm.Requirement) error {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	s, err := c.standing(ctx, sha256.Sum256(spki))
	if err != nil {
		return err
	}
	if !s.Required.Covers(required) {
		return fmt.Errorf("%w: %s is required, and the keeper holds the key to %s: write the rest under `require` in its key policy",
			hsm.ErrNotCompliant, required, s.Required)
	}
	if len(s.Lacks) > 0 {
		return fmt.Errorf("%w: %s", hsm.ErrNotCompliant, strings.Join(slices.Compact(slices.Sorted(slices.Values(s.Lacks))), "; "))
	}
	return nil
}

// standing asks the keeper what is known of a key.
func (c *Client) standing(ctx context.Context, id keyID) (s standing, err error) {
	body, err := c.askAlone(ctx, frameStanding, id[:])
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return s, nil
}
