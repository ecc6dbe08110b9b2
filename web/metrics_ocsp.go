package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ocspMetrics count what is asked by OCSP.
type ocspMetrics struct {
	responses *prometheus.CounterVec
	age       *prometheus.HistogramVec
	signing   *prometheus.HistogramVec
	kept      *prometheus.GaugeVec
}

func newOCSPMetrics(registry *prometheus.Registry) ocspMetrics {
	m := ocspMetrics{
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "chancery", Name: "ocsp_responses_total",
			Help: "OCSP responses, by what they say, and whether they were kept, signed to be kept, signed for one request, or not signed at all.",
		}, []string{"authority", "status", "source"}),
		age: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chancery", Name: "ocsp_response_age_seconds", Help: "How long ago the status in a signed response was found out.",
			Buckets: []float64{1, 10, 60, 600, 3600, 6 * 3600, 86400, 2 * 86400, 5 * 86400, 10 * 86400},
		}, []string{"authority"}),
		signing: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chancery", Name: "ocsp_signing_duration_seconds", Help: "From asking the key for the signature of an OCSP response to having it.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18), // 50 us to 6.5 s
		}, []string{"authority"}),
		kept: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "chancery", Name: "ocsp_certificates_kept", Help: "Certificates whose status, and mostly an OCSP response, is in memory.",
		}, []string{"authority"}),
	}
	registry.MustRegister(m.responses, m.age, m.signing, m.kept)
	return m
}

// OCSPAnswered counts a response.
func (m *Metrics) OCSPAnswered(authority, status, source string, age time.Duration) {
	m.ocsp.responses.WithLabelValues(authority, status, source).Inc()
	if source != "none" {
		m.ocsp.age.WithLabelValues(authority).Observe(age.Seconds())
	}
}

// OCSPSigned tells how long the key took.
func (m *Metrics) OCSPSigned(authority string, took time.Duration) {
	m.ocsp.signing.WithLabelValues(authority).Observe(took.Seconds())
}

// OCSPKept tells of how many certificates something is in memory.
func (m *Metrics) OCSPKept(authority string, certificates int) {
	m.ocsp.kept.WithLabelValues(authority).Set(float64(certificates))
}
