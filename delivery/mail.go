package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/chancery-ca/chancery/audit"
)

// The ways to protect mail on its way to the server.
const (
	MailSTARTTLS = "starttls" // RFC 3207; a server that does not offer it gets nothing
	MailTLS      = "tls"      // from the first octet on (RFC 8314)
	MailPlain    = "none"     // for a server on the same machine
)

// Mail sends each entry to people as one message (RFC 5322). A message that is sent again has the same Message-ID.
type Mail struct {
	Server   string // host:port
	Security string
	TLS      *tls.Config
	Username string // empty: none is given
	Password string
	From     string
	To       []string
	About    string // where people look, such as the API's address; empty: nowhere

	event string          // of the message that not all have yet
	tries int             // of it
	has   map[string]bool // who has it
	full  map[string]bool // who took a message not even in the last of restTries, and is not waited for until one is taken
}

// restTries is how often a message is tried for those whom the server turns away for now, while others have it: some 18 minutes, which is
// more than greylisting asks for. Meanwhile what comes after it waits.
const restTries = 12

// Send sends a message for each entry.
func (m *Mail) Send(ctx context.Context, entries []Entry) error {
	client, done, err := m.connect(ctx)
	if err != nil {
		return fmt.Errorf("reaching the mail server: %w", err)
	}
	defer done()
	var some error
	for _, e := range entries {
		err := m.send(client, e)
		var notAll *notAllError
		switch {
		case errors.As(err, &notAll):
			some = fmt.Errorf("sending mail: %w", err)
		case err != nil:
			return fmt.Errorf("sending mail: %w", err)
		}
	}
	_ = client.Quit() // the server has taken the messages; how it says goodbye matters to nobody
	return some
}

func (m *Mail) connect(ctx context.Context) (*smtp.Client, func(), error) {
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil {
		return nil, nil, err
	}
	conn, release, err := dial(ctx, "tcp", m.Server)
	if err != nil {
		return nil, nil, err
	}
	conn = &tersely{Conn: conn, left: mostSaid}
	config := m.TLS.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config.ServerName = host
	if m.Security == MailTLS {
		conn = tls.Client(conn, config)
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		release()
		return nil, nil, errors.Join(err, conn.Close())
	}
	done := func() {
		release()
		_ = client.Close() // after Quit it is closed already
	}
	name, _ := os.Hostname()
	if err := client.Hello(greeting(name, conn.LocalAddr())); err != nil {
		done()
		return nil, nil, err
	}
	if m.Security == MailSTARTTLS {
		if offered, _ := client.Extension("STARTTLS"); !offered {
			done()
			return nil, nil, errors.New("it does not offer STARTTLS, and nothing is sent without")
		}
		if err := client.StartTLS(config); err != nil {
			done()
			return nil, nil, err
		}
	}
	if m.Username != "" {
		if err := client.Auth(smtp.PlainAuth("", m.Username, m.Password, host)); err != nil {
			done()
			return nil, nil, errors.New("it does not accept the name and the password")
		}
	}
	return client, done, nil
}

// mostSaid is how many octets a mail server may say over one connection: more than answers for thousands of addresses have. What it says is
// kept until its line has ended, and until the last line of an answer has come; before STARTTLS anybody on the way can say it.
const mostSaid = 1 << 20

// tersely is a connection over which no more than so much is read.
type tersely struct {
	net.Conn
	left int
}

// Read reads what is left.
func (c *tersely) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("it says more than %d octets", mostSaid)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// greeting is how a client names itself to a mail server: by the host's name where that is a whole one, else by the address that the
// connection comes from (RFC 5321, sections 4.1.1.1 and 4.1.3). Servers turn away clients that call themselves localhost.
func greeting(host string, from net.Addr) string {
	host = strings.TrimSuffix(host, ".")
	_, err := netip.ParseAddr(host)
	isAddress := err == nil
	foreign := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '.'
	}
	if strings.Contains(host, ".") && !isAddress && !strings.HasPrefix(host, "localhost.") && !strings.ContainsFunc(host, foreign) {
		return host
	}
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return "localhost" // as net/smtp says: of a connection without an address there is nothing better to be said
	}
	if address := at.Addr().Unmap(); address.Is4() {
		return "[" + address.String() + "]"
	}
	return "[IPv6:" + at.Addr().WithZone("").String() + "]"
}

