package delivery

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// rfc5424 is the whole of a message as RFC 5424, section 6, has it, for what we send.
var rfc5424 = regexp.MustCompile(`^<([0-9]{1,3})>1 ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) ` +
	`(\[meta sequenceId="([1-9][0-9]{0,9})"\]) (.*)$`)

// receive reads the frames of one connection (RFC 6587, section 3.4.1) to its end.
func receive(conn net.Conn) (messages []string, err error) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		length, err := in.ReadString(' ')
		if errors.Is(err, io.EOF) && length == "" {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || n < 1 {
			return messages, fmt.Errorf("%q is no length", length)
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return messages, err
		}
		messages = append(messages, string(message))
	}
}

func checkMessages(t *testing.T, messages []string, want []Entry) {
	t.Helper()
	if len(messages) != len(want) {
		t.Fatalf("%d messages, want %d", len(messages), len(want))
	}
	for i, m := range messages {
		form := rfc5424.FindStringSubmatch(m)
		if form == nil {
			t.Fatalf("no message of RFC 5424: %s", m)
		}
		if form[1] != "109" || form[3] != "replica-1" || form[4] != "chancery" || form[6] != string(want[i].Event.Kind) ||
			form[8] != fmt.Sprint(want[i].Index+1) {
			t.Errorf("the header is %q", form[1:9])
		}
		if form[9] != string(want[i].line()) {
			t.Errorf("message %d is %s", i, form[9])
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// testTLS is a server's configuration and a client's that trusts it.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

func TestSyslogOverTCPAndTLS(t *testing.T) {
	server, client := testTLS(t)
	for name, secured := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			s := &Syslog{Network: "tcp", Address: l.Addr().String(), Facility: 13, Host: "replica-1"}
			if secured {
				l, s.TLS = tls.NewListener(l, server), client
			}
			type outcome struct {
				messages []string
				err      error
			}
			came := make(chan outcome, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					came <- outcome{nil, err}
					return
				}
				messages, err := receive(conn)
				came <- outcome{messages, err}
			}()
			want := entries(t, 0, 100)
			if err := s.Send(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			got := <-came
			if got.err != nil {
				t.Fatal(got.err)
			}
			checkMessages(t, got.messages, want)
		})
	}
}

// A receiver that dies before it has read everything, or that another stands in for, has not confirmed.
func TestSyslogThatIsNotConfirmed(t *testing.T) {
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, 10))
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	s := &Syslog{Network: "tcp", Address: l.Addr().String(), Facility: 13}
	if err := s.Send(t.Context(), entries(t, 0, 400)); err == nil {
		t.Error("delivered to a receiver that read ten octets")
	}
	_, client := testTLS(t)
	s.TLS = client
	if err := s.Send(t.Context(), entries(t, 0, 1)); err == nil {
		t.Error("delivered in the clear")
	}
	_ = l.Close()
	<-done

	server, _ := testTLS(t)
	_, stranger := testTLS(t)
	stranger.RootCAs = x509.NewCertPool()
	secured := tls.NewListener(listen(t), server)
	go func() {
		if conn, err := secured.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	s.Address, s.TLS = secured.Addr().String(), stranger
	if err := s.Send(t.Context(), entries(t, 0, 1)); err == nil {
		t.Error("delivered to a receiver that nobody vouches for")
	}
	silent := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s.Address, s.TLS = silent.Addr().String(), nil
	if err := s.Send(ctx, entries(t, 0, 1)); err == nil || !strings.Contains(err.Error(), "did not confirm") {
		t.Errorf("a receiver that never reads: %v", err)
	}
	s.NoConfirm = true
	if err := s.Send(t.Context(), entries(t, 0, 1)); err != nil {
		t.Errorf("what TCP took is enough: %v", err)
	}
}

