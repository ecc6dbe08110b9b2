package blocklist

import (
	"errors"
	"os"
	"slices"
	"sync"
)

// Lists are the lists of a service, in the order of their files. They are safe for concurrent use.
type Lists struct {
	mu    sync.RWMutex
	paths []string
	open  []*List
}

// OpenAll opens the lists in files, all or none.
func OpenAll(paths []string) (*Lists, error) {
	l := &Lists{paths: paths}
	for _, path := range paths {
		list, err := Open(path)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.open = append(l.open, list)
	}
	return l, nil
}

// Listed are the titles of the lists in which a key stands.
func (l *Lists) Listed(key Key) (titles []string, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, list := range l.open {
		found, err := list.Contains(key)
		if err != nil {
			return nil, err
		}
		if found {
			titles = append(titles, list.title)
		}
	}
	return titles, nil
}

// Refresh takes up files that were replaced since they were opened, and returns the titles and lengths of those that are new. A list whose
// file cannot be read, or is no list, stays in use as it was, and is in the error. One call at a time.
func (l *Lists) Refresh() (fresh []*List, err error) {
	for i, path := range l.paths {
		if l.unchanged(i) {
			continue
		}
		list, openErr := Open(path)
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		l.mu.Lock()
		was := l.open[i]
		l.open[i] = list // the same again, too: else it would be read to its end each time
		l.mu.Unlock()
		if list.digest != was.digest {
			fresh = append(fresh, list)
		}
		err = errors.Join(err, was.Close())
	}
	return fresh, err
}

// unchanged tells whether a file is still the one that was opened.
func (l *Lists) unchanged(i int) bool {
	info, err := os.Stat(l.paths[i])
	l.mu.RLock()
	defer l.mu.RUnlock()
	was := l.open[i].file
	return err == nil && os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime())
}

// Close ends the use of all lists.
func (l *Lists) Close() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.open {
		err = errors.Join(err, list.Close())
	}
	l.open = nil
	return err
}

// All are the lists as they are now, in the order of their files.
func (l *Lists) All() []*List {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.open)
}
