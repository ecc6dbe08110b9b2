package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// The media types of the log.
const (
	typeText   = "text/plain" // notes and proofs
	typeOctets = "application/octet-stream"
)

// maxWitnesses is how many cosignatures can be asked for.
const maxWitnesses = 64

// tilePrefix is where the log stands in the layout of C2SP tlog-tiles: checkpoint, tile/<level>/<N>, tile/entries/<N>.
const tilePrefix = "/audit/log"

// LogKeys are the keys of the audit log.
type LogKeys struct {
	Keys []string `json:"keys" doc:"Verifier keys of signed notes (C2SP signed-note), the newest first"`
}

// LogEntries is a run of the log.
type LogEntries struct {
	Entries []LogEntry `json:"entries"`
}

// LogEntry is an event and its place.
type LogEntry struct {
	Index int64  `json:"index"`
	Leaf  string `json:"leaf" doc:"The canonical octets, which are JSON; their hash is that of the tree"`
}

// LogProof proves that an entry is in the tree, or that one tree is the beginning of another (RFC 6962, section 2.1).
type LogProof struct {
	Size       int64    `json:"size" doc:"Of the tree that it is about, the larger one of two"`
	Hashes     []string `json:"hashes" doc:"Base64, in the order of RFC 6962"`
	Checkpoint string   `json:"checkpoint" doc:"The latest checkpoint, a signed note; it is of this size or a greater one"`
}

// Cosigned tells whose cosignatures were taken.
type Cosigned struct {
	Witnesses []string `json:"witnesses"`
}

func (s *Server) routeAudit(api huma.API) error {
	for _, register := range []func(huma.API) error{
		s.routeCheckpoint, s.routeCosign, s.routeLogKeys, s.routeEntries, s.routeProof, s.routeReceipt, s.routeLogCheckpoint, s.routeTile,
	} {
		if err := register(api); err != nil {
			return err
		}
	}
	return nil
}

type checkpointInput struct {
	Witnesses string `query:"witnesses" pattern:"^[0-9]{1,2}$" doc:"Give the latest checkpoint that so many witnesses have signed"`
}

func (s *Server) routeCheckpoint(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/checkpoint", id: "read-checkpoint", tag: tagAudit, success: http.StatusOK,
		summary: "Read the latest checkpoint of the audit log",
		description: "A signed note (C2SP tlog-checkpoint): the log's name, its size, its root hash, the signature of the log's key, and those " +
			"of witnesses.",
		answers:  []media{{name: typeText, text: "a signed note"}},
		problems: []int{http.StatusNotFound},
	}, s.checkpoint)
}

func (s *Server) checkpoint(ctx context.Context, in *checkpointInput) (*answer, error) {
	cosigned, err := readWitnesses(in.Witnesses)
	if err != nil {
		return nil, err
	}
	note, err := s.ca.Checkpoint(ctx, exchangeOf(ctx).actor, cosigned)
	return &answer{ContentType: typeText, Body: note}, err
}

func readWitnesses(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxWitnesses {
		return 0, refusal(broken("witnesses", fmt.Sprintf("use 0 to %d", maxWitnesses), "witnesses is not a number of cosignatures"))
	}
	return n, nil
}

func (s *Server) routeLogCheckpoint(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: tilePrefix + "/checkpoint", id: "read-log-checkpoint", tag: tagAudit, success: http.StatusOK,
		summary:     "Read the latest checkpoint, in the layout of C2SP tlog-tiles",
		description: "What stands at /audit/checkpoint, beside the tiles.",
		answers:     []media{{name: typeText, text: "a signed note"}},
		problems:    []int{http.StatusNotFound},
	}, func(ctx context.Context, _ *struct{}) (*answer, error) { return s.checkpoint(ctx, &checkpointInput{}) })
}

func (s *Server) routeCosign(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/audit/checkpoint", id: "cosign-checkpoint", tag: tagAudit, success: http.StatusOK,
		summary: "Hand in a witness's cosignature",
		description: "The body is a checkpoint of this log with a cosignature added (C2SP tlog-cosignature). It is kept if a witness that the " +
			"configuration names made it, and served with that checkpoint from then on.",
		bodies:   []media{{name: typeText, text: "a signed note"}},
		answers:  []media{{name: typeJSON, json: Cosigned{}}},
		problems: append([]int{http.StatusNotFound}, requestProblems...),
		maxBody:  64 << 10,
	}, s.cosign)
}

