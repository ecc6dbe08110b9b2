package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/chancery-ca/chancery/ca"
)

// Metrics counts what the authority does and what is asked of it, for Prometheus. It is the ca.Metrics of the service.
type Metrics struct {
	registry *prometheus.Registry
	profile  func(name string) bool

	issued     *prometheus.CounterVec
	issuance   *prometheus.HistogramVec
	refused    *prometheus.CounterVec
	waiting    *prometheus.CounterVec
	decided    *prometheus.CounterVec
	limited    *prometheus.CounterVec
	failed     *prometheus.CounterVec
	revoked    *prometheus.CounterVec
	bulk       *prometheus.CounterVec
	onCRL      *prometheus.HistogramVec
	settled    *prometheus.CounterVec
	thisUpdate *prometheus.GaugeVec
	nextUpdate *prometheus.GaugeVec
	entries    *prometheus.GaugeVec
	octets     *prometheus.GaugeVec
	publishing *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	serving    *prometheus.HistogramVec
	hsm        *prometheus.HistogramVec
	caa        *prometheus.HistogramVec
	leads      *prometheus.GaugeVec
	logs       logMetrics
	ocsp       ocspMetrics
	own        ownMetrics
	delivery   deliveryMetrics
	audit      auditMetrics
	strangers  *prometheus.CounterVec
	crls       *prometheus.CounterVec
	covered    prometheus.Gauge
	archived   prometheus.Counter
}

var _ ca.Metrics = (*Metrics)(nil)

// NewMetrics makes the metrics, with a registry of their own. isProfile tells whether the policies that rule have a profile of a name, which
// may become a label then: requesters can ask for any.
func NewMetrics(isProfile func(name string) bool) *Metrics {
	registry := prometheus.NewRegistry()
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "chancery", Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "chancery", Name: name, Help: help}, labels)
		registry.MustRegister(g)
		return g
	}
	seconds := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chancery", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
		}, labels)
		registry.MustRegister(h)
		return h
	}
	// A token answers in microseconds or in seconds.
	operations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "chancery", Name: "hsm_operation_duration_seconds", Help: "An operation on a token, failures included.",
		Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18), // 50 us to 6.5 s
	}, []string{"op"})
	registry.MustRegister(operations)
	covered := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "chancery", Name: "partitions_until_timestamp_seconds",
		Help: "Up to when certificates have a place in the database, Unix time. Less than a month ahead is an alarm: issuance will stop.",
	})
	archived := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "chancery", Name: "certificates_archived_total", Help: "Certificates that left the database for an archive.",
	})
	registry.MustRegister(covered, archived)
	return &Metrics{
		registry: registry,
		covered:  covered,
		archived: archived,
		hsm:      operations,
		logs:     newLogMetrics(registry),
		ocsp:     newOCSPMetrics(registry),
		own:      newOwnMetrics(registry),
		delivery: newDeliveryMetrics(registry),
		audit:    newAuditMetrics(registry),
		profile:  isProfile,
		issued:   count("certificates_issued_total", "Certificates issued.", "authority", "profile"),
		issuance: seconds("issuance_duration_seconds", "From an order to its certificate.", "authority", "profile"),
		refused:  count("requests_refused_total", "Requests refused by the policies.", "profile"),
		waiting:  count("requests_waiting_total", "Requests that began to wait for approval.", "profile"),
		decided:  count("requests_decided_total", "Requests that wait no more.", "profile", "outcome"),
		limited:  count("requests_limited_total", "Requests turned away by a rate, a quota or how often the key may sign.", "profile", "by"),
		failed:   count("operation_failures_total", "Operations that were begun and failed, by step: issuances after their intent, CRLs, mirrors of CRLs, OCSP answers.", "step"),
		revoked:  count("certificates_revoked_total", "Revocations recorded, holds and releases included.", "authority", "reason"),
		bulk:     count("revocation_jobs_total", "Orders to revoke many certificates, by the state that they came to.", "status"),
		onCRL: seconds("revocation_publication_seconds", "From a revocation made here to the CRL made here that shows it.", "authority",
			"scope"),
		settled:    count("intents_settled_total", "Intents settled as possibly signed.", "authority"),
		thisUpdate: gauge("crl_this_update_timestamp_seconds", "When the CRL served here was made, Unix time.", "authority", "scope"),
		nextUpdate: gauge("crl_next_update_timestamp_seconds", "When the CRL served here ends, Unix time.", "authority", "scope"),
		entries:    gauge("crl_entries", "Entries of the CRL served here.", "authority", "scope"),
		octets:     gauge("crl_size_bytes", "Octets of the CRL served here.", "authority", "scope"),
		publishing: seconds("crl_publication_duration_seconds", "From a claim to its CRL.", "authority", "scope"),
		requests:   count("http_requests_total", "Requests answered.", "route", "method", "status"),
		caa:        seconds("caa_lookup_duration_seconds", "Asking the DNS who may certify the names of one request.", "outcome"),
		leads: gauge("leader_since_timestamp_seconds", "Since when this replica leads a duty, Unix time; 0: it does not.", "replica",
			"duty"),
		strangers: count("authentication_failures_total", "Requests whose credentials were missing, refused, or refused too often.", "outcome"),
		crls:      count("client_crls_refused_total", "CRLs of authorities of client certificates that were read and not taken.", "trust", "reason"),
		serving:   seconds("http_request_duration_seconds", "From a request to its answer.", "route"),
	}
}

