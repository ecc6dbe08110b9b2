package policies

import "slices"

// AllowsHold tells whether a certificate of the profile may be put on hold. The Baseline Requirements, section 4.9.13, forbid it, so a
// profile that is linted by them does not allow it.
func (p *Profile) AllowsHold() bool { return !slices.Contains(p.lint.Sources, "CABF_BR") }

// Lint says how certificates of the profile are linted.
func (p *Profile) Lint() Lint { return p.lint }
