package policies

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// namesConfusable gives notice of internationalised labels that people may take for others (UTS 39, sections 4 and 5.2). It refuses none:
// what such a label says is known only to who reads it.
var namesConfusable = rule[*evaluation]{
	id: "names.confusable", source: "UTS 39, 5.2",
	seen: seenNames("dns"),
	check: func(e *evaluation, f *findings) {
		for _, name := range e.names.dns {
			if !strings.Contains(name.value, "xn--") {
				continue
			}
			for label := range strings.SplitSeq(name.value, ".") {
				if problem := confusable(label); problem != "" {
					f.notice(name.field(), "compare the name, letter by letter, with the one that was meant", "%s has the label %s, which %s",
						quote(name.value), quote(label), problem)
				}
			}
		}
	},
}

// confusable says what is suspicious in an A-label; it is silent on others.
func confusable(label string) string {
	if !strings.HasPrefix(label, "xn--") {
		return ""
	}
	u, err := idna.Punycode.ToUnicode(label)
	if err != nil {
		return "" // not an A-label: the rule on syntax refuses it
	}
	if seen := skeleton(u); seen != "" {
		return "is easily read as " + quote(seen)
	}
	if scripts := scriptsOf(u); !highlyRestrictive(scripts) {
		return "mixes scripts: " + strings.Join(scripts, ", ")
	}
	return ""
}

// skeleton is the label in ASCII that people would read, where each of its other letters looks like one of ASCII; else it is empty.
func skeleton(u string) string {
	seen := strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII {
			return r
		}
		if ascii, ok := lookalikes[r]; ok {
			return ascii
		}
		return -1
	}, u)
	if len(seen) != len([]rune(u)) {
		return ""
	}
	return seen
}

// lookalikes are lower-case letters that common typefaces show as a letter of ASCII (UTS 39, confusables.txt): those of Cyrillic, Greek,
// Armenian, and Latin itself, that are letters of a domain name.
var lookalikes = map[rune]rune{
	'а': 'a', 'с': 'c', 'ԁ': 'd', 'е': 'e', 'һ': 'h', 'і': 'i', 'ј': 'j', 'ӏ': 'l', 'о': 'o', 'р': 'p', 'ԛ': 'q', 'г': 'r', 'ѕ': 's',
	'ѵ': 'v', 'ԝ': 'w', 'х': 'x', 'у': 'y',
	'α': 'a', 'γ': 'y', 'ι': 'i', 'ν': 'v', 'ο': 'o', 'ρ': 'p', 'σ': 'o', 'υ': 'u',
	'գ': 'q', 'հ': 'h', 'ո': 'n', 'ս': 'u', 'ց': 'g', 'օ': 'o', 'զ': 'q',
	'ı': 'i', 'ɑ': 'a', 'ɡ': 'g', 'ɩ': 'i',
}

// scriptsOf are the scripts of a label's letters, by name and in the order of their first letter.
func scriptsOf(u string) (scripts []string) {
	seen := map[string]bool{"Common": true, "Inherited": true}
	for _, r := range u {
		for name, table := range unicode.Scripts {
			if unicode.Is(table, r) {
				if !seen[name] {
					seen[name] = true
					scripts = append(scripts, name)
				}
				break // a character is of one script
			}
		}
	}
	return scripts
}

// highlyRestrictive tells whether scripts go together as UTS 39, section 5.2, has it for that level: one alone, or those of Japanese,
// Chinese and Korean with Latin.
func highlyRestrictive(scripts []string) bool {
	if len(scripts) <= 1 {
		return true
	}
	for _, together := range []string{"Latin Han Hiragana Katakana", "Latin Han Bopomofo", "Latin Han Hangul"} {
		if all(scripts, func(script string) bool { return strings.Contains(" "+together+" ", " "+script+" ") }) {
			return true
		}
	}
	return false
}
