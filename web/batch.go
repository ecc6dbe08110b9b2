package web

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

const (
	maxBatch      = 10_000   // requests in one batch
	maxBatchBody  = 32 << 20 // octets of its body
	batchesAtOnce = 4        // batches worked on at once, by everybody together: each holds its body in memory
	// batchWorkers is how many requests of one batch are worked on at once: enough to fill shared transactions, few enough that others who
	// ask for one certificate do not wait behind a batch.
	batchWorkers = 32
	maxItemID    = 128 // octets of the caller's name for a request of a batch
)

// BatchRequest is one line of a batch: it asks for one certificate.
type BatchRequest struct {
	ID             string            `json:"id,omitempty" example:"www-17" doc:"Your name for this line, repeated in its result; up to 128 octets"`
	Profile        string            `json:"profile" example:"tls-server" doc:"The profile that the certificate shall follow"`
	CSR            string            `json:"csr" example:"-----BEGIN CERTIFICATE REQUEST-----\n…" doc:"The certification request (PKCS#10), PEM"`
	Validity       string            `json:"validity,omitempty" example:"90d" doc:"How long it shall be valid; left out: the profile's default"`
	Issuer         string            `json:"issuer,omitempty" example:"issuing-1" doc:"The authority that shall sign; the default one when left out"`
	Metadata       map[string]string `json:"metadata,omitempty" example:"{\"ticket\":\"OPS-7\"}" doc:"Kept with the request"`
	IdempotencyKey string            `json:"idempotency_key,omitempty" example:"7c9e…" doc:"As the header of a single request; left out: the batch's key and the line's number"`
}

// BatchResult is what came of one line of a batch.
type BatchResult struct {
	Line        int             `json:"line" example:"1" doc:"The line of the batch, from 1; results come in the order in which they are ready"`
	ID          string          `json:"id,omitempty" example:"www-17" doc:"Your name for the line"`
	Status      int             `json:"status" example:"201" doc:"The status that the request would have got on its own"`
	Replayed    bool            `json:"replayed,omitempty" doc:"Issued for an earlier request with this idempotency key"`
	RetryAfter  int             `json:"retry_after,omitempty" doc:"Seconds after which asking again may help"`
	Certificate *Issued         `json:"certificate,omitempty" doc:"What was issued"`
	Request     *WaitingRequest `json:"request,omitempty" doc:"What persons must approve first; the status is 202"`
	Problem     *Problem        `json:"problem,omitempty" doc:"Why nothing was"`
}

type batchInput struct {
	Key string `header:"Idempotency-Key" doc:"1 to 240 visible ASCII characters: each line gets a key of its own, made of this one and its number"`
}

func (s *Server) routeBatch(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/certificates:batch", id: "issue-certificates", tag: tagCertificates, success: http.StatusOK,
		summary: "Ask for many certificates",
		description: "Takes one request a line, and answers with one result a line, each as soon as it is known. No line depends on another. " +
			"A batch that was cut off is sent again with the same Idempotency-Key, and gets the certificates that it has got already.",
		bodies:   []media{{name: typeNDJSON, json: BatchRequest{}}},
		answers:  []media{{name: typeNDJSON, json: BatchResult{}}},
		problems: requestProblems, maxBody: maxBatchBody, places: s.batches,
	}, s.issueBatch)
}

// batchLine is one line that holds something.
type batchLine struct {
	number int // from 1
	text   []byte
}

// batchLines takes a body apart. Empty lines count, and hold nothing.
func batchLines(body []byte) ([]batchLine, error) {
	var lines []batchLine
	number := 0
	for text := range bytes.Lines(body) {
		number++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if len(lines) == maxBatch {
			return nil, newProblem(kindTooLarge, fmt.Sprintf("a batch has at most %d lines: send the rest in another", maxBatch))
		}
		lines = append(lines, batchLine{number, text})
	}
	if len(lines) == 0 {
		return nil, malformed("batch.empty", "body", "the batch holds no request", "send one JSON object a line")
	}
	return lines, nil
}

func (s *Server) issueBatch(ctx context.Context, in *batchInput) (*huma.StreamResponse, error) {
	o := newOrder(ctx)
	if o.idempotencyKey(in.Key); len(in.Key) > maxKey-len("/")-len(strconv.Itoa(maxBatch)) {
		o.report(broken("idempotency-key", "send at most 240 characters", "the idempotency key leaves no room for the number of a line"))
	}
	if _, err := o.result(); err != nil {
		return nil, err
	}
	lines, err := batchLines(exchangeOf(ctx).body)
	if err != nil {
		return nil, err
	}
	// Who may ask for no certificate is told so once, and not line by line. What one line may not ask for is that line's alone.
	if err := s.ca.Admits(ctx, exchangeOf(ctx).actor, access.IssueCertificate); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		_, w := humachi.Unwrap(c)
		w.Header().Set("Content-Type", typeNDJSON)
		w.WriteHeader(http.StatusOK)
		s.streamBatch(ctx, w, in.Key, lines)
	}}, nil
}

