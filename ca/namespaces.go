package ca

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// learnNamespacesEvery is how often a replica looks whether another has changed a namespace.
const learnNamespacesEvery = time.Second

// Where a namespace was set.
const (
	SourceFile = "file" // in the configuration file, where alone it is changed
	SourceAPI  = "api"
)

// NamespaceVersion is a namespace as it was set at one time, or the word that it was removed.
type NamespaceVersion struct {
	access.Namespace
	Version int    // 1 for the first; the highest holds
	Source  string // SourceFile or SourceAPI
	Removed bool
	Actor   string
	At      time.Time
	EventID string // of the NamespaceChanged leaf
}

// NamespaceStore keeps namespaces, all versions of each.
type NamespaceStore interface {
	// NamespaceVersions counts all versions of all namespaces: the number tells whether anything has changed.
	NamespaceVersions(ctx context.Context) (int64, error)
	// Namespaces are the latest versions, by name, removed ones among them.
	Namespaces(ctx context.Context) ([]NamespaceVersion, error)
	// NamespaceHistory is every version of one namespace, latest first; empty when there never was one.
	NamespaceHistory(ctx context.Context, name string) ([]NamespaceVersion, error)
	// RecordNamespace adds a version. ErrFenced when its number does not follow the last one: read again.
	RecordNamespace(ctx context.Context, v NamespaceVersion, leaves ...audit.Leaf) error
}

// namespaces are the namespaces as this replica knows them. It does not change.
type namespaces struct {
	byName   map[string]access.Namespace
	versions int64 // in the store when they were read; -1: they have not been
}

// namespace finds a namespace that holds now.
func (c *CA) namespace(name string) (access.Namespace, bool) {
	n, ok := c.namespaces.Load().byName[name]
	return n, ok
}

// LearnNamespaces makes this replica decide by the namespaces on record. When none has changed, it costs one small query.
func (c *CA) LearnNamespaces(ctx context.Context) error {
	versions, err := c.store.NamespaceVersions(ctx)
	if err != nil {
		return fmt.Errorf("looking for changed namespaces: %w", err)
	}
	known := c.namespaces.Load()
	if versions == known.versions {
		return nil
	}
	latest, err := c.store.Namespaces(ctx)
	if err != nil {
		return fmt.Errorf("reading the namespaces: %w", err)
	}
	byName := map[string]access.Namespace{}
	for _, v := range latest {
		if !v.Removed {
			byName[v.Name] = v.Namespace
		}
	}
	if own, ok := known.byName[ServiceNamespace]; ok {
		byName[ServiceNamespace] = own
	}
	c.namespaces.Store(&namespaces{byName: byName, versions: versions})
	return nil
}

