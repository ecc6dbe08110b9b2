package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage/storagetest"
	"github.com/chancery-ca/chancery/transparency/logtest"
)

// loggedStack is a stack whose profile tls-logged asks for two timestamps of two operators, and its logs.
type loggedStack struct {
	*stack
	logs map[string]*logtest.Log
	list string // the file
}

func newLoggedStack(t *testing.T, timeout string) *loggedStack {
	t.Helper()
	s := &loggedStack{stack: newStack(t, storagetest.New(t), false), logs: map[string]*logtest.Log{}}
	pemRoot, err := os.ReadFile(s.root())
	if err != nil {
		t.Fatal(err)
	}
	root, _ := pem.Decode(pemRoot)
	var all []*logtest.Log
	for _, o := range []logtest.Options{{Description: "oak", Operator: "A"}, {Description: "fir", Operator: "B"}, {Description: "tile", Operator: "C", Static: true}} {
		o.Roots = [][]byte{root.Bytes}
		s.logs[o.Description] = logtest.New(t, o)
		all = append(all, s.logs[o.Description])
	}
	s.list = filepath.Join(s.dir, "logs.json")
	profiles := filepath.Join(s.dir, "profiles")
	if err := os.CopyFS(profiles, os.DirFS("../../policies/profiles")); err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(filepath.Join(profiles, "tls-server.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	logged := bytes.Replace(server, []byte("name: tls-server\n"), []byte("name: tls-logged\n"), 1)
	logged = append(logged, "\nct: {scts: 2, operators: 2, patience: 300ms, timeout: "+timeout+"}\n"...)
	for name, text := range map[string][]byte{s.list: logtest.List(t, all...), filepath.Join(profiles, "tls-logged.yaml"): logged} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.more = fmt.Sprintf("policies: {directory: %q}\ntransparency: {log_list: %q}\n", profiles, s.list)
	return s
}

// issueLogged asks for a certificate of tls-logged.
func (r *replica) issueLogged(ctx context.Context, request, idempotencyKey string) (issuedJSON, answer, error) {
	body, err := json.Marshal(map[string]string{"profile": "tls-logged", "csr": request})
	if err != nil {
		return issuedJSON{}, answer{}, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if idempotencyKey != "" {
		header.Set("Idempotency-Key", idempotencyKey)
	}
	got, err := r.call(ctx, http.MethodPost, "/api/v1/certificates", access.Requester, header, body)
	var issued issuedJSON
	if err == nil && got.status == http.StatusCreated {
		err = json.Unmarshal(got.body, &issued)
	}
	return issued, got, err
}

// TestLoggedCertificate issues a certificate with timestamps and has openssl and ct check verify them.
func TestLoggedCertificate(t *testing.T) {
	t.Parallel()
	s := newLoggedStack(t, "10s")
	r := s.start("one", s.token.Module)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := newCSR(rand.Reader, key, []string{"logged.dev.example"})
	if err != nil {
		t.Fatal(err)
	}
	issued, got, err := r.issueLogged(t.Context(), request, "one")
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v\n%s", got.status, got.body, err, r.log)
	}
	again, got, err := r.issueLogged(t.Context(), request, "one")
	if err != nil || again.Certificate != issued.Certificate {
		t.Errorf("the same request again: %d %s, %v", got.status, got.body, err)
	}
	chain := filepath.Join(s.dir, "chain.pem")
	if err := os.WriteFile(chain, []byte(issued.Chain), 0o600); err != nil {
		t.Fatal(err)
	}
	s.checkWithOpenSSL(t, issued.Chain, key)

	var out bytes.Buffer
	check := Env{Stdout: &out, Stderr: &out, Now: time.Now, Random: rand.Reader}
	if err := run(t.Context(), []string{"ct", "check", chain, "--log-list", s.list, "-o", "json"}, check); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var checked struct{ Timestamps []checkedSCT }
	if err := json.Unmarshal(out.Bytes(), &checked); err != nil || len(checked.Timestamps) != 2 {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, c := range checked.Timestamps {
		if !c.Valid || c.Inclusion != "included" || c.Index == nil {
			t.Errorf("checked: %+v", c)
		}
	}
	out.Reset()
	if err := run(t.Context(), []string{"ct", "check", chain, "--log-list", s.list, "--offline"}, check); err != nil || strings.Count(out.String(), "verified") != 2 {
		t.Errorf("%v\n%s", err, &out)
	}

	// The serial is one certificate to everybody, and is revoked as one.
	if status := s.database.Column(t, `SELECT kind FROM certificates WHERE serial = decode('`+issued.Serial+`', 'hex') ORDER BY kind`); strings.Join(status, " ") != "final precertificate" {
		t.Errorf("on record are %v", status)
	}
	got, err = r.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+issued.Serial+"/revoke", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"superseded"}`))
	if err != nil || got.status != http.StatusOK {
		t.Errorf("revoking: %d %s, %v", got.status, got.body, err)
	}
	eventually(t, 20*time.Second, "the serial is on the CRL", func() bool { return s.listed(t, r, issued.Serial) })
	response, err := http.Get(r.operations + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var metrics bytes.Buffer
	if _, err := metrics.ReadFrom(response.Body); err != nil || strings.Count(metrics.String(), `outcome="accepted"`) < 2 {
		t.Errorf("the metrics do not tell of submissions: %v", err)
	}
	r.stop()
}

func (s *loggedStack) listed(t *testing.T, r *replica, serial string) bool {
	list, err := r.crl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.RevokedCertificateEntries {
		if hex.EncodeToString(e.SerialNumber.FillBytes(make([]byte, 20))) == serial {
			return true
		}
	}
	return false
}

// checkWithOpenSSL serves TLS with the certificate and has openssl connect, which knows the logs and insists on timestamps.
func (s *loggedStack) checkWithOpenSSL(t *testing.T, chain string, key *ecdsa.PrivateKey) {
	t.Helper()
	var known, names strings.Builder
	for name, log := range s.logs {
		fmt.Fprintf(&names, ",%s", name)
		fmt.Fprintf(&known, "[%s]\ndescription = %s\nkey = %s\n", name, name, base64.StdEncoding.EncodeToString(log.Key()))
	}
	logs := filepath.Join(s.dir, "openssl-logs.cnf")
	if err := os.WriteFile(logs, []byte("enabled_logs="+names.String()[1:]+"\n"+known.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	served := tls.Certificate{PrivateKey: key}
	for rest := []byte(chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		served.Certificate = append(served.Certificate, block.Bytes)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{served}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_, _ = conn.Read(make([]byte, 1)) // until openssl leaves
			_ = conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = listener.Close()
		<-done
	}()
	// openssl counts the time of a connection in whole seconds, cut off: within the second of a timestamp it takes that to be in the future.
	eventually(t, 10*time.Second, "openssl verifies both timestamps", func() bool {
		client := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", "127.0.0.1:"+port, "-servername", "logged.dev.example",
			"-verify_hostname", "logged.dev.example", "-CAfile", s.root(), "-verify_return_error", "-ct", "-ctlogfile", logs)
		output, err := client.CombinedOutput()
		text := string(output)
		if strings.Contains(text, "sct future timestamp") {
			return false
		}
		if err != nil || !strings.Contains(text, "Verify return code: 0 (ok)") || !strings.Contains(text, "SCTs present (2)") {
			t.Fatalf("openssl: %v\n%s", err, text)
		}
		return strings.Count(text, "SCT validation status: valid") == 2
	})
}

// TestLogsThatFail has too few logs answer: there is no certificate, and what was signed is revoked.
func TestLogsThatFail(t *testing.T) {
	t.Parallel()
	s := newLoggedStack(t, "1s")
	s.logs["oak"].Break(logtest.Fault{Hang: true})
	s.logs["tile"].Break(logtest.Fault{WrongKey: true})
	r := s.start("one", s.token.Module)
	request := newRequest(t, "failed.dev.example")
	_, got, err := r.issueLogged(t.Context(), request, "again")
	if err != nil || got.status != http.StatusServiceUnavailable {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	s.wantOneFinalEach(t)
	left := s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates WHERE kind = 'precertificate'`)
	if len(left) != 1 {
		t.Fatalf("precertificates on record: %v", left)
	}
	eventually(t, 20*time.Second, "the precertificate's serial is on the CRL", func() bool { return s.listed(t, r, left[0]) })
	got, err = r.call(t.Context(), http.MethodGet, "/api/v1/certificates/"+left[0], access.Auditor, http.Header{"Accept": {"application/json"}}, nil)
	if err != nil || got.status != http.StatusOK || !bytes.Contains(got.body, []byte(`"revoked"`)) {
		t.Errorf("the serial is told as %d %s, %v", got.status, got.body, err)
	}
	s.logs["oak"].Break(logtest.Fault{})
	if _, got, err = r.issueLogged(t.Context(), request, "again"); err != nil || got.status != http.StatusCreated {
		t.Errorf("with the logs mended: %d %s, %v", got.status, got.body, err)
	}
	r.stop()
}

// TestAKeyIsCompromisedWhileLogsAreAsked revokes another certificate of the key meanwhile: no certificate is signed for it, the requester is told why,
// and the precertificate is revoked.
func TestAKeyIsCompromisedWhileLogsAreAsked(t *testing.T) {
	t.Parallel()
	s := newLoggedStack(t, "20s")
	r := s.start("one", s.token.Module)
	ctx := t.Context()
	request := newRequest(t, "leaked.dev.example")
	earlier, got, err := r.issueLogged(ctx, request, "")
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	away := func(f logtest.Fault) {
		for _, log := range s.logs {
			log.Break(f)
		}
	}
	away(logtest.Fault{Status: http.StatusServiceUnavailable})
	refused := make(chan answer, 1)
	go func() {
		_, got, err := r.issueLogged(ctx, request, "")
		if err != nil {
			t.Errorf("issuing: %v", err)
		}
		refused <- got
	}()
	const alone = `SELECT encode(serial, 'hex') FROM intents AS i WHERE EXISTS (SELECT FROM certificates AS c WHERE c.serial = i.serial)`
	var left []string
	eventually(t, 20*time.Second, "a precertificate waits for logs", func() bool {
		left = s.database.Column(t, alone)
		return len(left) == 1
	})
	r.mustRevoke(ctx, t, earlier.Serial, "keyCompromise")
	away(logtest.Fault{})
	if got := <-refused; got.status != http.StatusUnprocessableEntity || !bytes.Contains(got.body, []byte("key.compromised")) {
		t.Errorf("the request is answered with %d %s", got.status, got.body)
	}
	finals := s.database.Column(t, `SELECT encode(f.serial, 'hex') FROM certificates AS f JOIN certificates AS p ON p.spki_sha256 = f.spki_sha256
		WHERE f.kind = 'final' AND p.kind = 'precertificate' AND encode(p.serial, 'hex') = $1`, left[0])
	if len(finals) != 1 || finals[0] != earlier.Serial {
		t.Errorf("certificates are %v", finals)
	}
	eventually(t, 20*time.Second, "the precertificate's serial is on the CRL", func() bool { return s.listed(t, r, left[0]) })
	r.stop()
}

// TestKillBetweenPrecertificateAndCertificate kills the program at each step between the two.
func TestKillBetweenPrecertificateAndCertificate(t *testing.T) {
	t.Parallel()
	s := newLoggedStack(t, "10s")
	armed := filepath.Join(s.dir, "armed")
	for _, step := range []string{"before precertificate", "after precertificate", "before final intent", "after final intent", "before certificate", "after certificate"} {
		t.Run(step, func(t *testing.T) {
			mortal := s.start("mortal", s.token.Module, dieAt+"="+step, dieWhen+"="+armed)
			if err := os.WriteFile(armed, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			request, key := newRequest(t, "killed.dev.example"), strings.ReplaceAll(step, " ", "-")
			if _, got, err := mortal.issueLogged(t.Context(), request, key); err == nil {
				t.Fatalf("the replica that should have died answered %d %s", got.status, got.body)
			}
			<-mortal.ended
			if err := os.Remove(armed); err != nil {
				t.Fatal(err)
			}
			back := s.start("mortal", s.token.Module)
			if left := s.database.Column(t, `SELECT encode(serial, 'hex') FROM intents`); len(left) != 0 {
				t.Errorf("%d intents are open after the restart", len(left))
			}
			issued, got, err := back.issueLogged(t.Context(), request, key)
			if err != nil || got.status != http.StatusCreated {
				t.Fatalf("after the restart: %d %s, %v\n%s", got.status, got.body, err, back.log)
			}
			if replayed := got.header.Get("Idempotency-Replayed") == "true"; replayed != (step == "after certificate") {
				t.Errorf("the repeated request was answered with an earlier certificate: %v", replayed)
			}
			block, _ := pem.Decode([]byte(issued.Certificate))
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				t.Error(err)
			}
			for _, serial := range s.database.Column(t, `SELECT DISTINCT encode(i.serial, 'hex') FROM issued AS i
				WHERE NOT EXISTS (SELECT FROM certificates AS c WHERE c.serial = i.serial AND c.kind = 'final')`) {
				eventually(t, 20*time.Second, "a serial without certificate is on the CRL", func() bool { return s.listed(t, back, serial) })
			}
			s.wantOneFinalEach(t)
			back.stop()
		})
	}
}

// wantOneFinalEach holds what is on record and what the logs have against each other.
func (s *loggedStack) wantOneFinalEach(t *testing.T) {
	t.Helper()
	finals := map[string]int{}
	for _, text := range s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'certificate.intended'`) {
		e, err := audit.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if e.Data["kind"] == "final" {
			finals[e.Data["serial"]]++
		}
	}
	for serial, n := range finals {
		if n > 1 {
			t.Errorf("%d certificates of %s were intended", n, serial)
		}
	}
	recorded := len(s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates WHERE kind = 'precertificate'`))
	for name, log := range s.logs {
		if log.Size() > recorded {
			t.Errorf("the log %s has %d precertificates, and %d are on record", name, log.Size(), recorded)
		}
	}
}

