package main

import (
	"cmp"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/strictyaml"
)

// The kinds of isolation: where keys are used.
const (
	isolationNone   = "none"
	isolationKeeper = "keeper"
	isolationChild  = "child"
)

// keyring is where the keys of the authorities are, whichever process that is.
type keyring interface {
	// signer is an authority's key, whose public half must be the given one.
	signer(ctx context.Context, record ca.AuthorityRecord, public crypto.PublicKey) (crypto.Signer, error)
	// serials are the serial numbers of the tokens, as far as they are known.
	serials() []string
	Close() error
}

// openKeys opens the keys in this process, or reaches the keeper that has them.
func (a *app) openKeys(ctx context.Context, cfg Config, records []ca.AuthorityRecord, observer hsm.Observer,
	log *slog.Logger,
) (keyring, error) {
	switch c := cfg.HSM; c.Isolation {
	case isolationKeeper:
		return &kept{cfg: cfg, client: keeper.NewClient(c.Socket, 0)}, nil
	case isolationChild:
		child, err := startChild(ctx, cfg, records, a.Stderr, log)
		if err != nil {
			return nil, err
		}
		log.InfoContext(ctx, "the keys are used by a child of this process: that keeps a library's crash out, and is no boundary", "socket",
			c.Socket)
		return &kept{cfg: cfg, client: keeper.NewClient(c.Socket, 0), child: child}, nil
	}
	own, err := a.openTokens(ctx, cfg, records, observer, log)
	if err != nil {
		return nil, err
	}
	return own, nil
}

// kept are keys that a keeper has.
type kept struct {
	cfg    Config
	client *keeper.Client
	child  *childKeeper // nil: the keeper is a service of its own
	tokens []string
}

func (k *kept) signer(ctx context.Context, record ca.AuthorityRecord, public crypto.PublicKey) (crypto.Signer, error) {
	signer, key, err := k.client.Signer(ctx, public)
	if err != nil {
		return nil, err
	}
	if required := k.cfg.requiredOf(record); required != (hsm.Requirement{}) {
		if err := k.client.Complies(ctx, public, required); err != nil {
			return nil, err
		}
	}
	// Where a key was restored into other tokens, the one that it was made in need not be among them; that is the keeper's policy to say.
	for _, serial := range key.Tokens {
		if !slices.Contains(k.tokens, serial) {
			k.tokens = append(k.tokens, serial)
		}
	}
	return signer, nil
}

func (k *kept) serials() []string { return k.tokens }

func (k *kept) Close() error {
	err := k.client.Close()
	if k.child != nil {
		err = errors.Join(err, k.child.stop())
	}
	return err
}

// childStart is how long a child may take until it serves: longer than each of its tokens may take to be opened.
func childStart(cfg Config) (longest time.Duration) {
	for _, t := range cfg.allTokens() {
		longest = max(longest, t.openWithin())
	}
	return longest + 10*time.Second
}

// openWithin is how long opening the token may take.
func (h HSMConfig) openWithin() time.Duration {
	return cmp.Or(time.Duration(h.Timeouts.Open), openAfter)
}

// childKeeper is a keeper whose supervisor is this process.
type childKeeper struct {
	cancel context.CancelFunc
	ended  chan error
}

// startChild writes the child's configuration, starts it, and waits until it serves.
func startChild(ctx context.Context, cfg Config, records []ca.AuthorityRecord, stderr io.Writer, log *slog.Logger) (*childKeeper, error) {
	config, err := writeChildConfig(cfg, records)
	if err != nil {
		return nil, fmt.Errorf("configuring the keeper: %w", err)
	}
	holder, err := holderOf(config, stderr)
	if err != nil {
		return nil, err
	}
	listener, err := keeper.Listen(cfg.HSM.Socket)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &childKeeper{cancel: cancel, ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		err := keeper.Supervise(running, listener, holder, func() { close(ready) }, log)
		k.ended <- errors.Join(err, listener.Close())
	}()
	limit := childStart(cfg)
	select {
	case <-ready:
		return k, nil
	case err := <-k.ended:
		cancel()
		return nil, err
	case <-time.After(limit):
		return nil, errors.Join(fmt.Errorf("the keeper does not serve after %s; its log tells why", limit), k.stop())
	}
}

func (k *childKeeper) stop() error {
	k.cancel()
	return <-k.ended
}

