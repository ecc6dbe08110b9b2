package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/policies/trial"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// insertPast makes n requests of the last four weeks and the certificates that came of them. The i-th has the (i mod k)-th CSR; every third
// asked for 60 days. The rows are such as issuance makes them: the identifier and the serial begin with the time.
const insertPast = `
	WITH past AS (
		SELECT i, now() - interval '27 days' * i / $1::integer AS at, i % cardinality($2::bytea[]) + 1 AS k,
		       CASE WHEN i % 3 = 0 THEN interval '60 days' ELSE interval '0' END AS validity
		FROM generate_series(0, $1::integer - 1) AS i
	), stamped AS (
		SELECT *, lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS ms, md5(i::text) AS random FROM past
	), requested AS (
		INSERT INTO requests (id, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, metadata, verdict, results,
			policy_digest, compromised_key)
		SELECT (ms || '7' || substr(random, 1, 3) || '8' || substr(random, 4, 15))::uuid, at, 'actor', 'team', 'dev', '{requester}', 'tls-server', $4,
		       ($2::bytea[])[k], sha256(random::bytea), validity, '{}', 'allow', '[]', 'sha256:1', false
		FROM stamped
	)
	INSERT INTO certificates (serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, subject, names, search,
		not_before, not_after, issued_at, event_id)
	SELECT decode('1c' || ms || substr(random, 1, 26), 'hex'), $4, 'final', $5, sha256(random::bytea), 'full', 'tls-server', 'sha256:1', 'dev',
	       (ms || '7' || substr(random, 1, 3) || '8' || substr(random, 4, 15))::uuid, 'CN=' || ($3::text[])[k], ARRAY[($3::text[])[k]], ($3::text[])[k],
	       date_trunc('second', at - interval '5 minutes'),
	       date_trunc('second', at - interval '5 minutes') + CASE WHEN i % 3 = 0 THEN interval '60 days' ELSE interval '90 days' END - interval '1 second',
	       at, random::uuid
	FROM stamped`

// TestBacktestFindsWhatSQLFinds replays 30,000 certificates through policies with one rule tightened, and finds exactly the rows that a query
// over the certificates finds.
func TestBacktestFindsWhatSQLFinds(t *testing.T) {
	t.Parallel()
	const certificates = 30_000
	s := newStack(t, storagetest.New(t), false)
	dir := filepath.Join(s.dir, "profiles")
	shippedIn(t, dir)
	config := filepath.Join(s.dir, "backtest.yaml")
	if err := os.WriteFile(config, []byte(s.config("backtest", s.token.Module)), 0o600); err != nil {
		t.Fatal(err)
	}
	var requests [][]byte
	var names []string
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 101 {
		name := fmt.Sprintf("host-%d.dev.example", i)
		if i%7 == 0 {
			name = fmt.Sprintf("*.zone-%d.dev.example", i)
		}
		request, err := newCSR(rand.Reader, key, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(request))
		requests, names = append(requests, block.Bytes), append(names, name)
	}
	ctx := context.Background()
	owner, err := pgx.Connect(ctx, s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(ctx)
	// The stack's own authority is too young to have issued all this.
	const oldIssuer = "issuing-0"
	issuer, err := trial.NewIssuer(rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(ctx, `INSERT INTO authorities SELECT $1, parent, $2, ARRAY[$2::bytea], false, key_token, key_label, key_id, crl_period,
		crl_validity, crl_url, issuer_url, added_at FROM authorities WHERE name = $3`, oldIssuer, issuer.Certificate.Raw, devIssuer); err != nil {
		t.Fatal(err)
	}
	// What the certificates are for they say as those of the profile do; the rest of each stands in its row.
	said := &x509.Certificate{
		SerialNumber: big.NewInt(1), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, said, said, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(ctx, insertPast, certificates, requests, names, oldIssuer, der); err != nil {
		t.Fatal(err)
	}

	backtest := func(args ...string) trial.Report {
		t.Helper()
		var out, said bytes.Buffer
		args = append([]string{"policy", "backtest", "--config", config, "--policies", dir, "-o", "json"}, args...)
		began := time.Now()
		if err := run(ctx, args, Env{Stdout: &out, Stderr: &said, Now: time.Now, Random: rand.Reader}); err != nil {
			t.Fatalf("%v\n%s", err, &said)
		}
		var report trial.Report
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("%d requests in %s: %.0f a second", report.Requests, took.Round(time.Millisecond), float64(report.Requests)/took.Seconds())
		return report
	}

	// Under the policies as they were, nothing would change.
	if r := backtest("--since", "3d"); r.Requests < certificates/10 || r.Unchanged != r.Requests {
		t.Fatalf("under the same policies: %+v", r)
	}

	// Nor would another outcome be, if they were for clients as well, but another certificate.
	edit(t, filepath.Join(dir, "tls-server.yaml"), "[serverAuth]", "[serverAuth, clientAuth]")
	if r := backtest("--since", "3d"); r.Changed[trial.ContentNow] != r.Requests || r.Rules["ext_key_usage"] != r.Requests {
		t.Errorf("for clients as well: %+v", r)
	}
	edit(t, filepath.Join(dir, "tls-server.yaml"), "[serverAuth, clientAuth]", "[serverAuth]")

	edit(t, filepath.Join(dir, "tls-server.yaml"), "wildcards: true", "wildcards: false")
	rows := filepath.Join(s.dir, "rows.jsonl")
	report := backtest("--since", "60d", "--rows", rows)
	if report.Requests != certificates || report.Replayed != certificates {
		t.Errorf("%d of %d requests were replayed", report.Replayed, report.Requests)
	}
	want := s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates WHERE EXISTS (SELECT FROM unnest(names) AS n WHERE n LIKE '*.%')`)
	content, err := os.ReadFile(rows)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(content)) {
		var f trial.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.Kind != trial.RefusedNow || !slices.Equal(f.Rules, []string{"names.wildcard"}) {
			t.Fatalf("a row that is something else: %+v", f)
		}
		got = append(got, f.Serial)
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("the backtest finds %d rows and the query %d", len(got), len(want))
	}
	if report.Changes() != len(want) || report.Rules["names.wildcard"] != len(want) || report.Namespaces["dev"] != len(want) || len(report.Examples) == 0 {
		t.Errorf("the report says %+v", report)
	}
}

// full is a file on a disk that is full, or whose last octets are lost when it is closed.
type full struct{ writing, closing error }

func (f full) Write(p []byte) (int, error) { return len(p), f.writing }
func (f full) Close() error                { return f.closing }

// A file of changed requests that is not whole is no success.
func TestChangedRequestsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, file := range []full{{}, {writing: syscall.ENOSPC}, {closing: syscall.EDQUOT}} {
		each, done := rowsInto(file)
		if err := each(trial.Finding{}); err != nil {
			t.Fatal(err)
		}
		if err, want := done(), cmp.Or(file.writing, file.closing); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%+v: %v", file, err)
		}
	}
}
