package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
	"github.com/chancery-ca/chancery/web"
)

// BenchmarkOCSP measures, each beside what bounds it, in rounds that take turns:
//
//   - live: a request with a nonce, from its octets to those of the signed and verified answer, beside the bare C_Sign of the same key;
//   - kept: a request by GET over HTTP that is answered with what was signed before, beside a handler of net/http that writes a body of the
//     same size and does nothing else, asked by the same client.
//
// It reports how often each is done in a second, the share of the bound, and the processor time that each takes, client and all.
func BenchmarkOCSP(b *testing.B) {
	database := storagetest.New(b)
	s := newStack(b, database, false)
	ref := s.offerOCSP()
	// As many sessions as the bare C_Sign has.
	s.hsm = fmt.Sprintf("{module: %q, token: {label: %q}, pin: {file: %q}, sessions: 32}", s.token.Module, s.token.Label, s.token.PINFile)
	service, issuer, serial := s.openForBench(b)
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
	if err != nil {
		b.Fatal(err)
	}
	for _, callers := range []int{2, 8, 32} {
		b.Run(fmt.Sprintf("live/callers=%d", callers), func(b *testing.B) { benchLive(b, service, ref, request, callers) })
	}
	for _, callers := range []int{2, 8, 32} {
		b.Run(fmt.Sprintf("kept/callers=%d", callers), func(b *testing.B) { benchKept(b, service, request, callers) })
	}
}

// openForBench opens everything in this process, its loops running, with one certificate that was issued.
func (s *stack) openForBench(b *testing.B) (*service, *x509.Certificate, *big.Int) {
	cfg, err := parseConfig(filepath.Join(s.dir, "bench.yaml"), []byte(s.config("bench", s.token.Module)), nil)
	if err != nil {
		b.Fatal(err)
	}
	opened, err := s.app.open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	opened.log = slog.New(slog.DiscardHandler)
	if err := opened.ca.Join(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := opened.renewTLS(b.Context()); err != nil { // which is a certificate like any other
		b.Fatal(err)
	}
	if err := opened.ca.RenewResponders(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := opened.ca.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() {
		cancel()
		running.Wait()
		if err := opened.close(); err != nil {
			b.Error(err)
		}
	})
	chain := opened.tls.Load().Certificate
	issuer, err := x509.ParseCertificate(chain[1])
	if err != nil {
		b.Fatal(err)
	}
	return opened, issuer, opened.tls.Load().Leaf.SerialNumber
}

// way is one of the ways that are measured beside each other; the first is the bound.
type way struct {
	name string
	call func(caller int) error
}

func benchWays(b *testing.B, callers int, ways []way) {
	const rounds = 6
	took, spent := make([]time.Duration, len(ways)), make([]time.Duration, len(ways))
	n := max(b.N/(rounds*len(ways)), callers)
	b.ResetTimer()
	for range rounds {
		for i, w := range ways {
			before, began := ownCPU(b), time.Now()
			var next atomic.Int64
			var group sync.WaitGroup
			for caller := range callers {
				group.Go(func() {
					for next.Add(1) <= int64(n) {
						if err := w.call(caller); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			took[i] += time.Since(began)
			spent[i] += ownCPU(b) - before
		}
	}
	for i, w := range ways {
		b.ReportMetric(float64(rounds*n)/took[i].Seconds(), w.name+"/s")
		b.ReportMetric(spent[i].Seconds()*1e6/float64(rounds*n), w.name+"-cpu-us")
		if i > 0 {
			b.ReportMetric(100*took[0].Seconds()/took[i].Seconds(), w.name+"-%")
		}
	}
}

// ownCPU is the processor time that this process has used.
func ownCPU(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchLive(b *testing.B, service *service, ref hsm.KeyRef, request []byte, callers int) {
	raw := hsmtest.RawSign(b, tokenInfo{service.keys.(*ownKeys).tokens}, ref, callers)
	nonced := withNonce(b, request)
	digest := sha256.Sum256(nonced)
	benchWays(b, callers, []way{
		{"raw", func(caller int) error { return raw[caller](digest[:]) }},
		{"live", func(int) error {
			response, err := service.ca.OCSP(b.Context(), devIssuer, nonced)
			if err == nil && response.Refusal != 0 {
				err = fmt.Errorf("%s", response.Refusal)
			}
			return err
		}},
	})
}

// tokenInfo describes the only open token.
type tokenInfo struct{ tokens map[string]*openToken }

func (i tokenInfo) Info() (info hsm.TokenInfo) {
	for _, token := range i.tokens {
		info = token.Info()
	}
	return info
}

// withNonce adds a nonce of 32 octets to a plain request.
func withNonce(b *testing.B, request []byte) []byte {
	var r struct{ TBS struct{ List asn1.RawValue } }
	if _, err := asn1.Unmarshal(request, &r); err != nil {
		b.Fatal(err)
	}
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	value, err := asn1.Marshal(nonce)
	if err != nil {
		b.Fatal(err)
	}
	type extension struct {
		ID    asn1.ObjectIdentifier
		Value []byte
	}
	var nonced struct {
		TBS struct {
			List       asn1.RawValue
			Extensions []extension `asn1:"explicit,tag:2"`
		}
	}
	nonced.TBS.List = r.TBS.List
	nonced.TBS.Extensions = []extension{{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, value}}
	der, err := asn1.Marshal(nonced)
	if err != nil {
		b.Fatal(err)
	}
	return der
}

func benchKept(b *testing.B, service *service, request []byte, callers int) {
	var body []byte
	eventually(b, 10*time.Second, "the answer is kept", func() bool { // which it is once revocations are followed
		last := body
		answer, err := service.ca.OCSP(b.Context(), devIssuer, request)
		if err != nil || answer.Refusal != 0 {
			b.Fatal(answer, err)
		}
		body = bytes.Clone(answer.DER)
		return bytes.Equal(body, last)
	})
	static := listenFor(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(body)
	}))
	kept := listenFor(b, service.web.Distribution())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	b.Cleanup(client.CloseIdleConnections)
	path := "/ocsp/" + devIssuer + "/" + base64.StdEncoding.EncodeToString(request)
	get := func(base string) func(int) error {
		url := base + path
		return func(int) error {
			response, err := client.Get(url)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			n, err := io.Copy(io.Discard, response.Body)
			if err == nil && (n != int64(len(body)) || response.StatusCode != http.StatusOK) {
				err = fmt.Errorf("status %d, %d octets", response.StatusCode, n)
			}
			return err
		}
	}
	benchWays(b, callers, []way{{"static", get(static)}, {"kept", get(kept)}})
}

func listenFor(b *testing.B, handler http.Handler) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := web.NewHTTPServer(handler, slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String()
}
