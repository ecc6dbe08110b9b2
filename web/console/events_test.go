package console

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const eventID = "01a22133-07f3-7663-954f-b25095dc0449"

// logged puts an event, its receipt and a log with a witness into the office.
func (o *office) logged() {
	event := audit.Event{
		ID: eventID, Kind: audit.CertificateRevoked, Time: noon, Actor: nasty, Namespace: "dev",
		Data: map[string]string{
			"serial": "1c00", "reason": "superseded", "issuer": nasty, "comment_salted": strings.Repeat("ab", 32), "comment": nasty,
		},
	}
	leaf, err := audit.New(event)
	if err != nil {
		panic(err)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	verifier, err := audit.NewVerifier("log.example", public)
	if err != nil {
		panic(err)
	}
	witness, err := audit.NewWitness("witness.example/w1", public)
	if err != nil {
		panic(err)
	}
	at := audit.Checkpoint{Origin: "log.example", Size: 43, Root: sha256.Sum256([]byte("root"))}
	note := []byte(at.Text() + "\n— log.example c2lnbmF0dXJl\n")
	o.event = ca.LoggedEvent{Event: event, Index: 42}
	o.receipt = audit.Receipt{Leaf: leaf.Bytes(), Index: 42, Proof: []audit.Hash{at.Root}, Checkpoint: note}
	o.view = ca.LogView{
		State: ca.LogState{Size: 45, CheckpointSize: 43, UncoveredLeaves: 2, CosignedSize: 40},
		Latest: &ca.SignedCheckpoint{
			Checkpoint: at, Note: note, Signatures: []audit.Signature{{By: verifier}, {By: witness, At: noon}},
		},
		Cosigned: &ca.SignedCheckpoint{Checkpoint: audit.Checkpoint{Origin: "log.example", Size: 40}, Note: []byte("cosigned")},
	}
}

// TestAnAuditorSearches: what the form asks for is what the authority is asked for, and the page goes on where it ended.
func TestAnAuditorSearches(t *testing.T) {
	b := open(t)
	b.signIn(access.Auditor)
	if page := b.ask("GET", "/console/audit", nil).Body.String(); len(b.office.searches) != 0 ||
		!strings.Contains(page, `value="certificate.revoked"`) || !strings.Contains(page, `<label>Kind <input`) ||
		!strings.Contains(page, "/console/audit/log") {
		t.Errorf("opening the page searches already, or lacks something: %s", page)
	}
	asked := url.Values{
		"kind": {"certificate."}, "actor": {" t-7 "}, "namespace": {"dev"}, "serial": {"1C:00"}, "text": {"laptop"},
		"since": {"2026-11-20T10:00"}, "until": {"2026-11-21T00:00:00Z"},
	}
	page := b.ask("GET", "/console/audit?"+asked.Encode(), nil).Body.String()
	if len(b.office.searches) != 1 {
		t.Fatalf("%d searches: %s", len(b.office.searches), page)
	}
	f := b.office.searches[0]
	if f.Kind != "certificate." || f.Actor != "t-7" || f.Namespace != "dev" || fmt.Sprintf("%x", f.Serial) != "1c00" || f.Text != "laptop" ||
		!f.Since.Equal(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)) || !f.Until.Equal(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)) ||
		f.Cursor != "" || f.Limit != pageLength {
		t.Errorf("searched for %+v", f)
	}
	for _, want := range []string{
		`<th scope="col">Kind</th>`, "/console/audit/events/" + eventID, `value="1C:00"`, "serial <code>1c00</code>", "Older ones", "cursor=older",
		"and 1 more", "/console/audit?actor=", "…",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s: %s", want, page)
		}
	}
	if strings.Contains(page, "abababab") || strings.Contains(page, "salted") {
		t.Error("a digest that tells nothing is in the table")
	}
	asked.Set("cursor", "older")
	b.ask("GET", "/console/audit?"+asked.Encode(), nil)
	if f := b.office.searches[1]; f.Cursor != "older" || f.Text != "laptop" {
		t.Errorf("the next page is searched by %+v", f)
	}
	if page := b.ask("GET", "/console/audit?text=nothing", nil).Body.String(); !strings.Contains(page, "Nothing fits in the part") ||
		!strings.Contains(page, "Older ones") {
		t.Errorf("an empty page that is not the last: %s", page)
	}
	before := len(b.office.searches)
	for field, value := range map[string]string{
		"serial": "xyz", "since": "yesterday", "until": "2026-13-01", "text": strings.Repeat("a", 201), "actor": "a\x00", "cursor": "a\x00",
		"kind": strings.Repeat("k", 101),
	} {
		w := b.ask("GET", "/console/audit?"+url.Values{field: {value}}.Encode(), nil)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `role="alert"`) {
			t.Errorf("%s=%q: %d", field, value, w.Code)
		}
	}
	if len(b.office.searches) != before {
		t.Error("what cannot be read is searched for")
	}
}

