package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// BenchmarkPeers issues certificates from this authority, from CFSSL and from step-ca by turns, in one run and for the same clients, beside the
// bare C_Sign of SoftHSM: what one machine gives to each. Each has a P-256 issuer, TLS, and a Postgres of its own with fsync on. This
// authority's key is in SoftHSM; the others' are in software, which is what they are fastest with.
//
// The programs cfssl and step-ca are found in the directory $CHANCERY_PEERS; `make bench-peers` builds them there. It reports for each the
// certificates (or signatures) a second, the latency that 99 of 100 stay under, and the processor time of the service and its Postgres.
func BenchmarkPeers(b *testing.B) {
	programs := os.Getenv("CHANCERY_PEERS")
	if programs == "" {
		b.Skip("other authorities are not here: make bench-peers builds them")
	}
	for _, clients := range settings(1, 8, 32) {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			const rounds = 4
			n := max(b.N/rounds, clients)
			csrs := make([]string, 64)
			for i := range csrs {
				csrs[i] = newRequest(b, fmt.Sprintf("host-%d.dev.example", i))
			}
			own, raw := chanceryAmongPeers(b, csrs)
			others := newPeers(b, programs)
			all := []*contender{own, others.cfssl(b, csrs), others.step(b, csrs, rounds*n)}
			b.ResetTimer()
			for range rounds {
				raw.sign(b, n)
				for _, c := range all {
					c.issue(b, clients, n)
				}
			}
			b.StopTimer()
			for _, c := range append(all, raw) {
				slices.Sort(c.latencies)
				done := float64(len(c.latencies))
				b.ReportMetric(done/c.took.Seconds(), c.name+"/s")
				b.ReportMetric(float64(c.latencies[len(c.latencies)*99/100].Microseconds())/1000, c.name+"-p99-ms")
				b.ReportMetric(float64(c.cpu.Microseconds())/1000/done, c.name+"-cpu-ms")
			}
		})
	}
}

// contender is one authority under measurement, or the bare C_Sign.
type contender struct {
	name       string
	dial       func(context.Context) (net.Conn, error)
	request    func(i int64) []byte
	status     int
	service    int // the process
	postmaster int

	next      atomic.Int64
	latencies []time.Duration
	took, cpu time.Duration
	bare      []func([]byte) error
}

// issue has clients issue n certificates between them.
func (c *contender) issue(b *testing.B, clients, n int) {
	spent := func() time.Duration { return cpuTime(b, c.service) + belowCPU(b, c.postmaster) }
	before, began, first := spent(), time.Now(), c.next.Add(int64(n))-int64(n)
	latencies := exchangeAll(b, c.dial, func(i int64) []byte { return c.request(first + i) }, c.status, n, clients)
	c.took += time.Since(began)
	c.cpu += spent() - before
	c.latencies = append(c.latencies, latencies...)
}

