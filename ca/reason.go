package ca

import "github.com/chancery-ca/chancery/issuance"

// Reason is a CRLReason (RFC 5280, section 5.3.1), for front ends, which do not know issuance.
type Reason = issuance.Reason

// ParseReason reads a reason by its RFC 5280 name, in any case, or by number.
func ParseReason(s string) (Reason, error) { return issuance.ParseReason(s) }

// ReasonNames are the names of all reasons, in order of number.
func ReasonNames() []string { return issuance.ReasonNames() }
