package ca

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/access"
)

// Holder is a certificate whose holder wants to come in by it: as it is on record, and how it stands now.
type Holder struct {
	Certificate
	Good bool // neither revoked nor on hold, and its authority is not revoked
}

// HolderOf finds what an authority has issued under a serial, for who judges client certificates. ErrNotFound when it has issued no such
// certificate; a precertificate and an orphan are none that anybody could come in by.
func (c *CA) HolderOf(ctx context.Context, authority string, serial []byte) (Holder, error) {
	a, open := c.authorities[authority]
	if !open {
		return Holder{}, fmt.Errorf("authority %q: %w", authority, ErrNotFound)
	}
	all, err := c.store.Certificates(ctx, authority, serial, access.AllNamespaces)
	if err != nil {
		return Holder{}, fmt.Errorf("reading the certificate of serial %x: %w", serial, err)
	}
	for _, found := range all {
		if found.Orphan || len(found.DER) == 0 {
			continue
		}
		status := found.Status(c.now())
		good := status != "revoked" && status != "on-hold"
		if good && a.Parent != "" {
			_, err := c.store.LatestRevocation(ctx, a.Parent, a.Certificate.SerialNumber.Bytes())
			if err != nil && !errors.Is(err, ErrNotFound) {
				return Holder{}, fmt.Errorf("reading how authority %q stands: %w", authority, err)
			}
			good = err != nil
		}
		return Holder{Certificate: found, Good: good}, nil
	}
	return Holder{}, fmt.Errorf("serial %x of authority %q: %w", serial, authority, ErrNotFound)
}