func (m *Mail) send(client *smtp.Client, e Entry) error {
	message, err := m.message(e)
	if err != nil {
		return err
	}
	if err := client.Mail(m.From); err != nil {
		return err
	}
	if e.Event.ID != m.event {
		m.event, m.tries, m.has = e.Event.ID, 0, map[string]bool{}
	}
	m.tries++
	var refused, later error
	var take, wait []string
	for _, to := range m.To {
		if m.has[to] {
			continue
		}
		err := client.Rcpt(to)
		var said *textproto.Error
		switch {
		case err == nil:
			take = append(take, to)
		case !errors.As(err, &said):
			return err
		case said.Code >= 500: // for good: the others get theirs
			refused = errors.Join(refused, fmt.Errorf("%s: %w", to, err))
		default: // for now
			later, wait = errors.Join(later, fmt.Errorf("%s: %w", to, err)), append(wait, to)
		}
	}
	if len(take) > 0 {
		if err := m.data(client, message); err != nil {
			return err
		}
	}
	for _, to := range take {
		m.has[to] = true
		delete(m.full, to)
	}
	if len(m.has) == 0 {
		return errors.Join(refused, later)
	}
	if m.waitsFor(wait) {
		return later
	}
	if refused = errors.Join(refused, later); refused == nil {
		return nil
	}
	if len(take) == 0 {
		if err := client.Reset(); err != nil { // of the message that nobody is left for
			return err
		}
	}
	return &notAllError{refused}
}

// waitsFor tells whether a message that others have is to be tried again for those who could not take it for now.
func (m *Mail) waitsFor(people []string) bool {
	known := !slices.ContainsFunc(people, func(to string) bool { return !m.full[to] })
	if !known && m.tries < restTries {
		return true
	}
	if m.full == nil {
		m.full = map[string]bool{}
	}
	for _, to := range people {
		m.full[to] = true
	}
	return false
}

func (m *Mail) data(client *smtp.Client, message []byte) error {
	body, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := body.Write(message); err != nil {
		return err
	}
	return body.Close()
}

// subjects say in words what happened.
var subjects = map[string]string{
	"request.waiting":     "a request waits for approval",
	"request.approved":    "a request was approved by one person",
	"request.rejected":    "a request was rejected",
	"request.expired":     "a request expired undecided",
	"request.expiring":    "a request is about to expire",
	"request.refused":     "the policies refused a request",
	"revocation.ordered":  "certificates are to be revoked",
	"revocation.approved": "a revocation was approved",
	"revocation.rejected": "a revocation was rejected",
	"policy.proposed":     "other policies are proposed",
	"policy.approved":     "proposed policies were approved by one person",
	"policy.rejected":     "proposed policies were rejected",
	"policy.activated":    "other policies rule",
	"order.placed":        "an order waits for approval",
	"order.approved":      "an order was approved by one person",
	"order.rejected":      "an order was rejected",
	"order.used":          "an order is carried out",
}

// look says which command shows more, by the name under which the event has the identifier.
var look = map[string]string{
	"request":  "chancery requests %s",
	"job":      "chancery revocation show %s",
	"proposal": "chancery policy history    (proposal %s)",
	"order":    "chancery order show %s",
}

func (m *Mail) message(e Entry) ([]byte, error) {
	subject := "Chancery: " + string(e.Event.Kind)
	if words, known := subjects[string(e.Event.Kind)]; known {
		subject = "Chancery: " + words
	}
	domain := m.From[strings.LastIndexByte(m.From, '@')+1:]
	var b bytes.Buffer
	for _, header := range []struct{ name, value string }{
		{"From", m.From},
		{"To", strings.Join(m.To, ", ")},
		{"Subject", mime.QEncoding.Encode("utf-8", subject)},
		{"Date", e.Event.Time.UTC().Format(time.RFC1123Z)},
		{"Message-ID", "<" + e.Event.ID + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: nobody's absence notice answers it
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		if strings.ContainsAny(header.value, "\r\n") {
			return nil, fmt.Errorf("the header %s has a line end in it", header.name)
		}
		fmt.Fprintf(&b, "%s: %s\r\n", header.name, header.value)
	}
	b.WriteString("\r\n")
	body := quotedprintable.NewWriter(&b)
	fmt.Fprintf(body, "%s\n\n%-12s %s\n", strings.TrimPrefix(subject, "Chancery: "), "at", e.Event.Time.UTC().Format(time.RFC3339))
	fmt.Fprintf(body, "%-12s %s\n", "event", e.Event.ID)
	if e.Event.Namespace != "" {
		fmt.Fprintf(body, "%-12s %s\n", "namespace", e.Event.Namespace)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Event.Data)) {
		fmt.Fprintf(body, "%-12s %s\n", name, audit.Legible(e.Event.Data[name], "           | "))
	}
	for _, name := range slices.Sorted(maps.Keys(look)) {
		if id := e.Event.Data[name]; id != "" {
			fmt.Fprintf(body, "\nTo look:    "+look[name]+"\n", id)
		}
	}
	if m.About != "" {
		fmt.Fprintf(body, "At:         %s\n", m.About)
	}
	if err := body.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Close does nothing: connections last no longer than a message.
func (m *Mail) Close() error { return nil }
