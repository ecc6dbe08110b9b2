package policies

// maxPathLen is more than any hierarchy needs.
const maxPathLen = 10

// authorityPathLen holds that a subordinate may have fewer authorities below it than its parent, whose length is its own or what those above
// it leave (RFC 5280, section 4.2.1.9).
var authorityPathLen = rule[*authority]{
	id: "authority.path-length", source: "RFC 5280, 4.2.1.9",
	check: func(a *authority, f *findings) {
		const field = "path_len"
		if a.PathLen < -1 || a.PathLen > maxPathLen {
			f.refuse(field, "0 to 10, or none", "%d is not a path length", a.PathLen)
		}
		for between, above := range a.ancestors() {
			limit := above.MaxPathLen // 0 stands for "none" unless MaxPathLenZero
			if limit < 0 || limit == 0 && !above.MaxPathLenZero {
				continue
			}
			switch left := limit - between; { // what the authorities in between have not used up
			case left <= 0:
				f.refuse(field, "choose a parent that may have authorities below it", "the parent may have no authority below it")
			case a.PathLen < 0 || a.PathLen >= left:
				f.refuse(field, "stay below the parent's path length", "the path length must be less than the parent's, %d", left)
			default:
				continue
			}
			return
		}
	},
}