// writeChildConfig writes what the child is configured with: the tokens that hold a key of the authorities, and for each authority the
// policy that its record and what is required of it imply. JSON is YAML.
func writeChildConfig(cfg Config, records []ca.AuthorityRecord) (string, error) {
	dir := filepath.Dir(cfg.HSM.Socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	type object = map[string]any
	var tokens, keys []object
	held := map[string]bool{}
	for _, r := range records {
		token, err := cfg.tokenOf(r)
		if err != nil {
			return "", fmt.Errorf("authority %q: %w", r.Name, err)
		}
		if !held[token.Name] {
			held[token.Name] = true
			tokens = append(tokens, token.kept())
		}
		path := filepath.Join(dir, r.Name+".pem")
		if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}), 0o600); err != nil {
			return "", err
		}
		required := cfg.required(r.Name, "")
		key := object{
			"name": r.Name, "tokens": []string{token.Name}, "certificate": path, "certificates": childCertificates,
			"crls":    object{"max_validity": childCRLValidity, "numbers_from": childNumbersFrom},
			"require": requirement(required),
		}
		if r.Key.Label != "" {
			key["label"] = r.Key.Label
		}
		if len(r.Key.ID) > 0 {
			key["id"] = hex.EncodeToString(r.Key.ID)
		}
		keys = append(keys, key)
		responder, err := childResponder(cfg, r, token, key)
		if err != nil {
			return "", fmt.Errorf("the OCSP responder of %q: %w", r.Name, err)
		}
		if responder != nil {
			keys = append(keys, responder)
		}
	}
	switch r, err := cfg.logKey(context.Background()); {
	case err != nil:
		return "", err
	case r != nil:
		token, err := cfg.tokenOf(*r)
		if err != nil {
			return "", fmt.Errorf("the audit log: %w", err)
		}
		if !held[token.Name] {
			tokens = append(tokens, token.kept())
		}
		key, err := childLogKey(cfg, token, dir)
		if err != nil {
			return "", err
		}
		keys = append(keys, key)
	}
	config := filepath.Join(dir, "keeper.yaml")
	for path, content := range map[string]object{
		filepath.Join(dir, "keys.yaml"): {"keys": keys},
		config: {
			"socket": cfg.HSM.Socket, "journal": filepath.Join(dir, "journal"), "keys": filepath.Join(dir, "keys.yaml"), "tokens": tokens,
		},
	} {
		text, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return "", err
		}
		if err := writeFile(path, append(text, '\n'), 0o600); err != nil {
			return "", err
		}
	}
	return config, nil
}

// requirement is what is required of a key, as the file of keys says it.
func requirement(r hsm.Requirement) map[string]any {
	return map[string]any{
		"hardware": r.Hardware, "never_extractable": r.NeverExtractable, "local": r.Local, "fips_140_level": r.FIPSLevel,
	}
}

// childResponder is the policy of an OCSP responder's own key. Where the authority's key answers, its policy is made to say so.
func childResponder(cfg Config, r ca.AuthorityRecord, token NamedToken, authority map[string]any) (map[string]any, error) {
	o, configured := cfg.ocspOf(r.Name)
	if !configured {
		return nil, nil
	}
	answers := map[string]any{"max_validity": childOCSPValidity}
	if o.PublicKey == "" {
		authority["ocsp"] = answers
		return nil, nil
	}
	public, err := o.publicKey()
	if err != nil {
		return nil, err
	}
	text, err := publicKeyPEM(public)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(cfg.HSM.Socket), r.Name+"-ocsp.pem")
	if err := writeFile(path, text, 0o600); err != nil {
		return nil, err
	}
	answers["responder"] = path
	key := map[string]any{
		"name": r.Name + "-ocsp", "tokens": []string{token.Name}, "certificate": authority["certificate"], "require": authority["require"],
		"ocsp": answers,
	}
	if o.Label != "" {
		key["label"] = o.Label
	}
	if o.ID != "" {
		key["id"] = o.ID
	}
	return key, nil
}

// tokenOf is the configured token that holds an authority's key, as far as that can be told without loading a library.
func (c Config) tokenOf(record ca.AuthorityRecord) (NamedToken, error) {
	all := c.allTokens()
	for _, t := range all {
		if len(all) == 1 || t.Token.Serial == record.Key.Token { // validateIsolation has asked for the serials of several
			return t, nil
		}
	}
	return NamedToken{}, fmt.Errorf("its key is in the token with serial %q, which is not among the configured ones; add it to tokens",
		record.Key.Token)
}

// kept is the token as a keeper's configuration says it.
func (t NamedToken) kept() map[string]any {
	selector, pin := map[string]any{}, map[string]any{}
	for field, value := range map[string]string{"label": t.Token.Label, "serial": t.Token.Serial} {
		if value != "" {
			selector[field] = value
		}
	}
	if t.Token.Slot != nil {
		selector["slot"] = *t.Token.Slot
	}
	for field, value := range map[string]string{"file": t.PIN.File, "env": t.PIN.Env, "credential": t.PIN.Credential} {
		if value != "" {
			pin[field] = value
		}
	}
	kept := map[string]any{
		"name": t.Name, "module": t.Module, "token": selector, "pin": pin, "sessions": t.Sessions,
		"retry_after_failed_pin": t.RetryAfterFailedPIN, "start_timeout": strictyaml.Duration(t.openWithin()).String(),
	}
	if t.FIPS140.Level > 0 {
		kept["fips_140"] = map[string]any{"level": t.FIPS140.Level, "certificate": t.FIPS140.Certificate}
	}
	return kept
}

// childCRLValidity is the longest validity of a CRL of an authority whose policy nobody has written: that of a root's.
const childCRLValidity = "400d"

// childCertificates bounds no OCSP responder either, beyond what the profile says.
var childCertificates = map[string]any{"ocsp_responders": true, "any_responder": true, "max_responder_validity": "36500d"}

// childNumbersFrom bounds no CRL number: nobody could raise a bound in a policy that nobody has written, and a child is no boundary.
var childNumbersFrom = new(big.Int).Lsh(big.NewInt(1), 158).String()

// childOCSPValidity is the longest validity of an OCSP answer that a configuration may have.
const childOCSPValidity = "10d"
