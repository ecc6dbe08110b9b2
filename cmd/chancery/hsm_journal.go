package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
)

// operationData is an operation as the audit log and the journal tell it. It holds no data of the operation but the digest of its input.
func operationData(op hsm.Operation) map[string]string {
	data := map[string]string{
		"op": string(op.Op), "result": op.Result(), "token": op.Token, "token_label": op.TokenLabel,
		"microseconds": strconv.FormatInt(op.Duration.Microseconds(), 10),
	}
	for name, value := range map[string]string{
		"key_label": op.Key.Label, "key_id": hex.EncodeToString(op.Key.ID), "target_label": op.Target.Label, "target_id": hex.EncodeToString(op.Target.ID),
		"mechanism": op.Mechanism, "user": op.User, "input_digest": hex.EncodeToString(op.Input),
	} {
		if value != "" {
			data[name] = value
		}
	}
	if len(op.Input) > 0 {
		data["input_hash"] = strings.ToLower(strings.ReplaceAll(op.InputHash.String(), "-", ""))
	}
	if op.Session != 0 {
		data["session"] = strconv.FormatUint(uint64(op.Session), 10)
	}
	return data
}

// journal is a file of operations, one JSON object a line, for tokens that are worked on without a database.
type journal struct {
	mu   sync.Mutex
	file *os.File
	torn bool // the last line has no end: a crash, or a disk that was full
}

// journalEntry is one line.
type journalEntry struct {
	Time  string            `json:"time"`
	Actor string            `json:"actor"`
	Data  map[string]string `json:"data"`
}

// openJournal opens a journal before anything is done: what cannot be recorded is not done.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the journal of operations: %w; name another file by --journal", err)
	}
	j := &journal{file: file}
	if j.torn, err = endsTorn(file); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the journal of operations: %w", err), file.Close())
	}
	return j, nil
}

// endsTorn tells whether a file ends in the middle of a line. What is no regular file, a pipe say, has no end to look at.
func endsTorn(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}

// Observe appends an operation. It is on the disk before its result is handed out.
func (j *journal) Observe(_ context.Context, op hsm.Operation) error {
	line, err := json.Marshal(journalEntry{Time: op.Began.UTC().Format(audit.TimeFormat), Actor: op.Actor, Data: operationData(op)})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if line = append(line, '\n'); j.torn {
		line = append([]byte{'\n'}, line...) // what was torn stays a line of its own, and this one can be read
	}
	_, err = j.file.Write(line)
	j.torn = err != nil
	if op.Op == hsm.OpRandom || op.Op == hsm.OpList {
		return err // the next operation's sync takes these along
	}
	return errors.Join(err, j.file.Sync())
}

var _ io.Closer = (*journal)(nil)

// Close closes the file.
func (j *journal) Close() error { return j.file.Close() }

// journalName is the file of a journal where none is named.
const journalName = "hsm-journal.jsonl"

// journalPath is the journal of a token that no configuration with a database names: beside its PIN file, else here.
func (f *tokenFlags) journalPath() string {
	switch {
	case f.journal != "":
		return f.journal
	case f.pinFile != "":
		return filepath.Join(filepath.Dir(f.pinFile), journalName)
	}
	return journalName
}
