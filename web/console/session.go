package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// Cookies. The prefix has browsers take them from this very host alone, over TLS, for all paths: no neighbour can set one. (RFC 6265bis,
// section 4.1.3.2)
const (
	sessionCookie = "__Host-chancery"
	attemptCookie = "__Host-chancery-login"
	attemptLife   = 10 * time.Minute
)

// visit is one request of a person who is signed in.
type visit struct {
	session ca.Session
	secret  string
}

// person is who is signed in.
func (v *visit) person() access.Actor { return v.session.Actor }

// may tells whether the person can do an action in the own namespace, so that a page offers it. The authority asks again.
func (v *visit) may(act access.Action) bool {
	return access.Authorize(v.person(), act, access.Resource{Namespace: v.person().Namespace}) == nil
}

// token is what each form of the session carries: whoever does not have the cookie cannot know it, and it does not tell the cookie.
func (v *visit) token() string {
	sum := sha256.Sum256([]byte("chancery console form\x00" + v.secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// in serves a page to people who are signed in, and sends others to sign in.
func (v *visits) in(page func(http.ResponseWriter, *http.Request, *visit)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		visit, err := v.visitOf(r)
		switch {
		case errors.Is(err, ca.ErrNotFound):
			forget(w, sessionCookie)
			v.toLogin(w, r)
			return
		case err != nil:
			v.problem(w, r, nil, v.desk.Problem(r.Context(), err))
			return
		}
		if p := v.desk.Admit(r, visit.person()); p != nil {
			v.problem(w, r, visit, p)
			return
		}
		if r.Method == http.MethodPost && !sameToken(r.PostFormValue("form"), visit.token()) {
			v.refuse(w, r, visit, http.StatusForbidden, "This form is not of your session", "Go back, load the page again, and send it once more.")
			return
		}
		page(w, r, visit)
	}
}

// visitOf finds who is signed in; ca.ErrNotFound when nobody is.
func (v *visits) visitOf(r *http.Request) (*visit, error) {
	secret, ok := cookie(r, sessionCookie)
	if !ok {
		return nil, ca.ErrNotFound
	}
	session, err := v.CA.Session(r.Context(), sha256.Sum256([]byte(secret)))
	if err != nil {
		return nil, err
	}
	return &visit{session: session, secret: secret}, nil
}

// newSecret makes what a session's cookie holds: 32 random octets.
func (v *visits) newSecret() (secret string, digest [32]byte, err error) {
	var raw [32]byte
	if _, err := io.ReadFull(v.Random, raw[:]); err != nil {
		return "", digest, fmt.Errorf("making a session: reading randomness: %w", err)
	}
	secret = base64.RawURLEncoding.EncodeToString(raw[:])
	return secret, sha256.Sum256([]byte(secret)), nil
}

// replace ends the session that the browser has, if any, before it gets another: a secret that was there before a login, and might be
// known to somebody, is worth nothing after it.
func (v *visits) replace(w http.ResponseWriter, r *http.Request, secret string) {
	if before, err := v.visitOf(r); err == nil {
		if err := v.CA.EndSession(r.Context(), before.session, false); err != nil {
			v.Log.WarnContext(r.Context(), "a session that was replaced could not be ended; it runs out", "session", before.session.ID, "error", err)
		}
	}
	keep(w, sessionCookie, secret, v.Life)
}

func keep(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func forget(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// cookie is the one cookie of a name. Several are none: which of them counts must not be a matter of taste.
func cookie(r *http.Request, name string) (string, bool) {
	found := r.CookiesNamed(name)
	if len(found) != 1 || found[0].Value == "" {
		return "", false
	}
	return found[0].Value, true
}

func sameToken(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// ownPath keeps of where to go after a login what lies on the console: nobody is sent elsewhere from here.
func ownPath(path string) string {
	const home = "/console/"
	if !strings.HasPrefix(path, home) || len(path) > 1024 || strings.Contains(path, "//") || strings.Contains(path, "..") ||
		strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) {
		return home
	}
	return path
}
