package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// keyFaults are those of the token and of the library before it.
func keyFaults() []fault {
	begin := func(what string, names ...string) func(*testing.T, *harness) {
		return func(t *testing.T, h *harness) {
			for _, name := range names {
				h.faulty[name].Begin(t, what)
			}
		}
	}
	all := []fault{
		{
			name: "token slow", sees: unavailable, inject: begin(hsmtest.Slow, one, two), heal: begin("", one, two),
			felt: more(5),
		},
		{
			name: "sessions of the token closed", sees: unavailable, inject: begin(hsmtest.CloseAll, one, two), heal: begin("", one, two),
			felt: more(10),
		},
		{
			name: "token hangs", sees: unavailable, inject: begin(hsmtest.Hang, two), heal: begin("", two),
			felt: func(h *harness, _ *load) bool { return len(h.column(stuckOf, two)) > 0 },
		},
		{
			name: "library crashes", sees: cut | refused | unavailable, heal: func(t *testing.T, h *harness) {
				h.faulty[two].Begin(t, "")
				h.launch(t, two)
			},
			inject: func(t *testing.T, h *harness) {
				h.leave(two)
				h.faulty[two].Begin(t, hsmtest.Crash)
			},
			felt: func(h *harness, _ *load) bool {
				if !h.hasEnded(two) {
					go h.askBriefly(two)
				}
				return h.hasEnded(two)
			},
		},
		networkToken("network token hangs", func(t *testing.T, s *tokenServer) { s.signal(t, syscall.SIGSTOP) },
			func(t *testing.T, s *tokenServer) { s.signal(t, syscall.SIGCONT) },
			func(h *harness) bool { return len(h.column(stuckOf, three)) > 0 }),
		networkToken("network token killed", func(t *testing.T, s *tokenServer) { s.kill(t) },
			func(t *testing.T, s *tokenServer) { s.start(t) },
			func(h *harness) bool { return h.unready(three) }),
	}
	for _, broken := range []struct{ name, how string }{
		{"token answers CKR_DEVICE_ERROR", "0x30"},
		{"token signs and answers CKR_DEVICE_ERROR", hsmtest.Late},
		{"token signs wrongly", hsmtest.Wrong},
	} {
		all = append(all, fault{
			name: broken.name, sees: unavailable, inject: begin(broken.how, one, two), heal: begin("", one, two),
			felt: func(h *harness, l *load) bool { return l.unavailable.Load() > 2 && h.unready(one, two) },
		})
	}
	return all
}

// more waits for further certificates than there were when it was asked first.
func more(n int64) func(*harness, *load) bool {
	var from *load
	var at int64
	return func(_ *harness, l *load) bool {
		if from != l {
			from, at = l, l.issued.Load()
		}
		return l.issued.Load() >= at+n
	}
}

// tokenServer is p11-kit's server: a token that is reached over a connection, as a network HSM is.
type tokenServer struct {
	h       *harness
	socket  string
	process *exec.Cmd
	ended   chan struct{}
}

func (s *tokenServer) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(s.socket)
	s.process = exec.Command("p11-kit", "server", "-f", "-n", s.socket, "--provider", s.h.token.Module, "pkcs11:token="+s.h.token.Label)
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatalf("starting a token server: %v; install p11-kit", err)
	}
	ended, process := make(chan struct{}), s.process
	s.ended = ended
	go func() { _ = process.Wait(); close(ended) }()
	eventually(t, feltWithin, "the token server listens", func() bool { _, err := os.Stat(s.socket); return err == nil })
}

// signal reaches the server and what it has started for each client.
func (s *tokenServer) signal(t *testing.T, what syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-s.process.Process.Pid, what); err != nil {
		t.Fatal(err)
	}
}

func (s *tokenServer) kill(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	<-s.ended
}

// clientModule is the library that reaches a token server; "" where there is none.
func clientModule() string {
	for _, pattern := range []string{"/usr/lib/*/pkcs11/p11-kit-client.so", "/usr/lib64/pkcs11/p11-kit-client.so", "/usr/lib/pkcs11/p11-kit-client.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// networkToken is a fault of a third replica's token, which clients do not count on. That replica is asked until the fault is felt: on crowded
// processors a brief request can end before its signature is asked for.
func networkToken(name string, begin, end func(*testing.T, *tokenServer), felt func(*harness) bool) fault {
	var server *tokenServer
	var asked chan struct{} // closed when the last request has ended
	return fault{
		name: name,
		inject: func(t *testing.T, h *harness) {
			module := clientModule()
			if module == "" {
				t.Fatal("p11-kit-client.so is missing; install p11-kit and p11-kit-modules")
			}
			server = &tokenServer{h: h, socket: filepath.Join(t.TempDir(), "p11")}
			server.start(t)
			h.launchOn(t, three, module, "P11_KIT_SERVER_ADDRESS=unix:path="+server.socket)
			begin(t, server)
			asked = make(chan struct{})
			close(asked)
		},
		felt: func(h *harness, _ *load) bool {
			select {
			case <-asked:
				ended := make(chan struct{})
				asked = ended
				go func() { defer close(ended); h.askBriefly(three) }()
			default:
			}
			return felt(h)
		},
		heal: func(t *testing.T, _ *harness) { end(t, server) },
		after: func(t *testing.T, h *harness) {
			h.leave(three)
			h.replica(three).stop()
			h.drop(three)
			server.kill(t)
		},
	}
}
