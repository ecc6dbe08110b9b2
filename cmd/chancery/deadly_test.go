package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	dieAt   = "CHANCERY_TEST_DIE_AT"   // the step to die at
	dieWhen = "CHANCERY_TEST_DIE_WHEN" // a file: the process is mortal from when it exists
)

// steps are the moments between which an issuance, its waiting for approval, or a publication can be torn apart: before and after each call of what lasts.
var (
	issueSteps   = []string{"before intent", "after intent", "before certificate signature", "after certificate signature", "before certificate", "after certificate"}
	queueSteps   = []string{"before waiting", "after waiting", "before approval", "after approval"}
	publishSteps = []string{"before claim", "after claim", "before crl intent", "after crl intent", "before crl signature", "after crl signature", "before crl", "after crl"}
)

// deadly stands between the authority and what it depends on, and kills its own process with SIGKILL at one step.
type deadly struct {
	step, armed string
	spied       sync.Mutex // pkcs11-spy's log of one signature must not be torn apart by another
}

func (d *deadly) at(step string) {
	if step != d.step {
		return
	}
	if _, err := os.Stat(d.armed); err != nil {
		return
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // until the signal has come
}

func (d *deadly) around(what string, do func() error) error {
	d.at("before " + what)
	err := do()
	d.at("after " + what)
	return err
}

func (d *deadly) store(inner ca.Store) ca.Store { return &deadlyStore{Store: inner, d: d} }

type deadlyStore struct {
	ca.Store
	d *deadly
}

func (s *deadlyStore) RecordIntent(ctx context.Context, i ca.Intent, l ...audit.Leaf) error {
	return s.d.around("intent", func() error { return s.Store.RecordIntent(ctx, i, l...) })
}

func (s *deadlyStore) RecordCertificate(ctx context.Context, c ca.NewCertificate, l ...audit.Leaf) error {
	return s.d.around("certificate", func() error { return s.Store.RecordCertificate(ctx, c, l...) })
}

func (s *deadlyStore) RecordWaiting(ctx context.Context, w ca.WaitingRequest, k ca.IdempotencyKey, l ...audit.Leaf) error {
	return s.d.around("waiting", func() error { return s.Store.RecordWaiting(ctx, w, k, l...) })
}

func (s *deadlyStore) RecordApproval(ctx context.Context, request string, a ca.ApprovalRecord, l ...audit.Leaf) error {
	return s.d.around("approval", func() error { return s.Store.RecordApproval(ctx, request, a, l...) })
}

func (s *deadlyStore) RecordPrecertificate(ctx context.Context, c ca.NewCertificate, l ...audit.Leaf) error {
	return s.d.around("precertificate", func() error { return s.Store.RecordPrecertificate(ctx, c, l...) })
}

func (s *deadlyStore) RecordFinalIntent(ctx context.Context, i ca.Intent, l ...audit.Leaf) error {
	return s.d.around("final intent", func() error { return s.Store.RecordFinalIntent(ctx, i, l...) })
}

func (s *deadlyStore) ClaimCRL(ctx context.Context, ask ca.CRLAsk) (claim ca.CRLClaim, err error) {
	err = s.d.around("claim", func() error { claim, err = s.Store.ClaimCRL(ctx, ask); return err })
	return claim, err
}

func (s *deadlyStore) RecordCRLIntent(ctx context.Context, i ca.CRLIntent, l ...audit.Leaf) error {
	return s.d.around("crl intent", func() error { return s.Store.RecordCRLIntent(ctx, i, l...) })
}

func (s *deadlyStore) RecordCRL(ctx context.Context, c ca.CRLRecord, fence int64, l ...audit.Leaf) error {
	return s.d.around("crl", func() error { return s.Store.RecordCRL(ctx, c, fence, l...) })
}

func (d *deadly) key(_ string, inner crypto.Signer) crypto.Signer {
	return &deadlyKey{Signer: inner, messages: inner.(crypto.MessageSigner), d: d}
}

type deadlyKey struct {
	crypto.Signer
	messages crypto.MessageSigner
	d        *deadly
}

func (k *deadlyKey) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	what, err := signed(message)
	if err != nil {
		return nil, err
	}
	k.d.spied.Lock()
	defer k.d.spied.Unlock()
	err = k.d.around(what+" signature", func() error { signature, err = k.messages.SignMessage(random, message, opts); return err })
	return signature, err
}

// signed tells a TBSCertificate, which begins with its tagged version, from a TBSCertList, which begins with an INTEGER.
func signed(tbs []byte) (string, error) {
	header := 2
	if len(tbs) > 1 && tbs[1] > 0x80 {
		header += int(tbs[1] & 0x7f)
	}
	if len(tbs) <= header {
		return "", fmt.Errorf("%d octets are nothing to sign", len(tbs))
	}
	if tbs[header] == 0xa0 {
		return "certificate", nil
	}
	return "crl", nil
}
