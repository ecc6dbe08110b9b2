package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/delivery"
	"github.com/chancery-ca/chancery/strictyaml"
)

// DeliveryConfig says who gets the audit log, and who is told of what waits.
type DeliveryConfig struct {
	// Receivers get the whole audit log, or the kinds of it that they ask for, from its beginning on, for as long as it takes.
	Receivers []ReceiverConfig `yaml:"receivers"`
	// Notify are those who are told of requests, revocations, policies and orders that wait or were decided, each by one message.
	Notify []ReceiverConfig `yaml:"notify"`
	// Expiring is how long before its end a request that waits is told of: 0 to 30d. Default: 24h; 0: not at all.
	Expiring strictyaml.Duration `yaml:"expiring" env:"EXPIRING"`
	// GiveUp is how long a notification is tried: 1m to 30d. Default: 3d. The audit log is tried for ever.
	GiveUp strictyaml.Duration `yaml:"give_up" env:"GIVE_UP"`
	// About is told in mails, for people to know where to look: such as the address of the API. Default: nothing.
	About string `yaml:"about" env:"ABOUT"`
}

// ReceiverConfig is one receiver: a name, and one of the ways to it.
type ReceiverConfig struct {
	// Name names its cursor. Another name is another receiver, which begins anew.
	Name string `yaml:"name"`
	// Kinds are the kinds of event that it gets, such as request.*; default: all, or for notifications those of what persons decide on.
	Kinds []string `yaml:"kinds"`
	// From is "beginning" or "now": where a receiver begins that is new. Default: the beginning; for notifications now.
	From    string         `yaml:"from"`
	Syslog  *SyslogConfig  `yaml:"syslog"`
	File    *FileConfig    `yaml:"file"`
	Webhook *WebhookConfig `yaml:"webhook"`
	OTLP    *OTLPConfig    `yaml:"otlp"`
	Mail    *MailConfig    `yaml:"mail"`
}

// ReceiverTLSConfig says whom a connection over TLS trusts, and with which certificate it says who we are.
type ReceiverTLSConfig struct {
	// CAFile holds roots, PEM. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// CertificateFile and KeyFile are a client certificate. Default: none.
	CertificateFile string `yaml:"certificate_file"`
	KeyFile         string `yaml:"key_file"`
}

// SyslogConfig is a receiver that speaks syslog.
type SyslogConfig struct {
	// Address is tls://host:port, tcp://host:port, udp://host:port or unix:///path (datagrams).
	Address string `yaml:"address"`
	// Facility is 0 to 23. Default: 13, audit.
	Facility *int `yaml:"facility"`
	// Confirm waits, over TLS and TCP, until the receiver has read everything and closed the connection. Default: true.
	Confirm *bool             `yaml:"confirm"`
	Trust   ReceiverTLSConfig `yaml:",inline"`
}

// FileConfig is a file of one JSON object a line.
type FileConfig struct {
	// Path is the file, on the machine of the replica that delivers: where replicas run on several, give each its own receiver.
	Path string `yaml:"path"`
	// Rotate is the size from which on the file is put aside, such as 100MiB. Default: never.
	Rotate string `yaml:"rotate"`
}

// WebhookConfig is a receiver of signed HTTP posts.
type WebhookConfig struct {
	// URL is https, or http on the same machine.
	URL string `yaml:"url"`
	// SecretFile holds the secrets, one a line: whsec_ and base64.
	SecretFile string            `yaml:"secret_file"`
	Trust      ReceiverTLSConfig `yaml:",inline"`
}

// OTLPConfig is an OpenTelemetry collector.
type OTLPConfig struct {
	// URL is that of its logs, such as https://collector:4318/v1/logs.
	URL string `yaml:"url"`
	// AuthorizationFile holds the value of the Authorization header. Default: none.
	AuthorizationFile string            `yaml:"authorization_file"`
	Trust             ReceiverTLSConfig `yaml:",inline"`
}

