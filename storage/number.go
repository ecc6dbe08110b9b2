package storage

import (
	"fmt"
	"math/big"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-ca/chancery/ca"
)

// maxNumber bounds CRL numbers: at most 20 octets and positive (RFC 5280, section 5.2.3).
var maxNumber = new(big.Int).Lsh(big.NewInt(1), 159)

// formatNumber writes a CRL number as Postgres reads a numeric.
func formatNumber(n *big.Int) (string, error) {
	if n == nil || n.Sign() <= 0 || n.Cmp(maxNumber) >= 0 {
		return "", fmt.Errorf("a CRL number lies between 1 and 2^159-1, and %v does not", n)
	}
	return n.String(), nil
}

func parseNumber(s string) (*big.Int, error) {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("reading a CRL number: %q is none", s)
	}
	return n, nil
}

// mustMatch turns an update that found no row to update into ErrFenced.
func mustMatch(tag pgconn.CommandTag, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		return ca.ErrFenced
	}
	return err
}
