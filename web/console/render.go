package console

import (
	"bytes"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/web"
)

//go:embed pages/*.html
var files embed.FS

//go:embed pages/console.css
var style []byte

// pages are the templates of all pages, each with the frame around it.
type pages map[string]*template.Template

var pageNames = []string{
	"login", "enter", "signed-out", "problem", "home", "certificates", "certificate", "revoke", "requests", "request", "authorities",
	"events", "event", "log",
}

func readPages() (pages, error) {
	frame, err := template.New("frame.html").Funcs(template.FuncMap{
		"time": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"date": func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
		"span": func(d time.Duration) string { return strings.TrimSuffix(d.Round(time.Minute).String(), "0s") },
		"hex":  hex.EncodeToString,
		"join": func(all []string) string { return strings.Join(all, ", ") },
	}).ParseFS(files, "pages/frame.html")
	if err != nil {
		return nil, fmt.Errorf("console: reading the frame of pages: %w", err)
	}
	all := pages{}
	for _, name := range pageNames {
		page, err := frame.Clone()
		if err == nil {
			all[name], err = page.ParseFS(files, "pages/"+name+".html")
		}
		if err != nil {
			return nil, fmt.Errorf("console: reading page %s: %w", name, err)
		}
	}
	return all, nil
}

// sheet is what the frame and a page are filled with.
type sheet struct {
	Name    string // of the page
	Person  access.Actor
	In      bool // somebody is signed in
	Form    string
	Tabs    []tab
	Version string
	Is      any // what the page itself is about
}

// tab is a place that the person can go to.
type tab struct {
	Path, Title string
	Here        bool
}

// tabs are the places that are of use to the person.
func (v *visit) tabs(name string) (all []tab) {
	for _, t := range []struct {
		action      access.Action
		path, title string
		pages       []string
	}{
		{access.OpenSession, "/console/", "You", []string{"home"}},
		{access.ReadCertificate, "/console/certificates", "Certificates", []string{"certificates", "certificate", "revoke"}},
		{access.ReadRequest, "/console/requests", "Requests", []string{"requests", "request"}},
		{access.ReadAuthority, "/console/authorities", "Authorities", []string{"authorities"}},
		{access.ReadAudit, "/console/audit", "Audit log", []string{"events", "event", "log"}},
	} {
		if v.may(t.action) {
			all = append(all, tab{Path: t.path, Title: t.title, Here: slices.Contains(t.pages, name)})
		}
	}
	return all
}

// show writes a page down. It is made whole before the first octet leaves, so that an error is not half a page.
func (v *visits) show(w http.ResponseWriter, r *http.Request, visit *visit, status int, name string, about any) {
	s := sheet{Name: name, Version: v.Version, Is: about}
	if visit != nil {
		s.Person, s.In, s.Form, s.Tabs = visit.person(), true, visit.token(), visit.tabs(name)
	}
	var page bytes.Buffer
	if err := v.pages[name].ExecuteTemplate(&page, "frame.html", s); err != nil {
		v.Log.ErrorContext(r.Context(), "a page could not be made", "page", name, "error", err)
		http.Error(w, "The service failed. Its log tells more.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = page.WriteTo(w) // who has left needs no page
	}
}

// refuse says why there is no page.
func (v *visits) refuse(w http.ResponseWriter, r *http.Request, visit *visit, status int, title, detail string) {
	v.show(w, r, visit, status, "problem", map[string]any{"Title": title, "Detail": detail, "Violations": nil, "Instance": ""})
}

// problem shows a problem as the API would tell it.
func (v *visits) problem(w http.ResponseWriter, r *http.Request, visit *visit, p *web.Problem) {
	for name, values := range p.GetHeaders() {
		if name != "WWW-Authenticate" { // a browser would ask for a password
			w.Header()[name] = values
		}
	}
	v.show(w, r, visit, p.Status, "problem", map[string]any{
		"Title": p.Title, "Detail": p.Detail, "Violations": p.Violations, "Instance": p.Instance,
	})
}

// failed shows an error of the authority.
func (v *visits) failed(w http.ResponseWriter, r *http.Request, visit *visit, err error) {
	v.problem(w, r, visit, v.desk.Problem(r.Context(), err))
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(style)
}

var errSerial = errors.New("the serial is none")

// parseSerial reads a serial as the pages write it, and as people copy it: hex in any case, with colons or without.
func parseSerial(text string) ([]byte, error) {
	serial, err := hex.DecodeString(strings.ToLower(strings.ReplaceAll(text, ":", "")))
	if err != nil || len(serial) == 0 || len(serial) > 20 {
		return nil, errSerial
	}
	return serial, nil
}
