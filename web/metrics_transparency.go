package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// logMetrics count what transparency logs do.
type logMetrics struct {
	submissions *prometheus.CounterVec
	answering   *prometheus.HistogramVec
}

func newLogMetrics(registry *prometheus.Registry) logMetrics {
	m := logMetrics{
		submissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "chancery", Name: "ct_submissions_total", Help: "Precertificates sent to transparency logs, by what came of it: accepted, failed, lied, left.",
		}, []string{"log", "outcome"}),
		answering: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chancery", Name: "ct_submission_duration_seconds", Help: "From a submission to the log's answer, refusals included.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 13), // 5 ms to 20 s
		}, []string{"log"}),
	}
	registry.MustRegister(m.submissions, m.answering)
	return m
}

// LogSubmission counts a submission to a transparency log, and what came of it.
func (m *Metrics) LogSubmission(log, outcome string, took time.Duration) {
	m.logs.submissions.WithLabelValues(log, outcome).Inc()
	if outcome != "left" { // others were faster: how long it would have taken is not known
		m.logs.answering.WithLabelValues(log).Observe(took.Seconds())
	}
}
