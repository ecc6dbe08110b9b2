package ca

import (
	"errors"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

func TestNextRevocation(t *testing.T) {
	at := func(sequence int, r issuance.Reason) *Revocation { return &Revocation{Sequence: sequence, Reason: r} }
	for name, c := range map[string]struct {
		latest  *Revocation
		wish    issuance.Reason
		after   int
		done    bool
		refused bool
	}{
		"first":                {nil, issuance.KeyCompromise, 0, false, false},
		"repeated":             {at(1, issuance.Superseded), issuance.Superseded, 1, true, false},
		"other reason":         {at(1, issuance.Superseded), issuance.KeyCompromise, 1, true, false},
		"hold":                 {nil, issuance.CertificateHold, 0, false, false},
		"hold again":           {at(1, issuance.CertificateHold), issuance.CertificateHold, 1, true, false},
		"hold becomes revoked": {at(1, issuance.CertificateHold), issuance.KeyCompromise, 1, false, false},
		"hold ends":            {at(1, issuance.CertificateHold), issuance.RemoveFromCRL, 1, false, false},
		"release repeated":     {at(2, issuance.RemoveFromCRL), issuance.RemoveFromCRL, 2, true, false},
		"after a release":      {at(2, issuance.RemoveFromCRL), issuance.Superseded, 2, false, false},
		"release of nothing":   {nil, issuance.RemoveFromCRL, 0, false, true},
		"release of a revoked": {at(1, issuance.Superseded), issuance.RemoveFromCRL, 0, false, true},
	} {
		after, done, err := nextRevocation(c.latest, c.wish)
		if errors.Is(err, ErrRevokedOtherwise) != c.refused || err == nil && (after != c.after || done != c.done) {
			t.Errorf("%s: after %d, done %v, %v", name, after, done, err)
		}
	}
}

// An invalidity date that passes can stand on a CRL: one that cannot would keep its scope from having another CRL.
func TestInvalidityDate(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	c := &CA{now: func() time.Time { return now }}
	for text, good := range map[string]bool{
		"2026-11-28T12:00:00Z":      true,
		"2026-11-28T12:00:01Z":      false,
		"2026-11-28T13:00:00+01:00": true,
		"1950-01-01T00:00:00Z":      true,
		"1950-01-01T00:00:00+01:00": false, // 1949
		"0000-01-01T00:00:00+14:00": false, // the year before the year 0
		"0000-01-01T00:00:00Z":      false,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		var invalid *InvalidError
		err = c.checkRevocation(issuance.KeyCompromise, "", at)
		if good != (err == nil) || !good && !errors.As(err, &invalid) {
			t.Errorf("%s: %v", text, err)
		}
		var list issuance.Revoked
		entry := issuance.RevokedEntry{CRLEntry: issuance.CRLEntry{Serial: []byte{1}, RevokedAt: now, InvalidityDate: at}, NotAfter: now}
		if err := list.Apply(now, []issuance.RevokedEntry{entry}); good && err != nil {
			t.Errorf("%s passes, and cannot stand on a CRL: %v", text, err)
		}
	}
	if err := c.checkRevocation(issuance.KeyCompromise, "", time.Time{}); err != nil {
		t.Errorf("without a date: %v", err)
	}
}

// Whatever the clock says, the number of the next CRL is above the last, and never below the Unix time in milliseconds.
func TestCRLNumberOnlyRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last := big.NewInt(rapid.Int64Range(0, 1<<60).Draw(t, "last"))
		now := time.UnixMilli(rapid.Int64Range(1, 1<<45).Draw(t, "now"))
		next := new(Authority).contents(CRLClaim{LastNumber: last, Now: now, Scope: FullScope, Alone: true}, time.Hour)
		if next.Number.Cmp(last) <= 0 || next.Number.Cmp(big.NewInt(now.UnixMilli())) < 0 {
			t.Fatalf("after %s at %s comes %s", last, now, next.Number)
		}
		if next.ThisUpdate.After(now) || next.NextUpdate.Sub(next.ThisUpdate) != time.Hour {
			t.Fatalf("from %s to %s at %s", next.ThisUpdate, next.NextUpdate, now)
		}
	})
}

// After a failure one caller in each rest is let through, and a signature ends the rest.
func TestAFailedKeyIsTriedOnceASecond(t *testing.T) {
	a, now := &Authority{}, time.Now()
	if !a.healthy(now) {
		t.Error("a new authority is not tried")
	}
	a.failed(now)
	if a.healthy(now.Add(keyRest / 2)) {
		t.Error("a failed key is tried before it has rested")
	}
	later := now.Add(keyRest)
	if !a.healthy(later) || a.healthy(later) {
		t.Error("not exactly one caller is let through after the rest")
	}
	a.recovered()
	if !a.healthy(later) {
		t.Error("a key that signed again is not tried")
	}
}

func TestStatus(t *testing.T) {
	now := time.Now()
	c := Certificate{NewCertificate: NewCertificate{NotAfter: now.Add(time.Hour)}}
	for _, one := range []struct {
		at     time.Time
		reason *Revocation
		want   string
	}{
		{now, nil, "valid"},
		{now.Add(2 * time.Hour), nil, "expired"},
		{now.Add(2 * time.Hour), &Revocation{Reason: issuance.Superseded}, "revoked"},
		{now, &Revocation{Reason: issuance.CertificateHold}, "on-hold"},
		{now, &Revocation{Reason: issuance.RemoveFromCRL}, "valid"},
	} {
		c.Revocation = one.reason
		if got := c.Status(one.at); got != one.want {
			t.Errorf("status %q, want %q", got, one.want)
		}
	}
}

// What may be publicly trusted is not put on hold: neither one certificate nor as one of many, and of a profile that is gone nobody knows.
func TestWhoCanBePutOnHold(t *testing.T) {
	set, now := shipped(t), time.Now()
	c := &CA{now: func() time.Time { return now }, newID: func() string { return "event" }}
	c.ruling.Store(&ruling{set: set})
	for profile, can := range map[string]bool{
		"tls-server": true, "tls-client": true, "tls-public": false, "code-signing": false, "smime": false, "gone": false, "": false,
	} {
		err := c.checkRevokeOrder(RevokeOrder{Reason: issuance.CertificateHold}, Certificate{NewCertificate: NewCertificate{Profile: profile}})
		var invalid *InvalidError
		if can != (err == nil) || !can && !errors.As(err, &invalid) {
			t.Errorf("%s: %v", profile, err)
		}
		_, counts := c.judgeItem(RevocationJob{Reason: issuance.CertificateHold}, RevocationItem{Profile: profile, NotAfter: now.Add(time.Hour)}, now)
		if want := (RevocationCounts{Revoked: 1}); can != (counts == want) || !can && counts.Refused != 1 {
			t.Errorf("%s among many: %+v", profile, counts)
		}
		for _, reason := range []issuance.Reason{issuance.Superseded, issuance.RemoveFromCRL} {
			if err := c.checkRevokeOrder(RevokeOrder{Reason: reason}, Certificate{NewCertificate: NewCertificate{Profile: profile}}); err != nil {
				t.Errorf("%s, %s: %v", profile, reason, err)
			}
		}
	}
}

// shipped are the policies that come with the program.
func shipped(t *testing.T) *policies.Set {
	t.Helper()
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return set
}
