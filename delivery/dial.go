package delivery

import (
	"context"
	"net"
	"time"
)

// dial connects. What waits for the connection fails when the context ends, until release is called; closing is the caller's.
func dial(ctx context.Context, network, address string) (conn net.Conn, release func() bool, err error) {
	var dialer net.Dialer
	if conn, err = dialer.DialContext(ctx, network, address); err != nil {
		return nil, nil, err
	}
	return conn, context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }), nil
}
