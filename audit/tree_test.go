package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// kept is a log in memory: what a store keeps of one.
type kept struct {
	tree   Tree
	leaves [][]byte
	hashes map[int][]Hash // by level
	stored []tlog.Hash    // tlog's own, to compare with
}

func (k *kept) ReadHashes(indexes []int64) (found []tlog.Hash, err error) {
	for _, i := range indexes {
		found = append(found, k.stored[i])
	}
	return found, nil
}

func (k *kept) add(t testing.TB, leaf []byte) {
	if k.hashes == nil {
		k.hashes = map[int][]Hash{}
	}
	more, err := tlog.StoredHashes(int64(len(k.leaves)), leaf, k)
	if err != nil {
		t.Fatal(err)
	}
	k.stored, k.leaves = append(k.stored, more...), append(k.leaves, leaf)
	k.hashes[0] = append(k.hashes[0], HashOf(leaf))
	for _, s := range k.tree.Append(HashOf(leaf)) {
		if int64(len(k.hashes[s.Level])) != s.N {
			t.Fatalf("subtree %d of level %d follows %d", s.N, s.Level, len(k.hashes[s.Level]))
		}
		k.hashes[s.Level] = append(k.hashes[s.Level], s.Hash)
	}
}

func (k *kept) read(ranges []Range) ([][]Hash, error) {
	all := make([][]Hash, len(ranges))
	for i, r := range ranges {
		if r.To > int64(len(k.hashes[r.Level])) {
			return nil, errors.New("there are not so many")
		}
		all[i] = k.hashes[r.Level][r.From:r.To]
	}
	return all, nil
}

func (k *kept) at(size int64) Checkpoint {
	root, err := tlog.TreeHash(size, k)
	if err != nil {
		panic(err)
	}
	return Checkpoint{Origin: "ca.example/log", Size: size, Root: root}
}

func filled(t testing.TB, size int) *kept {
	k := &kept{}
	for i := range size {
		k.add(t, fmt.Appendf(nil, "leaf %d", i))
	}
	return k
}

// At every size the tree is tlog's, and can be made again from its edge.
func TestTreeIsTlogs(t *testing.T) {
	k := &kept{}
	check := func(size int64) {
		if got, want := k.tree.Root(), k.at(size).Root; got != want || k.tree.Size() != size {
			t.Fatalf("the root of %d leaves is %v, tlog's of %d is %v", k.tree.Size(), got, size, want)
		}
		edge, err := k.read(Edge(size))
		if err != nil {
			t.Fatal(err)
		}
		again, err := TreeFrom(size, edge)
		if err != nil || again.Root() != k.tree.Root() {
			t.Fatalf("made again from its edge, the tree of %d leaves differs: %v", size, err)
		}
		if clone := again.Clone(); size > 0 {
			clone.Append(Hash{})
			if again.Root() != k.tree.Root() || clone.Root() == again.Root() {
				t.Fatal("a clone and its origin grow together")
			}
		}
	}
	check(0)
	for i := range 70_000 { // past the second level of tiles
		k.add(t, fmt.Appendf(nil, "leaf %d", i))
		if size := int64(i + 1); size < 600 || size%256 < 2 || size > 65_530 && size < 65_540 {
			check(size)
		}
	}
	for _, wrong := range [][][]Hash{nil, {{}}, {make([]Hash, 2), {}}} {
		if _, err := TreeFrom(1, wrong); err == nil {
			t.Errorf("an edge of %d levels made a tree", len(wrong))
		}
	}
}

