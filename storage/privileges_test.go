package storage_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

var facts = []string{
	"authorities", "requests", "certificates", "orphans", "imported_certificates", "revocations", "compromised_keys",
	"crl_intents", "crls", "crl_deltas", "audit_leaves", "namespaces", "approvals", "policy_sets", "policy_proposals", "policy_votes",
	"policy_activations",
	"revocation_lots", "revocation_votes", "audit_checkpoints", "audit_cosignatures", "audit_keys", "audit_private",
	"approver_keys", "approver_key_ends", "approval_evidence", "orders", "order_votes", "order_uses",
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

const (
	insufficientPrivilege = "42501"
	restrictViolation     = "23001"
	checkViolation        = "23514"
)

// The service's login, and the role that it works as, can add facts and do no more.
func TestTheServiceCannotChangeFacts(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	f.revoke(c, issuance.KeyCompromise, 0)
	f.addAuthority("issuing-1")
	partition := "certificates_" + c.Serial.Time().Format("2006_01")
	column := map[string]string{
		"policy_sets": "digest", "policy_proposals": "digest", "policy_votes": "person", "policy_activations": "digest",
		"authorities": "name", "namespaces": "name", "approvals": "person", "revocation_lots": "job", "revocation_votes": "person",
		"audit_leaves": "kind", "audit_private": "value", partition: "issuer",
		"audit_checkpoints": "size", "audit_cosignatures": "size", "audit_keys": "verifier",
		"approver_keys": "person", "approver_key_ends": "why", "approval_evidence": "person", "orders": "person", "order_votes": "person",
		"order_uses": "actor",
	}

	var forbidden []string
	for _, table := range append(facts, partition) {
		name := column[table]
		if name == "" {
			name = "issuer"
		}
		forbidden = append(forbidden, fmt.Sprintf("UPDATE %s SET %s = %[2]s", table, name), "DELETE FROM "+table, "TRUNCATE "+table)
	}
	forbidden = append(forbidden,
		"INSERT INTO "+partition+" SELECT * FROM certificates",
		"UPDATE intents SET tbs = ''",
		"UPDATE intents SET request_id = request_id",
		"UPDATE idempotency_keys SET serial = ''",
		"UPDATE waiting_requests SET actor = '{}'",
		"DELETE FROM waiting_requests",
		"UPDATE revocation_jobs SET reason = 0",
		"UPDATE revocation_jobs SET digest = ''",
		"DELETE FROM revocation_jobs",
		"UPDATE reservations SET until = now()",
		"UPDATE api_tokens SET sha256 = sha256",
		"UPDATE api_tokens SET roles = '{operator}'",
		"UPDATE api_tokens SET networks = '{}'",
		"UPDATE api_tokens SET expires_at = NULL",
		"DELETE FROM api_tokens",
		"UPDATE console_sessions SET actor = '{}'",
		"UPDATE console_sessions SET expires_at = 'infinity'",
		"UPDATE console_logins SET token_id = ''",
		"DELETE FROM crl_scopes",
		"TRUNCATE intents",
		"DELETE FROM leases",
		"UPDATE schema_compatibility SET compatible_from = 1",
		"CREATE TABLE mine ()",
		"DROP TABLE "+partition,
		"ALTER TABLE certificates DISABLE TRIGGER ALL",
		"ALTER TABLE certificates DETACH PARTITION "+partition,
		"UPDATE goose_db_version SET version_id = 0",
		"SELECT serial_bound(now())",
		"CREATE ROLE another",
		"INSERT INTO audit_sequence VALUES (0, gen_random_uuid(), '')",
		"UPDATE audit_sequence SET hash = hash",
		"DELETE FROM audit_sequence",
		"INSERT INTO audit_subtrees VALUES (1, 0, '')",
		"DELETE FROM audit_subtrees",
		"INSERT INTO audit_unsequenced (ids) VALUES ('{}')",
		"UPDATE audit_unsequenced SET ids = ids",
		"DELETE FROM audit_unsequenced", // a leaf could be kept out of the log
		"DELETE FROM audit_backlog",
		"UPDATE audit_backlog SET after = until",
		"UPDATE archive_settings SET least_age = '1 day'",
		"DELETE FROM archive_settings",
	)
	for _, role := range []string{"chancery_service", "chancery_app"} {
		conn := connect(t, f.db.URL)
		if _, err := conn.Exec(ctx, "SET ROLE "+role); err != nil {
			t.Fatal(err)
		}
		for _, sql := range forbidden {
			if _, err := conn.Exec(ctx, sql); sqlState(err) != insufficientPrivilege {
				t.Errorf("%s may %s: %v", role, sql, err)
			}
		}
	}
}

// The triggers stop the owner's slips.
func TestTheOwnerCannotChangeFactsByMistake(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	r := f.revoke(c, issuance.KeyCompromise, 0)
	f.addAuthority("issuing-1")
	f.publish(f.claim("issuing-1"), time.Now())
	sequencing := f.sequencer(alpha)
	sequencing.all()
	checkpoint := audit.Checkpoint{Origin: "x", Size: sequencing.tree.Size()}
	if err := f.RecordCheckpoint(ctx, sequencing.term, checkpoint, []byte("note")); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"UPDATE certificates SET der = ''", "DELETE FROM certificates", "TRUNCATE certificates",
		"DELETE FROM certificates_" + c.Serial.Time().Format("2006_01"),
		"UPDATE audit_leaves SET leaf = ''", "DELETE FROM audit_leaves", "TRUNCATE audit_leaves",
		"UPDATE audit_sequence SET hash = hash", "DELETE FROM audit_sequence", "TRUNCATE audit_subtrees", "DELETE FROM audit_checkpoints",
		"UPDATE revocations SET reason = 0", "DELETE FROM revocations", "DELETE FROM requests", "DELETE FROM compromised_keys",
		"DELETE FROM authorities", "UPDATE crls SET der = ''", "DELETE FROM crl_intents",
		"UPDATE crl_scopes SET last_number = last_number - 1", "UPDATE crl_scopes SET fence = fence - 1",
		"UPDATE crl_scopes SET published_number = published_number - 1", "UPDATE crl_scopes SET published_number = last_number + 1",
	} {
		if _, err := f.owner.Exec(ctx, sql); sqlState(err) != restrictViolation {
			t.Errorf("%s: %v", sql, err)
		}
	}
	found, err := f.Certificates(ctx, "", c.Serial[:], "*")
	if err != nil || len(found) != 1 || found[0].Revocation == nil || found[0].Revocation.EventID != r.EventID {
		t.Errorf("afterwards: %+v, %v", found, err)
	}
}
