package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// OpDirect is a call of Direct. What it was for is told as the mechanism.
const OpDirect Op = "direct"

// Direct gives work the library of the open token, initialised and logged in, and the token's slot. It is for what lies below this package
// and can name a Pass: the probe. Work opens and closes sessions of its own and must neither log in or out, close sessions that it did not
// open, nor initialise or finalise anything. No key is made or looked for by others meanwhile. The library answers errors unchanged; what
// purpose says goes to the observer, as one operation.
func (t *Token) Direct(ctx context.Context, _ direct.Pass, purpose string, work func(ctx *pkcs11.Ctx, slot uint) error) error {
	o := &Operation{Op: OpDirect, Mechanism: purpose}
	return t.inSession(ctx, o, func(s session) error { return work(s.ctx, t.info.Slot) })
}

// Describe tells what the module shows, and which mechanisms its tokens offer, through the open token.
func (t *Token) Describe(ctx context.Context) (found Module, err error) {
	err = t.using(ctx, &Operation{Op: OpList}, func() error {
		found, err = t.module.describe(true)
		return err
	})
	if err != nil {
		return Module{}, fmt.Errorf("describing the module of token %q: %w", t.info.Label, err)
	}
	return found, nil
}
