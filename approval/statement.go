// Package approval owns what persons sign when they approve something with a key of their own: the statement, the two forms of signature
// over it (SSH and CMS), and how both are verified, by the service and by whoever looks at the evidence later, offline.
//
// It knows neither the database nor who may approve what. Which key is whose is told by whoever asks. The package is pure; only agent.go
// speaks with somebody: the SSH agent that it is given a connection to.
package approval

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The kinds of things that are decided on.
const (
	KindRequest    = "request"    // a request for a certificate
	KindPolicies   = "policies"   // a proposal to have other policies rule
	KindRevocation = "revocation" // an order to revoke many certificates
	KindOrder      = "order"      // an order to do something that cannot be undone, such as to destroy a key
)

// MaxStatement is the largest statement, in octets.
const MaxStatement = 8 << 10

// Statement is what a person says to one thing and no other. Its text is what is signed; it says all that matters to whoever signs, so that
// it can be read before.
type Statement struct {
	Kind     string // of the thing decided on
	ID       string // of the thing
	Approves bool   // or rejects
	Person   string // whose word it is
	Expires  time.Time
	// Binding names everything that the decision is about: exact request, policies, certificates. When any of it changes, so does the binding.
	Binding string
	// Facts say in words what the binding holds, in an order that each kind fixes.
	Facts []Fact
}

// Fact is a name and its value, for people to compare.
type Fact struct{ Name, Value string }

const statementTitle = "chancery approval 1"

const (
	decisionApprove = "approve"
	decisionReject  = "reject"
)

// Text is the canonical text of a statement: a title, and a line for each of its parts, each ending with a line feed. It is an error for a
// part to be empty or to hold what could be taken for another line, and for two to have one name: of two CSRs nobody knows which is approved.
func (s Statement) Text() ([]byte, error) {
	decision := decisionReject
	if s.Approves {
		decision = decisionApprove
	}
	lines := append([]Fact{
		{"kind", s.Kind},
		{"id", s.ID},
		{"decision", decision},
		{"person", s.Person},
		{"expires", s.Expires.UTC().Format(time.RFC3339)},
		{"binding", s.Binding},
	}, s.Facts...)
	var b strings.Builder
	b.WriteString(statementTitle + "\n")
	for i, line := range lines {
		if err := checkLine(line); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(lines[:i], func(other Fact) bool { return other.Name == line.Name }) {
			return nil, fmt.Errorf("%q stands twice in a statement", line.Name)
		}
		b.WriteString(line.Name + ": " + line.Value + "\n")
	}
	if b.Len() > MaxStatement {
		return nil, fmt.Errorf("a statement of %d octets is larger than %d", b.Len(), MaxStatement)
	}
	return []byte(b.String()), nil
}

func checkLine(line Fact) error {
	for _, r := range line.Name {
		if (r < 'a' || r > 'z') && r != '_' && (r < '0' || r > '9') {
			return fmt.Errorf("%q cannot be the name of a part of a statement", line.Name)
		}
	}
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
	if line.Name == "" || line.Value == "" || strings.TrimSpace(line.Value) != line.Value || strings.ContainsFunc(line.Value, bad) {
		return fmt.Errorf("the value of %q cannot stand in a statement: %q", line.Name, line.Value)
	}
	return nil
}

// ParseStatement reads a text back. It refuses any that Text would not have written.
func ParseStatement(text []byte) (Statement, error) {
	if len(text) > MaxStatement {
		return Statement{}, fmt.Errorf("a statement of %d octets is larger than %d", len(text), MaxStatement)
	}
	lines := strings.Split(string(text), "\n")
	const fixed = 6
	if len(lines) < 1+fixed+1 || lines[0] != statementTitle {
		return Statement{}, errors.New("this is no statement of an approval")
	}
	var parts []Fact
	for _, line := range lines[1 : len(lines)-1] {
		name, value, _ := strings.Cut(line, ": ")
		parts = append(parts, Fact{name, value})
	}
	expires, err := time.Parse(time.RFC3339, parts[4].Value)
	if err != nil {
		return Statement{}, fmt.Errorf("reading when a statement ends: %w", err)
	}
	s := Statement{
		Kind: parts[0].Value, ID: parts[1].Value, Approves: parts[2].Value == decisionApprove, Person: parts[3].Value, Expires: expires.UTC(),
		Binding: parts[5].Value, Facts: parts[fixed:],
	}
	if len(s.Facts) == 0 {
		s.Facts = nil
	}
	again, err := s.Text()
	if err != nil {
		return Statement{}, err
	}
	if string(again) != string(text) {
		return Statement{}, errors.New("the statement is not in canonical form")
	}
	return s, nil
}
