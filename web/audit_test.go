package web

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

func (a ask) text(body string) ask { return a.with("Content-Type", typeText).of([]byte(body)) }

func TestTheLogIsServed(t *testing.T) {
	s := newSurface(t)
	for path, want := range map[string]string{
		"/audit/checkpoint":                  "checkpoint with 0\n",
		"/audit/checkpoint?witnesses=3":      "checkpoint with 3\n",
		"/audit/log/checkpoint":              "checkpoint with 0\n",
		"/audit/log/tile/0/000":              "0 0 256",
		"/audit/log/tile/0/x001/234":         "0 1234 256",
		"/audit/log/tile/1/x001/234.p/7":     "1 1234 7",
		"/audit/log/tile/entries/x001/234":   "-1 1234 256",
		"/audit/log/tile/entries/004.p/255":  "-1 4 255",
		"/audit/log/tile/0%2Fx001%2F234":     "0 1234 256",
		"/audit/log/tile/entries%2f004.p/25": "-1 4 25",
		"/audit/keys":                        `{"keys":["log+1+k"]}` + "\n",
		"/audit/entries?from=5&to=8":         `{"entries":[{"index":5,"leaf":"first"},{"index":8,"leaf":"after"}]}` + "\n",
		"/audit/receipt/e-1?witnesses=2":     string(audit.Receipt{Leaf: []byte("e-1"), Index: 2, Checkpoint: []byte("note")}.Bytes()),
		"/audit/proof?index=3&size=9": fmt.Sprintf(`{"size":9,"hashes":["%s"],"checkpoint":"note"}`+"\n",
			base64.StdEncoding.EncodeToString(append([]byte{3}, make([]byte, 31)...))),
	} {
		w := s.call(ask{path: "/api/v1" + path, role: access.Auditor})
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", path, w.Code, w.Body, want)
		}
	}
	if w := s.call(ask{path: "/api/v1/audit/log/tile/0/000", role: access.Auditor}); !strings.Contains(w.Header().Get("Cache-Control"),
		"immutable") {
		t.Errorf("a tile is not kept: %v", w.Header())
	}
	w := s.call(ask{method: http.MethodPost, path: "/api/v1/audit/checkpoint", role: access.Auditor}.text("signed"))
	if w.Code != http.StatusOK || w.Body.String() != `{"witnesses":["signed"]}`+"\n" {
		t.Errorf("a cosignature: %d %s", w.Code, w.Body)
	}
}

func TestWhatIsNoneOfTheLog(t *testing.T) {
	s := newSurface(t)
	for path, status := range map[string]int{
		"/audit/checkpoint?witnesses=x":          http.StatusBadRequest,
		"/audit/checkpoint?witnesses=65":         http.StatusBadRequest,
		"/audit/log/tile/8/000":                  http.StatusNotFound,
		"/audit/log/tile/data/000":               http.StatusNotFound,
		"/audit/log/tile/0/1":                    http.StatusNotFound,
		"/audit/log/tile/0/000.p/256":            http.StatusNotFound,
		"/audit/log/tile/0/../../checkpoint":     http.StatusNotFound,
		"/audit/log/tile/0":                      http.StatusNotFound,
		"/audit/log/tile/0/000/":                 http.StatusNotFound,
		"/audit/log/tile/%ff/000":                http.StatusNotFound,
		"/audit/entries?from=-1":                 http.StatusBadRequest,
		"/audit/entries?to=99999999999999999999": http.StatusBadRequest,
		"/audit/proof":                           http.StatusBadRequest,
		"/audit/proof?index=1&from=1":            http.StatusBadRequest,
		"/audit/proof?index=1&to=2":              http.StatusBadRequest,
		"/audit/proof?from=1&size=2":             http.StatusBadRequest,
		"/audit/receipt/no%20event":              http.StatusNotFound,
	} {
		if w := s.call(ask{path: "/api/v1" + path, role: access.Auditor}); w.Code != status {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
	s.office.err = fmt.Errorf("a receipt: %w", ca.ErrNotLogged)
	w := s.call(ask{path: "/api/v1/audit/receipt/e-1", role: access.Requester})
	problem := decode[Problem](t, w, http.StatusNotFound)
	if problem.Type != "urn:chancery:problem:not-logged-yet" || w.Header().Get("Retry-After") != "1" {
		t.Errorf("an event that is not covered yet: %+v, %v", problem, w.Header())
	}
	s.office.err = errors.Join(ca.ErrLogDamaged, errors.New("hash 7"))
	if w := s.call(ask{path: "/api/v1/audit/receipt/e-1", role: access.Requester}); w.Code != http.StatusInternalServerError ||
		strings.Contains(w.Body.String(), "hash 7") {
		t.Errorf("a damaged log: %d %s", w.Code, w.Body)
	}
}
