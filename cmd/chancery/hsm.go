package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/usage"
	"github.com/chancery-ca/chancery/storage"
)

func (a *app) hsmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hsm",
		Short: "Work on tokens, and with the keys in them",
		Long: `Work on tokens, and with the keys in them.

A token is named by --config chancery.yaml (and --token NAME, where it has several), or by --module with --token-label or --token-serial.
Where a keeper has the token (hsm.isolation: keeper) give both: the configuration then says which database is asked and written to. In
place of the flags, --keeper-config keeper.yaml names the token to who may read it, and tells what is declared of it and required of its
keys.
PINs come from files, from the sources that the configuration names, or are asked for; never from the command line.

Every operation is recorded: in the audit log of the configuration's database, or else in a journal (--journal).`,
	}
	cmd.AddCommand(a.hsmListCommand(), a.hsmInitCommand(), a.hsmPINCommand(), a.hsmKeyCommand(), a.hsmSignCommand(), a.hsmVerifyCommand(),
		a.hsmEncryptCommand(), a.hsmDecryptCommand(), a.hsmWrapCommand(), a.hsmUnwrapCommand(), a.hsmMACCommand(), a.hsmDigestCommand(),
		a.hsmRandomCommand(), a.hsmCertificateCommand(), a.hsmAttestCommand(), a.hsmProbeCommand())
	return cmd
}

// tokenFlags select a token on the command line. There is no flag for a PIN: whoever lists processes would read it.
type tokenFlags struct {
	module, label, serial, pinFile string
	configPath, name, keeperConfig string
	usage, journal                 string
	retry                          bool
}

func (f *tokenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.module, "module", "", "PKCS#11 library (default: SoftHSM, where it is found)")
	cmd.Flags().StringVar(&f.label, "token-label", "", "label of the token")
	cmd.Flags().StringVar(&f.serial, "token-serial", "", "serial of the token")
	cmd.Flags().StringVar(&f.pinFile, "pin-file", "", "file that holds the user PIN (default: ask)")
	cmd.Flags().StringVarP(&f.configPath, "config", "c", "",
		"configuration that names the token, instead of --module, --token-label, --token-serial and --pin-file")
	cmd.Flags().StringVar(&f.name, "token", "", "name of the token in the configuration, where it has several")
	cmd.Flags().StringVar(&f.keeperConfig, "keeper-config", "",
		"with a --config whose tokens a keeper has: the keeper's configuration, which names the token and what is required of its keys")
	cmd.Flags().BoolVar(&f.retry, "retry-after-failed-pin", false, "log in although the token says that the last log-in failed")
}

// addRecording adds the flags of commands that work in a token.
func (f *tokenFlags) addRecording(cmd *cobra.Command) {
	f.add(cmd)
	cmd.Flags().StringVar(&f.usage, "usage", "", "file with the usage policy of the keys (default: the configuration's)")
	cmd.Flags().StringVar(&f.journal, "journal", "",
		"file that operations are recorded in, without a configuration (default: hsm-journal.jsonl beside the PIN file)")
	withValue(cmd, "usage")
}

// resolve is where the token is that the flags select, and the configurations, as far as there are any. Where a keeper has the token, its
// service's configuration cannot say how to open it: then the flags or the keeper's name the token, and the configuration the rest.
func (f *tokenFlags) resolve(a *app) (w *worksite, err error) {
	w = &worksite{}
	if f.configPath == "" {
		if f.keeperConfig != "" {
			return nil, misuse{errors.New("--keeper-config: give the service's configuration as well, with --config")}
		}
		if f.name != "" {
			return nil, misuse{errors.New("--token names a token of a configuration: give --config, or --token-label")}
		}
		w.where, err = f.named("give --token-label or --token-serial, or --config")
		return w, err
	}
	cfg, err := loadConfig(f.configPath, a.Environ)
	if err != nil {
		return nil, err
	}
	w.cfg = &cfg
	if cfg.HSM.Isolation == isolationKeeper {
		if f.keeperConfig != "" {
			if f.module != "" || f.label != "" || f.serial != "" {
				return nil, misuse{errors.New("--keeper-config names the token: leave out --module, --token-label and --token-serial")}
			}
			if w.keeping, err = f.keeping(); err == nil {
				w.where = w.keeping.config(f)
			}
			return w, err
		}
		if f.name != "" {
			return nil, misuse{errors.New("--token: a keeper has the tokens of this configuration; give --token-label or " +
				"--token-serial, or --keeper-config")}
		}
		w.where, err = f.named("a keeper has those of this configuration; give --module, --token-label or --token-serial, and --pin-file as well")
		return w, err
	}
	if f.keeperConfig != "" {
		return nil, misuse{errors.New("--keeper-config: no keeper has the tokens of this configuration; leave it out")}
	}
	if f.module != "" || f.label != "" || f.serial != "" || f.pinFile != "" {
		return nil, misuse{errors.New("--config names the token: leave out --module, --token-label, --token-serial and --pin-file")}
	}
	token, err := cfg.token(f.name)
	w.where = token.HSMConfig
	w.where.RetryAfterFailedPIN = w.where.RetryAfterFailedPIN || f.retry
	return w, err
}

// named is the token that the flags name by themselves. The hint says what to give where they name none.
func (f *tokenFlags) named(hint string) (HSMConfig, error) {
	if f.label == "" && f.serial == "" {
		return HSMConfig{}, misuse{fmt.Errorf("which token? %s; `chancery hsm list` shows the tokens", hint)}
	}
	module, err := moduleOr(f.module)
	return HSMConfig{
		Module: module, Token: TokenConfig{Label: f.label, Serial: f.serial},
		PIN: f.pin(), RetryAfterFailedPIN: f.retry,
	}, err
}

