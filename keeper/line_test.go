package keeper

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ends are both sides of the pipes of one connection.
func ends(t *testing.T, thread bool) (keeper *pipes, in, out line) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if keeper, err = makePipes(thread); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keeper.close() })
	if err := keeper.give(server, []byte("pipes")); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, len("pipes"))
	if in, out, err = takePipes(client, message); err != nil || string(message) != "pipes" {
		t.Fatalf("%q, %v", message, err)
	}
	t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	return keeper, in, out
}

func TestPipes(t *testing.T) {
	for _, thread := range []bool{true, false} {
		keeper, in, out := ends(t, thread)
		testPipes(t, keeper, in, out)
	}
}

func testPipes(t *testing.T, keeper *pipes, in, out line) {
	long := bytes.Repeat([]byte("0123456789"), 100_000) // more than a pipe holds
	var both sync.WaitGroup
	both.Go(func() {
		got := make([]byte, len(long))
		if _, err := io.ReadFull(keeper.in, got); err != nil || !bytes.Equal(got, long) {
			t.Errorf("what was asked did not arrive: %v", err)
		}
		if err := keeper.out.writeWithin(10*time.Second, got); err != nil {
			t.Error(err)
		}
	})
	if !in.quiet() {
		t.Error("nothing has arrived, and it is not quiet")
	}
	if _, err := out.Write(long); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(long))
	if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, long) {
		t.Errorf("the answer did not arrive: %v", err)
	}
	both.Wait()
	if err := keeper.out.Close(); err != nil {
		t.Fatal(err)
	}
	if in.quiet() {
		t.Error("the keeper has gone, and it is quiet")
	}
	if _, err := in.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("reading after the keeper has gone: %v", err)
	}
}

// TestWriteWithin: who does not read is not waited for.
func TestWriteWithin(t *testing.T) {
	keeper, _, _ := ends(t, true)
	err := keeper.out.writeWithin(50*time.Millisecond, make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads: %v", err)
	}
}

func TestReadDeadline(t *testing.T) {
	_, in, _ := ends(t, true)
	if err := in.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing comes: %v", err)
	}
}

// TestInboxEnds whether its reader waits or has much to read, and although the client still has its end.
func TestInboxEnds(t *testing.T) {
	for i := range 4 {
		full, thread := i&1 != 0, i&2 != 0
		keeper, _, out := ends(t, thread)
		if full {
			var blocks error
			if err := out.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := out.polled.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("filling the pipe: %v", err)
			}
			// A client may have its end block. The keeper's call, of which Go's scheduler knows nothing, must not.
			if err := out.raw.Control(func(fd uintptr) { blocks = syscall.SetNonblock(int(fd), false) }); err != nil || blocks != nil {
				t.Fatal(err, blocks)
			}
		}
		ended := make(chan error, 1)
		read := func() {
			_, err := io.Copy(io.Discard, keeper.in)
			ended <- err
		}
		if !full {
			go read()
		}
		if err := keeper.in.end(); err != nil {
			t.Error(err)
		}
		if full {
			go read()
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("full %t: the reader still waits", full)
		}
	}
}

// TestOtherVersions are refused by either side.
func TestOtherVersions(t *testing.T) {
	old := appendFrame(nil, frameHello, 0, []byte("chancery-keeper 1"))
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := conn.Write(old); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, conn)
	}()
	c := NewClient(path, time.Second)
	if _, err := c.Keys(t.Context()); !errors.Is(err, ErrProtocol) {
		t.Errorf("a keeper of the version before: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(old); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a client of the version before: %v", err)
	}
}
