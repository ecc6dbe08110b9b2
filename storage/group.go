package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/ca"
)

const (
	maxGroup = 96           // calls worked on together; beyond, a statement takes longer for each of them
	maxQueue = 4096         // calls that wait; the next is turned away
	maxShare = maxQueue / 2 // of them those of one namespace, so that a flood of one leaves room for the others
)

// group has calls of one kind worked on together. What arrives while one lot is being worked on forms the next: a lone call does not
// wait, and the busier it is, the more calls share a round trip and a commit. One lot is under way at a time.
type group[In, Out any] struct {
	// work does a lot and returns an outcome for each call, in their order. Its context is that of no caller.
	work func(context.Context, []In) []outcome[Out]
	// whose is the namespace that a call is for; nil where calls are not told apart.
	whose func(In) string
	// alone has every call worked on by itself, beside the others.
	alone bool

	mu      sync.Mutex
	waiting []*call[In, Out]
	held    map[string]int // calls that wait, by namespace
	running bool
}

type outcome[Out any] struct {
	value Out
	err   error
}

type call[In, Out any] struct {
	in      In
	ctx     context.Context
	outcome chan outcome[Out]
}

// do has a call worked on. When ctx ends before the call's lot has begun, nothing is done; when it ends later, what becomes of the call
// is no longer heard of. Both are ca.ErrUnavailable.
func (g *group[In, Out]) do(ctx context.Context, in In) (Out, error) {
	c := &call[In, Out]{in: in, ctx: ctx, outcome: make(chan outcome[Out], 1)}
	if g.alone {
		g.workOn([]*call[In, Out]{c})
	} else if err := g.enqueue(c); err != nil {
		var none Out
		return none, err
	}
	select {
	case o := <-c.outcome:
		return o.value, o.err
	case <-ctx.Done():
		var none Out
		return none, fmt.Errorf("waiting for the database: %w: %w", ca.ErrUnavailable, ctx.Err())
	}
}

var errShareFull = fmt.Errorf("%w: too much of this namespace is waiting for the database", ca.ErrUnavailable)

var errQueueFull = fmt.Errorf("%w: too much is waiting for the database", ca.ErrUnavailable)

func (g *group[In, Out]) enqueue(c *call[In, Out]) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) >= maxQueue {
		return errQueueFull
	}
	if g.whose != nil {
		name := g.whose(c.in)
		if g.held[name] >= maxShare {
			return errShareFull
		}
		if g.held == nil {
			g.held = map[string]int{}
		}
		g.held[name]++
	}
	g.waiting = append(g.waiting, c)
	if !g.running {
		g.running = true
		go g.run()
	}
	return nil
}

// run works until nothing waits.
func (g *group[In, Out]) run() {
	for {
		g.gather()
		lot := g.next()
		if lot == nil {
			return
		}
		g.workOn(lot)
	}
}

// gather lets those goroutines run that are ready to, until none is, or a lot is full, or time is up: with the processors busy, those that
// are about to make calls share the lot, and nothing is lost by it, for what the lot waits for is what would run beside it anyway. A lone
// call finds nobody to wait for.
func (g *group[In, Out]) gather() {
	const (
		alone = 20 * time.Microsecond // in which a goroutine that gives way is back when no other was ready
		most  = 5 * time.Millisecond
	)
	for began, now := time.Now(), time.Now(); now.Sub(began) < most; {
		runtime.Gosched()
		before := now
		now = time.Now()
		g.mu.Lock()
		waiting := len(g.waiting)
		g.mu.Unlock()
		if waiting >= maxGroup || now.Sub(before) < alone {
			return
		}
	}
}

// next takes what is waiting, up to maxGroup, from all namespaces by turns. With nothing waiting it ends the run and returns nil.
func (g *group[In, Out]) next() []*call[In, Out] {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) > 0 {
		var lot []*call[In, Out]
		for _, c := range g.take() {
			if c.ctx.Err() == nil {
				lot = append(lot, c)
			}
		}
		if lot != nil {
			return lot
		}
	}
	g.waiting, g.held, g.running = nil, nil, false
	return nil
}

// take takes calls out of those that wait: the oldest, but of each namespace no more than its turns, so that one that floods the queue
// delays the others by no more than their share of a lot.
func (g *group[In, Out]) take() []*call[In, Out] {
	if len(g.waiting) <= maxGroup || g.whose == nil {
		n := min(len(g.waiting), maxGroup)
		taken := slices.Clone(g.waiting[:n])
		clear(g.waiting[:n])
		g.waiting = g.waiting[n:]
		g.release(taken)
		return taken
	}
	// In the order of their first calls, each namespace gives one call a round.
	turn, nth := make([]int, len(g.waiting)), map[string]int{}
	for i, c := range g.waiting {
		name := g.whose(c.in)
		turn[i] = nth[name]
		nth[name]++
	}
	order := make([]int, len(g.waiting))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return turn[a] - turn[b] })
	var taken []*call[In, Out]
	for _, i := range order[:maxGroup] {
		taken = append(taken, g.waiting[i])
		g.waiting[i] = nil
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(c *call[In, Out]) bool { return c == nil })
	g.release(taken)
	return taken
}

func (g *group[In, Out]) release(taken []*call[In, Out]) {
	if g.whose == nil {
		return
	}
	for _, c := range taken {
		name := g.whose(c.in)
		if g.held[name]--; g.held[name] == 0 {
			delete(g.held, name)
		}
	}
}

