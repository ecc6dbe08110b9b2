package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// stack is a hierarchy in a throw-away token, a throw-away database that knows it, and API tokens: what replicas are started on.
type stack struct {
	t        testing.TB
	dir      string
	token    *hsmtest.Token
	database *storagetest.Database
	app      *app
	tokens   map[access.Role]string
	client   *http.Client
	unsafe   bool
	policies string // the replicas' policies configuration, as a YAML mapping; empty: none
	shares   string // the replicas' namespaces, as a YAML list; empty: dev
	more     string // of the replicas' configuration
	hsm      string // the replicas' hsm configuration; empty: the token in process

	authorities string // the replicas'; empty: devIssuer
}

// newStack makes one.
func newStack(t testing.TB, database *storagetest.Database, durable bool) *stack {
	t.Helper()
	return newStackOf(t, database, durable, devIssuerKey)
}

const (
	devShares    = "[{name: dev, dns: [dev.example, localhost, example.com], ip: [127.0.0.0/8]}]"
	devIssuerKey = "ecdsa-p256" // the algorithm of the issuing authority's key
	// rootKey is that of the root's. With the race detector, linting a certificate for a P-384 key, as chancery dev has one, takes half a
	// second in each process, and every verification 11 ms. TestDevOnce, and the scripts ceremony and operator, have such a key.
	rootKey = "ecdsa-p256"
)

// newStackOf is newStack with another algorithm of the issuing authority's key.
func newStackOf(t testing.TB, database *storagetest.Database, durable bool, algorithm string) *stack {
	t.Helper()
	s := newHierarchy(t, database, durable, algorithm)
	s.register()
	return s
}

