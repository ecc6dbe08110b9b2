package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
)

// Private is text of an event that its leaf holds only as a digest: who a person is, and what persons wrote. It is kept beside the leaf,
// and can be erased there, after which the digest says nothing: it was made with a salt that is erased with it. The tree stays as it is.
type Private struct {
	Event string // ID
	Field string
	Salt  [16]byte
	Value string
}

// Salted is the ending of a field whose value is a digest: "person" becomes "person_salted".
const Salted = "_salted"

// Digest is what stands in the leaf: SHA-256 of the salt and the text, in hexadecimal.
func (p Private) Digest() string {
	sum := sha256.Sum256(append(p.Salt[:], p.Value...))
	return hex.EncodeToString(sum[:])
}

// In tells whether the text is the one that an event was made with.
func (p Private) In(e Event) bool { return e.ID == p.Event && e.Data[p.Field+Salted] == p.Digest() }

// privateFields name a person or hold what a person wrote, in the order of their names.
func privateFields(kind Kind) []string {
	if kind == NamespaceChanged {
		return []string{"comment", "person"}
	}
	return []string{"comment", "name", "person"} // the name of a credential may well be that of a person; namespaces have names too
}

// conceal puts digests in the place of private texts. Salts come from the system's generator and not from whoever makes the event: one that
// is used twice, or known, would undo what it is for.
func conceal(e Event) (Event, []Private) {
	var all []Private
	cloned := false
	for _, field := range privateFields(e.Kind) {
		value, told := e.Data[field]
		if !told {
			continue
		}
		if !cloned {
			e.Data, cloned = maps.Clone(e.Data), true // the caller's own stays as it is
		}
		delete(e.Data, field)
		if value == "" {
			continue // what nobody wrote needs no digest
		}
		p := Private{Event: e.ID, Field: field, Value: value}
		_, _ = rand.Read(p.Salt[:]) // never fails
		e.Data[field+Salted] = p.Digest()
		all = append(all, p)
	}
	return e, all
}

// Private are the texts that the leaf holds as digests alone.
func (l Leaf) Private() []Private { return l.private }

// Stored is the leaf with its private texts behind it, as it is handed to the database, which parts them in the transaction of the leaf: an
// octet 0, which no leaf holds, and then for each text the field, the salt in hexadecimal and the text in hexadecimal, a line each.
func (l Leaf) Stored() []byte {
	if len(l.private) == 0 {
		return l.bytes
	}
	var b strings.Builder
	b.Write(l.bytes)
	b.WriteByte(0)
	for i, p := range l.private {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s %x %x", p.Field, p.Salt, p.Value)
	}
	return []byte(b.String())
}
