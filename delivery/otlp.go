package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// OTLP posts entries as OpenTelemetry logs (OTLP/HTTP with JSON, version 1), one request a batch.
//
// The encoding is some sixty lines of its own: OpenTelemetry's SDK hands logs to a queue that drops when it is full and does not tell who
// wrote them that they arrived, which is what a cursor needs to know.
type OTLP struct {
	URL    string      // whole, such as http://127.0.0.1:4318/v1/logs
	Header http.Header // such as an authorisation
	Client *http.Client
	Host   string
	Now    func() time.Time
}

type (
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"` // 64 bits are strings in OTLP's JSON
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpRecord struct {
		Time       string          `json:"timeUnixNano"`
		Observed   string          `json:"observedTimeUnixNano"`
		Severity   int             `json:"severityNumber"`
		Text       string          `json:"severityText"`
		Body       otlpValue       `json:"body"`
		Attributes []otlpAttribute `json:"attributes"`
		Name       string          `json:"eventName"`
	}
	otlpScope struct {
		Name string `json:"name"`
	}
	otlpScopeLogs struct {
		Scope   otlpScope    `json:"scope"`
		Records []otlpRecord `json:"logRecords"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpResourceLogs struct {
		Resource otlpResource    `json:"resource"`
		Scopes   []otlpScopeLogs `json:"scopeLogs"`
	}
	otlpLogs struct {
		Resources []otlpResourceLogs `json:"resourceLogs"`
	}
)

func otlpText(key, value string) otlpAttribute {
	return otlpAttribute{key, otlpValue{String: &value}}
}

// Send posts a batch. A collector that took a part of it only has said which number, not which entries: the batch is sent again.
func (o *OTLP) Send(ctx context.Context, entries []Entry) error {
	body, err := o.encode(entries)
	if err != nil {
		return err
	}
	header := o.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	said, err := post(ctx, o.Client, o.URL, header, body)
	if err != nil {
		return err
	}
	var answer struct {
		Partial struct {
			Rejected json.Number `json:"rejectedLogRecords"`
			Message  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if err := json.Unmarshal(said, &answer); err != nil && len(said) > 0 {
		return fmt.Errorf("reading the collector's answer: %w", err)
	}
	if n := answer.Partial.Rejected.String(); n != "" && n != "0" {
		return fmt.Errorf("the collector rejected %s of %d entries: %q", n, len(entries), answer.Partial.Message)
	}
	return nil
}

func (o *OTLP) encode(entries []Entry) ([]byte, error) {
	const info = 9 // SEVERITY_NUMBER_INFO
	observed := strconv.FormatInt(o.Now().UnixNano(), 10)
	records := make([]otlpRecord, len(entries))
	for i, e := range entries {
		index, leaf := strconv.FormatInt(e.Index, 10), string(e.Leaf)
		records[i] = otlpRecord{
			Time: strconv.FormatInt(e.Event.Time.UnixNano(), 10), Observed: observed, Severity: info, Text: "INFO", Body: otlpValue{String: &leaf},
			Name: string(e.Event.Kind),
			Attributes: []otlpAttribute{
				{"chancery.audit.index", otlpValue{Int: &index}},
				otlpText("chancery.audit.event", e.Event.ID), otlpText("chancery.audit.kind", string(e.Event.Kind)),
				otlpText("chancery.audit.actor", e.Event.Actor), otlpText("chancery.audit.namespace", e.Event.Namespace),
			},
		}
	}
	body, err := json.Marshal(otlpLogs{[]otlpResourceLogs{{
		Resource: otlpResource{[]otlpAttribute{otlpText("service.name", "chancery"), otlpText("host.name", o.Host)}},
		Scopes:   []otlpScopeLogs{{Scope: otlpScope{"chancery/audit"}, Records: records}},
	}}})
	if err != nil {
		return nil, fmt.Errorf("encoding entries for OpenTelemetry: %w", err)
	}
	return body, nil
}

// Close lets go of idle connections.
func (o *OTLP) Close() error {
	o.Client.CloseIdleConnections()
	return nil
}
