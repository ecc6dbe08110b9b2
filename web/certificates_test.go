package web

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

func TestIssue(t *testing.T) {
	s := newSurface(t)
	der, inPEM := newCSR(t, "a.dev.example")
	post := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}
	raw := post
	raw.path += "?profile=tls-server&validity=30d&issuer=issuing-1"
	whole := IssueRequest{
		Profile: "tls-server", CSR: inPEM, Validity: "30d", Issuer: "issuing-1",
		Metadata: map[string]string{"ticket": "X-1"},
	}
	for name, a := range map[string]ask{
		"JSON":         post.json(whole).with("Idempotency-Key", "k-1"),
		"charset":      post.json(whole).with("Content-Type", "application/json; charset=UTF-8").with("Idempotency-Key", "k-1"),
		"DER":          raw.of(der).with("Content-Type", typePKCS10).with("Idempotency-Key", "k-1"),
		"PEM":          raw.of([]byte(inPEM)).with("Content-Type", typePEM).with("Idempotency-Key", "k-1"),
		"accepts JSON": post.json(whole).with("Accept", "text/html, application/*;q=0.5").with("Idempotency-Key", "k-1"),
	} {
		t.Run(name, func(t *testing.T) {
			s.office.orders = nil
			w := s.call(a)
			got := decode[map[string]any](t, w, http.StatusCreated)
			if keys := sortedKeys(got); !slices.Equal(keys, []string{
				"audit_event", "certificate", "chain", "issuer", "not_after", "not_before",
				"policy_version", "profile", "serial",
			}) {
				t.Errorf("the answer has the fields %v", keys)
			}
			if got["serial"] != s.office.outcome.Certificate.Serial.String() || got["not_before"] != "2026-11-20T11:00:00Z" ||
				got["audit_event"] != "e-1" {
				t.Errorf("got %v", got)
			}
			leaf, rest := pem.Decode([]byte(got["chain"].(string)))
			issuer, rest := pem.Decode(rest)
			if !bytes.Equal(leaf.Bytes, s.office.outcome.Chain[0]) || !bytes.Equal(issuer.Bytes, s.office.outcome.Chain[1]) || len(rest) != 0 {
				t.Error("the chain is not the leaf and its issuer")
			}
			if w.Header().Get("Location") != "/api/v1/certificates/"+got["serial"].(string) || w.Header().Get("Content-Type") != typeJSON ||
				w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Idempotency-Replayed") != "" {
				t.Errorf("headers %v", w.Header())
			}
			o := s.office.orders[0]
			if o.Profile != "tls-server" || o.Validity != 30*day || o.Issuer != "issuing-1" || o.IdempotencyKey != "k-1" ||
				!bytes.Equal(o.CSR.Raw(), der) || o.Actor.ID != "actor-requester" {
				t.Errorf("order %+v", o)
			}
		})
	}
	t.Run("chain alone", func(t *testing.T) {
		w := s.call(post.json(whole).with("Accept", typeChain))
		if w.Code != http.StatusCreated || w.Header().Get("Content-Type") != typeChain ||
			w.Body.String() != encodePEM(s.office.outcome.Chain...) {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
	t.Run("replay", func(t *testing.T) {
		s.office.outcome.Replayed = true
		if w := s.call(post.json(whole)); w.Code != http.StatusCreated || w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
}

func TestIssueRefusesBadForm(t *testing.T) {
	s := newSurface(t)
	der, inPEM := newCSR(t, "a.dev.example")
	post := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}
	body := func(change func(*IssueRequest)) ask {
		r := IssueRequest{Profile: "tls-server", CSR: inPEM}
		change(&r)
		return post.json(r)
	}
	text := func(s string) ask { return post.with("Content-Type", typeJSON).of([]byte(s)) }
	at := func(path string) ask { a := post; a.path = path; return a }
	many := map[string]string{}
	for i := range maxMetadata + 1 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	for name, c := range map[string]struct {
		ask    ask
		status int
		kind   string
		rule   string
	}{
		"empty body":       {text(""), 400, "malformed", "json.syntax"},
		"no object":        {text(`[]`), 400, "malformed", "json.type"},
		"cut off":          {text(`{"profile":`), 400, "malformed", "json.syntax"},
		"duplicate name":   {text(`{"profile":"a","profile":"b","csr":""}`), 400, "malformed", "json.duplicate-name"},
		"nested duplicate": {text(`{"metadata":{"a":"1","a":"2"}}`), 400, "malformed", "json.duplicate-name"},
		"unknown field":    {text(`{"profile":"a","csr":"","extra":1}`), 400, "malformed", "json.unknown-field"},
		"wrong case":       {text(`{"Profile":"a"}`), 400, "malformed", "json.unknown-field"},
		"wrong type":       {text(`{"profile":1}`), 400, "malformed", "json.type"},
		"null":             {text(`{"profile":null}`), 400, "malformed", "json.null"},
		"trailing":         {text(`{"profile":"a"} {}`), 400, "malformed", "json.trailing-data"},
		"not UTF-8":        {text("{\"profile\":\"\xff\"}"), 400, "malformed", "json.encoding"},
		"no fields":        {text(`{}`), 400, "invalid", "request.csr"},
		"no profile":       {text(`{}`), 400, "invalid", "request.profile"},
		"bad profile":      {body(func(r *IssueRequest) { r.Profile = "../x" }), 400, "invalid", "request.profile"},
		"bad issuer":       {body(func(r *IssueRequest) { r.Issuer = "a b" }), 400, "invalid", "request.issuer"},
		"bad validity":     {body(func(r *IssueRequest) { r.Validity = "1y" }), 400, "invalid", "request.validity"},
		"zero validity":    {body(func(r *IssueRequest) { r.Validity = "0d" }), 400, "invalid", "request.validity"},
		"much metadata":    {body(func(r *IssueRequest) { r.Metadata = many }), 400, "invalid", "request.metadata"},
		"long metadata": {
			body(func(r *IssueRequest) { r.Metadata = map[string]string{"k": strings.Repeat("v", 257)} }), 400,
			"invalid", "request.metadata",
		},
		"metadata control": {body(func(r *IssueRequest) { r.Metadata = map[string]string{"k\n": "v"} }), 400, "invalid", "request.metadata"},
		"no CSR":           {body(func(r *IssueRequest) { r.CSR = "hello" }), 400, "unreadable-csr", "csr.not-pem"},
		"cut CSR": {
			at(post.path+"?profile=tls-server").with("Content-Type", typePKCS10).of(der[:40]), 400, "unreadable-csr",
			"csr.truncated",
		},
		"long CSR": {
			at(post.path+"?profile=tls-server").with("Content-Type", typePKCS10).of(append(bytes.Clone(der), 0)), 400,
			"unreadable-csr", "csr.trailing-data",
		},
		"raw, no profile": {post.with("Content-Type", typePKCS10).of(der), 400, "invalid", "request.profile"},
		"both": {
			func() ask { a := body(func(*IssueRequest) {}); a.path += "?profile=tls-server"; return a }(), 400,
			"invalid", "request.profile",
		},
		"misspelt query": {at(post.path+"?profil=x").with("Content-Type", typePKCS10).of(der), 400, "invalid", "request.query"},
		"query twice":    {at(post.path+"?profile=x&profile=y").with("Content-Type", typePKCS10).of(der), 400, "invalid", "request.profile"},
		"query escape":   {at(post.path+"?profile=%zz").with("Content-Type", typePKCS10).of(der), 400, "invalid", "request.query"},
		"key with space": {body(func(*IssueRequest) {}).with("Idempotency-Key", "a b"), 400, "invalid", "request.idempotency-key"},
		"key too long": {
			body(func(*IssueRequest) {}).with("Idempotency-Key", strings.Repeat("k", 256)), 400, "invalid",
			"request.idempotency-key",
		},
		"no media type":   {post.of(der), 415, "unsupported-media-type", ""},
		"form":            {post.of(der).with("Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported-media-type", ""},
		"JSON look-alike": {post.of(der).with("Content-Type", "application/vnd.x+json"), 415, "unsupported-media-type", ""},
		"other charset":   {post.of(der).with("Content-Type", "application/json; charset=utf-16"), 415, "unsupported-media-type", ""},
		"not acceptable":  {body(func(*IssueRequest) {}).with("Accept", "text/html"), 406, "not-acceptable", ""},
		"refused JSON":    {body(func(*IssueRequest) {}).with("Accept", "application/json;q=0"), 406, "not-acceptable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := wantProblem(t, s.call(c.ask), c.status, c.kind)
			if c.rule != "" {
				wantRule(t, p, c.rule)
			}
		})
	}
	if len(s.office.orders) > 0 {
		t.Errorf("the authority was asked for %d of them", len(s.office.orders))
	}
}

func TestIssueReportsAllViolations(t *testing.T) {
	s := newSurface(t)
	w := s.call(ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.
		json(IssueRequest{Profile: "", Validity: "x", Issuer: "?", CSR: "-"}).with("Idempotency-Key", "\x7f"))
	if p := wantProblem(t, w, http.StatusBadRequest, "unreadable-csr"); len(p.Violations) != 5 {
		t.Errorf("want 5 violations, got %+v", p.Violations)
	}
}

func TestTheCallersWordsAreCut(t *testing.T) {
	s := newSurface(t)
	long := strings.Repeat("A<script>", 2000)
	body, err := json.Marshal(map[string]string{long: "x"})
	if err != nil {
		t.Fatal(err)
	}
	w := s.call(ask{method: http.MethodPost, path: "/api/v1/certificates?" + strings.Repeat("q", 5000) + "=1", role: access.Requester}.
		with("Content-Type", typeJSON).of(body))
	wantProblem(t, w, http.StatusBadRequest, "invalid")
	if w.Body.Len() > 1500 {
		t.Errorf("the answer has %d octets", w.Body.Len())
	}
	w = s.call(ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.with("Content-Type", typeJSON).of(body))
	wantRule(t, wantProblem(t, w, http.StatusBadRequest, "malformed"), "json.unknown-field")
	if w.Body.Len() > 1500 {
		t.Errorf("the answer has %d octets", w.Body.Len())
	}
}

func TestCertificate(t *testing.T) {
	s := newSurface(t)
	a := ask{path: "/api/v1/certificates/1cab?issuer=issuing-1", role: access.Auditor}
	shown := decode[Certificate](t, s.call(a), http.StatusOK)
	if shown.Status != "valid" || shown.Revocation != nil || shown.PossiblySigned || shown.Names[0] != "leaf.dev.example" ||
		shown.Request != "r-1" ||
		shown.Certificate != encodePEM(s.office.found.DER) || strings.Count(shown.Chain, "BEGIN") != 2 {
		t.Errorf("got %+v", shown)
	}
	for mediaType, want := range map[string]string{
		typeDER: string(s.office.found.DER), typePEM: encodePEM(s.office.found.DER), typeChain: shown.Chain,
	} {
		w := s.call(a.with("Accept", mediaType))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaType || w.Body.String() != want {
			t.Errorf("%s: %d %s", mediaType, w.Code, w.Header().Get("Content-Type"))
		}
	}
	for _, serial := range []string{"1C", "1", "0x1c", "1c:ab", "zz", strings.Repeat("1c", 21)} {
		wantRule(t, wantProblem(t, s.call(ask{path: "/api/v1/certificates/" + serial, role: access.Auditor}), 400, "invalid"), "request.serial")
	}
}

func TestRevokedCertificateAndOrphan(t *testing.T) {
	s := newSurface(t)
	a := ask{path: "/api/v1/certificates/1cab", role: access.Auditor}
	revocation := s.office.revoked
	s.office.found.Revocation = &revocation
	shown := decode[Certificate](t, s.call(a), http.StatusOK)
	if shown.Status != "revoked" || shown.Revocation == nil || shown.Revocation.Reason != "superseded" ||
		shown.Revocation.AuditEvent != "e-2" {
		t.Errorf("got %+v", shown)
	}
	released := revocation
	released.Reason = mustReason(t, "removeFromCRL")
	s.office.found.Revocation = &released
	if shown := decode[Certificate](t, s.call(a), http.StatusOK); shown.Status != "valid" || shown.Revocation != nil {
		t.Errorf("a released certificate shows %+v", shown)
	}
	s.office.found.Revocation, s.office.found.Orphan, s.office.found.DER = &revocation, true, nil
	orphan := decode[map[string]any](t, s.call(a), http.StatusOK)
	if orphan["possibly_signed"] != true || orphan["certificate"] != nil || orphan["chain"] != nil || orphan["status"] != "revoked" {
		t.Errorf("got %v", orphan)
	}
	for _, mediaType := range []string{typeDER, typePEM, typeChain} {
		p := wantProblem(t, s.call(a.with("Accept", mediaType)), http.StatusNotFound, "not-found")
		if !strings.Contains(p.Detail, "broke off") {
			t.Errorf("it does not say why: %q", p.Detail)
		}
	}
}

func TestCertificates(t *testing.T) {
	s := newSurface(t)
	list := decode[CertificateList](t, s.call(ask{
		role: access.Auditor,
		path: "/api/v1/certificates?q=leaf&profile=tls-server&issuer=issuing-1&status=on-hold&expires_before=2027-01-01T00:00:00Z&cursor=abc&limit=7",
	}), 200)
	if len(list.Certificates) != 1 || list.Next != "more" || list.Certificates[0].Certificate != "" {
		t.Errorf("got %+v", list)
	}
	f := s.office.filters[0]
	if f.Query != "leaf" || f.Profile != "tls-server" || f.Issuer != "issuing-1" || f.Status != "on-hold" || f.Cursor != "abc" ||
		f.Limit != 7 ||
		!f.ExpiresBefore.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("filter %+v", f)
	}
	s.office.page.Certificates, s.office.page.Next = nil, ""
	if w := s.call(ask{path: "/api/v1/certificates", role: access.Auditor}); strings.TrimSpace(w.Body.String()) != `{"certificates":[]}` {
		t.Errorf("an empty page is %s", w.Body)
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=501": "limit", "limit=x": "limit", "status=Valid": "status", "expires_before=tomorrow": "expires_before",
		"profile=a/b": "profile", "issuer=%00": "issuer", "q=%00": "q", "q=" + strings.Repeat("a", 254): "q", "cursor=%0a": "cursor",
		"Limit=1": "query",
	} {
		w := s.call(ask{path: "/api/v1/certificates?" + query, role: access.Auditor})
		wantRule(t, wantProblem(t, w, http.StatusBadRequest, "invalid"), "request."+field)
	}
}

// A time of a year that JSON cannot say would leave the certificate, and whatever list it is on, without an answer.
func TestARevocationIsShownWhateverItsInvalidityDate(t *testing.T) {
	for text, shown := range map[string]bool{
		"2026-11-01T00:00:00+01:00": true, "0000-01-01T00:00:00Z": true, "0000-01-01T00:00:00+14:00": false, "9999-12-31T23:59:59-14:00": false,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		got := showRevocation(ca.Revocation{InvalidityDate: at}).InvalidityDate
		if _, err := json.Marshal(got); err != nil || (got != nil) != shown {
			t.Errorf("%s is shown as %v: %v", text, got, err)
		}
	}
}

func TestRevoke(t *testing.T) {
	s := newSurface(t)
	a := ask{method: http.MethodPost, path: "/api/v1/certificates/1cab/revoke?issuer=issuing-1", role: access.Revoker}
	w := s.call(a.json(RevokeRequest{Reason: "keycompromise", Comment: "stolen\nlaptop", InvalidityDate: "2026-11-01T00:00:00+01:00"}))
	got := decode[Revoked](t, w, http.StatusOK)
	if got.Reason != "superseded" || got.Status != "revoked" || got.Serial == "" || got.Issuer != "issuing-1" ||
		got.AuditEvent != "e-2" || got.InvalidityDate != nil {
		t.Errorf("got %+v", got)
	}
	o := s.office.revokes[0]
	if o.Reason != mustReason(t, "keyCompromise") || hex.EncodeToString(o.Serial) != "1cab" || o.Comment != "stolen\nlaptop" ||
		o.Issuer != "issuing-1" ||
		o.InvalidityDate.Unix() != time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC).Unix() {
		t.Errorf("order %+v", o)
	}
	for name, c := range map[string]struct {
		body RevokeRequest
		rule string
	}{
		"no reason":   {RevokeRequest{}, "request.reason"},
		"bad reason":  {RevokeRequest{Reason: "because"}, "request.reason"},
		"reason 7":    {RevokeRequest{Reason: "7"}, "request.reason"},
		"bad date":    {RevokeRequest{Reason: "superseded", InvalidityDate: "yesterday"}, "request.invalidity_date"},
		"bad comment": {RevokeRequest{Reason: "superseded", Comment: "\x1b[31m"}, "request.comment"},
	} {
		t.Run(name, func(t *testing.T) {
			wantRule(t, wantProblem(t, s.call(a.json(c.body)), http.StatusBadRequest, "invalid"), c.rule)
		})
	}
	a.path = "/api/v1/certificates/1CAB/revoke"
	wantRule(t, wantProblem(t, s.call(a.json(RevokeRequest{Reason: "x"})), http.StatusBadRequest, "invalid"), "request.serial")
	wantProblem(t, s.call(a.of([]byte("reason=x")).with("Content-Type", "application/x-www-form-urlencoded")), 415, "unsupported-media-type")
}

func TestProfiles(t *testing.T) {
	s := newSurface(t)
	list := decode[ProfileList](t, s.call(ask{path: "/api/v1/profiles", role: access.Requester}), http.StatusOK)
	if list.PolicyVersion != s.office.policies.Digest() || len(list.Profiles) != len(s.office.policies.Names()) {
		t.Errorf("got %+v", list)
	}
	one := decode[policies.Summary](t, s.call(ask{path: "/api/v1/profiles/tls-server", role: access.Requester}), http.StatusOK)
	if one.Name != "tls-server" || one.ValidityMax == 0 {
		t.Errorf("got %+v", one)
	}
	for _, name := range []string{"nothing", "a.b", "%2e%2e", "a%2Fb"} {
		wantProblem(t, s.call(ask{path: "/api/v1/profiles/" + name, role: access.Requester}), http.StatusNotFound, "not-found")
	}
}

func TestEvaluate(t *testing.T) {
	s := newSurface(t)
	der, inPEM := newCSR(t, "a.dev.example")
	a := ask{method: http.MethodPost, path: "/api/v1/profiles/tls-server/evaluate", role: access.Requester}
	for name, a := range map[string]ask{
		"JSON": a.json(EvaluateRequest{CSR: inPEM, Validity: "1d"}),
		"DER":  a.with("Content-Type", typePKCS10).of(der),
	} {
		t.Run(name, func(t *testing.T) {
			d := decode[Decision](t, s.call(a), http.StatusOK)
			if d.Verdict != policies.Allow || len(d.Results) == 0 || d.Profile != "tls-server" || d.PolicyVersion == "" || d.Violations == nil {
				t.Errorf("got %+v", d)
			}
			if d.Content == nil || !slices.Equal(d.Content.Names, []string{"a.dev.example"}) || !d.Content.NotAfter.After(noon) {
				t.Errorf("the certificate would say %+v", d.Content)
			}
		})
	}
	_, foreign := newCSR(t, "a.ops.example")
	d := decode[Decision](t, s.call(a.json(EvaluateRequest{CSR: foreign})), http.StatusOK)
	if d.Verdict != policies.Refuse || len(d.Violations) == 0 || d.Violations[0].Hint == "" {
		t.Errorf("got %+v", d)
	}
	if len(s.office.orders) > 0 {
		t.Error("an evaluation asked for a certificate")
	}
	a.path = "/api/v1/profiles/nothing/evaluate"
	wantProblem(t, s.call(a.json(EvaluateRequest{CSR: inPEM})), http.StatusNotFound, "not-found")
}

func TestAuthorities(t *testing.T) {
	s := newSurface(t)
	list := decode[AuthorityList](t, s.call(ask{path: "/api/v1/authorities", role: access.Operator}), http.StatusOK)
	if len(list.Authorities) != 2 {
		t.Fatalf("got %+v", list)
	}
	a := list.Authorities[0]
	if a.Name != "issuing-1" || a.Parent != "root" || a.Serial != "4d" || a.Key.ID != "0102" || a.Key.Algorithm != "ECDSA P-256" ||
		!a.Signing ||
		a.CRL.Number != "5" || a.CRL.Validity != 7*86400 || strings.Count(a.Chain, "BEGIN") != 2 {
		t.Errorf("got %+v", a)
	}
	root := decode[AuthorityState](t, s.call(ask{path: "/api/v1/authorities/root", role: access.Operator}), http.StatusOK)
	if root.Name != "root" || root.Parent != "" || root.CRL.Number != "" || root.Signing {
		t.Errorf("got %+v", root)
	}
	wantProblem(t, s.call(ask{path: "/api/v1/authorities/none", role: access.Operator}), http.StatusNotFound, "not-found")
}

func TestRepeatedHeadersAreRefused(t *testing.T) {
	s := newSurface(t)
	_, inPEM := newCSR(t, "a.dev.example")
	for _, name := range []string{"Idempotency-Key", "Content-Type"} {
		body, err := json.Marshal(IssueRequest{Profile: "tls-server", CSR: inPEM})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/api/v1/certificates", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+s.tokens[access.Requester])
		r.Header.Set("Content-Type", typeJSON)
		r.Header[name] = []string{typeJSON, typeJSON}
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest && w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%s twice: %d", name, w.Code)
		}
	}
}

// TestEncodePEM holds what is written against encoding/pem, whose text everybody reads.
func TestEncodePEM(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 3).Draw(t, "certificates")
		var want []byte
		for _, der := range all {
			want = append(want, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		if got := encodePEM(all...); got != string(want) {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}
