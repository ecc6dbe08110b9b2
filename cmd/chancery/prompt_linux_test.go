package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// TestAnInterruptEndsAPrompt presses Ctrl-C where a PIN, and where a confirmation, is asked for: the program ends, and the terminal shows
// again what is typed.
func TestAnInterruptEndsAPrompt(t *testing.T) {
	token := hsmtest.New(t)
	for prompt, args := range map[string][]string{
		"PIN: ": {"hsm", "init", "--module", token.Module, "--label", "other"},
		"[type yes] ": {
			"hsm", "key", "generate", "--module", token.Module, "--token-label", token.Label, "--pin-file", token.PINFile,
			"--algorithm", "ecdsa-p256", "--label", "wrapped", "--extractable",
		},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			keyboard, terminal := openTerminal(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
			cmd.Env = append(os.Environ(), actAsChancery+"=1", "CHANCERY_HOME="+t.TempDir())
			cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = t.TempDir(), terminal, terminal, terminal
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			awaitText(t, keyboard, prompt)
			if _, err := keyboard.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				t.Fatalf("still there after an interrupt: %v", <-ended)
			}
			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			awaitText(t, keyboard, "interrupted; nothing was done")
			var state syscall.Termios
			control(t, terminal, syscall.TCGETS, unsafe.Pointer(&state))
			if state.Lflag&syscall.ECHO == 0 {
				t.Error("the terminal does not show what is typed")
			}
		})
	}
}

// openTerminal makes a pseudo-terminal (pty(7)).
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there is no terminal here: %v", err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	var locked, number int32
	control(t, keyboard, syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	control(t, keyboard, syscall.TIOCGPTN, unsafe.Pointer(&number))
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there is no terminal here: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return keyboard, terminal
}

func control(t *testing.T, file *os.File, request uintptr, what unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), request, uintptr(what)); errno != 0 {
		t.Fatalf("asking the terminal: %v", errno)
	}
}

// awaitText reads what a terminal shows until a text is there.
func awaitText(t *testing.T, from *os.File, text string) {
	t.Helper()
	var shown strings.Builder
	found := make(chan error, 1)
	go func() {
		for buffer := make([]byte, 256); !strings.Contains(shown.String(), text); {
			n, err := from.Read(buffer)
			if err != nil {
				found <- err
				return
			}
			shown.Write(buffer[:n])
		}
		found <- nil
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Fatalf("the terminal shows %q, and then: %v", shown.String(), err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the terminal does not show %q", text)
	}
}
