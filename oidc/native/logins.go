package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc"
)

const (
	// earlier is how long before its end a token is replaced, so that a call which takes its time does not outlive it.
	earlier = 30 * time.Second
	// lockEvery is how often a lock is tried that another command holds.
	lockEvery = 20 * time.Millisecond
	maxFile   = 256 << 10 // octets of a login's file
)

// ErrNone is returned where nobody is logged in at a service.
var ErrNone = errors.New("nobody is logged in")

// ErrEnded is returned when a login has ended and cannot be prolonged.
var ErrEnded = errors.New("the login has ended")

// Login is a person's login at a service. It holds secrets; printed as a text it tells none.
type Login struct {
	Service  string      `json:"service"` // its URL, as Service writes it
	Provider Provider    `json:"provider"`
	Since    time.Time   `json:"since"`
	CABundle string      `json:"ca_bundle,omitempty"` // the file of the roots that the service's TLS certificate leads to
	Tokens   oidc.Tokens `json:"tokens"`
}

// Bearer is the token for the service, and when it ends; zero: that is not known.
func (l Login) Bearer() (token string, ends time.Time) {
	if l.Provider.SendsID {
		return l.Tokens.ID, l.Tokens.IDExpires
	}
	return l.Tokens.Access, l.Tokens.AccessExpires
}

// Prolonged tells whether new tokens can be had without the person.
func (l Login) Prolonged() bool { return l.Tokens.Refresh != "" }

// Withdraw has the provider forget a login that is not kept. The error wraps oidc.ErrNotOffered or oidc.ErrUnavailable, or says that it
// refused.
func (l Login) Withdraw(ctx context.Context) error { return l.Provider.revoke(ctx, l.Tokens) }

// good tells whether the token will do for some time yet.
func (l Login) good(until time.Time) bool {
	_, ends := l.Bearer()
	return ends.IsZero() || until.Before(ends)
}

// Logins are the logins of a user of this machine: a file of mode 0600 for each service, in a directory of mode 0700.
type Logins struct {
	Dir string
	Now func() time.Time
}

// Service writes a service's URL in one way, so that one service has one login.
func Service(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("people log in at an address of the form https://host:port")
	}
	u.Host = strings.ToLower(u.Host)
	u.Host = strings.TrimSuffix(u.Host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u.String(), nil
}

// file is where a service's login is.
func (ls Logins) file(service string) string {
	return filepath.Join(ls.Dir, url.PathEscape(service)+".json")
}

// Find reads the login at a service. The error wraps ErrNone where there is none. A file that others could have read or written is refused.
func (ls Logins) Find(service string) (Login, error) {
	f, err := os.OpenFile(ls.file(service), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, fmt.Errorf("%w at %s", ErrNone, service)
	}
	if err != nil {
		return Login{}, fmt.Errorf("reading the login: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Login{}, fmt.Errorf("reading the login: %w", err)
	}
	if err := private(info, f.Name()); err != nil {
		return Login{}, fmt.Errorf("reading the login: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Login{}, fmt.Errorf("reading the login: %w", err)
	}
	var l Login
	if json.Unmarshal(text, &l) != nil || l.Service != service { // the error would repeat what stands there
		return Login{}, fmt.Errorf("reading the login: %s is damaged, or of another service; log in again", f.Name())
	}
	return l, nil
}

// private refuses a file or directory that is another user's, or that others may read or write.
func private(info fs.FileInfo, path string) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds secrets and has mode %#o: others must neither read nor write it; if nobody has, run chmod go= %[1]s", path, mode)
	}
	if of, ok := info.Sys().(*syscall.Stat_t); ok && int(of.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is another user's", path)
	}
	return nil
}

// Keep puts a login in place of the one that the service had.
func (ls Logins) Keep(ctx context.Context, l Login) error {
	unlock, err := ls.lock(ctx, l.Service)
	if err != nil {
		return err
	}
	defer unlock()
	return ls.write(l)
}

