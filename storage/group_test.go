package storage

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/ca"
)

// bench is a group whose work is held up until the test lets it go on.
type bench struct {
	group[int, string]
	began   chan []int
	goAhead chan struct{}
}

func newBench() *bench {
	b := &bench{began: make(chan []int), goAhead: make(chan struct{})}
	b.work = func(_ context.Context, in []int) []outcome[string] {
		b.began <- in
		<-b.goAhead
		out := make([]outcome[string], len(in))
		for i, n := range in {
			if n < 0 {
				panic("a negative call")
			}
			out[i] = outcome[string]{value: fmt.Sprint("did ", n)}
			if n%2 == 1 {
				out[i].err = fmt.Errorf("%d is odd", n)
			}
		}
		return out
	}
	return b
}

// queue makes calls, one after the other, and returns when all of them wait.
func (b *bench) queue(t *testing.T, calls *sync.WaitGroup, ctx context.Context, numbers ...int) {
	t.Helper()
	before := b.length()
	for i, n := range numbers {
		calls.Go(func() {
			value, err := b.do(ctx, n)
			switch {
			case ctx.Err() != nil:
				if !errors.Is(err, ca.ErrUnavailable) || !errors.Is(err, context.Canceled) {
					t.Errorf("the call %d, given up, returned %v", n, err)
				}
			case n < 0:
				if err == nil || !strings.Contains(err.Error(), "panic") {
					t.Errorf("the call %d returned %v", n, err)
				}
			case value != fmt.Sprint("did ", n) || (err != nil) != (n%2 == 1):
				t.Errorf("the call %d returned %q, %v", n, value, err)
			}
		})
		for b.length() < before+i+1 {
			runtime.Gosched()
		}
	}
}

func TestCallsShareALot(t *testing.T) {
	b := newBench()
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	if lot := <-b.began; len(lot) != 1 {
		t.Fatalf("a lone call is worked on as %v", lot)
	}
	b.queue(t, &calls, t.Context(), 1, 2, 3)
	b.goAhead <- struct{}{}
	if lot := <-b.began; fmt.Sprint(lot) != "[1 2 3]" {
		t.Errorf("the calls that came meanwhile are worked on as %v", lot)
	}
	b.goAhead <- struct{}{}
	calls.Wait()
	for running := true; running; { // it ends by itself
		b.mu.Lock()
		running = b.running
		b.mu.Unlock()
	}
}

func TestALotIsBounded(t *testing.T) {
	b := newBench()
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	numbers := make([]int, maxGroup+1)
	for i := range numbers {
		numbers[i] = 2 * i
	}
	b.queue(t, &calls, t.Context(), numbers...)
	b.goAhead <- struct{}{}
	for _, want := range []int{maxGroup, 1} {
		if lot := <-b.began; len(lot) != want {
			t.Errorf("a lot has %d calls, want %d", len(lot), want)
		}
		b.goAhead <- struct{}{}
	}
	calls.Wait()
}

// TestNamespacesTakeTurns: whoever floods the queue waits for itself; of the others each lot holds what it would without the flood.
func TestNamespacesTakeTurns(t *testing.T) {
	b := newBench()
	b.whose = func(n int) string { return fmt.Sprint(n % 1000) } // the last three digits are the namespace
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	flood := make([]int, 3*maxGroup)
	for i := range flood {
		flood[i] = 1000 * (i + 1)
	}
	b.queue(t, &calls, t.Context(), flood...)
	b.queue(t, &calls, t.Context(), 1002, 2002, 1004)
	b.goAhead <- struct{}{}
	var order []int
	for len(order) < len(flood)+3 {
		order = append(order, <-b.began...)
		b.goAhead <- struct{}{}
	}
	calls.Wait()
	if first := order[:6]; fmt.Sprint(first) != "[1000 1002 1004 2000 2002 3000]" {
		t.Errorf("the first lot begins with %v", first)
	}
	var rest []int
	for _, n := range order {
		if n%1000 == 0 {
			rest = append(rest, n)
		}
	}
	if !slices.Equal(rest, flood) {
		t.Error("the calls of one namespace are not worked on in their order")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) != 0 {
		t.Errorf("it counts %v as waiting", b.held)
	}
}

// TestAShareOfTheQueue: one namespace cannot fill the queue.
func TestAShareOfTheQueue(t *testing.T) {
	g := &group[int, string]{whose: func(n int) string { return fmt.Sprint(n % 10) }, running: true}
	for i := range maxShare {
		if err := g.enqueue(&call[int, string]{in: 10 * i, ctx: t.Context()}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := g.enqueue(&call[int, string]{in: 0, ctx: t.Context()}); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	if err := g.enqueue(&call[int, string]{in: 1, ctx: t.Context()}); err != nil {
		t.Errorf("another's: %v", err)
	}
	g.take()
	if err := g.enqueue(&call[int, string]{in: 0, ctx: t.Context()}); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

func TestACallGivenUpIsNotWorkedOn(t *testing.T) {
	b := newBench()
	var calls, givenUp sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	ctx, cancel := context.WithCancel(t.Context())
	b.queue(t, &calls, t.Context(), 2)
	b.queue(t, &givenUp, ctx, 4, 6)
	cancel()
	givenUp.Wait()
	b.goAhead <- struct{}{}
	if lot := <-b.began; fmt.Sprint(lot) != "[2]" {
		t.Errorf("worked on is %v, want the call that was not given up", lot)
	}
	b.goAhead <- struct{}{}
	calls.Wait()

	// All that wait have been given up: nothing is worked on, and the next call is.
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	ctx, cancel = context.WithCancel(t.Context())
	b.queue(t, &givenUp, ctx, 8)
	cancel()
	givenUp.Wait()
	b.goAhead <- struct{}{}
	calls.Wait()
	calls.Go(func() { _, _ = b.do(t.Context(), 10) })
	if lot := <-b.began; fmt.Sprint(lot) != "[10]" {
		t.Errorf("worked on is %v", lot)
	}
	b.goAhead <- struct{}{}
	calls.Wait()
}

func TestAPanicReachesItsCallersAndNobodyElse(t *testing.T) {
	b := newBench()
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	b.queue(t, &calls, t.Context(), -1)
	b.goAhead <- struct{}{}
	<-b.began
	b.queue(t, &calls, t.Context(), 2)
	b.goAhead <- struct{}{}
	<-b.began
	b.goAhead <- struct{}{}
	calls.Wait()
}

func TestAFullQueueTurnsCallsAway(t *testing.T) {
	b := newBench()
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = b.do(t.Context(), 0) })
	<-b.began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range maxQueue { // given up at once, and still in the queue
		_, _ = b.do(ctx, 2)
	}
	if _, err := b.do(t.Context(), 4); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("the call beyond the queue's end returned %v", err)
	}
	b.goAhead <- struct{}{}
	calls.Wait()
}
