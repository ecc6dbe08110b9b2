package hsm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// away are the answers that mean that the token, the way to it or the log-in is gone, and that opening it anew may help.
var away = map[pkcs11.Error]bool{
	pkcs11.CKR_HOST_MEMORY:              true,
	pkcs11.CKR_SLOT_ID_INVALID:          true,
	pkcs11.CKR_GENERAL_ERROR:            true,
	pkcs11.CKR_FUNCTION_FAILED:          true,
	pkcs11.CKR_DEVICE_ERROR:             true,
	pkcs11.CKR_DEVICE_MEMORY:            true,
	pkcs11.CKR_DEVICE_REMOVED:           true,
	pkcs11.CKR_KEY_HANDLE_INVALID:       true,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:    true,
	pkcs11.CKR_SESSION_CLOSED:           true,
	pkcs11.CKR_SESSION_COUNT:            true,
	pkcs11.CKR_SESSION_HANDLE_INVALID:   true,
	pkcs11.CKR_TOKEN_NOT_PRESENT:        true,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:     true,
	pkcs11.CKR_USER_NOT_LOGGED_IN:       true,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: true,
}

// crypto11 has no error values for these that could be compared.
var awayTexts = map[string]bool{
	"context is closed":          true,
	"cannot used closed Context": true,
}

// classified adds ErrUnavailable to a failure that is the token's, and leaves every other as it is.
func classified(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	var code pkcs11.Error
	if errors.As(err, &code) && away[code] || awayTexts[err.Error()] {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// is tells whether err is one of the given PKCS#11 answers.
func is(err error, codes ...pkcs11.Error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(codes, code)
}

// loginError says what a failed log-in means.
func loginError(err error) error {
	switch {
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		return fmt.Errorf("%w (tried once, not again): %w", ErrWrongPIN, err)
	case is(err, pkcs11.CKR_PIN_LOCKED):
		return fmt.Errorf("%w: %w", ErrPINLocked, err)
	case is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN):
		// Whoever logged in, this PIN was not checked.
		return fmt.Errorf("%w: %w", ErrInUse, err)
	case is(err, pkcs11.CKR_PIN_EXPIRED):
		return fmt.Errorf("the PIN has expired; set a new one with the vendor's tool: %w", err)
	case is(err, pkcs11.CKR_USER_TYPE_INVALID):
		return fmt.Errorf("%w: it knows no such user; what its security officer would do is for the vendor's own tools: %w", ErrNotSupported, err)
	}
	return classified(err)
}
