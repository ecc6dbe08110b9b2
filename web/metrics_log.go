package web

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-ca/chancery/ca"
)

// auditMetrics tell how the audit log is doing.
type auditMetrics struct {
	size, unsequenced, unsequencedAge, checkpointSize, checkpointAge, cosignedSize prometheus.Gauge
}

func newAuditMetrics(registry *prometheus.Registry) auditMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "chancery", Name: name, Help: help})
		registry.MustRegister(g)
		return g
	}
	return auditMetrics{
		size:        gauge("audit_log_size", "Events that have a place in the audit log."),
		unsequenced: gauge("audit_log_unsequenced", "Events that have none yet."),
		unsequencedAge: gauge("audit_log_unsequenced_age_seconds",
			"How long the oldest event without a place has waited; 0 when there is none. More than a few seconds is an alarm: nobody sequences."),
		checkpointSize: gauge("audit_log_checkpoint_size", "Events under the latest checkpoint."),
		checkpointAge: gauge("audit_log_checkpoint_age_seconds",
			"How old the latest checkpoint is while it does not cover the log; 0 when it does. Minutes are an alarm: the log's key is away, or "+
				"refuses."),
		cosignedSize: gauge("audit_log_cosigned_size", "Events under the latest checkpoint that a witness has signed."),
	}
}

// Log tells how the audit log is doing.
func (m *Metrics) Log(l ca.LogState) {
	m.audit.size.Set(float64(l.Size))
	m.audit.unsequenced.Set(float64(l.Unsequenced))
	m.audit.unsequencedAge.Set(max(l.UnsequencedAge, 0))
	m.audit.checkpointSize.Set(float64(l.CheckpointSize))
	age := max(l.CheckpointAge, 0)
	if l.UncoveredLeaves == 0 {
		age = 0
	}
	m.audit.checkpointAge.Set(age)
	m.audit.cosignedSize.Set(float64(l.CosignedSize))
}
