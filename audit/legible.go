package audit

import (
	"strings"
	"unicode"
)

// Beginning is a text of at most so many octets: a longer one ends with an ellipsis, which comes on top. An event has its bounds, and what it
// quotes may have been written by anybody, who must not keep it from being told.
func Beginning(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Legible is a text that somebody wrote, such as a comment, fit to be shown among lines of our own: each further line stands behind mark, so
// that none looks like one of ours, and what is no letter or sign, such as a tab or an escape, is shown as U+FFFD.
func Legible(text, mark string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	return strings.ReplaceAll(text, "\n", "\n"+mark)
}
