package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RequestInput asks for a certificate.
type RequestInput struct {
	Profile  string            `json:"profile"`
	CSR      string            `json:"csr"`                // PKCS#10, PEM
	Validity string            `json:"validity,omitempty"` // "90d", "720h"; empty: the profile's default
	Issuer   string            `json:"issuer,omitempty"`   // empty: the default authority
	Replaces string            `json:"replaces,omitempty"` // serial of a certificate to be revoked as superseded when the new one is issued
	Metadata map[string]string `json:"metadata,omitempty"`
	// IdempotencyKey is the caller's name for the request. Empty makes a random one, which protects the attempts of this call; a caller
	// that wants to ask again after a crash must choose its own and keep it.
	IdempotencyKey string `json:"-"`
}

// Issued is a certificate that was just issued.
type Issued struct {
	Serial        string    `json:"serial"`
	Certificate   string    `json:"certificate"` // PEM
	Chain         string    `json:"chain"`       // PEM, leaf first, without the root
	Issuer        string    `json:"issuer"`
	Profile       string    `json:"profile"`
	PolicyVersion string    `json:"policy_version"`
	NotBefore     time.Time `json:"not_before"`
	NotAfter      time.Time `json:"not_after"`
	Replaced      string    `json:"replaced,omitempty"` // the serial that the request replaces, once it is not valid any more
	AuditEvent    string    `json:"audit_event"`
	// Replayed says that it was issued for an earlier request with the same idempotency key.
	Replayed bool `json:"-"`
}

// Certificate is a certificate with its state.
type Certificate struct {
	Serial         string      `json:"serial"`
	Certificate    string      `json:"certificate,omitempty"` // PEM; empty in lists and where PossiblySigned
	Chain          string      `json:"chain,omitempty"`       // PEM; empty in lists and where PossiblySigned
	PossiblySigned bool        `json:"possibly_signed,omitempty"`
	Issuer         string      `json:"issuer"`
	Profile        string      `json:"profile"`
	PolicyVersion  string      `json:"policy_version"`
	Namespace      string      `json:"namespace"`
	Subject        string      `json:"subject"`
	Names          []string    `json:"names"`
	NotBefore      time.Time   `json:"not_before"`
	NotAfter       time.Time   `json:"not_after"`
	IssuedAt       time.Time   `json:"issued_at"`
	Status         string      `json:"status"` // "valid", "expired", "revoked", "on-hold"
	Revocation     *Revocation `json:"revocation,omitempty"`
	AuditEvent     string      `json:"audit_event"`
	Request        string      `json:"request"`
}

