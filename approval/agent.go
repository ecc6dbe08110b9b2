package approval

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh/agent"
)

// OpenAgent finds a key in an SSH agent, by its public key. The private key stays where it is. The
// connection is the signer's from then on.
func OpenAgent(connection io.ReadWriter, key Key) (Signer, error) {
	if key.Form != FormSSH {
		return nil, errors.New("an SSH agent holds SSH keys alone")
	}
	holder := agent.NewClient(connection)
	signers, err := holder.Signers()
	if err != nil {
		return nil, fmt.Errorf("asking the SSH agent: %w", err)
	}
	for _, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), key.Public) {
			return &sshSigner{signer: s, key: key}, nil
		}
	}
	return nil, errors.New("the SSH agent does not hold this key; add it with ssh-add")
}
