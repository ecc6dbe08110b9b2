// Package blocklist owns the files of public keys that nobody may have certified: Debian's weak keys, keys whose private halves were found
// in public. list.go reads one, write.go makes one, source.go reads what one is made from, and lists.go holds those of a service.
//
// A key stands in a list as the SHA-256 of its SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7). A file is, in octets:
//
//	   0   16  "chancery-keys-1\n"
//	  16    8  how many digests there are, big-endian
//	  24   64  the list's title in UTF-8, filled up with zeros
//	  88   32  SHA-256 of all other octets of the file, in order
//	 120    8  zeros
//	 128 2048  256 numbers of 8 octets, big-endian: how many digests have a first octet up to 0, 1, ... 255
//	2176  32n  the digests, in rising order, none twice
//
// It is looked up where it lies, with a handful of reads, however long it is.
package blocklist

import (
	"crypto/sha256"
	"errors"
)

const (
	magic      = "chancery-keys-1\n"
	countAt    = 16
	titleAt    = 24
	digestAt   = 88
	fillAt     = 120
	fanoutAt   = 128
	keysAt     = fanoutAt + 256*8
	keySize    = sha256.Size
	maxTitle   = digestAt - titleAt
	maxKeys    = 1 << 32 // 128 GiB; more is no list but a mistake
	blockOf    = 128     // digests that are read at once: a page
	bufferSize = 1 << 16
)

// ErrFormat is wrapped by the errors about what is no list, or no longer the one that was written.
var ErrFormat = errors.New("not a list of keys")

// Key is the SHA-256 of a SubjectPublicKeyInfo.
type Key = [keySize]byte
