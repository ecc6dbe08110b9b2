package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// BucketConfig says where a bucket is.
type BucketConfig struct {
	Endpoint string // http(s)://host[:port], of the service; the bucket's name is the first part of the path
	Bucket   string
	Prefix   string // of all keys; with a slash at its end where one is wanted
	Region   string
	// Keys gives what requests are signed with. It is asked for each CRL, so that other keys take effect without a restart.
	Keys      func() (Keys, error)
	Transport http.RoundTripper // nil: the default one
	Now       func() time.Time
}

// Bucket is a bucket of S3 or of a service that speaks as S3 does. It needs the rights to read and to put objects. It is safe for concurrent
// use, by other replicas too: an object is replaced under the condition that it is still the one that was looked at. Where a service does
// not know such conditions, a lower number may replace a higher one for as long as it takes the other replica to look again.
//
// Two kinds of request and a signature do not need a client library: docs/dependencies.md says more.
type Bucket struct {
	cfg    BucketConfig
	base   url.URL
	client *http.Client
}

// numberHeader is where an object says the number of its CRL.
const numberHeader = "X-Amz-Meta-Crl-Number"

// cacheControl goes with an object to whoever fetches it. A cache that is told nothing chooses by itself how long it keeps a CRL (RFC 9111,
// section 4.2.2), and holds revocations back for as long.
var cacheControl = fmt.Sprintf("public, max-age=%d", int64(ca.CRLAge/time.Second))

// attempts is how often a CRL is put when others put theirs at the same moment.
const attempts = 5

// errChanged means that the object is not the one that was looked at.
var errChanged = errors.New("another one was put meanwhile")

// OpenBucket checks where a bucket is. It does not ask for it: a bucket that is away keeps no service from starting.
func OpenBucket(cfg BucketConfig) (*Bucket, error) {
	base, err := url.Parse(cfg.Endpoint)
	switch {
	case err != nil: // which is not told: it may repeat a password
		return nil, errors.New("opening the bucket for CRLs: the endpoint is no URL")
	case base.Scheme != "https" && base.Scheme != "http", base.Host == "", base.User != nil, strings.Trim(base.Path, "/") != "", base.RawQuery != "":
		return nil, errors.New("opening the bucket for CRLs: the endpoint must be http(s)://host[:port]")
	case cfg.Bucket == "" || cfg.Region == "" || cfg.Keys == nil || cfg.Now == nil:
		return nil, errors.New("opening the bucket for CRLs: it needs a name, a region, keys and a clock")
	}
	return &Bucket{cfg: cfg, base: url.URL{Scheme: base.Scheme, Host: base.Host}, client: &http.Client{
		Transport: cfg.Transport,
		// A signature holds for one host: what a redirection says is told, not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// PutCRL puts a CRL at the key that the prefix and a path make. An object there that says a higher number stays if it is a sound CRL with
// that number; whatever else is there is replaced.
func (b *Bucket) PutCRL(ctx context.Context, path string, r ca.CRLRecord, sound func(der []byte) error) error {
	keys, err := b.cfg.Keys()
	if err != nil {
		return fmt.Errorf("putting a CRL at %q: the keys of the bucket: %w", path, err)
	}
	for range attempts {
		if err = b.replace(ctx, keys, b.cfg.Prefix+path, r, sound); !errors.Is(err, errChanged) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("putting a CRL at %q: %w", path, err)
	}
	return nil
}

// replace looks at an object, and replaces it if it is older.
func (b *Bucket) replace(ctx context.Context, keys Keys, key string, r ca.CRLRecord, sound func(der []byte) error) error {
	there, err := b.do(ctx, keys, http.MethodHead, key, nil, nil)
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/pkix-crl"}, "Cache-Control": {cacheControl}, numberHeader: {r.Number.String()}}
	switch there.status {
	case http.StatusNotFound:
		header.Set("If-None-Match", "*")
	case http.StatusOK:
		if number, ok := there.number(); ok && number.Cmp(r.Number) == 0 {
			return nil
		} else if ok && number.Cmp(r.Number) > 0 {
			if stays, err := b.isSound(ctx, keys, key, number, sound); stays || err != nil {
				return err
			}
		}
		if tag := there.header.Get("ETag"); tag != "" {
			header.Set("If-Match", tag)
		}
	default:
		return there.refused()
	}
	put, err := b.do(ctx, keys, http.MethodPut, key, header, r.DER)
	if err == nil && put.status == http.StatusNotImplemented { // the conditions
		header.Del("If-None-Match")
		header.Del("If-Match")
		put, err = b.do(ctx, keys, http.MethodPut, key, header, r.DER)
	}
	switch {
	case err != nil:
		return err
	case put.status == http.StatusPreconditionFailed, put.status == http.StatusConflict:
		return errChanged
	case put.status != http.StatusOK && put.status != http.StatusCreated && put.status != http.StatusNoContent:
		return put.refused()
	}
	return nil
}

// isSound tells whether an object is the CRL with the number that it says. Another replica has put a newer one than is known here; or
// somebody has put what would keep out every CRL to come.
func (b *Bucket) isSound(ctx context.Context, keys Keys, key string, says *big.Int, sound func(der []byte) error) (bool, error) {
	there, err := b.do(ctx, keys, http.MethodGet, key, nil, nil)
	switch {
	case err != nil:
		return false, err
	case there.status == http.StatusNotFound:
		return false, errChanged
	case there.status != http.StatusOK:
		return false, there.refused()
	}
	if number, ok := there.number(); !ok || number.Cmp(says) != 0 {
		return false, errChanged
	}
	read, err := issuance.ReadCRLHead(there.body)
	return err == nil && read.Number.Cmp(says) == 0 && sound(there.body) == nil, nil
}

// answer is what a bucket says.
type answer struct {
	method string
	status int
	header http.Header
	body   []byte
	code   string // of an error, such as AccessDenied
}

// number is that of the CRL which the object says that it is.
func (a answer) number() (*big.Int, bool) {
	return new(big.Int).SetString(a.header.Get(numberHeader), 10)
}

// refused is an answer as an error: with the code alone, because the rest may repeat what was signed.
func (a answer) refused() error {
	return fmt.Errorf("%s is answered %d %s", a.method, a.status, a.code)
}

// longestAnswer is how much of an answer is read, and longestCRL of an object.
const (
	longestAnswer = 64 << 10
	longestCRL    = 256 << 20
)

func (b *Bucket) do(ctx context.Context, keys Keys, method, key string, header http.Header, body []byte) (answer, error) {
	u := b.base
	u.Path = "/" + b.cfg.Bucket + "/" + key
	u.RawPath = encodePath(u.Path)
	request, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	sign(request, keys, b.cfg.Region, sha256.Sum256(body), b.cfg.Now())
	response, err := b.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	most := int64(longestAnswer)
	if method == http.MethodGet && response.StatusCode == http.StatusOK {
		most = longestCRL
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer to %s: %w", method, err)
	}
	a := answer{method: method, status: response.StatusCode, header: response.Header, body: text}
	var told struct {
		Code string `xml:"Code"`
	}
	if response.StatusCode >= http.StatusMultipleChoices && xml.Unmarshal(text, &told) == nil && len(told.Code) < 100 {
		a.code = told.Code
	}
	return a, nil
}
