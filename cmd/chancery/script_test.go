package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

const (
	scripts = "testdata/script"
	// writesBehind is the script that writes rows of its own into the database of the shared service. Others, which hold that database
	// against its log, would find them: it is played when they have ended.
	writesBehind = "archive.txt"
)

// TestScripts plays the command line as people and scripts use it. Besides testscript's own commands the scripts have:
//
//	chancery ARGS...           runs the program, which must exit with 0; with ! it must exit with 1
//	misused chancery ARGS...   the same, which must exit with 2
//	serve CONFIG               starts `chancery serve` and waits until it serves; $API, $DISTRIBUTION and $OPERATIONS are its addresses
//	keep CONFIG                starts `chancery keeper` and waits until it listens
//	terminate                  ends either by SIGTERM; it must exit with 0 (stop is testscript's own: it ends the script)
//	json [-stderr] PATH...     the last output is one JSON value with these members (a.0.b); PATH=NAME keeps one in $NAME
//
// A script that needs no token and no directory of its own says IN_PROCESS=1: then the program is called as a function, which saves the
// start of a process for each command.
//
// Each script has a SoftHSM of its own without a token, $PIN_FILE and $SO_PIN_FILE for one, and a database without tables, whose
// logins are in the files owner-url and service-url. $SAMPLE is an archive. $SERVICE_API and the files under $TOKENS lead to a service that
// all scripts share, whose configuration is $SERVICE_CONFIG.
func TestScripts(t *testing.T) {
	t.Parallel()
	playScripts(t, scripts)
}

// TestScriptsArePlayedToTheirEnds: what stands behind testscript's own stop is never played, and the script passes.
func TestScriptsArePlayedToTheirEnds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		if regexp.MustCompile(`(?m)^stop\b`).Match(read(t, file)) {
			t.Errorf("%s has stop; a service is ended by terminate", file)
		}
	}
}

// playScripts plays the scripts of a directory beside a service of their own.
func playScripts(t *testing.T, dir string) {
	t.Helper()
	shared := newStack(t, storagetest.New(t), false)
	shared.more += `console: {url: "https://ca.dev.example"}` + "\n"
	service := shared.start("scripts", shared.token.Module)
	tokens := t.TempDir()
	for role, token := range shared.tokens {
		if err := os.WriteFile(filepath.Join(tokens, string(role)), []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sample, err := filepath.Abs("../../archive/testdata/chancery-2026-01.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(all) == 0 {
		t.Fatalf("%d scripts, %v", len(all), err)
	}
	var together, alone []string
	for _, file := range all {
		if filepath.Base(file) == writesBehind {
			alone = append(alone, file)
		} else {
			together = append(together, file)
		}
	}
	play := func(t *testing.T, files []string) {
		testscript.Run(t, testscript.Params{
			Files: files,
			Setup: func(e *testscript.Env) error {
				e.Vars = append(e.Vars,
					actAsChancery+"=1",
					"GORACE=atexit_sleep_ms=10", // the race detector's second at each exit would be most of the time
					"CHANCERY_HOME="+filepath.Join(e.WorkDir, "home"),
					"MODULE="+shared.token.Module,
					"PIN="+hsmtest.UserPIN,
					"SERVICE_API="+service.api, "SERVICE_HEALTH="+service.operations+"/readyz", "SERVICE_ROOT="+shared.root(), "TOKENS="+tokens,
					"SERVICE_CONFIG="+filepath.Join(shared.dir, "scripts.yaml"),
					"SAMPLE="+sample,
				)
				database := storagetest.NewEmpty(t)
				e.Defer(func() { documented(t, database) })
				return prepareScript(e, database)
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"chancery": scriptChancery, "misused": scriptMisused, "serve": scriptServe, "keep": scriptKeep, "terminate": scriptTerminate,
				"json": scriptJSON, "soon": scriptSoon,
			},
		})
	}
	t.Run("scripts", func(t *testing.T) { play(t, together) })
	if len(alone) > 0 {
		t.Run("alone", func(t *testing.T) { play(t, alone) })
	}
	service.stop()
	documented(t, shared.database)
}

// prepareScript puts into a script's directory what every operator has at the start.
func prepareScript(e *testscript.Env, database *storagetest.Database) error {
	conf, err := hsm.WriteSoftHSMConf(filepath.Join(e.WorkDir, "softhsm"))
	if err != nil {
		return err
	}
	e.Vars = append(e.Vars, hsm.SoftHSMEnv+"="+conf)
	e.Values[ownService{}] = new(replica)
	for name, content := range map[string]string{
		"pin": hsmtest.UserPIN, "so-pin": hsmtest.SOPIN, "wrong-pin": "not the PIN", "owner-url": database.OwnerURL, "service-url": database.URL,
	} {
		path := filepath.Join(e.WorkDir, name)
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			return err
		}
		if strings.HasSuffix(name, "pin") {
			e.Vars = append(e.Vars, strings.ReplaceAll(strings.ToUpper(name), "-", "_")+"_FILE="+path)
		}
	}
	return nil
}

// runScript runs the program and checks its exit code.
func runScript(ts *testscript.TestScript, want int, args []string) {
	if code := playScript(ts, args); code != want {
		ts.Fatalf("chancery %s: exit code %d, want %d", strings.Join(args, " "), code, want)
	}
	for _, secret := range []string{hsmtest.UserPIN, hsmtest.SOPIN} {
		if slices.Contains(args, secret) || strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), secret) {
			ts.Fatalf("chancery %s: a PIN is on the command line or in what it says", strings.Join(args, " "))
		}
	}
}

