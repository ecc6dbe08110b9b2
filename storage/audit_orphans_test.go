package storage_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

// Whoever changes what was possibly signed, or its revocation, or both together such that they agree, is found out by the events of the
// intent and of its settlement.
func TestAnOrphanIsAsItsEventsSay(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	tables := []string{"orphans", "revocations", "audit_leaves"}
	for _, table := range tables {
		f.exec("ALTER TABLE " + table + " DISABLE TRIGGER facts_stay")
	}
	f.exec("ALTER TABLE audit_sequence DISABLE TRIGGER facts_stay")
	f.addReadableAuthority("issuing-1")
	i := newIntent(t, alpha)
	i.NotAfter = i.NotAfter.Truncate(time.Second)
	toBeSigned := func(notAfter time.Time) []byte {
		c, err := x509.ParseCertificate(readableDER(t, i.Serial[:], notAfter, i.Issuer, i.CRLScope))
		if err != nil {
			t.Fatal(err)
		}
		return c.RawTBSCertificate
	}
	i.TBS = toBeSigned(i.NotAfter)
	say := func(id string, kind audit.Kind, more map[string]string) audit.Leaf {
		t.Helper()
		data := map[string]string{"issuer": i.Issuer, "serial": i.Serial.String(), "kind": string(i.Kind), "request": i.Request.ID}
		for name, value := range more {
			data[name] = value
		}
		leaf, err := audit.New(audit.Event{ID: id, Kind: kind, Time: time.Now(), Actor: "system", Data: data})
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	digest := func(tbs []byte) map[string]string {
		return map[string]string{
			"tbs_sha256": fmt.Sprintf("%x", sha256.Sum256(tbs)), "profile": i.Request.Profile, "policy": i.Request.PolicyDigest,
		}
	}
	intended := newID()
	if err := f.RecordIntent(ctx, i, say(intended, audit.CertificateIntended, digest(i.TBS))); err != nil {
		t.Fatal(err)
	}
	settled := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "a crash"}
	orphaned := say(settled.EventID, audit.CertificateOrphaned, map[string]string{"why": "a crash"})
	if err := f.SettleIntent(ctx, alpha, settled, orphaned); err != nil {
		t.Fatal(err)
	}
	f.sequence()
	for _, table := range tables {
		f.exec("CREATE TABLE kept_" + table + " AS TABLE " + table)
	}
	if found := f.rows(); len(found) != 0 {
		t.Fatalf("a sound database: %v", found)
	}

	earlier := i.NotAfter.AddDate(-1, 0, 0)
	forged := toBeSigned(earlier)
	both := func() {
		f.exec("UPDATE orphans SET tbs = $1, not_after = $2", forged, earlier)
		f.exec("UPDATE revocations SET not_after = $1", earlier)
	}
	for _, c := range []struct {
		what   string
		tamper func()
		want   []audit.Fault
	}{
		{"both say an earlier end", both, []audit.Fault{audit.Unlogged}},
		{"both do, and a further event says so", func() {
			both()
			l := say(newID(), audit.CertificateIntended, digest(forged))
			f.exec("INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, $2, $3)", l.ID(), string(l.Kind()), l.Bytes())
			f.sequence()
		}, []audit.Fault{audit.Unlogged}},
		{
			"another request", func() { f.exec("UPDATE orphans SET request_id = gen_random_uuid()") },
			[]audit.Fault{audit.Unlogged, audit.Unlogged},
		},
		{"another profile", func() { f.exec("UPDATE orphans SET profile = 'other'") }, []audit.Fault{audit.Unlogged}},
		{"another policy", func() { f.exec("UPDATE orphans SET policy_digest = 'other'") }, []audit.Fault{audit.Unlogged}},
		{"another event", func() { f.exec("UPDATE orphans SET event_id = gen_random_uuid()") }, []audit.Fault{audit.Unlogged}},
		{
			"no event of its intent", func() { f.exec("DELETE FROM audit_leaves WHERE id = $1::text::uuid", intended) },
			[]audit.Fault{audit.Unlogged},
		},
		{
			"another kind", func() { f.exec("UPDATE orphans SET kind = 'precertificate'") },
			[]audit.Fault{audit.Unlogged, audit.Unlogged},
		},
		{"revoked for a reason", func() { f.exec("UPDATE revocations SET reason = 1") }, []audit.Fault{audit.Unlogged}},
		{"on hold", func() { f.exec("UPDATE revocations SET reason = 6") }, []audit.Fault{audit.Unlogged}},
		{ // nor has it been on hold
			"released", func() { f.exec("UPDATE revocations SET reason = 8") },
			[]audit.Fault{audit.Unlogged, audit.Unlogged},
		},
		{"revoked later", func() { f.exec("UPDATE revocations SET at = at + interval '1 hour'") }, []audit.Fault{audit.Unlogged}},
		{"bad since a moment", func() { f.exec("UPDATE revocations SET invalidity_date = at") }, []audit.Fault{audit.Unlogged}},
		{"not revoked", func() { f.exec("DELETE FROM revocations") }, []audit.Fault{audit.Unrecorded}},
		{"on hold by another event", func() { f.exec("UPDATE revocations SET reason = 6, event_id = $1::text::uuid", intended) }, []audit.Fault{
			audit.Unlogged, audit.Unrecorded,
		}},
		{"gone", func() { f.exec("DELETE FROM orphans") }, []audit.Fault{audit.Unlogged}},
	} {
		c.tamper()
		var got []audit.Fault
		found := f.rows()
		for _, x := range found {
			got = append(got, x.Kind)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", c.what, found, c.want)
		}
		for _, table := range tables {
			f.exec("DELETE FROM " + table)
			f.exec("INSERT INTO " + table + " SELECT * FROM kept_" + table)
		}
		f.exec("DELETE FROM audit_sequence WHERE id NOT IN (SELECT id FROM audit_leaves)")
		f.exec("DELETE FROM audit_unsequenced")
	}
	if found := f.rows(); len(found) != 0 {
		t.Errorf("as it was: %v", found)
	}
}
