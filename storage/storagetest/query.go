package storagetest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Column reads one text column as the database's owner, for tests that look behind the store's back.
func (d *Database) Column(tb testing.TB, sql string, args ...any) []string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.OwnerURL)
	if err != nil {
		tb.Fatalf("connecting as the owner: %v", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return values
}
