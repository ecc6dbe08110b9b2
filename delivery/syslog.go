package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/chancery-ca/chancery/audit"
)

// Syslog sends one message for each entry (RFC 5424): over TLS (RFC 5425) or TCP with octet counting (RFC 6587), or in datagrams.
//
// Syslog knows no acknowledgement: what TCP took may be lost on its way. So a batch has a connection of its own, whose writing side is
// closed after it; the receiver closes its side when it has read everything, and then the batch counts as delivered. NoConfirm leaves that
// out, for receivers that do not close. In datagrams nothing can be confirmed.
type Syslog struct {
	Network   string      // tcp, udp or unix (datagrams, such as /dev/log)
	Address   string      // host:port, or a path
	TLS       *tls.Config // nil: none; for tcp alone
	Facility  int         // 0 to 23; 13 is that of audit logs
	Host      string      // HOSTNAME of the messages
	NoConfirm bool
}

const (
	severityWarning = 4
	severityNotice  = 5
	maxSequence     = 1<<31 - 1
)

// message is an entry in the form of RFC 5424, section 6. Its MSG is the entry's line, in UTF-8 without a byte order mark.
func (s *Syslog) message(e Entry) []byte {
	severity := severityNotice
	switch e.Event.Kind {
	case audit.AccessDenied, audit.KeyCompromised, audit.CertificateOrphaned:
		severity = severityWarning
	}
	return fmt.Appendf(nil, `<%d>1 %s %s chancery - %s [meta sequenceId="%d"] %s`, s.Facility*8+severity,
		e.Event.Time.UTC().Format(audit.TimeFormat),
		field(s.Host, 255), field(string(e.Event.Kind), 32), e.Index%maxSequence+1, e.line())
}

// field is a header field: printable US-ASCII without spaces, or the nil value.
func field(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < 33 || r > 126 {
			return -1
		}
		return r
	}, text)
	if text == "" {
		return "-"
	}
	return text[:min(len(text), most)]
}

// Send sends a batch.
func (s *Syslog) Send(ctx context.Context, entries []Entry) error {
	network := s.Network
	if network == "unix" {
		network = "unixgram"
	}
	conn, release, err := dial(ctx, network, s.Address)
	if err != nil {
		return fmt.Errorf("connecting to syslog: %w", err)
	}
	defer conn.Close()
	defer release()
	if network != "tcp" {
		for _, e := range entries {
			if _, err := conn.Write(s.message(e)); err != nil {
				return fmt.Errorf("sending entry %d to syslog: %w", e.Index, err)
			}
		}
		return nil
	}
	if s.TLS != nil {
		secured := tls.Client(conn, s.TLS)
		if err := secured.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("connecting to syslog: %w", err)
		}
		conn = secured
	}
	var frames bytes.Buffer
	for _, e := range entries {
		message := s.message(e)
		fmt.Fprintf(&frames, "%d %s", len(message), message)
	}
	if _, err := conn.Write(frames.Bytes()); err != nil {
		return fmt.Errorf("sending to syslog: %w", err)
	}
	if s.NoConfirm {
		return conn.Close()
	}
	return confirm(conn)
}

// confirm closes the writing side, and waits for the receiver to close the other: it has read all by then.
func confirm(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("sending to syslog: the connection cannot be closed half")
	}
	if err := half.CloseWrite(); err != nil {
		return fmt.Errorf("sending to syslog: %w", err)
	}
	const chatter = 4 << 10 // octets that a receiver may say; none needs to
	switch n, err := io.Copy(io.Discard, io.LimitReader(conn, chatter)); {
	case err != nil:
		return fmt.Errorf("sending to syslog: the receiver did not confirm by closing the connection (confirm: false takes what TCP took): %w",
			err)
	case n == chatter:
		return errors.New("sending to syslog: the receiver talks instead of confirming by closing the connection")
	}
	return nil
}

// Close does nothing: connections last no longer than a batch.
func (s *Syslog) Close() error { return nil }