// workOn gives every call its outcome. A panic is the outcome of all of them: it has no caller's goroutine to end in.
func (g *group[In, Out]) workOn(lot []*call[In, Out]) {
	outcomes := make([]outcome[Out], len(lot))
	defer func() {
		if p := recover(); p != nil {
			for i := range outcomes {
				outcomes[i].err = fmt.Errorf("working for %d requests at once: a panic: %v", len(lot), p)
			}
		}
		for i, c := range lot {
			c.outcome <- outcomes[i]
		}
	}()
	ins := make([]In, len(lot))
	for i, c := range lot {
		ins[i] = c.in
	}
	// A lot may be split and looked up afterwards; each of these is bounded by itself as well.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	copy(outcomes, g.work(ctx, ins))
}

// groupWrite is a kind of write that shares transactions.
type groupWrite[T any] struct {
	doing string
	// try writes items in one transaction and tells what became of each. An error of its own, unlike one of an item's, means that
	// nothing was written; sent, that it is not known.
	try func(ctx context.Context, items []T) (outcomes []error, sent bool, err error)
	// whose is the namespace that an item belongs to.
	whose func(T) string
	// landed looks which items are on record exactly as they were meant.
	landed func(ctx context.Context, db querier, items []T) ([]bool, error)
	// parted are the places of the items in two parts, to be tried by themselves after a lot has failed with err; none where that is no use.
	parted func(items []T, err error) (first, second []int)
}

// newWriteGroup has writes of a kind share transactions.
func newWriteGroup[T any](s *Store, g groupWrite[T]) *group[T, struct{}] {
	return &group[T, struct{}]{whose: g.whose, work: func(ctx context.Context, items []T) []outcome[struct{}] {
		outcomes := make([]outcome[struct{}], len(items))
		for i, err := range writeGroup(ctx, s, g, items) {
			outcomes[i].err = err
		}
		return outcomes
	}}
}

// writeGroup writes items, together where that succeeds. An item that spoils the transaction for all is found by parting: a lot that
// fails has written nothing, and its parts are tried by themselves.
func writeGroup[T any](ctx context.Context, s *Store, g groupWrite[T], items []T) []error {
	var outcomes []error
	var onRecord []bool // filled when the outcome had to be looked up
	lookUp := func(ctx context.Context, db querier) (any bool, err error) {
		onRecord, err = g.landed(ctx, db, items)
		for _, found := range onRecord {
			any = any || found
		}
		return any, err
	}
	err := s.write(ctx, g.doing, lookUp, func(ctx context.Context) (sent bool, err error) {
		onRecord = nil
		outcomes, sent, err = g.try(ctx, items)
		return sent, err
	})
	switch {
	case err == nil && onRecord == nil:
		return s.settleTaken(ctx, g.doing, outcomes, func(ctx context.Context, db querier, i int) (bool, error) {
			found, err := g.landed(ctx, db, items[i:i+1])
			return err == nil && found[0], err
		})
	case err == nil:
		// The transaction is on record though its acknowledgement was lost. An item that is not was turned down in it: its own
		// try tells why.
		outcomes = make([]error, len(items))
		for i, found := range onRecord {
			switch {
			case found:
			case len(items) == 1:
				outcomes[i] = fmt.Errorf("%s: %w", g.doing, ca.ErrUnavailable)
			default:
				outcomes[i] = writeGroup(ctx, s, g, items[i:i+1])[0]
			}
		}
		return outcomes
	}
	outcomes = make([]error, len(items))
	if first, second := g.parted(items, err); len(first) > 0 {
		for _, part := range [][]int{first, second} {
			for i, err := range writeGroup(ctx, s, g, at(items, part)) {
				outcomes[part[i]] = err
			}
		}
		return outcomes
	}
	for i := range outcomes {
		outcomes[i] = err
	}
	return outcomes
}

// halves are the places of items in two parts of a like size; none where there is but one, or where the database is away.
func halves[T any](items []T, err error) (first, second []int) {
	if len(items) == 1 || errors.Is(err, ca.ErrUnavailable) {
		return nil, nil
	}
	for i := range items {
		if i < len(items)/2 {
			first = append(first, i)
		} else {
			second = append(second, i)
		}
	}
	return first, second
}

func at[T any](items []T, places []int) []T {
	some := make([]T, len(places))
	for i, place := range places {
		some[i] = items[place]
	}
	return some
}

// settleTaken looks at items that found their place taken: that may be the work of an earlier try of the same item.
func (s *Store) settleTaken(ctx context.Context, doing string, outcomes []error, landed func(context.Context, querier, int) (bool, error)) []error {
	for i, err := range outcomes {
		if err == nil {
			continue
		}
		if isTaken(err) && s.hasLanded(ctx, func(ctx context.Context, db querier) (bool, error) { return landed(ctx, db, i) }) {
			outcomes[i] = nil
			continue
		}
		outcomes[i] = describe(doing, err)
	}
	return outcomes
}

// readGroup looks digests up together, each once however many ask for it. One that query does not find has the zero value.
func readGroup[V any](s *Store, doing string, query func(context.Context, querier, [][32]byte) (map[[32]byte]V, error)) *group[[32]byte, V] {
	compare := func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }
	return &group[[32]byte, V]{work: func(ctx context.Context, digests [][32]byte) []outcome[V] {
		distinct := slices.Compact(slices.SortedFunc(slices.Values(digests), compare))
		var found map[[32]byte]V
		err := s.read(ctx, doing, func(ctx context.Context, db querier) (err error) {
			found, err = query(ctx, db, distinct)
			return err
		})
		outcomes := make([]outcome[V], len(digests))
		for i, d := range digests {
			outcomes[i] = outcome[V]{found[d], err}
		}
		return outcomes
	}}
}
