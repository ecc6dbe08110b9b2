package hsmtest

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// mostCrowded is how many times slower than alone a machine is held to be, at the most, by reason of what else wants its processors.
const mostCrowded = 3

// Passing measures the time that passes until the end is called, as far as it can be had of the machine: what this process did not get to
// run for is left out, and while more wants to run than there are processors, time counts as the share of one that each gets, a third at
// the least. Tests run beside others, and that a machine is busy with those is no reason to say that a promise was broken. On a quiet
// machine this is the time on the wall.
func Passing() (passed func() time.Duration, end func()) {
	const beat = 20 * time.Millisecond
	began, ended := time.Now(), make(chan struct{})
	var lost atomic.Int64
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for last := began; ; {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			now := time.Now()
			had := min(now.Sub(last), 2*beat)
			lost.Add(int64(now.Sub(last) - time.Duration(float64(had)/crowded())))
			last = now
		}
	})
	return func() time.Duration { return time.Since(began) - time.Duration(lost.Load()) }, func() {
		close(ended)
		beating.Wait()
	}
}

// crowded tells how many want each processor just now: from 1, which is also said where nobody knows, to mostCrowded.
func crowded() float64 {
	load, err := os.ReadFile("/proc/loadavg") // 0.20 0.18 0.12 3/80 11206: the fourth begins with those that run or could
	fields := bytes.Fields(load)
	if err != nil || len(fields) < 4 {
		return 1
	}
	text, _, _ := bytes.Cut(fields[3], []byte("/"))
	runnable, err := strconv.Atoi(string(text))
	if err != nil {
		return 1
	}
	return min(max(float64(runnable)/float64(runtime.NumCPU()), 1), mostCrowded)
}
