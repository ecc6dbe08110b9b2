package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// isRequest tells a CertificationRequestInfo, whose version is 0, from a TBSCertList, whose version is 1.
func isRequest(s cryptobyte.String) bool {
	var version int
	return s.ReadASN1Integer(&version) && version == 0
}

// request reads a CertificationRequestInfo (RFC 2986, section 4.1). A responder's key signs one about itself, which proves to the authority
// that it is there, and nothing else: it asks for no extensions. It returns the beginning of the digest of the key asked for.
func (k *key) request(s cryptobyte.String) (string, error) {
	if k.OCSP == nil || k.OCSP.ResponderKey == nil {
		return "", refuse("the key signs no requests for certificates")
	}
	if _, err := content(&s, der.INTEGER, "the version"); err != nil {
		return "", err
	}
	if _, err := name(&s, "the subject"); err != nil {
		return "", err
	}
	spki, err := element(&s, der.SEQUENCE, "the public key")
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(spki)
	detail := hex.EncodeToString(digest[:8])
	if !bytes.Equal(spki, k.spki) {
		return detail, refuse("the request is for another key")
	}
	attributes, err := content(&s, der.Tag(0).ContextSpecific().Constructed(), "the attributes")
	if err != nil || !attributes.Empty() || !s.Empty() {
		return detail, refuse("the request has attributes")
	}
	return detail, nil
}
