package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc/native"
	"github.com/chancery-ca/chancery/oidc/oidctest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// person is somebody at a machine of their own, with a home and a provider, who calls a service.
type person struct {
	t        *testing.T
	h        *replica
	provider *oidctest.Provider
	state    string
	environ  []string

	mu   sync.Mutex
	seen strings.Builder // all that any command said
}

// screen is what a command writes on; each line is told of.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	told func(line string)
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(p) {
		if s.told != nil {
			s.told(strings.TrimSpace(string(line)))
		}
	}
	return s.text.Write(p)
}

// atHome gives a person of the service a home.
func atHome(t *testing.T, h *replica, p *oidctest.Provider) *person {
	home := t.TempDir()
	one := &person{t: t, h: h, provider: p, state: filepath.Join(home, ".local", "state", "chancery", "logins")}
	one.environ = []string{"HOME=" + home, "CHANCERY_HOME=" + filepath.Join(home, "none"), "PATH=" + os.Getenv("PATH")}
	return one
}

// run carries a command out. told hears each line of standard error.
func (p *person) run(ctx context.Context, told func(line string), args ...string) (stdout, stderr string, err error) {
	out, errs := &screen{}, &screen{told: told}
	err = run(ctx, args, Env{
		Stdin: strings.NewReader(""), Stdout: out, Stderr: errs, Environ: p.environ, Now: time.Now, Random: p.h.s.app.Random,
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.WriteString(out.text.String() + errs.text.String())
	return out.text.String(), errs.text.String(), err
}

// must carries a command out that succeeds.
func (p *person) must(args ...string) string {
	p.t.Helper()
	stdout, stderr, err := p.run(p.t.Context(), nil, args...)
	if err != nil {
		p.t.Fatalf("chancery %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// fails carries a command out that does not, and returns what it says.
func (p *person) fails(words string, args ...string) {
	p.t.Helper()
	_, stderr, err := p.run(p.t.Context(), nil, args...)
	if err == nil || !strings.Contains(stderr, words) {
		p.t.Errorf("chancery %s: %v\n%s\nwant %q", strings.Join(args, " "), err, stderr, words)
	}
}

// login logs in by a browser that does what browse does with the address.
func (p *person) login(ctx context.Context, browse func(address string) error, args ...string) (stdout, stderr string, err error) {
	p.t.Helper()
	var browsing sync.WaitGroup
	stdout, stderr, err = p.run(ctx, func(line string) {
		if strings.HasPrefix(line, "https://") && strings.Contains(line, "code_challenge=") {
			browsing.Go(func() {
				if err := browse(line); err != nil {
					p.t.Errorf("the browser: %v", err)
				}
			})
		}
	}, append([]string{"login", "--api", p.h.api, "--ca-bundle", p.h.s.root()}, args...)...)
	browsing.Wait()
	return stdout, stderr, err
}

// browse signs in as people do.
func (p *person) browse(address string) error {
	page, err := p.provider.SignIn(address)
	if err == nil && page.Status != http.StatusOK {
		err = fmt.Errorf("%d: %s", page.Status, page.Text)
	}
	return err
}

// kept is the login that is kept, as the program finds it.
func (p *person) kept() (native.Login, error) {
	return native.Logins{Dir: p.state, Now: time.Now}.Find(p.h.api)
}

func (p *person) wantNone() {
	p.t.Helper()
	if _, err := p.kept(); !errors.Is(err, native.ErrNone) {
		p.t.Errorf("a login is kept: %v", err)
	}
}

// TestLogin has people log in from the command line at a whole provider, and use it.
func TestLogin(t *testing.T) {
	t.Parallel()
	q := newStack(t, storagetest.New(t), false)
	provider := oidctest.NewProvider(t, "https://localhost/console/callback", "https://localhost/console/signed-out")
	roots := trust(t, provider.Roots())
	configured := func(group, more string) string {
		return fmt.Sprintf(`oidc: [{issuer: %q, audiences: [%s], ca_file: %q, command_line: {client_id: %[2]s%[4]s}}]
identities:
  - {name: people, oidc: {groups: [%[5]s]}, namespace: "*", roles: [auditor], person: "${email}", groups: groups}
`, provider.URL, oidctest.CommandLine, roots, more, group)
	}
	start := func(name, more string) *replica {
		q.more = more
		return q.start(name, q.token.Module)
	}
	h := start("alpha", configured(oidctest.Group, ""))

	t.Run("from the first command to the last", func(t *testing.T) { aWholeLogin(t, atHome(t, h, provider)) })
	t.Run("what goes wrong", func(t *testing.T) { whatGoesWrong(t, atHome(t, h, provider)) })
	t.Run("by a code on another device", func(t *testing.T) {
		p := atHome(t, h, provider)
		code := regexp.MustCompile(`^Open .*/device and type (\S+)$`)
		stdout, stderr, err := p.run(t.Context(), func(line string) {
			if found := code.FindStringSubmatch(line); found != nil {
				if err := provider.Allow(found[1], true); err != nil {
					t.Error(err)
				}
			}
		}, "login", "--api", h.api, "--ca-bundle", q.root(), "--device")
		if err != nil || !strings.Contains(stdout, "ada@dev.example") {
			t.Errorf("%v\n%s%s", err, stdout, stderr)
		}
		p.must("whoami")
		if out := p.must("logout"); strings.Contains(out, "still knows") {
			t.Error(out)
		}
	})
	t.Run("where nobody is known", func(t *testing.T) {
		h := start("beta", configured("another", ""))
		p := atHome(t, h, provider)
		if _, stderr, err := p.login(t.Context(), p.browse); err == nil || !strings.Contains(stderr, "no rule of this service's configuration") {
			t.Errorf("%v\n%s", err, stderr)
		}
		p.wantNone()
	})
	t.Run("with ID tokens, at a second service", func(t *testing.T) {
		h := start("gamma", configured(oidctest.Group, ", bearer: id_token, scopes: [email]"))
		p := atHome(t, h, provider)
		if _, stderr, err := p.login(t.Context(), p.browse); err != nil {
			t.Fatalf("%v\n%s", err, stderr)
		}
		out := p.must("whoami", "-o", "json")
		kept, err := p.kept()
		if err != nil || kept.Prolonged() || !strings.Contains(out, `"ends_at"`) || strings.Contains(out, `"prolonged": true`) {
			t.Errorf("%v %s", err, out)
		}
		// A second service that names the same client could be a counterfeit.
		first := p.h.api
		p.h = start("delta", configured(oidctest.Group, ""))
		if _, stderr, err := p.login(t.Context(), p.browse); err == nil || !strings.Contains(stderr, first+" takes as well") {
			t.Errorf("%v\n%s", err, stderr)
		}
		if _, stderr, err := p.login(t.Context(), p.browse, "--yes"); err != nil {
			t.Errorf("%v\n%s", err, stderr)
		}
		p.fails("which service? You are logged in at", "whoami")
		p.must("whoami", "--api", first)
	})
	t.Run("at a service without a provider", func(t *testing.T) {
		h := start("epsilon", "")
		p := atHome(t, h, provider)
		if _, stderr, err := p.login(t.Context(), p.browse); err == nil || !strings.Contains(stderr, "--token-file") {
			t.Errorf("%v\n%s", err, stderr)
		}
	})
}

// aWholeLogin is a day of a person: nothing, a login, commands, new tokens, the end. No secret is ever on the screen or in the log.
func aWholeLogin(t *testing.T, p *person) {
	p.fails("which service?", "whoami")
	p.fails("chancery login --api "+p.h.api, "whoami", "--api", p.h.api, "--ca-bundle", p.h.s.root())
	p.provider.Life(20 * time.Second)

	// The browser that $BROWSER names is opened. This one tells the address to a pipe.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "browser")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf %s \"$1\" >"+pipe+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.environ = append(p.environ, "BROWSER="+script+":another")
	stdout, stderr, err := p.login(t.Context(), func(shown string) error {
		opened, err := os.ReadFile(pipe)
		if err == nil && string(opened) != shown {
			err = fmt.Errorf("opened %q, and showed %q", opened, shown)
		}
		return errors.Join(err, p.browse(shown))
	})
	if err != nil || !strings.Contains(stdout, "Ada Lovelace at "+p.h.api) || !strings.Contains(stdout, "auditor") {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	kept, err := p.kept()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{kept.Tokens.Access, kept.Tokens.Refresh, kept.Tokens.ID}
	for path, mode := range map[string]fs.FileMode{p.state: 0o700, filepath.Join(p.state, url.PathEscape(p.h.api)+".json"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}

	// Two commands at once, shortly before the end of the token: one gets new ones, and both have their answer.
	p.provider.Life(0)
	before := p.provider.Asked("/oauth/token refresh_token")
	var commands sync.WaitGroup
	for range 2 {
		commands.Go(func() {
			if _, stderr, err := p.run(t.Context(), nil, "list"); err != nil { // without --api: one login is enough to know where
				t.Errorf("%v\n%s", err, stderr)
			}
		})
	}
	commands.Wait()
	if n := p.provider.Asked("/oauth/token refresh_token") - before; n != 1 {
		t.Errorf("the tokens were replaced %d times", n)
	}
	if kept, err = p.kept(); err != nil || slices.Contains(secrets, kept.Tokens.Access) {
		t.Errorf("the tokens are the old ones: %v", err)
	}
	secrets = append(secrets, kept.Tokens.Access, kept.Tokens.Refresh, kept.Tokens.ID)

	var who loggedIn
	if err := json.Unmarshal([]byte(p.must("whoami", "-o", "json")), &who); err != nil {
		t.Fatal(err)
	}
	if who.Service != p.h.api || who.Caller.Person != "ada@dev.example" || who.Caller.Namespace != "*" || who.Login == nil ||
		!slices.Equal(who.Caller.Roles, []string{"auditor"}) || !who.Login.Prolong || who.Login.EndsAt == nil ||
		!slices.Contains(who.Caller.Groups, oidctest.Group) || who.Login.Issuer != p.provider.URL {
		t.Errorf("whoami tells %+v, %+v", who.Caller, who.Login)
	}
	p.must("whoami")
	p.fails("your roles do not allow namespace.change", "namespace", "remove", "dev", "--yes") // an auditor's login is an auditor's
	// A token that is given comes before the login.
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(p.h.s.tokens[access.Requester]), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := p.must("whoami", "--api", p.h.api, "--ca-bundle", p.h.s.root(), "--token-file", file); !strings.Contains(out, "requester") || strings.Contains(out, "login") {
		t.Errorf("whoami with a token: %s", out)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p.fails("chmod 600", "whoami", "--api", p.h.api, "--token-file", file)

	var out loggedOut
	if err := json.Unmarshal([]byte(p.must("logout", "-o", "json")), &out); err != nil || !out.Withdrawn || out.Service != p.h.api {
		t.Errorf("%+v, %v", out, err)
	}
	p.wantNone()
	p.fails("nobody is logged in", "logout")
	p.fails("chancery login --api "+p.h.api, "list", "--api", p.h.api, "--ca-bundle", p.h.s.root())
	// A copy of the file that somebody made is worth nothing when its token has ended.
	kept.Tokens.AccessExpires = time.Now()
	if err := (native.Logins{Dir: p.state, Now: time.Now}).Keep(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	p.fails("the login has ended", "whoami")
	p.provider.Down(true)
	p.fails("cannot be reached", "whoami")
	if stdout := p.must("logout"); !strings.Contains(stdout, "The provider still knows the tokens") {
		t.Error(stdout)
	}
	p.provider.Down(false)

	seen := p.seen.String() + p.h.log.String()
	for _, secret := range secrets {
		if secret == "" || strings.Contains(seen, secret) {
			t.Error("a token is missing, or on the screen or in the log")
		}
	}
}

// whatGoesWrong is one login after the other that comes to nothing: none leaves anything behind.
func whatGoesWrong(t *testing.T, p *person) {
	back := func(address string, answer url.Values) error {
		asked, err := url.Parse(address)
		if err != nil {
			return err
		}
		if answer.Get("state") == "" {
			answer.Set("state", asked.Query().Get("state"))
		}
		got, err := http.Get(asked.Query().Get("redirect_uri") + "?" + answer.Encode())
		if err != nil {
			return err
		}
		return got.Body.Close()
	}
	for name, row := range map[string]struct {
		browse func(address string, cancel func()) error
		words  string
	}{
		"the provider says no": {func(address string, _ func()) error {
			return back(address, url.Values{"error": {"access_denied"}})
		}, "the provider did not sign you in (access_denied)"},
		"a code that was never given": {func(address string, _ func()) error {
			return back(address, url.Values{"code": {"made-up"}})
		}, "did not take the code"},
		"another's answer, and then an interrupt": {func(address string, cancel func()) error {
			defer cancel()
			return back(address, url.Values{"state": {"another"}, "code": {"c"}})
		}, "cancelled"},
		"an interrupt":    {func(_ string, cancel func()) error { cancel(); return nil }, "cancelled"},
		"nobody signs in": {func(string, func()) error { return nil }, "nobody signed in within 300ms"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		args := []string{"-o", "json"}
		if name == "nobody signs in" {
			args = append(args, "--wait", "300ms")
		}
		_, stderr, err := p.login(ctx, func(address string) error { return row.browse(address, cancel) }, args...)
		cancel()
		if exitCode(err) != 1 || !strings.Contains(stderr, row.words) || strings.Contains(stderr, "made-up") {
			t.Errorf("%s: %v\n%s\nwant %q", name, err, stderr, row.words)
		}
		p.wantNone()
	}
	p.provider.Down(true)
	if _, stderr, err := p.login(t.Context(), p.browse); err == nil || !strings.Contains(stderr, "cannot be reached") {
		t.Errorf("the provider is away: %v\n%s", err, stderr)
	}
	p.provider.Down(false)
	p.fails("which service?", "login")
	p.fails("people log in at an address", "login", "--api", "unix:///run/chancery.sock")
	p.fails("and not at", "login", "--api", p.h.api, "--ca-bundle", p.h.s.root(), "--issuer", "https://another.example")
	p.environ = []string{"CHANCERY_HOME=/nonexistent"}
	p.fails("set HOME or XDG_STATE_HOME", "login", "--api", p.h.api, "--ca-bundle", p.h.s.root())
	p.wantNone()
}
