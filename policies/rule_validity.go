package policies

import "time"

// validityRule bounds the validity by the profile's maximum of the day (BR, section 6.3.2) and by the issuer's own end (RFC 5280, section
// 6.1.3: a certificate that outlives its issuer cannot be verified to its end).
var validityRule = rule[*evaluation]{
	id: "validity", source: "BR 6.3.2",
	check: func(e *evaluation, f *findings) {
		const field = "validity"
		longest := e.profile.validity.maxAt(e.Now)
		switch {
		case e.Validity < 0:
			f.refuse(field, "ask for a positive duration, or for none", "the validity is negative")
			return
		case e.Validity%time.Second != 0:
			f.refuse(field, "ask for whole seconds", "the validity is not a whole number of seconds")
			return
		case e.Validity > longest:
			if s, binds := e.profile.validity.bindingAt(e.Now); binds {
				f.refuse(field, "ask for "+formatDuration(longest)+" at most", "a validity of %s is longer than %s allows now (%s %s)",
					formatDuration(e.Validity), s.name, s.source, s.section)
				return
			}
			f.refuse(field, "ask for "+formatDuration(longest)+" at most", "a validity of %s is longer than the profile %s allows",
				formatDuration(e.Validity), quote(e.profile.name))
			return
		}
		notBefore, notAfter := e.period()
		if !notAfter.After(e.Now) {
			f.refuse(field, "ask for more than "+formatDuration(e.profile.validity.backdate), "the certificate would have ended before it is made")
		}
		if end := e.issuer.NotAfter; notAfter.After(end) {
			hint := "ask the operator for an authority that lasts longer"
			if left := end.Sub(notBefore) + time.Second; left > 0 {
				hint = "ask for " + formatDuration(left) + " at most"
			}
			f.refuse(field, hint, "the certificate would outlive its issuer, which ends at %s", end.UTC().Format(time.RFC3339))
		}
	},
}
