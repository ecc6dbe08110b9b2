package policies

import (
	"fmt"
	"strconv"
	"strings"
)

// maxQuoted bounds how much of a value from outside is repeated in a message.
const maxQuoted = 100

// quote makes a value from outside fit to be shown: in ASCII, escaped, and of bounded length.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// maxListed is how many values of a list a hint repeats.
const maxListed = 5

// some joins the first values of a list for people to read.
func some[T any](list []T) string {
	words := make([]string, 0, maxListed+1)
	for i, v := range list {
		if i == maxListed {
			words = append(words, "...")
			break
		}
		words = append(words, fmt.Sprint(v))
	}
	return strings.Join(words, ", ")
}

// maxSeen bounds what is shown of the value that a rule looked at.
const maxSeen = 300

// bounded cuts a text that is fit to be shown to a length that is.
func bounded(s string) string {
	if len(s) > maxSeen {
		return s[:maxSeen] + "..."
	}
	return s
}
