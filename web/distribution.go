package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/smallstep/pkcs7"

	"github.com/chancery-ca/chancery/ca"
)

const (
	// certificateAge is how long an authority's certificate may be kept without asking again. It does not change; the set of them does.
	certificateAge = time.Hour
	// crlSettles is when no other CRL can still come that has the same thisUpdate: making one does not take longer.
	crlSettles = 30 * time.Second
)

// file is something to be distributed.
type file struct {
	mediaType string
	body      []byte
	changed   time.Time     // when it last changed, to the second; zero: not known
	age       time.Duration // how long it may be kept without asking again
}

// routeDistribution serves what everybody may have: certificates, chains and CRLs, as they are named inside certificates. Whether the
// service lives is told whatever else is asked.
func (s *Server) routeDistribution(inFlight int) {
	s.distribution = s.newRouter(noHeaders)
	s.distribution.Use(middleware.GetHead)
	s.lookups = newPlaces(inFlight, "network")
	s.distribute("/ca/roots.pem", s.roots)
	s.distribute("/roots.pem", s.roots)
	s.distribute("/intermediates.pem", s.intermediates)
	s.distribute("/ca/{name}.cer", s.ofAuthority(certificateDER))
	s.distribute("/ca/{name}.pem", s.ofAuthority(certificatePEM))
	s.distribute("/ca/{name}/chain.pem", s.ofAuthority(chainPEM))
	s.distribute("/ca/{name}/chain.p7c", s.ofAuthority(chainCMS))
	s.distributeCRL("/crl/{name}.crl", s.ca.CurrentCRL)
	s.distributeCRL("/crl/{name}/{shard}.crl", s.ca.CurrentCRL)
	s.distributeCRL("/crl/{name}/delta.crl", s.ca.CurrentDelta)
	s.distributeCRL("/crl/{name}/{shard}/delta.crl", s.ca.CurrentDelta)
	s.distribution.Get("/health", live)
	s.distribution.Get("/version", s.tellVersion)
}

// distribute serves a file, whole, in part, or not at all where the caller has it (RFC 9110, sections 13 and 14).
func (s *Server) distribute(pattern string, find func(context.Context, string) (file, error)) {
	s.distribution.Get(pattern, func(w http.ResponseWriter, r *http.Request) {
		f, err := lookUp(s, r, func(ctx context.Context) (file, error) { return find(ctx, chi.URLParam(r, "name")) })
		if err != nil {
			writeProblem(w, r, s.problem(r.Context(), err))
			return
		}
		w.Header().Set("Content-Type", f.mediaType)
		w.Header().Set("Cache-Control", cacheControl(f.age))
		w.Header().Set("ETag", strongTag(f.body))
		http.ServeContent(w, r, "", f.changed, bytes.NewReader(f.body))
	})
}

// lookUp finds something in one of the places for looking up, of which one network has at most half, and which is given back before
// anything is sent: what is found is in memory, and whoever reads slowly keeps nobody else out.
func lookUp[T any](s *Server, r *http.Request, find func(context.Context) (T, error)) (T, error) {
	leave, refused := s.lookups.enter(neighbourhood(exchangeOf(r.Context()).from).String())
	if refused != nil {
		var none T
		return none, refused
	}
	defer leave()
	return find(r.Context())
}

func cacheControl(age time.Duration) string {
	if age <= 0 {
		return "no-cache"
	}
	return fmt.Sprintf("public, max-age=%d", int64(age/time.Second))
}

// strongTag is a strong validator of what is sent: its digest.
func strongTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *Server) ofAuthority(show func(ca.AuthorityRecord) (file, error)) func(context.Context, string) (file, error) {
	return func(ctx context.Context, name string) (file, error) {
		if !nameable(name) {
			return file{}, ca.ErrNotFound
		}
		a, err := s.ca.PublicAuthority(ctx, name)
		if err != nil {
			return file{}, err
		}
		f, err := show(a)
		f.changed, f.age = a.AddedAt, certificateAge
		return f, err
	}
}

func certificateDER(a ca.AuthorityRecord) (file, error) {
	return file{mediaType: typeDER, body: a.Certificate}, nil
}

func certificatePEM(a ca.AuthorityRecord) (file, error) {
	return file{mediaType: typePEM, body: []byte(encodePEM(a.Certificate))}, nil
}

func chainPEM(a ca.AuthorityRecord) (file, error) {
	return file{mediaType: typeChain, body: []byte(encodePEM(a.Chain...))}, nil
}

// chainCMS is the chain as certificates in a CMS SignedData that nobody signs (RFC 5280, section 4.2.2.1).
func chainCMS(a ca.AuthorityRecord) (file, error) {
	body, err := pkcs7.DegenerateCertificate(bytes.Join(a.Chain, nil))
	if err != nil {
		return file{}, fmt.Errorf("writing the chain of %q as CMS: %w", a.Name, err)
	}
	return file{mediaType: typeCMS, body: body}, nil
}

func (s *Server) roots(ctx context.Context, _ string) (file, error) {
	return s.bundle(ctx, func(a ca.AuthorityRecord) bool { return a.Parent == "" })
}

func (s *Server) intermediates(ctx context.Context, _ string) (file, error) {
	return s.bundle(ctx, func(a ca.AuthorityRecord) bool { return a.Parent != "" })
}

// bundle is the certificates of some authorities, by name.
func (s *Server) bundle(ctx context.Context, of func(ca.AuthorityRecord) bool) (file, error) {
	all, err := s.ca.PublicAuthorities(ctx)
	if err != nil {
		return file{}, err
	}
	f := file{mediaType: typePEM, age: certificateAge}
	for _, a := range all {
		if !of(a) {
			continue
		}
		f.body = append(f.body, encodePEM(a.Certificate)...)
		if a.AddedAt.After(f.changed) {
			f.changed = a.AddedAt
		}
	}
	return f, nil
}

// distributeCRL serves CRLs from memory. Their validator is their number, which names one CRL of a scope for ever: a list of a million
// entries is not hashed for each who asks. It may be kept for a short time only, and never past its end.
func (s *Server) distributeCRL(pattern string, current func(ctx context.Context, authority, scope string) (ca.CRLRecord, error)) {
	s.distribution.Get(pattern, func(w http.ResponseWriter, r *http.Request) {
		name, scope := chi.URLParam(r, "name"), chi.URLParam(r, "shard")
		if scope == "" {
			scope = ca.FullScope
		} else if !ca.IsShard(scope) {
			name = ""
		}
		if !nameable(name) {
			writeProblem(w, r, s.problem(r.Context(), ca.ErrNotFound))
			return
		}
		list, err := lookUp(s, r, func(ctx context.Context) (ca.CRLRecord, error) { return current(ctx, name, scope) })
		if err != nil {
			writeProblem(w, r, s.problem(r.Context(), err))
			return
		}
		header := w.Header()
		header.Set("Content-Type", typeCRL)
		header.Set("Cache-Control", cacheControl(min(ca.CRLAge, list.NextUpdate.Sub(s.now()).Truncate(time.Second))))
		header.Set("ETag", `"`+list.Number.Text(16)+`"`)
		http.ServeContent(unhurried(w), r, "", s.settled(list), bytes.NewReader(list.DER))
	})
}

// settled is when a CRL last changed, for those who ask by the time. Two CRLs can be of one second, which they could not tell apart: whoever has
// the first would not get the one that has the revocation. So a CRL has no such time at first, and then one after which the first was no more.
func (s *Server) settled(list ca.CRLRecord) time.Time {
	if at := list.ThisUpdate.Add(crlSettles); !s.now().Before(at) {
		return at
	}
	return time.Time{}
}
