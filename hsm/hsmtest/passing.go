package hsmtest

import (
	"sync"
	"sync/atomic"
	"time"
)

// Passing measures the time that passes until the end is called, without what this process did not get to run for: a machine that is busy
// with something else is no reason to say that a promise was broken. What is waited for has the same machine, and is not seen; what is left
// out is what is certain.
func Passing() (passed func() time.Duration, end func()) {
	const beat = 20 * time.Millisecond
	began, ended := time.Now(), make(chan struct{})
	var stalled atomic.Int64
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
			stalled.Add(int64(max(0, now.Sub(last)-2*beat)))
			last = now
		}
	})
	return func() time.Duration { return time.Since(began) - time.Duration(stalled.Load()) }, func() {
		close(ended)
		beating.Wait()
	}
}
