package transparency

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight  = 8
	noteKind    = 0x05 // RFC6962NoteSignature (c2sp.org/static-ct-api, "Checkpoints")
	maxTree     = 1 << 40
	maxNoteSize = 64 << 10
)

// inTiles reads a static log: its checkpoint, and the tiles from the entry up to the root.
func (e *Embedded) inTiles(ctx context.Context, hc *http.Client, hash [sha256.Size]byte) (Inclusion, error) {
	reader := &tileReader{ctx: ctx, log: e.Log, client: hc}
	tree, err := reader.checkpoint()
	if err != nil {
		return Inclusion{}, err
	}
	if e.Index >= uint64(tree.N) {
		return Inclusion{}, ErrMissing
	}
	hashes, err := tlog.TileHashReader(tree, reader).ReadHashes([]int64{tlog.StoredHashIndex(0, int64(e.Index))})
	if err != nil {
		return Inclusion{}, fmt.Errorf("reading the tiles of %s: %w", e.Log, err)
	}
	if hashes[0] != tlog.Hash(hash) {
		return Inclusion{}, fmt.Errorf("entry %d of %s is another one", e.Index, e.Log)
	}
	return Inclusion{Index: e.Index, Size: uint64(tree.N)}, nil
}

// tileReader is a tlog.TileReader over HTTP. What it reads is authenticated by who uses it.
type tileReader struct {
	ctx    context.Context
	log    *Log
	client *http.Client
}

// Height is the height of tiles.
func (r *tileReader) Height() int { return tileHeight }

// SaveTiles keeps nothing: one look needs each tile once.
func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles fetches tiles. A partial tile that the log does not have any more is the beginning of the full one.
func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := r.tile(t)
		if errors.Is(err, errNotThere) && t.W < 1<<tileHeight {
			full := t
			full.W = 1 << tileHeight
			data, err = r.tile(full)
		}
		if err != nil {
			return nil, err
		}
		if len(data) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("the tile %s is too short", tilePath(t))
		}
		all[i] = data[:t.W*tlog.HashSize]
	}
	return all, nil
}

func (r *tileReader) tile(t tlog.Tile) ([]byte, error) { return r.get(tilePath(t)) }

// tilePath is the path of a tile, which does not tell the one height that there is.
func tilePath(t tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(t.Path(), "tile/"+strconv.Itoa(tileHeight)+"/")
}

var errNotThere = errors.New("the log does not have it")

func (r *tileReader) get(path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.log.Monitoring+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", userAgent)
	response, err := r.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxNoteSize))
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetching %s: %w", path, err)
	case response.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("fetching %s: %w", path, errNotThere)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("fetching %s: it answered %s", path, response.Status)
	}
	return body, nil
}

// checkpoint fetches the log's checkpoint, verifies its signature, and returns the tree that it tells of.
func (r *tileReader) checkpoint() (tlog.Tree, error) {
	text, err := r.get("checkpoint")
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("the log %s: %w", r.log, err)
	}
	tree, err := openCheckpoint(text, r.log)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("the checkpoint of %s: %w", r.log, err)
	}
	return tree, nil
}

func openCheckpoint(text []byte, l *Log) (tlog.Tree, error) {
	verifier := newCheckpointVerifier(l)
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	return verifier.tree(opened.Text)
}

// checkpointVerifier is a note.Verifier for the signatures of a log's checkpoints: those of RFC 6962's tree heads in the frame of a note.
type checkpointVerifier struct {
	log    *Log
	origin string
}

func newCheckpointVerifier(l *Log) *checkpointVerifier {
	_, origin, _ := strings.Cut(l.URL, "://")
	return &checkpointVerifier{l, origin}
}

// Name is the log's origin: its submission prefix without a scheme.
func (v *checkpointVerifier) Name() string { return v.origin }

// KeyHash identifies the key in notes.
func (v *checkpointVerifier) KeyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(v.origin + "\n"))
	h.Write([]byte{noteKind})
	h.Write(v.log.ID[:])
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Verify checks a timestamp and a signature over the tree head that the text tells of.
func (v *checkpointVerifier) Verify(text, signature []byte) bool {
	tree, err := v.tree(string(text))
	if err != nil || len(signature) < 8 {
		return false
	}
	head := ct.SignedTreeHead{
		Version: ct.V1, TreeSize: uint64(tree.N), Timestamp: binary.BigEndian.Uint64(signature), SHA256RootHash: ct.SHA256Hash(tree.Hash),
	}
	rest, err := tls.Unmarshal(signature[8:], (*tls.DigitallySigned)(&head.TreeHeadSignature))
	return err == nil && len(rest) == 0 && v.log.verifier.VerifySTHSignature(head) == nil
}

// tree reads origin, size and root hash. What follows, extensions of a log's own, no tree head covers.
func (v *checkpointVerifier) tree(text string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != v.origin {
		return tlog.Tree{}, errors.New("it is not the log's, or says more than a tree head")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > maxTree || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, errors.New("the size of the tree cannot be read")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, errors.New("the root hash cannot be read")
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}
