package keeper

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// A log's key signs one history. So a checkpoint comes with what shows that its tree extends that of the last one that the key signed: the
// root of that tree, which the guard holds against what it remembers, and a consistency proof from it (RFC 6962, section 2.1.2). That is
// what a witness asks for (C2SP tlog-witness). Who does not know what the key signed last is told its size, and asks again.

// Consistency is options of SignMessage for a checkpoint that extends an earlier one.
type Consistency interface {
	crypto.SignerOpts
	// Earlier is the size of the earlier tree, its root, and the hashes of the consistency proof: at most 64, and none where the sizes are
	// the same.
	Earlier() (size int64, root []byte, proof [][]byte)
}

// UnprovenError says that a checkpoint was not shown to extend the last one that the key signed, and of which size that one was: a request
// whose proof begins there is decided on. It comes with ErrRefused.
type UnprovenError struct{ last int64 }

func (e *UnprovenError) Error() string {
	return "the checkpoint is not shown to extend the last one that the key signed, of " + strconv.FormatInt(e.last, 10) + " entries"
}

// LastSize is the number of entries under the last checkpoint.
func (e *UnprovenError) LastSize() int64 { return e.last }

const (
	// maxProof is the most hashes that a consistency proof has: one for each level of a tree whose size has 63 bits, and one to begin with.
	maxProof = 64
	// maxCheckpoint is the longest checkpoint: an origin, a size and a root hash in base64, a line each.
	maxCheckpoint = maxOrigin + 1 + 19 + 1 + 44 + 1
)

// consistency shows that a checkpoint extends an earlier one.
type consistency struct {
	size  uint64
	root  []byte
	proof [][]byte
}

// checkpointText is the text of a checkpoint.
func checkpointText(origin string, size uint64, root []byte) []byte {
	return []byte(origin + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root) + "\n")
}

// checkpoint reads the text of a signed note that is a log's checkpoint (C2SP tlog-checkpoint): the origin, the size of the tree in
// decimal, and the root hash in base64, one a line, and no more.
func (k *key) checkpoint(text []byte) (size uint64, root []byte, err error) {
	p := k.Checkpoints
	if p == nil {
		return 0, nil, refuse("the key signs no checkpoints")
	}
	if len(text) > maxCheckpoint { // before memory is taken for each of its lines
		return 0, nil, refuse("a checkpoint is not that long")
	}
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) != 4 || len(lines[3]) != 0 {
		return 0, nil, refuse("a checkpoint has three lines")
	}
	if string(lines[0]) != p.Origin {
		return 0, nil, refuse("the checkpoint is of another log")
	}
	size, err = strconv.ParseUint(string(lines[1]), 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != string(lines[1]) {
		return 0, nil, refuse("the size of the tree is not a decimal number")
	}
	root, err = base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(root) != sha256.Size {
		return size, nil, refuse("the root hash is not 32 octets in base64")
	}
	if !bytes.Equal(text, checkpointText(p.Origin, size, root)) { // a decoder of base64 passes over carriage returns
		return size, nil, refuse("the root hash is not written as base64 is")
	}
	return size, root, nil
}

// checkConsistency refuses every tree that is not shown to extend the last one that was signed. What is remembered of that is the digest of
// its checkpoint, which says its root. The same checkpoint once more is what a crash before the signature was kept leads to.
func (g *guard) checkConsistency(r reading, x *consistency) error {
	switch {
	case r.size < g.size:
		return refuse("the tree is smaller than the last one, of %d entries: what came later is gone. A log that was cut off, or restored "+
			"from an older copy, needs another key", g.size)
	case r.size == g.size && r.text == g.text:
		return nil
	case r.size == g.size && g.text != "":
		return refuse("another checkpoint of %d entries has been signed", g.size)
	case g.size == 0: // nothing was signed yet, or an empty tree, which every tree extends
		return nil
	case g.text == "": // a journal from before checkpoints were remembered by their text
		return refuse("of the last checkpoint, of %d entries, the journal does not tell which it was: the log needs another key", g.size)
	case x == nil || x.size != g.size:
		return &UnprovenError{last: int64(g.size)}
	}
	last := sha256.Sum256(checkpointText(g.key.Checkpoints.Origin, g.size, x.root))
	if hex.EncodeToString(last[:]) != g.text {
		return refuse("the tree has other first %d entries than the one that was signed last: this is another history. A log that was "+
			"restored from an older copy needs another key", g.size)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, g.size, r.size, x.proof, x.root, r.root); err != nil {
		return refuse("the proof does not show that the tree extends the last one, of %d entries", g.size)
	}
	return nil
}

// appendConsistency writes what stands before the body of frameSign in that of frameCheckpoint: the size (8 octets, big-endian), the root,
// the number of hashes (1 octet), the hashes.
func appendConsistency(b []byte, x Consistency) ([]byte, error) {
	size, root, proof := x.Earlier()
	if size < 0 || len(root) != sha256.Size || len(proof) > maxProof {
		return nil, fmt.Errorf("a tree has a size, a root of %d octets, and a proof at most %d hashes", sha256.Size, maxProof)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = append(append(b, root...), byte(len(proof)))
	for _, hash := range proof {
		if len(hash) != sha256.Size {
			return nil, fmt.Errorf("a hash of a proof has %d octets", sha256.Size)
		}
		b = append(b, hash...)
	}
	return b, nil
}

// parseCheckpoint reads the body of frameCheckpoint. What it returns is part of the body.
func parseCheckpoint(body []byte) (signRequest, error) {
	const head = 8 + sha256.Size + 1
	if len(body) < head || body[0]&0x80 != 0 || body[head-1] > maxProof || len(body)-head < int(body[head-1])*sha256.Size {
		return signRequest{}, fmt.Errorf("%w: what shows that a checkpoint extends another cannot be read", ErrProtocol)
	}
	x := &consistency{size: binary.BigEndian.Uint64(body), root: body[8 : head-1]}
	rest := body[head:]
	for range body[head-1] {
		x.proof, rest = append(x.proof, rest[:sha256.Size]), rest[sha256.Size:]
	}
	r, err := parseSign(rest)
	if err == nil && len(r.message) > maxCheckpoint {
		err = fmt.Errorf("%w: a checkpoint of more than %d octets", ErrProtocol, maxCheckpoint)
	}
	r.extends = x
	return r, err
}
