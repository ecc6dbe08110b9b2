package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/strictyaml"
)

// KeeperConfig is the configuration of `keeper`: a YAML file of its own, which only the keeper's user and root can write. Nothing of it can
// be overridden from the environment.
type KeeperConfig struct {
	// Socket is the path of the Unix socket to listen on. Its directory decides who reaches it at all.
	Socket string `yaml:"socket"`
	// Peers are the users, by name or number, whose processes may connect, beside the keeper's own user.
	Peers []string `yaml:"peers"`
	// Journal is the file to which every operation is written.
	Journal string `yaml:"journal"`
	// Keys is the file that says what each key may sign.
	Keys string `yaml:"keys"`
	// Tokens are the tokens held.
	Tokens []KeeperTokenConfig `yaml:"tokens"`
	// Log is about the log on standard error.
	Log LogConfig `yaml:"log"`
}

// KeeperTokenConfig is a token that a keeper holds.
type KeeperTokenConfig struct {
	// Name is what the key policy calls the token.
	Name string `yaml:"name"`
	// Module is the path of the vendor's PKCS#11 library.
	Module string `yaml:"module"`
	// Token selects the token: every field given must match, and exactly one token.
	Token TokenConfig `yaml:"token"`
	// PIN says where the user PIN comes from: file or env. A file in the directory $CREDENTIALS_DIRECTORY is named by credential.
	PIN KeeperPINConfig `yaml:"pin"`
	// FIPS140 declares the module's FIPS 140 certificate, which the token itself does not tell.
	FIPS140 FIPSConfig `yaml:"fips_140"`
	// Sessions is the number of sessions kept for signing; 1 to 1000. Default: 8.
	Sessions int `yaml:"sessions"`
	// RetryAfterFailedPIN permits a log-in although the token says that the last one failed. Set it for one start, after checking the PIN.
	RetryAfterFailedPIN bool `yaml:"retry_after_failed_pin"`
	// CallTimeout is how long a call into the library may take before its process is ended and started again. Default: 3s.
	CallTimeout strictyaml.Duration `yaml:"call_timeout"`
	// StartTimeout is the same for opening the token. Default: 10s.
	StartTimeout strictyaml.Duration `yaml:"start_timeout"`
}

// KeeperPINConfig says where a PIN comes from. A keeper has no terminal.
type KeeperPINConfig struct {
	// File is a file that holds the PIN, readable by the keeper alone.
	File string `yaml:"file"`
	// Env is the name of an environment variable that holds the PIN; it is removed from the environment after reading.
	Env string `yaml:"env"`
	// Credential is the name of a systemd credential (LoadCredential=) that holds the PIN.
	Credential string `yaml:"credential"`
}

// KeyFile is the file that says what each key may sign.
type KeyFile struct {
	// Keys are the keys. Any other that a token holds is not used.
	Keys []KeyConfig `yaml:"keys"`
}

// KeyConfig is what one key may sign. What is not named is refused.
type KeyConfig struct {
	// Name is for people and for the journal.
	Name string `yaml:"name"`
	// Label and ID (hexadecimal) are CKA_LABEL and CKA_ID; the CKA_ID is best.
	Label string `yaml:"label"`
	ID    string `yaml:"id"`
	// Tokens are the names of the tokens that hold the key. Several stand in for each other.
	Tokens []string `yaml:"tokens"`
	// Restored accepts a key that was restored into its token. Several tokens need it.
	Restored bool `yaml:"restored"`
	// Require is what the key and its tokens must be besides; one that falls short signs nothing.
	Require RequirementConfig `yaml:"require"`
	// Certificate is the file of the authority's certificate, which pins the key and bounds what it signs.
	Certificate string `yaml:"certificate"`
	// PublicKey is the file (PEM) of the public key where there is no certificate.
	PublicKey string `yaml:"public_key"`
	// Certificates, CRLs, OCSP and Checkpoints are what the key signs; see keeper.KeyPolicy.
	Certificates *struct {
		Authorities    bool                `yaml:"authorities"`
		OCSPResponders bool                `yaml:"ocsp_responders"`
		AnyResponder   bool                `yaml:"any_responder"`
		MaxValidity    strictyaml.Duration `yaml:"max_validity"`
		MaxResponder   strictyaml.Duration `yaml:"max_responder_validity"`
		AnySerial      bool                `yaml:"any_serial"`
	} `yaml:"certificates"`
	CRLs *struct {
		MaxValidity strictyaml.Duration `yaml:"max_validity"`
		// NumbersFrom is a number in decimal, which the highest that is signed lies above by the time in milliseconds.
		NumbersFrom string `yaml:"numbers_from"`
	} `yaml:"crls"`
	OCSP *struct {
		MaxValidity strictyaml.Duration `yaml:"max_validity"`
		// Responder is the file (PEM) of the certificate, or of the public key, of a key that answers for the authority.
		Responder string `yaml:"responder"`
	} `yaml:"ocsp"`
	Checkpoints *struct {
		Origin string `yaml:"origin"`
	} `yaml:"checkpoints"`
	// PerSecond and Total bound how often the key signs; 0: no bound.
	PerSecond float64 `yaml:"per_second"`
	Total     uint64  `yaml:"total"`
}

