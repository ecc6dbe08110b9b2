package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// statement is SQL that is put together from conditions, with its arguments. What a caller says is among the arguments alone.
type statement struct {
	strings.Builder
	args []any
}

// where adds a condition, in which each ? stands for one of the values.
func (s *statement) where(condition string, values ...any) {
	s.WriteString(" AND ")
	for _, v := range values {
		s.args = append(s.args, v)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(s.args)), 1)
	}
	s.WriteString(condition)
}

// byID is what is known by UUIDs that begin with their time.
type byID[T any] struct {
	what      string // for people, in the plural
	selected  string // the statement up to and with a first condition
	id        string // the columns of the identifier and of the namespace
	namespace string
	scan      pgx.RowToFunc[T]
	idOf      func(T) string
}

// page reads one page, newest first.
func (b byID[T]) page(ctx context.Context, s *Store, namespace, cursor string, limit int) (page []T, next string, err error) {
	if limit < 1 || limit > maxListed {
		return nil, "", &ca.InvalidError{Field: "limit", Message: fmt.Sprintf("a page has 1 to %d %s", maxListed, b.what), Hint: "leave it out"}
	}
	var sql statement
	sql.WriteString(b.selected)
	if namespace != access.AllNamespaces {
		sql.where(b.namespace+" = ?", namespace)
	}
	if cursor != "" {
		sql.where(b.id+" < ?::text::uuid", cursor)
	}
	fmt.Fprintf(&sql, " ORDER BY %s DESC LIMIT %d", b.id, limit+1)
	err = s.read(ctx, "listing "+b.what, func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, sql.String(), sql.args...)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, b.scan)
		return err
	})
	if isNoUUID(err) {
		return nil, "", errCursor()
	}
	if err == nil && len(page) > limit {
		page = page[:limit]
		next = b.idOf(page[limit-1])
	}
	return page, next, err
}

func errCursor() error {
	return &ca.InvalidError{Field: "cursor", Message: "this cursor did not come from a page", Hint: "start from the first page"}
}

// isNoUUID tells whether a text that should be a UUID is none.
func isNoUUID(err error) bool { return sqlState(err) == "22P02" }

// isNothing tells whether there is nothing with an identifier, which need not be one.
func isNothing(err error) bool { return errors.Is(err, pgx.ErrNoRows) || isNoUUID(err) }
