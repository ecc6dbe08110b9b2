// Package storage keeps what must last, in Postgres: it is the ca.Store, and it keeps API tokens.
//
// It owns all SQL; one file per subject holds the statements next to the methods that run them. Every write is one transaction with
// its audit leaves; tx.go says what happens when a commit's acknowledgement is lost. The service works under a role of its own
// that can add facts and never change or remove them.
package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// ServiceRole is the role that the service works as. The migrations make it.
const ServiceRole = "chancery_service"

// AuditorRole is the role that can read what is on record and change nothing. The migrations make it.
const AuditorRole = "chancery_auditor"

// Config says which database is used, and how.
type Config struct {
	URL      string       // postgres://… or key=value; never shown in errors
	MaxConns int          // 0: 20
	Role     string       // empty: ServiceRole; as AuditorRole, every transaction is read-only
	Unsafe   bool         // accept a server that may lose acknowledged commits: for tests alone
	Standbys int          // how many standbys must have a commit before it is acknowledged; a server that waits for fewer is refused
	Alone    bool         // calls share neither transactions nor queries: to measure what sharing is worth
	Log      *slog.Logger // nil: nowhere
}

const (
	defaultMaxConns = 20
	// callTimeout bounds a call whose context has no deadline of its own.
	callTimeout = 30 * time.Second
)

// Store is a ca.Store on a pool of connections. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	log     *slog.Logger
	covered atomic.Pointer[span] // the months that are known to have partitions

	listReach  int  // see listReach
	replicated bool // the configuration asks for standbys that have what is acknowledged

	renewing sync.Mutex
	renewed  time.Time // when all connections were, the last time

	// Calls that come at the same time are worked on together.
	issuances   *group[issuanceItem, struct{}]
	compromised *group[[32]byte, bool]
	actors      *group[[32]byte, *access.Actor]
}

var _ ca.Store = (*Store)(nil)

// Open connects, and refuses a database that cannot keep what it acknowledges (*UnsafeError), one whose schema is not this program's
// (ErrSchema), and a role or a login that could change facts (ErrPrivileges). It makes the partitions of the coming months.
func Open(ctx context.Context, c Config) (*Store, error) {
	config, err := poolConfig(c)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, describe("opening the database", err)
	}
	s := &Store{pool: pool, log: c.Log, listReach: listReach, replicated: c.Standbys > 0}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.issuances = newWriteGroup(s, groupWrite[issuanceItem]{
		"recording an issuance", s.recordIssuances, issuanceItem.namespace, issuancesOnRecord, partedIssuances,
	})
	s.compromised = readGroup(s, "looking up a key", compromisedKeys)
	s.actors = readGroup(s, "looking up an API token", actorsByToken)
	s.issuances.alone, s.compromised.alone, s.actors.alone = c.Alone, c.Alone, c.Alone
	if err := s.check(ctx, c.Role == AuditorRole); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) check(ctx context.Context, reads bool) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return describe("opening the database", err)
	}
	defer conn.Release()
	if err := checkSchema(ctx, conn.Conn()); err != nil {
		return err
	}
	if reads {
		return checkReader(ctx, conn.Conn())
	}
	if err := checkPrivileges(ctx, conn.Conn()); err != nil {
		return err
	}
	if err := checkLogin(ctx, conn.Conn()); err != nil {
		return err
	}
	now, err := serverTime(ctx, conn)
	if err != nil {
		return describe("opening the database", err)
	}
	return s.ensurePartitions(ctx, conn, now)
}

func poolConfig(c Config) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, errBadURL // the cause quotes the URL, password and all
	}
	settle(config.ConnConfig)
	config.MaxConns = defaultMaxConns
	if c.MaxConns > 0 {
		config.MaxConns = int32(min(c.MaxConns, 10_000))
	}
	role := cmp.Or(c.Role, ServiceRole)
	if role == AuditorRole {
		config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		writeColumns(conn.TypeMap())
		kept, err := takeRole(ctx, conn, role)
		if err != nil || c.Unsafe {
			return err
		}
		return kept.check(c.Standbys)
	}
	return config, nil
}

var errBadURL = errors.New("the database URL cannot be read; it looks like postgres://user@host:5432/chancery?sslmode=verify-full")

// settle gives a connection the settings that all of ours have.
func settle(c *pgx.ConnConfig) {
	const connectTimeout = 5 * time.Second
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	c.DialFunc = dialer().DialContext
	for name, value := range map[string]string{
		"application_name":                    "chancery",
		"search_path":                         "public",
		"timezone":                            "UTC",
		"default_transaction_isolation":       "read committed",
		"statement_timeout":                   "30s",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "15s",
		// A plan is made once for each connection, perhaps while the tables are empty, and serves when they are full, or when the
		// open intents are few among many dead ones. Every statement has an index that is right in all these cases.
		"enable_seqscan": "off",
		"jit":            "off", // compiling a statement takes longer than any of these runs
	} {
		c.RuntimeParams[name] = value
	}
}

// Close ends all connections. It waits for those in use.
func (s *Store) Close() { s.pool.Close() }

// Ping tells whether the database can be written to now, by writing to its log; if not, with an error that wraps ca.ErrUnavailable.
func (s *Store) Ping(ctx context.Context) error {
	const sql = `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean`
	var readOnly bool
	began := time.Now()
	if err := s.read(ctx, "asking the database", func(ctx context.Context, db querier) error {
		if err := db.QueryRow(ctx, sql).Scan(&readOnly); err != nil || readOnly {
			return err
		}
		return db.QueryRow(ctx, durableSoFar).Scan(nil)
	}); err != nil {
		return err
	}
	if readOnly {
		s.renew(began) // after a failover the address may lead to another server
		return fmt.Errorf("asking the database: it is read-only: %w", ca.ErrUnavailable)
	}
	return nil
}

// ServerTime is the database's clock, by which leases and the expiry of tokens are judged.
func (s *Store) ServerTime(ctx context.Context) (now time.Time, err error) {
	err = s.read(ctx, "reading the database's clock", func(ctx context.Context, db querier) (err error) {
		now, err = serverTime(ctx, db)
		return err
	})
	return now, err
}

func serverTime(ctx context.Context, db querier) (time.Time, error) {
	var now time.Time
	err := db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now.UTC(), err
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}
