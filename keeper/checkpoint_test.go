package keeper

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/hsm"
)

const testOrigin = "ca.example/log"

// history is a log in memory, whose proofs are made by other code than the guard verifies them with.
type history struct {
	size   int64
	hashes []tlog.Hash
}

func (h *history) ReadHashes(indexes []int64) (found []tlog.Hash, err error) {
	for _, i := range indexes {
		found = append(found, h.hashes[i])
	}
	return found, nil
}

// grow adds entries up to a size. What they say differs with the name.
func (h *history) grow(size int64, name string) *history {
	for ; h.size < size; h.size++ {
		more, _ := tlog.StoredHashes(h.size, fmt.Appendf(nil, "%s %d", name, h.size), h) // h never fails
		h.hashes = append(h.hashes, more...)
	}
	return h
}

// fork is a history with the same beginning.
func (h *history) fork(size int64) *history {
	return &history{size, slices.Clone(h.hashes[:tlog.StoredHashCount(size)])}
}

func (h *history) root(size int64) []byte {
	root, _ := tlog.TreeHash(size, h)
	return root[:]
}

func (h *history) text(size int64) []byte {
	return checkpointText(testOrigin, uint64(size), h.root(size))
}

// shown is options of SignMessage.
type shown struct {
	consistency
	crypto.Hash
}

func (s shown) Earlier() (int64, []byte, [][]byte) { return int64(s.size), s.root, s.proof }

// from shows that the tree of one size has that of another as its beginning.
func (h *history) from(earlier, size int64) (c consistency) {
	c.size, c.root = uint64(earlier), h.root(earlier)
	proof, _ := tlog.ProveTree(size, earlier, h)
	for _, hash := range proof {
		c.proof = append(c.proof, hash[:])
	}
	return c
}

func (g *guard) extend(text []byte, by consistency) error {
	request := signRequest{hash: crypto.SHA256, message: text, extends: &by}
	_, err := g.admit(request, sha256.Sum256(text), time.Now())
	return err
}

// refusedBecause tells whether it was refused, not for want of a proof, and in these words.
func refusedBecause(err error, words string) bool {
	return err != nil && !isUnproven(err, -1) && strings.Contains(err.Error(), words)
}

// isUnproven tells whether a proof from a size, or from any (-1), is asked for.
func isUnproven(err error, last int64) bool {
	var unproven *UnprovenError
	return errors.As(err, &unproven) && (last < 0 || unproven.LastSize() == last)
}

// A log's key signs trees that extend the last one that it signed, whatever their sizes, and no other, however it is asked.
func TestAKeySignsOneHistory(t *testing.T) {
	const most = 300
	log := new(history).grow(most, "log")
	rapid.Check(t, func(t *rapid.T) {
		g := logKey(t)
		last := rapid.Int64Range(1, most-1).Draw(t, "last")
		next := rapid.Int64Range(last+1, most).Draw(t, "next")
		if _, err := g.ask(log.text(last)); err != nil { // the first that a key signs is taken
			t.Fatal(err)
		}
		good := log.from(last, next)
		if _, err := g.ask(log.text(next)); !isUnproven(err, last) {
			t.Fatalf("without a proof: %v", err)
		}
		for _, earlier := range []int64{last - 1, last + 1} {
			if earlier > 0 {
				if err := g.extend(log.text(next), log.from(earlier, next)); !isUnproven(err, last) {
					t.Fatalf("from another size: %v", err)
				}
			}
		}
		// Another history from some entry on: before the end of the last tree, or after. What does not come later is no other history.
		other := log.fork(rapid.Int64Range(0, last-1).Draw(t, "same")).grow(most, "other")
		for what, from := range map[string]consistency{"its own": other.from(last, next), "the signed one's": good} {
			if err := g.extend(other.text(next), from); err == nil || isUnproven(err, -1) {
				t.Fatalf("a fork, with a proof from %s root: %v", what, err)
			}
		}
		lying := other.from(last, next)
		if lying.root = good.root; g.extend(other.text(next), lying) == nil {
			t.Fatal("a fork, with its own proof from the root that was signed")
		}
		if err := g.extend(other.text(last), other.from(last, last)); !refusedBecause(err, "another checkpoint of") {
			t.Fatalf("a fork of the same size: %v", err)
		}
		if last > 1 {
			if err := g.extend(log.text(last-1), log.from(last-1, last-1)); !refusedBecause(err, "smaller than the last one") {
				t.Fatalf("a tree that was signed before: %v", err)
			}
		}
		changed := good
		switch at := rapid.IntRange(-3, len(good.proof)-1).Draw(t, "changed"); at {
		case -3:
			changed.root = bytes.Clone(good.root)
			changed.root[rapid.IntRange(0, 31).Draw(t, "octet")] ^= 1
		case -2:
			changed.proof = append(slices.Clone(good.proof), good.root)
		case -1:
			changed.proof = good.proof[:len(good.proof)-1]
		default:
			changed.proof = slices.Clone(good.proof)
			changed.proof[at] = bytes.Clone(good.proof[at])
			changed.proof[at][rapid.IntRange(0, 31).Draw(t, "octet")] ^= 1
		}
		if err := g.extend(log.text(next), changed); err == nil || isUnproven(err, -1) {
			t.Fatalf("with a proof that was changed: %v", err)
		}
		for range 2 { // once more is what a crash leads to
			if err := g.extend(log.text(next), good); err != nil {
				t.Fatalf("%d after %d: %v", next, last, err)
			}
		}
		if g.size != uint64(next) || g.count != 3 {
			t.Fatalf("it remembers %d entries and %d signatures", g.size, g.count)
		}
	})
}