// newHierarchy makes a stack whose database knows nothing of it yet. The distribution address stands in the certificates and need not be
// listened on.
func newHierarchy(t testing.TB, database *storagetest.Database, durable bool, algorithm string) *stack {
	t.Helper()
	s := &stack{
		t: t, dir: t.TempDir(), token: hsmtest.New(t), database: database, tokens: map[access.Role]string{}, unsafe: !durable,
		app: &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard, Now: time.Now, Random: rand.Reader}, output: "text"},
	}
	ctx := t.Context()
	text := strings.Replace(devPlan("http://127.0.0.1:9"), devIssuerKey, algorithm, 1)
	text = strings.Replace(text, "{algorithm: ecdsa-p384, label: "+devRoot+"}", "{algorithm: "+rootKey+", label: "+devRoot+"}", 1)
	plan, err := ceremony.ParsePlan("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	plan.Output = filepath.Join(s.dir, "ceremony")
	token := s.token.Open(t)
	if _, err := ceremony.Run(ctx, plan, ceremony.Options{
		Token: token, Now: time.Now, Random: rand.Reader, Out: io.Discard,
		Confirm: func(string) error { return nil },
	}); err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	roots, err := readRoots(s.root())
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 256},
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// storeOf opens a database as the program does, until the test ends.
func storeOf(t testing.TB, database *storagetest.Database) *storage.Store {
	t.Helper()
	store, err := storage.Open(t.Context(), storage.Config{URL: database.URL, MaxConns: 4, Unsafe: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// register tells the database of the hierarchy, and makes the API tokens.
func (s *stack) register() {
	t, ctx := s.t, s.t.Context()
	t.Helper()
	output := filepath.Join(s.dir, "ceremony")
	store, err := storage.Open(ctx, storage.Config{URL: s.database.URL, MaxConns: 4, Unsafe: s.unsafe, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	bundles, err := readBundles(output)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bundles {
		if err := s.app.registrar(store).AddAuthority(ctx, authorityRecord(b)); err != nil {
			t.Fatal(err)
		}
	}
	crl, err := os.ReadFile(filepath.Join(output, devRoot+".crl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.app.registrar(store).ImportCRL(ctx, devRoot, crl); err != nil {
		t.Fatal(err)
	}
	d := devFile{}
	if err := s.app.devTokens(ctx, &d, store); err != nil {
		t.Fatal(err)
	}
	for role, token := range d.Tokens {
		s.tokens[access.Role(role)] = token
	}
}

// withLog makes a key of the audit log, and has the replicas sign its checkpoints.
func (s *stack) withLog(algorithm hsm.Algorithm) *audit.Verifier {
	s.t.Helper()
	verifier, config := s.logKey(algorithm, devLogLabel)
	s.more += config
	return verifier
}

// logKey makes a key of the audit log, and the configuration of replicas that sign with it.
func (s *stack) logKey(algorithm hsm.Algorithm, label string) (*audit.Verifier, string) {
	s.t.Helper()
	token := s.token.Open(s.t)
	_, public, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: label})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		s.t.Fatal(err)
	}
	text, err := publicKeyPEM(public)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, label+".pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	verifier, err := audit.NewVerifier(devLogOrigin, public)
	if err != nil {
		s.t.Fatal(err)
	}
	return verifier, fmt.Sprintf("audit: {origin: %s, key: {public_key: %q, label: %s}, checkpoint_every: 1s}\n", devLogOrigin, path, label)
}

func (s *stack) root() string { return filepath.Join(s.dir, "ceremony", devRoot+".pem") }

// replica is a `chancery serve` in a process of its own.
type replica struct {
	s            *stack
	name         string
	process      *exec.Cmd
	api          string
	distribution string
	operations   string
	log          *logBuffer
	ended        chan struct{}
}

// config is the configuration of a replica. It listens wherever a port is free.
func (s *stack) config(name, module string) string {
	hsm := s.hsm
	if hsm == "" {
		hsm = fmt.Sprintf("{module: %q, token: {label: %q}, pin: {file: %q}}", module, s.token.Label, s.token.PINFile)
	}
	policies := ""
	if s.policies != "" {
		policies = "policies: " + s.policies + "\n"
	}
	return fmt.Sprintf(`replica: %s
database: {url: %q, unsafe: %v, max_connections: 16}
hsm: %s
authorities: [%s]
namespaces: %s
listen: {api: "127.0.0.1:0", distribution: "127.0.0.1:0", operations: "127.0.0.1:0"}
`, name, s.database.URL, s.unsafe, hsm, cmp.Or(s.authorities, devIssuer), cmp.Or(s.shares, devShares)) + policies + s.more
}

// write writes the configuration of a replica.
func (s *stack) write(name, module string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name+".yaml")
	if err := os.WriteFile(path, []byte(s.config(name, module)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// start starts a replica and waits until it serves. Extra environment entries may replace the module (module=...).
func (s *stack) start(name, module string, environ ...string) *replica {
	s.t.Helper()
	return s.startProgram(os.Args[0], name, module, environ...)
}

// startProgram starts a replica of a program: this one, or one of another version.
func (s *stack) startProgram(program, name, module string, environ ...string) *replica {
	s.t.Helper()
	path := s.write(name, module)
	r := &replica{s: s, name: name, log: newLog("serving"), ended: make(chan struct{})}
	r.process = exec.Command(program, "serve", "--config", path)
	r.process.Env = append(environFor(program), environ...)
	r.process.Stderr = r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = r.process.Wait(); close(r.ended) }()
	s.t.Cleanup(r.kill)
	select {
	case line := <-r.log.serving:
		r.api, r.distribution, r.operations = "https://"+line["api"].(string), "http://"+line["distribution"].(string), "http://"+line["operations"].(string)
	case <-r.ended:
		s.t.Fatalf("replica %s ended before it served:\n%s", name, r.log)
	case <-time.After(60 * time.Second):
		s.t.Fatalf("replica %s does not serve:\n%s", name, r.log)
	}
	return r
}

// kill ends the process as a power failure would.
func (r *replica) kill() {
	_ = r.process.Process.Signal(syscall.SIGKILL)
	<-r.ended
}

// stop ends the process in good order.
func (r *replica) stop() {
	r.s.t.Helper()
	_ = r.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(60 * time.Second):
		r.s.t.Fatalf("replica %s does not stop:\n%s", r.name, r.log)
	}
	if code := r.process.ProcessState.ExitCode(); code != 0 {
		r.s.t.Errorf("replica %s stopped with exit code %d:\n%s", r.name, code, r.log)
	}
}

// logBuffer keeps a process's log and tells when it is ready.
type logBuffer struct {
	ready   string // the message of the line that says so
	serving chan map[string]any

	mu      sync.Mutex
	text    bytes.Buffer
	partial []byte // the line that has not ended, until it is ready
	started bool   // it has said that it is ready: nobody waits for another line
}

// newLog is the log of a process that is ready when it says so: "serving" of a service, "keeping" of a keeper. A service's log holds
// that of its child.
func newLog(ready string) *logBuffer {
	return &logBuffer{ready: ready, serving: make(chan map[string]any, 1)}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.started {
		return len(p), nil
	}
	l.partial = append(l.partial, p...)
	for !l.started {
		i := bytes.IndexByte(l.partial, '\n')
		if i < 0 {
			return len(p), nil
		}
		var line map[string]any
		if json.Unmarshal(l.partial[:i], &line) == nil && line["msg"] == l.ready {
			l.serving <- line
			l.started = true
		}
		l.partial = l.partial[i+1:]
	}
	l.partial = nil
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// answer is what came back of a call.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (r *replica) call(ctx context.Context, method, path string, role access.Role, header http.Header, body []byte) (answer, error) {
	request, err := r.request(ctx, method, path, role, header, body)
	if err != nil {
		return answer{}, err
	}
	response, err := r.s.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, read}, err
}

// request is a call that has not been made.
func (r *replica) request(ctx context.Context, method, path string, role access.Role, header http.Header, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.api+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if role != "" {
		request.Header.Set("Authorization", "Bearer "+r.s.tokens[role])
	}
	return request, nil
}

// issuedJSON is the part of an issued certificate's answer that tests look at.
type issuedJSON struct {
	Serial      string `json:"serial"`
	Certificate string `json:"certificate"`
	Chain       string `json:"chain"`
	Status      string `json:"status"`
	AuditEvent  string `json:"audit_event"`
}

// issue asks for a certificate for a new key.
func (r *replica) issue(ctx context.Context, name string, header http.Header) (issuedJSON, answer, error) {
	return r.issueCSR(ctx, newRequest(r.s.t, name), header)
}

// newRequest is a CSR for a name and a new key.
func newRequest(t testing.TB, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := newCSR(rand.Reader, key, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func (r *replica) issueCSR(ctx context.Context, request string, header http.Header) (issuedJSON, answer, error) {
	body, err := issueBody(request)
	if err != nil {
		return issuedJSON{}, answer{}, err
	}
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	got, err := r.call(ctx, http.MethodPost, "/api/v1/certificates", access.Requester, header, body)
	if err != nil {
		return issuedJSON{}, got, err
	}
	var issued issuedJSON
	if got.status == http.StatusCreated {
		err = json.Unmarshal(got.body, &issued)
	}
	return issued, got, err
}

// issueBody is the body in which a CSR is sent.
func issueBody(request string) ([]byte, error) {
	return json.Marshal(map[string]string{"profile": "tls-server", "csr": request})
}

// crl is the CRL that a replica serves of the issuing authority.
func (r *replica) crl(ctx context.Context) (*x509.RevocationList, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.distribution+"/crl/"+devIssuer+".crl", nil)
	if err != nil {
		return nil, err
	}
	response, err := r.s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	der, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %v", response.StatusCode, err)
	}
	return x509.ParseRevocationList(der)
}

// eventually asks until it is so, and fails the test when it is not within the time.
func eventually(t testing.TB, within time.Duration, what string, so func() bool) {
	t.Helper()
	passed, end := hsmtest.Passing()
	defer end()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		if passed() > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
}

// signedDigests reads what pkcs11-spy saw going into C_Sign: the digests, in lower-case hex.
func signedDigests(t testing.TB, path string) map[string]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digests := map[string]bool{}
	var data *strings.Builder
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "[in] pData["): // of C_Sign: nothing else here takes data
			data = &strings.Builder{}
		case data == nil:
		case strings.HasPrefix(line, "    ") && len(strings.Fields(line)) > 16:
			data.WriteString(strings.ToLower(strings.Join(strings.Fields(line)[1:17], "")))
		default:
			if data.Len() == 64 { // a checkpoint, which an Ed25519 key is given whole, is longer
				digests[data.String()] = true
			}
			data = nil
		}
	}
	return digests
}
