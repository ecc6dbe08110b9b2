package transparency_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/transparency"
	"github.com/chancery-ca/chancery/transparency/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues precertificates and certificates with the standard library, which shares nothing with what is tested.
type authority struct {
	t    testing.TB
	root []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	rootKey, key := newKey(t), newKey(t)
	root := template("Root")
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template("Issuing"), parent, key.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, root: rootDER, cert: cert, key: key}
}

var (
	poison  = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, Critical: true, Value: []byte{5, 0}}
	sctList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
)

// draft is a certificate that has yet to be signed.
func (a *authority) draft() *x509.Certificate {
	a.last++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: "www.example.com"}, DNSNames: []string{"www.example.com"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 3, 0),
	}
}

func (a *authority) sign(draft *x509.Certificate, public any, extra pkix.Extension) []byte {
	a.t.Helper()
	signed := *draft
	signed.ExtraExtensions = []pkix.Extension{extra}
	der, err := x509.CreateCertificate(rand.Reader, &signed, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) chain(precertificate []byte) [][]byte {
	return [][]byte{precertificate, a.cert.Raw, a.root}
}

// precertificate is a chain that can be submitted.
func (a *authority) precertificate() [][]byte {
	return a.chain(a.sign(a.draft(), newKey(a.t).Public(), poison))
}

// certify takes a certificate through the logs.
func (a *authority) certify(s *transparency.Submitter, w transparency.Wish) (certificate []byte, scts []transparency.SCT) {
	a.t.Helper()
	draft, public := a.draft(), newKey(a.t).Public()
	list, scts, err := s.Submit(a.t.Context(), a.chain(a.sign(draft, public, poison)), w)
	if err != nil {
		a.t.Fatal(err)
	}
	value, err := asn1.Marshal(list)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.sign(draft, public, pkix.Extension{Id: sctList, Value: value}), scts
}

// place is some logs and a submitter to them.
type place struct {
	*authority
	logs      map[string]*logtest.Log
	known     []*transparency.Log
	submitter *transparency.Submitter
	seen      chan string // what was observed: log, outcome
	heard     int         // outcomes that were taken from it
}

// newPlace makes logs: by default three RFC 6962 logs and a static one, of three operators.
func newPlace(t *testing.T, options ...logtest.Options) *place {
	t.Helper()
	p := &place{authority: newAuthority(t), logs: map[string]*logtest.Log{}, seen: make(chan string, 1000)}
	if options == nil {
		options = []logtest.Options{
			{Description: "oak", Operator: "A"},
			{Description: "elm", Operator: "A"},
			{Description: "fir", Operator: "B"},
			{Description: "tile", Operator: "C", Static: true},
		}
	}
	var all []*logtest.Log
	for _, o := range options {
		o.Roots = [][]byte{p.root}
		p.logs[o.Description] = logtest.New(t, o)
		all = append(all, p.logs[o.Description])
	}
	var err error
	if p.known, err = transparency.ParseLogList("logs.json", logtest.List(t, all...)); err != nil {
		t.Fatal(err)
	}
	client := transparency.HTTPClient(nil)
	t.Cleanup(client.CloseIdleConnections)
	p.submitter, err = transparency.NewSubmitter(transparency.Config{
		Logs: p.known, Client: client, Now: time.Now,
		Observe: func(l *transparency.Log, outcome string, _ time.Duration) { p.seen <- l.Description + " " + outcome },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wish is what most tests ask for.
func wish(scts, operators int, logs ...string) transparency.Wish {
	return transparency.Wish{
		NotAfter: time.Now().AddDate(0, 3, 0), SCTs: scts, Operators: operators, Logs: logs, Patience: 50 * time.Millisecond, Timeout: 10 * time.Second,
	}
}