type cosignedAnswer struct{ Body Cosigned }

func (s *Server) cosign(ctx context.Context, _ *struct{}) (*cosignedAnswer, error) {
	e := exchangeOf(ctx)
	witnesses, err := s.ca.Cosign(ctx, e.actor, e.body)
	return &cosignedAnswer{Body: Cosigned{Witnesses: witnesses}}, err
}

type logKeysAnswer struct{ Body LogKeys }

func (s *Server) routeLogKeys(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/keys", id: "list-log-keys", tag: tagAudit, success: http.StatusOK,
		summary:     "Read the keys that sign the checkpoints",
		description: "Whoever verifies the log takes the key from elsewhere, the ceremony's record for example, and compares.",
		answers:     []media{{name: typeJSON, json: LogKeys{}}},
		problems:    []int{http.StatusNotFound},
	}, s.logKeys)
}

func (s *Server) logKeys(ctx context.Context, _ *struct{}) (*logKeysAnswer, error) {
	keys, err := s.ca.LogKeys(ctx, exchangeOf(ctx).actor)
	return &logKeysAnswer{Body: LogKeys{Keys: append([]string{}, keys...)}}, err
}

type entriesInput struct {
	From string `query:"from" pattern:"^[0-9]{1,18}$" doc:"The first index; 0 when left out"`
	To   string `query:"to" pattern:"^[0-9]{1,18}$" doc:"The index after the last; when left out, as many as are given at once"`
}

type entriesAnswer struct{ Body LogEntries }

func (s *Server) routeEntries(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/entries", id: "list-log-entries", tag: tagAudit, success: http.StatusOK,
		summary: "Read events of the audit log",
		description: fmt.Sprintf("In the order of their indexes, at most %d at once. Events that no checkpoint covers yet are among them.",
			ca.MostEntries),
		answers:  []media{{name: typeJSON, json: LogEntries{}}},
		problems: []int{http.StatusNotFound},
	}, s.entries)
}

func (s *Server) entries(ctx context.Context, in *entriesInput) (*entriesAnswer, error) {
	numbers, err := readNumbers(number{"from", in.From, 0}, number{"to", in.To, 1 << 59})
	if err != nil {
		return nil, err
	}
	entries, err := s.ca.AuditEntries(ctx, exchangeOf(ctx).actor, numbers[0], numbers[1])
	if err != nil {
		return nil, err
	}
	shown := LogEntries{Entries: make([]LogEntry, len(entries))}
	for i, e := range entries {
		shown.Entries[i] = LogEntry{Index: e.Index, Leaf: string(e.Leaf)}
	}
	return &entriesAnswer{Body: shown}, nil
}

// number is a number in a query.
type number struct {
	name, text string
	left       int64 // what it is when it is left out
}

// maxNumber is above every size of a log.
const maxNumber = 1 << 60

func readNumbers(fields ...number) ([]int64, error) {
	numbers := make([]int64, len(fields))
	var all []policies.Violation
	for i, f := range fields {
		n, err := strconv.ParseInt(f.text, 10, 64)
		switch {
		case f.text == "":
			n = f.left
		case err != nil || n < 0 || n > maxNumber:
			all = append(all, broken(f.name, "give a number in decimal", f.name+" is no index or size of a log"))
		}
		numbers[i] = n
	}
	return numbers, refusal(all...)
}

type proofInput struct {
	Index string `query:"index" pattern:"^[0-9]{1,18}$" doc:"Prove that this entry is in the tree"`
	Size  string `query:"size" pattern:"^[0-9]{1,18}$" doc:"Of the tree; that of the latest checkpoint when left out"`
	From  string `query:"from" pattern:"^[0-9]{1,18}$" doc:"Prove that the tree of this size is the beginning of the larger one"`
	To    string `query:"to" pattern:"^[0-9]{1,18}$" doc:"The size of the larger one; that of the latest checkpoint when left out"`
}

type proofAnswer struct{ Body LogProof }

func (s *Server) routeProof(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/proof", id: "prove", tag: tagAudit, success: http.StatusOK,
		summary:     "Get a proof of the audit log",
		description: "With index and size: that an entry is in the tree. With from and to: that a tree is the beginning of a larger one.",
		answers:     []media{{name: typeJSON, json: LogProof{}}},
		problems:    []int{http.StatusNotFound},
	}, s.proof)
}

