package policies

import "time"

const (
	maxRootValidity = 9132 * day // some 25 years (BR, section 7.1.2.1.1)
	maxClockOffset  = 48 * time.Hour
)

// authorityValidity holds that an authority begins about now (BR, section 7.1.2.1.1), that a root ends in its lifetime's bounds, and that a
// subordinate lies within its parent's validity.
var authorityValidity = rule[*authority]{
	id: "authority.validity", source: "BR 7.1.2.1.1",
	check: func(a *authority, f *findings) {
		if !a.NotAfter.After(a.NotBefore) {
			f.refuse("not_after", "name an end after the beginning", "the authority ends before it begins")
			return
		}
		if a.NotBefore.Nanosecond() != 0 || a.NotAfter.Nanosecond() != 0 {
			f.refuse("not_before", "cut the times to seconds", "the validity is not in whole seconds (RFC 5280, section 4.1.2.5)")
		}
		if a.NotAfter.UTC().Year() > 9999 {
			f.refuse("not_after", "name an end before the year 10000", "the year has more than four digits")
		}
		if offset := a.Now.Sub(a.NotBefore); offset > maxClockOffset || offset < -maxClockOffset {
			f.refuse("not_before", "begin on the day of the ceremony", "the authority begins more than 48 hours from the time of signing")
		}
		if !a.NotAfter.After(a.Now) {
			f.refuse("not_after", "name an end in the future", "the authority would have ended before it is made")
		}
		if a.Root && a.NotAfter.Sub(a.NotBefore)+time.Second > maxRootValidity {
			f.refuse("not_after", "end within 9132 days", "the root lasts longer than 25 years")
		}
		if p := a.Parent; p != nil && (a.NotBefore.Before(p.NotBefore) || a.NotAfter.After(p.NotAfter)) {
			f.refuse("not_after", "stay between "+p.NotBefore.UTC().Format(time.RFC3339)+" and "+p.NotAfter.UTC().Format(time.RFC3339),
				"the authority would not lie within the validity of its parent")
		}
	},
}
