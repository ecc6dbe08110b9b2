package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/ndjson"
)

const reconcileStateVersion = 1

// reconcileState is where a run of `audit reconcile` ended, in a file.
type reconcileState struct {
	Version  int                          `json:"version"`
	Until    time.Time                    `json:"until"` // records from before are judged
	Journals map[string]reconciledJournal `json:"journals"`
}

// reconciledJournal is a journal as it was read.
type reconciledJournal struct {
	File    string              `json:"file"`
	Begin   time.Time           `json:"begin"`             // of its oldest entry
	Mark    keeper.JournalPlace `json:"mark"`              // from where the next run reads it again: signatures may be recorded after it
	End     keeper.JournalPlace `json:"end"`               // up to where entries are judged
	Results map[string]uint64   `json:"results,omitempty"` // of the entries that were read now
}

// readReconcileState reads the state of the last run. Without a file it is that of none.
func readReconcileState(path string) (state reconcileState, err error) {
	if path == "" {
		return state, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("reading where the last run ended: %w", err)
	}
	if err := ndjson.Exactly(text, &state); err != nil {
		return state, fmt.Errorf("reading where the last run ended, in %s: %w", path, err)
	}
	if state.Version != reconcileStateVersion {
		return state, fmt.Errorf("reading where the last run ended, in %s: version %d is not known", path, state.Version)
	}
	return state, nil
}

// write replaces the file whole. A crash leaves the old one, and the next run judges again what this one did.
func (s reconcileState) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = writeFile(path, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping where this run ended: %w", err)
	}
	return nil
}
