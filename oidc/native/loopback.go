// Package native signs a person in to a program on their own machine, and keeps what came of it for the program's next runs.
//
// It owns the loopback address that a browser comes back to (RFC 8252, OAuth 2.0 for Native Apps) and the file of a login, with the rules
// of who may read it and of who prolongs it. What a provider says is judged in oidc; browsers are opened, and people spoken to, elsewhere.
package native

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc"
)

// Redirect is what a native client registers at its provider. Providers take any port there (RFC 8252, section 7.3).
const Redirect = "http://127.0.0.1/callback"

const (
	path       = "/callback"
	headerTime = 5 * time.Second // for a browser to say what it wants
	farewell   = 5 * time.Second // for the last page to be read
)

// SignIn has a person sign in by a browser on this machine: open is called once with the address that the browser is to go to. It waits
// until the person has signed in, the provider refused, or the context ended. What other browsers and programs bring to the address that it
// waits on is turned away, and ends nothing. The error is *access.Unauthenticated, or wraps oidc.ErrUnavailable or the context's.
func SignIn(ctx context.Context, at Provider, open func(address string) error) (oidc.Tokens, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return oidc.Tokens{}, fmt.Errorf("waiting for the browser to come back: %w", err)
	}
	host := listener.Addr().String()
	providers, login, err := at.open("http://" + host + path)
	if err != nil {
		return oidc.Tokens{}, errors.Join(err, listener.Close())
	}
	defer providers.Close()
	attempt, address, err := login.Begin(ctx)
	if err != nil {
		return oidc.Tokens{}, errors.Join(err, listener.Close())
	}
	w := &waiting{host: host, login: login, attempt: attempt, done: make(chan struct{})}
	server := &http.Server{
		Handler: w, ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends by Shutdown or Close alone
	defer serving.Wait()
	defer func() {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		if server.Shutdown(leaving) != nil {
			_ = server.Close() // a browser that keeps its connection open has its page already
		}
	}()
	if err := open(address); err != nil {
		return oidc.Tokens{}, err
	}
	select {
	case <-w.done:
		return w.tokens, w.err
	case <-ctx.Done():
		return oidc.Tokens{}, ctx.Err()
	}
}

// waiting answers what comes to the loopback address.
type waiting struct {
	host    string
	login   *oidc.Login
	attempt oidc.Attempt

	mu     sync.Mutex // one answer at a time; the first that is the attempt's counts
	ended  bool
	done   chan struct{} // closed when tokens and err are there
	tokens oidc.Tokens
	err    error
}

// ServeHTTP takes the one answer that is meant for the attempt. Any program of this machine and any page in the browser can come here: what
// does not know the attempt's state is told nothing and ends nothing.
func (w *waiting) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address has the code in it
	h.Set("X-Content-Type-Options", "nosniff")
	answer := r.URL.Query()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case r.Host != w.host: // a name that was made to lead here
		show(rw, http.StatusMisdirectedRequest, "Not here", "Nobody waits under this name.")
	case r.Method != http.MethodGet || r.URL.Path != path:
		show(rw, http.StatusNotFound, "Nothing here", "There is nothing at this address.")
	case w.ended || !w.login.Concerns(w.attempt, answer):
		show(rw, http.StatusBadRequest, "Not this login", "This is not the answer to the login that the command line waits for.")
	default:
		w.end(rw, r, answer)
	}
}

func (w *waiting) end(rw http.ResponseWriter, r *http.Request, answer url.Values) {
	w.ended = true
	w.tokens, w.err = w.login.Exchange(context.WithoutCancel(r.Context()), w.attempt, answer)
	var refused *access.Unauthenticated
	switch {
	case errors.As(w.err, &refused):
		show(rw, http.StatusForbidden, "Not logged in", "Not logged in: "+refused.Detail+".")
	case w.err != nil:
		show(rw, http.StatusBadGateway, "Not logged in", "Not logged in: the identity provider cannot be reached for the moment. Try again.")
	default:
		show(rw, http.StatusOK, "Signed in", "You are signed in. Go back to the command line; this page can be closed.")
	}
	close(w.done)
}

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Chancery: {{.Title}}</title><link rel="icon" href="data:,">
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
</html>
`

func show(rw http.ResponseWriter, status int, title, text string) {
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Connection", "close")
	rw.WriteHeader(status)
	// An error here is that of a browser that has gone.
	_ = template.Must(template.New("page").Parse(page)).Execute(rw, struct{ Title, Text string }{title, text})
}
