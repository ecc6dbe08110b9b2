// Package client is the Go client of Chancery's REST API.
//
// It speaks the API's words and keeps none of the service's own types, so that programs may use it without the service. Requests that may
// be repeated are repeated while the service is busy or away; a request for a certificate carries an idempotency key, so that repeating it
// cannot yield a second certificate. The token stands in no error and no log.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	// DefaultTimeout bounds one attempt. The service itself gives an issuance 30 seconds.
	DefaultTimeout = 60 * time.Second
	// DefaultAttempts is how often a request is sent at most.
	DefaultAttempts = 5

	maxAnswer = 32 << 20 // octets of an answer that are read: a page of 500 certificates is far below
)

// Config tells where the service is and who calls.
type Config struct {
	BaseURL string // such as "https://127.0.0.1:8443", or "unix:///run/chancery/local.sock" on the service's own machine
	Token   string // an API token; empty for what needs none
	// TokenSource gives the token of each request, in place of Token. What it returns is used once, so that a token that ends may be replaced.
	TokenSource func(ctx context.Context) (string, error)
	CAFile      string         // PEM bundle of the roots that the service's certificate must lead to; empty: the system's
	Roots       *x509.CertPool // the same, in memory; CAFile is not read then
	CertFile    string         // PEM file of a client certificate with its chain, and KeyFile of its key; empty: none
	KeyFile     string
	Emergency   string        // why the glass is broken, over a Unix socket; empty: it is not
	Timeout     time.Duration // of one attempt; 0: DefaultTimeout
	Attempts    int           // at most; 0: DefaultAttempts
	UserAgent   string        // empty: "chancery-client"
	// HTTPClient replaces the client that would be made. Roots, CAFile and Timeout do not count then.
	HTTPClient *http.Client
	// Wait waits between attempts, or returns the context's error. Nil waits on the clock.
	Wait func(ctx context.Context, d time.Duration) error
	// Random makes idempotency keys and spreads retries. Nil is crypto/rand.
	Random io.Reader
}

// Client calls the API. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	token     func(ctx context.Context) (string, error)
	emergency string
	userAgent string
	attempts  int
	http      *http.Client
	wait      func(ctx context.Context, d time.Duration) error
	random    io.Reader
}

// New makes a client. It reads the bundle of roots and calls nobody.
func New(cfg Config) (*Client, error) {
	base, socket, err := parseBase(cfg.BaseURL)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") || base.User != nil || base.RawQuery != "" {
		return nil, errors.New("client: the base URL is not of the form https://host:port")
	}
	if base.Scheme == "http" && (cfg.Token != "" || cfg.TokenSource != nil) && !loopback(base.Hostname()) {
		return nil, errors.New("client: a token is not sent over plain HTTP to another machine; use https")
	}
	if err := checkToken(cfg.Token); err != nil {
		return nil, err
	}
	if cfg.TokenSource == nil {
		cfg.TokenSource = func(context.Context) (string, error) { return cfg.Token, nil }
	}
	if cfg.Emergency != "" && socket == "" {
		return nil, errors.New("client: glass is broken on the service's own machine alone, over a unix:// address")
	}
	c := &Client{
		base: base, token: cfg.TokenSource, emergency: cfg.Emergency, userAgent: cfg.UserAgent, attempts: cfg.Attempts, http: cfg.HTTPClient,
		wait: cfg.Wait, random: cfg.Random,
	}
	c.base.Path = strings.TrimSuffix(c.base.Path, "/")
	if c.userAgent == "" {
		c.userAgent = "chancery-client"
	}
	if c.attempts <= 0 {
		c.attempts = DefaultAttempts
	}
	if c.wait == nil {
		c.wait = sleep
	}
	if c.random == nil {
		c.random = rand.Reader
	}
	if c.http == nil {
		c.http, err = newHTTPClient(cfg, socket)
	}
	return c, err
}

