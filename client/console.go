package client

import (
	"context"
	"net/http"
	"time"
)

// ConsoleLogin is a link that signs a browser in to the console, once.
type ConsoleLogin struct {
	URL       string    `json:"url"` // whoever has it first is signed in
	ExpiresAt time.Time `json:"expires_at"`
}

// ConsoleLogin makes a link to the console for the owner of the client's API token.
func (c *Client) ConsoleLogin(ctx context.Context) (*ConsoleLogin, error) {
	link := &ConsoleLogin{}
	if _, err := c.json(ctx, call{method: http.MethodPost, path: []string{"console", "logins"}, body: struct{}{}}, link); err != nil {
		return nil, err
	}
	return link, nil
}