// sign makes n bare signatures with two threads.
func (c *contender) sign(b *testing.B, n int) {
	digest := sha256.Sum256([]byte("measured"))
	latencies := make([]time.Duration, n)
	var next atomic.Int64
	var group sync.WaitGroup
	before, began := cpuTime(b, os.Getpid()), time.Now()
	for _, sign := range c.bare {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				start := time.Now()
				if err := sign(digest[:]); err != nil {
					b.Error(err)
					return
				}
				latencies[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	c.took += time.Since(began)
	c.cpu += cpuTime(b, os.Getpid()) - before
	c.latencies = append(c.latencies, latencies...)
}

// chanceryAmongPeers starts this authority, and opens the token of its key for the bare signatures.
func chanceryAmongPeers(b *testing.B, csrs []string) (own, raw *contender) {
	server := storagetest.NewServer(b, storagetest.Options{Durable: true})
	s := newStackOf(b, &server.Database, true, devIssuerKey)
	s.withLog(hsm.Ed25519)
	r := s.start("peers", s.token.Module)
	b.Cleanup(r.stop)
	var requests [][]byte
	for _, csr := range csrs {
		body, err := issueBody(csr)
		if err != nil {
			b.Fatal(err)
		}
		requests = append(requests, r.octets(b, body))
	}
	token := s.token.Open(b)
	keys, err := token.Keys()
	if err != nil {
		b.Fatal(err)
	}
	at := slices.IndexFunc(keys, func(k hsm.KeyInfo) bool { return k.Label == devIssuer })
	if at < 0 {
		b.Fatalf("no key %s among %v", devIssuer, keys)
	}
	own = &contender{
		name: "chancery", dial: r.dial, request: among(requests), status: http.StatusCreated,
		service: r.process.Process.Pid, postmaster: server.PID(),
	}
	return own, &contender{name: "C_Sign", bare: hsmtest.RawSign(b, token, hsm.KeyRef{ID: keys[at].ID}, 2)}
}

func among(requests [][]byte) func(int64) []byte {
	return func(i int64) []byte { return requests[i%int64(len(requests))] }
}

// peers is what the other authorities have in common: a root, an issuing authority with its key in a file, and a certificate for TLS.
type peers struct {
	dir, programs string
	trust         *x509.CertPool
	provisioner   *ecdsa.PrivateKey // signs step-ca's tokens
}

func newPeers(b *testing.B, programs string) *peers {
	p := &peers{dir: b.TempDir(), programs: programs, trust: x509.NewCertPool()}
	now := time.Now().Add(-time.Hour)
	issue := func(
		name string, serial int64, parent *x509.Certificate, signer crypto.Signer, change func(*x509.Certificate),
	) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		}
		change(template)
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			b.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			b.Fatal(err)
		}
		secret, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			b.Fatal(err)
		}
		p.write(b, name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		p.write(b, name+"-key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
		return certificate, key
	}
	authority := func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign }
	root, rootKey := issue("root", 1, nil, nil, authority)
	issuer, issuerKey := issue("issuer", 2, root, rootKey, authority)
	issue("server", 3, issuer, issuerKey, func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	_, p.provisioner = issue("provisioner", 4, root, rootKey, func(*x509.Certificate) {})
	p.trust.AddCert(root)
	p.trust.AddCert(issuer)
	return p
}

func (p *peers) path(name string) string { return filepath.Join(p.dir, name) }

func (p *peers) write(b *testing.B, name string, content []byte) {
	if err := os.WriteFile(p.path(name), content, 0o600); err != nil {
		b.Fatal(err)
	}
}

func (p *peers) writeJSON(b *testing.B, name string, value any) {
	content, err := json.Marshal(value)
	if err != nil {
		b.Fatal(err)
	}
	p.write(b, name, content)
}

// start starts a program and waits until it takes connections for TLS at an address.
func (p *peers) start(b *testing.B, address, program string, args ...string) (pid int, dial func(context.Context) (net.Conn, error)) {
	var log bytes.Buffer
	process := exec.Command(filepath.Join(p.programs, program), args...)
	process.Stdout, process.Stderr = &log, &log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = process.Wait(); close(ended) }()
	b.Cleanup(func() { _ = process.Process.Kill(); <-ended })
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: p.trust}}
	dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", address) }
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := dial(b.Context())
		if err == nil {
			_ = conn.Close()
			return process.Process.Pid, dial
		}
		select {
		case <-ended:
			b.Fatalf("%s ended:\n%s", program, &log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not serve: %v", program, err)
		}
	}
}

// cfsslTable is what CFSSL writes its certificates into.
const cfsslTable = `CREATE TABLE certificates (
	serial_number bytea NOT NULL, authority_key_identifier bytea NOT NULL, ca_label bytea, status bytea NOT NULL, reason int, expiry timestamptz,
	revoked_at timestamptz, pem bytea NOT NULL, issued_at timestamptz, not_before timestamptz, metadata jsonb, sans jsonb, common_name text,
	PRIMARY KEY (serial_number, authority_key_identifier))`

// database makes an empty one with tables on a server of its own.
func (p *peers) database(b *testing.B, tables string) (config *pgx.ConnConfig, postmaster int) {
	server := storagetest.NewServer(b, storagetest.Options{Durable: true})
	config, err := pgx.ParseConfig(server.AdminURL())
	if err != nil {
		b.Fatal(err)
	}
	for _, sql := range []string{"CREATE DATABASE peer", tables} {
		conn, err := pgx.ConnectConfig(b.Context(), config)
		if err == nil {
			_, err = conn.Exec(b.Context(), sql)
			_ = conn.Close(context.WithoutCancel(b.Context()))
		}
		if err != nil {
			b.Fatal(err)
		}
		config.Database = "peer"
	}
	return config, server.PID()
}

