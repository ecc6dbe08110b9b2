package policies

import (
	"strings"
	"unicode"
)

// idnaProblem says why a U-label is not one of IDNA2008 although its A-label decodes: golang.org/x/net/idna follows UTS 46, which also
// lets symbols through (RFC 5892, section 2.8 and appendix A; RFC 5891, section 4.2.3). What UTS 46 maps to something else never comes
// here, so of RFC 5892's categories only those are asked that it does not know.
func idnaProblem(u string) string {
	runes := []rune(u)
	for i, r := range runes {
		switch {
		case r <= unicode.MaxASCII:
			continue // letters, digits and hyphens, as its A-label has them
		case contextual(r):
			if !contextRule(runes, i) {
				return "holds " + quote(string(r)) + " where it has no meaning"
			}
		case !protocolValid(r):
			return "holds " + quote(string(r)) + ", which is not a letter or digit of IDNA2008"
		}
	}
	return ""
}

// protocolValid tells whether a character is PVALID by RFC 5892, section 3, given that UTS 46 leaves it as it is.
func protocolValid(r rune) bool {
	switch r {
	case 0x00df, 0x03c2, 0x06fd, 0x06fe, 0x0f0b, 0x3007: // Exceptions, PVALID (section 2.6)
		return true
	case 0x0640, 0x07fa, 0x302e, 0x302f, 0x3031, 0x3032, 0x3033, 0x3034, 0x3035, 0x303b: // Exceptions, DISALLOWED
		return false
	}
	switch {
	case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), unicode.Is(unicode.Variation_Selector, r): // section 2.3
		return false
	case inRange(r, 0x20d0, 0x20ff), inRange(r, 0x1d100, 0x1d1ff), inRange(r, 0x1d200, 0x1d24f): // IgnorableBlocks (section 2.4)
		return false
	case inRange(r, 0x1100, 0x11ff), inRange(r, 0xa960, 0xa97c), inRange(r, 0xd7b0, 0xd7fb): // OldHangulJamo (section 2.9)
		return false
	}
	return unicode.In(r, unicode.Ll, unicode.Lo, unicode.Lm, unicode.Mn, unicode.Mc, unicode.Nd) // LetterDigits (section 2.1)
}

func inRange(r, first, last rune) bool { return first <= r && r <= last }

// contextual tells whether a character is CONTEXTJ or CONTEXTO.
func contextual(r rune) bool {
	switch r {
	case 0x200c, 0x200d, 0x00b7, 0x0375, 0x05f3, 0x05f4, 0x30fb:
		return true
	}
	return inRange(r, 0x0660, 0x0669) || inRange(r, 0x06f0, 0x06f9)
}

// contextRule applies the rules of RFC 5892, appendix A. That of the joiners (A.1, A.2) golang.org/x/net/idna has applied.
func contextRule(label []rune, i int) bool {
	before, after := rune(-1), rune(-1)
	if i > 0 {
		before = label[i-1]
	}
	if i+1 < len(label) {
		after = label[i+1]
	}
	has := func(in func(rune) bool) bool { return strings.ContainsFunc(string(label), in) }
	switch r := label[i]; {
	case r == 0x00b7: // A.3, between two l
		return before == 'l' && after == 'l'
	case r == 0x0375: // A.4, before a Greek letter
		return unicode.Is(unicode.Greek, after)
	case r == 0x05f3 || r == 0x05f4: // A.5 and A.6, after a Hebrew letter
		return unicode.Is(unicode.Hebrew, before)
	case r == 0x30fb: // A.7, in a label with Hiragana, Katakana or Han
		return has(func(r rune) bool {
			return r != 0x30fb && unicode.In(r, unicode.Hiragana, unicode.Katakana, unicode.Han)
		})
	case inRange(r, 0x0660, 0x0669): // A.8, never with the extended digits
		return !has(func(r rune) bool { return inRange(r, 0x06f0, 0x06f9) })
	case inRange(r, 0x06f0, 0x06f9): // A.9
		return !has(func(r rune) bool { return inRange(r, 0x0660, 0x0669) })
	}
	return true
}
