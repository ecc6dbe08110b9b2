package audit

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Tile is a tile of hashes, or a bundle of entries, in the layout of C2SP tlog-tiles.
type Tile struct {
	Level int   // -1: entries
	N     int64 // which of its level
	Width int   // 1 to TileWidth
}

// entriesLevel is how a bundle of entries is told from a tile.
const entriesLevel = -1

// ParseTile reads the path of a tile below "tile/": <level>/<N>[.p/<width>], where the level is a number or "entries".
func ParseTile(path string) (Tile, error) {
	level, rest, _ := strings.Cut(path, "/")
	if level == "data" {
		return Tile{}, errTilePath // tlog's word for entries, which is not the layout's
	}
	if level == "entries" {
		level = "data"
	}
	t, err := tlog.ParseTilePath("tile/" + strconv.Itoa(TileHeight) + "/" + level + "/" + rest)
	if err != nil || t.L > 63/TileHeight || t.N > 1<<54 {
		return Tile{}, errTilePath
	}
	return Tile{Level: t.L, N: t.N, Width: t.W}, nil
}

var errTilePath = errors.New("audit: this is no path of a tile")

// Entries tells whether it is a bundle of entries.
func (t Tile) Entries() bool { return t.Level == entriesLevel }

// Partial tells whether it is not complete: it will be superseded.
func (t Tile) Partial() bool { return t.Width < TileWidth }

// Range are the hashes of a tile; of a bundle, the indexes of its entries.
func (t Tile) Range() Range {
	return tileRange(tlog.Tile{H: TileHeight, L: max(t.Level, 0), N: t.N, W: t.Width})
}

// In tells whether the tree of a size has the tile.
func (t Tile) In(size int64) bool { return t.Range().To <= size>>(max(t.Level, 0)*TileHeight) }

// TileData is the content of a tile of hashes.
func TileData(hashes []Hash) []byte { return tileData(hashes) }

// AppendEntry adds a leaf to a bundle of entries: its length in two octets, and the leaf, of at most MaxLeaf octets.
func AppendEntry(bundle, leaf []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
}

// ParseEntries reads a bundle of entries.
func ParseEntries(bundle []byte) (leaves [][]byte, err error) {
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return nil, errors.New("audit: a bundle of entries ends in the middle of one")
		}
		n := 2 + int(binary.BigEndian.Uint16(bundle))
		leaves, bundle = append(leaves, bundle[2:n:n]), bundle[n:]
		if len(leaves) > TileWidth {
			return nil, errors.New("audit: a bundle has more entries than there are in one")
		}
	}
	return leaves, nil
}
