package native_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/native"
	"github.com/chancery-ca/chancery/oidc/oidctest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), // of the browser
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

const service = "https://ca.dev.example:8443"

// desk is a person at a machine: a provider, and where logins are kept.
type desk struct {
	t        *testing.T
	provider *oidctest.Provider
	at       native.Provider
	logins   native.Logins
}

func newDesk(t *testing.T) *desk {
	p := oidctest.NewProvider(t, "https://ca.dev.example/console/callback", "https://ca.dev.example/console/signed-out")
	d := &desk{t: t, provider: p, logins: native.Logins{Dir: filepath.Join(t.TempDir(), "state", "logins"), Now: time.Now}}
	d.at = native.Provider{
		Issuer: p.URL, ClientID: oidctest.CommandLine, Scopes: []string{"profile", "email", "offline_access"},
		Roots: string(p.Roots()),
	}.By(time.Now)
	return d
}

// signIn signs the person in by a browser that does as people do, and returns the last page.
func (d *desk) signIn(ctx context.Context, browse func(address string) (oidctest.Page, error)) (oidc.Tokens, oidctest.Page, error) {
	d.t.Helper()
	var page oidctest.Page
	var failed error
	var browsing sync.WaitGroup
	tokens, err := native.SignIn(ctx, d.at, func(address string) error {
		browsing.Go(func() { page, failed = browse(address) })
		return nil
	})
	browsing.Wait()
	if failed != nil {
		d.t.Errorf("the browser: %v", failed)
	}
	return tokens, page, err
}

// login signs in and keeps it.
func (d *desk) login() native.Login {
	d.t.Helper()
	tokens, _, err := d.signIn(d.t.Context(), d.provider.SignIn)
	if err != nil {
		d.t.Fatal(err)
	}
	l := native.Login{Service: service, Provider: d.at, Since: time.Now(), Tokens: tokens}
	if err := d.logins.Keep(d.t.Context(), l); err != nil {
		d.t.Fatal(err)
	}
	return l
}

func refused(err error) bool {
	var r *access.Unauthenticated
	return errors.As(err, &r)
}

func TestAPersonSignsInByABrowser(t *testing.T) {
	d := newDesk(t)
	tokens, page, err := d.signIn(t.Context(), d.provider.SignIn)
	if err != nil {
		t.Fatal(err)
	}
	if tokens.Access == "" || tokens.ID == "" || tokens.Refresh == "" || tokens.Subject != "id-of-ada" ||
		time.Until(tokens.AccessExpires) < time.Minute || time.Until(tokens.IDExpires) < time.Minute {
		t.Errorf("the tokens lack something: they end %v and %v, about %q", tokens.AccessExpires, tokens.IDExpires, tokens.Subject)
	}
	if page.Status != http.StatusOK || !strings.Contains(page.Text, "You are signed in") ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'none'") || page.Header.Get("Cache-Control") != "no-store" ||
		page.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the browser shows %d %s with %v", page.Status, page.Text, page.Header)
	}
	if text := fmt.Sprintf("%v %+v %#v %+v", tokens, tokens, tokens, native.Login{Tokens: tokens}); strings.Contains(text, tokens.Access) ||
		strings.Contains(text, tokens.Refresh) {
		t.Error("tokens can be printed")
	}
}

// TestWhatIsNotTheAnswer brings to the loopback address what other pages and programs could, before the person signs in.
func TestWhatIsNotTheAnswer(t *testing.T) {
	d := newDesk(t)
	tokens, page, err := d.signIn(t.Context(), func(address string) (oidctest.Page, error) {
		asked, err := url.Parse(address)
		if err != nil {
			return oidctest.Page{}, err
		}
		back := asked.Query().Get("redirect_uri")
		other := strings.Replace(back, "127.0.0.1", "localhost", 1) // as a name that was made to lead here
		if asked.Query().Get("code_challenge_method") != "S256" || !strings.HasPrefix(back, "http://127.0.0.1:") {
			t.Errorf("the provider is asked %s", address)
		}
		state := url.QueryEscape(asked.Query().Get("state"))
		for what, want := range map[string]int{
			back: 400, back + "?state=another&code=c": 400, back + "?code=c": 400, back + "?state=&code=c": 400,
			back + "?state=" + state + "&state=" + state + "&code=c": 400,
			back + "?state=another&error=access_denied":              400,
			strings.TrimSuffix(back, "/callback") + "/":              404,
			other + "?state=" + state + "&code=c":                    421,
		} {
			got, err := http.Get(what)
			if err != nil {
				return oidctest.Page{}, err
			}
			_ = got.Body.Close()
			if got.StatusCode != want {
				t.Errorf("%s is answered %d, want %d", what, got.StatusCode, want)
			}
		}
		return d.provider.SignIn(address)
	})
	if err != nil || tokens.Subject != "id-of-ada" || page.Status != http.StatusOK {
		t.Errorf("after all that: %v, %d", err, page.Status)
	}
}

