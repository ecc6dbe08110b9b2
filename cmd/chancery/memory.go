package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent lets the heap grow further between collections than Go does by itself. What is live is a few megabytes and each
	// issuance leaves a tenth of one behind: collecting at every doubling would take a fifth of the processor time.
	gcPercent = 600
	// softMemory is where the collector works harder rather than let the process grow, if little is live. Octets.
	softMemory = 144 << 20
	// besideHeap is what the process has beside what is live and as much garbage: stacks, and the runtime's own. Octets.
	besideHeap = 32 << 20
)

// tuneMemory sets how much memory `serve` trades for processor time, until end is called. GOGC and GOMEMLIMIT, where they are set, have been
// heeded by the runtime already and stay.
//
// A list of a million revoked certificates takes as much as the limit allows, and a collector that is to keep below what is live does nothing
// else. So the limit goes with what is live.
func tuneMemory(e Env) (end func()) {
	if e.lookup("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if e.lookup("GOMEMLIMIT") != "" {
		return func() {}
	}
	const often = 500 * time.Millisecond
	debug.SetMemoryLimit(softMemory)
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(often)
		defer tick.Stop()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for {
			select {
			case <-ending:
				return
			case <-tick.C:
			}
			metrics.Read(live)
			debug.SetMemoryLimit(memoryLimit(live[0].Value.Uint64()))
		}
	}()
	return func() { close(ending); <-ended }
}

// memoryLimit leaves room for as much garbage as there is that is live.
func memoryLimit(live uint64) int64 { return max(softMemory, 2*int64(live)+besideHeap) }
