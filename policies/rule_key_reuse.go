package policies

import (
	"slices"
	"strings"
)

// keyReuse says how far a key may be used: by a profile's keys.reuse, within the namespace that had it first, or for the same names
// alone. A key that serves two purposes falls with the weaker of them (NIST SP 800-57 Part 1, section 5.2). What another
// request does in the same moment is not seen here.
var keyReuse = rule[*evaluation]{
	id: ruleKeyReuse, source: "profile",
	seen: seenKey[*evaluation],
	check: func(e *evaluation, f *findings) {
		reuse := e.profile.keys.reuse
		if reuse == reuseAnywhere || e.replay { // a history that nobody kept is not judged again
			return
		}
		const field = "subjectPublicKeyInfo"
		if e.KeyHistory == nil {
			e.awaits.KeyHistory = true
			f.refuse(field, "ask the operator: the service has not looked the key up", "whether the key has been certified before is not known")
			return
		}
		asked := e.names.texts()
		for _, use := range e.KeyHistory {
			switch {
			case use.Namespace != e.Namespace.Name:
				f.refuse(field, "make a new key for this namespace", "the key has been certified for another namespace")
			case reuse == reuseSameNames && !slices.Equal(asked, sortedNames(use.Names)):
				f.refuse(field, "make a new key for these names", "the key has been certified for other names, under the serial %s: %s",
					quote(use.Serial), quote(some(use.Names)))
			}
			if f.full() {
				return
			}
		}
	},
}

// texts are the names as text, sorted.
func (n names) texts() []string {
	all := slices.Concat(values(n.dns), values(n.email), values(n.uri))
	for _, address := range n.ip {
		all = append(all, address.value.String())
	}
	return sortedNames(all)
}

func sortedNames(names []string) []string {
	sorted := slices.SortedFunc(slices.Values(names), strings.Compare)
	return slices.Compact(sorted)
}
