// Package caa asks the DNS which authorities may certify a name (RFC 8659). It owns the questions: the climb from a name towards the root,
// the resolvers that are asked, and the bounds in time. What the answers mean is for the policies to say.
//
// It asks recursive resolvers and relies on them for DNSSEC: one that validates answers SERVFAIL for what does not verify, and that counts
// as no answer (RFC 8659, section 5.4).
package caa

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-ca/chancery/policies"
)

const (
	// answerTime is how long one resolver is waited for.
	answerTime = 2 * time.Second
	// rounds is how often each resolver is asked.
	rounds = 2
	// climbers is how many names are worked on at a time.
	climbers = 8
	// maxAliases bounds a chain of CNAMEs.
	maxAliases = 16
	// udpSize is what fits into one datagram everywhere (DNS flag day 2020).
	udpSize = 1232
)

// Config says whom to ask, and for how long. Both are required.
type Config struct {
	Resolvers []string      // host:port, asked in this order
	Timeout   time.Duration // bounds all questions about the names of one request together
}

// Resolver asks for CAA records. It is safe for concurrent use and keeps nothing between two requests: the resolvers do.
type Resolver struct {
	resolvers []string
	timeout   time.Duration
}

// New makes a resolver.
func New(c Config) (*Resolver, error) {
	if len(c.Resolvers) == 0 || c.Timeout <= 0 {
		return nil, errors.New("caa: no resolvers, or no time to ask them")
	}
	for _, r := range c.Resolvers {
		if host, port, err := net.SplitHostPort(r); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("caa: %q is not the address of a resolver: write host:port", r)
		}
	}
	return &Resolver{resolvers: c.Resolvers, timeout: c.Timeout}, nil
}

// SystemResolvers are the resolvers that a file such as /etc/resolv.conf names (resolv.conf(5)).
func SystemResolvers(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("finding the system's resolvers: %w", err)
	}
	var addresses []string
	for _, server := range conf.Servers {
		addresses = append(addresses, net.JoinHostPort(server, conf.Port))
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("finding the system's resolvers: %s names none", path)
	}
	return addresses, nil
}

// Lookup finds the relevant CAA record set of each DNS name, in their order. A name that cannot be asked about has an answer that says so;
// no answer is ever empty for want of time.
func (r *Resolver) Lookup(ctx context.Context, names []string) []policies.CAAAnswer {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	l := &lookup{resolver: r, ctx: ctx, sets: map[string]*set{}}
	answers := make([]policies.CAAAnswer, len(names))
	slots := make(chan struct{}, climbers)
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			answers[i] = l.climb(name)
			<-slots
		})
	}
	wg.Wait()
	return answers
}

// lookup is the work for the names of one request. Names with the same parent share its records.
type lookup struct {
	resolver *Resolver
	ctx      context.Context
	mu       sync.Mutex
	sets     map[string]*set
}

type set struct {
	ask     sync.Once
	records []policies.CAARecord
	err     error
}

// climb looks from a name upwards for the first that has CAA records (RFC 8659, section 3). An alias is followed for its own records, and
// the climb goes on from the name that has it.
func (l *lookup) climb(name string) policies.CAAAnswer {
	for at := name; at != ""; _, at, _ = strings.Cut(at, ".") {
		s := l.at(at)
		if s.err != nil {
			return policies.CAAAnswer{Name: name, Failure: s.err.Error()}
		}
		if len(s.records) > 0 {
			return policies.CAAAnswer{Name: name, At: at, Records: s.records}
		}
	}
	return policies.CAAAnswer{Name: name}
}

func (l *lookup) at(name string) *set {
	l.mu.Lock()
	s := l.sets[name]
	if s == nil {
		s = &set{}
		l.sets[name] = s
	}
	l.mu.Unlock()
	s.ask.Do(func() { s.records, s.err = l.resolver.ask(l.ctx, name) })
	return s
}