// Proofs are verified by an implementation that shares nothing with ours.
func TestProofsConvinceAnother(t *testing.T) {
	k := filled(t, 1500)
	rapid.Check(t, func(t *rapid.T) {
		latest := k.at(rapid.Int64Range(1, 1500).Draw(t, "latest"))
		size := rapid.Int64Range(1, latest.Size).Draw(t, "size")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		hashes, err := ProveInclusion(latest, size, index, k.read)
		if err != nil {
			t.Fatal(err)
		}
		at := k.at(size)
		leaf := rfc6962.DefaultHasher.HashLeaf(k.leaves[index])
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(size), leaf, slicesOf(hashes), at.Root[:]); err != nil {
			t.Fatal(err)
		}
		if err := CheckInclusion(at, index, Hash(leaf), hashes); err != nil {
			t.Fatal(err)
		}
		leaf[0] ^= 1
		if CheckInclusion(at, index, Hash(leaf), hashes) == nil {
			t.Fatal("another leaf has the proof")
		}
		if hashes, err = ProveConsistency(latest, size, latest.Size, k.read); err != nil {
			t.Fatal(err)
		}
		err = proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(size), uint64(latest.Size), slicesOf(hashes), at.Root[:], latest.Root[:])
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckConsistency(at, latest, hashes); err != nil {
			t.Fatal(err)
		}
		if from, err := ExtendsFrom(size, latest, k.read); err != nil || from.From != at || !slices.Equal(from.Proof, hashes) {
			t.Fatalf("of the size alone: %+v, %v", from, err)
		}
		at.Root[31] ^= 1
		if CheckConsistency(at, latest, hashes) == nil || extends(at, latest, k.read) == nil {
			t.Fatal("a tree with another beginning extends it")
		}
	})
}

func slicesOf(hashes []Hash) (all [][]byte) {
	for _, h := range hashes {
		all = append(all, h[:])
	}
	return all
}

func TestNothingIsProvedOfWhatIsNotThere(t *testing.T) {
	k := filled(t, 300)
	c := k.at(300)
	for _, one := range [][2]int64{{300, 300}, {10, 10}, {301, 5}, {0, 0}, {5, -1}} {
		if _, err := ProveInclusion(c, one[0], one[1], k.read); !errors.Is(err, ErrNotInTree) {
			t.Errorf("leaf %d in a tree of %d: %v", one[1], one[0], err)
		}
	}
	for _, one := range [][2]int64{{0, 300}, {10, 9}, {10, 301}} {
		if _, err := ProveConsistency(c, one[0], one[1], k.read); !errors.Is(err, ErrNotInTree) {
			t.Errorf("from %d to %d: %v", one[0], one[1], err)
		}
	}
	for _, size := range []int64{-1, 0, 301} {
		if _, err := ExtendsFrom(size, c, k.read); !errors.Is(err, ErrNotInTree) {
			t.Errorf("from the first %d: %v", size, err)
		}
	}
	// A hash that was changed under the checkpoint proves nothing, wherever it is used.
	k.hashes[0][7][3] ^= 1
	if _, err := ProveInclusion(c, 300, 8, k.read); err == nil {
		t.Error("a proof was made of hashes that the checkpoint does not have")
	}
	k.hashes[0][279][3] ^= 1
	if extends(k.at(280), c, k.read) == nil {
		t.Error("a changed tree extends the earlier one")
	}
	other := k.at(280)
	other.Origin = "another"
	if CheckConsistency(other, c, nil) == nil {
		t.Error("checkpoints of two logs fit each other")
	}
}

