// Command chancery is the certificate authority: the service, the tools of its operators, and the client of its teams.
//
// It owns flags, configuration and wiring, and nothing else: what it does is in the rooms that it joins. Exit codes: 0 done, 1 failed,
// 2 misused.
package main

import (
	"context"
	"crypto/rand"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exitCode(run(ctx, os.Args[1:], Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(), Now: time.Now, Random: rand.Reader,
		OwnProcess: true,
	})))
}
