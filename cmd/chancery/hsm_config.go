package main

import (
	"fmt"
	"path/filepath"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/strictyaml"
)

// KeysConfig says where the authorities' keys are used.
type KeysConfig struct {
	// Isolation is none, for this process; keeper, for a `chancery keeper` that runs as a user of its own and is reached at socket; or
	// child, for a keeper that this process starts, which is no boundary but keeps a library's crash out. Default: none.
	Isolation string `yaml:"isolation" env:"ISOLATION"`
	// Socket is the path of the keeper's Unix socket. A child keeps its policy and its journal beside it.
	Socket string `yaml:"socket" env:"SOCKET"`
	// HSMConfig is the token, where there is one and no keeper service has it.
	HSMConfig `yaml:",inline"`
}

// HSMConfig is a token and how to log in to it.
type HSMConfig struct {
	// Module is the path of the vendor's PKCS#11 library.
	Module string `yaml:"module" env:"MODULE"`
	// Token selects the token: every field given must match, and exactly one token.
	Token TokenConfig `yaml:"token" envPrefix:"TOKEN_"`
	// PIN says where the user PIN comes from: exactly one of its fields.
	PIN PINConfig `yaml:"pin" envPrefix:"PIN_"`
	// Sessions is the number of sessions kept for signing; 1 to 1000. Default: 8.
	Sessions int `yaml:"sessions" env:"SESSIONS"`
	// Timeouts bound waiting.
	Timeouts HSMTimeouts `yaml:"timeouts"`
	// RetryAfterFailedPIN permits a log-in although the token says that the last one failed. Set it for one start, after checking the PIN.
	RetryAfterFailedPIN bool `yaml:"retry_after_failed_pin" env:"RETRY_AFTER_FAILED_PIN"`
	// FIPS140 declares the module's FIPS 140 certificate, which the token itself does not tell.
	FIPS140 FIPSConfig `yaml:"fips_140"`
	// Usage is a file with the usage policy of the token's keys, for isolation none. Default: none.
	Usage string `yaml:"usage" env:"USAGE"`
}

// NamedToken is one of several tokens.
type NamedToken struct {
	// Name names the token in this file and on command lines: lower-case letters, digits and hyphens.
	Name string `yaml:"name"`
	// HSMConfig has the fields that `hsm` has.
	HSMConfig `yaml:",inline"`
}

// HSMTimeouts bound waiting for a token.
type HSMTimeouts struct {
	// Open bounds opening the token; a module that hangs longer ends the start. Default: 30s.
	Open strictyaml.Duration `yaml:"open"`
	// Session bounds waiting for a free session; then the operation fails as retryable. Default: 5s.
	Session strictyaml.Duration `yaml:"session"`
}

// FIPSConfig declares a FIPS 140 certificate.
type FIPSConfig struct {
	// Level is 1 to 4.
	Level int `yaml:"level"`
	// Certificate is the number of the vendor's certificate in NIST's list.
	Certificate string `yaml:"certificate"`
}

// TokenConfig selects a token.
type TokenConfig struct {
	// Label is CK_TOKEN_INFO's label.
	Label string `yaml:"label" env:"LABEL"`
	// Serial is CK_TOKEN_INFO's serialNumber: the safest.
	Serial string `yaml:"serial" env:"SERIAL"`
	// Slot is a slot ID. Some modules renumber slots at every start.
	Slot *uint `yaml:"slot" env:"SLOT"`
}

// PINConfig says where a PIN comes from.
type PINConfig struct {
	// File is a file that holds the PIN, readable by the service alone.
	File string `yaml:"file" env:"FILE"`
	// Env is the name of an environment variable that holds the PIN; it is removed from the environment after reading.
	Env string `yaml:"env" env:"ENV"`
	// Credential is the name of a systemd credential (LoadCredential=).
	Credential string `yaml:"credential" env:"CREDENTIAL"`
	// Command is a program and its arguments; it prints the PIN in one line.
	Command []string `yaml:"command" env:"COMMAND"`
	// Prompt asks on the terminal.
	Prompt bool `yaml:"prompt" env:"PROMPT"`
}

// ComplianceConfig is what a key, or an authority's key, and its token must be. Exactly one of Authority and Key is given.
type ComplianceConfig struct {
	// Authority is the name of an authority, or * for every one.
	Authority string `yaml:"authority"`
	// Key is the label of a key, or * for every one: for keys that `chancery hsm key generate` makes.
	Key string `yaml:"key"`
	// RequirementConfig is what is required.
	RequirementConfig `yaml:",inline"`
}

