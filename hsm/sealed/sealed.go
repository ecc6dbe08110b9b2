// Package sealed owns the format of encrypted files: authenticated, of any length, versioned, written and read in one pass. It knows no
// token: the data key, and the form in which a key in a token encrypted it, come from the caller.
//
// A file is a header and a row of chunks. Numbers are big-endian.
//
//	8   "CHSEALED"
//	1   version, 1
//	1   mode: how the data key was encrypted; 1 AES-GCM (12 octets of nonce, ciphertext, 16 of tag), 2 RSA-OAEP with SHA-256, 3 with SHA-1
//	1   length of the CKA_ID
//	    CKA_ID of the key in the token
//	2   length of the encrypted data key
//	    the encrypted data key
//
// HKDF-SHA256 (RFC 5869) makes of the data key, with no salt and the whole header as info, 39 octets: an AES-256 key and a prefix of 7
// octets. So a header that was changed in any place opens nothing.
//
// A chunk is the AES-256-GCM ciphertext of 65,536 octets, the last one's of 1 to 65,536 (of none if the file is empty), with its tag of 16.
// Its nonce is the prefix, the chunk's number from 0 in 4 octets, and one octet that is 1 for the last chunk and 0 for the others (the
// STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). So chunks that are missing, doubled, moved or of another file are
// noticed, and so is a file's end that is not its own.
package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Version is the version of the format that is written.
const Version = 1

// ChunkSize is the length of every chunk's plaintext but the last's. Octets.
const ChunkSize = 64 << 10

const (
	magic     = "CHSEALED"
	tagSize   = 16
	prefix    = 7
	keySize   = 32
	maxKeyID  = math.MaxUint8
	maxKey    = 4 << 10 // octets of an encrypted data key: an RSA modulus has at most half
	lastChunk = 1
)

// Mode is how the data key was encrypted.
type Mode byte

// The modes.
const (
	AESGCM        Mode = 1
	RSAOAEPSHA256 Mode = 2
	RSAOAEPSHA1   Mode = 3
)

// Header is what a file begins with.
type Header struct {
	Mode       Mode
	KeyID      []byte // CKA_ID of the key that encrypted the data key; at most 255 octets
	WrappedKey []byte // the encrypted data key; at most 4,096 octets
}

// Errors of reading.
var (
	ErrNotSealed = errors.New("the file is no encrypted file of this kind")
	ErrVersion   = errors.New("the encrypted file is of a version that this program does not know; use a newer one")
	ErrDamaged   = errors.New("the encrypted file is damaged: something in it was changed, moved or removed, or it is another key's")
	ErrTruncated = errors.New("the encrypted file is cut short")
)

func (h Header) bytes() ([]byte, error) {
	if h.Mode < AESGCM || h.Mode > RSAOAEPSHA1 || len(h.KeyID) > maxKeyID || len(h.WrappedKey) == 0 || len(h.WrappedKey) > maxKey {
		return nil, fmt.Errorf("%w: its header is not sound", ErrNotSealed)
	}
	out := append([]byte(magic), Version, byte(h.Mode), byte(len(h.KeyID)))
	out = append(out, h.KeyID...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(h.WrappedKey)))
	return append(out, h.WrappedKey...), nil
}

// ReadHeader reads a file's header and leaves src at the first chunk.
func ReadHeader(src io.Reader) (Header, error) {
	fixed := make([]byte, len(magic)+3)
	if _, err := io.ReadFull(src, fixed); err != nil {
		return Header{}, unread(err, ErrNotSealed)
	}
	if string(fixed[:len(magic)]) != magic {
		return Header{}, ErrNotSealed
	}
	if version := fixed[len(magic)]; version != Version {
		return Header{}, fmt.Errorf("%w: version %d", ErrVersion, version)
	}
	h := Header{Mode: Mode(fixed[len(magic)+1]), KeyID: make([]byte, fixed[len(magic)+2])}
	if _, err := io.ReadFull(src, h.KeyID); err != nil {
		return Header{}, unread(err, ErrTruncated)
	}
	var length [2]byte
	if _, err := io.ReadFull(src, length[:]); err != nil {
		return Header{}, unread(err, ErrTruncated)
	}
	n := binary.BigEndian.Uint16(length[:])
	if n == 0 || n > maxKey {
		return Header{}, fmt.Errorf("%w: an encrypted data key of %d octets", ErrDamaged, n)
	}
	h.WrappedKey = make([]byte, n)
	if _, err := io.ReadFull(src, h.WrappedKey); err != nil {
		return Header{}, unread(err, ErrTruncated)
	}
	if _, err := h.bytes(); err != nil {
		return Header{}, err
	}
	return h, nil
}

