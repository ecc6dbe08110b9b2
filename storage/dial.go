package storage

import (
	"net"
	"time"
)

// silence is how long a connection may hear nothing from a host that should have answered. A Postgres that dies says so; the host that loses
// its power, or its address, with it does not, and until the connection is given up everything waits that would share a transaction.
const silence = 5 * time.Second

// dialer reaches Postgres by connections that notice within silence, and a second or two, that the host at their other end is gone.
func dialer() *net.Dialer {
	return &net.Dialer{
		// Where an answer is waited for, nothing is sent that could remain unacknowledged, but for these.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: int(silence / time.Second)},
		Control:         boundSilence,
	}
}
