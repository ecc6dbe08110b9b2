package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// Hundreds of certificates, of which chance has revoked some for this reason or that, put some on hold, and let some go again: openssl's
// verdict on each, by the CRLs alone, is the database's. It is so with one complete CRL, and with shards: by the complete ones when they
// were made, and with their deltas after more has changed. GnuTLS reads as many entries.
func TestOpenSSLAgreesWithTheDatabase(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, crls   string
		certificates int
		deltas       bool
	}{
		{"one complete CRL", "", 150, false},
		{"shards with deltas", "crls: {authorities: [{name: " + devIssuer + ", shards: 5, delta_period: 1m}]}\n", 500, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, storagetest.New(t), false)
			s.more = c.crls
			newCrowd(t, s.start("one", s.token.Module), c.certificates).compare(c.deltas)
		})
	}
}

// crowd are many certificates whose lives are random.
type crowd struct {
	t       *testing.T
	r       *replica
	files   fetched
	chance  *mathrand.Rand
	serials []string          // of all, in lower-case hex
	points  map[string]string // the URL of the CRL that each names
}

func newCrowd(t *testing.T, r *replica, n int) *crowd {
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	c := &crowd{t: t, r: r, files: fetched{t: t, dir: t.TempDir()}, chance: mathrand.New(mathrand.NewPCG(seed, 0)), points: map[string]string{}}
	issued := make([]issuedJSON, n)
	c.each(n, func(ctx context.Context, i int) error {
		one, got, err := r.issue(ctx, fmt.Sprintf("host-%d.dev.example", i), nil)
		issued[i] = one
		return errors.Join(err, wantStatus(got, http.StatusCreated))
	})
	for _, one := range issued {
		block, _ := pem.Decode([]byte(one.Certificate))
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		c.files.keep(one.Serial+".pem", []byte(one.Certificate))
		c.serials = append(c.serials, one.Serial)
		c.points[one.Serial] = certificate.CRLDistributionPoints[0]
	}
	return c
}

// each calls a function for some numbers, a few at a time.
func (c *crowd) each(n int, do func(ctx context.Context, i int) error) {
	c.t.Helper()
	group, ctx := errgroup.WithContext(c.t.Context())
	group.SetLimit(4)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

func wantStatus(got answer, want int) error {
	if got.status != want {
		return fmt.Errorf("status %d: %s", got.status, got.body)
	}
	return nil
}

// live has chance change what is said of a third of the certificates: a life is a row of revocations, holds and releases.
func (c *crowd) live() {
	c.t.Helper()
	lives := [][]string{{"certificateHold"}, {"certificateHold", "removeFromCRL"}, {"certificateHold", "superseded"}, {"removeFromCRL"}}
	for _, reason := range []string{"unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn"} {
		lives = append(lives, []string{reason})
	}
	chosen := map[string][]string{}
	for _, serial := range c.serials {
		if c.chance.IntN(3) == 0 {
			chosen[serial] = lives[c.chance.IntN(len(lives))]
		}
	}
	serials := slices.Sorted(maps.Keys(chosen))
	c.each(len(serials), func(ctx context.Context, i int) error {
		for _, reason := range chosen[serials[i]] {
			got, err := c.r.revoke(ctx, serials[i], reason)
			// What is revoked for good stays so, and what is not on hold is not released.
			if err != nil || got.status != http.StatusOK && got.status != http.StatusConflict {
				return errors.Join(err, wantStatus(got, http.StatusOK))
			}
		}
		return nil
	})
}

// revoked are the serials that the database says are revoked or on hold.
func (c *crowd) revoked() []string {
	c.t.Helper()
	return c.r.s.database.Column(c.t, `SELECT encode(serial, 'hex') FROM (
			SELECT DISTINCT ON (serial) serial, reason FROM revocations WHERE issuer = $1 ORDER BY serial, sequence DESC
		) AS latest WHERE reason <> $2 ORDER BY 1`, devIssuer, int(issuance.RemoveFromCRL))
}

func (c *crowd) compare(deltas bool) {
	t := c.t
	c.live()
	published, err := c.r.call(t.Context(), http.MethodPost, "/api/v1/authorities/"+devIssuer+"/crl", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte(`{}`))
	if err := errors.Join(err, wantStatus(published, http.StatusOK)); err != nil {
		t.Fatal(err)
	}
	then := c.revoked()
	complete := c.fetch("http://any/crl/" + devRoot + ".crl")
	entries := 0
	for _, point := range slices.Compact(slices.Sorted(maps.Values(c.points))) {
		der := c.fetch(point)
		complete = append(complete, der...)
		entries += c.gnutlsEntries(der)
	}
	if entries != len(then) {
		t.Errorf("GnuTLS finds %d entries, and %d certificates are revoked", entries, len(then))
	}
	c.wantVerdicts(then, complete)
	if !deltas {
		return
	}
	c.live()
	now := c.revoked()
	all := append(slices.Clone(complete), c.deltasThatShow(then, now)...)
	c.wantVerdicts(now, all, "-extended_crl", "-use_deltas")
}

// fetch is a CRL as PEM.
func (c *crowd) fetch(url string) []byte {
	c.t.Helper()
	der := c.r.fetchCRL(c.t.Context(), c.t, url)
	if der == nil {
		c.t.Fatalf("there is no %s", url)
	}
	return crlPEM(c.t, der)
}

// deltasThatShow waits until the deltas tell of everything that has changed.
func (c *crowd) deltasThatShow(then, now []string) (all []byte) {
	c.t.Helper()
	for _, point := range slices.Compact(slices.Sorted(maps.Values(c.points))) {
		var text []byte
		eventually(c.t, 20*time.Second, "the delta of "+point+" tells of all changes", func() bool {
			text = c.fetch(strings.TrimSuffix(point, ".crl") + "/delta.crl")
			block, _ := pem.Decode(text)
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				c.t.Fatal(err)
			}
			told := map[string]bool{}
			for _, e := range list.RevokedCertificateEntries {
				told[fmt.Sprintf("%040x", e.SerialNumber)] = true
			}
			for serial, at := range c.points {
				if at == point && slices.Contains(then, serial) != slices.Contains(now, serial) && !told[serial] {
					return false
				}
			}
			return true
		})
		all = append(all, text...)
	}
	return all
}