// A log that was cut off, as one that is restored from an older copy, is never signed again: neither while it is shorter nor when it has
// outgrown what was signed.
func TestALogThatWasCutOffIsNotSignedAgain(t *testing.T) {
	log := new(history).grow(100, "log")
	restored := log.fork(60).grow(200, "after the restore")
	g := logKey(t)
	if _, err := g.ask(log.text(100)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size, from int64
		words      string
	}{
		{60, 60, "needs another key"}, {80, 60, "needs another key"}, {100, 60, "another checkpoint of"}, {200, 100, "needs another key"},
	} {
		if err := g.extend(restored.text(c.size), restored.from(c.from, c.size)); !refusedBecause(err, c.words) {
			t.Errorf("at %d entries: %v", c.size, err)
		}
	}
	if err := g.extend(restored.text(200), restored.from(60, 200)); !isUnproven(err, 100) {
		t.Errorf("from what both have: %v", err)
	}
}

// Sizes are the asker's choice, and no size keeps the guard busy.
func TestNoSizeIsTooLarge(t *testing.T) {
	log := new(history).grow(5, "log")
	for _, size := range []uint64{1<<62 + 1, math.MaxInt64} {
		g := logKey(t)
		if _, err := g.ask(log.text(5)); err != nil {
			t.Fatal(err)
		}
		by := consistency{size: 5, root: log.root(5)}
		for range maxProof {
			by.proof = append(by.proof, log.root(5))
		}
		if err := g.extend(checkpointText(testOrigin, size, log.root(5)), by); !refusedBecause(err, "the proof does not show") {
			t.Errorf("%d entries: %v", size, err)
		}
	}
	g := logKey(t) // the largest there is can be signed, and ends the log
	if _, err := g.ask(checkpointText(testOrigin, math.MaxInt64, log.root(5))); err != nil {
		t.Error(err)
	}
	if _, err := g.ask(log.text(5)); !refusedBecause(err, "smaller than the last one") {
		t.Errorf("after it: %v", err)
	}
}

// Every tree extends the empty one, and so needs no proof.
func TestTheEmptyTreeIsExtended(t *testing.T) {
	log := new(history).grow(3, "log")
	g := logKey(t)
	for _, size := range []int64{0, 0, 3} {
		if _, err := g.ask(log.text(size)); err != nil {
			t.Errorf("%d entries: %v", size, err)
		}
	}
	if _, err := g.ask(log.text(0)); err == nil {
		t.Error("it shrinks to nothing")
	}
}

// Only a checkpoint comes with what it extends: whatever else does is not understood.
func TestOnlyCheckpointsExtend(t *testing.T) {
	a, g := guarded(t, 0)
	log := new(history).grow(1, "log")
	if err := g.extend(a.tbs(t, leaf()), log.from(1, 1)); !refusedBecause(err, "only a checkpoint") {
		t.Error(err)
	}
}

