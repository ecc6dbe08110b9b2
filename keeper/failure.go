package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/chancery-ca/chancery/hsm"
)

// codes are what errors are on the wire: those that somebody on the other side decides on. The order is that of what is looked for first.
var codes = []struct {
	code byte
	err  error
}{
	{1, ErrRefused},
	{2, ErrUnknownKey},
	{3, hsm.ErrWrongPIN},
	{4, hsm.ErrPINLocked},
	{5, hsm.ErrPINAtRisk},
	{6, hsm.ErrUnavailable},
	{7, ErrProtocol},
}

const (
	codeOther    = 0
	codeUnproven = 8 // instead of words, the size of the last checkpoint in 8 octets, big-endian
	codePassed   = 9 // instead of words, the last CRL number in decimal
)

// appendError writes the body of frameError.
func appendError(b []byte, err error) []byte {
	if unproven := (*UnprovenError)(nil); errors.As(err, &unproven) {
		return binary.BigEndian.AppendUint64(append(b, codeUnproven), uint64(unproven.last))
	}
	if passed := (*PassedNumberError)(nil); errors.As(err, &passed) {
		return passed.last.Append(append(b, codePassed), 10)
	}
	code, marked := byte(codeOther), error(nil)
	for _, c := range codes {
		if errors.Is(err, c.err) {
			code, marked = c.code, c.err
			break
		}
	}
	words := err.Error()
	if marked != nil {
		words = strings.TrimPrefix(words, marked.Error()+": ")
	}
	if len(words) > maxWords {
		words = words[:maxWords]
	}
	return append(append(b, code), strings.ToValidUTF8(words, "?")...)
}

// parseError reads the body of frameError. It never returns nil.
func parseError(body []byte) error {
	if len(body) == 0 {
		return fmt.Errorf("%w: an error without a code", ErrProtocol)
	}
	if body[0] == codeUnproven {
		if len(body) != 9 || body[1]&0x80 != 0 {
			return fmt.Errorf("%w: the size of the last checkpoint cannot be read", ErrProtocol)
		}
		return fmt.Errorf("%w: %w", ErrRefused, &UnprovenError{last: int64(binary.BigEndian.Uint64(body[1:]))})
	}
	if body[0] == codePassed {
		last, err := ParseCRLNumber(string(body[1:]))
		if err != nil {
			return fmt.Errorf("%w: the last CRL number: %w", ErrProtocol, err)
		}
		return fmt.Errorf("%w: %w", ErrRefused, &PassedNumberError{last: last})
	}
	words := strings.ToValidUTF8(string(body[1:]), "?")
	for _, c := range codes {
		switch {
		case c.code != body[0]:
		case hsm.NeedsPerson(c.err): // the token is away as well, for whoever only asks that
			return fmt.Errorf("%w: %w: %s", hsm.ErrUnavailable, c.err, words)
		default:
			return fmt.Errorf("%w: %s", c.err, words)
		}
	}
	return errors.New(words)
}
