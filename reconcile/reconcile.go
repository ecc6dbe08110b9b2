// Package reconcile owns the account of signatures: what the journals of keepers say was signed, held against what the authority has on
// record. One signature too many, or one too few, is a finding.
//
// Both sides are given in any order and any number: they are sorted on disk by the digest of what was signed, and judged digest by digest.
package reconcile

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"time"
)

// The kinds of signature, as journals name them.
const (
	Certificate = "certificate" // a precertificate, too
	CRL         = "crl"
	OCSP        = "ocsp"
	Request     = "request" // of a key of our own, for its certificate
	Checkpoint  = "checkpoint"
)

// Signature is a signature of which a journal tells.
type Signature struct {
	Digest [32]byte // SHA-256 of the bytes that were signed
	At     time.Time
	// Journal and Entry say where it stands: the journal's place in the list that the account was opened with, and the number of the entry.
	Journal int
	Entry   uint64
	Key     string // by its name in the keeper's policy
	Kind    string // Certificate and so on
	Detail  string // serial numbers, CRL number, size of the tree
	Status  string // of OCSP answers: good, revoked, unknown; with commas between several; empty in entries of old
	// Old says that an earlier account judged it. It still bears out what is on record.
	Old bool
}

// Source is what on record tells of a signature.
type Source byte

// The sources.
const (
	// IntentEvent is the event, in the audit log, that something is about to be signed.
	IntentEvent Source = iota + 1
	// SignedEvent is the event, in the audit log, that a key signed it.
	SignedEvent
	// IntentRow is an intent that is open, one that was settled without an outcome, or the intent of a CRL.
	IntentRow
	// SignedRow is the certificate or CRL itself, in the database or in an archive.
	SignedRow
	// CheckpointRow is a checkpoint of the audit log, which has no intent.
	CheckpointRow
	// OtherRow is a record that accounts for a signature and demands none: a certification request of a key of our own, an act of a ceremony.
	OtherRow
)

// Record is what is on record of a signature.
type Record struct {
	Source Source
	Digest [32]byte
	// Kind is the kind of signature that it accounts for. It accounts for no other: else a certificate would be on record as soon as its
	// bytes stood where nobody looks for certificates, say as a request. Empty: it accounts for none, and speaks of one all the same.
	Kind    string
	At      time.Time
	Subject string // for people: what was signed
	Issuer  string // name of the authority whose key signed it; empty: it is none's
	Serial  string // of a certificate, in hex: it accounts for no certificate with another. Empty: it tells none
	// Misplaced says that what was signed is another certificate in itself, or another authority's. No record of it that names this issuer
	// accounts for a signature.
	Misplaced bool
}

// Span is what an account judges. Records from before Since were judged by an earlier account, and those from Until on will be by a later
// one: the journal that bears them out may be under way.
type Span struct{ Since, Until time.Time }

func (s Span) holds(at time.Time) bool { return !at.Before(s.Since) && at.Before(s.Until) }

// Kind is the kind of a finding.
type Kind string

// The kinds of finding. Kinds are stable.
const (
	// Broken is a journal that is not what its keeper wrote.
	Broken Kind = "journal-broken"
	// Cut is a journal that does not hold an entry that it is known to have held.
	Cut Kind = "journal-cut"
	// Unrecorded is a signature that a key made and of which nothing is on record.
	Unrecorded Kind = "signature-unrecorded"
	// Repeated is a certificate or CRL that a key signed more than once.
	Repeated Kind = "signature-repeated"
	// Unjournaled is a signature on record that no journal tells of.
	Unjournaled Kind = "signature-unjournaled"
	// Erased is what the audit log says was to be signed, or was, and what is not on record any more.
	Erased Kind = "record-erased"
	// Unannounced is a record whose intent is not in the audit log.
	Unannounced Kind = "record-unannounced"
	// Invented is an OCSP answer that calls a serial number good or revoked that was never issued.
	Invented Kind = "answer-invented"
	// Restored is no finding: a certificate of which nothing is on record but that it was lost with a database, and is revoked.
	Restored Kind = "recorded-after-restore"
)

// Finding is what does not agree.
type Finding struct {
	Kind    Kind       `json:"finding"`
	Digest  string     `json:"sha256,omitempty"`  // of what was signed
	Subject string     `json:"subject,omitempty"` // what it is, for people
	At      *time.Time `json:"at,omitempty"`
	Journal string     `json:"journal,omitempty"`
	Entry   uint64     `json:"entry,omitempty"` // of the journal
	Key     string     `json:"key,omitempty"`
	Why     string     `json:"why"`
}

// Counts are what an account went through.
type Counts struct {
	Signatures uint64 `json:"signatures"` // in the journals, read now and not judged before
	Records    uint64 `json:"records"`    // on record, signatures and intents
	Agreeing   uint64 `json:"agreeing"`   // digests that both sides tell of, as they should
	Pending    uint64 `json:"pending"`    // on record, and so young that the journal may be under way
	Before     uint64 `json:"before"`     // on record, and older than the journals
	Answers    uint64 `json:"answers"`    // OCSP answers whose serial numbers were looked up
	Restored   uint64 `json:"restored"`   // signatures that the records of lost certificates account for
	Findings   uint64 `json:"findings"`
}

// SignedPart is SHA-256 over the to-be-signed bytes of a certificate, a CRL, or a certification request in DER: the first element of the
// outer sequence. Nothing else of it is read. Octets of another form have a digest that nobody signed.
func SignedPart(der []byte) [32]byte {
	var outer, signed asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil || outer.Class != asn1.ClassUniversal || outer.Tag != asn1.TagSequence ||
		!outer.IsCompound {
		return sha256.Sum256(der)
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &signed); err != nil {
		return sha256.Sum256(der)
	}
	return sha256.Sum256(signed.FullBytes)
}

// CertificateName is the Subject of a certificate: of the kind precertificate or final, by issuer and serial number in hex.
func CertificateName(kind, issuer, serial string) string {
	if kind == "final" {
		kind = "certificate"
	}
	return kind + " " + serial + " of " + issuer
}

// SignedCertificate is the record of a certificate that is in the database or in an archive.
func SignedCertificate(kind, issuer string, serial, der []byte, issuedAt time.Time) Record {
	number := hex.EncodeToString(serial)
	return Record{
		Source: SignedRow, Digest: SignedPart(der), Kind: Certificate, At: issuedAt, Subject: CertificateName(kind, issuer, number),
		Issuer: issuer, Serial: number,
	}
}