// MailConfig is people who get mail.
type MailConfig struct {
	// Server is host:port.
	Server string `yaml:"server"`
	// Security is starttls, tls, or none on the same machine. Default: starttls.
	Security string   `yaml:"security"`
	From     string   `yaml:"from"`
	To       []string `yaml:"to"`
	Username string   `yaml:"username"`
	// PasswordFile holds the password of the username.
	PasswordFile string            `yaml:"password_file"`
	Trust        ReceiverTLSConfig `yaml:",inline"`
}

const (
	defaultExpiring = 24 * time.Hour
	defaultGiveUp   = 3 * 24 * time.Hour
	fromBeginning   = "beginning"
	fromNow         = "now"
	auditFacility   = 13
)

// notifiedKinds are what persons decide on.
func notifiedKinds() []string {
	return []string{
		"request.waiting", "request.approved", "request.rejected", "request.expired", "request.expiring", "revocation.*",
		"policy.*", "order.*",
	}
}

var receiverName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c *DeliveryConfig) validate(doc *strictyaml.Document) {
	const longest = 30 * 24 * time.Hour
	if d := time.Duration(c.Expiring); d < 0 || d > longest {
		doc.Refuse("delivery.expiring", "leave it out for 24h", "%s is not between 0 and 30d", d)
	}
	if d := time.Duration(c.GiveUp); d < time.Minute || d > longest {
		doc.Refuse("delivery.give_up", "leave it out for 3d", "%s is not between 1m and 30d", d)
	}
	names := map[string]bool{}
	for list, all := range map[string][]ReceiverConfig{"receivers": c.Receivers, "notify": c.Notify} {
		for i, r := range all {
			at := fmt.Sprintf("delivery.%s[%d]", list, i)
			if !receiverName.MatchString(r.Name) || names[r.Name] {
				doc.Refuse(at+".name", "use lower-case letters, digits and hyphens, for each another name", "%q cannot be the name of a receiver",
					r.Name)
			}
			names[r.Name] = true
			r.validate(doc, at)
			if list == "receivers" && r.Mail != nil {
				doc.Refuse(at+".mail", "set it under notify", "people do not read whole audit logs")
			}
			if list == "notify" && r.Mail == nil && r.Webhook == nil {
				doc.Refuse(at, "set mail or webhook", "this is no way to be told of something")
			}
		}
	}
}

func (r *ReceiverConfig) validate(doc *strictyaml.Document, at string) {
	ways := 0
	for _, set := range []bool{r.Syslog != nil, r.File != nil, r.Webhook != nil, r.OTLP != nil, r.Mail != nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		doc.Refuse(at, "set one of syslog, file, webhook, otlp, mail", "a receiver needs one way to it, and has %d", ways)
	}
	if r.From != "" && r.From != fromBeginning && r.From != fromNow {
		doc.Refuse(at+".from", "use beginning or now", "%q is no place to begin", r.From)
	}
	for i, kind := range r.Kinds {
		if _, err := path.Match(kind, ""); err != nil || kind == "" {
			doc.Refuse(fmt.Sprintf("%s.kinds[%d]", at, i), "write for example request.*", "%q is no pattern", kind)
		}
	}
	if s := r.Syslog; s != nil {
		if _, _, _, err := s.target(); err != nil {
			doc.Refuse(at+".syslog.address", "write tls://siem.example:6514, tcp://…, udp://… or unix:///dev/log", "%v", err)
		}
		if f := s.facility(); f < 0 || f > 23 {
			doc.Refuse(at+".syslog.facility", "leave it out for 13, audit", "%d is not between 0 and 23", f)
		}
	}
	if f := r.File; f != nil {
		if f.Path == "" {
			doc.Refuse(at+".file.path", "", "the file has no path")
		}
		if _, err := f.rotate(); err != nil {
			doc.Refuse(at+".file.rotate", "write for example 100MiB", "%v", err)
		}
	}
	if w := r.Webhook; w != nil {
		checkReceiverURL(doc, at+".webhook.url", w.URL)
		if w.SecretFile == "" {
			doc.Refuse(at+".webhook.secret_file", "echo whsec_$(openssl rand -base64 32)", "posts are signed, and there is no secret for it")
		}
	}
	if o := r.OTLP; o != nil {
		checkReceiverURL(doc, at+".otlp.url", o.URL)
	}
	if m := r.Mail; m != nil {
		m.validate(doc, at+".mail")
	}
}

