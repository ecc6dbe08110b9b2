package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func verify(public crypto.PublicKey, message, signature []byte, opts crypto.SignerOpts) error {
	h := opts.HashFunc().New()
	h.Write(message)
	digest := h.Sum(nil)
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, digest, signature) {
			return errors.New("the ECDSA signature is wrong")
		}
		return nil
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(k, pss.Hash, digest, signature, pss)
		}
		return rsa.VerifyPKCS1v15(k, opts.HashFunc(), digest, signature)
	}
	return fmt.Errorf("a key of type %T", public)
}

func signAndVerify(t *testing.T, token *hsm.Token, ref hsm.KeyRef, public crypto.PublicKey) {
	t.Helper()
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	options := []crypto.SignerOpts{crypto.SHA256, crypto.SHA384, crypto.SHA512}
	if _, ok := public.(*rsa.PublicKey); ok {
		options = append(options,
			&rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash},
			&rsa.PSSOptions{Hash: crypto.SHA384, SaltLength: 48})
	}
	message := []byte("to be signed")
	for _, opts := range options {
		h := opts.HashFunc().New()
		h.Write(message)
		byDigest, err := signer.Sign(nil, h.Sum(nil), opts)
		if err != nil {
			t.Fatalf("%v: %v", opts, err)
		}
		byMessage, err := signer.SignMessage(rand.Reader, message, opts)
		if err != nil {
			t.Fatalf("%v: %v", opts, err)
		}
		byStdlib, err := crypto.SignMessage(signer, rand.Reader, message, opts)
		if err != nil {
			t.Fatalf("%v: %v", opts, err)
		}
		for _, signature := range [][]byte{byDigest, byMessage, byStdlib} {
			if err := verify(public, message, signature, opts); err != nil {
				t.Errorf("%v: %v", opts, err)
			}
		}
		if _, isHash := opts.(crypto.Hash); isHash {
			if _, isRSA := public.(*rsa.PublicKey); isRSA && !bytes.Equal(byDigest, byMessage) {
				t.Errorf("%v: the two ways differ", opts)
			}
		}
	}
}

func TestSignerMakesCertificates(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.CheckSignatureFrom(certificate); err != nil {
		t.Error(err)
	}
}

func TestSignerRefusesKeys(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	_, other := generate(t, token, hsm.ECDSAP256, "other")
	hsmtest.ExtractableKey(t, token, "extractable")
	hsmtest.Key{Label: "twin", ID: []byte("twin 1")}.Generate(t, token)
	hsmtest.Key{Label: "twin", ID: []byte("twin 2")}.Generate(t, token)
	hsmtest.Key{Label: "sister 1", ID: []byte("sisters")}.Generate(t, token)
	hsmtest.Key{Label: "sister 2", ID: []byte("sisters")}.Generate(t, token)
	tests := []struct {
		name     string
		ref      hsm.KeyRef
		want     crypto.PublicKey
		err      error
		mentions []string
	}{
		{"both names", ref, public, nil, nil},
		{"label", hsm.KeyRef{Label: "ca"}, public, nil, nil},
		{"id", hsm.KeyRef{ID: ref.ID}, public, nil, nil},
		{"any public key", ref, nil, nil, nil},
		{"another public key", ref, other, hsm.ErrKeyMismatch, nil},
		{"a value that is no key", ref, "key", hsm.ErrKeyMismatch, nil},
		{"unknown label", hsm.KeyRef{Label: "nobody"}, nil, hsm.ErrKeyNotFound, []string{"nobody"}},
		{"unknown id", hsm.KeyRef{ID: []byte{0xab}}, nil, hsm.ErrKeyNotFound, []string{"ab"}},
		{"label and id of different keys", hsm.KeyRef{Label: "other", ID: ref.ID}, nil, hsm.ErrKeyNotFound, nil},
		{"label of two", hsm.KeyRef{Label: "twin"}, nil, hsm.ErrAmbiguous, []string{"7477696e2031", "7477696e2032"}},
		{"id of two", hsm.KeyRef{ID: []byte("sisters")}, nil, hsm.ErrAmbiguous, []string{"sister 1", "sister 2"}},
		{"id of two public keys", hsm.KeyRef{Label: "sister 1"}, nil, hsm.ErrAmbiguous, nil},
		{
			"extractable",
			hsm.KeyRef{Label: "extractable"},
			nil, hsm.ErrKeyNotKept,
			[]string{"CKA_EXTRACTABLE is true", "CKA_NEVER_EXTRACTABLE is false"},
		},
	}
	for _, tt := range tests {
		signer, err := token.Signer(tt.ref, tt.want)
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err == nil && !signer.Public().(*ecdsa.PublicKey).Equal(public) {
			t.Errorf("%s: another key", tt.name)
		}
		for _, m := range tt.mentions {
			if !strings.Contains(err.Error(), m) {
				t.Errorf("%s: %q does not say %q", tt.name, err, m)
			}
		}
	}
	if _, err := token.Signer(hsm.KeyRef{}, nil); err == nil {
		t.Error("a key that nobody named")
	}
	// What one of a pair of twins is can be told by both names.
	if _, err := token.Signer(hsm.KeyRef{Label: "twin", ID: []byte("twin 1")}, nil); err != nil {
		t.Error(err)
	}
}

