package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File is one file of a set, as it was read: its name, such as "tls-server.yaml", and its octets.
type File struct {
	Name    string
	Content []byte
}

// Files are the files that the set was made of, by name. They must not be changed.
func (s *Set) Files() []File { return s.files }

// Digest is Set.Digest of a set that is made of files, in whichever order, whether they can be loaded or not.
func Digest(files []File) string {
	digest := sha256.New()
	for _, f := range slices.SortedFunc(slices.Values(files), byName) {
		frame(digest, []byte(f.Name))
		frame(digest, f.Content)
	}
	return "sha256:" + hex.EncodeToString(digest.Sum(nil))
}

func byName(a, b File) int { return strings.Compare(a.Name, b.Name) }

// LoadFiles makes the set of files that are in memory, such as those kept of a set that ruled earlier. What is wrong with any of them is
// reported at once, as *LoadError: a name that stands twice, or that Load would not have read, too.
func LoadFiles(files []File) (*Set, error) {
	return strict(LoadRuled(files))
}

// LoadRuled makes the set of files that ruled before, as LoadFiles does, but for the demands of standards: those that came later, with
// another program, do not end the rule of what kept all there were. It tells which are not met. What begins to rule must meet them all.
func LoadRuled(files []File) (_ *Set, unmet []Problem, _ error) {
	sorted := slices.SortedFunc(slices.Values(files), byName)
	var problems []Problem
	for i, f := range sorted {
		switch {
		case path.Base(f.Name) != f.Name || path.Ext(f.Name) != ".yaml" || !fs.ValidPath(f.Name):
			problems = append(problems, Problem{File: quote(f.Name), Message: "this is no name of a profile's file", Hint: "profiles are files named <name>.yaml"})
		case i > 0 && sorted[i-1].Name == f.Name:
			problems = append(problems, Problem{File: f.Name, Message: "the file stands here twice"})
		}
	}
	if len(problems) > 0 {
		return nil, nil, &LoadError{Problems: problems}
	}
	return load(sorted, nil)
}
