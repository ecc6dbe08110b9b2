package hsmtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// childEnv turns TestChild into the body of a child process, and says how that ends.
const childEnv = "CHANCERY_HSMTEST_CHILD"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTokensAreSeparate(t *testing.T) {
	t.Parallel()
	a, b := hsmtest.New(t), hsmtest.New(t)
	if a.Label == b.Label || a.Serial == b.Serial || a.Conf != b.Conf {
		t.Fatalf("%+v and %+v", a, b)
	}
	if _, _, err := a.Open(t).Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "ca"}); err != nil {
		t.Fatal(err)
	}
	if keys, err := b.Open(t).Keys(); err != nil || len(keys) != 0 {
		t.Errorf("the other token holds %v, %v", keys, err)
	}
}

func TestPINFile(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t)
	info, err := os.Stat(token.PINFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if os.Getenv(hsm.SoftHSMEnv) != token.Conf {
		t.Errorf("child processes are led to %q", os.Getenv(hsm.SoftHSMEnv))
	}
}

func TestExtractableKeyCanBeRead(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	ref := hsmtest.ExtractableKey(t, token, "loose")
	a, err := token.Attributes(ref)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Extractable || a.NeverExtractable || !errors.Is(a.Kept(), hsm.ErrKeyNotKept) {
		t.Errorf("attributes are %+v", a)
	}
}

// TestChild is run by the tests below in a process of its own.
func TestChild(t *testing.T) {
	end := os.Getenv(childEnv)
	if end == "" {
		return
	}
	token := hsmtest.New(t)
	token.Open(t)
	fmt.Println("dir=" + filepath.Dir(token.Conf))
	switch end {
	case "panic":
		panic("on purpose")
	case "exit":
		os.Exit(3)
	case "kill":
		io.Copy(io.Discard, os.Stdin) // until killed
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"return", "panic", "exit", "kill"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			dir := runChild(t, end)
			if !strings.Contains(dir, "chancery-hsmtest-") {
				t.Fatalf("the directory is %q", dir)
			}
			// The remover runs after the process has ended, so it may take a moment.
			deadline := time.After(10 * time.Second)
			look := time.NewTicker(10 * time.Millisecond)
			defer look.Stop()
			for {
				if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
					return
				}
				select {
				case <-look.C:
				case <-deadline:
					t.Fatalf("%s is still there", dir)
				}
			}
		})
	}
}

// runChild runs TestChild to its end and returns its directory.
func runChild(t *testing.T, end string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+end)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line, found := strings.CutPrefix(lines.Text(), "dir=")
		if !found {
			continue
		}
		dir = line
		if end != "kill" {
			continue
		}
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("the directory of a living process: %v", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); (err == nil) != (end == "return") {
		t.Errorf("the child ended with %v", err)
	}
	return dir
}
