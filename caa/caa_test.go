package caa

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/policies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is a resolver on 127.0.0.1 that knows some records, in the form of a zone file, and answers for names below broken.example as their
// last label before it says.
type zone struct {
	address string
	records []dns.RR
	came    chan struct{} // one for a question that gets no answer
	mu      sync.Mutex
	asked   []string
}

func serve(t *testing.T, records ...string) *zone {
	t.Helper()
	z := &zone{came: make(chan struct{}, 1)}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		z.records = append(z.records, rr)
	}
	udp, tcp := onePort(t)
	z.address = udp.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		ended := make(chan error, 1)
		go func() { ended <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
			<-ended
		})
	}
	return z
}

// onePort listens on a port that is free for both protocols: what is free for one may be taken for the other.
func onePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if udp, err := net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp
		}
		_ = tcp.Close()
	}
	t.Fatal("no port is free for both protocols")
	return nil, nil
}

func (z *zone) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	name := question.Question[0].Name
	z.mu.Lock()
	z.asked = append(z.asked, name)
	z.mu.Unlock()
	answer := new(dns.Msg)
	answer.SetReply(question)
	how, _ := strings.CutSuffix(name, ".broken.example.")
	switch how[strings.LastIndexByte(how, '.')+1:] {
	case "silent":
		select {
		case z.came <- struct{}{}:
		default:
		}
		return
	case "servfail":
		answer.Rcode = dns.RcodeServerFailure
	case "refused":
		answer.Rcode = dns.RcodeRefused
	case "other":
		answer.Question[0].Name = "else.example."
	case "rubbish":
		_, _ = w.Write([]byte("rubbish, and too long for a header"))
		return
	case "referral": // of a server that is authoritative for something else, and does not resolve
		rr, _ := dns.NewRR("example. 1 IN NS ns.example.")
		answer.Ns = append(answer.Ns, rr)
	case "nodata":
		for _, text := range []string{"broken.example. 1 IN NS ns.example.", "broken.example. 1 IN SOA a. b. 1 1 1 1 1"} {
			rr, _ := dns.NewRR(text)
			answer.Ns = append(answer.Ns, rr)
		}
	case "loop":
		for _, text := range []string{name + " 1 IN CNAME b.example.", "b.example. 1 IN CNAME " + name} {
			rr, _ := dns.NewRR(text)
			answer.Answer = append(answer.Answer, rr)
		}
	default:
		z.resolve(answer, name)
	}
	if w.LocalAddr().Network() == "udp" {
		answer.Truncate(512)
	}
	_ = w.WriteMsg(answer)
}

// resolve follows aliases as a recursive resolver does.
func (z *zone) resolve(answer *dns.Msg, name string) {
	exists := false
	for _, rr := range z.records {
		if !strings.EqualFold(rr.Header().Name, name) {
			exists = exists || strings.HasSuffix(rr.Header().Name, "."+name)
			continue
		}
		exists = true
		answer.Answer = append(answer.Answer, rr)
		if cname, ok := rr.(*dns.CNAME); ok {
			z.resolve(answer, cname.Target)
			return
		}
	}
	if !exists {
		answer.Rcode = dns.RcodeNameError
	}
}

