package transparency

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/certificate-transparency-go/loglist3"
)

// maxLogList bounds a log list, in octets. Those of the browsers have some 100 KB.
const maxLogList = 8 << 20

// Problem is one thing wrong with a log list.
type Problem struct {
	File, Field, Message, Hint string
	Line                       int
}

func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Field, p.Message)
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// ListError is every problem found in a log list.
type ListError struct{ Problems []Problem }

func (e *ListError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// ParseLogList reads a log list in the format that the browsers publish theirs in (version 3), RFC 6962 and static logs alike. file names
// it in the errors, which are *ListError and tell every problem with its line. Fields that are not known are left alone: lists grow.
func ParseLogList(file string, data []byte) ([]*Log, error) {
	r := &listReader{file: file}
	if len(data) > maxLogList {
		return nil, r.fail(0, "the list", fmt.Sprintf("it has more than %d octets", maxLogList), "")
	}
	if err := r.locate(data); err != nil {
		return nil, err
	}
	var list loglist3.LogList
	if err := json.Unmarshal(data, &list); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, r.fail(lineAt(data, wrong.Offset), wrong.Field, fmt.Sprintf("a %s does not belong here", wrong.Value), "")
		}
		return nil, r.fail(1, "the list", err.Error(), "")
	}
	var logs []*Log
	for i, operator := range list.Operators {
		if operator == nil {
			continue
		}
		for j, l := range operator.Logs {
			if l == nil {
				continue
			}
			field := fmt.Sprintf("operators[%d].logs[%d]", i, j)
			logs = r.add(logs, field, l.LogID, l.State, l.TemporalInterval, Log{
				Description: l.Description, Operator: operator.Name, URL: l.URL, Key: l.Key, MMD: time.Duration(l.MMD) * time.Second,
			})
		}
		for j, l := range operator.TiledLogs {
			if l == nil {
				continue
			}
			field := fmt.Sprintf("operators[%d].tiled_logs[%d]", i, j)
			if l.MonitoringURL == "" {
				r.problem(field+".monitoring_url", "a static log has tiles to be read", "")
				continue
			}
			logs = r.add(logs, field, l.LogID, l.State, l.TemporalInterval, Log{
				Description: l.Description, Operator: operator.Name, URL: l.SubmissionURL, Monitoring: l.MonitoringURL, Key: l.Key,
				MMD: time.Duration(l.MMD) * time.Second,
			})
		}
	}
	if len(logs) == 0 && len(r.problems) == 0 {
		r.problem("operators", "there is no log in the list", "")
	}
	if err := Unique(logs); err != nil {
		r.problem("operators", err.Error(), "")
	}
	if len(r.problems) > 0 {
		return nil, &ListError{r.problems}
	}
	return logs, nil
}

// listReader remembers where fields stand, and what is wrong with them.
type listReader struct {
	file     string
	lines    map[string]int
	problems []Problem
}

func (r *listReader) add(logs []*Log, field string, id []byte, state *loglist3.LogStates, interval *loglist3.TemporalInterval, l Log) []*Log {
	if interval != nil {
		l.From, l.Until = interval.StartInclusive, interval.EndExclusive
	}
	l.State = stateName(state)
	made, err := NewLog(l)
	if err != nil {
		var wrong *FieldError
		if errors.As(err, &wrong) {
			name := wrong.Field
			switch {
			case name == "operator":
				field, name = field[:strings.LastIndexByte(field, '.')], "name"
			case name == "url" && l.Monitoring != "":
				name = "submission_url"
			}
			r.problem(field+"."+name, wrong.Message, wrong.Hint)
		}
		return logs
	}
	if sum := sha256.Sum256(l.Key); !bytes.Equal(id, sum[:]) {
		r.problem(field+".log_id", "it is not the SHA-256 of the key", "")
		return logs
	}
	return append(logs, made)
}

func stateName(s *loglist3.LogStates) string {
	switch s.LogStatus() {
	case loglist3.PendingLogStatus:
		return "pending"
	case loglist3.QualifiedLogStatus:
		return "qualified"
	case loglist3.UsableLogStatus:
		return Usable
	case loglist3.ReadOnlyLogStatus:
		return "readonly"
	case loglist3.RetiredLogStatus:
		return "retired"
	case loglist3.RejectedLogStatus:
		return "rejected"
	}
	return NoState
}

// problem notes one at the line of the field, or of the nearest field around it.
func (r *listReader) problem(field, message, hint string) {
	line, at := 0, field
	for {
		found, ok := r.lines[at]
		if ok || at == "" {
			line = max(found, 1)
			break
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Field: field, Message: message, Hint: hint})
}

func (r *listReader) fail(line int, field, message, hint string) error {
	return &ListError{[]Problem{{File: r.file, Line: max(line, 1), Field: field, Message: message, Hint: hint}}}
}

// maxDepth is more than any log list nests.
const maxDepth = 32

// locate finds the line of every field, and refuses what would be read in two ways: a name twice in one object.
func (r *listReader) locate(data []byte) error {
	r.lines = map[string]int{}
	d := json.NewDecoder(bytes.NewReader(data))
	counted, line := int64(0), 1
	here := func() int {
		at := d.InputOffset()
		line += bytes.Count(data[counted:at], []byte("\n"))
		counted = at
		return line
	}
	var walk func(path string, depth int) error
	walk = func(path string, depth int) error {
		token, err := d.Token()
		if err != nil {
			return err
		}
		if _, seen := r.lines[path]; !seen {
			r.lines[path] = here()
		}
		open, ok := token.(json.Delim)
		if !ok {
			return nil
		}
		if depth > maxDepth {
			return errors.New("it is nested too deeply")
		}
		for i := 0; d.More(); i++ {
			inner := fmt.Sprintf("%s[%d]", path, i)
			if open == '{' {
				name, err := d.Token()
				if err != nil {
					return err
				}
				inner = strings.TrimPrefix(fmt.Sprintf("%s.%s", path, name), ".")
				if _, twice := r.lines[inner]; twice {
					return fmt.Errorf("%s stands there twice", inner)
				}
				r.lines[inner] = here()
			}
			if err := walk(inner, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	err := walk("", 0)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the list")
		}
	}
	if err == nil {
		return nil
	}
	at, syntax := here(), (*json.SyntaxError)(nil)
	if errors.As(err, &syntax) {
		at = lineAt(data, syntax.Offset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the list ends too early")
	}
	return r.fail(at, "the list", err.Error(), "a log list of version 3, such as https://www.gstatic.com/ct/log_list/v3/log_list.json")
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}
