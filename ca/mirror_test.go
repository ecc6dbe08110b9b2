package ca

import (
	"context"
	"errors"
	"log/slog"
	"math/big"
	"testing"
	"time"
)

// heldBack is a mirror that fails until it is told not to.
type heldBack struct {
	failing bool
	puts    []int64
}

func (h *heldBack) PutCRL(_ context.Context, _ string, r CRLRecord, _ func([]byte) error) error {
	if h.failing {
		return errors.New("away")
	}
	h.puts = append(h.puts, r.Number.Int64())
	return nil
}

func TestAMirrorGetsTheLatestOnce(t *testing.T) {
	mirror := &heldBack{failing: true}
	c := &CA{metrics: noMetrics{}, log: slog.New(slog.DiscardHandler), now: time.Now, mirrors: newMirrorings(map[string]CRLMirror{"one": mirror})}
	offer := func(number int64) {
		c.mirrorCRL(CRLRecord{Issuer: "issuing-1", Scope: FullScope, Number: big.NewInt(number), DER: []byte{0x30}})
	}
	c.mirrorCRL(CRLRecord{}) // of a scope that has none
	for _, number := range []int64{1, 3, 2} {
		offer(number)
	}
	c.putWaiting(t.Context(), c.mirrors[0])
	mirror.failing = false
	for range 2 {
		c.putWaiting(t.Context(), c.mirrors[0])
	}
	offer(3)
	offer(2)
	c.putWaiting(t.Context(), c.mirrors[0])
	offer(4)
	c.putWaiting(t.Context(), c.mirrors[0])
	if len(mirror.puts) != 2 || mirror.puts[0] != 3 || mirror.puts[1] != 4 {
		t.Errorf("the mirror got %v, want 3 and 4, once", mirror.puts)
	}
}
