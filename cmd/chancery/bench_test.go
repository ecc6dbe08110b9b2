package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// BenchmarkEndToEnd issues certificates for ECDSA P-256 keys from an issuer of P-256 in SoftHSM: JSON over TLS in, linted, recorded and
// durable (fsync on), certificate out. The service is a process of its own; the clients share the machine with it.
//
// Besides ns/op it reports certificates a second, the latencies that half and 99 of 100 requests stay under, the CPU time that the clients,
// the service and Postgres spent on each certificate, the transactions and syncs of the log that each took, and the most memory that the
// service held.
func BenchmarkEndToEnd(b *testing.B) {
	for _, clients := range settings(1, 8, 32, 128, 256) {
		benchmarkIssuing(b, setting{clients: clients, issuer: devIssuerKey})
	}
}

// BenchmarkEndToEndAlone is BenchmarkEndToEnd where no two calls share a transaction or a query: what group commit is worth.
func BenchmarkEndToEndAlone(b *testing.B) {
	for _, clients := range settings(1, 8, 32) {
		benchmarkIssuing(b, setting{clients: clients, issuer: devIssuerKey, environ: []string{writesAlone + "=1"}})
	}
}

// BenchmarkEndToEndIssuer is BenchmarkEndToEnd with other keys of the issuer.
func BenchmarkEndToEndIssuer(b *testing.B) {
	for _, issuer := range settings("ecdsa-p384", "rsa-3072") {
		benchmarkIssuing(b, setting{clients: 32, issuer: issuer})
	}
}

// BenchmarkEndToEndKeeper is BenchmarkEndToEnd with the token in a keeper, a child of the service, whose journal is on the disk.
func BenchmarkEndToEndKeeper(b *testing.B) {
	for _, clients := range settings(32, 1, 64, 128) {
		benchmarkIssuing(b, setting{clients: clients, issuer: devIssuerKey, keeper: true})
	}
}

// settings are those to measure, or the first alone where it is only to be seen that a benchmark runs.
func settings[T any](all ...T) []T {
	if testing.Short() {
		return all[:1]
	}
	return all
}

// warmUp are the certificates issued before measuring begins: a service that has just started opens its connections, and each process of
// Postgres plans its statements and touches its memory for the first time.
const warmUp = 1000

type setting struct {
	clients int
	issuer  string   // the algorithm of its key
	environ []string // of the service
	keeper  bool     // holds the token
}