// AdoptNamespaces puts the namespaces of the configuration file on record where they differ from it, removes those that the file no longer
// holds, and learns what holds now. A namespace that was set through the API and now stands in the file is the file's from here on.
//
// A start takes away, and gives nothing back: an entry that held before, and that gives what does not hold any more, may be that of a file
// from before it was taken away. It is withheld, and what is on record holds, until SetNamespace is told the same.
func (c *CA) AdoptNamespaces(ctx context.Context, file []access.Namespace) error {
	latest, err := c.store.Namespaces(ctx)
	if err != nil {
		return fmt.Errorf("reading the namespaces: %w", err)
	}
	known := map[string]NamespaceVersion{}
	for _, v := range latest {
		known[v.Name] = v
	}
	wanted, withheld := map[string]bool{}, map[string]access.Namespace{}
	for _, n := range file {
		wanted[n.Name] = true
		before, found := known[n.Name]
		if found && !before.Removed && before.Source == SourceFile && sameNamespace(before.Namespace, n) {
			continue
		}
		if found && (before.Removed || !n.Within(before.Namespace)) {
			held, err := c.held(ctx, n)
			if err != nil {
				return err
			}
			if held {
				withheld[n.Name] = n
				c.log.WarnContext(ctx, "a namespace of the configuration held once and does not any more; what is on record holds. "+
					"To have it back, set it with `chancery namespace set`, as the configuration has it, by way of this replica", "namespace", n.Name,
					"on_record", before.Version, "removed", before.Removed, "since", before.At)
				continue
			}
		}
		if err := c.adopt(ctx, NamespaceVersion{Namespace: n, Version: before.Version + 1, Source: SourceFile}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		before := known[name]
		if wanted[name] || before.Removed || before.Source != SourceFile {
			continue
		}
		if err := c.adopt(ctx, NamespaceVersion{Namespace: before.Namespace, Version: before.Version + 1, Source: SourceFile, Removed: true}); err != nil {
			return err
		}
	}
	c.withheld.Store(&withheld)
	return c.LearnNamespaces(ctx)
}

// held tells whether a namespace ever was exactly this.
func (c *CA) held(ctx context.Context, n access.Namespace) (bool, error) {
	history, err := c.store.NamespaceHistory(ctx, n.Name)
	if err != nil {
		return false, fmt.Errorf("reading namespace %q: %w", n.Name, err)
	}
	return slices.ContainsFunc(history, func(v NamespaceVersion) bool { return !v.Removed && sameNamespace(v.Namespace, n) }), nil
}

// isWithheld tells whether the configuration of this replica has exactly this, and it was not adopted at start.
func (c *CA) isWithheld(n access.Namespace) bool {
	withheld := c.withheld.Load()
	if withheld == nil {
		return false
	}
	own, found := (*withheld)[n.Name]
	return found && sameNamespace(own, n)
}

// adopt records a version of the file's. Where another replica, started at the same time, was first, its word stands.
func (c *CA) adopt(ctx context.Context, v NamespaceVersion) error {
	v.Actor = access.Service
	err := c.recordNamespace(ctx, v)
	if errors.Is(err, ErrFenced) {
		c.log.WarnContext(ctx, "another replica changed a namespace of the configuration at the same time; its word stands", "namespace", v.Name)
		return nil
	}
	return err
}

// sameNamespace compares what namespaces say; a list that is empty and one that is missing say the same.
func sameNamespace(a, b access.Namespace) bool {
	for _, n := range []*access.Namespace{&a, &b} {
		v := reflect.ValueOf(n).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
				f.SetZero()
			}
		}
	}
	return reflect.DeepEqual(a, b)
}

func (c *CA) recordNamespace(ctx context.Context, v NamespaceVersion) error {
	v.At, v.EventID = c.now(), c.newID()
	change := "set"
	if v.Removed {
		change = "removed"
	}
	leaf, err := c.leafWithID(v.EventID, audit.NamespaceChanged, v.Actor, v.Name, v.At, map[string]string{
		"name": v.Name, "change": change, "version": strconv.Itoa(v.Version), "source": v.Source, "definition_sha256": hexSHA256(v.Canonical()),
	})
	if err != nil {
		return err
	}
	if err := c.store.RecordNamespace(ctx, v, leaf); err != nil {
		return fmt.Errorf("recording namespace %q: %w", v.Name, err)
	}
	c.log.InfoContext(ctx, "a namespace was "+change, "namespace", v.Name, "version", v.Version, "source", v.Source, "actor", v.Actor)
	return nil
}

// SetNamespace makes a namespace what n says, or adds it, and returns the version on record. after is the version that the actor has
// seen, 0 for none, or -1 to set it whatever it was. It holds here at once, and on other replicas within two seconds. What the
// configuration file says, and was withheld at start, is the file's again. It returns *InvalidError, ErrChanged when it is at another
// version, ErrOfFile for another one of the configuration file, or *access.Denied.
func (c *CA) SetNamespace(ctx context.Context, actor access.Actor, n access.Namespace, after int) (NamespaceVersion, error) {
	if err := c.authorizeNamespaceChange(ctx, actor, n.Name); err != nil {
		return NamespaceVersion{}, err
	}
	if err := checkNamespace(n); err != nil {
		return NamespaceVersion{}, err
	}
	ofFile := c.isWithheld(n)
	return c.changeNamespace(ctx, actor, n.Name, after, ofFile, func(before NamespaceVersion) (NamespaceVersion, bool, error) {
		same := before.Version > 0 && !before.Removed && sameNamespace(before.Namespace, n)
		next := NamespaceVersion{Namespace: n, Source: SourceAPI}
		if ofFile {
			next.Source = SourceFile
		}
		return next, same, nil
	})
}

