package hsm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// Op is a kind of operation on a token.
type Op string

// The operations. Of those on keys, a UsagePolicy is asked beforehand; see Op.needsPermit.
const (
	OpOpen       Op = "open"   // a log-in as the user, or the attempt
	OpClose      Op = "close"  // the log-out
	OpInit       Op = "init"   // C_InitToken and C_InitPIN
	OpPIN        Op = "pin"    // C_SetPIN, or C_InitPIN by the security officer
	OpList       Op = "list"   // objects were looked for and their attributes read
	OpFind       Op = "find"   // one key was looked for, to sign with it
	OpRandom     Op = "random" // C_GenerateRandom
	OpDigest     Op = "digest"
	OpGenerate   Op = "generate"
	OpPreserve   Op = "preserve" // a key that was made was made anew, and is indestructible now
	OpDestroy    Op = "destroy"
	OpLabel      Op = "label" // CKA_LABEL was changed
	OpSign       Op = "sign"
	OpVerify     Op = "verify"
	OpMAC        Op = "mac"
	OpEncrypt    Op = "encrypt"
	OpDecrypt    Op = "decrypt"
	OpWrap       Op = "wrap"   // the key wrapped another one
	OpExport     Op = "export" // asked of the usage policy alone: the key is to leave the token, wrapped by another one
	OpUnwrap     Op = "unwrap"
	OpImport     Op = "import" // a certificate was stored
	OpRemove     Op = "remove" // a certificate was removed; its key stays
	OpAttest     Op = "attest"
	OpMechanisms Op = "mechanisms" // the mechanisms of the token were read
)

// needsPermit tells whether the operation uses a key's own power, so that a UsagePolicy has a say.
func (o Op) needsPermit() bool {
	switch o {
	case OpSign, OpVerify, OpMAC, OpEncrypt, OpDecrypt, OpWrap, OpExport, OpUnwrap, OpAttest, OpDestroy, OpLabel:
		return true
	}
	return false
}

// Operation is one operation on a token as its observer is told of it: who caused it, on what, by which mechanism, how it ended. It holds
// no data, but for a digest.
type Operation struct {
	Op         Op
	Actor      string // who caused it: of WithActor, else Config.Actor, else empty
	Token      string // serial
	TokenLabel string
	Session    uint   // the session's handle; 0 where crypto11 chose the session
	Key        KeyRef // as found, else as asked for; empty where no key takes part
	Target     KeyRef // the key that was wrapped, or that unwrapping made, or the one that was renamed under its new label
	Mechanism  string // by its PKCS#11 name, of a PIN the function that set it; empty where there is none
	User       string // whose PIN was set: CKU_USER or CKU_SO; empty where none was
	// Input is the digest of what went in, made with InputHash: SHA-256 of the message, or, where the caller gave a digest only, that
	// digest. Of what was encrypted it is SHA-256 of the ciphertext that came out, as it is of what was decrypted: no record tells a plaintext,
	// not even to who guesses it. Of a key that was wrapped for a recipient it is SHA-256 of the recipient's SubjectPublicKeyInfo. Empty where
	// nothing went in.
	Input     []byte
	InputHash crypto.Hash
	Began     time.Time
	Duration  time.Duration
	Err       error // nil if it succeeded

	// permittedAs is what a UsagePolicy is asked for where the operation is a part of another one.
	permittedAs Op
}

// Result says how the operation ended in one word: "ok", the token's answer such as CKR_PIN_INCORRECT, "refused" by the usage policy, or
// "failed".
func (o Operation) Result() string {
	if o.Err == nil {
		return "ok"
	}
	var code pkcs11.Error
	switch {
	case errors.Is(o.Err, ErrNotPermitted):
		return "refused"
	case errors.As(o.Err, &code):
		return codeName(code)
	}
	return "failed"
}

// codeName is the name of a PKCS#11 answer, or its number where the vendor made it.
func codeName(code pkcs11.Error) string {
	if name, ok := newCodes[code]; ok {
		return name
	}
	if _, name, ok := strings.Cut(code.Error(), ": CKR_"); ok {
		return "CKR_" + name
	}
	return fmt.Sprintf("0x%X", uint(code))
}

// PKCS#11 2.40 has answers that the binding does not know by name.
const (
	ckrActionProhibited  pkcs11.Error = 0x1b
	ckrCurveNotSupported pkcs11.Error = 0x140
)

var newCodes = map[pkcs11.Error]string{ckrActionProhibited: "CKR_ACTION_PROHIBITED", ckrCurveNotSupported: "CKR_CURVE_NOT_SUPPORTED"}

// Observer is told of every operation on a token once it has ended, in the goroutine that carried it out and before its result is handed
// out. When Observe fails, the result is withheld: nothing comes out of a token unrecorded. It must be quick and safe for concurrent use.
type Observer interface {
	Observe(ctx context.Context, o Operation) error
}

// UsagePolicy decides whether a key may be used, before it is. Permit returns an error wrapping ErrNotPermitted where it may not. The
// operation's Key is the key as found, with label and CKA_ID. It must be safe for concurrent use.
type UsagePolicy interface {
	Permit(ctx context.Context, o Operation) error
	// Allows answers as Permit does, but for the number of uses, of which it counts none.
	Allows(ctx context.Context, o Operation) error
}

// ErrNotPermitted is what a UsagePolicy's refusals wrap.
var ErrNotPermitted = errors.New("the usage policy does not permit it")

