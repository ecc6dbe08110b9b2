package storage

// Intents and Completions tell of the writes that share transactions: whether a lot is under way, and how many writes wait for the next.
func (s *Store) Intents() (underWay bool, waiting int)     { return s.issuances.state() }
func (s *Store) Completions() (underWay bool, waiting int) { return s.issuances.state() }

func (g *group[In, Out]) state() (underWay bool, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, len(g.waiting)
}

func (g *group[In, Out]) length() int { _, n := g.state(); return n }

// LockNumber is the advisory lock of a subject key.
func LockNumber(spki [32]byte) int64 { return lockNumber(spki) }
