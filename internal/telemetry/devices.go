package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLabel bounds how many values a label takes whose values come from
// operators, such as key ids and policy rules; the rest is counted as "other".
const maxLabel = 256

// A bounded set of label values.
type bounded struct {
	mu   sync.Mutex // guards seen
	seen map[string]bool
}

func (b *bounded) value(s string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.seen[s]:
		return s
	case len(b.seen) >= maxLabel:
		return "other"
	case b.seen == nil:
		b.seen = make(map[string]bool)
	}
	b.seen[s] = true
	return s
}

// deviceMetrics are those of keys and devices.
type deviceMetrics struct {
	signs       *prometheus.CounterVec
	signTime    *prometheus.HistogramVec
	inFlight    *prometheus.GaugeVec
	calls       *prometheus.HistogramVec
	ckr         *prometheus.CounterVec
	tpmRC       *prometheus.CounterVec
	up          *prometheus.GaugeVec
	sessions    *prometheus.GaugeVec
	reconnects  *prometheus.CounterVec
	pinRefused  *prometheus.CounterVec
	failovers   *prometheus.CounterVec
	selfTests   *prometheus.CounterVec
	suspect     *prometheus.GaugeVec
	denials     *prometheus.CounterVec
	auditFails  prometheus.Counter
	keys, rules bounded
}

func (m *Metrics) registerDevices() {
	d := &m.devices
	d.signs = m.counterVec("sign_requests_total", "Signatures, MACs and key agreements asked of devices; key is \"other\" beyond the first 256.", "key", "alg", "result")
	d.signTime = m.histogramVec("sign_duration_seconds", "One attempt of a device, with waiting for it.", "alg")
	d.inFlight = m.gaugeVec("device_in_flight", "Requests that a device works on now.", "device")
	d.calls = m.histogramVec("pkcs11_call_duration_seconds", "Calls of a PKCS#11 module, with what the driver repairs on the way.", "function", "module")
	d.ckr = m.counterVec("pkcs11_errors_total", "Calls of a PKCS#11 module that failed, by return value.", "ckr")
	d.tpmRC = m.counterVec("tpm_errors_total", "Commands of a TPM that failed, by response code.", "rc")
	d.up = m.gaugeVec("device_up", "1 while the device answers and its login holds.", "module", "token")
	d.sessions = m.gaugeVec("device_sessions", "Sessions that may be used at once, and workers that are up.", "device", "state")
	d.reconnects = m.counterVec("device_reconnects_total", "Logins, modules and workers that were brought back.", "device", "kind")
	d.pinRefused = m.counterVec("device_pin_refused_total", "PINs that the token refused; none is tried twice.", "device")
	d.failovers = m.counterVec("device_failovers_total", "Requests that went on to another device.", "from", "to")
	d.selfTests = m.counterVec("self_tests_total", "Self-tests of keys.", "device", "result")
	d.suspect = m.gaugeVec("device_suspect", "1 while the device is suspect for a wrong signature.", "device")
	d.denials = m.counterVec("policy_denials_total", "Requests that policy refused, by rule; \"other\" beyond the first 256.", "rule")
	d.auditFails = prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "audit_write_failures_total", Help: "Journal entries that could not be written; nothing was released."})
	m.registry.MustRegister(d.auditFails)
}

// SignCall begins to count and time a device's work for a key; the function is
// told the class of how it ended: "ok", "retry", "login", "operator", "refused"
// or "canceled".
func (m *Metrics) SignCall(key, alg, device string) func(result string) {
	start := time.Now()
	m.devices.inFlight.WithLabelValues(device).Inc()
	return func(result string) {
		m.devices.inFlight.WithLabelValues(device).Dec()
		m.devices.signs.WithLabelValues(m.devices.keys.value(key), alg, result).Inc()
		m.devices.signTime.WithLabelValues(alg).Observe(time.Since(start).Seconds())
	}
}

// PKCS11Call times a call of a module; ckr is "" where it succeeded.
func (m *Metrics) PKCS11Call(function, module, ckr string, took time.Duration) {
	m.devices.calls.WithLabelValues(function, module).Observe(took.Seconds())
	if ckr != "" {
		m.devices.ckr.WithLabelValues(ckr).Inc()
	}
}

// TPMError counts a command that failed.
func (m *Metrics) TPMError(rc string) { m.devices.tpmRC.WithLabelValues(rc).Inc() }

// DeviceUp says whether a device answers.
func (m *Metrics) DeviceUp(module, token string, up bool) {
	m.devices.up.WithLabelValues(module, token).Set(truth(up))
}

// DeviceSessions sets the sessions of a device in a state: "limit" or "workers".
func (m *Metrics) DeviceSessions(device, state string, n int) {
	m.devices.sessions.WithLabelValues(device, state).Set(float64(n))
}

// Reconnected counts what a driver brought back: "login", "module" or "worker".
func (m *Metrics) Reconnected(device, kind string) {
	m.devices.reconnects.WithLabelValues(device, kind).Inc()
}

// PINRefused counts a PIN that a token refused.
func (m *Metrics) PINRefused(device string) { m.devices.pinRefused.WithLabelValues(device).Inc() }

// Failover counts a request that went on to another device.
func (m *Metrics) Failover(from, to string) { m.devices.failovers.WithLabelValues(from, to).Inc() }

// SelfTested counts a self-test.
func (m *Metrics) SelfTested(device string, err error) {
	m.devices.selfTests.WithLabelValues(device, result(err)).Inc()
}

// Suspect says whether a device is suspect.
func (m *Metrics) Suspect(device string, suspect bool) {
	m.devices.suspect.WithLabelValues(device).Set(truth(suspect))
}

// PolicyDenied counts a request that a rule refused.
func (m *Metrics) PolicyDenied(rule string) {
	m.devices.denials.WithLabelValues(m.devices.rules.value(rule)).Inc()
}

// AuditWriteFailed counts a journal entry that could not be written.
func (m *Metrics) AuditWriteFailed() { m.devices.auditFails.Inc() }

// StatusListAge has the age of a published list read whenever somebody scrapes;
// list is its name in the configuration.
func (m *Metrics) StatusListAge(list string, age func() time.Duration) error {
	return m.registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "status_list_age_seconds", Help: "Time since a list was signed.", ConstLabels: prometheus.Labels{"list": list},
	}, func() float64 { return age().Seconds() }))
}

// Gauge has a value read whenever somebody scrapes. name is without the prefix
// and ends in its unit.
func (m *Metrics) Gauge(name, help string, labels map[string]string, value func() float64) error {
	return m.registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help, ConstLabels: labels}, value))
}

// Counter returns a function that counts. name is without the prefix and ends
// in _total.
func (m *Metrics) Counter(name, help string, labels ...string) func(values ...string) {
	v := m.counterVec(name, help, labels...)
	return func(values ...string) { v.WithLabelValues(values...).Inc() }
}

// Histogram returns a function that takes durations. name is without the prefix
// and ends in _seconds.
func (m *Metrics) Histogram(name, help string, labels ...string) func(took time.Duration, values ...string) {
	v := m.histogramVec(name, help, labels...)
	return func(took time.Duration, values ...string) { v.WithLabelValues(values...).Observe(took.Seconds()) }
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// ResultOf is the class of an error for a label, as far as the context says.
func ResultOf(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return "ok"
	case ctx.Err() != nil:
		return "canceled"
	}
	return "error"
}
