// Package postgres runs a private Postgres server: it finds the programs, makes a cluster, starts and stops it as an unprivileged
// user, and has it listen on a Unix socket alone. Development and tests use it; in production somebody else runs Postgres.
package postgres

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// OldestVersion is the oldest major version of Postgres that works.
const OldestVersion = 15

// ErrNotInstalled is returned by Find where no usable Postgres is installed. Its text says what to install.
var ErrNotInstalled = fmt.Errorf("the server programs of Postgres %d or later were not found: "+
	"on Debian or Ubuntu run `apt-get install postgresql`, on Fedora `dnf install postgresql-server`, on macOS `brew install postgresql`, "+
	"or put the directory with initdb and postgres into PATH", OldestVersion)

// places are where packagers put the server programs, which are seldom in PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",              // Debian, Ubuntu
	"/usr/pgsql-*/bin",                       // PostgreSQL's own RPMs
	"/usr/libexec/postgresql*",               // Alpine
	"/opt/homebrew/opt/postgresql*/bin",      // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",         // Homebrew on Intel
	"/usr/local/pgsql/bin",                   // built from source
	"/Applications/Postgres.app/*/*/*/*/bin", // Postgres.app
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ([0-9]+)`)

// Find returns the directory of the newest server programs installed, or ErrNotInstalled.
func Find() (bin string, err error) {
	var candidates []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil {
			candidates = append(candidates, filepath.Dir(real))
		}
	}
	for _, p := range places {
		found, err := filepath.Glob(p)
		if err != nil {
			return "", fmt.Errorf("looking for Postgres in %s: %w", p, err)
		}
		candidates = append(candidates, found...)
	}
	newest := 0
	for _, dir := range candidates {
		version, err := version(dir)
		if err == nil && version >= OldestVersion && version > newest {
			newest, bin = version, dir
		}
	}
	if bin == "" {
		return "", ErrNotInstalled
	}
	return bin, nil
}

// version is the major version of the programs in a directory, which must hold all that a cluster needs.
func version(bin string) (int, error) {
	for _, program := range []string{"initdb", "pg_ctl"} {
		if _, err := exec.LookPath(filepath.Join(bin, program)); err != nil {
			return 0, err
		}
	}
	out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	return parseVersion(string(out))
}

func parseVersion(s string) (int, error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("this does not tell a version of Postgres")
	}
	return strconv.Atoi(m[1])
}