// write replaces the file. A crash before the renaming leaves the login that was there; one after it, the new one.
func (ls Logins) write(l Login) (err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("keeping the login: %w", err)
	}
	f, err := os.CreateTemp(ls.Dir, ".login-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("keeping the login: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), ls.file(l.Service))
	}
	if err != nil {
		return fmt.Errorf("keeping the login: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// lock waits until no other command works on a service's login, and makes the directory where there is none. The lock ends with the
// process that holds it.
func (ls Logins) lock(ctx context.Context, service string) (unlock func(), err error) {
	if err := os.MkdirAll(ls.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeping logins: %w", err)
	}
	info, err := os.Stat(ls.Dir)
	if err != nil {
		return nil, fmt.Errorf("keeping logins: %w", err)
	}
	if err := private(info, ls.Dir); err != nil {
		return nil, fmt.Errorf("keeping logins: %w", err)
	}
	f, err := os.OpenFile(strings.TrimSuffix(ls.file(service), ".json")+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the login: %w", err)
	}
	again := time.NewTicker(lockEvery)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which lets go of it
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, fmt.Errorf("locking the login: %w", errors.Join(err, f.Close()))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another command that prolongs the login: %w", errors.Join(ctx.Err(), f.Close()))
		}
	}
}

// Token is the token for a service. Shortly before its end it is replaced: by one command at a time, and by nobody twice. The error wraps
// ErrNone, ErrEnded or oidc.ErrUnavailable.
func (ls Logins) Token(ctx context.Context, service string) (string, error) {
	l, err := ls.Find(service)
	if err != nil {
		return "", err
	}
	if !l.good(ls.Now().Add(earlier)) {
		if l, err = ls.prolong(ctx, service); err != nil {
			return "", err
		}
	}
	token, _ := l.Bearer()
	return token, nil
}

// prolong gets new tokens, unless another command has done so meanwhile. While the provider is away the old ones go on to their end.
//
// A crash after the provider gave new tokens and before they were kept loses them: where the provider has each refresh token work once, the
// person logs in again.
func (ls Logins) prolong(ctx context.Context, service string) (Login, error) {
	unlock, err := ls.lock(ctx, service)
	if err != nil {
		return Login{}, err
	}
	defer unlock()
	l, err := ls.Find(service)
	if err != nil || l.good(ls.Now().Add(earlier)) {
		return l, err
	}
	alive := l.good(ls.Now())
	if !l.Prolonged() {
		if alive {
			return l, nil
		}
		return Login{}, fmt.Errorf("%w at %s", ErrEnded, service)
	}
	next, err := l.Provider.By(ls.Now).refresh(ctx, l.Tokens)
	var refused *access.Unauthenticated
	switch {
	case err == nil:
		l.Tokens = next
		if !l.good(ls.Now()) { // a provider need not give a new ID token
			return Login{}, fmt.Errorf("%w at %s: the provider prolongs it no more", ErrEnded, service)
		}
		return l, ls.write(l)
	case alive && ctx.Err() == nil:
		return l, nil
	case errors.As(err, &refused):
		return Login{}, fmt.Errorf("%w at %s: %s", ErrEnded, service, refused.Detail)
	}
	return Login{}, fmt.Errorf("prolonging the login at %s: %w", service, err)
}

// Forget removes the login at a service, and has the provider withdraw its tokens. revoked tells whether the provider did: nil, or an error
// that wraps oidc.ErrNotOffered or oidc.ErrUnavailable, or says that it refused. The file is gone in any case. The error wraps ErrNone
// where there was none.
func (ls Logins) Forget(ctx context.Context, service string) (revoked, err error) {
	unlock, err := ls.lock(ctx, service)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := ls.Find(service)
	if errors.Is(err, ErrNone) {
		return nil, err
	}
	if err != nil { // it is of no use: what cannot be read cannot be withdrawn either
		return err, ls.remove(service)
	}
	revoked = l.Provider.By(ls.Now).revoke(ctx, l.Tokens)
	return revoked, ls.remove(service)
}

func (ls Logins) remove(service string) error {
	if err := os.Remove(ls.file(service)); err != nil {
		return fmt.Errorf("removing the login: %w", err)
	}
	return nil
}

// Services are those that somebody is logged in at, in the order of their names.
func (ls Logins) Services() ([]string, error) {
	entries, err := os.ReadDir(ls.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the logins: %w", err)
	}
	var found []string
	for _, e := range entries {
		name, isLogin := strings.CutSuffix(e.Name(), ".json")
		if service, err := url.PathUnescape(name); isLogin && err == nil {
			found = append(found, service)
		}
	}
	slices.Sort(found)
	return found, nil
}
