package policies

import (
	"embed"
	"io/fs"
	"slices"
)

// Set is a set of profiles, loaded and validated as one, named by its digest. It does not change and may be shared.
type Set struct {
	digest   string
	files    []File // by name
	profiles map[string]*Profile
	names    []string
}

// Digest is "sha256:" and the lower-case hex of SHA-256 over the files' names and contents.
func (s *Set) Digest() string { return s.digest }

// Names are the profiles' names, sorted.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Profile finds a profile by name.
func (s *Set) Profile(name string) (*Profile, bool) {
	p, ok := s.profiles[name]
	return p, ok
}

//go:embed profiles/*.yaml profiles/cases/*.yaml
var shipped embed.FS

// Shipped are the profiles that come with the program.
func Shipped() (*Set, error) { return Load(ShippedFiles()) }

// ShippedFiles are their files, with their cases.
func ShippedFiles() fs.FS {
	fsys, err := fs.Sub(shipped, "profiles")
	if err != nil {
		panic(err) // the name is a constant, and valid
	}
	return fsys
}
