package keeper

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// actAsWorker, set in the environment, makes the test binary a worker process; actAsHolder, set to a file, a process that holds what the
// file says; actAsListener, set to a path, one that has the socket there, and says so, until it is killed.
const (
	actAsWorker   = "CHANCERY_KEEPER_TEST_WORKER"
	actAsHolder   = "CHANCERY_KEEPER_TEST_HOLDER"
	actAsListener = "CHANCERY_KEEPER_TEST_LISTENER"
	listening     = "listening"
)

func TestMain(m *testing.M) {
	act := func() error { return hold(os.Getenv(actAsHolder)) }
	switch {
	case os.Getenv(actAsWorker) != "":
		act = func() error {
			socket, err := WorkerSocket()
			if err != nil {
				return err
			}
			return RunWorker(context.Background(), socket, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		}
	case os.Getenv(actAsListener) != "":
		act = func() error {
			l, err := Listen(os.Getenv(actAsListener))
			if err != nil {
				return err
			}
			defer l.Close()
			fmt.Print(listening)
			for {
				if _, err := l.AcceptUnix(); err != nil {
					return err
				}
			}
		}
	case os.Getenv(actAsHolder) == "":
		goleak.VerifyTestMain(m)
		return
	}
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// authority is an authority whose key is in a throw-away token.
type authority struct {
	fixture     *hsmtest.Token
	ref         hsm.KeyRef
	certificate *x509.Certificate
}

// newAuthority makes the key and its certificate, and leaves the token closed.
func newAuthority(t testing.TB, pathLen int) *authority {
	t.Helper()
	a, _ := authorityIn(t, hsmtest.New(t), pathLen)
	return a
}

func selfSigned(t testing.TB, key crypto.Signer, pathLen int) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Test"}, CommonName: "Issuing"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// policy lets the authority's key sign leaves, CRLs and OCSP answers.
func (a *authority) policy() KeyPolicy {
	return KeyPolicy{
		Name: "issuing", Ref: a.ref, Tokens: []string{"main"}, Certificate: a.certificate,
		Certificates: &CertificatePolicy{MaxValidity: 400 * 24 * time.Hour},
		CRLs:         &CRLPolicy{MaxValidity: 10 * 24 * time.Hour},
		OCSP:         &OCSPPolicy{MaxValidity: 24 * time.Hour},
	}
}

// running is a keeper that serves, and a client of it.
type running struct {
	keeper  *Keeper
	client  *Client
	socket  string
	journal string
	log     *syncBuffer
	stop    func()
}

// config is a keeper of the authority's token, by way of a module.
func (a *authority) config(t testing.TB, token hsm.Config) (Config, *syncBuffer) {
	log := &syncBuffer{}
	return Config{
		Tokens:  []TokenConfig{{Name: "main", HSM: token, CallTimeout: time.Second}},
		Keys:    []KeyPolicy{a.policy()},
		Journal: filepath.Join(t.TempDir(), "journal"), Worker: workerCommand(log), Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}, log
}

func workerCommand(log io.Writer) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), actAsWorker+"=1")
		cmd.Stderr = log
		return cmd
	}
}

func start(t testing.TB, c Config, log *syncBuffer) *running {
	t.Helper()
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{keeper: k, journal: c.Journal, socket: filepath.Join(t.TempDir(), "keeper.sock"), log: log}
	l, err := Listen(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- k.Serve(ctx, l) }()
	r.client = NewClient(r.socket, 0)
	r.stop = sync.OnceFunc(func() {
		_ = r.client.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
		if err := k.Close(); err != nil {
			t.Errorf("closing the keeper: %v", err)
		}
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the keeper's log:\n%s", log)
		}
	})
	return r
}

func (r *running) signer(t testing.TB, public crypto.PublicKey) hsm.Signer {
	t.Helper()
	signer, _, err := r.client.Signer(t.Context(), public)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// serial is a serial number of Chancery's form.
func serial(at time.Time) *big.Int {
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(at.UnixMilli()))
	octets := append([]byte{serialPrefix}, stamp[2:]...)
	tail := make([]byte, serialSize-len(octets))
	rand.Read(tail) // never fails
	return new(big.Int).SetBytes(append(octets, tail...))
}

// leaf is a template that the policy allows, with changes.
func leaf(changes ...func(*x509.Certificate)) *x509.Certificate {
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial(now), Subject: pkix.Name{CommonName: "www.example"}, DNSNames: []string{"www.example"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, change := range changes {
		change(c)
	}
	return c
}

var leafKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// tbs is the TBSCertificate of a template, as the authority would have it signed.
func (a *authority) tbs(t testing.TB, template *x509.Certificate) []byte {
	t.Helper()
	capture := &capturing{public: a.certificate.PublicKey}
	// x509 verifies what it has signed, so it ends with an error; the bytes are known by then.
	if _, err := x509.CreateCertificate(rand.Reader, template, a.certificate, leafKey().Public(), capture); capture.message == nil {
		t.Fatal(err)
	}
	return capture.message
}

// issue has the key sign a certificate of a template, and verifies it.
func (a *authority) issue(key crypto.Signer, template *x509.Certificate) error {
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, leafKey().Public(), key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	return certificate.CheckSignatureFrom(a.certificate)
}

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// within asks until it is so.
func within(t testing.TB, limit time.Duration, what string, so func() error) {
	t.Helper()
	passed, end := hsmtest.Passing()
	defer end()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := so()
		if err == nil {
			return
		}
		if passed() > limit {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		<-tick.C
	}
}

// capturing is a key that signs nothing, and remembers what it was to sign.
type capturing struct {
	public  crypto.PublicKey
	message []byte
}

func (c *capturing) Public() crypto.PublicKey { return c.public }

func (c *capturing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no digest is signed")
}

func (c *capturing) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	c.message = bytes.Clone(message)
	return nil, errors.New("nothing is signed")
}