func resolver(t *testing.T, timeout time.Duration, addresses ...string) *Resolver {
	t.Helper()
	r, err := New(Config{Resolvers: addresses, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookup(t *testing.T) {
	many := []string{`example.org. 60 IN CAA 128 tbs "x"`}
	for i := range 60 {
		many = append(many, fmt.Sprintf(`many.example.net. 60 IN CAA 0 issue "ca%d.example"`, i))
	}
	z := serve(t, append(many,
		`example.com. 60 IN CAA 0 issue "ca.example"`, `example.com. 60 IN CAA 0 iodef "mailto:a@example.com"`,
		`www.example.com. 60 IN A 192.0.2.1`, `own.example.com. 60 IN CAA 0 issue ";"`,
		`alias.example.com. 60 IN CNAME example.org.`, `bare.example.com. 60 IN CNAME www.example.net.`, `www.example.net. 60 IN A 192.0.2.1`,
		`com. 60 IN SOA a. b. 1 1 1 1 1`,
	)...)
	r := resolver(t, 10*time.Second, z.address)
	issue := policies.CAARecord{Tag: "issue", Value: "ca.example"}
	for name, want := range map[string]policies.CAAAnswer{
		"example.com":         {At: "example.com", Records: []policies.CAARecord{issue, {Tag: "iodef", Value: "mailto:a@example.com"}}},
		"www.example.com":     {At: "example.com", Records: []policies.CAARecord{issue, {Tag: "iodef", Value: "mailto:a@example.com"}}},
		"a.b.www.example.com": {At: "example.com", Records: []policies.CAARecord{issue, {Tag: "iodef", Value: "mailto:a@example.com"}}},
		"x.own.example.com":   {At: "own.example.com", Records: []policies.CAARecord{{Tag: "issue", Value: ";"}}},
		"alias.example.com":   {At: "alias.example.com", Records: []policies.CAARecord{{Critical: true, Tag: "tbs", Value: "x"}}},
		"bare.example.com":    {At: "example.com", Records: []policies.CAARecord{issue, {Tag: "iodef", Value: "mailto:a@example.com"}}}, // up from the alias, not its target
		"www.example.net":     {},
		"nothing.test":        {},
	} {
		want.Name = name
		got := r.Lookup(context.Background(), []string{name})
		if len(got) != 1 || got[0].Name != name || got[0].At != want.At || got[0].Failure != "" || !slices.Equal(got[0].Records, want.Records) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if got := r.Lookup(context.Background(), []string{"many.example.net"}); len(got[0].Records) != 60 {
		t.Errorf("an answer that is too large for a datagram: %d records, %s", len(got[0].Records), got[0].Failure)
	}
}

func TestNamesShareTheirParents(t *testing.T) {
	z := serve(t, `example.com. 60 IN CAA 0 issue "ca.example"`)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("h%d.dev.example.com", i))
	}
	for i, answer := range resolver(t, 10*time.Second, z.address).Lookup(context.Background(), names) {
		if answer.Name != names[i] || answer.At != "example.com" {
			t.Errorf("%s: %+v", names[i], answer)
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	slices.Sort(z.asked)
	if n := len(slices.Compact(slices.Clone(z.asked))); n != 52 || len(z.asked) != 52 {
		t.Errorf("%d questions about %d names, want 52", len(z.asked), n)
	}
}

func TestFailures(t *testing.T) {
	z := serve(t, `broken.example. 60 IN CAA 0 issue "ca.example"`)
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions and answers none
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	for name, want := range map[string]string{
		"servfail.broken.example": "SERVFAIL",
		"refused.broken.example":  "REFUSED",
		"other.broken.example":    "no sense",
		"rubbish.broken.example":  "no sense",
		"loop.broken.example":     "no sense",
		"silent.broken.example":   "in time",
		"referral.broken.example": "refers to other servers",
	} {
		patience := 20 * time.Second
		if want == "in time" {
			patience = time.Second
		}
		got := resolver(t, patience, z.address).Lookup(context.Background(), []string{name})[0]
		if !strings.Contains(got.Failure, want) || got.Records != nil || got.Name != name || strings.Contains(got.Failure, "127.0.0.1") {
			t.Errorf("%s: %+v, want %q", name, got, want)
		}
	}
	// That there are no records, an authority says.
	if got := resolver(t, 20*time.Second, z.address).Lookup(context.Background(), []string{"nodata.broken.example"})[0]; got.At != "broken.example" {
		t.Errorf("without records at the name: %+v", got)
	}
	// The second resolver answers for the first.
	if got := resolver(t, 10*time.Second, nobody.LocalAddr().String(), z.address).Lookup(context.Background(), []string{"broken.example"})[0]; got.At != "broken.example" {
		t.Errorf("with one resolver that is silent: %+v", got)
	}
}

// TestTimeIsBounded holds that many names take no longer than the bound, and that a caller who leaves is let go.
func TestTimeIsBounded(t *testing.T) {
	z := serve(t)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("h%d.silent.broken.example", i))
	}
	began := time.Now()
	answers := resolver(t, 300*time.Millisecond, z.address).Lookup(context.Background(), names)
	if took := time.Since(began); took > 20*time.Second { // one after the other they would take half a minute
		t.Errorf("%d names took %s", len(names), took)
	}
	for i, answer := range answers {
		if answer.Name != names[i] || answer.Failure == "" {
			t.Errorf("%s: %+v", names[i], answer)
		}
	}
	<-z.came
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan []policies.CAAAnswer)
	go func() { left <- resolver(t, time.Hour, z.address).Lookup(ctx, names[:1]) }()
	<-z.came
	cancel()
	if got := (<-left)[0]; got.Failure == "" {
		t.Errorf("a caller who left has the answer %+v", got)
	}
}

func TestConfiguration(t *testing.T) {
	for _, bad := range []Config{{}, {Resolvers: []string{"127.0.0.1:53"}}, {Timeout: time.Second}, {Resolvers: []string{"127.0.0.1"}, Timeout: time.Second}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for content, want := range map[string][]string{
		"nameserver 192.0.2.1\nsearch a.example\nnameserver 2001:db8::1\n": {"192.0.2.1:53", "[2001:db8::1]:53"},
		"search a.example\n": nil,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := SystemResolvers(path); !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
	if _, err := SystemResolvers(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there names resolvers")
	}
}

func FuzzRead(f *testing.F) {
	question := new(dns.Msg)
	question.SetQuestion("www.example.com.", dns.TypeCAA)
	answer := new(dns.Msg)
	answer.SetReply(question)
	for _, text := range []string{`www.example.com. 1 IN CNAME a.example.`, `a.example. 1 IN CAA 0 issue "ca.example"`} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		answer.Answer = append(answer.Answer, rr)
	}
	packed, err := answer.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		records, err := read(question, m)
		if err != nil && records != nil {
			t.Fatalf("%v with %v", records, err)
		}
	})
}
