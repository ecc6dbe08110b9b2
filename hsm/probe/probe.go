// Package probe tries out what a token can do, and says what that means for Chancery: the compatibility report that whoever deploys on a
// new HSM wants to read before, and the vendor's support wants to read after.
//
// It works on objects of its own alone. Each is recognised by its label and its CKA_ID together, and is gone when the probe ends, be it by
// a failure or an interruption; what a killed probe left behind is found by the next.
package probe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// Version is the version of the report's format.
const Version = 1

// Config says what is probed and how long.
type Config struct {
	Token *hsm.Token
	Now   func() time.Time
	// Speed is how long signing is measured at each number of sessions; 0 measures nothing.
	Speed time.Duration
	// Sessions is how many sessions are tried at most, in the speed measurement; the limit of open sessions is looked for up to four times
	// as many. At least 1.
	Sessions int
	// Starting is told the name of each check before it begins, since a library that hangs or crashes takes the report with it. May be nil.
	Starting func(check string)
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Works   Outcome = "works"   // as PKCS#11 says; for what must be refused: it was refused
	Fails   Outcome = "fails"   // the token refused it, or did something else than it said
	Untried Outcome = "untried" // what it needs had failed before, or the probe was interrupted
)

// Check is one thing that was tried.
type Check struct {
	Group        string  `json:"group"`
	Name         string  `json:"name"`
	Outcome      Outcome `json:"outcome"`
	CKR          string  `json:"ckr,omitempty"`     // the token's answer, where it failed with one
	Detail       string  `json:"detail,omitempty"`  // what was seen
	Meaning      string  `json:"meaning,omitempty"` // for Chancery, where it failed
	Milliseconds float64 `json:"milliseconds"`
}

// Speed is how fast signatures were made.
type Speed struct {
	Mechanism string  `json:"mechanism"`
	Sessions  int     `json:"sessions"`
	PerSecond float64 `json:"per_second"`
}

// Verdict is whether Chancery can run on the token.
type Verdict struct {
	Runs        bool     `json:"runs"`
	Authorities []string `json:"authorities"` // algorithms that an authority's key can have
	Because     []string `json:"because"`     // why not, or with which limits
}

// Report is what a probe saw.
type Report struct {
	Version   int           `json:"version"`
	Time      time.Time     `json:"time"` // of the host's clock
	Seconds   float64       `json:"seconds"`
	Module    hsm.Module    `json:"module"` // without its slots
	Token     hsm.TokenData `json:"token"`
	Hardware  bool          `json:"hardware"`
	Profile   string        `json:"profile"`  // by which Chancery makes keys
	Measured  string        `json:"measured"` // on what the profile was measured; empty: not at all
	Lacks     []string      `json:"lacks"`    // capabilities that the profile declares to be missing (hsm.Capability)
	Verdict   Verdict       `json:"verdict"`
	Checks    []Check       `json:"checks"`
	Speed     []Speed       `json:"speed"`
	Quirks    []hsm.Quirk   `json:"quirks"`
	Left      []string      `json:"left"` // labels of objects of probes that are still in the token
	Cancelled bool          `json:"cancelled"`
}

// Run probes the open token, of which nobody else makes use meanwhile. An interruption by the context ends the probe after the check in
// progress, with what was seen until then and the context's error. The report is nil only if nothing could be tried.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Sessions < 1 {
		return nil, fmt.Errorf("probing with %d sessions", c.Sessions)
	}
	began, info := c.Now(), c.Token.Info()
	profile := info.Profile()
	p := &run{Config: c, prefix: newPrefix(), report: &Report{
		Version: Version, Time: began.UTC(), Hardware: info.Hardware, Profile: profile.Name, Measured: profile.Measured,
		Lacks: []string{}, Checks: []Check{}, Speed: []Speed{}, Quirks: append([]hsm.Quirk{}, profile.Quirks...), Left: []string{},
	}}
	for _, lacked := range profile.Lacks {
		p.report.Lacks = append(p.report.Lacks, string(lacked))
	}
	if err := p.describe(ctx); err != nil {
		return nil, fmt.Errorf("probing token %q: %w", info.Label, err)
	}
	failure := p.leftovers(ctx)
	if failure == nil {
		p.everything(ctx)
		failure = ctx.Err()
	}
	p.report.Cancelled = ctx.Err() != nil
	// What was made is removed even if nobody waits for it any more.
	failure = errors.Join(failure, p.remove(context.WithoutCancel(ctx)))
	p.judge()
	p.report.Seconds = c.Now().Sub(began).Seconds()
	if failure != nil {
		return p.report, fmt.Errorf("probing token %q: %w", info.Label, failure)
	}
	return p.report, nil
}

type run struct {
	Config
	prefix      string // of the labels of this run
	report      *Report
	authorities []hsm.Algorithm
	notLocal    bool // the token makes keys, but does not say that it made them
	parents     map[string]bool
}

