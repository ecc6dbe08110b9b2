package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeFile is replaceFile for octets that are at hand.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	return replaceFile(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFile writes a file of any length whole or not at all, in one step: who reads it sees the old content or the new. Of a symbolic
// link the file behind it is replaced, and the link stays. What is no regular file, such as /dev/null or a named pipe, stays what it is:
// all of the content is written into it at the end.
func replaceFile(path string, mode fs.FileMode, write func(io.Writer) error) error {
	place, stream, err := placeOf(path)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if stream {
		out, err := os.OpenFile(place, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		return errors.Join(heldBack(out, write), out.Close())
	}
	tmp, err := os.CreateTemp(filepath.Dir(place), "."+filepath.Base(place)+"-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	if err := write(tmp); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err = errors.Join(tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), place)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// placeOf is the path of the file that a path leads to. What is written into, and never replaced, is a stream: what is no regular file,
// and what leads to an open file, as /dev/stdout does.
func placeOf(path string) (place string, stream bool, err error) {
	about, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, false, nil
	case err != nil:
		return "", false, err
	case about.Mode()&fs.ModeSymlink == 0:
		return path, !about.Mode().IsRegular(), nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", false, err
	}
	if strings.HasPrefix(abs, "/dev/") || strings.HasPrefix(abs, "/proc/") {
		return path, true, nil
	}
	about, err = os.Stat(path) // where the system follows no stranger's link, neither is one followed here
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, errors.New("it is a symbolic link to a file that is not there; remove the link, or name the file")
	case err != nil:
		return "", false, err
	case !about.Mode().IsRegular():
		return path, true, nil
	}
	place, err = filepath.EvalSymlinks(path)
	return place, false, err
}

// heldBack keeps what is written in a file that has no name until all of it is there, then sends it on.
func heldBack(out io.Writer, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp("", "chancery-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("keeping the result back: %w", err)
	}
	defer func() { err = errors.Join(err, tmp.Close()) }()
	if err := os.Remove(tmp.Name()); err != nil {
		return fmt.Errorf("keeping the result back: %w", err)
	}
	if err := write(tmp); err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("keeping the result back: %w", err)
	}
	if _, err := io.Copy(out, tmp); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
