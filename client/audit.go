package client

import (
	"context"
	"net/http"
	"strconv"
)

// LogEntry is an event of the audit log and its place.
type LogEntry struct {
	Index int64  `json:"index"`
	Leaf  string `json:"leaf"` // the canonical octets
}

// LogProof is hashes that prove something of the audit log.
type LogProof struct {
	Size       int64    `json:"size"`
	Hashes     []string `json:"hashes"`     // base64
	Checkpoint string   `json:"checkpoint"` // a signed note
}

// Checkpoint is the latest checkpoint of the audit log, a signed note; with witnesses, the latest that so many of them have signed.
func (c *Client) Checkpoint(ctx context.Context, witnesses int) ([]byte, error) {
	answer, err := c.do(ctx, call{
		method: http.MethodGet, path: []string{"audit", "checkpoint"}, query: given(number("witnesses", int64(witnesses))), accept: typeText,
	})
	return answer.body, err
}

// Cosign hands in a checkpoint to which a witness has added its signature. It returns the names of the witnesses whose signatures were
// kept.
func (c *Client) Cosign(ctx context.Context, signed []byte) ([]string, error) {
	var kept struct {
		Witnesses []string `json:"witnesses"`
	}
	_, err := c.json(ctx, call{method: http.MethodPost, path: []string{"audit", "checkpoint"}, text: signed}, &kept)
	return kept.Witnesses, err
}

// LogKeys are the verifier keys of the audit log's checkpoints, the newest first.
func (c *Client) LogKeys(ctx context.Context) ([]string, error) {
	var list struct {
		Keys []string `json:"keys"`
	}
	_, err := c.json(ctx, call{method: http.MethodGet, path: []string{"audit", "keys"}}, &list)
	return list.Keys, err
}

// LogEntries are events with from <= index < to, as many as the service gives at once.
func (c *Client) LogEntries(ctx context.Context, from, to int64) ([]LogEntry, error) {
	var list struct {
		Entries []LogEntry `json:"entries"`
	}
	query := number("from", from)
	query["to"] = strconv.FormatInt(to, 10)
	_, err := c.json(ctx, call{method: http.MethodGet, path: []string{"audit", "entries"}, query: given(query)}, &list)
	return list.Entries, err
}

// ProveInclusion proves that the event with an index is in the tree of a size; 0 means that of the latest checkpoint.
func (c *Client) ProveInclusion(ctx context.Context, index, size int64) (*LogProof, error) {
	query := number("size", size)
	query["index"] = strconv.FormatInt(index, 10)
	return c.proof(ctx, query)
}

// ProveConsistency proves that the tree of one size is the beginning of that of another; 0 means that of the latest checkpoint.
func (c *Client) ProveConsistency(ctx context.Context, from, to int64) (*LogProof, error) {
	query := number("to", to)
	query["from"] = strconv.FormatInt(from, 10)
	return c.proof(ctx, query)
}

func (c *Client) proof(ctx context.Context, query map[string]string) (*LogProof, error) {
	proof := &LogProof{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"audit", "proof"}, query: given(query)}, proof); err != nil {
		return nil, err
	}
	return proof, nil
}

// Receipt proves offline that an event was logged: a C2SP tlog-proof. It waits some seconds for a checkpoint that covers the event; with
// witnesses, one that so many of them have signed.
func (c *Client) Receipt(ctx context.Context, event string, witnesses int) ([]byte, error) {
	answer, err := c.do(ctx, call{
		method: http.MethodGet, path: []string{"audit", "receipt", event}, query: given(number("witnesses", int64(witnesses))), accept: typeText,
	})
	return answer.body, err
}

// number is a parameter that is left out where it is 0.
func number(name string, n int64) map[string]string {
	if n == 0 {
		return map[string]string{}
	}
	return map[string]string{name: strconv.FormatInt(n, 10)}
}
