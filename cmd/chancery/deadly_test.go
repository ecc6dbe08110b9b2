package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	dieAt   = "CHANCERY_TEST_DIE_AT"   // the step to die at
	dieWhen = "CHANCERY_TEST_DIE_WHEN" // a file: the process is mortal from when it exists; it may hold an order, see deadly
	clockIn = "CHANCERY_TEST_CLOCK"    // a file: how far the process's clock is off, such as -2h
)

// steps are the moments between which an issuance, its waiting for approval, or a publication can be torn apart: before and after each call
// of what lasts.
var (
	issueSteps = []string{
		"before intent", "after intent", "before certificate signature", "after certificate signature",
		"before certificate", "after certificate",
	}
	queueSteps   = []string{"before waiting", "after waiting", "before approval", "after approval"}
	publishSteps = []string{
		"before claim", "after claim", "before crl intent", "after crl intent", "before crl signature",
		"after crl signature", "before crl", "after crl",
	}
)

// deadly stands between the authority and what it depends on, and kills its own process with SIGKILL at one step. The file that arms it
// may name another step, "kill after intent", or have the process stopped there with SIGSTOP, once: "stop after intent".
type deadly struct {
	step, armed string
	spied       sync.Mutex // pkcs11-spy's log of one signature must not be torn apart by another
}

func (d *deadly) at(step string) {
	order, err := os.ReadFile(d.armed)
	if err != nil {
		return
	}
	mortal, signal := d.step, syscall.SIGKILL
	if verb, named, ok := strings.Cut(string(order), " "); ok {
		mortal = named
		if verb == "stop" {
			signal = syscall.SIGSTOP
		}
	}
	if step != mortal {
		return
	}
	if signal == syscall.SIGSTOP && os.Remove(d.armed) != nil {
		return // another goroutine has come here first
	}
	// The thread that sends it gets it itself: with kill another one may, and this one goes on for a while.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(signal)); errno != 0 {
		panic(errno)
	}
	if signal == syscall.SIGKILL {
		select {} // until it has come
	}
}

// clockOff is a clock that is as far off as a file says, at each moment.
func clockOff(path string) func() time.Time {
	return func() time.Time {
		text, err := os.ReadFile(path)
		off, parseErr := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil || parseErr != nil {
			off = 0
		}
		return time.Now().Add(off)
	}
}

func (d *deadly) around(what string, do func() error) error {
	d.at("before " + what)
	err := do()
	if err == nil { // what failed, because another has taken over, was not done
		d.at("after " + what)
	}
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

func (s *deadlyStore) AppendToLog(ctx context.Context, t ca.Term, size int64, lots []ca.LeafLot, complete []audit.Subtree) error {
	return s.d.around("sequencing", func() error { return s.Store.AppendToLog(ctx, t, size, lots, complete) })
}

func (s *deadlyStore) RecordCheckpoint(ctx context.Context, t ca.Term, c audit.Checkpoint, note []byte) error {
	return s.d.around("checkpoint", func() error { return s.Store.RecordCheckpoint(ctx, t, c, note) })
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
// What is not DER is a checkpoint of the audit log.
func signed(tbs []byte) (string, error) {
	if len(tbs) > 0 && tbs[0] != 0x30 {
		return "checkpoint", nil
	}
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
