package storage

import (
	"bytes"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// Issuances tells of the intents and certificates, which share transactions: whether a lot is under way, and how many wait for the next.
func (s *Store) Issuances() (underWay bool, waiting int) { return s.issuances.state() }

func (g *group[In, Out]) state() (underWay bool, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, len(g.waiting)
}

func (g *group[In, Out]) length() int { _, n := g.state(); return n }

// LockNumber is the advisory lock of a subject key.
func LockNumber(spki [32]byte) int64 { return lockNumber(spki) }

// CursorAfter is the cursor of a page that ends with a certificate.
func CursorAfter(serial issuance.Serial, issuer string) string {
	return cursor{serial: serial[:], issuer: issuer}.String()
}

// Statement is a statement with what its arguments are made of.
type Statement struct {
	SQL       string
	Arguments func(serial []byte, issuer string) []any
}

// StatementsBySerial are the statements that look for a certificate by its serial.
func StatementsBySerial() map[string]Statement {
	return map[string]Statement{
		"look-up":              {selectCertificates, func(s []byte, _ string) []any { return []any{s} }},
		"look-up of an issuer": {selectCertificatesOfIssuer, func(s []byte, issuer string) []any { return []any{s, issuer} }},
		"same certificates": {selectSameCertificates, func(s []byte, issuer string) []any {
			return []any{[][]byte{s}, []string{issuer}, []string{"final"}, [][]byte{{0x30}}}
		}},
		"same precertificate": {selectSamePrecertificate, func(s []byte, issuer string) []any { return []any{s, issuer, []byte{0x30}} }},
		"export": {exportCertificates, func(s []byte, issuer string) []any {
			until := append(bytes.Clone(s), 0) // the next there is
			return []any{s, until, issuer, "final", 10}
		}},
	}
}

// Lot is the statement of a lot with its arguments.
type Lot struct {
	SQL       string
	Arguments []any
}

// LotStatements are the statements of lots of intents and of certificates.
func LotStatements(intents []ca.Intent, certificates []ca.NewCertificate) map[string]Lot {
	var wanted []*intentItem
	for _, i := range intents {
		item, err := newIntentItem(i, nil)
		if err != nil {
			panic(err)
		}
		wanted = append(wanted, &item)
	}
	var signed []*certificateItem
	for _, c := range certificates {
		signed = append(signed, &certificateItem{NewCertificate: c})
	}
	return map[string]Lot{
		"intents":      {insertIntents, intentColumns(wanted)},
		"certificates": {insertCertificates, append(certificateArrays(signed), keyLocks(wanted))},
	}
}

// LookUpTokens is the statement that looks tokens up by their digests.
const LookUpTokens = selectActors

// ListQuery is the statement of a page.
func ListQuery(f ca.Filter) (sql string, args []any, err error) { return listQuery(f, nil) }

// SetListReach has pages look through fewer certificates than usual.
func (s *Store) SetListReach(n int) { s.listReach = n }