func TestSyslogInDatagrams(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "log")
	unix, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for network, l := range map[string]net.PacketConn{"udp": udp, "unix": unix} {
		want := entries(t, 7, 3)
		s := &Syslog{Network: network, Address: l.LocalAddr().String(), Facility: 13, Host: "replica-1"}
		if err := s.Send(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		var messages []string
		for range want {
			buffer := make([]byte, 64<<10)
			n, _, err := l.ReadFrom(buffer)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, string(buffer[:n]))
		}
		checkMessages(t, messages, want)
	}
}

// An independent reader takes the messages apart as we meant them.
func TestRsyslogReadsIt(t *testing.T) {
	daemon, err := exec.LookPath("rsyslogd")
	if err != nil {
		daemon = "/usr/sbin/rsyslogd" // not on the path of everybody
	}
	if _, err := os.Stat(daemon); err != nil {
		t.Fatalf("rsyslogd is needed: apt-get install rsyslog: %v", err)
	}
	dir := t.TempDir()
	out, port, config := filepath.Join(dir, "out"), filepath.Join(dir, "port"), filepath.Join(dir, "rsyslog.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `global(workDirectory=%q maxMessageSize="64k")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName=%q)
template(name="parts" type="string" string="%%pri%%|%%timereported:::date-rfc3339%%|%%hostname%%|%%app-name%%|%%msgid%%|%%structured-data%%|%%msg%%\n")
action(type="omfile" file=%q template="parts")
`, dir, port, out), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "-n", "-f", config, "-i", filepath.Join(dir, "pid"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })

	deadline := time.Now().Add(60 * time.Second)
	var free []byte
	for len(free) == 0 { // it writes the port that it was given, once it listens
		if time.Now().After(deadline) {
			t.Fatalf("rsyslogd does not listen\n%s", said.String())
		}
		sleep(t.Context(), 20*time.Millisecond)
		free, _ = os.ReadFile(port)
	}
	address := net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(free)))
	s, want := &Syslog{Network: "tcp", Address: address, Facility: 13, Host: "replica-1"}, entries(t, 0, 50)
	if err := s.Send(t.Context(), want); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var got []string
	for len(got) < len(want) {
		if time.Now().After(deadline) {
			t.Fatalf("rsyslog has written %d of %d\n%s", len(got), len(want), said.String())
		}
		sleep(t.Context(), 20*time.Millisecond)
		if data, err := os.ReadFile(out); err == nil && bytes.HasSuffix(data, []byte("\n")) {
			got = strings.Split(strings.TrimSpace(string(data)), "\n")
		}
	}
	for i, line := range got {
		parts := strings.SplitN(line, "|", 7)
		wanted := fmt.Sprintf(`109|%s|replica-1|chancery|certificate.issued|[meta sequenceId="%d"]`,
			want[i].Event.Time.Format("2006-01-02T15:04:05.000000")+"+00:00", i+1)
		header := strings.Replace(strings.Join(parts[:6], "|"), "Z|", "+00:00|", 1)
		// rsyslog writes octets beyond ASCII as they are; the message begins with the space that ends the structured data.
		if header != wanted || strings.TrimPrefix(parts[6], " ") != string(want[i].line()) {
			t.Errorf("rsyslog read\n%s\nwant\n%s|%s", line, wanted, want[i].line())
		}
	}
}

// hook is a receiver of webhooks that verifies as the Standard Webhooks specification says.
type hook struct {
	secret []byte
	ids    []string
	bodies [][]byte
	refuse func(n int) int // status; 0: 204
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, h.secret)
	mac.Write([]byte(id + "." + at + "." + string(body)))
	valid := false
	for _, one := range strings.Split(r.Header.Get("webhook-signature"), " ") {
		signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
		valid = valid || err == nil && hmac.Equal(signature, mac.Sum(nil))
	}
	if !valid || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	h.ids, h.bodies = append(h.ids, id), append(h.bodies, body)
	if h.refuse != nil {
		if status := h.refuse(len(h.ids)); status != 0 {
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func TestWebhooks(t *testing.T) {
	h := &hook{secret: []byte("a secret of twenty-four octets")}
	server := httptest.NewTLSServer(h)
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	now := noon
	w := &Webhook{
		URL: server.URL + "/hook", Secrets: [][]byte{[]byte("the one before, which is replaced"), h.secret},
		Client: NewHTTPClient(&tls.Config{RootCAs: pool}),
		Now:    func() time.Time { now = now.Add(time.Minute); return now },
	}
	defer w.Close()
	h.refuse = func(n int) int {
		return map[int]int{1: http.StatusServiceUnavailable, 2: http.StatusTemporaryRedirect, 3: http.StatusBadRequest}[n]
	}
	batch := entries(t, 3, 20)
	var later *laterError
	if err := w.Send(t.Context(), batch); !errors.As(err, &later) || later.after != 7*time.Second {
		t.Errorf("503: %v", err)
	}
	for _, status := range []string{"307", "400"} {
		if err := w.Send(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "answered "+status) {
			t.Errorf("%s: %v", status, err)
		}
	}
	if err := w.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for i := range h.ids {
		if h.ids[i] != h.ids[0] || !bytes.Equal(h.bodies[i], h.bodies[0]) {
			t.Errorf("try %d is another message: %s", i, h.ids[i])
		}
	}
	var message struct {
		Type string
		Data struct {
			Entries []struct {
				Index int64
				Event json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(h.bodies[0], &message); err != nil || message.Type != "audit.entries" || len(message.Data.Entries) != 20 ||
		message.Data.Entries[19].Index != 22 || string(message.Data.Entries[19].Event) != string(batch[19].Leaf) {
		t.Errorf("%v: %s", err, h.bodies[0])
	}
	w.Single = true
	if err := w.Send(t.Context(), batch[:1]); err != nil {
		t.Fatal(err)
	}
	if last := len(h.ids) - 1; h.ids[last] != batch[0].Event.ID ||
		!bytes.HasPrefix(h.bodies[last], []byte(`{"type":"certificate.issued","timestamp":"2026-`)) {
		t.Errorf("%s %s", h.ids[last], h.bodies[last])
	}
	w.Secrets = w.Secrets[:1]
	if err := w.Send(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "answered 401") {
		t.Errorf("a wrong secret: %v", err)
	}
}

// The example of the Standard Webhooks specification's reference libraries.
func TestWebhookSignatureIsTheStandards(t *testing.T) {
	secrets, err := ParseSecrets([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"))
	if err != nil {
		t.Fatal(err)
	}
	w := &Webhook{Secrets: secrets}
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := w.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != want {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!"} {
		if _, err := ParseSecrets([]byte(bad)); err == nil {
			t.Errorf("%q is a secret", bad)
		}
	}
}

func TestNothingGoesToLinkLocalAddresses(t *testing.T) {
	client := NewHTTPClient(nil)
	for _, url := range []string{"http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/", "http://0.0.0.0/"} {
		_, err := post(t.Context(), client, url, http.Header{}, nil)
		if err == nil || !strings.Contains(err.Error(), "nothing is delivered to") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOTLP(t *testing.T) {
	answer, got := "{}", []byte(nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		if r.URL.Path != "/v1/logs" || r.Header.Get("Authorization") != "Bearer x" || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	o := &OTLP{
		URL: server.URL + "/v1/logs", Header: http.Header{"Authorization": {"Bearer x"}}, Client: NewHTTPClient(nil), Host: "replica-1",
		Now: func() time.Time { return noon },
	}
	defer o.Close()
	want := []Entry{entry(t, 41, audit.RequestWaiting)}
	if err := o.Send(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	const form = `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"chancery"}},{"key":"host.name","value":{"stringValue":"replica-1"}}]},` +
		`"scopeLogs":[{"scope":{"name":"chancery/audit"},"logRecords":[{"timeUnixNano":"1795867200041000000","observedTimeUnixNano":"1795867200000000000",` +
		`"severityNumber":9,"severityText":"INFO","body":{"stringValue":%s},"attributes":[{"key":"chancery.audit.index","value":{"intValue":"41"}},` +
		`{"key":"chancery.audit.event","value":{"stringValue":"018f0000-0000-7000-8000-000000000041"}},{"key":"chancery.audit.kind","value":{"stringValue":"request.waiting"}},` +
		`{"key":"chancery.audit.actor","value":{"stringValue":"a\u003c1\u003e"}},{"key":"chancery.audit.namespace","value":{"stringValue":"team-a"}}],"eventName":"request.waiting"}]}]}]}`
	body, err := json.Marshal(string(want[0].Leaf))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != fmt.Sprintf(form, body) {
		t.Errorf("got\n%s\nwant\n%s", got, fmt.Sprintf(form, body))
	}
	for said, fails := range map[string]bool{
		"": false, `{"partialSuccess":{}}`: false, `{"partialSuccess":{"errorMessage":"slow down"}}`: false,
		`{"partialSuccess":{"rejectedLogRecords":"0"}}`:                     false,
		`{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`: true, `{"partialSuccess":{"rejectedLogRecords":2}}`: true,
		"thanks": true,
	} {
		answer = said
		if err := o.Send(t.Context(), want); (err != nil) != fails {
			t.Errorf("the collector said %q: %v", said, err)
		}
	}
}

// mailServer takes one message over a connection (RFC 5321), with STARTTLS where it has a configuration.
func mailServer(conn net.Conn, secure *tls.Config, refuse string) (from string, to []string, data string, secured bool) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 mail.example ESMTP")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return from, to, data, secured
		}
		switch verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " "); strings.ToUpper(verb) {
		case "EHLO":
			if strings.HasPrefix(rest, "localhost") {
				say("550 that is me")
				continue
			}
			if secure != nil && !secured {
				say("250-mail.example\r\n250-STARTTLS")
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, secure)
			in, secured = bufio.NewReader(conn), true
		case "MAIL":
			from = rest
			say("250 ok")
		case "RCPT":
			if whom, reply, one := strings.Cut(refuse, ": "); refuse != "" && (!one || strings.Contains(rest, whom)) {
				say(cmp.Or(reply, refuse))
				continue
			}
			to = append(to, rest)
			say("250 ok")
		case "DATA":
			say("354 go on")
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				data += strings.TrimPrefix(line, ".")
			}
			say("250 taken")
		case "RSET":
			say("250 ok")
		case "QUIT":
			say("221 bye")
			return from, to, data, secured
		default:
			say("502 what")
		}
	}
}

func TestMail(t *testing.T) {
	server, client := testTLS(t)
	type message struct {
		from    string
		to      []string
		data    string
		secured bool
	}
	for name, c := range map[string]struct {
		security string
		offers   *tls.Config // by STARTTLS
		whole    bool        // TLS from the start
		refuse   string
		fails    string
	}{
		"starttls":             {MailSTARTTLS, server, false, "", ""},
		"tls":                  {MailTLS, nil, true, "", ""},
		"plain":                {MailPlain, nil, false, "", ""},
		"starttls not offered": {MailSTARTTLS, nil, false, "", "does not offer STARTTLS"},
		"no such mailbox":      {MailPlain, nil, false, "550 no such mailbox", "no such mailbox"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			came := make(chan message, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					came <- message{}
					return
				}
				if c.whole {
					conn = tls.Server(conn, server)
				}
				var m message
				m.from, m.to, m.data, m.secured = mailServer(conn, c.offers, c.refuse)
				came <- m
			}()
			sender := &Mail{
				Server: l.Addr().String(), Security: c.security, TLS: client, From: "ca@pki.example",
				To:    []string{"ann@example.com", "bob@example.com"},
				About: "https://ca.example:8443",
			}
			e := entry(t, 12, audit.RequestWaiting)
			e.Event.Data["comment"] = "routine\nAt:         https://evil.example\n\x1b[2Jjob"
			err := sender.Send(t.Context(), []Entry{e})
			got := <-came
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || got.data != "" {
					t.Errorf("%v, %+v", err, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(got.from, "FROM:<ca@pki.example>") || len(got.to) != 2 || got.secured != (c.offers != nil) {
				t.Errorf("%+v", got)
			}
			checkMail(t, got.data, e)
		})
	}
}

// One mailbox that is gone keeps nobody else from being told, nor does one that is full for now; that one's is tried again.
func TestMailReachesTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		refuse string
		data   bool
		gets   string // whoever calls Send
	}{
		"gone":            {"bob@: 550 no such mailbox", true, "bob@example.com: 550"},
		"nobody":          {"550 no such mailbox", false, "ann@example.com: 550"},
		"nobody, for now": {"450 try again", false, "ann@example.com: 450"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			came := make(chan string, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					came <- ""
					return
				}
				_, _, data, _ := mailServer(conn, nil, c.refuse)
				came <- data
			}()
			sender := &Mail{
				Server: l.Addr().String(), Security: MailPlain, From: "ca@pki.example", To: []string{"ann@example.com", "bob@example.com"},
			}
			h, counted, said := &history{all: []Entry{entry(t, 0, audit.RequestWaiting)}}, &counts{}, &strings.Builder{}
			d := h.delivery(sender, counted, said)
			next, pauses := int64(-1), backoff{}
			_, err := d.step(t.Context(), sender, &next, &pauses)
			if data := <-came; (data != "") != c.data {
				t.Errorf("sent %q", data)
			}
			text := said.String() + fmt.Sprint(err)
			if (err == nil) != c.data || (next == 1) != c.data || !strings.Contains(text, c.gets) || c.data != (counted.failed == 1) {
				t.Errorf("next %d, %+v: %s", next, counted, text)
			}
		})
	}
}

