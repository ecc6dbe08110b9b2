package policies

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/chancery-ca/chancery/strictyaml"
)

// Problem is one thing that is wrong with a profile file.
type Problem = strictyaml.Problem

// LoadError is everything that is wrong with a set of profiles.
type LoadError = strictyaml.Error

// Load reads every *.yaml at the top of fsys as a profile each. What is wrong with any of them is reported at once, as *LoadError.
func Load(fsys fs.FS) (*Set, error) {
	files, problems, err := read(fsys)
	if err != nil {
		return nil, err
	}
	set, unmet, err := load(files, problems)
	return strict(set, unmet, err)
}

// ReadFiles reads what Load makes profiles of.
func ReadFiles(fsys fs.FS) ([]File, error) {
	files, problems, err := read(fsys)
	if len(problems) > 0 {
		return nil, &LoadError{Problems: problems}
	}
	return files, err
}

// strict takes a demand that is not met for what is wrong with a set.
func strict(set *Set, unmet []Problem, err error) (*Set, error) {
	if err == nil && len(unmet) > 0 {
		return nil, &LoadError{Problems: unmet}
	}
	return set, err
}

func read(fsys fs.FS) (files []File, problems []Problem, err error) {
	paths, err := fs.Glob(fsys, "*.yaml")
	if err != nil {
		return nil, nil, fmt.Errorf("listing profiles: %w", err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		content, err := readFile(fsys, path)
		if err != nil {
			problems = append(problems, Problem{File: path, Message: err.Error()})
			continue
		}
		files = append(files, File{Name: path, Content: content})
	}
	return files, problems, nil
}

// load makes a set of files in the order of their names, unless there are problems: with the files, or already. Apart from these it tells
// which demands of the standards that the profiles name are not met.
func load(files []File, problems []Problem) (_ *Set, unmet []Problem, _ error) {
	failed := LoadError{Problems: problems}
	if len(files) == 0 && len(problems) == 0 {
		failed.Problems = append(failed.Problems, Problem{File: ".", Message: "there are no profiles", Hint: "profiles are files named <name>.yaml"})
	}
	set := &Set{files: files, profiles: make(map[string]*Profile)}
	language := newLanguage()
	for _, f := range files {
		profile, short, problems := parseProfile(f.Name, f.Content, language)
		failed.Problems, unmet = append(failed.Problems, problems...), append(unmet, short...)
		if profile != nil {
			set.profiles[profile.name] = profile
			set.names = append(set.names, profile.name)
		}
	}
	if len(failed.Problems) > 0 {
		failed.Problems = append(failed.Problems, unmet...)
		return nil, nil, &failed
	}
	slices.Sort(set.names)
	set.digest = Digest(files)
	return set, unmet, nil
}

func readFile(fsys fs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxSize+1))
	return content, err // one octet more than is read at all is refused by strictyaml
}

// frame writes octets after their length, so that no two lists of names and contents hash alike.
func frame(w io.Writer, b []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(b)))
	w.Write(length[:]) //nolint:errcheck // a hash never fails
	w.Write(b)         //nolint:errcheck // a hash never fails
}

// parseProfile reads one profile; without problems it returns one. What its standards demand and it does not meet is told apart.
func parseProfile(path string, content []byte, l *language) (_ *Profile, unmet, problems []Problem) {
	var file profileFile
	r := &report{file: path, Document: strictyaml.Decode(path, content, &file)}
	if !r.OK() {
		return nil, nil, r.Problems()
	}
	r.demands = strictyaml.Decode(path, content, &profileFile{})
	profile := compile(r, &file, l)
	if !r.OK() {
		return nil, r.demands.Problems(), r.Problems()
	}
	return profile, r.demands.Problems(), nil
}

// report collects what is wrong with a file.
type report struct {
	*strictyaml.Document
	file    string
	demands *strictyaml.Document // of the same file: which demands of standards are not met
}

// field reports a problem of a field, at the line where the field or its closest parent stands.
func (r *report) field(field, hint, format string, args ...any) {
	r.Refuse(field, hint, format, args...)
}
