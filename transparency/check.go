package transparency

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// Embedded is a timestamp that stands in a certificate.
type Embedded struct {
	LogID     [sha256.Size]byte
	Log       *Log // nil where no log is known that has the identifier
	Timestamp time.Time
	Index     uint64 // of a static log's entry
	Err       error  // why it does not verify; nil: it does

	leaf ct.MerkleTreeLeaf
}

// Read reads the timestamps in a certificate and verifies each with the key of its log. issuer is the certificate of who issued it; its
// key is part of what the logs have signed. An error tells that the certificate cannot be read, or holds no timestamps: RFC 6962's
// section 3.3 knows no empty list. What is wrong with one timestamp stands in its Err.
func Read(certificate, issuer []byte, logs []*Log, now time.Time) ([]Embedded, error) {
	chain, err := parseChain(certificate, issuer)
	if err != nil {
		return nil, err
	}
	if len(chain[0].SCTList.SCTList) == 0 {
		return nil, errors.New("the certificate holds no timestamps")
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
		return nil, fmt.Errorf("the certificate is not the issuer's: %w", err)
	}
	known := map[[sha256.Size]byte]*Log{}
	for _, l := range logs {
		known[l.ID] = l
	}
	var all []Embedded
	for _, serialized := range chain[0].SCTList.SCTList {
		all = append(all, readOne(serialized.Val, chain, known, now))
	}
	return all, nil
}

func parseChain(certificate, issuer []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for i, der := range [][]byte{certificate, issuer} {
		one, err := x509.ParseCertificate(der)
		if x509.IsFatal(err) {
			return nil, fmt.Errorf("reading %s: %w", [2]string{"the certificate", "its issuer"}[i], err)
		}
		chain = append(chain, one)
	}
	return chain, nil
}

func readOne(octets []byte, chain []*x509.Certificate, known map[[sha256.Size]byte]*Log, now time.Time) (e Embedded) {
	var raw ct.SignedCertificateTimestamp
	rest, err := tls.Unmarshal(octets, &raw)
	if err != nil || len(rest) > 0 {
		return Embedded{Err: errors.New("the timestamp cannot be read")}
	}
	e = Embedded{LogID: raw.LogID.KeyID, Log: known[raw.LogID.KeyID], Timestamp: time.UnixMilli(int64(raw.Timestamp)).UTC()}
	if e.Log == nil {
		e.Err = errors.New("the log is not in the list")
		return e
	}
	leaf, err := ct.MerkleTreeLeafForEmbeddedSCT(chain, raw.Timestamp)
	if err != nil {
		e.Err = fmt.Errorf("rebuilding what the log signed: %w", err)
		return e
	}
	sct, err := e.Log.verifyLeaf(raw, leaf)
	switch {
	case err != nil:
		e.Err = err
	case raw.Timestamp > math.MaxInt64, sct.Timestamp.After(now.Add(maxSkew)): // as time.Time, the first would be one before 1970
		e.Err = errors.New("the timestamp lies in the future")
	}
	e.Index, e.leaf = sct.Index, *leaf
	return e
}

// ErrPending says that an entry is not in the tree yet, and need not be: its log's maximum merge delay has not passed.
var ErrPending = errors.New("the entry is not in the log yet, and has time until its merge delay has passed")

// ErrMissing says that a log has broken the promise that its timestamp is.
var ErrMissing = errors.New("the entry is not in the log although its merge delay has passed")

// Inclusion is the proof that an entry is in a log's tree, verified.
type Inclusion struct {
	Index uint64 // of the entry
	Size  uint64 // of the tree that it was found in
}

// Included fetches the proof that the entry of a timestamp is in its log, and verifies it against a tree head that the log has signed. It
// returns ErrPending or ErrMissing where the log does not have the entry.
func (e *Embedded) Included(ctx context.Context, hc *http.Client, now time.Time) (Inclusion, error) {
	if e.Err != nil || e.Log == nil {
		return Inclusion{}, errors.New("the timestamp does not verify, so there is no entry to look for")
	}
	hash, err := ct.LeafHashForLeaf(&e.leaf)
	if err != nil {
		return Inclusion{}, fmt.Errorf("computing the entry's hash: %w", err)
	}
	var found Inclusion
	if e.Log.Static() {
		found, err = e.inTiles(ctx, hc, hash)
	} else {
		found, err = e.byHash(ctx, hc, hash)
	}
	if errors.Is(err, ErrMissing) && now.Sub(e.Timestamp) <= e.Log.MMD {
		err = ErrPending
	}
	return found, err
}

// byHash asks an RFC 6962 log (sections 4.3 and 4.5).
func (e *Embedded) byHash(ctx context.Context, hc *http.Client, hash [sha256.Size]byte) (Inclusion, error) {
	c, err := e.Log.client(hc)
	if err != nil {
		return Inclusion{}, err
	}
	head, err := c.GetSTH(ctx)
	if err != nil {
		return Inclusion{}, fmt.Errorf("fetching the head of %s: %w", e.Log, err)
	}
	if head.TreeSize == 0 {
		return Inclusion{}, ErrMissing
	}
	answer, err := proofByHash(ctx, c, hash, head.TreeSize)
	if err != nil {
		return Inclusion{}, err
	}
	if answer.LeafIndex < 0 {
		return Inclusion{}, fmt.Errorf("the proof of %s is for entry %d", e.Log, answer.LeafIndex)
	}
	index := uint64(answer.LeafIndex)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, head.TreeSize, hash[:], answer.AuditPath, head.SHA256RootHash[:]); err != nil {
		return Inclusion{}, fmt.Errorf("the proof of %s does not verify: %w", e.Log, err)
	}
	return Inclusion{Index: index, Size: head.TreeSize}, nil
}

func proofByHash(ctx context.Context, c *client.LogClient, hash [sha256.Size]byte, size uint64) (*ct.GetProofByHashResponse, error) {
	answer, err := c.GetProofByHash(ctx, hash[:], size)
	var refused jsonclient.RspError
	switch {
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusBadRequest):
		return nil, ErrMissing
	case err != nil:
		return nil, fmt.Errorf("fetching the proof: %w", err)
	}
	return answer, nil
}