// RequirementConfig is what a key and its token must be.
type RequirementConfig struct {
	// Hardware requires a hardware slot (CKF_HW_SLOT).
	Hardware bool `yaml:"hardware"`
	// NeverExtractable requires CKA_NEVER_EXTRACTABLE and CKA_ALWAYS_SENSITIVE.
	NeverExtractable bool `yaml:"never_extractable"`
	// Local requires that the key was generated in the token (CKA_LOCAL).
	Local bool `yaml:"local"`
	// FIPS140Level requires that the token's fips_140 declares at least this level, with a certificate.
	FIPS140Level int `yaml:"fips_140_level"`
}

// singleToken is the name of the token that `hsm` configures.
const singleToken = "hsm"

// allTokens are the configured tokens, whichever way they are written.
func (c Config) allTokens() []NamedToken {
	if len(c.Tokens) > 0 {
		return c.Tokens
	}
	return []NamedToken{{Name: singleToken, HSMConfig: c.HSM.HSMConfig}}
}

// token finds a configured token; the empty name means the only one.
func (c Config) token(name string) (NamedToken, error) {
	all := c.allTokens()
	var names []string
	for _, t := range all {
		if t.Name == name || name == "" && len(all) == 1 {
			return t, nil
		}
		names = append(names, t.Name)
	}
	if name == "" {
		return NamedToken{}, misuse{fmt.Errorf("which token? give --token with one of %v", names)}
	}
	return NamedToken{}, misuse{fmt.Errorf("--token %q: the configuration has %v", name, names)}
}

func (c *Config) validateTokens(doc *strictyaml.Document) {
	if !c.validateIsolation(doc) {
		return
	}
	if len(c.Tokens) == 0 {
		c.HSM.validate(doc, "hsm")
		return
	}
	if c.HSM.describesToken() {
		doc.Refuse("hsm", "move it into tokens, with a name", "tokens and hsm are both given; write one of the two")
	}
	for i := range c.Tokens {
		t, field := &c.Tokens[i], fmt.Sprintf("tokens[%d]", i)
		if t.Sessions == 0 {
			t.Sessions = 8
		}
		if !namespaceName.MatchString(t.Name) {
			doc.Refuse(field+".name", "use lower-case letters, digits and hyphens", "%q cannot be a token's name", t.Name)
		}
		for _, other := range c.Tokens[:i] {
			if other.Name == t.Name {
				doc.Refuse(field+".name", "", "token %q stands here twice", t.Name)
			}
			if other.Module == t.Module && sameToken(other.Token, t.Token) {
				doc.Refuse(field+".token", "remove one of the two", "it selects the same token as %q", other.Name)
			}
		}
		t.validate(doc, field)
	}
}

// describesToken tells whether anything is said of how to open a token.
func (h HSMConfig) describesToken() bool {
	return h.Module != "" || h.Token != (TokenConfig{}) || h.PIN.sources() > 0
}

// validateIsolation tells whether the tokens are this configuration's to describe.
func (c *Config) validateIsolation(doc *strictyaml.Document) bool {
	h := c.HSM
	switch h.Isolation {
	case isolationNone, isolationChild, isolationKeeper:
	default:
		doc.Refuse("hsm.isolation", "use none, keeper or child", "%q is not a kind of isolation", h.Isolation)
		return false
	}
	if (h.Socket == "") != (h.Isolation == isolationNone) {
		doc.Refuse("hsm.socket", "give it with isolation keeper or child, and only then", "the keeper's socket is missing, or of no use")
	}
	if h.Isolation == isolationNone {
		return true
	}
	unread := func(field, usage string) {
		if usage != "" {
			doc.Refuse(field+".usage", "a keeper's key policy says what keys sign; to commands in the token give it with --usage",
				"with isolation %s nobody would hold the service to the usage policy", h.Isolation)
		}
	}
	unread("hsm", h.Usage)
	if h.Isolation == isolationKeeper {
		if h.describesToken() || len(c.Tokens) > 0 {
			doc.Refuse("hsm", "move module, token and pin to the keeper's configuration",
				"with isolation keeper this service must not know how to open the token")
		}
		return false
	}
	for i, t := range c.allTokens() {
		field := "hsm"
		if len(c.Tokens) > 0 {
			field = fmt.Sprintf("tokens[%d]", i)
			unread(field, t.Usage)
		}
		if t.PIN.Prompt || len(t.PIN.Command) > 0 {
			doc.Refuse(field+".pin", "give file, env or credential", "a child neither asks nor runs a command for its PIN")
		}
		if len(c.Tokens) > 1 && t.Token.Serial == "" {
			doc.Refuse(field+".token", "add its serial; `chancery hsm list` shows it",
				"which of several tokens holds an authority's key is told by serial, without loading a library here")
		}
	}
	return true
}