type actorKey struct{}

// WithActor names who causes the operations that are carried out with the context.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

func actorOf(ctx context.Context, fallback string) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok {
		return actor
	}
	return fallback
}

// watch carries out work and tells the observer. It is the one place where operations are observed: whatever reaches a library does so in
// the work of a watch.
func watch(ctx context.Context, observer Observer, o *Operation, now func() time.Time, work func() error) error {
	if observer == nil {
		return work()
	}
	if now == nil {
		now = time.Now
	}
	o.Began = now()
	o.Err = work()
	o.Duration = now().Sub(o.Began)
	// What was done is done: that the caller has given up meanwhile does not keep it from being recorded.
	if err := observer.Observe(context.WithoutCancel(ctx), *o); err != nil {
		if o.Err == nil { // a PIN that was changed is changed
			return fmt.Errorf("recording that the operation %s was carried out: %w", o.Op, err)
		}
		return errors.Join(o.Err, fmt.Errorf("recording the operation %s: %w", o.Op, err))
	}
	return o.Err
}

// using carries out an operation while the token is sure to stay open. Every call into the library for an open token is made here.
func (t *Token) using(ctx context.Context, o *Operation, work func() error) error {
	t.use.RLock()
	defer t.use.RUnlock()
	o.Token, o.TokenLabel, o.Actor = t.info.Serial, t.info.Label, actorOf(ctx, t.actor)
	return watch(ctx, t.observer, o, t.now, func() error {
		if t.closed {
			return fmt.Errorf("%w: it has been closed", ErrUnavailable)
		}
		return classified(work())
	})
}

// permit asks the usage policy, once the key and the mechanism are known.
func (t *Token) permit(ctx context.Context, o *Operation) error {
	return t.askUsage(ctx, o, UsagePolicy.Permit)
}

// allowed asks it beforehand, where more than one key takes part: no use is counted.
func (t *Token) allowed(ctx context.Context, o *Operation) error {
	return t.askUsage(ctx, o, UsagePolicy.Allows)
}

func (t *Token) askUsage(ctx context.Context, o *Operation, question func(UsagePolicy, context.Context, Operation) error) error {
	if t.usage == nil || !o.Op.needsPermit() {
		return nil
	}
	asked := *o
	if o.permittedAs != "" {
		asked.Op = o.permittedAs
	}
	asked.Began = t.clock()
	return question(t.usage, ctx, asked)
}

// MaySign asks the usage policy beforehand whether a key, which may have to be made first, is permitted to sign as a Signer does. It counts no
// use, and does not say whether there are any left.
func (t *Token) MaySign(ctx context.Context, key KeyRef, algorithm Algorithm) error {
	if t.usage == nil {
		return nil
	}
	return t.usage.Allows(ctx, Operation{
		Op: OpSign, Actor: actorOf(ctx, t.actor), Token: t.info.Serial, TokenLabel: t.info.Label, Key: key,
		Mechanism: signsWith(algorithms[algorithm].bits > 0), Began: t.clock(),
	})
}

func (t *Token) clock() time.Time {
	if t.now != nil {
		return t.now()
	}
	return time.Now()
}

// locked runs work with the housekeeping session, one caller at a time. What searches, makes or destroys objects belongs here. The caller
// is in the work of using.
func (t *Token) locked(o *Operation, work func(session) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.Session = uint(t.session)
	return work(session{t, t.module.ctx, t.session})
}

// inSession carries out an operation in the housekeeping session.
func (t *Token) inSession(ctx context.Context, o *Operation, work func(session) error) error {
	return t.using(ctx, o, func() error { return t.locked(o, work) })
}

// making is inSession for work that leaves a key in the token: where that it was made cannot be recorded, the key does not stay. One that
// is to be indestructible is made twice. The first can still be destroyed: only when all of it has proven right, and is recorded, the same
// work makes the key that cannot, in its place. (A token that takes CKA_DESTROYABLE takes it when a key is made; SoftHSM changes it by a
// copy alone, and a key that can be copied stays one that can.)
func (t *Token) making(ctx context.Context, o *Operation, spec KeySpec, work func(session, KeySpec) error) error {
	key, first, stays := KeyRef{Label: spec.Label, ID: spec.ID}, spec, false
	first.Indestructible = false
	err := t.inSession(ctx, o, func(s session) error {
		err := work(s, first)
		stays = err == nil
		return err
	})
	if err == nil && spec.Indestructible {
		forever := false
		err = t.inSession(ctx, &Operation{Op: OpPreserve, Key: key, Mechanism: o.Mechanism}, func(s session) error {
			if err := s.destroy(key); err != nil {
				return err
			}
			stays = false
			err := work(s, spec)
			forever = err == nil
			return err
		})
		if err != nil && forever {
			err = fmt.Errorf("the key with %s is in the token for ever, as was asked for, but: %w", key, err)
		}
	}
	if err == nil || !stays {
		return err
	}
	undone := t.inSession(ctx, &Operation{Op: OpDestroy, Key: key}, func(s session) error { return s.destroy(key) })
	return errors.Join(err, undone)
}

// digestOf notes what goes into an operation, or the ciphertext that comes out.
func (o *Operation) digestOf(input []byte) {
	sum := sha256.Sum256(input)
	o.Input, o.InputHash = sum[:], crypto.SHA256
}