// streamBatch works on the lines, several at once, and writes each result when it is there. When the caller goes away, or the service ends,
// no further line is begun; what was begun comes to its end, as a single request's would. Whoever is still there is told of it.
func (s *Server) streamBatch(ctx context.Context, w http.ResponseWriter, key string, lines []batchLine) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begin, halt := context.WithCancel(ctx)
	defer halt()
	defer context.AfterFunc(endingOf(ctx), halt)()
	next, results := make(chan batchLine), make(chan BatchResult, batchWorkers)
	var workers sync.WaitGroup
	for range min(batchWorkers, len(lines)) {
		workers.Go(func() {
			for line := range next {
				results <- s.batchResult(ctx, key, line)
			}
		})
	}
	go func() {
		defer close(results)
		defer workers.Wait()
		defer close(next)
		for _, line := range lines {
			if s.pace(begin) != nil {
				return
			}
			select {
			case next <- line:
			case <-begin.Done():
				return
			}
		}
	}()
	answer := newLineWriter(w)
	gone, written := false, 0
	for result := range results {
		if gone {
			continue // what was begun is waited for, and told to nobody
		}
		err := writeJSON(answer, result)
		if err == nil && len(results) == 0 {
			err = answer.Flush()
		}
		if err != nil {
			gone = true
			stop()
			continue
		}
		written++
	}
	if written < len(lines) {
		s.log.LogAttrs(ctx, slog.LevelWarn, "a batch was cut off", slog.String("request", requestID(ctx)), slog.Int("lines", len(lines)),
			slog.Int("answered", written))
		panic(http.ErrAbortHandler) // the caller, if there still is one, must see that it is not the whole
	}
}

// batchResult does what one line asks for. A panic is this line's alone.
func (s *Server) batchResult(ctx context.Context, key string, line batchLine) (result BatchResult) {
	result.Line = line.number
	failed := func(err error) {
		result.Problem = s.problem(ctx, err)
		result.Status = result.Problem.Status
		result.RetryAfter, _ = strconv.Atoi(result.Problem.header.Get("Retry-After")) // 0 where there is none
	}
	defer func() {
		if cause := recover(); cause != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "a line of a batch panicked", slog.String("request", requestID(ctx)),
				slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
			failed(newProblem(kindInternal, "the service's log tells more under this request's identifier"))
		}
	}()
	if len(line.text) > maxOrder { // what is made of all lines that are worked on at once stays small
		failed(newProblem(kindTooLarge, fmt.Sprintf("a line has at most %d KiB", maxOrder>>10)))
		return result
	}
	var body BatchRequest
	if err := decodeStrict(line.text, &body); err != nil {
		failed(err)
		return result
	}
	wish, err := readBatch(ctx, key, line.number, body)
	if len(body.ID) <= maxItemID && printable(body.ID) {
		result.ID = body.ID
	}
	if err != nil {
		failed(err)
		return result
	}
	outcome, err := s.ca.Issue(ctx, wish)
	if err != nil {
		failed(unknownIssuer(err, wish.Issuer))
		return result
	}
	result.Replayed = outcome.Replayed
	if outcome.Waiting != nil {
		waiting := showWaiting(*outcome.Waiting)
		result.Status, result.Request = http.StatusAccepted, &waiting
		return result
	}
	issued := issuedOf(outcome)
	result.Status, result.Certificate = http.StatusCreated, &issued
	return result
}

func readBatch(ctx context.Context, key string, number int, body BatchRequest) (ca.Order, error) {
	o := newOrder(ctx)
	if len(body.ID) > maxItemID || !printable(body.ID) {
		o.report(broken("id", fmt.Sprintf("give it at most %d octets of text", maxItemID), "the line's id is not acceptable"))
	}
	itemKey := body.IdempotencyKey
	if itemKey == "" && key != "" {
		itemKey = key + "/" + strconv.Itoa(number)
	}
	o.idempotencyKey(itemKey)
	o.body(IssueRequest{Profile: body.Profile, CSR: body.CSR, Validity: body.Validity, Issuer: body.Issuer, Metadata: body.Metadata})
	return o.result()
}

// pace makes a line wait until its actor may ask again, as a single request would have to.
func (s *Server) pace(ctx context.Context) error {
	for {
		wait := s.rates.wait(exchangeOf(ctx).actor.ID)
		if wait <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
