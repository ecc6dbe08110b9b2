package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	redactedPIN = "PIN(redacted)"
	maxPINFile  = 4096 // octets; a longer file is surely not a PIN
)

// PIN is where a PIN comes from. It is read when it is needed, used, and wiped as far as Go permits. It never prints.
// The zero value has no source and is refused.
type PIN struct {
	read func(context.Context) ([]byte, error)
}

// PINFromFile reads the PIN from a file each time it is needed. One trailing newline is dropped. A file that others than its owner
// can write, or that everybody can read, is refused. A systemd credential ($CREDENTIALS_DIRECTORY) passes.
func PINFromFile(path string) PIN {
	return PIN{read: func(context.Context) ([]byte, error) {
		pin, err := readPINFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the PIN file: %w", err)
		}
		return pin, nil
	}}
}

// PINFromEnv takes the PIN from an environment variable and removes the variable, so that child processes do not inherit it.
// The value is kept for later log-ins of this process.
func PINFromEnv(name string) PIN {
	once := sync.OnceValues(func() ([]byte, error) {
		value, ok := os.LookupEnv(name)
		if !ok {
			return nil, fmt.Errorf("the environment variable %s, which should hold the PIN, is not set", name)
		}
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("removing %s from the environment: %w", name, err)
		}
		return []byte(value), nil
	})
	return PIN{read: func(context.Context) ([]byte, error) {
		pin, err := once()
		return bytes.Clone(pin), err
	}}
}

// PINFromCredential reads a credential that systemd passes to its unit (LoadCredential=), by its name. lookup finds an environment variable.
func PINFromCredential(name string, lookup func(string) string) PIN {
	return PIN{read: func(context.Context) ([]byte, error) {
		path, err := CredentialFile(name, lookup)
		if err != nil {
			return nil, err
		}
		pin, err := readPINFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the credential %s: %w", name, err)
		}
		return pin, nil
	}}
}

// CredentialFile is the file of a credential of systemd. It fails where there can be none: whoever reads a configuration learns it then,
// and not when the PIN is needed.
func CredentialFile(name string, lookup func(string) string) (string, error) {
	dir := lookup("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("there are no credentials: start the service by systemd with LoadCredential=%s:FILE, or name a PIN file", name)
	}
	if name == "" || name != filepath.Base(name) || name == ".." || name == "." {
		return "", fmt.Errorf("%q cannot be the name of a credential", name)
	}
	return filepath.Join(dir, name), nil
}

// commandTime is how long a command that tells a PIN may take.
const commandTime = 30 * time.Second

// PINFromCommand runs a program each time the PIN is needed and takes the first line of its output. The program is run as it is, with no
// shell; what it says on standard error is left out of errors, because it may hold the PIN. It is killed when nobody waits for the PIN any
// more, and after half a minute.
func PINFromCommand(argv []string) PIN {
	argv = slices.Clone(argv)
	return PIN{read: func(ctx context.Context) ([]byte, error) {
		if len(argv) == 0 || argv[0] == "" {
			return nil, errors.New("no command is named that tells the PIN")
		}
		out, err := outputOf(ctx, argv)
		if err != nil {
			clear(out)
			return nil, fmt.Errorf("asking %s for the PIN: %w; run it by hand to see why", argv[0], err)
		}
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 || len(bytes.TrimSpace(rest)) > 0 || len(line) > maxPINFile {
			clear(out)
			return nil, fmt.Errorf("%s must print the PIN in one line, and nothing else", argv[0])
		}
		return line, nil
	}}
}

// outputOf runs a program until it has ended, ctx has, or commandTime is over: whatever it has started, and however that behaves.
func outputOf(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTime, fmt.Errorf("it has not ended within %s", commandTime))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second // for what it started and left its output to
	if !atTerminal() {
		// What it started is killed with it. At a terminal it stays in this process's group, since from one of its own it could ask nobody there.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error {
			err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			if errors.Is(err, syscall.ESRCH) {
				return os.ErrProcessDone
			}
			return err
		}
	}
	out, err := cmd.Output()
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		err = errors.New("it has ended, and what it has started holds its output open")
	}
	return out, err
}

// atTerminal tells whether this process has a terminal, whatever its standard input is.
func atTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	_ = tty.Close() // it was only looked for
	return true
}

// PINFromPrompt asks for the PIN each time it is needed. The slice that ask returns is wiped after use.
func PINFromPrompt(ask func() ([]byte, error)) PIN {
	return PIN{read: func(context.Context) ([]byte, error) {
		pin, err := ask()
		if err != nil {
			return nil, fmt.Errorf("asking for the PIN: %w", err)
		}
		return pin, nil
	}}
}

// PINFromBytes keeps a copy of the PIN. It is meant for tests and development, where the PIN is no secret.
func PINFromBytes(pin []byte) PIN {
	kept := bytes.Clone(pin)
	return PIN{read: func(context.Context) ([]byte, error) { return bytes.Clone(kept), nil }}
}

// reveal returns the PIN. The caller clears the slice after use.
func (p PIN) reveal(ctx context.Context) ([]byte, error) {
	if p.read == nil {
		return nil, errors.New("no PIN is configured: name a file, an environment variable, a credential, a command or a prompt")
	}
	pin, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	if len(pin) == 0 {
		return nil, errors.New("the PIN is empty")
	}
	if bytes.ContainsAny(pin, "\x00\r\n") {
		clear(pin)
		return nil, errors.New("the PIN holds a line break or a NUL")
	}
	return pin, nil
}

func readPINFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The open file is asked, not the path, so that what is checked is what is read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, fmt.Errorf("%s has mode %#o: it must be neither writable by its group nor open to everybody; run chmod 600 %[1]s", path, mode)
	}
	pin, err := io.ReadAll(io.LimitReader(f, maxPINFile+1))
	if err != nil {
		return nil, err
	}
	if len(pin) > maxPINFile {
		clear(pin)
		return nil, fmt.Errorf("%s is longer than %d octets", path, maxPINFile)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(pin, []byte("\n")), []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return line, nil
}

// String redacts.
func (PIN) String() string { return redactedPIN }

// GoString redacts.
func (PIN) GoString() string { return redactedPIN }

// MarshalText redacts; it covers JSON and YAML as well.
func (PIN) MarshalText() ([]byte, error) { return []byte(redactedPIN), nil }

// LogValue redacts.
func (PIN) LogValue() slog.Value { return slog.StringValue(redactedPIN) }