// TestMailIsTriedAgainForTheRest: who is turned away for now gets the message later, and nobody gets it twice. A mailbox that stays full is
// given up for that message, and the next ones do not wait for it, until it takes one.
func TestMailIsTriedAgainForTheRest(t *testing.T) {
	l := listen(t)
	sender := &Mail{
		Server: l.Addr().String(), Security: MailPlain, From: "ca@pki.example",
		To: []string{"ann@example.com", "bob@example.com", "eve@example.com"},
	}
	var tookIt []string
	send := func(index int64, refuse string) error {
		t.Helper()
		came := make(chan []string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				came <- nil
				return
			}
			_, to, data, _ := mailServer(conn, nil, refuse)
			if data == "" {
				to = nil
			}
			came <- to
		}()
		err := sender.Send(t.Context(), []Entry{entry(t, index, audit.RequestWaiting)})
		tookIt = nil
		for _, to := range <-came {
			tookIt = append(tookIt, strings.TrimPrefix(strings.TrimSuffix(to, "@example.com>"), "TO:<"))
		}
		return err
	}
	const full = "bob@: 452 the mailbox is full"
	var notAll *notAllError
	if err := send(0, full); err == nil || errors.As(err, &notAll) || !slices.Equal(tookIt, []string{"ann", "eve"}) {
		t.Errorf("first: %v, %v", err, tookIt)
	}
	if err := send(0, ""); err != nil || !slices.Equal(tookIt, []string{"bob"}) {
		t.Errorf("the rest: %v, %v", err, tookIt)
	}
	for n := 1; n < restTries; n++ {
		if err := send(1, full); err == nil || errors.As(err, &notAll) || (len(tookIt) == 2) != (n == 1) {
			t.Errorf("try %d: %v, %v", n, err, tookIt)
		}
	}
	if err := send(1, full); !errors.As(err, &notAll) || !strings.Contains(err.Error(), "bob@example.com: 452") || tookIt != nil {
		t.Errorf("the last try: %v, %v", err, tookIt)
	}
	if err := send(2, full); !errors.As(err, &notAll) || !slices.Equal(tookIt, []string{"ann", "eve"}) {
		t.Errorf("the next message waits for a mailbox that is full: %v, %v", err, tookIt)
	}
	if err := send(3, ""); err != nil || len(tookIt) != 3 {
		t.Errorf("it takes mail again: %v, %v", err, tookIt)
	}
	if err := send(4, full); err == nil || errors.As(err, &notAll) {
		t.Errorf("it is waited for again: %v", err)
	}
}

