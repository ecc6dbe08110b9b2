package storage_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// BenchmarkScale measures a database that holds ROWS certificates (20,000 when the environment does not say), with their requests, audit
// leaves (those of the last three months, to spare the disk) and revocations, in two years of months, beside an empty one. docs/scale.md
// has its figures for ten million.
func BenchmarkScale(b *testing.B) {
	rows := 20_000
	if testing.Short() {
		rows = 10 * scaleMonths
	}
	if text := os.Getenv("ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil || rows < scaleMonths {
			b.Fatalf("ROWS=%s is no number of certificates of at least %d", text, scaleMonths)
		}
	}
	full := &scale{rows: rows, now: time.Now().UTC(), Server: storagetest.NewServer(b, storagetest.Options{Durable: true})}
	settle(b, full.Server, "wal_level = 'minimal'", "max_wal_senders = 0", "shared_buffers = '1GB'", "max_wal_size = '4GB'")
	began := time.Now()
	full.load(b)
	full.say(b, "loaded %d certificates in %s", rows, time.Since(began).Round(time.Second))
	settle(b, full.Server, "wal_level = DEFAULT", "max_wal_senders = DEFAULT")
	full.sizes(b)
	store := full.Store(b)
	b.Run("lookup", func(b *testing.B) { full.lookUps(b, store) })
	b.Run("list", func(b *testing.B) { full.lists(b, store) })
	b.Run("keys", func(b *testing.B) { full.keys(b, store) })
	b.Run("history", func(b *testing.B) { full.history(b, store) })
	b.Run("crl", func(b *testing.B) { full.crl(b, store) })
	b.Run("issue", func(b *testing.B) { full.beside(b) })
}

const (
	scaleMonths     = 25   // the present one is the last
	scaleLeaves     = 3    // months whose audit leaves are loaded
	scaleLot        = 1000 // certificates whose leaves are written at once
	scaleAtOnce     = 8    // months loaded at once
	scaleNamespaces = 50
	scaleLife       = 90 * 24 * time.Hour
	scaleRevoked    = 100 // one in so many
	scaleSeed       = 11
)

type scale struct {
	*storagetest.Server
	rows int
	now  time.Time // when the last certificate was made
}

// settle changes settings of a server, and starts it anew.
func settle(b *testing.B, server *storagetest.Server, settings ...string) {
	conn := connect(b, strings.Replace(server.OwnerURL, "chancery@", "postgres@", 1))
	for _, setting := range settings {
		if _, err := conn.Exec(context.Background(), "ALTER SYSTEM SET "+setting); err != nil {
			b.Fatal(err)
		}
	}
	if err := conn.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := server.Stop("fast"); err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
}

