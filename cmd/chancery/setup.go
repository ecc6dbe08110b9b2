package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/chancery-ca/chancery/hsm"
)

// openToken opens a token as configured.
func (a *app) openToken(ctx context.Context, c HSMConfig) (*hsm.Token, error) {
	token, err := hsm.Open(ctx, c.config(a.pin(c.PIN)))
	if err != nil {
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	return token, nil
}

// pin is the source of a PIN.
func (a *app) pin(c PINConfig) hsm.PIN {
	switch {
	case c.File != "":
		return hsm.PINFromFile(c.File)
	case c.Env != "":
		return hsm.PINFromEnv(c.Env)
	}
	return hsm.PINFromPrompt(func() ([]byte, error) { return a.askSecret("PIN of the token: ") })
}

// askSecret reads a line from the terminal without showing it.
func (a *app) askSecret(prompt string) ([]byte, error) {
	in, ok := a.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, errors.New("there is no terminal to ask on; give the PIN in a file")
	}
	fmt.Fprint(a.Stderr, prompt)
	secret, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(a.Stderr)
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return secret, nil
}

func newLogger(w io.Writer, c LogConfig) *slog.Logger {
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	return certificate, nil
}
