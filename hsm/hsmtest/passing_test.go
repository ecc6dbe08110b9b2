package hsmtest

import (
	"testing"
	"time"
)

// TestPassing: what passes is never more than the wall's time, and no less than a third of what the process could run for.
func TestPassing(t *testing.T) {
	began := time.Now()
	passed, end := Passing()
	defer end()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 300*time.Millisecond {
		<-tick.C
		before, wall := passed(), time.Since(began)
		if before > wall {
			t.Fatalf("%s passed in %s", before, wall)
		}
	}
	if c := crowded(); c < 1 || c > mostCrowded {
		t.Errorf("crowded: %f", c)
	}
	for passed() < 50*time.Millisecond { // it does pass: on a machine that lets this process run
		<-tick.C
	}
}