func (p *peers) cfssl(b *testing.B, csrs []string) *contender {
	config, postmaster := p.database(b, cfsslTable)
	p.writeJSON(b, "database.json", map[string]string{
		"driver":      "postgres",
		"data_source": fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", config.Host, config.Port, config.User, config.Database),
	})
	host, port := free(b)
	c := &contender{name: "cfssl", status: http.StatusOK, postmaster: postmaster}
	c.service, c.dial = p.start(b, net.JoinHostPort(host, port), "cfssl", "serve", "-address", host, "-port", port, "-loglevel", "5",
		"-ca", p.path("issuer.pem"), "-ca-key", p.path("issuer-key.pem"), "-db-config", p.path("database.json"),
		"-tls-cert", p.path("server.pem"), "-tls-key", p.path("server-key.pem"))
	var requests [][]byte
	for _, csr := range csrs {
		requests = append(requests, octetsOf(b, "https://"+net.JoinHostPort(host, port)+"/api/v1/cfssl/sign", map[string]string{"certificate_request": csr}))
	}
	c.request = among(requests)
	return c
}

// step starts step-ca, whose tokens are good for one request each.
func (p *peers) step(b *testing.B, csrs []string, n int) *contender {
	config, postmaster := p.database(b, "")
	source := url.URL{Scheme: "postgres", User: url.User(config.User), Path: config.Database, RawQuery: url.Values{"host": {config.Host}}.Encode()}
	host, port := free(b)
	address := net.JoinHostPort(host, port)
	point, err := p.provisioner.PublicKey.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	encoded := base64.RawURLEncoding.EncodeToString
	p.writeJSON(b, "step.json", map[string]any{
		"root": p.path("root.pem"), "crt": p.path("issuer.pem"), "key": p.path("issuer-key.pem"), "address": address, "dnsNames": []string{host},
		"logger": map[string]string{"format": "json"},
		"db":     map[string]string{"type": "postgresql", "dataSource": source.String(), "database": config.Database},
		"authority": map[string]any{"provisioners": []any{map[string]any{
			"type": "JWK", "name": "bench",
			"key": map[string]string{"use": "sig", "kty": "EC", "kid": "bench", "crv": "P-256", "alg": "ES256", "x": encoded(point[1:33]), "y": encoded(point[33:])},
		}}},
	})
	c := &contender{name: "step-ca", status: http.StatusCreated, postmaster: postmaster}
	c.service, c.dial = p.start(b, address, "step-ca", p.path("step.json"))
	requests := make([][]byte, n)
	for i := range requests {
		name := fmt.Sprintf("host-%d.dev.example", i%len(csrs))
		requests[i] = octetsOf(b, "https://"+address+"/1.0/sign", map[string]string{
			"csr": csrs[i%len(csrs)], "ott": p.token(b, "https://"+address+"/1.0/sign", name, fmt.Sprint(i)),
		})
	}
	c.request = func(i int64) []byte { return requests[i] }
	return c
}

// token is a JWT (RFC 7519) by which step-ca lets one request pass.
func (p *peers) token(b *testing.B, audience, name, id string) string {
	now := time.Now()
	var parts []byte
	for _, part := range []any{
		map[string]string{"alg": "ES256", "kid": "bench", "typ": "JWT"},
		map[string]any{
			"iss": "bench", "aud": audience, "sub": name, "sans": []string{name}, "jti": id,
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		},
	} {
		text, err := json.Marshal(part)
		if err != nil {
			b.Fatal(err)
		}
		if len(parts) > 0 {
			parts = append(parts, '.')
		}
		parts = base64.RawURLEncoding.AppendEncode(parts, text)
	}
	digest := sha256.Sum256(parts)
	r, s, err := ecdsa.Sign(rand.Reader, p.provisioner, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	var signature [64]byte // RFC 7518, section 3.4
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return string(base64.RawURLEncoding.AppendEncode(append(parts, '.'), signature[:]))
}

// octetsOf are those of a POST of JSON.
func octetsOf(b *testing.B, to string, value any) []byte {
	body, err := json.Marshal(value)
	if err != nil {
		b.Fatal(err)
	}
	request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	var octets bytes.Buffer
	if err := request.Write(&octets); err != nil {
		b.Fatal(err)
	}
	return octets.Bytes()
}

// free is an address that a program can be told to listen at. Another may take it in between; the program then says so and ends.
func free(b *testing.B) (host, port string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	host, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	return host, port
}
