package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm/usage"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/policies/trial"
	"github.com/chancery-ca/chancery/strictyaml"
)

// TestDocumentedCommandsExist reads every command line of the documents, and of the files in deploy, with the command line's own parser:
// each command is there, with its flags and with as many arguments as it takes. Whether it does what is said, scripts show.
func TestDocumentedCommandsExist(t *testing.T) {
	commands := 0
	for _, file := range documents(t) {
		for _, c := range commandLines(file, string(read(t, file))) {
			commands++
			if err := understood(c.args, c.whole); err != nil {
				t.Errorf("%s: chancery %s: %v", file, strings.Join(c.args, " "), err)
			}
		}
	}
	if commands < 200 {
		t.Errorf("the documents have %d command lines: the test asks wrongly", commands)
	}
	for _, args := range [][]string{
		{"no-such-command"},
		{"hsm", "no-such-command"},
		{"list", "--no-such-flag"},
		{"list", "--limit", "many"},
		{"approve"},
	} {
		if understood(args, true) == nil {
			t.Errorf("chancery %s is understood", strings.Join(args, " "))
		}
	}
}

// documents is what people read before they type.
func documents(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*", "docker-compose.yml"} {
		found, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				files = append(files, file)
			}
		}
	}
	return files
}

// commandLine is what stands behind the program's name.
type commandLine struct {
	args []string
	// whole is false of what a sentence names: it may leave arguments out.
	whole bool
}

var (
	// A command begins a line, or follows what leads to one: a prompt, a pipe, another program that starts it.
	startsCommand = regexp.MustCompile(`(?:^\s*(?:\$ )?|[|(;&] *|-- |exec(?: -T)? (?:chancery )?|ExecStart=\S*/)(?:bin/)?chancery ([^\n]*)`)
	fences        = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	codeSpan      = regexp.MustCompile("`chancery ([^`]+)`")
	placeholder   = regexp.MustCompile(`^[A-Z]+$`)
	shellWord     = regexp.MustCompile(`^(?:'[^']*'|"[^"]*"|\$\([^)]*\)|[^\s'"|;)])+`)
)

// commandLines finds the commands of a document: in its examples for the shell, fenced or indented, and in its sentences. Of other files
// every line is looked at.
func commandLines(file, text string) (all []commandLine) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	if !strings.HasSuffix(file, ".md") {
		for line := range strings.Lines(text) {
			line, comment := strings.CutPrefix(line, "#")
			if found := startsCommand.FindStringSubmatch(line); found != nil {
				all = append(all, commandLine{args: shellWords(found[1]), whole: !comment})
			}
		}
		return all
	}
	text = fences.ReplaceAllStringFunc(text, func(block string) string {
		language, lines, _ := strings.Cut(strings.TrimLeft(block, " `"), "\n")
		for line := range strings.Lines(lines) {
			if found := startsCommand.FindStringSubmatch(line); found != nil && (language == "sh" || strings.HasPrefix(line, "$ ")) {
				all = append(all, commandLine{args: shellWords(found[1]), whole: true})
			}
		}
		return ""
	})
	for line := range strings.Lines(text) {
		if found := startsCommand.FindStringSubmatch(line); found != nil && strings.HasPrefix(line, "    ") {
			all = append(all, commandLine{args: shellWords(found[1]), whole: true})
		}
		for _, found := range codeSpan.FindAllStringSubmatch(line, -1) {
			all = append(all, commandLine{args: shellWords(found[1])})
		}
	}
	return all
}

// shellWords divides a command as a shell would, up to where another begins, or a comment. What many blanks part from it is a comment, too.
func shellWords(line string) (words []string) {
	line, _, _ = strings.Cut(line, "      ")
	for line = strings.TrimLeft(line, " "); line != "" && !strings.ContainsRune("|>;&)#", rune(line[0])); line = strings.TrimLeft(line, " ") {
		word := shellWord.FindString(line)
		if word == "" {
			return words
		}
		line = line[len(word):]
		words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(word))
	}
	return words
}

// understood reads a command line as the program would, and carries nothing out.
func understood(args []string, whole bool) error {
	a := &app{Env: Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard}}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	// A group that is named with what it does not have.
	if cmd.HasSubCommands() && len(rest) > 0 && regexp.MustCompile(`^[a-z]`).MatchString(rest[0]) && cmd.Args == nil {
		return &unknownCommand{cmd, rest[0]}
	}
	elided := !whole || slices.ContainsFunc(rest, func(arg string) bool { return arg == "…" || arg == "..." })
	rest = slices.DeleteFunc(slices.Clone(rest), func(arg string) bool { return arg == "…" || arg == "..." })
	for i, arg := range rest {
		if placeholder.MatchString(arg) {
			rest[i] = "1" // is a word, and a number where one is asked for
		}
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		if elided && strings.Contains(err.Error(), "flag needs an argument") {
			return nil
		}
		return err
	}
	if elided || cmd.Flags().Changed("help") {
		return nil
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	return cmd.ValidateRequiredFlags()
}

type unknownCommand struct {
	group *cobra.Command
	name  string
}

func (u *unknownCommand) Error() string { return u.group.CommandPath() + " has no command " + u.name }