func (a *app) keeperCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "keeper --config keeper.yaml",
		Short: "Hold the tokens for a service that runs as another user",
		Long: `Hold the tokens for a service that runs as another user.

The keeper opens the tokens, and signs for who may ask at its socket: only what each key's policy allows, which it reads from the bytes by
itself, and only after writing it to its journal. The service that faces the network then loads no vendor library and sees no PIN.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keeper(cmd.Context(), path) },
	}
	cmd.Flags().StringVarP(&path, "config", "c", "keeper.yaml", "configuration file")
	cmd.AddCommand(a.holdCommand(), a.workerCommand(), a.keeperKeysCommand(), a.verifyJournalCommand(), a.exportJournalCommand())
	return cmd
}

// keeper runs a keeper until the context ends. This process is the supervisor: it has the socket, and loads no library.
func (a *app) keeper(ctx context.Context, path string) error {
	cfg, err := loadKeeperConfig(path)
	if err != nil {
		return err
	}
	policies, err := loadKeyFile(cfg.Keys)
	if err != nil {
		return err
	}
	listener, err := keeper.Listen(cfg.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	holder, err := holderOf(path, a.Stderr)
	if err != nil {
		return err
	}
	log := newLogger(a.Stderr, cfg.Log)
	ready := func() {
		log.InfoContext(ctx, "keeping", "socket", cfg.Socket, "keys", len(policies), "tokens", len(cfg.Tokens), "journal", cfg.Journal, "version",
			version())
		if err := notify(a.lookup("NOTIFY_SOCKET"), "READY=1"); err != nil {
			log.WarnContext(ctx, "telling systemd that the keeper is ready failed", "error", err)
		}
	}
	return keeper.Supervise(ctx, listener, holder, ready, log)
}

// holderOf is the command of the process in which a keeper holds its tokens.
func holderOf(config string, stderr io.Writer) (func() *exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program, to start the process that holds the tokens: %w", err)
	}
	return func() *exec.Cmd {
		cmd := exec.Command(self, "keeper", "hold", "--config", config)
		cmd.Stderr = stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for its supervisor
		return cmd
	}, nil
}

// holdCommand is what a keeper starts.
func (a *app) holdCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "hold", Short: "Hold the tokens for the keeper that started this", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error { return a.hold(path) },
	}
	cmd.Flags().StringVarP(&path, "config", "c", "keeper.yaml", "configuration file")
	return cmd
}

// hold holds the tokens until the supervisor hangs up. Signals are for the supervisor. One token is opened in this process: what its
// library does to it, it does to all there is to do. Of several, each has a worker, so that one which hangs takes no other along.
func (a *app) hold(path string) error {
	cfg, err := loadKeeperConfig(path)
	if err != nil {
		return err
	}
	settings, err := cfg.settings()
	if err != nil {
		return err
	}
	if settings.Keys, err = loadKeyFile(cfg.Keys); err != nil {
		return err
	}
	if len(cfg.Tokens) > 1 {
		if settings.Worker, err = workerOf(a.Stderr); err != nil {
			return err
		}
	}
	settings.Now, settings.Random, settings.Log = a.Now, a.Random, newLogger(a.Stderr, cfg.Log)
	err = keeper.Hold(settings)
	if errors.Is(err, keeper.ErrTold) {
		return errSilent
	}
	return err
}

// notify tells systemd of a state (sd_notify(3)); where there is no systemd, nobody.
func notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	if socket[0] == '@' {
		socket = "\x00" + socket[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

// workerOf is the command of a worker.
func workerOf(stderr io.Writer) (func() *exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program, to start workers: %w", err)
	}
	return func() *exec.Cmd {
		cmd := exec.Command(self, "keeper", "worker")
		cmd.Stderr = stderr
		return cmd
	}, nil
}

// workerCommand is what a keeper of several tokens starts for each.
func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "worker", Short: "Hold one token for the keeper that started this", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := keeper.WorkerSocket()
			if err != nil {
				return misuse{err}
			}
			// Signals are for the keeper, which then closes the connection.
			return keeper.RunWorker(context.WithoutCancel(cmd.Context()), socket, slog.New(slog.NewJSONHandler(a.Stderr, nil)))
		},
	}
}

// keptKey is a key as `keeper keys` shows it.
type keptKey struct {
	Name   string   `json:"name"`
	Tokens []string `json:"tokens"` // serial numbers
}

func (a *app) keeperKeysCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "keys --socket keeper.sock",
		Short: "List the keys that a running keeper holds; fails when none answers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := keeper.NewClient(socket, 0)
			defer client.Close()
			keys, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			shown := []keptKey{}
			for _, k := range keys {
				shown = append(shown, keptKey{Name: k.Name, Tokens: append([]string{}, k.Tokens...)})
			}
			return a.print(shown, func(w io.Writer) {
				for _, k := range shown {
					fmt.Fprintf(w, "%s\ttokens %s\n", k.Name, strings.Join(k.Tokens, " "))
				}
			})
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "/run/chancery-keeper/keeper.sock", "the keeper's socket")
	return cmd
}

func (a *app) verifyJournalCommand() *cobra.Command {
	var known string
	cmd := &cobra.Command{
		Use:   "verify-journal FILE",
		Short: "Check that no entry of a keeper's journal was changed, put in or taken out",
		Long: `Check that no entry of a keeper's journal was changed, put in or taken out.

