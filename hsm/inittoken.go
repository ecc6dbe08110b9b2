package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/miekg/pkcs11"
)

const (
	minPIN        = 4  // octets; SoftHSM takes no fewer, and 8 or more are to be recommended
	maxTokenLabel = 32 // octets of CK_TOKEN_INFO.label
)

// InitConfig is what InitToken makes.
type InitConfig struct {
	Module   string
	Label    string // at most 32 octets of UTF-8, unused by the module's initialised tokens
	SOPIN    PIN    // of the security officer, who can set a new user PIN
	UserPIN  PIN
	Actor    string
	Observer Observer
	Slot     *uint // nil means the first slot whose token is not initialised
}

// InitToken initialises a token that is not initialised yet (C_InitToken) and sets its user PIN (C_InitPIN). It never touches an
// initialised token, because that would destroy its keys.
//
// The new token is known afterwards by its serial. Its slot changes (with SoftHSM when the library is initialised next, which happens at
// once unless other tokens of the library are open), so TokenInfo.Slot holds for this moment alone.
func InitToken(ctx context.Context, c InitConfig) (TokenInfo, error) {
	var info TokenInfo
	o := &Operation{Op: OpInit, Actor: actorOf(ctx, c.Actor), TokenLabel: c.Label, Mechanism: "C_InitToken"}
	err := watch(ctx, c.Observer, o, nil, func() (err error) {
		info, err = initToken(ctx, c)
		o.Token = info.Serial
		return err
	})
	if err != nil {
		return TokenInfo{}, fmt.Errorf("initialising the token %q: %w", c.Label, err)
	}
	return info, nil
}

func initToken(ctx context.Context, c InitConfig) (TokenInfo, error) {
	if c.Label == "" || len(c.Label) > maxTokenLabel || !utf8.ValidString(c.Label) || c.Label[len(c.Label)-1] == ' ' {
		return TokenInfo{}, fmt.Errorf("the label must be 1 to %d octets of UTF-8 and not end with a space", maxTokenLabel)
	}
	m, err := modules.load(c.Module)
	if err != nil {
		return TokenInfo{}, err
	}
	officer, err := revealNew(ctx, "security officer's", c.SOPIN)
	if err != nil {
		return TokenInfo{}, err
	}
	defer clear(officer)
	user, err := revealNew(ctx, "user's", c.UserPIN)
	if err != nil {
		return TokenInfo{}, err
	}
	defer clear(user)
	if bytes.Equal(officer, user) {
		return TokenInfo{}, errors.New("the security officer's PIN and the user's are the same; who has one must not have the other")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return TokenInfo{}, err
	}

	// Two rounds: between them the library is finalised, if no token is open, and shows the new token in its lasting place.
	var before []present
	err = m.initialised(func() error {
		if before, err = m.present(); err != nil {
			return err
		}
		return m.format(before, c, officer, user)
	})
	if err != nil {
		return TokenInfo{}, err
	}
	var token present
	err = m.initialised(func() error {
		if token, err = m.added(before, c.Label); err != nil {
			return err
		}
		return m.setUserPIN(token, officer, user)
	})
	if err != nil {
		return TokenInfo{}, fmt.Errorf("the token is initialised but has no user PIN, and cannot be used: %w", err)
	}
	return token.describe(m), nil
}

// revealNew reads a PIN that is to be set.
func revealNew(ctx context.Context, whose string, p PIN) ([]byte, error) {
	pin, err := p.reveal(ctx)
	if err != nil {
		return nil, fmt.Errorf("the %s PIN: %w", whose, err)
	}
	if len(pin) < minPIN {
		clear(pin)
		return nil, fmt.Errorf("the %s PIN has fewer than %d characters; take 8 or more", whose, minPIN)
	}
	return pin, nil
}

// format runs C_InitToken on a slot that holds no keys.
func (m *module) format(tokens []present, c InitConfig, officer, user []byte) error {
	for _, t := range tokens {
		if t.has(pkcs11.CKF_TOKEN_INITIALIZED) && t.Label == c.Label {
			return fmt.Errorf("%w: %s", ErrTokenExists, t)
		}
	}
	free, err := blank(tokens, c.Slot)
	if err != nil {
		return err
	}
	// The user PIN comes last; that it will be accepted is seen to first.
	for _, pin := range [][]byte{officer, user} {
		if n := uint(len(pin)); n < free.MinPinLen || free.MaxPinLen != 0 && n > free.MaxPinLen {
			return fmt.Errorf("the token takes PINs of %d to %d octets", free.MinPinLen, free.MaxPinLen)
		}
	}
	if err := m.ctx.InitToken(free.slot, string(officer), c.Label); err != nil {
		return fmt.Errorf("slot %d: %w", free.slot, classified(err))
	}
	return nil
}

// blank returns the slot to initialise.
func blank(tokens []present, slot *uint) (present, error) {
	for _, t := range tokens {
		if slot != nil && t.slot != *slot {
			continue
		}
		if !t.has(pkcs11.CKF_TOKEN_INITIALIZED) {
			return t, nil
		}
		if slot != nil {
			return present{}, fmt.Errorf("slot %d: %w: %s", *slot, ErrTokenExists, t)
		}
	}
	if slot != nil {
		return present{}, fmt.Errorf("slot %d: %w", *slot, ErrNoToken)
	}
	return present{}, fmt.Errorf("%w: the module shows none that is not initialised yet; one that is would lose its keys", ErrNoToken)
}

// added finds the token that was not there before. Its label alone would do, unless another process takes the same one at the same time; its
// serial number would not, because some modules give every token the same.
func (m *module) added(before []present, label string) (present, error) {
	now, err := m.present()
	if err != nil {
		return present{}, err
	}
	type names struct{ serial, label string }
	known := make(map[names]bool)
	for _, t := range before {
		if t.has(pkcs11.CKF_TOKEN_INITIALIZED) {
			known[names{t.SerialNumber, t.Label}] = true
		}
	}
	var fresh []present
	for _, t := range now {
		if !known[names{t.SerialNumber, t.Label}] {
			fresh = append(fresh, t)
		}
	}
	return selected(fresh, Selector{Label: label})
}

func (m *module) setUserPIN(t present, officer, user []byte) error {
	return m.loggedIn(t, pkcs11.CKU_SO, officer, func(session pkcs11.SessionHandle) error {
		if err := m.ctx.InitPIN(session, string(user)); err != nil {
			return fmt.Errorf("setting the user PIN: %w", err)
		}
		return nil
	})
}