// TestDocumentedFilesAreSound reads every example of a configuration, a policy, a plan in the documents with the parser of what it is.
func TestDocumentedFilesAreSound(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, file := range append(files, "../../README.md") {
		for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(indented(string(read(t, file))), -1) {
			kind, err := soundExample(block[1])
			if err != nil {
				t.Errorf("%s: as a %s:\n%s\n%v", file, kind, block[1], err)
			}
			seen[kind]++
		}
	}
	for _, kind := range []string{"configuration", "keeper", "key policy", "plan", "profile", "namespace", "usage policy"} {
		if seen[kind] == 0 {
			t.Errorf("no document has a %s", kind)
		}
	}
}

// indented takes away the indentation of code blocks that belong to an item of a list.
func indented(text string) string {
	return regexp.MustCompile("(?s)\n   ```(\\w+)\n(.*?)\n   ```").ReplaceAllStringFunc(text, func(block string) string {
		return strings.ReplaceAll(block, "\n   ", "\n")
	})
}

// exampleParts are what an example may leave out, because it was said before: the least configuration, plan and profile there is.
var (
	leastConfig = map[string]string{
		"database":    `database: {url: "postgres://localhost/chancery"}`,
		"hsm":         `hsm: {module: m.so, token: {label: t}, pin: {file: pin}}`,
		"authorities": `authorities: [issuing-1]`,
	}
	leastPlan = map[string]string{
		"ceremony": "ceremony: example",
		"output":   "output: out",
		"authorities": `authorities: [{name: root, key: {algorithm: ecdsa-p256, label: root}, subject: {common_name: Root}, ` +
			`validity: 20y, path_len: 1, urls: {crl: "http://pki.example/root.crl", issuer: "http://pki.example/root.cer"}, crl: {validity: 180d}}]`,
	}
	leastProfile = map[string]string{
		"name":          "name: example",
		"description":   "description: Of an example.",
		"keys":          "keys: {ecdsa: {curves: [P-256], key_usage: [digitalSignature]}}",
		"ext_key_usage": "ext_key_usage: [serverAuth]",
		"validity":      "validity: {default: 30d, max: 60d, backdate: 5m}",
		"subject":       "subject: {attributes: [{type: commonName, presence: optional}], common_name: copy-of-san}",
		"names":         "names: {min: 1, dns: {}}",
		"lint":          "lint: {sources: [RFC5280]}",
	}
)

// completed adds what an example left out.
func completed(example string, least map[string]string) []byte {
	for _, key := range slices.Sorted(maps.Keys(least)) {
		if !regexp.MustCompile(`(?m)^`+key+`:`).MatchString(example) && (key != "hsm" || !strings.Contains("\n"+example, "\ntokens:")) {
			example += least[key] + "\n"
		}
	}
	return []byte(example)
}

// localised puts into an example what is on every machine, and a key where one is left out.
var localised = strings.NewReplacer("peers: [chancery]", "peers: [0]", "{credential: pin}", "{file: pin}",
	"MFkw…", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgfkq243pGrLJBPiLl6EOr0Ntey7FNczyqXqUCqEPMcXhYzdVOgVd8fgQ4Ukd7ocWO9UyUh6deTHH6zghcKu32Q==")

// soundExample reads an example as what it is, by the keys that it begins with, and says what it took it for.
func soundExample(text string) (kind string, err error) {
	text = localised.Replace(text)
	top := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^([a-z_]+):`).FindAllStringSubmatch(text, -1) {
		top[found[1]] = true
	}
	switch {
	case strings.HasPrefix(text, "- alert:"): // of Prometheus
		return "alert", nil
	case top["socket"] && top["peers"]:
		c := KeeperConfig{Log: LogConfig{Level: "info", Format: "json"}}
		doc := strictyaml.Decode("keeper.yaml", []byte(text), &c)
		c.validate(doc)
		return "keeper", doc.Err()
	case strings.HasPrefix(text, "    tokens: ["), strings.HasPrefix(text, "    crls: {"): // the middle of a key's policy
		text = "keys:\n  - name: example\n" + text
		fallthrough
	case top["keys"] && strings.Contains(text, "public_key:"):
		return "key policy", strictyaml.Decode("keys.yaml", []byte(text), new(KeyFile)).Err()
	case top["others"] || top["roles"]:
		_, err := usage.Parse("usage.yaml", []byte(text))
		return "usage policy", err
	case top["ceremony"] || top["logs"]:
		_, err := ceremony.ParsePlan("plan.yaml", completed(text, leastPlan))
		return "plan", err
	case top["cases"]:
		set := fstest.MapFS{"cases/example.yaml": &fstest.MapFile{Data: []byte(text)}}
		_, err := trial.ReadCases(set)
		return "cases", err
	case top["name"] && top["ip"]:
		var n NamespaceConfig
		doc := strictyaml.Decode("namespace.yaml", []byte(text), &n)
		n.validate(doc, "")
		return "namespace", doc.Err()
	case top["ct"] || top["names"] || top["rules"] || top["approval"] || top["keys"]:
		if top["keys"] && !strings.Contains(text, "curves:") {
			text += "  " + strings.TrimPrefix(leastProfile["keys"], "keys: {") // what the example adds to
			text = strings.TrimSuffix(text, "}") + "\n"
		}
		if top["names"] && !strings.Contains(text, "min:") {
			text += "  min: 1\n"
		}
		name := "example"
		if found := regexp.MustCompile(`(?m)^name: (.*)`).FindStringSubmatch(text); found != nil {
			name = found[1]
		}
		_, err := policies.LoadFiles([]policies.File{{Name: name + ".yaml", Content: completed(text, leastProfile)}})
		return "profile", err
	}
	_, err = parseConfig("chancery.yaml", completed(text, leastConfig), nil)
	return "configuration", err
}
