package main

import (
	"cmp"
	"context"
	"crypto"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/strictyaml"
)

// AuditConfig says who signs the checkpoints of the audit log, and who witnesses them. All replicas must have the same.
type AuditConfig struct {
	// Origin is the name of the log, without scheme or spaces: ca.example.com/audit-log. It stands in every checkpoint and never changes.
	Origin string `yaml:"origin" env:"ORIGIN"`
	// Key is the log's key. Default: none; events get their places in the log, and no checkpoint is signed.
	Key LogKeyConfig `yaml:"key" envPrefix:"KEY_"`
	// CheckpointEvery is how far checkpoints are apart while events come in, 1s to 1h. Default: 2s.
	CheckpointEvery strictyaml.Duration `yaml:"checkpoint_every" env:"CHECKPOINT_EVERY"`
	// EarlierKeys are the verifier keys that signed before Key did.
	EarlierKeys []string `yaml:"earlier_keys"`
	// Witnesses are the verifier keys of witnesses whose cosignatures are taken (C2SP tlog-cosignature).
	Witnesses []string `yaml:"witnesses"`
}

// LogKeyConfig is the key of the audit log, in a token: Ed25519, or ECDSA on P-256 where the token has no Ed25519.
type LogKeyConfig struct {
	// PublicKey is the file (PEM) of its public half, which pins it.
	PublicKey string `yaml:"public_key" env:"PUBLIC_KEY"`
	// Label and ID (hexadecimal) are its CKA_LABEL and CKA_ID. A keeper service finds it by its public half.
	Label string `yaml:"label" env:"LABEL"`
	ID    string `yaml:"id" env:"ID"`
	// Token is the name of the token that holds it, where there are several.
	Token string `yaml:"token" env:"TOKEN"`
}

const (
	defaultCheckpointEvery = strictyaml.Duration(ca.DefaultCheckpointEvery)
	longestCheckpointEvery = time.Hour
)

func (c *Config) validateAudit(doc *strictyaml.Document) {
	a := c.Audit
	if a.Key != (LogKeyConfig{}) || a.Origin != "" {
		if a.Key.PublicKey == "" {
			doc.Refuse("audit.key.public_key", "the ceremony that makes the key writes it; `chancery hsm key show` prints it",
				"the key of the log is pinned by its public half")
		}
		if err := checkOrigin(a.Origin); err != nil {
			doc.Refuse("audit.origin", "write for example ca.example.com/audit-log", "%v", err)
		}
		if a.Key.Label == "" && a.Key.ID == "" && c.HSM.Isolation != isolationKeeper {
			doc.Refuse("audit.key.label", "give its label or its id", "the key of the log is not named")
		}
		if _, err := hex.DecodeString(a.Key.ID); err != nil {
			doc.Refuse("audit.key.id", "", "%q is not hexadecimal", a.Key.ID)
		}
		named := slices.ContainsFunc(c.Tokens, func(t NamedToken) bool { return t.Name == a.Key.Token })
		switch {
		case len(c.Tokens) > 1 && a.Key.Token == "":
			doc.Refuse("audit.key.token", "name one of tokens", "which of several tokens holds the key of the log is not said")
		case a.Key.Token != "" && !named:
			doc.Refuse("audit.key.token", "name one of tokens", "%q is none of the tokens", a.Key.Token)
		}
	}
	if every := time.Duration(a.every()); every < time.Second || every > longestCheckpointEvery {
		doc.Refuse("audit.checkpoint_every", "leave it out for 2s", "%s is not between 1s and 1h", every)
	}
	for list, keys := range map[string][]string{"earlier_keys": a.EarlierKeys, "witnesses": a.Witnesses} {
		for i, key := range keys {
			field := fmt.Sprintf("audit.%s[%d]", list, i)
			switch v, err := audit.ParseVerifier(key); {
			case err != nil:
				doc.Refuse(field, "", "%v", err)
			case v.IsWitness() != (list == "witnesses"):
				doc.Refuse(field, "witnesses have keys of the type 0x04 (C2SP tlog-cosignature), logs have others", "%q is of the other kind", v.Name())
			case slices.Contains(keys[:i], key):
				doc.Refuse(field, "", "the key of %q stands here twice", v.Name())
			}
		}
	}
}

