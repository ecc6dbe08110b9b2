package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// A bucket that does not answer, or refuses, holds up no CRL; what it missed, it gets. Its secret is told nowhere.
func TestABucketHoldsNothingUp(t *testing.T) {
	t.Parallel()
	hangs, refuses := make(chan struct{}), atomic.Bool{}
	refuses.Store(true)
	var objects sync.Map
	bucket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-hangs
		body, err := io.ReadAll(r.Body)
		_, is := objects.Load(r.URL.Path)
		switch {
		case err != nil || refuses.Load():
			w.WriteHeader(http.StatusForbidden)
		case r.Method == http.MethodPut:
			objects.Store(r.URL.Path, body)
		case !is:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(bucket.Close)
	s := newStack(t, storagetest.New(t), false)
	const secret = "a-secret-that-is-told-to-nobody"
	for name, text := range map[string]string{"access": "access-key\n", "secret": secret + "\n"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.more = fmt.Sprintf("crls: {s3: {endpoint: %q, bucket: lists, prefix: pki/, access_key_file: access, secret_key_file: secret}}\n", bucket.URL)
	r := s.start("one", s.token.Module)
	of := r.newSubject(t, "www.dev.example")
	r.mustRevoke(t.Context(), t, hexSerial(of.leaf), "superseded")
	listed := func() bool {
		list, err := r.crl(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return lists(list, of.leaf)
	}
	// Sooner than the mirror gives a CRL up.
	eventually(t, 20*time.Second, "the CRL shows the certificate while the bucket does not answer", listed)
	close(hangs)
	eventually(t, 10*time.Second, "failures are counted", func() bool {
		return r.metric(t, `chancery_operation_failures_total{step="mirror crl"}`) > 0
	})
	refuses.Store(false)
	for _, name := range []string{devIssuer, devRoot} {
		path := "/crl/" + name + ".crl"
		eventually(t, 20*time.Second, "the bucket has "+path, func() bool {
			there, is := objects.Load("/lists/pki" + path)
			return is && bytes.Equal(there.([]byte), r.fetchCRL(t.Context(), t, "http://any"+path))
		})
	}
	eventually(t, 10*time.Second, "the log says that it is over", func() bool { return strings.Contains(r.log.String(), "the mirror holds every CRL again") })
	r.stop()
	if strings.Contains(r.log.String(), secret) || strings.Count(r.log.String(), "putting CRLs into a mirror fails") != 1 {
		t.Errorf("the log tells a secret, or not once that the bucket failed:\n%s", r.log)
	}
}
