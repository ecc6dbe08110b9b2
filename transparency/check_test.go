package transparency_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/transparency"
	"github.com/chancery-ca/chancery/transparency/logtest"
)

// TestPending takes a certificate whose entry its log has not merged: that is in order for as long as the merge delay runs.
func TestPending(t *testing.T) {
	p := newPlace(t)
	for _, name := range []string{"oak", "tile"} {
		log := p.logs[name]
		p.certify(p.submitter, wish(1, 1, name)) // so that there is a tree
		log.Delay()
		certificate, _ := p.certify(p.submitter, wish(1, 1, name))
		read, err := transparency.Read(certificate, p.cert.Raw, p.known, time.Now())
		if err != nil || read[0].Err != nil {
			t.Fatal(err, read)
		}
		client := transparency.HTTPClient(nil)
		if _, err := read[0].Included(t.Context(), client, time.Now()); !errors.Is(err, transparency.ErrPending) {
			t.Errorf("%s: before the merge: %v", name, err)
		}
		if _, err := read[0].Included(t.Context(), client, time.Now().Add(25*time.Hour)); !errors.Is(err, transparency.ErrMissing) {
			t.Errorf("%s: when the delay has passed: %v", name, err)
		}
		log.Merge()
		if proof, err := read[0].Included(t.Context(), client, time.Now()); err != nil || proof.Size != 2 || proof.Index != 1 {
			t.Errorf("%s: after the merge: %+v, %v", name, proof, err)
		}
		client.CloseIdleConnections()
	}
}

