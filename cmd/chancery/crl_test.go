package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// fetchCRL gets the CRL of a URL from a replica, whatever host the URL names; nil when there is none yet.
func (r *replica) fetchCRL(ctx context.Context, t *testing.T, address string) []byte {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.distribution+u.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := r.s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	der, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return nil
	}
	return der
}

// Certificates are spread over shards, each names its own, and what one replica revokes another serves: on the delta at once, on the
// complete list when that is due. openssl agrees with the state of each, and the directory holds what is served.
func TestShardsAndDeltasAcrossReplicas(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	files := t.TempDir()
	s.more = fmt.Sprintf("crls: {directory: %q, authorities: [{name: %s, shards: 3, delta_period: 1m, jitter: 1m}]}\n", files, devIssuer)
	one, two := s.start("one", s.token.Module), s.start("two", s.token.Module)
	ctx := t.Context()
	type subject struct {
		issuedJSON
		certificate *x509.Certificate
		state       string
	}
	var all []*subject
	points := map[string]bool{}
	for n := range 12 {
		issued, got, err := one.issue(ctx, fmt.Sprintf("host-%d.dev.example", n), nil)
		if err != nil || got.status != http.StatusCreated {
			t.Fatalf("%v, %d %s", err, got.status, got.body)
		}
		block, _ := pem.Decode([]byte(issued.Certificate))
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		points[certificate.CRLDistributionPoints[0]] = true
		all = append(all, &subject{issued, certificate, ""})
	}
	if len(points) < 2 {
		t.Errorf("all certificates name %v", points)
	}
	for n, c := range all {
		switch n % 4 {
		case 0:
			c.state = "keyCompromise"
		case 1:
			c.state = "superseded"
		default:
			continue
		}
		one.mustRevoke(ctx, t, c.Serial, c.state)
	}
	started := time.Now()
	for _, c := range all {
		point := c.certificate.CRLDistributionPoints[0]
		delta := strings.TrimSuffix(point, ".crl") + "/delta.crl"
		eventually(t, 20*time.Second, "the delta of "+point+" shows "+c.Serial, func() bool {
			der := two.fetchCRL(ctx, t, delta)
			if der == nil {
				return false
			}
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			return lists(list, c.certificate) == (c.state != "")
		})
		complete, delta2 := two.fetchCRL(ctx, t, point), two.fetchCRL(ctx, t, delta)
		for _, der := range [][]byte{complete, delta2} {
			read, err := issuance.ReadCRL(der)
			if err != nil || read.Distribution != point {
				t.Fatalf("the CRL of %s is for %q, %v", point, read.Distribution, err)
			}
		}
		if revoked := opensslRevoked(t, s, c.issuedJSON, complete, delta2); revoked != (c.state != "") {
			t.Errorf("%s is %q, and openssl takes it for revoked: %v", c.Serial, c.state, revoked)
		}
	}
	t.Logf("all deltas were seen on the other replica after %s", time.Since(started))
	for _, r := range []*replica{one, two} {
		eventually(t, 15*time.Second, "replica "+r.name+" tells of every CRL", func() bool { return r.tellsOfCRLs(ctx, t, slices.Collect(maps.Keys(points))) })
	}
	for point := range points {
		u, err := url.Parse(point)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "the directory holds "+point, func() bool {
			there, err := os.ReadFile(filepath.Join(files, u.Path))
			return err == nil && bytes.Equal(there, two.fetchCRL(ctx, t, point))
		})
	}
}

// tellsOfCRLs holds a replica's metrics against the CRLs that it serves.
func (r *replica) tellsOfCRLs(ctx context.Context, t *testing.T, points []string) bool {
	t.Helper()
	for _, point := range points {
		scope := strings.TrimSuffix(path.Base(point), ".crl")
		for label, address := range map[string]string{scope: point, scope + "/delta": strings.TrimSuffix(point, ".crl") + "/delta.crl"} {
			der := r.fetchCRL(ctx, t, address)
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]float64{
				"size_bytes": float64(len(der)), "entries": float64(len(list.RevokedCertificateEntries)),
				"this_update_timestamp_seconds": float64(list.ThisUpdate.Unix()), "next_update_timestamp_seconds": float64(list.NextUpdate.Unix()),
			} {
				if got := r.metric(t, fmt.Sprintf(`chancery_crl_%s{authority=%q,scope=%q}`, name, devIssuer, label)); got != want {
					return false
				}
			}
		}
	}
	return true
}

func lists(list *x509.RevocationList, c *x509.Certificate) bool {
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(c.SerialNumber) == 0 && e.ReasonCode != int(issuance.RemoveFromCRL) {
			return true
		}
	}
	return false
}

