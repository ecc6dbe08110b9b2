package main

import (
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPasswordsAreKnown(t *testing.T) {
	for database, want := range map[string]bool{
		"postgres://chancery@db/chancery":                          false,
		"postgres://chancery:@db/chancery":                         false,
		"postgres://chancery:secret@db/chancery":                   true,
		"postgres://chancery@db/chancery?password=secret":          true,
		"postgres://chancery@db/chancery?a=b&password=secret":      true,
		"host=db user=chancery":                                    false,
		"host=db password = secret":                                true,
		"host=db passfile=/etc/chancery/pgpass":                    false,
		"postgres://chancery@db/chancery?passfile=/etc/x/password": false,
	} {
		if holdsPassword(database) != want {
			t.Errorf("%s holds a password: %v", database, !want)
		}
	}
}

// TestFilesWithAPasswordAreTheirOwners: one that everybody can read, or the group write, is refused, and the refusal does not hold the
// password.
func TestFilesWithAPasswordAreTheirOwners(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const secret = "postgres://chancery:s3cret@db/chancery"
	for _, c := range []struct {
		text    string
		mode    os.FileMode
		refused bool
	}{
		{secret, 0o600, false},
		{secret, 0o640, false},
		{secret, 0o644, true},
		{secret, 0o660, true},
		{secret, 0o604, true},
		{"postgres://chancery@db/chancery", 0o644, false},
	} {
		_, err := DatabaseConfig{URLFile: write("url", c.text+"\n", c.mode)}.databaseURL()
		if (err != nil) != c.refused || err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("a URL of mode %#o: %v", c.mode, err)
		}
		config := "database: {url: \"" + c.text + "\"}\nhsm: {module: m, token: {label: t}, pin: {file: p}}\nauthorities: [issuing]\n"
		_, err = loadConfig(write("chancery.yaml", config, c.mode), nil)
		if refused := err != nil && strings.Contains(err.Error(), "chmod 600"); refused != c.refused || err != nil &&
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("a configuration of mode %#o: %v", c.mode, err)
		}
	}
}

// TestSecretsAreTheirOwners: whatever the configuration names as the file of a secret alone is refused when everybody can read it.
func TestSecretsAreTheirOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signing := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard, Environ: []string{"HOME=" + t.TempDir()}}}
	readers := map[string]func() error{
		"S3 keys": func() error { _, err := S3Config{AccessKeyFile: path, SecretKeyFile: path}.keys(Env{}); return err },
		"passwords of databases, in a URL": func() error {
			_, err := DatabaseConfig{URL: "postgres://chancery@db/chancery?sslmode=verify-full&passfile=" + url.QueryEscape(path)}.databaseURL()
			return err
		},
		"key for a database": func() error {
			_, err := DatabaseConfig{URL: "host=db sslkey = '" + path + "' user=chancery"}.databaseURL()
			return err
		},
		"client secret": func() error { _, err := LoginConfig{ClientSecretFile: path}.secret()(); return err },
	}
	for name, r := range map[string]ReceiverConfig{
		"webhook": {Webhook: &WebhookConfig{URL: "https://hook.example", SecretFile: path}},
		"OTLP":    {OTLP: &OTLPConfig{URL: "https://otel.example/v1/logs", AuthorizationFile: path}},
		"mail":    {Mail: &MailConfig{Server: "smtp.example:587", PasswordFile: path}},
	} {
		readers[name] = func() error { _, err := r.open(&DeliveryConfig{}, time.Now, false); return err }
	}
	// Of these only a refusal for the mode is looked for: the file holds no key.
	keys := map[string]func() error{
		"receiver's client certificate": func() error {
			_, err := ReceiverTLSConfig{CertificateFile: path, KeyFile: path}.config()
			return err
		},
		"caller's client certificate": func() error {
			_, err := signing.connect(apiFlags{api: "https://ca.example", certificate: path, key: path}, "")
			return err
		},
	}
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o660: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for name, read := range readers {
			err := read()
			if (err != nil) != refused || err != nil && (strings.Contains(err.Error(), "whsec_") || !strings.Contains(err.Error(), "chmod 600")) {
				t.Errorf("%s of mode %#o: %v", name, mode, err)
			}
		}
		for name, read := range keys {
			if err := read(); err == nil || strings.Contains(err.Error(), "chmod 600") != refused {
				t.Errorf("%s of mode %#o: %v", name, mode, err)
			}
		}
	}
}

