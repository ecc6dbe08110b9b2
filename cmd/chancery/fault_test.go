package main

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

const (
	faultResults  = "CHANCERY_FAULT_RESULTS" // a file to which each fault's result is added, a line of JSON each
	feltWithin    = time.Minute              // how long a fault may take to be felt
	recoverWithin = 5 * time.Second          // how long after a fault's end until all is as before
)

// fault is something that goes wrong while clients are served. docs/faults.md has the list with its reasons.
type fault struct {
	name   string
	sees   sight                          // what clients may be answered, besides what they asked for
	cannot func(h *harness) (why string)  // why the fault cannot be shown here; nil: it can everywhere
	inject func(t *testing.T, h *harness) // has it begin
	felt   func(h *harness, l *load) bool // whether it has lasted long enough; nil: as soon as it has begun
	heal   func(t *testing.T, h *harness) // ends it
	after  func(t *testing.T, h *harness) // looks at what is the fault's own, when all has recovered; may be nil
}

// sight is what a client may be answered while a fault lasts.
type sight int

const (
	unavailable sight = 1 << iota // 503 with Retry-After
	cut                           // nothing: the connection ends in the middle
	refused                       // nothing: there is nobody to connect to
	unknown                       // 404 for what was lost
)

// faults are the tables of what goes wrong, by where.
func faults() map[string][]fault {
	return map[string][]fault{"process": kills(), "database": databaseFaults(), "key": keyFaults(), "replica": replicaFaults()}
}

// TestFaults serves clients from two replicas on one database, one fault after the other. While it lasts, clients see nothing worse than it
// permits, and those who verify are served; when it ends, all is as before within five seconds; and then the invariants hold. The tables
// have nothing in common but the machine, and are played beside each other: most of a fault is waiting.
func TestFaults(t *testing.T) {
	t.Parallel()
	for table, faults := range faults() {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) { h.play(t, f) })
			}
			t.Run("started anew", h.startAnew)
		})
	}
}

// play is the life of a fault.
func (h *harness) play(t *testing.T, f fault) {
	if f.cannot != nil {
		if why := f.cannot(h); why != "" {
			t.Logf("NOT RUN: %s", why)
			h.report(t, f, result{NotRun: why})
			return
		}
	}
	began := time.Now()
	l := h.load(t, f.sees)
	defer l.end()
	eventually(t, feltWithin, "clients are served before the fault", func() bool { return l.issued.Load() > 3 })
	var healed time.Time
	defer func() {
		if healed.IsZero() { // the test has failed; the next fault need not
			f.heal(t, h)
		}
	}()
	f.inject(t, h)
	eventually(t, feltWithin, "the fault is felt", func() bool { return f.felt == nil || f.felt(h, l) })
	f.heal(t, h)
	healed = time.Now()
	h.recovered(t)
	recovery := time.Since(healed)
	l.end()
	if f.after != nil {
		f.after(t, h)
	}
	h.invariants(t)
	h.report(t, f, result{
		Recovery: recovery.Seconds(), Took: time.Since(began).Seconds(), Issued: l.issued.Load(), Revoked: l.revoked.Load(),
		Unavailable: l.unavailable.Load(), Cut: l.cut.Load(), Refused: l.refused.Load(),
	})
}

// result is what became of a fault.
type result struct {
	Fault                                      string
	OK                                         bool
	NotRun                                     string  `json:",omitempty"`
	Recovery, Took                             float64 // seconds
	Issued, Revoked, Unavailable, Cut, Refused int64   // answers to clients
}

// report tells the test's log, and the file that make faults makes its table of.
func (h *harness) report(t *testing.T, f fault, r result) {
	t.Helper()
	r.Fault, r.OK = f.name, !t.Failed()
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	path := os.Getenv(faultResults)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}