func TestAnEventAndItsReceipt(t *testing.T) {
	b := open(t)
	b.signIn(access.Auditor)
	path := "/console/audit/events/" + eventID
	page := b.ask("GET", path, nil).Body.String()
	for _, want := range []string{
		"certificate.revoked", "<dt>Index</dt><dd>42</dd>", `<th scope="row">comment</th>`, `href="/console/certificates/1c00"`,
		path + "/receipt\"", path + "/receipt?witnesses=1", "a certificate was revoked, or put on hold", "log.example",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s: %s", want, page)
		}
	}
	w := b.ask("GET", path+"/receipt", nil)
	got, err := audit.ParseReceipt(w.Body.Bytes())
	if err != nil || got.Index != 42 || w.Header().Get("Content-Disposition") != `attachment; filename="`+eventID+`.tlog-proof"` ||
		w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the receipt: %v, %v", err, w.Header())
	}
	if w := b.ask("GET", "/console/audit/events/another", nil); w.Code != http.StatusNotFound {
		t.Errorf("an event that is not there: %d", w.Code)
	}
	b.office.waiting, b.office.event.Index = true, -1
	page = b.ask("GET", path, nil).Body.String()
	if !strings.Contains(page, "No checkpoint covers the event yet") || !strings.Contains(page, "none yet") || strings.Contains(page, "/receipt") {
		t.Errorf("an event that has no place yet: %s", page)
	}
}

func TestTheStateOfTheLog(t *testing.T) {
	b := open(t)
	b.signIn(access.Auditor)
	page := b.ask("GET", "/console/audit/log", nil).Body.String()
	for _, want := range []string{
		"<dd>45</dd>", "43; 2 came after it", "<dd>40</dd>", "witness.example/w1", "<td>witness</td><td>2026-11-20 12:00:00 UTC", "<td>the log</td>",
		"SBNJTRN&#43;FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=</code>", "No key that this replica knows has signed it",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s: %s", want, page)
		}
	}
	if w := b.ask("GET", "/console/audit/log/checkpoint", nil); w.Body.String() != string(b.office.view.Latest.Note) ||
		w.Header().Get("Content-Disposition") != `attachment; filename="checkpoint-43.txt"` {
		t.Errorf("the checkpoint: %v %s", w.Header(), w.Body)
	}
	if w := b.ask("GET", "/console/audit/log/checkpoint?witnesses=1", nil); w.Body.String() != "cosigned" {
		t.Errorf("the one with a witness: %s", w.Body)
	}
	b.office.view = ca.LogView{State: ca.LogState{CosignedSize: -1}}
	if page := b.ask("GET", "/console/audit/log", nil).Body.String(); !strings.Contains(page, "There is no checkpoint yet") ||
		!strings.Contains(page, "no witness has signed") {
		t.Errorf("a log that has just begun: %s", page)
	}
	if w := b.ask("GET", "/console/audit/log/checkpoint", nil); w.Code != http.StatusNotFound {
		t.Errorf("a checkpoint that is not there: %d", w.Code)
	}
}
