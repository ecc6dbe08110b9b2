package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ownMetrics tell of the keys and certificates that the service itself needs: of its authorities, its OCSP responders and its TLS.
type ownMetrics struct {
	notAfter  *prometheus.GaugeVec
	failures  *prometheus.CounterVec
	available *prometheus.GaugeVec
}

func newOwnMetrics(registry *prometheus.Registry) ownMetrics {
	labels := []string{"kind", "name"}
	m := ownMetrics{
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "chancery", Name: "certificate_not_after_timestamp_seconds",
			Help: "When a certificate ends that the service itself needs, Unix time: of an authority, an OCSP responder (ocsp), or its TLS (tls).",
		}, labels),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "chancery", Name: "certificate_renewal_failures_total",
			Help: "Certificates of OCSP responders and of the service's TLS that were due and not to be had.",
		}, labels),
		available: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "chancery", Name: "key_available",
			Help: "1 where the key of an authority, or of an OCSP responder (ocsp), signed when it was last asked to; 0: it did not.",
		}, labels),
	}
	registry.MustRegister(m.notAfter, m.failures, m.available)
	return m
}

// CertificateEnds tells when a certificate ends that the service itself needs.
func (m *Metrics) CertificateEnds(kind, name string, notAfter time.Time) {
	m.own.notAfter.WithLabelValues(kind, name).Set(float64(notAfter.Unix()))
}

// RenewalFailed counts a certificate of the service's own that was due and not to be had.
func (m *Metrics) RenewalFailed(kind, name string) { m.own.failures.WithLabelValues(kind, name).Inc() }

// KeyAvailable tells whether a key signed when it was last asked to.
func (m *Metrics) KeyAvailable(kind, name string, available bool) {
	value := 0.0
	if available {
		value = 1
	}
	m.own.available.WithLabelValues(kind, name).Set(value)
}
