package hsm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"pgregory.net/rapid"
)

func TestLoginAllowed(t *testing.T) {
	const ready = pkcs11.CKF_TOKEN_INITIALIZED | pkcs11.CKF_USER_PIN_INITIALIZED
	anything := errors.New("any error")
	tests := []struct {
		name        string
		flags       uint
		first, next error // without and with leave to retry
	}{
		{"ready", ready, nil, nil},
		{"the last log-in failed", ready | pkcs11.CKF_USER_PIN_COUNT_LOW, ErrPINAtRisk, nil},
		{"one try left", ready | pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, ErrPINAtRisk, nil},
		{"one try left, alone", ready | pkcs11.CKF_USER_PIN_FINAL_TRY, ErrPINAtRisk, nil},
		{"locked", ready | pkcs11.CKF_USER_PIN_LOCKED, ErrPINLocked, ErrPINLocked},
		{"locked, with all flags", ready | pkcs11.CKF_USER_PIN_LOCKED | pkcs11.CKF_USER_PIN_FINAL_TRY, ErrPINLocked, ErrPINLocked},
		{"no PIN set", pkcs11.CKF_TOKEN_INITIALIZED, anything, anything},
		{"the officer's PIN at risk", ready | pkcs11.CKF_SO_PIN_COUNT_LOW | pkcs11.CKF_SO_PIN_LOCKED, nil, nil},
	}
	for _, tt := range tests {
		token := present{TokenInfo: pkcs11.TokenInfo{Flags: tt.flags}}
		for retry, want := range map[bool]error{false: tt.first, true: tt.next} {
			err := loginAllowed(token, retry)
			if want == anything && err != nil {
				continue
			}
			if !errors.Is(err, want) {
				t.Errorf("%s, retry %t: %v", tt.name, retry, err)
			}
		}
	}
}

func TestSelectedNamesSerials(t *testing.T) {
	token := func(label, serial string, slot uint) present {
		return present{slot: slot, TokenInfo: pkcs11.TokenInfo{Label: label, SerialNumber: serial, Flags: pkcs11.CKF_TOKEN_INITIALIZED}}
	}
	tokens := []present{token("root", "01", 1), token("root", "02", 2), token("issuing", "03", 3), {slot: 4}}
	_, err := selected(tokens, Selector{Label: "root"})
	if !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "01") || !strings.Contains(err.Error(), "02") ||
		strings.Contains(err.Error(), "03") {
		t.Errorf("error is %v", err)
	}
	_, err = selected(tokens, Selector{Label: "nobody"})
	if !errors.Is(err, ErrNoToken) || !strings.Contains(err.Error(), "03") {
		t.Errorf("error is %v", err)
	}
	blank := uint(4)
	if _, err := selected(tokens, Selector{Slot: &blank}); !errors.Is(err, ErrNoToken) {
		t.Errorf("a token that is not initialised was selected: %v", err)
	}
	if _, err := selected(nil, Selector{Label: "root"}); !errors.Is(err, ErrNoToken) {
		t.Errorf("error is %v", err)
	}
}

// Whatever tokens there are: what is selected matches, is initialised, and is the only one.
func TestSelectedIsTheOnlyMatch(t *testing.T) {
	names := rapid.SampledFrom([]string{"", "a", "b", "ab"})
	rapid.Check(t, func(t *rapid.T) {
		var tokens []present
		for slot := range rapid.UintRange(0, 5).Draw(t, "tokens") {
			tokens = append(tokens, present{slot: slot, TokenInfo: pkcs11.TokenInfo{
				Label: names.Draw(t, "label"), SerialNumber: names.Draw(t, "serial"),
				Flags: rapid.SampledFrom([]uint{0, pkcs11.CKF_TOKEN_INITIALIZED}).Draw(t, "flags"),
			}})
		}
		s := Selector{Label: names.Draw(t, "want label"), Serial: names.Draw(t, "want serial")}
		if slot := rapid.UintRange(0, 6).Draw(t, "want slot"); slot < 6 {
			s.Slot = &slot
		}
		matches := slices.DeleteFunc(slices.Clone(tokens), func(p present) bool {
			return p.Flags == 0 || s.Label != "" && p.Label != s.Label || s.Serial != "" && p.SerialNumber != s.Serial ||
				s.Slot != nil && p.slot != *s.Slot
		})
		got, err := selected(tokens, s)
		if s == (Selector{}) {
			if err == nil {
				t.Fatal("selected without being asked")
			}
			return
		}
		if (err == nil) != (len(matches) == 1) || err == nil && got.slot != matches[0].slot {
			t.Fatalf("%s: got %v, %v; matching are %v", s, got, err, matches)
		}
	})
}

func TestUniqueSerial(t *testing.T) {
	token := func(serial string) present { return present{TokenInfo: pkcs11.TokenInfo{SerialNumber: serial}} }
	tokens := []present{token("1"), token("2"), token("2"), token("")}
	for i, want := range []bool{true, false, false, false} {
		if got := tokens[i].unique(tokens); got != want {
			t.Errorf("serial %q: %t", tokens[i].SerialNumber, got)
		}
	}
}

// Some vendors' texts are no UTF-8. They are told with what can be read of them.
func TestTextsOfATokenAreReadable(t *testing.T) {
	for text, want := range map[string]string{
		"plain   ": "plain", "nul\x00\x00": "nul", "Schl\xfcssel  ": "Schl\ufffdssel", "\xff\xff\xff\xff": "\ufffd", "Schlüssel ": "Schlüssel",
	} {
		if got := unpadded(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestSessionsFor(t *testing.T) {
	for _, tt := range []struct {
		asked        int
		limit        uint
		signing, own int // 0: refused
	}{
		{0, pkcs11.CK_EFFECTIVELY_INFINITE, 8, 8},
		{3, pkcs11.CK_UNAVAILABLE_INFORMATION, 3, 3},
		{8, 18, 8, 8},
		{8, 17, 8, 7},
		{8, 12, 8, 2},
		{8, 10, 7, 1},
		{8, 5, 2, 1},
		{1, 4, 1, 1},
		{2, 100, 2, 2},
		{8, 3, 0, 0},
		{8, 1, 0, 0},
		{-1, 100, 0, 0},
	} {
		signing, own, err := sessionsFor(tt.asked, tt.limit)
		if signing != tt.signing || own != tt.own || (err == nil) != (tt.signing > 0) {
			t.Errorf("%d of %d: %d and %d, %v", tt.asked, tt.limit, signing, own, err)
		}
		told := tt.limit != pkcs11.CK_EFFECTIVELY_INFINITE && tt.limit != pkcs11.CK_UNAVAILABLE_INFORMATION
		if err == nil && told && uint(signing+own+housekeeping) > tt.limit {
			t.Errorf("%d of %d: %d and %d, which are too many", tt.asked, tt.limit, signing, own)
		}
	}
}
