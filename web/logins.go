package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// ConsoleLogin is a link that signs a browser in to the console, once.
type ConsoleLogin struct {
	URL       string    `json:"url" format:"uri" doc:"Open it in a browser; whoever has it first is signed in as you"`
	ExpiresAt time.Time `json:"expires_at" doc:"Until when it can be used"`
}

type loginAnswer struct{ Body ConsoleLogin }

func (s *Server) routeOfferLogin(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/console/logins", id: "offer-console-login", tag: tagConsole, success: http.StatusCreated,
		summary: "Get a link to the console",
		description: "Makes a link that signs a browser in to the console as the owner of the API token of this call. It works once, " +
			"within two " +
			"minutes. The session ends with the token.",
		bodies:   []media{{name: typeJSON, json: Empty{}}},
		answers:  []media{{name: typeJSON, json: ConsoleLogin{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, s.offerLogin)
}

func (s *Server) offerLogin(ctx context.Context, _ *struct{}) (*loginAnswer, error) {
	e := exchangeOf(ctx)
	if err := decodeStrict(e.body, &struct{}{}); err != nil {
		return nil, err
	}
	if s.pages == nil {
		return nil, newProblem(kindNotFound, "this service has no console: set console.url in its configuration")
	}
	code := rand.Text() // at least 128 bits
	expires, err := s.ca.OfferLogin(ctx, e.actor, sha256.Sum256([]byte(code)))
	if err != nil {
		return nil, err
	}
	return &loginAnswer{Body: ConsoleLogin{URL: s.pageURL + pagesPath + "/enter?code=" + code, ExpiresAt: expires.UTC()}}, nil
}
