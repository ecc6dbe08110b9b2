package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/strictyaml"
)

// serves starts the program with a configuration and tells whether it comes to serve, and what it said.
func (s *stack) serves(path string) (said string, serving bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	log := newLog("serving")
	cmd := exec.CommandContext(ctx, os.Args[0], "serve", "--config", path)
	cmd.Env = append(os.Environ(), actAsChancery+"=1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case line := <-log.serving:
		metrics, err := s.client.Get("http://" + line["operations"].(string) + "/metrics")
		if err != nil {
			s.t.Fatal(err)
		}
		var text strings.Builder
		_, err = io.Copy(&text, metrics.Body)
		if err = errors.Join(err, metrics.Body.Close()); err != nil {
			s.t.Fatal(err)
		}
		if s.hsm == "" && !strings.Contains(text.String(), `chancery_hsm_operation_duration_seconds_count{op="sign"}`) {
			s.t.Errorf("the metrics do not tell of signatures:\n%s", text.String())
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			s.t.Errorf("it ended with %v:\n%s", err, log)
		}
		return log.String(), true
	case <-ended:
		return log.String(), false
	}
}

const twoTokens = `replica: a
database: {url: "postgres://localhost/chancery"}
tokens:
  - name: roots
    module: /usr/lib/softhsm/libsofthsm2.so
    token: {serial: "01"}
    pin: {command: [cat, /run/pin]}
    timeouts: {open: 10s, session: 2s}
    fips_140: {level: 3, certificate: "4703"}
    usage: usage.yaml
  - name: issuing
    module: /usr/lib/softhsm/libsofthsm2.so
    token: {serial: "02"}
    pin: {credential: issuing-pin}
    sessions: 4
authorities: [issuing-1]
compliance:
  - {authority: issuing-1, hardware: true, fips_140_level: 2}
  - {authority: "*", local: true}
`

// A child has the time to open a token that this process would have had, and is waited for longer.
func TestAChildHasTheTimeThatIsConfigured(t *testing.T) {
	for written, want := range map[strictyaml.Duration]time.Duration{
		0: 30 * time.Second, strictyaml.Duration(5 * time.Second): 5 * time.Second, strictyaml.Duration(2 * time.Minute): 2 * time.Minute,
	} {
		c := Config{Tokens: []NamedToken{{Name: "a"}, {Name: "b"}}}
		c.Tokens[0].Timeouts.Open, c.Tokens[1].Timeouts.Open = written, strictyaml.Duration(time.Second)
		told, err := strictyaml.ParseDuration(fmt.Sprint(c.Tokens[0].kept()["start_timeout"]))
		if err != nil || told != want {
			t.Errorf("%s: a child is told %s, %v", written, told, err)
		}
		if limit := childStart(c); limit <= want {
			t.Errorf("%s: a child is given up after %s", written, limit)
		}
	}
}

func TestConfigOfSeveralTokens(t *testing.T) {
	c, err := parseConfig("/etc/chancery/c.yaml", []byte(twoTokens), nil)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := c.token("roots")
	if err != nil || roots.Sessions != 8 || roots.Usage != "/etc/chancery/usage.yaml" || time.Duration(roots.Timeouts.Open) != 10*time.Second || roots.FIPS140.declaration().FIPSLevel != 3 {
		t.Errorf("%+v, %v", roots, err)
	}
	if issuing, err := c.token("issuing"); err != nil || issuing.Sessions != 4 || issuing.PIN.Credential != "issuing-pin" {
		t.Errorf("%+v, %v", issuing, err)
	}
	for _, name := range []string{"", "nobody"} {
		if _, err := c.token(name); exitCode(err) != 2 {
			t.Errorf("%q: %v", name, err)
		}
	}
	if r := c.required("issuing-1", ""); !r.Hardware || !r.Local || r.FIPSLevel != 2 || r.NeverExtractable {
		t.Errorf("%+v", r)
	}
	if r := c.required("other", ""); r.Hardware || !r.Local {
		t.Errorf("%+v", r)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"both ways":         {"tokens:\n", "hsm: {module: /x}\ntokens:\n", "c.yaml:3: hsm: tokens and hsm are both given"},
		"no name":           {"name: issuing\n", "name: Issuing\n", "c.yaml:11: tokens[1].name"},
		"the same name":     {"name: issuing\n", "name: roots\n", "c.yaml:11: tokens[1].name"},
		"the same token":    {`{serial: "02"}`, `{serial: "01"}`, "tokens[1].token"},
		"no PIN":            {"{credential: issuing-pin}", "{}", "tokens[1].pin: 0 sources"},
		"two PINs":          {"{credential: issuing-pin}", "{credential: p, file: f}", "tokens[1].pin: 2 sources"},
		"level without":     {`{level: 3, certificate: "4703"}`, "{level: 3}", "tokens[0].fips_140"},
		"bad timeout":       {"open: 10s", "open: soon", "c.yaml:8"},
		"too many sessions": {"sessions: 4", "sessions: 4000", "tokens[1].sessions"},
		"unknown field":     {"usage: usage.yaml", "policy: usage.yaml", "c.yaml:10"},
		"nothing required":  {`{authority: "*", local: true}`, `{authority: "*"}`, "compliance[1]: nothing is required"},
	} {
		text := strings.Replace(twoTokens, c.old, c.new, 1)
		if _, err := parseConfig("c.yaml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// The configurations that docs/hsm.md shows are accepted, joined to one.
func TestDocumentedTokensAreSound(t *testing.T) {
	_, after, _ := strings.Cut(string(read(t, "../../docs/hsm.md")), "```yaml\ntokens:")
	tokens, after, _ := strings.Cut(after, "```")
	_, after, _ = strings.Cut(after, "```yaml\ncompliance:")
	compliance, _, found := strings.Cut(after, "```")
	c, err := parseConfig("hsm.md", []byte("database: {url: \"postgres://localhost/chancery\"}\ntokens:"+tokens+"compliance:"+compliance), nil)
	if err != nil || !found || len(c.Tokens) != 2 || len(c.Compliance) != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}
