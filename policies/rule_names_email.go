package policies

// namesEmail holds mailboxes to RFC 5280, section 4.2.1.6: an ASCII dot-string at a domain name.
var namesEmail = rule[*evaluation]{
	id: ruleNamesEmail, source: "RFC 5280, 4.2.1.6",
	check: func(e *evaluation, f *findings) {
		for _, flaw := range e.names.mailFlaws {
			f.refuse(flaw.field, flaw.hint, "%s", flaw.message)
		}
	},
}
