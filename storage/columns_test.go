package storage

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"
)

// TestColumnsAreWrittenAsPgxWould holds columnCodec against pgx's own codec, octet for octet.
func TestColumnsAreWrittenAsPgxWould(t *testing.T) {
	ours, theirs := pgtype.NewMap(), pgtype.NewMap()
	writeColumns(ours)
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, -1, 2000))
	values := map[uint32]*rapid.Generator[any]{
		pgtype.ByteaArrayOID: rapid.Custom(func(t *rapid.T) any {
			if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
				return []byte(nil)
			}
			return slices.Concat([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "octets"))
		}),
		pgtype.TextArrayOID: rapid.Custom(func(t *rapid.T) any {
			s := text.Draw(t, "text")
			switch rapid.IntRange(0, 9).Draw(t, "form") {
			case 0:
				return (*string)(nil)
			case 1:
				return &s
			}
			return s
		}),
	}
	for array := range values {
		rapid.Check(t, func(t *rapid.T) {
			var c columns
			for range rapid.IntRange(1, 40).Draw(t, "rows") {
				c.add(values[array].Draw(t, "first"), time.Time{}, values[array].Draw(t, "third"))
			}
			before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
			for _, place := range []int{0, 2} {
				value := c.arrays()[place]
				got, err := ours.Encode(array, pgtype.BinaryFormatCode, value, slices.Clone(before))
				if err != nil {
					t.Fatal(err)
				}
				want, err := theirs.Encode(array, pgtype.BinaryFormatCode, value, slices.Clone(before))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%x, and pgx writes %x", got, want)
				}
			}
		})
	}
}

// What columnCodec does not know it leaves to pgx, what pgx refuses with it.
func TestColumnsOfOtherValues(t *testing.T) {
	types := pgtype.NewMap()
	writeColumns(types)
	write := func(value any) ([]byte, error) {
		return types.Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, value, nil)
	}
	for _, value := range []any{[]string{"a", "b"}, column{[][]any{{"a"}, {pgtype.Text{String: "b", Valid: true}}}, 0}} {
		got, err := write(value)
		want := []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01a\x00\x00\x00\x01b")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v is written as %x, %v", value, got, err)
		}
	}
	for _, wrong := range []any{column{[][]any{{struct{}{}}}, 0}, 7} {
		if got, err := write(wrong); err == nil {
			t.Errorf("%v is written as %x", wrong, got)
		}
	}
}
