// Package logtest gives tests certificate transparency logs in process.
//
// The server of certificate-transparency-go stands on Trillian, and brings its databases and gRPC with it. This one is the smallest that a
// client cannot tell from it: the wire formats, the serialisation, the signatures and the strict parser are certificate-transparency-go's
// own; the tree is that of golang.org/x/mod/sumdb/tlog, which is RFC 6962's. It answers as an RFC 6962 log or as a static one
// (c2sp.org/static-ct-api), verifies chains up to its roots, gives a precertificate that comes again the same timestamp, and can be told
// to be slow, to fail, or to lie.
package logtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/loglist3"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509"
	"golang.org/x/mod/sumdb/tlog"
)

// Options say what a log is like.
type Options struct {
	Description string   // its name; required
	Operator    string   // empty: "Operator of " and its name
	Static      bool     // a log of c2sp.org/static-ct-api
	Roots       [][]byte // DER: what chains must end in
	// From and Until bound the notAfter of what is taken; zero: no bound.
	From, Until time.Time
	State       string           // in the log list; empty: usable
	Now         func() time.Time // nil: time.Now
}

// Fault is what is wrong with a log's submissions. The zero value is nothing.
type Fault struct {
	Status         int           // answer with it instead
	RetryAfter     string        // and with this header
	Hang           bool          // do not answer until the caller leaves
	Body           string        // answer with it, and 200
	WrongKey       bool          // sign with a key that is not the log's
	WrongID        bool          // tell another log's identifier
	OtherEntry     bool          // sign another entry
	Version        ct.Version    // of the timestamp
	Skew           time.Duration // of the log's clock
	NoLeafIndex    bool          // leave a static log's extension out
	BrokenLeafEnds bool          // cut it short
}

// Log is a log that serves until the test ends. It is safe for concurrent use.
type Log struct {
	URL     string
	options Options
	server  *httptest.Server
	key     *ecdsa.PrivateKey
	other   *ecdsa.PrivateKey
	roots   *x509.CertPool
	spki    []byte

	mu        sync.Mutex
	fault     Fault
	delayed   bool
	hashes    []tlog.Hash // of the tree, in tlog's order
	merged    int64       // entries in the tree
	leaves    [][]byte    // serialised, those that are not merged among them
	known     map[[sha256.Size]byte]ct.SignedCertificateTimestamp
	byHash    map[tlog.Hash]int64
	submitted int
}

// New starts a log.
func New(tb testing.TB, o Options) *Log {
	tb.Helper()
	if o.Operator == "" {
		o.Operator = "Operator of " + o.Description
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Log{
		options: o, roots: x509.NewCertPool(), known: map[[sha256.Size]byte]ct.SignedCertificateTimestamp{}, byHash: map[tlog.Hash]int64{},
		key: newKey(tb), other: newKey(tb),
	}
	for _, der := range o.Roots {
		root, err := x509.ParseCertificate(der)
		if x509.IsFatal(err) {
			tb.Fatalf("a root of the log %s: %v", o.Description, err)
		}
		l.roots.AddCert(root)
	}
	var err error
	if l.spki, err = x509.MarshalPKIXPublicKey(l.key.Public()); err != nil {
		tb.Fatal(err)
	}
	l.server = httptest.NewServer(l.handler())
	tb.Cleanup(l.server.Close)
	l.URL = l.server.URL + "/log"
	return l
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Break has submissions go wrong from now on; the zero Fault mends the log.
func (l *Log) Break(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
}

// Delay keeps entries out of the tree until Merge.
func (l *Log) Delay() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delayed = true
}

// Merge takes all entries into the tree.
func (l *Log) Merge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delayed = false
	l.merge()
}

// Submitted counts the submissions that came, failed ones included.
func (l *Log) Submitted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.submitted
}

// Size counts the entries, merged or not.
func (l *Log) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.leaves)
}

