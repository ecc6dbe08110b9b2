package main

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestCertificatesRecordedAfterARestore finds certificates that are on no record, as those that a restored database has lost are. Once
// they are recorded a whole account is well, and says of each whether it could be checked; another certificate with the same serial
// number is an alarm.
func TestCertificatesRecordedAfterARestore(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	r := s.start("restored", "")
	of := r.newSubject(t, "kept.dev.example")
	r.stop()
	client := keeper.NewClient(k.path("keeper.sock"), 0)
	defer client.Close()
	journal := k.path("journal")
	unnamed, named := inject(t, client, of.issuer), inject(t, client, of.issuer)
	report, code := s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "two lost certificates", report, code, reconcile.Unrecorded, reconcile.Unrecorded)

	serials := map[bool]string{false: hex.EncodeToString(unnamed.SerialNumber.Bytes()), true: hex.EncodeToString(named.SerialNumber.Bytes())}
	record := []string{"revocation", "record", "--config", s.write("tool", s.token.Module), "--issuer", devIssuer, "--yes"}
	s.runProgram(t, os.Args[0], append(record, serials[false])...)
	s.runProgram(t, os.Args[0], append(record, serials[true], "--sha256", tbsDigest(named.Raw))...)
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "both recorded", report, code)
	if report.Counts.Restored != 2 || len(report.Restored) != 2 {
		t.Fatalf("recorded after a restore: %+v", report)
	}
	for _, f := range report.Restored {
		checked := f.Digest == tbsDigest(named.Raw)
		if f.Kind != reconcile.Restored || f.Entry == 0 || !strings.Contains(f.Subject, serials[checked]+" of "+devIssuer) ||
			strings.Contains(f.Why, "what the record names") != checked || strings.Contains(f.Why, "cannot be checked") == checked {
			t.Errorf("recorded after a restore: %+v", f)
		}
	}
	told := s.runProgram(t, os.Args[0], "audit", "reconcile", "--config", s.write("auditor", s.token.Module), "--grace", "0s",
		"--journal", journal)
	for _, says := range []string{"recorded after a restore  certificate " + serials[false], "Every signature is accounted for."} {
		if !strings.Contains(told, says) {
			t.Errorf("it does not say %q:\n%s", says, told)
		}
	}
	events := s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'certificate.revoked'
		AND convert_from(leaf, 'UTF8') LIKE '%"tbs_sha256":"`+tbsDigest(named.Raw)+`"%'`)
	if len(events) != 1 || !strings.Contains(events[0], serials[true]) {
		t.Errorf("the audit log says of what was signed: %q", events)
	}

	for _, serial := range [][]byte{unnamed.SerialNumber.Bytes(), named.SerialNumber.Bytes()} {
		injectAs(t, client, of.issuer, issuance.Serial(serial))
	}
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "others with their serial numbers", report, code, reconcile.Unrecorded, reconcile.Unrecorded)
	if report.Counts.Restored != 2 {
		t.Errorf("recorded after a restore: %+v", report)
	}
	s.asSuperuser(t, `DELETE FROM revocations WHERE serial = decode('`+serials[true]+`', 'hex') RETURNING issuer`)
	report, code = s.reconcileNow(t, "--journal", journal)
	wantFindings(t, "an event whose record is gone", report, code, reconcile.Unrecorded, reconcile.Unrecorded, reconcile.Unrecorded)
}
