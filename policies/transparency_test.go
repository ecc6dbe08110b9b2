package policies

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// withCT is the shipped profile of TLS servers with a ct key.
func withCT(t *testing.T, ct string) (*Profile, error) {
	t.Helper()
	text, err := shipped.ReadFile("profiles/tls-server.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set, err := Load(fstest.MapFS{"tls-server.yaml": {Data: append(text, "\n"+ct...)}})
	if err != nil {
		return nil, err
	}
	p, _ := set.Profile("tls-server")
	return p, nil
}

func TestTransparencyOfAProfile(t *testing.T) {
	p, err := withCT(t, "ct: {scts: 2, longer: [{than: 180d, scts: 3}], timeout: 4s}")
	if err != nil {
		t.Fatal(err)
	}
	ct := p.Transparency()
	if ct == nil || ct.SCTs != 2 || ct.Operators != 2 || ct.Timeout != 4*time.Second || ct.Patience != 2*time.Second || ct.Most() != 3 {
		t.Fatalf("it asks for %+v", ct)
	}
	begin := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lasts time.Duration
		want  int
	}{{90 * day, 2}, {180 * day, 2}, {180*day + time.Second, 3}, {199 * day, 3}} {
		if got := ct.Required(begin, begin.Add(c.lasts-time.Second)); got != c.want {
			t.Errorf("a certificate of %s needs %d timestamps, want %d", c.lasts, got, c.want)
		}
	}
	plain, err := withCT(t, "")
	if err != nil || plain.Transparency() != nil {
		t.Errorf("a profile without ct asks for %+v, %v", plain.Transparency(), err)
	}
	one, err := withCT(t, "ct: {scts: 1, patience: 30s}")
	if err != nil || one.Transparency().Operators != 1 || one.Transparency().Patience != one.Transparency().Timeout {
		t.Errorf("one timestamp: %+v, %v", one.Transparency(), err)
	}
}

func TestTransparencyThatCannotBe(t *testing.T) {
	for _, c := range []struct{ ct, want string }{
		{"ct: {}", "ct.scts"},
		{"ct: {scts: 11}", "ct.scts"},
		{"ct: {scts: 2, operators: 3}", "ct.operators"},
		{"ct: {scts: 2, operators: -1}", "ct.operators"},
		{"ct: {scts: 2, logs: [one]}", "ct.logs"},
		{"ct: {scts: 2, logs: [one, one]}", "ct.logs[1]"},
		{"ct: {scts: 1, logs: [' ']}", "ct.logs[0]"},
		{"ct: {scts: 2, longer: [{than: 180d, scts: 2}]}", "ct.longer[0].scts"},
		{"ct: {scts: 2, longer: [{than: soon, scts: 3}]}", "ct.longer[0].than"},
		{"ct: {scts: 2, longer: [{than: 2d, scts: 3}, {than: 1d, scts: 4}]}", "ct.longer[1].than"},
		{"ct: {scts: 2, timeout: 21s}", "ct.timeout"},
		{"ct: {scts: 2, timeout: 500ms}", "ct.timeout"},
		{"ct: {scts: 2, timeout: never}", "ct.timeout"},
		{"ct: {scts: 2, patience: 0s}", "ct.patience"},
		{"ct: {scts: 2, wait: 5s}", "wait"},
	} {
		_, err := withCT(t, c.ct)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "tls-server.yaml:") {
			t.Errorf("%s: %v does not name %s and its line", c.ct, err, c.want)
		}
	}
}
