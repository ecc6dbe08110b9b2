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

// readNow and writeNow read from and write to what does not block (EAGAIN).
func readNow(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

func writeNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }

// pipe and writeEnd are not needed where no client is let in.
func pipe() (ends [2]int, err error) { return ends, errors.ErrUnsupported }

func writeEnd(int) (*os.File, error) { return nil, errors.ErrUnsupported }
