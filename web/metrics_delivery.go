package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// deliveryMetrics count what the receivers of the audit log get.
type deliveryMetrics struct {
	delivered *prometheus.CounterVec
	failures  *prometheus.CounterVec
	givenUp   *prometheus.CounterVec
	lag       *prometheus.GaugeVec
	age       *prometheus.GaugeVec
}

func newDeliveryMetrics(registry *prometheus.Registry) deliveryMetrics {
	count := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "chancery", Name: name, Help: help}, []string{"receiver"})
		registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "chancery", Name: name, Help: help}, []string{"receiver"})
		registry.MustRegister(g)
		return g
	}
	return deliveryMetrics{
		delivered: count("audit_delivered_total", "Entries of the audit log that a receiver took."),
		failures:  count("audit_delivery_failures_total", "Tries to deliver to a receiver that failed."),
		givenUp:   count("notifications_given_up_total", "Notifications that were left out after too many tries."),
		lag:       gauge("audit_delivery_lag_entries", "Entries that a receiver lacks; told by the replica that delivers."),
		age:       gauge("audit_delivery_lag_seconds", "Age of the oldest entry that a receiver lacks; told by the replica that delivers."),
	}
}

// Delivered counts entries that a receiver took.
func (m *Metrics) Delivered(receiver string, entries int) {
	m.delivery.delivered.WithLabelValues(receiver).Add(float64(entries))
}

// DeliveryFailed counts a try that failed.
func (m *Metrics) DeliveryFailed(receiver string) {
	m.delivery.failures.WithLabelValues(receiver).Inc()
}

// DeliveryGivenUp counts a notification that was left out.
func (m *Metrics) DeliveryGivenUp(receiver string) {
	m.delivery.givenUp.WithLabelValues(receiver).Inc()
}

// DeliveryLag tells how far behind a receiver is.
func (m *Metrics) DeliveryLag(receiver string, entries int64, age time.Duration) {
	m.delivery.lag.WithLabelValues(receiver).Set(float64(entries))
	m.delivery.age.WithLabelValues(receiver).Set(age.Seconds())
}

// DeliveredElsewhere says that another replica delivers to a receiver, or none.
func (m *Metrics) DeliveredElsewhere(receiver string) {
	m.delivery.lag.DeleteLabelValues(receiver)
	m.delivery.age.DeleteLabelValues(receiver)
}
