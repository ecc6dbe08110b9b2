package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/client"
)

func (a *app) healthCommand() *cobra.Command {
	url := "http://127.0.0.1:8081/readyz"
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running service whether it is ready; exit code 1 if it is not",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
			if err != nil {
				return misuse{fmt.Errorf("--url: %w", err)}
			}
			response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
			if err != nil {
				return fmt.Errorf("asking for health: %w", err)
			}
			defer response.Body.Close()
			h := health{Ready: response.StatusCode == http.StatusOK, Status: response.StatusCode}
			if !h.Ready {
				var problem client.Problem
				_ = json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&problem) // an answer of something else tells no more
				h.Detail = problem.Detail
			}
			if err := a.print(h, h.write); err != nil {
				return err
			}
			if !h.Ready {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", url, "the operations listener's readiness address")
	return cmd
}

// health is whether a service is ready, and why it is not.
type health struct {
	Ready  bool   `json:"ready"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func (h health) write(w io.Writer) {
	switch {
	case h.Ready:
		fmt.Fprintln(w, "ready")
	case h.Detail == "":
		fmt.Fprintln(w, "not ready: the answer was", h.Status)
	default:
		fmt.Fprintln(w, "not ready:", legible(h.Detail))
	}
}
