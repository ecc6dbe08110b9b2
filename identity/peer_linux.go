package identity

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// credentials are the user and group of the process at the other end (unix(7), SO_PEERCRED).
func credentials(conn *net.UnixConn) (uid, gid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, 0, fmt.Errorf("asking who is at the other end: %w", err)
	}
	return peer.Uid, peer.Gid, nil
}
