package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestALongListTakesItsTime: a list goes out for as long as it is read at a rate of any use, and no longer.
func TestALongListTakesItsTime(t *testing.T) {
	const size = 4 << 20
	for name, c := range map[string]struct {
		rate  int           // octets a second
		pause time.Duration // in the middle
		whole bool
	}{
		"in a moment":           {64 << 20, 0, true},
		"two minutes":           {2 * slowestReading, 0, true},
		"two minutes and a nap": {2 * slowestReading, writeTimeout - time.Second, true},
		"too slowly":            {slowestReading / 2, 0, false},
		"too long a nap":        {2 * slowestReading, 3 * writeTimeout, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSurface(t)
				s.office.crl.DER = make([]byte, size)
				l := newPipes()
				ctx, end := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					ended <- ServeUntil(ctx, NewHTTPServer(s.Distribution(), slog.New(slog.DiscardHandler)), l, time.Minute)
				}()
				conn, _ := l.dial()
				if _, err := io.WriteString(conn, "GET /crl/issuing-1.crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
				if err != nil {
					t.Fatal(err)
				}
				read, part := 0, make([]byte, 4<<10)
				for err == nil {
					var n int
					n, err = answer.Body.Read(part)
					read += n
					time.Sleep(time.Duration(n) * time.Second / time.Duration(c.rate)) // of the test's own clock
					if read >= size/2 {
						time.Sleep(c.pause)
						c.pause = 0
					}
				}
				if whole := read == size; whole != c.whole {
					t.Errorf("%d octets came, and then %v", read, err)
				}
				end()
				_ = conn.Close()
				<-ended
			})
		})
	}
}

// TestASlowReaderAtTheEnd: whoever takes no answer is cut off at the end, and keeps nobody from ending.
func TestASlowReaderAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const drain = 35 * time.Second
		surface := newSurface(t)
		surface.office.crl.DER = make([]byte, 4<<20)
		s := newServing(t, surface.Distribution().ServeHTTP, drain)
		s.say(s.mustDial(), "GET /crl/issuing-1.crl HTTP/1.1\r\nHost: x\r\n\r\n")
		began := time.Now()
		s.quit()
		if err := <-s.ended; !errors.Is(err, ErrCutOff) || time.Since(began) != drain {
			t.Errorf("it ended after %v with %v", time.Since(began), err)
		}
	})
}