What was cut off at the end the journal cannot tell by itself. Write the head that this command prints down elsewhere, and give it with
--head the next time.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("reading the journal: %w", err)
			}
			defer file.Close()
			report, err := keeper.VerifyJournal(file, known)
			if err != nil {
				return err
			}
			return a.print(report, func(w io.Writer) {
				fmt.Fprintf(w, "The journal is whole: %d entries, of which %d signed, %d refused, %d failed.\nhead %s\n", report.Entries,
					report.Results["signed"], report.Results["refused"], report.Results["failed"], report.Head)
				if report.Torn > 0 {
					fmt.Fprintf(w, "%d octets of a line that is being written, or was torn by a crash, follow.\n", report.Torn)
				}
			})
		},
	}
	cmd.Flags().StringVar(&known, "head", "", "the head of an earlier check, which must be in the journal")
	return cmd
}

// loadKeeperConfig reads and validates the keeper's own configuration.
func loadKeeperConfig(path string) (KeeperConfig, error) {
	c, doc, err := readKeeperConfig(path)
	if err != nil {
		return c, err
	}
	c.validate(doc)
	return c, doc.Err()
}

// readKeeperConfig reads it for who is not the keeper: what holds for the keeper's process alone, such as its credentials, is not looked
// at.
func readKeeperConfig(path string) (KeeperConfig, *strictyaml.Document, error) {
	data, err := readGuarded(path)
	if err != nil {
		return KeeperConfig{}, nil, fmt.Errorf("reading the keeper's configuration: %w", err)
	}
	c := KeeperConfig{Log: LogConfig{Level: "info", Format: "json"}}
	doc := strictyaml.Decode(path, data, &c)
	for _, p := range []*string{&c.Socket, &c.Journal, &c.Keys} {
		*p = beside(path, *p)
	}
	for i := range c.Tokens {
		c.Tokens[i].PIN.File = beside(path, c.Tokens[i].PIN.File)
	}
	return c, doc, doc.Err()
}