// wantVerdicts has openssl verify all certificates, with the CRLs of both authorities, and compares what it finds revoked.
func (c *crowd) wantVerdicts(want []string, crls []byte, options ...string) {
	c.t.Helper()
	list := c.files.keep("crls.pem", crls)
	issuing := filepath.Join(c.r.s.dir, "ceremony", devIssuer+".pem")
	args := append([]string{"verify", "-crl_check_all", "-CRLfile", list, "-CAfile", c.r.s.root(), "-untrusted", issuing}, options...)
	for _, serial := range c.serials {
		args = append(args, c.files.path(serial+".pem"))
	}
	var verdicts, reasons bytes.Buffer
	openssl := exec.CommandContext(c.t.Context(), "openssl", args...)
	openssl.Stdout, openssl.Stderr = &verdicts, &reasons
	var exit *exec.ExitError
	if err := openssl.Run(); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	var found []string
	good, why := 0, 0
	for line := range strings.Lines(verdicts.String() + reasons.String()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasSuffix(line, ".pem: OK"):
			good++
		case strings.HasSuffix(line, ".pem: verification failed"):
			path := strings.TrimSuffix(strings.TrimPrefix(line, "error "), ": verification failed")
			found = append(found, strings.TrimSuffix(filepath.Base(path), ".pem"))
		case strings.HasPrefix(line, "error 23 at 0 depth lookup: certificate revoked"):
			why++
		case strings.HasPrefix(line, "error "):
			c.t.Errorf("openssl: %s", line)
		}
	}
	slices.Sort(found)
	if good+len(found) != len(c.serials) || why != len(found) || !slices.Equal(found, want) {
		c.t.Errorf("openssl %v finds %d of %d revoked, %d for being revoked, and %d good; %d are revoked", options, len(found), len(c.serials), why,
			good, len(want))
		return
	}
	c.t.Logf("openssl %v and the database agree: %d of %d are revoked", options, len(found), len(c.serials))
}

// gnutlsEntries counts the entries of a CRL as certtool reads it.
func (c *crowd) gnutlsEntries(text []byte) int {
	c.t.Helper()
	out, err := command(c.t, "certtool", "--crl-info", "--infile", c.files.keep("one.crl", text))
	if err != nil {
		c.t.Fatalf("certtool: %v\n%s", err, out)
	}
	if strings.Contains(out, "No revoked certificates") {
		return 0
	}
	_, rest, _ := strings.Cut(out, "Revoked certificates (")
	number, _, _ := strings.Cut(rest, ")")
	n, err := strconv.Atoi(number)
	if err != nil {
		c.t.Fatalf("certtool does not say how many:\n%.2000s", out)
	}
	return n
}
