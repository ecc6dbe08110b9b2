package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ocsp"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/revocation"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// seed puts many certificates on record that lead to the issuing authority's CRL. Only their signatures are not the authority's.
func (s *stack) seed(n int) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Parent"}}
	ctx := s.t.Context()
	owner, err := pgx.Connect(ctx, s.database.OwnerURL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.WithoutCancel(ctx)) }()
	var url string
	if err := owner.QueryRow(ctx, `SELECT crl_url FROM authorities WHERE name = $1`, devIssuer).Scan(&url); err != nil {
		s.t.Fatal(err)
	}
	now, notAfter := time.Now(), time.Now().Add(24*time.Hour)
	// They differ in their serials. Nobody verifies the signature, for the parent is nobody's.
	first, err := issuance.NewSerial(now, rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	pattern, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(first[:]), Subject: pkix.Name{CommonName: "host"}, NotBefore: now, NotAfter: notAfter,
		CRLDistributionPoints: []string{url},
	}, parent, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	at := bytes.Index(pattern, first[:])
	var serials, ders, keys [][]byte
	for range n {
		serial, err := issuance.NewSerial(now, rand.Reader)
		if err != nil {
			s.t.Fatal(err)
		}
		der := bytes.Clone(pattern)
		copy(der[at:], serial[:])
		spki := sha256.Sum256(serial[:])
		serials, ders, keys = append(serials, serial[:]), append(ders, der), append(keys, spki[:])
	}
	if _, err := owner.Exec(ctx, `INSERT INTO certificates (serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace,
		subject, names, search, not_before, not_after, issued_at, event_id)
		SELECT serial, $4, 'final', der, key, 'full', 'tls-server', '', 'bulk', '', '{}', '', $5::timestamptz, $6::timestamptz, $5, gen_random_uuid()
		FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS i (serial, der, key)`, serials, ders, keys, devIssuer, now, notAfter); err != nil {
		s.t.Fatal(err)
	}
	if _, err := owner.Exec(ctx, `ANALYZE certificates`); err != nil {
		s.t.Fatal(err)
	}
}

// revokeAll orders all seeded certificates to be revoked.
func (r *replica) revokeAll(ctx context.Context) (*client.RevocationJob, error) {
	const body = `{"namespace":"bulk","all":true,"reason":"keyCompromise","comment":"the worst day"}`
	got, err := r.call(ctx, http.MethodPost, "/api/v1/revocations", access.Revoker, http.Header{"Content-Type": {"application/json"}}, []byte(body))
	if err != nil {
		return nil, err
	}
	var answer client.Revocations
	if err := json.Unmarshal(got.body, &answer); err != nil || got.status != http.StatusAccepted {
		return nil, fmt.Errorf("%d %s", got.status, got.body)
	}
	if where := got.header.Get("Location"); where != "/api/v1/revocations/"+answer.Job.ID {
		return nil, fmt.Errorf("Location is %q", where)
	}
	return answer.Job, nil
}

func (r *replica) job(ctx context.Context, id string) (client.RevocationJob, error) {
	var j client.RevocationJob
	got, err := r.call(ctx, http.MethodGet, "/api/v1/revocations/"+id, access.Revoker, nil, nil)
	if err != nil || got.status != http.StatusOK {
		return j, errors.Join(err, fmt.Errorf("%d %s", got.status, got.body))
	}
	return j, json.Unmarshal(got.body, &j)
}

// issueUntil has clients issue certificates until the context ends, and tells how long each took.
func (r *replica) issueUntil(ctx context.Context, clients int) (took func() []time.Duration) {
	request := newRequest(r.s.t, "beside.dev.example")
	var mu sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, got, err := r.issueCSR(context.WithoutCancel(ctx), request, nil)
				if err != nil || got.status != http.StatusCreated {
					r.s.t.Errorf("issuing beside the job: %d %s, %v", got.status, got.body, err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(began))
				mu.Unlock()
			}
		})
	}
	return func() []time.Duration { group.Wait(); return all }
}

// listed counts the entries of a replica's CRL.
func (r *replica) listed(ctx context.Context) int {
	list, err := r.crl(ctx)
	if err != nil {
		r.s.t.Fatal(err)
	}
	return len(list.RevokedCertificateEntries)
}