// beside makes a relative path relative to the file that it stands in.
func beside(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// readGuarded reads a file that decides what keys sign. One that others than its owner can write, or whose owner is neither root nor this
// user, is refused.
func readGuarded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s has mode %#o: others than its owner can write it; run chmod go-w %[1]s", path, mode)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to user %d: it must be root's or the keeper's own", path, owner.Uid)
	}
	return io.ReadAll(io.LimitReader(file, strictyaml.MaxSize+1))
}

func (c *KeeperConfig) validate(doc *strictyaml.Document) {
	for field, value := range map[string]string{"socket": c.Socket, "journal": c.Journal, "keys": c.Keys} {
		if value == "" {
			doc.Refuse(field, "give the path of a file", "the path is missing")
		}
	}
	for i, name := range c.Peers {
		if _, err := userID(name); err != nil {
			doc.Refuse(fmt.Sprintf("peers[%d]", i), "give a user of this machine by name or number", "%v", err)
		}
	}
	if len(c.Tokens) == 0 {
		doc.Refuse("tokens", "", "at least one token is needed")
	}
	for i, t := range c.Tokens {
		field := fmt.Sprintf("tokens[%d]", i)
		if t.Name == "" {
			doc.Refuse(field+".name", "", "the token has no name")
		}
		if t.Module == "" {
			doc.Refuse(field+".module", "for SoftHSM on Debian: /usr/lib/softhsm/libsofthsm2.so", "the path of the PKCS#11 library is needed")
		}
		if t.Token == (TokenConfig{}) {
			doc.Refuse(field+".token", "give label or serial; `chancery hsm list` shows them", "the token is not selected")
		}
		if _, err := t.PIN.pin(); err != nil {
			doc.Refuse(field+".pin", "give file, env or credential", "%v", err)
		}
		t.FIPS140.validate(doc, field+".fips_140")
		if t.Sessions < 0 || t.Sessions > 1000 {
			doc.Refuse(field+".sessions", "", "%d is not between 1 and 1000", t.Sessions)
		}
	}
	if _, err := c.Log.level(); err != nil {
		doc.Refuse("log.level", "use debug, info, warn or error", "%q is not a level", c.Log.Level)
	}
	if c.Log.Format != "json" && c.Log.Format != "text" {
		doc.Refuse("log.format", "use json or text", "%q is not a format", c.Log.Format)
	}
}

// userID is the number of a user, by name or number.
func userID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(found.Uid, 10, 32)
	return uint32(n), err
}

func (p KeeperPINConfig) pin() (hsm.PIN, error) {
	given := 0
	for _, one := range []string{p.File, p.Env, p.Credential} {
		if one != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return hsm.PIN{}, fmt.Errorf("%d sources of the PIN are given, exactly one is needed", given)
	case p.File != "":
		return hsm.PINFromFile(p.File), nil
	case p.Env != "":
		return hsm.PINFromEnv(p.Env), nil
	}
	if _, err := hsm.CredentialFile(p.Credential, os.Getenv); err != nil {
		return hsm.PIN{}, err
	}
	return hsm.PINFromCredential(p.Credential, os.Getenv), nil
}

// settings is the part of a keeper's settings that its configuration file says.
func (c KeeperConfig) settings() (keeper.Config, error) {
	settings := keeper.Config{Journal: c.Journal}
	for _, name := range c.Peers {
		uid, err := userID(name)
		if err != nil {
			return settings, err
		}
		settings.Peers = append(settings.Peers, uid)
	}
	for _, t := range c.Tokens {
		pin, err := t.PIN.pin()
		if err != nil {
			return settings, err
		}
		settings.Tokens = append(settings.Tokens, keeper.TokenConfig{
			Name: t.Name, Declared: t.FIPS140.declaration(),
			CallTimeout: time.Duration(t.CallTimeout), StartTimeout: time.Duration(t.StartTimeout),
			HSM: hsm.Config{
				Module: t.Module, Token: t.Token.selector(), PIN: pin, MaxSessions: t.Sessions, RetryAfterFailedPIN: t.RetryAfterFailedPIN,
			},
		})
	}
	return settings, nil
}