// benchmarkIssuing measures one setting, on a database and a service of its own: neither what others left behind nor their memory counts.
func benchmarkIssuing(b *testing.B, c setting) {
	b.Run(fmt.Sprintf("%s/clients=%d", c.issuer, c.clients), func(b *testing.B) {
		server := storagetest.NewServer(b, storagetest.Options{Durable: true})
		s := newStackOf(b, &server.Database, true, c.issuer)
		s.withLog(hsm.Ed25519)
		if c.keeper {
			s.hsm = fmt.Sprintf("{isolation: child, socket: %q, module: %q, token: {label: %q}, pin: {file: %q}}",
				filepath.Join(b.TempDir(), "keeper.sock"), s.token.Module, s.token.Label, s.token.PINFile)
		}
		r := s.start("bench", s.token.Module, c.environ...)
		b.Cleanup(r.stop) // in good order, so that a profile asked for is written
		var requests [][]byte
		for i := range 64 {
			body, err := issueBody(newRequest(b, fmt.Sprintf("host-%d.dev.example", i)))
			if err != nil {
				b.Fatal(err)
			}
			requests = append(requests, r.octets(b, body))
		}
		pid, postmaster := r.process.Process.Pid, server.PID()
		issueAll(b, r, requests, min(b.N, warmUp), c.clients)
		b.ResetTimer()
		clients, service, keeper, database := cpuTime(b, os.Getpid()), cpuTime(b, pid), belowCPU(b, pid), belowCPU(b, postmaster)
		commits, syncs := commitsAndSyncs(b, server.OwnerURL)
		latencies := issueAll(b, r, requests, b.N, c.clients)
		b.StopTimer()
		clients, service, keeper, database = cpuTime(b, os.Getpid())-clients, cpuTime(b, pid)-service, belowCPU(b, pid)-keeper,
			belowCPU(b, postmaster)-database
		moreCommits, moreSyncs := commitsAndSyncs(b, server.OwnerURL)
		slices.Sort(latencies)
		n := float64(b.N)
		b.ReportMetric(n/b.Elapsed().Seconds(), "certs/s")
		b.ReportMetric(float64(latencies[len(latencies)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds())/1000, "p99-ms")
		b.ReportMetric(float64(clients.Microseconds())/1000/n, "clients-cpu-ms/cert")
		b.ReportMetric(float64(service.Microseconds())/1000/n, "service-cpu-ms/cert")
		if c.keeper {
			b.ReportMetric(float64(keeper.Microseconds())/1000/n, "keeper-cpu-ms/cert")
		}
		b.ReportMetric(float64(database.Microseconds())/1000/n, "postgres-cpu-ms/cert")
		b.ReportMetric(float64(moreCommits-commits)/n, "transactions/cert")
		b.ReportMetric(float64(moreSyncs-syncs)/n, "fsyncs/cert")
		b.ReportMetric(peakMemory(b, pid), "peak-MiB")
	})
}

// peakMemory is the most memory that a process has held, in MiB (proc(5): VmHWM of status).
func peakMemory(b *testing.B, pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatal("the process tells nothing of its memory")
	return 0
}

// issueAll has clients issue n certificates between them, each over a connection of its own.
func issueAll(b *testing.B, r *replica, requests [][]byte, n, clients int) []time.Duration {
	return exchangeAll(b, r.dial, func(i int64) []byte { return requests[i%int64(len(requests))] }, http.StatusCreated, n, clients)
}

// octets are those of a request for a certificate.
func (r *replica) octets(b *testing.B, body []byte) []byte {
	request, err := r.request(b.Context(), http.MethodPost, "/api/v1/certificates", access.Requester, http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil {
		b.Fatal(err)
	}
	var octets bytes.Buffer
	if err := request.Write(&octets); err != nil {
		b.Fatal(err)
	}
	return octets.Bytes()
}

// exchangeAll has clients make n requests between them, each over a connection of its own, and gives how long each took. Clients share the
// processors with what is measured, and so do no more than a client must: the octets of the requests are made beforehand.
func exchangeAll(
	b *testing.B, dial func(context.Context) (net.Conn, error), request func(i int64) []byte, status, n, clients int,
) []time.Duration {
	var next atomic.Int64
	latencies := make([]time.Duration, n)
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			conn, err := dial(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				began := time.Now()
				if err := exchange(conn, answers, request(i), status); err != nil {
					b.Errorf("certificate %d: %v", i, err)
					return
				}
				latencies[i] = time.Since(began)
			}
		})
	}
	group.Wait()
	return latencies
}

// dial connects to the API.
func (r *replica) dial(ctx context.Context) (net.Conn, error) {
	api, err := url.Parse(r.api)
	if err != nil {
		return nil, err
	}
	dialer := &tls.Dialer{Config: r.s.client.Transport.(*http.Transport).TLSClientConfig}
	return dialer.DialContext(ctx, "tcp", api.Host)
}

// exchange sends a request and reads the answer, which must have a status.
func exchange(to io.Writer, from *bufio.Reader, request []byte, status int) error {
	if _, err := to.Write(request); err != nil {
		return err
	}
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}

// commitsAndSyncs are the transactions of the database, reading ones among them, and the fsyncs of the server's log so far.
func commitsAndSyncs(b *testing.B, url string) (commits, syncs int64) {
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.Context())) }()
	const sql = `SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()), (SELECT wal_sync FROM pg_stat_wal)`
	if err := conn.QueryRow(b.Context(), sql).Scan(&commits, &syncs); err != nil {
		b.Fatal(err)
	}
	return commits, syncs
}

// cpuTime is the processor time that a process has used (proc(5): utime and stime of stat).
func cpuTime(b *testing.B, pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	return ticks(b, string(data), 11)
}

// ticks are two fields of a process's stat added up, counted from 0 behind its name, in clock ticks of 10 ms.
func ticks(b *testing.B, stat string, at int) time.Duration {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var total int64
	for _, field := range fields[at : at+2] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return time.Duration(total) * 10 * time.Millisecond
}

// belowCPU is the processor time of all processes below one, and of those children of it that have ended (proc(5): cutime and cstime of stat).
func belowCPU(b *testing.B, ancestor int) (total time.Duration) {
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ancestor))
	if err != nil {
		b.Fatal(err)
	}
	total = ticks(b, string(own), 13)
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	stats, children := map[int]string{}, map[int][]int{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		stat := string(data)
		pid, own := strconv.Atoi(strings.Fields(stat)[0])
		parent, its := strconv.Atoi(strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])[1])
		if err := errors.Join(own, its); err != nil {
			b.Fatal(err)
		}
		stats[pid], children[parent] = stat, append(children[parent], pid)
	}
	for below := children[ancestor]; len(below) > 0; below = below[1:] {
		total += ticks(b, stats[below[0]], 11)
		below = append(below, children[below[0]]...)
	}
	return total
}
