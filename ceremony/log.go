package ceremony

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/strictyaml"
)

var logAlgorithms = []string{string(hsm.Ed25519), string(hsm.ECDSAP256)}

func (l *Log) validate(d *strictyaml.Document, at string) {
	validateName(d, at+".name", l.Name)
	l.Key.validate(d, at+".key")
	if !slices.Contains(logAlgorithms, string(l.Key.Algorithm)) {
		d.Refuse(at+".key.algorithm", "one of "+strings.Join(logAlgorithms, ", "),
			"the algorithm is missing, or is none that checkpoints are signed with")
	}
	// Any key does to ask whether the name is one.
	if _, err := audit.NewVerifier(l.Origin, make(ed25519.PublicKey, ed25519.PublicKeySize)); err != nil {
		d.Refuse(at+".origin", "write for example ca.example.com/audit-log", "the origin is missing or malformed")
	}
}

// equip makes the key of an audit log, and writes down its public half. Nothing is signed with it here.
func (a *act) equip(ctx context.Context, planned Log) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key, err := a.place.key(planned.Name, planned.Key, nil)
	if err != nil {
		return err
	}
	verifier, err := audit.NewVerifier(planned.Origin, key.signer.Public())
	if err != nil {
		return err
	}
	if err := a.place.file(planned.Name+keySuffix, publicPEM(key.spki)); err != nil {
		return err
	}
	a.place.tell("%s: verifier key %s", planned.Name, verifier)
	return nil
}

func publicPEM(spki []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
}
