//go:build !linux

package keeper

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// peerUID refuses: without SO_PEERCRED nobody knows who asks.
func peerUID(*net.UnixConn) (uint32, error) {
	return 0, errors.New("a keeper runs on Linux: this system does not tell who is at the other end of a socket; use hsm.isolation none")
}

func datasync(fd int) error { return syscall.Fsync(fd) }

func reach(dir *os.File, name string) string { return filepath.Join(dir.Name(), name) }
