// Package mirror puts published CRLs where other servers serve them from: it is a ca.CRLMirror.
//
// Whoever looks at the place finds either the last CRL or the next, whole, at every moment and after every crash.
package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// Directory is a directory on this machine. It is safe for concurrent use by one process.
type Directory struct {
	root string
	mu   sync.Mutex
}

// unfinished begins the names of files that are being written. One that a crash has left is removed at the next start.
const unfinished = ".chancery-"

// OpenDirectory uses a directory, which must be there: making it, with its owner and its mode, is the operator's.
func OpenDirectory(root string) (*Directory, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("opening the directory for CRLs: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("opening the directory for CRLs: %s is none", root)
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) && path != root { // such as lost+found: nothing of ours lies there
			return fs.SkipDir
		}
		if err == nil && entry.Type().IsRegular() && strings.HasPrefix(entry.Name(), unfinished) {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tidying the directory for CRLs: %w", err)
	}
	return &Directory{root: root}, nil
}

// PutCRL puts a CRL at a path below the directory: written beside its place, brought to the disk, and renamed. A crash before the rename
// leaves the last one, a crash after it the next one. A sound CRL there that has a higher number stays; whatever else is there is replaced.
func (d *Directory) PutCRL(ctx context.Context, path string, r ca.CRLRecord, sound func(der []byte) error) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("putting a CRL at %q: the path leads out of the directory", path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	place := filepath.Join(d.root, path)
	if there, err := os.ReadFile(place); err == nil {
		if bytes.Equal(there, r.DER) {
			return nil
		}
		if read, err := issuance.ReadCRLHead(there); err == nil && read.Number.Cmp(r.Number) > 0 && sound(there) == nil {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting a CRL at %q: %w", path, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.replace(place, r.DER); err != nil {
		return fmt.Errorf("putting a CRL at %q: %w", path, err)
	}
	return nil
}

func (d *Directory) replace(place string, octets []byte) (err error) {
	folder := filepath.Dir(place)
	if err := d.makeFolder(folder); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, unfinished+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(octets)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), place); err != nil {
		return err
	}
	return syncFolder(folder)
}

// makeFolder makes what lies between the directory and a file, each entry on the disk before it is used.
func (d *Directory) makeFolder(folder string) error {
	if _, err := os.Stat(folder); err == nil || folder == d.root {
		return err
	}
	parent := filepath.Dir(folder)
	if err := d.makeFolder(parent); err != nil {
		return err
	}
	err := os.Mkdir(folder, 0o755)
	if err == nil {
		err = os.Chmod(folder, 0o755) // whatever the umask: another server reads it
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
