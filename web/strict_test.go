package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeStrict(t *testing.T) {
	var got IssueRequest
	if err := decodeStrict([]byte(" {\"profile\":\"\\u0061\", \"metadata\":{\"a\":\"1\",\"A\":\"2\"}}\n"), &got); err != nil {
		t.Fatal(err)
	}
	if want := (IssueRequest{Profile: "a", Metadata: map[string]string{"a": "1", "A": "2"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	for name, c := range map[string]struct{ text, rule, field string }{
		"escaped duplicate": {`{"profile":"a","\u0070rofile":"b"}`, "json.duplicate-name", "profile"},
		"deep duplicate":    {`{"metadata":{"x":"1","x":"2"}}`, "json.duplicate-name", "metadata.x"},
		"kelvin sign":       {"{\"\u212aey\":1}", "json.unknown-field", `"` + "\u212a" + `ey"`},
		"case":              {`{"CSR":"x"}`, "json.unknown-field", "CSR"},
		"long s":            {"{\"c\u017fr\":\"x\"}", "json.unknown-field", `"c` + "\u017f" + `r"`},
		"null in a map":     {`{"metadata":{"x":null}}`, "json.null", "metadata.x"},
		"whole null":        {`null`, "json.type", "body"},
		"number for map":    {`{"metadata":[]}`, "json.type", "metadata"},
		"number in map":     {`{"metadata":{"x":1}}`, "json.type", "metadata"},
		"half a surrogate":  {`{"profile":"\ud800"}`, "json.encoding", "profile"},
		"two values":        {`{}{}`, "json.trailing-data", "body"},
		"trailing comma":    {`{"profile":"a",}`, "json.syntax", "body"},
		"comment":           {`{/**/}`, "json.syntax", "body"},
		"byte order mark":   {"\ufeff{}", "json.syntax", "body"},
		"nothing":           {``, "json.syntax", "body"},
		"white space":       {` `, "json.syntax", "body"},
		"depth":             {strings.Repeat(`{"a":`, 20) + `1` + strings.Repeat(`}`, 20), "json.depth", "body"},
		"great depth":       {strings.Repeat(`[`, 1<<19), "json.depth", "body"},
		"control character": {"{\"profile\":\"a\nb\"}", "json.syntax", "body"},
	} {
		t.Run(name, func(t *testing.T) {
			var bad *invalid
			err := decodeStrict([]byte(c.text), &IssueRequest{})
			if !errors.As(err, &bad) || len(bad.violations) == 0 {
				t.Fatalf("got %v", err)
			}
			for _, v := range bad.violations {
				if v.Rule == c.rule && v.Field == c.field {
					return
				}
			}
			t.Errorf("got %+v, want %s of %s", bad.violations, c.rule, c.field)
		})
	}
}

// TestDecodeStrictInArrays: a quota's misspelt "profile" would bound all profiles together, and of two spellings the last would count.
func TestDecodeStrictInArrays(t *testing.T) {
	for field, text := range map[string]string{
		"quotas[].profle":       `{"quotas":[{"certificates":1,"per":"1d"},{"profle":"tls-server","certificates":1,"per":"1d"}]}`,
		"quotas[].Certificates": `{"quotas":[{"certificates":1,"Certificates":1000,"per":"1d"}]}`,
		"rates[].Per":           `{"rates":[{"requests":1,"Per":"1d"}]}`,
	} {
		var bad *invalid
		if err := decodeStrict([]byte(text), &NamespaceRequest{}); !errors.As(err, &bad) || len(bad.violations) != 1 ||
			bad.violations[0].Rule != "json.unknown-field" || bad.violations[0].Field != field {
			t.Errorf("%s: got %v, %+v", field, err, bad)
		}
	}
	good := `{"dns":["a.example"],"quotas":[{"profile":"tls-server","certificates":1,"per":"1d"}]}`
	if err := decodeStrict([]byte(good), &NamespaceRequest{}); err != nil {
		t.Error(err)
	}
}

// TestDecodeStrictMakesNothingOfManyNames: a mebibyte of names that somebody made up would be ten in memory, and a second of work for many
// such bodies.
func TestDecodeStrictMakesNothingOfManyNames(t *testing.T) {
	members := func(format string, n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(all, ",")
	}
	for name, c := range map[string]struct {
		text, rule string
		into       any
	}{
		"names":           {`{"metadata":{` + members(`"%x":""`, 100_000) + `}}`, "json.members", &IssueRequest{}},
		"one too many":    {`{"metadata":{` + members(`"%x":""`, maxMembers) + `}}`, "json.members", &IssueRequest{}},
		"objects":         {`{"quotas":[` + members(`{"per":"%d"}`, 50_000) + `]}`, "json.members", &NamespaceRequest{}},
		"arrays":          {`{"dns":[` + strings.Repeat(`[[]],`, 200_000) + `""]}`, "json.members", &NamespaceRequest{}},
		"in what is none": {`{"x":[` + members(`[{"x":%d}]`, 50_000) + `]}`, "json.members", &IssueRequest{}},
		"unknown names":   {`{` + members(`"%x":[]`, 100_000) + `}`, "json.unknown-field", &IssueRequest{}},
	} {
		var bad *invalid
		data := []byte(c.text)
		made := testing.AllocsPerRun(1, func() {
			if err := decodeStrict(data, c.into); !errors.As(err, &bad) || bad.violations[0].Rule != c.rule {
				t.Errorf("%s: got %v, %+v", name, err, bad)
			}
		})
		if made > 4*maxMembers {
			t.Errorf("%s: %v things were made in memory", name, made)
		}
	}
	if err := decodeStrict([]byte(`{"metadata":{`+members(`"%x":""`, maxMembers-1)+`}}`), &IssueRequest{}); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
}

func TestDecodeStrictReportsNoEndOfViolations(t *testing.T) {
	names := make([]string, 100)
	for i := range names {
		names[i] = `"x":1`
	}
	var bad *invalid
	if err := decodeStrict([]byte("{"+strings.Join(names, ",")+"}"), &IssueRequest{}); !errors.As(err, &bad) ||
		len(bad.violations) != maxViolations {
		t.Errorf("got %v", err)
	}
}

// faultsOf are the rules that a value breaks which encoding/json reads token by token: another reader than strictReader, to hold that one against.
func faultsOf(t *testing.T, d *json.Decoder, depth int, into map[string]bool) {
	t.Helper()
	next := func() json.Token {
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(string); ok && strings.ContainsRune(text, '\uFFFD') {
			into["json.encoding"] = true
		}
		return token
	}
	into["json.depth"] = into["json.depth"] || depth > maxDepth
	switch token := next(); token {
	case nil:
		into["json.null"] = true
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			name := next().(string)
			into["json.duplicate-name"] = into["json.duplicate-name"] || seen[name]
			seen[name] = true
			faultsOf(t, d, depth+1, into)
		}
		next()
	case json.Delim('['):
		for d.More() {
			faultsOf(t, d, depth+1, into)
		}
		next()
	}
}

// FuzzStrictJSON holds that what is accepted is read the same by everybody: written again, it is the same, and no name is there twice.
func FuzzStrictJSON(f *testing.F) {
	for _, seed := range []string{
		`{"profile":"a","csr":"b","metadata":{"k":"v"}}`, `{"profile":"a","profile":"b"}`, `{"Profile":"a"}`, `{"metadata":{"a":"1","a":"2"}}`,
		`{} {}`, `[[[[`, `{ "metadata" : { } , "csr" : "\u005c\"\\" }`, `[1.5e+3,true,{"a":[false , null]}]`, "{\"csr\":\"\xff\"}", `{"csr":"\ud800"}`, `{"csr":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got IssueRequest
		err := decodeStrict(data, &got)
		said := map[string]bool{}
		if err != nil {
			var bad *invalid
			if !errors.As(err, &bad) || len(bad.violations) == 0 || len(bad.violations) > maxViolations {
				t.Fatalf("a refusal that says nothing: %v", err)
			}
			for _, v := range bad.violations {
				said[v.Rule] = true
			}
			if len(bad.violations) == maxViolations {
				return
			}
		}
		if json.Valid(data) && utf8.Valid(data) {
			faults := map[string]bool{}
			decoder := json.NewDecoder(bytes.NewReader(data))
			decoder.UseNumber()
			faultsOf(t, decoder, 0, faults)
			for _, rule := range []string{"json.encoding", "json.null", "json.duplicate-name", "json.depth"} {
				if faults[rule] != said[rule] && !said["json.depth"] && !said["json.type"] && !said["json.members"] {
					t.Fatalf("%s: another reader says %v, and this one says %v", rule, faults[rule], said[rule])
				}
			}
			if faults["json.depth"] && err == nil {
				t.Fatal("accepted what nests too deep")
			}
		}
		if err != nil {
			return
		}
		var whole map[string]json.RawMessage
		if err := json.Unmarshal(data, &whole); err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		known := fieldNames(reflect.TypeFor[IssueRequest]())
		for name := range whole {
			if !slices.Contains(known, name) {
				t.Fatalf("accepted the unknown name %q", name)
			}
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var second IssueRequest
		if err := json.Unmarshal(again, &second); err != nil {
			t.Fatal(err)
		}
		if len(got.Metadata) == 0 {
			got.Metadata, second.Metadata = nil, nil
		}
		if !reflect.DeepEqual(got, second) {
			t.Fatalf("%+v became %+v", got, second)
		}
	})
}
