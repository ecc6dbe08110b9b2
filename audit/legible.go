package audit

import (
	"strings"
	"unicode"
)

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
