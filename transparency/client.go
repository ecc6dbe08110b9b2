package transparency

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
)

const (
	maxAnswer = 1 << 20 // octets of a log's answer
	userAgent = "chancery (+https://github.com/chancery-ca/chancery)"
	maxQuote  = 200 // octets of an answer that stand in an error
)

// HTTPClient makes a client for logs: answers are bounded, and a redirection is an answer like any other, for a log's key is bound to
// its address. A nil transport is the standard library's.
func HTTPClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxIdleConnsPerHost, own.MaxResponseHeaderBytes = 16, 64<<10
		transport = own
	}
	return &http.Client{
		Transport:     bounded{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers that are too long; what is cut cannot be read.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	return answer, nil
}

// CloseIdleConnections is what http.Client passes on.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// silent is the log of the client, which tells everything in its errors as well.
type silent struct{}

func (silent) Printf(string, ...any) {}

func (l *Log) client(hc *http.Client) (*client.LogClient, error) {
	c, err := client.New(l.URL, hc, jsonclient.Options{PublicKeyDER: l.Key, Logger: silent{}, UserAgent: userAgent})
	if err != nil {
		return nil, fmt.Errorf("the log %s: %w", l, err)
	}
	return c, nil
}

// refusal is an answer of a log that is no timestamp.
type refusal struct {
	status int
	after  time.Duration // that the log asks to wait
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

// lasting tells a failure that asking again will not mend: the log has understood, and will not.
func lasting(err error) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return false
	}
	switch r.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return r.status < 500
}

// addPreChain submits a precertificate once (RFC 6962, section 4.2). Trying again is the caller's, who has other logs to ask.
func addPreChain(ctx context.Context, c *client.LogClient, chain []ct.ASN1Cert) (ct.SignedCertificateTimestamp, error) {
	var request ct.AddChainRequest
	for _, one := range chain {
		request.Chain = append(request.Chain, one.Data)
	}
	var answer ct.AddChainResponse
	response, body, err := c.PostAndParse(ctx, ct.AddPreChainPath, &request, &answer)
	switch {
	case err != nil && response == nil:
		var unreadable jsonclient.RspError
		if errors.As(err, &unreadable) {
			return ct.SignedCertificateTimestamp{}, &refusal{status: unreadable.StatusCode, err: fmt.Errorf("its answer cannot be read: %w", err)}
		}
		return ct.SignedCertificateTimestamp{}, err
	case response.StatusCode != http.StatusOK:
		return ct.SignedCertificateTimestamp{}, &refusal{
			status: response.StatusCode, after: retryAfter(response.Header.Get("Retry-After")),
			err: fmt.Errorf("it answered %s: %s", response.Status, quote(body)),
		}
	}
	sct, err := answer.ToSignedCertificateTimestamp()
	if err != nil {
		return ct.SignedCertificateTimestamp{}, &refusal{status: response.StatusCode, err: fmt.Errorf("its timestamp cannot be read: %w", err)}
	}
	return *sct, nil
}

// retryAfter reads seconds; a date, which no log is known to give, counts as nothing said.
func retryAfter(text string) time.Duration {
	seconds, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// quote is the beginning of what a log said, without what could disturb a terminal.
func quote(body []byte) string {
	text := strings.TrimSpace(string(body[:min(len(body), maxQuote)]))
	return strconv.QuoteToASCII(text)
}