func (s *Server) proof(ctx context.Context, in *proofInput) (*proofAnswer, error) {
	inclusion, consistency := in.Index != "", in.From != ""
	if inclusion == consistency || inclusion && in.To != "" || consistency && in.Size != "" {
		return nil, refusal(broken("index", "give index and size, or from and to", "one kind of proof is asked for at a time"))
	}
	numbers, err := readNumbers(number{"index", in.Index, 0}, number{"size", in.Size, 0}, number{"from", in.From, 0}, number{"to", in.To, 0})
	if err != nil {
		return nil, err
	}
	actor := exchangeOf(ctx).actor
	var proof ca.LogProof
	if inclusion {
		proof, err = s.ca.ProveInclusion(ctx, actor, numbers[0], numbers[1])
	} else {
		proof, err = s.ca.ProveConsistency(ctx, actor, numbers[2], numbers[3])
	}
	if err != nil {
		return nil, err
	}
	shown := LogProof{Size: proof.Size, Hashes: []string{}, Checkpoint: string(proof.Checkpoint)}
	for _, h := range proof.Hashes {
		shown.Hashes = append(shown.Hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	return &proofAnswer{Body: shown}, nil
}

type receiptInput struct {
	Event     string `path:"event" doc:"As an answer named it in audit_event"`
	Witnesses string `query:"witnesses" pattern:"^[0-9]{1,2}$" doc:"Prove it under the latest checkpoint that so many witnesses have signed"`
}

func (s *Server) routeReceipt(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/audit/receipt/{event}", id: "get-receipt", tag: tagAudit, success: http.StatusOK,
		summary: "Get the receipt of an event",
		description: "A C2SP tlog-proof, whose extra data are the event: it proves offline that the event was logged. Events of other " +
			"namespaces " +
			"are not there. Until a checkpoint covers the event, which takes seconds, the answer is 404 of the type not-logged-yet, with " +
			"Retry-After.",
		answers:  []media{{name: typeText, text: "a C2SP tlog-proof"}},
		problems: []int{http.StatusNotFound},
	}, s.receipt)
}

func (s *Server) receipt(ctx context.Context, in *receiptInput) (*answer, error) {
	cosigned, err := readWitnesses(in.Witnesses)
	if err != nil {
		return nil, err
	}
	if !nameable(in.Event) {
		return nil, ca.ErrNotFound
	}
	r, err := s.ca.Receipt(ctx, exchangeOf(ctx).actor, in.Event, cosigned)
	if err != nil {
		return nil, err
	}
	return &answer{ContentType: typeText, Body: r.Bytes()}, nil
}

type tileInput struct {
	Path string `path:"path" doc:"<level>/<N>[.p/<width>] or entries/<N>[.p/<width>], with N in groups of three digits"`
}

func (s *Server) routeTile(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: tilePrefix + "/tile/{path}", id: "read-tile", tag: tagAudit, success: http.StatusOK,
		summary: "Read a tile of the audit log",
		description: "In the layout of C2SP tlog-tiles: tile/<level>/<N>[.p/<width>] are hashes, tile/entries/<N>[.p/<width>] are " +
			"entries, each " +
			"with its length in two octets before it. The slashes of the path are written as they are.",
		answers:  []media{{name: typeOctets, text: "hashes of 32 octets, or entries"}},
		problems: []int{http.StatusNotFound},
	}, s.tile)
}

type tileAnswer struct {
	ContentType  string `header:"Content-Type" hidden:"true"`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

// tile answers with a tile. A complete one never changes, and nor does what there is of a partial one.
func (s *Server) tile(ctx context.Context, in *tileInput) (*tileAnswer, error) {
	path, err := url.PathUnescape(in.Path)
	if err != nil {
		return nil, ca.ErrNotFound
	}
	t, err := audit.ParseTile(path)
	if err != nil {
		return nil, ca.ErrNotFound
	}
	data, err := s.ca.Tile(ctx, exchangeOf(ctx).actor, t)
	return &tileAnswer{ContentType: typeOctets, CacheControl: "private, max-age=31536000, immutable", Body: data}, err
}

// foldTilePath makes one element of what a tile's path has below tile/: how many there are depends on the tile's number.
func foldTilePath(next http.Handler) http.Handler {
	prefix := pattern(tilePrefix) + "/tile/"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, prefix); ok && strings.Contains(rest, "/") {
			folded := *r.URL
			folded.RawPath = prefix + url.PathEscape(rest)
			r2 := *r
			r2.URL = &folded
			r = &r2
		}
		next.ServeHTTP(w, r)
	})
}
