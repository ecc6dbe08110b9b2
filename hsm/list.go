package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Module is what a PKCS#11 library tells of itself without anybody logging in.
type Module struct {
	Path         string `json:"path"`
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`  // of the library
	Cryptoki     string `json:"cryptoki"` // of PKCS#11
	Slots        []Slot `json:"slots"`
}

// Slot is a place for a token.
type Slot struct {
	ID           uint       `json:"id"` // of this moment: many modules number anew
	Description  string     `json:"description"`
	Manufacturer string     `json:"manufacturer"`
	Hardware     bool       `json:"hardware"`
	Removable    bool       `json:"removable"`
	Token        *TokenData `json:"token,omitempty"` // nil where no token is present, or where it does not answer
}

// TokenData is CK_TOKEN_INFO, and the mechanisms.
type TokenData struct {
	Label           string      `json:"label"`
	Serial          string      `json:"serial"`
	Manufacturer    string      `json:"manufacturer"`
	Model           string      `json:"model"`
	HardwareVersion string      `json:"hardware_version"`
	FirmwareVersion string      `json:"firmware_version"`
	Flags           []string    `json:"flags"`
	MinPIN          uint        `json:"min_pin"` // octets
	MaxPIN          uint        `json:"max_pin"`
	Sessions        string      `json:"sessions"` // open and permitted, as far as it tells
	Mechanisms      []Mechanism `json:"mechanisms,omitempty"`
}

// Mechanism is what a token tells of a mechanism. Sizes are in bits or octets, as the mechanism has it.
type Mechanism struct {
	Name    string   `json:"name"`
	MinSize uint     `json:"min_size"`
	MaxSize uint     `json:"max_size"`
	Flags   []string `json:"flags"`
}

type flag struct {
	bit  uint
	name string
}

func flagNames(bits uint, names []flag) []string {
	set := []string{}
	for _, f := range names {
		if bits&f.bit != 0 {
			set = append(set, f.name)
		}
	}
	return set
}

var tokenFlags = []flag{
	{pkcs11.CKF_TOKEN_INITIALIZED, "CKF_TOKEN_INITIALIZED"},
	{pkcs11.CKF_USER_PIN_INITIALIZED, "CKF_USER_PIN_INITIALIZED"},
	{pkcs11.CKF_LOGIN_REQUIRED, "CKF_LOGIN_REQUIRED"},
	{pkcs11.CKF_RNG, "CKF_RNG"},
	{pkcs11.CKF_WRITE_PROTECTED, "CKF_WRITE_PROTECTED"},
	{pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH, "CKF_PROTECTED_AUTHENTICATION_PATH"},
	{pkcs11.CKF_USER_PIN_COUNT_LOW, "CKF_USER_PIN_COUNT_LOW"},
	{pkcs11.CKF_USER_PIN_FINAL_TRY, "CKF_USER_PIN_FINAL_TRY"},
	{pkcs11.CKF_USER_PIN_LOCKED, "CKF_USER_PIN_LOCKED"},
	{pkcs11.CKF_USER_PIN_TO_BE_CHANGED, "CKF_USER_PIN_TO_BE_CHANGED"},
	{pkcs11.CKF_SO_PIN_COUNT_LOW, "CKF_SO_PIN_COUNT_LOW"},
	{pkcs11.CKF_SO_PIN_FINAL_TRY, "CKF_SO_PIN_FINAL_TRY"},
	{pkcs11.CKF_SO_PIN_LOCKED, "CKF_SO_PIN_LOCKED"},
	{pkcs11.CKF_SO_PIN_TO_BE_CHANGED, "CKF_SO_PIN_TO_BE_CHANGED"},
}

var mechanismFlags = []flag{
	{pkcs11.CKF_HW, "CKF_HW"},
	{pkcs11.CKF_ENCRYPT, "CKF_ENCRYPT"},
	{pkcs11.CKF_DECRYPT, "CKF_DECRYPT"},
	{pkcs11.CKF_DIGEST, "CKF_DIGEST"},
	{pkcs11.CKF_SIGN, "CKF_SIGN"},
	{pkcs11.CKF_VERIFY, "CKF_VERIFY"},
	{pkcs11.CKF_GENERATE, "CKF_GENERATE"},
	{pkcs11.CKF_GENERATE_KEY_PAIR, "CKF_GENERATE_KEY_PAIR"},
	{pkcs11.CKF_WRAP, "CKF_WRAP"},
	{pkcs11.CKF_UNWRAP, "CKF_UNWRAP"},
	{pkcs11.CKF_DERIVE, "CKF_DERIVE"},
}

// ListConfig says what List looks at.
type ListConfig struct {
	Module     string
	Mechanisms bool // read those of each token as well
	Actor      string
	Observer   Observer
}

// List tells what a module shows, logging in nowhere. A slot that does not answer is shown without its token.
func List(ctx context.Context, c ListConfig) (found Module, err error) {
	o := &Operation{Op: OpList, Actor: actorOf(ctx, c.Actor)}
	err = watch(ctx, c.Observer, o, nil, func() error {
		m, err := modules.load(c.Module)
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.initialised(func() error {
			found, err = m.describe(c.Mechanisms)
			return err
		})
	})
	if err != nil {
		return Module{}, fmt.Errorf("listing PKCS#11 module %s: %w", c.Module, err)
	}
	return found, nil
}

func (m *module) describe(withMechanisms bool) (Module, error) {
	info, err := m.ctx.GetInfo()
	if err != nil {
		return Module{}, fmt.Errorf("asking the module for its version: %w", classified(err))
	}
	described := Module{
		Path: m.path, Manufacturer: info.ManufacturerID, Description: info.LibraryDescription,
		Version: version(info.LibraryVersion), Cryptoki: version(info.CryptokiVersion), Slots: []Slot{},
	}
	slots, err := m.ctx.GetSlotList(false)
	if err != nil {
		return Module{}, fmt.Errorf("listing the slots: %w", classified(err))
	}
	for _, id := range slots {
		info, err := m.ctx.GetSlotInfo(id)
		if err != nil {
			continue
		}
		slot := Slot{
			ID: id, Description: info.SlotDescription, Manufacturer: info.ManufacturerID,
			Hardware: info.Flags&pkcs11.CKF_HW_SLOT != 0, Removable: info.Flags&pkcs11.CKF_REMOVABLE_DEVICE != 0,
		}
		if info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0 {
			if token, err := m.tokenData(id, withMechanisms); err == nil {
				slot.Token = &token
			}
		}
		described.Slots = append(described.Slots, slot)
	}
	return described, nil
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (m *module) tokenData(slot uint, withMechanisms bool) (TokenData, error) {
	t, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return TokenData{}, err
	}
	data := TokenData{
		Label: unpadded(t.Label), Serial: unpadded(t.SerialNumber), Manufacturer: unpadded(t.ManufacturerID), Model: unpadded(t.Model),
		HardwareVersion: version(t.HardwareVersion), FirmwareVersion: version(t.FirmwareVersion),
		Flags: flagNames(t.Flags, tokenFlags), MinPIN: t.MinPinLen, MaxPIN: t.MaxPinLen,
		Sessions: count(t.SessionCount) + " open, " + most(t.MaxSessionCount) + " permitted",
	}
	if withMechanisms {
		data.Mechanisms, err = m.mechanisms(slot)
	}
	return data, err
}

func count(n uint) string {
	if n == pkcs11.CK_UNAVAILABLE_INFORMATION {
		return "an unknown number"
	}
	return fmt.Sprint(n)
}

// most reads a limit, where 0 means that there is none (CK_EFFECTIVELY_INFINITE).
func most(n uint) string {
	if n == pkcs11.CK_EFFECTIVELY_INFINITE {
		return "any number"
	}
	return count(n)
}

func (m *module) mechanisms(slot uint) ([]Mechanism, error) {
	offered, err := m.ctx.GetMechanismList(slot)
	if err != nil {
		return nil, fmt.Errorf("listing the mechanisms: %w", classified(err))
	}
	all := []Mechanism{}
	for _, one := range offered {
		described := Mechanism{Name: mechanismName(one.Mechanism), Flags: []string{}}
		if info, err := m.ctx.GetMechanismInfo(slot, []*pkcs11.Mechanism{one}); err == nil {
			described.MinSize, described.MaxSize, described.Flags = info.MinKeySize, info.MaxKeySize, flagNames(info.Flags, mechanismFlags)
		}
		all = append(all, described)
	}
	return all, nil
}

// Mechanisms are those that the open token offers.
func (t *Token) Mechanisms(ctx context.Context) (all []Mechanism, err error) {
	err = t.using(ctx, &Operation{Op: OpMechanisms}, func() error {
		all, err = t.module.mechanisms(t.info.Slot)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("token %q: %w", t.info.Label, err)
	}
	return all, nil
}