func (f *tokenFlags) pin() PINConfig { return PINConfig{File: f.pinFile, Prompt: f.pinFile == ""} }

// moduleOr is the module given, or SoftHSM.
func moduleOr(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	return hsm.FindSoftHSM()
}

// worksite is a token with what a command needs beside it.
type worksite struct {
	*hsm.Token // nil until it is open
	where      HSMConfig
	cfg        *Config        // nil without a configuration
	store      *storage.Store // the configuration's database, in whose audit log operations are recorded; nil where a journal is
	usage      *usage.Policy  // nil where there is none
	keeping    *keeping       // nil where no keeper's configuration was given
}

// inToken opens the token for one command. Where its operations are recorded is opened first: what cannot be recorded is not done.
func (a *app) inToken(ctx context.Context, f *tokenFlags, do func(ctx context.Context, w *worksite) error) (err error) {
	w, err := f.resolve(a)
	if err != nil {
		return err
	}
	if f.usage != "" {
		w.where.Usage = f.usage
	}
	if w.where.Usage != "" {
		if w.usage, err = usage.Load(w.where.Usage, ""); err != nil {
			return err
		}
	}
	observer, done, err := a.recording(ctx, f, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if w.Token, err = a.openToken(ctx, w.where, operator(), observer); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Token.Close()) }()
	return do(hsm.WithActor(ctx, operator()), w)
}

// recording opens the audit log of the configuration's database, else the journal.
func (a *app) recording(ctx context.Context, f *tokenFlags, w *worksite) (hsm.Observer, func() error, error) {
	if w.cfg == nil || f.journal != "" {
		j, err := openJournal(f.journalPath())
		if err != nil {
			return nil, nil, err
		}
		return j, j.Close, nil
	}
	store, err := openStore(ctx, *w.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, fmt.Errorf("%w; the operation would be recorded in the database's audit log, or in a file named by --journal", err)
	}
	w.store = store
	return storeObserver{store}, func() error { store.Close(); return nil }, nil
}

// storeObserver records operations in the database's audit log.
type storeObserver struct{ store *storage.Store }

// Observe records one operation.
func (o storeObserver) Observe(ctx context.Context, op hsm.Operation) error {
	return recordOperation(ctx, o.store, op)
}

// keyFlags name a key.
type keyFlags struct{ label, id string }

func (f *keyFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.label, "key", "", "label of the key (CKA_LABEL)")
	cmd.Flags().StringVar(&f.id, "key-id", "", "id of the key in hexadecimal (CKA_ID)")
}

func (f *keyFlags) ref() (hsm.KeyRef, error) {
	if f.label == "" && f.id == "" {
		return hsm.KeyRef{}, misuse{errors.New("which key? give --key or --key-id; `chancery hsm key list` shows the keys")}
	}
	id, err := parseID(f.id)
	return hsm.KeyRef{Label: f.label, ID: id}, err
}

// onKey is inToken for a command on one key, which is named before anything is opened.
func (a *app) onKey(ctx context.Context, f *tokenFlags, key *keyFlags,
	do func(ctx context.Context, w *worksite, ref hsm.KeyRef) error,
) error {
	ref, err := key.ref()
	if err != nil {
		return err
	}
	return a.inToken(ctx, f, func(ctx context.Context, w *worksite) error { return do(ctx, w, ref) })
}

func parseID(text string) ([]byte, error) {
	id, err := hex.DecodeString(text)
	if err != nil {
		return nil, misuse{fmt.Errorf("%q is no id: write it in hexadecimal digits", text)}
	}
	return id, nil
}

// input opens a file, or standard input for "-".
func (a *app) input(path string) (io.ReadCloser, error) {
	if path == standardStream {
		return io.NopCloser(a.Stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the input: %w", err)
	}
	return f, nil
}

// maxInput is the largest input that is read as a whole. Octets.
const maxInput = 16 << 20

// inputWhole reads a small file.
func (a *app) inputWhole(path string) ([]byte, error) {
	in, err := a.input(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s has more than %d octets", path, maxInput)
	}
	return data, nil
}

// deliver writes octets to a file; to standard output for "-", or where no file is named and the output is text.
func (a *app) deliver(path string, data []byte, mode os.FileMode) error {
	switch {
	case path != "" && path != standardStream:
		return writeFile(path, data, mode)
	case path == standardStream || a.output != "json":
		if _, err := a.Stdout.Write(data); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
	}
	return nil
}

// report tells of a result whose octets were delivered: as JSON with -o json, else, where they went into a file, in one line.
func (a *app) report(path string, result any, format string, args ...any) error {
	if a.output == "json" && path == standardStream {
		return nil // standard output is taken
	}
	return a.print(result, func(w io.Writer) {
		if path != "" && path != standardStream {
			fmt.Fprintf(w, format+"\n", args...)
		}
	})
}

var (
	pinFlag      = regexp.MustCompile(`^unknown flag: --(user-|so-|new-|old-)?(pin|puk|password)$`)
	pinShorthand = regexp.MustCompile(`^unknown shorthand flag: 'p' in `)
)

// pinOnCommandLine recognises the habits of other tools: --pin 1234, --so-pin=1234, -p 1234. What follows is never repeated.
func pinOnCommandLine(err error) bool {
	return pinFlag.MatchString(err.Error()) || pinShorthand.MatchString(err.Error())
}
