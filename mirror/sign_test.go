package mirror

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The examples that AWS publishes for the signature in a header, payload in one piece: "Authenticating Requests: Using the Authorization
// Header" of the Amazon S3 API Reference.
func TestSignedAsPublished(t *testing.T) {
	keys := Keys{Access: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		method, path, body string
		header             http.Header
		signed, signature  string
	}{
		{
			http.MethodGet, "/test.txt", "",
			http.Header{"Range": {"bytes=0-9"}},
			"host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		},
		{
			http.MethodPut, "/test$file.text", "Welcome to Amazon S3.",
			http.Header{"Date": {"Fri, 24 May 2013 00:00:00 GMT"}, "X-Amz-Storage-Class": {"REDUCED_REDUNDANCY"}},
			"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		},
	} {
		r, err := http.NewRequest(c.method, "https://examplebucket.s3.amazonaws.com"+encodePath(c.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = c.header
		sign(r, keys, "us-east-1", sha256.Sum256([]byte(c.body)), at)
		want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + c.signed + ",Signature=" + c.signature
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, want)
		}
	}
	if got := encodePath("/a b+c/é~%"); got != "/a%20b%2Bc/%C3%A9~%25" {
		t.Errorf("a path is encoded as %s", got)
	}
	lent := keys
	lent.Session = "session"
	r, err := http.NewRequest(http.MethodGet, "https://b.example/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	sign(r, lent, "us-east-1", sha256.Sum256(nil), at)
	if !strings.Contains(r.Header.Get("Authorization"), "x-amz-security-token") {
		t.Error("the session's token is not signed")
	}
}
