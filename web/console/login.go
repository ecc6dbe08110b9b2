package console

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/oidc"
)

// attempt is a login at the provider that has begun, as the browser keeps it. It is of use to nobody else: the provider's answer must
// come through the browser that has it, and it is given up with the first answer.
type attempt struct {
	oidc.Attempt
	Back string `json:"b"` // where to go then
}

func (v *visits) toLogin(w http.ResponseWriter, r *http.Request) {
	target := "/console/login"
	if r.Method == http.MethodGet && ownPath(r.URL.RequestURI()) != "/console/" {
		target += "?" + url.Values{"back": {r.URL.RequestURI()}}.Encode()
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}

// login is the page for who is not signed in.
func (v *visits) login(w http.ResponseWriter, r *http.Request) {
	v.show(w, r, nil, http.StatusOK, "login", map[string]any{
		"Provider": v.providerHost(), "Begin": "/console/begin?" + url.Values{"back": {ownPath(r.URL.Query().Get("back"))}}.Encode(),
	})
}

// providerHost is what people know their provider by.
func (v *visits) providerHost() string {
	if v.Provider == nil {
		return ""
	}
	u, err := url.Parse(v.Provider.Issuer())
	if err != nil {
		return v.Provider.Issuer()
	}
	return u.Host
}

// begin sends the browser to the provider.
func (v *visits) begin(w http.ResponseWriter, r *http.Request) {
	if v.Provider == nil {
		v.problem(w, r, nil, v.desk.NotFound())
		return
	}
	a := attempt{Back: ownPath(r.URL.Query().Get("back"))}
	var page string
	var err error
	if a.Attempt, page, err = v.Provider.Begin(r.Context()); err != nil {
		v.loginFailed(w, r, err)
		return
	}
	text, err := json.Marshal(a)
	if err != nil {
		v.loginFailed(w, r, fmt.Errorf("keeping a login: %w", err))
		return
	}
	keep(w, attemptCookie, base64.RawURLEncoding.EncodeToString(text), attemptLife)
	http.Redirect(w, r, page, http.StatusSeeOther)
}

// callback is where the provider sends the browser back to. A crash after the session is kept leaves one that nobody has the cookie of.
func (v *visits) callback(w http.ResponseWriter, r *http.Request) {
	var a attempt
	kept, _ := cookie(r, attemptCookie)
	forget(w, attemptCookie)
	if text, err := base64.RawURLEncoding.DecodeString(kept); err != nil || v.Provider == nil || json.Unmarshal(text, &a) != nil {
		v.loginFailed(w, r, &access.Unauthenticated{Detail: "this login was not begun in this browser, was ended before, or took too long"})
		return
	}
	actor, err := v.Provider.Finish(r.Context(), a.Attempt, r.URL.Query())
	if err != nil {
		v.loginFailed(w, r, err)
		return
	}
	secret, digest, err := v.newSecret()
	if err == nil {
		session := ca.Session{Actor: actor, Method: ca.SignedInByOIDC, Provider: v.Provider.Issuer(), Idle: v.Idle}
		err = v.CA.OpenSession(r.Context(), session, digest, v.Life)
	}
	if err != nil {
		v.loginFailed(w, r, err)
		return
	}
	v.replace(w, r, secret)
	http.Redirect(w, r, ownPath(a.Back), http.StatusSeeOther)
}

// loginFailed tells people why they are not signed in, as far as they may know.
func (v *visits) loginFailed(w http.ResponseWriter, r *http.Request, err error) {
	var refused *access.Unauthenticated
	switch {
	case errors.As(err, &refused):
		v.Log.InfoContext(r.Context(), "a login was refused", "reason", refused.Detail)
		v.refuse(w, r, nil, http.StatusUnauthorized, "You are not signed in", "Because "+refused.Detail+".")
	case errors.Is(err, oidc.ErrUnavailable):
		v.Log.WarnContext(r.Context(), "nobody can sign in at the provider", "error", err)
		w.Header().Set("Retry-After", "10")
		v.refuse(w, r, nil, http.StatusServiceUnavailable, "Your identity provider cannot be reached",
			"Nobody can sign in there for the moment. Try again in a little while.")
	default:
		v.problem(w, r, nil, v.desk.Problem(r.Context(), err))
	}
}

// offered shows whose a link is. The link is used up by the button on the page alone: mail filters and browsers that look at links ahead
// of people do not press it.
func (v *visits) offered(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	actor, err := v.CA.OfferedLogin(r.Context(), sha256.Sum256([]byte(code)))
	if err != nil {
		v.linkFailed(w, r, err)
		return
	}
	v.show(w, r, nil, http.StatusOK, "enter", map[string]any{"Code": code, "Actor": actor})
}

// enter signs in whoever has a link.
func (v *visits) enter(w http.ResponseWriter, r *http.Request) {
	secret, digest, err := v.newSecret()
	if err == nil {
		_, err = v.CA.TakeLogin(r.Context(), sha256.Sum256([]byte(r.PostFormValue("code"))), digest, v.Idle, v.Life)
	}
	if err != nil {
		v.linkFailed(w, r, err)
		return
	}
	v.replace(w, r, secret)
	http.Redirect(w, r, "/console/", http.StatusSeeOther)
}

func (v *visits) linkFailed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, ca.ErrNotFound) {
		v.refuse(w, r, nil, http.StatusUnauthorized, "This link does not sign you in",
			"It was used before, it is older than two minutes, or its API token is no longer good. Make a new one with: chancery console login")
		return
	}
	v.problem(w, r, nil, v.desk.Problem(r.Context(), err))
}

// logout ends the session, or all of the person's. The provider is not told: the page that follows offers the way to sign out there too.
func (v *visits) logout(w http.ResponseWriter, r *http.Request, visit *visit) {
	if err := v.CA.EndSession(r.Context(), visit.session, r.PostFormValue("everywhere") != ""); err != nil {
		v.problem(w, r, visit, v.desk.Problem(r.Context(), err))
		return
	}
	forget(w, sessionCookie)
	target := "/console/signed-out"
	if visit.session.Method == ca.SignedInByOIDC {
		target += "?provider=1"
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}

// signedOut is the page after a logout.
func (v *visits) signedOut(w http.ResponseWriter, r *http.Request) {
	about := map[string]any{"Provider": v.providerHost()}
	if v.Provider != nil && r.URL.Query().Has("provider") {
		about["SignOut"] = v.Provider.SignOutURL(r.Context(), v.URL+"/console/signed-out")
	}
	v.show(w, r, nil, http.StatusOK, "signed-out", about)
}
