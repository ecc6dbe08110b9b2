package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// holder has a key and a certificate for it.
type holder struct {
	serial            string
	chainFile, secret string // files
	pair              tls.Certificate
}

// newHolder has a certificate issued.
func (r *replica) newHolder(t *testing.T, profile, name string) holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := newCSR(rand.Reader, key, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"profile": profile, "csr": csr})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.call(t.Context(), http.MethodPost, "/api/v1/certificates", access.Requester,
		http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("issuing: %d %s %v", got.status, got.body, err)
	}
	var issued issuedJSON
	if err := json.Unmarshal(got.body, &issued); err != nil {
		t.Fatal(err)
	}
	return newHolderOf(t, key, issued.Serial, []byte(issued.Certificate))
}

func newHolderOf(t *testing.T, key *ecdsa.PrivateKey, serial string, chain []byte) holder {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	h := holder{serial: serial, chainFile: filepath.Join(t.TempDir(), "chain.pem"), secret: filepath.Join(t.TempDir(), "key.pem")}
	if h.pair, err = tls.X509KeyPair(chain, secret); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{h.chainFile: chain, h.secret: secret} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// visitor calls a replica over one connection, with a client certificate or without.
func (r *replica) visitor(t *testing.T, certificates ...tls.Certificate) func(header http.Header) (status int, reused bool, err error) {
	t.Helper()
	roots, err := readRoots(r.s.root())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 { // whatever the service asks for
				return &tls.Certificate{}, nil
			}
			return &certificates[0], nil
		},
	}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return func(header http.Header) (status int, reused bool, err error) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.api+"/api/v1/certificates", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range header {
			request.Header[name] = values
		}
		answer, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
		if err != nil {
			return 0, reused, err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode, reused, answer.Body.Close()
	}
}

