package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A result takes the place of a file in one step, and of nothing else: what leads to a file keeps leading to it, and what is no file is
// written into.
func TestResultsTakeThePlaceOfFilesAlone(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, err := range []error{
		os.Mkdir(at("there"), 0o700), os.WriteFile(at("there/old"), []byte("old"), 0o644), os.WriteFile(at("plain"), []byte("old"), 0o644),
		os.Symlink("there", at("directory")), os.Symlink("../plain", at("there/up")), os.Symlink("directory/old", at("link")),
		os.Symlink("nothing", at("dangling")), syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("pipe", at("piped")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	content := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	kind := func(path string) fs.FileMode {
		about, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return about.Mode()
	}
	for path, place := range map[string]string{"new": "new", "plain": "plain", "link": "there/old", "directory/up": "plain"} {
		was := fs.FileMode(0)
		if _, err := os.Lstat(at(path)); err == nil {
			was = kind(at(path)).Type()
		}
		if err := writeFile(at(path), []byte("of "+path), 0o640); err != nil {
			t.Error(err)
		}
		if got := content(at(place)); got != "of "+path || kind(at(place)) != 0o640 || kind(at(path)).Type() != was {
			t.Errorf("%s: %s holds %q, %v; it is %v itself", path, place, got, kind(at(place)), kind(at(path)))
		}
	}
	if err := writeFile(at("dangling"), nil, 0o600); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a link to nothing: %v", err)
	}
	if err := writeFile(at("there"), nil, 0o600); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	failed := errors.New("not authentic")
	fails := func(w io.Writer) error {
		_, err := io.WriteString(w, "half of it")
		return errors.Join(err, failed)
	}
	for _, path := range []string{"pipe", "piped"} {
		reader, err := os.OpenFile(at("pipe"), os.O_RDWR, 0) // which waits for nobody
		if err != nil {
			t.Fatal(err)
		}
		if err := replaceFile(at(path), 0o600, fails); !errors.Is(err, failed) {
			t.Errorf("%s: %v", path, err)
		}
		if err := writeFile(at(path), []byte("whole"), 0o600); err != nil {
			t.Error(err)
		}
		if kind(at("pipe")).Type() != fs.ModeNamedPipe || kind(at("piped")).Type() != fs.ModeSymlink {
			t.Fatalf("%s was replaced", path)
		}
		got := make([]byte, 5)
		if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != "whole" {
			t.Errorf("%s: out came %q, %v", path, got, err)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := replaceFile(at("plain"), 0o600, fails); !errors.Is(err, failed) || content(at("plain")) == "half of it" {
		t.Errorf("what failed: %v, %q", err, content(at("plain")))
	}
	if left, err := filepath.Glob(at("*/.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if left, err := filepath.Glob(at(".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// A list of keys is opened where it is, and so is no pipe.
func TestAListOfKeysIsAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	list, source := filepath.Join(dir, "list"), filepath.Join(dir, "source")
	for _, err := range []error{
		syscall.Mkfifo(pipe, 0o600), os.Symlink("list", link), os.WriteFile(list, nil, 0o600),
		os.WriteFile(source, []byte(strings.Repeat("5c", 32)+"\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	build := func(out string) (string, int) {
		_, stderr, code := typed(t, "", "policy", "blocklist", "build", "--title", "leaked", "--out", out, source)
		return stderr, code
	}
	if said, code := build(pipe); code != 1 || !strings.Contains(said, "is no file that a list can be kept in") {
		t.Errorf("a pipe: %d %s", code, said)
	}
	if said, code := build(link); code != 0 {
		t.Errorf("a link: %d %s", code, said)
	}
	if about, err := os.Lstat(link); err != nil || about.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is %v, %v", about.Mode(), err)
	}
	if about, err := os.Stat(list); err != nil || about.Size() == 0 {
		t.Errorf("the list has %d octets, %v", about.Size(), err)
	}
}