func TestTilePaths(t *testing.T) {
	for path, want := range map[string]Tile{
		"0/000": {0, 0, 256}, "1/x001/x234/067": {1, 1234067, 256}, "0/067.p/1": {0, 67, 1}, "entries/x001/067.p/255": {-1, 1067, 255},
		"entries/000": {-1, 0, 256},
	} {
		if got, err := ParseTile(path); err != nil || got != want {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", "0", "0/", "0/0", "0/1000", "data/000", "-1/000", "8/000", "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000/", "x/000", "0/x000/001",
		"00/000", "0/001/002",
		"0/x999/x999/x999/x999/x999/x999/999",
	} {
		if got, err := ParseTile(path); err == nil {
			t.Errorf("%q is read as %+v", path, got)
		}
	}
	for _, c := range []struct {
		tile Tile
		size int64
		in   bool
	}{
		{Tile{0, 0, 256}, 256, true},
		{Tile{0, 0, 256}, 255, false},
		{Tile{1, 0, 1}, 256, true},
		{Tile{1, 0, 1}, 255, false},
		{Tile{-1, 1, 4}, 260, true},
		{Tile{-1, 1, 5}, 260, false},
	} {
		if c.tile.In(c.size) != c.in {
			t.Errorf("%+v is in a tree of %d: %v", c.tile, c.size, !c.in)
		}
	}
}

// A reader of tiles that is not ours, fed with ours, finds every leaf under the root.
func TestTilesAreThoseOfTheLayout(t *testing.T) {
	k := filled(t, 1000)
	c := k.at(1000)
	reader := tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, served{k})
	for _, index := range []int64{0, 255, 256, 700, 999} {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil || hashes[0] != HashOf(k.leaves[index]) {
			t.Errorf("leaf %d: %v, %v", index, hashes, err)
		}
	}
}

// served reads tiles by their paths.
type served struct{ *kept }

