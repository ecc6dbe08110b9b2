package policies

import (
	"fmt"
	"strings"
	"time"
)

// The limits of what a profile may ask of certificate transparency.
const (
	maxSCTs           = 10
	defaultCTTimeout  = 10 * time.Second
	minCTTimeout      = time.Second
	maxCTTimeout      = 20 * time.Second // an issuance ends within 30 s of its intent
	defaultCTPatience = 2 * time.Second
)

// Transparency says what a profile asks of certificate transparency (RFC 6962): how many signed certificate timestamps stand in each
// certificate, of whom, and how long they are waited for. It does not change once loaded.
type Transparency struct {
	SCTs      int           // how many a certificate needs
	Longer    []LongerSCTs  // how many one needs that lasts longer, in order of duration
	Operators int           // how many different operators of logs they come from, at least
	Logs      []string      // the descriptions of the logs that may be asked; empty: every usable one
	Patience  time.Duration // after which another log is asked beside one that has not answered
	Timeout   time.Duration // after which the certificate is given up
}

// LongerSCTs is how many timestamps a certificate needs that lasts longer than a duration.
type LongerSCTs struct {
	Than time.Duration
	SCTs int
}

// Required is the number of timestamps that a certificate needs with a validity, both ends of which count.
func (t *Transparency) Required(notBefore, notAfter time.Time) int {
	lasts, n := notAfter.Sub(notBefore)+time.Second, t.SCTs
	for _, l := range t.Longer {
		if lasts > l.Than {
			n = max(n, l.SCTs)
		}
	}
	return n
}

// Most is the greatest number of timestamps that any certificate needs.
func (t *Transparency) Most() int {
	n := t.SCTs
	for _, l := range t.Longer {
		n = max(n, l.SCTs)
	}
	return n
}

// Transparency is what certificates of the profile need of certificate transparency; nil: nothing.
func (p *Profile) Transparency() *Transparency { return p.transparency }

// Transparency is what the certificate needs of certificate transparency before it is released; nil: nothing. It must not be changed.
func (g *Grant) Transparency() *Transparency { return g.transparency }

// ctFile is how a profile asks for certificate transparency.
type ctFile struct {
	// SCTs is how many signed certificate timestamps stand in each certificate: 1 to 10.
	SCTs int `yaml:"scts"`
	// Longer asks for more timestamps in certificates that last longer, in order of duration.
	Longer []longerFile `yaml:"longer"`
	// Operators is how many different operators the logs have, at least. Default: 2, or 1 where scts is 1.
	Operators int `yaml:"operators"`
	// Logs are the descriptions of the logs that may be asked. Default: every usable log of the service's configuration.
	Logs []string `yaml:"logs"`
	// Patience is how long a log is waited for before another is asked beside it. Default: 2s.
	Patience string `yaml:"patience"`
	// Timeout is how long the timestamps are waited for in all, 1s to 20s. Without them there is no certificate. Default: 10s.
	Timeout string `yaml:"timeout"`
}

type longerFile struct {
	// Than is the duration beyond which SCTs are needed.
	Than string `yaml:"than"`
	// SCTs is how many are needed.
	SCTs int `yaml:"scts"`
}

// compileTransparency reads the ct key; nil is a profile without it.
func compileTransparency(r *report, f *ctFile) *Transparency {
	if f == nil {
		return nil
	}
	t := &Transparency{SCTs: f.SCTs, Operators: f.Operators, Logs: f.Logs, Patience: defaultCTPatience, Timeout: defaultCTTimeout}
	count := func(field string, n int) {
		if n < 1 || n > maxSCTs {
			r.field(field, fmt.Sprintf("from 1 to %d", maxSCTs), "%d is not a number of timestamps", n)
		}
	}
	count("ct.scts", f.SCTs)
	least, last := f.SCTs, time.Duration(0)
	for i, l := range f.Longer {
		field := index("ct.longer", i)
		than, err := ParseDuration(l.Than)
		switch {
		case err != nil:
			r.field(field+".than", "for example 180d", "%v", err)
		case than <= last:
			r.field(field+".than", "write the shortest duration first", "%s does not follow what stands before it", quote(l.Than))
		}
		count(field+".scts", l.SCTs)
		if l.SCTs <= least {
			r.field(field+".scts", "", "%d is not more than the %d that shorter certificates need", l.SCTs, least)
		}
		t.Longer, least, last = append(t.Longer, LongerSCTs{Than: than, SCTs: l.SCTs}), l.SCTs, than
	}
	if t.Operators == 0 {
		t.Operators = min(2, max(f.SCTs, 1))
	}
	if t.Operators < 1 || t.Operators > max(f.SCTs, 1) {
		r.field("ct.operators", "at most as many as scts", "%d operators cannot be those of %d logs", f.Operators, f.SCTs)
	}
	for i, log := range f.Logs {
		if strings.TrimSpace(log) == "" {
			r.field(index("ct.logs", i), "the description that the log list has", "a log has no name")
		}
	}
	reportRepeated(r, "ct.logs", f.Logs)
	if len(f.Logs) > 0 && len(f.Logs) < t.Most() {
		r.field("ct.logs", "leave it out to ask every usable log", "%d logs cannot give %d timestamps", len(f.Logs), t.Most())
	}
	t.compileTimes(r, f)
	return t
}

func (t *Transparency) compileTimes(r *report, f *ctFile) {
	for _, one := range []struct {
		field, text string
		to          *time.Duration
	}{{"ct.patience", f.Patience, &t.Patience}, {"ct.timeout", f.Timeout, &t.Timeout}} {
		if one.text == "" {
			continue
		}
		d, err := ParseDuration(one.text)
		if err != nil {
			r.field(one.field, "for example 5s", "%v", err)
			continue
		}
		*one.to = d
	}
	switch {
	case t.Timeout < minCTTimeout || t.Timeout > maxCTTimeout:
		r.field("ct.timeout", "from 1s to 20s: an issuance ends 30s after it has begun", "%s is not a time to wait for timestamps", quote(f.Timeout))
	case t.Patience <= 0:
		r.field("ct.patience", "for example 2s", "%s is not a time to wait for a log", quote(f.Patience))
	case t.Patience > t.Timeout:
		t.Patience = t.Timeout
	}
}
