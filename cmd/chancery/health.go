package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
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
			ready := response.StatusCode == http.StatusOK
			result := struct {
				Ready  bool `json:"ready"`
				Status int  `json:"status"`
			}{ready, response.StatusCode}
			if err := a.print(result, func(w io.Writer) { fmt.Fprintln(w, map[bool]string{true: "ready", false: "not ready"}[ready]) }); err != nil {
				return err
			}
			if !ready {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", url, "the operations listener's readiness address")
	return cmd
}
