package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"
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

// pipe is a pipe that does not block: the end to read from, and the one to write to.
func pipe() (ends [2]int, err error) {
	err = syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK)
	return ends, os.NewSyscallError("pipe2", err)
}

// writeEnd opens the end of a pipe to which one writes once more. It has flags of its own: whoever was handed the other can make only that one
// block.
func writeEnd(pipe int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", pipe), os.O_WRONLY|syscall.O_NONBLOCK, 0)
}

// readNow and writeNow are read(2) and write(2) on what does not block (EAGAIN).
func readNow(fd uintptr, p []byte) (int, error) { return now(syscall.SYS_READ, fd, p) }

func writeNow(fd uintptr, p []byte) (int, error) { return now(syscall.SYS_WRITE, fd, p) }

// now makes a call that takes no time, without telling Go's scheduler of it.
func now(call, fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
