package ca

import (
	"reflect"
	"testing"
	"time"
)

func TestLagsEndWithTheCRLThatShowsThem(t *testing.T) {
	l := newLags()
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	l.revoked("a", "full", 1, noon)
	l.revoked("a", "full", 500, noon.Add(time.Second))
	l.revoked("a", "shard", 1, noon)
	for _, c := range []struct {
		read time.Duration
		want []lag
	}{{0, nil}, {time.Millisecond, []lag{{noon, 1}}}, {time.Millisecond, nil}, {time.Minute, []lag{{noon.Add(time.Second), 500}}}, {time.Hour, nil}} {
		if got := l.published("a", "full", noon.Add(c.read)); len(got)+len(c.want) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("read %s after noon: %v, want %v", c.read, got, c.want)
		}
	}
	if len(l.waiting) != 1 {
		t.Errorf("what waits is %v", l.waiting)
	}
}
