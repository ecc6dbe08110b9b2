package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
)

// TestAnAuditorInABrowser is a question that an auditor answers: who revoked this certificate, and is that in the log?
func TestAnAuditorInABrowser(t *testing.T) {
	t.Parallel()
	findChromium(t)
	q := newQueueStack(t)
	log := q.withLog(hsm.Ed25519)
	witness, private := q.withWitness()
	h := q.serveHere("alpha", func(api string) string { return fmt.Sprintf("console: {url: %q}\n", api) })
	r := &replica{s: q.stack, api: h.api}

	var issued issuedJSON
	for i := range 30 { // two events each, and more: two pages of them
		got := h.call(http.MethodPost, "/api/v1/certificates", q.tokens[access.Requester],
			map[string]string{"profile": "tls-server", "csr": newRequest(t, fmt.Sprintf("www%d.dev.example", i))})
		if err := json.Unmarshal(got.body, &issued); err != nil || got.status != http.StatusCreated {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if got := h.call(http.MethodPost, "/api/v1/certificates/"+issued.Serial+"/revoke", q.tokens[access.Revoker],
		map[string]string{"reason": "keyCompromise", "comment": "the laptop was stolen"}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}

	b := newBrowser(t)
	enter := func(role access.Role) {
		t.Helper()
		var link struct{ URL string }
		offered := h.call(http.MethodPost, "/api/v1/console/logins", q.tokens[role], map[string]string{})
		if err := json.Unmarshal(offered.body, &link); err != nil || link.URL == "" {
			t.Fatalf("%d %s", offered.status, offered.body)
		}
		b.open(link.URL)
		b.press("Sign in")
	}
	enter(access.Auditor)
	b.press("Audit log")
	b.says("A search is an event, too", "Certificate’s serial")
	b.picture("audit-1-search")
	b.fill("serial", issued.Serial)
	b.fill("kind", "certificate.revoked")
	b.press("Search")
	b.says("certificate.revoked", "keyCompromise", "…"+issued.Serial[len(issued.Serial)-12:])
	b.picture("audit-2-found")

	// A checkpoint covers the revocation, and a witness signs it.
	var event string
	b.eval(`[...document.querySelectorAll("td a")].find(e => e.innerText === "certificate.revoked").href.split("/").pop()`, &event)
	eventually(t, 20*time.Second, "a checkpoint covers the revocation", func() bool {
		status, _ := r.as(t, access.Auditor, http.MethodGet, "/audit/receipt/"+event, "")
		return status == http.StatusOK
	})
	note, _, _ := r.checkpoint(t, 1, log)
	cosigned, err := audit.Cosign([]byte(note), witness.Name(), private, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if status, said := r.as(t, access.Auditor, http.MethodPost, "/audit/checkpoint", string(cosigned)); status != http.StatusOK {
		t.Fatalf("%d %s", status, said)
	}
	b.press("certificate.revoked")
	b.says("the laptop was stolen", "Download the receipt", "Download it under a checkpoint that a witness signed", devLogOrigin)
	b.picture("audit-3-event")
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": true}, nil)
	b.picture("audit-4-event-on-a-phone")
	b.call("Emulation.clearDeviceMetricsOverride", nil, nil)

	// The file that the browser gets verifies without the service.
	dir := t.TempDir()
	b.call("Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir}, nil)
	for _, words := range []string{"Download the receipt", "Download it under a checkpoint that a witness signed"} {
		quoted, _ := json.Marshal(words)
		b.eval(fmt.Sprintf(`[...document.querySelectorAll("a")].find(e => e.innerText === %s).click()`, quoted), nil)
		file := filepath.Join(dir, event+".tlog-proof")
		var receipt audit.Receipt
		eventually(t, 20*time.Second, "the receipt is downloaded", func() bool {
			text, err := os.ReadFile(file)
			if err != nil {
				return false
			}
			receipt, err = audit.ParseReceipt(text)
			return err == nil
		})
		e, _, signatures, err := receipt.Verify(log, witness)
		if err != nil || e.ID != event || e.Kind != audit.CertificateRevoked || words != "Download the receipt" && len(signatures) != 2 {
			t.Errorf("%s: %+v, %+v, %v", words, e, signatures, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}

	b.press("Audit log")
	b.press("Search")
	b.says("log.searched", "Older ones")
	b.picture("audit-5-newest")
	b.press("Older ones")
	b.says("certificate.issued")
	b.eval(`scrollTo(0, document.body.scrollHeight)`, nil)
	b.picture("audit-6-older")
	b.press("The log itself")
	b.says("witness.example/w1", "Last checkpoint that a witness has signed", devLogOrigin, "the log")
	b.picture("audit-8-log")

	b.content() // of what follows, which is refused, the browser complains
	b.press("Audit log")
	b.fill("serial", "no serial")
	b.press("Search")
	b.says("Write the serial number in hexadecimal")
	b.picture("audit-7-mistake")
	b.press("Sign out")
	enter(access.Revoker)
	if text := b.text(); strings.Contains(text, "Audit log") {
		t.Errorf("a revoker is offered the audit log: %s", text)
	}
	b.open(h.api + "/console/audit")
	b.says("your roles do not allow audit.read")
	b.picture("audit-9-refused")
}
