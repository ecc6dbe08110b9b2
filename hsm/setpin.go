package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"unicode"

	"github.com/miekg/pkcs11"
)

const strongPIN = 8 // octets

// Strong is the PIN of the same source, refused where it is easily guessed: fewer than 8 characters, one character over and over, or
// characters in a row, such as 12345678 and hgfedcba. It is for PINs that are set, not for those that are used.
func (p PIN) Strong() PIN {
	if p.read == nil {
		return p
	}
	return PIN{read: func(ctx context.Context) ([]byte, error) {
		pin, err := p.reveal(ctx)
		if err != nil {
			return nil, err
		}
		if why := weak(pin); why != "" {
			clear(pin)
			return nil, fmt.Errorf("the new PIN %s; take 8 characters or more that nobody guesses, for example of `openssl rand -base64 12`", why)
		}
		return pin, nil
	}}
}

// weak says why a PIN is easily guessed; it is empty for a good one.
func weak(pin []byte) string {
	if len(pin) < strongPIN {
		return fmt.Sprintf("has fewer than %d characters", strongPIN)
	}
	var same, up, down int
	for i := 1; i < len(pin); i++ {
		switch int(pin[i]) - int(pin[i-1]) {
		case 0:
			same++
		case 1:
			up++
		case -1:
			down++
		}
	}
	if steps := len(pin) - 1; same == steps || up >= steps-1 || down >= steps-1 {
		return "is one character, or a row of them"
	}
	for _, word := range []string{"password", "changeit", "chancery", "12345678", "87654321", "qwertyui"} {
		if bytes.Contains(bytes.ToLower(pin), []byte(word)) && len(pin) < len(word)+strongPIN {
			return "is a word that is tried first"
		}
	}
	if len(bytes.TrimFunc(pin, unicode.IsSpace)) != len(pin) {
		return "begins or ends with a space"
	}
	return ""
}

// SetPINConfig says whose PIN is set.
type SetPINConfig struct {
	Module   string
	Token    Selector
	Officer  bool // the security officer's own PIN instead of the user's
	Old, New PIN
	Actor    string
	Observer Observer
	// RetryAfterFailedPIN permits a log-in although the token says that the last one failed; see Config.
	RetryAfterFailedPIN bool
}

// ChangePIN sets a new PIN with the old one (C_SetPIN). The token must not be open in this process. A wrong old PIN is tried once.
func ChangePIN(ctx context.Context, c SetPINConfig) error {
	o := &Operation{Mechanism: "C_SetPIN", User: "CKU_USER"}
	if c.Officer {
		o.User = "CKU_SO"
	}
	return setPIN(ctx, c, o, "changing the PIN", "the new PIN is the present one", func(m *module, t present, old, fresh []byte) error {
		user, allowed := uint(pkcs11.CKU_USER), loginAllowed(t, c.RetryAfterFailedPIN)
		if c.Officer {
			user, allowed = pkcs11.CKU_SO, officerAllowed(t, c.RetryAfterFailedPIN)
		}
		if allowed != nil {
			return allowed
		}
		return m.loggedIn(t, user, old, func(session pkcs11.SessionHandle) error {
			return m.ctx.SetPIN(session, string(old), string(fresh))
		})
	})
}

// UnlockPIN sets a new user PIN by the security officer's, which is Old (C_InitPIN): for a PIN that is locked or lost. Keys stay.
func UnlockPIN(ctx context.Context, c SetPINConfig) error {
	same := "the new user PIN is the security officer's; who has one must not have the other"
	o := &Operation{Mechanism: "C_InitPIN", User: "CKU_USER"}
	return setPIN(ctx, c, o, "setting a new user PIN", same, func(m *module, t present, officer, fresh []byte) error {
		if err := officerAllowed(t, c.RetryAfterFailedPIN); err != nil {
			return err
		}
		return m.loggedIn(t, pkcs11.CKU_SO, officer, func(session pkcs11.SessionHandle) error {
			return m.ctx.InitPIN(session, string(fresh))
		})
	})
}

func setPIN(ctx context.Context, c SetPINConfig, o *Operation, what, same string, set func(m *module, t present, old, fresh []byte) error) error {
	o.Op, o.Actor, o.Token, o.TokenLabel = OpPIN, actorOf(ctx, c.Actor), c.Token.Serial, c.Token.Label
	err := watch(ctx, c.Observer, o, nil, func() error {
		m, err := modules.load(c.Module)
		if err != nil {
			return err
		}
		old, err := c.Old.reveal(ctx)
		if err != nil {
			return fmt.Errorf("the present PIN: %w", err)
		}
		defer clear(old)
		fresh, err := revealNew(ctx, "new", c.New)
		if err != nil {
			return err
		}
		defer clear(fresh)
		if bytes.Equal(old, fresh) {
			return errors.New(same + "; nothing was changed")
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.initialised(func() error {
			tokens, err := m.present()
			if err != nil {
				return err
			}
			token, err := selected(tokens, c.Token)
			if err != nil {
				return err
			}
			o.Token, o.TokenLabel = token.SerialNumber, token.Label
			for _, t := range m.open {
				if t.info.Slot == token.slot {
					return fmt.Errorf("%s: %w", token, ErrInUse)
				}
			}
			if n := uint(len(fresh)); n < token.MinPinLen || token.MaxPinLen != 0 && n > token.MaxPinLen {
				return fmt.Errorf("the token takes PINs of %d to %d octets", token.MinPinLen, token.MaxPinLen)
			}
			return set(m, token, old, fresh)
		})
	})
	if err != nil {
		return fmt.Errorf("%s of the token with %s: %w", what, c.Token, err)
	}
	return nil
}

// loggedIn runs work in a session that is logged in, and logs out.
func (m *module) loggedIn(t present, user uint, pin []byte, work func(pkcs11.SessionHandle) error) (err error) {
	session, err := m.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("opening a session: %w", classified(err))
	}
	defer func() { err = errors.Join(err, m.ctx.CloseSession(session)) }()
	if err := m.ctx.Login(session, user, string(pin)); err != nil {
		return fmt.Errorf("logging in: %w", loginError(err))
	}
	err = work(session)
	if is(err, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE) {
		err = fmt.Errorf("the token does not take the new PIN; the present one still holds: %w", err)
	}
	return errors.Join(classified(err), m.ctx.Logout(session))
}

// officerAllowed reads what the token says of the security officer's PIN before it is tried.
func officerAllowed(t present, retry bool) error {
	switch {
	case t.has(pkcs11.CKF_SO_PIN_LOCKED):
		return fmt.Errorf("%w: it is the security officer's; only the vendor's tools help, and they destroy the keys", ErrPINLocked)
	case retry:
		return nil
	case t.has(pkcs11.CKF_SO_PIN_FINAL_TRY), t.has(pkcs11.CKF_SO_PIN_COUNT_LOW):
		return fmt.Errorf("%w: it is the security officer's; %s", ErrPINAtRisk, retryExplicitly)
	}
	return nil
}