// unread tells a file's end from a failure to read it.
func unread(err, end error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return end
	}
	return fmt.Errorf("reading the encrypted file: %w", err)
}

// chunks encrypts and decrypts one chunk after the other.
type chunks struct {
	aead  cipher.AEAD
	nonce [prefix + 5]byte
	next  uint64
}

func newChunks(h Header, dataKey []byte) (*chunks, []byte, error) {
	if len(dataKey) != keySize {
		return nil, nil, fmt.Errorf("%w: its data key has %d octets", ErrDamaged, len(dataKey))
	}
	header, err := h.bytes()
	if err != nil {
		return nil, nil, err
	}
	derived, err := hkdf.Key(sha256.New, dataKey, nil, string(header), keySize+prefix)
	if err != nil {
		return nil, nil, err
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived[:keySize])
	if err != nil {
		return nil, nil, err
	}
	c := &chunks{}
	copy(c.nonce[:], derived[keySize:])
	if c.aead, err = cipher.NewGCM(block); err != nil {
		return nil, nil, err
	}
	return c, header, nil
}

// advance sets the nonce of the next chunk.
func (c *chunks) advance(last bool) error {
	if c.next > math.MaxUint32 {
		return errors.New("the file is too long: it has more than 2^32 chunks")
	}
	binary.BigEndian.PutUint32(c.nonce[prefix:], uint32(c.next))
	c.nonce[prefix+4] = 0
	if last {
		c.nonce[prefix+4] = lastChunk
	}
	c.next++
	return nil
}

// Seal writes the header and encrypts what src yields. The data key has 32 octets and must never be used for another file.
func Seal(dst io.Writer, src io.Reader, h Header, dataKey []byte) error {
	c, header, err := newChunks(h, dataKey)
	if err != nil {
		return err
	}
	if _, err := dst.Write(header); err != nil {
		return fmt.Errorf("writing the encrypted file: %w", err)
	}
	return inChunks(src, ChunkSize, func(plain []byte, last bool) error {
		if err := c.advance(last); err != nil {
			return err
		}
		if _, err := dst.Write(c.aead.Seal(nil, c.nonce[:], plain, nil)); err != nil {
			return fmt.Errorf("writing the encrypted file: %w", err)
		}
		return nil
	})
}

// Open decrypts the chunks that follow a header. It writes no chunk that is not authentic, but learns only at the end whether all of them
// came: what is in dst is whole only if Open returns nil.
func Open(dst io.Writer, src io.Reader, h Header, dataKey []byte) error {
	c, _, err := newChunks(h, dataKey)
	if err != nil {
		return err
	}
	return inChunks(src, ChunkSize+tagSize, func(sealedChunk []byte, last bool) error {
		if len(sealedChunk) < tagSize {
			return ErrTruncated
		}
		if err := c.advance(last); err != nil {
			return err
		}
		plain, err := c.aead.Open(nil, c.nonce[:], sealedChunk, nil)
		if err != nil && last {
			// What is authentic as a chunk in the middle is not the end.
			if c.nonce[prefix+4] = 0; len(sealedChunk) == ChunkSize+tagSize {
				if _, middle := c.aead.Open(nil, c.nonce[:], sealedChunk, nil); middle == nil {
					return ErrTruncated
				}
			}
		}
		if err != nil {
			return fmt.Errorf("%w (chunk %d)", ErrDamaged, c.next-1)
		}
		if len(plain) == 0 && c.next > 1 {
			return fmt.Errorf("%w (an empty chunk at the end)", ErrDamaged)
		}
		if _, err := dst.Write(plain); err != nil {
			return fmt.Errorf("writing what was decrypted: %w", err)
		}
		return nil
	})
}

// inChunks calls work with one chunk after the other, and says which is the last. Of an empty source the last chunk is empty.
func inChunks(src io.Reader, size int, work func(chunk []byte, last bool) error) error {
	current, ahead := make([]byte, size), make([]byte, size)
	n, err := io.ReadFull(src, current)
	for {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading: %w", err)
		}
		if err != nil {
			return work(bytes.Clone(current[:n]), true)
		}
		m, ahoy := io.ReadFull(src, ahead)
		if errors.Is(ahoy, io.EOF) {
			return work(current[:n], true)
		}
		if err := work(current[:n], false); err != nil {
			return err
		}
		current, ahead, n, err = ahead, current, m, ahoy
	}
}
