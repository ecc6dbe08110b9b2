package policies

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxFile is the largest profile file, in octets.
const MaxFile = 256 << 10

// Problem is one thing that is wrong with a profile file.
type Problem struct {
	File    string // as in the file system that was loaded
	Line    int    // 1 is the first; 0 when the file as a whole is meant
	Field   string // "validity.max", "names.dns.pattern"; empty when no field is meant
	Message string
	Hint    string
}

func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += ":" + strconv.Itoa(p.Line)
	}
	s += ": "
	if p.Field != "" {
		s += p.Field + ": "
	}
	s += p.Message
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// LoadError is everything that is wrong with a set of profiles.
type LoadError struct {
	Problems []Problem
}

func (e *LoadError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "policies: " + strings.Join(lines, "\npolicies: ")
}

// Load reads every *.yaml at the top of fsys as a profile each. What is wrong with any of them is reported at once, as *LoadError.
func Load(fsys fs.FS) (*Set, error) {
	paths, err := fs.Glob(fsys, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("listing profiles: %w", err)
	}
	slices.Sort(paths)
	var failed LoadError
	if len(paths) == 0 {
		failed.Problems = append(failed.Problems, Problem{File: ".", Message: "there are no profiles", Hint: "profiles are files named <name>.yaml"})
	}
	set := &Set{profiles: make(map[string]*Profile)}
	digest := sha256.New()
	for _, path := range paths {
		content, err := readFile(fsys, path)
		if err != nil {
			failed.Problems = append(failed.Problems, Problem{File: path, Message: err.Error()})
			continue
		}
		frame(digest, []byte(path))
		frame(digest, content)
		profile, problems := parseProfile(path, content)
		failed.Problems = append(failed.Problems, problems...)
		if profile != nil {
			set.profiles[profile.name] = profile
			set.names = append(set.names, profile.name)
		}
	}
	if len(failed.Problems) > 0 {
		return nil, &failed
	}
	slices.Sort(set.names)
	set.digest = "sha256:" + hex.EncodeToString(digest.Sum(nil))
	return set, nil
}

func readFile(fsys fs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(content) > MaxFile {
		err = fmt.Errorf("the file is larger than %d octets", MaxFile)
	}
	return content, err
}

// frame writes octets after their length, so that no two lists of names and contents hash alike.
func frame(w io.Writer, b []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(b)))
	w.Write(length[:]) //nolint:errcheck // a hash never fails
	w.Write(b)         //nolint:errcheck // a hash never fails
}

// parseProfile reads one profile; without problems it returns one.
func parseProfile(path string, content []byte) (*Profile, []Problem) {
	r := &report{file: path}
	document := r.document(content)
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	r.root = document
	var file profileFile
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		r.yaml(err)
		return nil, r.problems
	}
	profile := compile(r, &file)
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return profile, nil
}

// report collects what is wrong with a file.
type report struct {
	file     string
	root     *yaml.Node // the top mapping, once it is known to be sound
	problems []Problem
}

func (r *report) at(line int, message, hint string) {
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Message: message, Hint: hint})
}

// field reports a problem of a field, at the line where the field or its closest parent stands.
func (r *report) field(field, hint, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: r.line(field), Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// document reads the one YAML document of a file and reports what a profile may not hold: aliases, anchors, tags, duplicate keys,
// empty values, a second document.
func (r *report) document(content []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			r.at(0, "the file is empty", "")
		} else {
			r.yaml(err)
		}
		return nil
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.at(0, "the file holds more than one YAML document", "write one profile in a file")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		r.at(root.Line, "the file does not hold a mapping of fields", "")
		return nil
	}
	r.walk(root)
	return root
}

func (r *report) walk(n *yaml.Node) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.at(n.Line, "anchors and aliases are not allowed", "write the value out")
		return
	}
	if n.Style&yaml.TaggedStyle != 0 {
		r.at(n.Line, "tags are not allowed", "")
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		r.at(n.Line, "a value is empty", "write {} to allow with defaults, or leave the field out")
	}
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind == yaml.ScalarNode && key.Value == "<<" {
				r.at(key.Line, "merge keys are not allowed", "write the values out")
			}
			if line, ok := seen[key.Value]; ok && key.Kind == yaml.ScalarNode {
				r.at(key.Line, fmt.Sprintf("the key %s stands a second time", quote(key.Value)), fmt.Sprintf("it stands first in line %d", line))
			}
			seen[key.Value] = key.Line
		}
	}
	for _, child := range n.Content {
		r.walk(child)
	}
}

var (
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	yamlNotFound = regexp.MustCompile(`^field (.*) not found in type \S+$`)
	yamlType     = regexp.MustCompile(` into \S+$`)
)

// yaml reports the decoder's errors in the words of a profile.
func (r *report) yaml(err error) {
	messages := []string{err.Error()}
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) {
		messages = typeError.Errors
	}
	for _, message := range messages {
		line, hint := 0, ""
		message = strings.TrimPrefix(strings.ToValidUTF8(message, "?"), "yaml: ")
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = m[2]
		}
		if m := yamlNotFound.FindStringSubmatch(message); m != nil {
			message, hint = "unknown field "+quote(m[1]), "the fields of a profile are explained in profile_file.go and the shipped profiles"
		}
		r.at(line, yamlType.ReplaceAllString(message, " into what this field holds"), hint)
	}
}

// line finds the line of a field such as "validity.limits[1].max", or of the closest parent that the file holds.
func (r *report) line(field string) int {
	n := r.root
	if n == nil {
		return 0
	}
	line := n.Line
	for _, step := range strings.Split(field, ".") {
		name, index, indexed := strings.Cut(strings.TrimSuffix(step, "]"), "[")
		child := member(n, name)
		if child == nil {
			return line
		}
		n, line = child[1], child[0].Line
		if i, err := strconv.Atoi(index); indexed && err == nil && i < len(n.Content) {
			n = n.Content[i]
			line = n.Line
		}
	}
	return line
}

// member is the key and the value of a mapping's member, or nil.
func member(n *yaml.Node, name string) []*yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i : i+2]
		}
	}
	return nil
}
