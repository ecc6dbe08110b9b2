package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// rootCRL makes the root's CRL in a ceremony that follows another's and revokes one serial more.
func (s *stack) rootCRL(t *testing.T, token *hsm.Token, name, previous, serial string, now func() time.Time) []byte {
	t.Helper()
	plan, err := ceremony.ParsePlan(filepath.Join(s.dir, name+".yaml"), fmt.Appendf(nil, `ceremony: %[1]s
output: %[1]s
crls:
  - issuer: root-1
    certificate: ceremony/root-1.cer
    key: {label: root-1}
    validity: 100d
    previous: %[2]s/root-1.crl
    revoked:
      - {serial: %[3]s, reason: cACompromise, at: %[4]q}
`, name, previous, serial, time.Now().UTC().Format(time.RFC3339)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ceremony.Run(t.Context(), plan, ceremony.Options{Token: token, Now: now, Random: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	return read(t, filepath.Join(s.dir, name, "root-1.crl"))
}

// TestAnImportedCRLForgetsNothing has two ceremonies follow the same CRL, as when two authorities are revoked on one day: whichever is
// imported second would take back what the first revokes.
func TestAnImportedCRLForgetsNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	store := storeOf(t, s.database)
	token := s.token.Open(t)
	defer token.Close()
	list := func(name, previous, serial string) []byte {
		return s.rootCRL(t, token, name, previous, serial, time.Now)
	}
	take := func(der []byte, want string) {
		t.Helper()
		_, err := s.app.registrar(store).ImportCRL(ctx, devRoot, der)
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("imported with %s, want %q", got, want)
		}
	}
	const nothing = "<nil>"
	first := list("first", "ceremony", "1c0a")
	beside := list("beside", "ceremony", "1c0b")
	take(first, nothing)
	take(first, nothing)
	take(beside, "leaves out serial 1c0a")
	take(list("after", "first", "1c0b"), nothing)
}

// overtaken is a store in which another CRL is imported when one has been held against what is served.
type overtaken struct {
	ca.Store
	by func()
}

func (o *overtaken) ImportCRL(ctx context.Context, c ca.CRLRecord, after *big.Int, leaves ...audit.Leaf) error {
	if o.by != nil {
		by := o.by
		o.by = nil
		by()
	}
	return o.Store.ImportCRL(ctx, c, after, leaves...)
}

// TestCRLsImportedAtOnceForgetNothing imports two CRLs at the same time: the one that is late is held against the other as well.
func TestCRLsImportedAtOnceForgetNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	store := storeOf(t, s.database)
	token := s.token.Open(t)
	defer token.Close()
	take := func(der []byte, by []byte) error {
		late := &overtaken{Store: store}
		if by != nil {
			late.by = func() {
				if _, err := s.app.registrar(store).ImportCRL(ctx, devRoot, by); err != nil {
					t.Errorf("the other: %v", err)
				}
			}
		}
		_, err := s.app.registrar(late).ImportCRL(ctx, devRoot, der)
		return err
	}
	first := s.rootCRL(t, token, "first", "ceremony", "1c0a", time.Now)
	beside := s.rootCRL(t, token, "beside", "ceremony", "1c0b", time.Now)
	if err := take(beside, first); err == nil || !strings.Contains(err.Error(), "leaves out serial 1c0a") {
		t.Errorf("the one that does not know of the other: %v", err)
	}
	after := s.rootCRL(t, token, "after", "first", "1c0b", time.Now)
	if err := take(s.rootCRL(t, token, "last", "after", "1c0c", time.Now), after); err != nil {
		t.Errorf("the one that knows of the other: %v", err)
	}
}

// TestAnImportedCRLHasWhatIsOnRecord revokes an authority and imports CRLs that do not say so: one from before, with a warning, and none
// from after.
func TestAnImportedCRLHasWhatIsOnRecord(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	store := storeOf(t, s.database)
	token := s.token.Open(t)
	defer token.Close()
	config := s.write("tool", s.token.Module)
	take := func(name string) (said string, err error) {
		var out strings.Builder
		err = run(t.Context(), []string{"crl", "import", "--config", config, "--authority", devRoot, filepath.Join(s.dir, name, "root-1.crl")},
			Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Environ: environ(), Now: time.Now, Random: rand.Reader})
		return out.String(), err
	}
	s.rootCRL(t, token, "before", "ceremony", "1c0a", time.Now)
	revoked, err := s.app.registrar(store).RevokeAuthority(t.Context(), devIssuer, issuance.CACompromise, "")
	if err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(2 * time.Second) } // not within the second of the revocation
	s.rootCRL(t, token, "without", "before", "1c0b", later)
	s.rootCRL(t, token, "with", "before", hex.EncodeToString(revoked.Serial), later)

	if said, err := take("before"); err != nil || !strings.Contains(said, devIssuer+", revoked since") {
		t.Errorf("one that is older than the revocation: %q, %v", said, err)
	}
	if said, err := take("without"); !strings.Contains(fmt.Sprint(err), fmt.Sprintf("leaves out serial %x, which was on record", revoked.Serial)) {
		t.Errorf("one that leaves the revocation out: %q, %v", said, err)
	}
	if said, err := take("with"); err != nil || strings.Contains(said, "revoked since") {
		t.Errorf("one that has it: %q, %v", said, err)
	}
}
