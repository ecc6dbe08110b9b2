package web

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseValidity(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "720h": 720 * time.Hour, "90d12h": 90*day + 12*time.Hour, "1d2h3m4s": day + 2*time.Hour + 3*time.Minute + 4*time.Second,
		"720h0m0s": 720 * time.Hour, "090d": 90 * day, "1s": time.Second, "1h30m": 90 * time.Minute,
	} {
		if got, err := parseValidity(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "d", "30", "30 d", "-1d", "+1d", "1.5h", "1h1d", "1d1d", "0d", "0h0m", "1y", "1D", "36601d", "99999999999999999999d",
		"9223372036854775807h", "1d ", "1µs", "1ms",
	} {
		if got, err := parseValidity(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestValidityIsReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, h, m, s := rapid.IntRange(0, 36000).Draw(t, "d"), rapid.IntRange(0, 99).Draw(t, "h"), rapid.IntRange(0, 99).Draw(t, "m"),
			rapid.IntRange(1, 99).Draw(t, "s")
		got, err := parseValidity(fmt.Sprintf("%dd%dh%dm%ds", d, h, m, s))
		want := time.Duration(d)*day + time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
		if err != nil || got != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
	})
}

func FuzzValidity(f *testing.F) {
	for _, seed := range []string{"30d", "90d12h", "1h1d", "99999999999d", "0s", "720h0m0s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseValidity(text)
		if err != nil {
			if got != 0 {
				t.Fatalf("%q: %v with an error", text, got)
			}
			return
		}
		if got <= 0 || got > maxValidity || got%time.Second != 0 {
			t.Fatalf("%q was read as %v", text, got)
		}
		if !strings.Contains(text, "d") {
			if other, err := time.ParseDuration(text); err != nil || other != got {
				t.Fatalf("%q: %v here, %v (%v) in Go", text, got, other, err)
			}
		}
	})
}

func FuzzSerial(f *testing.F) {
	for _, seed := range []string{"1c", "1C", "1", "", "0x1c", "1c:ab", strings.Repeat("ff", 20), strings.Repeat("ff", 21)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseSerial(text)
		if err != nil {
			if got != nil {
				t.Fatalf("%q: %x with an error", text, got)
			}
			return
		}
		if hex.EncodeToString(got) != text || len(got) == 0 || len(got) > maxSerial {
			t.Fatalf("%q was read as %x", text, got)
		}
	})
}

func TestNegotiate(t *testing.T) {
	offers := []string{typeJSON, typeChain, typeDER}
	for accept, want := range map[string]string{
		"": typeJSON, ",": typeJSON, "*/*": typeJSON, "application/*": typeJSON, typeDER: typeDER, "APPLICATION/PKIX-CERT": typeDER,
		"application/json;q=0.1, application/pkix-cert": typeDER, "*/*;q=0.1, application/pem-certificate-chain;q=0.2": typeChain,
		"application/json;q=0, */*": typeChain, "text/html, */*;q=0.8": typeJSON, "application/pkix-cert;q=0.5,application/json;q=0.5": typeJSON,
		"text/html": "", "application/json;q=0": "", "application/json;q=x": "", "application/json;q=2": "", "rubbish": "",
		"application/json;q=NaN": "",
	} {
		if got, ok := negotiate(accept, offers); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", accept, got, ok, want)
		}
	}
}