func playScript(ts *testscript.TestScript, args []string) int {
	if ts.Getenv("IN_PROCESS") != "" {
		return inProcess(ts, args)
	}
	return asProcess(ts, args)
}

func asProcess(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(os.Args[0], args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

func inProcess(ts *testscript.TestScript, args []string) int {
	var environ []string
	for _, name := range []string{"CHANCERY_HOME", "CHANCERY_LOG_LEVEL", "CHANCERY_DATABASE_MAX_CONNECTIONS"} {
		environ = append(environ, name+"="+ts.Getenv(name))
	}
	return exitCode(run(context.Background(), args, Env{
		Stdin: strings.NewReader(""), Stdout: ts.Stdout(), Stderr: ts.Stderr(), Environ: environ, Now: time.Now, Random: rand.Reader,
	}))
}

func scriptChancery(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	if neg {
		want = 1
	}
	runScript(ts, want, args)
}

// scriptSoon repeats a command until it ends as it shall, for the five seconds in which all parts of the service know of a revocation.
func scriptSoon(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || args[0] != "chancery" {
		ts.Fatalf("usage: soon chancery ARGS...")
	}
	want := 0
	if neg {
		want = 1
	}
	for began := time.Now(); time.Since(began) < 5*time.Second; <-time.After(50 * time.Millisecond) {
		if playScript(ts, args[1:]) == want {
			break
		}
	}
	runScript(ts, want, args[1:])
}

func scriptMisused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || args[0] != "chancery" {
		ts.Fatalf("usage: misused chancery ARGS...")
	}
	runScript(ts, 2, args[1:])
}

// ownService is the key of a script's own service, or keeper, among its values.
type ownService struct{}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve CONFIG")
	}
	line := begin(ts, "serve", "serving", args[0])
	for name, value := range map[string]string{
		"API":          "https://" + line["api"].(string),
		"DISTRIBUTION": "http://" + line["distribution"].(string),
		"OPERATIONS":   "http://" + line["operations"].(string),
	} {
		ts.Setenv(name, value)
	}
}

func scriptKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep CONFIG")
	}
	begin(ts, "keeper", "keeping", args[0])
}

// begin starts a process that goes on until terminate or the script's end, and returns the line of its log that says it is ready.
func begin(ts *testscript.TestScript, command, ready, config string) map[string]any {
	r := &replica{log: newLog(ready), ended: make(chan struct{})}
	r.process = exec.Command(os.Args[0], command, "--config", ts.MkAbs(config))
	r.process.Env = append(os.Environ(), actAsChancery+"=1", hsm.SoftHSMEnv+"="+ts.Getenv(hsm.SoftHSMEnv),
		"CHANCERY_HSM_MODULE="+ts.Getenv("CHANCERY_HSM_MODULE"))
	r.process.Stderr = r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(r.process.Start())
	go func() { _ = r.process.Wait(); close(r.ended) }()
	ts.Defer(r.kill)
	*ts.Value(ownService{}).(*replica) = *r
	select {
	case line := <-r.log.serving:
		return line
	case <-r.ended:
		ts.Fatalf("chancery %s ended before it was ready:\n%s", command, r.log)
	case <-time.After(60 * time.Second):
		ts.Fatalf("chancery %s is not ready:\n%s", command, r.log)
	}
	return nil
}

