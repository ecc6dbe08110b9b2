package policies

import (
	"slices"
	"strings"
)

// AllowsHold tells whether a certificate of the profile may be put on hold. The requirements of the CA/Browser Forum for TLS servers, code
// signing and S/MIME forbid it, each in its section 4.9.13: a profile that is linted by one, as each that follows one is, does not allow it.
func (p *Profile) AllowsHold() bool {
	return !slices.ContainsFunc(p.lint.Sources, func(source string) bool { return strings.HasPrefix(source, "CABF_") })
}

// Lint says how certificates of the profile are linted.
func (p *Profile) Lint() Lint { return p.lint }