// checkToken refuses a token that no header can hold.
func checkToken(token string) error {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("client: the token holds characters that no token has, such as a line end")
	}
	return nil
}

// parseBase reads the address of a service. Over a Unix socket plain HTTP is spoken, to a host whose name says nothing.
func parseBase(text string) (base *url.URL, socket string, err error) {
	if path, isSocket := strings.CutPrefix(text, "unix://"); isSocket {
		if !strings.HasPrefix(path, "/") {
			return nil, "", errors.New("client: a socket's address is of the form unix:///path")
		}
		return &url.URL{Scheme: "http", Host: "localhost"}, path, nil
	}
	base, err = url.Parse(text)
	return base, "", err
}

func newHTTPClient(cfg Config, socket string) (*http.Client, error) {
	roots := cfg.Roots
	if roots == nil && cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("client: reading the roots: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("client: %s holds no certificate in PEM", cfg.CAFile)
		}
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: timeout,
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("client: a client certificate needs its file and the file of its key")
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client: reading the client certificate: %w", err)
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	if socket != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	return &http.Client{
		Transport: transport, Timeout: timeout,
		// The API redirects nowhere; following one would take the token along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Service is the address of the service.
func (c *Client) Service() string { return c.base.String() }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

const typeText = "text/plain"

// call is one request of the API.
type call struct {
	method string
	path   []string // under /api/v1; each element is escaped
	query  url.Values
	body   any    // sent as JSON; nil: none
	text   []byte // sent as text in place of a body; nil: none
	accept string
	key    string // of idempotency; empty: none
	once   bool   // repeating it is not the same as asking once: it is repeated only where nothing was done
}

// reply is an answer that was a success.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (c *Client) url(r call) string {
	elements := make([]string, len(r.path))
	for i, e := range r.path {
		elements[i] = url.PathEscape(e)
	}
	u := c.base.String() + "/api/v1/" + strings.Join(elements, "/")
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	return u
}

// json calls and reads the answer's JSON.
func (c *Client) json(ctx context.Context, r call, into any) (http.Header, error) {
	r.accept = "application/json"
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return answer.header, c.read(answer, into)
}

func (c *Client) read(answer reply, into any) error {
	if err := json.Unmarshal(answer.body, into); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.base.Host, err)
	}
	return nil
}

// once sends a request one time. The error is a *Problem when the service answered.
func (c *Client) once(ctx context.Context, r call, body []byte) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, c.url(r), bytes.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("making a request: %w", err)
	}
	if err := c.mark(request, r.accept); err != nil {
		return reply{}, err
	}
	switch {
	case r.body != nil:
		request.Header.Set("Content-Type", "application/json")
	case r.text != nil:
		request.Header.Set("Content-Type", typeText)
	}
	if r.key != "" {
		request.Header.Set("Idempotency-Key", r.key)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return reply{}, &transportError{doing: "calling " + c.base.Host, err: withoutURL(err)}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return reply{}, &transportError{doing: "reading the answer of " + c.base.Host, err: err}
	}
	if len(answer) > maxAnswer {
		return reply{}, fmt.Errorf("reading the answer of %s: it is longer than %d octets", c.base.Host, maxAnswer)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return reply{}, readProblem(response, answer)
	}
	if got, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); got != r.accept {
		return reply{}, fmt.Errorf("reading the answer of %s: it is of type %q, not %s", c.base.Host, got, r.accept)
	}
	return reply{status: response.StatusCode, header: response.Header, body: answer}, nil
}

// mark writes into a request who asks, and for what kind of answer.
func (c *Client) mark(request *http.Request, accept string) error {
	request.Header.Set("Accept", accept)
	request.Header.Set("User-Agent", c.userAgent)
	token, err := c.token(request.Context())
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if c.emergency != "" {
		request.Header.Set("Chancery-Emergency", c.emergency)
	}
	return nil
}

// withoutURL takes the request's URL out of an error: the caller knows whom it called.
func withoutURL(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