func checkMail(t *testing.T, data string, e Entry) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "Chancery: a request waits for approval" || m.Header.Get("Message-ID") != "<"+e.Event.ID+"@pki.example>" ||
		m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("%v, %v", err, m.Header)
	}
	if at, err := m.Header.Date(); err != nil || !at.Equal(e.Event.Time.Truncate(time.Second)) {
		t.Errorf("the date is %s, %v", at, err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		"city         Zürich", "To look:    chancery requests r-12", "At:         https://ca.example:8443",
		"namespace    team-a", "comment      routine\n           | At:         https://evil.example\n           | \uFFFD[2Jjob\n",
	} {
		if !strings.Contains(strings.ReplaceAll(string(body), "\r\n", "\n"), words) {
			t.Errorf("%q is missing in\n%s", words, body)
		}
	}
}

func TestGreeting(t *testing.T) {
	at := func(text string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)) }
	for _, c := range []struct {
		host string
		from net.Addr
		want string
	}{
		{"ca1.pki.example", at("192.0.2.7:4711"), "ca1.pki.example"},
		{"ca1.pki.example.", at("192.0.2.7:4711"), "ca1.pki.example"},
		{"ca1", at("192.0.2.7:4711"), "[192.0.2.7]"},
		{"", at("[2001:db8::7]:4711"), "[IPv6:2001:db8::7]"},
		{"ca_1.pki.example", at("[fe80::1%eth0]:4711"), "[IPv6:fe80::1]"},
		{"192.0.2.8", at("[::ffff:192.0.2.7]:4711"), "[192.0.2.7]"},
		{"localhost.localdomain", at("192.0.2.7:4711"), "[192.0.2.7]"},
		{"ca1", &net.UnixAddr{Name: "/run/smtp"}, "localhost"},
	} {
		if got := greeting(c.host, c.from); got != c.want {
			t.Errorf("%q from %s is %q, want %q", c.host, c.from, got, c.want)
		}
	}
}

