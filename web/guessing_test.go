package web

import (
	"net/netip"
	"testing"
	"time"
)

// TestGuessersWriteNoEndlessLog: whoever has many networks is an event for each, up to so many in an hour: the audit log forgets nothing.
func TestGuessersWriteNoEndlessLog(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	g := newGuessing(func() time.Time { return now })
	events := func(networks int) (told int) {
		for i := range networks {
			from := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
			for range failuresAtOnce + 2 {
				if _, tell := g.fail(from, now); tell {
					told++
				}
			}
		}
		return told
	}
	if told := events(4 * maxGuessers); told != maxGuessers {
		t.Errorf("%d events in a moment, want %d", told, maxGuessers)
	}
	now = now.Add(guessingLasts - time.Second)
	if told := events(4 * maxGuessers); told != 0 {
		t.Errorf("%d more within the hour", told)
	}
	now = now.Add(time.Second)
	if told := events(10); told != 10 {
		t.Errorf("%d events of ten networks an hour later", told)
	}
}
