package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/chancery-ca/chancery/strictyaml"
)

// passwordSetting is a password among the settings of a database's name: key=value, or as a parameter of a URL.
var passwordSetting = regexp.MustCompile(`(?i)(^|[\s?&])password\s*=\s*[^\s&]`)

// holdsPassword tells whether a database's URL, in either form, holds a password.
func holdsPassword(database string) bool {
	if u, err := url.Parse(database); err == nil && u.User != nil {
		if password, set := u.User.Password(); set && password != "" {
			return true
		}
	}
	return passwordSetting.MatchString(database)
}

// secretFileSetting is a file with a secret among the settings of a database's name: one of passwords, or the key of a client certificate.
// Its path may stand between quotes.
var secretFileSetting = regexp.MustCompile(`(?i)(?:^|[\s?&])(passfile|sslkey)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s&'\\])+))`)

// fitSecretFiles refuses a database's URL, in either form, for which the driver would take a secret from a file that is not fit to hold
// one. The driver does not ask, and tells itself what is wrong with a file that cannot be read.
func fitSecretFiles(database string) error {
	for _, path := range secretFiles(database) {
		if _, unfit, err := readOwn(path); err == nil && unfit != nil {
			return fmt.Errorf("reading the database URL: %w", unfit)
		}
	}
	return nil
}

// secretFiles are the files from which the driver takes secrets for a database: those that its URL names, or else those that the
// environment names, or else those in the home directory. The driver reads the environment of the process, and so does this.
func secretFiles(database string) (paths []string) {
	named := map[string]bool{}
	for _, setting := range secretFileSetting.FindAllStringSubmatch(database, -1) {
		named[strings.ToLower(setting[1])] = true
		path := cmp.Or(setting[2], setting[3])
		if !strings.Contains(database, "://") {
			paths = append(paths, escaped.ReplaceAllString(path, "$1"))
		} else if plain, err := url.QueryUnescape(path); err == nil {
			paths = append(paths, plain)
		}
	}
	inHome := func(name string) string {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		return filepath.Join(home, name)
	}
	if !named["passfile"] && !holdsPassword(database) && os.Getenv("PGPASSWORD") == "" {
		paths = append(paths, cmp.Or(os.Getenv("PGPASSFILE"), inHome(".pgpass")))
	}
	if key := os.Getenv("PGSSLKEY"); !named["sslkey"] && key != "" {
		paths = append(paths, key)
	} else if _, err := os.Stat(inHome(".postgresql/postgresql.crt")); !named["sslkey"] && err == nil { // it takes both or neither
		paths = append(paths, inHome(".postgresql/postgresql.key"))
	}
	return paths
}

// escaped is a character after a backslash, as it may stand in a database's name of the form key=value.
var escaped = regexp.MustCompile(`\\(.)`)

// readOwn reads a file. unfit says that it is no file for a secret: everybody can read it, or its group write it. The open file is asked,
// so that what is checked is what is read.
func readOwn(path string) (data []byte, unfit, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		unfit = fmt.Errorf("%s holds a secret and has mode %#o: it must be neither writable by its group nor open to everybody; "+
			"run chmod 600 %[1]s", path, mode)
	}
	data, err = io.ReadAll(io.LimitReader(file, strictyaml.MaxSize+1))
	return data, unfit, err
}

// readSecret reads a file that holds nothing but a secret, without the space around it. It refuses a file that is not fit to hold one.
func readSecret(path string) (string, error) {
	data, unfit, err := readOwn(path)
	if err := cmp.Or(err, unfit); err != nil {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
