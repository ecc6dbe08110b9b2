package strictyaml

import "testing"

// TestRefuseText holds that a line of a text is found in the file where the text stands there line by line, and the field otherwise.
func TestRefuseText(t *testing.T) {
	var into struct {
		Literal string `yaml:"literal"`
		Folded  string `yaml:"folded"`
		Plain   string `yaml:"plain"`
	}
	d := Decode("f.yaml", []byte("plain: a\nliteral: |\n  one\n  two\nfolded: >\n  one\n  two\n"), &into)
	d.RefuseText("literal", 2, "", "literal")
	d.RefuseText("folded", 1, "", "folded")
	d.RefuseText("plain", 1, "", "plain")
	want := map[string]int{"literal": 4, "folded": 5, "plain": 1}
	if len(d.Problems()) != len(want) {
		t.Fatalf("got %v", d.Err())
	}
	for _, p := range d.Problems() {
		if p.Line != want[p.Message] || p.Field != p.Message {
			t.Errorf("%s is reported at line %d", p.Message, p.Line)
		}
	}
}