func TestAProviderThatSaysNo(t *testing.T) {
	d := newDesk(t)
	_, page, err := d.signIn(t.Context(), func(address string) (oidctest.Page, error) {
		asked, err := url.Parse(address)
		if err != nil {
			return oidctest.Page{}, err
		}
		q := asked.Query()
		return d.provider.SignIn(q.Get("redirect_uri") + "?" + url.Values{
			"state": {q.Get("state")}, "error": {"access_denied"}, "error_description": {"<b>no"},
		}.Encode())
	})
	if !refused(err) || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("%v, want a refusal", err)
	}
	if page.Status != http.StatusForbidden || !strings.Contains(page.Text, "access_denied") || strings.Contains(page.Text, "<b>") {
		t.Errorf("the browser shows %d %s", page.Status, page.Text)
	}
	// A code that the provider never gave.
	_, page, err = d.signIn(t.Context(), func(address string) (oidctest.Page, error) {
		asked, err := url.Parse(address)
		if err != nil {
			return oidctest.Page{}, err
		}
		q := asked.Query()
		return d.provider.SignIn(q.Get("redirect_uri") + "?" + url.Values{"state": {q.Get("state")}, "code": {"made-up"}}.Encode())
	})
	if !refused(err) || strings.Contains(err.Error(), "made-up") || page.Status != http.StatusForbidden {
		t.Errorf("%v, %d; want a refusal", err, page.Status)
	}
}