// TestManyTiles fills more than one tile.
func TestManyTiles(t *testing.T) {
	p := newPlace(t)
	first, _ := p.certify(p.submitter, wish(1, 1, "tile"))
	for range 300 {
		if _, _, err := p.submitter.Submit(t.Context(), p.precertificate(), wish(1, 1, "tile")); err != nil {
			t.Fatal(err)
		}
	}
	last, _ := p.certify(p.submitter, wish(1, 1, "tile"))
	client := transparency.HTTPClient(nil)
	defer client.CloseIdleConnections()
	for i, certificate := range [][]byte{first, last} {
		read, err := transparency.Read(certificate, p.cert.Raw, p.known, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if proof, err := read[0].Included(t.Context(), client, time.Now()); err != nil || proof.Index != []uint64{0, 301}[i] || proof.Size != 302 {
			t.Errorf("certificate %d: %+v, %v", i, proof, err)
		}
	}
}

// TestLyingTree stands between and answers what is not the log's.
func TestLyingTree(t *testing.T) {
	p := newPlace(t)
	p.certify(p.submitter, wish(2, 2, "oak", "tile"))
	certificate, _ := p.certify(p.submitter, wish(2, 2, "oak", "tile"))
	for path, change := range map[string]func([]byte) []byte{
		"/log/ct/v1/get-sth":           func(b []byte) []byte { return bytes.Replace(b, []byte(`"tree_size":2`), []byte(`"tree_size":1`), 1) },
		"/log/ct/v1/get-proof-by-hash": func(b []byte) []byte { return bytes.Replace(b, []byte(`"leaf_index":1`), []byte(`"leaf_index":0`), 1) },
		"/log/tiles/checkpoint":        func(b []byte) []byte { return bytes.Replace(b, []byte("\n2\n"), []byte("\n3\n"), 1) },
		"/log/tiles/tile/0/000.p/2":    func(b []byte) []byte { b[40] ^= 1; return b },
	} {
		client := transparency.HTTPClient(changing{path, change})
		read, err := transparency.Read(certificate, p.cert.Raw, p.known, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, e := range read {
			if _, err := e.Included(t.Context(), client, time.Now()); err != nil && !errors.Is(err, transparency.ErrPending) {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("with %s changed, %d of the two proofs fail", path, failed)
		}
	}
}

// changing changes the answers of one path.
type changing struct {
	path   string
	change func([]byte) []byte
}

func (c changing) RoundTrip(r *http.Request) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil || r.URL.Path != c.path {
		return answer, err
	}
	var body bytes.Buffer
	_, err = body.ReadFrom(answer.Body)
	_ = answer.Body.Close()
	recorder := httptest.NewRecorder()
	recorder.Code = answer.StatusCode
	_, _ = recorder.Write(c.change(body.Bytes()))
	changed := recorder.Result()
	changed.Request = r
	return changed, err
}

func TestReadRefuses(t *testing.T) {
	p := newPlace(t)
	certificate, _ := p.certify(p.submitter, wish(2, 2, "oak", "fir"))
	if _, err := transparency.Read(p.cert.Raw, p.root, p.known, time.Now()); err == nil {
		t.Error("a certificate without timestamps was accepted")
	}
	if _, err := transparency.Read(certificate, newAuthority(t).cert.Raw, p.known, time.Now()); err == nil {
		t.Error("a certificate of another issuer was accepted")
	}
	if _, err := transparency.Read([]byte("no certificate"), p.cert.Raw, p.known, time.Now()); err == nil {
		t.Error("nonsense was accepted")
	}
	read, err := transparency.Read(certificate, p.cert.Raw, nil, time.Now())
	if err != nil || len(read) != 2 || read[0].Err == nil || read[0].Log != nil {
		t.Errorf("unknown logs: %+v, %v", read, err)
	}
	read, err = transparency.Read(certificate, p.cert.Raw, p.known, time.Now().Add(-time.Hour))
	if err != nil || read[0].Err == nil {
		t.Errorf("timestamps of the future: %+v, %v", read, err)
	}
	// The timestamps of one certificate in another.
	list, _, err := p.submitter.Submit(t.Context(), p.precertificate(), wish(2, 2, "oak", "fir"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	borrowed := p.sign(p.draft(), newKey(t).Public(), pkix.Extension{Id: sctList, Value: value})
	read, err = transparency.Read(borrowed, p.cert.Raw, p.known, time.Now())
	if err != nil || len(read) != 2 || read[0].Err == nil || read[1].Err == nil {
		t.Errorf("borrowed timestamps: %+v, %v", read, err)
	}
	if _, err := read[0].Included(t.Context(), transparency.HTTPClient(nil), time.Now()); err == nil {
		t.Error("the inclusion of an entry was proven that nobody logged")
	}
}

// A timestamp has 64 bits. One with the first of them set is of a time that is far off, and not of one before 1970.
func TestATimestampOfTheFarFuture(t *testing.T) {
	const ago = -70 * 365 * 24 * time.Hour
	p := newPlace(t)
	p.logs["oak"].Break(logtest.Fault{Skew: ago})
	client := transparency.HTTPClient(nil)
	defer client.CloseIdleConnections()
	s, err := transparency.NewSubmitter(transparency.Config{
		Logs: p.known, Client: client, Now: func() time.Time { return time.Now().Add(ago) },
	})
	if err != nil {
		t.Fatal(err)
	}
	certificate, _ := p.certify(s, wish(1, 1, "oak"))
	read, err := transparency.Read(certificate, p.cert.Raw, p.known, time.Now())
	if err != nil || len(read) != 1 || read[0].Err == nil {
		t.Errorf("a timestamp of %s: %v, %v", read[0].Timestamp, read[0].Err, err)
	}
}

func TestLogList(t *testing.T) {
	now := time.Now()
	good := string(logtest.List(t, logtest.New(t, logtest.Options{Description: "oak", From: now, Until: now.AddDate(1, 0, 0)}),
		logtest.New(t, logtest.Options{Description: "tile", Static: true})))
	logs, err := transparency.ParseLogList("logs.json", []byte(good))
	if err != nil || len(logs) != 2 || logs[0].Static() || !logs[1].Static() || logs[0].State != transparency.Usable || logs[0].MMD != 24*time.Hour {
		t.Fatalf("%+v, %v", logs, err)
	}
	if logs[0].Accepts(now.Add(-time.Second)) || !logs[0].Accepts(now.AddDate(0, 1, 0)) || logs[0].Accepts(now.AddDate(1, 0, 0)) {
		t.Error("the interval is not what the list says")
	}
	line := func(of string) int { return 1 + strings.Count(good[:strings.Index(good, of)], "\n") }
	for name, c := range map[string]struct {
		text, want string
	}{
		"another identifier": {strings.Replace(good, `"log_id": "`, `"log_id": "AAAA`, 1), fmt.Sprintf("logs.json:%d: operators[0].logs[0].log_id", line(`"log_id"`))},
		"no address":         {strings.Replace(good, `"url": "http`, `"url": "ftp`, 1), fmt.Sprintf("logs.json:%d: operators[0].logs[0].url", line(`"url"`))},
		"no key":             {strings.Replace(good, `"key": "`, `"key": "AAAA`, 1), fmt.Sprintf("logs.json:%d: operators[0].logs[0].key", line(`"key"`))},
		"no submission":      {strings.Replace(good, `"submission_url": "http`, `"submission_url": "x`, 1), fmt.Sprintf("logs.json:%d: operators[1].tiled_logs[0].submission_url", line(`"submission_url"`))},
		"no operator":        {strings.Replace(good, `"name": "Operator of oak"`, `"name": " "`, 1), fmt.Sprintf("logs.json:%d: operators[0].name", line(`"name"`))},
		"no tiles":           {strings.Replace(good, `"monitoring_url"`, `"monitor"`, 1), "operators[1].tiled_logs[0].monitoring_url"},
		"not a number":       {strings.Replace(good, `"mmd": 86400`, `"mmd": "a day"`, 1), "does not belong here"},
		"twice":              {strings.Replace(good, `"mmd": 86400`, `"mmd": 86400, "mmd": 1`, 1), "stands there twice"},
		"two of a name":      {strings.Replace(good, `"tile"`, `"oak"`, 1), "are called"},
		"cut":                {good[:len(good)/2], "logs.json:"},
		"two lists":          {good + "{}", "something follows"},
		"empty":              {"", "ends too early"},
		"no logs":            {`{"operators":[]}`, "no log in the list"},
	} {
		_, err := transparency.ParseLogList("logs.json", []byte(c.text))
		var wrong *transparency.ListError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "logs.json:") {
			t.Errorf("%s: %v does not say %q", name, err, c.want)
		}
	}
}

// FuzzLogList holds that whatever is taken for a list has logs that are whole.
func FuzzLogList(f *testing.F) {
	f.Add(logtest.List(f, logtest.New(f, logtest.Options{Description: "oak"}), logtest.New(f, logtest.Options{Description: "tile", Static: true})))
	f.Add([]byte(`{"operators":[null,{"logs":[{},null],"tiled_logs":[null]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		logs, err := transparency.ParseLogList("logs.json", data)
		if err == nil && (len(logs) == 0 || !json.Valid(data)) {
			t.Fatal("a list without logs, or that is none, was accepted")
		}
		for _, l := range logs {
			if l.Description == "" || l.Operator == "" || l.URL == "" || len(l.Key) == 0 {
				t.Fatalf("%+v is not whole", l)
			}
		}
	})
}