// Revocation is how a certificate was revoked or put on hold.
type Revocation struct {
	Reason         string     `json:"reason"`
	RevokedAt      time.Time  `json:"revoked_at"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	Comment        string     `json:"comment,omitempty"`
	AuditEvent     string     `json:"audit_event"`
}

// Request asks for a certificate. A *Problem of TypeRefused names every rule broken.
// A request that needs approval is the error *Waiting.
func (c *Client) Request(ctx context.Context, in RequestInput) (*Issued, error) {
	key := in.IdempotencyKey
	if key == "" {
		var err error
		if key, err = c.newKey(); err != nil {
			return nil, err
		}
	}
	answer, err := c.do(ctx, call{method: http.MethodPost, path: []string{"certificates"}, body: in, key: key, accept: "application/json"})
	if err != nil {
		return nil, err
	}
	if answer.status == http.StatusAccepted {
		waiting := &Waiting{}
		if err := c.read(answer, &waiting.Request); err != nil {
			return nil, err
		}
		return nil, waiting
	}
	issued := &Issued{Replayed: answer.header.Get("Idempotency-Replayed") == "true"}
	if err := c.read(answer, issued); err != nil {
		return nil, err
	}
	return issued, nil
}

// newKey makes an idempotency key.
func (c *Client) newKey() (string, error) {
	var octets [16]byte
	if _, err := io.ReadFull(c.random, octets[:]); err != nil {
		return "", fmt.Errorf("making an idempotency key: %w", err)
	}
	return hex.EncodeToString(octets[:]), nil
}

// Get reads a certificate with its state. Issuer is needed only where several authorities have issued the serial.
func (c *Client) Get(ctx context.Context, serial, issuer string) (*Certificate, error) {
	found := &Certificate{}
	if _, err := c.json(ctx, oneCertificate(serial, issuer), found); err != nil {
		return nil, err
	}
	return found, nil
}

// GetDER reads a certificate alone, DER.
func (c *Client) GetDER(ctx context.Context, serial, issuer string) ([]byte, error) {
	return c.getAs(ctx, serial, issuer, "application/pkix-cert")
}

// GetPEM reads a certificate alone, PEM.
func (c *Client) GetPEM(ctx context.Context, serial, issuer string) ([]byte, error) {
	return c.getAs(ctx, serial, issuer, "application/x-pem-file")
}

// GetChain reads a certificate with its issuers, PEM, leaf first, without the root.
func (c *Client) GetChain(ctx context.Context, serial, issuer string) ([]byte, error) {
	return c.getAs(ctx, serial, issuer, "application/pem-certificate-chain")
}

func (c *Client) getAs(ctx context.Context, serial, issuer, mediaType string) ([]byte, error) {
	r := oneCertificate(serial, issuer)
	r.accept = mediaType
	answer, err := c.do(ctx, r)
	return answer.body, err
}

func oneCertificate(serial, issuer string, more ...string) call {
	path := append([]string{"certificates", serial}, more...)
	return call{method: http.MethodGet, path: path, query: given(map[string]string{"issuer": issuer})}
}

// ListFilter selects certificates. Its zero value selects all that the caller may see.
type ListFilter struct {
	Query         string // a part of a name or of the subject
	Profile       string
	Issuer        string
	Status        string // "valid", "expired", "revoked", "on-hold"
	ExpiresBefore time.Time
	PageSize      int // 1 to 500; 0: the service's choice
}

// List walks through certificates, newest first, and fetches page after page as it goes. It ends with the first error.
func (c *Client) List(ctx context.Context, f ListFilter) iter.Seq2[Certificate, error] {
	return func(yield func(Certificate, error) bool) {
		for cursor := ""; ; {
			page, err := c.Page(ctx, f, cursor)
			if err != nil {
				yield(Certificate{}, err)
				return
			}
			for _, found := range page.Certificates {
				if !yield(found, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			if page.Next == cursor {
				yield(Certificate{}, errors.New("listing certificates: the service gave the same page twice"))
				return
			}
			cursor = page.Next
		}
	}
}

// Page is one page of certificates; Next is empty at the end.
type Page struct {
	Certificates []Certificate `json:"certificates"`
	Next         string        `json:"next,omitempty"`
}

// Page fetches the page at a cursor; the empty cursor is the first.
func (c *Client) Page(ctx context.Context, f ListFilter, cursor string) (*Page, error) {
	values := map[string]string{"q": f.Query, "profile": f.Profile, "issuer": f.Issuer, "status": f.Status, "cursor": cursor}
	if !f.ExpiresBefore.IsZero() {
		values["expires_before"] = f.ExpiresBefore.UTC().Format(time.RFC3339)
	}
	if f.PageSize > 0 {
		values["limit"] = strconv.Itoa(f.PageSize)
	}
	page := &Page{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"certificates"}, query: given(values)}, page); err != nil {
		return nil, err
	}
	return page, nil
}

// RevokeInput says which certificate to revoke and why.
type RevokeInput struct {
	Serial         string
	Issuer         string // needed only where several authorities have issued the serial
	Reason         string // RFC 5280, section 5.3.1, by name or number
	Comment        string
	InvalidityDate time.Time // zero: not told
}

// Revoked is a revocation with what was revoked.
type Revoked struct {
	Serial         string     `json:"serial"`
	Issuer         string     `json:"issuer"`
	Reason         string     `json:"reason"`
	RevokedAt      time.Time  `json:"revoked_at"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	Comment        string     `json:"comment,omitempty"`
	Status         string     `json:"status"`
	AuditEvent     string     `json:"audit_event"`
}

// Revoke revokes a certificate, puts it on hold, or releases it. A certificate that is revoked already stays as it is.
func (c *Client) Revoke(ctx context.Context, in RevokeInput) (*Revoked, error) {
	body := struct {
		Reason         string `json:"reason"`
		Comment        string `json:"comment,omitempty"`
		InvalidityDate string `json:"invalidity_date,omitempty"`
	}{Reason: in.Reason, Comment: in.Comment}
	if !in.InvalidityDate.IsZero() {
		body.InvalidityDate = in.InvalidityDate.UTC().Format(time.RFC3339)
	}
	r := oneCertificate(in.Serial, in.Issuer, "revoke")
	r.method, r.body = http.MethodPost, body
	revoked := &Revoked{}
	if _, err := c.json(ctx, r, revoked); err != nil {
		return nil, err
	}
	return revoked, nil
}

// given are the values that are not empty.
func given(values map[string]string) url.Values {
	query := url.Values{}
	for name, value := range values {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}
