package logtest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509/pkix"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type pkixExtension = pkix.Extension

// head is the tree's head, signed (RFC 6962, section 3.5).
func (l *Log) head() (ct.SignedTreeHead, error) {
	root, err := tlog.TreeHash(l.merged, l.reader())
	if err != nil {
		return ct.SignedTreeHead{}, err
	}
	head := ct.SignedTreeHead{
		Version: ct.V1, TreeSize: uint64(l.merged), Timestamp: uint64(l.options.Now().UnixMilli()), SHA256RootHash: ct.SHA256Hash(root),
	}
	input, err := ct.SerializeSTHSignatureInput(head)
	if err != nil {
		return ct.SignedTreeHead{}, err
	}
	signature, err := tls.CreateSignature(*l.key, tls.SHA256, input)
	head.TreeHeadSignature = ct.DigitallySigned(signature)
	return head, err
}

// getSTH is RFC 6962, section 4.3.
func (l *Log) getSTH(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	head, err := l.head()
	l.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	signature, err := tls.Marshal(head.TreeHeadSignature)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answerJSON(w, ct.GetSTHResponse{
		TreeSize: head.TreeSize, Timestamp: head.Timestamp, SHA256RootHash: head.SHA256RootHash[:], TreeHeadSignature: signature,
	})
}

// getProofByHash is RFC 6962, section 4.5.
func (l *Log) getProofByHash(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, err := strconv.ParseInt(r.FormValue("tree_size"), 10, 64)
	octets, decodeErr := base64.StdEncoding.DecodeString(r.FormValue("hash"))
	if err != nil || decodeErr != nil || len(octets) != sha256.Size || size < 1 || size > l.merged {
		http.Error(w, "the hash or the size of the tree is wrong", http.StatusBadRequest)
		return
	}
	index, ok := l.byHash[tlog.Hash(octets)]
	if !ok || index >= size {
		http.Error(w, "there is no such entry", http.StatusNotFound)
		return
	}
	proof, err := tlog.ProveRecord(size, index, l.reader())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer := ct.GetProofByHashResponse{LeafIndex: index, AuditPath: [][]byte{}}
	for _, h := range proof {
		answer.AuditPath = append(answer.AuditPath, h[:])
	}
	answerJSON(w, answer)
}

// getRoots is RFC 6962, section 4.7.
func (l *Log) getRoots(w http.ResponseWriter, _ *http.Request) {
	answer := ct.GetRootsResponse{Certificates: []string{}}
	for _, der := range l.options.Roots {
		answer.Certificates = append(answer.Certificates, base64.StdEncoding.EncodeToString(der))
	}
	answerJSON(w, answer)
}

// checkpoint is the tree's head as a note.
func (l *Log) checkpoint(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head, err := l.head()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	signer := noteSigner{l, head}
	text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), head.TreeSize, base64.StdEncoding.EncodeToString(head.SHA256RootHash[:]))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(signed)
}

// noteSigner puts the signature of a tree head on a note.
type noteSigner struct {
	log  *Log
	head ct.SignedTreeHead
}

// Name is the log's origin.
func (s noteSigner) Name() string { return trimOrigin(s.log.URL) }

// KeyHash tells the log's key.
func (s noteSigner) KeyHash() uint32 {
	id := sha256.Sum256(s.log.spki)
	sum := sha256.Sum256(append(append([]byte(s.Name()), '\n', 0x05), id[:]...))
	return binary.BigEndian.Uint32(sum[:])
}

// Sign tells time and signature of the head, which was signed already.
func (s noteSigner) Sign([]byte) ([]byte, error) {
	signature, err := tls.Marshal(s.head.TreeHeadSignature)
	return append(binary.BigEndian.AppendUint64(nil, s.head.Timestamp), signature...), err
}

// tile gives the hashes of a tile.
func (l *Log) tile(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := "tile/8/" + strings.TrimPrefix(r.URL.Path, "/log/tiles/tile/")
	t, err := tlog.ParseTilePath(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	data, err := tlog.ReadTileData(t, l.reader())
	if err != nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(data)
}
