package access

// Unauthenticated says that a caller's credentials are missing or not good. It is shown to the caller, but for its cause.
type Unauthenticated struct {
	Detail    string // for people: what is wrong, without telling more about credentials than their holder knows
	Challenge string // the WWW-Authenticate header (RFC 9110, section 11.6.1); empty: none
	Shown     bool   // credentials were shown: it counts as an attempt at guessing
	Cause     error  // for the log
}

func (u *Unauthenticated) Error() string {
	if u.Cause == nil {
		return "not authenticated: " + u.Detail
	}
	return "not authenticated: " + u.Detail + ": " + u.Cause.Error()
}

// Unwrap is the cause.
func (u *Unauthenticated) Unwrap() error { return u.Cause }
