package storage

import "github.com/chancery-ca/chancery/issuance"

// Intents and Completions tell of the writes that share transactions: whether a lot is under way, and how many writes wait for the next.
func (s *Store) Intents() (underWay bool, waiting int)     { return s.intents.state() }
func (s *Store) Completions() (underWay bool, waiting int) { return s.issued.state() }

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