func TestSignerRefusesOptions(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	ecRef, _ := generate(t, token, hsm.ECDSAP256, "ec")
	rsaRef, _ := generate(t, token, hsm.RSA2048, "rsa")
	ec, err := token.Signer(ecRef, nil)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := token.Signer(rsaRef, nil)
	if err != nil {
		t.Fatal(err)
	}
	pss := func(hash crypto.Hash, salt int) *rsa.PSSOptions { return &rsa.PSSOptions{Hash: hash, SaltLength: salt} }
	tests := []struct {
		name   string
		signer hsm.Signer
		opts   crypto.SignerOpts
	}{
		{"nil, EC", ec, nil},
		{"nil, RSA", rs, nil},
		{"no hash, EC", ec, crypto.Hash(0)},
		{"no hash, RSA", rs, crypto.Hash(0)},
		{"SHA-1", rs, crypto.SHA1},
		{"MD5", rs, crypto.MD5SHA1},
		{"SHA-224", ec, crypto.SHA224},
		{"unknown hash", rs, crypto.Hash(99)},
		{"PSS with EC", ec, pss(crypto.SHA256, 32)},
		{"PSS nil", rs, (*rsa.PSSOptions)(nil)},
		{"PSS without hash", rs, pss(0, 32)},
		{"PSS auto salt", rs, pss(crypto.SHA256, rsa.PSSSaltLengthAuto)},
		{"PSS negative salt", rs, pss(crypto.SHA256, -7)},
	}
	digest := sha256.Sum256(nil)
	for _, tt := range tests {
		if _, err := tt.signer.Sign(nil, digest[:], tt.opts); err == nil || errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := tt.signer.SignMessage(nil, nil, tt.opts); err == nil || errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s, message: %v", tt.name, err)
		}
	}
	for _, length := range []int{0, 1, 31, 33, 48, 64} {
		for _, s := range []hsm.Signer{ec, rs} {
			if _, err := s.Sign(nil, make([]byte, length), crypto.SHA256); err == nil {
				t.Errorf("a digest of %d octets was signed as one of SHA-256", length)
			}
		}
	}
}

// Any message, signed whole, verifies; nothing else does under its signature.
func TestSignMessageVerifies(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		opts := rapid.SampledFrom([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}).Draw(t, "hash")
		signature, err := signer.SignMessage(nil, message, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(public, message, signature, opts); err != nil {
			t.Fatal(err)
		}
		if verify(public, append(message, 0), signature, opts) == nil {
			t.Fatal("another message verifies")
		}
	})
}

func TestSignConcurrently(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	c := fixture.Config()
	c.MaxSessions = 3 // fewer than signers: they queue
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for j := range 10 {
				message := fmt.Appendf(nil, "message %d of %d", j, i)
				signature, err := signer.SignMessage(nil, message, crypto.SHA256)
				if err != nil {
					t.Error(err)
					return
				}
				if err := verify(public, message, signature, crypto.SHA256); err != nil {
					t.Error(err)
				}
				if _, err := token.Attributes(ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// Whoever finds all sessions in use waits for one, and not for ever: that they are is no fault of the token.
func TestAllSessionsInUse(t *testing.T) {
	t.Parallel()
	c := hsmtest.Subject(t).Config()
	c.MaxSessions, c.SessionWait = 2, 20*time.Millisecond
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"sign":   func() error { _, err := signer.SignMessage(nil, []byte("message"), crypto.SHA256); return err },
		"find":   func() error { _, err := token.Signer(ref, public); return err },
		"random": func() error { _, err := token.Random(16); return err },
		"generate": func() error {
			_, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "another", ID: []byte{9}})
			return err
		},
	}
	release, err := hsm.Occupy(token)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "all 2 sessions are in use") {
			t.Errorf("%s: %v", name, err)
		}
	}
	release()
	for name, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s, with sessions free again: %v", name, err)
		}
	}
}

