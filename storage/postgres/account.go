package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Account is the user that the server has to run as: "" (the present one), or, for root, whom Postgres refuses, an unprivileged user.
func Account() (name string, err error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if _, err := user.Lookup(name); err == nil {
			return name, nil
		}
	}
	return "", errors.New("root cannot run Postgres, and there is neither a user postgres nor nobody to run it as")
}

// unreachableError says that an account may not enter a directory on the way to another.
type unreachableError struct {
	account, closed, path string
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("user %s cannot reach %s because %s is closed to it", e.account, e.path, e.closed)
}

// Reachable tells whether an account ("" is the present user) may enter every directory that leads to a path. What does not exist yet
// counts as open.
func Reachable(path, account string) error {
	if account == "" {
		return nil
	}
	id, err := credential(account)
	if err != nil {
		return err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && !mayEnter(info, id) {
			return &unreachableError{account: account, closed: dir, path: path}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// mayEnter follows the order of POSIX: the owner's bits for the owner, the group's for the group, else the others'.
func mayEnter(info fs.FileInfo, id *syscall.Credential) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok:
		return true
	case owner.Uid == id.Uid:
		return mode&0o100 != 0
	case owner.Gid == id.Gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

func credential(account string) (*syscall.Credential, error) {
	u, err := user.Lookup(account)
	if err != nil {
		return nil, fmt.Errorf("looking up the user to run Postgres as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", account, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", account, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
