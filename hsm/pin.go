package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

const (
	redactedPIN = "PIN(redacted)"
	maxPINFile  = 4096 // octets; a longer file is surely not a PIN
)

// PIN is where a PIN comes from. It is read when it is needed, used, and wiped as far as Go permits. It never prints.
// The zero value has no source and is refused.
type PIN struct {
	read func() ([]byte, error)
}

// PINFromFile reads the PIN from a file each time it is needed. One trailing newline is dropped. A file that others than its owner
// can write, or that everybody can read, is refused. A systemd credential ($CREDENTIALS_DIRECTORY) passes.
func PINFromFile(path string) PIN {
	return PIN{read: func() ([]byte, error) {
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
	return PIN{read: func() ([]byte, error) {
		pin, err := once()
		return bytes.Clone(pin), err
	}}
}

// PINFromPrompt asks for the PIN each time it is needed. The slice that ask returns is wiped after use.
func PINFromPrompt(ask func() ([]byte, error)) PIN {
	return PIN{read: func() ([]byte, error) {
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
	return PIN{read: func() ([]byte, error) { return bytes.Clone(kept), nil }}
}

// reveal returns the PIN. The caller clears the slice after use.
func (p PIN) reveal() ([]byte, error) {
	if p.read == nil {
		return nil, errors.New("no PIN is configured: name a file, an environment variable or a prompt")
	}
	pin, err := p.read()
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
