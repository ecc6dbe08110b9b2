package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/native"
)

// TestATokenGoesWhereItWasMeantToGo: a dev.json in the directory where a command is run, which may be a stranger's, gets no token but
// its own.
func TestATokenGoesWhereItWasMeantToGo(t *testing.T) {
	t.Parallel()
	robot := stranger(t, "robot.dev.example")
	sent := make(chan string, 10)
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sent <- cmp.Or(r.Header.Get("Authorization"), "none")
	}))
	t.Cleanup(stranger.Close)
	home := t.TempDir()
	keep := fetched{t, home}
	d := devFile{
		API:      stranger.URL,
		CABundle: keep.keep("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Certificate().Raw})),
		Tokens:   map[string]string{"requester": "its-own", "auditor": "another-of-its-own"},
	}
	if err := d.write(home); err != nil {
		t.Fatal(err)
	}
	file := keep.keep("mine", []byte("mine\n"))
	its := keep.keep("its", []byte("another-of-its-own\n"))
	withCertificate := []string{"--client-cert", robot.chainFile, "--client-key", robot.secret}
	environment := []string{"CHANCERY_CLIENT_CERT=" + robot.chainFile, "CHANCERY_CLIENT_KEY=" + robot.secret}
	for name, c := range map[string]struct {
		environ []string
		args    []string
		want    string // what the stranger is sent; empty: nothing
	}{
		"no token":                   {nil, nil, "Bearer its-own"},
		"one of its own":             {[]string{"CHANCERY_TOKEN=another-of-its-own"}, nil, "Bearer another-of-its-own"},
		"a token in the environment": {[]string{"CHANCERY_TOKEN=mine"}, nil, ""},
		"a token in a file":          {nil, []string{"--token-file", file}, ""},
		"a token meant for there": {
			[]string{"CHANCERY_TOKEN=mine", "CHANCERY_API=" + stranger.URL, "CHANCERY_CA_BUNDLE=" + d.CABundle}, nil, "Bearer mine",
		},
		"a file's token meant for it": {nil, []string{"--token-file", file, "--api", stranger.URL, "--ca-bundle", d.CABundle}, "Bearer mine"},
		"a certificate":               {nil, withCertificate, "none"},
		"it, beside a token":          {[]string{"CHANCERY_TOKEN=another-of-its-own"}, withCertificate, "none"},
		"it, and a token's file":      {nil, append([]string{"--token-file", its}, withCertificate...), "Bearer another-of-its-own"},
		"one in the environment":      {environment, nil, "none"},
		"that, and a token there":     {append([]string{"CHANCERY_TOKEN=another-of-its-own"}, environment...), nil, "Bearer another-of-its-own"},
	} {
		var complaints bytes.Buffer
		err := run(t.Context(), append([]string{"whoami"}, c.args...), Env{
			Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &complaints, Environ: append(c.environ, "CHANCERY_HOME="+home),
		})
		got := ""
		select {
		case got = <-sent:
		default:
		}
		if got != c.want || c.want == "" && (exitCode(err) != 2 || !strings.Contains(complaints.String(), filepath.Join(home, "dev.json"))) {
			t.Errorf("%s: it was sent %q, want %q; %v\n%s", name, got, c.want, err, &complaints)
		}
		for len(sent) > 0 {
			<-sent
		}
	}
	var complaints bytes.Buffer
	_ = run(t.Context(), []string{"revoke", "1cab", "--with-key-file", robot.secret}, Env{
		Stdin: strings.NewReader(""), Stdout: &complaints, Stderr: &complaints,
		Environ: []string{"CHANCERY_TOKEN=mine", "CHANCERY_HOME=" + home}, Now: time.Now, Random: rand.Reader,
	})
	select {
	case got := <-sent:
		if got != "none" {
			t.Errorf("by the key: it was sent %q, want no token", got)
		}
	default:
		t.Errorf("by the key: nothing was sent: %s", &complaints)
	}
}

// TestALoginIsNotSentByAStrangersWord: a dev.json can name a service that somebody is logged in at, and roots of its own for it.
func TestALoginIsNotSentByAStrangersWord(t *testing.T) {
	t.Parallel()
	sent := make(chan string, 10)
	service := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sent <- cmp.Or(r.Header.Get("Authorization"), "none")
	}))
	t.Cleanup(service.Close)
	home, state := t.TempDir(), t.TempDir()
	bundle := fetched{t, home}.keep("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: service.Certificate().Raw}))
	if err := (devFile{API: service.URL, CABundle: bundle}).write(home); err != nil {
		t.Fatal(err)
	}
	logins := native.Logins{Dir: filepath.Join(state, "chancery", "logins"), Now: time.Now}
	login := native.Login{Service: service.URL, Tokens: oidc.Tokens{Access: "of-the-login", AccessExpires: time.Now().Add(time.Hour)}}
	if err := logins.Keep(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"by the file":     {nil, "none"},
		"by who is there": {[]string{"--api", service.URL, "--ca-bundle", bundle}, "Bearer of-the-login"},
	} {
		var complaints bytes.Buffer
		_ = run(t.Context(), append([]string{"whoami"}, c.args...), Env{
			Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &complaints, Now: time.Now, Random: rand.Reader,
			Environ: []string{"CHANCERY_HOME=" + home, "XDG_STATE_HOME=" + state},
		})
		select {
		case got := <-sent:
			if got != c.want {
				t.Errorf("%s: the service was sent %q, want %q", name, got, c.want)
			}
		default:
			t.Errorf("%s: nothing was sent: %s", name, &complaints)
		}
		for len(sent) > 0 {
			<-sent
		}
	}
}