// readKeyFile reads what is written of the keys, and none of the files that are named there.
func readKeyFile(path string) (KeyFile, *strictyaml.Document, error) {
	data, err := readGuarded(path)
	if err != nil {
		return KeyFile{}, nil, fmt.Errorf("reading the key policy: %w", err)
	}
	var file KeyFile
	doc := strictyaml.Decode(path, data, &file)
	return file, doc, doc.Err()
}

// loadKeyFile reads the policy of the keys.
func loadKeyFile(path string) ([]keeper.KeyPolicy, error) {
	file, doc, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	var policies []keeper.KeyPolicy
	for i, k := range file.Keys {
		p, err := k.policy(path)
		if err != nil {
			doc.Refuse(fmt.Sprintf("keys[%d]", i), "", "%v", err)
		}
		policies = append(policies, p)
	}
	return policies, doc.Err()
}

func (k KeyConfig) policy(file string) (keeper.KeyPolicy, error) {
	id, err := hex.DecodeString(k.ID)
	if err != nil {
		return keeper.KeyPolicy{}, fmt.Errorf("the id %q is not hexadecimal", k.ID)
	}
	p := keeper.KeyPolicy{
		Name: k.Name, Ref: hsm.KeyRef{Label: k.Label, ID: id}, Tokens: k.Tokens, Restored: k.Restored, Require: k.Require.requirement(),
		PerSecond: k.PerSecond, Total: k.Total,
	}
	if level := k.Require.FIPS140Level; level < 0 || level > 4 {
		return p, fmt.Errorf("require.fips_140_level: %d is not a level from 1 to 4", level)
	}
	if k.Certificate != "" {
		if p.Certificate, err = certificateFile(beside(file, k.Certificate)); err != nil {
			return p, err
		}
	}
	if k.PublicKey != "" {
		block, err := pemFile(beside(file, k.PublicKey), "PUBLIC KEY")
		if err != nil {
			return p, err
		}
		if p.PublicKey, err = x509.ParsePKIXPublicKey(block); err != nil {
			return p, fmt.Errorf("reading %s: %w", k.PublicKey, err)
		}
	}
	if c := k.Certificates; c != nil {
		p.Certificates = &keeper.CertificatePolicy{
			Authorities: c.Authorities, OCSPResponders: c.OCSPResponders, AnyResponder: c.AnyResponder, AnySerial: c.AnySerial,
			MaxValidity: time.Duration(c.MaxValidity), MaxResponderValidity: time.Duration(c.MaxResponder),
		}
	}
	if c := k.CRLs; c != nil {
		p.CRLs = &keeper.CRLPolicy{MaxValidity: time.Duration(c.MaxValidity)}
		if c.NumbersFrom != "" {
			if p.CRLs.NumbersFrom, err = keeper.ParseCRLNumber(c.NumbersFrom); err != nil {
				return p, fmt.Errorf("crls.numbers_from: %w", err)
			}
		}
	}
	if c := k.OCSP; c != nil {
		p.OCSP = &keeper.OCSPPolicy{MaxValidity: time.Duration(c.MaxValidity)}
		if c.Responder != "" {
			if err := pinResponder(p.OCSP, beside(file, c.Responder)); err != nil {
				return p, err
			}
		}
	}
	if c := k.Checkpoints; c != nil {
		p.Checkpoints = &keeper.CheckpointPolicy{Origin: c.Origin}
	}
	return p, nil
}

// pinResponder reads the file of a responder: its certificate, or its public key.
func pinResponder(p *keeper.OCSPPolicy, path string) error {
	text, err := readGuarded(path)
	if err != nil {
		return fmt.Errorf("reading a responder's certificate or public key: %w", err)
	}
	block, _ := pem.Decode(text)
	switch {
	case block != nil && block.Type == "CERTIFICATE":
		p.Responder, err = parseCertificate(block.Bytes)
	case block != nil && block.Type == "PUBLIC KEY":
		p.ResponderKey, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return fmt.Errorf("%s begins with neither a certificate nor a public key in PEM", path)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

func certificateFile(path string) (*x509.Certificate, error) {
	der, err := pemFile(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return parseCertificate(der)
}

func pemFile(path, kind string) ([]byte, error) {
	text, err := readGuarded(path)
	if err != nil {
		return nil, fmt.Errorf("reading a key's %s: %w", kind, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s does not begin with a PEM block %s", path, kind)
	}
	return block.Bytes, nil
}