func TestALoginThatIsCancelled(t *testing.T) {
	d := newDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	var waits string
	_, err := native.SignIn(ctx, d.at, func(address string) error {
		asked, err := url.Parse(address)
		waits = asked.Query().Get("redirect_uri")
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if got, err := http.Get(waits); err == nil {
		_ = got.Body.Close()
		t.Error("the address is still waited on")
	}
	no := errors.New("there is no browser")
	if _, err := native.SignIn(t.Context(), d.at, func(string) error { return no }); !errors.Is(err, no) {
		t.Errorf("%v, want that of the browser", err)
	}
}

func TestSigningInWhileTheProviderIsAway(t *testing.T) {
	d := newDesk(t)
	d.provider.Down(true)
	if _, err := native.SignIn(t.Context(), d.at, func(string) error { t.Error("a browser is opened"); return nil }); !errors.Is(err,
		oidc.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	d.provider.Down(false)
	_, page, err := d.signIn(t.Context(), func(address string) (oidctest.Page, error) {
		asked, err := url.Parse(address)
		if err != nil {
			return oidctest.Page{}, err
		}
		q := asked.Query()
		d.provider.Down(true)
		got, err := http.Get(q.Get("redirect_uri") + "?" + url.Values{"state": {q.Get("state")}, "code": {"c"}}.Encode())
		if err != nil {
			return oidctest.Page{}, err
		}
		return oidctest.Page{Status: got.StatusCode}, got.Body.Close()
	})
	if !errors.Is(err, oidc.ErrUnavailable) || page.Status != http.StatusBadGateway {
		t.Errorf("%v, %d; want ErrUnavailable", err, page.Status)
	}
	d.at.Roots = "nonsense"
	if _, err := native.SignIn(t.Context(), d.at, nil); err == nil {
		t.Error("roots that are none are taken")
	}
}

func TestSigningInOnAnotherDevice(t *testing.T) {
	d := newDesk(t)
	decide := func(yes bool) (oidc.Tokens, error) {
		return native.SignInElsewhere(t.Context(), d.at, func(shown oidc.Device) {
			if shown.URL != d.provider.URL+"/device" || !strings.Contains(shown.Whole, shown.Code) || shown.Code == "" {
				t.Errorf("the person is shown %+v", shown)
			}
			if err := d.provider.Allow(shown.Code, yes); err != nil {
				t.Error(err)
			}
		})
	}
	tokens, err := decide(true)
	if err != nil || tokens.Subject != "id-of-ada" || tokens.Access == "" || tokens.Refresh == "" {
		t.Errorf("%v, about %q", err, tokens.Subject)
	}
	if _, err := decide(false); !refused(err) || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("the person said no: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := native.SignInElsewhere(ctx, d.at, func(oidc.Device) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	issuer := oidctest.NewIssuer(t)
	at := native.Provider{Issuer: issuer.URL, ClientID: "c", Roots: string(issuer.Roots())}.By(time.Now)
	if _, err := native.SignInElsewhere(t.Context(), at, nil); !errors.Is(err, oidc.ErrNotOffered) {
		t.Errorf("a provider without: %v", err)
	}
}

func TestALoginIsKept(t *testing.T) {
	d := newDesk(t)
	if _, err := d.logins.Token(t.Context(), service); !errors.Is(err, native.ErrNone) {
		t.Errorf("before there was one: %v", err)
	}
	kept := d.login()
	found, err := d.logins.Find(service)
	if err != nil || found.Tokens.Access != kept.Tokens.Access || found.Tokens.Refresh != kept.Tokens.Refresh ||
		found.Provider.Issuer != d.provider.URL {
		t.Errorf("found %v, %v", found.Provider, err)
	}
	if token, err := d.logins.Token(t.Context(), service); err != nil || token != kept.Tokens.Access {
		t.Errorf("the token is another, or %v", err)
	}
	if names, err := d.logins.Services(); err != nil || len(names) != 1 || names[0] != service {
		t.Errorf("the services are %v, %v", names, err)
	}
	if d.provider.Asked("/oauth/token refresh_token") != 0 {
		t.Error("a good token is replaced")
	}
	entries := 0
	err = filepath.WalkDir(d.logins.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || entries != 3 { // the directory, a login and its lock: nothing half written stays
		t.Errorf("%d entries, %v", entries, err)
	}
	for what, change := range map[string]func(path string) error{
		"readable by others": func(path string) error { return os.Chmod(path, 0o644) },
		"damaged":            func(path string) error { return os.WriteFile(path, []byte(kept.Tokens.Access), 0o600) },
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path))
		},
	} {
		d.login()
		path := filepath.Join(d.logins.Dir, url.PathEscape(service)+".json")
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if _, err := d.logins.Find(service); err == nil || errors.Is(err, native.ErrNone) || strings.Contains(err.Error(), kept.Tokens.Access) {
			t.Errorf("%s: %v", what, err)
		}
		_ = os.Remove(path)
	}
	if err := os.Chmod(d.logins.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.logins.Keep(t.Context(), kept); err == nil {
		t.Error("a directory that others read is written to")
	}
}

// TestTwoCommandsProlongALoginOnce: the provider has a refresh token work once, so that a second use would end the login.
func TestTwoCommandsProlongALoginOnce(t *testing.T) {
	d := newDesk(t)
	d.provider.Life(20 * time.Second)
	kept := d.login()
	d.provider.Life(0)
	var commands sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		commands.Go(func() {
			var err error
			if got[i], err = d.logins.Token(t.Context(), service); err != nil {
				t.Error(err)
			}
		})
	}
	commands.Wait()
	for _, one := range got {
		if one != got[0] || one == kept.Tokens.Access || one == "" {
			t.Error("not all have the new token")
		}
	}
	if n := d.provider.Asked("/oauth/token refresh_token"); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	if found, err := d.logins.Find(service); err != nil || found.Tokens.Refresh == kept.Tokens.Refresh || found.Tokens.Subject != "id-of-ada" {
		t.Errorf("the new refresh token is not kept: %v", err)
	}
}

func TestALoginThatCannotBeProlonged(t *testing.T) {
	d := newDesk(t)
	d.provider.Life(20 * time.Second)
	kept := d.login()
	d.provider.Down(true)
	if token, err := d.logins.Token(t.Context(), service); err != nil || token != kept.Tokens.Access {
		t.Errorf("the provider is away, and the token good for seconds yet: %v", err)
	}
	later := d.logins
	later.Now = func() time.Time { return time.Now().Add(time.Minute) }
	if _, err := later.Token(t.Context(), service); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("the provider is away, and the token has ended: %v", err)
	}
	d.provider.Down(false)
	used := kept
	used.Tokens.Refresh = "of nobody"
	if err := d.logins.Keep(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if _, err := later.Token(t.Context(), service); !errors.Is(err, native.ErrEnded) || strings.Contains(err.Error(), "of nobody") {
		t.Errorf("the provider has ended it: %v", err)
	}
	used.Tokens.Refresh = ""
	if err := d.logins.Keep(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if token, err := d.logins.Token(t.Context(), service); err != nil || token != kept.Tokens.Access {
		t.Errorf("nothing to prolong it with, and the token good for seconds yet: %v", err)
	}
	if _, err := later.Token(t.Context(), service); !errors.Is(err, native.ErrEnded) {
		t.Errorf("nothing to prolong it with: %v", err)
	}
}

// TestWhomARefreshIsAbout: a provider that gives somebody else's ID token for a refresh token is not believed.
func TestWhomARefreshIsAbout(t *testing.T) {
	issuer := oidctest.NewIssuer(t)
	logins := native.Logins{Dir: filepath.Join(t.TempDir(), "logins"), Now: time.Now}
	l := native.Login{
		Service: service, Provider: native.Provider{Issuer: issuer.URL, ClientID: "c", Roots: string(issuer.Roots()), SendsID: true},
		Tokens: oidc.Tokens{Refresh: "r", Subject: "ada", ID: "old", IDExpires: time.Now().Add(-time.Second)},
	}
	if err := logins.Keep(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	token := func(subject, client string) string {
		return issuer.Token(map[string]any{"iss": issuer.URL, "sub": subject, "aud": client, "exp": time.Now().Add(time.Hour).Unix()}, nil)
	}
	for _, bad := range []string{token("bob", "c"), token("ada", "another"), "nonsense"} {
		issuer.Answer(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": bad})
		if _, err := logins.Token(t.Context(), service); !errors.Is(err, native.ErrEnded) {
			t.Errorf("%v, want ErrEnded", err)
		}
	}
	issuer.Answer(map[string]any{"access_token": "a", "token_type": "Bearer"})
	if _, err := logins.Token(t.Context(), service); !errors.Is(err, native.ErrEnded) {
		t.Errorf("without an ID token that is asked for: %v", err)
	}
	good := token("ada", "c")
	issuer.Answer(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": good})
	if got, err := logins.Token(t.Context(), service); err != nil || got != good {
		t.Errorf("the good one: %v", err)
	}
}

func TestALoginIsForgotten(t *testing.T) {
	d := newDesk(t)
	kept := d.login()
	if revoked, err := d.logins.Forget(t.Context(), service); revoked != nil || err != nil {
		t.Errorf("%v, %v", revoked, err)
	}
	if _, err := d.logins.Find(service); !errors.Is(err, native.ErrNone) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := d.logins.Forget(t.Context(), service); !errors.Is(err, native.ErrNone) {
		t.Errorf("a second time: %v", err)
	}
	kept.Tokens.AccessExpires = time.Now() // a copy of the file is worth nothing
	if err := d.logins.Keep(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if _, err := d.logins.Token(t.Context(), service); !errors.Is(err, native.ErrEnded) {
		t.Errorf("a copy of the login: %v", err)
	}
	d.provider.Down(true)
	if revoked, err := d.logins.Forget(t.Context(), service); !errors.Is(revoked, oidc.ErrUnavailable) || err != nil {
		t.Errorf("the provider is away: %v, %v", revoked, err)
	}
	if _, err := d.logins.Find(service); !errors.Is(err, native.ErrNone) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestOneServiceHasOneName(t *testing.T) {
	for address, want := range map[string]string{
		"https://CA.example:8443/": "https://ca.example:8443", "https://ca.example:443": "https://ca.example",
		"http://127.0.0.1:80": "http://127.0.0.1", "https://ca.example/base/": "https://ca.example/base",
		"unix:///run/x": "", "ca.example": "", "https://a:b@ca.example": "", "https://ca.example?x=1": "", "": "",
	} {
		if got, err := native.Service(address); got != want || (err != nil) != (want == "") {
			t.Errorf("%s is %q, %v", address, got, err)
		}
	}
}
