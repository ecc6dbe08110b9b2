package client

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The types of problems that programs decide on most. The API documents all of them.
const (
	TypeRefused     = "urn:chancery:problem:refused"                // the policies refuse; Violations say why
	TypeNotFound    = "urn:chancery:problem:not-found"              // there is nothing of this name that the caller may see
	TypeDenied      = "urn:chancery:problem:denied"                 // the caller's roles do not allow it
	TypeKeyReused   = "urn:chancery:problem:idempotency-key-reused" // the key was used for another request
	TypeKeyBusy     = "urn:chancery:problem:idempotency-key-busy"   // the first request with the key is being worked on
	TypeQuota       = "urn:chancery:problem:quota-exhausted"        // a quota is used up; RetryAfter says for how long
	TypeConflict    = "urn:chancery:problem:conflict"               // the state does not allow it: a request that is decided, say
	TypeNotLogged   = "urn:chancery:problem:not-logged-yet"         // no checkpoint of the audit log covers it yet; in seconds one will
	TypeUnavailable = "urn:chancery:problem:unavailable"            // later it may work
)

// Violation is one way in which a request breaks a rule, in words for the requester.
type Violation struct {
	Rule    string `json:"rule"`
	Field   string `json:"field"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Problem is an answer that is not a success (RFC 9457).
type Problem struct {
	Type       string      `json:"type"`
	Title      string      `json:"title"`
	Status     int         `json:"status"`
	Detail     string      `json:"detail"`
	Instance   string      `json:"instance"` // the request, as the service's log names it
	Violations []Violation `json:"violations"`

	RetryAfter time.Duration `json:"-"` // when to come back; 0: not told
	MayBeDone  bool          `json:"-"` // by an earlier attempt of the same call, of which it is not known what came
}

// Error tells people what went wrong: every violation on its own line, with what to do about it.
func (p *Problem) Error() string {
	var text strings.Builder
	text.WriteString(p.Title)
	if len(p.Violations) == 0 && p.Detail != "" {
		text.WriteString(": " + p.Detail)
	}
	for _, v := range p.Violations {
		fmt.Fprintf(&text, "\n  %s: %s", v.Rule, v.Message)
		if v.Hint != "" {
			text.WriteString("\n    hint: " + v.Hint)
		}
	}
	if p.Status >= http.StatusInternalServerError && p.Instance != "" {
		text.WriteString(" (" + p.Instance + ")")
	}
	if p.MayBeDone && p.Status < http.StatusInternalServerError {
		text.WriteString("\n  an earlier attempt of this call failed half way, and may have done it: look before you repeat it")
	}
	return text.String()
}

// readProblem reads an answer that is not a success. What does not speak for the service itself, such as a proxy, is told by its status.
func readProblem(response *http.Response, body []byte) *Problem {
	p := &Problem{}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if mediaType != "application/problem+json" || json.Unmarshal(body, p) != nil || p.Title == "" {
		*p = Problem{Title: "the service answered " + strconv.Itoa(response.StatusCode) + " " + http.StatusText(response.StatusCode)}
	}
	p.Status = response.StatusCode
	p.RetryAfter = retryAfter(response.Header)
	return p
}

// retryAfter reads Retry-After in seconds or as a date, which counts from the answer's own (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	sent, err2 := http.ParseTime(h.Get("Date"))
	if err != nil || err2 != nil {
		return 0
	}
	return max(0, at.Sub(sent))
}
