package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// peerUID is the user of the process at the other end of a connection, as the kernel noted it when the connection was made (unix(7),
// SO_PEERCRED).
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("asking who is at the other end: %w", err)
	}
	return credentials.Uid, nil
}

// datasync is fsync without what no reader of the file needs (its times).
func datasync(fd int) error {
	for {
		err := syscall.Fdatasync(fd)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// reach is a path for a socket in a directory whose name is longer than an address can be: by way of the open directory.
func reach(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}
