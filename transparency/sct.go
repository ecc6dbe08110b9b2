package transparency

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509"
	"golang.org/x/crypto/cryptobyte"
)

// maxSkew is how far a log's clock may be from ours. A timestamp is made while its log is being asked: one from before was not made for
// this precertificate, and one from later is refused by those who verify it.
const maxSkew = time.Minute

// SCT is a signed certificate timestamp (RFC 6962, section 3.2) that was verified.
type SCT struct {
	Log       *Log
	Timestamp time.Time // in milliseconds
	Index     uint64    // of the entry, where the log is static

	raw ct.SignedCertificateTimestamp
}

// verify holds a timestamp that a log has answered with against what it was asked: began is when, chain is the precertificate and its
// issuers.
func (l *Log) verify(raw ct.SignedCertificateTimestamp, chain []ct.ASN1Cert, began, now time.Time) (SCT, error) {
	leaf, err := ct.MerkleTreeLeafFromRawChain(chain, ct.PrecertLogEntryType, raw.Timestamp)
	if err != nil {
		return SCT{}, fmt.Errorf("reading the precertificate: %w", err)
	}
	sct, err := l.verifyLeaf(raw, leaf)
	if err != nil {
		return SCT{}, err
	}
	if sct.Timestamp.Before(began.Add(-maxSkew)) || sct.Timestamp.After(now.Add(maxSkew)) {
		return SCT{}, fmt.Errorf("the timestamp %s is not of this time", sct.Timestamp.Format(time.RFC3339Nano))
	}
	return sct, nil
}

// verifyLeaf checks version, log, extensions and signature.
func (l *Log) verifyLeaf(raw ct.SignedCertificateTimestamp, leaf *ct.MerkleTreeLeaf) (SCT, error) {
	switch {
	case raw.SCTVersion != ct.V1:
		return SCT{}, fmt.Errorf("the timestamp is of version %d", raw.SCTVersion)
	case raw.LogID.KeyID != l.ID:
		return SCT{}, errors.New("the timestamp is another log's")
	}
	sct := SCT{Log: l, Timestamp: time.UnixMilli(int64(raw.Timestamp)).UTC(), raw: raw}
	if l.Static() {
		index, err := leafIndex(raw.Extensions)
		if err != nil {
			return SCT{}, err
		}
		sct.Index = index
	}
	leaf.TimestampedEntry.Extensions = raw.Extensions
	if err := l.verifier.VerifySCTSignature(raw, ct.LogEntry{Leaf: *leaf}); err != nil {
		return SCT{}, errors.New("the timestamp's signature does not verify with the log's key")
	}
	return sct, nil
}

// leafIndex reads the one extension that a timestamp of a static log has (c2sp.org/static-ct-api, "SCT extension").
func leafIndex(extensions []byte) (uint64, error) {
	const kind, octets = 0, 5
	s := cryptobyte.String(extensions)
	var found []byte
	for !s.Empty() {
		var k uint8
		var value cryptobyte.String
		if !s.ReadUint8(&k) || !s.ReadUint16LengthPrefixed(&value) {
			return 0, errors.New("the timestamp's extensions cannot be read")
		}
		if k != kind {
			continue // "clients ignore those that they do not know"; the signature covers them
		}
		if found != nil || len(value) != octets {
			return 0, errors.New("the timestamp's leaf_index is given twice, or has not 40 bits")
		}
		found = value
	}
	if found == nil {
		return 0, errors.New("the timestamp of a static log has no leaf_index")
	}
	return binary.BigEndian.Uint64(append(make([]byte, 8-octets), found...)), nil
}

// marshalList makes a SignedCertificateTimestampList (RFC 6962, section 3.3).
func marshalList(scts []SCT) ([]byte, error) {
	list := x509.SignedCertificateTimestampList{}
	for _, s := range scts {
		one, err := tls.Marshal(s.raw)
		if err != nil {
			return nil, fmt.Errorf("encoding a timestamp: %w", err)
		}
		list.SCTList = append(list.SCTList, x509.SerializedSCT{Val: one})
	}
	out, err := tls.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encoding the list of timestamps: %w", err)
	}
	return out, nil
}