func sameToken(a, b TokenConfig) bool {
	if a.Slot != nil && b.Slot != nil {
		return *a.Slot == *b.Slot && a.Label == b.Label && a.Serial == b.Serial
	}
	return a == b && a != (TokenConfig{})
}

func (h *HSMConfig) validate(doc *strictyaml.Document, field string) {
	if h.Module == "" {
		doc.Refuse(field+".module", "for SoftHSM on Debian: /usr/lib/softhsm/libsofthsm2.so", "the path of the PKCS#11 library is needed")
	}
	if h.Token == (TokenConfig{}) {
		doc.Refuse(field+".token", "give label or serial; `chancery hsm list` shows them", "the token is not selected")
	}
	if sources := h.PIN.sources(); sources != 1 {
		doc.Refuse(field+".pin", "give file, env, credential, command or prompt", "%d sources of the PIN are given, exactly one is needed",
			sources)
	}
	if h.Sessions < 1 || h.Sessions > 1000 {
		doc.Refuse(field+".sessions", "", "%d is not between 1 and 1000", h.Sessions)
	}
	h.FIPS140.validate(doc, field+".fips_140")
}

func (f FIPSConfig) validate(doc *strictyaml.Document, field string) {
	if f.Level < 0 || f.Level > 4 || (f.Level == 0) != (f.Certificate == "") {
		doc.Refuse(field, "write for example {level: 3, certificate: \"4703\"}",
			"a level from 1 to 4 and the certificate's number are needed together")
	}
}

func (c *Config) validateCompliance(doc *strictyaml.Document) {
	for i, r := range c.Compliance {
		field := fmt.Sprintf("compliance[%d]", i)
		if (r.Authority == "") == (r.Key == "") {
			doc.Refuse(field, `"*" means every one`, "exactly one of authority and key is needed")
		}
		if r.requirement() == (hsm.Requirement{}) {
			doc.Refuse(field, "give hardware, never_extractable, local or fips_140_level", "nothing is required")
		}
		if r.FIPS140Level < 0 || r.FIPS140Level > 4 {
			doc.Refuse(field+".fips_140_level", "", "%d is not a level from 1 to 4", r.FIPS140Level)
		}
	}
}

func (r RequirementConfig) requirement() hsm.Requirement {
	return hsm.Requirement{Hardware: r.Hardware, NeverExtractable: r.NeverExtractable, Local: r.Local, FIPSLevel: r.FIPS140Level}
}

// required joins what is required of an authority, or of a key by its label.
func (c Config) required(authority, key string) (all hsm.Requirement) {
	for _, r := range c.Compliance {
		if r.Authority != "" && authority != "" && (r.Authority == "*" || r.Authority == authority) ||
			r.Key != "" && key != "" && (r.Key == "*" || r.Key == key) {
			all = all.And(r.requirement())
		}
	}
	return all
}

// requiredOf is what is required of an authority's key, or, where the record names none, of the key with its label.
func (c Config) requiredOf(r ca.AuthorityRecord) hsm.Requirement {
	if r.Name == "" {
		return c.required("", r.Key.Label)
	}
	return c.required(r.Name, "")
}

func (p PINConfig) sources() (n int) {
	for _, given := range []bool{p.File != "", p.Env != "", p.Credential != "", len(p.Command) > 0, p.Prompt} {
		if given {
			n++
		}
	}
	return n
}

// resolvePaths makes the paths of a token relative to the file that they stand in.
func (h *HSMConfig) resolvePaths(dir string) {
	for _, p := range []*string{&h.PIN.File, &h.Usage} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (t TokenConfig) selector() hsm.Selector {
	return hsm.Selector{Label: t.Label, Serial: t.Serial, Slot: t.Slot}
}

func (f FIPSConfig) declaration() hsm.Declaration {
	return hsm.Declaration{FIPSLevel: f.Level, FIPSCertificate: f.Certificate}
}
