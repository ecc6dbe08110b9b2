package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faultyKey is a key whose signing goes as a test wants.
type faultyKey struct {
	*ecdsa.PrivateKey
	calls *atomic.Int32
	fault func(digest []byte) ([]byte, error)
}

func (k faultyKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	k.calls.Add(1)
	return k.fault(digest)
}

// prepareWith prepares a certificate for an issuer whose key goes wrong, and tells how often the key is asked.
func prepareWith(t *testing.T, fault func(key *ecdsa.PrivateKey, digest []byte) ([]byte, error)) (*Issuer, *Prepared, *atomic.Int32) {
	t.Helper()
	h := ecdsaHierarchy(t)
	key := h.issuingKey.(*ecdsa.PrivateKey)
	calls := new(atomic.Int32)
	issuer := withSigner(h.issuing, faultyKey{key, calls, func(digest []byte) ([]byte, error) { return fault(key, digest) }})
	prepared, err := issuer.prepare(leafTemplate(t, p256(t).Public()), linterOf(t, publicLint), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	return issuer, prepared, calls
}

// withSigner is an issuer that signs with another crypto.Signer of the same key.
func withSigner(i *Issuer, signer crypto.Signer) *Issuer {
	other := &Issuer{certificate: i.certificate, key: i.key, crlLinter: i.crlLinter}
	other.key.signer = signer
	other.keyCleared.Store(true)
	return other
}

func soundly(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	return key.Sign(rand.Reader, digest, crypto.SHA256)
}

func TestNothingIsSignedWithoutRecord(t *testing.T) {
	issuer, prepared, calls := prepareWith(t, soundly)
	refused := errors.New("the database is away")
	_, err := issuer.Sign(t.Context(), prepared, RecorderFunc(func(context.Context, Signing) error { return refused }))
	if !errors.Is(err, refused) || errors.Is(err, ErrPossiblySigned) {
		t.Errorf("the error is %v", err)
	}
	if calls.Load() != 0 {
		t.Error("the key was asked although the intent was not recorded")
	}
	if _, err := issuer.Sign(t.Context(), prepared, nothing); !errors.Is(err, ErrSpent) {
		t.Errorf("a second attempt: %v", err)
	}
}

func TestRecordComesFirst(t *testing.T) {
	recorded := false
	var before bool
	issuer, prepared, calls := prepareWith(t, func(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
		before = recorded
		return soundly(key, digest)
	})
	var intent Signing
	certificate, err := issuer.Sign(t.Context(), prepared, RecorderFunc(func(_ context.Context, s Signing) error {
		recorded, intent = true, Signing{Kind: s.Kind, Serial: s.Serial, TBS: bytes.Clone(s.TBS)}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if !before || calls.Load() != 1 {
		t.Error("the key was not asked once, after the record")
	}
	signed := parse(t, certificate.DER)
	if intent.Kind != Final || intent.Serial != prepared.Serial() || !bytes.Equal(intent.TBS, signed.RawTBSCertificate) {
		t.Error("what was recorded is not what was signed")
	}
	if sha256.Sum256(signed.RawTBSCertificate) != [32]byte(certificate.Signature.Digest) || certificate.Signature.Duration <= 0 {
		t.Errorf("the signature is described as %+v", certificate.Signature)
	}
}

func TestFaultyKeys(t *testing.T) {
	other := p256(t)
	for name, fault := range map[string]func(*ecdsa.PrivateKey, []byte) ([]byte, error){
		"an error":       func(*ecdsa.PrivateKey, []byte) ([]byte, error) { return nil, errors.New("CKR_DEVICE_REMOVED") },
		"a panic":        func(*ecdsa.PrivateKey, []byte) ([]byte, error) { panic("out of sessions") },
		"no signature":   func(*ecdsa.PrivateKey, []byte) ([]byte, error) { return nil, nil },
		"another key":    func(_ *ecdsa.PrivateKey, digest []byte) ([]byte, error) { return soundly(other, digest) },
		"another digest": func(key *ecdsa.PrivateKey, _ []byte) ([]byte, error) { return soundly(key, make([]byte, 32)) },
		"octets after the end": func(key *ecdsa.PrivateKey, d []byte) ([]byte, error) {
			s, err := soundly(key, d)
			return append(s, 0), err
		},
		"a signature and error": func(key *ecdsa.PrivateKey, d []byte) ([]byte, error) {
			s, _ := soundly(key, d)
			return s, errors.New("late")
		},
	} {
		issuer, prepared, _ := prepareWith(t, fault)
		if c, err := issuer.Sign(t.Context(), prepared, nothing); c != nil || !errors.Is(err, ErrPossiblySigned) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		list, err := issuer.PrepareCRL(smallCRL())
		if err != nil {
			t.Fatal(err)
		}
		if c, err := issuer.SignCRL(t.Context(), list, nothing); c != nil || !errors.Is(err, ErrPossiblySigned) {
			t.Errorf("%s, CRL: %v, %v", name, c, err)
		}
	}
}

func TestHungKey(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	issuer, prepared, _ := prepareWith(t, func(*ecdsa.PrivateKey, []byte) ([]byte, error) {
		cancel()
		<-release
		return nil, nil
	})
	if _, err := issuer.Sign(ctx, prepared, nothing); !errors.Is(err, ErrPossiblySigned) || !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestContextEndsWhileRecording(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	issuer, prepared, calls := prepareWith(t, soundly)
	_, err := issuer.Sign(ctx, prepared, RecorderFunc(func(context.Context, Signing) error { cancel(); return nil }))
	if !errors.Is(err, ErrPossiblySigned) || !errors.Is(err, context.Canceled) || calls.Load() != 0 {
		t.Errorf("the error is %v, the key was asked %d times", err, calls.Load())
	}
}

// TestBytesChangedByRecorder has a recorder change what it must not.
func TestBytesChangedByRecorder(t *testing.T) {
	issuer, prepared, calls := prepareWith(t, soundly)
	_, err := issuer.Sign(t.Context(), prepared, RecorderFunc(func(_ context.Context, s Signing) error { s.TBS[40] ^= 1; return nil }))
	if !errors.Is(err, ErrPossiblySigned) || calls.Load() != 0 {
		t.Errorf("the error is %v, the key was asked %d times", err, calls.Load())
	}
}

// TestOnce has many try to sign the same.
func TestOnce(t *testing.T) {
	issuer, prepared, calls := prepareWith(t, soundly)
	list, err := issuer.PrepareCRL(smallCRL())
	if err != nil {
		t.Fatal(err)
	}
	var signed, spent atomic.Int32
	count := func(err error) {
		switch {
		case err == nil:
			signed.Add(1)
		case errors.Is(err, ErrSpent):
			spent.Add(1)
		default:
			t.Error(err)
		}
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { _, err := issuer.Sign(t.Context(), prepared, nothing); count(err) })
		wait.Go(func() { _, err := issuer.SignCRL(t.Context(), list, nothing); count(err) })
	}
	wait.Wait()
	if signed.Load() != 2 || spent.Load() != 14 || calls.Load() != 2 {
		t.Errorf("%d signed, %d refused, the key was asked %d times", signed.Load(), spent.Load(), calls.Load())
	}
}

// TestConcurrentIssuance prepares and signs with one issuer from many goroutines.
func TestConcurrentIssuance(t *testing.T) {
	h := ecdsaHierarchy(t)
	tpl := leafTemplate(t, p256(t).Public())
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			linter, err := h.issuing.linter(publicLint)
			if err != nil {
				t.Error(err)
				return
			}
			prepared, err := h.issuing.prepare(tpl, linter, newSerial(t), now)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := h.issuing.Sign(t.Context(), prepared, nothing); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func TestForeignPrepared(t *testing.T) {
	issuer, prepared, calls := prepareWith(t, soundly)
	other, theirs, _ := prepareWith(t, soundly)
	list, err := other.PrepareCRL(smallCRL())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Prepared{nil, {}, theirs} {
		if _, err := issuer.Sign(t.Context(), p, nothing); err == nil || errors.Is(err, ErrPossiblySigned) {
			t.Errorf("signed, or perhaps, what another prepared: %v", err)
		}
	}
	for _, p := range []*PreparedCRL{nil, {}, list} {
		if _, err := issuer.SignCRL(t.Context(), p, nothing); err == nil || errors.Is(err, ErrPossiblySigned) {
			t.Errorf("signed, or perhaps, a list that another prepared: %v", err)
		}
	}
	if _, err := issuer.Sign(t.Context(), prepared, nil); err == nil || errors.Is(err, ErrPossiblySigned) {
		t.Errorf("signed, or perhaps, without a recorder: %v", err)
	}
	if calls.Load() != 0 {
		t.Error("the key was asked")
	}
}

// messageKey takes whole messages and refuses digests, as a key behind a keeper does.
type messageKey struct{ *ecdsa.PrivateKey }

func (k messageKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("this key must see what it signs")
}

func (k messageKey) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest := sha256.Sum256(message)
	return k.PrivateKey.Sign(random, digest[:], opts)
}

func TestMessageSigner(t *testing.T) {
	h := ecdsaHierarchy(t)
	issuer := withSigner(h.issuing, messageKey{h.issuingKey.(*ecdsa.PrivateKey)})
	leaf := issue(t, issuer, leafTemplate(t, p256(t).Public()), publicLint)
	verifyChain(t, h, leaf.DER, "www.example.com")
}

// TestRecordOfCRL looks at what a recorder is told of a CRL.
func TestRecordOfCRL(t *testing.T) {
	h := ecdsaHierarchy(t)
	c := smallCRL()
	prepared, err := h.issuing.PrepareCRL(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Number.SetInt64(1) // the caller's number is the caller's
	var told Signing
	signed, err := h.issuing.SignCRL(t.Context(), prepared, RecorderFunc(func(_ context.Context, s Signing) error { told = s; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	want := big.NewInt(now.UnixMilli())
	if told.Kind != List || told.Number.Cmp(want) != 0 || sha256.Sum256(told.TBS) != prepared.Digest() || signed.Number.Cmp(want) != 0 {
		t.Errorf("the recorder was told %v %v", told.Kind, told.Number)
	}
	if signed.Entries != 3 || !signed.NextUpdate.Equal(now.Add(7*24*time.Hour)) {
		t.Errorf("signed %+v", signed)
	}
}