// A program from before texts were remembered wrote the size alone. What came after it in the journal tells the text; where nothing did,
// any history could be made out to be the one that was signed, and none is.
func TestAJournalWithoutTexts(t *testing.T) {
	log := new(history).grow(20, "log")
	for what, c := range map[string]struct {
		after []entry
		words string // of the refusal; empty: signed
	}{
		"nothing after": {words: "the journal does not tell which it was"},
		"a checkpoint after": {after: []entry{{
			Key: "log", Kind: kindCheckpoint, Detail: "12", SHA256: fmt.Sprintf("%x", sha256.Sum256(log.text(12))), Result: resultSigned,
		}}},
	} {
		path := filepath.Join(t.TempDir(), "journal")
		j := openTestJournal(t, path)
		old := entry{Kind: kindJournal, Result: resultState, Memory: map[string]memory{"log": {Count: 7, Size: 10}}}
		if err := j.commit(append([]entry{old}, c.after...)); err != nil {
			t.Fatal(err)
		}
		closeJournal(t, j)
		j = openTestJournal(t, path)
		g, err := newGuard(logKey(t).key, j.memories()["log"])
		if err != nil {
			t.Fatal(err)
		}
		closeJournal(t, j)
		for _, size := range []int64{10, 20} {
			err := g.extend(log.text(size), log.from(min(size, int64(g.size)), size))
			if c.words != "" && !refusedBecause(err, c.words) || c.words == "" && size == 20 && err != nil {
				t.Errorf("%s: %d entries: %v", what, size, err)
			}
		}
	}
}

// logIn makes a key of a log in a token, and a keeper's policy of it.
func (a *authority) logIn(t *testing.T, algorithm hsm.Algorithm) KeyPolicy {
	t.Helper()
	token := a.fixture.Open(t)
	ref, public, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: "log"})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	return KeyPolicy{
		Name: "log", Ref: ref, Tokens: []string{"main"}, PublicKey: public, Checkpoints: &CheckpointPolicy{Origin: testOrigin},
	}
}

// asker is whoever has a log's checkpoints signed.
type asker struct {
	*testing.T
	key hsm.Signer
}

func (a asker) hash() crypto.Hash {
	if _, edwards := a.key.Public().(ed25519.PublicKey); edwards {
		return 0
	}
	return crypto.SHA256
}

