package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// checkpoint reads the text of a signed note that is a log's checkpoint (C2SP tlog-checkpoint): the origin, the size of the tree in
// decimal, and the root hash in base64, one a line, and no more. It returns the size.
func (k *key) checkpoint(text []byte) (uint64, error) {
	p := k.Checkpoints
	if p == nil {
		return 0, refuse("the key signs no checkpoints")
	}
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) != 4 || len(lines[3]) != 0 {
		return 0, refuse("a checkpoint has three lines")
	}
	if string(lines[0]) != p.Origin {
		return 0, refuse("the checkpoint is of another log")
	}
	size, err := strconv.ParseUint(string(lines[1]), 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != string(lines[1]) {
		return 0, refuse("the size of the tree is not a decimal number")
	}
	hash, err := base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(hash) != sha256.Size {
		return 0, refuse("the root hash is not 32 octets in base64")
	}
	return size, nil
}
