package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serviceMetrics are those of the signing service and of publishing.
type serviceMetrics struct {
	requests    *prometheus.CounterVec
	requestTime *prometheus.HistogramVec
	stages      *prometheus.HistogramVec
	queues      *queues

	publications *prometheus.CounterVec
	waits        prometheus.Histogram
}

func (m *Metrics) registerService() {
	s := &m.service
	s.requests = m.counterVec("service_requests_total", "Requests of callers that came to an end; result is ok or the reason of the error.", "operation", "alg", "result")
	s.requestTime = m.histogramVec("service_request_duration_seconds", "Requests of callers, from their turn to their answer.", "operation")
	s.stages = m.histogramVec("service_stage_duration_seconds", "The parts of the way of a request.", "stage")
	s.queues = &queues{desc: prometheus.NewDesc(prefix+"queue_depth", "Requests that wait.", []string{"queue"}, nil)}
	s.publications = m.counterVec("publications_total", "Publications of revocations; late are attempts that failed beyond the bound.", "result")
	s.waits = prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + "publication_wait_seconds",
		Help: "From a revocation to its publication.", Buckets: publicationWaits})
	m.registry.MustRegister(s.queues, s.waits)
}

// publicationWaits are bounds in seconds: a publication is a matter of seconds,
// and late after a minute.
var publicationWaits = []float64{.25, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900}

// ServiceRequest counts and times a request of a caller. alg is "" where the
// key was not found, and result "ok" or a reason.
func (m *Metrics) ServiceRequest(operation, alg, result string, took time.Duration) {
	m.service.requests.WithLabelValues(operation, alg, result).Inc()
	m.service.requestTime.WithLabelValues(operation).Observe(took.Seconds())
}

// ServiceStage times a stage of a request.
func (m *Metrics) ServiceStage(stage string, took time.Duration) {
	m.service.stages.WithLabelValues(stage).Observe(took.Seconds())
}

// Published counts an attempt to publish: "ok", "error" or "late". waited is
// how long the first of the changes did; 0 where nothing had changed.
func (m *Metrics) Published(result string, waited time.Duration) {
	m.service.publications.WithLabelValues(result).Inc()
	if waited > 0 {
		m.service.waits.Observe(waited.Seconds())
	}
}

// Queues has load read whenever somebody scrapes: how many requests wait in
// each queue, by names that the configuration has.
func (m *Metrics) Queues(load func() map[string]int) {
	m.service.queues.mu.Lock()
	defer m.service.queues.mu.Unlock()
	m.service.queues.loads = append(m.service.queues.loads, load)
}

// queues collects the depths of all queues.
type queues struct {
	desc  *prometheus.Desc
	mu    sync.Mutex // guards loads
	loads []func() map[string]int
}

func (q *queues) Describe(out chan<- *prometheus.Desc) { out <- q.desc }

func (q *queues) Collect(out chan<- prometheus.Metric) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, load := range q.loads {
		for name, n := range load() {
			out <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, float64(n), name)
		}
	}
}
