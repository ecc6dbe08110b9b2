package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
	"github.com/chancery-ca/chancery/transparency"
	"github.com/chancery-ca/chancery/web"
)

// TransparencyConfig says which certificate transparency logs there are. It is needed where a profile asks for timestamps (ct).
type TransparencyConfig struct {
	// LogList is a file with logs in the format of the browsers' lists, version 3. It is read at start.
	LogList string `yaml:"log_list" env:"LOG_LIST"`
	// Logs are further logs.
	Logs []LogConfigEntry `yaml:"logs"`
}

// LogConfigEntry is one log. It is taken to be usable.
type LogConfigEntry struct {
	// Description is the log's name, for profiles and metrics.
	Description string `yaml:"description"`
	// Operator is who runs it.
	Operator string `yaml:"operator"`
	// URL is what the paths of submissions are joined to.
	URL string `yaml:"url"`
	// MonitoringURL is what the paths of its tiles are joined to. Only a static log has it.
	MonitoringURL string `yaml:"monitoring_url"`
	// Key is the log's public key: a SubjectPublicKeyInfo in DER, base64.
	Key string `yaml:"key"`
	// NotAfterFrom and NotAfterUntil (RFC 3339) bound the end of the certificates that the log takes; the second does not count.
	NotAfterFrom  string `yaml:"not_after_from"`
	NotAfterUntil string `yaml:"not_after_until"`
}

func (c TransparencyConfig) empty() bool { return c.LogList == "" && len(c.Logs) == 0 }

func (c *TransparencyConfig) resolvePaths(dir string) {
	if c.LogList != "" && !filepath.IsAbs(c.LogList) {
		c.LogList = filepath.Join(dir, c.LogList)
	}
}

// validate refuses logs that cannot be used, at their lines.
func (c TransparencyConfig) validate(doc *strictyaml.Document) {
	var all []*transparency.Log
	for i, entry := range c.Logs {
		field := fmt.Sprintf("transparency.logs[%d]", i)
		made, err := entry.log()
		var wrong *transparency.FieldError
		switch {
		case errors.As(err, &wrong):
			doc.Refuse(field+"."+wrong.Field, wrong.Hint, "%s", wrong.Message)
		case err == nil:
			all = append(all, made)
			if err := transparency.Unique(all); err != nil {
				doc.Refuse(field, "", "%v", err)
				return
			}
		}
	}
}

func (e LogConfigEntry) log() (*transparency.Log, error) {
	l := transparency.Log{
		Description: e.Description, Operator: e.Operator, URL: e.URL, Monitoring: e.MonitoringURL, MMD: 24 * time.Hour, State: transparency.Usable,
	}
	var err error
	if l.Key, err = base64.StdEncoding.Strict().DecodeString(e.Key); err != nil {
		return nil, &transparency.FieldError{Field: "key", Message: "it is not base64", Hint: "a SubjectPublicKeyInfo in DER, base64"}
	}
	for _, bound := range []struct {
		field, text string
		to          *time.Time
	}{{"not_after_from", e.NotAfterFrom, &l.From}, {"not_after_until", e.NotAfterUntil, &l.Until}} {
		if bound.text == "" {
			continue
		}
		if *bound.to, err = time.Parse(time.RFC3339, bound.text); err != nil {
			return nil, &transparency.FieldError{Field: bound.field, Message: "it is not a time", Hint: "for example 2027-01-01T00:00:00Z"}
		}
	}
	made, err := transparency.NewLog(l)
	var wrong *transparency.FieldError
	if errors.As(err, &wrong) && wrong.Field == "temporal_interval" {
		wrong.Field = "not_after_until"
	}
	return made, err
}

// open reads the logs: those of the list, and the further ones.
func (c TransparencyConfig) open() ([]*transparency.Log, error) {
	var all []*transparency.Log
	if c.LogList != "" {
		listed, err := readLogList(c.LogList)
		if err != nil {
			return nil, err
		}
		all = listed
	}
	for _, entry := range c.Logs {
		made, err := entry.log()
		if err != nil {
			return nil, fmt.Errorf("the log %q: %w", entry.Description, err)
		}
		all = append(all, made)
	}
	if err := transparency.Unique(all); err != nil {
		return nil, fmt.Errorf("reading the transparency logs: %w", err)
	}
	return all, nil
}

func readLogList(path string) ([]*transparency.Log, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the log list: %w", err)
	}
	return transparency.ParseLogList(path, data)
}

// logs is the authority's way to the transparency logs.
type logs struct{ submitter *transparency.Submitter }

// openLogs makes it, or nil where no logs are configured. A profile that the logs cannot satisfy at this time ends the start.
func openLogs(c TransparencyConfig, set *policies.Set, now func() time.Time, metrics *web.Metrics) (ca.Transparency, error) {
	if c.empty() {
		return nil, nil
	}
	known, err := c.open()
	if err != nil {
		return nil, err
	}
	submitter, err := transparency.NewSubmitter(transparency.Config{
		Logs: known, Client: transparency.HTTPClient(nil), Now: now,
		Observe: func(l *transparency.Log, outcome string, took time.Duration) {
			metrics.LogSubmission(l.Description, outcome, took)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("opening the transparency logs: %w", err)
	}
	opened := logs{submitter}
	for _, name := range set.Names() {
		profile, _ := set.Profile(name)
		if ct := profile.Transparency(); ct != nil {
			lasts := time.Duration(profile.Summary(now()).ValidityDefault) * time.Second
			if err := opened.Possible(ct, now(), now().Add(lasts)); err != nil {
				return nil, fmt.Errorf("the profile %s asks for what the transparency logs cannot give: %w", name, err)
			}
		}
	}
	return opened, nil
}

func wishOf(t *policies.Transparency, notBefore, notAfter time.Time) transparency.Wish {
	return transparency.Wish{
		NotAfter: notAfter, SCTs: t.Required(notBefore, notAfter), Operators: t.Operators, Logs: t.Logs, Patience: t.Patience, Timeout: t.Timeout,
	}
}

// Possible asks nobody.
func (l logs) Possible(t *policies.Transparency, notBefore, notAfter time.Time) error {
	return l.submitter.Possible(wishOf(t, notBefore, notAfter))
}

// Submit asks the logs.
func (l logs) Submit(ctx context.Context, chain [][]byte, t *policies.Transparency, notBefore, notAfter time.Time) (ca.Timestamps, error) {
	list, scts, err := l.submitter.Submit(ctx, chain, wishOf(t, notBefore, notAfter))
	if err != nil {
		return ca.Timestamps{}, err
	}
	names := make([]string, len(scts))
	for i, s := range scts {
		names[i] = s.Log.Description
	}
	return ca.Timestamps{List: list, Logs: names}, nil
}
