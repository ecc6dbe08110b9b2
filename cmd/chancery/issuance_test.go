package main

import (
	"strings"
	"testing"
	"time"
)

func TestIntentsForPeople(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var text strings.Builder
	writeIntents(&text,
		[]shownIntent{
			{Serial: "1c01", Issuer: "issuing-1", Kind: "final", Replica: "alpha", LeaseUntil: &at},
			{Serial: "1c02", Issuer: "issuing-1", Kind: "final", Replica: "beta", LeaseUntil: &at, Expired: true},
		},
		[]shownIntent{{Serial: "1c03", Issuer: "issuing-1", Kind: "final", SettledAt: &at, Reason: "its replica died"}})
	want := `open     1c01  issuing-1  final  alpha                 until 2026-11-25T12:00:00Z
open     1c02  issuing-1  final  beta                  its lease has run out: a replica that runs will settle it
settled  1c03  issuing-1  final  2026-11-25T12:00:00Z  its replica died
`
	if text.String() != want {
		t.Errorf("got\n%s", text.String())
	}
}
