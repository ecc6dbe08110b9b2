package trial

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

// Past is a request of the past, with the facts that its decision saw and what came of it.
type Past struct {
	ID             string // ordered by time
	At             time.Time
	CSR            []byte // DER
	Profile        string
	Namespace      string
	Issuer         string
	Actor          access.Actor
	Validity       time.Duration
	CompromisedKey bool
	Objections     []policies.RuleResult // of the rules that did not simply allow
	Certificate    *Certificate          // nil when none was issued
}

// Certificate is what a certificate of the past says.
type Certificate struct {
	Serial    string // lower-case hex
	Subject   string // RFC 4514
	Names     []string
	NotBefore time.Time
	NotAfter  time.Time
	DER       []byte // nil where it is not kept with the request, as in archives: then what stands above is all that is compared
}

// World is what history is replayed in: the facts that are not kept with each request.
type World struct {
	Namespaces    map[string]access.Namespace
	Issuers       map[string]policies.Issuer
	AuthorityKeys [][]byte
}

// Kind is how the outcome of a request would differ.
type Kind string

// The kinds of difference.
const (
	RefusedNow  Kind = "refused-now"  // allowed then, or with approval
	ApprovalNow Kind = "approval-now" // allowed then; persons would have to agree
	AllowedNow  Kind = "allowed-now"  // refused then, or allowed with approval only
	ContentNow  Kind = "content"      // allowed both times, or both times with approval; the certificate would say something else
)

// Finding is one request whose outcome would differ.
type Finding struct {
	Kind       Kind                 `json:"kind"`
	Request    string               `json:"request"`
	At         time.Time            `json:"at"`
	Profile    string               `json:"profile"`
	Namespace  string               `json:"namespace"`
	Serial     string               `json:"serial,omitempty"` // of the certificate that was issued
	Names      []string             `json:"names,omitempty"`  // of that certificate
	Rules      []string             `json:"rules,omitempty"`  // that refuse now, or refused then; for content: what differs
	Violations []policies.Violation `json:"violations,omitempty"`
}

// Reasons why a request cannot be replayed.
const (
	skippedOwn       = "made by the authority itself, without a CSR"
	skippedNamespace = "of a namespace that is not here any more"
	skippedIssuer    = "of an authority that is not here any more"
	skippedFacts     = "refused for facts that are not kept, such as a quota"
)

// unkept are the rules that judge facts which no request keeps.
var unkept = []string{"quota", "key.listed", "key.reuse", "names.caa"}

// Report is what would differ. It is the same however the work was shared out.
type Report struct {
	Policy     string         `json:"policy"`
	Requests   int            `json:"requests"` // read
	Replayed   int            `json:"replayed"`
	Unchanged  int            `json:"unchanged"`
	Changed    map[Kind]int   `json:"changed"`
	Profiles   map[string]int `json:"profiles"`   // changes by profile
	Namespaces map[string]int `json:"namespaces"` // changes by namespace
	Rules      map[string]int `json:"rules"`      // changes by rule; one request may break several
	Skipped    map[string]int `json:"skipped"`    // by reason
	Examples   []Finding      `json:"examples"`   // the latest of each kind and first rule
}

// Options say how history is replayed.
type Options struct {
	Workers  int                 // 0: as many as there are processors
	Examples int                 // of each kind and rule; 0: 3
	Progress func(done int)      // called now and then, never by two at once; nil: not at all
	Each     func(Finding) error // called for every change, never by two at once, in no order; nil: not at all
}

const (
	batchSize       = 256
	defaultExamples = 3
)

// Backtest decides on every request of the past by a set, in parallel, and reports what would differ. Requests are judged as of their own
// time. It holds one batch for each worker and the report, however long the past is.
func Backtest(ctx context.Context, set *policies.Set, w World, past iter.Seq2[Past, error], o Options) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Examples <= 0 {
		o.Examples = defaultExamples
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	batches := make(chan []Past, o.Workers)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(batches)
		if err := readBatches(ctx, past, batches); err != nil {
			stop(err)
		}
	})
	told := &telling{options: o}
	reports := make([]*Report, o.Workers)
	var working sync.WaitGroup
	for i := range reports {
		reports[i] = newReport()
		working.Go(func() {
			for batch := range batches {
				found := replayBatch(set, w, batch, reports[i], o.Examples)
				if err := told.tell(len(batch), found); err != nil {
					stop(err)
				}
			}
		})
	}
	working.Wait()
	reading.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	total := newReport()
	total.Policy = set.Digest()
	for _, r := range reports {
		total.add(r, o.Examples)
	}
	return total, nil
}

