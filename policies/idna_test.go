package policies

import (
	"testing"

	"golang.org/x/net/idna"
)

// TestIDNA2008 goes through RFC 5892's categories and contextual rules, by the section that each is of.
func TestIDNA2008(t *testing.T) {
	for _, c := range []struct {
		label string
		valid bool
	}{
		{"bücher", true},
		{"日本語", true},
		{"faß", true},
		{"βόλος", true},
		{"אבג", true},
		{"हिन्दी", true},
		{"〇", true},
		{"☃", false},
		{"i❤", false},
		{"a€", false},
		{"①", false},
		{"a–b", false},
		{"♥", false}, // not LetterDigits (2.1)
		{"aـb", false},
		{"〱", false}, // Exceptions (2.6)
		{"ᄀ", false},
		{"a⃐", false}, // OldHangulJamo (2.9), IgnorableBlocks (2.4)
		{"l·l", true},
		{"a·b", false},
		{"·", false},
		{"l·", false}, // A.3
		{"͵α", true},
		{"͵a", false}, // A.4
		{"א׳", true},
		{"׳א", false},
		{"א״", true},
		{"a״", false}, // A.5, A.6
		{"ア・イ", true},
		{"a・b", false}, // A.7
		{"ب٠١", true},
		{"ب۰۱", true},
		{"ب٠۱", false}, // A.8, A.9
	} {
		if problem := idnaProblem(c.label); (problem == "") != c.valid {
			t.Errorf("%q: %q, want valid %v", c.label, problem, c.valid)
		}
	}
}

// FuzzIDNA holds that an A-label which passes is the one way to write its U-label, and decodes to letters and digits.
func FuzzIDNA(f *testing.F) {
	for _, label := range []string{"xn--bcher-kva", "xn--n3h", "xn--ab-0ea", "xn--80ak6aa92e", "xn--a", "xn--zn7c"} {
		f.Add(label)
	}
	f.Fuzz(func(t *testing.T, label string) {
		if message, _ := labelProblem(label, label); message != "" || len(label) < 4 || label[:4] != "xn--" {
			return
		}
		u, err := idna.Registration.ToUnicode(label)
		if err != nil {
			t.Fatalf("%q passes and does not decode: %v", label, err)
		}
		if again, err := idna.Registration.ToASCII(u); err != nil || again != label {
			t.Fatalf("%q decodes to %q, which is %q: %v", label, u, again, err)
		}
		confusable(label)
	})
}
