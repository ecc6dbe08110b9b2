package main

import (
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/chancery-ca/chancery/client"
)

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
