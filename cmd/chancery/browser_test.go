package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a Chromium without a window, spoken to over a pair of pipes by the Chrome DevTools Protocol: JSON texts that end with NUL.
// Whatever a page complains of is kept: console errors, refusals by its policy, exceptions, what could not be loaded.
type browser struct {
	t       *testing.T
	process *exec.Cmd
	to      *os.File
	session string

	mu         sync.Mutex
	last       int
	waiting    map[int]chan devtools
	loads      chan string // what loads of the page are told
	complaints []string
}

// devtools is a message of the protocol, either way.
type devtools struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// requireBrowser has the tests that need Chromium fail where there is none, instead of being skipped.
const requireBrowser = "CHANCERY_REQUIRE_BROWSER"

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv(requireBrowser) != "" {
		t.Fatal("there is no Chromium here: make test-browser installs it on Debian and Ubuntu")
	}
	t.Skip("SKIPPED: there is no Chromium here, so that the console is not looked at in a browser; make test-browser installs it on Debian " +
		"and Ubuntu")
	return ""
}

// newBrowser starts one, with an empty profile. It ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := findChromium(t)
	commands, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, to: toBrowser, waiting: map[int]chan devtools{}, loads: make(chan string, 100)}
	arguments := []string{
		"--headless=new", "--remote-debugging-pipe", "--user-data-dir=" + t.TempDir(), "--no-first-run", "--disable-gpu",
		"--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors", "--window-size=1100,900",
		"--hide-scrollbars",
	}
	if os.Geteuid() == 0 { // Chromium's sandbox refuses to run as root
		arguments = append(arguments, "--no-sandbox")
	}
	b.process = exec.Command(path, append(arguments, "about:blank")...)
	b.process.ExtraFiles = []*os.File{commands, answers} // as descriptors 3 and 4
	if err := b.process.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = commands.Close(), answers.Close()
	read := make(chan struct{})
	go func() { defer close(read); b.listen(bufio.NewReaderSize(fromBrowser, 1<<20)) }()
	t.Cleanup(func() {
		_ = b.process.Process.Kill()
		_ = b.process.Wait()
		_, _ = toBrowser.Close(), fromBrowser.Close()
		<-read
	})

	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Audits"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// listen takes what the browser says, until it ends.
func (b *browser) listen(from *bufio.Reader) {
	for {
		text, err := from.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, w := range b.waiting {
				close(w)
			}
			b.waiting = map[int]chan devtools{}
			return
		}
		var m devtools
		if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m); err != nil {
			b.complain("unreadable", err.Error())
			continue
		}
		b.take(m)
	}
}

func (b *browser) complain(kind string, about any) {
	text, _ := json.Marshal(about)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, kind+": "+string(text))
}

func (b *browser) take(m devtools) {
	about, _ := m.Params.(map[string]any)
	switch m.Method {
	case "":
		b.mu.Lock()
		answer := b.waiting[m.ID]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	case "Page.loadEventFired":
		b.loads <- m.Session
	case "Network.loadingFailed":
		if about["canceled"] != true || about["type"] != "Document" { // a page that turned out to be a file to keep
			b.complain(m.Method, about)
		}
	case "Runtime.exceptionThrown", "Audits.issueAdded":
		b.complain(m.Method, about)
	case "Runtime.consoleAPICalled":
		if kind := about["type"]; kind == "error" || kind == "warning" || kind == "assert" {
			b.complain(m.Method, about)
		}
	case "Log.entryAdded":
		if entry, _ := about["entry"].(map[string]any); entry["level"] == "error" || entry["level"] == "warning" {
			b.complain(m.Method, entry)
		}
	}
}

// call asks the browser for something.
func (b *browser) call(method string, about, into any) {
	b.t.Helper()
	if err := b.try(method, about, into); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) try(method string, about, into any) error {
	answer := make(chan devtools, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	b.waiting[id] = answer
	b.mu.Unlock()
	text, err := json.Marshal(devtools{ID: id, Session: b.session, Method: method, Params: about})
	if err != nil {
		return err
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		return fmt.Errorf("%s: the browser is gone: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return errors.New(method + ": the browser is gone")
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case into == nil:
			return nil
		}
		return json.Unmarshal(m.Result, into)
	case <-time.After(30 * time.Second):
		return errors.New(method + ": the browser does not answer")
	}
}

// loaded does what has a page loaded, and waits for that.
func (b *browser) loaded(do func()) {
	b.t.Helper()
	for len(b.loads) > 0 {
		<-b.loads
	}
	do()
	select {
	case <-b.loads:
	case <-time.After(30 * time.Second):
		b.t.Fatalf("no page is loaded; this one is %s", b.text())
	}
}

// open goes to a URL.
func (b *browser) open(url string) {
	b.t.Helper()
	b.loaded(func() { b.call("Page.navigate", map[string]any{"url": url}, nil) })
}

// eval runs an expression in the page, as a person's doing. Policies of the page do not bind it.
func (b *browser) eval(expression string, into any) {
	b.t.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "userGesture": true}, &answer)
	if answer.Exception != nil {
		b.t.Fatalf("%s: %s; the page is %s", expression, answer.Exception.Exception.Description, b.text())
	}
	if into != nil {
		if err := json.Unmarshal(answer.Result.Value, into); err != nil {
			b.t.Fatalf("%s: %v", expression, err)
		}
	}
}

// text is what a person reads.
func (b *browser) text() (text string) {
	b.t.Helper()
	b.eval(`location.href + "\n" + document.body.innerText`, &text)
	return text
}

// says checks that a person reads these words.
func (b *browser) says(words ...string) {
	b.t.Helper()
	text := b.text()
	for _, w := range words {
		if !strings.Contains(text, w) {
			b.t.Fatalf("the page does not say %q: %s", w, text)
		}
	}
}

// fill writes into the field of a name.
func (b *browser) fill(name, value string) {
	b.t.Helper()
	quoted, _ := json.Marshal(value)
	b.eval(fmt.Sprintf(`document.querySelector("[name=%s]").value = %s`, name, quoted), nil)
}

// press presses the button or the link that has these words, and waits for the page that follows.
func (b *browser) press(words string) {
	b.t.Helper()
	quoted, _ := json.Marshal(words)
	b.loaded(func() {
		b.eval(fmt.Sprintf(`[...document.querySelectorAll("button, a")].find(e => e.innerText.trim().startsWith(%s)).click()`, quoted), nil)
	})
}

// picture keeps what the page looks like, where CHANCERY_SCREENSHOTS names a directory.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("CHANCERY_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct {
		Data string `json:"data"`
	}
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// content checks that no page had anything to complain of.
func (b *browser) content() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Error("the browser complains: " + c)
	}
}
