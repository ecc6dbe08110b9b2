package console

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

var waitingStates = []string{ca.StatusWaiting, ca.StatusIssuing, ca.StatusIssued, ca.StatusRejected, ca.StatusExpired, ca.StatusRefused}

// requests shows those that wait or, when asked, those of another state.
func (v *visits) requests(w http.ResponseWriter, r *http.Request, visit *visit) {
	asked := r.URL.Query()
	f := ca.WaitingFilter{Status: ca.StatusWaiting, Cursor: asked.Get("cursor"), Limit: pageLength}
	if asked.Has("status") {
		f.Status = asked.Get("status")
	}
	if f.Status != "" && !slices.Contains(waitingStates, f.Status) || len(f.Cursor) > maxCursor || !printable(f.Cursor) {
		v.refuse(w, r, visit, http.StatusBadRequest, "This search cannot be read", "Choose one of the states.")
		return
	}
	page, next, err := v.CA.Requests(r.Context(), visit.person(), f)
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	if next != "" {
		next = "/console/requests?" + url.Values{"status": {f.Status}, "cursor": {next}}.Encode()
	}
	v.show(w, r, visit, http.StatusOK, "requests", map[string]any{
		"Rows": page, "Next": next, "Status": f.Status, "States": waitingStates, "All": visit.person().Namespace == access.AllNamespaces,
	})
}

// request shows one request, with what it still needs.
func (v *visits) request(w http.ResponseWriter, r *http.Request, visit *visit) {
	state, err := v.CA.Request(r.Context(), visit.person(), chi.URLParam(r, "id"))
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	own := state.Actor.Person == visit.person().Person
	v.show(w, r, visit, http.StatusOK, "request", map[string]any{
		"Request": state, "CSR": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: state.CSR})), "Own": own,
		"MayDecide": visit.may(access.ApproveRequest) && state.Status == ca.StatusWaiting && !own,
	})
}

// decide records a person's word about what the page showed: when the policies have changed since, nothing is recorded.
func (v *visits) decide(by func(context.Context, ca.ApproveOrder) (ca.RequestState, error)) func(http.ResponseWriter, *http.Request, *visit) {
	return func(w http.ResponseWriter, r *http.Request, visit *visit) {
		comment, binding := r.PostFormValue("comment"), r.PostFormValue("binding")
		if len(comment) > maxComment || !printable(lines(comment)) || len(binding) > maxCursor || !printable(binding) {
			v.refuse(w, r, visit, http.StatusBadRequest, "The comment cannot be kept", "Write at most 1,000 octets of text.")
			return
		}
		id := chi.URLParam(r, "id")
		if _, err := by(r.Context(), ca.ApproveOrder{
			Actor: visit.person(), Request: id, Binding: binding, Comment: strings.ReplaceAll(comment, "\r\n", "\n"),
		}); err != nil {
			v.failed(w, r, visit, err)
			return
		}
		http.Redirect(w, r, "/console/requests/"+url.PathEscape(id), http.StatusSeeOther)
	}
}
