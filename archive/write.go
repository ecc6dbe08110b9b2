package archive

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
)

// line is one line of a file.
type line struct {
	Kind  Kind            `json:"kind"`
	Row   json.RawMessage `json:"row"`
	LedTo *LedTo          `json:"led_to,omitempty"`
}

// Writer writes an archive. It is not safe for concurrent use.
type Writer struct {
	zip   *gzip.Writer
	out   *bufio.Writer // of what goes into zip and sum
	sum   hash.Hash
	end   End
	certs digest
	reqs  digest
	last  int // place of the last row's kind in kinds
}

// NewWriter begins an archive on w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	z := &Writer{zip: gzip.NewWriter(w), sum: sha256.New(), end: End{Counts: map[Kind]int64{}}}
	z.out = bufio.NewWriterSize(io.MultiWriter(z.zip, z.sum), 1<<16)
	h.Format = Format
	row, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("writing the header of an archive: %w", err)
	}
	return z, z.write(KindHeader, row, nil)
}

// Add writes a row: one line of JSON, taken as it is. Kinds come in their order, certificates in the order of their serials.
func (z *Writer) Add(kind Kind, row []byte, ledTo *LedTo) error {
	place := slices.Index(kinds, kind)
	if place < z.last {
		return fmt.Errorf("writing an archive: a row of kind %q stands after one of kind %q", kind, kinds[z.last])
	}
	z.last = place
	if err := z.end.count(kind, row, &z.certs, &z.reqs); err != nil {
		return fmt.Errorf("writing an archive: %w", err)
	}
	return z.write(kind, row, ledTo)
}

func (z *Writer) write(kind Kind, row []byte, ledTo *LedTo) error {
	fmt.Fprintf(z.out, `{"kind":%q,"row":`, kind) // a bufio.Writer keeps its first error
	_, err := z.out.Write(row)
	if ledTo != nil {
		var tail []byte
		if tail, err = json.Marshal(ledTo); err == nil {
			fmt.Fprintf(z.out, `,"led_to":%s`, tail)
		}
	}
	if err == nil {
		_, err = z.out.WriteString("}\n")
	}
	if err != nil {
		return fmt.Errorf("writing an archive: %w", err)
	}
	return nil
}

// Close writes the end and returns it. The writer below is left open.
func (z *Writer) Close() (End, error) {
	if err := z.out.Flush(); err != nil {
		return End{}, fmt.Errorf("writing an archive: %w", err)
	}
	z.end.CertificatesDigest, z.end.RequestsDigest = hex.EncodeToString(z.certs[:]), hex.EncodeToString(z.reqs[:])
	z.end.SHA256 = hex.EncodeToString(z.sum.Sum(nil))
	row, err := json.Marshal(z.end)
	if err != nil {
		return End{}, fmt.Errorf("writing the end of an archive: %w", err)
	}
	if err := z.write(KindEnd, row, nil); err != nil {
		return End{}, err
	}
	if err := z.out.Flush(); err != nil {
		return End{}, fmt.Errorf("writing an archive: %w", err)
	}
	if err := z.zip.Close(); err != nil {
		return End{}, fmt.Errorf("writing an archive: %w", err)
	}
	return z.end, nil
}

// count takes a row into the account of a file: writer and reader come to the same end by it.
func (e *End) count(kind Kind, row []byte, certs, reqs *digest) error {
	if e.Counts == nil {
		e.Counts = map[Kind]int64{}
	}
	e.Counts[kind]++
	switch kind {
	case KindRequest:
		reqs.add(row)
	case KindCertificate:
		certs.add(row)
		var c struct {
			Serial Octets `json:"serial"`
		}
		if err := json.Unmarshal(row, &c); err != nil {
			return fmt.Errorf("a certificate has no serial: %w", err)
		}
		serial := hex.EncodeToString(c.Serial)
		if serial < e.LastSerial {
			return fmt.Errorf("certificate %s stands after %s", serial, e.LastSerial)
		}
		if e.FirstSerial == "" {
			e.FirstSerial = serial
		}
		e.LastSerial = serial
	}
	return nil
}
