package oidctest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
)

// Page is what a browser shows in the end.
type Page struct {
	Status int
	Header http.Header
	Text   string
	URL    *url.URL
}

// SignIn does what a person does in a browser: it opens a page of the provider, fills in the form, and goes wherever it is sent then.
func (p *Provider) SignIn(address string) (Page, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return Page{}, err
	}
	browser := *p.Client
	browser.Jar = jar
	form, err := read(browser.Get(address))
	if err != nil {
		return Page{}, err
	}
	_, rest, _ := strings.Cut(form.Text, `name="id" value="`)
	id, _, found := strings.Cut(rest, `"`)
	if !found {
		return form, nil // it is not asked for a name: an error, which may have gone back already
	}
	return read(browser.PostForm(p.URL+"/login/username", url.Values{"id": {id}, "username": {Username}, "password": {Password}}))
}

// Allow does what a person does on another device: it types the code, and says yes or no.
func (p *Provider) Allow(code string, yes bool) error {
	form := url.Values{"user_code": {code}, "username": {Username}, "password": {Password}}
	if !yes {
		form.Set("deny", "yes")
	}
	page, err := read(p.Client.PostForm(p.URL+"/device", form))
	if err == nil && page.Status != http.StatusOK {
		err = fmt.Errorf("the provider answers %d: %s", page.Status, page.Text)
	}
	return err
}

func read(answer *http.Response, err error) (Page, error) {
	if err != nil {
		return Page{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return Page{Status: answer.StatusCode, Header: answer.Header, Text: string(text), URL: answer.Request.URL}, err
}
