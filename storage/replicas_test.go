package storage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/chancery-ca/chancery/ca"
)

func TestANameBelongsToOneReplica(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	about := ca.About{Version: "v1", Host: "here"}
	if err := f.EnterReplica(ctx, alpha, about, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.EnterReplica(ctx, alpha, about, nil); err != nil { // as after a lost acknowledgement
		t.Errorf("the same again: %v", err)
	}
	var taken *ca.NameTakenError
	if err := f.EnterReplica(ctx, alpha2, about, nil); !errors.As(err, &taken) || taken.Run != "1" || taken.Host != "here" {
		t.Fatalf("a second replica of the name got %v", err)
	}
	seen := taken.Seen
	if err := f.Beat(ctx, alpha); err != nil {
		t.Fatal(err)
	}
	if err := f.EnterReplica(ctx, alpha2, about, &seen); !errors.As(err, &taken) {
		t.Fatalf("a replica that gave a sign of life lost its name: %v", err)
	}
	seen = taken.Seen
	if err := f.EnterReplica(ctx, alpha2, ca.About{Version: "v2", Host: "there"}, &seen); err != nil {
		t.Fatalf("one that gave none kept its name: %v", err)
	}
	if err := f.Beat(ctx, alpha); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the one before lives on: %v", err)
	}
	if err := f.LeaveReplica(ctx, alpha); err != nil { // changes nothing
		t.Error(err)
	}
	if err := f.EnterReplica(ctx, beta, about, nil); err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE replicas SET seen_at = seen_at - interval '1 minute' WHERE name = 'beta'`)
	want := []ca.ReplicaState{ca.ReplicaAlive, ca.ReplicaSilent}
	all, err := f.Replicas(ctx)
	if err != nil || len(all) != len(want) {
		t.Fatalf("the replicas are %+v, %v", all, err)
	}
	for n, r := range all {
		if r.State != want[n] || r.Schema < 10 || r.StartedAt.IsZero() {
			t.Errorf("%+v, want it %s", r, want[n])
		}
	}
	if all[0].Replica != alpha2 || all[0].Version != "v2" || all[0].Host != "there" {
		t.Errorf("alpha is %+v", all[0])
	}
	// One that is silent for long, and one that stopped, are followed at once.
	if err := f.EnterReplica(ctx, ca.Replica{Name: "beta", Run: "2"}, about, nil); err != nil {
		t.Error(err)
	}
	if err := f.LeaveReplica(ctx, alpha2); err != nil {
		t.Error(err)
	}
	if all, err = f.Replicas(ctx); err != nil || all[0].State != ca.ReplicaStopped {
		t.Errorf("after it stopped: %+v, %v", all, err)
	}
	if err := f.EnterReplica(ctx, alpha, about, nil); err != nil {
		t.Error(err)
	}
}
