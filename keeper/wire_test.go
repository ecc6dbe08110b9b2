package keeper

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
)

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 3*keptBuffer+7)
	stream := appendFrame(nil, frameSign, 7, []byte("a"), []byte("b"))
	stream = appendFrame(stream, frameAnswer, 1<<63, big)
	stream = appendFrame(stream, frameKeys, 0)
	r := newFrameReader(bytes.NewReader(stream), maxFrame)
	for _, want := range []frame{{frameSign, 7, []byte("ab")}, {frameAnswer, 1 << 63, big}, {frameKeys, 0, nil}} {
		got, err := r.next()
		if err != nil || got.kind != want.kind || got.request != want.request || !bytes.Equal(got.body, want.body) {
			t.Fatalf("%d %d (%d octets), %v", got.kind, got.request, len(got.body), err)
		}
		if cap(r.kept) > keptBuffer || cap(got.body) > max(len(got.body), keptBuffer) {
			t.Errorf("of a frame of %d octets %d are kept, and it has %d", len(got.body), cap(r.kept), cap(got.body))
		}
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	one := appendFrame(nil, frameDigest, 7, []byte("ab"))
	if f, err := parseFrame(one); err != nil || f.kind != frameDigest || f.request != 7 || string(f.body) != "ab" {
		t.Errorf("a message that is one frame: %+v, %v", f, err)
	}
	for _, wrong := range [][]byte{nil, one[:3], one[:len(one)-1], append(bytes.Clone(one), 0), one[:4+frameHead]} {
		if _, err := parseFrame(wrong); !errors.Is(err, ErrProtocol) {
			t.Errorf("%d of its octets: %v", len(wrong), err)
		}
	}
	for what, text := range map[string]string{"too long": "\xff\xff\xff\xff", "too short": "\x00\x00\x00\x01", "cut off": "\x00\x00\x00\x20"} {
		padded := text + strings.Repeat("\x00", 16)
		if _, err := newFrameReader(strings.NewReader(padded), 1000).next(); err == nil || errors.Is(err, io.EOF) && what != "cut off" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestFramesInParts: what begins a worker comes in as many messages as it needs, and is refused when they do not make a frame.
func TestFramesInParts(t *testing.T) {
	for _, size := range []int{0, 1, maxPart - 4 - frameHead, maxPart - 3 - frameHead, 2 * maxPart, 3*maxPart + 7} {
		whole := appendFrame(nil, frameStart, 0, bytes.Repeat([]byte("x"), size))
		var messages [][]byte
		if err := inParts(whole, func(part []byte) error { messages = append(messages, part); return nil }); err != nil {
			t.Fatal(err)
		}
		next := func(into []byte) (int, error) {
			if len(messages) == 0 {
				return 0, nil
			}
			n := copy(into, messages[0])
			messages = messages[1:]
			return n, nil
		}
		first := messages[0]
		messages = messages[1:]
		for _, part := range append([][]byte{first}, messages...) {
			if len(part) > maxPart {
				t.Errorf("of a frame of %d octets a message has %d", len(whole), len(part))
			}
		}
		rest := len(messages)
		if got, err := gather(first, next); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("a frame of %d octets in %d messages: %d octets, %v", len(whole), 1+rest, len(got), err)
		}
		if rest > 0 {
			if _, err := gather(first, next); !errors.Is(err, io.ErrUnexpectedEOF) { // the others have been read
				t.Errorf("a frame of which the end is missing: %v", err)
			}
		}
	}
	for _, wrong := range []string{"", "\x00\x00\x01", "\x00\x00\x00\x01xx", "\xff\xff\xff\xff"} {
		if _, err := gather([]byte(wrong), func([]byte) (int, error) { return 0, nil }); !errors.Is(err, ErrProtocol) {
			t.Errorf("a frame that begins with %x: %v", wrong, err)
		}
	}
}

// TestStartCrosses: what begins a worker is read as it was written, and the PIN stands in it once, which is wiped.
func TestStartCrosses(t *testing.T) {
	secret := []byte("a PIN that is said to nobody else")
	want := startRequest{Module: "m", Sessions: 3, Keys: []tokenKey{{Name: "k"}}}
	whole, err := startFrame(secret, want)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFrame(whole)
	if err != nil {
		t.Fatal(err)
	}
	pin, got, err := parseStart(f.body)
	if err != nil || !bytes.Equal(pin, secret) || got.Module != want.Module || got.Sessions != 3 || len(got.Keys) != 1 {
		t.Errorf("%q, %+v, %v", pin, got, err)
	}
	coded := base64.StdEncoding.AppendEncode(nil, secret)
	if bytes.Count(whole, secret) != 1 || bytes.Contains(whole, coded) || cap(whole) != len(whole) {
		t.Error("the PIN stands in it in another way, or has been left elsewhere")
	}
	for _, wrong := range [][]byte{nil, {0}, {0, 9, '1'}, {0, 1, '1'}, {0, 1, '1', '{'}} {
		if _, _, err := parseStart(wrong); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestErrorsCross(t *testing.T) {
	for _, err := range []error{
		ErrRefused, ErrUnknownKey, hsm.ErrWrongPIN, hsm.ErrPINLocked, hsm.ErrPINAtRisk, hsm.ErrUnavailable,
		ErrProtocol,
	} {
		crossed := parseError(appendError(nil, fmt.Errorf("%w: because", err)))
		if !errors.Is(crossed, err) || strings.Count(crossed.Error(), "because") != 1 || strings.Count(crossed.Error(), err.Error()) != 1 {
			t.Errorf("%v became %v", err, crossed)
		}
		if hsm.NeedsPerson(err) && !errors.Is(crossed, hsm.ErrUnavailable) {
			t.Errorf("%v does not say that the token is away", crossed)
		}
	}
	crossed := parseError(appendError(nil, fmt.Errorf("%w: key: %w", ErrRefused, &UnprovenError{last: 1 << 40})))
	if !errors.Is(crossed, ErrRefused) || !isUnproven(crossed, 1<<40) {
		t.Errorf("the size of the last checkpoint became %v", crossed)
	}
	for _, size := range [][]byte{nil, make([]byte, 7), {0x80, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 9)} {
		if err := parseError(append([]byte{codeUnproven}, size...)); !errors.Is(err, ErrProtocol) {
			t.Errorf("the size %x is read as %v", size, err)
		}
	}
	var passed *PassedNumberError
	crossed = parseError(appendError(nil, fmt.Errorf("%w: key: %w", ErrRefused, &PassedNumberError{last: power(159, -1)})))
	if !errors.Is(crossed, ErrRefused) || !errors.As(crossed, &passed) || passed.LastNumber().Cmp(power(159, -1)) != 0 {
		t.Errorf("the last CRL number became %v", crossed)
	}
	for _, number := range []string{"", "0", "-1", "+1", "01", "1 ", power(159, 0).String()} {
		if err := parseError(append([]byte{codePassed}, number...)); !errors.Is(err, ErrProtocol) {
			t.Errorf("the number %q is read as %v", number, err)
		}
	}
	if long := appendError(nil, errors.New(strings.Repeat("x", 5000))); len(long) > maxWords+1 {
		t.Errorf("%d octets of words", len(long))
	}
}

func TestKeysCross(t *testing.T) {
	keys := []heldKey{{"a", []byte{1, 2}, []string{"s1", "s2"}}, {"b", []byte{3}, nil}}
	got, err := parseKeys(appendKeys(nil, keys))
	if err != nil || !slices.EqualFunc(got, keys, func(a, b heldKey) bool {
		return a.name == b.name && bytes.Equal(a.spki, b.spki) && slices.Equal(a.tokens, b.tokens)
	}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzWire: whatever comes over a socket, nothing panics, and no more memory is taken than octets have come.
func FuzzWire(f *testing.F) {
	f.Add(appendFrame(nil, frameHello, 0, []byte(hello)))
	f.Add(appendFrame(nil, frameSign, 1, make([]byte, 32), []byte{1}, []byte("message")))
	f.Add(appendFrame(nil, frameDigest, 1, []byte{0, 0, 1}, make([]byte, 32)))
	f.Add(appendFrame(nil, frameCheckpoint, 1, make([]byte, 40), []byte{2}, make([]byte, 2*32+32), []byte{1}, []byte("a\n1\nb\n")))
	f.Add(appendFrame(nil, frameError, 3, appendError(nil, &UnprovenError{last: 7})))
	f.Add(appendFrame(nil, frameError, 3, appendError(nil, &PassedNumberError{last: power(159, -1)})))
	f.Add(appendFrame(nil, frameAnswer, 2, appendKeys(nil, []heldKey{{"a", []byte{1}, []string{"s"}}})))
	f.Add(appendFrame(nil, frameError, 3, appendError(nil, ErrRefused)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if one, err := parseFrame(stream); err == nil && !bytes.Equal(appendFrame(nil, one.kind, one.request, one.body), stream) {
			t.Error("a message is read as another")
		}
		r := newFrameReader(bytes.NewReader(stream), maxFrame)
		for {
			frame, err := r.next()
			if err != nil {
				return
			}
			if cap(frame.body) > 2*len(stream)+2*keptBuffer {
				t.Errorf("%d octets of memory for %d that came", cap(frame.body), len(stream))
			}
			if s, err := parseSign(frame.body); err == nil &&
				(s.hash != 0 && s.hash != crypto.SHA256 && s.hash != crypto.SHA384 && s.hash != crypto.SHA512) {
				t.Errorf("the hash %v", s.hash)
			}
			if c, err := parseCheckpoint(frame.body); err == nil {
				again, err := appendConsistency(nil, shown{*c.extends, c.hash})
				again = append(append(append(again, c.key[:]...), wireHashes[c.hash]), c.message...)
				if err != nil || !bytes.Equal(again, frame.body) || len(c.extends.proof) > maxProof || len(c.message) > maxCheckpoint {
					t.Errorf("a checkpoint is read as another: %v", err)
				}
			}
			if d, err := parseDigest(frame.body); err == nil && d.hash != 0 && len(d.digest) != d.hash.Size() {
				t.Errorf("a digest of %d octets", len(d.digest))
			}
			if keys, err := parseKeys(frame.body); err == nil && !bytes.Equal(appendKeys(nil, keys), frame.body) {
				t.Error("a list of keys is read as another")
			}
			if parseError(frame.body) == nil {
				t.Error("an error became none")
			}
		}
	})
}
