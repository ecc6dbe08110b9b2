package storage

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// columns are rows by their columns: the arrays that unnest makes rows of again, so that one statement writes any number of them.
type columns struct{ rows [][]any }

// add appends a row. All rows have values of the same types in the same places. A nil []byte or pointer becomes NULL.
func (c *columns) add(row ...any) { c.rows = append(c.rows, row) }

// arrays are the columns as arguments of a statement; none where there is no row.
func (c columns) arrays() []any {
	if len(c.rows) == 0 {
		return nil
	}
	all := make([]any, len(c.rows[0]))
	for i := range all {
		all[i] = column{c.rows, i}
	}
	return all
}

// column is one of them, as pgx reads it (pgtype.ArrayGetter).
type column struct {
	rows  [][]any
	place int
}

func (c column) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(c.rows)), LowerBound: 1}}
}

func (c column) Index(i int) any { return c.rows[i][c.place] }

// IndexType leaves it to pgx to look at each value.
func (c column) IndexType() any { return nil }

// textArray is the text form of a Postgres array (PostgreSQL, section 8.15.6). An array of arrays of different lengths has no other.
func textArray(elements []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elements {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for j := range len(e) {
			if e[j] == '"' || e[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(e[j])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// places tells where in a lot the item of a serial is.
func places[T any](items []T, serial func(T) issuance.Serial) map[issuance.Serial]int {
	place := make(map[issuance.Serial]int, len(items))
	for i, item := range items {
		place[serial(item)] = i
	}
	return place
}

// onRecord runs a query that returns the serials of those items that it finds. There is a row of columns for each item.
func onRecord(ctx context.Context, db querier, sql string, c columns, place map[issuance.Serial]int) ([]bool, error) {
	found := make([]bool, len(c.rows)) // of two items of one serial the second counts, and the first is tried by itself
	rows, err := db.Query(ctx, sql, c.arrays()...)
	if err != nil {
		return nil, err
	}
	var serial []byte
	_, err = pgx.ForEachRow(rows, []any{&serial}, func() error {
		found[place[issuance.Serial(serial)]] = true
		return nil
	})
	return found, err
}

// leavesOf are the leaves of all items, each with the key of the item that it goes with: four arrays.
func leavesOf[T any](items []T, of func(T) (key []byte, leaves []audit.Leaf)) []any {
	var c columns
	for _, item := range items {
		key, leaves := of(item)
		for _, l := range leaves {
			c.add(l.ID(), string(l.Kind()), l.Bytes(), key)
		}
	}
	if len(c.rows) == 0 {
		return []any{[]string{}, []string{}, [][]byte{}, [][]byte{}}
	}
	return c.arrays()
}

// octets are digests as values of bytea.
func octets(digests [][32]byte) [][]byte {
	all := make([][]byte, len(digests))
	for i := range digests {
		all[i] = digests[i][:]
	}
	return all
}
