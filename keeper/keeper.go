// Package keeper owns the use of keys: the process that holds a PKCS#11 module for others, what each key may sign, and the journal of all
// that was signed.
//
// A keeper runs as a user of its own beside the process that faces the network. That process, the client, reaches it over a Unix socket
// with a small protocol (wire.go) and gets signatures, nothing else: it loads no vendor library, sees no PIN, and cannot change the policy.
// It sends the bytes to be signed, never a digest. The guard (guard.go) reads them by itself and refuses what the key is not for; the
// journal (journal.go) has an entry on the disk before a signature leaves.
//
// Vendor libraries hang and crash, and Go cannot interrupt a call into them. So the process that has a library is one that may end at any
// time (supervise.go): the holder, with the guard and the journal in it, because every process that a signature passes through costs as much
// as half a signature. Its supervisor has the socket and starts it again. Where there are several tokens, each library is in a worker process
// of its own instead (process.go, worker.go), so that one that hangs takes no other token along.
//
// Whoever opens a token finds the keys by their CKA_ID and holds them against the pinned public keys (opened.go).
//
// Counts, totals, CRL numbers and the last checkpoint of a log are those of one host: two keepers know nothing of each other.
package keeper

import (
	"errors"

	"github.com/chancery-ca/chancery/hsm"
)

// Errors that a caller of the client decides on. Everything that may pass by itself wraps hsm.ErrUnavailable.
var (
	// ErrRefused means that the key is not for this: the guard read the bytes and the key's policy does not allow them.
	ErrRefused = errors.New("the keeper refuses")
	// ErrUnknownKey means that the keeper holds no key with this public key.
	ErrUnknownKey = errors.New("the keeper does not hold this key")
	// ErrProtocol means that the two sides do not understand each other.
	ErrProtocol = errors.New("the keeper's protocol was broken")
)

// kind is what was asked to be signed, as the guard read it from the bytes.
type kind string

const (
	kindCertificate kind = "certificate"
	kindCRL         kind = "crl"
	kindOCSP        kind = "ocsp"
	kindCheckpoint  kind = "checkpoint"
	kindRequest     kind = "request" // for a certificate of a responder's key
	kindUnknown     kind = "unknown"
	kindHealth      kind = "health" // of the keeper's own making; never leaves it
)

// unavailable tells whether err may pass by itself.
func unavailable(err error) bool { return errors.Is(err, hsm.ErrUnavailable) }
