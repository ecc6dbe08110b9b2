package identity

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Headers in which proxies pass client certificates on. Any other holds one certificate in PEM, percent-encoded, as nginx writes it.
const (
	HeaderRFC9440 = "Client-Cert"             // RFC 9440
	HeaderEnvoy   = "X-Forwarded-Client-Cert" // Envoy's elements, of which Cert is read
	forwardedFor  = "X-Forwarded-For"         // appended to by each proxy
	maxForwarded  = 32                        // addresses of X-Forwarded-For that are looked at
)

// Proxies are the addresses whose word counts about who calls and from where. The zero value trusts nobody: what headers say is nothing.
type Proxies struct {
	Networks          []netip.Prefix // where the proxies are
	ForwardedFor      bool           // they write X-Forwarded-For
	CertificateHeader string         // they verify that the caller holds the key, and write the certificate here; empty: they pass none on
}

func (p Proxies) trusts(from netip.Addr) bool {
	return from.IsValid() && slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// sender is the other end of a request's connection; the zero value for a Unix socket.
func sender(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// ClientAddr is where a caller is. Behind proxies it is the last address in X-Forwarded-For that is no proxy's: what stands before it is
// the caller's own word. The zero value says that it is unknown.
func (p Proxies) ClientAddr(r *http.Request) netip.Addr {
	from := sender(r)
	if !p.ForwardedFor || !p.trusts(from) {
		return from
	}
	hops := strings.Split(strings.Join(r.Header.Values(forwardedFor), ","), ",")
	for _, hop := range slices.Backward(hops[max(0, len(hops)-maxForwarded):]) {
		at, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return netip.Addr{}
		}
		if at = at.Unmap().WithZone(""); !p.trusts(at) {
			return at
		}
	}
	return netip.Addr{}
}

// certificates are what the caller has presented, its own first: to us, or to a proxy that is trusted. A proxy's own certificate is never
// the caller's.
func (p Proxies) certificates(r *http.Request) ([]*x509.Certificate, error) {
	if p.CertificateHeader != "" && p.trusts(sender(r)) {
		return p.passedOn(r)
	}
	if r.TLS == nil {
		return nil, nil
	}
	return r.TLS.PeerCertificates, nil
}

func (p Proxies) passedOn(r *http.Request) ([]*x509.Certificate, error) {
	values := r.Header.Values(p.CertificateHeader)
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, fmt.Errorf("there are %d headers %s: which of them the proxy wrote is unknown", len(values), p.CertificateHeader)
	}
	der, err := readHeader(p.CertificateHeader, values[0])
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.CertificateHeader, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.CertificateHeader, err)
	}
	return []*x509.Certificate{certificate}, nil
}

func readHeader(name, value string) ([]byte, error) {
	switch {
	case strings.EqualFold(name, HeaderRFC9440):
		// A byte sequence (RFC 8941, section 3.3.5) without parameters.
		if len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
			return nil, errors.New("it is no byte sequence")
		}
		return base64.StdEncoding.Strict().DecodeString(value[1 : len(value)-1])
	case strings.EqualFold(name, HeaderEnvoy):
		text, err := envoyCertificate(value)
		if err != nil {
			return nil, err
		}
		return escapedPEM(text)
	default:
		return escapedPEM(value)
	}
}

// envoyCertificate finds Cert in the one element that there may be: with several, the first are what the caller sent.
func envoyCertificate(value string) (string, error) {
	certificate := ""
	for value != "" {
		key, rest, ok := strings.Cut(value, "=")
		if !ok {
			return "", errors.New("it has a part without a value")
		}
		var text string
		if strings.HasPrefix(rest, `"`) {
			end := quoteEnd(rest)
			if end < 0 {
				return "", errors.New("a quote does not end")
			}
			text, rest = rest[1:end], rest[end+1:]
		} else {
			end := strings.IndexAny(rest, ";,")
			if end < 0 {
				end = len(rest)
			}
			text, rest = rest[:end], rest[end:]
		}
		if strings.EqualFold(key, "Cert") {
			if certificate != "" {
				return "", errors.New("it holds two certificates")
			}
			certificate = text
		}
		switch {
		case rest == "":
			value = ""
		case rest[0] == ';':
			value = rest[1:]
		default:
			return "", errors.New("it has several elements: have the proxy replace what the caller sent")
		}
	}
	if certificate == "" {
		return "", errors.New("it holds no Cert")
	}
	return certificate, nil
}

// quoteEnd is where the quote ends that text begins with; -1: nowhere.
func quoteEnd(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func escapedPEM(text string) ([]byte, error) {
	plain, err := url.PathUnescape(text) // a plus is a plus: it stands in base64
	if err != nil {
		return nil, errors.New("it is not percent-encoded")
	}
	block, rest := pem.Decode([]byte(plain))
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("it is not one certificate in PEM")
	}
	return block.Bytes, nil
}
