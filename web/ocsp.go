package web

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca"
)

const (
	typeOCSPRequest  = "application/ocsp-request"  // RFC 6960, appendix A
	typeOCSPResponse = "application/ocsp-response" // RFC 6960, appendix A

	ocspPath  = "/ocsp/"
	ocspRoute = ocspPath + "{name}" // as metrics name it
	// maxOCSPRequest is how much of a request is read, in octets: more than the authority reads, which then says what is wrong.
	maxOCSPRequest = 16<<10 + 1
	// ocspAge is how long an answer may be kept by caches without asking again. It adds to the time until a revocation is seen.
	ocspAge = 30 * time.Second
)

// withOCSP answers what is asked below /ocsp/ and leaves the rest to next. OCSP requests come in numbers, and their paths are not those of
// a router: base64 has slashes in it. So they go a way of their own, without a line in the log for each; the metrics count them.
func (s *Server) withOCSP(next http.Handler, inFlight int) http.Handler {
	answering := newPlaces(inFlight, "network")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ours := strings.CutPrefix(r.URL.Path, ocspPath)
		if !ours {
			next.ServeHTTP(w, r)
			return
		}
		answerAtOnce(w, r)
		name, encoded, _ := strings.Cut(rest, "/")
		var response *ca.OCSPResponse
		request, err := ocspRequest(r, encoded)
		if err == nil {
			response, err = s.ocsp(answering, r, name, request)
		}
		if err != nil {
			s.ocspProblem(w, r, err)
			return
		}
		s.writeOCSP(w, r, response)
	})
}

// ocsp finds the answer to one request. Whatever can be said in OCSP is, with status 200 (RFC 6960, appendix A.2). The place is taken once
// the request is read, and given back before the answer is sent: who is slow in either takes none.
func (s *Server) ocsp(answering *places, r *http.Request, name string, request []byte) (*ca.OCSPResponse, error) {
	leave, refused := answering.enter(neighbourhood(s.clientAddr(r)).String())
	if refused != nil {
		return nil, refused
	}
	defer leave()
	return s.ca.OCSP(r.Context(), name, request)
}

// ocspRequest is the request in the body of a POST, or in the path of a GET: base64 of the DER, URL-encoded once (RFC 6960, appendix A.1).
// What does not decode is no request at all, which the authority says. The path comes here with one URL-encoding taken off; what
// is left of another is no base64.
func ocspRequest(r *http.Request, encoded string) ([]byte, error) {
	switch r.Method {
	case http.MethodPost:
		if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != typeOCSPRequest {
			return nil, newProblem(kindMediaType, "an OCSP request is of the type "+typeOCSPRequest)
		}
		if encoded != "" {
			return nil, newProblem(kindNotFound, "there is nothing at this path")
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxOCSPRequest))
		if err != nil {
			return nil, newProblem(kindMalformed, "the body ended before its end")
		}
		return body, nil
	case http.MethodGet, http.MethodHead:
		request, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder passes over
			return nil, nil
		}
		return request, nil
	}
	return nil, newProblem(kindMethod, "an OCSP request comes by GET or POST").with("Allow", "GET, HEAD, POST")
}

// ocspHeaders are the headers of a response, in the form that http.Header has them.
type ocspHeaders struct{ etag, modified, expires, length []string }

func headersOf(response *ca.OCSPResponse) func() any {
	return func() any {
		return &ocspHeaders{
			etag:     []string{`"` + hex.EncodeToString(response.Digest[:16]) + `"`},
			modified: []string{response.ThisUpdate.UTC().Format(http.TimeFormat)},
			expires:  []string{response.NextUpdate.UTC().Format(http.TimeFormat)},
			length:   []string{strconv.Itoa(len(response.DER))},
		}
	}
}

var (
	ocspContentType = []string{typeOCSPResponse}
	ocspShared      = []string{ocspCacheControl(ocspAge)}
	ocspUnshared    = []string{"no-store"}
)

// ocspCacheControl is that of RFC 5019, section 6.2.
func ocspCacheControl(age time.Duration) string {
	return fmt.Sprintf("max-age=%d, public, no-transform, must-revalidate", int64(max(age, 0)/time.Second))
}

func (s *Server) writeOCSP(w http.ResponseWriter, r *http.Request, response *ca.OCSPResponse) {
	h, headers := w.Header(), response.Rendered(headersOf(response)).(*ocspHeaders)
	h["Content-Type"] = ocspContentType
	if response.Shared {
		h["Etag"], h["Last-Modified"], h["Expires"], h["Cache-Control"] = headers.etag, headers.modified, headers.expires, ocspShared
		if left := response.NextUpdate.Sub(s.now()); left < ocspAge {
			h["Cache-Control"] = []string{ocspCacheControl(left)}
		}
		if r.Method != http.MethodPost && known(r.Header, headers.etag[0]) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	} else {
		h["Cache-Control"] = ocspUnshared
	}
	h["Content-Length"] = headers.length
	if r.Method != http.MethodHead {
		_, _ = w.Write(response.DER) // a client that has left is none of ours
	}
}

// known tells whether the caller has the answer already, by its ETag (RFC 9110, section 13.1.2). By If-Modified-Since nobody has: an answer
// and the one that revokes the certificate can be of the same second, and then whoever has the first would never get the second.
func known(h http.Header, etag string) bool {
	for _, one := range strings.Split(strings.Join(h["If-None-Match"], ","), ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}

// ocspProblem answers what cannot be said in OCSP. It is counted under a route of its own, and has no line in the log either, unless the
// service failed: whoever asks for what is not there by the thousand must not fill a disk.
func (s *Server) ocspProblem(w http.ResponseWriter, r *http.Request, err error) {
	begun := s.now()
	s.identify(noHeaders)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := s.problem(r.Context(), err)
		writeProblem(w, r, p)
		s.metrics.served(ocspRoute, r.Method, p.Status, s.now().Sub(begun))
	})).ServeHTTP(w, r)
}
