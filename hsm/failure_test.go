package hsm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

func TestClassified(t *testing.T) {
	for code, want := range map[uint]bool{
		pkcs11.CKR_SESSION_HANDLE_INVALID: true,
		pkcs11.CKR_DEVICE_ERROR:           true,
		pkcs11.CKR_DEVICE_REMOVED:         true,
		pkcs11.CKR_TOKEN_NOT_PRESENT:      true,
		pkcs11.CKR_USER_NOT_LOGGED_IN:     true,
		pkcs11.CKR_OBJECT_HANDLE_INVALID:  true,
		pkcs11.CKR_MECHANISM_INVALID:      false,
		pkcs11.CKR_DATA_LEN_RANGE:         false,
		pkcs11.CKR_PIN_INCORRECT:          false,
		pkcs11.CKR_TEMPLATE_INCONSISTENT:  false,
	} {
		err := classified(fmt.Errorf("signing: %w", pkcs11.Error(code)))
		if errors.Is(err, ErrUnavailable) != want || !strings.Contains(err.Error(), "CKR_") {
			t.Errorf("%v", err)
		}
		if twice := classified(err); twice.Error() != err.Error() {
			t.Errorf("classified twice: %v", twice)
		}
	}
	if err := classified(errors.New("context is closed")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if err := classified(nil); err != nil {
		t.Errorf("%v", err)
	}
}

func TestLoginError(t *testing.T) {
	for code, want := range map[uint]error{
		pkcs11.CKR_PIN_INCORRECT:          ErrWrongPIN,
		pkcs11.CKR_PIN_LEN_RANGE:          ErrWrongPIN,
		pkcs11.CKR_PIN_LOCKED:             ErrPINLocked,
		pkcs11.CKR_USER_ALREADY_LOGGED_IN: ErrInUse,
		pkcs11.CKR_DEVICE_ERROR:           ErrUnavailable,
	} {
		if err := loginError(pkcs11.Error(code)); !errors.Is(err, want) || !strings.Contains(err.Error(), "CKR_") {
			t.Errorf("%v is not %v", err, want)
		}
	}
}
