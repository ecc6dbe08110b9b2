package usage

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/chancery-ca/chancery/hsm"
)

// counts keeps numbers of uses in a file, which the processes of a host share. Whose they may be, the directory says: where its group can
// write, the files are the group's as well (mode 0660), else they are of whoever came first alone (0600).
type counts struct {
	path      string
	directory string // where it is there, the file is in it
	mu        sync.Mutex
}

// file is where the counts are now.
func (c *counts) file() (string, error) {
	if c.directory == "" {
		return c.path, nil
	}
	about, err := os.Stat(c.directory)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !about.IsDir() {
		return c.path, nil
	}
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.directory, "uses.json")
	if _, err := os.Lstat(c.path); !errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(fmt.Errorf("there is %s and a directory for the counts: mv %[1]s %s, so that they go on", c.path, path), err)
	}
	return path, nil
}

// use counts one use, or returns errUsedUp where there were as many as there may be. It is on the disk before the key is used: a crash may
// count a use that was not made, and never the other way round.
func (c *counts) use(token string, key hsm.KeyRef, most int64) error {
	if c == nil {
		return errors.New("uses are bounded, and there is no file to count them in")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	path, err := c.file()
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	place, err := placeOf(path)
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	lock, err := place.lock(path + ".lock")
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	defer lock.Close()
	used := map[string]int64{}
	data, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("counting uses: %w", err)
	}
	if err == nil {
		err := json.Unmarshal(data, &used)
		if err == nil && used == nil {
			err = errors.New("it holds null")
		}
		if err != nil {
			return fmt.Errorf("counting uses: %s is damaged; restore it, or write it anew with the counts that the journal tells: %w", path, err)
		}
	}
	whose := token + "/" + hex.EncodeToString(key.ID) + "/"
	name := whose + key.Label
	total := used[name]
	if len(key.ID) > 0 { // a key with another label is the same key
		total = 0
		for other, n := range used {
			if strings.HasPrefix(other, whose) {
				total += n
			}
		}
	}
	if total >= most {
		return fmt.Errorf("%w (%d)", errUsedUp, most)
	}
	used[name]++
	if data, err = json.MarshalIndent(used, "", "  "); err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	if err := place.replace(path, append(data, '\n')); err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	return nil
}

// place is a directory of counts, and whose its files are.
type place struct {
	dir  string
	gid  int
	mode fs.FileMode
}

// placeOf looks at the directory of a file of counts. Where anybody can write, anybody could begin the counts anew.
func placeOf(path string) (place, error) {
	dir := filepath.Dir(path)
	about, err := os.Stat(dir)
	if err != nil {
		return place{}, err
	}
	perm := about.Mode().Perm()
	if perm&0o002 != 0 {
		return place{}, fmt.Errorf("everybody can write in %s, and so change the counts: chmod o-w %[1]s", dir)
	}
	if perm&0o020 == 0 {
		return place{dir: dir, gid: -1, mode: 0o600}, nil
	}
	owner, ok := about.Sys().(*syscall.Stat_t)
	if !ok {
		return place{}, fmt.Errorf("the system does not tell whose %s is", dir)
	}
	return place{dir: dir, gid: int(owner.Gid), mode: 0o660}, nil
}

// lock takes the lock, which ends with the file that is returned or with the process. The file comes into being with its mode and group,
// under a name of its own: no other user meets it closed.
func (p place) lock(path string) (*os.File, error) {
	lock, err := open(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		if err := p.made(path, nil, os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		lock, err = open(path, os.O_RDWR)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// replace writes a file whole or not at all. A crash after it has returned loses nothing: its name is durable as well.
func (p place) replace(path string, data []byte) error {
	if err := p.made(path, data, os.Rename); err != nil {
		return err
	}
	dir, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// made makes a file and gives it its name when it is whole.
func (p place) made(path string, data []byte, name func(from, to string) error) error {
	tmp, err := os.CreateTemp(p.dir, "."+filepath.Base(path)+"-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = p.give(tmp)
	}
	if err := errors.Join(err, tmp.Chmod(p.mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return name(tmp.Name(), path)
}

// give gives a file to the directory's group, which it has already where the directory hands it on (setgid). Only else is the system asked:
// a service that may not change owners at all, as the shipped unit has it, would be killed for asking.
func (p place) give(f *os.File) error {
	if p.gid < 0 {
		return nil
	}
	about, err := f.Stat()
	if err != nil {
		return err
	}
	if has, ok := about.Sys().(*syscall.Stat_t); ok && int(has.Gid) == p.gid {
		return nil
	}
	return f.Chown(-1, p.gid)
}

// open opens a file that nobody but its owner and its group can write. No link is followed: whoever can write in the directory could have
// another user's process open another file.
func open(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w; for users of one group, docs/hsm.md says how to make its directory", err)
	}
	if err != nil {
		return nil, err
	}
	about, err := f.Stat()
	switch {
	case err != nil:
	case !about.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file", path)
	case about.Mode().Perm()&0o002 != 0:
		err = fmt.Errorf("everybody can write %s: see that the counts are right, then chmod o-w %[1]s", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func read(path string) ([]byte, error) {
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
