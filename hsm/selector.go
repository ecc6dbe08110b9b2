package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/miekg/pkcs11"
)

// present is a token as the library shows it at this moment.
type present struct {
	slot     uint
	hardware bool
	library  string // CK_INFO.manufacturerID
	told     string // the serial number as the library tells it, whose octets crypto11 compares; TokenInfo has it readable
	behind   mutes  // the slots listed before its own that do not answer
	pkcs11.TokenInfo
}

// mute is a slot that does not answer.
type mute struct {
	slot uint
	err  error
}

// mutes are some, at which crypto11 gives up: it finds no token that is listed after one.
type mutes []mute

func (m mutes) Error() string {
	return fmt.Sprintf("slot %d does not answer (%v), and the library lists it before the token's: bring its device back, or take it out of "+
		"the library's configuration", m[0].slot, m[0].err)
}

// stranded tells whether the token, which is open, could not be opened again if it were closed and the library initialised anew.
func (p present) stranded(info TokenInfo) bool {
	forgets := profileFor(info).forgets
	return slices.ContainsFunc(p.behind, func(m mute) bool { return !forgets || !is(m.err, pkcs11.CKR_GENERAL_ERROR) })
}

func (p present) has(flag uint) bool { return p.Flags&flag != 0 }

// present lists the tokens of an initialised library. A slot that does not answer is left out, so that it cannot keep the others from use.
func (m *module) present() ([]present, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("listing the slots of PKCS#11 module %s: %w", m.path, classified(err))
	}
	library, err := m.ctx.GetInfo()
	if err != nil {
		return nil, fmt.Errorf("asking PKCS#11 module %s for its version: %w", m.path, classified(err))
	}
	var tokens []present
	var silent mutes
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if err != nil {
			silent = append(silent, mute{slot, err})
			continue
		}
		device, err := m.ctx.GetSlotInfo(slot)
		if err != nil {
			continue
		}
		told := info.SerialNumber
		info.Label, info.SerialNumber = unpadded(info.Label), unpadded(info.SerialNumber)
		info.ManufacturerID, info.Model = unpadded(info.ManufacturerID), unpadded(info.Model)
		tokens = append(tokens, present{slot, device.Flags&pkcs11.CKF_HW_SLOT != 0, library.ManufacturerID, told, slices.Clone(silent), info})
	}
	return tokens, nil
}

// unpadded drops what fills a text up to its fixed length: spaces by the standard, NULs with some modules (tpm2-pkcs11). What is no UTF-8,
// against the standard, is replaced: journals and transcripts, which are JSON, must read what was written.
func unpadded(text string) string {
	return strings.ToValidUTF8(strings.TrimRight(text, " \x00"), string(utf8.RuneError))
}

// selected returns the one initialised token that matches.
func selected(tokens []present, s Selector) (present, error) {
	if s == (Selector{}) {
		return present{}, errors.New("no token is named: give its label, its serial or its slot")
	}
	var matching []present
	var all, several []string
	for _, t := range tokens {
		if !t.has(pkcs11.CKF_TOKEN_INITIALIZED) {
			continue
		}
		all = append(all, t.String())
		if s.matches(t) {
			several = append(several, t.String())
			matching = append(matching, t)
		}
	}
	switch len(matching) {
	case 0:
		if len(all) == 0 {
			return present{}, fmt.Errorf("%w: the module shows no initialised token", ErrNoToken)
		}
		return present{}, fmt.Errorf("%w; there is: %s", ErrNoToken, strings.Join(all, ", "))
	case 1:
		return matching[0], nil
	}
	return present{}, fmt.Errorf("%w, name one by its serial: %s", ErrAmbiguous, strings.Join(several, ", "))
}

func (s Selector) matches(t present) bool {
	return (s.Label == "" || s.Label == t.Label) &&
		(s.Serial == "" || s.Serial == t.SerialNumber) &&
		(s.Slot == nil || *s.Slot == t.slot)
}

func (p present) String() string {
	return fmt.Sprintf("%q (serial %s, slot %d)", p.Label, p.SerialNumber, p.slot)
}

// unique tells whether the token's serial number singles it out. A serial that does not is no way to select it.
func (p present) unique(tokens []present) bool {
	same := 0
	for _, t := range tokens {
		if t.SerialNumber == p.SerialNumber {
			same++
		}
	}
	return p.SerialNumber != "" && same == 1
}

// retryExplicitly is what a person does about ErrPINAtRisk.
const retryExplicitly = "see that the PIN is right, then allow one retry (--retry-after-failed-pin, or retry_after_failed_pin: true in the configuration)"

// loginAllowed reads what the token says of its PIN before one is tried (PKCS#11 2.40, CK_TOKEN_INFO flags).
func loginAllowed(t present, retry bool) error {
	switch {
	case t.has(pkcs11.CKF_USER_PIN_LOCKED):
		return fmt.Errorf("%w: the security officer sets a new one (`chancery hsm pin unlock`), and the keys stay", ErrPINLocked)
	case !t.has(pkcs11.CKF_USER_PIN_INITIALIZED):
		return errors.New("the token has no user PIN yet: the security officer has to set one")
	case retry:
		return nil
	case t.has(pkcs11.CKF_USER_PIN_FINAL_TRY):
		return fmt.Errorf("%w: one try is left; %s", ErrPINAtRisk, retryExplicitly)
	case t.has(pkcs11.CKF_USER_PIN_COUNT_LOW):
		return fmt.Errorf("%w: %s", ErrPINAtRisk, retryExplicitly)
	}
	return nil
}