// checkReceiverURL refuses a URL over which the log would travel unprotected.
func checkReceiverURL(doc *strictyaml.Document, field, text string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Fragment != "" || u.User != nil:
		doc.Refuse(field, "write a whole https:// URL without a password", "%q is not a URL to post to", text)
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		doc.Refuse(field, "use https", "what is posted would be readable on its way")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (m *MailConfig) validate(doc *strictyaml.Document, at string) {
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil || host == "" {
		doc.Refuse(at+".server", "write host:port, such as smtp.example:587", "%q is not a server", m.Server)
	}
	switch m.security() {
	case delivery.MailSTARTTLS, delivery.MailTLS:
	case delivery.MailPlain:
		if !isLoopback(host) {
			doc.Refuse(at+".security", "use starttls or tls", "mail would be readable on its way to %s", host)
		}
	default:
		doc.Refuse(at+".security", "use starttls, tls or none", "%q is no way to protect mail", m.Security)
	}
	if len(m.To) == 0 {
		doc.Refuse(at+".to", "name at least one address", "nobody gets the mail")
	}
	for i, address := range append([]string{m.From}, m.To...) {
		field := at + ".from"
		if i > 0 {
			field = fmt.Sprintf("%s.to[%d]", at, i-1)
		}
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
			doc.Refuse(field, "write ca@example.com", "%q is not a bare mail address", address)
		}
	}
	if (m.Username == "") != (m.PasswordFile == "") {
		doc.Refuse(at+".username", "give both or none", "username and password_file go together")
	}
}

func (m *MailConfig) security() string { return cmp.Or(m.Security, delivery.MailSTARTTLS) }

// target is where syslog goes.
func (s *SyslogConfig) target() (network, address string, secured bool, err error) {
	u, err := url.Parse(s.Address)
	if err != nil {
		return "", "", false, fmt.Errorf("%q is not an address", s.Address)
	}
	switch _, _, split := net.SplitHostPort(u.Host); {
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		return "unix", u.Path, false, nil
	case split != nil || u.Path != "":
		return "", "", false, fmt.Errorf("%q is not an address", s.Address)
	case u.Scheme == "tls":
		return "tcp", u.Host, true, nil
	case u.Scheme == "tcp" || u.Scheme == "udp":
		return u.Scheme, u.Host, false, nil
	}
	return "", "", false, fmt.Errorf("%q is not a way to syslog", u.Scheme)
}

func (s *SyslogConfig) facility() int {
	if s.Facility == nil {
		return auditFacility
	}
	return *s.Facility
}

var fileSize = regexp.MustCompile(`^([1-9][0-9]{0,5})(KiB|MiB|GiB)$`)

