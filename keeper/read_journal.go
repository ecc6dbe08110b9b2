package keeper

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// BrokenJournalError says where a journal is not what its keeper wrote.
type BrokenJournalError struct {
	Entry uint64 // the number that the entry should have
	Why   string
}

func (e *BrokenJournalError) Error() string {
	return "entry " + strconv.FormatUint(e.Entry, 10) + " of the journal: " + e.Why
}

// JournalReport is what VerifyJournal found in an unbroken journal.
type JournalReport struct {
	Entries uint64            `json:"entries"`
	Head    string            `json:"head"` // SHA-256 over the last line: written down elsewhere, it fixes all that came before
	Torn    int               `json:"torn"` // octets of a last line that a crash tore, or that is being written
	Results map[string]uint64 `json:"results"`
	Seen    bool              `json:"seen"` // an entry has the hash that was asked for
}

// VerifyJournal reads a journal from its beginning and checks that each entry follows from the one before. That nothing was cut off at the
// end it cannot know by itself: with known, the head of an earlier verification in hexadecimal, it also checks that this entry is there.
func VerifyJournal(r io.Reader, known string) (JournalReport, error) {
	report := JournalReport{Head: noHash, Results: map[string]uint64{}, Seen: known == ""}
	end, torn, err := ReadJournal(r, JournalPlace{}, func(e JournalEntry, place JournalPlace) error {
		report.Results[e.Result]++
		report.Seen = report.Seen || place.Head == known
		return nil
	})
	report.Entries, report.Torn = end.Entries, torn
	if end.Head != "" {
		report.Head = end.Head
	}
	switch {
	case err != nil:
		return report, err
	case !report.Seen:
		return report, fmt.Errorf("no entry has the hash %s: the journal was cut off or is another one", known)
	}
	return report, nil
}

// JournalEntry is an entry of a journal, as who accounts for signatures reads it.
type JournalEntry struct {
	Seq    uint64 // 1, 2, 3, ...
	Time   time.Time
	UID    *uint32 // the user whose process asked; nil: nobody asked
	Key    string  // its name in the key policy
	Kind   string  // certificate, crl, ocsp, request, checkpoint, health, unknown; journal, token: no operation of a key
	Detail string  // of a certificate or an OCSP answer its serial number in hex, of a CRL its number in decimal, of a checkpoint its size
	Scope  string  // of an OCSP answer good, revoked or unknown; empty in entries of old
	SHA256 [32]byte
	Result string // signed, refused, failed; opened, closed, recovered, state
	Why    string
}

// JournalPlace is a place between two entries of a journal. Its zero value is the beginning.
type JournalPlace struct {
	Octets  int64  `json:"octets"`  // that come before it in the file
	Entries uint64 `json:"entries"` // the number of the last entry before it
	Head    string `json:"head"`    // SHA-256 over that entry's line, in hex
}

// ReadJournal reads a journal from a place on and checks that each entry follows from the one before. r must stand at that place. yield is
// given each entry and the place after it; an error of yield's ends the reading. ReadJournal returns the place that it came to, and how
// many octets of a line without an end follow. A *BrokenJournalError tells that an entry does not follow.
func ReadJournal(r io.Reader, from JournalPlace, yield func(JournalEntry, JournalPlace) error) (end JournalPlace, torn int, err error) {
	check := chain{seq: from.Entries, prev: from.Head, memory: map[string]memory{}}
	end = from
	for lines := newLineReader(r); ; {
		line, torn, err := lines.next()
		if errors.Is(err, io.EOF) {
			return end, torn, nil
		}
		if err != nil {
			return end, 0, fmt.Errorf("reading the journal: %w", err)
		}
		e, err := check.entry(line)
		if err != nil {
			return end, 0, err
		}
		shown, err := e.shown()
		if err != nil {
			return end, 0, &BrokenJournalError{Entry: e.Seq, Why: err.Error()}
		}
		end = JournalPlace{Octets: end.Octets + int64(len(line)) + 1, Entries: check.seq, Head: check.prev}
		if err := yield(shown, end); err != nil {
			return end, 0, err
		}
	}
}

func (e *entry) shown() (JournalEntry, error) {
	shown := JournalEntry{
		Seq: e.Seq, UID: e.UID, Key: e.Key, Kind: string(e.Kind), Detail: e.Detail, Scope: e.Scope, Result: e.Result, Why: e.Why,
	}
	var err error
	if shown.Time, err = time.Parse(time.RFC3339Nano, e.Time); err != nil {
		return shown, errors.New("its time cannot be read")
	}
	if e.SHA256 == "" {
		return shown, nil
	}
	digest, err := hex.DecodeString(e.SHA256)
	if err != nil || len(digest) != len(shown.SHA256) {
		return shown, errors.New("its digest cannot be read")
	}
	shown.SHA256 = [32]byte(digest)
	return shown, nil
}
