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
	earned := time.Duration(w.written) * time.Second / slowestReading
	if err := w.control.SetWriteDeadline(w.begun.Add(writeTimeout + earned)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := w.ResponseWriter.Write(part)
	w.written += int64(n)
	return n, err
}