// TestAJobSurvivesAKill kills the replica that works on a job in the middle, while another issues: the job goes on there, and in the end
// each certificate is revoked once, with one leaf, and on the CRL.
func TestAJobSurvivesAKill(t *testing.T) {
	t.Parallel()
	const n = 12_000
	s := newStack(t, storagetest.New(t), false)
	s.offerOCSP()
	s.seed(n)
	mortal, living := s.start("mortal", s.token.Module), s.start("living", s.token.Module)
	issuing, stopIssuing := context.WithCancel(t.Context())
	defer stopIssuing()
	took := living.issueUntil(issuing, 2)

	job, err := mortal.revokeAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Whichever replica took the job up, it is killed in the middle.
	victim, survivor := mortal, living
	eventually(t, 60*time.Second, "the job has begun", func() bool {
		found, err := living.job(t.Context(), job.ID)
		return err == nil && found.Done > n/10
	})
	if s.database.Column(t, `SELECT holder_name FROM revocation_jobs`)[0] != mortal.name {
		victim, survivor = living, mortal
		stopIssuing()
		took()
	}
	victim.kill()
	if found, err := survivor.job(t.Context(), job.ID); err != nil || found.Done >= n {
		t.Fatalf("the job was over before the kill: %+v, %v", found, err)
	}
	eventually(t, 90*time.Second, "the job has come to its end", func() bool {
		found, err := survivor.job(t.Context(), job.ID)
		return err == nil && found.Status == "finished"
	})
	stopIssuing()
	if times := took(); len(times) == 0 {
		t.Error("nothing was issued beside the job")
	}
	found, err := survivor.job(t.Context(), job.ID)
	if err != nil || found.Revoked != n || found.Already != 0 || found.Total != n {
		t.Errorf("the job says %+v, %v", found, err)
	}
	eventually(t, 30*time.Second, "all are on the CRL", func() bool { return survivor.listed(t.Context()) >= n })

	for sql, want := range map[string]string{
		`SELECT count(*)::text FROM revocations`:                                                                                  fmt.Sprint(n),
		`SELECT count(DISTINCT serial)::text FROM revocations`:                                                                    fmt.Sprint(n),
		`SELECT count(*)::text FROM revocations WHERE sequence <> 1`:                                                              "0",
		`SELECT count(*)::text FROM audit_leaves WHERE kind = 'certificate.revoked' AND id IN (SELECT event_id FROM revocations)`: fmt.Sprint(n),
		`SELECT count(*)::text FROM audit_leaves WHERE kind = 'certificate.revoked'`:                                              fmt.Sprint(n),
		`SELECT count(*)::text FROM audit_leaves WHERE kind = 'revocation.finished'`:                                              "1",
		`SELECT count(*)::text FROM audit_leaves WHERE kind = 'revocation.ordered'`:                                               "1",
		`SELECT count(*)::text FROM compromised_keys`:                                                                             fmt.Sprint(n),
		`SELECT (fence >= 2)::text FROM revocation_jobs`:                                                                          "true",
	} {
		if got := s.database.Column(t, sql)[0]; got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	s.wantAgreement(survivor)
	survivor.stop()
}

// wantAgreement holds database and CRL against each other for every certificate.
func (s *stack) wantAgreement(r *replica) {
	s.t.Helper()
	if report := s.agreement(r); len(report.Differences) > 0 || report.Certificates == 0 {
		s.t.Errorf("%d certificates, differences: %+v", report.Certificates, report.Differences[:min(5, len(report.Differences))])
	}
}

func (s *stack) agreement(r *replica) revocation.Report {
	s.t.Helper()
	ctx := s.t.Context()
	store, err := storage.Open(ctx, storage.Config{URL: s.database.URL, MaxConns: 2, Unsafe: s.unsafe, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	authorities, err := checkedAuthorities(ctx, store, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	report, err := revocation.Check{
		Records: recordsOf{store}, Client: s.client, Now: time.Now, Random: rand.Reader, Through: r.distribution,
	}.Run(ctx, authorities)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// TestTheCheckFindsWhatIsWrong changes the record behind the service's back, in each way that a CRL can differ from it.
func TestTheCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	s.offerOCSP()
	s.seed(4)
	r := s.start("checked", s.token.Module)
	serials := s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates WHERE namespace = 'bulk' ORDER BY serial`)
	for _, serial := range serials[:3] {
		got, err := r.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+serial+"/revoke", access.Revoker,
			http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"superseded"}`))
		if err != nil || got.status != http.StatusOK {
			t.Fatalf("%d %s, %v", got.status, got.body, err)
		}
	}
	eventually(t, 10*time.Second, "they are on the CRL", func() bool { return r.listed(t.Context()) == 3 })
	s.wantAgreement(r)

	owner, err := pgx.Connect(t.Context(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.WithoutCancel(t.Context())) }()
	const old = `now() - interval '1 hour'`
	for _, sql := range []string{
		`ALTER TABLE revocations DISABLE TRIGGER USER`, `ALTER TABLE certificates DISABLE TRIGGER USER`,
		// The first is not revoked any more, the second for another reason, the third of no record, the fourth revoked without a CRL.
		`DELETE FROM revocations WHERE serial = '\x` + serials[0] + `'`,
		`UPDATE revocations SET reason = 5 WHERE serial = '\x` + serials[1] + `'`,
		`DELETE FROM revocations WHERE serial = '\x` + serials[2] + `'`,
		`DELETE FROM certificates WHERE serial = '\x` + serials[2] + `'`,
		`INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
			SELECT issuer, serial, 1, 4, ` + old + `, '', 'nobody', gen_random_uuid(), crl_scope, not_after, spki_sha256
			FROM certificates WHERE serial = '\x` + serials[3] + `'`,
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	found := map[string]string{}
	for _, d := range s.agreement(r).Differences {
		found[d.Serial] = d.Kind
	}
	want := map[string]string{
		serials[0]: revocation.CRLExtra, serials[1]: revocation.CRLDiffers, serials[2]: revocation.CRLNeverIssued, serials[3]: revocation.CRLMissing,
	}
	if !maps.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
	r.stop()
}

// BenchmarkRevokingMany revokes 100,000 certificates by one order, with issuance going on beside it on the same machine, fsync on. It
// reports the seconds from the order to the end of the job, to the CRL that has them all and until OCSP says so of a thousand of them whose
// answers were kept, what issuance does meanwhile, and the CPU time of both, issuance and the CRLs included.
func BenchmarkRevokingMany(b *testing.B) {
	n, quiet := 100_000, 5*time.Second
	if testing.Short() {
		n, quiet = 1_000, time.Second
	}
	for range b.N {
		server := storagetest.NewServer(b, storagetest.Options{Durable: true})
		s := newStack(b, &server.Database, true)
		s.offerOCSP()
		s.seed(n)
		r := s.start("bulk", s.token.Module)
		asked := s.database.Column(b, `SELECT encode(serial, 'hex') FROM certificates WHERE namespace = 'bulk' ORDER BY random() LIMIT 1000`)
		if good := r.howMany(b, asked, ocsp.Good); good != len(asked) {
			b.Fatalf("of %d certificates %d are good", len(asked), good)
		}
		alone, stop := context.WithTimeout(b.Context(), quiet)
		before := r.issueUntil(alone, 4)()
		stop()
		issuing, stopIssuing := context.WithCancel(b.Context())
		took := r.issueUntil(issuing, 4)
		service, database := cpuTime(b, r.process.Process.Pid), belowCPU(b, server.PID())
		began := time.Now()
		job, err := r.revokeAll(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "ordered-s")
		eventually(b, 5*time.Minute, "the job has come to its end", func() bool {
			found, err := r.job(b.Context(), job.ID)
			return err == nil && found.Status == "finished"
		})
		finished := time.Since(began)
		eventually(b, 5*time.Minute, "all are on the CRL", func() bool { return r.listed(b.Context()) >= n })
		listed := time.Since(began)
		eventually(b, time.Minute, "OCSP says that they are revoked", func() bool { return r.howMany(b, asked, ocsp.Revoked) == len(asked) })
		answered := time.Since(began)
		service, database = cpuTime(b, r.process.Process.Pid)-service, belowCPU(b, server.PID())-database
		stopIssuing()
		b.ReportMetric(service.Seconds(), "service-cpu-s")
		b.ReportMetric(database.Seconds(), "postgres-cpu-s")
		b.ReportMetric(finished.Seconds(), "finished-s")
		b.ReportMetric(listed.Seconds(), "on-crl-s")
		b.ReportMetric(answered.Seconds(), "in-ocsp-s")
		b.ReportMetric(float64(len(before))/quiet.Seconds(), "certs/s-before")
		b.ReportMetric(float64(len(took()))/answered.Seconds(), "certs/s-meanwhile")
		r.stop()
	}
}

// howMany tells of how many certificates of the issuing authority OCSP says a status.
func (r *replica) howMany(t testing.TB, serials []string, status int) (n int) {
	t.Helper()
	issuer, err := certificateFile(filepath.Join(r.s.dir, "ceremony", devIssuer+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range serials {
		serial, _ := new(big.Int).SetString(text, 16)
		got, err := r.status(t.Context(), http.MethodGet, crypto.SHA1, subjects{&x509.Certificate{SerialNumber: serial}, issuer})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status == status {
			n++
		}
	}
	return n
}