func (s *scale) say(b *testing.B, format string, args ...any) {
	b.Helper()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// month is the beginning of the n-th month, and how many certificates are made in it. The present one ends now.
func (s *scale) month(n int) (from, until time.Time, rows int) {
	first := time.Date(s.now.Year(), s.now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, n-scaleMonths+1, 0)
	until = first.AddDate(0, 1, 0)
	if until.After(s.now) {
		until = s.now
	}
	rows = s.rows / scaleMonths
	if n == 0 {
		rows += s.rows % scaleMonths
	}
	return first, until, rows
}

// scaled is the i-th certificate of a month: the same whenever it is asked for, so that nothing need be remembered.
type scaled struct {
	at                                time.Time
	serial                            issuance.Serial
	request, issued, intended, signed uuid.UUID
	spki                              [32]byte
	namespace, name                   string
	random                            *rand.PCG // makes what only fills the rows
}

func (s *scale) certificate(n, i int) scaled {
	from, until, rows := s.month(n)
	return newScaled(from.Add(until.Sub(from)/time.Duration(rows)*time.Duration(i)).Truncate(time.Microsecond), n, i)
}

func newScaled(at time.Time, n, i int) scaled {
	c := scaled{at: at, random: rand.NewPCG(scaleSeed, uint64(n)<<32|uint64(i))}
	c.serial, _ = issuance.SerialBounds(at, at)
	for _, id := range []*uuid.UUID{&c.request, &c.intended, &c.issued, &c.signed} {
		c.fill(id[:])
		copy(id[:6], c.serial[1:7])
		id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	}
	c.fill(c.serial[7:])
	c.fill(c.spki[:])
	c.namespace = fmt.Sprintf("team-%02d", c.random.Uint64()%scaleNamespaces)
	c.name = fmt.Sprintf("host-%06x.%s.example.com", c.random.Uint64()>>40, c.namespace)
	return c
}

// fill fills octets with what looks like chance.
func (c scaled) fill(p []byte) []byte {
	for j := 0; j < len(p); j += 8 {
		var eight [8]byte
		binary.LittleEndian.PutUint64(eight[:], c.random.Uint64())
		copy(p[j:], eight[:])
	}
	return p
}

const scalePolicy = "sha256:05197553858ac69351e95dcff4f46e748c680436c671a1fe6551e82f211edad4"

// load fills the months as fast as Postgres takes it: whole tables that are empty, so that neither their log nor a vacuum is needed.
func (s *scale) load(b *testing.B) {
	ctx := context.Background()
	fixture := &fixture{Store: s.Store(b), t: b, db: &s.Database, owner: connect(b, s.OwnerURL)}
	fixture.addAuthority("issuing-1")
	free := make(chan struct{}, scaleAtOnce)
	var months sync.WaitGroup
	for n := range scaleMonths {
		from, _, _ := s.month(n)
		if err := fixture.EnsurePartitions(ctx, from); err != nil {
			b.Fatal(err)
		}
		free <- struct{}{}
		months.Go(func() {
			defer func() { <-free }()
			for _, table := range scaleTables {
				if n < table.from {
					continue
				}
				if err := s.copy(table, n); err != nil {
					b.Errorf("loading %s of month %d: %v", table.name, n, err)
					return
				}
			}
		})
	}
	if months.Wait(); b.Failed() {
		b.FailNow()
	}
	s.sequence(b, fixture)
	conn := connect(b, s.OwnerURL)
	for _, sql := range []string{
		"INSERT INTO crl_scopes (issuer, scope) VALUES ('issuing-1', 'full') ON CONFLICT DO NOTHING",
		"VACUUM (ANALYZE)", // which would otherwise begin by itself in the midst of the measurements
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			b.Fatal(err)
		}
	}
}

