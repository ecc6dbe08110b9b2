package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
)

const (
	selectPrivate = `
	SELECT event_id::text, field FROM audit_private
	WHERE ($1 = '' OR event_id::text = $1) AND ($2 = '' OR field = $2) AND ($3 = '' OR value = $3) ORDER BY event_id, field`

	deletePrivate = `
	DELETE FROM audit_private WHERE ($1 = '' OR event_id::text = $1) AND ($2 = '' OR field = $2) AND ($3 = '' OR value = $3)`
)

// PrivateText names a private text of an event.
type PrivateText struct {
	Event string `json:"event"`
	Field string `json:"field"`
}

// PrivateFilter selects private texts. Whatever is given must fit, and something must be.
type PrivateFilter struct {
	Event string // ID
	Field string
	Value string // the whole text, such as a person's name
}

// ErasePrivate erases private texts of events, with their salts, and records the leaf in the same transaction; the log stays as it is. The
// login must be that of the database's owner: the service cannot do it. It returns what is erased; with no leaf nothing is, and it returns
// what would be.
func ErasePrivate(ctx context.Context, url string, f PrivateFilter,
	leaf func([]PrivateText) (audit.Leaf, error),
) (texts []PrivateText, err error) {
	const doing = "erasing private texts"
	if f.Event == "" && f.Value == "" {
		return nil, errors.New("erasing private texts: of which event, or of which value?")
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errBadURL
	}
	settle(config)
	config.RuntimeParams["enable_seqscan"] = "on" // an empty filter makes the index useless, and this is done once in a while
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, describe("connecting to erase", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectPrivate, f.Event, f.Field, f.Value)
		if err != nil {
			return err
		}
		if texts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[PrivateText]); err != nil || len(texts) == 0 || leaf == nil {
			return err
		}
		erased, err := tx.Exec(ctx, deletePrivate, f.Event, f.Field, f.Value)
		if err != nil {
			return err
		}
		if erased.RowsAffected() != int64(len(texts)) {
			return errors.New("others were added in the meantime: try again")
		}
		l, err := leaf(texts)
		if err != nil {
			return err
		}
		return addLeaves(ctx, tx, []audit.Leaf{l})
	})
	if sqlState(err) == "42501" {
		return nil, fmt.Errorf("%s: this login may not: use that of the database's owner", doing)
	}
	return texts, describe(doing, err)
}
