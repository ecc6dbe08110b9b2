package storage

import (
	"context"
	"encoding/binary"
	"slices"
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

// columnCodec writes columns of octets and of text. pgx looks at each value by reflection, and lets the buffer grow with what is written,
// which copied the octets of a lot some times over.
type columnCodec struct {
	pgtype.Codec // pgx's own, for everything else
	element      uint32
}

// writeColumns has columns written by columnCodec.
func writeColumns(types *pgtype.Map) {
	for array, element := range map[uint32]uint32{pgtype.ByteaArrayOID: pgtype.ByteaOID, pgtype.TextArrayOID: pgtype.TextOID} {
		if t, known := types.TypeForOID(array); known {
			types.RegisterType(&pgtype.Type{Name: t.Name, OID: t.OID, Codec: columnCodec{t.Codec, element}})
		}
	}
}

func (c columnCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	plan := c.Codec.PlanEncode(m, oid, format, value)
	if _, ok := value.(column); ok && format == pgtype.BinaryFormatCode {
		return columnPlan{plan, c.element}
	}
	return plan
}

type columnPlan struct {
	pgtype.EncodePlan
	element uint32
}

// Encode writes an array of one dimension in Postgres' binary form (array_send): how many dimensions it has, whether there are NULLs, the type of
// its elements, how many there are, the first one's number, and each with its length before it.
func (p columnPlan) Encode(value any, buf []byte) ([]byte, error) {
	c, begin := value.(column), len(buf)
	if c.place == 0 {
		buf = slices.Grow(buf, c.octets())
	}
	for _, word := range []uint32{1, 0, p.element, uint32(len(c.rows)), 1} {
		buf = binary.BigEndian.AppendUint32(buf, word)
	}
	for _, row := range c.rows {
		switch v := row[c.place].(type) {
		case []byte:
			if v == nil {
				buf = appendNull(buf, begin)
				continue
			}
			buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(v))), v...)
		case string:
			buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(v))), v...)
		case *string:
			if v == nil {
				buf = appendNull(buf, begin)
				continue
			}
			buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(*v))), *v...)
		default:
			return p.EncodePlan.Encode(value, buf[:begin])
		}
	}
	return buf, nil
}

// appendNull writes a NULL, and that there are some in the array that begins at begin.
func appendNull(buf []byte, begin int) []byte {
	binary.BigEndian.PutUint32(buf[begin+4:], 1)
	return binary.BigEndian.AppendUint32(buf, 1<<32-1)
}

// octets is about what all the columns are together when they are written.
func (c column) octets() (total int) {
	const header, length, other = 20, 4, 16 // an array's, each element's, and what one is at most that is neither text nor octets
	for _, row := range c.rows {
		for _, value := range row {
			total += length
			switch v := value.(type) {
			case []byte:
				total += len(v)
			case string:
				total += len(v)
			default:
				total += other
			}
		}
	}
	return total + header*len(c.rows[0])
}

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