// Shards and deltas that are switched on later do not wait for the schedule: the complete CRL says at once for which certificates it is,
// and where its delta is. By both openssl finds a certificate from before revoked.
func TestDeltasSwitchedOnLaterAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	before := s.start("one", s.token.Module)
	issued, got, err := before.issue(ctx, "www.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%v, %d %s", err, got.status, got.body)
	}
	block, _ := pem.Decode([]byte(issued.Certificate))
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	point := certificate.CRLDistributionPoints[0]
	if read, err := issuance.ReadCRL(before.fetchCRL(ctx, t, point)); err != nil || read.Distribution != "" || read.Freshest != "" {
		t.Fatalf("the CRL of an authority without shards and deltas is %+v, %v", read, err)
	}
	before.stop()

	s.more = fmt.Sprintf("crls: {authorities: [{name: %s, shards: 2, delta_period: 1m}]}\n", devIssuer)
	after := s.start("one", s.token.Module)
	delta := strings.TrimSuffix(point, ".crl") + "/delta.crl"
	eventually(t, 20*time.Second, "the complete CRL names its point and its delta", func() bool {
		read, err := issuance.ReadCRL(after.fetchCRL(ctx, t, point))
		return err == nil && read.Distribution == point && read.Freshest == delta
	})
	complete := after.fetchCRL(ctx, t, point)
	after.mustRevoke(ctx, t, issued.Serial, "keyCompromise")
	eventually(t, 20*time.Second, "the delta shows the certificate", func() bool {
		list, err := x509.ParseRevocationList(after.fetchCRL(ctx, t, delta))
		return err == nil && lists(list, certificate)
	})
	if now := after.fetchCRL(ctx, t, point); !bytes.Equal(now, complete) {
		t.Error("another complete CRL was made")
	}
	if !opensslRevoked(t, s, issued, complete, after.fetchCRL(ctx, t, delta)) {
		t.Error("openssl does not find the certificate revoked")
	}
}

// opensslRevoked has openssl check a certificate by the complete CRL and the delta of its distribution point.
func opensslRevoked(t *testing.T, s *stack, c issuedJSON, complete, delta []byte) bool {
	t.Helper()
	dir := t.TempDir()
	certificate, crls := filepath.Join(dir, "c.pem"), filepath.Join(dir, "crls.pem")
	issuing := filepath.Join(s.dir, "ceremony", devIssuer+".pem")
	var lists []byte
	for _, der := range [][]byte{complete, delta} {
		lists = append(lists, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	for path, content := range map[string][]byte{certificate: []byte(c.Certificate), crls: lists} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("openssl", "verify", "-crl_check", "-extended_crl", "-use_deltas", "-CRLfile", crls, "-CAfile", s.root(),
		"-untrusted", issuing, certificate).CombinedOutput()
	switch {
	case err == nil:
		return false
	case strings.Contains(string(out), "certificate revoked"):
		return true
	}
	t.Fatalf("openssl: %v\n%s", err, out)
	return false
}

// From the call that revokes to a client that finds it on the CRL of another replica, less than five seconds pass, in 99 of 100 cases,
// while clients revoke and others poll.
func TestACRLTellsARevocationWithinFiveSeconds(t *testing.T) {
	s := newStack(t, storagetest.New(t), false)
	here, there := s.start("replica-1", s.token.Module), s.start("replica-2", s.token.Module)
	wantSeenWithin(t, 5*time.Second, here, 60, 4, func(of subjects) (bool, error) {
		list, err := there.crl(t.Context())
		if err != nil {
			return false, err
		}
		return lists(list, of.leaf), nil
	})
	there.stop()
	here.stop()
}

// A CRL that suffered in the database is not served: the last good one is, until a new one has been made. Nothing else is lost.
func TestACorruptedStoredCRL(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	r := s.start("one", s.token.Module)
	ctx := t.Context()
	issued, got, err := r.issue(ctx, "www.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%v, %d %s", err, got.status, got.body)
	}
	r.mustRevoke(ctx, t, issued.Serial, "superseded")
	listed := func() (*x509.RevocationList, bool) {
		list, err := r.crl(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return list, len(list.RevokedCertificateEntries) == 1
	}
	eventually(t, 10*time.Second, "the CRL shows the certificate", func() bool { _, is := listed(); return is })
	corrupt := func(how string) *big.Int {
		spoilt := s.database.Column(t, `WITH published AS (
				UPDATE crl_scopes SET last_number = last_number + 1, published_number = last_number + 1 WHERE issuer = $1
				RETURNING issuer, scope, last_number
			)
			INSERT INTO crls (issuer, scope, number, der, this_update, next_update, entries, event_id)
			SELECT p.issuer, p.scope, p.last_number, `+how+`, c.this_update, c.next_update, c.entries, gen_random_uuid()
			FROM published AS p JOIN LATERAL (
				SELECT * FROM crls AS c WHERE c.issuer = p.issuer AND c.scope = p.scope ORDER BY c.number DESC LIMIT 1
			) AS c ON true RETURNING number::text`, devIssuer)
		number, _ := new(big.Int).SetString(spoilt[0], 10)
		return number
	}
	for _, how := range []string{`overlay(der placing '\x00'::bytea from 40)`, `substr(der, 1, 60)`, `'\x30'::bytea`} {
		spoilt := corrupt(how)
		eventually(t, 20*time.Second, "a new CRL stands in for the corrupted one", func() bool {
			list, is := listed() // which never is the corrupted one
			if !is {
				t.Fatal("a revocation was lost")
			}
			return list.Number.Cmp(spoilt) > 0
		})
	}

	// A replica that starts knows no good one, and makes the next.
	r.stop()
	spoilt := corrupt(`'\x30'::bytea`)
	r = s.start("one", s.token.Module)
	eventually(t, 20*time.Second, "a new CRL is served after a start", func() bool {
		list, err := r.crl(ctx)
		return err == nil && list.Number.Cmp(spoilt) > 0 && len(list.RevokedCertificateEntries) == 1
	})
}