// signs asks for a checkpoint of a history, with a proof from a size (0: none), and verifies what it gets.
func (a asker) signs(h *history, from, size int64) error {
	a.Helper()
	options, text := crypto.SignerOpts(a.hash()), h.text(size)
	if from > 0 {
		options = shown{h.from(from, size), a.hash()}
	}
	signature, err := a.key.SignMessage(nil, text, options)
	if err != nil {
		if !errors.Is(err, ErrRefused) {
			a.Errorf("%d entries: %v", size, err)
		}
		return err
	}
	digest := sha256.Sum256(text)
	switch public := a.key.Public().(type) {
	case ed25519.PublicKey:
		if !ed25519.Verify(public, text, signature) {
			a.Errorf("%d entries: the signature is wrong", size)
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(public, digest[:], signature) {
			a.Errorf("%d entries: the signature is wrong", size)
		}
	}
	return nil
}

func (a asker) must(h *history, from, size int64) {
	a.Helper()
	if err := a.signs(h, from, size); err != nil {
		a.Fatalf("%d entries after %d: %v", size, from, err)
	}
}

// TestCompromisedServiceForksTheLog plays a service that was taken over, against keepers: of two that hold the key, and of one that is
// started again, each signs what extends what it signed itself.
func TestCompromisedServiceForksTheLog(t *testing.T) {
	for _, algorithm := range []hsm.Algorithm{hsm.Ed25519, hsm.ECDSAP256} {
		t.Run(string(algorithm), func(t *testing.T) {
			a := newAuthority(t, 0)
			policy := a.logIn(t, algorithm)
			keeper := func() (Config, *syncBuffer) {
				config, log := a.config(t, a.fixture.Config())
				config.Keys = []KeyPolicy{policy}
				return config, log
			}
			config, said := keeper()
			first := start(t, config, said)
			one := asker{t, first.signer(t, policy.PublicKey)}
			otherConfig, otherSaid := keeper()
			other := start(t, otherConfig, otherSaid)
			two := asker{t, other.signer(t, policy.PublicKey)}

			log := new(history).grow(200, "log")
			one.must(log, 0, 10)
			one.must(log, 10, 10)
			one.must(log, 10, 30)
			two.must(log, 30, 50) // its first, whatever is shown
			two.must(log, 50, 64)
			if err := one.signs(log, 64, 80); !isUnproven(err, 30) {
				t.Errorf("of another keeper's last checkpoint: %v", err)
			}
			one.must(log, 30, 80)
			if err := two.signs(log, 0, 90); !isUnproven(err, 64) {
				t.Errorf("of nothing: %v", err)
			}
			two.must(log, 64, 90)

			first.stop()
			first = start(t, config, said)
			one = asker{t, first.signer(t, policy.PublicKey)}
			fork := log.fork(79).grow(200, "fork")
			if err := one.signs(fork, 80, 100); !refusedBecause(err, "another history") {
				t.Errorf("a fork: %v", err)
			}
			if err := one.signs(fork, 79, 100); !isUnproven(err, 80) {
				t.Errorf("a fork from before: %v", err)
			}
			if err := one.signs(fork, 80, 80); !refusedBecause(err, "another checkpoint of 80") {
				t.Errorf("a fork of the same size: %v", err)
			}
			one.must(log, 80, 80)
			one.must(log, 80, 128)

			first.stop()
			results := map[string]int{}
			for _, e := range readEntries(t, config.Journal) {
				results[e.Result]++
			}
			if results[resultSigned] != 6 || results[resultRefused] != 4 {
				t.Errorf("the journal tells of %v", results)
			}
			text := said.String()
			if strings.Count(text, "level=WARN msg=refused") != 2 || strings.Count(text, "level=INFO msg=refused") != 2 {
				t.Error("a fork is an alarm, and another keeper's checkpoint is none")
			}
		})
	}
}

// What cannot be a proof does not leave the client, and ends the connection of one that sends it.
func TestMalformedProofs(t *testing.T) {
	a := newAuthority(t, 0)
	policy := a.logIn(t, hsm.ECDSAP256)
	config, said := a.config(t, a.fixture.Config())
	config.Keys = []KeyPolicy{policy}
	r := start(t, config, said)
	key := r.signer(t, policy.PublicKey)
	log := new(history).grow(5, "log")
	hash := log.root(1)
	for what, c := range map[string]consistency{
		"no size":        {size: 1 << 63, root: hash},
		"half a root":    {size: 1, root: hash[:16]},
		"half a hash":    {size: 1, root: hash, proof: [][]byte{hash[:16]}},
		"too many":       {size: 1, root: hash, proof: slices.Repeat([][]byte{hash}, maxProof+1)},
		"nothing at all": {},
	} {
		if _, err := key.SignMessage(nil, log.text(5), shown{c, crypto.SHA256}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	good, err := appendConsistency(nil, shown{log.from(3, 5), crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	id := key.(*signer).id
	for what, parts := range map[string][][]byte{
		"nothing":           {},
		"no more":           {good},
		"a size of 64 bits": {{0x80}, good[1:], id[:], {1}, log.text(5)},
		"too many hashes":   {good[:40], {maxProof + 1}, make([]byte, (maxProof+1)*32), id[:], {1}, log.text(5)},
		"a long text":       {good, id[:], {1}, make([]byte, maxCheckpoint+1)},
	} {
		if _, err := r.client.ask(frameCheckpoint, parts...); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.client.ask(frameCheckpoint, good, id[:], []byte{1}, log.text(5)); err != nil {
		t.Error(err)
	}
}

// TestALongTextIsNoCheckpoint, and costs no more memory than it has octets.
func TestALongTextIsNoCheckpoint(t *testing.T) {
	_, g := guarded(t, 0, func(p *KeyPolicy) { p.Checkpoints = &CheckpointPolicy{Origin: testOrigin} })
	message := append([]byte(testOrigin), bytes.Repeat([]byte("\n"), 4<<20)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := g.ask(message)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 1<<20 {
		t.Errorf("it took %d octets: %v", took, err)
	}
}
