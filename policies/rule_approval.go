package policies

// approvalNeeded asks for the approval of persons where the profile asks for it whatever is requested. Rules of the profile's own may ask
// for it besides.
var approvalNeeded = rule[*evaluation]{
	id: "approval", source: "profile",
	check: func(e *evaluation, f *findings) {
		if a := e.profile.approval; a.always && a.count > 0 {
			f.approve("profile", a.hint(), "what the profile %s issues needs the approval of %s", quote(e.profile.name), persons(a.count))
		}
	},
	seen: func(e *evaluation) string { return persons(e.profile.approval.count) },
}
