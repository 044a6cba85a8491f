package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// prefix of every name of ours.
const prefix = "privyseal_"

// Metrics are the metrics of one process, in a registry of their own.
type Metrics struct {
	registry *prometheus.Registry

	httpRequests *prometheus.CounterVec
	httpDuration *prometheus.HistogramVec
	reloads      *prometheus.CounterVec
	devices      deviceMetrics
	service      serviceMetrics
	tracer       *Tracer
}

// BuildInfo says what the process was built from.
type BuildInfo struct{ Version, Revision, Go string }

// latency are the bounds of the histograms, in seconds: from what a software
// key takes to what a TPM under load does.
var latency = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// NewMetrics returns the metrics of a process that was built so.
func NewMetrics(b BuildInfo) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := m.gaugeVec("build_info", "What the process was built from; always 1.", "version", "revision", "go_version")
	info.WithLabelValues(b.Version, b.Revision, b.Go).Set(1)
	m.httpRequests = m.counterVec("http_requests_total", "Requests answered, by class of status.", "listener", "code")
	m.httpDuration = m.histogramVec("http_request_duration_seconds", "From the header of a request to the end of its answer.", "listener")
	m.reloads = m.counterVec("reloads_total", "Reloads of policy, trust and certificates.", "result")
	m.registerDevices()
	m.registerService()
	return m
}

// SetTracer has each request be a span, below that of its caller if it brings
// one (W3C Trace Context). It is called before the process serves.
func (m *Metrics) SetTracer(t *Tracer) { m.tracer = t }

// Tracer returns the tracer, which may be nil and is good to use then.
func (m *Metrics) Tracer() *Tracer { return m.tracer }

// Registry takes further collectors, whose names start with "privyseal_".
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Reloaded counts a reload.
func (m *Metrics) Reloaded(err error) { m.reloads.WithLabelValues(result(err)).Inc() }

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *Metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histogramVec(name, help string, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: latency}, labels)
	m.registry.MustRegister(v)
	return v
}
