package main

import (
	"context"
	"crypto/rand"
	"flag"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// actAsChancery, set in the environment, makes the test binary the program itself: tests start it as a process of its own, with the same
// code and the race detector, and can kill it.
const actAsChancery = "CHANCERY_TEST_ACT_AS_CHANCERY"

// profileTo, set in the environment, names a file for a CPU profile of the program.
const profileTo = "CHANCERY_TEST_CPU_PROFILE"

// allocationsTo, set in the environment, names a file for a profile of all that the program has allocated by its end.
const allocationsTo = "CHANCERY_TEST_ALLOCATIONS"

// writesAlone, set in the environment, has the program write each issuance in transactions of its own.
const writesAlone = "CHANCERY_TEST_WRITES_ALONE"

func TestMain(m *testing.M) {
	if os.Getenv(actAsChancery) != "" {
		os.Exit(actAs())
	}
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == parallel })
	if !chosen { // most of these tests wait for processes, most of the time
		if err := flag.Set(parallel, strconv.Itoa(runtime.GOMAXPROCS(0)+1)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// parallel is the flag of how many tests run at a time. Left out, it is as many as there are processors.
const parallel = "test.parallel"

// environ is the environment without what is for these tests alone, and for no command.
func environ() []string {
	ofTests := regexp.MustCompile(`^CHANCERY_(TEST_.*|FAULT_RESULTS|PEERS|REQUIRE_BROWSER|SCREENSHOTS)=`)
	return slices.DeleteFunc(os.Environ(), ofTests.MatchString)
}

// environFor is what a program is started with: of what is for these tests, the program of another version, which is none of them, gets nothing.
func environFor(program string) []string {
	if program == os.Args[0] {
		return append(os.Environ(), actAsChancery+"=1")
	}
	return environ()
}

func actAs() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: environ(), Now: time.Now, Random: rand.Reader, OwnProcess: true}
	env.WritesAlone = os.Getenv(writesAlone) != ""
	if step := os.Getenv(dieAt); step != "" {
		d := &deadly{step: step, armed: os.Getenv(dieWhen)}
		env.WrapStore, env.WrapKey = d.store, d.key
	}
	if path := os.Getenv(clockIn); path != "" {
		env.Now = clockOff(path)
	}
	if path := os.Getenv(profileTo); path != "" {
		f, err := os.Create(path)
		if err != nil {
			panic(err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			panic(err)
		}
		defer func() { pprof.StopCPUProfile(); _ = f.Close() }()
	}
	if path := os.Getenv(allocationsTo); path != "" {
		f, err := os.Create(path)
		if err != nil {
			panic(err)
		}
		defer func() { _ = pprof.Lookup("allocs").WriteTo(f, 0); _ = f.Close() }()
	}
	err := run(ctx, os.Args[1:], env)
	stop()
	return exitCode(err)
}

// TestAResultThatIsLostIsAnError has standard output fail, as a full disk does: in neither form is the command done.
func TestAResultThatIsLostIsAnError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, form := range []string{"text", "json"} {
		err := run(t.Context(), []string{"version", "-o", form}, Env{Stdin: strings.NewReader(""), Stdout: full, Stderr: io.Discard})
		if exitCode(err) != 1 {
			t.Errorf("%s: %v, want a failure", form, err)
		}
	}
}