// HSMOperation counts an operation on a token, by its kind.
func (m *Metrics) HSMOperation(op string, took time.Duration) {
	m.hsm.WithLabelValues(op).Observe(took.Seconds())
}

// Unauthenticated counts a request whose caller was not found out: its credentials are missing, refused, or limited as too many.
func (m *Metrics) Unauthenticated(outcome string) { m.strangers.WithLabelValues(outcome).Inc() }

// ClientCRLRefused counts a CRL about client certificates that was not taken: of what is trusted under a name, and for which reason.
func (m *Metrics) ClientCRLRefused(trust, reason string) { m.crls.WithLabelValues(trust, reason).Inc() }

// PartitionedUntil tells up to when certificates can be recorded.
func (m *Metrics) PartitionedUntil(t time.Time) { m.covered.Set(float64(t.Unix())) }

// Archived counts the certificates of a month that was archived.
func (m *Metrics) Archived(certificates int64) { m.archived.Add(float64(certificates)) }

// Issued counts a certificate.
func (m *Metrics) Issued(authority, profile string, took time.Duration) {
	m.issued.WithLabelValues(authority, profile).Inc()
	m.issuance.WithLabelValues(authority, profile).Observe(took.Seconds())
}

// Refused counts a refusal by the policies.
func (m *Metrics) Refused(profile string) { m.refused.WithLabelValues(m.known(profile)).Inc() }

// known is a profile that may become a label.
func (m *Metrics) known(profile string) string {
	if !m.profile(profile) {
		return "unknown"
	}
	return profile
}

// Waiting counts a request that began to wait for approval.
func (m *Metrics) Waiting(profile string) { m.waiting.WithLabelValues(m.known(profile)).Inc() }

// Decided counts a request that waits no more.
func (m *Metrics) Decided(profile, outcome string) {
	m.decided.WithLabelValues(m.known(profile), outcome).Inc()
}

// Limited counts a request that was turned away by a rate, a quota, or how often the key may sign.
func (m *Metrics) Limited(profile, by string) { m.limited.WithLabelValues(m.known(profile), by).Inc() }

// Failed counts an operation that failed half way.
func (m *Metrics) Failed(step string) { m.failed.WithLabelValues(step).Inc() }

// Revoked counts a revocation, a hold or a release.
func (m *Metrics) Revoked(authority, reason string) {
	m.revoked.WithLabelValues(authority, reason).Inc()
}

// RevocationJob counts an order to revoke many certificates when it comes to a state.
func (m *Metrics) RevocationJob(status string) { m.bulk.WithLabelValues(status).Inc() }

// RevocationsPublished tells of revocations that are on a CRL now.
func (m *Metrics) RevocationsPublished(authority, scope string, count int, after time.Duration) {
	observer := m.onCRL.WithLabelValues(authority, scope)
	for range count {
		observer.Observe(after.Seconds())
	}
}

// Orphaned counts an intent that was settled as possibly signed.
func (m *Metrics) Orphaned(authority string) { m.settled.WithLabelValues(authority).Inc() }

// Published tells of a CRL that was made here.
func (m *Metrics) Published(authority, scope string, took time.Duration) {
	m.publishing.WithLabelValues(authority, scope).Observe(took.Seconds())
}

// Serves tells of the CRL that is served here.
func (m *Metrics) Serves(authority, scope string, r ca.CRLRecord) {
	m.thisUpdate.WithLabelValues(authority, scope).Set(float64(r.ThisUpdate.Unix()))
	m.nextUpdate.WithLabelValues(authority, scope).Set(float64(r.NextUpdate.Unix()))
	m.entries.WithLabelValues(authority, scope).Set(float64(r.Entries))
	m.octets.WithLabelValues(authority, scope).Set(float64(len(r.DER)))
}

// LookedUpCAA tells of the questions to the DNS for one request.
func (m *Metrics) LookedUpCAA(failures int, took time.Duration) {
	outcome := "answered"
	if failures > 0 {
		outcome = "failed"
	}
	m.caa.WithLabelValues(outcome).Observe(took.Seconds())
}

// Leads tells since when this replica leads a duty; the zero time: it does not.
func (m *Metrics) Leads(replica, duty string, since time.Time) {
	value := 0.0
	if !since.IsZero() {
		value = float64(since.UnixMilli()) / 1000
	}
	m.leads.WithLabelValues(replica, duty).Set(value)
}

// served counts an answer. Methods that nothing here has are one word, so that callers cannot make up labels.
func (m *Metrics) served(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.serving.WithLabelValues(route).Observe(took.Seconds())
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
