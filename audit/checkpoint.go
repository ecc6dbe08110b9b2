package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Checkpoint is what a log says of itself at one size (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string // the log's name
	Size   int64  // number of leaves
	Root   Hash
}

// Text is the text of the checkpoint's signed note: three lines.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

var errCheckpoint = errors.New("audit: this is no checkpoint: it has three lines, the origin, the size in decimal, and the root hash " +
	"in base64")

// ParseCheckpoint reads the text of a checkpoint. Extension lines, which our log does not write, are refused: what they mean to say is not
// understood.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return Checkpoint{}, errCheckpoint
	}
	c := Checkpoint{Origin: lines[0]}
	var err error
	if c.Size, err = parseNumber(lines[1]); err != nil {
		return Checkpoint{}, errCheckpoint
	}
	if c.Root, err = parseHash(lines[2]); err != nil {
		return Checkpoint{}, errCheckpoint
	}
	return c, nil
}

// parseNumber reads a decimal number without leading zeroes, of at most 63 bits.
func parseNumber(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%q is no number in decimal", text)
	}
	return int64(n), nil
}

func parseHash(text string) (h Hash, err error) {
	octets, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(octets) != sha256.Size || base64.StdEncoding.EncodeToString(octets) != text {
		return h, errors.New("a hash is 32 octets in base64")
	}
	return Hash(octets), nil
}
