package hsm_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/hsm"
)

// childEnv turns the test binary into a child process that opens a token: PKCS#11 state is the process's, so a second owner of a library
// needs a second process.
const childEnv = "CHANCERY_HSM_TEST_CHILD"

func TestMain(m *testing.M) {
	if module := os.Getenv(childEnv); module != "" {
		os.Exit(child(module))
	}
	goleak.VerifyTestMain(m)
}

func child(module string) int {
	token, err := hsm.Open(context.Background(), hsm.Config{
		Module: module,
		Token:  hsm.Selector{Serial: os.Getenv("SERIAL")},
		PIN:    hsm.PINFromEnv("PIN"),
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := token.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// openInChild opens a token in a process of its own, and returns what that said if it failed.
func openInChild(tb testing.TB, module, serial, pin string, env ...string) (string, error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+module, "SERIAL="+serial, "PIN="+pin)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
