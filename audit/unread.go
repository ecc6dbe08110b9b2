package audit

import (
	"encoding/hex"
	"strconv"
	"time"
)

// Unreadable is no kind of event: it is what Unread calls a leaf that is none.
const Unreadable Kind = "unreadable"

// Unread stands where an event is told, for a leaf that cannot be read. The program writes none, and a service that was taken over could: such
// a leaf keeps its place, and keeps nothing else from being told. What is told of it is its hash in the tree. Verification calls it Malformed.
func Unread(id string, leaf []byte) Event {
	hash := HashOf(leaf)
	return Event{ID: id, Kind: Unreadable, Time: time.Unix(0, 0).UTC(), Data: map[string]string{
		"hash": hex.EncodeToString(hash[:]), "octets": strconv.Itoa(len(leaf)),
	}}
}
