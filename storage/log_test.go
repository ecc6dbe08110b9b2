package storage_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

// sequencer is what the leader of a term knows of the log.
type sequencer struct {
	*fixture
	term ca.Term
	tree *audit.Tree
}

func (f *fixture) sequencer(by ca.Replica) *sequencer {
	f.t.Helper()
	f.expire(ca.Sequencing)
	term, err := f.ClaimLease(context.Background(), ca.Sequencing, by, lease)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &sequencer{fixture: f, term: term}
	s.load()
	return s
}

func (s *sequencer) load() {
	s.t.Helper()
	size, edge, err := s.LogEdge(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.tree, err = audit.TreeFrom(size, edge); err != nil {
		s.t.Fatal(err)
	}
}

// round gives indexes to what has none, and tells how many it gave.
func (s *sequencer) round(most int) (int, error) {
	ctx := context.Background()
	lots, missing, err := s.UnsequencedLots(ctx, most)
	if err != nil || len(missing) > 0 {
		return 0, errors.Join(err, fmt.Errorf("missing: %v", missing))
	}
	next := s.tree.Clone()
	var complete []audit.Subtree
	for _, l := range lots {
		for _, h := range l.Hashes {
			complete = append(complete, next.Append(h)...)
		}
	}
	if err := s.AppendToLog(ctx, s.term, s.tree.Size(), lots, complete); err != nil {
		return 0, err
	}
	n := next.Size() - s.tree.Size()
	s.tree = next
	return int(n), nil
}

// all has everything sequenced.
func (s *sequencer) all() {
	s.t.Helper()
	for {
		n, err := s.round(1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// log reads all leaves, in order, and sees to it that there are no gaps.
func (f *fixture) log() (leaves [][]byte) {
	f.t.Helper()
	for e, err := range f.AuditEntries(context.Background(), 0, 1<<62) {
		if err != nil {
			f.t.Fatal(err)
		}
		if e.Index != int64(len(leaves)) || e.Leaf == nil {
			f.t.Fatalf("entry %d follows %d: %q", e.Index, len(leaves)-1, e.Leaf)
		}
		leaves = append(leaves, e.Leaf)
	}
	return leaves
}

// rootOf is the root as tlog computes it over all leaves, with storage of its own.
func rootOf(t testing.TB, leaves [][]byte) audit.Hash {
	t.Helper()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, stored[i])
		}
		return found, nil
	})
	for i, l := range leaves {
		more, err := tlog.StoredHashes(int64(i), l, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(leaves)), reader)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func (f *fixture) write(n int) (ids []string) {
	f.t.Helper()
	var leaves []audit.Leaf
	for range n {
		l := leaf(f.t, audit.AccessDenied)
		leaves, ids = append(leaves, l), append(ids, l.ID())
	}
	if err := f.RecordEvents(context.Background(), leaves...); err != nil {
		f.t.Fatal(err)
	}
	return ids
}

// Whatever is written in whatever lots and sequenced in whatever rounds, with the leader changing in between: each leaf has one index, the
// indexes have no gaps, what was written together is in order, and the tree is tlog's.
func TestTheLogIsATree(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	written := map[string]int{} // order of each event within its lot, and the lot's last
	var lots [][]string
	s := f.sequencer(alpha)
	rapid.Check(t, func(rt *rapid.T) {
		if len(lots) > 300 {
			return
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"write", "sequence", "follow"}).Draw(rt, "step") {
			case "write":
				ids := f.write(rapid.IntRange(1, 300).Draw(rt, "leaves"))
				lots = append(lots, ids)
				for i, id := range ids {
					written[id] = i
				}
			case "sequence":
				if _, err := s.round(rapid.IntRange(1, 500).Draw(rt, "most")); err != nil {
					rt.Fatal(err)
				}
			case "follow":
				s = f.sequencer(rapid.SampledFrom([]ca.Replica{alpha, beta}).Draw(rt, "leader"))
			}
		}
	})
	s.all()
	leaves := f.log()
	if len(leaves) != len(written) || s.tree.Size() != int64(len(written)) {
		t.Fatalf("%d leaves were written, %d are in the log, the tree has %d", len(written), len(leaves), s.tree.Size())
	}
	if got, want := s.tree.Root(), rootOf(t, leaves); got != want {
		t.Errorf("the root is %v, tlog's is %v", got, want)
	}
	for _, lot := range lots {
		first, _, err := f.LogIndex(ctx, lot[0])
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range lot {
			if index, _, err := f.LogIndex(ctx, id); err != nil || index != first+int64(i) {
				t.Fatalf("leaf %d of a lot that begins at %d is at %d, %v", i, first, index, err)
			}
		}
	}
	c := audit.Checkpoint{Origin: "x", Size: s.tree.Size(), Root: s.tree.Root()}
	read := func(r []audit.Range) ([][]audit.Hash, error) { return f.LogHashes(ctx, r) }
	for _, size := range []int64{c.Size, c.Size / 2, 257, 256, 1} {
		earlier := audit.Checkpoint{Origin: "x", Size: size, Root: rootOf(t, leaves[:size])}
		if _, err := audit.Extends(earlier, c, read); err != nil {
			t.Error(err)
		}
		for _, index := range []int64{0, size / 2, size - 1} {
			proof, err := audit.ProveInclusion(c, size, index, read)
			if err != nil {
				t.Fatal(err)
			}
			if err := audit.CheckInclusion(earlier, index, audit.HashOf(leaves[index]), proof); err != nil {
				t.Error(err)
			}
		}
	}
	f.wantCounts("audit_unsequenced", 0)
}

