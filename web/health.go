package web

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5/middleware"
)

// readyTimeout bounds how long readiness is looked for.
const readyTimeout = 2 * time.Second

// routeOperations serves what operators and their machines ask. Its listener is not for everybody: it tells what is broken.
func (s *Server) routeOperations() {
	s.operations = s.newRouter(noHeaders)
	s.operations.Use(limitInFlight(DefaultInFlight), middleware.GetHead)
	s.operations.Get("/livez", live)
	s.operations.Get("/readyz", s.ready)
	s.operations.Method(http.MethodGet, "/metrics", s.metrics.handler())
	s.operations.Get("/version", s.tellVersion)
}

// live says that the process answers, and nothing of what it needs: a restart would not bring a database back.
func live(w http.ResponseWriter, _ *http.Request) { tell(w, map[string]string{"status": "ok"}) }

// ready says whether requests can be served now.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.ca.Ready(ctx); err != nil {
		writeProblem(w, r, newProblem(kindUnavailable, err.Error()).retryAfter(shortly))
		return
	}
	tell(w, map[string]string{"status": "ready"})
}

func (s *Server) tellVersion(w http.ResponseWriter, _ *http.Request) {
	tell(w, map[string]string{"version": s.version})
}

func tell(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Set("Cache-Control", "no-store")
	_ = writeJSON(w, v) // the caller has left: there is nobody to tell
}