func (f *FileConfig) rotate() (int64, error) {
	if f.Rotate == "" {
		return 0, nil
	}
	form := fileSize.FindStringSubmatch(f.Rotate)
	if form == nil {
		return 0, fmt.Errorf("%q is not a size", f.Rotate)
	}
	n, err := strconv.ParseInt(form[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", f.Rotate)
	}
	return n * map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[form[2]], nil
}

func (c *DeliveryConfig) resolvePaths(dir string) {
	for _, all := range [][]ReceiverConfig{c.Receivers, c.Notify} {
		for i := range all {
			for _, p := range all[i].paths() {
				if *p != "" && !filepath.IsAbs(*p) {
					*p = filepath.Join(dir, *p)
				}
			}
		}
	}
}

func (r *ReceiverConfig) paths() (all []*string) {
	trust := func(t *ReceiverTLSConfig) { all = append(all, &t.CAFile, &t.CertificateFile, &t.KeyFile) }
	if r.Syslog != nil {
		trust(&r.Syslog.Trust)
	}
	if r.File != nil {
		all = append(all, &r.File.Path)
	}
	if r.Webhook != nil {
		trust(&r.Webhook.Trust)
		all = append(all, &r.Webhook.SecretFile)
	}
	if r.OTLP != nil {
		trust(&r.OTLP.Trust)
		all = append(all, &r.OTLP.AuthorizationFile)
	}
	if r.Mail != nil {
		trust(&r.Mail.Trust)
		all = append(all, &r.Mail.PasswordFile)
	}
	return all
}

func (t ReceiverTLSConfig) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		data, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading trusted roots: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading trusted roots: %s holds no certificate", t.CAFile)
		}
	}
	if t.CertificateFile != "" || t.KeyFile != "" {
		certificate, err := os.ReadFile(t.CertificateFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		key, err := readSecret(t.KeyFile)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certificate, []byte(key))
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate %s: %w", t.CertificateFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// deliveries are the configured receivers, each with the way to it. What they need of files is read now, so that it is missed at the start.
func (c *DeliveryConfig) deliveries(now func() time.Time) (all []delivery.Delivery, err error) {
	for _, r := range c.Receivers {
		open, err := r.open(c, now, false)
		if err != nil {
			return nil, fmt.Errorf("delivery to %s: %w", r.Name, err)
		}
		all = append(all, delivery.Delivery{Name: r.Name, Open: open, Kinds: r.Kinds, FromUp: r.From == fromNow})
	}
	for _, r := range c.Notify {
		open, err := r.open(c, now, true)
		if err != nil {
			return nil, fmt.Errorf("notifying %s: %w", r.Name, err)
		}
		d := delivery.Delivery{
			Name: r.Name, Open: open, Kinds: r.Kinds, FromUp: r.From != fromBeginning, Each: true,
			GiveUp: time.Duration(c.GiveUp),
		}
		if len(d.Kinds) == 0 {
			d.Kinds = notifiedKinds()
		}
		all = append(all, d)
	}
	return all, nil
}

func (r *ReceiverConfig) open(c *DeliveryConfig, now func() time.Time, single bool) (func() delivery.Sender, error) {
	switch {
	case r.Syslog != nil:
		network, address, secured, err := r.Syslog.target()
		if err != nil {
			return nil, err
		}
		s := &delivery.Syslog{
			Network: network, Address: address, Facility: r.Syslog.facility(), Host: hostName(), NoConfirm: r.Syslog.Confirm != nil &&
				!*r.Syslog.Confirm,
		}
		if secured {
			if s.TLS, err = r.Syslog.Trust.config(); err != nil {
				return nil, err
			}
			s.TLS.ServerName, _, err = net.SplitHostPort(address)
		}
		return func() delivery.Sender { return s }, err
	case r.File != nil:
		rotate, err := r.File.rotate()
		return func() delivery.Sender { return &delivery.File{Path: r.File.Path, Rotate: rotate} }, err
	case r.Webhook != nil:
		trust, err := r.Webhook.Trust.config()
		if err != nil {
			return nil, err
		}
		text, err := readSecret(r.Webhook.SecretFile)
		if err != nil {
			return nil, err
		}
		secrets, err := delivery.ParseSecrets([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Webhook.SecretFile, err)
		}
		return func() delivery.Sender {
			return &delivery.Webhook{URL: r.Webhook.URL, Secrets: secrets, Client: delivery.NewHTTPClient(trust), Now: now, Single: single}
		}, nil
	case r.OTLP != nil:
		trust, err := r.OTLP.Trust.config()
		if err != nil {
			return nil, err
		}
		header := http.Header{}
		if r.OTLP.AuthorizationFile != "" {
			authorization, err := readSecret(r.OTLP.AuthorizationFile)
			if err != nil {
				return nil, err
			}
			header.Set("Authorization", authorization)
		}
		return func() delivery.Sender {
			return &delivery.OTLP{URL: r.OTLP.URL, Header: header, Client: delivery.NewHTTPClient(trust), Host: hostName(), Now: now}
		}, nil
	}
	trust, err := r.Mail.Trust.config()
	if err != nil {
		return nil, err
	}
	var password string
	if r.Mail.PasswordFile != "" {
		if password, err = readSecret(r.Mail.PasswordFile); err != nil {
			return nil, err
		}
	}
	return func() delivery.Sender {
		return &delivery.Mail{
			Server: r.Mail.Server, Security: r.Mail.security(), TLS: trust, Username: r.Mail.Username, Password: password, From: r.Mail.From,
			To:    r.Mail.To,
			About: c.About,
		}
	}, nil
}
