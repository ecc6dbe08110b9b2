package keeper

import (
	"crypto"
	"testing"
)

func TestKeeperSigns(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
		t.Fatal(err)
	}
	_ = crypto.SHA256
}
