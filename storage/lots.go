package storage

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

// issuanceItem is one of the two writes of an issuance: an intent, or the certificate that closes it. Both share transactions, because what
// a transaction costs is paid once for either.
type issuanceItem struct {
	intent      *intentItem
	certificate *certificateItem
}

// namespace is whom the write is for.
func (i issuanceItem) namespace() string {
	if i.intent != nil {
		return i.intent.Request.Namespace
	}
	return i.certificate.Namespace
}

// issuanceLot is a lot told apart by kind, with the place of each item in it.
type issuanceLot struct {
	intents                   []*intentItem
	certificates              []*certificateItem
	intentsAt, certificatesAt []int
}

func newIssuanceLot(items []issuanceItem) (l issuanceLot) {
	for n, i := range items {
		if i.intent != nil {
			l.intents, l.intentsAt = append(l.intents, i.intent), append(l.intentsAt, n)
			continue
		}
		l.certificates, l.certificatesAt = append(l.certificates, i.certificate), append(l.certificatesAt, n)
	}
	return l
}

// recordIssuances writes intents and certificates in one transaction and one round trip.
func (s *Store) recordIssuances(ctx context.Context, items []issuanceItem) (outcomes []error, sent bool, err error) {
	lot := newIssuanceLot(items)
	var intents, certificates []error
	sent, err = s.inOneTrip(ctx, func(b *pgx.Batch) {
		if len(lot.intents) > 0 { // first, while nothing is held that others wait for
			b.Queue(lockKeysShared, keyLocks(lot.intents))
		}
		if len(lot.certificates) > 0 { // they wait for nobody, and intents may have to
			certificates = queueCertificates(b, lot.certificates)
		}
		if len(lot.intents) > 0 {
			intents = queueIntents(b, lot.intents)
		}
	})
	if err != nil {
		return nil, sent, err
	}
	return merged(lot, intents, certificates, len(items)), sent, nil
}

// issuancesOnRecord tells which of them are on record exactly as they were meant.
func issuancesOnRecord(ctx context.Context, db querier, items []issuanceItem) ([]bool, error) {
	lot := newIssuanceLot(items)
	var intents, certificates []bool
	var err error
	if len(lot.intents) > 0 {
		if intents, err = intentsOnRecord(ctx, db, lot.intents); err != nil {
			return nil, err
		}
	}
	if len(lot.certificates) > 0 {
		if certificates, err = certificatesOnRecord(ctx, db, lot.certificates); err != nil {
			return nil, err
		}
	}
	return merged(lot, intents, certificates, len(items)), nil
}

// merged puts what became of intents and of certificates back into the places of the items.
func merged[T any](l issuanceLot, intents, certificates []T, n int) []T {
	all := make([]T, n)
	for i, at := range l.intentsAt {
		all[at] = intents[i]
	}
	for i, at := range l.certificatesAt {
		all[at] = certificates[i]
	}
	return all
}

// partedIssuances are the certificates and the intents where a lot has both: a certificate waits for nobody, and shall not be held up by a
// lock that an intent needs and that is not to be had. Otherwise they are halves.
func partedIssuances(items []issuanceItem, err error) (first, second []int) {
	lot := newIssuanceLot(items)
	mixed := len(lot.intents) > 0 && len(lot.certificates) > 0
	if mixed && (!errors.Is(err, ca.ErrUnavailable) || isLocked(err)) {
		return lot.certificatesAt, lot.intentsAt
	}
	return halves(items, err)
}