// Key is the log's public key, SubjectPublicKeyInfo in DER.
func (l *Log) Key() []byte { return slices.Clone(l.spki) }

// List is a log list of version 3 with the logs.
func List(tb testing.TB, logs ...*Log) []byte {
	tb.Helper()
	list := loglist3.LogList{Version: "1.0", LogListTimestamp: time.Now().UTC().Truncate(time.Second)}
	const mmd = 86400
	for _, l := range logs {
		i := slices.IndexFunc(list.Operators, func(o *loglist3.Operator) bool { return o.Name == l.options.Operator })
		if i < 0 {
			list.Operators = append(list.Operators, &loglist3.Operator{
				Name: l.options.Operator, Email: []string{"logs@log.example"}, Logs: []*loglist3.Log{}, TiledLogs: []*loglist3.TiledLog{},
			})
			i = len(list.Operators) - 1
		}
		operator, id := list.Operators[i], sha256.Sum256(l.spki)
		var interval *loglist3.TemporalInterval
		if !l.options.From.IsZero() || !l.options.Until.IsZero() {
			interval = &loglist3.TemporalInterval{StartInclusive: l.options.From, EndExclusive: l.options.Until}
		}
		if l.options.Static {
			operator.TiledLogs = append(operator.TiledLogs, &loglist3.TiledLog{
				Description: l.options.Description, LogID: id[:], Key: l.spki, SubmissionURL: l.URL + "/", MonitoringURL: l.URL + "/tiles/", MMD: 60,
				State: l.state(), TemporalInterval: interval,
			})
			continue
		}
		operator.Logs = append(operator.Logs, &loglist3.Log{
			Description: l.options.Description, LogID: id[:], Key: l.spki, URL: l.URL + "/", MMD: mmd, State: l.state(), TemporalInterval: interval,
		})
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func (l *Log) state() *loglist3.LogStates {
	since := &loglist3.LogState{Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	switch l.options.State {
	case "", "usable":
		return &loglist3.LogStates{Usable: since}
	case "retired":
		return &loglist3.LogStates{Retired: since}
	}
	return nil
}

func (l *Log) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /log"+ct.AddPreChainPath, l.addPreChain)
	if l.options.Static {
		mux.HandleFunc("GET /log/tiles/checkpoint", l.checkpoint)
		mux.HandleFunc("GET /log/tiles/tile/", l.tile)
		return mux
	}
	mux.HandleFunc("GET /log"+ct.GetSTHPath, l.getSTH)
	mux.HandleFunc("GET /log"+ct.GetProofByHashPath, l.getProofByHash)
	mux.HandleFunc("GET /log"+ct.GetRootsPath, l.getRoots)
	return mux
}

// addPreChain is RFC 6962, section 4.2.
func (l *Log) addPreChain(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.submitted++
	fault := l.fault
	l.mu.Unlock()
	var request ct.AddChainRequest
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&request) // all of it: a server notices only then that the caller leaves
	switch {
	case fault.Hang:
		<-r.Context().Done()
		return
	case fault.Status != 0:
		if fault.RetryAfter != "" {
			w.Header().Set("Retry-After", fault.RetryAfter)
		}
		http.Error(w, "out of order", fault.Status)
		return
	case fault.Body != "":
		fmt.Fprint(w, fault.Body)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	chain, err := l.verifyChain(request.Chain)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	sct, err := l.add(chain, fault)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	signature, err := tls.Marshal(sct.Signature)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answerJSON(w, ct.AddChainResponse{
		SCTVersion: sct.SCTVersion, ID: sct.LogID.KeyID[:], Timestamp: sct.Timestamp,
		Extensions: base64.StdEncoding.EncodeToString(sct.Extensions), Signature: signature,
	})
}

// verifyChain is what a log must do before it signs: the precertificate is one, every signature verifies, and a root is known.
func (l *Log) verifyChain(ders [][]byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, der := range ders {
		one, err := x509.ParseCertificate(der)
		if x509.IsFatal(err) {
			return nil, err
		}
		chain = append(chain, one)
	}
	if len(chain) < 2 {
		return nil, errors.New("the chain has no issuer")
	}
	poisoned := slices.ContainsFunc(chain[0].Extensions, func(e pkixExtension) bool { return e.Id.Equal(x509.OIDExtensionCTPoison) && e.Critical })
	if !poisoned {
		return nil, errors.New("it is no precertificate")
	}
	end := chain[0].NotAfter
	if !l.options.From.IsZero() && end.Before(l.options.From) || !l.options.Until.IsZero() && !end.Before(l.options.Until) {
		return nil, errors.New("it does not end in the interval of this log")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: l.roots, Intermediates: intermediates, CurrentTime: l.options.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		DisableCriticalExtensionChecks: true, DisableEKUChecks: true, DisablePathLenChecks: true, DisableNameConstraintChecks: true,
	})
	return chain, err
}

// add takes an entry and signs its timestamp, as wrongly as it is told to.
func (l *Log) add(chain []*x509.Certificate, f Fault) (ct.SignedCertificateTimestamp, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fingerprint := sha256.Sum256(chain[0].Raw)
	if sct, again := l.known[fingerprint]; again {
		return sct, nil
	}
	at := uint64(l.options.Now().Add(f.Skew).UnixMilli())
	leaf, err := ct.MerkleTreeLeafFromChain(chain, ct.PrecertLogEntryType, at)
	if err != nil {
		return ct.SignedCertificateTimestamp{}, err
	}
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: sha256.Sum256(l.spki)}, Timestamp: at}
	if l.options.Static && !f.NoLeafIndex {
		n := len(l.leaves)
		sct.Extensions = []byte{0, 0, 5, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		if f.BrokenLeafEnds {
			sct.Extensions = sct.Extensions[:6]
		}
	}
	leaf.TimestampedEntry.Extensions = sct.Extensions
	signed := *leaf
	if f.OtherEntry {
		entry := *leaf.TimestampedEntry
		precert := *entry.PrecertEntry
		precert.IssuerKeyHash[0] ^= 1
		entry.PrecertEntry, signed.TimestampedEntry = &precert, &entry
	}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: signed})
	if err != nil {
		return ct.SignedCertificateTimestamp{}, err
	}
	key := l.key
	if f.WrongKey {
		key = l.other
	}
	signature, err := tls.CreateSignature(*key, tls.SHA256, input)
	if err != nil {
		return ct.SignedCertificateTimestamp{}, err
	}
	sct.Signature = ct.DigitallySigned(signature)
	if f.WrongID {
		sct.LogID.KeyID[0] ^= 1
	}
	sct.SCTVersion += f.Version
	octets, err := tls.Marshal(*leaf)
	if err != nil {
		return ct.SignedCertificateTimestamp{}, err
	}
	l.leaves = append(l.leaves, octets)
	l.known[fingerprint] = sct
	if !l.delayed {
		l.merge()
	}
	return sct, nil
}

// merge takes what waits into the tree.
func (l *Log) merge() {
	for ; l.merged < int64(len(l.leaves)); l.merged++ {
		hash := tlog.RecordHash(l.leaves[l.merged])
		stored, err := tlog.StoredHashesForRecordHash(l.merged, hash, l.reader())
		if err != nil {
			panic(err) // it is all in memory
		}
		l.hashes = append(l.hashes, stored...)
		l.byHash[hash] = l.merged
	}
}

func (l *Log) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, at := range indexes {
			if at < 0 || at >= int64(len(l.hashes)) {
				return nil, fmt.Errorf("the tree has no hash %d", at)
			}
			found[i] = l.hashes[at]
		}
		return found, nil
	})
}

func answerJSON(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func trimOrigin(url string) string {
	_, origin, _ := strings.Cut(url, "://")
	return origin
}