// Two replicas that both take themselves for the leader: one of them gives indexes, the other nothing.
func TestTwoSequencersWriteOneHistory(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	late := f.sequencer(alpha)
	f.write(5)
	if _, err := late.round(10); err != nil {
		t.Fatal(err)
	}
	now := f.sequencer(beta)
	f.write(7)
	if _, err := late.round(10); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the late leader got %v, want ErrFenced", err)
	}
	if _, err := late.QueueBacklog(ctx, late.term, 10); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the late leader got %v, want ErrFenced", err)
	}
	c := audit.Checkpoint{Origin: "x", Size: 5, Root: late.tree.Root()}
	if err := f.RecordCheckpoint(ctx, late.term, c, []byte("note")); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the late leader got %v, want ErrFenced", err)
	}
	now.all()
	f.wantCounts("audit_sequence", 12, "audit_checkpoints", 0)

	// Even in one term, of two rounds that begin at one size one alone is written.
	var racing sync.WaitGroup
	outcomes := make([]error, 4)
	f.write(3)
	for i := range outcomes {
		twin := &sequencer{fixture: f, term: now.term, tree: now.tree.Clone()}
		racing.Go(func() { _, outcomes[i] = twin.round(10) })
	}
	racing.Wait()
	for _, err := range outcomes {
		if err != nil && !errors.Is(err, ca.ErrLogMoved) {
			t.Errorf("a racing round got %v", err)
		}
	}
	f.wantCounts("audit_sequence", 15)
	now.load()
	if root := rootOf(t, f.log()); root != now.tree.Root() {
		t.Errorf("the root is %v, of the leaves %v", now.tree.Root(), root)
	}
}