// session is a session of the check in progress.
type session struct {
	*run
	ctx    *pkcs11.Ctx
	handle pkcs11.SessionHandle
}

func newPrefix() string {
	var octets [4]byte
	rand.Read(octets[:]) // never fails
	return labelPrefix + hex.EncodeToString(octets[:]) + "-"
}

// everything is the matrix, in the order in which the checks need each other.
func (p *run) everything(ctx context.Context) {
	p.parents = map[string]bool{}
	p.random(ctx)
	p.keys(ctx)
	p.signatures(ctx)
	p.attributes(ctx)
	p.confinement(ctx)
	p.names(ctx)
	p.encryption(ctx)
	p.wrapping(ctx)
	p.macs(ctx)
	p.certificates(ctx)
	p.sessions(ctx)
	p.speed(ctx)
}

// want is a check to be made.
type want struct {
	group, name string
	needs       string // the name of a check without which this one makes no sense; empty for none
	meaning     string // for Chancery, if it fails
}

// check makes a check in a session of its own.
func (p *run) check(ctx context.Context, w want, try func(s session) (detail string, err error)) bool {
	return p.checkWithout(ctx, w, func() (detail string, err error) {
		err = p.Token.Direct(ctx, direct.Pass{}, "probe: "+w.name, func(library *pkcs11.Ctx, slot uint) error {
			handle, err := library.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return fmt.Errorf("opening a session: %w", err)
			}
			detail, err = try(session{p, library, handle})
			return errors.Join(err, library.CloseSession(handle))
		})
		return detail, err
	})
}

// checkWithout makes a check by what the package hsm offers.
func (p *run) checkWithout(ctx context.Context, w want, try func() (detail string, err error)) bool {
	c := Check{Group: w.group, Name: w.name, Outcome: Untried}
	switch {
	case ctx.Err() != nil:
		c.Detail = "the probe was interrupted"
	case w.needs != "" && !p.parents[w.needs]:
		c.Detail = "it needs: " + w.needs
	default:
		if p.Starting != nil {
			p.Starting(w.name)
		}
		began := p.Now()
		detail, err := try()
		c.Milliseconds = float64(p.Now().Sub(began).Microseconds()) / 1000
		c.Outcome, c.Detail = Works, detail
		if err != nil {
			c.Outcome, c.CKR, c.Detail, c.Meaning = Fails, answer(err), err.Error(), w.meaning
		}
	}
	p.report.Checks = append(p.report.Checks, c)
	p.parents[w.name] = c.Outcome == Works
	return c.Outcome == Works
}

// answer is the name of the PKCS#11 answer in an error, empty where there is none.
func answer(err error) string {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return ""
	}
	if _, name, ok := strings.Cut(code.Error(), ": CKR_"); ok {
		return "CKR_" + name
	}
	return fmt.Sprintf("0x%X", uint(code))
}

// is tells whether err is one of the given PKCS#11 answers.
func is(err error, codes ...pkcs11.Error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(codes, code)
}

// describe reads what module and token tell of themselves.
func (p *run) describe(ctx context.Context) error {
	m, err := p.Token.Describe(ctx)
	if err != nil {
		return err
	}
	for _, slot := range m.Slots {
		if slot.ID == p.Token.Info().Slot && slot.Token != nil {
			p.report.Token = *slot.Token
		}
	}
	m.Slots = []hsm.Slot{}
	p.report.Module = m
	return nil
}

// judge says whether Chancery can run.
func (p *run) judge() {
	v := &p.report.Verdict
	v.Authorities, v.Because = []string{}, []string{}
	for _, a := range p.authorities {
		v.Authorities = append(v.Authorities, string(a))
	}
	leaks := slices.ContainsFunc(p.report.Checks, func(c Check) bool { return c.Outcome == Fails && c.Meaning == leak })
	// What an interruption left untried may be the one thing that forbids it.
	v.Runs = len(v.Authorities) > 0 && p.parents[randomCheck] && !leaks && !p.report.Cancelled
	switch {
	case v.Runs:
		v.Because = append(v.Because, "an authority's key can be "+strings.Join(v.Authorities, ", "))
	case p.notLocal:
		v.Because = append(v.Because, "the token says of no key that it was generated in it (CKA_LOCAL), "+
			"so that an imported key cannot be told from a generated one")
	case leaks:
		v.Because = append(v.Because, leak)
	case p.report.Cancelled:
		v.Because = append(v.Because, "the probe was interrupted before it could tell")
	case !p.parents[randomCheck]:
		v.Because = append(v.Because, "the token gives no random octets")
	default:
		v.Because = append(v.Because, "no key that an authority could have was made and used; the checks in the group \"authority\" say why")
	}
	for _, c := range p.report.Checks {
		if c.Outcome == Fails && c.Meaning != "" && !slices.Contains(v.Because, c.Meaning) {
			v.Because = append(v.Because, c.Meaning)
		}
	}
}
