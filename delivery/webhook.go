package delivery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Webhook posts entries, signed as the Standard Webhooks specification has it (webhook-id, webhook-timestamp, webhook-signature). A message
// that is sent again has the same identifier and the same body.
type Webhook struct {
	URL     string
	Secrets [][]byte // the message has a signature by each, so that one can be replaced by another
	Client  *http.Client
	Now     func() time.Time
	Single  bool // one entry is one message, named by its event: a notification
}

const (
	secretPrefix = "whsec_"
	minSecret    = 24 // octets
	maxSecret    = 64
)

// ParseSecrets reads secrets, one a line: whsec_ and 24 to 64 octets in base64.
func ParseSecrets(text []byte) (secrets [][]byte, err error) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		encoded, ok := strings.CutPrefix(line, secretPrefix)
		secret, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, fmt.Errorf("a secret is %s and %d to %d random octets in base64: echo %s$(openssl rand -base64 32)", secretPrefix, minSecret,
				maxSecret,
				secretPrefix)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, errors.New("there is no secret in the file")
	}
	return secrets, nil
}

// Send posts entries.
func (w *Webhook) Send(ctx context.Context, entries []Entry) error {
	id, body := w.message(entries)
	at := fmt.Sprint(w.Now().Unix())
	header := http.Header{}
	header.Set("webhook-id", id)
	header.Set("webhook-timestamp", at)
	header.Set("webhook-signature", w.sign(id, at, body))
	_, err := post(ctx, w.Client, w.URL, header, body)
	return err
}

// message is the body and its identifier. Both come of the entries alone.
func (w *Webhook) message(entries []Entry) (id string, body []byte) {
	first, last := entries[0], entries[len(entries)-1]
	var b bytes.Buffer
	at := last.Event.Time.UTC().Format(audit.TimeFormat)
	if w.Single {
		fmt.Fprintf(&b, `{"type":%q,"timestamp":%q,"data":%s}`, last.Event.Kind, at, last.line())
		return last.Event.ID, b.Bytes()
	}
	fmt.Fprintf(&b, `{"type":"audit.entries","timestamp":%q,"data":{"entries":[`, at)
	for i, e := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(e.line())
	}
	b.WriteString("]}}")
	return fmt.Sprintf("audit_%d_%d_%s", first.Index, last.Index, last.Event.ID), b.Bytes()
}

func (w *Webhook) sign(id, at string, body []byte) string {
	var all []string
	for _, secret := range w.Secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

// Close lets go of idle connections.
func (w *Webhook) Close() error {
	w.Client.CloseIdleConnections()
	return nil
}
