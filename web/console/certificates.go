package console

import (
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

const (
	pageLength = 50
	maxWords   = 253  // octets of a search: the longest DNS name
	maxCursor  = 512  // octets
	maxComment = 1000 // octets
)

// certificateRow is a certificate as pages show it.
type certificateRow struct {
	ca.Certificate
	Hex, State string
}

func (v *visits) row(c ca.Certificate) certificateRow {
	return certificateRow{Certificate: c, Hex: c.Serial.String(), State: c.Status(v.Now())}
}

// certificates searches, newest first. Who types in a whole serial is led to its certificate.
func (v *visits) certificates(w http.ResponseWriter, r *http.Request, visit *visit) {
	asked := r.URL.Query()
	f := ca.Filter{
		Query: strings.TrimSpace(asked.Get("q")), Status: asked.Get("status"), Profile: asked.Get("profile"), Cursor: asked.Get("cursor"),
		Limit: pageLength,
	}
	if !printable(f.Query+f.Status+f.Profile+f.Cursor) || len(f.Query) > maxWords || len(f.Profile) > maxWords || len(f.Cursor) > maxCursor {
		v.refuse(w, r, visit, http.StatusBadRequest, "This search cannot be read", "Search for up to 253 characters of a name.")
		return
	}
	if serial, err := parseSerial(f.Query); err == nil && len(serial) >= 16 {
		http.Redirect(w, r, "/console/certificates/"+hex.EncodeToString(serial), http.StatusSeeOther)
		return
	}
	found, err := v.CA.List(r.Context(), visit.person(), f)
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	rows := make([]certificateRow, len(found.Certificates))
	for i, c := range found.Certificates {
		rows[i] = v.row(c)
	}
	next := ""
	if found.Next != "" {
		asked.Set("cursor", found.Next)
		next = "/console/certificates?" + asked.Encode()
	}
	v.show(w, r, visit, http.StatusOK, "certificates", map[string]any{
		"Rows": rows, "Next": next, "Query": f.Query, "Status": f.Status, "Profile": f.Profile,
		"States": []string{"valid", "expired", "revoked", "on-hold"},
		"All":    visit.person().Namespace == access.AllNamespaces,
	})
}

// find looks up the certificate that a path names. It answers by itself when there is none to show.
func (v *visits) find(w http.ResponseWriter, r *http.Request, visit *visit) (found certificateRow, ok bool) {
	serial, err := parseSerial(chi.URLParam(r, "serial"))
	if err != nil {
		v.problem(w, r, visit, v.desk.NotFound())
		return found, false
	}
	c, err := v.CA.Certificate(r.Context(), visit.person(), r.URL.Query().Get("issuer"), serial)
	if err != nil {
		v.failed(w, r, visit, err)
		return found, false
	}
	return v.row(c), true
}

// certificate shows one certificate.
func (v *visits) certificate(w http.ResponseWriter, r *http.Request, visit *visit) {
	c, ok := v.find(w, r, visit)
	if !ok {
		return
	}
	v.show(w, r, visit, http.StatusOK, "certificate", map[string]any{
		"Certificate": c, "PEM": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})), "Reason": reason(c.Certificate),
		"Revoke": revokePath(c), "MayRevoke": visit.may(access.RevokeCertificate) && (c.State == "valid" || c.State == "on-hold"),
	})
}

func revokePath(c certificateRow) string {
	return "/console/certificates/" + c.Hex + "/revoke?" + url.Values{"issuer": {c.Issuer}}.Encode()
}

func reason(c ca.Certificate) string {
	if c.Revocation == nil {
		return ""
	}
	return c.Revocation.Reason.String()
}

// confirmRevoke asks before a certificate is revoked.
func (v *visits) confirmRevoke(w http.ResponseWriter, r *http.Request, visit *visit) {
	c, ok := v.find(w, r, visit)
	if !ok {
		return
	}
	v.askRevoke(w, r, visit, c, http.StatusOK, "")
}

func (v *visits) askRevoke(w http.ResponseWriter, r *http.Request, visit *visit, c certificateRow, status int, missing string) {
	reasons := ca.ReasonNames()
	if c.State != "on-hold" { // there is no hold to end
		kept := reasons[:0:0]
		for _, name := range reasons {
			if name != "removeFromCRL" {
				kept = append(kept, name)
			}
		}
		reasons = kept
	}
	v.show(w, r, visit, status, "revoke", map[string]any{
		"Certificate": c, "Reasons": reasons, "Action": revokePath(c), "Missing": missing, "Comment": r.PostFormValue("comment"),
		"Chosen": r.PostFormValue("reason"),
	})
}

// revoke revokes a certificate, when the person has said so twice: by the form, and by the mark in it.
func (v *visits) revoke(w http.ResponseWriter, r *http.Request, visit *visit) {
	c, ok := v.find(w, r, visit)
	if !ok {
		return
	}
	comment := r.PostFormValue("comment")
	chosen, err := ca.ParseReason(r.PostFormValue("reason"))
	switch {
	case err != nil:
		v.askRevoke(w, r, visit, c, http.StatusBadRequest, "Choose a reason.")
		return
	case r.PostFormValue("sure") != "yes":
		v.askRevoke(w, r, visit, c, http.StatusBadRequest, "Confirm that this is the certificate that you mean.")
		return
	case len(comment) > maxComment || !printable(lines(comment)):
		v.askRevoke(w, r, visit, c, http.StatusBadRequest, "Write a comment of at most 1,000 octets of text.")
		return
	}
	if _, err := v.CA.Revoke(r.Context(), ca.RevokeOrder{
		Actor: visit.person(), Issuer: c.Issuer, Serial: c.Serial[:], Reason: chosen, Comment: strings.ReplaceAll(comment, "\r\n", "\n"),
	}); err != nil {
		v.failed(w, r, visit, err)
		return
	}
	http.Redirect(w, r, "/console/certificates/"+c.Hex+"?"+url.Values{"issuer": {c.Issuer}}.Encode(), http.StatusSeeOther)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// lines is a text without its ends of lines.
func lines(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }
