package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestAKeyIsCompromisedWhileItIsCertified has a replica stop between a signature and its record, and another revoke an earlier certificate of the
// key meanwhile: no certificate comes of it, the requester is told why, and what was signed is revoked.
func TestAKeyIsCompromisedWhileItIsCertified(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	armed := filepath.Join(s.dir, "armed")
	other, slow := s.start("other", s.token.Module), s.start("slow", s.token.Module, dieAt+"=as ordered", dieWhen+"="+armed)
	request := newRequest(t, "leaked.dev.example")
	earlier, got, err := slow.issueCSR(ctx, request, nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	if err := os.WriteFile(armed, []byte("stop before certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := make(chan answer, 1)
	go func() {
		_, got, err := slow.issueCSR(ctx, request, http.Header{"Idempotency-Key": {"again"}})
		if err != nil {
			t.Errorf("issuing: %v", err)
		}
		refused <- got
	}()
	eventually(t, 20*time.Second, "a certificate is signed and not recorded", func() bool {
		_, err := os.Stat(armed)
		return os.IsNotExist(err)
	})
	left := s.database.Column(t, `SELECT encode(serial, 'hex') FROM intents`)
	if len(left) != 1 {
		t.Fatalf("open intents are %v", left)
	}
	other.mustRevoke(ctx, t, earlier.Serial, "keyCompromise")
	slow.signal(t, syscall.SIGCONT)
	if got := <-refused; got.status != http.StatusUnprocessableEntity || !bytes.Contains(got.body, []byte("key.compromised")) {
		t.Errorf("the request is answered with %d %s", got.status, got.body)
	}
	if on := s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates WHERE encode(serial, 'hex') = $1`, left[0]); len(on) != 0 {
		t.Errorf("%s is on record as a certificate", left[0])
	}
	eventually(t, 20*time.Second, "the serial is on the CRL", func() bool {
		list, err := other.crl(ctx)
		return err == nil && strings.Contains(fmt.Sprint(revokedSerials(list)), left[0])
	})
	if _, got, err := other.issueCSR(ctx, request, http.Header{"Idempotency-Key": {"again"}}); err != nil || got.status != http.StatusUnprocessableEntity {
		t.Errorf("the same request again is answered with %d %s, %v", got.status, got.body, err)
	}
}