// TestTransparencyConfig holds that what is wrong with the logs of a configuration is told with file and line, all at once.
func TestTransparencyConfig(t *testing.T) {
	log := logtest.New(t, logtest.Options{Description: "oak"})
	key := base64.StdEncoding.EncodeToString(log.Key())
	const before = `replica: one
database: {url: "postgres://localhost/x"}
hsm: {module: "/m.so", token: {label: "t"}, pin: {file: "/pin"}}
authorities: [issuing-1]
transparency:
  log_list: logs.json
  logs:
`
	entry := func(more string) string {
		return "    - {description: oak, operator: A, url: \"https://log.example/1\", " + more + "}\n"
	}
	good, err := parseConfig("/etc/chancery.yaml", []byte(before+entry(`key: "`+key+`", not_after_until: "2028-01-01T00:00:00Z"`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if good.Transparency.LogList != "/etc/logs.json" || good.Transparency.empty() {
		t.Errorf("it is read as %+v", good.Transparency)
	}
	if made, err := good.Transparency.Logs[0].log(); err != nil || made.Until.Year() != 2028 || made.Static() {
		t.Errorf("the log is %+v, %v", made, err)
	}
	_, err = parseConfig("/etc/chancery.yaml", []byte(before+
		entry(`key: "AAAA"`)+
		entry(`key: "`+key+`", not_after_from: tomorrow`)+
		entry(`key: "`+key+`", not_after_from: "2028-01-01T00:00:00Z", not_after_until: "2027-01-01T00:00:00Z"`)+
		entry(`key: "`+key+`", monitoring_url: "tiles"`)+
		entry(`key: "`+key+`"`)+
		entry(`key: "`+key+`"`)), nil)
	for _, want := range []string{
		"chancery.yaml:8: transparency.logs[0].key", "chancery.yaml:9: transparency.logs[1].not_after_from",
		"chancery.yaml:10: transparency.logs[2].not_after_until", "chancery.yaml:11: transparency.logs[3].monitoring_url",
		"chancery.yaml:13: transparency.logs[5]",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

// TestNoLogsForAProfile starts where a profile asks for what is not there.
func TestNoLogsForAProfile(t *testing.T) {
	t.Parallel()
	s := newLoggedStack(t, "10s")
	for name, c := range map[string]struct{ drop, want string }{
		"no logs": {fmt.Sprintf("transparency: {log_list: %q}\n", s.list), "no logs are configured"},
		"too few": {"", "2 timestamps of 2 operators are needed"},
		"no file": {"logs.json", "reading the log list"},
	} {
		config := s.config("one", s.token.Module)
		switch name {
		case "no logs":
			config = strings.Replace(config, c.drop, "", 1)
		case "too few":
			if err := os.WriteFile(s.list, logtest.List(t, s.logs["oak"]), 0o600); err != nil {
				t.Fatal(err)
			}
		case "no file":
			config = strings.Replace(config, c.drop, "nowhere.json", 1)
		}
		parsed, err := parseConfig(filepath.Join(s.dir, "one.yaml"), []byte(config), nil)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := s.app.open(t.Context(), parsed)
		if err == nil {
			_ = opened.close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v does not say %q", name, err, c.want)
		}
	}
}
