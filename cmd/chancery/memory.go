package main

import "runtime/debug"

const (
	// gcPercent lets the heap grow further between collections than Go does by itself. What is live is a few megabytes and each
	// issuance leaves a quarter of one behind: collecting at every doubling would take a fifth of the processor time.
	gcPercent = 600
	// softMemory is where the collector works harder rather than let the process grow. Octets.
	softMemory = 144 << 20
)

// tuneMemory sets how much memory `serve` trades for processor time. GOGC and GOMEMLIMIT, where they are set, have been heeded by the
// runtime already and stay.
func tuneMemory(e Env) {
	if e.lookup("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if e.lookup("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
}