func scriptTerminate(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value(ownService{}).(*replica)
	if neg || len(args) != 0 || r.process == nil {
		ts.Fatalf("usage: terminate, after serve or keep")
	}
	ts.Check(r.process.Process.Signal(syscall.SIGTERM))
	select {
	case <-r.ended:
	case <-time.After(60 * time.Second):
		ts.Fatalf("%s does not stop:\n%s", r.process, r.log)
	}
	if code := r.process.ProcessState.ExitCode(); code != 0 {
		ts.Fatalf("%s stopped with exit code %d:\n%s", r.process, code, r.log)
	}
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	from := "stdout"
	if len(args) > 0 && args[0] == "-stderr" {
		from, args = "stderr", args[1:]
	}
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(from)))
	var value any
	if err := decoder.Decode(&value); err != nil || neg {
		ts.Fatalf("%s is not JSON: %v", from, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		ts.Fatalf("%s holds more than one JSON value", from)
	}
	for _, arg := range args {
		path, name, keep := strings.Cut(arg, "=")
		found, ok := member(value, strings.Split(path, "."))
		if !ok {
			ts.Fatalf("%s has no %s", from, path)
		}
		if text, isText := found.(string); keep && isText {
			ts.Setenv(name, text)
		} else if keep {
			ts.Fatalf("%s is not a string", path)
		}
	}
}

// member finds what is at a path of names and indices.
func member(value any, path []string) (any, bool) {
	for _, step := range path {
		switch v := value.(type) {
		case map[string]any:
			next, ok := v[step]
			if !ok {
				return nil, false
			}
			value = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			value = v[i]
		default:
			return nil, false
		}
	}
	return value, true
}

// leaves are the commands that do something, by their words.
func leaves(c *cobra.Command, words []string) map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	for _, sub := range c.Commands() {
		for name, leaf := range leaves(sub, append(slices.Clone(words), sub.Name())) {
			all[name] = leaf
		}
	}
	if len(all) == 0 {
		all[strings.Join(words, " ")] = c
	}
	return all
}

// TestEveryCommandSpeaksJSON holds that the scripts ask every command for JSON.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(scripts, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	var text []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, string(content))
	}
	looked := regexp.MustCompile(`(?m)^(?:!|misused|)\s*chancery (.* ).*-o json.*\njson `)
	var asked []string
	for _, found := range looked.FindAllStringSubmatch(strings.Join(text, "\n"), -1) {
		asked = append(asked, found[1])
	}
	a := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard}}
	for name, c := range leaves(a.rootCommand(), nil) {
		if c.Hidden {
			continue // nobody types it: one process of ours starts another by it, and they speak over a connection
		}
		if !slices.ContainsFunc(asked, func(words string) bool { return strings.HasPrefix(words, name+" ") }) {
			t.Errorf("no script looks at the JSON of chancery %s", name)
		}
	}
}

// TestNoFlagTakesASecret holds that secrets are named by files: whoever lists processes reads arguments.
func TestNoFlagTakesASecret(t *testing.T) {
	a := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard}}
	secret := regexp.MustCompile(`pin|puk|password|secret|token|key`)
	// What these take may be known to everybody.
	harmless := map[string]string{
		"token":           "a name in the configuration",
		"token-label":     "CK_TOKEN_INFO.label",
		"token-serial":    "CK_TOKEN_INFO.serialNumber",
		"key":             "CKA_LABEL",
		"key-id":          "CKA_ID",
		"key-type":        "an algorithm",
		"idempotency-key": "a name that the client gives its request",
	}
	met := map[string]bool{}
	for name, c := range leaves(a.rootCommand(), nil) {
		for line := range strings.Lines(c.Flags().FlagUsages()) {
			_, text, _ := strings.Cut(line, "--")
			f := c.Flags().Lookup(strings.Fields(text)[0])
			if harmless[f.Name] != "" {
				met[f.Name] = true
				continue
			}
			// What is given or not given, and no more, holds no secret.
			if secret.MatchString(f.Name) && f.Value.Type() != "bool" && !strings.Contains(f.Usage, "file") {
				t.Errorf("chancery %s has a flag --%s: %s", name, f.Name, f.Usage)
			}
		}
	}
	for flag := range harmless {
		if !met[flag] {
			t.Errorf("no command has --%s; take it off the list", flag)
		}
	}
}

// TestFlagsAreShownByTheirNames: pflag takes what stands between backquotes in a flag's description for the name of its value.
func TestFlagsAreShownByTheirNames(t *testing.T) {
	a := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard}}
	for name, c := range leaves(a.rootCommand(), nil) {
		if found := regexp.MustCompile(`--[a-z-]+ \w+ \w.*? {3}`).FindString(c.Flags().FlagUsages()); found != "" {
			t.Errorf("chancery %s shows %s", name, found)
		}
	}
}