// RemoveNamespace takes a namespace away: nothing is issued in it any more. What was issued stays, and stays readable. The errors are
// those of SetNamespace, and ErrNotFound.
func (c *CA) RemoveNamespace(ctx context.Context, actor access.Actor, name string, after int) (NamespaceVersion, error) {
	if err := c.authorizeNamespaceChange(ctx, actor, name); err != nil {
		return NamespaceVersion{}, err
	}
	return c.changeNamespace(ctx, actor, name, after, false, func(before NamespaceVersion) (NamespaceVersion, bool, error) {
		if before.Version == 0 || before.Removed {
			return NamespaceVersion{}, false, fmt.Errorf("namespace %q: %w", name, ErrNotFound)
		}
		return NamespaceVersion{Namespace: before.Namespace, Source: SourceAPI, Removed: true}, false, nil
	})
}

func (c *CA) authorizeNamespaceChange(ctx context.Context, actor access.Actor, name string) error {
	// A namespace belongs to the whole authority: a team's operator must not widen what the team owns.
	return c.authorize(ctx, actor, access.ChangeNamespace, access.Resource{Namespace: access.AllNamespaces, Kind: "namespace", ID: name})
}

// checkNamespace refuses what no namespace set through the API can be.
func checkNamespace(n access.Namespace) error {
	if n.Name == access.AllNamespaces || n.Name == ServiceNamespace {
		return &InvalidError{Field: "name", Message: fmt.Sprintf("%q is the service's own name", n.Name), Hint: "choose another"}
	}
	if err := n.Validate(); err != nil {
		return &InvalidError{Field: "namespace", Message: err.Error(), Hint: "names are in lower case, prefixes of addresses have their host bits zero"}
	}
	return nil
}

// changeNamespace reads, decides, and records; where another change comes in between, it begins again. One of the configuration file is
// changed where the file says the same (ofFile).
func (c *CA) changeNamespace(ctx context.Context, actor access.Actor, name string, after int, ofFile bool,
	change func(before NamespaceVersion) (next NamespaceVersion, same bool, err error),
) (NamespaceVersion, error) {
	for {
		var before NamespaceVersion
		history, err := c.store.NamespaceHistory(ctx, name)
		if err != nil {
			return NamespaceVersion{}, fmt.Errorf("reading namespace %q: %w", name, err)
		}
		if len(history) > 0 {
			before = history[0]
		}
		switch {
		case before.Source == SourceFile && !before.Removed && !ofFile:
			return NamespaceVersion{}, fmt.Errorf("namespace %q: %w", name, ErrOfFile)
		case after >= 0 && after != before.Version:
			return NamespaceVersion{}, fmt.Errorf("namespace %q is at version %d: %w", name, before.Version, ErrChanged)
		}
		next, same, err := change(before)
		if err != nil || same {
			return before, err
		}
		next.Version, next.Actor = before.Version+1, actor.ID
		err = c.recordNamespace(ctx, next)
		if errors.Is(err, ErrFenced) && ctx.Err() == nil {
			continue // another change came first: look again
		}
		if err != nil {
			return NamespaceVersion{}, err
		}
		if err := c.LearnNamespaces(ctx); err != nil {
			c.log.WarnContext(ctx, "a namespace was changed; it is learnt a little later", "namespace", name, "error", err)
		}
		history, err = c.store.NamespaceHistory(ctx, name)
		if err != nil || len(history) == 0 {
			return next, err
		}
		return history[0], nil
	}
}

// Namespaces are the namespaces that hold and that the actor may see: its own, or all.
func (c *CA) Namespaces(ctx context.Context, actor access.Actor) ([]NamespaceVersion, error) {
	if err := c.authorize(ctx, actor, access.ReadNamespace, access.Resource{Namespace: actor.Namespace, Kind: "namespace"}); err != nil {
		return nil, err
	}
	latest, err := c.store.Namespaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the namespaces: %w", err)
	}
	return slices.DeleteFunc(latest, func(v NamespaceVersion) bool {
		return v.Removed || actor.Namespace != access.AllNamespaces && actor.Namespace != v.Name
	}), nil
}

// NamespaceHistory is every version of a namespace, latest first; ErrNotFound when there never was one.
func (c *CA) NamespaceHistory(ctx context.Context, actor access.Actor, name string) ([]NamespaceVersion, error) {
	if err := c.authorize(ctx, actor, access.ReadNamespace, access.Resource{Namespace: name, Kind: "namespace", ID: name}); err != nil {
		return nil, err
	}
	history, err := c.store.NamespaceHistory(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading namespace %q: %w", name, err)
	}
	if len(history) == 0 {
		return nil, fmt.Errorf("namespace %q: %w", name, ErrNotFound)
	}
	return history, nil
}
