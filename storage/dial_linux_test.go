package storage

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// inNetworkOfItsOwn makes this program, started again, the process of TestSilentHost that has a network to itself.
const inNetworkOfItsOwn = "CHANCERY_TEST_SILENT_HOST"

// TestSilentHost has the host of the database vanish without a word: the network goes down under connections, one that waits for an answer
// and one that has just asked. Both must be given up long before a call's own time is up.
func TestSilentHost(t *testing.T) {
	if os.Getenv(inNetworkOfItsOwn) != "" {
		playSilentHost(t)
		return
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestSilentHost$", "-test.v")
	cmd.Env = append(os.Environ(), inNetworkOfItsOwn+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 { // who is not root may do it as the root of a user namespace, which there is none of below a chroot
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this system gives no process a network of its own: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func playSilentHost(t *testing.T) {
	setLoopback(t, syscall.IFF_UP)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := map[string]chan error{"waiting for an answer": make(chan error, 1), "having asked": make(chan error, 1)}
	conns := map[string]net.Conn{}
	for name, done := range ended {
		conn, err := dialer().DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		conns[name] = conn
		go func() {
			_, err := conn.Read(make([]byte, 1))
			done <- err
		}()
	}
	setLoopback(t, 0)
	began := time.Now()
	if _, err := conns["having asked"].Write([]byte("SELECT 1")); err != nil {
		t.Fatal(err)
	}
	const most = 2 * silence
	for name, done := range ended {
		select {
		case err := <-done:
			if !errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s: it ended with %v", name, err)
			}
			t.Logf("%s: given up after %s: %v", name, time.Since(began), err)
		case <-time.After(most - time.Since(began)):
			t.Errorf("%s: not given up within %s", name, most)
		}
	}
}

// setLoopback takes the loopback interface up or down (netdevice(7)).
func setLoopback(t *testing.T, flags uint16) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{name: [syscall.IFNAMSIZ]byte{'l', 'o'}, flags: flags}
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); failed != 0 {
		t.Fatalf("the loopback interface: %v", failed)
	}
}
