package storage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

// What names a person is in no leaf. It is found and shown until it is erased, and the log is the same afterwards.
func TestPrivateTexts(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const person, comment = "Ada Lovelace", "the laptop\nwas \"stolen\" ä"
	id := f.tell(newID(), audit.RequestApproved, "t-1", "dev", map[string]string{"request": "r-1", "person": person, "comment": comment})
	other := f.tell(newID(), audit.RequestApproved, "t-2", "dev", map[string]string{"person": "Bob", "comment": ""})
	f.wantCounts("audit_private", 3)
	var leaves string
	if err := f.owner.QueryRow(ctx, "SELECT string_agg(encode(leaf, 'escape'), ' ') FROM audit_leaves").Scan(&leaves); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(leaves, "Ada") || strings.Contains(leaves, "Bob") || strings.Contains(leaves, "laptop") ||
		strings.Contains(leaves, `\000`) {
		t.Errorf("the leaves hold private texts: %s", leaves)
	}
	f.sequence()
	before := f.verify().RootText()
	search := func(text string) (all []ca.LoggedEvent) {
		t.Helper()
		page, err := f.SearchEvents(ctx, ca.EventFilter{Namespace: "*", Text: text, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return page.Events
	}
	if found := search("ada love"); len(found) != 1 || found[0].ID != id || found[0].Data["person"] != person ||
		found[0].Data["comment"] != comment {
		t.Errorf("found %+v", found)
	}
	if one, err := f.Event(ctx, id); err != nil || one.ID != id || one.Index < 0 || one.Data["person"] != person || one.Data["comment"] != comment {
		t.Errorf("by its ID: %+v, %v", one, err)
	}

	erased := func(texts []storage.PrivateText) (audit.Leaf, error) {
		return audit.New(audit.Event{
			ID: newID(), Kind: audit.PrivateErased, Time: time.Now(), Actor: "local:root",
			Data: map[string]string{"event": id},
		})
	}
	if texts, err := storage.ErasePrivate(ctx, f.db.OwnerURL, storage.PrivateFilter{Value: person}, nil); err != nil || len(texts) != 1 ||
		texts[0].Event != id {
		t.Errorf("what would be erased: %v, %v", texts, err)
	}
	f.wantCounts("audit_private", 3)
	if _, err := storage.ErasePrivate(ctx, f.db.URL, storage.PrivateFilter{Value: person}, erased); err == nil {
		t.Error("the service erased a text")
	}
	if _, err := storage.ErasePrivate(ctx, f.db.OwnerURL, storage.PrivateFilter{Field: "person"}, erased); err == nil {
		t.Error("everything was erased at once")
	}
	if texts, err := storage.ErasePrivate(ctx, f.db.OwnerURL, storage.PrivateFilter{Event: id}, erased); err != nil || len(texts) != 2 {
		t.Errorf("erased %v, %v", texts, err)
	}
	f.wantCounts("audit_private", 1, "audit_leaves", 3)
	if found := search("ada love"); len(found) != 0 {
		t.Errorf("after it was erased: %+v", found)
	}
	if r := f.verify(); !r.Sound() || r.Size != 2 || r.RootText() != before {
		t.Errorf("the log after it: %+v", r)
	}

	// A text that is not the one that was logged is not shown as such, and is found.
	if found := f.rows(); len(found) != 0 {
		t.Errorf("sound: %v", found)
	}
	f.exec("ALTER TABLE audit_private DISABLE TRIGGER facts_stay")
	f.exec("UPDATE audit_private SET value = 'Mallory'")
	if found := search(other); len(found) != 1 || found[0].Data["person"] != "" {
		t.Errorf("a forged text is shown: %+v", found)
	}
	if found := f.rows(); len(found) != 1 || found[0].Kind != audit.Mislabelled {
		t.Errorf("a forged text: %v", found)
	}
}
