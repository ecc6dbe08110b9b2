package web

import (
	"strings"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/ca"
)

// Evidence is a signed word, whole: it can be verified without the service (chancery approval verify).
type Evidence struct {
	Statement string `json:"statement" doc:"What was signed"`
	Signature string `json:"signature" doc:"PEM: an SSH signature, or a detached CMS signature"`
	Key       string `json:"key" doc:"The approver's public key, as registered: a line of SSH, or a certificate in PEM"`
	Digest    string `json:"evidence_sha256" doc:"As the word's audit event gives it"`
}

func showEvidence(e *ca.Evidence) *Evidence {
	if e == nil {
		return nil
	}
	return &Evidence{Statement: string(e.Statement), Signature: string(e.Signature), Key: e.Key.String(), Digest: e.Digest()}
}

// readSignature checks the form of a signature that goes with a word.
func readSignature(signature string) ([]byte, error) {
	if len(signature) > approval.MaxSignature || !printable(strings.NewReplacer("\n", "", "\r", "").Replace(signature)) {
		return nil, refusal(broken("signature", "send it in PEM, as ssh-keygen -Y sign and openssl cms -outform PEM write it",
			"the signature is none"))
	}
	return []byte(signature), nil
}
