package ca

import "context"

// RevocationFeed tells a replica what is revoked, by whichever replica.
type RevocationFeed interface {
	// RevocationsSince gives the entries written since a position, in no order, and the position to go on from. Some may be given again:
	// of the entries of one certificate (issuer and serial) the one with the highest sequence is its state. None is missed, however late
	// its transaction commits. The zero position, and one that the server knows no more (after a crash or a failover), gives all entries
	// of certificates that have not expired. Comment, actor and event are left out. An error of yield's ends it, and is returned.
	RevocationsSince(ctx context.Context, from FeedPosition, yield func(Revocation) error) (FeedPosition, error)
	// FeedPosition is the position now: from there on RevocationsSince gives what is written later.
	FeedPosition(ctx context.Context) (FeedPosition, error)
	// WatchRevocations calls changed whenever a revocation has been written, soon after its commit, until the context ends; and each second
	// while it cannot tell. Changed is also called at the start, and must return at once.
	WatchRevocations(ctx context.Context, changed func())
}

// FeedPosition is a place in the feed of revocations. The zero value lies before everything.
type FeedPosition struct {
	Server string // which server, and which of its lives
	Xact   uint64 // every transaction before it has ended, and what it wrote has been seen
}

// Leads tells whether a later position is one of the same life, so that nothing is missed between the two. A number never falls in a life:
// where it has, an older copy of the server goes on in its place, as a machine does that was set back, and gives numbers again.
func (p FeedPosition) Leads(later FeedPosition) bool {
	return p.Server == later.Server && p.Xact <= later.Xact
}
