package keeper

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// BenchmarkSign measures a signature with ECDSA P-256 over a TBSCertificate in one run: the bare C_Sign, through the hsm room in the same
// process, and through a keeper, whose journal is in memory ("keeper") and on a disk ("keeper-disk"). It reports the time for each call as
// its caller sees it, signatures a second, the share of what the bare C_Sign did in the same run, and the processor time that all processes
// together spent on each call, which tells the ways apart even on a machine that is busy with other things.
//
// The ways take turns in short rounds, so that a machine that is busy with other things is unfair to none.
func BenchmarkSign(b *testing.B) {
	a := newAuthority(b, 0)
	message := a.tbs(b, leaf())
	shm, err := os.MkdirTemp("/dev/shm", "chancery-keeper-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(shm) })
	var keepers []hsm.Signer
	var pids []int
	for _, dir := range []string{shm, b.TempDir()} {
		s := supervise(b, a, a.fixture.Config(), dir)
		keepers, pids = append(keepers, s.signer(b, a)), append(pids, s.pid(b))
	}
	config, _ := a.config(b, a.fixture.Config())
	config.Journal, config.Log, config.Worker = filepath.Join(b.TempDir(), "journal"), slog.New(slog.DiscardHandler), workerCommand(io.Discard)
	apart := start(b, config, &syncBuffer{})
	keepers, pids = append(keepers, apart.signer(b, a.certificate.PublicKey)), append(pids, apart.keeper.tokens[0].workerPID())
	through := func(signer hsm.Signer) func(int) error {
		return func(int) error { _, err := signer.SignMessage(nil, message, crypto.SHA256); return err }
	}
	for _, callers := range []int{2, 8, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			inHere := a.fixture.Config()
			inHere.MaxSessions = callers // as many as the bare C_Sign has; a keeper's are its default
			token, err := hsm.OpenRecovering(b.Context(), inHere, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = token.Close() })
			inProcess, err := token.Signer(a.ref, a.certificate.PublicKey, hsm.Terms{})
			if err != nil {
				b.Fatal(err)
			}
			raw := hsmtest.RawSign(b, token, a.ref, callers)
			ways := []struct {
				name string
				call func(caller int) error
			}{
				{"raw", func(caller int) error { digest := sha256.Sum256(message); return raw[caller](digest[:]) }},
				{"hsm", through(inProcess)},
				{"keeper", through(keepers[0])},
				{"keeper-disk", through(keepers[1])},
				{"keeper-worker", through(keepers[2])},
			}
			const rounds = 4
			took, spent := make([]time.Duration, len(ways)), make([]time.Duration, len(ways))
			n := max(b.N/(rounds*len(ways)), callers)
			b.ResetTimer()
			for range rounds {
				for i, way := range ways {
					before := processorTime(b, pids)
					took[i] += callAll(b, callers, n, way.call)
					spent[i] += processorTime(b, pids) - before
				}
			}
			for i, way := range ways {
				each := took[i].Seconds() / float64(rounds*n)
				b.ReportMetric(each*1e6*float64(callers), way.name+"-us/call")
				b.ReportMetric(1/each, way.name+"/s")
				b.ReportMetric(spent[i].Seconds()*1e6/float64(rounds*n), way.name+"-cpu-us")
				if i > 0 {
					b.ReportMetric(100*took[0].Seconds()/took[i].Seconds(), way.name+"-%")
				}
			}
		})
	}
}

// callAll has the callers make n calls between them.
func callAll(b *testing.B, callers, n int, call func(caller int) error) time.Duration {
	var next atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for caller := range callers {
		group.Go(func() {
			for next.Add(1) <= int64(n) {
				if err := call(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

// processorTime is what this process and others have used so far.
func processorTime(b *testing.B, others []int) (total time.Duration) {
	for _, pid := range append([]int{os.Getpid()}, others...) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			b.Fatal(err)
		}
		for _, task := range tasks {
			var running int64 // nanoseconds
			if text, err := os.ReadFile(task); err == nil {
				if _, err := fmt.Sscan(string(text), &running); err != nil {
					b.Fatal(err)
				}
			}
			total += time.Duration(running)
		}
	}
	return total
}
