package keeper

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// TestAnyToken: with any vendor's token, in process and behind a keeper, an authority's key signs certificates and CRLs; behind a keeper it
// signs nothing else, and issuance goes on when the worker was killed and when the keeper was started anew.
func TestAnyToken(t *testing.T) {
	a, restored := authorityIn(t, hsmtest.Subject(t), 0)
	list := func(key hsm.Signer, number int64) error {
		now := time.Now()
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, a.certificate, key)
		if err != nil {
			return err
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		return crl.CheckSignatureFrom(a.certificate)
	}
	t.Run("none", func(t *testing.T) {
		token, err := hsm.OpenRecovering(t.Context(), a.fixture.Config(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := token.Signer(a.ref, a.certificate.PublicKey, hsm.Terms{Restored: restored})
		if err == nil {
			err = errors.Join(a.issue(signer, leaf()), list(signer, 1))
		}
		if err := errors.Join(err, token.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Run("holder", func(t *testing.T) {
		s := supervise(t, a, a.fixture.Config(), t.TempDir(), func(h *holding) { h.Restored, h.CallTimeout = restored, 5*time.Second })
		key := s.signer(t, a)
		if err := errors.Join(a.issue(key, leaf()), list(key, time.Now().UnixMilli())); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(s.pid(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, recovery, "issuance resumes after the holder was killed", func() error { return a.issue(key, leaf()) })
	})
	t.Run("worker", func(t *testing.T) {
		config, log := a.config(t, a.fixture.Config())
		config.Keys[0].Restored = restored
		config.Tokens[0].CallTimeout, config.Tokens[0].StartTimeout = 5*time.Second, 20*time.Second // a TPM takes its time
		r := start(t, config, log)
		key := r.signer(t, a.certificate.PublicKey)
		stop := (&load{a: a, key: key}).run(t.Context(), 4)
		within(t, patience, "certificates are issued", func() error { return a.issue(key, leaf()) })
		stop()
		if err := list(key, time.Now().UnixMilli()); err != nil {
			t.Error(err)
		}
		if err := a.issue(key, leaf(func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		})); !errors.Is(err, ErrRefused) {
			t.Errorf("a certificate of an authority: %v", err)
		}
		if err := syscall.Kill(r.keeper.tokens[0].workerPID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, recovery, "issuance resumes after the worker was killed", func() error { return a.issue(key, leaf()) })
		r.stop()
		r = start(t, config, log)
		if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
			t.Error(err)
		}
		r.stop()
		journal, err := os.Open(r.journal)
		if err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
		if report, err := VerifyJournal(journal, ""); err != nil || report.Results["signed"] < 4 || report.Results["refused"] != 1 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// authorityIn makes an authority's key and its certificate in a token of any vendor, and leaves the token closed. Of one that does not say which keys it made, the key counts as restored.
func authorityIn(t testing.TB, fixture *hsmtest.Token, pathLen int) (_ *authority, restored bool) {
	t.Helper()
	a := &authority{fixture: fixture}
	token, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	ref, public, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	a.ref, a.certificate = ref, selfSigned(t, key, pathLen)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	return a, !token.Info().Profile().Has(hsm.TellsLocal)
}

// workerPID is the process of the worker that can sign.
func (t *token) workerPID() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w, ok := t.open.(*process); ok {
		return w.cmd.Process.Pid
	}
	return 0
}
