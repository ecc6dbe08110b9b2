package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const soundKeeper = `socket: keeper.sock
peers: ["10002", root]
journal: journal
keys: keys.yaml
tokens: [{name: main, module: /usr/lib/softhsm/libsofthsm2.so, token: {label: chancery}, pin: {file: pin}}]
`

func TestKeeperConfigIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keeper.yaml")
	if err := os.WriteFile(path, []byte(soundKeeper), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadKeeperConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := c.settings()
	if err != nil {
		t.Fatal(err)
	}
	if c.Socket != filepath.Join(filepath.Dir(path), "keeper.sock") || fmt.Sprint(settings.Peers) != "[10002 0]" || len(settings.Tokens) != 1 {
		t.Errorf("%+v, %+v", c, settings)
	}
	// Whoever can write the policy can sign anything.
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKeeperConfig(path); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a configuration that others can write: %v", err)
	}
}

func TestKeeperConfigIsRefused(t *testing.T) {
	for what, change := range map[string][2]string{
		"an unknown field":              {"journal: journal", "journal: journal\nunknown: 1"},
		"no socket":                     {"socket: keeper.sock\n", ""},
		"no journal":                    {"journal: journal\n", ""},
		"no keys":                       {"keys: keys.yaml\n", ""},
		"an unknown user":               {"root]", "nobody-of-that-name]"},
		"no token":                      {"tokens: [{name: main", "tokens: [] # [{name: main"},
		"two sources of PIN":            {"pin: {file: pin}", "pin: {file: pin, env: PIN}"},
		"a PIN in the file":             {"pin: {file: pin}", "pin: 1234"},
		"no credential":                 {"pin: {file: pin}", "pin: {credential: pin}"},
		"no selection":                  {"token: {label: chancery}, ", ""},
		"a level without a certificate": {"pin: {file: pin}", "pin: {file: pin}, fips_140: {level: 3}"},
		"no module":                     {"module: /usr/lib/softhsm/libsofthsm2.so, ", ""},
	} {
		path := filepath.Join(t.TempDir(), "keeper.yaml")
		text := strings.Replace(soundKeeper, change[0], change[1], 1)
		if text == soundKeeper {
			t.Fatalf("%s: nothing was changed", what)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadKeeperConfig(path); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

// From which number an authority numbers its CRLs is a number, however long and however written.
func TestNumbersFromIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	for number, want := range map[string]string{
		"20261129072500": "20261129072500", `"20261129072500"`: "20261129072500", `""`: "<nil>",
		childNumbersFrom: childNumbersFrom, `"` + childNumbersFrom + `"`: childNumbersFrom,
		"-1": "refused", "0x10": "refused", "1e3": "refused", `"007"`: "refused",
	} {
		if err := os.WriteFile(path, []byte("keys: [{name: ca, crls: {max_validity: 10d, numbers_from: "+number+"}}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		policies, err := loadKeyFile(path)
		got := "refused"
		if err == nil {
			got = policies[0].CRLs.NumbersFrom.String()
		} else if !strings.Contains(err.Error(), "numbers_from") {
			t.Errorf("%s: %v", number, err)
		}
		if got != want {
			t.Errorf("%s is read as %s, %v", number, got, err)
		}
	}
}

func TestIsolationIsChecked(t *testing.T) {
	const sound = "hsm:\n  module: /usr/lib/softhsm/libsofthsm2.so\n  token: {label: chancery}\n  pin: {file: pin}\n"
	for hsm, refused := range map[string]string{
		"hsm: {isolation: keeper, socket: s}\n":                                                                    "",
		"hsm: {isolation: keeper}\n":                                                                               "hsm.socket",
		"hsm: {isolation: keeper, socket: s, pin: {file: pin}}\n":                                                  "must not know",
		"hsm: {isolation: wall}\n":                                                                                 "hsm.isolation",
		"hsm: {isolation: child, socket: s}\n":                                                                     "hsm.module",
		"hsm: {isolation: child, socket: s, module: m, token: {label: l}, pin: {file: p}}\n":                       "",
		"hsm: {isolation: child, socket: s, module: m, token: {label: l}, pin: {prompt: true}}":                    "neither asks",
		"hsm: {isolation: keeper, socket: s}\ntokens: [{name: a, module: m, token: {label: l}, pin: {file: p}}]\n": "must not know",
		"hsm: {isolation: child, socket: s}\ntokens: [{name: a, module: m, token: {serial: 1}, pin: {file: p}}, {name: b, module: m, token: {serial: 2}, pin: {env: P}}]\n": "",
		"hsm: {isolation: child, socket: s}\ntokens: [{name: a, module: m, token: {serial: 1}, pin: {file: p}}, {name: b, module: m, token: {label: l}, pin: {file: p}}]\n": "add its serial",
		"hsm: {isolation: child, socket: s}\ntokens: [{name: a, module: m, token: {serial: 1}, pin: {prompt: true}}]\n":                                                     "tokens[0].pin",
		"hsm: {isolation: child, socket: s, module: m, token: {label: l}, pin: {file: p}, usage: u.yaml}\n":                                                                 "hsm.usage",
		"hsm: {isolation: keeper, socket: s, usage: u.yaml}\n":                                                                                                              "hsm.usage",
		"hsm: {isolation: child, socket: s}\ntokens: [{name: a, module: m, token: {serial: 1}, pin: {file: p}, usage: u.yaml}]\n":                                           "tokens[0].usage",
		sound + "  socket: s\n": "hsm.socket",
	} {
		text := strings.Replace(soundConfig, sound, strings.TrimSuffix(hsm, "\n")+"\n", 1)
		if text == soundConfig {
			t.Fatal("nothing was changed")
		}
		_, err := parseConfig("chancery.yaml", []byte(text), nil)
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%q: want %q, got %v", hsm, refused, err)
		}
	}
}

// The commands that the systemd units start are there, with their flags. What else stands in a unit `make units` checks.
func TestUnitsStartCommandsThatExist(t *testing.T) {
	units, err := filepath.Glob("../../deploy/*.service")
	if err != nil || len(units) != 4 {
		t.Fatalf("%v, %v", units, err)
	}
	for _, unit := range units {
		_, rest, _ := strings.Cut(string(read(t, unit)), "\nExecStart=/usr/bin/chancery ")
		line, _, found := strings.Cut(rest, "\n")
		if _, stderr, code := typed(t, "", append(strings.Fields(line), "--help")...); !found || code != 0 {
			t.Errorf("%s starts %q: %d %s", unit, line, code, stderr)
		}
	}
}