// Close waits for the signatures in progress; the ones after it fail as unavailable, and nothing panics.
func TestCloseWhileSigning(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	token, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	started := make(chan struct{}, 4)
	for range cap(started) {
		group.Go(func() {
			for first := true; ; first = false {
				signature, err := signer.SignMessage(nil, nil, crypto.SHA256)
				if first {
					started <- struct{}{}
				}
				if errors.Is(err, hsm.ErrUnavailable) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := verify(public, nil, signature, crypto.SHA256); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range cap(started) {
		<-started
	}
	for range 3 {
		group.Go(func() {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	again := fixture.Open(t)
	signAndVerify(t, again, ref, public)
	if _, err := signer.SignMessage(nil, nil, crypto.SHA256); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("a signer outlived its token: %v", err)
	}
}

func TestLostSessions(t *testing.T) {
	t.Parallel()
	fixture, neighbour := hsmtest.New(t), hsmtest.New(t)
	token, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	other := neighbour.Open(t)
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.SignMessage(nil, nil, crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	hsmtest.LoseSessions(t, token)
	for name, call := range map[string]func() error{
		"sign":       func() error { _, err := signer.SignMessage(nil, nil, crypto.SHA256); return err },
		"signer":     func() error { _, err := token.Signer(ref, public); return err },
		"keys":       func() error { _, err := token.Keys(); return err },
		"attributes": func() error { _, err := token.Attributes(ref); return err },
		"generate": func() error {
			_, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "x"})
			return err
		},
	} {
		if err := call(); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "CKR_") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	signAndVerify(t, fixture.Open(t), ref, public)
	if _, err := other.Keys(); err != nil {
		t.Errorf("the neighbour suffered: %v", err)
	}
}

func BenchmarkSignP256(b *testing.B) {
	token := hsmtest.New(b).Open(b)
	ref, _ := generate(b, token, hsm.ECDSAP256, "ca")
	checked, err := token.Signer(ref, nil)
	if err != nil {
		b.Fatal(err)
	}
	raw, err := token.RawSigner(ref)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	for name, signer := range map[string]crypto.Signer{"Signer": checked, "crypto11": raw} {
		for _, goroutines := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", name, goroutines), func(b *testing.B) {
				work := make(chan struct{}, goroutines)
				var group sync.WaitGroup
				for range goroutines {
					group.Go(func() {
						for range work {
							if _, err := signer.Sign(nil, digest[:], crypto.SHA256); err != nil {
								b.Error(err)
							}
						}
					})
				}
				for b.Loop() {
					work <- struct{}{}
				}
				close(work)
				group.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
			})
		}
	}
}

// A signer is of one key: what has its names later signs nothing for it.
func TestASignersKeyIsReplaced(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []hsm.Algorithm{hsm.ECDSAP256, hsm.Ed25519} {
		token := hsmtest.New(t).Open(t)
		ref, public := generate(t, token, algorithm, "ca")
		signer, err := token.Signer(ref, public)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Destroy(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		if _, _, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: ref.Label, ID: ref.ID}); err != nil {
			t.Fatal(err)
		}
		opts := crypto.SHA256
		if algorithm == hsm.Ed25519 {
			opts = 0
		}
		if signature, err := signer.SignMessage(nil, []byte("message"), opts); err == nil || signature != nil {
			t.Errorf("%s: another key's signature is handed out: %x, %v", algorithm, signature, err)
		}
	}
}

// An Ed25519 key signs messages. Its signer outlives the loss of the token as others do, for it is found in the same way.
func TestEd25519Signer(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	ref, public := generate(t, token, hsm.Ed25519, "log")
	signer, err := token.Signer(ref, public)
	if err != nil {
		t.Fatal(err)
	}
	edwards, ok := public.(ed25519.PublicKey)
	if !ok || !edwards.Equal(signer.Public()) {
		t.Fatalf("the public key is %v", signer.Public())
	}
	message := []byte("a checkpoint")
	for name, sign := range map[string]func() ([]byte, error){
		"whole":         func() ([]byte, error) { return signer.SignMessage(nil, message, crypto.Hash(0)) },
		"as a digest":   func() ([]byte, error) { return signer.Sign(nil, message, crypto.Hash(0)) },
		"the library's": func() ([]byte, error) { return crypto.SignMessage(signer, rand.Reader, message, &ed25519.Options{}) },
	} {
		signature, err := sign()
		if err != nil || !ed25519.Verify(edwards, message, signature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, opts := range map[string]crypto.SignerOpts{
		"no options": nil, "a hash": crypto.SHA256, "pre-hashed": &ed25519.Options{Hash: crypto.SHA512},
		"a context": &ed25519.Options{Context: "x"},
	} {
		if _, err := signer.SignMessage(nil, message, opts); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	_, other := generate(t, token, hsm.Ed25519, "other")
	if _, err := token.Signer(ref, other); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("another public key: %v", err)
	}
}