// events are the audit events of a kind.
func (s *stack) events(t *testing.T, kind audit.Kind) (events []audit.Event) {
	t.Helper()
	owner, err := pgx.Connect(t.Context(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	rows, err := owner.Query(t.Context(), `SELECT leaf FROM audit_leaves WHERE kind = $1 ORDER BY id`, string(kind))
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range leaves {
		e, err := audit.Parse(leaf)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// TestComingInWithoutAToken lets callers in by client certificates and by a local socket, and holds what is bad about them outside.
func TestComingInWithoutAToken(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	s.more = fmt.Sprintf(`clients: {mode: optional, authorities: [%s]}
identities:
  - {name: robots, certificate: {dns: [robot.dev.example], namespace: [dev], profile: [tls-client]}, namespace: "${namespace}", roles: [requester], person: "${dns}"}
  - {name: admin, local: {uid: ["%[2]d"]}, namespace: "*", roles: [auditor]}
  - {name: glass, local: {uid: ["%[2]d"]}, namespace: "*", roles: [operator, policy-admin, approver], person: "${user}", emergency: true}
`, devIssuer, os.Getuid())
	sockets := t.TempDir()
	one := s.start("one", s.token.Module, "CHANCERY_LISTEN_LOCAL="+filepath.Join(sockets, "one"))
	robot := one.newHolder(t, "tls-client", "robot.dev.example")

	t.Run("certificates", func(t *testing.T) {
		visit := one.visitor(t, robot.pair)
		for range 2 {
			if status, _, err := visit(nil); err != nil || status != http.StatusOK {
				t.Fatalf("a good certificate: %d, %v", status, err)
			}
		}
		if status, _, err := visit(http.Header{"Authorization": {"Bearer " + s.tokens[access.Auditor] + "x"}}); err != nil ||
			status != http.StatusUnauthorized {
			t.Errorf("a good certificate beside a bad token: %d, %v", status, err)
		}
		if status, _, err := visit(http.Header{"Authorization": {"Basic eDp5"}}); err != nil || status != http.StatusUnauthorized {
			t.Errorf("a good certificate beside credentials of another kind: %d, %v", status, err)
		}
		var out bytes.Buffer
		err := run(t.Context(), []string{
			"list", "--api", one.api, "--ca-bundle", s.root(), "--client-cert", robot.chainFile, "--client-key",
			robot.secret, "-o", "json",
		},
			Env{Stdout: &out, Stderr: &out, Now: time.Now, Random: rand.Reader})
		if err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("the command line with a certificate: %v: %s", err, out.String())
		}
		for name, other := range map[string]holder{
			"for servers":       one.newHolder(t, "tls-server", "robot.dev.example"),
			"of somebody else":  one.newHolder(t, "tls-client", "other.dev.example"),
			"of nobody we know": stranger(t, "robot.dev.example"),
		} {
			if status, _, err := one.visitor(t, other.pair)(nil); err != nil || status != http.StatusUnauthorized {
				t.Errorf("a certificate %s: %d, %v", name, status, err)
			}
			if status, _, err := one.visitor(t, other.pair)(http.Header{"Authorization": {"Bearer " + s.tokens[access.Auditor]}}); err != nil ||
				status != http.StatusOK {
				t.Errorf("a token beside a certificate %s, which is not needed: %d, %v", name, status, err)
			}
		}
		spoofed := http.Header{
			"Client-Cert":             {":" + "AAAA" + ":"},
			"X-Forwarded-Client-Cert": {`Subject="CN=robot.dev.example"`}, "X-Ssl-Client-Cert": {"x"}, "X-Forwarded-For": {"127.0.0.1"},
		}
		if status, _, err := one.visitor(t)(spoofed); err != nil || status != http.StatusUnauthorized {
			t.Errorf("headers that no proxy wrote: %d, %v", status, err)
		}
		one.mustRevoke(t.Context(), t, robot.serial, "superseded")
		if status, reused, err := visit(nil); err != nil || status != http.StatusUnauthorized || !reused {
			t.Errorf("revoked, on the connection that is open: %d, reused %v, %v", status, reused, err)
		}
		if status, _, err := one.visitor(t, robot.pair)(nil); err != nil || status != http.StatusUnauthorized {
			t.Errorf("revoked, on a new connection: %d, %v", status, err)
		}
	})

	t.Run("the machine itself", func(t *testing.T) {
		address := "unix://" + filepath.Join(sockets, "one")
		local := func(emergency string) *client.Client {
			c, err := client.New(client.Config{BaseURL: address, Emergency: emergency})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return c
		}
		if _, err := local("").Tokens(t.Context()); err != nil {
			t.Errorf("an auditor of the machine: %v", err)
		}
		holder := one.newHolder(t, "tls-server", "robot.dev.example")
		key := holder.pair.PrivateKey.(crypto.Signer)
		if _, err := local("").RevokeByKey(t.Context(), key, holder.serial, "", "", time.Now()); err != nil {
			t.Errorf("by the key: %v", err)
		}
		spec := client.TokenSpec{Name: "spare", Namespace: "dev", Roles: []string{"requester"}}
		if _, err := local("").CreateToken(t.Context(), spec); err == nil {
			t.Error("an auditor of the machine made a token")
		}
		if _, err := local("the provider is down").CreateToken(t.Context(), spec); err != nil {
			t.Errorf("in an emergency: %v", err)
		}
		var out bytes.Buffer
		if err := run(t.Context(), []string{"token", "list", "--api", address, "--break-glass", "rehearsal", "-o", "json"},
			Env{Stdout: &out, Stderr: &out, Now: time.Now, Random: rand.Reader}); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("the command line: %v: %s", err, out.String())
		}
		if _, err := client.New(client.Config{BaseURL: one.api, Emergency: "from afar"}); err == nil {
			t.Error("the glass is broken from afar")
		}
		broken := s.events(t, audit.GlassBroken)
		if len(broken) != 2 || !strings.HasPrefix(broken[0].Actor, "local:") || broken[0].Data["means"] != "local" {
			t.Errorf("the events of broken glass: %+v", broken)
		}
		if log := one.log.String(); !strings.Contains(log, "the glass is broken") || !strings.Contains(log, "the provider is down") {
			t.Error("the log does not say that it is, and why")
		}
	})

	t.Run("events of who calls", func(t *testing.T) {
		count := map[string]int{}
		for _, e := range s.events(t, audit.IdentityUsed) {
			count[e.Data["means"]+" "+e.Actor]++
		}
		for actor, n := range count {
			if n != 1 {
				t.Errorf("%s: %d events in an hour", actor, n)
			}
		}
		if count["certificate certificate:"+devIssuer+"/"+robot.serial] != 1 {
			t.Errorf("the robot's visit is not recorded: %v", count)
		}
	})

	t.Run("required", func(t *testing.T) {
		two := s.start("two", s.token.Module, "CHANCERY_CLIENTS_MODE=required", "CHANCERY_LISTEN_LOCAL="+filepath.Join(sockets, "two"))
		known := one.newHolder(t, "tls-client", "robot.dev.example")
		token := http.Header{"Authorization": {"Bearer " + s.tokens[access.Auditor]}}
		if status, _, err := two.visitor(t)(token); err == nil {
			t.Errorf("without a certificate: %d", status)
		}
		if status, _, err := two.visitor(t, stranger(t, "robot.dev.example").pair)(token); err != nil || status != http.StatusUnauthorized {
			t.Errorf("a good token beside a stranger's certificate: %d, %v", status, err)
		}
		if status, _, err := two.visitor(t, robot.pair)(token); err != nil || status != http.StatusUnauthorized {
			t.Errorf("a good token beside a revoked certificate: %d, %v", status, err)
		}
		for _, header := range []http.Header{nil, token} {
			if status, _, err := two.visitor(t, known.pair)(header); err != nil || status != http.StatusOK {
				t.Errorf("a good certificate, header %v: %d, %v", header != nil, status, err)
			}
		}
		c, err := client.New(client.Config{BaseURL: "unix://" + filepath.Join(sockets, "two")})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Tokens(t.Context()); err != nil {
			t.Errorf("a local caller: %v", err)
		}
		two.stop()
		owner, err := pgx.Connect(t.Context(), s.database.OwnerURL)
		if err != nil {
			t.Fatal(err)
		}
		defer owner.Close(context.Background())
		var from string
		err = owner.QueryRow(t.Context(),
			`SELECT last_used_from FROM api_tokens WHERE name = 'dev auditor' AND last_used_at > now() - interval '1 hour'`).Scan(&from)
		if err != nil || from != "127.0.0.1" {
			t.Errorf("the last use of a token is %q, %v", from, err)
		}
	})
}

// stranger has a certificate by an authority that nobody trusts, and that calls itself as ours does.
func stranger(t *testing.T, name string) holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Chancery Development Issuing 1"},
		DNSNames:  []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return newHolderOf(t, key, "", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
