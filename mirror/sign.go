package mirror

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Keys are what requests to a bucket are signed with.
type Keys struct {
	Access  string // names the secret key; no secret itself
	Secret  string
	Session string // of keys that were lent for a time; empty for others
}

const (
	signingAlgorithm = "AWS4-HMAC-SHA256"
	signingTime      = "20060102T150405Z"
)

// sign signs a request to a bucket with all headers that it has by now (AWS Signature Version 4, with the payload in one piece). The request
// has no query, and its path is encoded as encodePath does it.
func sign(r *http.Request, k Keys, region string, payload [sha256.Size]byte, now time.Time) {
	at := now.UTC().Format(signingTime)
	scope := at[:8] + "/" + region + "/s3/aws4_request"
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(payload[:]))
	if k.Session != "" {
		r.Header.Set("X-Amz-Security-Token", k.Session)
	}
	headers := []string{"host:" + r.URL.Host}
	for name, values := range r.Header {
		headers = append(headers, strings.ToLower(name)+":"+strings.Join(strings.Fields(strings.Join(values, ",")), " "))
	}
	slices.Sort(headers)
	names := make([]string, len(headers))
	for i, h := range headers {
		names[i], _, _ = strings.Cut(h, ":")
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), "", strings.Join(headers, "\n") + "\n", signed, hex.EncodeToString(payload[:]),
	}, "\n")
	digest := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + k.Secret)
	for _, part := range strings.Split(scope, "/") {
		key = authenticate(key, part)
	}
	signature := authenticate(key, strings.Join([]string{signingAlgorithm, at, scope, hex.EncodeToString(digest[:])}, "\n"))
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s,SignedHeaders=%s,Signature=%x", signingAlgorithm, k.Access, scope, signed, signature))
}

func authenticate(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// encodePath encodes every octet but those that no URL needs to encode (RFC 3986, section 2.3), and slashes: what is signed is what is sent.
func encodePath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