func readBatches(ctx context.Context, past iter.Seq2[Past, error], batches chan<- []Past) error {
	batch := make([]Past, 0, batchSize)
	send := func() bool {
		select {
		case batches <- batch:
			batch = make([]Past, 0, batchSize)
			return true
		case <-ctx.Done():
			return false
		}
	}
	for p, err := range past {
		if err != nil {
			return err
		}
		if batch = append(batch, p); len(batch) == batchSize && !send() {
			return nil
		}
	}
	send()
	return nil
}

// telling passes on what workers find, one at a time.
type telling struct {
	options Options
	mu      sync.Mutex
	done    int
}

func (t *telling) tell(n int, found []Finding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	if t.options.Each != nil {
		for _, f := range found {
			if err := t.options.Each(f); err != nil {
				return err
			}
		}
	}
	if t.options.Progress != nil {
		t.options.Progress(t.done)
	}
	return nil
}

func replayBatch(set *policies.Set, w World, batch []Past, r *Report, examples int) (found []Finding) {
	for _, p := range batch {
		r.Requests++
		finding, skipped := replay(set, w, p)
		if skipped != "" {
			r.Skipped[skipped]++
			continue
		}
		r.Replayed++
		if finding.Kind == "" {
			r.Unchanged++
			continue
		}
		found = append(found, finding)
		r.count(finding)
		r.Examples = append(r.Examples, finding)
	}
	r.Examples = fewest(r.Examples, examples)
	return found
}

// replay decides on one request again. The finding's kind is empty when nothing differs.
func replay(set *policies.Set, w World, p Past) (f Finding, skipped string) {
	if p.CSR == nil {
		return f, skippedOwn
	}
	namespace, ok := w.Namespaces[p.Namespace]
	if !ok {
		return f, skippedNamespace
	}
	issuer, ok := w.Issuers[p.Issuer]
	if !ok {
		return f, skippedIssuer
	}
	then, refusedBy := verdictThen(p)
	if then == policies.Refuse && !slices.ContainsFunc(refusedBy, func(rule string) bool { return !slices.Contains(unkept, rule) }) {
		return f, skippedFacts
	}
	f = Finding{Request: p.ID, At: p.At, Profile: p.Profile, Namespace: p.Namespace}
	if c := p.Certificate; c != nil {
		f.Serial, f.Names = c.Serial, c.Names
	}
	request, err := csr.Parse(p.CSR)
	now := policies.Refuse
	var refusing []string
	if err != nil { // it was read then: a stricter reader refuses it now
		refusing, f.Violations = []string{"csr"}, []policies.Violation{csrViolation(err)}
	} else {
		d := set.Replay(policies.Request{
			CSR: request, Profile: p.Profile, Validity: p.Validity, Actor: p.Actor, Namespace: namespace, Issuer: issuer, Now: p.At,
			CompromisedKey: p.CompromisedKey, AuthorityKeys: w.AuthorityKeys,
		})
		now = d.Verdict()
		if now == policies.Refuse {
			f.Violations = d.Violations()
		} else if slices.Contains(refusedBy, ruleProof) {
			now, f.Violations = policies.Refuse, nil // it was not proven then, and is not now
		}
		for _, v := range f.Violations {
			if !slices.Contains(refusing, v.Rule) {
				refusing = append(refusing, v.Rule)
			}
		}
		if then != policies.Refuse && then == now && p.Certificate != nil {
			if f.Rules = differences(d, *p.Certificate); len(f.Rules) > 0 {
				f.Kind = ContentNow
			}
		}
	}
	switch {
	case then == now:
	case now == policies.Refuse:
		f.Kind, f.Rules = RefusedNow, refusing
	case now == policies.NeedsApproval && then == policies.Allow:
		f.Kind = ApprovalNow
	default:
		f.Kind, f.Rules = AllowedNow, refusedBy
	}
	return f, ""
}

// ruleProof is the rule that replaying does not ask.
const ruleProof = "signature.proof"

// verdictThen is what the policies said then, and which rules refused. What lints refused afterwards the policies had allowed.
func verdictThen(p Past) (then policies.Verdict, refusedBy []string) {
	then = policies.Allow
	for _, r := range p.Objections {
		switch {
		case r.Verdict == policies.Refuse:
			then, refusedBy = policies.Refuse, append(refusedBy, r.Rule)
		case r.Verdict == policies.NeedsApproval && then == policies.Allow:
			then = policies.NeedsApproval
		}
	}
	return then, refusedBy
}

