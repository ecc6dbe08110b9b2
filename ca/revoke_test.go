package ca

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// remembering is a store that keeps the keys that are compromised.
type remembering struct {
	Store
	keys        map[[32]byte]bool
	authorities []AuthorityRecord
	revoked     *Revocation
}

func (r *remembering) Authorities(context.Context) ([]AuthorityRecord, error) {
	return r.authorities, nil
}

func (r *remembering) LatestRevocation(context.Context, string, []byte) (Revocation, error) {
	if r.revoked == nil {
		return Revocation{}, ErrNotFound
	}
	return *r.revoked, nil
}

func (r *remembering) RevocationOnRecord(ctx context.Context, issuer string, serial []byte) (Revocation, error) {
	return r.LatestRevocation(ctx, issuer, serial)
}

func (r *remembering) RecordRevocation(_ context.Context, v Revocation, _ int, _ ...audit.Leaf) (Revocation, error) {
	r.revoked = &v
	if v.Reason == issuance.KeyCompromise {
		r.keys[v.SPKI] = true
	}
	return v, nil
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
		expired := Certificate{NewCertificate: NewCertificate{
			Issuer: "issuing-1", SPKI: [32]byte{1}, NotAfter: now.Add(-time.Hour), Namespace: "web",
		}}
		o := RevokeOrder{Actor: access.Actor{ID: "actor-1"}, Serial: []byte{1}, Reason: reason}
		_, err := c.revoke(context.Background(), o, func() (Certificate, error) { return expired, nil })
		if !errors.Is(err, ErrExpired) || store.keys[expired.SPKI] != remembered {
			t.Errorf("%s: %v, remembered %v", reason, err, store.keys[expired.SPKI])
		}
	}
}

// A revocation that was recorded for another CRL, or as of another end, is recorded once more, as the certificate says.
func TestARevocationThatNoCRLSaysIsRecordedAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	sound := Revocation{Sequence: 1, CRLScope: FullScope, NotAfter: now.Add(time.Hour)}
	for name, one := range map[string]struct {
		change func(*Revocation)
		wish   issuance.Reason
		again  bool
	}{
		"sound":           {func(*Revocation) {}, issuance.Superseded, false},
		"another CRL":     {func(r *Revocation) { r.CRLScope = "nowhere" }, issuance.Superseded, true},
		"ended long ago":  {func(r *Revocation) { r.NotAfter = now.AddDate(-9, 0, 0) }, issuance.KeyCompromise, true},
		"held, elsewhere": {func(r *Revocation) { r.Reason, r.CRLScope = issuance.CertificateHold, "nowhere" }, issuance.Superseded, true},
	} {
		recorded := sound
		one.change(&recorded)
		store := &remembering{keys: map[[32]byte]bool{}, revoked: &recorded}
		c := publishing(store, func() time.Time { return now })
		revoked := Certificate{
			NewCertificate: NewCertificate{Issuer: "issuing-1", CRLScope: FullScope, NotAfter: sound.NotAfter, Namespace: "web"},
			Revocation:     &recorded,
		}
		o := RevokeOrder{Actor: access.Actor{ID: "actor-1"}, Serial: []byte{1}, Reason: one.wish}
		got, err := c.revoke(t.Context(), o, func() (Certificate, error) { return revoked, nil })
		if again := got.Sequence == 2; err != nil || again != one.again ||
			again && (got.CRLScope != FullScope || !got.NotAfter.Equal(sound.NotAfter)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The key of an authority that turns out compromised is remembered, whatever the authority was revoked for before: for another reason, or
// for this one by a command that was ended half way.
func TestTheKeyOfARevokedAuthorityIsRemembered(t *testing.T) {
	now := time.Now().UTC()
	a, _ := openAuthority(t, "issuing-1", now)
	a.Parent = "root"
	spki := sha256.Sum256(a.Certificate.RawSubjectPublicKeyInfo)
	for _, one := range []struct {
		before     *Revocation
		reason     issuance.Reason
		remembered bool
	}{
		{nil, issuance.CACompromise, true},
		{nil, issuance.KeyCompromise, true},
		{nil, issuance.Superseded, false},
		{&Revocation{Reason: issuance.Superseded}, issuance.CACompromise, true},
		{&Revocation{Reason: issuance.Superseded}, issuance.KeyCompromise, true},
		{&Revocation{Reason: issuance.CACompromise}, issuance.CACompromise, true},
		{&Revocation{Reason: issuance.CACompromise}, issuance.Superseded, false},
	} {
		store := &remembering{keys: map[[32]byte]bool{}, authorities: []AuthorityRecord{a.AuthorityRecord, {Name: "root"}}, revoked: one.before}
		r := Registrar{
			Store: store, Now: func() time.Time { return now }, NewID: func() string { return uuid.Must(uuid.NewV7()).String() }, Actor: "operator",
		}
		revoked, err := r.RevokeAuthority(context.Background(), a.Name, one.reason, "")
		if err != nil || store.keys[spki] != one.remembered {
			t.Errorf("%+v, then %s: %v, remembered %v", one.before, one.reason, err, store.keys[spki])
		}
		if one.before != nil && revoked.Revocation.Reason != one.before.Reason {
			t.Errorf("%s became %s", one.before.Reason, revoked.Revocation.Reason)
		}
	}
}

// An authority is not revoked without saying why (BR, section 7.2.2), nor put on hold; whoever tries is told what to say.
func TestAnAuthorityIsRevokedForAReason(t *testing.T) {
	for _, reason := range []issuance.Reason{issuance.Unspecified, issuance.CertificateHold, issuance.RemoveFromCRL} {
		_, err := Registrar{}.RevokeAuthority(context.Background(), "issuing-1", reason, "")
		var invalid *InvalidError
		want := reason.String() + " is not a reason to revoke an authority; use cACompromise, keyCompromise, affiliationChanged, superseded, " +
			"cessationOfOperation, privilegeWithdrawn"
		if !errors.As(err, &invalid) || invalid.Field != "reason" || invalid.Message != want {
			t.Errorf("%s: %v", reason, err)
		}
	}
}