// sequence gives the leaves their places in the log, as the service does.
func (s *scale) sequence(b *testing.B, f *fixture) {
	began, total := time.Now(), 0
	sequencer := f.sequencer(alpha)
	for {
		n, err := sequencer.round(4096)
		if err := errors.Join(err, f.RenewLease(context.Background(), sequencer.term, lease)); err != nil {
			b.Fatal(err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	if want := f.count("audit_leaves"); total != want {
		b.Fatalf("%d leaves have their places, want %d", total, want)
	}
	s.say(b, "sequenced %d leaves, %.0f a second", total, float64(total)/time.Since(began).Seconds())
}

// scaleTable is a table that is loaded.
type scaleTable struct {
	name    string
	parted  bool // into months
	from    int  // the first month that is loaded
	lot     int  // certificates of one COPY; 0: all of the month
	step    int  // one in so many certificates has rows there
	text    func([]byte, scaled) []byte
	columns string
}

var scaleTables = []scaleTable{
	{
		name: "certificates", parted: true, step: 1, text: certificateText,
		columns: "serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, subject, names, search, " +
			"not_before, not_after, issued_at, event_id",
	},
	{
		name: "requests", parted: true, step: 1, text: requestText,
		columns: "id, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, metadata, verdict, results, " +
			"policy_digest, compromised_key",
	},
	{name: "audit_leaves", from: scaleMonths - scaleLeaves, lot: scaleLot, step: 1, text: leavesText, columns: "id, kind, leaf, written_at"},
	{
		name: "revocations", step: scaleRevoked, text: revocationText,
		columns: "issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256",
	},
}

// copy writes a month of a table.
func (s *scale) copy(table scaleTable, n int) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.OwnerURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	from, _, rows := s.month(n)
	sql := "COPY " + table.name + " (" + table.columns + ") FROM STDIN"
	if table.parted { // what is made or emptied in the same transaction may be written as if it had been vacuumed
		partition := table.name + from.Format("_2006_01")
		if _, err := conn.Exec(ctx, "BEGIN; TRUNCATE "+partition); err != nil {
			return err
		}
		sql = "COPY " + partition + " (" + table.columns + ") FROM STDIN (FREEZE)"
	}
	lot := cmp.Or(table.lot, rows)
	for first := 0; first < rows; first += lot {
		if err := s.copyLot(conn, sql, table, n, first, min(rows, first+lot)); err != nil {
			return err
		}
	}
	if table.parted {
		_, err = conn.Exec(ctx, "COMMIT")
	}
	return err
}

// copyLot writes what belongs to some certificates of a month, in the text form of COPY.
func (s *scale) copyLot(conn *pgx.Conn, sql string, table scaleTable, n, first, end int) error {
	read, write := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(write, 1<<16)
		line := make([]byte, 0, 1<<13)
		for i := first; i < end; i += table.step {
			line = table.text(line[:0], s.certificate(n, i))
			if _, err := out.Write(line); err != nil {
				_ = write.CloseWithError(err)
				return
			}
		}
		_ = write.CloseWithError(out.Flush())
	}()
	_, err := conn.PgConn().CopyFrom(context.Background(), read, sql)
	return errors.Join(err, read.Close())
}

// row appends one row in the text form of COPY (PostgreSQL, COPY, "Text Format").
func row(p []byte, columns ...any) []byte {
	for i, v := range columns {
		if i > 0 {
			p = append(p, '\t')
		}
		switch v := v.(type) {
		case string:
			p = append(p, v...)
		case []byte:
			p = hex.AppendEncode(append(p, `\\x`...), v)
		case uuid.UUID:
			p = hex.AppendEncode(p, v[:])
		case time.Time:
			p = v.AppendFormat(p, "2006-01-02 15:04:05.000000Z")
		}
	}
	return append(p, '\n')
}

func certificateText(p []byte, c scaled) []byte {
	return row(p, c.serial[:], "issuing-1\tfinal", c.fill(make([]byte, 660)), c.spki[:], "full\ttls-server\t"+scalePolicy, c.namespace, c.request, "CN="+c.name,
		"{"+c.name+",www."+c.name+"}", "cn="+c.name+`\n`+c.name+`\nwww.`+c.name, c.at, c.at.Add(scaleLife), c.at, c.issued)
}

func requestText(p []byte, c scaled) []byte {
	return row(p, c.request, c.at, "01a21f30-11d4-7097-a67e-c9eff80af571\tdeployer of "+c.namespace, c.namespace, "{requester}\ttls-server\tissuing-1",
		c.fill(make([]byte, 300)), c.spki[:], "0\t{}\tallow\t[]", scalePolicy, "f")
}

// leavesText are three leaves of the lengths that they have in truth. None has an octet 0, behind which private texts would stand.
func leavesText(p []byte, c scaled) []byte {
	for _, l := range []struct {
		id     uuid.UUID
		kind   string
		length int
	}{{c.intended, "certificate.intended", 600}, {c.issued, "certificate.issued", 550}, {c.signed, "key.signed", 370}} {
		leaf := bytes.ReplaceAll(c.fill(make([]byte, l.length)), []byte{0}, []byte{1})
		p = row(p, l.id, l.kind, leaf, c.at)
	}
	return p
}

func revocationText(p []byte, c scaled) []byte {
	return row(p, "issuing-1", c.serial[:], "1\t4", c.at.Add(time.Hour), "replaced\trevoker", c.issued, "full", c.at.Add(scaleLife), c.spki[:])
}

// sizes tells what a certificate takes on disk: of each table, the heap and the indexes.
func (s *scale) sizes(b *testing.B) {
	conn := connect(b, s.OwnerURL)
	rows, err := conn.Query(context.Background(), `
		SELECT t.name, sum(pg_table_size(p.oid))::bigint, sum(pg_indexes_size(p.oid))::bigint
		FROM (VALUES ('certificates'), ('requests'), ('audit_leaves'), ('audit_sequence'), ('revocations')) AS t (name)
		JOIN pg_class AS p ON p.oid = t.name::regclass OR p.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = t.name::regclass)
		GROUP BY t.name ORDER BY 2 DESC`)
	if err != nil {
		b.Fatal(err)
	}
	var name string
	var heap, indexes, total int64
	var each float64
	if _, err := pgx.ForEachRow(rows, []any{&name, &heap, &indexes}, func() error {
		h, i := float64(heap)/s.having(name), float64(indexes)/s.having(name)
		s.say(b, "size %-14s %6.1f octets a certificate in the table, %6.1f in its indexes", name, h, i)
		each += h + i
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	s.say(b, "size all together   %.1f octets a certificate", each)
	rows, err = conn.Query(context.Background(), `
		SELECT regexp_replace(i.relname, '_[0-9]{4}_[0-9]{2}', ''), sum(pg_relation_size(i.oid))::bigint FROM pg_class AS i
		WHERE i.relkind = 'i' AND i.relname ~ '^(certificates|requests|audit_leaves|audit_sequence|revocations)' GROUP BY 1 HAVING sum(pg_relation_size(i.oid)) > 0 ORDER BY 2 DESC`)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&name, &total}, func() error {
		s.say(b, "size of index %-50s %6.1f octets a certificate", name, float64(total)/s.having(name))
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// having is how many certificates have their part of a table.
func (s *scale) having(table string) float64 {
	if strings.HasPrefix(table, "audit_") {
		return float64(s.rows / scaleMonths * scaleLeaves)
	}
	return float64(s.rows)
}

// any is a certificate by chance.
func (s *scale) any(random *rand.Rand) scaled {
	n := random.IntN(scaleMonths)
	_, _, rows := s.month(n)
	return s.certificate(n, random.IntN(rows))
}

// timed does something so many times and reports what half, and 99 of 100, took at most.
func (s *scale) timed(b *testing.B, what string, times int, do func(random *rand.Rand) error) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	if testing.Short() {
		times = min(times, 20)
	}
	took := make([]time.Duration, times)
	for i := range took {
		began := time.Now()
		if err := do(random); err != nil {
			s.say(b, "%s failed after %s: %v", what, time.Since(began), err)
			b.Fail()
			return
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	s.say(b, "%-50s p50 %8.3f ms  p99 %8.3f ms  (%d times)", what, ms(took[times/2]), ms(took[times*99/100]), times)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s *scale) lookUps(b *testing.B, store *storage.Store) {
	ctx := context.Background()
	one := func(c scaled) error {
		found, err := store.Certificates(ctx, "", c.serial[:], c.namespace)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("%d certificates have the serial %s", len(found), c.serial)
		}
		return err
	}
	s.timed(b, "look-up by serial, of all months, first time", 5000, func(r *rand.Rand) error { return one(s.any(r)) })
	s.timed(b, "look-up by serial, of all months, again", 5000, func(r *rand.Rand) error { return one(s.any(r)) })
	s.timed(b, "look-up by serial, of the last month", 5000, func(r *rand.Rand) error {
		_, _, rows := s.month(scaleMonths - 1)
		return one(s.certificate(scaleMonths-1, r.IntN(rows)))
	})
	s.timed(b, "look-up of a serial that there is not", 5000, func(r *rand.Rand) error {
		c := s.any(r)
		c.serial[19] ^= 1
		found, err := store.Certificates(ctx, "", c.serial[:], "*")
		if err == nil && len(found) != 0 {
			err = fmt.Errorf("%s is there", c.serial)
		}
		return err
	})
}

func (s *scale) lists(b *testing.B, store *storage.Store) {
	ctx := context.Background()
	list := func(f ca.Filter) func(*rand.Rand) error {
		return func(*rand.Rand) error {
			f.Limit, f.Now = 100, time.Now()
			_, err := store.List(ctx, f)
			return err
		}
	}
	s.timed(b, "a page of 100: the newest of all", 200, list(ca.Filter{Namespace: "*"}))
	s.timed(b, "a page of 100: the newest of a namespace", 200, list(ca.Filter{Namespace: "team-07"}))
	s.timed(b, "a page of 100: the newest that are revoked", 20, list(ca.Filter{Namespace: "*", Status: "revoked"}))
	s.timed(b, "a page of 100: a namespace's from the middle on", 200, func(r *rand.Rand) error {
		c := s.any(r)
		cursor := storage.CursorAfter(c.serial, "issuing-1")
		_, err := store.List(ctx, ca.Filter{Namespace: c.namespace, Cursor: cursor, Limit: 100, Now: time.Now()})
		return err
	})
	_, _, rows := s.month(scaleMonths - 1)
	late, early := s.certificate(scaleMonths-1, rows-1), s.certificate(0, 0)
	s.timed(b, "search in a namespace, for one of the newest", 20, list(ca.Filter{Namespace: late.namespace, Query: late.name}))
	s.timed(b, "search in a namespace, for the oldest", 1, list(ca.Filter{Namespace: early.namespace, Query: early.name}))
}

func (s *scale) keys(b *testing.B, store *storage.Store) {
	ctx := context.Background()
	s.timed(b, "history of a key that has one certificate", 2000, func(r *rand.Rand) error {
		uses, err := store.KeyHistory(ctx, s.any(r).spki)
		if err == nil && len(uses) != 1 {
			err = fmt.Errorf("a key has %d uses", len(uses))
		}
		return err
	})
	s.timed(b, "history of a new key", 2000, func(r *rand.Rand) error {
		_, err := store.KeyHistory(ctx, sha256.Sum256(strconv.AppendUint(nil, r.Uint64(), 10)))
		return err
	})
}

// history reads the requests of a month, as a backtest does.
func (s *scale) history(b *testing.B, store *storage.Store) {
	from, until, rows := s.month(scaleMonths - 2)
	began, n := time.Now(), 0
	for r, err := range store.Requests(context.Background(), from, until) {
		if err != nil {
			b.Fatal(err)
		}
		if r.Certificate == nil {
			b.Fatalf("request %s led to nothing", r.ID)
		}
		n++
	}
	if n < rows-1 {
		b.Fatalf("read %d requests, want %d", n, rows)
	}
	s.say(b, "history of one month: %d requests in %s, %.0f a second", n, time.Since(began).Round(time.Millisecond), float64(n)/time.Since(began).Seconds())
}

// crl reads what the first CRL that a replica makes must show.
func (s *scale) crl(b *testing.B, store *storage.Store) {
	for range 2 {
		began, entries := time.Now(), 0
		if _, err := store.ListedRevocations(context.Background(), "issuing-1", ca.FullScope, func(issuance.RevokedEntry) error {
			entries++
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		s.say(b, "start of a CRL: %d entries in %s", entries, time.Since(began).Round(time.Millisecond))
	}
}

// beside issues on this database and on an empty one, in turns, so that whatever else the machine does weighs on both.
func (s *scale) beside(b *testing.B) {
	empty := storagetest.NewServer(b, storagetest.Options{Durable: true})
	settle(b, empty, "shared_buffers = '1GB'", "max_wal_size = '4GB'")
	rounds, lot := 30, 3000
	if testing.Short() {
		rounds, lot = 2, 6
	}
	for _, clients := range []int{1, 32} {
		var ratios, rates []float64
		stores := map[string]*storage.Store{}
		for name, server := range map[string]*storagetest.Server{"full": s.Server, "empty": empty} {
			store, err := storage.Open(context.Background(), storage.Config{URL: server.URL, MaxConns: 20})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			stores[name] = store
		}
		n := lot
		if clients == 1 {
			n = lot / 6
		}
		for round := range rounds {
			rate := map[string]float64{}
			for _, name := range [][]string{{"full", "empty"}, {"empty", "full"}}[round%2] {
				began := time.Now()
				issueMany(b, stores[name], clients, n)
				rate[name] = float64(n) / time.Since(began).Seconds()
			}
			ratios, rates = append(ratios, rate["full"]/rate["empty"]), append(rates, rate["full"])
		}
		slices.Sort(ratios)
		slices.Sort(rates)
		s.say(b, "issuance, %2d clients: %.0f a second; of the empty one's rate %.2f in the middle of %d rounds (%.2f to %.2f)", clients,
			rates[rounds/2], ratios[rounds/2], rounds, ratios[0], ratios[rounds-1])
	}
}
