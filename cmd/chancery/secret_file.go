package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"os"
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
var secretFileSetting = regexp.MustCompile(`(?i)(?:^|[\s?&])(?:passfile|sslkey)\s*=\s*'?([^\s&']+)`)

// fitSecretFiles refuses a database's URL, in either form, that names a file which is not fit to hold a secret. The driver does not ask,
// and tells itself what is wrong with a file that cannot be read.
func fitSecretFiles(database string) error {
	for _, named := range secretFileSetting.FindAllStringSubmatch(database, -1) {
		path := named[1]
		if strings.Contains(database, "://") {
			if plain, err := url.QueryUnescape(path); err == nil {
				path = plain
			}
		}
		if _, unfit, err := readOwn(path); err == nil && unfit != nil {
			return fmt.Errorf("reading the database URL: %w", unfit)
		}
	}
	return nil
}

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