func (served) Height() int                     { return TileHeight }
func (served) SaveTiles([]tlog.Tile, [][]byte) {}
func (s served) ReadTiles(wanted []tlog.Tile) (all [][]byte, err error) {
	for _, w := range wanted {
		tile, err := ParseTile(strings.TrimPrefix(w.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		hashes, err := s.read([]Range{tile.Range()})
		if err != nil {
			return nil, err
		}
		all = append(all, TileData(hashes[0]))
	}
	return all, nil
}

func TestEntries(t *testing.T) {
	var bundle []byte
	want := [][]byte{[]byte("first"), {}, bytes.Repeat([]byte{7}, MaxLeaf)}
	for _, leaf := range want {
		bundle = AppendEntry(bundle, leaf)
	}
	got, err := ParseEntries(bundle)
	if err != nil || len(got) != 3 || !bytes.Equal(got[0], want[0]) || len(got[1]) != 0 || !bytes.Equal(got[2], want[2]) {
		t.Errorf("%v", err)
	}
	for _, cut := range []int{1, 3, len(bundle) - 1} {
		if _, err := ParseEntries(bundle[:cut]); err == nil {
			t.Errorf("%d octets of a bundle are read", cut)
		}
	}
	if _, err := ParseEntries(make([]byte, 2*257)); err == nil {
		t.Error("a bundle of 257 entries is read")
	}
}

// soft is a key in memory that signs messages.
type soft struct{ crypto.Signer }

func (s soft) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(s.Signer, rand.Reader, message, opts)
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func extends(from, to Checkpoint, read Hashes) error {
	_, err := Extends(from, to, read)
	return err
}

func signerOf(t testing.TB, key crypto.Signer) *Signer {
	t.Helper()
	s, err := NewSigner("ca.example/log", soft{key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A checkpoint that an Ed25519 key signed is verified by the note package with a verifier of its own.
func TestCheckpointVerifiesElsewhere(t *testing.T) {
	k := filled(t, 5)
	signer := signerOf(t, edKey(t))
	signed, err := SignCheckpoint(k.at(5), signer)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(signer.String())
	if err != nil {
		t.Fatalf("%s: %v", signer, err)
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil || opened.Text != k.at(5).Text() {
		t.Errorf("%+v, %v", opened, err)
	}
	theirs, err := note.NewEd25519VerifierKey("ca.example/log", signer.Public().(ed25519.PublicKey))
	if err != nil || theirs != signer.String() {
		t.Errorf("the verifier key is %s, the note package's %s, %v", signer, theirs, err)
	}
}

// keen is a key that sees what it is shown.
type keen struct {
	soft
	shown []crypto.SignerOpts
}

func (k *keen) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.shown = append(k.shown, opts)
	return k.soft.SignMessage(random, message, opts.HashFunc())
}

// Whoever keeps the key is shown what a checkpoint extends.
func TestTheKeyIsShownWhatACheckpointExtends(t *testing.T) {
	k := filled(t, 9)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for hash, key := range map[crypto.Hash]crypto.Signer{0: edKey(t), crypto.SHA256: p256} {
		keeper := &keen{soft: soft{key}}
		signer, err := NewSigner("ca.example/log", keeper)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := Extends(k.at(6), k.at(9), k.read)
		if err != nil {
			t.Fatal(err)
		}
		first, err := SignCheckpoint(k.at(6), signer)
		if err != nil {
			t.Fatal(err)
		}
		second, err := SignExtension(k.at(9), shown, signer)
		if err != nil {
			t.Fatal(err)
		}
		for size, signed := range map[int64][]byte{6: first, 9: second} {
			if c, _, err := OpenCheckpoint(signed, signer.Verifier); err != nil || c != k.at(size) {
				t.Errorf("%+v, %v", c, err)
			}
		}
		seen, ok := keeper.shown[1].(Consistency)
		if keeper.shown[0] != hash || !ok || seen.HashFunc() != hash {
			t.Fatalf("it was shown %#v", keeper.shown)
		}
		size, root, hashes := seen.Earlier()
		now := k.at(9)
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(size), 9, hashes, root, now.Root[:]); err != nil || size != 6 {
			t.Errorf("from %d: %v", size, err)
		}
	}
}

func TestCheckpointsAreOpened(t *testing.T) {
	k := filled(t, 5)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	witnessKey := edKey(t)
	witness, err := NewWitness("witness.example/w1", witnessKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for name, key := range map[string]crypto.Signer{"Ed25519": edKey(t), "P-256": p256} {
		signer := signerOf(t, key)
		signed, err := SignCheckpoint(k.at(5), signer)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseVerifier(signer.String())
		if err != nil || again.String() != signer.String() {
			t.Fatalf("%s: %s is read as %v, %v", name, signer, again, err)
		}
		cosigned, err := Cosign(signed, witness.Name(), witnessKey, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Cosign(signed, witness.Name(), witnessKey, time.Unix(-1, 0)); err == nil {
			t.Errorf("%s: a witness signed before 1970", name)
		}
		c, signatures, err := OpenCheckpoint(cosigned, again, witness)
		if err != nil || c != k.at(5) || len(signatures) != 2 || signatures[0].By != again || signatures[1].By != witness ||
			!signatures[1].At.Equal(at) ||
			string(signed)+signatures[1].Line != string(cosigned) {
			t.Errorf("%s: %+v, %+v, %v", name, c, signatures, err)
		}
		if _, all, err := OpenCheckpoint(cosigned, again); err != nil || len(all) != 1 {
			t.Errorf("%s: with an unknown witness: %v, %v", name, all, err)
		}
		if read, err := ReadCheckpoint(cosigned); err != nil || read != c {
			t.Errorf("%s: read without keys: %+v, %v", name, read, err)
		}
		for what, spoilt := range map[string][]byte{
			"another size":            bytes.Replace(cosigned, []byte("\n5\n"), []byte("\n6\n"), 1),
			"another root":            bytes.Replace(cosigned, []byte("\n5\n"), []byte("\n5\nA"), 1),
			"no signature":            []byte(k.at(5).Text() + "\n"),
			"the witness's alone":     []byte(k.at(5).Text() + "\n" + signatures[1].Line),
			"a witness's wrong one":   bytes.Replace(cosigned, []byte(signatures[1].Line), []byte(respoil(t, signatures[1].Line)), 1),
			"the log's own wrong one": bytes.Replace(cosigned, []byte(signatures[0].Line), []byte(respoil(t, signatures[0].Line)), 1),
			"too long":                append(append([]byte{}, cosigned...), bytes.Repeat([]byte("x"), maxNote)...),
			"nothing":                 nil,
		} {
			if _, _, err := OpenCheckpoint(spoilt, again, witness); err == nil {
				t.Errorf("%s: %s: opened", name, what)
			}
		}
	}
}

// respoil changes a bit in the middle of a signature, and leaves the key's ID alone.
func respoil(t testing.TB, line string) string {
	fields := strings.Fields(line)
	octets, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	octets[len(octets)/2] ^= 1
	return "— " + fields[1] + " " + base64.StdEncoding.EncodeToString(octets) + "\n"
}

// A key that signs something else, or nothing, yields no checkpoint.
func TestAWrongSignatureIsNoCheckpoint(t *testing.T) {
	k := filled(t, 1)
	mine, others := edKey(t), edKey(t)
	for name, key := range map[string]crypto.MessageSigner{"wrong": wrong{soft{mine}, others}, "away": wrong{soft{mine}, nil}} {
		s, err := NewSigner("ca.example/log", key)
		if err != nil {
			t.Fatal(err)
		}
		if signed, err := SignCheckpoint(k.at(1), s); err == nil {
			t.Errorf("%s: %s", name, signed)
		}
	}
	s := signerOf(t, mine)
	for _, origin := range []string{"", "two\nlines"} {
		c := k.at(1)
		if c.Origin = origin; origin == "" {
			if _, err := SignCheckpoint(c, s); err == nil {
				t.Errorf("a log named %q has a checkpoint", origin)
			}
		}
	}
}

type wrong struct {
	soft
	other crypto.Signer
}

func (w wrong) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if w.other == nil {
		return nil, errors.New("the token is away")
	}
	return w.other.Sign(rand.Reader, message, opts)
}

func TestVerifierKeysThatAreNone(t *testing.T) {
	good := signerOf(t, edKey(t)).String()
	name, rest, _ := strings.Cut(good, "+")
	id, key, _ := strings.Cut(rest, "+")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewVerifier("x", p384.Public()); err == nil {
		t.Error("P-384 signs checkpoints")
	}
	if _, err := NewVerifier("x", "no key"); err == nil {
		t.Error("a text signs checkpoints")
	}
	for _, bad := range []string{
		"", name, name + "+" + id, name + "+00000000+" + key, "other+" + id + "+" + key, name + "+" + id + "+" + key + "A",
		name + "+" + id + "+AQ==",
		name + "+" + id + "+" + base64.StdEncoding.EncodeToString(append([]byte{9}, make([]byte, 32)...)), "a b+" + id + "+" + key,
		"+" + id + "+" + key,
	} {
		if v, err := ParseVerifier(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}

func receiptFor(t testing.TB, k *kept, index int64, by *Signer) Receipt {
	t.Helper()
	c := k.at(int64(len(k.leaves)))
	signed, err := SignCheckpoint(c, by)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := ProveInclusion(c, c.Size, index, k.read)
	if err != nil {
		t.Fatal(err)
	}
	return Receipt{Leaf: k.leaves[index], Index: index, Proof: hashes, Checkpoint: signed}
}

func events(t testing.TB, n int) *kept {
	k := &kept{}
	for i := range n {
		e := sound()
		e.Data = map[string]string{"number": fmt.Sprint(i)}
		leaf, err := New(e)
		if err != nil {
			t.Fatal(err)
		}
		k.add(t, leaf.Bytes())
	}
	return k
}

func TestReceipts(t *testing.T) {
	k := events(t, 300)
	signer := signerOf(t, edKey(t))
	for _, index := range []int64{0, 255, 256, 299} {
		r := receiptFor(t, k, index, signer)
		again, err := ParseReceipt(r.Bytes())
		if err != nil || string(again.Bytes()) != string(r.Bytes()) {
			t.Fatalf("%v", err)
		}
		e, c, signatures, err := again.Verify(signer.Verifier)
		if err != nil || e.Data["number"] != fmt.Sprint(index) || c.Size != 300 || len(signatures) != 1 {
			t.Errorf("%+v, %+v, %v", e, c, err)
		}
		if _, _, _, err := again.Verify(signerOf(t, edKey(t)).Verifier); err == nil {
			t.Error("another log's key verifies it")
		}
		for name, spoil := range map[string]func(*Receipt){
			"another event":      func(r *Receipt) { r.Leaf = k.leaves[(index+1)%300] },
			"another index":      func(r *Receipt) { r.Index = (index + 1) % 300 },
			"a hash less":        func(r *Receipt) { r.Proof = r.Proof[1:] },
			"a hash more":        func(r *Receipt) { r.Proof = append(r.Proof, Hash{}) },
			"another hash":       func(r *Receipt) { r.Proof = append([]Hash{{}}, r.Proof[1:]...) },
			"another checkpoint": func(r *Receipt) { r.Checkpoint = receiptFor(t, events(t, 10), 1, signer).Checkpoint },
		} {
			other := again
			spoil(&other)
			if _, _, _, err := other.Verify(signer.Verifier); err == nil {
				t.Errorf("%s: verified", name)
			}
		}
	}
}

// Each octet counts: a receipt of which one was changed is not read, or is not verified, or says the same.
func TestEachOctetOfAReceiptCounts(t *testing.T) {
	k := events(t, 20)
	signer := signerOf(t, edKey(t))
	r := receiptFor(t, k, 7, signer)
	text := r.Bytes()
	for i := range text {
		changed := append([]byte{}, text...)
		changed[i] ^= 1
		other, err := ParseReceipt(changed)
		if err != nil {
			continue
		}
		// What base64 leaves unused in its last character is not looked at by the note package.
		if _, _, _, err := other.Verify(signer.Verifier); err == nil &&
			(!bytes.Equal(other.Leaf, r.Leaf) || other.Index != r.Index || !bytes.Equal(other.Checkpoint[:90], r.Checkpoint[:90])) {
			t.Errorf("octet %d of %d: verified:\n%s", i, len(text), changed)
		}
	}
}

func FuzzParseReceipt(f *testing.F) {
	f.Add(receiptFor(f, events(f, 5), 2, signerOf(f, edKey(f))).Bytes())
	f.Add([]byte(proofHeader + "\nextra \nindex 0\n\nx"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseReceipt(text)
		if err == nil && !bytes.Equal(r.Bytes(), text) {
			t.Errorf("read and written again it differs:\n%q\n%q", text, r.Bytes())
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	k := filled(f, 5)
	signer := signerOf(f, edKey(f))
	signed, err := SignCheckpoint(k.at(5), signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add([]byte(k.at(5).Text()))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := ReadCheckpoint(text); err == nil && !bytes.HasPrefix(text, []byte(c.Text())) {
			t.Errorf("%q is read as %q", text, c.Text())
		}
		if c, _, err := OpenCheckpoint(text, signer.Verifier); err == nil && c != k.at(5) {
			t.Errorf("a checkpoint that was never signed: %+v", c)
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add(signerOf(f, edKey(f)).String())
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := ParseVerifier(text); err == nil && !strings.EqualFold(v.String(), text) {
			t.Errorf("%q is read as %s", text, v)
		}
	})
}

func FuzzParseTile(f *testing.F) {
	f.Add("entries/x001/067.p/255")
	f.Add("0/000")
	f.Fuzz(func(t *testing.T, path string) {
		if tile, err := ParseTile(path); err == nil {
			r := tile.Range()
			if r.From < 0 || r.To <= r.From || r.To-r.From > TileWidth {
				t.Errorf("%q is %+v", path, r)
			}
		}
	})
}

func FuzzParseEntries(f *testing.F) {
	f.Add(AppendEntry(AppendEntry(nil, []byte("a")), nil))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		leaves, err := ParseEntries(bundle)
		if err != nil {
			return
		}
		var again []byte
		for _, l := range leaves {
			again = AppendEntry(again, l)
		}
		if !bytes.Equal(again, bundle) {
			t.Errorf("%x is read, and written as %x", bundle, again)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	var tree Tree
	leaf := bytes.Repeat([]byte("x"), 400)
	for b.Loop() {
		tree.Append(HashOf(leaf))
	}
}
