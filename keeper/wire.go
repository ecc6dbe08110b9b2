package keeper

import (
	"bufio"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The protocol, between client and keeper and, with other messages, between keeper and worker. Each side sends frames:
//
//	length  4 octets, big-endian: of all that follows
//	type    1 octet
//	request 8 octets: chosen by who asks, repeated in the answer
//	body    the rest
//
// A client may have several requests at a time on a connection, and has as many connections as the keeper says that it has use for. Answers
// come in any order. To a worker each frame is one message of a SOCK_SEQPACKET socket, so that several threads can read and write it. What
// begins it, and its answer to that, may be longer than a message can be, and then go in parts, each a message.
//
// A connection begins with a hello from each side, over the socket, which names the protocol and its version; the keeper's has the number of
// connections that it has use for in the place of the request. With the keeper's hello go two pipes, over which all else is said (see
// line.go). Whoever receives what it does not understand closes the connection.

// The types of frames.
const (
	frameHello  byte = 1
	frameKeys   byte = 2 // which keys are there?
	frameSign   byte = 3 // key identifier, hash, the bytes to be signed
	frameStart  byte = 4 // to a worker: which token, how, and which keys
	frameDigest byte = 5 // to a worker: index of the key, hash, the digest
	// frameStanding asks what a key is held to, by its identifier; see compliance.go.
	frameStanding byte = 6
	// frameCheckpoint is frameSign for a checkpoint, after what shows that it extends an earlier one; see checkpoint.go.
	frameCheckpoint byte = 7

	frameAnswer byte = 0x80 // what was asked for
	frameError  byte = 0x81 // a code, and words
	frameLogin  byte = 0x82 // of a worker, unasked: it has logged in, or has tried to
)

const (
	frameHead = 9 // octets of type and request
	// maxMessage bounds what can be signed: a CRL of some 1.5 million entries.
	maxMessage = 80 << 20
	maxFrame   = frameHead + 64 + maxMessage
	maxWords   = 1000 // octets of an error's words
	// The longest frame between keeper and worker, which is what begins it. A file of policies, of at most 256 KiB, does not name keys enough to
	// fill it: 16,000 keys of RSA with 4096 bits do.
	maxStart = 16 << 20
	// The longest messages between them: a part of such a frame, which must fit into a socket's buffer; a digest, or a checkpoint for an
	// Ed25519 key; an answer.
	maxPart   = 64 << 10
	maxDigest = 1024
	maxAnswer = 4 << 10
	hello     = "chancery-keeper 3"
	maxHello  = 64 // of any version
)

// frame is one frame as read. Its body is valid until the next is read.
type frame struct {
	kind    byte
	request uint64
	body    []byte
}

var errFrame = fmt.Errorf("%w: a frame of a length that cannot be", ErrProtocol)

// frameReader reads frames, and keeps a buffer for those that are not large.
type frameReader struct {
	from  *bufio.Reader
	limit int
	begun [4 + frameHead]byte
	kept  []byte
}

func newFrameReader(r io.Reader, limit int) *frameReader {
	return &frameReader{from: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

const keptBuffer = 64 << 10

// next reads a frame. io.EOF means that the other side closed the connection between two frames.
func (r *frameReader) next() (frame, error) {
	f, length, err := r.head()
	if err == nil {
		f.body, err = r.body(length)
	}
	return f, err
}

// head reads how a frame begins, and says how long its body is, which is read next.
func (r *frameReader) head() (f frame, length int, err error) {
	if _, err := io.ReadFull(r.from, r.begun[:]); err != nil {
		return f, 0, err
	}
	octets := int64(binary.BigEndian.Uint32(r.begun[:])) - frameHead
	if octets < 0 || octets > int64(r.limit) {
		return f, 0, errFrame
	}
	return frame{kind: r.begun[4], request: binary.BigEndian.Uint64(r.begun[5:])}, int(octets), nil
}

// body reads the body of a frame. Memory for a large one is taken as its octets arrive, not because its head promises them.
func (r *frameReader) body(length int) ([]byte, error) {
	body := r.kept[:0]
	for left := length; left > 0; {
		step := min(left, keptBuffer)
		at := len(body)
		if cap(body) < at+step {
			grown := make([]byte, at, min(max(2*cap(body), at+step), max(length, keptBuffer)))
			copy(grown, body)
			body = grown
		}
		body = body[:at+step]
		if _, err := io.ReadFull(r.from, body[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		left -= step
	}
	if cap(body) <= keptBuffer {
		r.kept = body
	}
	return body, nil
}

// whole tells whether the next frame has arrived whole, and can be read without waiting. Of one that the buffer cannot hold it says no.
func (r *frameReader) whole() bool {
	head, err := r.from.Peek(min(4, r.from.Buffered()))
	return err == nil && len(head) == 4 && int64(r.from.Buffered()-4) >= max(int64(binary.BigEndian.Uint32(head)), frameHead)
}

// keep leaves the body of the last frame to the caller, for good.
func (r *frameReader) keep() { r.kept = nil }

// parseFrame reads a message that is one frame.
func parseFrame(message []byte) (frame, error) {
	if len(message) < 4+frameHead || int64(binary.BigEndian.Uint32(message)) != int64(len(message)-4) {
		return frame{}, errFrame
	}
	return frame{kind: message[4], request: binary.BigEndian.Uint64(message[5:]), body: message[4+frameHead:]}, nil
}

// gather reads what is left of a frame whose beginning is the message given. read reads one message.
func gather(beginning []byte, read func([]byte) (int, error)) ([]byte, error) {
	if len(beginning) < 4 {
		return nil, errFrame
	}
	length := 4 + int64(binary.BigEndian.Uint32(beginning))
	if length < int64(len(beginning)) || length > maxStart {
		return nil, errFrame
	}
	whole := append(make([]byte, 0, length), beginning...)
	for len(whole) < cap(whole) {
		n, err := read(whole[len(whole):min(len(whole)+maxPart, cap(whole))])
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			clear(whole)
			return nil, err
		}
		whole = whole[:len(whole)+n]
	}
	return whole, nil
}

// inParts sends a frame that gather reads. send sends one message.
func inParts(whole []byte, send func([]byte) error) error {
	for part := range slices.Chunk(whole, maxPart) {
		if err := send(part); err != nil {
			return err
		}
	}
	return nil
}

// appendFrame writes a frame whose body is the parts, one after the other.
func appendFrame(b []byte, kind byte, request uint64, parts ...[]byte) []byte {
	length := frameHead
	for _, part := range parts {
		length += len(part)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, request)
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

// The hashes on the wire. 0 is none: an Ed25519 key signs the message itself.
var wireHashes = map[crypto.Hash]byte{0: 0, crypto.SHA256: 1, crypto.SHA384: 2, crypto.SHA512: 3}

func hashOf(code byte) (crypto.Hash, bool) {
	for hash, c := range wireHashes {
		if c == code {
			return hash, true
		}
	}
	return 0, false
}

// signRequest is the body of frameSign, or of frameCheckpoint.
type signRequest struct {
	key     keyID
	hash    crypto.Hash
	message []byte
	extends *consistency // nil: nothing is shown
}

// parseSigning reads a request to sign of either type.
func parseSigning(f frame) (signRequest, error) {
	if f.kind == frameCheckpoint {
		return parseCheckpoint(f.body)
	}
	return parseSign(f.body)
}

func parseSign(body []byte) (signRequest, error) {
	var r signRequest
	if len(body) <= len(r.key)+1 {
		return r, fmt.Errorf("%w: a request to sign is too short", ErrProtocol)
	}
	copy(r.key[:], body)
	hash, ok := hashOf(body[len(r.key)])
	if !ok {
		return r, fmt.Errorf("%w: a hash that is unknown", ErrProtocol)
	}
	r.hash, r.message = hash, body[len(r.key)+1:]
	if len(r.message) > maxMessage {
		return r, fmt.Errorf("%w: more than %d octets to be signed", ErrProtocol, maxMessage)
	}
	return r, nil
}

// digestRequest is the body of frameDigest. With no hash, the digest is the message.
type digestRequest struct {
	key    int
	hash   crypto.Hash
	digest []byte
}

func parseDigest(body []byte) (digestRequest, error) {
	if len(body) < 3 {
		return digestRequest{}, fmt.Errorf("%w: a request to sign is too short", ErrProtocol)
	}
	hash, ok := hashOf(body[2])
	if !ok || hash != 0 && len(body)-3 != hash.Size() {
		return digestRequest{}, fmt.Errorf("%w: a hash that is unknown, or a digest that is not of its size", ErrProtocol)
	}
	return digestRequest{key: int(binary.BigEndian.Uint16(body)), hash: hash, digest: body[3:]}, nil
}

// heldKey tells a client of one key.
type heldKey struct {
	name   string
	spki   []byte
	tokens []string // serial numbers of the tokens that hold it
}

func appendKeys(b []byte, keys []heldKey) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(keys)))
	for _, k := range keys {
		b = appendText(b, k.name)
		b = appendText(b, string(k.spki))
		b = binary.BigEndian.AppendUint16(b, uint16(len(k.tokens)))
		for _, t := range k.tokens {
			b = appendText(b, t)
		}
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

var errKeys = fmt.Errorf("%w: the list of keys cannot be read", ErrProtocol)

func parseKeys(body []byte) ([]heldKey, error) {
	r := wireReader{rest: body}
	var keys []heldKey
	for range r.number() {
		k := heldKey{name: string(r.text()), spki: append([]byte(nil), r.text()...)}
		for range r.number() {
			k.tokens = append(k.tokens, string(r.text()))
			if r.short {
				return nil, errKeys
			}
		}
		if r.short {
			return nil, errKeys
		}
		keys = append(keys, k)
	}
	if r.short || len(r.rest) > 0 {
		return nil, errKeys
	}
	return keys, nil
}

// wireReader reads numbers and texts, and remembers when there was less than there should have been.
type wireReader struct {
	rest  []byte
	short bool
}

func (r *wireReader) number() int {
	if len(r.rest) < 2 {
		r.short, r.rest = true, nil
		return 0
	}
	n := int(binary.BigEndian.Uint16(r.rest))
	r.rest = r.rest[2:]
	return n
}

func (r *wireReader) text() []byte {
	n := r.number()
	if len(r.rest) < n {
		r.short, r.rest = true, nil
		return nil
	}
	text := r.rest[:n]
	r.rest = r.rest[n:]
	return text
}