func TestOneCheckpointOfOneSize(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	s := f.sequencer(alpha)
	if _, err := f.LatestCheckpoint(ctx, 0); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("before there is a checkpoint: %v", err)
	}
	f.write(3)
	s.all()
	c := audit.Checkpoint{Origin: "x", Size: 3, Root: s.tree.Root()}
	if err := f.RecordCheckpoint(ctx, s.term, audit.Checkpoint{Origin: "x", Size: 4, Root: c.Root}, []byte("larger")); err == nil {
		t.Error("a checkpoint is larger than the log")
	}
	for range 2 { // the second time as after a lost acknowledgement
		if err := f.RecordCheckpoint(ctx, s.term, c, []byte("note 3\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.RecordCheckpoint(ctx, s.term, c, []byte("another 3\n")); !errors.Is(err, ca.ErrExists) {
		t.Errorf("a second checkpoint of one size: %v", err)
	}
	f.write(1)
	s.all()
	if err := f.RecordCheckpoint(ctx, s.term, audit.Checkpoint{Origin: "x", Size: 4, Root: s.tree.Root()}, []byte("note 4\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.RecordCheckpoint(ctx, s.term, audit.Checkpoint{Origin: "x", Size: 2, Root: c.Root}, []byte("note 2\n")); err == nil {
		t.Error("a checkpoint is smaller than the last one")
	}
	if err := f.RecordCosignature(ctx, audit.Checkpoint{Origin: "x", Size: 3}, "w1", "- w1\n"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a cosignature of another root: %v", err)
	}
	for _, line := range []string{"- w1 a\n", "- w1 b\n"} {
		if err := f.RecordCosignature(ctx, c, "w1", line); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.RecordCosignature(ctx, c, "w2", "- w2\n"); err != nil {
		t.Fatal(err)
	}
	for cosigned, want := range []string{"note 4\n", "note 3\n- w1 a\n- w2\n", "note 3\n- w1 a\n- w2\n"} {
		if got, err := f.LatestCheckpoint(ctx, cosigned); err != nil || string(got) != want {
			t.Errorf("with %d cosignatures: %q, %v", cosigned, got, err)
		}
	}
	if _, err := f.LatestCheckpoint(ctx, 3); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("with three: %v", err)
	}
	state, err := f.LogState(ctx)
	if err != nil || state.Size != 4 || state.CheckpointSize != 4 || state.CosignedSize != 3 || state.Unsequenced != 0 ||
		state.UnsequencedAge != -1 ||
		state.CheckpointAge < 0 || state.CheckpointAge > 60 || state.BacklogRemains {
		t.Errorf("the state is %+v, %v", state, err)
	}
}

// Leaves from before the log are sequenced, once, in the order of their identifiers, while new ones come in.
func TestOlderLeavesAreSequenced(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	var old []string
	for range 3 {
		old = append(old, f.write(400)...)
	}
	slices.Sort(old)
	// As the migration finds them.
	f.exec(`DELETE FROM audit_unsequenced`)
	f.exec(`INSERT INTO audit_backlog (after, until) SELECT '00000000-0000-0000-0000-000000000000', id FROM audit_leaves ORDER BY id DESC LIMIT 1`)
	s := f.sequencer(alpha)
	seen := 0
	for round := 0; ; round++ {
		n, err := f.QueueBacklog(ctx, s.term, 500)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		seen += n
		if round == 0 {
			// A leaf with an identifier from before, and one that is looked at twice, for the cursor is set back.
			if err := f.RecordEvents(ctx, leafWithID(t, old[700][:35]+flip(old[700][35:]), audit.AccessDenied)); err != nil {
				t.Fatal(err)
			}
			f.exec(`UPDATE audit_backlog SET after = $1::text::uuid`, old[100])
		}
		if round == 2 {
			s.all()
		}
	}
	s.all()
	if got := len(f.log()); got != 1201 || seen < 1500 {
		t.Errorf("%d leaves are in the log, %d were looked at", got, seen)
	}
	f.wantCounts("audit_unsequenced", 0, "audit_backlog", 0)
	for i, id := range old[:300] {
		if index, _, err := f.LogIndex(ctx, id); err != nil || index != int64(i) {
			t.Fatalf("leaf %d of the oldest is at %d, %v", i, index, err)
		}
	}
}

// flip changes the last digit of an identifier.
func flip(digit string) string {
	if digit == "0" {
		return "1"
	}
	return "0"
}

// A leaf that somebody took away before it had an index holds up neither the others nor is it forgotten. A lot that notes no hashes is one of
// a program from before they were noted.
func TestALeafThatHasGoneMissing(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	s := f.sequencer(alpha)
	gone := f.write(3)
	f.exec(`UPDATE audit_unsequenced SET hashes = NULL`)
	f.write(2)
	f.exec(`ALTER TABLE audit_leaves DISABLE TRIGGER facts_stay`)
	f.exec(`DELETE FROM audit_leaves WHERE id = $1::text::uuid`, gone[1])
	lots, missing, err := f.UnsequencedLots(ctx, 100)
	if err != nil || len(lots) != 1 || len(lots[0].Hashes) != 2 || len(missing) != 1 {
		t.Fatalf("the lots are %v, missing are %v, %v", lots, missing, err)
	}
	if err := f.AppendToLog(ctx, s.term, 0, lots, nil); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("audit_sequence", 2, "audit_unsequenced", 1)
	if _, _, err := f.LogIndex(ctx, gone[0]); !errors.Is(err, ca.ErrNotLogged) {
		t.Errorf("its neighbour: %v", err)
	}
	for _, id := range []string{gone[1], newID(), "no identifier"} {
		if _, _, err := f.LogIndex(ctx, id); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// Lots that stay where they are take nobody's place, however many they are and however large.
func TestLotsThatStayTakeNobodysPlace(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	s := f.sequencer(alpha)
	var gone []string
	for range 3 {
		gone = append(gone, f.write(4)[2])
	}
	f.exec(`UPDATE audit_unsequenced SET hashes = NULL`)
	f.exec(`INSERT INTO audit_unsequenced (ids) SELECT ARRAY[gen_random_uuid()] FROM generate_series(1, 1000)`)
	f.exec(`ALTER TABLE audit_leaves DISABLE TRIGGER facts_stay`)
	f.exec(`DELETE FROM audit_leaves WHERE id = ANY ($1::text[]::uuid[])`, gone)
	if lots, missing, err := f.UnsequencedLots(ctx, 4); err != nil || len(lots) != 0 || len(missing) != 100 {
		t.Errorf("where all are stuck: the lots are %v, %d are missing, %v", lots, len(missing), err)
	}
	f.write(2)
	f.write(2)
	f.write(1)
	lots, missing, err := f.UnsequencedLots(ctx, 4)
	if err != nil || len(lots) != 2 || len(lots[0].Hashes) != 2 || len(lots[1].Hashes) != 2 || len(missing) != 100 {
		t.Fatalf("the lots are %v, %d are missing, %v", lots, len(missing), err)
	}
	if err := f.AppendToLog(ctx, s.term, 0, lots, nil); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("audit_sequence", 4, "audit_unsequenced", 1004)
}

// What a leaf said when it was written is what is logged, though somebody changes it or takes it away before it has an index.
func TestALeafIsLoggedAsItWasWritten(t *testing.T) {
	f := setUp(t)
	hashes := func() []audit.Hash {
		t.Helper()
		lots, missing, err := f.UnsequencedLots(t.Context(), 100)
		if err != nil || len(missing) > 0 || len(lots) != 1 {
			t.Fatalf("the lots are %v, missing are %v, %v", lots, missing, err)
		}
		return lots[0].Hashes
	}
	ids := f.write(3)
	noted := hashes()
	f.exec(`ALTER TABLE audit_leaves DISABLE TRIGGER facts_stay`)
	for _, tamper := range []string{`UPDATE audit_leaves SET leaf = 'another'`, `DELETE FROM audit_leaves`} {
		f.exec(tamper+` WHERE id = $1::text::uuid`, ids[1])
		if got := hashes(); !slices.Equal(got, noted) {
			t.Errorf("after %s: %v instead of %v", tamper, got, noted)
		}
	}
}

// The hashes that are noted are those of the leaves, in the order of their identifiers.
func TestNotedHashes(t *testing.T) {
	f := setUp(t)
	for range 40 {
		f.issue()
	}
	noted, _, err := f.UnsequencedLots(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE audit_unsequenced SET hashes = NULL`) // they are read from the leaves
	read, _, err := f.UnsequencedLots(t.Context(), 1000)
	if err != nil || len(read) < 40 || !reflect.DeepEqual(noted, read) {
		t.Errorf("%v are noted, %v are read: %v", noted, read, err)
	}
}

// Whoever has the service's rights can say to append_to_log what he likes: the log gets what the leaves hash to, and the roots over that.
func TestTheLogBelievesNoCaller(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	conn := f.as("chancery_service")
	appendLots := func(size int64, lots []ca.LeafLot, complete ...audit.Subtree) error {
		var numbers []int64
		var hashes [][]byte
		for _, l := range lots {
			numbers = append(numbers, l.Lot)
			for _, h := range l.Hashes {
				hashes = append(hashes, h[:])
			}
		}
		levels, places, roots := []int16{}, []int64{}, [][]byte{}
		for _, c := range complete {
			levels, places, roots = append(levels, int16(c.Level)), append(places, c.N), append(roots, c.Hash[:])
		}
		_, err := conn.Exec(ctx, `SELECT append_to_log($1, $2, $3, $4, $5, $6)`, size, numbers, hashes, levels, places, roots)
		return err
	}
	const logIsMoved = "CH002"
	// The log has all but 256 of the leaves that make a subtree of the second level.
	var tree audit.Tree
	const before = 255 * 256
	f.exec(`INSERT INTO audit_sequence (index, id, hash) SELECT i, gen_random_uuid(), sha256(i::text::bytea) FROM generate_series(0, $1 - 1) AS i`, before)
	for i := range before {
		for _, c := range tree.Append(sha256.Sum256([]byte(fmt.Sprint(i)))) {
			f.exec(`INSERT INTO audit_subtrees (level, n, hash) VALUES ($1, $2, $3)`, c.Level, c.N, c.Hash[:])
		}
	}
	f.write(200)
	f.write(55)
	f.exec(`UPDATE audit_unsequenced SET hashes = NULL WHERE lot = (SELECT max(lot) FROM audit_unsequenced)`) // as queue_backlog makes them
	f.write(2)
	lots, _, err := f.UnsequencedLots(ctx, 1000)
	if err != nil || len(lots) != 3 {
		t.Fatalf("%d lots, %v", len(lots), err)
	}
	for lot, leaf := range map[int]int{0: 199, 1: 0, 2: 1} {
		kept := lots[lot].Hashes[leaf]
		lots[lot].Hashes[leaf] = random32()
		if err := appendLots(before, lots); sqlState(err) != logIsMoved {
			t.Errorf("an invented hash in lot %d: %v", lot, err)
		}
		lots[lot].Hashes[leaf] = kept
	}
	lots[0].Hashes[0], lots[0].Hashes[1] = lots[0].Hashes[1], lots[0].Hashes[0]
	if err := appendLots(before, lots); sqlState(err) != logIsMoved {
		t.Errorf("in another order: %v", err)
	}
	lots[0].Hashes[0], lots[0].Hashes[1] = lots[0].Hashes[1], lots[0].Hashes[0]

	var complete []audit.Subtree
	for _, l := range lots {
		for _, h := range l.Hashes {
			complete = append(complete, tree.Append(h)...)
		}
	}
	if len(complete) != 2 || complete[1].Level != 2 {
		t.Fatalf("complete are %v", complete)
	}
	for what, invented := range map[string]audit.Subtree{
		"the root of a complete one":    {Level: 1, N: 255, Hash: random32()},
		"the root of one of many":       {Level: 2, N: 0, Hash: random32()},
		"one that is not complete":      {Level: 1, N: 256, Hash: random32()},
		"one of a level that is far up": {Level: 7, N: 0, Hash: random32()},
	} {
		if err := appendLots(before, lots, invented); sqlState(err) != logIsMoved {
			t.Errorf("%s is invented: %v", what, err)
		}
	}
	f.wantCounts("audit_sequence", before, "audit_unsequenced", 3, "audit_subtrees", 255)
	// Nor are they left out.
	if err := appendLots(before, lots); err != nil {
		t.Fatal(err)
	}
	for _, c := range complete {
		if hash := f.column(`SELECT encode(hash, 'hex') FROM audit_subtrees WHERE level = $1 AND n = $2`, c.Level, c.N); len(hash) != 1 ||
			hash[0] != hex.EncodeToString(c.Hash[:]) {
			t.Errorf("subtree %d of level %d has the root %q, want %x", c.N, c.Level, hash, c.Hash)
		}
	}
	f.wantCounts("audit_sequence", before+257, "audit_unsequenced", 0, "audit_subtrees", 257)
	// What the service goes on from is the same tree.
	if s := f.sequencer(alpha); s.tree.Root() != tree.Root() {
		t.Errorf("the root is %v, want %v", s.tree.Root(), tree.Root())
	}
}

// Who asks for no older leaves does not end the search for them.
func TestTheBacklogEndsWhenItIsDone(t *testing.T) {
	f := setUp(t)
	f.write(3)
	f.exec(`DELETE FROM audit_unsequenced`)
	f.exec(`INSERT INTO audit_backlog (after, until) SELECT '00000000-0000-0000-0000-000000000000', id FROM audit_leaves ORDER BY id DESC LIMIT 1`)
	for _, most := range []int{0, -1} {
		if _, err := f.as("chancery_service").Exec(context.Background(), `SELECT queue_backlog($1)`, most); err == nil {
			t.Errorf("a page of %d leaves", most)
		}
	}
	f.wantCounts("audit_backlog", 1)
	s := f.sequencer(alpha)
	if n, err := f.QueueBacklog(context.Background(), s.term, 10); err != nil || n != 3 {
		t.Errorf("%d leaves were looked at, %v", n, err)
	}
}

// The acknowledgement of a round may be lost: it is found to have been done, and not done twice.
func TestARoundIsFoundAgain(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	s := f.sequencer(alpha)
	f.write(3)
	lots, _, err := f.UnsequencedLots(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.AppendToLog(ctx, s.term, 0, lots, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.AppendToLog(ctx, s.term, 0, lots, nil); !errors.Is(err, ca.ErrLogMoved) {
		t.Errorf("the same round again: %v", err)
	}
	wrong := []ca.LeafLot{{Lot: lots[0].Lot, Hashes: lots[0].Hashes[:2]}}
	f.write(2)
	if err := f.AppendToLog(ctx, s.term, 3, wrong, nil); !errors.Is(err, ca.ErrLogMoved) {
		t.Errorf("lots that are not there: %v", err)
	}
	f.wantCounts("audit_sequence", 3, "audit_unsequenced", 1)
}

func TestTheKeyOfTheLogIsRecordedOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for range 2 {
		l := leaf(t, audit.LogKeyAdded)
		if err := f.RecordLogKey(ctx, "log+1+k", l.ID(), l); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("audit_leaves", 1)
	if keys, err := f.LogKeys(ctx); err != nil || !slices.Equal(keys, []string{"log+1+k"}) {
		t.Errorf("the keys are %v, %v", keys, err)
	}
}

// BenchmarkSequencer gives indexes to leaves while another replica writes more of them.
func BenchmarkSequencer(b *testing.B) {
	f := setUp(b)
	s := f.sequencer(alpha)
	other := f.db.Store(b)
	writing, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for range 4 {
		writers.Go(func() {
			for writing.Err() == nil {
				var leaves []audit.Leaf
				for range 20 {
					leaves = append(leaves, leaf(b, audit.CertificateIssued))
				}
				if err := other.RecordEvents(writing, leaves...); err != nil && writing.Err() == nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.ResetTimer()
	began := time.Now()
	total := 0
	for total < b.N {
		n, err := s.round(4096)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	b.ReportMetric(float64(total)/time.Since(began).Seconds(), "leaves/s")
}
