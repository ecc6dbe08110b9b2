package web

import (
	"errors"
	"net/http"
	"time"
)

// unhurried is a writer for answers that may be long: a client has writeTimeout, and as much more as it takes to read at slowestReading
// what has gone out. So a list of any length arrives on a line of any use, and nobody is waited for who does not read.
func unhurried(w http.ResponseWriter) http.ResponseWriter {
	return &unhurriedWriter{ResponseWriter: w, control: http.NewResponseController(w), begun: time.Now()}
}

type unhurriedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   time.Time
	written int64
}

// Write implements io.Writer. It is given a part of the answer at a time.
func (w *unhurriedWriter) Write(part []byte) (int, error) {
	if err := readBy(w.control, w.begun.Add(readingTime(w.written))); err != nil {
		return 0, err
	}
	n, err := w.ResponseWriter.Write(part)
	w.written += int64(n)
	return n, err
}

// readingTime is how long the reading of so many octets is waited for.
func readingTime(octets int64) time.Duration {
	return writeTimeout + time.Duration(octets)*time.Second/slowestReading
}

// readBy sets until when the reader is waited for, where the connection can be held to that.
func readBy(control *http.ResponseController, end time.Time) error {
	if err := control.SetWriteDeadline(end); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

var errTooSlow = errors.New("the answer is read too slowly")

// lineWriter is a writer for answers that come line by line, over any time. A line has writeTimeout to go out, and the reader of all of
// them as much time as that of a long answer. Only the time that writing takes is counted: the lines themselves may take as long as they
// need.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	waited  time.Duration
	written int64
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	return &lineWriter{w: w, control: http.NewResponseController(w)}
}

// Write implements io.Writer. It is given a line at a time.
func (w *lineWriter) Write(line []byte) (int, error) {
	if err := readBy(w.control, time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n := 0
	err := w.timed(func() (err error) {
		n, err = w.w.Write(line)
		w.written += int64(n)
		return err
	})
	return n, err
}

// Flush has what was written go out.
func (w *lineWriter) Flush() error { return w.timed(w.control.Flush) }

// timed does what the reader is waited for in.
func (w *lineWriter) timed(do func() error) error {
	begun := time.Now()
	err := do()
	if w.waited += time.Since(begun); err == nil && w.waited > readingTime(w.written) {
		return errTooSlow
	}
	return err
}
