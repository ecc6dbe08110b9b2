package reconcile

import (
	"encoding/binary"
	"time"
)

// signatureTag comes after every source's, so that of one digest the records come first.
const signatureTag = 0x80

// The sorted form: the digest, a tag, and the rest. Only this process reads it.

func (r Record) append(b []byte) []byte {
	b = append(append(b, r.Digest[:]...), byte(r.Source))
	b = append(b, flag(r.Misplaced))
	b = appendTime(b, r.At)
	return appendText(appendText(appendText(appendText(b, r.Kind), r.Subject), r.Issuer), r.Serial)
}

func (s Signature) append(b []byte) []byte {
	b = append(append(b, s.Digest[:]...), signatureTag)
	b = binary.BigEndian.AppendUint32(b, uint32(s.Journal))
	b = binary.BigEndian.AppendUint64(b, s.Entry) // in this order: what was signed twice was first signed there
	b = appendTime(b, s.At)
	b = append(b, flag(s.Old))
	return appendText(appendText(appendText(appendText(b, s.Key), s.Kind), s.Detail), s.Status)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// appendTime keeps the years that nanoseconds since 1970 have no room for: records are dated by whoever wrote them.
func appendTime(b []byte, at time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, at.Unix()), uint64(at.Nanosecond()))
}

// line is a sorted record that is read again.
type line struct{ rest []byte }

func (l *line) digest() (d [32]byte) {
	l.rest = l.rest[copy(d[:], l.rest):]
	return d
}

func (l *line) octet() byte {
	b := l.rest[0]
	l.rest = l.rest[1:]
	return b
}

func (l *line) time() time.Time {
	seconds, n := binary.Varint(l.rest)
	nanoseconds, m := binary.Uvarint(l.rest[n:])
	l.rest = l.rest[n+m:]
	return time.Unix(seconds, int64(nanoseconds)).UTC()
}

func (l *line) text() string {
	size, n := binary.Uvarint(l.rest)
	text := string(l.rest[n : n+int(size)])
	l.rest = l.rest[n+int(size):]
	return text
}

// record reads what follows the tag of a source.
func (l *line) record(digest [32]byte, source Source) Record {
	return Record{
		Digest: digest, Source: source, Misplaced: l.octet() == 1, At: l.time(), Kind: l.text(), Subject: l.text(), Issuer: l.text(),
		Serial: l.text(),
	}
}

// signature reads what follows signatureTag.
func (l *line) signature(digest [32]byte) Signature {
	s := Signature{Digest: digest, Journal: int(binary.BigEndian.Uint32(l.rest)), Entry: binary.BigEndian.Uint64(l.rest[4:])}
	l.rest = l.rest[12:]
	s.At, s.Old = l.time(), l.octet() == 1
	s.Key, s.Kind, s.Detail, s.Status = l.text(), l.text(), l.text(), l.text()
	return s
}
