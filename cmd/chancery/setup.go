package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/usage"
)

// openAfter is how long opening a token may take where the configuration does not say.
const openAfter = 30 * time.Second

// openToken opens a token as configured. Its operations are told to the observer, which may be nil.
func (a *app) openToken(ctx context.Context, c HSMConfig, actor string, observer hsm.Observer) (*hsm.Token, error) {
	config, err := a.tokenConfig(c, actor, observer)
	if err != nil {
		return nil, err
	}
	return opened(ctx, c, func(ctx context.Context) (*hsm.Token, error) { return hsm.Open(ctx, config) })
}

// openRecovering is openToken for a token that is opened anew whenever it was lost.
func (a *app) openRecovering(ctx context.Context, c HSMConfig, actor string, observer hsm.Observer, log *slog.Logger) (*hsm.Recovering, error) {
	config, err := a.tokenConfig(c, actor, observer)
	if err != nil {
		return nil, err
	}
	return opened(ctx, c, func(ctx context.Context) (*hsm.Recovering, error) { return hsm.OpenRecovering(ctx, config, log) })
}

func (a *app) tokenConfig(c HSMConfig, actor string, observer hsm.Observer) (hsm.Config, error) {
	config := hsm.Config{
		Module: c.Module, Token: c.Token.selector(), PIN: a.pin(c.PIN), MaxSessions: c.Sessions, RetryAfterFailedPIN: c.RetryAfterFailedPIN,
		SessionWait: time.Duration(c.Timeouts.Session), Actor: actor, Observer: observer, Now: a.Now,
	}
	if c.Usage != "" {
		policy, err := usage.Load(c.Usage, "")
		if err != nil {
			return config, err
		}
		config.Usage = policy
	}
	return config, nil
}

// opened opens a token within the time that the configuration allows.
func opened[T any](ctx context.Context, c HSMConfig, open func(context.Context) (T, error)) (token T, err error) {
	if c.PIN.Prompt { // a person may think as long as they like
		return open(ctx)
	}
	opening := callApart(func() (T, error) { return open(ctx) })
	limit := c.openWithin()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case o := <-opening:
		return o.value, o.err
	case <-ctx.Done():
		return token, fmt.Errorf("opening the token: %w", ctx.Err())
	case <-timer.C:
		// A call into the module cannot be cancelled; what becomes of it is the process's end.
		return token, fmt.Errorf("opening the token: the module %s has not answered for %s; see that the HSM is reachable, or raise timeouts.open", c.Module, limit)
	}
}

// pin is the source of a PIN.
func (a *app) pin(c PINConfig) hsm.PIN {
	switch {
	case c.File != "":
		return hsm.PINFromFile(c.File)
	case c.Env != "":
		return hsm.PINFromEnv(c.Env)
	case c.Credential != "":
		return hsm.PINFromCredential(c.Credential, a.lookup)
	case len(c.Command) > 0:
		return hsm.PINFromCommand(c.Command)
	}
	return hsm.PINFromPrompt(func() ([]byte, error) { return a.askSecret("PIN of the token: ") })
}

// askSecret reads a line from the terminal without showing it. Where there is no terminal, the caller has left out a flag.
func (a *app) askSecret(prompt string) ([]byte, error) {
	in, ok := a.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, misuse{errors.New("there is no terminal to ask on; give the PIN in a file")}
	}
	terminal := int(in.Fd())
	before, err := term.GetState(terminal)
	if err != nil {
		return nil, fmt.Errorf("looking at the terminal: %w", err)
	}
	typed := callApart(func() ([]byte, error) { return term.ReadPassword(terminal) })
	for range 1000 { // milliseconds, at most: a terminal may never have shown anything
		// Before the reader has hidden what is typed nobody is asked, and nothing is restored, which the reader would then change.
		if now, err := term.GetState(terminal); err != nil || *now != *before || len(typed) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Fprint(a.Stderr, prompt)
	secret, err := whatIsTyped(typed, a.interrupted)
	fmt.Fprintln(a.Stderr)
	if errors.Is(err, errInterrupted) {
		return nil, errors.Join(err, term.Restore(terminal, before)) // which is the reader's to do, who waits for ever
	}
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return secret, nil
}

// errInterrupted is the answer of who interrupts the program rather than answer.
var errInterrupted = errors.New("interrupted; nothing was done")

// whatIsTyped is what a person has typed. An interrupt does not end a read from a terminal: it is answered by an error, and the read goes
// on until the process ends, which is soon.
func whatIsTyped[T any](reading <-chan outcome[T], interrupted <-chan struct{}) (answer T, err error) {
	select {
	case o := <-reading:
		return o.value, o.err
	case <-interrupted:
		return answer, errInterrupted
	}
}

// outcome is what a call came back with.
type outcome[T any] struct {
	value T
	err   error
}

// callApart makes a call that nothing can end, so that its caller need not wait for it.
func callApart[T any](call func() (T, error)) <-chan outcome[T] {
	done := make(chan outcome[T], 1)
	go func() {
		value, err := call()
		done <- outcome[T]{value, err}
	}()
	return done
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
