package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestMemoryLimit(t *testing.T) {
	const mib = 1 << 20
	for live, want := range map[uint64]int64{0: softMemory, 20 * mib: softMemory, 56 * mib: softMemory, 57 * mib: 146 * mib, 400 * mib: 832 * mib} {
		if got := memoryLimit(live); got != want {
			t.Errorf("with %d MiB live the limit is %d MiB, want %d", live/mib, got/mib, want/mib)
		}
	}
}

// TestMemoryLimitGoesWithWhatIsLive: what is live must not lie above the limit, for then the collector does nothing else.
func TestMemoryLimitGoesWithWhatIsLive(t *testing.T) {
	percent := debug.SetGCPercent(100)
	limit := debug.SetMemoryLimit(-1)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	defer tuneMemory(Env{})()
	wantWithin := func(what string, reached func(int64) bool) {
		t.Helper()
		eventually(t, 20*time.Second, "the limit of memory "+what, func() bool {
			runtime.GC()
			return reached(debug.SetMemoryLimit(-1))
		})
	}
	const size = 200 << 20
	list := make([]byte, size)
	wantWithin("with 200 MiB more that are live", func(limit int64) bool { return limit >= 2*size })
	runtime.KeepAlive(list)
	wantWithin("with these gone again", func(limit int64) bool { return limit < 2*size })
}
