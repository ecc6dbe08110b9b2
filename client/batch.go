package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// MaxBatch is how many requests the service takes in one batch.
const MaxBatch = 10_000

// maxBatchLine is the longest result of a batch that is read. Octets.
const maxBatchLine = 1 << 20

// BatchResult is what came of one request of a batch: a certificate, or the reason why there is none.
type BatchResult struct {
	Index  int // of the request among those that were given
	Issued *Issued
	Err    error // a *Problem where the service answered, *Waiting where persons must approve first
}

// batchRequest is a request as a line of a batch.
type batchRequest struct {
	RequestInput
	IdempotencyKey string `json:"idempotency_key"`
}

// batchAnswer is a line of the answer.
type batchAnswer struct {
	Line        int             `json:"line"`
	Status      int             `json:"status"`
	Replayed    bool            `json:"replayed"`
	RetryAfter  int             `json:"retry_after"` // seconds
	Certificate *Issued         `json:"certificate"`
	Request     *WaitingRequest `json:"request"`
	Problem     *Problem        `json:"problem"`
}

// Batch asks for many certificates in one call, and tells what came of each as soon as it is known, in any order; each of the requests is
// told of once. What the service could not do for the moment, and what was under way when the connection broke, is asked for again, with
// the same idempotency key, so that nothing is issued twice. Batch itself fails when the whole was refused, or with what told returns.
func (c *Client) Batch(ctx context.Context, requests []RequestInput, told func(BatchResult) error) error {
	if len(requests) > MaxBatch {
		return fmt.Errorf("a batch has at most %d requests, not %d", MaxBatch, len(requests))
	}
	key, err := c.newKey()
	if err != nil {
		return err
	}
	open := make([]int, len(requests))
	lines := make([][]byte, len(requests))
	for i, r := range requests {
		open[i] = i
		line := batchRequest{RequestInput: r, IdempotencyKey: r.IdempotencyKey}
		if line.IdempotencyKey == "" {
			line.IdempotencyKey = key + "/" + strconv.Itoa(i)
		}
		if lines[i], err = json.Marshal(line); err != nil {
			return fmt.Errorf("making a request: %w", err)
		}
	}
	pause, unsure := firstPause, make([]bool, len(requests)) // unsure: what came of an earlier attempt is not known
	for attempt := 1; len(open) > 0; attempt++ {
		last := attempt == c.attempts
		again, why, err := c.batchOnce(ctx, lines, open, unsure, last, told)
		if err != nil {
			return err
		}
		if len(again) == 0 {
			return nil
		}
		if last || !retryable(ctx, why) {
			return why
		}
		wait, err := c.pauseAfter(why, pause)
		if err != nil {
			return why
		}
		if err := c.wait(ctx, wait); err != nil {
			return why
		}
		pause = min(2*pause, longestPause)
		if len(again) < len(open) { // an attempt that got something does not count: at a low rate many are needed
			attempt, pause = 0, firstPause
		}
		open = again
	}
	return nil
}

// batchOnce sends the open requests one time. It returns those that are still open, and why; err ends the whole. It notes in unsure of which
// it is not known what came.
func (c *Client) batchOnce(
	ctx context.Context, lines [][]byte, open []int, unsure []bool, last bool, told func(BatchResult) error,
) (again []int, why, err error) {
	var body bytes.Buffer
	for _, i := range open {
		body.Write(lines[i])
		body.WriteByte('\n')
	}
	answered, turnedAway := make([]bool, len(open)), make([]bool, len(open))
	var soonest time.Duration // that the service says of a line
	why = c.stream(ctx, body.Bytes(), func(a batchAnswer) error {
		if a.Line < 1 || a.Line > len(open) || answered[a.Line-1] {
			return fmt.Errorf("the answer of %s tells of line %d, which was not asked for or is answered already", c.base.Host, a.Line)
		}
		result := BatchResult{Index: open[a.Line-1], Issued: a.Certificate}
		switch {
		case a.Problem != nil:
			a.Problem.RetryAfter = time.Duration(a.RetryAfter) * time.Second
			a.Problem.MayBeDone = unsure[result.Index]
			if !last && retryable(ctx, a.Problem) { // it stays open
				turnedAway[a.Line-1] = undone(a.Problem)
				if after := a.Problem.RetryAfter; after > 0 && (soonest == 0 || after < soonest) {
					soonest = after
				}
				return nil
			}
			result.Issued, result.Err = nil, a.Problem
		case a.Request != nil:
			result.Issued, result.Err = nil, &Waiting{Request: *a.Request}
		case a.Certificate == nil:
			return fmt.Errorf("the answer of %s to line %d holds neither a certificate nor a problem", c.base.Host, a.Line)
		default:
			a.Certificate.Replayed = a.Replayed
		}
		answered[a.Line-1] = true
		if err := told(result); err != nil {
			return stopped{err}
		}
		return nil
	})
	var stop stopped
	if errors.As(why, &stop) {
		return nil, nil, stop.error
	}
	for n, i := range open {
		if !answered[n] {
			again = append(again, i)
			unsure[i] = unsure[i] || !turnedAway[n] && !undone(why)
		}
	}
	if why == nil && len(again) > 0 {
		why = &Problem{
			Title: "the service could not do all of it for the moment", Status: http.StatusServiceUnavailable, RetryAfter: soonest,
		}
	}
	return again, why, nil
}

// stopped is an error of the caller's own, which ends the batch.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

// stream sends a batch and reads the answer line by line. The service is given the usual time for each line, and not for the whole.
func (c *Client) stream(ctx context.Context, body []byte, each func(batchAnswer) error) error {
	patient := *c.http
	patient.Timeout = 0
	allowed := c.http.Timeout
	if allowed == 0 {
		allowed = DefaultTimeout
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	silence := time.AfterFunc(allowed, giveUp)
	defer silence.Stop()
	const accept = "application/x-ndjson"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(call{path: []string{"certificates:batch"}}), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	if err := c.mark(request, accept); err != nil {
		return err
	}
	request.Header.Set("Content-Type", accept)
	response, err := patient.Do(request)
	if err != nil {
		return &transportError{doing: "calling " + c.base.Host, err: withoutURL(err)}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		answer, err := io.ReadAll(io.LimitReader(response.Body, maxBatchLine))
		if err != nil {
			return &transportError{doing: "reading the answer of " + c.base.Host, err: err}
		}
		return readProblem(response, answer)
	}
	if got, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); got != accept {
		return fmt.Errorf("reading the answer of %s: it is of type %q, not %s", c.base.Host, got, accept)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxBatchLine)
	lines.Split(wholeLines)
	for lines.Scan() {
		silence.Reset(allowed)
		var a batchAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fmt.Errorf("reading the answer of %s: %w", c.base.Host, err)
		}
		if err := each(a); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return &transportError{doing: "reading the answer of " + c.base.Host, err: err}
	}
	return nil
}

// wholeLines splits at line ends. A last line without one was torn by the end of the connection, whatever it seems to say.
func wholeLines(data []byte, atEnd bool) (advance int, line []byte, err error) {
	if atEnd && len(data) > 0 && bytes.IndexByte(data, '\n') < 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return bufio.ScanLines(data, atEnd)
}
