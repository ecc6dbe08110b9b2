package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/ca"
)

func TestJudgeDurability(t *testing.T) {
	for _, tt := range []struct {
		version                                 int
		fsync, fullPageWrites, commit, standbys string
		setting                                 string // refused; empty: accepted
	}{
		{15, "on", "on", "on", "", ""},
		{18, "on", "on", "remote_apply", "ANY 1 (a, b)", ""},
		{15, "on", "on", "remote_write", "a", ""},
		{15, "on", "on", "local", "", ""},
		{15, "on", "on", "local", "a", "synchronous_commit"},
		{15, "on", "on", "off", "", "synchronous_commit"},
		{15, "off", "on", "on", "", "fsync"},
		{15, "on", "off", "on", "", "full_page_writes"},
		{14, "on", "on", "on", "", "server_version"},
	} {
		err := judgeDurability(tt.version, tt.fsync, tt.fullPageWrites, tt.commit, tt.standbys)
		var unsafe *UnsafeError
		if errors.As(err, &unsafe) != (tt.setting != "") || unsafe != nil && unsafe.Setting != tt.setting {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestJudgeReplication(t *testing.T) {
	for _, tt := range []struct {
		atLeast          int
		commit, standbys string
		setting          string // what is complained of
	}{
		{0, "on", "", ""},
		{0, "local", "", ""},
		{1, "on", "", "synchronous_standby_names"},
		{1, "on", " ", "synchronous_standby_names"},
		{1, "on", "standby1", ""},
		{1, "on", "standby1, standby2", ""},
		{1, "on", "*", ""},
		{2, "on", "standby1, standby2", "synchronous_standby_names"}, // the second only takes the first one's place
		{1, "on", "ANY 1 (*)", ""},
		{2, "on", "any 1 (a, b)", "synchronous_standby_names"},
		{2, "on", "ANY 2 (a, b, c)", ""},
		{2, "on", "FIRST 2 (a, b, c)", ""},
		{2, "on", "2 (a, b, c)", ""},
		{2, "remote_apply", "ANY 2(a,b)", ""},
		{1, "on", "ANY 99999999999999999999 (a)", ""},
		{1, "remote_write", "ANY 1 (a, b)", "synchronous_commit"}, // written by the standby, not on its disk
		{1, "local", "ANY 1 (a, b)", "synchronous_commit"},
		{1, "off", "ANY 1 (a, b)", "synchronous_commit"},
	} {
		err := judgeReplication(tt.atLeast, tt.commit, tt.standbys)
		var unsafe *UnsafeError
		if errors.As(err, &unsafe) != (tt.setting != "") || unsafe != nil && unsafe.Setting != tt.setting {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	server := func(severity, code string) error {
		return &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code}
	}
	for _, tt := range []struct {
		err         error
		unavailable bool
		retry       bool // the same transaction
		unknown     bool // whether it happened
	}{
		{server("ERROR", "40001"), true, true, false},
		{server("ERROR", "40P01"), true, true, false},
		{server("ERROR", "23505"), false, false, false},
		{server("ERROR", "42501"), false, false, false},
		{server("ERROR", "53100"), true, false, false}, // disk full
		{server("FATAL", "53300"), true, false, true},  // too many connections
		{server("ERROR", "57014"), true, false, false}, // statement timeout
		{server("FATAL", "57P01"), true, false, true},  // administrator's shutdown
		{server("FATAL", "57P03"), true, false, true},  // starting up
		{server("ERROR", "25006"), true, false, false}, // read-only
		{server("ERROR", "55P03"), true, false, false}, // lock timeout
		{server("ERROR", "58030"), true, false, false}, // I/O error
		{server("PANIC", "XX000"), true, false, true},  // it goes down
		{server("FEHLER", "XX000"), false, false, false},
		{io.ErrUnexpectedEOF, true, false, true},
		{context.DeadlineExceeded, true, false, true},
		{context.Canceled, true, false, true},
		{ca.ErrFenced, false, false, false},
		{ca.ErrIntentLost, false, false, false},
		{&ca.Replay{}, false, false, false},
	} {
		err := describe("testing", fmt.Errorf("wrapped: %w", tt.err))
		if got := errors.Is(err, ca.ErrUnavailable); got != tt.unavailable {
			t.Errorf("%v: unavailable %v", err, got)
		}
		if !errors.Is(err, tt.err) {
			t.Errorf("%v does not keep its cause", err)
		}
		if isConflict(tt.err) != tt.retry || isBroken(tt.err) != tt.unknown {
			t.Errorf("%v: retry %v, unknown %v", tt.err, isConflict(tt.err), isBroken(tt.err))
		}
	}
	for _, code := range []string{"22021", "22P05"} {
		var invalid *ca.InvalidError
		if err := describe("testing", server("ERROR", code)); !errors.As(err, &invalid) {
			t.Errorf("%v is not the caller's fault", err)
		}
	}
	if describe("testing", nil) != nil {
		t.Error("no error became one")
	}
}

func TestNumbersSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 21).Draw(t, "octets"))
		text, err := formatNumber(n)
		if valid := n.Sign() > 0 && n.BitLen() <= 159; valid != (err == nil) {
			t.Fatalf("formatNumber(%s) = %v", n, err)
		} else if !valid {
			return
		}
		if back, err := parseNumber(text); err != nil || back.Cmp(n) != 0 {
			t.Fatalf("%s came back as %v, %v", n, back, err)
		}
	})
	if _, err := parseNumber("1e5"); err == nil {
		t.Error("1e5 was read as a number")
	}
}

func TestCursorsSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cursor{
			serial: rapid.SliceOfN(rapid.Byte(), serialLength, serialLength).Draw(t, "serial"),
			issuer: rapid.StringN(1, 60, 200).Draw(t, "issuer"),
		}
		back, err := parseCursor(c.String())
		if err != nil || !bytes.Equal(back.serial, c.serial) || back.issuer != c.issuer {
			t.Fatalf("%+v came back as %+v, %v", c, back, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor{serial: make([]byte, serialLength), issuer: "issuing-1"}.String())
	f.Add("")
	f.Add("!")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursor(s)
		var invalid *ca.InvalidError
		if err != nil && (!errors.As(err, &invalid) || invalid.Field != "cursor") {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && (len(c.serial) != serialLength || c.issuer == "") {
			t.Fatalf("%q was read as %+v", s, c)
		}
	})
}

func TestListRefusesWhatMakesNoSense(t *testing.T) {
	for field, f := range map[string]ca.Filter{
		"limit":  {Limit: 501},
		"status": {Limit: 1, Status: "lost"},
		"cursor": {Limit: 1, Cursor: "x"},
	} {
		var invalid *ca.InvalidError
		if _, _, err := listQuery(f, nil); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, _, err := listQuery(ca.Filter{Limit: 0}, nil); err == nil {
		t.Error("a page of none was accepted")
	}
}

// Nothing that a caller gives becomes SQL.
func TestListBindsEveryValue(t *testing.T) {
	const evil = "x'; DROP TABLE certificates --"
	sql, args, err := listQuery(ca.Filter{
		Namespace: evil, Query: evil, Profile: evil, Issuer: evil, Limit: 1,
		Cursor: cursor{serial: make([]byte, serialLength), issuer: evil}.String(),
	}, &cursor{serial: make([]byte, serialLength), issuer: evil})
	if err != nil || strings.Contains(sql, "DROP") || strings.Contains(sql, "?") || len(args) != 10 {
		t.Errorf("%s %v %v", sql, args, err)
	}
}

func TestLatestMigration(t *testing.T) {
	files := fstest.MapFS{"00002_b.sql": {}, "00010_c.sql": {}, "00001_a.sql": {}, "notes.txt": {}}
	if n, err := latestMigration(files); n != 10 || err != nil {
		t.Errorf("the latest is %d, %v; want 10", n, err)
	}
	if _, err := latestMigration(fstest.MapFS{"first.sql": {}}); err == nil {
		t.Error("a migration without a number was accepted")
	}
}

// A lock that an intent waits for in vain must not take a certificate with it; with the database away nothing is tried again.
func TestHowAFailedLotIsParted(t *testing.T) {
	i, c := issuanceItem{intent: &intentItem{}}, issuanceItem{certificate: &certificateItem{}}
	locked, bad := describe("", &pgconn.PgError{Code: "55P03"}), describe("", &pgconn.PgError{Code: "22P05"})
	away := describe("", &pgconn.PgError{Code: "53100"})
	for name, tt := range map[string]struct {
		items         []issuanceItem
		err           error
		first, second []int
	}{
		"mixed, locked":    {[]issuanceItem{i, c, i, c}, locked, []int{1, 3}, []int{0, 2}},
		"mixed, bad":       {[]issuanceItem{c, i}, bad, []int{0}, []int{1}},
		"mixed, away":      {[]issuanceItem{c, i}, away, nil, nil},
		"intents, locked":  {[]issuanceItem{i, i}, locked, nil, nil},
		"intents, bad":     {[]issuanceItem{i, i, i}, bad, []int{0}, []int{1, 2}},
		"one, bad":         {[]issuanceItem{i}, bad, nil, nil},
		"certificates bad": {[]issuanceItem{c, c}, bad, []int{0}, []int{1}},
	} {
		if first, second := partedIssuances(tt.items, tt.err); !slices.Equal(first, tt.first) || !slices.Equal(second, tt.second) {
			t.Errorf("%s: %v and %v", name, first, second)
		}
	}
}
