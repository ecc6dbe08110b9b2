package caa

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-ca/chancery/policies"
)

// What a requester is told of a failure. Addresses of resolvers are nobody else's business.
var (
	errNoAnswer = errors.New("no resolver answered in time")
	errBad      = errors.New("the answer makes no sense")
	errReferral = errors.New("the resolver does not resolve: it refers to other servers")
)

// ask asks the resolvers in turn for the CAA records at one name, until one answers.
func (r *Resolver) ask(ctx context.Context, name string) (records []policies.CAARecord, err error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), dns.TypeCAA)
	question.SetEdns0(udpSize, false)
	err = errNoAnswer
	for range rounds {
		for _, resolver := range r.resolvers {
			if ctx.Err() != nil {
				return nil, err
			}
			if records, err = one(ctx, question, resolver); err == nil {
				return records, nil
			}
		}
	}
	return nil, err
}

// one asks one resolver: by datagram, and by stream where the answer does not fit into one.
func one(ctx context.Context, question *dns.Msg, resolver string) ([]policies.CAARecord, error) {
	question = question.Copy()
	question.Id = dns.Id()
	answer, err := exchange(ctx, question, "udp", resolver)
	if err == nil && answer.Truncated {
		answer, err = exchange(ctx, question, "tcp", resolver)
	}
	if err != nil {
		return nil, err
	}
	return read(question, answer)
}

func exchange(ctx context.Context, question *dns.Msg, network, resolver string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	client := dns.Client{Net: network}
	conn, err := client.DialContext(ctx, resolver)
	if err != nil {
		return nil, errNoAnswer
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // the library does not hear of a context that ends
	answer, _, err := client.ExchangeWithConnContext(ctx, question, conn)
	var failed net.Error
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &failed), ctx.Err() != nil:
		return nil, errNoAnswer
	}
	return nil, errBad
}

// read takes the CAA records of a name from an answer, following its aliases.
func read(question, answer *dns.Msg) ([]policies.CAARecord, error) {
	asked := question.Question[0]
	if !answer.Response || len(answer.Question) != 1 || answer.Question[0].Qtype != asked.Qtype ||
		!strings.EqualFold(answer.Question[0].Name, asked.Name) || answer.Truncated {
		return nil, errBad
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return nil, nil // no such name: no records at it, and those above count
	default:
		return nil, fmt.Errorf("the resolver answered %s", rcode(answer.Rcode))
	}
	owner := asked.Name
	for range maxAliases {
		target := alias(answer.Answer, owner)
		if target == "" {
			records := recordsOf(answer.Answer, owner)
			if len(records) == 0 && referral(answer) {
				return nil, errReferral
			}
			return records, nil
		}
		owner = target
	}
	return nil, errBad
}

// referral tells an answer that says where to ask from one that says that there are no records: it names servers and no start of authority
// (RFC 2308, section 2.2). It says nothing of the name.
func referral(answer *dns.Msg) bool {
	servers := false
	for _, rr := range answer.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeSOA:
			return false
		case dns.TypeNS:
			servers = true
		}
	}
	return servers && !answer.Authoritative
}

func alias(answer []dns.RR, owner string) string {
	for _, rr := range answer {
		if cname, ok := rr.(*dns.CNAME); ok && strings.EqualFold(cname.Hdr.Name, owner) {
			return cname.Target
		}
	}
	return ""
}

// critical is the issuer critical flag (RFC 8659, section 4.1).
const critical = 1 << 7

func recordsOf(answer []dns.RR, owner string) (records []policies.CAARecord) {
	for _, rr := range answer {
		if r, ok := rr.(*dns.CAA); ok && strings.EqualFold(r.Hdr.Name, owner) {
			records = append(records, policies.CAARecord{Critical: r.Flag&critical != 0, Tag: r.Tag, Value: r.Value})
		}
	}
	return records
}

func rcode(code int) string {
	if name, ok := dns.RcodeToString[code]; ok {
		return name
	}
	return fmt.Sprint(code)
}