// A mail server that goes on talking, or whoever sits before it, is not listened to for as long as it takes.
func TestAMailServerThatFloods(t *testing.T) {
	for name, line := range map[string]string{"lines": "220-mail.example ESMTP\r\n", "one line": "220 mail.example"} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			said := make(chan int, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					said <- 0
					return
				}
				defer conn.Close()
				all, flood := 0, []byte(strings.Repeat(line, 4096))
				for all < 64<<20 {
					n, err := conn.Write(flood)
					if all += n; err != nil {
						break
					}
				}
				said <- all
			}()
			m := &Mail{Server: l.Addr().String(), Security: MailPlain, From: "ca@pki.example", To: []string{"ann@example.com"}}
			err := m.Send(t.Context(), entries(t, 0, 1))
			if all := <-said; err == nil || all >= 64<<20 {
				t.Errorf("%d octets were taken, %v", all, err)
			}
		})
	}
}

// A term that ends does not wait for a receiver that hangs: another replica delivers by then, or the service stops.
func TestSendingEndsWithItsContext(t *testing.T) {
	for name, sender := range map[string]func(address string) Sender{
		"syslog": func(address string) Sender { return &Syslog{Network: "tcp", Address: address, Host: "replica-1"} },
		"syslog over TLS": func(address string) Sender {
			return &Syslog{Network: "tcp", Address: address, Host: "replica-1", TLS: &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}
		},
		"mail": func(address string) Sender {
			return &Mail{Server: address, Security: MailPlain, From: "ca@pki.example", To: []string{"ann@example.com"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			ctx, cancel := context.WithTimeout(t.Context(), sendTime)
			defer cancel()
			sent := make(chan error, 1)
			go func() { sent <- sender(l.Addr().String()).Send(ctx, entries(t, 0, 1)) }()
			conn, err := l.Accept() // and says nothing
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			cancel()
			select {
			case err := <-sent:
				if err == nil {
					t.Error("what nobody confirmed counts as sent")
				}
			case <-time.After(sendTime / 2):
				t.Fatal("it goes on")
			}
		})
	}
}