// TestSecretsOfTheEnvironmentAreTheirOwners: where a database's URL names no file of passwords or of a key, the driver takes those of the
// environment and of the home directory, and they are held to the same. Files that it does not read may have any mode.
func TestSecretsOfTheEnvironmentAreTheirOwners(t *testing.T) {
	home, spaced := t.TempDir(), filepath.Join(t.TempDir(), "a b's")
	open, own := filepath.Join(spaced, "open"), filepath.Join(spaced, "own")
	pass, key := filepath.Join(home, ".pgpass"), filepath.Join(home, ".postgresql", "postgresql.key")
	alone := filepath.Join(spaced, ".postgresql", "postgresql.key") // a key without its certificate
	err := errors.Join(os.MkdirAll(filepath.Dir(alone), 0o700), os.Mkdir(filepath.Dir(key), 0o700))
	for _, path := range []string{open, own, pass, key, strings.TrimSuffix(key, "key") + "crt", alone} {
		err = errors.Join(err, os.WriteFile(path, []byte("db:*:*:chancery:s3cret\n"), 0o600))
	}
	if err = errors.Join(err, os.Chmod(open, 0o644)); err != nil {
		t.Fatal(err)
	}
	const plain = "postgres://chancery@db/chancery"
	quoted := strings.ReplaceAll(open, "'", `\'`)
	for name, c := range map[string]struct {
		database string
		environ  map[string]string
		open     string // opened to everybody for this case
		refused  string // the file that is
	}{
		"nothing":                        {plain, nil, "", ""},
		"PGPASSFILE":                     {plain, map[string]string{"PGPASSFILE": open}, "", open},
		"PGPASSFILE, key=value":          {"host=db user=chancery", map[string]string{"PGPASSFILE": open}, "", open},
		"PGPASSFILE that is fit":         {plain, map[string]string{"PGPASSFILE": own}, pass, ""},
		"PGPASSFILE that is not there":   {plain, map[string]string{"PGPASSFILE": own + "x"}, "", ""},
		".pgpass":                        {plain, nil, pass, pass},
		".pgpass, of another home":       {plain, map[string]string{"HOME": spaced}, pass, ""},
		".pgpass, no home":               {plain, map[string]string{"HOME": ""}, pass, ""},
		"a password in the URL":          {"postgres://chancery:x@db/chancery", map[string]string{"PGPASSFILE": open}, pass, ""},
		"a password in the environment":  {plain, map[string]string{"PGPASSWORD": "x", "PGPASSFILE": open}, pass, ""},
		"the URL names another":          {plain + "?passfile=" + url.QueryEscape(own), map[string]string{"PGPASSFILE": open}, pass, ""},
		"the URL names it":               {plain + "?passfile=" + url.QueryEscape(open), nil, "", open},
		"key=value names it, in quotes":  {"host=db passfile = '" + quoted + "' user=chancery", nil, "", open},
		"key=value names it, backslash":  {"host=db passfile=" + strings.ReplaceAll(quoted, " ", `\ `), nil, "", open},
		"PGSSLKEY":                       {plain, map[string]string{"PGSSLKEY": open}, "", open},
		"PGSSLKEY, and the URL names":    {plain + "?sslkey=" + url.QueryEscape(own), map[string]string{"PGSSLKEY": open}, key, ""},
		"PGSSLKEY, and a password":       {"postgres://chancery:x@db/chancery", map[string]string{"PGSSLKEY": open}, "", open},
		"the key in the home directory":  {plain, nil, key, key},
		"a key without its certificate":  {plain, map[string]string{"HOME": spaced}, alone, ""},
		"a URL file, PGPASSFILE is open": {"", map[string]string{"PGPASSFILE": open}, "", open},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"PGPASSFILE", "PGPASSWORD", "PGSSLKEY"} {
				t.Setenv(variable, "")
			}
			t.Setenv("HOME", home)
			for variable, value := range c.environ {
				t.Setenv(variable, value)
			}
			if c.open != "" {
				if err := os.Chmod(c.open, 0o644); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = os.Chmod(c.open, 0o600) }()
			}
			d := DatabaseConfig{URL: c.database}
			if c.database == "" {
				d = DatabaseConfig{URLFile: filepath.Join(t.TempDir(), "url")}
				if err := os.WriteFile(d.URLFile, []byte(plain+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := d.databaseURL()
			if c.refused == "" && err != nil || c.refused != "" && (err == nil || strings.Contains(err.Error(), "s3cret") ||
				!strings.Contains(err.Error(), c.refused+" holds a secret and has mode 0644") || !strings.Contains(err.Error(), "chmod 600")) {
				t.Errorf("got %v, want a refusal of %q", err, c.refused)
			}
		})
	}
}

// TestAKeyThatSignsApprovalsIsItsOwners: a private key that everybody can read may be anybody's. A public one, for an agent, may be read.
func TestAKeyThatSignsApprovalsIsItsOwners(t *testing.T) {
	a := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard}}
	path := filepath.Join(t.TempDir(), "id_ed25519")
	for text, refused := range map[string]bool{"-----BEGIN OPENSSH PRIVATE KEY-----\n": true, "ssh-ed25519 AAAA\n": false} {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.openSigner(signWith{key: path}); err == nil || strings.Contains(err.Error(), "chmod 600") != refused {
			t.Errorf("%q: %v", text, err)
		}
	}
}
