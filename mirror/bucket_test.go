package mirror_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/mirror"
)

const (
	testAccess = "access-key"
	testSecret = "a secret that is told to nobody"
)

// store is a server that speaks as S3 does, as far as a bucket is asked. It checks each signature by itself.
type store struct {
	t       *testing.T
	plain   bool // knows no conditions
	refuses int  // with this status, if any
	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	body   []byte
	header http.Header
}

func newStore(t *testing.T) (*store, string) {
	s := &store{t: t, objects: map[string]object{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

func (s *store) at(path string) (object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, is := s.objects[path]
	return o, is
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	if want := signatureOf(r, body); !strings.HasSuffix(r.Header.Get("Authorization"), "Signature="+want) {
		s.t.Errorf("%s %s is signed as %s, want %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses != 0 {
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(s.refuses)
		fmt.Fprintf(w, "<Error><Code>AccessDenied</Code><StringToSign>%s</StringToSign></Error>", testSecret)
		return
	}
	there, is := s.objects[r.RequestURI]
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(there.body))
	if r.Method == http.MethodHead {
		if !is {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", tag)
		w.Header().Set("X-Amz-Meta-Crl-Number", there.header.Get("X-Amz-Meta-Crl-Number"))
		return
	}
	if r.Method == http.MethodGet {
		w.Header().Set("X-Amz-Meta-Crl-Number", there.header.Get("X-Amz-Meta-Crl-Number"))
		_, _ = w.Write(there.body)
		return
	}
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case s.plain && match+none != "":
		w.WriteHeader(http.StatusNotImplemented)
	case none == "*" && is, match != "" && match != tag:
		w.WriteHeader(http.StatusPreconditionFailed)
	default:
		s.objects[r.RequestURI] = object{body, r.Header}
	}
}

// signatureOf is what the signature of a request must be.
func signatureOf(r *http.Request, body []byte) string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential="+testAccess+"/")
	scope, rest, _ := strings.Cut(rest, ",SignedHeaders=")
	signed, _, _ := strings.Cut(rest, ",")
	names := strings.Split(signed, ";")
	for name := range r.Header { // what matters must be signed
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "if-") || lower == "content-type" ||
			lower == "cache-control" {
			if !slices.Contains(names, lower) {
				return lower + " is not signed"
			}
		}
	}
	canonical := r.Method + "\n" + r.RequestURI + "\n\n"
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + value + "\n"
	}
	payload := sha256.Sum256(body)
	canonical += "\n" + signed + "\n" + hex.EncodeToString(payload[:])
	digest := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + testSecret)
	for _, part := range append(strings.Split(scope, "/"), strings.Join([]string{
		"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(digest[:]),
	}, "\n")) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func openBucket(t *testing.T, endpoint string) *mirror.Bucket {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	b, err := mirror.OpenBucket(mirror.BucketConfig{
		Endpoint: endpoint, Bucket: "lists", Prefix: "pki/", Region: "eu-central-1", Now: time.Now, Transport: transport,
		Keys: func() (mirror.Keys, error) { return mirror.Keys{Access: testAccess, Secret: testSecret}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucketKeepsTheHighestNumber(t *testing.T) {
	for _, plain := range []bool{false, true} {
		s, endpoint := newStore(t)
		s.plain = plain
		b := openBucket(t, endpoint)
		l := newLister(t)
		highest := int64(0)
		for _, number := range []int64{2, 1, 3, 3, 2} {
			if err := b.PutCRL(t.Context(), "crl/issuing-1/7.crl", l.list(t, number), signed); err != nil {
				t.Fatal(err)
			}
			highest = max(highest, number)
			there, _ := s.at("/lists/pki/crl/issuing-1/7.crl")
			if list, err := issuance.ReadCRL(there.body); err != nil || list.Number.Int64() != highest ||
				there.header.Get("Content-Type") != "application/pkix-crl" || there.header.Get("Cache-Control") != "public, max-age=30" {
				t.Errorf("after %d there is %v, %v, %v", number, list, there.header, err)
			}
		}
	}
}

// What somebody has put under a higher number keeps out no CRL, unless it is one.
func TestABucketIsNotKeptByWhatIsNoCRL(t *testing.T) {
	s, endpoint := newStore(t)
	b, l := openBucket(t, endpoint), newLister(t)
	old, next := l.list(t, 5), l.list(t, 6)
	for name, there := range map[string]struct {
		number string
		body   []byte
	}{
		"garbage":             {"999999999999999999", []byte("garbage")},
		"nothing":             {"7", nil},
		"an older one":        {"7", old.DER},
		"another authority's": {"7", newLister(t).list(t, 7).DER},
	} {
		s.mu.Lock()
		s.objects["/lists/pki/a.crl"] = object{there.body, http.Header{"X-Amz-Meta-Crl-Number": {there.number}}}
		s.mu.Unlock()
		if err := b.PutCRL(t.Context(), "a.crl", next, l.signed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := s.at("/lists/pki/a.crl"); !bytes.Equal(got.body, next.DER) || got.header.Get("X-Amz-Meta-Crl-Number") != "6" {
			t.Errorf("%s stays", name)
		}
	}
	newer := l.list(t, 7)
	for _, r := range []ca.CRLRecord{newer, next} {
		if err := b.PutCRL(t.Context(), "a.crl", r, l.signed); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := s.at("/lists/pki/a.crl"); !bytes.Equal(got.body, newer.DER) {
		t.Error("a newer one was replaced")
	}
}

// Two replicas put one CRL after the other at the same place, in any order: the highest number is there in the end.
func TestReplicasShareABucket(t *testing.T) {
	s, endpoint := newStore(t)
	l := newLister(t)
	var group sync.WaitGroup
	const highest = 20
	for replica := range 2 {
		b := openBucket(t, endpoint)
		for n := range highest / 2 {
			record := l.list(t, int64(2*n+replica+1))
			group.Go(func() {
				// One that others overtake again and again gives up, and is put later.
				for b.PutCRL(t.Context(), "a.crl", record, signed) != nil {
					if t.Context().Err() != nil {
						return
					}
				}
			})
		}
	}
	group.Wait()
	there, _ := s.at("/lists/pki/a.crl")
	if list, err := issuance.ReadCRL(there.body); err != nil || list.Number.Int64() != highest {
		t.Errorf("there is %v, %v", list, err)
	}
}

// What a bucket refuses is told by its code, without what was signed. A redirection is not followed.
func TestARefusingBucket(t *testing.T) {
	s, endpoint := newStore(t)
	b := openBucket(t, endpoint)
	for _, status := range []int{http.StatusForbidden, http.StatusTemporaryRedirect, http.StatusServiceUnavailable} {
		s.refuses = status
		err := b.PutCRL(t.Context(), "a.crl", newLister(t).list(t, 1), signed)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d: %v", status, err)
		}
	}
	noKeys, err := mirror.OpenBucket(mirror.BucketConfig{
		Endpoint: endpoint, Bucket: "lists", Region: "x", Now: time.Now, Keys: func() (mirror.Keys, error) { return mirror.Keys{}, errors.New("gone") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := noKeys.PutCRL(t.Context(), "a.crl", newLister(t).list(t, 1), signed); err == nil {
		t.Error("a CRL was put without keys")
	}
	for _, endpoint := range []string{"", "s3.example", "ftp://s3.example", "https://user:password@s3.example", "https://user:password@s3 .example", "https://s3.example/path", "https://s3.example?a=b"} {
		if _, err := mirror.OpenBucket(mirror.BucketConfig{Endpoint: endpoint, Bucket: "b", Region: "r", Now: time.Now, Keys: func() (k mirror.Keys, err error) { return }}); err == nil {
			t.Errorf("%q was accepted as an endpoint", endpoint)
		} else if strings.Contains(err.Error(), "password") {
			t.Errorf("the error tells a password: %v", err)
		}
	}
}