// differences name what a certificate made now would say otherwise.
func differences(d *policies.Decision, c Certificate) (all []string) {
	t, _ := d.Template()
	if t.Subject.String() != c.Subject {
		all = append(all, "subject")
	}
	if !slices.Equal(t.Names(), c.Names) {
		all = append(all, "names")
	}
	validity := t.NotBefore.Equal(c.NotBefore) && t.NotAfter.Equal(c.NotAfter)
	if d.Verdict() == policies.NeedsApproval { // it began when the last person agreed, which is not kept with the request
		validity = t.NotAfter.Sub(t.NotBefore) == c.NotAfter.Sub(c.NotBefore)
	}
	if !validity {
		all = append(all, "validity")
	}
	if c.DER != nil {
		all = append(all, usageDifferences(t, c.DER)...)
	}
	return all
}

// usageDifferences name what a certificate made now would say otherwise of its uses.
func usageDifferences(t policies.Template, der []byte) (all []string) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return []string{"certificate"}
	}
	var usages []asn1.ObjectIdentifier
	noCheck := false
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(oidExtKeyUsage):
			if _, err := asn1.Unmarshal(e.Value, &usages); err != nil {
				return []string{"certificate"}
			}
		case e.Id.Equal(oidOCSPNoCheck):
			noCheck = true
		}
	}
	for _, one := range []struct {
		name string
		same bool
	}{
		{"key_usage", t.KeyUsage == c.KeyUsage},
		{"ext_key_usage", sameWords(t.ExtKeyUsage, usages)},
		{"certificate_policies", sameWords(t.Policies, c.Policies)},
		{"subject_key_id", t.WriteSubjectKeyID == (len(c.SubjectKeyId) > 0)},
		{"ocsp_no_check", t.OCSPNoCheck == noCheck},
	} {
		if !one.same {
			all = append(all, one.name)
		}
	}
	return all
}

var (
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
)

// sameWords compares lists whose order says nothing.
func sameWords[A, B fmt.Stringer](a []A, b []B) bool { return slices.Equal(words(a), words(b)) }

func words[S fmt.Stringer](all []S) []string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = one.String()
	}
	slices.Sort(texts)
	return texts
}

func csrViolation(err error) policies.Violation {
	v := policies.Violation{Rule: "csr", Field: "csr", Message: err.Error()}
	var why *csr.Error
	if errors.As(err, &why) {
		v.Field, v.Message, v.Hint = why.Field, why.Message, why.Hint
	}
	return v
}

func newReport() *Report {
	return &Report{
		Changed: map[Kind]int{}, Profiles: map[string]int{}, Namespaces: map[string]int{}, Rules: map[string]int{}, Skipped: map[string]int{},
		Examples: []Finding{},
	}
}

func (r *Report) count(f Finding) {
	r.Changed[f.Kind]++
	r.Profiles[f.Profile]++
	r.Namespaces[f.Namespace]++
	for _, rule := range f.Rules {
		r.Rules[rule]++
	}
}

func (r *Report) add(other *Report, examples int) {
	r.Requests, r.Replayed, r.Unchanged = r.Requests+other.Requests, r.Replayed+other.Replayed, r.Unchanged+other.Unchanged
	for k, n := range other.Changed {
		r.Changed[k] += n
	}
	for _, one := range []struct{ to, from map[string]int }{
		{r.Profiles, other.Profiles}, {r.Namespaces, other.Namespaces}, {r.Rules, other.Rules}, {r.Skipped, other.Skipped},
	} {
		for k, n := range one.from {
			one.to[k] += n
		}
	}
	r.Examples = fewest(append(r.Examples, other.Examples...), examples)
}

// fewest keeps the latest findings of each kind and first rule. Which they are does not depend on the order in which they come.
func fewest(all []Finding, n int) []Finding {
	slices.SortFunc(all, func(a, b Finding) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Request, b.Request)) })
	kept := map[string]int{}
	return slices.DeleteFunc(all, func(f Finding) bool {
		group := string(f.Kind) + " " + slices.Concat(f.Rules, []string{""})[0]
		kept[group]++
		return kept[group] > n
	})
}

// Changes is how many requests would come to another outcome.
func (r *Report) Changes() (n int) {
	for k := range maps.Values(r.Changed) {
		n += k
	}
	return n
}
