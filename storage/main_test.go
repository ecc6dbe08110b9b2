package storage_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(dieArchivingAt); step != "" {
		fmt.Fprintln(os.Stderr, archiveAndDie(step))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
