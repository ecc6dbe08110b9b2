package csr

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512" // for crypto.Hash
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxVerifyBits is the largest RSA key that a signature is checked with. Policies refuse keys long before, but a check costs the
// square of the size, and so it does not rely on them.
const maxVerifyBits = 8192

// signatureAlgorithms are the algorithms with a name. Those without a hash are named so that a refusal can say what it refuses; an
// algorithm that is not in the table goes by its OID. RSA-PSS is not in it because its name depends on its parameters.
var signatureAlgorithms = []struct {
	name SignatureAlgorithm
	oid  asn1.ObjectIdentifier
	key  KeyAlgorithm
	hash crypto.Hash
}{
	{"ECDSA-SHA256", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, ECDSA, crypto.SHA256},
	{"ECDSA-SHA384", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, ECDSA, crypto.SHA384},
	{"ECDSA-SHA512", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, ECDSA, crypto.SHA512},
	{"RSA-SHA256", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, RSA, crypto.SHA256},
	{"RSA-SHA384", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, RSA, crypto.SHA384},
	{"RSA-SHA512", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, RSA, crypto.SHA512},
	{"Ed25519", oidEd25519, Ed25519, 0},
	{"RSA-SHA1", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, "", 0},
	{"RSA-SHA1", asn1.ObjectIdentifier{1, 3, 14, 3, 2, 29}, "", 0},
	{"RSA-SHA224", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 14}, "", 0},
	{"RSA-MD5", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, "", 0},
	{"RSA-MD2", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 2}, "", 0},
	{"ECDSA-SHA1", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, "", 0},
	{"ECDSA-SHA224", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 1}, "", 0},
	{"DSA-SHA1", asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 3}, "", 0},
	{"DSA-SHA256", asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 2}, "", 0},
}

// pssHashes are the hashes of RSA-PSS that are accepted. The mask is made with the same hash, and the salt is as long as it.
var pssHashes = []struct {
	name SignatureAlgorithm
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{"RSA-PSS-SHA256", asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{"RSA-PSS-SHA384", asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{"RSA-PSS-SHA512", asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// otherPSS names RSA-PSS with parameters that are not accepted: SHA-1, a hash of its own for the mask, an unusual salt.
const otherPSS SignatureAlgorithm = "RSA-PSS"

var (
	oidMGF1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	null    = []byte{5, 0}
)

const signatureHint = "sign the request with SHA-256, SHA-384 or SHA-512 (RSA, RSA-PSS or ECDSA) or with Ed25519"

// readSignatureAlgorithm reads the contents of the outer AlgorithmIdentifier.
func readSignatureAlgorithm(s cryptobyte.String) (SignatureAlgorithm, error) {
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) || !wellFormed(s, maxDepth) {
		return "", notDER("signatureAlgorithm", "the signature algorithm is not an AlgorithmIdentifier")
	}
	if oid.Equal(oidRSAPSS) {
		return readPSS(s), nil
	}
	for _, a := range signatureAlgorithms {
		if !oid.Equal(a.oid) {
			continue
		}
		if a.key == RSA && !bytes.Equal(s, null) {
			return "", refuse(RuleSignatureAlgorithm, "signatureAlgorithm", derHint,
				"the parameters of %s must be NULL (RFC 4055, section 5)", a.name)
		}
		if (a.key == ECDSA || a.key == Ed25519) && !s.Empty() {
			return "", refuse(RuleSignatureAlgorithm, "signatureAlgorithm", derHint,
				"%s has no parameters (RFC 5758, section 3.2; RFC 8410, section 3)", a.name)
		}
		return a.name, nil
	}
	return SignatureAlgorithm(oid.String()), nil
}

// readPSS names RSA-PSS by its parameters (RFC 4055, section 3.1).
func readPSS(s cryptobyte.String) SignatureAlgorithm {
	var parameters, tagged, mgf cryptobyte.String
	var digest, function, mask asn1.ObjectIdentifier
	var salt int
	explicit := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed() }
	if !s.ReadASN1(&parameters, cryptobyte_asn1.SEQUENCE) || !s.Empty() ||
		!parameters.ReadASN1(&tagged, explicit(0)) || !readHash(tagged, &digest) ||
		!parameters.ReadASN1(&tagged, explicit(1)) ||
		!tagged.ReadASN1(&mgf, cryptobyte_asn1.SEQUENCE) || !tagged.Empty() ||
		!mgf.ReadASN1ObjectIdentifier(&function) || !function.Equal(oidMGF1) || !readHash(mgf, &mask) || !mask.Equal(digest) ||
		!parameters.ReadASN1(&tagged, explicit(2)) || !tagged.ReadASN1Integer(&salt) || !tagged.Empty() ||
		!parameters.Empty() {
		return otherPSS
	}
	for _, h := range pssHashes {
		if digest.Equal(h.oid) && salt == h.hash.Size() {
			return h.name
		}
	}
	return otherPSS
}

// readHash reads the AlgorithmIdentifier of a hash, whose parameters are NULL or absent (RFC 4055, section 2.1).
func readHash(s cryptobyte.String, oid *asn1.ObjectIdentifier) bool {
	var algorithm cryptobyte.String
	return s.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) && s.Empty() && algorithm.ReadASN1ObjectIdentifier(oid) &&
		(algorithm.Empty() || bytes.Equal(algorithm, null))
}

// VerifySignature checks that whoever made the request holds its key (proof of possession, RFC 2986, section 4.2). Check the key's
// size first: the time this takes grows with it. The error is always an *Error.
func (r *Request) VerifySignature() error {
	key, hash, pss, ok := r.sigAlg.accepted()
	if !ok {
		return refuse(RuleSignatureAlgorithm, "signatureAlgorithm", signatureHint, "requests signed with %s are not accepted", r.sigAlg)
	}
	if key != r.key.Algorithm {
		return refuse(RuleSignatureAlgorithm, "signatureAlgorithm", "sign the request with the key that it asks a certificate for",
			"the request is signed with %s, but its key is for %s", r.sigAlg, r.key.Algorithm)
	}
	if key == RSA && (r.key.Public == nil || r.key.Bits > maxVerifyBits) {
		return refuse(RuleKey, "subjectPublicKeyInfo", keyHint, "signatures of this RSA key, of %d bits, are too costly to check", r.key.Bits)
	}
	message := r.tbs
	if hash != 0 {
		h := hash.New()
		h.Write(r.tbs)
		message = h.Sum(nil)
	}
	valid := false
	switch public := r.key.Public.(type) {
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(public, message, r.signature)
	case ed25519.PublicKey:
		valid = ed25519.Verify(public, message, r.signature)
	case *rsa.PublicKey:
		if pss {
			valid = rsa.VerifyPSS(public, hash, message, r.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		} else {
			valid = rsa.VerifyPKCS1v15(public, hash, message, r.signature) == nil
		}
	}
	if !valid {
		return refuse(RuleSignature, "signature", "sign the request with the private key that belongs to it, and send it unchanged",
			"the signature was not made by the request's key over this request")
	}
	return nil
}

// accepted tells whether requests may be signed so, by which kind of key and over which hash.
func (a SignatureAlgorithm) accepted() (key KeyAlgorithm, hash crypto.Hash, pss, ok bool) {
	for _, known := range signatureAlgorithms {
		if known.name == a && known.key != "" {
			return known.key, known.hash, false, true
		}
	}
	for _, known := range pssHashes {
		if known.name == a {
			return RSA, known.hash, true, true
		}
	}
	return "", 0, false, false
}
