package probe_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/hsm/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// leftover makes a key as a killed probe leaves it.
func leftover(t *testing.T, token *hsm.Token, label string) {
	t.Helper()
	id := sha256.Sum256([]byte(label))
	hsmtest.Key{Label: label, ID: id[:20]}.Generate(t, token)
}

func labels(t *testing.T, token *hsm.Token) string {
	t.Helper()
	objects, err := token.Objects(t.Context(), hsm.KeyRef{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range objects {
		if o.Class == "CKO_PRIVATE_KEY" || o.Class == "CKO_SECRET_KEY" {
			all = append(all, o.Label)
		}
	}
	return strings.Join(all, " ")
}

// settled runs a probe and, where the token lets go of keys only when it is opened anew, opens it anew.
func settled(ctx context.Context, t *testing.T, fixture *hsmtest.Token, token *hsm.Token, c probe.Config) (*hsm.Token, *probe.Report, error) {
	t.Helper()
	c.Token, c.Now = token, time.Now
	report, err := probe.Run(ctx, c)
	if !errors.Is(err, probe.ErrLeft) {
		return token, report, err
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	again := fixture.Open(t)
	if left, err := probe.Clean(t.Context(), again); err != nil || len(left) > 0 {
		t.Fatalf("%q stayed, %v", left, err)
	}
	if report.Cancelled {
		return again, report, context.Canceled
	}
	return again, report, nil
}

// What the probe sees is what the vendor's profile says, which hsm's own tests hold against the same token.
func TestProbe(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	c := fixture.Config()
	c.AcceptNotLocal = false // as the command opens it
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { token.Close() }()
	bystander := hsmtest.Key{Label: "chancery-probe-00000000-bystander", ID: []byte("another id")}.Generate(t, token)
	hsmtest.Key{Label: "ca", ID: []byte("ca")}.Generate(t, token)
	before := labels(t, token)
	started := map[string]bool{}
	token, report, err := settled(t.Context(), t, fixture, token, probe.Config{
		Speed: 20 * time.Millisecond, Sessions: 2, Starting: func(check string) { started[check] = true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := labels(t, token); after != before {
		t.Errorf("the token held %q and holds %q", before, after)
	}
	if _, err := token.Attributes(bystander); err != nil {
		t.Errorf("a key that only looks like the probe's: %v", err)
	}
	profile := token.Info().Profile()
	if report.Profile != fixture.Profile() || report.Token.Label != fixture.Label || len(report.Token.Mechanisms) == 0 || report.Seconds <= 0 || report.Cancelled {
		t.Errorf("the report is of %+v", report.Token)
	}
	outcome := map[string]probe.Check{}
	for _, c := range report.Checks {
		outcome[c.Name] = c
		if started[c.Name] != (c.Outcome != probe.Untried) {
			t.Errorf("%s was announced: %t; outcome %s", c.Name, started[c.Name], c.Outcome)
		}
		if c.Outcome == probe.Fails && c.CKR == "" && c.Detail == "" {
			t.Errorf("%s failed without a word", c.Name)
		}
	}
	for _, one := range []struct {
		name       string
		capability hsm.Capability
	}{
		{"generate ec-p256", hsm.Capability(hsm.ECDSAP256)},
		{"generate ed25519", hsm.Capability(hsm.Ed25519)},
		{"generate rsa-4096", hsm.Capability(hsm.RSA4096)},
		{"generate aes-256", hsm.Capability(hsm.AES256)},
		{"CKM_SHA256_HMAC", hsm.Capability(hsm.HMACSHA256)},
		{"CKM_ECDSA with P-521", hsm.Capability(hsm.ECDSAP521)},
		{"CKM_RSA_PKCS", hsm.CanPKCS1},
		{"CKM_RSA_PKCS_PSS, salt as long as the hash", hsm.CanPSS},
		{"CKM_RSA_PKCS_PSS, salt of 20 octets", hsm.CanPSSOtherSalt},
		{"CKM_RSA_PKCS_OAEP with SHA-1", hsm.CanOAEPSHA1},
		{"CKM_RSA_PKCS_OAEP with SHA-256", hsm.CanOAEPSHA256},
		{"CKM_AES_GCM", hsm.CanGCM},
		{"CKM_RSA_PKCS_OAEP with SHA-1, of an AES key", hsm.CanWrapOAEPSHA1},
		{"CKM_SHA256", hsm.CanDigest},
		{"CKO_CERTIFICATE objects", hsm.CanStoreCertificates},
		{"CKA_LOCAL is told", hsm.TellsLocal},
		{"CKA_DECRYPT=false is taken", hsm.KnowsUsages},
		{"CKA_COPYABLE=false is taken", hsm.KnowsCopyable},
		{"CKA_MODIFIABLE=false is taken", hsm.KnowsModifiable},
		{"CKA_ALLOWED_MECHANISMS is enforced", hsm.KnowsMechanisms},
		{"authority with ecdsa-p256", hsm.TellsLocal},
		{"a second key of the same label and CKA_ID leaves the first", hsm.KeepsTwins},
	} {
		name, capability := one.name, one.capability
		c, tried := outcome[name]
		if !tried || (c.Outcome == probe.Works) != profile.Has(capability) {
			t.Errorf("%s: %s %s %s; the profile %s has %s: %t", name, c.Outcome, c.CKR, c.Detail, profile.Name, capability, profile.Has(capability))
		}
	}
	if report.Verdict.Runs != profile.Has(hsm.TellsLocal) || len(report.Verdict.Because) == 0 {
		t.Errorf("the verdict is %+v", report.Verdict)
	}
	if len(report.Lacks) == 0 || len(report.Lacks) != len(profile.Lacks) {
		t.Errorf("the report says that %v are missing, the profile %v", report.Lacks, profile.Lacks)
	}
	if len(report.Speed) == 0 || report.Speed[0].PerSecond <= 0 {
		t.Errorf("the speed is %v", report.Speed)
	}
	readable(t, report)
}

// readable sees that every form of the report says what it should.
func readable(t *testing.T, report *probe.Report) {
	t.Helper()
	encoded, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var back probe.Report
	if err := json.Unmarshal(encoded, &back); err != nil {
		t.Fatal(err)
	}
	var text, page, table bytes.Buffer
	if err := errors.Join(report.Text(&text), back.Markdown(&page), probe.Compare(&table, []*probe.Report{report, &back})); err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		for form, all := range map[string]string{"text": text.String(), "Markdown": page.String(), "comparison": table.String()} {
			if !strings.Contains(all, c.Name) {
				t.Errorf("the %s does not say %q", form, c.Name)
			}
		}
	}
	for _, lacked := range report.Lacks {
		if !strings.Contains(table.String(), "| "+lacked+" | missing | missing |") {
			t.Errorf("the comparison does not say that %s is missing", lacked)
		}
	}
	for _, says := range append([]string{"Chancery can", report.Profile, report.Verdict.Because[0]}, report.Lacks...) {
		if !strings.Contains(text.String(), says) || !strings.Contains(page.String(), says) {
			t.Errorf("the report does not say %q", says)
		}
	}
}

// A token that gives out what should stay has every algorithm that an authority needs, and is none to run an authority on.
// It is not parallel: SoftHSM serves one of the two libraries at a time.
func TestProbeOfATokenThatLeaks(t *testing.T) {
	faulty, fixture := hsmtest.NewFaulty(t), hsmtest.New(t)
	token, err := hsm.Open(t.Context(), faulty.Config(fixture))
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for fault, check := range map[string]string{
		hsmtest.Telling: "the private value cannot be read", hsmtest.Wrapping: "a key that stays cannot be wrapped",
	} {
		faulty.Begin(t, fault)
		report, err := probe.Run(t.Context(), probe.Config{Token: token, Now: time.Now, Sessions: 1})
		if err != nil {
			t.Fatalf("%s: %v", fault, err)
		}
		failed := slices.ContainsFunc(report.Checks, func(c probe.Check) bool { return c.Name == check && c.Outcome == probe.Fails })
		v := report.Verdict
		if !failed || v.Runs || len(v.Authorities) == 0 || !strings.Contains(v.Because[0], "CAN LEAVE THE TOKEN") {
			t.Errorf("%s: %q failed: %t; the verdict is %+v", fault, check, failed, v)
		}
	}
}

// However early the probe is interrupted, nothing stays.
func TestProbeInterrupted(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	token := fixture.Open(t)
	for _, at := range []string{"C_GenerateRandom", "generate ec-p384", "generate rsa-2048", "CKA_EXTRACTABLE cannot be made true"} {
		ctx, cancel := context.WithCancel(t.Context())
		var report *probe.Report
		var err error
		token, report, err = settled(ctx, t, fixture, token, probe.Config{Sessions: 1, Starting: func(check string) {
			if check == at {
				cancel()
			}
		}})
		cancel()
		// A token that lacks the key for a check never starts it: then the probe ran to its end.
		if report == nil || (err == nil) == report.Cancelled || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("at %s: %v", at, err)
			continue
		}
		if report.Cancelled && report.Checks[len(report.Checks)-1].Outcome != probe.Untried {
			t.Errorf("at %s: the last check is %+v", at, report.Checks[len(report.Checks)-1])
		}
		if report.Cancelled && report.Verdict.Runs {
			t.Errorf("at %s: the verdict is %+v", at, report.Verdict)
		}
		if held := labels(t, token); held != "" {
			t.Errorf("at %s: the token holds %q", at, held)
		}
	}
}

func TestLeftoversAreFoundAndRemoved(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	leftover(t, token, "chancery-probe-0123abcd-twin")
	hsmtest.Key{Label: "ca", ID: []byte("ca")}.Generate(t, token)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := probe.Run(ctx, probe.Config{Token: token, Now: time.Now, Sessions: 1})
	if err == nil || report == nil || len(report.Left) != 1 || report.Left[0] != "chancery-probe-0123abcd-twin" {
		t.Fatalf("%+v, %v", report, err)
	}
	left, err := probe.Clean(t.Context(), token)
	if err != nil || len(left) > 0 {
		t.Errorf("%q stayed, %v", left, err)
	}
	if held := labels(t, token); held != "ca" {
		t.Errorf("the token holds %q", held)
	}
}
