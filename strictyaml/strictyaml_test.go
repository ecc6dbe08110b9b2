package strictyaml

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name  string   `yaml:"name"`
	Count int      `yaml:"count"`
	For   Duration `yaml:"for"`
	List  []struct {
		Key string `yaml:"key"`
	} `yaml:"list"`
}

func TestDecodeReadsWhatIsPlain(t *testing.T) {
	var s sample
	d := Decode("a.yaml", []byte("name: x\ncount: 3\nfor: 90d\nlist:\n  - key: a\n  - key: b\n"), &s)
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	if s.Name != "x" || s.Count != 3 || time.Duration(s.For) != 90*24*time.Hour || len(s.List) != 2 {
		t.Errorf("read %+v", s)
	}
	for path, line := range map[string]int{"name": 1, "count": 2, "list": 4, "list[1].key": 6, "list[1].absent": 6, "absent": 1} {
		if got := d.Line(path); got != line {
			t.Errorf("Line(%q) = %d, want %d", path, got, line)
		}
	}
}

func TestDecodeRefusesSurprises(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want string // file, line, and a part of the message
	}{
		"anchor":         {"name: &a x\n", "f:1: name: anchors"},
		"alias":          {"list: &l []\nname: *l\n", "f:2: name: anchors"},
		"merge":          {"list:\n  - <<: {key: a}\n", "f:2: list[0]: merge"},
		"duplicate":      {"name: x\ncount: 1\nname: y\n", "f:3: name: the key stands here twice"},
		"unknown":        {"name: x\nnmae: y\n", "f:2: nmae: unknown field"},
		"wrong type":     {"count: many\n", "f:1: a value of this type"},
		"two documents":  {"name: x\n---\nname: y\n", "more than one document"},
		"tag":            {"name: !!binary eA==\n", "f:1: name: tags"},
		"empty":          {"", "the file is empty"},
		"not yaml":       {"name: [x\n", "f:"},
		"bad duration":   {"name: x\nfor: fortnight\n", "f:2:"},
		"list as for":    {"for: [1]\n", "f:1:"},
		"too large":      {strings.Repeat("# x\n", MaxSize/4+1), "more than"},
		"null":           {"name:\ncount: 1\n", "f:1: name: the value is empty"},
		"no mapping":     {"- a\n", "does not hold a mapping"},
		"too deep":       {"list: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "nested too deeply"},
		"key not a word": {"? [a]\n: b\n", "a key must be a plain word"},
	} {
		t.Run(name, func(t *testing.T) {
			var s sample
			err := Decode("f", []byte(c.in), &s).Err()
			var all *Error
			if !errors.As(err, &all) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	var s sample
	d := Decode("f", []byte("nmae: x\ncount: many\nfor: soon\n"), &s)
	d.Refuse("count", "write a number", "%q is no number", "many")
	if n := len(d.Problems()); n != 4 {
		t.Errorf("%d problems, want 4: %v", n, d.Err())
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90d": 90 * dayLength, "1y": 365 * dayLength, "720h": 720 * time.Hour, "2d12h30m": 60*time.Hour + 30*time.Minute,
		"1y1d": 366 * dayLength, "5s": 5 * time.Second, "0s": 0,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
		if again, err := ParseDuration(strings.ReplaceAll(Duration(want).String(), "m0s", "m")); err != nil && want != 0 {
			t.Errorf("%v is written as %q, which is not read back: %v", want, Duration(want), again)
		}
	}
	for _, bad := range []string{"", "d", "-1d", "1.5h", "90", "1d1y", "99999999999y", "300y", "1w", " 1d"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", bad, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nlist: [{key: a}]\nfor: 1d\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sample
		if err := Decode("f", data, &s).Err(); err != nil && fmt.Sprint(err) == "" {
			t.Error("a refusal without a word")
		}
	})
}

// TestNumbers holds that a whole number is read as it is written, or not at all, and that a text may look like any number.
func TestNumbers(t *testing.T) {
	type inner struct {
		Count int `yaml:"count"`
	}
	type all struct {
		N     int               `yaml:"n"`
		P     *uint             `yaml:"p"`
		F     float64           `yaml:"f"`
		Text  string            `yaml:"text"`
		Texts []string          `yaml:"texts"`
		List  []int             `yaml:"list"`
		Map   map[string]int    `yaml:"map"`
		Each  []inner           `yaml:"each"`
		Named map[string]*inner `yaml:"named"`
		For   Duration          `yaml:"for"`
		inner `yaml:",inline"`
	}
	for text, field := range map[string]string{
		"n: 12": "", "n: -1": "", "n: 0": "", "n: 1_000": "", "n: 0x10": "", "n: 0o17": "", "p: 7": "", "f: 1.5": "", "f: 010": "",
		"text: 1.10": "", "text: 010": "", "texts: [010, 1.5]": "", "for: 10s": "", "list: [1, 2]": "", "count: 3": "",
		"n: 1.9": "n", "n: .5": "n", "n: 1e3": "n", "n: 1.0": "n", "n: 010": "n", "n: -07": "n", "n: 0_1": "n", "p: 0.5": "p",
		"list: [1, 2.5]": "list[1]", "map: {a: 010}": "map.a", "each: [{count: 1}, {count: 1.5}]": "each[1].count", "count: 0.5": "count",
		"named: {x: {count: 08}}": "named.x.count", "named: {x: {count: 07}}": "named.x.count",
	} {
		var into all
		err := Decode("numbers.yaml", []byte(text), &into).Err()
		var failed *Error
		if field == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if !errors.As(err, &failed) || len(failed.Problems) != 1 || failed.Problems[0].Field != field || failed.Problems[0].Line != 1 {
			t.Errorf("%s: %+v, %v", text, into, err)
		}
	}
}