// checkOrigin refuses what cannot be the name of a key of signed notes too.
func checkOrigin(origin string) error {
	const longest = 255
	if origin == "" || len(origin) > longest || strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r > '~' || r == '+' }) {
		return fmt.Errorf("%q is no name of a log: it has 1 to %d printable ASCII characters, and neither spaces nor plus signs", origin, longest)
	}
	return nil
}

func (a AuditConfig) every() strictyaml.Duration {
	return cmp.Or(a.CheckpointEvery, defaultCheckpointEvery)
}

func (a *AuditConfig) resolvePaths(dir string) {
	if a.Key.PublicKey != "" && !filepath.IsAbs(a.Key.PublicKey) {
		a.Key.PublicKey = filepath.Join(dir, a.Key.PublicKey)
	}
}

// logKey tells where the key of the log is, as the record of an authority tells it of its own; nil where there is none.
func (c Config) logKey(ctx context.Context) (*ca.AuthorityRecord, error) {
	k := c.Audit.Key
	if k.PublicKey == "" {
		return nil, nil
	}
	id, err := hex.DecodeString(k.ID)
	if err != nil {
		return nil, fmt.Errorf("the id %q is not hexadecimal", k.ID)
	}
	record := &ca.AuthorityRecord{Key: ca.KeyName{Label: k.Label, ID: id}}
	for _, t := range c.Tokens {
		if t.Name != k.Token {
			continue
		}
		record.Key.Token = t.Token.Serial
		if c.HSM.Isolation == isolationNone {
			if record.Key.Token, err = serialOf(ctx, t.HSMConfig); err != nil {
				return nil, fmt.Errorf("token %q: %w", t.Name, err)
			}
		}
	}
	return record, nil
}

// openLog opens the key of the audit log.
func (s *service) openLog(ctx context.Context) (ca.LogPlan, error) {
	a := s.cfg.Audit
	plan := ca.LogPlan{Every: time.Duration(a.every())}
	for _, one := range []struct {
		keys []string
		into *[]*audit.Verifier
	}{{a.EarlierKeys, &plan.Earlier}, {a.Witnesses, &plan.Witnesses}} {
		for _, key := range one.keys {
			v, err := audit.ParseVerifier(key)
			if err != nil {
				return plan, err
			}
			*one.into = append(*one.into, v)
		}
	}
	record, err := s.cfg.logKey(ctx)
	if err != nil || record == nil {
		return plan, err
	}
	public, err := readPublicKey(a.Key.PublicKey)
	if err != nil {
		return plan, fmt.Errorf("reading the public key of the audit log: %w", err)
	}
	key, err := s.keys.signer(ctx, *record, public)
	if err != nil {
		return plan, fmt.Errorf("opening the key of the audit log: %w", err)
	}
	if s.env.WrapKey != nil {
		key = s.env.WrapKey("", key)
	}
	signer, ok := key.(crypto.MessageSigner)
	if !ok {
		return plan, fmt.Errorf("opening the key of the audit log: a %T signs no messages", key)
	}
	plan.Signer, err = audit.NewSigner(a.Origin, signer)
	return plan, err
}

// What shows that a checkpoint extends another goes from audit to the keeper, and what the keeper misses goes back. Neither knows the
// other. So it is with the last number of a CRL.
var (
	_ keeper.Consistency    = audit.Consistency{}
	_ audit.Unproven        = (*keeper.UnprovenError)(nil)
	_ issuance.PassedNumber = (*keeper.PassedNumberError)(nil)
)

// childLogKey is the policy of the log's key for a keeper that this process starts. It copies the public key beside it.
func childLogKey(cfg Config, token NamedToken, dir string) (map[string]any, error) {
	text, err := os.ReadFile(cfg.Audit.Key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading the public key of the audit log: %w", err)
	}
	path := filepath.Join(dir, "audit-log.pem")
	if err := writeFile(path, text, 0o600); err != nil {
		return nil, err
	}
	required := cfg.required("", cfg.Audit.Key.Label)
	key := map[string]any{
		"name": "audit-log", "tokens": []string{token.Name}, "public_key": path, "checkpoints": map[string]any{"origin": cfg.Audit.Origin},
		"require": requirement(required),
	}
	if cfg.Audit.Key.Label != "" {
		key["label"] = cfg.Audit.Key.Label
	}
	if cfg.Audit.Key.ID != "" {
		key["id"] = cfg.Audit.Key.ID
	}
	return key, nil
}
