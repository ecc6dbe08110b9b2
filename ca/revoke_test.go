package ca

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// remembering is a store that keeps the keys that are compromised.
type remembering struct {
	Store
	keys map[[32]byte]bool
}

func (r *remembering) KeyCompromised(_ context.Context, spki [32]byte) (bool, error) {
	return r.keys[spki], nil
}

func (r *remembering) RecordCompromisedKey(_ context.Context, spki [32]byte, _ string, _ []byte, _ time.Time, _ ...audit.Leaf) error {
	r.keys[spki] = true
	return nil
}

// Whoever tells that the key of an expired certificate is compromised revokes nothing, and is heard: the key is certified never again.
func TestTheKeyOfAnExpiredCertificateIsRemembered(t *testing.T) {
	now := time.Now()
	for reason, remembered := range map[issuance.Reason]bool{issuance.KeyCompromise: true, issuance.Superseded: false} {
		store := &remembering{keys: map[[32]byte]bool{}}
		c := publishing(store, func() time.Time { return now })
		expired := Certificate{NewCertificate: NewCertificate{Issuer: "issuing-1", SPKI: [32]byte{1}, NotAfter: now.Add(-time.Hour), Namespace: "web"}}
		o := RevokeOrder{Actor: access.Actor{ID: "actor-1"}, Serial: []byte{1}, Reason: reason}
		_, err := c.revoke(context.Background(), o, func() (Certificate, error) { return expired, nil })
		if !errors.Is(err, ErrExpired) || store.keys[expired.SPKI] != remembered {
			t.Errorf("%s: %v, remembered %v", reason, err, store.keys[expired.SPKI])
		}
	}
}
