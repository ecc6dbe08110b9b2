package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/chancery-ca/chancery/client"
)

// TestFailuresInJSON: programs decide on what the service has answered, and need not read it out of words.
func TestFailuresInJSON(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		service http.HandlerFunc
		want    *problemTold
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"type":"urn:chancery:problem:quota-exhausted","title":"A quota is used up","detail":"no room","instance":"urn:x",`+
				`"violations":[{"rule":"quota","field":"","message":"no room","hint":"wait"}]}`)
		}, &problemTold{
			Type: client.TypeQuota, Title: "A quota is used up", Status: 429, Detail: "no room", Instance: "urn:x", RetryAfter: 3600,
			Violations: []client.Violation{{Rule: "quota", Message: "no room", Hint: "wait"}},
		}},
		"no answer": {hangUp, nil},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(c.service)
			defer service.Close()
			var said bytes.Buffer
			err := run(t.Context(), []string{"list", "--api", service.URL, "-o", "json"}, Env{
				Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &said, Environ: []string{"HOME=" + t.TempDir()},
				Now: time.Now, Random: rand.Reader,
			})
			var got failure
			if unread := json.Unmarshal(said.Bytes(), &got); err == nil || unread != nil || got.Error != err.Error() ||
				!reflect.DeepEqual(got.Problem, c.want) {
				t.Errorf("%v is told as %s", err, said.String())
			}
		})
	}
}

// TestNoRowButTheTablesOwn: what somebody wrote, such as a comment, has no line that looks like one of the table.
func TestNoRowButTheTablesOwn(t *testing.T) {
	t.Parallel()
	const forged = "routine\nrevoked          0\nstatus\tfinished\x1b[2J"
	for name, write := range map[string]func(*strings.Builder){
		"a job": func(w *strings.Builder) {
			writeJob(w, &client.RevocationJob{Comment: forged, Revoked: 9, Approvals: []client.Vote{{Person: "bob", Comment: forged}}})
		},
		"a certificate": func(w *strings.Builder) {
			writeCertificate(w, &client.Certificate{Status: "revoked", Revocation: &client.Revocation{Comment: forged}})
		},
		"a request": func(w *strings.Builder) {
			words := []client.Approval{{Person: "bob", Comment: forged}}
			writeRequest(w, &client.WaitingRequest{Status: "rejected", Why: forged, Approvals: words})
		},
		"an order": func(w *strings.Builder) {
			writeOrder(w, &client.Order{State: "waiting", Facts: []client.OrderFact{{Name: "key_label", Value: forged}}})
		},
	} {
		var out strings.Builder
		write(&out)
		var seen bool
		for line := range strings.Lines(out.String()) {
			marked := strings.HasPrefix(strings.TrimLeft(line, " "), "| ") && line[0] == ' '
			seen = seen || marked
			if strings.HasPrefix(line, "revoked          0") || strings.Contains(line, "finished") && !marked ||
				strings.ContainsAny(line, "\x1b\t") {
				t.Errorf("%s has the line %q", name, line)
			}
		}
		if !seen {
			t.Errorf("%s does not tell what was written:\n%s", name, out.String())
		}
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	_, _ = w.Write([]byte("NUMBER\tBY\tCOMMENT\n7\tann\t" + cell(2, "one\n8  eve  two") + "\n"))
	_ = w.Flush()
	if want := "NUMBER  BY   COMMENT\n7       ann  one\n             | 8  eve  two\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestNothingSteersTheTerminal: names that others have, such as those of logins, forge no row of a table. They, and what a service says or
// whoever answers in its place, write nothing to the terminal but text.
func TestNothingSteersTheTerminal(t *testing.T) {
	t.Parallel()
	const forged = `eve\nforged  approved\u001b[2J`
	answer := ""
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if answer == "" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"title":"`+forged+`","detail":"`+forged+`"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	defer service.Close()
	for args, body := range map[string]string{
		"requests":        `{"requests":[{"id":"r","requester":{"person":"` + forged + `"},"names":["` + forged + `"]}]}`,
		"order list":      `{"orders":[{"id":"o","person":"` + forged + `"}]}`,
		"order show o":    `{"id":"o","person":"` + forged + `","votes":[{"person":"` + forged + `"}]}`,
		"policy history":  `{"activations":[{"actor":"` + forged + `"}],"proposals":[{"person":"` + forged + `"}]}`,
		"revocation list": `{"jobs":[{"id":"j","requester":{"person":"` + forged + `"}}]}`,
		"token list":      `{"tokens":[{"id":"t","name":"` + forged + `","person":"` + forged + `","status":"active"}]}`,
		"token show t":    `{"id":"t","name":"` + forged + `","person":"` + forged + `","status":"active"}`,
		"list":            `{"certificates":[{"serial":"1c","names":["` + forged + `"]}]}`,
		"whoami":          `{"id":"` + forged + `","name":"` + forged + `","person":"` + forged + `","groups":["` + forged + `"]}`,
		"whoami -o text":  "",
	} {
		answer = body
		var said bytes.Buffer
		_ = run(t.Context(), append(strings.Fields(args), "--api", service.URL), Env{
			Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said, Environ: []string{"HOME=" + t.TempDir()}, Now: time.Now, Random: rand.Reader,
		})
		text := said.String()
		if !strings.Contains(text, "eve") || strings.Contains(text, "\x1b") || body != "" && strings.Contains(text, "\nforged") {
			t.Errorf("%s writes %q", args, text)
		}
	}
}
